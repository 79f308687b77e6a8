"""Scale reparameterization: a norm's channels get one range, centred, before they are rounded."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.quantize.algorithms.migrate import Stats, migrate
from edgemix.quantize.recipe import Recipe
from edgemix.seams import NORMS, seams


def reparam(module: GraphModule, stats: Stats, recipe: Recipe) -> int:
    """Shift and rescale every seam of views that a norm begins, in place; returns how many changed.

    Li et al., "RepQ-ViT: Scale Reparameterization for Post-Training Quantization of Vision
    Transformers", ICCV 2023, equations 8 to 12: a scale and a zero point for every channel after a
    LayerNorm become one of each, the differences going into the norm's gains and biases and the
    weights and biases of what reads it. Here the differences go as far as the weights gain by it.
    """
    count = 0
    for seam in seams(module):
        if seam.producer.target not in NORMS or not seam.moved_only:
            continue
        if any(reader.node.target not in g.LINEAR for reader in seam.readers):
            continue
        source: Node = seam.producer
        seen = stats.get(source.name)
        if seen is None or len(seen.lows) != seam.channels:
            continue
        count += migrate(module, seam, stats, recipe, (seen.lows + seen.highs) / 2)
    return count
