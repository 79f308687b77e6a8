"""What every source of quantized models does: the nodes that the rest of the house expects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import DTYPES, Encoding
from edgemix.program import Program, Step
from edgemix.quantize.insert import Integers, arguments
from edgemix.quantize.params import encode_bias

_qd = torch.ops.quantized_decomposed


def encoding(
    scales: Sequence[float], zeros: Sequence[int], width: int, *, signed: bool, narrow: bool,
    axis: int | None,
) -> Encoding:  # fmt: skip
    """Others' numbers: unsigned integers start at 0 there, at the least one here.

    Args:
        scales: one, or one for every index of ``axis``.
        zeros: as many, or one for all.
        width: bits.
        signed: whether integers are.
        narrow: whether the one farthest from zero is left out.
        axis: of the scales.
    """
    qmin, qmax = -(1 << (width - 1)), (1 << (width - 1)) - 1
    moved = tuple(zero if signed else zero + qmin for zero in zeros)
    return Encoding(
        tuple(scales), moved if len(moved) == len(scales) else moved[:1] * len(scales),
        qmin + (narrow and signed), qmax - (narrow and not signed),
        "int8" if width <= 8 else "int16" if width <= 16 else "int32", axis,
    )  # fmt: skip


class Coded(nn.Module):
    """A weight as integers, read as real numbers."""

    def __init__(self, value: Tensor, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding
        self.register_buffer("integers", encoding.quantize(value))
        self.register_buffer("scale", torch.tensor(encoding.scale))
        self.register_buffer("zero_point", torch.tensor(encoding.zero_point))

    def forward(self) -> Tensor:  # noqa: D102
        e = self.encoding
        if e.axis is None:
            real: Tensor = _qd.dequantize_per_tensor(self.integers, *arguments(e))
        else:
            limits = (e.qmin, e.qmax, DTYPES[e.dtype])
            scales = (self.scale, self.zero_point)
            real = _qd.dequantize_per_channel(self.integers, *scales, e.axis, *limits)
        return real


class Rounding(nn.Module):
    """Quantize and dequantize with an encoding."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        rest = arguments(self.encoding)
        result: Tensor = _qd.dequantize_per_tensor(_qd.quantize_per_tensor(x, *rest), *rest)
        return result


def settle(program: Program, name: str) -> Program:
    """A traced program with quantized weights and values, made like those that edgemix quantizes.

    Args:
        program: with quantize and dequantize nodes, biases as real numbers.
        name: of the source, for the history.
    """
    module = program.module()
    one_reader_each(module)
    carry(module)
    return program.with_module(module, Step(name, {"biases": code_biases(module)}))


def one_reader_each(module: GraphModule) -> None:
    """A dequantize node for every reader, as the rest of the house writes them."""
    for node in list(module.graph.nodes):
        if g.is_dequantize(node) and not g.is_constant(node):
            for reader in list(node.users)[1:]:
                with module.graph.inserting_after(node):
                    again = module.graph.call_function(node.target, node.args)
                again.meta = dict(node.meta)
                reader.replace_input_with(node, again)


def carry(module: GraphModule) -> None:
    """The encoding of a value for what only selects or moves it: it is on the same grid."""
    integers = Integers(module, {})
    for node in list(module.graph.nodes):
        source = node.args[0] if node.args else None
        moves = node.target in g.SELECTING | g.VIEW | g.CLAMP_AT_ZERO
        if not moves or not g.is_dequantize(source) or any(map(g.is_quantize, node.users)):
            continue
        assert isinstance(source, Node)
        readers = list(node.users)
        with module.graph.inserting_after(node):
            read = integers.value(node, g.encoding_of(module, source), None)
        for reader in readers:
            reader.replace_input_with(node, read())


def code_biases(module: GraphModule) -> int:
    """Biases as integers on the grid of the products that they are added to; returns how many."""
    integers, count = Integers(module, {}), 0
    for node in list(module.graph.nodes):
        if node.target not in g.LINEAR or len(node.args) < 3:
            continue
        x, weight, bias = node.args[:3]
        if not isinstance(bias, Node) or bias.op != "get_attr" or not g.is_dequantize(x):
            continue
        assert isinstance(x, Node) and isinstance(weight, Node)
        encoding = encode_bias(g.encoding_of(module, x), g.encoding_of(module, weight))
        with module.graph.inserting_before(node):
            coded = integers.constant(bias, encoding, (node.name, bias.name))
        node.args = (x, weight, coded, *node.args[3:])
        count += 1
    return count
