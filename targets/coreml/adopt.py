"""A package that others made, bound to a program. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.program import Program, TensorSpec
from edgemix.targets.base import Artifact, Binding, bindings
from edgemix.targets.coreml.evaluate import Evaluator
from edgemix.targets.coreml.package import open_package
from edgemix.targets.coreml.values import Kind


def adopt(request: Mapping[str, Any]) -> dict[str, Any]:
    """The package as an Artifact: by the names of the program's tensors, or by their order.

    Raises:
        InputError: it has other numbers or shapes of inputs and outputs, or states.
    """
    program = Program.load(Path(request["program"]))
    path = Path(request["model"])
    package = open_package(path)
    evaluator = Evaluator.load(package)
    if evaluator.states:
        raise InputError(f"{path.name} has states, which only its own folder's proof follows")
    described = package.spec.description
    takes = _in_order([i.name for i in described.input], program.inputs, "inputs", path.name)
    gives = _in_order([o.name for o in described.output], program.outputs, "outputs", path.name)
    for name, spec in zip(takes, program.inputs, strict=True):
        _fits(name, evaluator.inputs[name], spec, path.name)

    def bind(names: Sequence[str]) -> Any:
        def one(i: int, spec: TensorSpec, encoding: Encoding | None) -> Binding:
            return Binding(spec, names[i], spec.layout, "float32", encoding)

        return one

    return Artifact(
        target="coreml",
        program=program.digest,
        main=path.name,
        **bindings(program, bind(takes), bind(gives)),
        toolchain={},
    ).to_json()


def _in_order(names: list[str], specs: Sequence[TensorSpec], what: str, package: str) -> list[str]:
    if len(names) != len(specs):
        raise InputError(f"{package} has {len(names)} {what}, the program {len(specs)}")
    wanted = [spec.name for spec in specs]
    return wanted if set(wanted) == set(names) else names


def _fits(name: str, kind: Kind, spec: TensorSpec, package: str) -> None:
    same = len(kind.shape) == len(spec.shape) and all(
        has in (None, want) for has, want in zip(kind.shape, spec.shape, strict=True)
    )
    if not same:
        raise InputError(
            f"{package} takes {name} as {kind}, the program as {list(spec.shape)}",
            do="trace the program with the package's shape",
        )
