"""Weights that are mostly zero: a bit for each, and the others: ``constexpr_sparse_to_dense``."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.extras import need

_ZEROS = 0.5
"""Share of them from which on a weight is stored so: of 16 bits each, 9 are left at most."""
_NUMBERS = 2048
"""Smaller weights are not worth an operation."""
_NOTHING = 1e-30
"""Below the smallest number of 16 bits: what is larger stays."""


def has_sparse_weights(module: GraphModule) -> bool:
    """Whether a graph has float weights that are worth it."""
    return any(
        weight.is_floating_point()
        and weight.numel() > _NUMBERS
        and float((weight == 0).double().mean()) >= _ZEROS
        for node in module.graph.find_nodes(op="get_attr")
        if any(u.target in g.LINEAR for u in node.users)
        for weight in [g.constant(module, node)]
    )


def with_sparse(model: Any) -> Any:
    """A converted model that stores them so: nothing is rounded."""
    optimize = need("coremltools.optimize.coreml", extra="coreml")
    every = optimize.OpThresholdPrunerConfig(
        threshold=_NOTHING, minimum_sparsity_percentile=_ZEROS, weight_threshold=_NUMBERS
    )
    return optimize.prune_weights(model, optimize.OptimizationConfig(global_config=every))
