"""Reuse factor and strategy of every layer: what was asked for, as near as hls4ml can build it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgemix.graph import Where
from edgemix.targets.fpga.hardware import Hardware, Strategy

_WRITTEN: dict[Strategy, str] = {
    "latency": "Latency",
    "resource": "Resource",
    "distributed_arithmetic": "distributed_arithmetic",
}
_MATRICES = {"Dense", "Conv1D", "Conv2D"}


@dataclass(frozen=True)
class Knobs:
    """How one layer is built."""

    reuse: int
    strategy: Strategy
    note: str | None = None
    """Why it is not built as asked for; None where it is."""

    @property
    def config(self) -> dict[str, Any]:
        """The layer's entries of hls4ml's configuration."""
        return {"ReuseFactor": self.reuse, "Strategy": _WRITTEN[self.strategy]}


def knobs(hardware: Hardware, layer: Mapping[str, Any], origin: Where) -> Knobs:
    """The knobs of one layer of the list.

    hls4ml has no resource strategy for depthwise convolutions, its distributed arithmetic reuses
    nothing, and its resource kernels work with some reuse factors only; it corrects those of some
    layers, but not of pointwise convolutions.
    """
    reuse, strategy = hardware.knobs(origin.node, origin.module or "")
    kind = layer["class_name"]
    if kind not in _MATRICES:
        asked = strategy if kind == "DepthwiseConv2D" else "latency"
        note = None if asked == "latency" else f"depthwise convolutions have no strategy {asked}"
        return Knobs(reuse, "latency", note)
    if strategy == "distributed_arithmetic":
        note = None if reuse == 1 else f"distributed arithmetic has nothing to reuse {reuse} times"
        return Knobs(1, strategy, note)
    if strategy == "resource":
        inputs, outputs = _matrix(layer)
        nearest = nearest_reuse(reuse, inputs, outputs, beyond_inputs=kind == "Dense")
        note = f"a matrix of {inputs} × {outputs} has no reuse factor {reuse}, the nearest is"
        return Knobs(nearest, strategy, None if nearest == reuse else f"{note} {nearest}")
    return Knobs(reuse, strategy)


def nearest_reuse(asked: int, inputs: int, outputs: int, *, beyond_inputs: bool) -> int:
    """The reuse factor next to ``asked`` with which hls4ml's resource kernels are right.

    Every multiplier serves whole outputs or whole inputs, equally often (the assertions in hls4ml's
    ``nnet_dense_resource.h`` and ``nnet_conv1d_resource.h``).

    Args:
        asked: the wanted factor.
        inputs: rows of the matrix.
        outputs: its columns.
        beyond_inputs: whether the kernel takes factors larger than ``inputs``.
    """
    limit = inputs * outputs if beyond_inputs else inputs
    valid = [r for r in range(1, limit + 1) if _is_valid(r, inputs, outputs)]
    return min(valid, key=lambda r: (abs(r - asked), r))


def _is_valid(reuse: int, inputs: int, outputs: int) -> bool:
    multipliers = math.ceil(inputs * outputs / min(inputs, reuse))
    whole = multipliers % outputs == 0 or reuse >= inputs
    return whole and (reuse % inputs == 0 or reuse < inputs) and inputs * outputs % reuse == 0


def _matrix(layer: Mapping[str, Any]) -> tuple[int, int]:
    if layer["class_name"] == "Dense":
        return layer["n_in"], layer["n_out"]
    window = layer.get("filt_height", 1) * layer["filt_width"]
    return window * layer["n_chan"], layer["n_filt"]
