"""What commands print: bars while they work, a table or JSON at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgemix.latency.units import duration

if TYPE_CHECKING:
    from edgemix.latency.budget import Verdict
    from edgemix.latency.resources import Resources
    from edgemix.measuring import Measured
    from edgemix.report.schema import PruningResult, Report, TargetResult, VerdictResult
    from edgemix.synthesis import Found

out = Console()
err = Console(stderr=True)


class Bars:
    """A listener that draws one line a step on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=err,
            disable=quiet,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, title: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """A bar for a step with a known total, a spinner for one without."""
        task = self._progress.add_task(title, total=total)
        yield lambda done: self._progress.update(task, completed=done)
        self._progress.update(task, total=total or 1.0, completed=total or 1.0)

    def say(self, line: str) -> None:
        """A line above the bars, which stays."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def say(line: str, style: str | None = None) -> None:
    """A line as it is, however long, on standard output."""
    out.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Machine-readable output, alone on standard output."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def print_report(report: Report) -> None:
    """The table of a deployment, what is not as asked for, and verdicts."""
    out.print(results_table(report))
    if report.effects:
        out.print(_effects(report))
    if any(layer.causes for layer in report.layers):
        out.print(_worst(report))
    if report.states:
        out.print(_states(report))
    if report.pruning is not None:
        say(_cut(report.pruning))
    for warning in report.warnings:
        say(f"note: {warning}", style="yellow")
    for target in report.targets:
        for found in target.estimates:
            span = f"{duration(found.low_ms, 3)} to {duration(found.high_ms, 3)}"
            time = f"{duration(found.latency.p50_ms, 3)} estimated on {found.latency.device}"
            told = "; ".join((f"{target.title}: {time} ({span})", *found.notes))
            say(told)
    for target in report.targets:
        for layer, note in target.facts.get("notes", {}).items():
            say(f"{target.title} {layer}: {note}")
    print_failures(report)


def _cut(pruning: PruningResult) -> str:
    whole, now = pruning.points[0], next(p for p in pruning.points if p.chosen)
    found = (
        f"pruned to {now.macs / whole.macs:.1%} of {whole.macs:,} multiply-accumulates and "
        f"{now.parameters / whole.parameters:.1%} of {whole.parameters:,} weights"
    )
    if now.accuracy is not None and whole.accuracy is not None:
        found += f": accuracy {whole.accuracy:.2%} → {now.accuracy:.2%} in float"
    return found


def results_table(report: Report) -> Table:
    """One row a target."""
    model = report.model
    title = f"{model.source}: {model.parameters:,} parameters, recipe {report.recipe['name']}"
    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("target", "size", "accuracy", "contract", "identical", "≤ 1 LSB", "worst", "p50"):
        words = name in ("target", "contract")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "contract")
    evaluation = report.evaluation
    if evaluation.float_accuracy is not None:
        table.add_row("float", _bytes(model.float_bytes), f"{evaluation.float_accuracy:.2%}")
        reached = f"{evaluation.program_accuracy:.2%}"
        table.add_row("program", "", reached, "the reference", end_section=True)
    for target in report.targets:
        table.add_row(*_row(target))
    return table


def plain_table(
    names: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)
) -> Table:
    """A table of text, no markup; columns other than in ``words`` are figures, on the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, name in enumerate(names):
        side: Literal["left", "right"] = "left" if i in words else "right"
        table.add_column(escape(name), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


_WORST = 6


def _effects(report: Report) -> Table:
    """One row an algorithm: what it did to the outputs."""
    rows = []
    for effect in report.effects:
        reached = "identical" if effect.sqnr_db is None else f"{effect.sqnr_db:.1f} dB"
        kept = "" if effect.kept else "not taken: no better"
        rows.append((effect.algorithm, reached, f"{effect.seconds:.1f}", kept))
    names = ("algorithm", "SQNR on calibration samples", "seconds", "")
    return plain_table(names, rows, words=(0, 3))


def _worst(report: Report) -> Table:
    """The poorest values first, with what happened."""
    poor = sorted(
        (layer for layer in report.layers if layer.causes), key=lambda layer: layer.sqnr_db or 0.0
    )
    rows = []
    for layer in poor[:_WORST]:
        own = "–" if layer.own_sqnr_db is None else f"{layer.own_sqnr_db:.1f} dB"
        where = f"{layer.op} {layer.module or layer.node}"
        rows.append((where, f"{layer.sqnr_db:.1f} dB", own, "; ".join(layer.causes)))
    return plain_table(("worst values", "SQNR", "its own", "what happened"), rows, words=(0, 3))


def _states(report: Report) -> Table:
    """One row a state: how far it strays from the float program's in a long stream."""
    steps = report.states[0].steps[-1]
    rows = []
    for s in report.states:
        shown = (s.error[0], s.error[-1], max(s.error))
        bounded = "bounded" if s.bounded else "grows"
        rows.append((s.state, str(s.bits), *(f"{e:.2%}" for e in shown), bounded))
    names = ("state", "bits", "error at first", f"at step {steps:,}", "largest", "")
    return plain_table(names, rows, words=(0, 5))


def print_synthesis(found: Found) -> None:
    """What synthesis found: times, counts against the part, the largest modules, verdicts."""
    kind = "" if found.latency is None else f" {found.latency.kind}"
    said = f" (the logic needs {found.estimated_ns:g} ns)" if found.estimated_ns else ""
    out.print(f"{found.part} at {found.clock_ns:g} ns{said}", markup=False, highlight=False)
    if found.cycles is not None:
        ns = " to ".join(f"{c * found.clock_ns:g}" for c in sorted(set(found.cycles)))
        cycles = " to ".join(str(c) for c in sorted(set(found.cycles)))
        out.print(f"latency {cycles} cycles, {ns} ns{kind}", markup=False, highlight=False)
    if found.interval is not None:
        every = " to ".join(str(c) for c in sorted(set(found.interval)))
        out.print(f"a sample every {every} cycles", markup=False, highlight=False)
    if found.counts:
        out.print(_counts(found))
    if found.modules:
        out.print(_modules(found))
    for v in found.verdicts:
        if v.passed:
            say(f"ok     {v.gate}: asked {v.asked}, found {v.found}")
    print_verdicts(found.verdicts)


def print_measured(found: Measured) -> None:
    """One row a way to run it, what the machine was, what puts the numbers in doubt, verdicts."""
    from edgemix.latency.samples import FLAGS, LEFT_OUT

    first = found.latencies[0]
    say(
        f"{found.model} on {first.device}, {first.threads} thread"
        f"{'s' if first.threads != 1 else ''}, {first.kind}"
    )
    rows = [
        (
            t.method, *(duration(ms) for ms in (t.p50_ms, t.p90_ms, t.p99_ms)),
            f"{t.runs:,}", t.environment.get(LEFT_OUT, "–").partition(",")[0],
        )
        for t in found.latencies
    ]  # fmt: skip
    out.print(plain_table(("", "p50", "p90", "p99", "runs", "left out"), rows))
    for t in found.latencies:
        for name, value in sorted(t.environment.items(), key=lambda item: item[0] in FLAGS):
            shared = all(other.environment.get(name) == value for other in found.latencies)
            if name == LEFT_OUT or (shared and t is not first):
                continue
            said = f"{name}: {value}" if shared else f"{t.method}: {name}: {value}"
            flagged = name in FLAGS
            say(f"note: {said}" if flagged else said, style="yellow" if flagged else None)
    print_verdicts(found.verdicts)


def _counts(found: Found) -> Table:
    """One row a resource, one column a count."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("", "available", *(count.method for count in found.counts)):
        table.add_column(name, justify="right" if name else "left")
    for name in dict.fromkeys(name for c in found.counts for name in c.used):
        there = max(c.available.get(name, 0) for c in found.counts)
        table.add_row(
            name.upper(), f"{there:,}" if there else "–", *(_used(c, name) for c in found.counts)
        )
    return table


def _used(count: Resources, name: str) -> str:
    if name not in count.used:
        return "–"
    share = count.share(name)
    return f"{count.used[name]:,}" + ("" if share is None else f" ({share:.1%})")


def _modules(found: Found) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("module", "cycles", "interval", "LUT", "FF", "DSP", "BRAM"):
        table.add_column(name, justify="left" if name == "module" else "right")
    for m in sorted(found.modules, key=lambda m: -m.used.get("lut", 0)):
        times = [("–" if pair is None else str(pair[1])) for pair in (m.latency, m.interval)]
        cells = [f"{m.used.get(name, 0):,}" for name in ("lut", "ff", "dsp", "bram")]
        table.add_row(m.instance, *times, *cells)
    return table


def print_verdicts(verdicts: tuple[VerdictResult, ...] | tuple[Verdict, ...]) -> None:
    """One line a gate that failed; a gate that passed says nothing."""
    for v in verdicts:
        if not v.passed:
            say(
                f"FAILED {v.target} {v.gate}: asked {v.asked}, found {v.found}; {v.why}",
                style="bold red",
            )


def print_failures(report: Report) -> None:
    """A table of the gates that failed and by how much, and what would pass."""
    failed = [v for target in report.targets for v in target.verdicts if not v.passed]
    if not failed:
        return
    rows = [(v.target, v.gate, v.asked, v.found, v.why) for v in failed]
    names = ("FAILED", "gate", "asked", "found", "by how much")
    out.print(plain_table(names, rows, range(5)), style="red")
    for v in failed:
        if v.remedy:
            say(f"{v.target}, {v.asked}: {v.remedy}")


def _row(target: TargetResult) -> list[str]:
    f, t = target.fidelity, target.latency
    if f is None:
        shown = ["–", "read back only", "–", "–", "–"]
    else:
        accuracy = "–" if f.accuracy is None else f"{f.accuracy:.2%}"
        worst = "–" if f.worst_lsb is None else f"{f.worst_lsb} LSB"
        contract = f"{f.contract}{'' if f.passed else ' ✗'}"
        shown = [accuracy, contract, f"{f.identical:.2%}", f"{f.within:.2%}", worst]
    latency = "–" if t is None else f"{duration(t.p50_ms, 3)} {t.kind}"
    return [target.title, _bytes(target.size), *shown, latency]


def _bytes(count: int) -> str:
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
