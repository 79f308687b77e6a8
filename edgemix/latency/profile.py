"""Where the time of an inference goes, operator by operator, measured.

A runtime's profiler tells what it ran in its own words. The artifact's nodes lie between those and
the program: a runtime fuses and renames the one, a converter the other. What is found again on
both ways gets its place in the model; of what is not, time and type are told, and no place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, TypeVar

from edgemix.errors import ToolError
from edgemix.latency.base import Latency
from edgemix.latency.units import duration

_A = TypeVar("_A")
_B = TypeVar("_B")


@dataclass(frozen=True)
class Operator:
    """One operator, as the runtime tells it."""

    name: str
    op: str
    node: int | None
    """Which of the artifact's nodes it runs, where that is known."""
    calls: int = 1
    """In one inference."""


@dataclass(frozen=True)
class Node:
    """One node of the artifact."""

    op: str
    weights: int = 0
    """Values of a linear operator's weight."""


@dataclass(frozen=True)
class Run:
    """One inference with the profiler on."""

    total_ms: float
    ms: tuple[float, ...]
    """Of every operator."""


@dataclass(frozen=True)
class Told:
    """What a runtime's profiler tells of a model."""

    method: str
    operators: tuple[Operator, ...]
    nodes: tuple[Node, ...]
    """Of the artifact, in its order."""
    runs: tuple[Run, ...]
    unprofiled: Latency
    """The same model without a profiler."""
    floor_ms: float
    """What the profiler rounds an operator's time down to multiples of."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Told:
        """What ``asdict`` made plain."""
        return cls(
            method=value["method"],
            operators=tuple(Operator(**o) for o in value["operators"]),
            nodes=tuple(Node(**n) for n in value["nodes"]),
            runs=tuple(Run(r["total_ms"], tuple(r["ms"])) for r in value["runs"]),
            unprofiled=Latency(**value["unprofiled"]),
            floor_ms=value["floor_ms"],
        )


@dataclass(frozen=True)
class Step:
    """One operator of the program."""

    node: str
    where: str
    """Path of the module, and the line of its source."""
    op: str
    weights: int = 0
    estimated: float | None = None
    """Its share of the estimated time."""


@dataclass(frozen=True)
class OperatorTime:
    """One operator's time."""

    name: str
    """What the runtime calls it."""
    op: str
    node: str
    """Of the program; empty where it is not known."""
    where: str
    """Path of the module and line of the source; empty where they are not known."""
    ms: float
    """In one inference."""
    calls: int
    share: float
    """Of the profiled time."""
    estimated: float | None = None
    """Share of the estimated time."""


@dataclass(frozen=True)
class TypeTime:
    """All operators of one type."""

    op: str
    count: int
    ms: float
    share: float
    estimated: float | None = None
    """Share of the estimated time of those that are known in the program."""


@dataclass(frozen=True)
class Profile:
    """Of one inference, the worst operator first."""

    artifact: str
    target: str
    method: str
    threads: int
    runs: int
    total_ms: float
    """Of an inference with the profiler on: operators and overhead."""
    overhead_ms: float
    """What no operator accounts for: the runtime between them, the profiler itself."""
    unprofiled_ms: float
    """Median without the profiler."""
    operators: tuple[OperatorTime, ...]
    types: tuple[TypeTime, ...]
    estimated_elsewhere: float | None = None
    """Share of the estimated time of operators that are in no operator above: fused, or moved."""
    estimate: str = ""
    """What the estimates are of."""
    notes: tuple[str, ...] = ()
    """What puts the shares in doubt."""
    environment: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["measured"] = "measured"

    @property
    def overhead(self) -> float:
        """As a share."""
        return self.overhead_ms / self.total_ms


_SLOWER = 1.5
"""Times the unprofiled time, from which on the profiler itself distorts what it shows."""
_BUSIER = 1.25
"""Times the profiled time, from which on the unprofiled one tells of something else."""
_ROUNDED = 0.05
"""Share of the time that may hide in the rounding without a word."""


def profile(
    told: Told, steps: Sequence[Step], *, artifact: str, target: str, estimate: str = ""
) -> Profile:
    """Times by operator, with their places in the program.

    Times are means over the middle half of the runs, by their totals: so interruptions stay out,
    and the parts still make up the whole.

    Args:
        told: what the runtime tells.
        steps: the program's operators in order; none where the program is not known.
        artifact: the model's path.
        target: its target's name.
        estimate: what the estimates in ``steps`` are of.

    Raises:
        ToolError: there is no run.
    """
    middle = _middle(told.runs)
    total = fmean(r.total_ms for r in middle)
    if total <= 0:
        raise ToolError(
            f"the profiler tells no time: {duration(told.unprofiled.p50_ms, 3)} are {_short(told)}",
            at=artifact,
            do="`edgemix measure` times the whole",
        )
    times = [fmean(column) for column in zip(*(r.ms for r in middle), strict=True)]
    ran = sorted({o.node for o in told.operators if o.node is not None})
    pairs = aligned([told.nodes[i] for i in ran], steps, _same)
    places = {ran[i]: at for i, at in pairs}
    operators = []
    for operator, ms in zip(told.operators, times, strict=True):
        at = None if operator.node is None else places.get(operator.node)
        step = None if at is None else steps[at]
        operators.append(
            OperatorTime(
                operator.name, operator.op, step.node if step else "", step.where if step else "",
                ms, operator.calls, ms / total, step.estimated if step else None,
            )
        )  # fmt: skip
    known = [o.estimated for o in operators if o.estimated is not None]
    asked = [s.estimated for s in steps if s.estimated is not None]
    return Profile(
        artifact=artifact,
        target=target,
        method=told.method,
        threads=told.unprofiled.threads,
        runs=len(told.runs),
        total_ms=total,
        overhead_ms=total - sum(times),
        unprofiled_ms=told.unprofiled.p50_ms,
        operators=tuple(sorted(operators, key=lambda o: -o.ms)),
        types=by_type(operators),
        estimated_elsewhere=sum(asked) - sum(known) if asked else None,
        estimate=estimate,
        notes=tuple(_notes(told, total, times.count(0.0))),
        environment=told.unprofiled.environment,
    )


def by_type(operators: Iterable[OperatorTime]) -> tuple[TypeTime, ...]:
    """Summed, the worst first."""
    grouped: dict[str, list[OperatorTime]] = {}
    for operator in operators:
        grouped.setdefault(operator.op, []).append(operator)
    found = []
    for op, all_of in grouped.items():
        known = [o.estimated for o in all_of if o.estimated is not None]
        found.append(
            TypeTime(
                op, sum(o.calls for o in all_of), sum(o.ms for o in all_of),
                sum(o.share for o in all_of), sum(known) if known else None,
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda t: -t.ms))


def aligned(
    left: Sequence[_A], right: Sequence[_B], fits: Callable[[_A, _B], bool]
) -> list[tuple[int, int]]:
    """The most pairs of places of items that fit, in the order of both: none crosses another."""
    best = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            paired = best[i + 1][j + 1] + 1 if fits(left[i], right[j]) else 0
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if fits(left[i], right[j]) and best[i][j] == best[i + 1][j + 1] + 1:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


_ALIASES = {
    "averagepool": "avgpool2d", "averagepool2d": "avgpool2d", "globalaveragepool": "mean",
    "adaptiveavgpool2d": "mean", "reducemean": "mean", "concat": "cat", "concatenation": "cat",
    "logistic": "sigmoid", "maxpool": "maxpool2d", "nhwcmaxpool": "maxpool2d", "bmm": "matmul",
    "batchmatmul": "matmul", "relu6": "hardtanh", "clip": "hardtanh", "clamp": "hardtanh",
    "layernormalization": "layernorm", "reducesum": "sum", "swish": "silu",
}  # fmt: skip
"""Spellings of one operation, among torch, ONNX and TFLite, all lower case letters and digits."""
_MOVES = frozenset(
    {
        "reshape", "view", "transpose", "permute", "select", "slice", "stridedslice", "gather",
        "squeeze", "unsqueeze", "expanddims", "pad", "constantpadnd", "clone", "expand", "split",
        "splitwithsizes", "unbind", "chunk", "cast",
    }
)  # fmt: skip
"""Converters add and drop them as they need: the same name tells nothing."""


def plain(op: str) -> str:
    """An operation's name, whoever spells it."""
    name = re.sub(r"[^a-z0-9]", "", op.lower())
    return _ALIASES.get(name, name)


def _same(node: Node, step: Step) -> bool:
    if node.weights or step.weights:
        return node.weights == step.weights
    name = plain(node.op)
    return name not in _MOVES and name == plain(step.op)


def _middle(runs: Sequence[Run]) -> Sequence[Run]:
    if not runs:
        raise ToolError("the profiler tells of no run")
    cut = len(runs) // 4
    return sorted(runs, key=lambda r: r.total_ms)[cut : len(runs) - cut]


def _short(told: Told) -> str:
    """Why a time is none."""
    if not told.floor_ms:
        return "too short for the profiler"
    return f"too short for a profiler that counts whole multiples of {told.floor_ms * 1e3:g} µs"


def _notes(told: Told, total: float, unseen: int) -> Iterable[str]:
    slower = total / told.unprofiled.p50_ms
    if slower > _SLOWER:
        yield (
            f"the profiler makes an inference {slower:.1f} times as slow: what it adds to every "
            "operator overstates the small ones"
        )
    if slower < 1 / _BUSIER:
        yield (
            f"an inference took {1 / slower:.1f} times as long without the profiler: other work "
            "was on the machine"
        )
    hidden = len(told.operators) * told.floor_ms
    if hidden > _ROUNDED * total:
        yield (
            f"the profiler rounds every operator down to multiples of {told.floor_ms * 1e3:g} µs: "
            f"up to {min(hidden / total, 1):.0%} of the time is theirs, and told as nobody's"
        )
    if unseen:
        yield (
            f"no time is seen of {unseen} of {len(told.operators)} operators: each is "
            f"{_short(told)}"
        )
