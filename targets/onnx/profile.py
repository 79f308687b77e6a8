"""Where ONNX Runtime's time goes, by its own profiler. Runs in a child process.

The runtime runs a graph that it made of the artifact's: a kernel carries the name of the node that
it came from, with endings of the runtime's own ("node_conv2d_3_token_12"), where it came from one.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemix.child import progress
from edgemix.errors import ToolError
from edgemix.extras import need
from edgemix.latency.board import machine
from edgemix.latency.board.runtimes import zeros
from edgemix.latency.profile import Node, Operator, Run, Told
from edgemix.latency.repeats import WARMUP, repetitions, unprofiled
from edgemix.targets.onnx.run import session
from edgemix.targets.onnx.sparse import dense

_KERNEL = "_kernel_time"
_RUN = "model_run"
_ENDINGS = re.compile(r"(_token_\d+|/.*|_nchwc|_fused.*|_transformed.*)$")


def profile(request: Mapping[str, Any]) -> dict[str, Any]:
    """Times of ``session.run`` on zeros; the answer is a Told as JSON."""
    model, threads = request["model"], request["threads"]
    alone = unprofiled(model, threads)
    runs = repetitions(request["runs"], alone)
    graph = need("onnx", extra="onnx").load(model, load_external_data=False).graph
    dense(graph)
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        runner = session(model, threads=threads, trace=Path(scratch) / "trace")
        feed = zeros(runner)
        with machine.pinned(threads, machine.busy_cores()):
            for i in range(WARMUP + runs):
                runner.run(None, feed)
                progress(i / (WARMUP + runs))
        trace = Path(runner.end_profiling()).read_text()
    operators, found = read(trace, runs, {node.name: i for i, node in enumerate(graph.node)})
    nodes = tuple(_nodes(graph))
    return asdict(Told("ONNX Runtime's profiler", operators, nodes, found, alone, floor_ms=1e-3))


def read(
    trace: str, runs: int, names: Mapping[str, int]
) -> tuple[tuple[Operator, ...], tuple[Run, ...]]:
    """The last runs in a trace.

    Args:
        trace: Chrome's trace format, as the runtime writes it.
        runs: how many.
        names: places of the artifact's nodes.

    Raises:
        ToolError: it is no such trace, or one that lacks runs.
    """
    try:
        events = [e for e in json.loads(trace) if e.get("ph") == "X"]
        found = list(_runs(sorted(events, key=lambda e: (e["ts"], -e["dur"]))))[-runs:]
        kinds = {k["name"]: k["args"]["op_name"] for _, kernels in found for k in kernels}
        told = []
        for whole, kernels in found:
            times = dict.fromkeys(kinds, 0.0)
            for kernel in kernels:
                times[kernel["name"]] += kernel["dur"] / 1e3
            told.append(Run(whole["dur"] / 1e3, tuple(times.values())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(
            f"ONNX Runtime's trace is damaged: {type(error).__name__}: {error}",
            do="report it with the version of onnxruntime",
        ) from error
    if len(found) < runs:
        raise ToolError(
            f"ONNX Runtime's trace holds {len(found)} of {runs} runs", do="ask for fewer: --runs"
        )
    calls = Counter(kernel["name"] for kernel in found[-1][1])
    operators = tuple(
        Operator(name, op, _node(name, names), calls[name + _KERNEL])
        for name, op in ((key.removesuffix(_KERNEL), op) for key, op in kinds.items())
    )
    return operators, tuple(told)


def _runs(events: Sequence[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Every run, and its kernels but for those inside of others: a loop's time is its body's."""
    wholes = [e for e in events if e["name"] == _RUN]
    kernels = iter([e for e in events if e["name"].endswith(_KERNEL)])
    kernel = next(kernels, None)
    for whole in wholes:
        inside, end = [], whole["ts"]
        while kernel is not None and kernel["ts"] <= whole["ts"] + whole["dur"]:
            if kernel["ts"] >= end:
                inside.append(kernel)
                end = kernel["ts"] + kernel["dur"]
            kernel = next(kernels, None)
        yield whole, inside


def _node(name: str, names: Mapping[str, int]) -> int | None:
    while name not in names:
        shorter = _ENDINGS.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return names[name]


_KEEP = frozenset({"DequantizeLinear", "Reshape", "Transpose", "Cast"})
"""What may lie between a weight and its reader."""


def _nodes(graph: Any) -> Iterator[Node]:
    makers = {name: node for node in graph.node for name in node.output}
    sizes: dict[str, int] = {t.name: math.prod(t.dims) for t in graph.initializer}

    def weights(name: str) -> int:
        while name in makers and makers[name].op_type in _KEEP:
            name = makers[name].input[0]
        return sizes.get(name, 0)

    for node in graph.node:
        linear = node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
        yield Node(node.op_type, weights(node.input[1]) if linear else 0)
