"""Files built to break the loader or to run code through it."""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgemix import archive
from edgemix.errors import InputError
from edgemix.program import Origin, Program


@pytest.fixture
def saved(tmp_path: Path, float_program: Program) -> Path:
    path = tmp_path / "model.edgemix"
    float_program.save(path)
    return path


def edit(path: Path, member: str, change: Callable[[Any], Any]) -> None:
    """Change one JSON member of an archive."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = next(n for n in members if n.endswith(member))
    document = json.loads(members[name])
    change(document)
    members[name] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w") as new:
        for key, data in members.items():
            new.writestr(key, data)


def first_node(document: Any) -> Any:
    return document["graph_module"]["graph"]["nodes"][0]


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.hub.load", "_operator.call", "math.exp", "#x:y", "torch.ops.x.y.z"],
)
def test_a_graph_that_calls_something_else_is_refused(saved: Path, target: str) -> None:
    edit(saved, "graph.json", lambda d: first_node(d).update(target=target))
    with pytest.raises(InputError, match=re.escape(f"calls {target}, which is no tensor operator")):
        Program.load(saved)


def test_a_symbolic_expression_is_refused(saved: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    expression = f"__import__('pathlib').Path({str(witness)!r}).touch()"
    sizes = [{"as_expr": {"expr_str": expression, "hint": None}}]

    def plant(document: Any) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        next(iter(values.values()))["sizes"] = sizes

    edit(saved, "graph.json", plant)
    with pytest.raises(InputError, match="holds as_expr, which edgemix does not read"):
        Program.load(saved)
    assert not witness.exists()


def test_guards_are_never_evaluated(saved: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    guard = f"__import__('pathlib').Path({str(witness)!r}).touch() or True"
    edit(saved, "graph.json", lambda d: d.update(guards_code=[guard]))
    Program.load(saved).run(torch.zeros(1, 1, 8, 8))
    assert not witness.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="is not an edgemix program, or it is truncated"):
        Program.load(saved)


def test_flipped_bytes_are_refused(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    saved.write_bytes(whole)
    with pytest.raises(InputError, match="is damaged"):
        Program.load(saved)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "model.edgemix"
    text.write_text("not a model")
    with pytest.raises(InputError, match="is not an edgemix program"):
        Program.load(text)
    with zipfile.ZipFile(text, "w") as other:
        other.writestr("hello", "world")
    with pytest.raises(InputError, match="is not an edgemix program"):
        Program.load(text)
    with pytest.raises(InputError, match="there is no file"):
        Program.load(tmp_path / "missing")


def test_a_pt2_file_is_read_without_its_pickle(tmp_path: Path, float_program: Program) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(float_program.graph, str(path))
    witness = tmp_path / "witness"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(witness), "w"))

    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    buffer = io.BytesIO()
    pickle.dump(Payload(), buffer)
    name = next(n for n in members if "sample_inputs" in n)
    members[name] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as new:
        for key, data in members.items():
            new.writestr(key, data)
    exported = archive.load_pt2(path)
    assert Program.from_exported(exported, Origin("x")).digest == float_program.digest
    assert not witness.exists()


def test_pickled_weights_in_a_pt2_file_are_refused(tmp_path: Path, float_program: Program) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(float_program.graph, str(path))

    def plant(document: Any) -> None:
        next(iter(document["config"].values()))["use_pickle"] = True

    edit(path, "weights_config.json", plant)
    with pytest.raises(InputError, match="edgemix unpickles nothing"):
        archive.load_pt2(path)


def test_a_weight_that_reaches_beyond_its_bytes_is_refused(
    tmp_path: Path, float_program: Program
) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(float_program.graph, str(path))

    def plant(document: Any) -> None:
        meta = next(iter(document["config"].values()))["tensor_meta"]
        meta["sizes"] = [{"as_int": 1_000_000}]
        meta["strides"] = [{"as_int": 1}]

    edit(path, "weights_config.json", plant)
    with pytest.raises(InputError, match="is damaged"):
        archive.load_pt2(path)
