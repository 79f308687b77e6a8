"""Pruning: what of a model goes, and how that is chosen. Plain TOML."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)  # fmt: skip

from edgemix import files
from edgemix.errors import InputError
from edgemix.quantize.prune.choices import Importance, TokenMethod
from edgemix.quantize.prune.size import Counted
from edgemix.quantize.prune.sparse import Pattern

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[A-Za-zµ]*)")
_THOUSANDS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
MACS, PARAMETERS = "macs", "parameters"


@dataclass(frozen=True)
class Goal:
    """What is to shrink, and to what."""

    what: str
    """``macs``, ``parameters``, ``size``, ``lut`` and its like, or a device's name."""
    amount: float
    """A share of the whole model's, or a number of units."""
    unit: str
    """``%`` for a share."""

    @classmethod
    def parse(cls, text: str) -> Goal:
        """``50%``, ``macs=20M``, ``parameters=40%``, ``size=500kB``, ``iphone12=1.5ms``.

        Raises:
            InputError: none of these.
        """
        what, equals, amount = text.rpartition("=")
        found = _NUMBER.fullmatch(amount.strip())
        if found is None or (equals and not what.strip()):
            raise InputError(
                f"no pruning budget: {text}",
                do="write it like 50%, parameters=40%, size=500kB or iphone12=1.5ms",
            )
        value, unit = float(found[1]), found[2]
        if unit == "%":
            if not 0 < value <= 100:
                raise InputError(f"{text} leaves nothing, or more than there is", do="like 50%")
            value /= 100
        return cls(what.strip() or MACS, value, unit)

    @property
    def counted(self) -> Counted:
        """What the graph itself says of it: multiply-accumulates, or weights."""
        return "macs" if self.what == MACS else "parameters"

    def limit(self, whole: float) -> float:
        """The goal in units, for a model that has ``whole`` of them.

        Raises:
            InputError: counts with a unit that is none.
        """
        if self.unit == "%":
            return self.amount * whole
        if self.unit not in _THOUSANDS:
            raise InputError(
                f"{self.unit} is no unit of {self.what}", do="write it like 50%, 200k or 20M"
            )
        return self.amount * _THOUSANDS[self.unit]


def share(text: str) -> Goal:
    """A share of multiply-accumulates or parameters, below 100 %.

    Raises:
        InputError: it is none.
    """
    goal = Goal.parse(text)
    if goal.unit != "%" or goal.what not in (MACS, PARAMETERS) or goal.amount == 1:
        raise InputError(f"no share: {text}", do="write it like 75%, or parameters=60%")
    return goal


class Pruning(BaseModel):
    """``[pruning]``: what goes. Its fields are the options of ``edgemix prune``.

    Tokens go first, then branches, widths, ranks and single weights; then what is left is trained,
    where that is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    budget: str | None = None
    """What widths shrink for: a share of the multiply-accumulates, or ``KEY=AMOUNT``."""
    importance: Importance = "refit"
    heads: bool = False
    """Attention loses whole heads; else every head loses channels."""
    keep: list[str] = []
    """Patterns of module paths whose widths stay."""
    least: float = Field(default=0.1, gt=0, le=1)
    """Share of each width that stays."""
    multiple: int = Field(default=8, ge=1)
    """Widths stay multiples of this where they were, but for narrow ones: runtimes compute in
    vectors, and odd widths cost them what they save."""
    refit: bool = True
    """Fit the weights that stay to what the whole model computes."""
    finetune: int = Field(default=0, ge=0)
    """Epochs of distillation from the whole model after that."""
    tokens: str | None = None
    """Share of the multiply-accumulates to which fewer tokens bring attention models."""
    merging: TokenMethod = "tome"
    """How tokens go."""
    branches: int = Field(default=0, ge=0)
    """Residual branches that go as a whole."""
    factors: str | None = None
    """Share of the multiply-accumulates, or ``parameters=SHARE``, to which factors of low rank
    bring what widths leave."""
    sparse: str | None = None
    """``2:4``: two of each four weights stay; ``70%``: so many are zero."""
    curve: list[float] = [0.8, 0.65, 0.5, 0.35, 0.25]
    """Shares of the budget's quantity that the report shows besides the chosen one."""

    @field_validator("budget", "tokens", "factors", "sparse")
    @classmethod
    def _readable(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None:
            try:
                if info.field_name == "sparse":
                    Pattern.parse(text)
                elif info.field_name == "budget":
                    Goal.parse(text)
                else:
                    share(text)
            except InputError as error:
                raise ValueError(f"{error.what}; {error.do}") from error
        return text

    @property
    def before_and_after(self) -> bool:
        """Whether anything but widths goes, or what is left is trained."""
        return any((self.tokens, self.branches, self.factors, self.sparse, self.finetune))

    @property
    def anything(self) -> bool:
        """Whether it asks for anything."""
        return self.budget is not None or self.before_and_after

    @field_validator("curve")
    @classmethod
    def _shares(cls, curve: list[float]) -> list[float]:
        if any(not 0 < share < 1 for share in curve):
            raise ValueError("shares lie between 0 and 1")
        return sorted(set(curve), reverse=True)

    @classmethod
    def load(cls, text: str) -> Self:
        """A budget, or the path of a .toml file with these fields.

        Raises:
            InputError: no budget; no such file, unknown keys or values of another kind.
        """
        if not text.endswith(".toml"):
            Goal.parse(text)
            return cls(budget=text)
        try:
            return cls.model_validate(
                tomllib.loads(files.read_text(Path(text), do="give a TOML file"))
            )
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(
                f"{text}: {place}: {first['msg'].removeprefix('Value error, ')}",
                do=f"keys: {', '.join(cls.model_fields)}",
            ) from error
        except ValueError as error:
            raise InputError(f"{text} cannot be read: {error}", do="give a TOML file") from error
