"""Reports of Vivado HLS, Vitis HLS and Vivado, read by their headers.

Versions name the same column differently (``DSP48E``, ``DSP``): what is not understood is an error
that says where, never a zero.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemix.errors import InputError
from edgemix.latency.resources import Resources
from edgemix.targets.fpga.ascii_tables import AsciiTable, tables

_NAMES = {
    "BRAM_18K": "bram", "DSP48E": "dsp", "DSP": "dsp", "FF": "ff", "LUT": "lut", "URAM": "uram",
}  # fmt: skip
"""C synthesis' names of resources."""
_SITES = {
    "Slice LUTs": ("lut", 1), "CLB LUTs": ("lut", 1), "Slice Registers": ("ff", 1),
    "CLB Registers": ("ff", 1), "Registers": ("ff", 1), "DSPs": ("dsp", 1),
    "DSP Slices": ("dsp", 1), "Block RAM Tile": ("bram", 2), "URAM": ("uram", 1),
}  # fmt: skip
"""Vivado's site types; a tile of block RAM is two of 18 Kbit."""


@dataclass(frozen=True)
class Module:
    """One part of the design."""

    instance: str
    module: str
    latency: tuple[int, int] | None
    """Cycles, smallest and largest; None where the tool does not know."""
    interval: tuple[int, int] | None
    used: Mapping[str, int]


@dataclass(frozen=True)
class Synthesis:
    """What C synthesis reports of a design."""

    tool: str
    top: str
    part: str
    clock_ns: float
    """Asked for."""
    estimated_ns: float
    uncertainty_ns: float
    latency: tuple[int, int] | None
    """Cycles, smallest and largest; None where they depend on data."""
    interval: tuple[int, int] | None
    resources: Resources
    modules: tuple[Module, ...]

    @property
    def latency_ns(self) -> tuple[float, float] | None:
        """At the clock that was asked for, as the report's own times are."""
        if self.latency is None:
            return None
        return self.latency[0] * self.clock_ns, self.latency[1] * self.clock_ns

    @property
    def meets_clock(self) -> bool:
        """Whether the estimate leaves the uncertainty free."""
        return self.estimated_ns + self.uncertainty_ns <= self.clock_ns + 1e-9


@dataclass(frozen=True)
class Utilization:
    """What Vivado reports after logic synthesis or implementation."""

    design: str
    part: str
    state: str
    """``Synthesized``, ``Routed`` …"""
    resources: Resources


@dataclass(frozen=True)
class Cosimulation:
    """What RTL simulation of C synthesis' result found."""

    passed: bool
    latency: tuple[int, int]
    interval: tuple[int, int] | None


def read_csynth(path: Path) -> Synthesis:
    """A ``*_csynth.rpt`` or a ``*_csynth.xml`` (which has no modules).

    Raises:
        InputError: the file is no such report, is cut off, or has something not understood.
    """
    with _understood(path):
        text = path.read_text(errors="replace")
        return _from_xml(text) if path.suffix == ".xml" else _from_text(text)


def read_utilization(path: Path) -> Utilization:
    """A file of Vivado's ``report_utilization``.

    Raises:
        InputError: as :func:`read_csynth`.
    """
    with _understood(path):
        text = path.read_text(errors="replace")
        version = _field(text, r"^\| Tool Version\s*: Vivado v\.?(\S+)")
        state = _field(text, r"^\| Design State\s*: (.+?)\s*$")
        used: dict[str, int] = {}
        available: dict[str, int] = {}
        for table in tables(text):
            if {"Site Type", "Used", "Available"} <= set(table.columns):
                _sites(table, used, available)
        missing = {"lut", "ff", "dsp"} - used.keys()
        if missing:
            raise ValueError(f"it counts no {', '.join(sorted(missing))}")
        return Utilization(
            _field(text, r"^\| Design\s*: (\S+)"), _field(text, r"^\| Device\s*: (\S+)"), state,
            Resources(f"Vivado {version}, {state.lower()}", used, available),
        )  # fmt: skip


def read_cosim(path: Path) -> Cosimulation:
    """A ``*_cosim.rpt``.

    Raises:
        InputError: as :func:`read_csynth`, or nothing was simulated.
    """
    with _understood(path):
        for table in tables(path.read_text(errors="replace")):
            for row in table.dicts():
                status = row.get("Status", "NA")
                if status == "NA":
                    continue
                latency = _range(row, "Latency min", "Latency max")
                if latency is None:
                    raise ValueError("it has no latency")
                return Cosimulation(
                    status == "Pass", latency, _range(row, "Interval min", "Interval max")
                )
        raise ValueError("nothing was simulated")


class _understood:
    """Turns whatever a damaged report raises into one error with its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"there is no report {self.path}") from error
        if isinstance(error, (ValueError, KeyError, IndexError, ElementTree.ParseError, OSError)):
            what = f"nothing is called {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"the report {self.path} is not understood: {what}",
                do="give a report of Vivado HLS, Vitis HLS or Vivado that is complete",
            ) from error


def _from_text(text: str) -> Synthesis:
    tool, top = _title(text)
    found = {table.titles: table for table in tables(text)}
    timing = _only(found, "Performance Estimates", "Timing", "Summary").dicts()[0]
    speed = _only(found, "Performance Estimates", "Latency", "Summary").dicts()[0]
    area = _only(found, "Utilization Estimates", "Summary")
    clock, estimated, uncertainty = (
        _nanoseconds(timing[name]) for name in ("Target", "Estimated", "Uncertainty")
    )
    version = _field(text, r"^\* Version:\s*(\S+)")
    return Synthesis(
        f"{tool} {version}", top, _field(text, r"^\* Target device:\s*(\S+)"), clock, estimated,
        uncertainty, _range(speed, "Latency (cycles) min", "Latency (cycles) max"),
        _range(speed, "Interval min", "Interval max"),
        Resources(
            f"{tool} {version}, C synthesis", _row(area, "Total"), _row(area, "Available")
        ),
        tuple(_modules(found)),
    )  # fmt: skip


def _from_xml(text: str) -> Synthesis:
    root = ElementTree.fromstring(text)
    version = _text(root, "ReportVersion/Version")
    times = root.find("PerformanceEstimates/SummaryOfOverallLatency")
    if times is None:
        raise ValueError("it has no SummaryOfOverallLatency")
    given = {child.tag: (child.text or "").strip() for child in times}
    used, available = (
        {_NAMES[child.tag]: int(child.text or 0) for child in _children(root, name)}
        for name in ("AreaEstimates/Resources", "AreaEstimates/AvailableResources")
    )
    return Synthesis(
        f"HLS {version}", _text(root, "UserAssignments/TopModelName"),
        _text(root, "UserAssignments/Part"),
        float(_text(root, "UserAssignments/TargetClockPeriod")),
        float(_text(root, "PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")),
        float(_text(root, "UserAssignments/ClockUncertainty")),
        _range(given, "Best-caseLatency", "Worst-caseLatency"),
        _range(given, "Interval-min", "Interval-max"),
        Resources(f"HLS {version}, C synthesis", used, available), (),
    )  # fmt: skip


def _modules(found: Mapping[tuple[str, ...], AsciiTable]) -> Iterator[Module]:
    """Every instance, its times and its resources joined."""
    times = found.get(("Performance Estimates", "Latency", "Detail", "Instance"))
    areas = found.get(("Utilization Estimates", "Detail", "Instance"))
    speeds = {} if times is None else {row["Instance"]: row for row in times.dicts()}
    for row in [] if areas is None else areas.dicts():
        if row["Instance"] == "Total":
            continue
        speed = speeds.get(row["Instance"], {})
        used = {_NAMES[c]: _count(v) for c, v in row.items() if c not in ("Instance", "Module")}
        yield Module(
            row["Instance"], row["Module"],
            _range(speed, "Latency (cycles) min", "Latency (cycles) max") if speed else None,
            _range(speed, "Interval min", "Interval max") if speed else None, used,
        )  # fmt: skip


def _row(area: AsciiTable, name: str) -> dict[str, int]:
    columns = area.columns[1:]
    unknown = set(columns) - _NAMES.keys()
    if unknown:
        raise ValueError(f"a resource is called {', '.join(sorted(unknown))}")
    return {_NAMES[c]: _count(area.named(c)[name]) for c in columns}


def _sites(table: AsciiTable, used: dict[str, int], available: dict[str, int]) -> None:
    counts, there = table.named("Used"), table.named("Available")
    for site, count in counts.items():
        name, factor = _SITES.get(site.rstrip("*"), (None, 1))
        if name is not None:
            used[name] = round(float(count) * factor)
            available[name] = round(float(there[site]) * factor)


def _only(found: Mapping[tuple[str, ...], AsciiTable], *titles: str) -> AsciiTable:
    if titles not in found:
        raise ValueError(f"it has no table {' / '.join(titles)}")
    return found[titles]


def _title(text: str) -> tuple[str, str]:
    match = re.search(r"^== (Vivado HLS|Vitis HLS) Report for '(.+)'", text, re.MULTILINE)
    if match is None:
        raise ValueError("its title names neither Vivado HLS nor Vitis HLS")
    return match[1], match[2]


def _field(text: str, pattern: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no line matches {pattern}")
    return match[1]


def _children(root: ElementTree.Element, path: str) -> list[ElementTree.Element]:
    found = root.find(path)
    if found is None:
        raise ValueError(f"it has no {path}")
    return [child for child in found if child.tag != "unit"]


def _text(root: ElementTree.Element, path: str) -> str:
    found = root.findtext(path)
    if not found:
        raise ValueError(f"it has no {path}")
    return found.strip()


def _range(row: Mapping[str, str], low: str, high: str) -> tuple[int, int] | None:
    """Two counts; tools print ``?`` or ``undef`` where the count depends on data."""
    pair = row[low], row[high]
    if any(value in ("?", "undef", "-", "NA") for value in pair):
        return None
    return int(pair[0]), int(pair[1])


def _count(text: str) -> int:
    return 0 if text in ("-", "") else int(text.lstrip("~"))


def _nanoseconds(text: str) -> float:
    match = re.fullmatch(r"([0-9.]+) ?(ns|us|ps)", text)
    if match is None:
        raise ValueError(f"no time: {text}")
    return float(match[1]) * {"ns": 1.0, "us": 1e3, "ps": 1e-3}[match[2]]
