"""Smoothing: outlier channels of a norm's result go into the weights that read it."""

from __future__ import annotations

from torch.fx import GraphModule

from edgemix.quantize.algorithms.migrate import Stats, migrate
from edgemix.quantize.recipe import Recipe
from edgemix.seams import NORMS, seams


def smooth(module: GraphModule, stats: Stats, recipe: Recipe) -> int:
    """Rescale every seam that a norm begins, in place; returns how many changed.

    Xiao et al., "SmoothQuant", ICML 2023, equation 4; the share is chosen for each norm by the
    noise that its readers would see.
    """
    found = [s for s in seams(module) if s.producer.target in NORMS]
    return sum(migrate(module, seam, stats, recipe) for seam in found)
