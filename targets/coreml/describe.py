"""What a saved package is, whoever made it. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemix.targets.coreml.audit import operations
from edgemix.targets.coreml.deployment import system
from edgemix.targets.coreml.evaluate import Evaluator
from edgemix.targets.coreml.package import open_package
from edgemix.targets.coreml.plan import plan


def describe(request: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs, outputs and states with their types, operations, and where they are placed."""
    path = Path(request["model"])
    package = open_package(path)
    evaluator = Evaluator.load(package)
    return {
        "name": path.name,
        "inputs": {name: str(kind) for name, kind in evaluator.inputs.items()},
        "outputs": {name: str(evaluator.gives[name]) for name in evaluator.outputs},
        "states": {name: str(kind) for name, kind in evaluator.states.items()},
        "system": system(package.spec.specificationVersion),
        "metadata": dict(package.spec.description.metadata.userDefined),
        "operations": operations(path),
        "placement": plan({"model": str(path)}),
    }
