"""The tables of ``deploy.toml``."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgemix.quantize.levels import Quality
from edgemix.quantize.prune.recipe import Pruning
from edgemix.targets.fpga.hardware import Backend, Interface, Strategy


class Table(BaseModel):
    """A table with known keys only."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Model(Table):
    """``[model]``: what is deployed."""

    source: str
    step: bool = False
    chunk: int | None = Field(default=None, ge=1)
    unroll: bool = False
    stream: int = Field(default=1000, ge=2)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.unroll and (self.step or self.chunk is not None):
            raise ValueError("unroll and step ask for different programs")
        return self


class Data(Table):
    """``[data]``: what ranges come from, and what artifacts are proven on."""

    calibrate: str | None = None
    evaluate: str | None = None
    """None: calibration's."""
    samples: int = Field(default=512, ge=1)
    evaluate_samples: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.calibrate is None and self.evaluate is None:
            raise ValueError("there is no data: give calibrate, or evaluate")
        return self


class Recipe(Table):
    """``[recipe]``: how it is quantized."""

    name: str | None = None
    file: str | None = None
    quality: Quality | None = None
    bits: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.name is not None and self.file is not None:
            raise ValueError("give a name or a file, not both")
        return self


class Hardware(Table):
    """``[hardware]``: for FPGA targets."""

    part: str | None = None
    clock: str | None = None
    backend: Backend | None = None
    io: Interface | None = None
    reuse: int | None = Field(default=None, ge=1)
    strategy: Strategy | None = None
    layers: list[str] = []


class CoreML(Table):
    """``[coreml]``: what apps see of a package."""

    image: str | None = None
    batches: list[int] = []
    shapes: list[str] = []
    author: str = ""
    license: str = ""
    labels: str | None = None


class Variant(Table):
    """``[[search.variants]]``: another model for the same data."""

    source: str
    name: str | None = None
    """As tables and pages show it; None: the source."""


class Search(Table):
    """``[search]``: what may vary, and for how long."""

    trials: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0)
    timeout: float | None = Field(default=None, gt=0)
    """Seconds after which no trial starts."""
    limit: float = Field(default=3600.0, gt=0)
    """Seconds for a trial."""
    recipes: list[str] = Field(default=[], min_length=1)
    quality: list[Quality | Literal["none"]] = Field(default=[], min_length=1)
    bits: list[str] = Field(default=[], min_length=1)
    variants: list[Variant] = Field(default=[], min_length=1)
    pruning: list[str] = Field(default=[], min_length=1)
    """Budgets like ``50%``, or ``none``."""
    objectives: list[str] = Field(default=[], min_length=1)
    """Of ``loss``, ``size``, targets and devices; none given: all that there are."""


class File(Table):
    """The whole file."""

    out: str | None = None
    targets: list[str] = ["onnx", "tflite", "coreml"]
    devices: list[str] = []
    threads: int = Field(default=1, ge=1)
    model: Model
    data: Data
    recipe: Recipe = Recipe()
    pruning: Pruning | None = None
    hardware: Hardware = Hardware()
    coreml: CoreML = CoreML()
    budget: dict[str, Any] = {}
    """By target, device or what is counted; ``max_drop`` in points; ``contract`` by target."""
    search: Search | None = None
