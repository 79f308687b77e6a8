"""Where the keys of a TOML file stand, held against what tomllib reads."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from edgemix.deployment.lines import Key, lines, nearest

HARD = '''# model = "no: a comment"
title = "a # is no comment, [nor] = a key" # source = 1

[model]          # [data] is not here
source = 'C:\\path\\"x'
text = """
[budget]
onnx = "1ms"
# size = 3 \\""" still inside""""
raw = \'\'\'
key = 1
\'\'\'
  dotted.deep."quoted.key" = 1
  dotted . deep . other = 2

[budget]
"iphone 12" = "2ms"
rtl.dsp = 100
contract = { onnx = "exact", tflite = 'lsb:1' }

["a.b".c]
list = [
  1, # first
  "two]",
  [3, { x = 4 }],

  1979-05-27 07:32:00,
]
empty = []
nothing = {}

[[search.variants]]
source = "one"
[search.variants.extra]
deep = 1
[[search.variants]]

source = "two"
[search.variants.extra]
deep = 2
'''


def paths(value: Any, at: Key = ()) -> set[Key]:
    """Every path in what tomllib read."""
    if isinstance(value, dict):
        inner = [paths(v, (*at, k)) for k, v in value.items()]
    elif isinstance(value, list):
        inner = [paths(v, (*at, i)) for i, v in enumerate(value)]
    else:
        inner = []
    return {at, *(p for found in inner for p in found)} - {()}


@pytest.mark.parametrize("end", ["\n", ""])
def test_every_key_is_found_and_nothing_else(end: str) -> None:
    text = HARD.removesuffix("\n") + end
    found = lines(text)
    read = paths(tomllib.loads(text))
    assert set(found) <= read
    # A header names only its last key; those before it need no line of their own.
    assert read - set(found) == {("a.b",), ("search",), ("search", "variants")}


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("title",), 2),
        (("model",), 4),
        (("model", "source"), 5),
        (("model", "raw"), 10),
        (("model", "dotted", "deep", "quoted.key"), 13),
        (("model", "dotted", "deep", "other"), 14),
        (("budget",), 16),
        (("budget", "iphone 12"), 17),
        (("budget", "rtl", "dsp"), 18),
        (("budget", "contract", "tflite"), 19),
        (("a.b", "c", "list", 0), 23),
        (("a.b", "c", "list", 2, 1, "x"), 25),
        (("a.b", "c", "list", 3), 27),
        (("a.b", "c", "nothing"), 30),
        (("search", "variants", 0, "source"), 33),
        (("search", "variants", 0, "extra", "deep"), 35),
        (("search", "variants", 1), 36),
        (("search", "variants", 1, "source"), 38),
        (("search", "variants", 1, "extra", "deep"), 40),
        (("search", "variants", 1, "missing"), 36),
        (("budget", "contract", "coreml"), 19),
        (("nowhere", "at", "all"), 1),
    ],
)
def test_lines(key: Key, line: int) -> None:
    assert nearest(lines(HARD), key) == line


def test_an_empty_file_has_no_lines() -> None:
    assert lines("") == lines("# nothing\n") == {}
