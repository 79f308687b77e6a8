"""Bias correction: what quantization adds to a channel on average is taken off its bias."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgemix import graph as g
from edgemix.quantize.draft import Draft
from edgemix.quantize.insert import Edge
from edgemix.quantize.simulate import Simulation

SAMPLES = 128


def correct_biases(
    draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None
) -> Draft:
    """The draft with every bias shifted by the mean error of its layer's outputs.

    Nagel et al., ICCV 2019, section 4.2, from data: layer after layer in the graph's order, each
    seeing the corrections before it.

    Args:
        draft: any.
        samples: inputs [n, ...]; the first 128 are used.
        on_step: called with the share that is done.
    """
    simulation = draft.simulate()
    x = samples[:SAMPLES]
    edges = {e[0]: e for e in simulation.constants if _is_bias(simulation, e)}
    with simulation.only():
        expected = _means(simulation, x, set(edges))
    for i, (name, edge) in enumerate(edges.items()):
        found = _means(simulation, x, {name})[name]
        constant = simulation.constants[edge]
        constant.set(constant.value + (expected[name] - found).to(constant.value.dtype))
        on_step((i + 1) / len(edges))
    return draft.updated(simulation)


def _is_bias(simulation: Simulation, edge: Edge) -> bool:
    node = simulation.nodes[edge[0]]
    return node.target in g.LINEAR and simulation.constants[edge].encoding.dtype == "int32"


def _means(simulation: Simulation, x: Tensor, names: set[str]) -> dict[str, Tensor]:
    """Mean of every channel of linear operators' results over samples and positions."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for reads in simulation.reads(x, names):
        for name, args in reads.items():
            node = simulation.nodes[name]
            assert callable(node.target)
            rest = node.args[len(args) :]
            value = node.target(*args, *rest)
            axis = 1 if node.target in g.CONVOLUTION else value.ndim - 1
            others = [d for d in range(value.ndim) if d != axis]
            mean = value.double().mean(others) * len(value)
            sums[name] = sums.get(name, torch.zeros(())) + mean
            counts[name] = counts.get(name, 0) + len(value)
    return {name: total / counts[name] for name, total in sums.items()}
