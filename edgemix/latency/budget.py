"""Budgets on the command line, and the verdict on them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgemix.errors import InputError
from edgemix.latency.base import Latency

_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "ns": 1e-6}


@dataclass(frozen=True)
class Budget:
    """The longest time that an inference on a target may take (its median)."""

    target: str
    limit_ms: float

    @classmethod
    def parse(cls, text: str, targets: tuple[str, ...]) -> Budget:
        """``onnx=2ms``: a target that is being built, a number, a unit (s, ms, us, ns).

        Raises:
            InputError: the text has another form, an unknown unit, or another target.
        """
        match = re.fullmatch(r"(\w+)=([0-9.]+(?:e-?\d+)?)\s*([a-zµ]*)", text)
        if match is None:
            raise InputError(f"no budget: {text}", do="write it like onnx=2ms")
        target, number, unit = match.groups()
        if unit not in _MS:
            raise InputError(
                f"the budget {text} has no unit that edgemix knows: {unit or 'none'}",
                do=f"use one of {', '.join(_MS)}",
            )
        if target not in targets:
            raise InputError(
                f"the budget {text} is for a target that is not being built: {target}",
                do=f"use one of {', '.join(targets)}",
            )
        try:
            limit = float(number) * _MS[unit]
        except ValueError as error:
            raise InputError(f"the budget {text} has no number: {number}") from error
        if limit <= 0:
            raise InputError(f"a budget must be positive: {text}")
        return cls(target, limit)


@dataclass(frozen=True)
class Verdict:
    """What was asked, what was found, and whether it passes."""

    gate: str
    """``budget``, ``fidelity``, ``precision`` or ``accuracy``."""
    target: str
    asked: str
    found: str
    passed: bool
    why: str = ""


def judge(budget: Budget, latency: Latency | None) -> Verdict:
    """A budget against a latency; a budget without a number to hold against it fails."""
    asked = f"≤ {budget.limit_ms:g} ms"
    if latency is None:
        return Verdict(
            "budget",
            budget.target,
            asked,
            "no latency",
            False,
            "this target gives no latency on this machine",
        )
    found = f"{latency.p50_ms:.4g} ms {latency.kind}"
    passed = latency.p50_ms <= budget.limit_ms
    why = "" if passed else f"{latency.p50_ms / budget.limit_ms:.2g} times the budget"
    return Verdict("budget", budget.target, asked, found, passed, why)
