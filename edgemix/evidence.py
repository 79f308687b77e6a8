"""The evidence beside every artifact, and its replay.

An artifact's folder holds what it takes to check it again without the model that it came from:

    artifact.json   the Artifact, hashes of its files, versions, instruction sets, the calibration's
                    fingerprint, the contract, and the command that replays the check
    vectors.npz     inputs, the program's outputs and the artifact's outputs
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgemix import files, proof, targets
from edgemix.errors import InputError
from edgemix.latency.budget import Verdict
from edgemix.latency.host import environment
from edgemix.program import Program
from edgemix.proof import Contract, Floats
from edgemix.quantize.calibrate import DataPrint
from edgemix.targets.base import Artifact, Target

ABOUT = "artifact.json"
VECTORS = "vectors.npz"
SAMPLES = 64
FORMAT = 1


def write_evidence(
    folder: Path,
    target: Target,
    artifact: Artifact,
    program: Program,
    calibration: DataPrint | None,
    inputs: Floats,
    expected: Floats,
    found: Floats | None,
    contract: Contract,
) -> None:
    """Write both files; ``found`` is None where this machine cannot run the artifact."""
    arrays: dict[str, Any] = {"inputs": inputs[:SAMPLES], "expected": expected[:SAMPLES]}
    if found is not None:
        arrays["found"] = found[:SAMPLES]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    files.write_bytes(folder / VECTORS, buffer.getvalue())
    about = {
        "format": FORMAT,
        "artifact": artifact.to_json(),
        "sha256": {
            artifact.main: files.sha256(folder / artifact.main),
            VECTORS: files.sha256(folder / VECTORS),
        },
        "contract": asdict(contract),
        "calibration": calibration and asdict(calibration),
        "origin": asdict(program.origin),
        "environment": environment(),
        "replay": f"edgemix validate {target.name}",
    }
    files.write_json(folder / ABOUT, about)


def validate(
    folder: Path, on_progress: Callable[[float], None] | None = None
) -> tuple[Verdict, ...]:
    """Check an artifact's folder again: its hashes, then its outputs on the stored vectors.

    Raises:
        InputError: the folder holds no artifact of edgemix, or its evidence is damaged.
    """
    about, vectors = _read(folder)
    artifact = Artifact.from_json(about["artifact"])
    target = targets.load(artifact.target)
    verdicts = [
        _hash(folder, name, digest, target.name) for name, digest in about["sha256"].items()
    ]
    if not all(v.passed for v in verdicts):
        return tuple(verdicts)
    found = target.run(artifact, folder, (vectors["inputs"],), on_progress)
    if found is None:
        precision = target.audit(artifact, folder)
        kept = sum(op.kept for op in precision)
        verdicts.append(
            Verdict(
                "precision", target.name, "every operator as asked", f"{kept} of {len(precision)}",
                kept == len(precision), "" if kept == len(precision) else "see the report",
            )
        )  # fmt: skip
        return tuple(verdicts)
    contract = Contract(**about["contract"])
    encoding = artifact.outputs[0].encoding
    fidelity = proof.compare(vectors["expected"], found[0], encoding, contract)
    near = f"{fidelity.identical:.2%} identical, {fidelity.within:.2%} within 1 LSB"
    verdicts.append(
        Verdict("fidelity", target.name, str(contract), near, fidelity.passed, fidelity.why)
    )
    return tuple(verdicts)


def read_artifact(folder: Path) -> tuple[Path, Artifact]:
    """The artifact in a target's folder, or in the folder above its project; and that folder.

    Raises:
        InputError: as :func:`validate`.
    """
    above = not (folder / ABOUT).is_file() and (folder.parent / ABOUT).is_file()
    place = folder.parent if above else folder
    return place, Artifact.from_json(_read(place)[0]["artifact"])


def _hash(folder: Path, name: str, digest: str, target: str) -> Verdict:
    path = folder / name
    found = files.sha256(path) if path.exists() else "missing"
    same = found == digest
    why = "" if same else f"{name} is not what was proven"
    return Verdict("hash", target, f"{name} {digest[:12]}", found[:12], same, why)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / ABOUT
    if not path.is_file():
        raise InputError(
            f"{folder} holds no artifact of edgemix",
            do="name the folder of one target, like out/onnx",
        )
    try:
        about = json.loads(path.read_text())
        if about["format"] != FORMAT:
            raise InputError(f"{path} has format {about['format']}, this edgemix reads {FORMAT}")
        with np.load(folder / VECTORS, allow_pickle=False) as stored:
            vectors = {name: stored[name] for name in stored.files}
        Artifact.from_json(about["artifact"])
        return about, {"inputs": vectors["inputs"], "expected": vectors["expected"]}
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(f"the evidence in {folder} is damaged: {error}") from error
