"""Quantize and dequantize nodes as Core AI's own operators, weights in its compressed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.extras import need
from edgemix.grids import on_grid

_BITS = 8
"""The widest integers that Core AI quantizes to."""


def fit(module: GraphModule) -> None:
    """Make every quantized value one that Core AI has, in place.

    It has eight bits, or four for weights, and always fills them. What is narrower is clamped
    before; what is wider stays real numbers on their grid, and such constants become real.
    """
    for node in list(module.graph.nodes):
        if g.is_dequantize(node) and g.is_constant(node):
            if g.encoding_of(module, node).bits > _BITS:
                g.make_constant(module, node, g.dequantized(module, node))
        elif g.is_quantize(node) and not g.is_constant(node.args[0]):
            encoding = g.encoding_of(module, node)
            if encoding.bits > _BITS:
                on_grid(module, node)
            elif 1 < encoding.bits < _BITS:  # a spike is 0 or 1 without being made so
                with module.graph.inserting_before(node):
                    limited = module.graph.call_function(
                        g.aten.clamp.default, (node.args[0], *encoding.limits)
                    )
                node.args = (limited, *node.args[1:])


@dataclass(frozen=True)
class Quantizers:
    """Lowerings of the nodes of one exported graph."""

    constants: GraphModule
    """Holds them under the names that the graph gives its arguments."""

    @classmethod
    def of(cls, exported: ExportedProgram) -> Quantizers:
        """For a graph that takes its constants as arguments."""
        stored = {**exported.state_dict, **exported.constants}
        held = GraphModule({}, Graph())
        for spec in exported.graph_signature.input_specs:
            if spec.target is not None:
                held.register_buffer(spec.arg.name, stored[spec.target])
        return cls(held)

    def teach(self, converter: Any) -> None:
        """Register them with a ``TorchConverter``."""
        for kinds, lowering in ((g.QUANTIZE, self._quantize), (g.DEQUANTIZE, self._dequantize)):
            for kind in kinds:
                name = str(kind).replace(".", "::", 1)
                converter.register_torch_lowering(name)(lowering)

    def _quantize(self, values: Mapping[str, Any], node: Node, loc: Any) -> Any:
        (source,) = node.all_input_nodes[:1]
        return _core().quantize(values[source.name], *self._affine(node), loc=loc)

    def _dequantize(self, values: Mapping[str, Any], node: Node, loc: Any) -> Any:
        (source,) = node.all_input_nodes[:1]
        weight = getattr(self.constants, source.name, None)
        if weight is None:
            return _core().dequantize(values[source.name], *self._affine(node), loc=loc)
        encoding = g.encoding_of(self.constants, node)
        parts = _expanded(weight, encoding)
        return _core().blockwise_shift_scale(*parts, loc=loc)

    def _affine(self, node: Node) -> tuple[Any, ...]:
        """Scale, zero point, a lowest value that is not used, and the axis of all three."""
        encoding = g.encoding_of(self.constants, node)
        shape = () if encoding.axis is None else (-1,)
        scale, zero = _parameters(encoding, shape)
        axis = np.int32(encoding.axis or 0)
        return tuple(_core().constant(part) for part in (scale, zero, np.zeros_like(scale), axis))


def _expanded(weight: Tensor, encoding: Encoding) -> tuple[Any, ...]:
    """What turns integers of blocks into real numbers: data, scales, zero points, lowest values."""
    blocks = [1] * weight.ndim
    if encoding.axis is not None:
        blocks[encoding.axis] = weight.shape[encoding.axis]
    if encoding.group is not None:
        blocks[-1] = weight.shape[-1] // encoding.group
    scale, zero = _parameters(encoding, tuple(blocks))
    integers = _nibbles if encoding.qmin >= -8 and encoding.qmax <= 7 else _core().constant
    return (
        integers(weight.numpy()), _core().constant(scale), integers(zero),
        _core().constant(np.zeros_like(scale)),
    )  # fmt: skip


def _parameters(
    encoding: Encoding, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    scale = np.array(encoding.scale, np.float32).reshape(shape)
    return scale, np.array(encoding.zero_point, encoding.dtype).reshape(shape)


def _nibbles(integers: npt.NDArray[Any]) -> Any:
    """A constant of four bits an element: two to a byte, the first in the lower half."""
    ir = need("coreai._compiler.ir", extra="coreai")
    low = integers.ravel().astype(np.uint8) & 0xF
    low = np.append(low, np.zeros(low.size % 2, np.uint8))
    packed = low[::2] | low[1::2] << 4
    kind = ir.RankedTensorType.get(list(integers.shape), ir.IntegerType.get_signed(4))
    value = ir.DenseResourceElementsAttr.get_from_buffer(packed, "nibbles", kind)
    return _core().ConstantOp(value=value).result


def _core() -> ModuleType:
    """Core AI's operators, where coreai-torch's guide to lowerings of one's own finds them."""
    return need("coreai._compiler.dialects.coreai", extra="coreai")
