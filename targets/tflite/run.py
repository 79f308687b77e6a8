"""A TFLite artifact in LiteRT. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgemix.child import progress
from edgemix.extras import need
from edgemix.targets import arrays
from edgemix.targets.base import Artifact, Binding


def interpreter(model: str, *, threads: int = 1) -> Any:
    """A LiteRT interpreter with its default kernels, tensors allocated."""
    litert = need("ai_edge_litert.interpreter", extra="tflite")
    runner = litert.Interpreter(model, num_threads=threads)
    runner.allocate_tensors()
    return runner


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run all samples, one batch of the model's size at a time."""
    artifact = Artifact.from_json(request["artifact"])
    runner = interpreter(request["model"]).get_signature_runner(artifact.facts["signature"])
    inputs = arrays.read(Path(request["inputs"]))
    fed = [_encode(a, b) for a, b in zip(inputs, artifact.inputs, strict=True)]
    batch = artifact.inputs[0].spec.shape[0]
    pieces = []
    for start in range(0, len(fed[0]), batch):
        feed = {b.name: x[start : start + batch] for b, x in zip(artifact.inputs, fed, strict=True)}
        found = runner(**feed)
        pieces.append([found[b.name] for b in artifact.outputs])
        progress((start + batch) / len(fed[0]))
    outputs = tuple(
        _decode(np.concatenate([p[i] for p in pieces]), b) for i, b in enumerate(artifact.outputs)
    )
    arrays.save(Path(request["outputs"]), outputs)
    return {}


def _encode(x: npt.NDArray[np.float32], binding: Binding) -> npt.NDArray[Any]:
    if binding.encoding is None:
        return x
    return binding.encoding.quantize(torch.from_numpy(np.ascontiguousarray(x))).numpy()


def _decode(q: npt.NDArray[Any], binding: Binding) -> npt.NDArray[np.float32]:
    if binding.encoding is None:
        return q.astype(np.float32)
    return binding.encoding.dequantize(torch.from_numpy(q)).numpy()
