"""Latency: a value with a unit, a device, a method and a kind. No number without a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["measured", "simulated", "reported", "estimated"]


@dataclass(frozen=True)
class Latency:
    """Time of one inference (one batch of the program's size)."""

    kind: Kind
    """``measured`` on that device, ``simulated`` cycle by cycle, ``reported`` by a vendor's
    synthesis, or ``estimated`` by a model with an error bar."""
    device: str
    method: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    runs: int
    warmup: int
    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)
