"""Networks and modules of ours as NIR graphs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.extras import need
from edgemix.models.spiking.neurons import LIF, LeakyIntegrator
from edgemix.nir.network import Network
from edgemix.streaming.forms import Chain, Pointwise

DT = 1e-4
"""Seconds that one of our steps stands for; NIR wants some."""


def to_nir(module: nn.Module) -> Any:
    """The NIR graph of a network that was read, or of a chain of linear maps and LIF neurons.

    A network gives back the graph that it was read from, node by node and in the same order. Our
    neurons are those of the dialect ``dt=1e-4``, at ``ge``, reset ``after`` the spike; whether by
    subtraction or to zero NIR cannot say.

    Raises:
        InputError: NIR has no node for a part of it.
    """
    nir = need("nir", extra="nir")
    if isinstance(module, Network):
        # Made anew: what reading lost would be missing in it.
        return nir.NIRGraph.from_dict(module.graph.to_dict())
    if not isinstance(module, Chain):
        raise InputError(
            f"NIR has no graph for {type(module).__name__}",
            do="write a chain of linear layers and LIF neurons, or a network that was read",
        )
    nodes: dict[str, Any] = {}
    for i, part in enumerate(module.parts):
        node = _node(nir, part.module if isinstance(part, Pointwise) else part)
        if not nodes:
            nodes["input"] = nir.Input(input_type={"input": np.array([_width(node, -1)])})
        nodes[str(i)] = node
    last = _width(list(nodes.values())[-1], 0)
    nodes["output"] = nir.Output(output_type={"output": np.array([last])})
    return nir.NIRGraph(nodes=nodes, edges=list(pairwise(nodes)))


def _width(node: Any, axis: int) -> int:
    """How many values a node takes (the last axis of its weights) or gives (the first)."""
    array: Any = node.weight if hasattr(node, "weight") else node.r
    return int(np.shape(array)[axis])


def _node(nir: Any, module: nn.Module) -> Any:
    if isinstance(module, nn.Linear):
        weight = _array(module.weight)
        if module.bias is None:
            return nir.Linear(weight=weight)
        return nir.Affine(weight=weight, bias=_array(module.bias))
    if isinstance(module, (LIF, LeakyIntegrator)):
        leak, shape = module.leak, module.shape
        full = {"r": np.full(shape, 1.0 / leak if leak else 1.0 / DT)}
        if leak:
            full |= {"tau": np.full(shape, DT / leak), "v_leak": np.zeros(shape)}
        if isinstance(module, LIF):
            full |= {"v_threshold": np.full(shape, module.threshold), "v_reset": np.zeros(shape)}
            return nir.LIF(**full) if leak else nir.IF(**full)
        return nir.LI(**full) if leak else nir.I(**full)
    raise InputError(f"NIR has no node for {type(module).__name__}")


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().numpy().copy()
