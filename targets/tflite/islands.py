"""Programs with states for TFLite: integer kernels where they are exact, float between grids else.

A state that is carried for a thousand steps turns a kernel's rounding into another trajectory. The
linear kernels of eight bits round once, half to even; those of sums, products and functions do not,
and none takes sixteen bits beside eight. So linear operators stay islands of int8, and every other
value is a float that is put on its grid by the same rounding that the program does. Floats hold the
grids exactly, and the operators between them are exact too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.graph import aten
from edgemix.grids import on_grid

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default


_FUNCTIONS = frozenset(
    {
        aten.exp.default, aten.log.default, aten.sigmoid.default, aten.tanh.default,
        aten.softplus.default, aten.silu.default, aten.gelu.default, aten.elu.default,
        aten.mish.default, aten.rsqrt.default, aten.reciprocal.default, aten.sqrt.default,
    }
)  # fmt: skip
"""Functions that every runtime approximates in its own way."""

_MAX_BITS = 10
"""Of a table's address."""


def integer_islands(module: GraphModule) -> int:
    """Rewrite in place; returns how many linear operators keep integer kernels."""
    tables(module, _FUNCTIONS)
    islands = {n: _operand(module, n) for n in module.graph.nodes if _is_island(module, n)}
    kept = {_quantizer(node) for node in islands}
    for node in list(module.graph.nodes):
        if g.is_quantize(node) and node not in kept and node.args[0].op != "get_attr":
            on_grid(module, node)
    for node, encoding in islands.items():
        source = node.args[0]
        with module.graph.inserting_before(node):
            more = (encoding.scale[0], encoding.zero_point[0], -128, 127, torch.int8)
            q = module.graph.call_function(_QUANTIZE, (source, *more))
            dq = module.graph.call_function(_DEQUANTIZE, (q, *more))
        node.replace_input_with(source, dq)
    module.graph.eliminate_dead_code()
    return len(islands)


def tables(module: GraphModule, functions: Collection[Any]) -> None:
    """Make tables of scalar functions between quantized values, in place."""
    for node in list(module.graph.nodes):
        if node.target in functions and g.is_dequantize(node.args[0]):
            _as_table(module, node)


def _as_table(module: GraphModule, node: Node) -> None:
    """A function of a few bits as the table of its values, filled by the program's own operator."""
    source = node.args[0]
    quantizer = _quantizer(node)
    assert isinstance(source, Node)
    given = g.encoding_of(module, source)
    if quantizer is None or given.bits > _MAX_BITS or given.axis is not None:
        return
    wanted = g.encoding_of(module, quantizer)
    integers = torch.arange(given.qmin, given.qmax + 1, dtype=torch.int32)
    values: Any = node.target(given.dequantize(integers), *node.args[1:], **node.kwargs)  # type: ignore[operator]
    table = wanted.dequantize(wanted.quantize(values))
    name = f"{node.name}_table"
    module.register_buffer(name, table)
    graph = module.graph
    first = given.qmin - given.zero_point[0]
    with graph.inserting_before(node):
        entries = graph.get_attr(name)
        steps = graph.call_function(aten.mul.Tensor, (source, 1.0 / given.scale[0]))
        # Whole numbers already, up to the last bits of a scale that is no power of two.
        whole = graph.call_function(aten.round.default, (steps,))
        place = graph.call_function(aten.sub.Tensor, (whole, float(first)))
        index = graph.call_function(aten._to_copy.default, (place,), {"dtype": torch.int32})
        flat = graph.call_function(aten.reshape.default, (index, [-1]))
        found = graph.call_function(aten.index_select.default, (entries, 0, flat))
        shaped = graph.call_function(aten.reshape.default, (found, list(g.shape_of(node))))
    node.replace_all_uses_with(shaped, propagate_meta=False)
    graph.erase_node(node)


def _is_island(module: GraphModule, node: Node) -> bool:
    """A linear operator between values of eight bits, its ReLU included."""
    if node.target not in g.LINEAR or not g.is_dequantize(node.args[0]):
        return False
    quantizer = _quantizer(node)
    if quantizer is None or not g.is_dequantize(node.args[1]):
        return False
    weight = g.encoding_of(module, node.args[1])  # type: ignore[arg-type]
    found = g.encoding_of(module, quantizer)
    full = (found.qmin, found.qmax) == (-128, 127)
    return full and weight.bits <= 8 and _operand(module, node).dtype == "int8"


def _operand(module: GraphModule, node: Node) -> Encoding:
    source = node.args[0]
    assert isinstance(source, Node)
    return g.encoding_of(module, source)


def _quantizer(node: Node) -> Node | None:
    """The node that quantizes a result, past a ReLU."""
    readers = list(node.users)
    if len(readers) == 1 and readers[0].target in g.CLAMP_AT_ZERO:
        readers = list(readers[0].users)
    return readers[0] if len(readers) == 1 and g.is_quantize(readers[0]) else None
