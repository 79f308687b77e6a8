"""The walk over a quantized program that firmware and RTL share, and what operators have in common.

A quantizer closes every step. Between two of them at most one operator and the ReLU that clamps
its unquantized result compute, so an operator's exact result is rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.graph import aten
from edgemix.targets.fpga.precision import needed
from edgemix.targets.fpga.tables import constant_array, constant_root

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One node that makes values: an operator with its rounding, or wires alone."""

    node: Node
    """The node whose result is quantized."""
    anchor: Node
    """The operator: ``node`` itself, or what the ReLU ``node`` clamps."""
    encoding: Encoding
    fixed: FixedPoint

    @property
    def clamps(self) -> bool:
        """Whether negative results become zero before they are rounded."""
        return self.anchor is not self.node


def steps(module: GraphModule) -> Iterator[Step | Node]:
    """The operators in their order as steps; inputs and views as the nodes that they are."""
    for node in module.graph.nodes:
        if node.op == "placeholder" or is_view(node):
            yield node
            continue
        encoding = None
        if g.requantizes(node):
            encoding = g.encoding_of(module, node)
        elif node.op == "call_function" and not g.is_quantize(node) and not g.is_dequantize(node):
            encoding = g.produced_encoding(module, node)
        if encoding is not None:
            fixed = needed(encoding, str(g.where(node)))
            yield Step(node, clamped(node) or node, encoding, fixed)


def is_view(node: Node) -> bool:
    """Whether a node is wires alone."""
    return node.op == "call_function" and node.target in g.VIEW


def clamped(node: Node) -> Node | None:
    """The operator whose unquantized result a ReLU clamps, or None."""
    source = node.args[0] if node.target in g.CLAMP_AT_ZERO else None
    return source if isinstance(source, Node) and not g.is_dequantize(source) else None


def results(module: GraphModule) -> list[Node]:
    """The nodes that compute what the program gives: outputs, then states."""
    (output,) = module.graph.find_nodes(op="output")
    given: Any = output.args[0]
    return [
        g.through_quantization(n) for n in (given if isinstance(given, (tuple, list)) else [given])
    ]


@dataclass(frozen=True)
class Threshold:
    """A spike as one comparison: first + sign · second ≥ bound, or its negation."""

    first: Node
    second: Node | None
    sign: int
    bound: npt.NDArray[np.float64]
    """Of the values' shape, or broadcast to it."""
    inclusive: bool
    """Whether the bound itself counts; if not, first + sign · second > bound."""
    negated: bool

    def on_grid(self, fraction: int) -> Index:
        """The bound in units of 2**-fraction, on whose grid the values lie: an inclusive one."""
        units = self.bound * 2.0**fraction
        return (np.ceil(units) if self.inclusive else np.floor(units) + 1).astype(np.int64)


def threshold(module: GraphModule, spike: Node) -> Threshold | None:
    """What a spike compares; None where it is more than one sum or difference.

    A sum that is only compared stays exact, see :func:`edgemix.graph.exact_between`.
    """
    comparison = spike.args[0]
    assert isinstance(comparison, Node)
    value, other = comparison.args[:2]
    assert isinstance(value, Node)
    name = g.op_name(comparison)
    above = name[0] == "g"
    # x > b is not (x ≤ b), and x < b is not (x ≥ b).
    inclusive = (name[1] == "e") == above
    second, sign, bound = None, 1, np.zeros(1)
    if not g.is_dequantize(value):
        if value.target not in g.ADDITION:
            return None
        value, other_term = value.args[:2]  # type: ignore[assignment]
        sign = -1 if comparison.args[0].target is aten.sub.Tensor else 1  # type: ignore[union-attr]
        if constant_root(value) is not None:
            return None
        if constant_root(other_term) is not None:
            bound = bound - sign * constant_array(module, other_term)
        else:
            second = other_term
    if not isinstance(other, Node):
        bound = bound + float(np.float32(other))  # type: ignore[arg-type]
    elif constant_root(other) is not None:
        bound = bound + constant_array(module, other)
    elif second is None:
        second, sign = other, -1
    else:
        return None
    assert isinstance(value, Node)
    return Threshold(value, second, sign, bound, inclusive, not above)  # type: ignore[arg-type]


def viewed(node: Node, index: Index) -> Index:
    """A view applied to the places of values instead of to the values."""
    assert callable(node.target)
    moved: Index = node.target(torch.from_numpy(index), *node.args[1:], **node.kwargs).numpy()
    return moved


@dataclass(frozen=True)
class Window:
    """What one element of a reduction's result is made of."""

    members: Index
    """Flat elements of the operand."""
    divisor: int
    """Of their sum, where the reduction is a mean; padding may count."""


def windows(node: Node) -> list[Window]:
    """For every element of a reduction's result, which elements of its operand it reads.

    Found by asking the operator itself: a mean of marked elements is not zero where they count, and
    one over it is what it divides by.
    """
    source = node.args[0]
    assert isinstance(source, Node) and callable(node.target)
    shape = g.shape_of(source)
    size = int(np.prod(shape))
    marks = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    response = np.stack(
        [node.target(mark, *node.args[1:], **node.kwargs).ravel().numpy() for mark in marks]
    )
    return [Window(np.flatnonzero(column), round(1 / column.max())) for column in response.T]


def argument(node: Node, position: int, default: Any) -> Any:
    """An operator's argument, or what it is when left out."""
    return node.args[position] if len(node.args) > position else default


def pair(node: Node, position: int, default: int) -> tuple[int, int]:
    """An argument that is one number or one for each of height and width."""
    return g.pair(argument(node, position, default))
