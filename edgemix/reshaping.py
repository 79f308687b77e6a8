"""One model for several input shapes: where the graphs that are traced with each differ.

Tracing writes a shape down as whole numbers in arguments: in the sizes of a view, at the end of a
slice. Two traces of a model whose graphs are the same but for such numbers give the numbers to
change; a quantized graph, whose nodes are named alike, is changed at the same places.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from edgemix import graph as g
from edgemix.errors import UnsupportedError
from edgemix.graph import aten
from edgemix.program import Program, Step
from edgemix.shapes import Reshaped

_VIEWS = frozenset(
    {aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default}
)
_END = 3
"""The place of a slice's end among its arguments."""
_OWN = "leave --shapes out, or deploy a program for each shape"


def reshaped(program: Program, other: Program) -> Reshaped:
    """What has to change in a program's graph for the input that another was traced with.

    Args:
        program: of one input and without states.
        other: the same model, traced with another shape, through the same rewrites.

    Raises:
        UnsupportedError: more than whole numbers differs; the message names the first node.
    """
    shape = other.inputs[0].shape
    first, second = program.shared, other.shared
    ours, theirs = list(first.graph.nodes), list(second.graph.nodes)
    sizes: dict[str, dict[str, int]] = {}
    for a, b in zip(ours, theirs, strict=False):
        if (a.op, a.name, str(a.target)) != (b.op, b.name, str(b.target)):
            raise _refusal(a, shape, f"becomes {g.op_name(b) if b.op != 'output' else 'the end'}")
        read = a.op == "get_attr" and a.users
        if read and not _same(g.constant(first, a), g.constant(second, b)):
            raise _refusal(next(iter(a.users)), shape, "reads a constant that depends on it")
        changed = dict(_changed(a, b, shape))
        if changed:
            sizes[a.name] = changed
    if len(ours) != len(theirs):
        raise UnsupportedError(
            f"the model computes other operators on an input of {_written(shape)}", do=_OWN
        )
    return Reshaped(shape, sizes)


def at(program: Program, change: Reshaped) -> Program:
    """The program for a further shape: weights and encodings as they are.

    Raises:
        UnsupportedError: its graph does not have the nodes that are to be changed.
    """
    module = program.module()
    for node, place, size in _places(module, change):
        _set(node, place, size)
    module = g.flat(module)  # which does not ask for the old shape
    spec = replace(program.inputs[0], shape=change.shape)
    with torch.no_grad():
        gives = module(torch.zeros(change.shape))
    outputs = tuple(
        replace(o, shape=tuple(t.shape)) for o, t in zip(program.outputs, gives, strict=True)
    )
    seen = replace(program, inputs=(spec,), outputs=outputs)
    return seen.with_module(module, Step("at", {"shape": list(change.shape)}))


def opened(module: GraphModule, changes: Sequence[Reshaped]) -> None:
    """Leave open in a graph what changes with the shape, in place.

    Raises:
        UnsupportedError: a node for which that cannot be written.
    """
    # Once each: several shapes mostly change the same places.
    places = {(n, place): change for change in changes for n, place, _ in _places(module, change)}
    for (node, place), change in places.items():
        leaves = pytree.tree_leaves((node.args, node.kwargs))
        if node.target in _VIEWS and -1 not in leaves[:place] + leaves[place + 1 :]:
            _set(node, place, -1)
        elif node.target is aten.slice.Tensor and place == _END and _to_the_end(node):
            _set(node, place, sys.maxsize)
        else:
            raise _refusal(node, change.shape, "cannot leave it open")
    module.recompile()


def fitted(samples: Tensor, shape: Sequence[int]) -> Tensor:
    """Samples [n, ...] cut or repeated along each axis to ``shape`` without its batch."""
    for axis, size in enumerate(shape[1:], 1):
        places = torch.arange(size) % samples.shape[axis]
        samples = samples.index_select(axis, places)
    return samples


def _changed(a: Node, b: Node, shape: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    left, form = pytree.tree_flatten((a.args, a.kwargs))
    right, other = pytree.tree_flatten((b.args, b.kwargs))
    if form != other:
        raise _refusal(a, shape, "takes other arguments")
    for place, (x, y) in enumerate(zip(left, right, strict=True)):
        if isinstance(x, Node) and isinstance(y, Node) and x.name == y.name:
            continue
        if x == y:
            continue
        if type(x) is not int or type(y) is not int:
            raise _refusal(a, shape, f"takes {y} in place of {x}")
        yield str(place), y


def _to_the_end(piece: Node) -> bool:
    """Whether a slice ends where what it is taken from ends."""
    source, axis, _, end = piece.args[:4]
    assert isinstance(source, Node) and isinstance(axis, int)
    return bool(end == g.shape_of(source)[axis])


def _places(module: GraphModule, change: Reshaped) -> Iterator[tuple[Node, int, int]]:
    nodes = {node.name: node for node in module.graph.nodes}
    for name, sizes in change.sizes.items():
        if name not in nodes:
            raise UnsupportedError(
                f"the quantized program has no node {name}, which changes with the shape", do=_OWN
            )
        for place, size in sizes.items():
            yield nodes[name], int(place), size


def _set(node: Node, place: int, size: int) -> None:
    leaves, form = pytree.tree_flatten((node.args, node.kwargs))
    leaves[place] = size
    node.args, node.kwargs = pytree.tree_unflatten(leaves, form)


def _same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _refusal(node: Node, shape: tuple[int, ...], what: str) -> UnsupportedError:
    return UnsupportedError(
        f"an input of {_written(shape)} needs another graph: {g.where(node)} {what}", do=_OWN
    )


def _written(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
