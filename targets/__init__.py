"""Targets: how a quantized program becomes an artifact, runs there, and is read back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if __name__ != "edgemix.targets":
    raise ImportError(f"import edgemix.targets, not {__name__}")

from edgemix import nursery
from edgemix.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from edgemix.targets.base import Target
    from edgemix.targets.coreml.shipping import Shipping
    from edgemix.targets.fpga.hardware import Hardware


def _onnx(_: Hardware, __: Shipping) -> Target:
    from edgemix.targets.onnx.target import Onnx

    return Onnx()


def _tflite(_: Hardware, __: Shipping) -> Target:
    from edgemix.targets.tflite.target import TFLite

    return TFLite()


def _coreml(_: Hardware, shipping: Shipping) -> Target:
    from edgemix.targets.coreml.target import CoreML

    return CoreML(shipping)


def _coreai(_: Hardware, __: Shipping) -> Target:
    from edgemix.targets.coreai.target import CoreAI

    return CoreAI()


def _hls4ml(hardware: Hardware, _: Shipping) -> Target:
    from edgemix.targets.hls4ml.target import Hls4ml

    return Hls4ml(hardware)


def _rtl(hardware: Hardware, _: Shipping) -> Target:
    from edgemix.targets.rtl.target import Rtl

    return Rtl(hardware)


TARGETS: dict[str, Callable[[Hardware, Shipping], Target]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "coreml": _coreml,
    "coreai": _coreai,
    "hls4ml": _hls4ml,
    "rtl": _rtl,
}

FLEXIBLE = ("coreml",)
"""Those whose artifacts take further input shapes."""
FPGA = ("hls4ml", "rtl")
"""Those that take a Hardware and resources of a part."""


def load(name: str, hardware: Hardware | None = None, shipping: Shipping | None = None) -> Target:
    """A target by name.

    Args:
        name: a key of ``TARGETS``.
        hardware: part, clock and parallelism, where the target is an FPGA.
        shipping: images, batch sizes and metadata, where apps load it.

    Raises:
        InputError: there is none of this name; near names are given.
    """
    if name not in TARGETS:
        near = did_you_mean(name, TARGETS)
        raise InputError(f"there is no target {name}", do=f"{near}targets: {', '.join(TARGETS)}")
    from edgemix.targets.coreml.shipping import Shipping
    from edgemix.targets.fpga.hardware import Hardware

    return TARGETS[name](hardware or Hardware(), shipping or Shipping())


def prepare(names: Iterable[str]) -> None:
    """Let the converters of some targets be imported now, beside whatever goes on; no waiting."""
    nursery.prepare([f"edgemix.targets.{name}" for name in names])
