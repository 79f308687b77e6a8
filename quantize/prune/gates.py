"""Gates: a factor for each unit, where a graph reads it.

With gates of zero and one this is the masked model: the same numbers as with the units cut out, in
the shapes of the whole one. What a norm or a mean computes counts what its gates leave.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.quantize.prune.axes import Index, Units, shape
from edgemix.quantize.prune.rules import groups

_GATES = "edgemix_gates"


def add_gates(module: GraphModule, units: Units) -> None:
    """Put gates into a graph, all open; :func:`set_gates` moves them."""
    module.register_buffer(_GATES, torch.ones(1, units.count + 1))
    first = next(n for n in module.graph.nodes if n.op != "placeholder")
    with module.graph.inserting_before(first):
        gates = module.graph.get_attr(_GATES)
    done: dict[tuple[Node, int], Node] = {}
    known: dict[bytes, Node] = {}
    names: dict[Node, str] = {}

    def index(ids: Index) -> Node:
        key = ids.tobytes()
        if key not in known:
            known[key] = g.add_constant(
                module, first, "edgemix_units", torch.from_numpy(ids.copy())
            )
        return known[key]

    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        for source, dim in _contracted(node):
            ids = units.axes[names.get(source, source.name)][dim]
            if not ids.any():
                continue
            with module.graph.inserting_before(node):
                if node.target in _COUNTING:
                    new = module.graph.call_function(
                        _COUNTING[node.target], (gates, index(ids), *node.args), node.kwargs
                    )
                    names[new] = node.name
                    node.replace_all_uses_with(new, propagate_meta=True)
                    module.graph.erase_node(node)
                    break
                key = (source, dim)
                if key not in done:
                    done[key] = module.graph.call_function(gate, (source, gates, index(ids), dim))
                node.replace_input_with(source, done[key])
    _sort(module)
    module.recompile()


def _sort(module: GraphModule) -> None:
    """All constants that gates take in front: they were made where they were first asked for."""
    given = module.graph.find_nodes(op="placeholder")
    last = given[-1]
    for node in [n for n in module.graph.nodes if n.op == "get_attr"]:
        last.append(node)
        last = node


def set_gates(module: GraphModule, gates: Tensor) -> None:
    """Set the gates: [1, units + 1], or [samples, units + 1] for a batch that is open."""
    setattr(module, _GATES, gates)


def _contracted(node: Node) -> list[tuple[Node, int]]:
    """The values that an operator adds up, or takes statistics of, and along which axis."""
    x: Any = node.args[0] if node.args else None
    if node.target is aten.linear.default:
        return [(x, len(shape(x)) - 1)]
    if node.target in g.CONVOLUTION and groups(node) < shape(x)[1]:
        return [(x, 1)]
    if node.target in g.MATRIX_PRODUCT:
        return [(x, len(shape(x)) - 1)]
    if node.target in (aten.layer_norm.default, aten.rms_norm.default):
        return [(x, len(shape(x)) - 1)]
    if node.target is aten.group_norm.default:
        return [(x, 1)]
    if node.target in (aten.mean.dim, aten.sum.dim_IntList):
        dims: Any = node.args[1] if len(node.args) > 1 else None
        dims = dims or range(len(shape(x)))
        return [(x, d % len(shape(x))) for d in dims]
    return []


def gate(x: Tensor, gates: Tensor, ids: Tensor, dim: int) -> Tensor:
    """Multiply an axis by the gates of its units."""
    return x * _factors(x, gates, ids, dim)


def _factors(x: Tensor, gates: Tensor, ids: Tensor, dim: int) -> Tensor:
    factors = gates[:, ids]
    if len(factors) > 1:  # parts of a sample may lie behind each other
        factors = factors.repeat_interleave(x.shape[0] // len(factors), 0)
    sizes = [1] * x.ndim
    sizes[0], sizes[dim] = factors.shape
    return factors.reshape(sizes)


def _layer_norm(
    gates: Tensor, ids: Tensor, x: Tensor, _: Any, weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *__: Any,
) -> Tensor:  # fmt: skip
    m = _factors(x, gates, ids, x.ndim - 1)
    count = m.sum(-1, keepdim=True)
    centred = x - (x * m).sum(-1, keepdim=True) / count
    scale = ((centred.square() * m).sum(-1, keepdim=True) / count + eps).rsqrt()
    return _affine(centred * scale, weight, bias)


def _rms_norm(
    gates: Tensor, ids: Tensor, x: Tensor, _: Any, weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:  # fmt: skip
    m = _factors(x, gates, ids, x.ndim - 1)
    mean = (x.square() * m).sum(-1, keepdim=True) / m.sum(-1, keepdim=True)
    return _affine(x * (mean + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt(), weight)


def _group_norm(
    gates: Tensor, ids: Tensor, x: Tensor, count: int, weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5, *_: Any,
) -> Tensor:  # fmt: skip
    m = _factors(x, gates, ids, 1).expand(len(x), *x.shape[1:]).reshape(len(x), count, -1)
    parts = x.reshape(len(x), count, -1)
    total = m.sum(-1, keepdim=True)
    centred = parts - (parts * m).sum(-1, keepdim=True) / total
    scale = ((centred.square() * m).sum(-1, keepdim=True) / total + eps).rsqrt()
    ends = (-1, *([1] * (x.ndim - 2)))
    return _affine(
        (centred * scale).reshape(x.shape),
        None if weight is None else weight.reshape(ends),
        None if bias is None else bias.reshape(ends),
    )


def _mean(gates: Tensor, ids: Tensor, x: Tensor, dims: Any, keepdim: bool = False) -> Tensor:
    (dim,) = dims
    m = _factors(x, gates, ids, dim % x.ndim)
    return (x * m).sum(dim, keepdim) / m.sum(dim, keepdim)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


_COUNTING: dict[Any, Any] = {
    aten.layer_norm.default: _layer_norm,
    aten.rms_norm.default: _rms_norm,
    aten.group_norm.default: _group_norm,
    aten.mean.dim: _mean,
}
