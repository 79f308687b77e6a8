"""Every error that a user can meet, and the exit code it ends a command with.

    EdgemixError              exit code 2
      InputError              a file, option, shape or value that the user gave
      UnsupportedError        a node that a target cannot take; carries the findings
      ToolError               a converter, compiler or runtime that failed or crashed

A message says what happened, where (node, module path, file:line) and what to do. A gate that
was missed (budget, fidelity, precision) is no error: it is a verdict, and the exit code is 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LOG = "  | "
"""Before every line of a tool's own log in a message."""

EXIT_OK = 0
EXIT_GATE = 1
EXIT_INPUT = 2


def did_you_mean(wanted: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """How a remedy begins where something known is spelled alike: ``did you mean a, b? ``.

    Args:
        wanted: what the user wrote.
        known: what there is.
        most: names to show.
        cutoff: how alike they are at least, from 0 to 1.

    Returns:
        Empty where nothing is.
    """
    near = difflib.get_close_matches(wanted, list(known), n=most, cutoff=cutoff)
    return f"did you mean {', '.join(near)}? " if near else ""


class EdgemixError(Exception):
    """Base of all errors with a message meant for the user."""

    def __init__(self, what: str, *, at: str | None = None, do: str | None = None) -> None:
        self.what = what
        self.at = at
        self.do = do
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole message, one part a line."""
        parts = [self.what]
        if self.at:
            parts.append(f"  at: {self.at}")
        if self.do:
            parts.append(f"  try: {self.do}")
        return "\n".join(parts)

    @property
    def reason(self) -> str:
        """The message in one line, for a record: of a tool's log its last line alone."""
        lines = self.message.splitlines()
        log = [line for line in lines if line.startswith(LOG)]
        kept = [line for line in lines if not line.startswith(LOG) or line is log[-1]]
        return "; ".join(line.removeprefix(LOG).strip() for line in kept if line.strip(" |"))


class InputError(EdgemixError):
    """What the user gave cannot be used."""


class UnsupportedError(EdgemixError):
    """A target or a recipe cannot take a part of the program."""


class ToolError(EdgemixError):
    """A third-party converter, compiler or runtime failed."""
