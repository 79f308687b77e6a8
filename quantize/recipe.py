"""Recipe: what is quantized, how finely, by which algorithms. Plain TOML, typed here.

A recipe file holds the fields of :class:`Recipe`, its rules as tables:

    name = "mine"
    algorithms = ["smooth", "bias"]
    [weights]
    granularity = "per_channel"
    symmetric = true
    [activations]
    observer = "mse"
    [[exceptions]]
    match = "stages.0.*"
    weights = 6
    [[exceptions]]
    op = "softmax"
    activations = 16
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from edgemix import files
from edgemix.errors import InputError
from edgemix.graph import Where
from edgemix.quantize.levels import Algorithm

Observer = Literal["minmax", "percentile", "mse", "entropy"]


class Rule(BaseModel):
    """How one kind of tensor (weights, activations) is quantized."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bits: int = Field(default=8, ge=2, le=16)
    granularity: Literal["per_tensor", "per_channel", "per_group"] = "per_tensor"
    group: int = Field(default=32, ge=2)
    """Input channels that share a scale, where the granularity is ``per_group``."""
    symmetric: bool = False
    """Zero point 0; only with power-of-two scales may a non-negative tensor start at zero."""
    scale: Literal["free", "power_of_two"] = "free"
    fraction: int | None = Field(default=None, ge=-16, le=24)
    """Bits right of the binary point, the same for all tensors; None: from their ranges."""
    observer: Observer = "minmax"
    """How a range is chosen from what calibration saw, see :mod:`edgemix.quantize.observers`."""
    percentile: float = Field(default=99.99, gt=50, le=100)
    """Share of values, in percent, that the ``percentile`` observer keeps inside the range."""
    sqnr_db: float | None = Field(default=None, gt=0)
    """Each tensor takes the fewest bits, up to 16, that keep this; ``bits`` are the fewest."""
    palette: bool = False
    """Of weights: 2**bits values that each tensor chooses for itself, in the place of a grid."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fraction is not None and self.scale != "power_of_two":
            raise ValueError('a fraction needs scale = "power_of_two"')
        if self.palette and (self.granularity != "per_tensor" or self.bits > 8):
            raise ValueError("a palette is one for each tensor, of 8 bits at most")
        return self

    def with_bits(self, bits: int | None) -> Rule:
        """The same rule in other bits; None leaves them."""
        return self if bits is None else self.model_copy(update={"bits": bits})


class LayerException(BaseModel):
    """Widths of their own for some nodes: all that match every selector that is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str | None = None
    """Module path or node name, as in a shell: ``stages.0.*``, ``?`` one character, ``[ab]``."""
    regex: str | None = None
    """Module path or node name, as a regular expression that fits all of it."""
    op: str | None = None
    """Operator as reports name it: ``softmax``, ``conv2d``."""
    weights: int | None = Field(default=None, ge=2, le=16)
    activations: int | None = Field(default=None, ge=2, le=16)
    operands: int | None = Field(default=None, ge=2, le=16)
    """Bits in which a product reads its operands."""
    leave_float: bool = False
    """Quantize neither the nodes' results nor their weights."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.match is None and self.regex is None and self.op is None:
            raise ValueError("give match, regex or op")
        if self.leave_float and not self.widths == (None, None, None):
            raise ValueError("leave_float contradicts a number of bits")
        if not self.leave_float and self.widths == (None, None, None):
            raise ValueError("it changes nothing: give bits, or leave_float")
        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise ValueError(f"{self.regex!r} is no regular expression: {error}") from error
        return self

    @property
    def widths(self) -> tuple[int | None, int | None, int | None]:
        """Bits of weights, activations and operands."""
        return self.weights, self.activations, self.operands

    @property
    def selectors(self) -> tuple[str | None, str | None, str | None]:
        """What it matches by."""
        return self.match, self.regex, self.op

    def selects(self, at: Where, op: str) -> bool:
        """Whether it is about this node."""
        names = (at.node, at.module or "")
        return (
            (self.match is None or any(fnmatchcase(name, self.match) for name in names))
            and (self.regex is None or any(re.fullmatch(self.regex, name) for name in names))
            and (self.op is None or self.op == op)
        )

    def __str__(self) -> str:
        named = zip(("match", "regex", "op"), self.selectors, strict=True)
        return ", ".join(f"{name} = {value!r}" for name, value in named if value is not None)


class Recipe(BaseModel):
    """What is quantized, how finely, and which composites are split into table-sized steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weights: Rule | None = Rule(symmetric=True, granularity="per_channel")
    """None (``false`` in TOML): they stay float."""
    activations: Rule | None = Rule()
    """For the result of every operator; None (``false`` in TOML): they stay float."""
    operands: Rule | None = None
    """For what convolutions and matrix products read, where that is in fewer bits than results
    travel in; None: as activations."""
    ends: int | None = Field(default=None, ge=2, le=16)
    """Bits of weights and operands of the first and the last linear operators, which most published
    figures keep at 8 (Li et al., "BRECQ", ICLR 2021, section 4); None: as the others."""
    states: Rule | None = None
    """For what a program with states adds up from step to step; None: as activations."""
    floats: Literal["float16", "float32"] = "float16"
    """In what Core ML computes whatever is float, and what lies between integers: its Neural Engine
    has 16 bits only. The other targets have 32."""
    borders: Literal["quantized", "float"] = "quantized"
    """Whether an artifact's inputs and outputs are integers, where the target has a choice."""
    algorithms: tuple[Algorithm, ...] = ()
    """What is done for quality; they run in the house's order, not in that given."""
    shift_leaks: float = Field(default=0.0, ge=0.0, lt=0.5)
    """A leak becomes the nearest power of two, a shift, where that changes it by at most this
    share. 0 leaves every leak as it is."""
    align_additions: float = Field(default=1.0, ge=1.0)
    """An addition's operands and result share one encoding where their ranges differ by at most
    this factor: the addition is then exact on every target. 1 turns it off."""
    split: tuple[Literal["softmax", "norm", "division", "resize"], ...] = ()
    """Composites that are split into elementary steps, each of them exact in fixed point."""
    divisor_bits: int | None = Field(default=None, ge=4, le=16)
    """Width of what is divided by (sums of exponentials, variances) and of its reciprocal, which
    span more octaves than activations do; None: as activations. A table has 2**bits entries."""
    budget: str | None = None
    """``size=60%``, ``latency=70%`` or ``lut=50%``, of what the widest of ``widths`` takes: layers
    get widths of their own that fit it; None: all have those above."""
    widths: tuple[int, ...] = (8, 6, 4)
    """Bits that layers may get under a budget."""
    fallback: Literal["none", "wide", "float"] = "none"
    """What happens to the few values that keep the outputs from ``keep_db``: nothing, sixteen bits,
    or float. They are listed in the report."""
    keep_db: float = Field(default=30.0, gt=0)
    """SQNR of the outputs that a fallback is for."""
    exceptions: tuple[LayerException, ...] = ()
    """Nodes with widths of their own; of several that match, the last one that says something
    about a width counts."""

    @field_validator("weights", "activations", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value is False else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: dict[object, LayerException] = {}
        for exception in self.exceptions:
            other = seen.setdefault(exception.selectors, exception)
            if other is not exception:
                raise ValueError(f"two exceptions for {exception} contradict each other")
        if not self.widths or not all(2 <= bits <= 16 for bits in self.widths):
            raise ValueError("widths are numbers of bits from 2 to 16, at least one")
        if self.activations is None and (self.operands or self.states or self.split):
            raise ValueError("without activations there are no operands, states or splits")
        if self.weights is None and self.activations is not None:
            raise ValueError("where values are quantized, weights are, too")
        if self.activations is not None and self.activations.granularity != "per_tensor":
            raise ValueError("activations have one scale per tensor")
        if any(rule is not None and rule.palette for rule in (self.activations, self.states)):
            raise ValueError("palettes are for weights")
        if self.weights is not None and self.weights.granularity == "per_group":
            if not self.weights.symmetric:
                raise ValueError("weights in groups are symmetric")
        return self

    def weight_rule(self, at: Where, op: str) -> Rule | None:
        """The rule for the grid of a node's weights; None: there is none."""
        rule = self._weights(at, op)
        return None if rule is None or rule.palette else rule

    def palette_bits(self, at: Where, op: str) -> int | None:
        """Bits of the palette of a node's weights; None: there is none."""
        rule = self._weights(at, op)
        return rule.bits if rule is not None and rule.palette else None

    def _weights(self, at: Where, op: str) -> Rule | None:
        if self.weights is None or self._float(at, op):
            return None
        return self.weights.with_bits(self._own(at, op, 0))

    def activation_rule(self, at: Where, op: str) -> Rule | None:
        """The rule for the result of a node; None leaves it in float."""
        if self.activations is None or self._float(at, op):
            return None
        return self.activations.with_bits(self._own(at, op, 1))

    def operand_rule(self, at: Where, op: str) -> Rule | None:
        """The rule for what a convolution or a matrix product reads; None: as it comes."""
        if self.activations is None or self._float(at, op):
            return None
        own = self._own(at, op, 2)
        if self.operands is None and own is None:
            return None
        return (self.operands or self.activations).with_bits(own)

    def state_rule(self, at: Where, op: str) -> Rule | None:
        """The rule for a node through which a state is added up."""
        if self.states is None or self._float(at, op):
            return self.activation_rule(at, op)
        return self.states.with_bits(self._own(at, op, 1))

    def check_exceptions(self, nodes: list[tuple[Where, str]]) -> None:
        """Refuse exceptions that are about none of a graph's nodes.

        Raises:
            InputError: the first exception that matches nothing, with what there is.
        """
        for exception in self.exceptions:
            if not any(exception.selects(at, op) for at, op in nodes):
                some = sorted({at.module for at, _ in nodes if at.module})[:6]
                ops = sorted({op for _, op in nodes})
                raise InputError(
                    f"the recipe {self.name}: no node matches {exception}",
                    do=f"modules are {', '.join(some)} …; operators {', '.join(ops)}",
                )

    def _float(self, at: Where, op: str) -> bool:
        return any(e.leave_float for e in self._exceptions(at, op))

    def _own(self, at: Where, op: str, which: int) -> int | None:
        found = (e.widths[which] for e in self._exceptions(at, op))
        return next((bits for bits in found if bits is not None), None)

    def _exceptions(self, at: Where, op: str) -> Iterator[LayerException]:
        return (e for e in reversed(self.exceptions) if e.selects(at, op))

    def in_bits(self, text: str) -> Recipe:
        """The same recipe with other widths where it quantizes: ``w4a8``.

        Raises:
            InputError: it is no such pair, or beyond 2 to 16 bits.
        """
        match = re.fullmatch(r"w(\d+)a(\d+)", text)
        widths = [int(bits) for bits in match.groups()] if match else []
        if not widths or not all(2 <= bits <= 16 for bits in widths):
            raise InputError(
                f"no widths of weights and activations: {text}",
                do="write them like w4a8, from 2 to 16 bits",
            )
        rules = (self.weights, self.activations)
        weights, activations = (
            None if rule is None else rule.with_bits(bits)
            for rule, bits in zip(rules, widths, strict=True)
        )
        changed = {"weights": weights, "activations": activations, "name": f"{self.name} {text}"}
        return type(self).model_validate(self.model_copy(update=changed).model_dump())

    @classmethod
    def load(cls, name_or_path: str) -> Recipe:
        """A recipe of the house by name (``int8``, ``fixed<8,3>``), or a TOML file by path.

        Raises:
            InputError: no such recipe, no TOML, or a field that is unknown or out of range.
        """
        path = Path(name_or_path)
        given = _FIXED.fullmatch(name_or_path)
        if name_or_path in names():
            text = (_folder() / f"{name_or_path}.toml").read_text()
        elif given is not None:
            text = (_folder() / "fixed8.toml").read_text()
        elif path.suffix == ".toml" and path.is_file():
            text = files.read_text(path, do="give a TOML file")
        else:
            raise InputError(
                f"there is no recipe {name_or_path}",
                do=f"use {', '.join(names())}, fixed<W,I>, or a .toml file",
            )
        try:
            fields = tomllib.loads(text)
            if given is not None:
                fields = _fixed(name_or_path, fields, int(given["bits"]), int(given["integer"]))
            return cls.model_validate(fields)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"the recipe {name_or_path} is not TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"the recipe {name_or_path}: {field + ': ' if field else ''}{first['msg']}"
            ) from error


_FIXED = re.compile(r"fixed<(?P<bits>\d+),(?P<integer>-?\d+)>")


def _fixed(name: str, fields: dict[str, Any], bits: int, integer: int) -> dict[str, Any]:
    """The eight-bit fixed point recipe with one ap_fixed<W,I> for every weight and activation."""
    one = {"bits": bits, "fraction": bits - integer}
    return {
        **fields,
        "name": name,
        "divisor_bits": None,
        "weights": {**fields["weights"], **one, "granularity": "per_tensor"},
        "activations": {**fields["activations"], **one},
    }


def names() -> list[str]:
    """Names of the recipes that come with edgemix."""
    return sorted(
        p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name[-5:] == ".toml"
    )


def _folder() -> resources.abc.Traversable:  # type: ignore[name-defined]
    return resources.files("edgemix.quantize") / "recipes"
