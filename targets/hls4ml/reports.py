"""The reports of a project's synthesis, found in a folder, and checked to be this project's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgemix.errors import InputError
from edgemix.targets.fpga import parts
from edgemix.targets.fpga.reports import (
    Cosimulation,
    Synthesis,
    Utilization,
    read_cosim,
    read_csynth,
    read_utilization,
)
from edgemix.targets.hls4ml.project import NAME

_CONFIG = re.compile(r"config(\d+)(?!\d)")
_CLOCK_TOLERANCE_NS = 0.006
"""Reports print two digits."""


@dataclass(frozen=True)
class Reports:
    """What a folder of reports says about one project."""

    synthesis: Synthesis
    utilization: Utilization | None
    cosimulation: Cosimulation | None
    files: tuple[Path, ...]


def collect(folder: Path, project: Path, part: str, clock_ns: float) -> Reports:
    """Read every report in a folder and below.

    Args:
        folder: a run's project folder, or wherever its reports were copied.
        project: the project as it was lowered.
        part: the part that it was lowered for.
        clock_ns: and the clock.

    Raises:
        InputError: there is none of C synthesis, one is not understood, or they are another
            project's.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    paths = sorted(p for p in folder.rglob("*") if p.suffix in (".rpt", ".xml") and p.is_file())
    syntheses = {p: read_csynth(p) for p in paths if _is_csynth(p)}
    ours = {p: s for p, s in syntheses.items() if s.top == NAME}
    if not ours:
        others = ", ".join(sorted({s.top for s in syntheses.values()}))
        seen = f"it has those of {others}: another project" if others else "it has none"
        raise InputError(
            f"{folder} holds no report of C synthesis for {NAME}; {seen}",
            do=f"name the folder with {NAME}_csynth.rpt, like {NAME}_prj/solution1/syn/report",
        )
    # The text has the modules, the XML does not.
    path = min(ours, key=lambda p: (p.suffix == ".xml", len(p.parts)))
    utilizations = {p: read_utilization(p) for p in paths if _is_utilization(p)}
    simulations = [p for p in paths if p.name == f"{NAME}_cosim.rpt"]
    found = Reports(
        ours[path], next(iter(utilizations.values()), None),
        read_cosim(simulations[0]) if simulations else None,
        (path, *list(utilizations)[:1], *simulations[:1]),
    )  # fmt: skip
    _check(found, project, part, clock_ns)
    return found


def _is_csynth(path: Path) -> bool:
    return path.stem.endswith("_csynth") and path.stem != "_csynth"


def _is_utilization(path: Path) -> bool:
    with path.open(errors="replace") as file:
        return path.suffix == ".rpt" and "report_utilization" in file.read(2000)


def _check(found: Reports, project: Path, part: str, clock_ns: float) -> None:
    differences = []
    synthesis = found.synthesis
    if not parts.same(synthesis.part, part):
        differences.append(f"for the part {synthesis.part}, the project is for {part}")
    if abs(synthesis.clock_ns - clock_ns) > _CLOCK_TOLERANCE_NS:
        differences.append(f"at {synthesis.clock_ns:g} ns, the project is for {clock_ns:g} ns")
    known = set(_CONFIG.findall((project / "firmware" / f"{NAME}.cpp").read_text()))
    named = {number for m in synthesis.modules for number in _CONFIG.findall(m.module)}
    if not named <= known:
        missing = ", ".join(f"config{n}" for n in sorted(named - known, key=int))
        differences.append(f"with layers that the project has not ({missing})")
    other = found.utilization
    if other is not None and (other.design != NAME or not parts.same(other.part, part)):
        differences.append(f"with logic synthesis of {other.design} on {other.part}")
    if differences:
        raise InputError(
            f"these are the reports of another project: {'; '.join(differences)}",
            do="give the reports of the run of this very project",
        )
