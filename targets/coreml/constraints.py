"""What is documented to keep an operation off a unit, a row each with its source.

Apple keeps no list: what is taken depends on the chip, the system and the sizes, and Core ML may
leave even a fitting operation to another unit, for instance when a model is small.

Left out are older claims that newer measurements or Apple's own text contradict: that dilated
convolutions, gather, broadcasting, pooling above 13 and upsampling above 2 leave the Neural Engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgemix.targets.coreml.nodes import Node, Operand
from edgemix.targets.coreml.values import Kind

Unit = Literal["CPU", "GPU", "Neural Engine"]
UNITS: tuple[Unit, ...] = ("Neural Engine", "GPU", "CPU")
"""In the order in which an operation is expected to go to the first that takes it."""

_ENGINE: tuple[Unit, ...] = ("Neural Engine",)


@dataclass(frozen=True)
class Source:
    """Where a constraint is documented."""

    by: Literal["Apple", "community finding"]
    title: str
    url: str

    def __str__(self) -> str:
        return f"{self.by}: {self.title}, {self.url}"


@dataclass(frozen=True)
class Constraint:
    """One row: an operation to which it applies is not expected on the units that it refuses."""

    name: str
    applies: Callable[[Node], bool]
    refuses: tuple[Unit, ...]
    """Empty: it says something of the operation's speed, and refuses nothing."""
    why: str
    source: Source


_TOOLS = "https://github.com/apple/coremltools/"
_CORE_AI = "https://github.com/apple/coreai-models/blob/main/skills/skills/model-authoring/"
_RULES_FILE = f"{_CORE_AI}references/neural_engine_rules.md"


def _guide(title: str, page: str) -> Source:
    address = f"https://apple.github.io/coremltools/docs-guides/source/{page}.html"
    return Source("Apple", f"coremltools guide, {title}", address)


def _issue(number: int, by: Literal["Apple", "community finding"] = "community finding") -> Source:
    return Source(by, f"coremltools issue {number}", f"{_TOOLS}issues/{number}")


def _ane(title: str, page: str) -> Source:
    address = f"https://ane-guide.readthedocs.io/en/latest/{page}.html"
    return Source("community finding", f"ANE guide, {title}", address)


def _pull(repository: str, number: int) -> Source:
    address = f"https://github.com/{repository}/pull/{number}"
    return Source("community finding", f"{repository} pull request {number}", address)


_OVERVIEW = _guide("Overview of optimization", "opt-overview")
_RULES = Source("Apple", "Neural Engine rules for Core AI", _RULES_FILE)
_CODE = f"{_TOOLS}blob/main/coremltools/converters/mil/frontend/torch/ops.py"
_MATRIX = _ane("operation-by-device matrix", "appendices/a-op-device-matrix")
_SURFACE = _ane("capability surface", "part-1-machine/04-capability-surface")
_DESIGN = _ane("model-design rules", "part-5-practice/17-model-design-rules")
_PITFALLS = _ane("pitfalls and limits", "part-5-practice/19-pitfalls-and-limits")

_ENGINE_TYPES = frozenset({"FLOAT16", "INT8", "UINT8", "INT16", "UINT16", "BOOL"})
_NO_PATH = (
    "band_part", "list_gather", "list_length", "list_read", "list_scatter", "list_write",
    "make_list", "mod", "non_maximum_suppression", "non_zero", "one_hot", "reduce_prod",
    "reverse_sequence", "shape", "sliding_windows", "logical_and", "logical_or", "logical_xor",
    "acos", "asin", "atanh", "cosh", "sinh", "tan",
    "random_bernoulli", "random_categorical", "random_normal",
)  # fmt: skip
_CONVOLUTIONS = frozenset({"conv", "conv_transpose"})
_LONGEST_AXIS = 16_384
_LONGEST_CHANNELS = 65_536
_WIDEST_KERNEL = 16
_LONGEST_ARGUMENT = 2_048
_STATE_WIDTH = 32
_ALIGNED = 32


def _is(*ops: str) -> Callable[[Node], bool]:
    return lambda node: node.op in ops


def _float32(node: Node) -> bool:
    # Compute plans show that casts between float16 and float32 are taken.
    return node.op != "cast" and any(k.dtype == "FLOAT32" for k in node.flowing)


def _other_types(node: Node) -> bool:
    return any(k.dtype not in _ENGINE_TYPES and k.dtype != "FLOAT32" for k in node.flowing)


def _too_long(node: Node) -> bool:
    channels = 1 if node.op in _CONVOLUTIONS else None
    return any(
        n is not None and n > (_LONGEST_CHANNELS if axis == channels else _LONGEST_AXIS)
        for k in node.flowing
        for axis, n in enumerate(k.shape)
    )


def _shape_by_value(node: Node) -> bool:
    bounds = {"slice_by_index": ("begin", "end"), "range_1d": ("start", "end", "step")}
    return node.computed(*bounds.get(node.op, ())) and _unknown(node.results)


def _unknown(kinds: Sequence[Kind]) -> bool:
    return any(None in k.shape for k in kinds)


def _by_range(node: Node) -> bool:
    return node.ranges and _unknown(node.flowing)


def _wide_kernel(node: Node) -> bool:
    weight = node.first("weight")
    if node.op not in _CONVOLUTIONS or weight is None or not weight.kind.shape:
        return False
    # Compressed weights are no float16 kernels, whose limit is the lowest.
    return (weight.kind.shape[-1] or 0) > _WIDEST_KERNEL and not _made_by(weight, "constexpr_")


def _batched_weights(node: Node) -> bool:
    x = node.first("x")
    batch = x.kind.shape[0] if x and x.kind.shape else None
    return node.op == "conv" and node.computed("weight") and batch != 1


def _ranks(node: Node, *parameters: str) -> int:
    found = (node.first(p) for p in parameters)
    return max((len(o.kind.shape) for o in found if o), default=0)


def _long_argument(node: Node) -> bool:
    x = node.first("x")
    if node.op not in ("reduce_argmax", "reduce_argmin") or x is None or not x.kind.shape:
        return False
    shape = x.kind.shape
    return any((shape[axis % len(shape)] or 0) > _LONGEST_ARGUMENT for axis in node.numbers("axis"))


def _odd_state(node: Node) -> bool:
    states = [o.kind for group in node.operands.values() for o in group if o.kind.state]
    return any(k.shape and (k.shape[-1] or 0) % _STATE_WIDTH for k in states)


def _in_blocks(node: Node) -> bool:
    return any(_has_blocks(o.maker) for group in node.operands.values() for o in group if o.maker)


def _has_blocks(maker: Node) -> bool:
    if not maker.op.endswith("blockwise_shift_scale"):
        return False
    scale = maker.first("scale")
    shape = scale.kind.shape if scale else ()
    sizes = maker.results[0].shape
    split = [n for n, whole in zip(shape, sizes, strict=False) if n not in (1, whole)]
    return bool(split) or sum(n != 1 for n in shape) > 1


def _made_by(operand: Operand | None, *ops: str) -> bool:
    return bool(operand and operand.maker and operand.maker.op.startswith(ops))


def _eight_bits(node: Node) -> bool:
    sides = ("x", "y") if node.op == "matmul" else ("x", "weight")
    fitting = ("dequantize", "constexpr_affine", "constexpr_blockwise")
    multiplies = node.op in (*_CONVOLUTIONS, "linear", "matmul")
    return multiplies and all(_made_by(node.first(p), *fitting) for p in sides)


def _palettized(node: Node) -> bool:
    return any(_made_by(o, "constexpr_lut") for group in node.operands.values() for o in group)


def _narrow(node: Node) -> bool:
    return any(
        k.dtype == "FLOAT16" and len(k.shape) >= 4 and (k.shape[-1] or _ALIGNED) < _ALIGNED
        for k in node.results
    )


CONSTRAINTS: tuple[Constraint, ...] = (
    Constraint(
        "float32", _float32, _ENGINE,
        "it computes in float32, which bars the Neural Engine",
        _guide("Typed Execution", "typed-execution"),
    ),
    Constraint(
        "other types", _other_types, _ENGINE,
        "it reads or gives a type other than float16 and integers of at most 16 bits, which are "
        "what the Neural Engine takes", _RULES,
    ),
    Constraint(
        "rank", lambda n: any(len(k.shape) > 5 for k in n.flowing), UNITS,
        "Core ML has no tensors of more than five axes", _issue(1723, "Apple"),
    ),
    Constraint(
        "recurrent layers", _is("lstm", "rnn", "gru"), _ENGINE,
        "recurrent layers do not run on the Neural Engine", _issue(1780, "Apple"),
    ),
    Constraint(
        "custom layers", _is("custom_layer"), _ENGINE,
        "custom layers have implementations for CPU and GPU only", _issue(1278, "Apple"),
    ),
    Constraint(
        "scatter", _is("scatter", "scatter_nd", "scatter_along_axis"), _ENGINE,
        "scatter operations leave the Neural Engine",
        Source("Apple", "comments in coremltools' source", _CODE),
    ),
    Constraint(
        "computed reshape", lambda n: n.op == "reshape" and n.computed("shape"), _ENGINE,
        "its new shape is computed while the model runs", _guide("FAQ", "faqs"),
    ),
    Constraint(
        "shapes by ranges", _by_range, _ENGINE,
        "the model's inputs have ranges of shapes, which the Neural Engine may take only with the "
        "hint reshapeFrequency = Infrequent (iOS 17.4); enumerate the shapes instead",
        _guide("Flexible Input Shapes", "flexible-inputs"),
    ),
    Constraint(
        "weights of 1 GB", lambda n: n.weights > 10**9, _ENGINE,
        "the model is larger than 1 GB, too large for an iPhone's Neural Engine",
        _guide("Bisect Model", "mlmodel-utilities"),
    ),
    Constraint(
        "blocks of weights", _in_blocks, _ENGINE,
        "its weights have a scale per block; the Neural Engine takes one per tensor or per output "
        "channel", _issue(2510),
    ),
    Constraint(
        "loops", lambda n: "while_loop" in n.path, ("Neural Engine", "GPU"),
        "loops were seen on the CPU only", _issue(2208),
    ),
    Constraint(
        "branches", lambda n: "cond" in n.path, _ENGINE,
        "the Neural Engine has no branches", _MATRIX,
    ),
    Constraint(
        "no engine path", _is(*_NO_PATH), _ENGINE,
        "no Neural Engine that was tried (M1, M2, M5) takes it", _MATRIX,
    ),
    Constraint(
        "shape by value", _shape_by_value, _ENGINE,
        "a value that is computed decides its shape", _pull("onnxsim/onnxsim", 1430),
    ),
    Constraint(
        "sine and cosine", _is("sin", "cos"), _ENGINE,
        "the M1's and the M2's Neural Engines do not take it", _MATRIX,
    ),
    Constraint(
        "top k", _is("topk"), _ENGINE,
        "compute plans of an M3 Pro put it on the CPU", _pull("roboflow/rf-detr", 1495),
    ),
    Constraint(
        "M1", _is("argsort", "resample", "affine", "crop_resize"), _ENGINE,
        "the M1's Neural Engine does not take it", _MATRIX,
    ),
    Constraint(
        "reflection", lambda n: n.op == "pad" and n.constant("mode") == "reflect", _ENGINE,
        "the M1's Neural Engine does not pad by reflection", _DESIGN,
    ),
    Constraint(
        "three-dimensional convolution",
        lambda n: n.op in _CONVOLUTIONS and _ranks(n, "x") == 5, _ENGINE,
        "three-dimensional convolutions fail on every Neural Engine that was tried", _SURFACE,
    ),
    Constraint(
        "five-axis product",
        lambda n: (n.op == "matmul" and _ranks(n, "x", "y") >= 5)
        or (n.op == "linear" and _ranks(n, "x") >= 5),
        _ENGINE, "the Neural Engine multiplies matrices of at most four axes", _SURFACE,
    ),
    Constraint(
        "wide kernels", _wide_kernel, _ENGINE,
        "its kernel is wider than 16, the most for float16 (13 on the M1)", _MATRIX,
    ),
    Constraint(
        "computed kernels", _batched_weights, _ENGINE,
        "a convolution whose weights are computed runs on the Neural Engine at batch 1 only",
        _PITFALLS,
    ),
    Constraint(
        "long axes", _too_long, _ENGINE,
        "an axis is longer than 16,384 (65,536 of channels), the most before A16 and M4", _SURFACE,
    ),
    Constraint(
        "long arguments", _long_argument, _ENGINE,
        "it searches an axis longer than 2,048", _DESIGN,
    ),
    Constraint(
        "width of states", _odd_state, _ENGINE,
        "the width of its state is no multiple of 32; with the Neural Engine allowed, such a model "
        "failed", _issue(2631),
    ),
)  # fmt: skip
"""All that is known to keep an operation off a unit."""

REMARKS: tuple[Constraint, ...] = (
    Constraint(
        "eight bits by eight bits", _eight_bits, (),
        "multiply int8 by int8, which A17 Pro, M4 and later compute faster", _OVERVIEW,
    ),
    Constraint(
        "palettized weights", _palettized, (),
        "read palettized weights, which typically suit the Neural Engine best", _OVERVIEW,
    ),
    Constraint(
        "dilation", lambda n: any(d > 3 for d in n.numbers("dilations")), (),
        "are dilated by more than 3, which costs; chains of 2 and 3 cost less", _RULES,
    ),
    Constraint(
        "narrow last axes", _narrow, (),
        "give float16 tensors with a last axis shorter than 32 elements, which is padded to 64 "
        "bytes", _RULES,
    ),
)  # fmt: skip
"""What is known to cost or gain time, and refuses nothing."""
