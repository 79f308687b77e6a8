"""Models that were authored or trained with Brevitas: their learned scales and bits, as they are.

Every Brevitas layer becomes the plain operator with integers for weights, every quantizer a
quantize and a dequantize node, so that what is traced is a quantized program already. The modules
are read, not run: Brevitas itself is not imported here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.sources.base import SourceModel
from edgemix.sources.coded import Coded, Rounding, encoding, settle


def uses_brevitas(module: nn.Module) -> bool:
    """Whether any layer comes from Brevitas."""
    return any(_is_brevitas(m) for m in module.modules())


def trace(model: SourceModel) -> Program:
    """The quantized program of a model with Brevitas layers.

    Raises:
        InputError: a layer that has no counterpart here (it is named), more than 16 bits, or a
            model that cannot be exported.
    """
    plain = _plain(copy.deepcopy(model.module).eval(), "")
    return settle(Program.trace(plain, model.example, model.origin), "brevitas")


def _is_brevitas(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "brevitas"


def _plain(module: nn.Module, path: str) -> nn.Module:
    """The module with every Brevitas layer replaced, in place where it is no such layer itself."""
    if _is_brevitas(module):
        return _replaced(module, path)
    for name, child in list(module.named_children()):
        setattr(module, name, _plain(child, f"{path}.{name}".lstrip(".")))
    return module


def _replaced(layer: Any, path: str) -> nn.Module:
    kind = type(layer).__name__
    if hasattr(layer, "quant_weight") and kind in _OPERATORS:
        return _Layer(layer, _OPERATORS[kind](layer), path)
    if hasattr(layer, "act_quant"):
        return _Activation(layer, path)
    if kind == "QuantEltwiseAdd":
        return _Sum(layer, path)
    if kind == "QuantDropout":
        return nn.Identity()
    raise InputError(
        f"the Brevitas layer {kind} has no counterpart", at=path, do="build it from other layers"
    )


Operator = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


def _convolution(layer: Any) -> Operator:
    function = nn.functional.conv1d if len(layer.kernel_size) == 1 else nn.functional.conv2d
    if layer.padding_mode != "zeros":
        raise InputError(f"padding of the kind {layer.padding_mode} is not supported")
    stride, padding = layer.stride, layer.padding
    dilation, groups = layer.dilation, layer.groups
    return lambda x, w, b: function(x, w, b, stride, padding, dilation, groups)


def _linear(_: Any) -> Operator:
    return nn.functional.linear


_OPERATORS: dict[str, Callable[[Any], Operator]] = {
    "QuantLinear": _linear,
    "QuantConv1d": _convolution,
    "QuantConv2d": _convolution,
}


class _Layer(nn.Module):
    """Input quantizer, operator with a weight of integers, output quantizer."""

    def __init__(self, layer: Any, operator: Operator, path: str) -> None:
        super().__init__()
        self._operator = operator
        self.before = _quantizer(layer, "input_quant", path)
        self.after = _quantizer(layer, "output_quant", path)
        coded = layer.quant_weight()
        grid = _encoding(
            coded.scale, coded.zero_point, coded.bit_width, signed=bool(coded.signed),
            narrow=bool(layer.weight_quant.is_narrow_range), path=path, channels=True,
        )  # fmt: skip
        weight = getattr(coded, "value", coded).detach()
        self.weight = Coded(weight, grid)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.after(self._operator(self.before(x), self.weight(), self.bias))
        return result


class _Activation(nn.Module):
    """A function and its quantizer: QuantIdentity, QuantReLU, QuantSigmoid and the like."""

    def __init__(self, layer: Any, path: str) -> None:
        super().__init__()
        self.before = _quantizer(layer, "input_quant", path)
        fused = layer.act_quant.fused_activation_quant_proxy
        function = getattr(fused, "activation_impl", None)
        self.function = function if isinstance(function, nn.Module) else nn.Identity()
        if _is_brevitas(self.function):
            self.function = nn.Identity()
        self.after = _quantizer(layer, "act_quant", path)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.after(self.function(self.before(x)))
        return result


class _Sum(nn.Module):
    def __init__(self, layer: Any, path: str) -> None:
        super().__init__()
        self.before = _quantizer(layer, "input_quant", path)
        self.after = _quantizer(layer, "output_quant", path)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        result: Tensor = self.after(self.before(a) + self.before(b))
        return result


def _quantizer(layer: Any, name: str, path: str) -> nn.Module:
    proxy = getattr(layer, name, None)
    if proxy is None or not getattr(proxy, "is_quant_enabled", False):
        return nn.Identity()
    return Rounding(
        _encoding(
            proxy.scale(), proxy.zero_point(), proxy.bit_width(), signed=bool(proxy.is_signed),
            narrow=bool(proxy.is_narrow_range), path=f"{path}.{name}", channels=False,
        )
    )  # fmt: skip


def _encoding(
    scale: Tensor, zero_point: Tensor, bits: Tensor, *, signed: bool, narrow: bool, path: str,
    channels: bool,
) -> Encoding:  # fmt: skip
    """Brevitas' numbers: integers from 0 where unsigned, which here start at the least one."""
    width = round(float(bits))
    if not 2 <= width <= 16:
        raise InputError(f"it has {width} bits", at=path, do="use 2 to 16")
    scales = tuple(float(np.float32(s)) for s in scale.detach().reshape(-1).tolist())
    zeros = [round(z) for z in zero_point.detach().reshape(-1).tolist()]
    if len(scales) > 1 and not channels:
        raise InputError("values have a scale for every channel", at=path, do="use one for all")
    axis = 0 if len(scales) > 1 else None
    return encoding(scales, zeros, width, signed=signed, narrow=narrow, axis=axis)
