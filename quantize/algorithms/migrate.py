"""How far to move a channel's size from values into weights: the noise that a seam's readers see.

Shared by equalization, smoothing and reparameterization, which differ in what they apply it to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.quantize.observers import TensorStats
from edgemix.quantize.recipe import Recipe
from edgemix.seams import Seam, divide, is_depthwise

Stats = dict[str, TensorStats]
SHARES = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75)
"""How much of a channel's size goes into the weights: 0 leaves it. 1 would make all channels alike;
but then each of them would leave the range where its own few samples were small."""
_WORTH = 0.98
_PEAK_TO_RMS = 3.0


@dataclass(frozen=True)
class _Fed:
    """A reader as the noise model sees it."""

    weight: Tensor
    """[outputs, channels], magnitudes summed over the kernel as squares."""
    peaks: Tensor
    """Largest magnitude of every weight row's channel, [outputs, channels]."""
    low: Tensor
    high: Tensor
    degree: int
    rows_alone: bool
    """Every output reads one channel: its weights' scale takes any factor."""


def migrate(
    module: GraphModule, seam: Seam, stats: Stats, recipe: Recipe, shift: Tensor | None = None
) -> bool:
    """Rescale a seam's channels if its readers gain by it; whether they do.

    The noise at a reader's outputs has two parts, both of a rounding's Δ²/12: of the values, with
    one step for all channels, and of the weights, with one step for every output. Scales are
    s = peak(x)^share / peak(W)^(1 − share), as SmoothQuant's, for the share with the least noise.

    Args:
        module: the graph, changed in place.
        seam: one of its.
        stats: of its values; those of the seam are brought up to date.
        recipe: the bits.
        shift: taken from the channels too; None for none.
    """
    fed = _fed(module, seam, stats)
    if fed is None:
        return False
    at, op = g.where(seam.producer), g.op_name(seam.producer)
    values, weights = recipe.activation_rule(at, op), recipe.weight_rule(at, op)
    if values is None or weights is None:
        return False
    operand = recipe.operand_rule(at, op)
    bits = (values if operand is None else operand).bits, weights.bits
    start = _noise(fed, torch.ones(seam.channels), torch.zeros(seam.channels), bits)
    moved = torch.zeros(seam.channels) if shift is None else shift
    best, least = torch.ones(seam.channels), _noise(fed, torch.ones(seam.channels), moved, bits)
    for share in SHARES[1:]:
        scale = _scale(fed, moved, share)
        noise = _noise(fed, scale, moved, bits)
        if noise < least:
            best, least = scale, noise
    if not least < _WORTH * start:
        return False
    divide(module, seam, best, shift)
    for node, degree in ((seam.producer, 1), *seam.between):
        old = stats.get(node.name)
        if old is not None and len(old.lows) == seam.channels:
            by = best**degree
            lows, highs = (old.lows - moved) / by, (old.highs - moved) / by
            stats[node.name] = replace(old, lows=lows, highs=highs)
    return True


def _fed(module: GraphModule, seam: Seam, stats: Stats) -> list[_Fed] | None:
    found = []
    for reader in seam.readers:
        source = reader.node.args[0]
        if reader.node.target is aten.mul.Tensor:
            continue  # a constant per channel takes any factor as it is
        assert isinstance(source, Node)
        seen = stats.get(g.reordered(source).name)
        if seen is None or len(seen.lows) != seam.channels:
            return None
        weight = g.constant(module, reader.node.args[1])  # type: ignore[arg-type]
        alone = is_depthwise(reader.node)
        rows = weight.flatten(2) if weight.ndim > 2 else weight[..., None]
        if alone:
            rows = rows.transpose(0, 1)
        found.append(
            _Fed(
                rows.double().square().sum(2).sqrt(), rows.abs().amax(2).double(),
                seen.lows.double(), seen.highs.double(), reader.degree, alone,
            )
        )  # fmt: skip
    return found or None


def _scale(fed: list[_Fed], shift: Tensor, share: float) -> Tensor:
    value = torch.stack(
        [
            torch.maximum((f.low - shift).abs(), (f.high - shift).abs()) ** (1 / f.degree)
            for f in fed
        ]
    ).amax(0)
    weight = torch.stack([f.peaks.amax(0) ** (1 / f.degree) for f in fed]).amax(0)
    alive = (value > 1e-6 * value.max()) & (weight > 1e-6 * weight.max())
    scale = value.clamp(min=1e-12) ** share / weight.clamp(min=1e-12) ** (1.0 - share)
    # What never moves, or is never read, stays as it is among the others.
    middle = scale[alive].log().mean().exp() if bool(alive.any()) else torch.tensor(1.0)
    scale = torch.where(alive, scale / middle, 1.0).clamp(1e-3, 1e3)
    return scale.float()


def _noise(fed: list[_Fed], scale: Tensor, shift: Tensor, bits: tuple[int, int]) -> float:
    total = 0.0
    for f in fed:
        by = scale.double() ** f.degree
        low, high = (f.low - shift) / by, (f.high - shift) / by
        span = float(high.max().clamp(min=0) - low.min().clamp(max=0))
        step = span / (2 ** bits[0] - 1)
        noise = step**2 * float((f.weight * by).square().sum())
        if not f.rows_alone:
            steps = (f.peaks * by).amax(1) / (2 ** (bits[1] - 1) - 1)
            power = float((torch.maximum(low.abs(), high.abs()) / _PEAK_TO_RMS).square().sum())
            noise += float(steps.square().sum()) * power
        total += noise
    return total
