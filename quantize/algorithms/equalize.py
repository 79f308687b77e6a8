"""Cross-layer equalization: channels between two linear operators brought to like sizes."""

from __future__ import annotations

from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.quantize.algorithms.migrate import Stats, migrate
from edgemix.quantize.recipe import Recipe
from edgemix.seams import seams


def equalize(module: GraphModule, stats: Stats, recipe: Recipe) -> int:
    """Rescale every seam that a linear operator begins, in place; returns how many changed.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
    2019, section 4.1; with the values' sizes too, since weights have a scale for every channel.
    """
    found = [s for s in seams(module) if s.producer.target in g.LINEAR]
    return sum(migrate(module, seam, stats, recipe) for seam in found)
