"""Words into a saved package, in place. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemix import files
from edgemix.targets.coreml.package import open_package


def sign(request: Mapping[str, Any]) -> dict[str, Any]:
    """Add to the metadata that Xcode and ``edgemix inspect`` show; the program stays as it is."""
    package = open_package(Path(request["model"]))
    written = package.spec.description.metadata.userDefined
    for name, text in request["proven"].items():
        written[f"edgemix.{name}"] = text
    files.write_bytes(package.model, package.spec.SerializeToString())
    return {}
