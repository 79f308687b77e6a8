"""The schema of ``report.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edgemix.errors import InputError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Frozen):
    """An input, output or state."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""


class HistoryStep(_Frozen):
    """One thing that was done to the program."""

    name: str
    options: dict[str, Any]
    seconds: float


class Model(_Frozen):
    """The program that everything was made from."""

    source: str
    licence: str
    digest: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    parameters: int
    macs: int
    float_bytes: int
    """Size of the weights in float32."""
    history: tuple[HistoryStep, ...]


class CalibrationData(_Frozen):
    """What data the ranges come from."""

    source: str
    samples: int
    shape: tuple[int, ...]
    sha256: str


class Evaluation(_Frozen):
    """The held-out data that every artifact was compared on."""

    source: str
    samples: int
    has_labels: bool
    float_accuracy: float | None
    program_accuracy: float | None
    program_sqnr_db: float | None
    """Quantized program against float program."""


class StateResult(_Frozen):
    """How far a quantized state strays from the float one over a long stream."""

    state: str
    bits: int
    steps: tuple[int, ...]
    error: tuple[float, ...]
    """Root mean square of the difference before each of ``steps``, as a share of the state's own
    until then."""
    bounded: bool


class Effect(_Frozen):
    """What one algorithm did to the outputs on calibration samples."""

    algorithm: str
    seconds: float
    sqnr_db: float | None
    """After it, against the float program; None: identical."""
    kept: bool
    """Whether its result was taken; it is not where it made the outputs worse."""


class Layer(_Frozen):
    """Quality of one value of the quantized program against the float program."""

    node: str
    module: str
    source: str
    op: str
    sqnr_db: float | None
    """None: no difference at all."""
    own_sqnr_db: float | None = None
    """Of its own rounding alone: what is missing to it was lost before."""
    clipped: float
    """Share of values at the end of the integer range."""
    encoding: str
    causes: tuple[str, ...] = ()
    """What probably happened, where the quality is poor."""


class File(_Frozen):
    """A file of an artifact."""

    path: str
    bytes: int
    sha256: str


class Width(_Frozen):
    """One width of the model that shrank."""

    name: str
    before: int
    after: int


class PrunedPoint(_Frozen):
    """A program on the curve from the whole model to the smallest."""

    asked: str
    chosen: bool
    macs: int
    parameters: int
    accuracy: float | None
    sqnr_db: float | None
    """Of its outputs against the whole model's; None: identical."""
    times_ms: dict[str, float]
    """Estimated, by device."""


class PruningResult(_Frozen):
    """What was cut out of the model before it was quantized."""

    asked: dict[str, Any]
    calibration: str
    samples: int
    evaluation: str
    widths: tuple[Width, ...]
    points: tuple[PrunedPoint, ...]
    blind: tuple[str, ...]
    """Operators that pruning does not see through."""


class FidelityResult(_Frozen):
    """An artifact against the program."""

    contract: str
    samples: int
    identical: float
    within: float
    worst_lsb: int | None
    worst_relative: float
    sqnr_db: float | None
    decisions_equal: float
    accuracy: float | None
    program_accuracy: float | None
    float_accuracy: float | None
    passed: bool
    why: str


class Precision(_Frozen):
    """The type in which an operator of the artifact really runs."""

    op: str
    name: str
    asked: str
    achieved: str
    kept: bool


class LatencyResult(_Frozen):
    """A time with its kind."""

    kind: Literal["measured", "simulated", "reported", "estimated"]
    device: str
    method: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    runs: int
    warmup: int
    threads: int
    environment: dict[str, str]


class EstimateResult(_Frozen):
    """A time on a device that is not here."""

    device: str
    latency: LatencyResult
    low_ms: float
    high_ms: float
    notes: tuple[str, ...] = ()


class ResourceResult(_Frozen):
    """What a design takes of an FPGA, and who counted."""

    method: str
    used: dict[str, int]
    available: dict[str, int]


class VerdictResult(_Frozen):
    """A gate."""

    gate: str
    target: str
    asked: str
    found: str
    passed: bool
    why: str
    remedy: str = ""
    """What would pass, by estimate."""


class TargetResult(_Frozen):
    """One artifact."""

    name: str
    title: str
    runtime: str
    main: str
    size: int
    """Bytes of what is shipped."""
    files: tuple[File, ...]
    toolchain: dict[str, str]
    facts: dict[str, Any]
    fidelity: FidelityResult | None
    """None: this machine has no runtime for it; the artifact was read back, not run."""
    precision: tuple[Precision, ...]
    latency: LatencyResult | None
    estimates: tuple[EstimateResult, ...] = ()
    """On the devices that were asked for and that run this target's artifacts."""
    resources: ResourceResult | None = None
    """None: no FPGA, or no budget asked for a count."""
    budget_ms: float | None
    verdicts: tuple[VerdictResult, ...]
    replay: str


class PruningReport(_Frozen):
    """Everything about a pruned program."""

    schema_version: Literal[1] = 1
    edgemix: str
    command: str
    model: Model
    pruning: PruningResult


class Report(_Frozen):
    """Everything about one deployment."""

    schema_version: Literal[1] = 1
    edgemix: str
    command: str
    model: Model
    recipe: dict[str, Any]
    calibration: CalibrationData | None = None
    """None: the model came quantized."""
    evaluation: Evaluation
    pruning: PruningResult | None = None
    """None: nothing was cut."""
    effects: tuple[Effect, ...] = ()
    """What the recipe's algorithms did, in their order."""
    layers: tuple[Layer, ...]
    states: tuple[StateResult, ...] = ()
    """Empty where the program carries none."""
    warnings: tuple[str, ...] = ()
    left_float: tuple[str, ...]
    targets: tuple[TargetResult, ...]
    environment: dict[str, str]
    passed: bool


def load(path: Path) -> Report:
    """Read and check a ``report.json``.

    Raises:
        InputError: missing, damaged, or not of this schema.
    """
    try:
        return Report.model_validate(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise InputError(f"there is no report {path}") from error
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"{path} is no report of this schema, or it is damaged: {first}"
        ) from error
