"""A package's operations as a graph: who reads what, and which values are constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgemix.errors import InputError
from edgemix.targets.coreml.package import Package
from edgemix.targets.coreml.values import Kind, kind, value


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
