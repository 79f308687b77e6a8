"""Which of a package's operations the CPU, the GPU and the Neural Engine can be expected to take.

An expectation, from documented constraints (:data:`CONSTRAINTS`), each with its source. Apple keeps
no list: what is taken depends on the chip, the system and the sizes, and Core ML may leave even a
fitting operation to another unit, for instance when a model is small. On a Mac,
:mod:`edgemix.targets.coreml.plan` asks Core ML itself.

Left out are older claims that newer measurements or Apple's own text contradict: that dilated
convolutions, gather, broadcasting, pooling above 13 and upsampling above 2 leave the Neural Engine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgemix.errors import InputError
from edgemix.targets.coreml.package import Package
from edgemix.targets.coreml.values import Kind, kind, value

Unit = Literal["CPU", "GPU", "Neural Engine"]
UNITS: tuple[Unit, ...] = ("Neural Engine", "GPU", "CPU")
"""In the order in which an operation is expected to go to the first that takes it."""

NO_CONSTRAINT = "no documented constraint"
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
class Placement:
    """Where one operation can run."""

    op: str
    name: str
    """Of its first result."""
    units: tuple[Unit, ...]
    """That take it."""
    why: str
    """Why the others do not."""
    source: str
    preferred: Unit | None = None
    """The one that Core ML prefers; None in an expectation."""
    cost: float | None = None
    """Its share of the model's work, 0 to 1, as Core ML estimates it; None in an expectation."""

    @property
    def likely(self) -> Unit | None:
        """The preferred unit, or the first of :data:`UNITS` that takes it."""
        return self.preferred or next((u for u in UNITS if u in self.units), None)


@dataclass(frozen=True)
class Operand:
    """A value that an operation reads."""

    kind: Kind
    constant: bool
    stored: Any = field(default=None, repr=False)
    """The protobuf ``Value`` of a constant."""
    maker: Node | None = field(default=None, repr=False)
    """None of constants and of the function's inputs."""


@dataclass(frozen=True)
class Node:
    """An operation, with all that constraints ask about."""

    op: str
    name: str
    operands: Mapping[str, tuple[Operand, ...]]
    results: tuple[Kind, ...]
    path: tuple[str, ...]
    """Its type, after those of the control flow around it."""
    ranges: bool
    """Whether a shape of the model's inputs is given by ranges."""
    weights: int
    """Bytes of the whole model's weights."""
    package: Package = field(repr=False)

    @property
    def flowing(self) -> tuple[Kind, ...]:
        """Kinds of its results, and of its operands that are no constants."""
        read = (o.kind for group in self.operands.values() for o in group if not o.constant)
        return (*read, *self.results)

    def first(self, parameter: str) -> Operand | None:
        """An operand by its parameter's name."""
        return next(iter(self.operands.get(parameter, ())), None)

    def computed(self, *parameters: str) -> bool:
        """Whether one of them is known only when the model runs."""
        return any(not o.constant for p in parameters for o in self.operands.get(p, ()))

    def constant(self, parameter: str) -> Any:
        """A tensor, a string …; None if it is no constant, or not given."""
        found = self.first(parameter)
        if found is None or found.stored is None:
            return None
        return value(found.stored, self.package.weights, f"operation {self.op} '{self.name}'")

    def numbers(self, parameter: str) -> tuple[int, ...]:
        """A constant's values; empty if it is no constant, or not given."""
        found = self.constant(parameter)
        return () if found is None else tuple(int(n) for n in found.flatten())


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


@dataclass(frozen=True)
class Obstacle:
    """Why operations of one type are kept off the Neural Engine."""

    op: str
    why: str
    source: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Remark:
    """What holds of some operations, and is no obstacle."""

    why: str
    source: str
    operations: int


@dataclass(frozen=True)
class Summary:
    """A model's placements, counted."""

    operations: int
    takes: Mapping[Unit, float]
    """The share of operations that each unit takes."""
    likely: Mapping[Unit, float]
    """The share of operations whose likely unit it is."""
    cost: Mapping[Unit, float] | None
    """The share of the estimated work; None in an expectation."""
    switches: int
    """How often the likely unit changes, in the program's order."""
    obstacles: tuple[Obstacle, ...]
    """Most frequent first."""


def placements(package: Package, function: str = "main") -> tuple[Placement, ...]:
    """Where each operation is expected to run: an expectation, never a measurement.

    Constants, and operations that only expand them, are left out.

    Raises:
        InputError: the package lacks the function, or is damaged.
    """
    return tuple(_placed(node) for node in nodes(package, function))


def remarks(package: Package, function: str = "main") -> tuple[Remark, ...]:
    """What holds of some of its operations, and is no obstacle."""
    found = list(nodes(package, function))
    counted = ((row, sum(row.applies(n) for n in found)) for row in REMARKS)
    return tuple(Remark(row.why, str(row.source), n) for row, n in counted if n)


def summarize(found: Sequence[Placement]) -> Summary:
    """Shares, switches between units, and what keeps the model off the Neural Engine."""
    count = len(found)
    homes = [p.likely for p in found]
    kept: dict[tuple[str, str, str], list[str]] = {}
    for p in found:
        if "Neural Engine" not in p.units:
            kept.setdefault((p.op, p.why, p.source), []).append(p.name)
    obstacles = [Obstacle(*key, tuple(names)) for key, names in kept.items()]
    work = math.fsum(p.cost or 0.0 for p in found)
    costs = {u: math.fsum(p.cost or 0.0 for p in found if p.likely == u) for u in UNITS}
    return Summary(
        operations=count,
        takes={u: sum(u in p.units for p in found) / max(count, 1) for u in UNITS},
        likely={u: homes.count(u) / max(count, 1) for u in UNITS},
        cost={u: c / work for u, c in costs.items()} if work else None,
        switches=sum(a != b for a, b in itertools.pairwise(homes)),
        obstacles=tuple(sorted(obstacles, key=lambda o: -len(o.names))),
    )


def nodes(package: Package, function: str = "main") -> Iterator[Node]:
    """The operations of a function and of the blocks in it, but constants.

    Raises:
        InputError: the package lacks the function, or is damaged.
    """
    functions = package.program.functions
    if function not in functions:
        names = ", ".join(sorted(functions)) or "none"
        raise InputError(f"{package.path.name} has no function {function!r}, but {names}")
    found = functions[function]
    if found.opset not in found.block_specializations:
        raise InputError(f"{package.path.name} has no block for its opset {found.opset!r}")
    scope = {i.name: Operand(kind(i.type), constant=False) for i in found.inputs}
    reader = _Reader(package, _has_ranges(package, function), _weights(package))
    return reader.block(found.block_specializations[found.opset], scope, ())


def _placed(node: Node) -> Placement:
    rows = [row for row in CONSTRAINTS if row.applies(node)]
    refused = {unit for row in rows for unit in row.refuses}
    return Placement(
        op=node.op,
        name=node.name,
        units=tuple(u for u in UNITS if u not in refused),
        why="; ".join(row.why for row in rows) or NO_CONSTRAINT,
        source="; ".join(dict.fromkeys(str(row.source) for row in rows)),
    )


@dataclass(frozen=True)
class _Reader:
    package: Package
    ranges: bool
    weights: int

    def block(
        self, block: Any, outer: Mapping[str, Operand], inside: tuple[str, ...]
    ) -> Iterator[Node]:
        scope = dict(outer)
        scope |= {i.name: Operand(kind(i.type), constant=False) for i in block.inputs}
        for op in block.operations:
            if op.type == "const":
                for out in op.outputs:
                    stored = op.attributes.get("val")
                    scope[out.name] = Operand(kind(out.type), constant=True, stored=stored)
                continue
            node = self._node(op, scope, inside)
            given = all(o.constant for group in node.operands.values() for o in group)
            constant = given and op.type.startswith("constexpr_")
            scope |= {
                o.name: Operand(k, constant, maker=node)
                for o, k in zip(op.outputs, node.results, strict=True)
            }
            if not constant:
                yield node
            for inner in op.blocks:
                yield from self.block(inner, scope, node.path)

    def _node(self, op: Any, scope: Mapping[str, Operand], inside: tuple[str, ...]) -> Node:
        name = op.outputs[0].name if op.outputs else ""
        where = f"operation {op.type} '{name}'"
        return Node(
            op=op.type,
            name=name,
            operands={
                parameter: tuple(_operand(b, scope, where) for b in argument.arguments)
                for parameter, argument in op.inputs.items()
            },
            results=tuple(kind(o.type) for o in op.outputs),
            path=(*inside, op.type),
            ranges=self.ranges,
            weights=self.weights,
            package=self.package,
        )


def _operand(binding: Any, scope: Mapping[str, Operand], where: str) -> Operand:
    if binding.WhichOneof("binding") == "value":
        return Operand(kind(binding.value.type), constant=True, stored=binding.value)
    if binding.name not in scope:
        raise InputError(f"{where} reads {binding.name!r}, which nothing before it gives")
    return scope[binding.name]


def _has_ranges(package: Package, function: str) -> bool:
    description = package.spec.description
    own = [f for f in description.functions if f.name == function]
    types = [i.type for i in (own[0] if own else description).input]
    return any(
        t.multiArrayType.WhichOneof("ShapeFlexibility") == "shapeRange"
        or t.imageType.WhichOneof("SizeFlexibility") == "imageSizeRange"
        for t in types
    )


def _weights(package: Package) -> int:
    files = package.folder.glob("weights/*")
    return sum(f.stat().st_size for f in files if f.is_file() and not f.is_symlink())
