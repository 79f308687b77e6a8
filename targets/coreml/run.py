"""A Core ML package run: by Core ML on macOS, elsewhere by the evaluator. In a child process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgemix.child import progress
from edgemix.extras import need
from edgemix.targets import arrays
from edgemix.targets.base import Artifact
from edgemix.targets.coreml.evaluate import Evaluator
from edgemix.targets.coreml.package import open_package
from edgemix.targets.coreml.shipping import Image
from edgemix.targets.steps import Carried, run_sequences

Predict = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From arrays by the names of inputs to arrays by the names of outputs."""


def predictor(model: Path) -> Predict:
    """What runs a package on this machine."""
    return _core_ml(model) if sys.platform == "darwin" else _evaluator(model)


def machine(request: Mapping[str, Any]) -> Carried:
    """A stream through a package that takes its states and gives the next."""
    artifact = Artifact.from_json(request["artifact"])
    predict = predictor(Path(request["model"]))

    def call(tensors: Sequence[Any]) -> list[Any]:
        found = predict({b.name: x for b, x in zip(artifact.takes, tensors, strict=True)})
        return [np.asarray(found[b.name], np.float32) for b in artifact.gives]

    return Carried(artifact, call)


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Predict all samples, one batch of the model's size at a time; of states, all sequences."""
    if request["artifact"]["states"]:
        return run_sequences(machine(request), request)
    artifact = Artifact.from_json(request["artifact"])
    predict = predictor(Path(request["model"]))
    inputs = arrays.read(Path(request["inputs"]))
    if "image" in artifact.facts:
        image = Image(**artifact.facts["image"])
        inputs = tuple(image.pixels(x).astype(np.float32) for x in inputs)
    sizes = artifact.facts.get("batches") or [artifact.inputs[0].spec.shape[0]]
    pieces, start = [], 0
    while start < len(inputs[0]):
        # The largest that still fits: the last samples go through the smaller ones.
        batch = max((n for n in sizes if n <= len(inputs[0]) - start), default=min(sizes))
        feed = {
            b.name: a[start : start + batch] for b, a in zip(artifact.inputs, inputs, strict=True)
        }
        found = predict(feed)
        pieces.append([np.asarray(found[b.name], np.float32) for b in artifact.outputs])
        start += batch
        progress(min(start / len(inputs[0]), 1.0))
    outputs = tuple(np.concatenate([p[i] for p in pieces]) for i in range(len(artifact.outputs)))
    arrays.save(Path(request["outputs"]), outputs)
    return {}


def _core_ml(model: Path) -> Predict:
    ct = need("coremltools", extra="coreml")
    loaded = ct.models.MLModel(str(model), compute_units=ct.ComputeUnit.ALL)

    pictures = {i.name for i in loaded.get_spec().description.input if i.type.HasField("imageType")}

    def predict(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        given = {n: picture(x) if n in pictures else x for n, x in feed.items()}
        found: Mapping[str, Any] = loaded.predict(given)
        return found

    return predict


def picture(pixels: npt.NDArray[np.float32]) -> Any:
    """Pixels [1, channels, height, width] as the image that Core ML takes."""
    images = need("PIL.Image", extra="coreml")
    planes = pixels[0].astype(np.uint8)
    return images.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))


def _evaluator(model: Path) -> Predict:
    loaded = Evaluator.load(open_package(model))

    def predict(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        tensors = {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in feed.items()}
        found = loaded.run(tensors)
        return {n: v.float().numpy() for n, v in found.items() if isinstance(v, torch.Tensor)}

    return predict
