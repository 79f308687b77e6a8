"""What a design takes of an FPGA, and the budgets on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RESOURCES = ("lut", "ff", "dsp", "bram", "uram")
"""Look-up tables, flip-flops, DSP slices, block RAMs of 18 Kbit, UltraRAMs."""


@dataclass(frozen=True)
class Resources:
    """Counts, and who counted."""

    method: str
    """``Vivado HLS 2020.1, C synthesis``, ``Yosys 0.23, without place and route`` …"""
    used: Mapping[str, int]
    """By name of ``RESOURCES``; what a tool does not report is absent."""
    available: Mapping[str, int]
    """What the whole part has, alike."""

    def share(self, name: str) -> float | None:
        """Used of available, where both are known."""
        there = self.available.get(name)
        return self.used[name] / there if there and name in self.used else None
