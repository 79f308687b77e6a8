"""Nested widths of one checkpoint: members of a family share ranges, and so scales and codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.fx import Node

from edgemix import graph as g
from edgemix.program import Program
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.observers import TensorStats
from edgemix.quantize.prune.axes import Axes, Units
from edgemix.quantize.prune.cut import Keep


def inherited(
    calibration: Calibration, whole: Program, member: Program, units: Units, keep: Keep
) -> Calibration:
    """What the whole model's calibration says of a member's values: no data is run.

    A member whose weights are the whole one's (MatFormer: Devvrit et al., NeurIPS 2024) is then
    quantized with its scales too, and what both hold has the same codes.

    Args:
        calibration: of the whole program.
        whole: before pruning.
        member: after it: the same operators.
        units: of the whole program.
        keep: which of them the member has.
    """
    pairs = zip(_values(whole), _values(member), strict=True)
    stats = {
        new.name: _left(calibration.stats[old.name], old, units.axes[old.name], keep)
        for old, new in pairs
        if old.name in calibration.stats
    }
    return Calibration(member.digest, calibration.data, stats)


def _values(program: Program) -> list[Node]:
    return [n for n in program.shared.graph.nodes if n.op in ("placeholder", "call_function")]


def _left(stats: TensorStats, node: Node, axes: Axes, keep: Keep) -> TensorStats:
    """Limits of the channels that stay; the histogram is that of all."""
    count = len(stats.lows)
    own = [d for d, axis in enumerate(axes) if len(axis) == count and not keep[axis].all()]
    if count < 2 or not own:
        return stats
    dim = g.channel_axis(node) if g.channel_axis(node) in own else own[0]
    stays = torch.from_numpy(np.flatnonzero(keep[axes[dim]]))
    return replace(stats, lows=stats.lows[stays], highs=stats.highs[stays])
