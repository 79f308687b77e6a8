"""Palettes: weights that take few values, chosen for each tensor by k-means.

The program's weights become these values and stay float, so every target computes with the same
ones; a target that stores palettes finds them by counting.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.quantize.recipe import Recipe

_ROUNDS = 100
_BINS = 2048


def palettized(module: GraphModule, recipe: Recipe) -> None:
    """Replace the weights of linear operators that the recipe gives a palette, in place."""
    for node in list(module.graph.nodes):
        if node.target not in g.LINEAR:
            continue
        weight, bits = node.args[1], recipe.palette_bits(g.where(node), g.op_name(node))
        if bits is None or not isinstance(weight, Node) or weight.op != "get_attr":
            continue
        real = g.constant(module, weight)
        chosen = g.add_constant(module, node, f"{weight.name}_palette", nearest_of_few(real, bits))
        node.replace_input_with(weight, chosen)
    module.graph.eliminate_dead_code()


def nearest_of_few(values: Tensor, bits: int) -> Tensor:
    """``values``, each replaced by the nearest of at most 2**bits values.

    Lloyd's algorithm in one dimension, with float16 values: what is chosen has the same bits
    wherever it is stored. It starts as dense as the cube root of the values' density, which is best
    for many (Panter and Dite, "Quantization distortion in pulse-count modulation", 1951). Tensors
    with no more values of their own keep those.
    """
    ordered = values.flatten().double().sort().values
    own = torch.unique(ordered.to(torch.float16))
    if len(own) <= 2**bits:
        return values.to(torch.float16).to(values.dtype)
    gone = values == 0
    if bool(gone.any()):  # zeros that pruning made stay: they take one of the values
        return torch.where(gone, 0.0, _nearest(values, ordered[ordered != 0], 2**bits - 1))
    return _nearest(values, ordered, 2**bits)


def _nearest(values: Tensor, ordered: Tensor, count: int) -> Tensor:
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), ordered.cumsum(0)])
    centres = _dense(ordered, count)
    for _ in range(_ROUNDS):
        borders = torch.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        ends = torch.cat([torch.tensor([0]), borders, torch.tensor([len(ordered)])])
        counts = ends.diff()
        means = sums[ends].diff() / counts.clamp(min=1)
        moved = torch.where(counts > 0, means, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    table = torch.unique(centres.to(torch.float16)).to(values.dtype)
    chosen = torch.bucketize(values, (table[1:] + table[:-1]) / 2)
    found: Tensor = table[chosen]
    return found


def _dense(ordered: Tensor, count: int) -> Tensor:
    """Where to start: as many values [count], by the cube root of the density."""
    low, high = ordered[0], ordered[-1]
    bins = (high - low) / _BINS
    counts = torch.histc(ordered, _BINS, float(low), float(high))
    grown = counts.pow(1 / 3).cumsum(0)
    wanted = (torch.arange(count, dtype=torch.float64) + 0.5) / count * grown[-1]
    found: Tensor = torch.unique(low + (torch.searchsorted(grown, wanted) + 0.5) * bins)
    return found
