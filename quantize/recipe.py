"""Recipe: what is quantized, how finely, from which ranges. Plain TOML, typed here.

A recipe file holds the fields of :class:`Recipe`, its two rules as tables:

    name = "int8"
    align_additions = 4.0
    [weights]
    granularity = "per_channel"
    symmetric = true
    [activations]
    observer = "mse"
    [[exceptions]]
    match = "stages.0.*"
    weights = 6
"""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemix.errors import InputError
from edgemix.graph import Where


class Rule(BaseModel):
    """How one kind of tensor (weights, activations) is quantized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: int = Field(default=8, ge=2, le=16)
    granularity: Literal["per_tensor", "per_channel"] = "per_tensor"
    symmetric: bool = False
    """Zero point 0; only with power-of-two scales may a non-negative tensor start at zero."""
    scale: Literal["free", "power_of_two"] = "free"
    observer: Literal["minmax", "percentile", "mse"] = "minmax"
    """How a range is chosen from what calibration saw, see :mod:`edgemix.quantize.observers`."""
    percentile: float = Field(default=99.99, gt=50, le=100)
    """Share of values, in percent, that the ``percentile`` observer keeps inside the range."""


class LayerException(BaseModel):
    """Widths for the layers whose module path or node name a pattern matches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str
    """``stages.0.*`` as in a shell: ``*`` any characters, ``?`` one, ``[ab]`` one of them."""
    weights: int | None = Field(default=None, ge=2, le=16)
    activations: int | None = Field(default=None, ge=2, le=16)


class Recipe(BaseModel):
    """What is quantized, how finely, and which composites are split into table-sized steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weights: Rule = Rule(symmetric=True, granularity="per_channel")
    activations: Rule = Rule()
    states: Rule | None = None
    """For what a program with states adds up from step to step; None: as activations."""
    shift_leaks: float = Field(default=0.0, ge=0.0, lt=0.5)
    """A leak becomes the nearest power of two, a shift, where that changes it by at most this
    share. 0 leaves every leak as it is."""
    align_additions: float = Field(default=1.0, ge=1.0)
    """An addition's operands and result share one encoding where their ranges differ by at most
    this factor: the addition is then exact on every target. 1 turns it off."""
    split: tuple[Literal["softmax", "norm", "division"], ...] = ()
    """Composites that are split into elementary steps, each of them exact in fixed point."""
    divisor_bits: int | None = Field(default=None, ge=4, le=16)
    """Width of what is divided by (sums of exponentials, variances) and of its reciprocal, which
    span more octaves than activations do; None: as activations. A table has 2**bits entries."""
    exceptions: tuple[LayerException, ...] = ()
    """Layers with widths of their own; of several that match, the last one counts."""

    def weight_rule(self, at: Where) -> Rule:
        """The rule for the weights of a node."""
        bits = next((e.weights for e in self._exceptions(at) if e.weights), self.weights.bits)
        return self.weights.model_copy(update={"bits": bits})

    def activation_rule(self, at: Where) -> Rule:
        """The rule for the result of a node."""
        own = next((e.activations for e in self._exceptions(at) if e.activations), None)
        return self.activations.model_copy(update={"bits": own or self.activations.bits})

    def state_rule(self, at: Where) -> Rule:
        """The rule for a node through which a state is added up."""
        if self.states is None:
            return self.activation_rule(at)
        own = next((e.activations for e in self._exceptions(at) if e.activations), None)
        return self.states.model_copy(update={"bits": own or self.states.bits})

    def _exceptions(self, at: Where) -> list[LayerException]:
        names = (at.node, at.module or "")
        return [e for e in reversed(self.exceptions) if any(fnmatchcase(n, e.match) for n in names)]

    @classmethod
    def load(cls, name_or_path: str) -> Recipe:
        """A recipe of the house by name (``int8``, ``fixed8``), or a TOML file by path.

        Raises:
            InputError: no such recipe, no TOML, or a field that is unknown or out of range.
        """
        path = Path(name_or_path)
        if name_or_path in names():
            text = (_folder() / f"{name_or_path}.toml").read_text()
        elif path.suffix == ".toml" and path.is_file():
            text = path.read_text()
        else:
            raise InputError(
                f"there is no recipe {name_or_path}",
                do=f"use {', '.join(names())}, or a .toml file",
            )
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"the recipe {name_or_path} is not TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InputError(f"the recipe {name_or_path}: {field}: {first['msg']}") from error


def names() -> list[str]:
    """Names of the recipes that come with edgemix."""
    return sorted(
        p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name[-5:] == ".toml"
    )


def _folder() -> resources.abc.Traversable:  # type: ignore[name-defined]
    return resources.files("edgemix.quantize") / "recipes"
