"""A TFLite artifact in LiteRT. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemix.child import progress
from edgemix.extras import need
from edgemix.targets import arrays
from edgemix.targets.base import Artifact
from edgemix.targets.steps import Carried, run_sequences


def interpreter(model: str, *, threads: int = 1) -> Any:
    """A LiteRT interpreter with its default kernels, tensors allocated."""
    litert = need("ai_edge_litert.interpreter", extra="tflite")
    runner = litert.Interpreter(model, num_threads=threads)
    runner.allocate_tensors()
    return runner


def machine(request: Mapping[str, Any]) -> Carried:
    """A stream through a model with states."""
    artifact = Artifact.from_json(request["artifact"])
    runner = interpreter(request["model"]).get_signature_runner(artifact.facts["signature"])

    def call(tensors: Sequence[Any]) -> list[Any]:
        found = runner(**{b.name: x for b, x in zip(artifact.takes, tensors, strict=True)})
        return [found[b.name] for b in artifact.gives]

    return Carried(artifact, call)


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run all samples, one batch of the model's size at a time; of states, all sequences."""
    artifact = Artifact.from_json(request["artifact"])
    if artifact.states:
        return run_sequences(machine(request), request)
    runner = interpreter(request["model"]).get_signature_runner(artifact.facts["signature"])
    inputs = arrays.read(Path(request["inputs"]))
    fed = [arrays.encode(a, b) for a, b in zip(inputs, artifact.inputs, strict=True)]
    batch = artifact.inputs[0].spec.shape[0]
    pieces = []
    for start in range(0, len(fed[0]), batch):
        feed = {b.name: x[start : start + batch] for b, x in zip(artifact.inputs, fed, strict=True)}
        found = runner(**feed)
        pieces.append([found[b.name] for b in artifact.outputs])
        progress((start + batch) / len(fed[0]))
    outputs = tuple(
        arrays.decode(np.concatenate([p[i] for p in pieces]), b)
        for i, b in enumerate(artifact.outputs)
    )
    arrays.save(Path(request["outputs"]), outputs)
    return {}
