"""Where the quality goes: every value of a quantized program against the float program."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.errors import EdgemixError
from edgemix.graph import Where
from edgemix.program import Program


@dataclass(frozen=True)
class LayerQuality:
    """One quantized value against its float twin."""

    where: Where
    op: str
    sqnr_db: float | None
    """10 · log10(Σ float² / Σ (float − quantized)²), None where they are identical."""
    own_db: float | None
    """The same for this value's rounding alone, of float inputs: what is missing to it was lost
    before."""
    clipped: float
    """Share of values at either end of the integer range."""
    encoding: Encoding
    causes: tuple[str, ...] = ()
    """What probably happened, for people."""


_SAMPLES, _FEWEST, _SEQUENCES = 64, 4, 4
_VALUES = 1 << 25
"""Of all layers and samples, that are compared, about."""
_POOR_DB = 25.0
_BEYOND = 0.02
_DOMINANT = 8.0
_INHERITED_DB = 6.0


def _causes(
    own_db: float | None, sqnr: float | None, beyond: tuple[float, float], dominance: float,
    encoding: Encoding,
) -> Iterator[str]:  # fmt: skip
    """What a poor value's figures say.

    Args:
        own_db: SQNR of its own rounding.
        sqnr: with everything before it.
        beyond: shares of float values below and above what the encoding represents.
        dominance: the largest channel's peak as a multiple of the median channel's.
        encoding: its.
    """
    if sqnr is None or sqnr >= _POOR_DB:
        return
    if own_db is None or own_db - sqnr > _INHERITED_DB:
        yield "most of the error comes from before"
        return
    low, high = beyond
    if low + high > _BEYOND:
        edge = encoding.zero_point[0] in (encoding.qmin, encoding.qmax)
        at_edge = ", the zero point lies at the edge" if edge else ""
        yield f"{low + high:.1%} of the values are clipped{at_edge}"
    if dominance > _DOMINANT:
        yield f"one channel is {dominance:.0f} times as large as the median channel"
    if low + high <= _BEYOND and dominance <= _DOMINANT:
        yield f"{encoding.bits} bits are few for its distribution"


def layers(program: Program, quantized: Program, samples: Tensor) -> tuple[LayerQuality, ...]:
    """Quality of every quantized value, in the graph's order.

    Args:
        program: the float program that ``quantized`` was made from, after all rewrites.
        quantized: the same operators, with quantize and dequantize nodes.
        samples: inputs [n, ...], n a multiple of the program's batch, or sequences [n, steps, ...]
            of a program with states; each of the two programs carries its own.

    Raises:
        EdgemixError: the two programs do not compute the same operators.
    """
    plain, coded = program.shared, quantized.shared
    twins = _twins(plain, coded)
    sums = {node: [0.0] * 7 for node in twins}
    peaks: dict[Node, Tensor] = {}
    runs = zip(_runs(program, plain, samples), _runs(quantized, coded, samples), strict=True)
    for real, found in runs:
        for node, twin in twins.items():
            integers = found[_quantize(node)]
            encoding = g.encoding_of(coded, _quantize(node))
            expected = real[twin]
            alone = encoding.dequantize(encoding.quantize(expected))
            lowest, highest = encoding.limits
            entry = sums[node]
            entry[0] += _energy(expected)
            entry[1] += _energy(expected - encoding.dequantize(integers))
            entry[2] += int((integers == encoding.qmin).sum() + (integers == encoding.qmax).sum())
            entry[3] += integers.numel()
            entry[4] += _energy(expected - alone)
            entry[5] += int((expected < lowest - encoding.lsb / 2).sum())
            entry[6] += int((expected > highest + encoding.lsb / 2).sum())
            peak = _channel_peaks(twin, expected)
            peaks[node] = torch.maximum(peaks.get(node, peak), peak)
    return tuple(_quality(coded, node, sums[node], peaks[node]) for node in twins)


def enough(quantized: Program) -> int:
    """Samples, or sequences, that tell of a program's layers; of large models fewer do."""
    if quantized.states:
        return _SEQUENCES
    nodes = quantized.shared.graph.nodes
    values: int = sum(n.meta["val"].numel() for n in nodes if g.is_quantize(n))
    batch = quantized.inputs[0].shape[0]
    return max(min(_SAMPLES, _VALUES // max(1, values) * batch), _FEWEST * batch)


def _energy(value: Tensor) -> float:
    """Σ x²."""
    return float(torch.linalg.vector_norm(value, dtype=torch.float64)) ** 2


def _quality(coded: GraphModule, node: Node, sums: list[float], peaks: Tensor) -> LayerQuality:
    signal, noise, clipped, count, own, below, above = sums
    encoding = g.encoding_of(coded, _quantize(node))
    sqnr, alone = _decibels(signal, noise), _decibels(signal, own)
    median = float(peaks.median())
    dominance = float(peaks.max()) / median if median > 0 else 1.0
    causes = _causes(alone, sqnr, (below / count, above / count), dominance, encoding)
    return LayerQuality(
        g.where(node),
        "input" if node.op == "placeholder" else g.op_name(node),
        sqnr,
        alone,
        clipped / count,
        encoding,
        tuple(causes),
    )


def _channel_peaks(node: Node, value: Tensor) -> Tensor:
    """The largest magnitude of every channel."""
    if value.ndim < 2:
        return value.abs().max().reshape(1)
    axis = g.channel_axis(node)
    return value.abs().amax([d for d in range(value.ndim) if d != axis])


def undefined(program: Program, samples: Tensor) -> Where | None:
    """The first operator that gives NaN; where none does, the first that gives infinity.

    Args:
        program: float or quantized.
        samples: as :func:`layers` takes them.
    """
    infinite: Where | None = None
    for values in _runs(program, program.shared, samples):
        for node, value in values.items():
            if value.is_floating_point() and bool(value.isnan().any()):
                return g.where(node)
            if infinite is None and bool(value.isinf().any()):
                infinite = g.where(node)
    return infinite


def left_float(program: Program) -> tuple[Where, ...]:
    """Operators whose result no reader ever quantizes: they compute and travel in float."""
    module = program.shared
    quantized = _end_quantized(module)
    return tuple(g.where(n) for n in g.float_ops(module) if n not in quantized)


def multiply_accumulates(program: Program) -> int:
    """Multiplications with addition of one inference: linear operators and matrix products."""
    return sum(macs(node) for node in g.float_ops(program.shared))


def synaptic_operations(program: Program, samples: Tensor) -> float:
    """Additions of weights that one run needs: a product counts where its operand is not zero.

    For spiking networks the figure that stands for energy: Horowitz, "Computing's energy problem",
    ISSCC 2014, gives the costs of one.

    Args:
        program: a float program.
        samples: as :func:`layers` takes them.
    """
    total, count = 0.0, 0
    for values in _runs(program, program.shared, samples):
        count += 1
        for node in values:
            source = node.args[0] if node.target in g.LINEAR else None
            if isinstance(source, Node):
                total += float((values[source] != 0).double().mean()) * macs(node)
    return total / max(count, 1)


def macs(node: Node) -> int:
    """Multiplications with addition of one operator: of a linear one, or a matrix product."""
    if node.target in g.LINEAR:
        weight = node.args[1]
        assert isinstance(weight, Node)
        shape = g.shape_of(weight)
        return math.prod(g.shape_of(node)) // shape[0] * math.prod(shape)
    if node.target in g.MATRIX_PRODUCT:
        left = node.args[0]
        assert isinstance(left, Node)
        return math.prod(g.shape_of(node)) * g.shape_of(left)[-1]
    return 0


def _end_quantized(module: GraphModule) -> set[Node]:
    """Nodes all of whose readers make integers of the value, possibly a few operators later."""
    found: set[Node] = set()
    for node in reversed(module.graph.nodes):
        readers = [u for u in node.users if u.op == "call_function"]
        if readers and len(readers) == len(node.users):
            if all(g.is_quantize(u) or (not g.is_dequantize(u) and u in found) for u in readers):
                found.add(node)
    return found


def _twins(plain: GraphModule, coded: GraphModule) -> dict[Node, Node]:
    """Quantized nodes of the coded graph with their twins in the plain one."""
    pairs = [
        *zip(
            plain.graph.find_nodes(op="placeholder"),
            coded.graph.find_nodes(op="placeholder"),
            strict=True,
        ),
        *_matched(list(g.float_ops(plain)), list(g.float_ops(coded))),
    ]
    return {b: a for a, b in pairs if any(g.is_quantize(u) for u in b.users)}


def _matched(plain: list[Node], coded: list[Node]) -> Iterator[tuple[Node, Node]]:
    if [n.target for n in plain] != [n.target for n in coded]:
        raise EdgemixError("the float and the quantized program compute different operators")
    return zip(plain, coded, strict=True)


def _quantize(node: Node) -> Node:
    return next(u for u in node.users if g.is_quantize(u))


def _runs(program: Program, module: GraphModule, samples: Tensor) -> Iterator[dict[Node, Tensor]]:
    """Every value of every run of the graph: a batch each, or a step."""
    batch = program.inputs[0].shape[0]
    if not program.states:
        for start in range(0, len(samples), batch):
            yield _values(module, samples[start : start + batch])
        return
    (output,) = module.graph.find_nodes(op="output")
    given: Any = output.args[0]
    for sequence in samples:
        held = [state.start() for state in program.states]
        for x in sequence:
            values = _values(module, x[None], *held)
            held = [values[node] for node in given[len(program.outputs) :]]
            yield values


def _values(module: GraphModule, *inputs: Tensor) -> dict[Node, Tensor]:
    found: dict[Node, Tensor] = {}

    class Recorder(Interpreter):
        def run_node(self, n: Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor) and n.op in ("placeholder", "call_function"):
                found[n] = value
            return value

    with torch.no_grad():
        Recorder(module).run(*inputs)
    return found


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0.0:
        return None
    return 10.0 * math.log10(signal / noise) if signal > 0 else -300.0
