"""A scalar function between two quantizers is a finite table: the program itself fills it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding

MARGIN = 1e-4
"""How near to a rounding tie, in LSB, a table entry's exact value may come without being one.
float32 functions of different vector units differ by 1e-7 relative, 3e-5 LSB at 255: an entry
this near could be rounded differently on another machine."""


def is_scalar_function(module: GraphModule, node: Node) -> bool:
    """Whether a node computes each value from one value of its only activation."""
    if node.target in SCALAR:
        return True
    if node.target not in _WITH_CONSTANT:
        return False
    constants = [n for n in node.all_input_nodes if constant_root(n) is not None]
    single = all(g.dequantized(module, n).numel() == 1 for n in constants)
    numbers = any(isinstance(a, (int, float)) for a in node.args[:2])
    squared = node.args[0] is node.args[1]
    one = len(node.all_input_nodes) - len(constants) == 1
    return one and single and (bool(constants) or numbers or squared)


MAX_BITS = 12
"""Of a table's address: above, arithmetic with a constant is arithmetic."""


def is_table(module: GraphModule, node: Node) -> bool:
    """Whether a scalar function is best a table of all its values."""
    if not is_scalar_function(module, node):
        return False
    if node.target not in _WITH_CONSTANT or node.target is g.aten.div.Tensor:
        return True
    source = next(n for n in node.all_input_nodes if constant_root(n) is None)
    wide = g.is_dequantize(source) and g.encoding_of(module, source).bits > MAX_BITS
    return not wide or node.args[0] is node.args[1]


def argument_of(node: Node) -> Node:
    """The dequantized value that a scalar function reads, unquantized functions between skipped."""
    source = next(n for n in node.all_input_nodes if constant_root(n) is None)
    return source if g.is_dequantize(source) else argument_of(source)


SCALAR = frozenset(
    {
        g.aten.relu.default, g.aten.exp.default, g.aten.log.default, g.aten.gelu.default,
        g.aten.silu.default, g.aten.sigmoid.default, g.aten.tanh.default, g.aten.neg.default,
        g.aten.hardswish.default, g.aten.hardsigmoid.default, g.aten.hardtanh.default,
        g.aten.leaky_relu.default, g.aten.elu.default, g.aten.softplus.default,
        g.aten.mish.default,
        g.aten.rsqrt.default, g.aten.sqrt.default, g.aten.reciprocal.default,
        g.aten.pow.Tensor_Scalar, g.aten.abs.default, g.aten.clamp.default,
        g.aten.clamp_min.default, g.aten.clamp_max.default,
    }
)  # fmt: skip
_CORRECTLY_ROUNDED = frozenset(
    {
        g.aten.relu.default, g.aten.neg.default, g.aten.abs.default, g.aten.clamp.default,
        g.aten.clamp_min.default, g.aten.clamp_max.default,
        g.aten.hardtanh.default, g.aten.leaky_relu.default, g.aten.reciprocal.default,
        g.aten.sqrt.default, g.aten.rsqrt.default, g.aten.mul.Tensor, g.aten.add.Tensor,
        g.aten.sub.Tensor, g.aten.div.Tensor,
    }
)  # fmt: skip
"""Operators made of IEEE operations, each rounded correctly: every machine gives the same bits."""
_WITH_CONSTANT = frozenset(
    {g.aten.mul.Tensor, g.aten.add.Tensor, g.aten.sub.Tensor, g.aten.div.Tensor}
)


@dataclass(frozen=True)
class Table:
    """A scalar function between two encodings."""

    integers: tuple[int, ...]
    """The result's integer, zero point taken off, for every input bit pattern 0 … 2**bits − 1."""
    near_ties: int
    """How many entries lie so near to a rounding tie that another machine's float32 functions
    could round them to the neighbour: there the program itself differs by one LSB."""


def table(module: GraphModule, node: Node, given: Encoding, wanted: Encoding) -> Table:
    """The function that a node computes, filled by the program's own operator."""
    patterns = torch.arange(1 << given.bits)
    signed = given.zero_point[0] == 0 and given.qmin < 0
    raw = (
        torch.where(patterns > given.qmax, patterns - (1 << given.bits), patterns)
        if signed
        else patterns
    )
    values = raw.to(torch.float64) * given.lsb
    near = 0
    if node.target not in _CORRECTLY_ROUNDED:
        exact = _apply(module, node, values) / wanted.lsb + wanted.zero_point[0]
        offset = (exact - torch.floor(exact) - 0.5).abs()
        inside = (exact > wanted.qmin) & (exact < wanted.qmax)
        near = int(((offset > 1e-9) & (offset < MARGIN) & inside).sum())
    q = wanted.quantize(_apply(module, node, values.to(torch.float32))).to(torch.int64)
    return Table(tuple((q - wanted.zero_point[0]).tolist()), near)


def _apply(module: GraphModule, node: Node, values: Tensor) -> Tensor:
    def swap(argument: Any) -> Any:
        if not isinstance(argument, Node):
            return argument
        if constant_root(argument) is not None:
            return g.dequantized(module, argument).to(values.dtype)
        return values if g.is_dequantize(argument) else _apply(module, argument, values)

    assert callable(node.target)
    result: Tensor = node.target(*[swap(a) for a in node.args], **node.kwargs)
    return result


def constant_root(node: Any) -> Node | None:
    """The constant that a node is, through quantization; None for anything computed."""
    if not isinstance(node, Node):
        return None
    while g.is_dequantize(node) or g.is_quantize(node):
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    return node if node.op == "get_attr" else None


def constant_array(module: GraphModule, node: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The real values of a weight or bias, as float64."""
    return g.dequantized(module, node).to(torch.float64).numpy()
