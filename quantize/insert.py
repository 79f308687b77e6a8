"""A plan written into a graph: real quantize and dequantize nodes, or their effect on floats.

:func:`insert` decides where; what stands there is the caller's: :func:`coded` makes the nodes of
``torch.ops.quantized_decomposed`` that a Program holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import DTYPES, Encoding
from edgemix.quantize.params import encode_bias
from edgemix.quantize.plan import Plan

_qd = torch.ops.quantized_decomposed


Edge = tuple[str, str]
"""The names of a node and of a value or constant that it reads."""


class Coder(Protocol):
    """What an encoding becomes in a graph."""

    def value(self, node: Node, encoding: Encoding, edge: Edge | None) -> Callable[[], Node]:
        """Round a node's result, for all or for one edge; gives what a reader of it reads."""

    def constant(self, node: Node, encoding: Encoding, edge: Edge) -> Node:
        """Round a constant for one of its readers."""


def insert(module: GraphModule, plan: Plan, coder: Coder) -> None:
    """Round every value of the plan, in place."""
    nodes = [n for n in module.graph.nodes if n.op in ("placeholder", "call_function")]
    biases = {edge: e for node in nodes for edge, e in bias_encoding(plan, node)}
    constants = {**plan.constants, **biases}
    sources = {node: list(node.all_input_nodes) for node in nodes}
    original = {node: node for node in nodes}
    for node in nodes:
        readers = list(node.users)
        encoding = plan.encodings.get(node.name)
        if encoding is None:
            continue
        with module.graph.inserting_after(node):
            read = coder.value(node, encoding, None)
        for reader in readers:
            _replace(reader, node, read(), original)
    for node in nodes:
        for source in sources[node]:
            narrow = plan.narrow.get((node.name, source.name))
            if narrow is not None:
                read_as = next(n for n in node.all_input_nodes if original.get(n, n) is source)
                with module.graph.inserting_before(node):
                    edge = (node.name, source.name)
                    again = coder.value(read_as, narrow, edge)()
                _replace(node, read_as, again, original)
            own = constants.get((node.name, source.name))
            if own is not None:
                with module.graph.inserting_before(node):
                    _replace(
                        node,
                        source,
                        coder.constant(source, own, (node.name, source.name)),
                        original,
                    )
    module.graph.eliminate_dead_code()


def _replace(reader: Node, old: Node, new: Node, original: dict[Node, Node]) -> None:
    reader.replace_input_with(old, new)
    original[new] = original.get(old, old)


def bias_encoding(plan: Plan, node: Node) -> list[tuple[Edge, Encoding]]:
    """A linear operator's bias lies on the grid of its products, if those have one."""
    if node.target not in g.LINEAR or len(node.args) < 3 or not isinstance(node.args[2], Node):
        return []
    x, weight, bias = node.args[:3]
    assert isinstance(x, Node) and isinstance(weight, Node) and isinstance(bias, Node)
    activation = plan.read(node, x)
    coded = plan.constants.get((node.name, weight.name))
    if activation is None or coded is None or coded.group is not None or bias.op != "get_attr":
        return []
    return [((node.name, bias.name), encode_bias(activation, coded))]


def coded(module: GraphModule, plan: Plan, values: Mapping[Edge, Tensor] | None = None) -> None:
    """Quantize and dequantize nodes, and constants as integers, in place.

    Args:
        module: the float graph.
        plan: its encodings.
        values: constants in the place of the module's.
    """
    insert(module, plan, Integers(module, values or {}))


class Integers:
    """Quantize and dequantize nodes of ``torch.ops.quantized_decomposed``."""

    def __init__(self, module: GraphModule, values: Mapping[Edge, Tensor]) -> None:
        self._module = module
        self._values = values

    def value(self, node: Node, encoding: Encoding, edge: Edge | None) -> Callable[[], Node]:
        """A quantize node behind a node, and a dequantize node for every reader."""
        graph, more = node.graph, arguments(encoding)
        quantize = graph.call_function(_qd.quantize_per_tensor.default, (node, *more))
        _describe(quantize, node, DTYPES[encoding.dtype])

        def read() -> Node:
            with graph.inserting_after(quantize):
                back = graph.call_function(_qd.dequantize_per_tensor.default, (quantize, *more))
            _describe(back, node, torch.float32)
            return back

        return read

    def constant(self, node: Node, encoding: Encoding, edge: Edge) -> Node:
        """Integers in the place of a constant, and the dequantize node that reads them."""
        value = self._values.get(edge, g.constant(self._module, node))
        graph, name = node.graph, "_".join(edge)
        integers = self._attribute(name, encoding.quantize(value))
        if encoding.axis is None:
            target: Any = _qd.dequantize_per_tensor.default
            args: tuple[Any, ...] = (integers, *arguments(encoding))
        else:
            scale, zero = torch.tensor(encoding.scale), torch.tensor(encoding.zero_point)
            limits = (encoding.qmin, encoding.qmax, DTYPES[encoding.dtype])
            if encoding.group is not None:
                rows = value.shape[0]
                scale, zero = scale.reshape(rows, -1), zero.reshape(rows, -1)
            scales = self._attribute(f"{name}_scale", scale)
            zeros = self._attribute(f"{name}_zero_point", zero)
            if encoding.group is None:
                target = _qd.dequantize_per_channel.default
                args = (integers, scales, zeros, encoding.axis, *limits)
            else:
                target = _qd.dequantize_per_channel_group.default
                args = (integers, scales, zeros, *limits, encoding.group, torch.float32)
        back = graph.call_function(target, args)
        _describe(back, node, torch.float32)
        return back

    def _attribute(self, name: str, value: Tensor) -> Node:
        fresh, number = name, 0
        while hasattr(self._module, fresh):
            number += 1
            fresh = f"{name}_{number}"
        self._module.register_buffer(fresh, value)
        node = self._module.graph.get_attr(fresh)
        node.meta["val"] = value
        return node


def arguments(encoding: Encoding) -> tuple[float, int, int, int, torch.dtype]:
    """What the operators for one scale take after their input."""
    dtype = DTYPES[encoding.dtype]
    return encoding.scale[0], encoding.zero_point[0], encoding.qmin, encoding.qmax, dtype


def _describe(new: Node, old: Node, dtype: torch.dtype) -> None:
    value = old.meta.get("val")
    if isinstance(value, Tensor):
        new.meta["val"] = value.to(dtype)
    for key in ("nn_module_stack", "stack_trace"):
        if key in old.meta:
            new.meta[key] = old.meta[key]
