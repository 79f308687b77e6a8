"""Where in a TOML file each key stands: ``tomllib`` gives values alone."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

Key = tuple[str | int, ...]
"""From the top: keys of tables, and places in arrays."""

_BARE_END = " \t\r\n=.],#}"
_VALUE_END = ",]}\r\n#"
_SPACE = " \t"
_BLANK = " \t\r\n"


def lines(text: str) -> dict[Key, int]:
    """The line, from 1, of every table, key and array element of a text that is TOML."""
    return dict(reversed(list(_Scanner(text).all())))  # the first mention counts


def nearest(known: dict[Key, int], path: Key) -> int:
    """The line of a path, or of the longest part of it that stands in the file; else 1."""
    parts = (path[:length] for length in range(len(path), 0, -1))
    return next((known[part] for part in parts if part in known), 1)


class _Scanner:
    """Goes through a text once; that it is TOML has been checked."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.counts: dict[Key, int] = {}
        """How many tables each array of tables has so far."""

    def all(self) -> Iterator[tuple[Key, int]]:
        """Keys in the order of the file, each with its line."""
        table: Key = ()
        while self._skip(_BLANK):
            if self._peek() == "[":
                table = self._header()
                yield table, self._line()
            else:
                yield from self._pair(table)

    def _header(self) -> Key:
        many = self.text.startswith("[[", self.at)
        self.at += 1 + many
        keys = self._keys()
        self.at += 1 + many
        path: Key = ()
        for i, key in enumerate(keys):
            path = (*path, key)
            if many and i == len(keys) - 1:
                self.counts[path] = self.counts.get(path, 0) + 1
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
        return path

    def _keys(self) -> tuple[str, ...]:
        """A dotted key; stands behind it and its blanks."""
        found = []
        while True:
            self._skip(_SPACE)
            start = self.at
            if self._peek() in "\"'":
                self._string()
            else:
                while self._peek() not in _BARE_END:
                    self.at += 1
            found.append(next(iter(tomllib.loads(f"{self.text[start : self.at]} = 0"))))
            self._skip(_SPACE)
            if self._peek() != ".":
                return tuple(found)
            self.at += 1

    def _pair(self, table: Key) -> Iterator[tuple[Key, int]]:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            yield path, line
        self.at += 1  # the equals sign
        yield from self._value(path)

    def _value(self, path: Key) -> Iterator[tuple[Key, int]]:
        self._skip(_SPACE)
        first = self._peek()
        if first in "[{":
            self.at += 1
            number = 0
            while self._skip(_BLANK + ",") and self._peek() not in "]}":
                if first == "[":
                    yield (*path, number), self._line()
                    yield from self._value((*path, number))
                    number += 1
                else:
                    yield from self._pair(path)
            self.at += 1
        elif first in "\"'":
            self._string()
        else:
            while self.at < len(self.text) and self._peek() not in _VALUE_END:
                self.at += 1

    def _string(self) -> None:
        """Any of the four kinds."""
        quote = self._peek()
        end = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(end)
        while not self.text.startswith(end, self.at):
            self.at += 2 if quote == '"' and self._peek() == "\\" else 1
        self.at += len(end)
        while len(end) == 3 and self._peek() == quote:  # quotes just before the closing ones
            self.at += 1

    def _skip(self, blanks: str) -> bool:
        """Past blanks and comments; whether anything follows."""
        while self.at < len(self.text):
            if self._peek() == "#" and "\n" in blanks:
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self._peek() in blanks:
                self.at += 1
            else:
                return True
        return False

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1] or "\n"

    def _line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1
