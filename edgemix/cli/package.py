"""``edgemix inspect MODEL.mlpackage``: what it takes and gives, and where it will run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ORDER = ("Neural Engine", "GPU", "CPU")
_SHOWN = 12


def facts(model: Path) -> dict[str, Any]:
    """What a package is, and where its operations are placed, as JSON."""
    from edgemix import child

    request = {"model": str(model)}
    return child.call("edgemix.targets.coreml.describe:describe", request, tool="coremltools")


def show(found: Mapping[str, Any]) -> None:
    """Print :func:`facts` for a person."""
    from edgemix.cli import console

    out = console.out
    console.say(found["name"], style="bold")
    for side in ("inputs", "outputs", "states"):
        for name, kind in found[side].items():
            out.print(f"  {side[:-1]} {name}: {kind}", markup=False, highlight=False)
    out.print(f"  loads on {found['system']} and later", highlight=False)
    listed = ", ".join(f"{n} {name}" for name, n in found["operations"].items())
    out.print(f"  operations: {listed}", highlight=False)
    plan = found["placement"]
    summary = plan["summary"]
    title = "Core ML's own plan" if plan["kind"] == "planned" else "Where it will run, expected"
    out.print(f"\n{title} ({plan['method']})", highlight=False)
    cost = summary["cost"]
    names = ("unit", "can take", "likely runs", *(("estimated work",) if cost else ()))
    rows = [
        (unit, f"{summary['takes'][unit]:.0%}", f"{summary['likely'][unit]:.0%}",
         *((f"{cost[unit]:.0%}",) if cost else ()))
        for unit in _ORDER
    ]  # fmt: skip
    out.print(console.plain_table(names, rows))
    out.print(f"{summary['switches']} switches between units", highlight=False)
    for o in summary["obstacles"][:_SHOWN]:
        text = (
            f"kept off the Neural Engine: {o['op']} × {len(o['names'])}, {o['why']} ({o['source']})"
        )
        console.say(text)
    for remark in plan["remarks"]:
        text = f"{remark['operations']} operations: {remark['why']} ({remark['source']})"
        console.say(text)
    for d in plan["differences"][:_SHOWN]:
        expected, planned = _units(d["expected"]), _units(d["planned"])
        text = f"{d['op']} {d['name']}: expected on {expected}, planned on {planned}"
        console.say(text)


def _units(units: list[str]) -> str:
    return ", ".join(units) or "no unit"
