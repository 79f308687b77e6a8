"""Where LiteRT's time goes, by its own profiler. Runs in a child process.

What XNNPACK takes over is not one block: it tells the time of each of its operators. It does so in
its own words and by its own count, which is why an operator is found again in the artifact by its
kind and its place between two nodes that the interpreter runs itself. A few stand for several nodes
(a pad in its convolution), or for none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from edgemix.child import progress
from edgemix.errors import InputError, ToolError
from edgemix.extras import need
from edgemix.latency.board import machine
from edgemix.latency.profile import Node, Operator, Run, Told, aligned, plain
from edgemix.latency.repeats import WARMUP, repetitions, unprofiled
from edgemix.targets.tflite.litert import BUILTIN, DELEGATED, Event, Profiled

_WHOLE = "Invoke"
_LINEAR = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_SPELLINGS = {
    "convolution": {"conv2d", "depthwiseconv2d"},
    "fullyconnected": {"fullyconnected", "conv2d"},
    "deconvolution": {"transposeconv"},
    "batchmatrixmultiply": {"matmul"},
    "subtract": {"sub"},
    "multiply": {"mul"},
    "divide": {"div"},
    "staticreshape": {"reshape", "squeeze", "expanddims"},
    "copy": {"reshape", "squeeze", "expanddims"},
    "slice": {"slice", "stridedslice"},
    "convert": {"quantize", "dequantize"},
    "clamp": {"relu", "hardtanh"},
    "concatenate": {"cat"},
    "maxpooling": {"maxpool2d"},
    "averagepooling": {"avgpool2d"},
    "globalaveragepooling": {"mean"},
    "constantpad": {"pad"},
    "reciprocalsquareroot": {"rsqrt"},
    "squareroot": {"sqrt"},
}
"""XNNPACK's words for TFLite's operators, where they differ."""


def profile(request: Mapping[str, Any]) -> dict[str, Any]:
    """Times of a run on zeros; the answer is a Told as JSON."""
    model, threads = request["model"], request["threads"]
    alone = unprofiled(model, threads)
    runs = repetitions(request["runs"], alone)
    runner = Profiled(model, threads)
    found = []
    with machine.pinned(threads, machine.busy_cores()):
        for i in range(WARMUP + runs):
            found.append(runner.run())
            progress(i / (WARMUP + runs))
    nodes = _nodes(model)
    operators, times = read(found[WARMUP:], nodes)
    method = "LiteRT's profiler, with XNNPACK's"
    return asdict(Told(method, operators, nodes, times, alone, floor_ms=1e-3))


def read(
    runs: Sequence[Sequence[Event]], nodes: Sequence[Node]
) -> tuple[tuple[Operator, ...], tuple[Run, ...]]:
    """The operators of all runs, and their times.

    Args:
        runs: the events of each.
        nodes: the artifact's, in order.

    Raises:
        InputError: the model has loops or branches.
        ToolError: runs differ, or tell no total.
    """
    found = [[e for e in run if e.type in (BUILTIN, DELEGATED)] for run in runs]
    wholes = [[e.us for e in run if e.tag == _WHOLE and e.type == 1] for run in runs]
    if any(e.graph for run in found for e in run if e.type == BUILTIN):
        raise InputError(
            "the model has loops or branches: LiteRT does not tell whose time is whose",
            do="see where it goes with edgemix measure on parts of it",
        )
    tags = {tuple(e.tag for e in run) for run in found}
    if len(tags) != 1 or any(len(w) != 1 for w in wholes):
        raise ToolError(
            f"LiteRT told {len(tags)} different lists of operators in {len(runs)} runs",
            do="report it with the version of ai-edge-litert",
        )
    operators = tuple(_operators(found[0], nodes))
    times = tuple(
        Run(whole / 1e3, tuple(e.us / 1e3 for e in run))
        for run, (whole,) in zip(found, wholes, strict=True)
    )
    return operators, times


def _operators(events: Sequence[Event], nodes: Sequence[Node]) -> Iterator[Operator]:
    """Each between the nodes before and after it that the interpreter runs itself."""
    edges = [-1, *(e.index for e in events if e.type == BUILTIN), len(nodes)]
    passed = 0
    for builtin, group in groupby(events, key=lambda e: e.type == BUILTIN):
        stretch = list(group)
        if builtin:
            passed += len(stretch)
            yield from (Operator(e.tag, nodes[e.index].op, e.index) for e in stretch)
            continue
        first = edges[passed] + 1
        between = [node.op for node in nodes[first : edges[passed + 1]]]
        places = dict(aligned([_word(e.tag) for e in stretch], between, _fits))
        for i, event in enumerate(stretch):
            node = first + places[i] if i in places else None
            op = _word(event.tag) if node is None else nodes[node].op
            yield Operator(event.tag, op, node)


def _word(tag: str) -> str:
    """``Convolution`` of ``Convolution (NHWC, QC8) IGEMM``."""
    return tag.partition(" (")[0]


def _fits(word: str, op: str) -> bool:
    name = plain(word)
    return plain(op) in _SPELLINGS.get(name, {name})


def _nodes(model: str) -> tuple[Node, ...]:
    litert = need("ai_edge_litert.interpreter", extra="tflite")
    resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    runner = litert.Interpreter(model, experimental_op_resolver_type=resolver)
    runner.allocate_tensors()
    sizes = {t["index"]: math.prod(t["shape"]) for t in runner.get_tensor_details()}
    return tuple(
        Node(op["op_name"], int(sizes[op["inputs"][1]]) if op["op_name"] in _LINEAR else 0)
        for op in runner._get_ops_details()
    )
