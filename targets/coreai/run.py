"""An ``.aimodel`` in Core AI's interpreter. Runs in a child process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemix.child import progress
from edgemix.extras import need
from edgemix.targets import arrays
from edgemix.targets.base import Artifact
from edgemix.targets.steps import Carried, run_sequences

ENTRY = "main"


class Session:
    """A model's only function, called and waited for: Core AI's own calls are asynchronous."""

    def __init__(self, model: str) -> None:
        """Compile the model for the interpreter."""
        self._array = need("coreai.runtime", extra="coreai").NDArray
        self._loop = asyncio.Runner()
        self._function = self._loop.run(_function(model))

    def __call__(self, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name."""
        given = {name: self._array(np.ascontiguousarray(x)) for name, x in feed.items()}
        found = self._loop.run(self._function(given))
        return {name: np.array(value.numpy()) for name, value in found.items()}


async def _function(model: str) -> Any:
    """The function outlives the compiled files, which a killed process would leave behind."""
    asset = need("coreai.authoring", extra="coreai").AIModelAsset
    async with asset.load(Path(model)).executable() as executable:
        return executable.load_function(ENTRY)


def machine(request: Mapping[str, Any]) -> Carried:
    """A stream through a model that takes its states and gives the next."""
    artifact = Artifact.from_json(request["artifact"])
    session = Session(request["model"])

    def call(tensors: Sequence[Any]) -> list[Any]:
        found = session({b.name: x for b, x in zip(artifact.takes, tensors, strict=True)})
        return [found[b.name] for b in artifact.gives]

    return Carried(artifact, call)


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run all samples, one batch of the model's size at a time; of states, all sequences."""
    if request["artifact"]["states"]:
        return run_sequences(machine(request), request)
    artifact = Artifact.from_json(request["artifact"])
    session = Session(request["model"])
    inputs = arrays.read(Path(request["inputs"]))
    batch = artifact.inputs[0].spec.shape[0]
    pieces = []
    for start in range(0, len(inputs[0]), batch):
        feed = {
            b.name: a[start : start + batch] for b, a in zip(artifact.inputs, inputs, strict=True)
        }
        found = session(feed)
        pieces.append([found[b.name] for b in artifact.outputs])
        progress((start + batch) / len(inputs[0]))
    outputs = tuple(np.concatenate([p[i] for p in pieces]) for i in range(len(artifact.outputs)))
    arrays.save(Path(request["outputs"]), outputs)
    return {}
