"""Cutting units out of a graph: smaller weights, and every number that says a size."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.program import Program, StateSpec, Step
from edgemix.quantize.prune.axes import Axes, Units, shape
from edgemix.quantize.prune.rules import arguments, groups, slice_of

Keep = npt.NDArray[np.bool_]
"""Which units stay: [units + 1], the first of which always does."""


def cut(program: Program, units: Units, keep: Keep, step: Step) -> Program:
    """The dense program without the units that go: smaller weights, the same operators.

    Args:
        program: whose units they are.
        units: see :func:`edgemix.quantize.prune.axes.units_of`.
        keep: which stay.
        step: how it is written in the program's history.
    """
    module = program.module()
    resize(module, units, keep)
    return program.with_module(module, step, states=_states(program, units, keep))


def resize(module: GraphModule, units: Units, keep: Keep) -> None:
    """The same in place, on a graph that was not exported anew."""
    for node in module.graph.nodes:
        if node.op == "call_function":
            _write_sizes(node, units, keep)
    for name, axes in units.constants.items():
        path, _, attribute = name.rpartition(".")
        holder = module.get_submodule(path)
        value: Any = getattr(holder, attribute)
        small = value.detach()
        for dim, axis in enumerate(axes):
            if not keep[axis].all():
                small = small.index_select(dim, torch.from_numpy(np.flatnonzero(keep[axis])))
        if small is not value and small.shape != value.shape:
            if isinstance(value, torch.nn.Parameter):
                small = torch.nn.Parameter(small, requires_grad=value.requires_grad)
            setattr(holder, attribute, small)


def sizes(axes: Axes, keep: Keep) -> list[int]:
    """How many indices each axis keeps."""
    return [int(keep[axis].sum()) for axis in axes]


def _write_sizes(node: Node, units: Units, keep: Keep) -> None:
    axes = units.axes[node.name]
    old, new = [len(axis) for axis in axes], sizes(axes, keep)
    target, args = node.target, arguments(node)
    if target in (aten.view.default, aten.reshape.default, aten._unsafe_view.default):
        if old != new:
            node.update_arg(1, new)
    elif target is aten.expand.default and old != new:
        node.update_arg(1, new)
    elif target is aten.unflatten.int and old != new:
        dim = int(args[1]) % len(shape(args[0]))
        node.update_arg(2, new[dim : dim + len(args[2])])
    elif target is aten.slice.Tensor:
        _write_slice(node, units, keep)
    elif target in (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default):
        _write_split(node, units, keep)
    elif target in (aten.layer_norm.default, aten.rms_norm.default) and old != new:
        node.update_arg(1, new[-len(args[1]) :])
    elif target in g.CONVOLUTION and groups(node) > 1:
        channels = units.axes[args[0].name][1]
        if groups(node) == len(channels) and not keep[channels].all():
            node.update_arg(6, int(keep[channels].sum()))


def _write_slice(node: Node, units: Units, keep: Keep) -> None:
    dim, start, end, step = slice_of(node)
    source = keep[units.axes[arguments(node)[0].name][dim]]
    if not source.all():
        node.args = (
            node.args[0], dim, int(source[:start].sum()), int(source[:end].sum()), step,
        )  # fmt: skip


def _write_split(node: Node, units: Units, keep: Keep) -> None:
    dim = int(arguments(node)[2] if len(node.args) > 2 else 0)
    source = keep[units.axes[node.name][dim]]
    if source.all():
        return
    parts = [len(part) for part in np.split(source, _ends(node, dim))]
    ends = np.cumsum([0, *parts])
    left = [int(source[a:b].sum()) for a, b in pairwise(ends)]
    node.target = aten.split_with_sizes.default
    node.args = (node.args[0], left, dim)


def _ends(node: Node, dim: int) -> list[int]:
    """Where the parts of a split end, but for the last."""
    return [int(n) for n in np.cumsum([p.shape[dim] for p in node.meta["val"]])[:-1]]


def _states(program: Program, units: Units, keep: Keep) -> tuple[StateSpec, ...]:
    """The states with as many elements as are left of them."""
    given = [n for n in program.shared.graph.nodes if n.op == "placeholder"]
    found = []
    for state, node in zip(program.states, given[len(program.inputs) :], strict=True):
        axes = units.axes[node.name]
        initial = state.initial
        if len(initial) > 1:
            picked = np.array(initial).reshape(state.shape)[np.ix_(*(keep[a] for a in axes))]
            initial = tuple(float(v) for v in picked.reshape(-1))
        found.append(replace(state, shape=tuple(sizes(axes, keep)), initial=initial))
    return tuple(found)
