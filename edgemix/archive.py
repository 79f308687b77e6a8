"""A program as one file that runs no code when it is read.

A zip archive of three members, stored:

    program.json         format version, inputs, outputs, states, origin, history
    graph.json           the graph, in torch.export's own JSON schema
    weights.safetensors  parameters, buffers and constants

The graph is checked before torch sees it: only operators of known namespaces, no symbolic
expressions (torch evaluates those as Python), no guards (the same), no custom objects.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch._export.serde import serialize as serde
from torch.export import ExportedProgram

from edgemix import files
from edgemix import graph as _graph  # noqa: F401  (defines quantized_decomposed)
from edgemix.errors import InputError
from edgemix.exporting import quiet
from edgemix.program import Origin, Program, StateSpec, Step, TensorSpec

FORMAT = 1
_MEMBERS = ("program.json", "graph.json", "weights.safetensors")
_MAX_MEMBER = 4 << 30
_OPERATOR = re.compile(r"torch\.ops\.(aten|quantized_decomposed)\.\w+\.\w+|_operator\.getitem")
_PT2_MODEL = re.compile(r"[^/]+/models/([^/]+)\.json")


def save(program: Program, path: Path) -> None:
    """Write ``program`` to ``path``, whole or absent.

    Raises:
        InputError: the file cannot be written.
    """
    with quiet():
        serialized = serde.serialize(
            program.graph,
            serialize_state_dict=False,
            serialize_constants=False,
            serialize_example_inputs=False,
        )
    tensors = {**program.graph.state_dict, **program.graph.constants}
    about = {
        "format": FORMAT,
        "inputs": [asdict(spec) for spec in program.inputs],
        "outputs": [asdict(spec) for spec in program.outputs],
        "states": [asdict(spec) for spec in program.states],
        "origin": asdict(program.origin),
        "history": [asdict(step) for step in program.history],
        "parameters": sorted(program.graph.state_dict),
    }
    weights = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (
            ("program.json", json.dumps(about, indent=1, sort_keys=True).encode()),
            ("graph.json", serialized.exported_program),
            ("weights.safetensors", safetensors.torch.save(weights)),
        ):
            # A fixed date: the same program gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    files.write_bytes(path, buffer.getvalue())


def load(path: Path) -> Program:
    """Read a program back, bit-identical to the saved one.

    Raises:
        InputError: missing, truncated, of another kind, or with something in it that could run.
    """
    members = _read(path, _MEMBERS, kind="an edgemix program")
    about = _json(members["program.json"], path)
    if about.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {about.get('format')}, this edgemix reads {FORMAT}",
            do="save it again with this version",
        )
    try:
        tensors = safetensors.torch.load(members["weights.safetensors"])
    except Exception as error:
        raise InputError(f"the weights in {path} are damaged: {error}") from error
    parameters = set(about["parameters"])
    exported = _exported_program(
        members["graph.json"],
        {name: t for name, t in tensors.items() if name in parameters},
        {name: t for name, t in tensors.items() if name not in parameters},
        path,
    )
    return Program(
        exported,
        tuple(TensorSpec(**_shaped(spec)) for spec in about["inputs"]),
        tuple(TensorSpec(**_shaped(spec)) for spec in about["outputs"]),
        Origin(**about["origin"]),
        tuple(StateSpec(**_state(spec)) for spec in about["states"]),
        tuple(Step(**step) for step in about["history"]),
    )


def load_pt2(path: Path) -> ExportedProgram:
    """Read a file of ``torch.export.save`` without unpickling anything.

    Raises:
        InputError: missing, truncated, of another kind, or with pickled or custom objects.
    """
    with _open(path, kind="a .pt2 file") as archive:
        names = archive.namelist()
        models = [(m.string, m[1]) for n in names if (m := _PT2_MODEL.fullmatch(n))]
        if len(models) != 1:
            raise InputError(
                f"{path} is no .pt2 file with one model: it holds {len(models)}",
                do="write it with torch.export.save(torch.export.export(model, inputs), path)",
            )
        member, name = models[0]
        root = member.split("/")[0]
        try:
            graph = archive.read(member)
            weights = _payload(archive, f"{root}/data/weights/{name}_weights_config.json", path)
            constants = _payload(
                archive, f"{root}/data/constants/{name}_constants_config.json", path
            )
        except (KeyError, zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
    return _exported_program(graph, weights, constants, path)


def is_program(path: Path) -> bool:
    """Whether the file is an archive of :func:`save` (by its members)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return set(_MEMBERS) <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _exported_program(
    graph: bytes, parameters: dict[str, Tensor], constants: dict[str, Tensor], path: Path
) -> ExportedProgram:
    document = _json(graph, path)
    _refuse_code(document, path)
    document["guards_code"] = []
    try:
        specs = document["graph_module"]["signature"]["input_specs"]
        for name in (s["parameter"]["parameter_name"] for s in specs if "parameter" in s):
            parameters[name] = torch.nn.Parameter(parameters[name], requires_grad=False)
        # torch's annotation says bytes; it takes tensors, and then unpickles nothing.
        parts: Any = (json.dumps(document).encode(), parameters, constants, None)
        with quiet():
            return serde.deserialize(serde.SerializedArtifact(*parts))
    except Exception as error:  # torch raises AssertionError, KeyError and its own classes here
        raise InputError(
            f"torch cannot read the graph in {path}: {error}",
            do="export it again with the installed torch",
        ) from error


def _refuse_code(value: Any, path: Path) -> None:
    """Refuse what torch would evaluate or look up freely while it reads a graph."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in ("as_expr", "as_custom_obj", "as_operator", "as_graph") and item is not None:
                raise InputError(
                    f"the graph in {path} holds {key}, which edgemix does not read",
                    do="export the model with fixed shapes and plain operators",
                )
            if key == "target" and isinstance(item, str) and not _OPERATOR.fullmatch(item):
                raise InputError(f"the graph in {path} calls {item}, which is no tensor operator")
            _refuse_code(item, path)
    elif isinstance(value, list):
        for item in value:
            _refuse_code(item, path)


def _payload(archive: zipfile.ZipFile, config: str, path: Path) -> dict[str, Tensor]:
    folder = config.rpartition("/")[0]
    tensors = {}
    for name, entry in _json(archive.read(config), path)["config"].items():
        meta = entry.get("tensor_meta")
        if entry.get("use_pickle") or meta is None:
            raise InputError(
                f"{path} holds the pickled object {name}: edgemix unpickles nothing",
                do="save a model whose weights are plain tensors",
            )
        dtype = serde.deserialize_scalar_type(meta["dtype"])
        sizes, strides = ([n["as_int"] for n in meta[k]] for k in ("sizes", "strides"))
        raw = bytearray(archive.read(f"{folder}/{entry['path_name']}"))
        flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.zeros(0, dtype=dtype)
        offset = meta["storage_offset"]["as_int"]
        try:
            tensors[name] = torch.as_strided(flat, sizes, strides, offset).clone()
        except RuntimeError as error:
            raise InputError(f"the weight {name} in {path} is damaged: {error}") from error
    return tensors


def _open(path: Path, *, kind: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is not {kind}, or it is truncated") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _read(path: Path, members: tuple[str, ...], *, kind: str) -> dict[str, bytes]:
    with _open(path, kind=kind) as archive:
        if set(archive.namelist()) != set(members):
            raise InputError(f"{path} is not {kind}")
        if any(info.file_size > _MAX_MEMBER for info in archive.infolist()):
            raise InputError(f"{path} holds a member of more than {_MAX_MEMBER >> 30} GiB")
        try:
            return {name: archive.read(name) for name in members}
        except (zipfile.BadZipFile, OSError, EOFError, struct.error) as error:
            raise InputError(f"{path} is damaged: {error}") from error


def _json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} is damaged: no JSON object")
    return document


def _state(spec: dict[str, Any]) -> dict[str, Any]:
    return {**_shaped(spec), "initial": tuple(spec["initial"])}


def _shaped(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "shape": tuple(spec["shape"])}
