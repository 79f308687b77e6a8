"""Program → logic: every operator runs on symbols, exactly, and is rounded where the program is.

The module loads da4ml, so only the child process imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from da4ml.cmvm import solve
from da4ml.trace import comb_trace
from da4ml.trace.fixed_variable import HWConfig
from da4ml.types import CombLogic
from torch.fx import GraphModule, Node
from torch.nn import functional

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.errors import UnsupportedError
from edgemix.graph import aten
from edgemix.program import Program
from edgemix.targets.fpga import dataflow, tables
from edgemix.targets.fpga.dataflow import Step
from edgemix.targets.fpga.hardware import Hardware, Strategy
from edgemix.targets.fpga.precision import needed
from edgemix.targets.rtl import arithmetic as logic
from edgemix.targets.rtl.arithmetic import Variables

Floats = npt.NDArray[np.float64]
_HARDWARE = HWConfig(-1, -1, -1)
_SLACK: dict[Strategy, int] = {"latency": 2, "resource": -1, "distributed_arithmetic": -1}
"""By how many adders the sum of a constant product may be deeper than its shallowest tree, which
costs most; −1 is no limit, and the fewest adders."""


def trace(
    program: Program, hardware: Hardware, progress: Callable[[float], None] = lambda _: None
) -> CombLogic:  # fmt: skip
    """The program as combinational logic, flat and in row-major order.

    It takes the inputs, then the states, and gives the outputs, then the next states.

    Args:
        program: what to trace.
        hardware: its strategies say which layers take few stages, and which little logic.
        progress: called with the share that is done.

    Raises:
        UnsupportedError: an operator has no logic.
    """
    return Tracer(program.module(), hardware, progress).run()


class Tracer:
    """Values of the program as arrays of variables, shape by shape."""

    def __init__(
        self, module: GraphModule, hardware: Hardware, progress: Callable[[float], None]
    ) -> None:
        self.module = module
        self._hardware = hardware
        self._slack = _SLACK[hardware.strategy]
        self.values: dict[Node, Variables] = {}
        self._progress = progress
        self._solutions: dict[object, Any] = {}

    def run(self) -> CombLogic:
        """Trace every step."""
        todo = list(dataflow.steps(self.module))
        inputs: list[Variables] = []
        for done, step in enumerate(todo):
            if isinstance(step, Step):
                at = g.where(step.anchor)
                self._slack = _SLACK[self._hardware.knobs(at.node, at.module or "")[1]]
                self.values[step.node] = self._rounded(step)
            elif step.op == "placeholder":
                inputs.append(self._input(step))
            else:
                source = self.operand(step.args[0])
                places = np.arange(source.size).reshape(source.shape)
                self.values[step] = source.ravel()[dataflow.viewed(step, places)]
            self._progress((done + 1) / len(todo))
        outputs = [self.values[node].ravel() for node in dataflow.results(self.module)]
        numbers = [logic.number(v, _HARDWARE) for v in np.concatenate(outputs)]
        return comb_trace(list(np.concatenate(inputs)), numbers)

    def operand(self, node: Any) -> Variables:
        """What an operator reads: variables, exact ones where nothing rounds, or numbers."""
        if tables.constant_root(node) is not None:
            return tables.constant_array(self.module, node).astype(object)
        source = g.through_quantization(node)
        if source not in self.values:
            self.values[source] = self._exact(source)
        return self.values[source]

    def product(self, rows: Variables, kernel: Any) -> Variables:
        """Rows [n, i] times constants [i, o], by shared additions."""
        found = np.empty((len(rows), kernel.shape[1]), object)
        for i, row in enumerate(rows):
            found[i] = self._solved(row, kernel)
        return found

    def _solved(self, row: Variables, kernel: Floats) -> Variables:
        intervals = tuple(v.qint for v in row)
        first = min(v.latency for v in row)
        latencies = tuple(float(v.latency - first) for v in row)
        key = (kernel.tobytes(), kernel.shape, intervals, latencies, self._slack)
        if key not in self._solutions:
            self._solutions[key] = solve(
                np.ascontiguousarray(kernel, np.float32), qintervals=list(intervals),
                latencies=list(latencies), hard_dc=self._slack, adder_size=1,
            )  # fmt: skip
        result: Variables = self._solutions[key](row)
        return result

    def _input(self, node: Node) -> Variables:
        fixed = needed(g.produced_encoding(self.module, node), f"the input {node.name}")
        shape = g.shape_of(node)
        flat = logic.variables(fixed, int(np.prod(shape)), _HARDWARE)
        # da4ml wants every input read through a quantizer of its own.
        self.values[node] = flat.reshape(shape)
        return flat

    def _exact(self, node: Node) -> Variables:
        trace_one = OPERATORS.get(node.target)
        if trace_one is None:
            raise UnsupportedError(f"RTL has no logic for {g.op_name(node)}", at=str(g.where(node)))
        return trace_one(self, node)

    def _rounded(self, step: Step) -> Variables:
        node = step.anchor
        if node.target in AVERAGES:
            exact = AVERAGES[node.target](self, node, step.fixed.fraction)
        elif g.is_spike(node):
            exact = self._spike(node)
        elif node.target not in OPERATORS and tables.is_scalar_function(self.module, node):
            exact = self._table(node, step.encoding)
        else:
            exact = self._exact(node)
        found = np.empty(exact.shape, object)
        for i, x in np.ndenumerate(exact):
            value = logic.fit(logic.number(x, _HARDWARE), step.fixed)
            # An unsigned type has clamped already. Rounding first is the same, and is shorter.
            found[i] = value.relu() if step.clamps and step.fixed.signed else value
        return found.reshape(g.shape_of(step.node))

    def _spike(self, node: Node) -> Variables:
        compared = dataflow.threshold(self.module, node)
        if compared is None:
            raise UnsupportedError("RTL compares one sum at most", at=str(g.where(node)))
        x = self.operand(compared.first)
        if compared.second is not None:
            x = x + compared.sign * self.operand(compared.second)
        bounds = np.broadcast_to(compared.bound, x.shape)
        found = np.empty(x.shape, object)
        for i, value in np.ndenumerate(x):
            v = logic.number(value, _HARDWARE)
            fraction = v.kif[2]
            bound = int(replace(compared, bound=bounds[i]).on_grid(fraction))
            found[i] = logic.reaches(v, bound * 2.0**-fraction, negated=compared.negated)
        return found

    def _table(self, node: Node, encoding: Encoding) -> Variables:
        source = tables.argument_of(node)
        given = g.encoding_of(self.module, source)
        entries = np.array(tables.table(self.module, node, given, encoding).integers)
        x = self.operand(source)
        found = np.empty(x.shape, object)
        fixed = needed(given, str(g.where(source)))
        for i, v in np.ndenumerate(x):
            found[i] = logic.look_up(v, entries, fixed, encoding.lsb)
        return found


def linear(t: Tracer, node: Node) -> Variables:
    """X Wᵀ + b."""
    x = t.operand(node.args[0])
    weight = tables.constant_array(t.module, node.args[1])
    rows = x.reshape(-1, weight.shape[1])
    return _biased(t, node, t.product(rows, weight.T)).reshape(g.shape_of(node))


def convolution(t: Tracer, node: Node) -> Variables:
    """A convolution is a linear map of every window; padding is zeros that cost nothing."""
    x = t.operand(node.args[0])
    weight = tables.constant_array(t.module, node.args[1])
    if x.ndim == 3:
        x, weight = x[:, :, None, :], weight[:, :, None, :]
    patches = _patches(node, x.shape, weight.shape)
    flat = np.append(x.ravel(), [0.0])
    groups = int(dataflow.argument(node, 6, 1))
    filters = weight.shape[0] // groups
    result = []
    for group in range(groups):
        size = weight.shape[1] * weight.shape[2] * weight.shape[3]
        places = patches[:, group * size : (group + 1) * size]
        kernel = weight[group * filters : (group + 1) * filters].reshape(filters, -1).T
        rows = [t.product(flat[p[p >= 0]][None], kernel[p >= 0])[0] for p in places]
        result.append(np.array(rows, object))
    found = _biased(t, node, np.concatenate(result, axis=1))
    return np.moveaxis(found[None], 2, 1).reshape(g.shape_of(node))


def _patches(node: Node, shape: tuple[int, ...], kernel: tuple[int, ...]) -> dataflow.Index:
    """For every position, which elements of x its window reads; −1 is padding."""
    size = int(np.prod(shape))
    places = torch.arange(1, size + 1, dtype=torch.float64).reshape(shape)
    single = len(g.shape_of(node)) == 3
    stride, padding, dilation = (
        _spatial(node, position, default, single) for position, default in ((3, 1), (4, 0), (5, 1))
    )
    columns = functional.unfold(
        places, kernel[2:], dilation=dilation, padding=padding, stride=stride
    )
    return columns[0].T.numpy().astype(np.int64) - 1


def _spatial(node: Node, position: int, default: int, single: bool) -> tuple[int, int]:
    first, second = dataflow.pair(node, position, default)
    if not single:
        return first, second
    return (0 if position == 4 else 1), first


def _biased(t: Tracer, node: Node, rows: Variables) -> Variables:
    bias = dataflow.argument(node, 2, None)
    return rows if bias is None else rows + tables.constant_array(t.module, bias)


def elementwise(combine: Callable[[Any, Any], Any]) -> Callable[[Tracer, Node], Variables]:
    """An operator of two operands, broadcast against each other."""

    def apply(t: Tracer, node: Node) -> Variables:
        a, b = (t.operand(n) for n in node.args[:2])
        result: Variables = combine(a, b)
        return result

    return apply


def relu(t: Tracer, node: Node) -> Variables:
    """Negative values become zero."""
    x = t.operand(node.args[0])
    return _array([logic.number(v, _HARDWARE).relu() for v in x.ravel()], node)


def matmul(t: Tracer, node: Node) -> Variables:
    """Batched product of two activations, or of one and a constant."""
    left, right = (t.operand(n) for n in node.args[:2])
    if tables.constant_root(node.args[1]) is not None and right.ndim == 2:
        right = right.astype(np.float64)
        return t.product(left.reshape(-1, left.shape[-1]), right).reshape(g.shape_of(node))
    shape = g.shape_of(node)
    left = np.broadcast_to(left, (*shape[:-2], *left.shape[-2:]))
    right = np.broadcast_to(right, (*shape[:-2], *right.shape[-2:]))
    found = np.empty(shape, object)
    for place in np.ndindex(shape):
        a, b = left[place[:-1]], right[(*place[:-2], slice(None), place[-1])]
        found[place] = logic.balanced_sum(
            [logic.number(x * y, _HARDWARE) for x, y in zip(a, b, strict=True)]
        )
    return found


def mean(t: Tracer, node: Node, fraction: int) -> Variables:
    """An exact sum, one exact division: the only operator that has to round by itself."""
    flat = t.operand(node.args[0]).ravel()
    found = [
        logic.divide(logic.balanced_sum(flat[w.members].tolist()), w.divisor, fraction)
        for w in dataflow.windows(node)
    ]
    return _array(found, node)


def total(t: Tracer, node: Node) -> Variables:
    """An exact sum."""
    flat = t.operand(node.args[0]).ravel()
    return _array(
        [logic.balanced_sum(flat[w.members].tolist()) for w in dataflow.windows(node)], node
    )


def maximum(t: Tracer, node: Node) -> Variables:
    """Maxima over windows or axes."""
    flat = t.operand(node.args[0]).ravel()
    return _array([logic.largest(flat[w.members].tolist()) for w in dataflow.windows(node)], node)


def concatenation(t: Tracer, node: Node) -> Variables:
    """Wires of several values, side by side."""
    parts: Any = node.args[0]
    axis = int(dataflow.argument(node, 1, 0))
    return np.concatenate([t.operand(p) for p in parts], axis)


def _array(found: Sequence[Any], node: Node) -> Variables:
    result = np.empty(len(found), object)
    for i, x in enumerate(found):
        result[i] = x
    return result.reshape(g.shape_of(node))


AVERAGES: dict[Any, Callable[[Tracer, Node, int], Variables]] = {
    aten.mean.dim: mean,
    aten.avg_pool2d.default: mean,
    aten.avg_pool1d.default: mean,
    aten.adaptive_avg_pool2d.default: mean,
    aten.adaptive_avg_pool1d.default: mean,
}

OPERATORS: dict[Any, Callable[[Tracer, Node], Variables]] = {
    aten.linear.default: linear,
    aten.conv1d.default: convolution,
    aten.conv2d.default: convolution,
    aten.add.Tensor: elementwise(lambda a, b: a + b),
    aten.sub.Tensor: elementwise(lambda a, b: a - b),
    aten.mul.Tensor: elementwise(logic.product),
    aten.relu.default: relu,
    aten.matmul.default: matmul,
    aten.bmm.default: matmul,
    aten.sum.dim_IntList: total,
    aten.amax.default: maximum,
    aten.max_pool2d.default: maximum,
    aten.max_pool1d.default: maximum,
    aten.cat.default: concatenation,
    **dict.fromkeys(g.QUANTIZE, lambda t, node: t.operand(node.args[0])),
}
