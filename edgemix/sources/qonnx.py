"""``FILE.onnx``: a quantized ONNX graph, in QONNX or with QuantizeLinear and DequantizeLinear.

QONNX (Pappalardo et al., "QONNX: Representing Arbitrary-Precision Quantized Neural Networks",
2022) says by one node, Quant, how a tensor is rounded: what FINN, hls4ml and Brevitas speak. A
Quant of a constant becomes integers, one of a value a quantize and a dequantize node; operators
become torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.extras import need, versions
from edgemix.program import Origin, Program
from edgemix.sources.coded import Coded, Rounding, encoding, settle
from edgemix.targets.onnx.sparse import dense

Values = list[Any]
"""An operator's inputs: tensors, or None for one that is left out."""
Options = Mapping[str, Any]


def load(path: Path) -> Program:
    """The quantized program of a file.

    Raises:
        InputError: the file is damaged, has an operator that is not known (it is named), an open
            axis other than the batch, or numbers that have no encoding.
    """
    onnx = need("onnx", extra="onnx")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf has several of its own
        raise InputError(f"{path} is no ONNX file, or it is damaged: {error}") from error
    graph = model.graph
    dense(graph)
    constants = {t.name: _tensor(onnx.numpy_helper.to_array(t)) for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    example = tuple(torch.zeros(_shape(i, path)) for i in inputs)
    nodes = [_Node(n, {a.name: _option(onnx, a) for a in n.attribute}) for n in graph.node]
    names = [i.name for i in inputs], [o.name for o in graph.output]
    module = _Graph(_with_biases(nodes, constants), constants, *names, path)
    program = Program.trace(module, example, Origin(path.name, versions("onnx", "torch")))
    return settle(program, "qonnx") if program.quantized else program


def _tensor(value: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.array(value))


def _shape(value: Any, path: Path) -> tuple[int, ...]:
    found = []
    for i, axis in enumerate(value.type.tensor_type.shape.dim):
        if axis.dim_value > 0:
            found.append(int(axis.dim_value))
        elif i == 0:
            found.append(1)
        else:
            raise InputError(
                f"{path}: axis {i} of the input {value.name} has no size",
                do="export it with fixed sizes; only the batch may be open",
            )
    return tuple(found)


def _option(onnx: Any, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _tensor(onnx.numpy_helper.to_array(value))
    return value.decode() if isinstance(value, bytes) else value


class _Node:
    """One operator of the file."""

    def __init__(self, proto: Any, options: dict[str, Any]) -> None:
        self.op: str = proto.op_type
        self.inputs = list(proto.input)
        self.outputs = list(proto.output)
        self.options = options
        self.name: str = proto.name or self.outputs[0]


def _with_biases(nodes: list[_Node], constants: Mapping[str, Tensor]) -> list[_Node]:
    """A product and the addition of a constant row behind it as one operator, in place."""
    readers: dict[str, list[_Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    left = list(nodes)
    for node in nodes:
        after = readers.get(node.outputs[0], [])
        if node.op != "MatMul" or len(after) != 1 or after[0].op != "Add":
            continue
        (row,) = (n for n in after[0].inputs if n != node.outputs[0])
        if row in constants and constants[row].ndim == 1:
            node.inputs.append(row)
            node.outputs = after[0].outputs
            left.remove(after[0])
    return left


class _Graph(nn.Module):
    """The file's graph as a module that runs operator by operator."""

    def __init__(
        self, nodes: list[_Node], constants: dict[str, Tensor], inputs: list[str],
        outputs: list[str], path: Path,
    ) -> None:  # fmt: skip
        super().__init__()
        self._inputs, self._outputs, self._path = inputs, outputs, path
        self._constants = dict(constants)
        self._coded: dict[str, Coded] = {}
        """Constants as integers, by name."""
        self._steps: list[tuple[_Node, Rounding | None]] = []
        for node in nodes:
            self._add(node)
        self.roundings = nn.ModuleList(r for _, r in self._steps if r is not None)
        self.coded = nn.ModuleList(self._coded.values())
        used = {name for node, _ in self._steps for name in node.inputs}
        self._real = {}
        for i, name in enumerate(n for n in self._constants if n in used):
            if self._constants[name].is_floating_point():
                self._real[name] = f"constant_{i}"
                self.register_buffer(f"constant_{i}", self._constants[name])
        # Sizes, axes and indices are part of the graph, not values in it.
        whole = {n: c.tolist() for n, c in self._constants.items() if not c.is_floating_point()}
        self._sizes: dict[str, Any] = {name: whole[name] for name in whole if name in used}

    def _add(self, node: _Node) -> None:
        first = node.inputs[0] if node.inputs else ""
        result = node.outputs[0]
        if node.op == "Constant":
            (value,) = node.options.values()
            self._constants[result] = value if isinstance(value, Tensor) else torch.tensor(value)
        elif node.op in ("Quant", "DequantizeLinear"):
            grid = self._encoding(node)
            if first in self._constants:
                value = self._constants[first]
                if node.op == "DequantizeLinear":
                    # Unsigned integers start at 0 there, at the least one here.
                    shift = grid.qmin if value.dtype in (torch.uint8, torch.uint16) else 0
                    value = grid.dequantize(value.to(torch.int32) + shift)
                self._coded[result] = Coded(value, grid)
            elif grid.axis is not None:
                raise InputError(
                    f"{self._path}: values have a scale for every channel", at=node.name,
                    do="use one for all",
                )  # fmt: skip
            else:
                self._steps.append((node, Rounding(grid)))
        elif node.op == "Transpose" and first in self._coded:
            self._coded[result] = _transposed(self._coded[first])
        elif node.op == "Clip":
            ends = zip(("min", "max"), node.inputs[1:], strict=False)
            node.options |= {end: float(self._constants[name]) for end, name in ends if name}
            node.inputs = [first]
            self._steps.append((node, None))
        elif node.op in _OPERATORS:
            plain = node.op == "Gemm" and not node.options.get("transB")
            if (plain or node.op == "MatMul") and node.inputs[1] in self._coded:
                # torch's linear operator keeps weights [out, in].
                turned = f"{node.inputs[1]} transposed"
                self._coded.setdefault(turned, _transposed(self._coded[node.inputs[1]]))
                node.inputs[1] = turned
                node.op, node.options = "Gemm", {**node.options, "transB": 1}
            self._steps.append((node, None))
        else:
            raise InputError(
                f"{self._path}: the operator {node.op} is not known", at=node.name,
                do="simplify the model, or deploy it from torch",
            )  # fmt: skip

    def _encoding(self, node: _Node) -> Encoding:
        try:
            return _encoding(node, self._constants)
        except KeyError as error:
            raise InputError(
                f"{self._path}: its scale or zero point is no constant: {error}", at=node.name
            ) from error
        except ValueError as error:
            raise InputError(f"{self._path}: {error}", at=node.name) from error

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        values: dict[str, Any] = dict(self._sizes)
        values |= {name: getattr(self, place) for name, place in self._real.items()}
        values |= zip(self._inputs, given, strict=True)
        for node, rounding in self._steps:
            taken = [
                self._coded[name]() if name in self._coded else values[name] if name else None
                for name in node.inputs
            ]
            if rounding is not None:
                values[node.outputs[0]] = rounding(taken[0])
            else:
                values[node.outputs[0]] = _OPERATORS[node.op](taken, node.options)
        return tuple(values[name] for name in self._outputs)


def _transposed(coded: Coded) -> Coded:
    axis = None if coded.encoding.axis is None else 1 - coded.encoding.axis
    return Coded(coded().t().contiguous(), replace(coded.encoding, axis=axis))


def _encoding(node: _Node, constants: Mapping[str, Tensor]) -> Encoding:
    scale = constants[node.inputs[1]].float()
    has_zero = len(node.inputs) > 2 and bool(node.inputs[2])
    source = constants.get(node.inputs[0])
    kind_of_zero = torch.uint8 if source is None else source.dtype
    zero = constants[node.inputs[2]] if has_zero else torch.zeros(1, dtype=kind_of_zero)
    if node.op == "Quant":
        width = round(float(constants[node.inputs[3]].flatten()[0]))
        signed, narrow = bool(node.options.get("signed", 1)), bool(node.options.get("narrow", 0))
        mode = node.options.get("rounding_mode", "ROUND")
        if mode not in ("ROUND", "ROUND_TO_EVEN", "HALF_EVEN"):
            raise ValueError(f"it rounds by {mode}; ROUND is what there is")
    else:
        width = 8 * zero.element_size()
        signed, narrow = zero.dtype in (torch.int8, torch.int16, torch.int32), False
    if not 1 <= width <= 32:
        raise ValueError(f"it has {width} bits; 1 to 32 are possible")
    zeros = [round(float(z)) for z in zero.flatten()]
    scales = [float(s) for s in scale.flatten()]
    axes = 1 if source is None else source.ndim
    axis = _axis(node, scale, axes) if len(scales) > 1 else None
    return encoding(scales, zeros, width, signed=signed, narrow=narrow, axis=axis)


def _axis(node: _Node, scale: Tensor, axes: int) -> int:
    """The axis of a tensor's scales: said by DequantizeLinear, by broadcasting in Quant."""
    if node.op != "Quant":
        return int(node.options.get("axis", 1)) % axes
    differing = [i for i, size in enumerate(scale.shape) if size > 1]
    if len(differing) != 1:
        raise ValueError(f"its scales have the shape {tuple(scale.shape)}; one axis may differ")
    return differing[0] - scale.ndim + axes


def _ints(value: Any) -> list[int]:
    return [int(v) for v in value]


def _pads(options: Options, axes: int) -> list[int]:
    """Padding as torch takes it, the same on both sides.

    Raises:
        InputError: it differs.
    """
    if options.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise InputError("auto_pad is not supported", do="export explicit pads")
    pads = list(options.get("pads", [0] * (2 * axes)))
    if pads[:axes] != pads[axes:]:
        raise InputError(f"pads differ on both sides: {pads}", do="pad by an operator in front")
    return [int(p) for p in pads[:axes]]


def _convolution(v: Values, o: Options) -> Tensor:
    x, weight, bias = v[0], v[1], v[2] if len(v) > 2 else None
    axes = weight.ndim - 2
    function = functional.conv1d if axes == 1 else functional.conv2d
    one = [1] * axes
    return function(
        x, weight, bias, _ints(o.get("strides", one)), _pads(o, axes),
        _ints(o.get("dilations", one)), int(o.get("group", 1)),
    )  # fmt: skip


def _gemm(v: Values, o: Options) -> Tensor:
    a, b, c = v[0], v[1], v[2] if len(v) > 2 else None
    if o.get("transA") or o.get("alpha", 1.0) != 1.0 or o.get("beta", 1.0) != 1.0:
        raise InputError("Gemm with transA, alpha or beta is not supported")
    return functional.linear(a, b if o.get("transB") else b.t(), c)


def _matmul(v: Values, _: Options) -> Tensor:
    found = torch.matmul(v[0], v[1])
    return found + v[2] if len(v) > 2 else found


def _pooled(v: Values, o: Options, *, largest: bool) -> Tensor:
    size = _ints(o["kernel_shape"])
    strides, pads = _ints(o.get("strides", [1] * len(size))), _pads(o, len(size))
    if largest:
        return functional.max_pool2d(v[0], size, strides, pads, ceil_mode=bool(o.get("ceil_mode")))
    return functional.avg_pool2d(
        v[0], size, strides, pads, count_include_pad=bool(o.get("count_include_pad", 0))
    )


def _normalized(v: Values, o: Options) -> Tensor:
    x, weight, bias, mean, variance = v
    return functional.batch_norm(
        x, mean, variance, weight, bias, False, 0.0, o.get("epsilon", 1e-5)
    )


def _reduced(function: Callable[..., Tensor]) -> Callable[[Values, Options], Tensor]:
    def apply(v: Values, o: Options) -> Tensor:
        axes = _ints(v[1]) if len(v) > 1 and v[1] is not None else _ints(o["axes"])
        return function(v[0], axes, bool(o.get("keepdims", 1)))

    return apply


def _sliced(v: Values, _: Options) -> Tensor:
    x, starts, ends = v[0], _ints(v[1]), _ints(v[2])
    axes = _ints(v[3]) if len(v) > 3 and v[3] is not None else list(range(len(starts)))
    steps = _ints(v[4]) if len(v) > 4 and v[4] is not None else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise InputError("a slice with a negative step is not supported")
        index: list[slice] = [slice(None)] * x.ndim
        index[axis] = slice(start, None if end >= x.shape[axis] else end, step)
        x = x[tuple(index)]
    found: Tensor = x
    return found


def _gathered(v: Values, o: Options) -> Tensor:
    x, index, axis = v[0], v[1], int(o.get("axis", 0))
    if isinstance(index, int):
        found: Tensor = x.select(axis, index)
        return found
    if all(isinstance(i, int) for i in index):
        return torch.index_select(x, axis, torch.tensor(index))
    raise InputError("Gather with more than one axis of indices is not supported")


def _squeezed(v: Values, o: Options) -> Tensor:
    axes = _ints(v[1]) if len(v) > 1 else _ints(o["axes"])
    return v[0].squeeze(axes)  # type: ignore[no-any-return]


def _unsqueezed(v: Values, o: Options) -> Tensor:
    x = v[0]
    for axis in sorted(_ints(v[1]) if len(v) > 1 else _ints(o["axes"])):
        x = x.unsqueeze(axis)
    found: Tensor = x
    return found


def _clipped(v: Values, o: Options) -> Tensor:
    return torch.clamp(v[0], o.get("min"), o.get("max"))


def _reshaped(v: Values, _: Options) -> Tensor:
    x, sizes = v[0], _ints(v[1])
    found: Tensor = x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(sizes)])
    return found


_OPERATORS: dict[str, Callable[[Values, Options], Any]] = {
    "QuantizeLinear": lambda v, o: v[0],  # the DequantizeLinear behind it rounds
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": lambda v, o: v[0] + v[1],
    "Sub": lambda v, o: v[0] - v[1],
    "Mul": lambda v, o: v[0] * v[1],
    "Div": lambda v, o: v[0] / v[1],
    "Relu": lambda v, o: torch.relu(v[0]),
    "LeakyRelu": lambda v, o: functional.leaky_relu(v[0], o.get("alpha", 0.01)),
    "Sigmoid": lambda v, o: torch.sigmoid(v[0]),
    "Tanh": lambda v, o: torch.tanh(v[0]),
    "Exp": lambda v, o: torch.exp(v[0]),
    "Erf": lambda v, o: torch.erf(v[0]),
    "Reciprocal": lambda v, o: torch.reciprocal(v[0]),
    "Gather": _gathered,
    "Sqrt": lambda v, o: torch.sqrt(v[0]),
    "Gelu": lambda v, o: functional.gelu(v[0], approximate=o.get("approximate", "none")),
    "Softmax": lambda v, o: torch.softmax(v[0], o.get("axis", -1)),
    "MaxPool": lambda v, o: _pooled(v, o, largest=True),
    "AveragePool": lambda v, o: _pooled(v, o, largest=False),
    "GlobalAveragePool": lambda v, o: v[0].mean(list(range(2, v[0].ndim)), keepdim=True),
    "BatchNormalization": _normalized,
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "Reshape": _reshaped,
    "Flatten": lambda v, o: v[0].flatten(1) if o.get("axis", 1) == 1 else v[0].reshape(1, -1),
    "Transpose": lambda v, o: v[0].permute(_ints(o["perm"])),
    "Concat": lambda v, o: torch.cat(v, o["axis"]),
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Slice": _sliced,
    "Clip": _clipped,
    "Identity": lambda v, o: v[0],
    "Cast": lambda v, o: v[0],
    "Dropout": lambda v, o: v[0],
}
