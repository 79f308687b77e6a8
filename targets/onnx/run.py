"""An ONNX artifact in ONNX Runtime. Runs in a child process."""

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


def session(
    model: str, *, threads: int = 1, optimized: Path | None = None, trace: Path | None = None
) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: path of the model.
        threads: intra-op threads.
        optimized: where to write the graph that the runtime makes of the model.
        trace: how the names of files with every kernel's times start; None: no times.
    """
    runtime = need("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def machine(request: Mapping[str, Any]) -> Carried:
    """A stream through a model with states."""
    artifact = Artifact.from_json(request["artifact"])
    runner = session(request["model"])

    def call(tensors: Sequence[Any]) -> list[Any]:
        feed = {b.name: x for b, x in zip(artifact.takes, tensors, strict=True)}
        found: list[Any] = runner.run([b.name for b in artifact.gives], feed)
        return found

    return Carried(artifact, call)


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run all samples, one batch of the model's size at a time; of states, all sequences."""
    if request["artifact"]["states"]:
        return run_sequences(machine(request), request)
    runner = session(request["model"])
    inputs = arrays.read(Path(request["inputs"]))
    names = [i.name for i in runner.get_inputs()]
    batch = runner.get_inputs()[0].shape[0]
    pieces = []
    for start in range(0, len(inputs[0]), batch):
        feed = {
            n: np.ascontiguousarray(a[start : start + batch])
            for n, a in zip(names, inputs, strict=True)
        }
        pieces.append(runner.run(None, feed))
        progress((start + batch) / len(inputs[0]))
    outputs = tuple(np.concatenate([p[i] for p in pieces]) for i in range(len(pieces[0])))
    arrays.save(Path(request["outputs"]), outputs)
    return {}
