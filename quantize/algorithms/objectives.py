"""What a change of a layer's weights costs: second moments of its inputs, weighed by its use.

The error of a layer's outputs is tr(ΔW H ΔWᵀ) with H = E[x xᵀ] over its inputs. In attention, what
counts is not a query but its products with keys, and not a value but its mean under the attention
weights: tr(G ΔW H ΔWᵀ), with G = E[kᵀ k] for queries (and the reverse for keys), and H from the
mixed inputs for values. Kim et al., "Towards Next-Level Post-Training Quantization of Hyper-Scale
Transformers" (aespa), NeurIPS 2024, equations 9 to 14.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.quantize.columns import columns
from edgemix.quantize.draft import Draft
from edgemix.quantize.insert import Edge
from edgemix.quantize.simulate import RoundedConstant, Simulation

SAMPLES = 256


@dataclass(frozen=True)
class Objective:
    """One layer's weights as independent matrices, and the cost of changing them."""

    edge: Edge
    parts: int
    """Groups of a convolution or heads of attention: matrices [parts, rows, columns]."""
    inputs: Tensor
    """H, [parts, columns, columns]."""
    outputs: Tensor | None
    """G, [parts, rows, rows]; None for the identity."""

    def matrices(self, weight: Tensor) -> Tensor:
        """A weight [out, in / groups, ...] as [parts, rows, columns]."""
        return weight.reshape(self.parts, weight.shape[0] // self.parts, -1)

    def scaled(self) -> Objective:
        """The same with mean diagonals of 1, so that costs of layers compare."""
        outputs = None if self.outputs is None else _normal(self.outputs)
        return replace(self, inputs=_normal(self.inputs), outputs=outputs)

    def cost(self, change: Tensor) -> Tensor:
        """tr(G ΔW H ΔWᵀ) of a change [parts, rows, columns]."""
        moved = change @ self.inputs
        if self.outputs is not None:
            moved = self.outputs @ moved
        return (moved * change).sum()


def _normal(moment: Tensor) -> Tensor:
    return moment / moment.diagonal(dim1=1, dim2=2).mean().clamp(min=1e-12)


def polished(objective: Objective, constant: RoundedConstant, start: Tensor) -> Tensor:
    """A weight on its grid, from one that is on it: no single weight's move is left that pays.

    Exact minimization of tr(G ΔW H ΔWᵀ) in one weight after the other (of all rows at once where
    they do not matter to each other), as in Behdin et al., "QuantEase", 2023.
    """
    encoding = constant.encoding
    real = objective.matrices(constant.real).double()
    step = objective.matrices(encoding.steps(constant.real)).double()
    now = objective.matrices(start).double().clone()
    there = real != 0  # zeros that pruning made stay
    moment, use = objective.inputs.double(), objective.outputs
    rows = [slice(None)] if use is None else [slice(i, i + 1) for i in range(real.shape[1])]
    use = torch.eye(real.shape[1], dtype=torch.float64)[None] if use is None else use.double()
    for _ in range(_SWEEPS):
        before = now.clone()
        for j in range(real.shape[2]):
            own = moment[:, j, j, None].clamp(min=1e-12)
            for some in rows:
                # Half the slope in this column: (G ΔW H), of which each weight's own part is known.
                slope = ((now - real) @ moment[:, :, j, None])[..., 0]
                if len(rows) > 1:
                    slope = torch.einsum("prs,ps->pr", use[:, some], slope)
                    own = moment[:, j, j, None] * use.diagonal(dim1=1, dim2=2)[:, some]
                    own = own.clamp(min=1e-12)
                best = now[:, some, j] - slope / own
                s = step[:, some, j]
                best = torch.round(best / s).clamp(encoding.qmin, encoding.qmax) * s
                now[:, some, j] = torch.where(there[:, some, j], best, now[:, some, j])
        if torch.equal(now, before):
            break
    return now.reshape(constant.real.shape).to(constant.real.dtype)


_SWEEPS = 4


def reround(
    draft: Draft, samples: Tensor, how: Callable[[Objective, RoundedConstant], Tensor],
    on_step: Callable[[float], None], *, attention: bool,
) -> Draft:  # fmt: skip
    """The draft with every layer's weights rounded anew.

    Args:
        draft: any; of weights that were rounded before, the real ones are rounded again.
        samples: inputs [n, ...].
        how: a weight on its grid, for an objective.
        on_step: called with the share that is done.
        attention: weigh queries, keys and values by their use.
    """
    simulation = draft.simulate()
    found = list(objectives(simulation, samples, attention=attention))
    for i, objective in enumerate(found):
        constant = simulation.constants[objective.edge]
        constant.set(polished(objective, constant, how(objective, constant)))
        on_step((i + 1) / len(found))
    return draft.updated(simulation)


def objectives(simulation: Simulation, samples: Tensor, *, attention: bool) -> Iterator[Objective]:
    """Of every layer whose weights are quantized, from what it reads in the simulation.

    Args:
        simulation: as quantized as it is.
        samples: inputs [n, ...]; the first 256 are used.
        attention: weigh queries, keys and values by their use.
    """
    layers = {
        edge[0]: edge
        for edge in simulation.constants
        if simulation.nodes[edge[0]].target in g.LINEAR and edge in simulation.plan.constants
    }
    roles = dict(_roles(simulation)) if attention else {}
    uses = {product.name for _, product in roles.values()}
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    for reads in simulation.reads(samples[:SAMPLES], {*layers, *uses}):
        for name in layers:
            node, x = simulation.nodes[name], reads[name][0]
            role = roles.get(name)
            if role is not None and role[0] == "value":
                moment = _mixed(x, reads[role[1].name][0])
            else:
                moment = _second_moment(node, x)
                if role is not None:
                    other = reads[role[1].name][1 if role[0] == "query" else 0]
                    if role[0] == "query":
                        other = other.transpose(-1, -2)
                    heads = other.flatten(0, -4) if other.ndim > 4 else other
                    weighed = torch.einsum("nhtd,nhte->hde", heads, heads)
                    outputs[name] = outputs.get(name, torch.zeros(())) + weighed
            inputs[name] = inputs.get(name, torch.zeros(())) + moment
    for name, edge in layers.items():
        parts = len(inputs[name])
        weighed_by = outputs.get(name)
        if weighed_by is not None:
            parts = len(weighed_by)
            inputs[name] = inputs[name].expand(parts, -1, -1)
        yield Objective(edge, parts, inputs[name], weighed_by)


def _second_moment(node: Node, x: Tensor) -> Tensor:
    """Sum of x xᵀ over samples and positions, [groups, columns, columns]."""
    if node.target is aten.linear.default:
        rows = x.reshape(-1, x.shape[-1])
        return (rows.T @ rows)[None]
    moment = torch.zeros(())
    for part in columns(node, x):
        moment = moment + torch.einsum("ngcl,ngdl->gcd", part, part)
    return moment


def _mixed(x: Tensor, weights: Tensor) -> Tensor:
    """Second moment of the inputs [n, t, c], averaged by attention weights [n, heads, q, t]."""
    mixed = torch.einsum("nhqt,ntc->nhqc", weights, x)
    return torch.einsum("nhqc,nhqd->hcd", mixed, mixed)


def _roles(simulation: Simulation) -> Iterator[tuple[str, tuple[str, Node]]]:
    """What makes queries, keys or values of attention, with the product that reads them."""
    for softmax in simulation.module.graph.find_nodes(op="call_function", target=aten.softmax.int):
        scores = _behind(softmax.args[0])
        readers = [n for n in simulation.module.graph.nodes if n.target is aten.matmul.default]
        mixing = [n for n in readers if _behind(n.args[0]) is softmax]
        if scores.target is not aten.matmul.default or len(mixing) != 1:
            continue
        q, k = (_behind(a, views=True) for a in scores.args[:2])
        v = _behind(mixing[0].args[1], views=True)
        if len({q, k, v}) < 3:
            continue  # one operator for all: its weights have no single use
        for name, node, product in (
            ("query", q, scores),
            ("key", k, scores),
            ("value", v, mixing[0]),
        ):
            heads = scores.meta["val"].ndim == 4 and node.target is aten.linear.default
            if heads and len(g.shape_of(node)) == 3:
                yield node.name, (name, product)


def _behind(node: Any, *, views: bool = False) -> Node:
    """What computes a value, behind its roundings and, if asked, views."""
    while node.op == "call_module" or (views and node.target in g.VIEW):
        node = node.args[0]
    assert isinstance(node, Node)
    return node
