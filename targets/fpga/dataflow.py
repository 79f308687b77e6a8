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
from edgemix.targets.fpga.precision import needed

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
        elif node.op == "call_function" and not g.is_quantize(node) and not g.is_dequantize(node):
            encoding = g.produced_encoding(module, node)
            if encoding is not None:
                yield Step(
                    node, clamped(node) or node, encoding, needed(encoding, str(g.where(node)))
                )


def is_view(node: Node) -> bool:
    """Whether a node is wires alone."""
    return node.op == "call_function" and node.target in g.VIEW


def clamped(node: Node) -> Node | None:
    """The operator whose unquantized result a ReLU clamps, or None."""
    source = node.args[0] if node.target in g.CLAMP_AT_ZERO else None
    return source if isinstance(source, Node) and not g.is_dequantize(source) else None


def result(module: GraphModule) -> Node:
    """The node that computes the program's only output."""
    (output,) = module.graph.find_nodes(op="output")
    (returned,) = output.args[0] if isinstance(output.args[0], (tuple, list)) else output.args
    return g.through_quantization(returned)


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
    marks = torch.eye(size, dtype=torch.float64).reshape(size, *shape[1:])
    response = node.target(marks, *node.args[1:], **node.kwargs).reshape(size, -1).numpy()
    return [Window(np.flatnonzero(column), round(1 / column.max())) for column in response.T]


def argument(node: Node, position: int, default: Any) -> Any:
    """An operator's argument, or what it is when left out."""
    return node.args[position] if len(node.args) > position else default


def pair(node: Node, position: int, default: int) -> tuple[int, int]:
    """An argument that is one number or one for each of height and width."""
    value = argument(node, position, default)
    if isinstance(value, int):
        return value, value
    first, second = value if len(value) == 2 else (value[0], value[0])
    return int(first), int(second)
