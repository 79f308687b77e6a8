"""What quantizing and lowering both need to know about a graph of aten operators.

Node predicates, the quantize/dequantize nodes and their encodings, constants, and where a node
comes from. A graph here is the ``torch.fx`` graph of a Program's module: placeholders are the
inputs, ``get_attr`` nodes the weights.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (defines quantized_decomposed)
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.fx.node import map_arg
from torch.nn import Parameter

from edgemix.encoding import Encoding
from edgemix.errors import EdgemixError

aten = torch.ops.aten
_qd = torch.ops.quantized_decomposed

QUANTIZE = frozenset({_qd.quantize_per_tensor.default, _qd.quantize_per_channel.default})
_BY_GROUP = _qd.dequantize_per_channel_group.default
DEQUANTIZE = frozenset(
    {_qd.dequantize_per_tensor.default, _qd.dequantize_per_channel.default, _BY_GROUP}
)

CONVOLUTION = frozenset({aten.conv1d.default, aten.conv2d.default})
LINEAR = frozenset({aten.linear.default, *CONVOLUTION})
"""Operators with a constant weight and an optional constant bias: args are (x, weight, bias)."""

LAST_AXIS = frozenset({aten.linear.default, aten.layer_norm.default})
"""Operators whose channels lie on the last axis."""

VIEW = frozenset(
    {
        aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints,
        aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default,
        aten.permute.default, aten.transpose.int, aten.t.default, aten.expand.default,
        aten.select.int, aten.slice.Tensor, aten.contiguous.default, aten.clone.default,
        aten.flip.default, aten.roll.default, aten.alias.default, aten.unflatten.int,
    }
)  # fmt: skip
"""Operators that move values and never change one."""

SAME_ORDER = frozenset(
    {
        aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints,
        aten.unflatten.int, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
        aten.squeeze.default, aten.contiguous.default, aten.clone.default,
    }
)  # fmt: skip
"""Views whose values, in row-major order, are those of their input."""

REORDERING = VIEW - {aten.select.int, aten.slice.Tensor}
"""Views that keep all of their input's values."""

SELECTING = frozenset({aten.amax.default, aten.max_pool2d.default})
"""Operators whose result is one of their input's values."""

AVERAGING = frozenset({aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default})
"""Operators whose result lies between their input's values, on the same grid on every target."""

ADDITION = frozenset({aten.add.Tensor, aten.sub.Tensor})
ARITHMETIC = ADDITION | {
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.minimum.default,
    aten.maximum.default,
}
"""Operators of two values, element by element; one of them may be a constant."""
MATRIX_PRODUCT = frozenset({aten.matmul.default, aten.bmm.default})
PRODUCT = LINEAR | MATRIX_PRODUCT
CLAMP_AT_ZERO = frozenset({aten.relu.default, aten.relu_.default})

COMPARISON = frozenset(
    {
        aten.ge.Scalar, aten.ge.Tensor, aten.gt.Scalar, aten.gt.Tensor,
        aten.le.Scalar, aten.le.Tensor, aten.lt.Scalar, aten.lt.Tensor,
    }
)  # fmt: skip
_CONVERSION = frozenset({aten.to.dtype, aten._to_copy.default})


@dataclass(frozen=True)
class Where:
    """Where a node comes from, as far as the export kept it."""

    node: str
    module: str | None = None
    """Path of the module in the model ("stages.0.blocks.1.mixer")."""
    source: str | None = None
    """File name and line of the model's source ("attention.py:41")."""

    def __str__(self) -> str:
        origin = ", ".join(part for part in (self.module, self.source) if part)
        return f"{self.node} ({origin})" if origin else self.node


_NO_SOURCE = ("/torch/nn/", "<eval_with_key>")
"""Torch's own modules, and code that torch wrote for a graph of its own."""


def where(node: Node) -> Where:
    """Node name, module path and source line of ``node``."""
    stack = node.meta.get("nn_module_stack") or {}
    module = next((path for path, _ in reversed(list(stack.values())) if path), None)
    if module is not None:
        module = module.removeprefix("L['self'].")
    source = None
    for line in reversed((node.meta.get("stack_trace") or "").splitlines()):
        text = line.strip()
        if text.startswith("File ") and not any(part in text for part in _NO_SOURCE):
            name, number = text.split(",")[:2]
            source = f"{name[5:].strip().strip(chr(34)).rpartition('/')[2]}:{number.split()[-1]}"
            break
    return Where(node.name, module, source)


def op_name(node: Node) -> str:
    """The operator's name as a reader knows it ("conv2d", "avg_pool2d")."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket.__name__)
    return getattr(target, "__name__", str(target))


def is_quantize(node: Any) -> bool:
    """Whether this node turns real numbers into integers."""
    return isinstance(node, Node) and node.target in QUANTIZE


def is_dequantize(node: Any) -> bool:
    """Whether this node turns integers into real numbers."""
    return isinstance(node, Node) and node.target in DEQUANTIZE


def is_complex(node: Node) -> bool:
    """Whether a node's result is a tensor of complex numbers."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


def float_ops(module: GraphModule) -> Iterator[Node]:
    """The nodes that compute: every call but quantize, dequantize and tuple access."""
    for node in module.graph.nodes:
        if node.op == "call_function" and not is_quantize(node) and not is_dequantize(node):
            if node.target is not operator.getitem:
                yield node


def pair(value: Any) -> tuple[int, int]:
    """What an operator over two axes takes as one number, or as one for each."""
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    return int(numbers[0]), int(numbers[-1])


def constant(module: GraphModule, node: Node) -> Tensor:
    """The tensor behind a ``get_attr`` node."""
    value: Any = module
    for name in str(node.target).split("."):
        value = getattr(value, name)
    if not isinstance(value, Tensor):
        raise EdgemixError(f"{node.target} is no tensor", at=str(where(node)))
    return value.detach()


def set_constant(module: GraphModule, name: str, value: Tensor) -> None:
    """Put a value in the place of the constant of this name; a parameter stays one."""
    path, _, attribute = name.rpartition(".")
    holder = module.get_submodule(path)
    if isinstance(getattr(holder, attribute), Parameter) and not isinstance(value, Parameter):
        value = Parameter(value, requires_grad=False)
    setattr(holder, attribute, value)


def holds_graph(module: GraphModule, node: Node) -> bool:
    """Whether a ``get_attr`` node stands for a graph, which another node calls."""
    return any(name == node.target for name, _ in module.named_children())


def flat(module: GraphModule) -> GraphModule:
    """The same graph with a flat list of arguments and a flat tuple of results, unchecked."""
    (output,) = module.graph.find_nodes(op="output")
    given: Any = output.args[0]
    output.args = (tuple(given) if isinstance(given, (tuple, list)) else (given,),)
    module.graph.set_codegen(CodeGen())
    return GraphModule(module, module.graph)


def add_constant(module: GraphModule, before: Node, name: str, value: Tensor) -> Node:
    """A ``get_attr`` node, placed before ``before``, for a new buffer with a fresh name."""
    fresh, number = name, 0
    while hasattr(module, fresh):
        number += 1
        fresh = f"{name}_{number}"
    module.register_buffer(fresh, value)
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(fresh)
    node.meta["val"] = value
    return node


def call(module: GraphModule, target: Any, *args: Any, **options: Any) -> Node:
    """A call at the place where the graph inserts, with the value that says its shape and type.

    Arguments may be lists of nodes; options are none.
    """
    node = module.graph.call_function(target, args, options)
    node.meta["val"] = target(*map_arg(args, lambda n: n.meta["val"]), **options)
    return node


def is_constant(node: Node) -> bool:
    """Whether a node is a constant, or a quantized one made real."""
    source = node.args[0] if is_dequantize(node) else node
    return isinstance(source, Node) and source.op == "get_attr"


def dequantized(module: GraphModule, node: Node) -> Tensor:
    """The real values of a constant."""
    if not is_dequantize(node):
        return constant(module, node)
    source = node.args[0]
    assert isinstance(source, Node)
    return encoding_of(module, node).dequantize(constant(module, source))


def make_constant(module: GraphModule, node: Node, value: Tensor) -> Node:
    """A constant in the place of a node."""
    name = f"{node.name}_real"
    module.register_buffer(name, value)
    with module.graph.inserting_before(node):
        new = module.graph.get_attr(name)
    new.meta["val"] = value
    node.replace_all_uses_with(new, propagate_meta=False)
    module.graph.erase_node(node)
    return new


def encoding_of(module: GraphModule, node: Node) -> Encoding:
    """The encoding that a quantize or dequantize node carries."""
    # By group, the group's size and the result's type come last.
    qmin, qmax, code = node.args[3:6] if node.target is _BY_GROUP else node.args[-3:]
    dtype = str(code).removeprefix("torch.")
    assert isinstance(qmin, int) and isinstance(qmax, int)
    if node.target in (_qd.quantize_per_tensor.default, _qd.dequantize_per_tensor.default):
        scale, zero_point = node.args[1], node.args[2]
        return Encoding((float(scale),), (int(zero_point),), qmin, qmax, dtype)  # type: ignore[arg-type]
    scales, zero_points = node.args[1:3]
    axis, group = (0, node.args[6]) if node.target is _BY_GROUP else (node.args[3], None)
    assert isinstance(scales, Node) and isinstance(axis, int)
    scale_values = tuple(constant(module, scales).flatten().tolist())
    zeros = (
        tuple(int(z) for z in constant(module, zero_points).flatten().tolist())
        if isinstance(zero_points, Node)
        else (0,) * len(scale_values)
    )
    return Encoding(scale_values, zeros, qmin, qmax, dtype, axis, group)  # type: ignore[arg-type]


def produced_encoding(module: GraphModule, node: Node) -> Encoding | None:
    """The encoding in which a node's result travels, or None where it stays real."""
    for user in node.users:
        if is_quantize(user):
            return encoding_of(module, user)
    return None


def requantizes(node: Any) -> bool:
    """Whether this node rounds a quantized value once more, to other bits."""
    return is_quantize(node) and is_dequantize(node.args[0])


def through_quantization(node: Node) -> Node:
    """The node that computed a value: dequantize and quantize nodes in front are skipped.

    A quantize node that rounds a quantized value once more computes a value of its own.
    """
    while is_dequantize(node) or (is_quantize(node) and not requantizes(node)):
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    return node


def is_spike(node: Any) -> bool:
    """Whether this is a comparison as a number: 0 or 1."""
    return (
        isinstance(node, Node)
        and node.target in _CONVERSION
        and isinstance(node.args[0], Node)
        and node.args[0].target in COMPARISON
    )


def fed_back(module: GraphModule, states: int) -> list[tuple[Node, Node]]:
    """Every state as it comes in, and what is computed for the next step.

    Args:
        module: a graph whose last arguments, and last results, are the states.
        states: how many.
    """
    if states == 0:
        return []
    (output,) = module.graph.find_nodes(op="output")
    results: Any = output.args[0]
    given = module.graph.find_nodes(op="placeholder")[-states:]
    return list(zip(given, results[-states:], strict=True))


def integrating(module: GraphModule, states: int) -> list[Node]:
    """The operators through which a state is added up, in the graph's order.

    They lie on a path from a state to the same state of the next step, a path of moves, sums and
    products alone, of which one at least computes: there rounding errors add up too. A state that
    is only moved (a delay line) has none.
    """
    found = set()
    for before, after in fed_back(module, states):
        ahead = _reach([before], lambda n: n.users, _carries)
        behind = _reach([through_quantization(after)], lambda n: n.all_input_nodes, _carries)
        path = ahead & (behind | {through_quantization(after)})
        if any(n.target in ADDITION or n.target is aten.mul.Tensor for n in path):
            found |= path - {before}
    return [node for node in module.graph.nodes if node in found]


def _carries(node: Node) -> bool:
    return node.op == "call_function" and (
        node.target in VIEW
        or node.target in ADDITION | CLAMP_AT_ZERO
        or node.target in (aten.mul.Tensor, aten.cat.default)
    )


def _reach(
    start: list[Node], following: Callable[[Node], Iterable[Node]], passes: Callable[[Node], bool]
) -> set[Node]:
    seen = set(start)
    waiting = list(start)
    while waiting:
        for node in following(waiting.pop()):
            if node not in seen and passes(node):
                seen.add(node)
                waiting.append(node)
    return seen


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape that the export recorded for a node's result."""
    return tuple(int(n) for n in node.meta["val"].shape)


def is_normalization(node: Node) -> bool:
    """Whether this is x · (1 / sum(x)): how a split softmax ends."""
    return normalized(node) is not None


def normalized(node: Node) -> Node | None:
    """The node whose values a normalization x · (1 / sum(x)) divides by their sum, or None."""
    if node.target is not aten.mul.Tensor or not all(isinstance(a, Node) for a in node.args[:2]):
        return None
    dividend, inverse = (through_quantization(a) for a in node.args[:2])  # type: ignore[arg-type]
    if inverse.target is not aten.reciprocal.default:
        return None
    total = through_quantization(inverse.args[0])  # type: ignore[arg-type]
    if total.target is not aten.sum.dim_IntList:
        return None
    return dividend if through_quantization(total.args[0]) is dividend else None  # type: ignore[arg-type]


DIVISION = frozenset({aten.reciprocal.default, aten.rsqrt.default})
"""Operators that divide by their argument."""


def feeds_division(node: Node) -> bool:
    """Whether every reader divides by this value, up to a number added."""
    return bool(node.users) and all(
        r.target in DIVISION or (_adds_number(r) and feeds_division(r)) for r in node.users
    )


def reordered(node: Node) -> Node:
    """The node whose values these are, in another order: views are skipped."""
    while node.target in REORDERING:
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    return node


def feeds_linear(node: Node) -> bool:
    """Whether a linear operator reads a value, if need be through views."""
    return any(
        reader.target in LINEAR or (reader.target in REORDERING and feeds_linear(reader))
        for reader in node.users
    )


def channel_axis(node: Node) -> int:
    """The axis of a value that stands for channels: what a reader mixes, or what its maker made."""
    targets = {node.target, *(reader.target for reader in node.users)}
    ndim = node.meta["val"].ndim
    if targets & CONVOLUTION or (ndim == 4 and not targets & LAST_AXIS):
        return 1
    return int(ndim - 1)


def exact_between(node: Node) -> bool:
    """Whether a result stays unquantized: its only reader rounds the exact value once for both.

    So are a linear operator or a sum that a ReLU clamps, a sum that is compared, squares that a
    mean adds up, and the number that is added to a divisor.
    """
    readers = list(node.users)
    if node.op != "call_function" or len(readers) != 1:
        return False
    reader = readers[0]
    if node.target in LINEAR | ADDITION and reader.target in CLAMP_AT_ZERO:
        return True
    if node.target in ADDITION and reader.target in COMPARISON:
        return True
    if node.target is aten.mul.Tensor and node.args[0] is node.args[1]:
        return reader.target is aten.mean.dim
    return _adds_number(node) and reader.target in DIVISION


def _adds_number(node: Node) -> bool:
    return node.target is aten.add.Tensor and isinstance(node.args[1], float)


_INTEGERS = frozenset({torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64})
_PLACING = (
    VIEW
    | ARITHMETIC
    | {
        aten.cat.default, aten.clamp.default, aten.clamp_max.default, aten.clamp_min.default,
        aten.floor.default, aten.neg.default, aten.round.default, aten.sigmoid.default,
        aten.tanh.default,
    }
)  # fmt: skip
"""What positions are computed by."""


def positions(module: GraphModule) -> set[Node]:
    """Values that are nothing but places: where ``grid_sampler`` reads, or what becomes an index.

    Their grid would be one of places: with 8 bits for an image 640 wide, every third one. What
    offsets are predicted by, a linear operator, is none of them, and views of it are not either.
    """
    candidates: set[Node] = set()
    for node in reversed(module.graph.nodes):
        if node.target in _PLACING and node.users and all(
            user in candidates or _places(user, node) for user in node.users
        ):  # fmt: skip
            candidates.add(node)
    found: set[Node] = set()
    for node in module.graph.nodes:
        moved = node.target in VIEW and node.args[0] not in found
        if node in candidates and not moved:
            found.add(node)
    return found


def deciding(module: GraphModule) -> set[Node]:
    """Values that say nothing but which of several is larger, and how many are: two are compared.

    On a grid, many would be equal, and a target that rounds one of them otherwise would choose
    another. What is compared with a constant (a neuron's potential) is none of them.
    """
    found: set[Node] = set()
    for node in reversed(module.graph.nodes):
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, Tensor) or not node.users:
            continue
        counts = reordered(node).target is aten.sum.dim_IntList
        if value.is_floating_point() and all(
            user in found or (user.target in COMPARISON and (counts or _of_two(user)))
            for user in node.users
        ):
            found.add(node)
    return found


def _of_two(node: Node) -> bool:
    """Whether an operator reads two values, none of them a constant."""
    return sum(n.op != "get_attr" for n in node.all_input_nodes) == 2


def _places(user: Node, node: Node) -> bool:
    if user.target is aten.grid_sampler.default:
        return user.args[1] is node and user.args[0] is not node
    return user.target in _CONVERSION and user.meta["val"].dtype in _INTEGERS
