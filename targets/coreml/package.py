"""A saved ``.mlpackage``: its files, checked before anything in them is used.

Only what lies in the package's own ``Data`` folder is read, whatever its manifest or its program
name; links that lead out of it are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgemix.errors import InputError, UnsupportedError
from edgemix.extras import need
from edgemix.targets.coreml.blobs import BlobFile
from edgemix.targets.coreml.protos import protos

_MODEL_PATH = "@model_path/"
_LARGEST_SPEC = 2**31 - 1


@dataclass(frozen=True)
class Package:
    """The model's description and program, and its weight files."""

    path: Path
    spec: Any
    """``CoreML.Specification.Model``."""
    model: Path
    """The file that ``spec`` was read from."""
    _opened: dict[str, BlobFile] = field(default_factory=dict, repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """Where the program's ``@model_path`` is."""
        return self.model.parent

    @property
    def program(self) -> Any:
        """``MILSpec.Program``."""
        return self.spec.mlProgram

    def weights(self, name: str) -> BlobFile:
        """The weight file that the program names ``name``.

        Raises:
            InputError: the name leads out of the package, or there is no such file.
        """
        if name not in self._opened:
            inner = name.removeprefix(_MODEL_PATH)
            path = _inside(self.folder, inner, f"the program's weight file {name!r}")
            if not path.is_file():
                raise InputError(f"{self.path.name} lacks the weight file {inner!r}")
            self._opened[name] = BlobFile(path)
        return self._opened[name]


def open_package(path: Path) -> Package:
    """Read a package's manifest and program; weights are mapped when they are used.

    Raises:
        InputError: it is no package, or damaged.
        UnsupportedError: a compiled, encrypted or old model.
    """
    _refuse_others(path)
    manifest = _manifest(path)
    root = manifest.get("rootModelIdentifier")
    items = manifest.get("itemInfoEntries")
    item = items.get(root) if isinstance(items, dict) and isinstance(root, str) else None
    if not isinstance(item, dict):
        raise InputError(f"the manifest of {path.name} names no root model")
    data = path / "Data"
    model = _inside(data, str(item.get("path", "")), "the manifest's root model")
    if not model.is_file():
        raise InputError(f"{path.name} lacks its root model {model.relative_to(data)}")
    return Package(path, _spec(model, path.name), model)


def _refuse_others(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.suffix == ".mlmodelc" or (path / "coremldata.bin").exists():
        raise UnsupportedError(
            f"{path.name} is a compiled model, whose program only Core ML reads",
            do="give the .mlpackage that it was compiled from",
        )
    if path.is_file():
        raise InputError(
            f"{path.name} is a file, and an .mlpackage is a folder",
            do="save the model as an ML Program: minimum deployment target iOS 15 or later"
            if path.suffix == ".mlmodel"
            else "unpack it, if it is an archive",
        )


def _manifest(path: Path) -> dict[str, Any]:
    place = path / "Manifest.json"
    if not place.is_file():
        raise InputError(f"{path.name} has no Manifest.json: it is no Core ML package")
    try:
        found = json.loads(place.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"the manifest of {path.name} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"the manifest of {path.name} is damaged: it is no table")
    return found


def _inside(folder: Path, name: str, what: str) -> Path:
    pure = PurePosixPath(name)
    path = folder / pure
    try:
        resolved, base = path.resolve(), folder.resolve()
        path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        # A zero byte, a name that is too long, links in a circle.
        raise InputError(f"{what} is no path: {error}") from error
    if not name or pure.is_absolute() or ".." in pure.parts or base not in resolved.parents:
        raise InputError(f"{what} lies outside its package", do="do not trust this package")
    return path


def _spec(model: Path, name: str) -> Any:
    message = need("google.protobuf.message", extra="coreml")
    if model.stat().st_size > _LARGEST_SPEC:
        raise InputError(f"the program of {name} is larger than protobuf allows")
    spec = protos().Model()
    try:
        spec.ParseFromString(model.read_bytes())
    except message.DecodeError as error:
        raise InputError(f"the program of {name} is damaged or encrypted: {error}") from error
    which = spec.WhichOneof("Type")
    if which is None:
        raise InputError(f"the program of {name} is damaged or encrypted: it holds no model")
    if which != "mlProgram":
        raise UnsupportedError(
            f"{name} holds a model of type {which}, not an ML Program",
            do="convert it again with a minimum deployment target of iOS 15 or later",
        )
    return spec
