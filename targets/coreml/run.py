"""A Core ML package predicted by Core ML. Runs in a child process, on macOS only."""

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


def machine(request: Mapping[str, Any]) -> Carried:
    """A stream through a package that takes its states and gives the next."""
    ct = need("coremltools", extra="coreml")
    artifact = Artifact.from_json(request["artifact"])
    model = ct.models.MLModel(request["model"], compute_units=ct.ComputeUnit.ALL)

    def call(tensors: Sequence[Any]) -> list[Any]:
        found = model.predict({b.name: x for b, x in zip(artifact.takes, tensors, strict=True)})
        return [np.asarray(found[b.name], np.float32) for b in artifact.gives]

    return Carried(artifact, call)


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Predict all samples, one batch of the model's size at a time; of states, all sequences."""
    if request["artifact"]["states"]:
        return run_sequences(machine(request), request)
    ct = need("coremltools", extra="coreml")
    artifact = Artifact.from_json(request["artifact"])
    model = ct.models.MLModel(request["model"], compute_units=ct.ComputeUnit.ALL)
    inputs = arrays.read(Path(request["inputs"]))
    batch = artifact.inputs[0].spec.shape[0]
    pieces = []
    for start in range(0, len(inputs[0]), batch):
        feed = {
            b.name: a[start : start + batch] for b, a in zip(artifact.inputs, inputs, strict=True)
        }
        found = model.predict(feed)
        pieces.append([np.asarray(found[b.name], np.float32) for b in artifact.outputs])
        progress((start + batch) / len(inputs[0]))
    outputs = tuple(np.concatenate([p[i] for p in pieces]) for i in range(len(artifact.outputs)))
    arrays.save(Path(request["outputs"]), outputs)
    return {}
