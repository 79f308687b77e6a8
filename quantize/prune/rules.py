"""What each operator ties: one rule for each kind, found by the operator's name."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from torch.fx import Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.quantize.prune.axes import Axis, Tracer, fixed, shape

Rule = Callable[[Tracer, Node], "tuple[Axis, ...] | None"]
"""The axes of a node's value; None where the operator is not seen through."""


def walk(tracer: Tracer, states: int) -> None:
    """Visit a graph's nodes in order; its last inputs, and last outputs, are states."""
    graph = tracer.module.graph
    given = graph.find_nodes(op="placeholder")
    for i, node in enumerate(given):
        held = i >= len(given) - states
        first, *rest = shape(node) or (1,)
        tracer.keep(node, (fixed(first), *(tracer.fresh(n) if held else fixed(n) for n in rest)))
    for node in graph.nodes:
        if node.op == "get_attr":
            tracer.keep(node, tracer.constant(node) if _is_read(tracer, node) else ())
        elif node.op == "call_function":
            axes = _RULES.get(node.target, _halt)(tracer, node)
            tracer.keep(node, _halted(tracer, node) if axes is None else axes)
    (output,) = graph.find_nodes(op="output")
    results: Any = output.args[0]
    results = list(results) if isinstance(results, (tuple, list)) else [results]
    for node in results[: len(results) - states]:
        _freeze(tracer, tracer.axes(node))
    for before, after in g.fed_back(tracer.module, states):
        _tie(tracer, tracer.axes(before), tracer.axes(after))


def _is_read(tracer: Tracer, node: Node) -> bool:
    """Whether a constant is one: rewrites leave behind what nobody reads any more."""
    return bool(node.users) and not g.holds_graph(tracer.module, node)


def arguments(node: Node) -> Any:
    """A node's arguments, which torch types as anything that a graph may hold."""
    return node.args


def _halt(_: Tracer, __: Node) -> None:
    return None


def _halted(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    """Nothing that this operator reads loses an index."""
    read = [axis for source in node.all_input_nodes for axis in tracer.axes(source)]
    if any(tracer.root(axis.ids).any() for axis in read):
        tracer.halted.append(node)
    _freeze(tracer, read)
    return tuple(fixed(n) for n in shape(node))


def _freeze(tracer: Tracer, axes: Any) -> None:
    for axis in axes:
        tracer.freeze(axis)


def _tie(tracer: Tracer, some: tuple[Axis, ...], others: tuple[Axis, ...]) -> None:
    for a, b in zip(some, others, strict=True):
        tracer.unite(a.ids, b.ids)


def _elementwise(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    """Several values, element by element, as they are broadcast."""
    read = [tracer.axes(a) for a in node.args if isinstance(a, Node)]
    found = []
    for i, size in enumerate(shape(node)):
        at = len(shape(node)) - i
        aligned = [axes[-at] for axes in read if at <= len(axes) and len(axes[-at].ids) == size]
        for other in aligned[1:]:
            tracer.unite(aligned[0].ids, other.ids)
        found.append(next((a for a in aligned if a.split), aligned[0]))
    return tuple(found)


def _linear(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x, (out, into) = tracer.axes(node.args[0]), tracer.axes(node.args[1])
    tracer.unite(x[-1].ids, into.ids)
    _bias(tracer, node, out)
    return (*x[:-1], out)


def _bias(tracer: Tracer, node: Node, out: Axis) -> None:
    if len(node.args) > 2 and isinstance(node.args[2], Node):
        tracer.unite(tracer.axes(node.args[2])[0].ids, out.ids)


def _convolution(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x, (out, into, *kernel) = tracer.axes(node.args[0]), tracer.axes(node.args[1])
    _freeze(tracer, (*kernel, *x[2:]))
    _bias(tracer, node, out)
    count = groups(node)
    if 1 < count == len(x[1].ids):  # depthwise: a channel and what is made of it
        tracer.unite(out.ids, np.repeat(x[1].ids, len(out.ids) // count))
    elif count > 1:  # all groups lose the same places
        for ids in x[1].ids.reshape(count, -1):
            tracer.unite(ids, into.ids)
        for ids in out.ids.reshape(count, -1):
            tracer.unite(ids, out.ids[: len(ids)])
    else:
        tracer.unite(x[1].ids, into.ids)
    return (x[0], out, *(fixed(n) for n in shape(node)[2:]))


def groups(node: Node) -> int:
    """Groups of a convolution."""
    return int(arguments(node)[6]) if len(node.args) > 6 else 1


def _product(tracer: Tracer, node: Node) -> tuple[Axis, ...] | None:
    a, b = tracer.axes(node.args[0]), tracer.axes(node.args[1])
    if len(a) < 2 or len(b) < 2:
        return None
    tracer.unite(a[-1].ids, b[-2].ids)
    found = []
    for i, size in enumerate(shape(node)[:-2]):
        at = len(shape(node)) - i
        aligned = [x[-at] for x in (a, b) if at <= len(x) and len(x[-at].ids) == size]
        if len(aligned) == 2 and size > 1:
            tracer.unite(aligned[0].ids, aligned[1].ids)
            tracer.batched.update(x.split for x in aligned if x.split)
        found.append(aligned[0])
    return (*found, a[-2], b[-1])


def _layer_norm(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = tracer.axes(node.args[0])
    count = len(arguments(node)[1])
    for affine in node.args[2:]:
        if isinstance(affine, Node):
            _tie(tracer, x[-count:], tracer.axes(affine))
    if count > 1:
        _freeze(tracer, x[-count:])
    return x


def _group_norm(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = _by_channel(tracer, node)
    for ids in x[1].ids.reshape(int(arguments(node)[1]), -1):
        tracer.unite(ids, x[1].ids[: len(ids)])
    return x


def _by_channel(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    """Constants of one value a channel, which is axis 1."""
    x = tracer.axes(node.args[0])
    for affine in node.args[1:5]:
        if isinstance(affine, Node):
            tracer.unite(x[1].ids, tracer.axes(affine)[0].ids)
    return x


def _along(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    """An operator along one axis, which keeps its indices: all of them count."""
    x = tracer.axes(node.args[0])
    (dim,) = _dims(node, len(x))
    return tuple(tracer.freeze(axis) if i == dim else axis for i, axis in enumerate(x))


def _dims(node: Node, ndim: int) -> list[int]:
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if given is None or given == []:
        return list(range(ndim))
    numbers = given if isinstance(given, (list, tuple)) else [given]
    return [int(d) % ndim for d in numbers]


def _reduction(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    """A sum, mean or maximum over axes: of what is left."""
    x = tracer.axes(node.args[0])
    dims = _dims(node, len(x))
    for i in dims:
        if node.target not in (aten.sum.dim_IntList, aten.mean.dim):
            tracer.freeze(x[i])
    kept = [fixed(1) if i in dims else axis for i, axis in enumerate(x)]
    return tuple(a for i, a in enumerate(kept) if i not in dims or len(shape(node)) == len(x))


def _pool(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = tracer.axes(node.args[0])
    places = 1 if "1d" in g.op_name(node) else 2
    _freeze(tracer, x[-places:])
    return (*x[:-places], *(fixed(n) for n in shape(node)[-places:]))


def _permute(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = tracer.axes(node.args[0])
    return tuple(x[int(d)] for d in arguments(node)[1])


def _transpose(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = list(tracer.axes(node.args[0]))
    a, b = (0, 1) if node.target is aten.t.default else arguments(node)[1:3]
    x[a], x[b] = x[b], x[a]
    return tuple(x)


def _select(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = list(tracer.axes(node.args[0]))
    dim = int(arguments(node)[1]) % len(x)
    tracer.freeze(x.pop(dim))
    return tuple(x)


def _slice(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = list(tracer.axes(node.args[0]))
    dim, start, end, step = slice_of(node)
    if step != 1:
        tracer.freeze(x[dim])
    x[dim] = Axis(x[dim].ids[start:end:step])
    if len(x[dim].ids) == 1:
        tracer.freeze(x[dim])
    return tuple(x)


def slice_of(node: Node) -> tuple[int, int, int, int]:
    """Axis, start, end and step of a slice, none of them negative."""
    source = node.args[0]
    assert isinstance(source, Node)
    given: tuple[Any, ...] = (*node.args[1:], *(0, None, None, 1)[len(node.args) - 1 :])
    dim = int(given[0]) % len(shape(source))
    start, end, step = slice(*given[1:]).indices(shape(source)[dim])
    return dim, start, end, step


def _split(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    """Parts side by side: the axes are the source's, its readers take theirs."""
    return tracer.axes(node.args[0])


def _part(tracer: Tracer, node: Node) -> tuple[Axis, ...] | None:
    """One of the parts of a split."""
    source, number = arguments(node)[:2]
    parts = source.meta.get("val")
    if source.target not in _SPLITS or not isinstance(parts, (list, tuple)):
        return None
    x = list(tracer.axes(source))
    dim = int(arguments(source)[2] if len(source.args) > 2 else 0) % len(x)
    start = sum(int(p.shape[dim]) for p in parts[:number])
    x[dim] = Axis(x[dim].ids[start : start + shape(node)[dim]])
    return tuple(x)


def _cat(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    read: Any = node.args[0]
    parts = [tracer.axes(n) for n in read]
    dim = int(arguments(node)[1] if len(node.args) > 1 else 0) % len(parts[0])
    found = list(parts[0])
    for other in parts[1:]:
        for i, (a, b) in enumerate(zip(found, other, strict=True)):
            if i != dim:
                tracer.unite(a.ids, b.ids)
    found[dim] = Axis(np.concatenate([axes[dim].ids for axes in parts]))
    return tuple(found)


def _expand(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = tracer.axes(node.args[0])
    sizes = shape(node)
    new = len(sizes) - len(x)
    kept = [
        x[i - new] if i >= new and len(x[i - new].ids) == n else None for i, n in enumerate(sizes)
    ]
    return tuple(a or fixed(n) for a, n in zip(kept, sizes, strict=True))


def _pad(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = list(tracer.axes(node.args[0]))
    widths: Any = node.args[1]
    constant = (node.args[2] if len(node.args) > 2 else "constant") == "constant"
    for i in range(len(widths) // 2):
        before, after = widths[2 * i : 2 * i + 2]
        axis = x[-1 - i]
        if before == after == 0:
            continue
        if not constant or before < 0 or after < 0:
            axis = tracer.freeze(axis)
        ends = fixed(shape(node)[len(x) - 1 - i]).ids
        if constant and before >= 0 and after >= 0:
            ends[before : before + len(axis.ids)] = axis.ids
        x[-1 - i] = Axis(ends)
    return tuple(x)


def _roll(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = list(tracer.axes(node.args[0]))
    dims: Any = node.args[2] if len(node.args) > 2 else range(len(x))
    for dim in dims:
        x[dim] = tracer.freeze(x[dim])
    return tuple(x)


def _flip(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    x = list(tracer.axes(node.args[0]))
    for dim in _dims(node, len(x)):
        x[dim] = Axis(x[dim].ids[::-1])
    return tuple(x)


def _stack(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    read: Any = node.args[0]
    parts = [tracer.axes(n) for n in read]
    for other in parts[1:]:
        _tie(tracer, parts[0], other)
    found = list(parts[0])
    dim = int(arguments(node)[1] if len(node.args) > 1 else 0) % (len(found) + 1)
    found.insert(dim, fixed(len(parts)))
    return tuple(found)


def _view(tracer: Tracer, node: Node) -> tuple[Axis, ...]:
    """A view in the same order: axes are merged, and split."""
    x, sizes = list(tracer.axes(node.args[0])), list(shape(node))
    found: list[Axis] = []
    i = 0
    while len(found) < len(sizes) or i < len(x):
        taken: list[Axis] = []
        made: list[int] = []
        volume, wanted = 1, 1
        while True:
            if volume <= wanted and i < len(x) and (volume < wanted or not taken):
                taken.append(x[i])
                volume *= len(x[i].ids)
                i += 1
            elif len(found) + len(made) < len(sizes) and (wanted < volume or not made):
                made.append(sizes[len(found) + len(made)])
                wanted *= made[-1]
            else:
                break
        found += _regrouped(tracer, node, taken, made, len(found))
    return tuple(found)


def _regrouped(
    tracer: Tracer, node: Node, taken: list[Axis], made: list[int], at: int
) -> list[Axis]:
    """Axes of sizes ``made`` that stand for those ``taken``; the first is axis ``at``."""
    wide = [a for a in taken if len(a.ids) > 1]
    if len(wide) == 1 and len([n for n in made if n > 1]) == 1:
        return [wide[0] if n > 1 else fixed(1) for n in made]
    loose = [a for a in taken if tracer.root(a.ids).any()]
    if not loose or not wide:
        _freeze(tracer, loose)  # one index alone always stays
        return [fixed(n) for n in made]
    free = max(loose, key=lambda a: len(a.ids))
    for axis in loose:
        if axis is not free:  # what is left of two widths together is no rectangle
            tracer.freeze(axis)
    sizes = [len(a.ids) if a is free else 1 for a in taken]
    ids = np.broadcast_to(free.ids.reshape(sizes), [len(a.ids) for a in taken]).reshape(made)
    roots = tracer.root(ids.reshape(-1)).reshape(made)
    position = _free_axis(tracer, node, roots, at)
    first = tuple(slice(None) if i == position else slice(0, 1) for i in range(len(made)))
    line = ids[first]
    tracer.unite(ids.reshape(-1), np.broadcast_to(line, made).reshape(-1))
    return [
        Axis(line.reshape(-1) if i == position else np.zeros(n, np.int64), (node.name, at + i))
        for i, n in enumerate(made)
    ]


def _free_axis(tracer: Tracer, node: Node, roots: Any, at: int) -> int:
    """Along which of a view's axes indices may go: the others then lose none."""
    made = roots.shape
    for i in reversed(range(len(made))):
        first = tuple(slice(None) if j == i else slice(0, 1) for j in range(len(made)))
        if made[i] > 1 and (roots == roots[first]).all():
            return i
    heads = [i for i in range(len(made)) if (node.name, at + i) in tracer.head_axes]
    if heads and tracer.heads:
        return heads[0]
    others = [i for i in range(len(made)) if i not in heads and made[i] > 1] or heads
    return max(others, key=lambda i: (made[i], i))


_SPLITS = frozenset({aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default})

ELEMENTWISE = (
    *g.ARITHMETIC, *g.CLAMP_AT_ZERO, *g.COMPARISON, aten.add.Scalar, aten.sub.Scalar,
    aten.mul.Scalar, aten.div.Scalar, aten.where.self, aten.pow.Tensor_Scalar, aten.neg.default,
    aten.abs.default, aten.exp.default, aten.log.default, aten.log1p.default, aten.sqrt.default,
    aten.rsqrt.default, aten.reciprocal.default, aten.sin.default, aten.cos.default,
    aten.erf.default, aten.square.default, aten.floor.default, aten.round.default,
    aten.gelu.default, aten.silu.default, aten.mish.default, aten.elu.default, aten.selu.default,
    aten.leaky_relu.default, aten.softplus.default, aten.sigmoid.default, aten.tanh.default,
    aten.hardswish.default, aten.hardsigmoid.default, aten.hardtanh.default, aten.relu6.default,
    aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default, aten.clone.default,
    aten.contiguous.default, aten.alias.default, aten.detach.default, aten.to.dtype,
    aten._to_copy.default,
)  # fmt: skip

_RULES: dict[Any, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    aten.linear.default: _linear,
    **dict.fromkeys(g.CONVOLUTION, _convolution),
    **dict.fromkeys(g.MATRIX_PRODUCT, _product),
    aten.layer_norm.default: _layer_norm,
    aten.rms_norm.default: _layer_norm,
    aten.group_norm.default: _group_norm,
    aten.batch_norm.default: _by_channel,
    aten.prelu.default: _by_channel,
    **dict.fromkeys((aten.softmax.int, aten._softmax.default, aten.cumsum.default), _along),
    **dict.fromkeys((aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default),
                    _reduction),
    **dict.fromkeys(
        (aten.avg_pool1d.default, aten.max_pool1d.default, aten.adaptive_avg_pool1d.default,
         aten.avg_pool2d.default, aten.max_pool2d.default, aten.adaptive_avg_pool2d.default,
         aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec),
        _pool,
    ),
    **dict.fromkeys(
        (aten.view.default, aten.reshape.default, aten._unsafe_view.default,
         aten.flatten.using_ints, aten.unflatten.int, aten.unsqueeze.default, aten.squeeze.dim,
         aten.squeeze.dims, aten.squeeze.default),
        _view,
    ),
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _transpose,
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
    **dict.fromkeys(_SPLITS, _split),
    operator.getitem: _part,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.expand.default: _expand,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
    aten.roll.default: _roll,
    aten.flip.default: _flip,
}  # fmt: skip
