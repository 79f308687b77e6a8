"""Targets: how a quantized program becomes an artifact, runs there, and is read back."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

if __name__ != "edgemix.targets":
    raise ImportError(f"import edgemix.targets, not {__name__}")

from edgemix.errors import InputError

if TYPE_CHECKING:
    from edgemix.targets.base import Target


def _onnx() -> Target:
    from edgemix.targets.onnx.target import Onnx

    return Onnx()


def _tflite() -> Target:
    from edgemix.targets.tflite.target import TFLite

    return TFLite()


def _coreml() -> Target:
    from edgemix.targets.coreml.target import CoreML

    return CoreML()


def _hls4ml() -> Target:
    from edgemix.targets.hls4ml.target import Hls4ml

    return Hls4ml()


TARGETS: dict[str, Callable[[], Target]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "coreml": _coreml,
    "hls4ml": _hls4ml,
}


def load(name: str) -> Target:
    """A target by name.

    Raises:
        InputError: there is none of this name; near names are given.
    """
    if name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"there is no target {name}", do=f"{hint}targets: {', '.join(TARGETS)}")
    return TARGETS[name]()
