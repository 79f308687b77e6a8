"""``edgemix profile``: where the time of an inference goes, operator by operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgemix.latency.profile import Profile

_WORST = 15
"""Operators that the table lists; --json and --html have all."""


def profile(
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|MODEL",
            help="The folder of one target, like out/tflite; or an .onnx or .tflite.",
        ),
    ],
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="Inferences; default: what takes three seconds, 12 to 200."),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--device", help="Show what is estimated of this one beside it: see `edgemix devices`."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with a chart, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Measure on this machine where an artifact's time goes, operator by operator.

    Of ONNX and TFLite, by the profilers of their runtimes; says what these add to the time.

    Exit code 0: measured; 2: the input cannot be used.
    """
    from dataclasses import asdict

    from edgemix import files, profiling
    from edgemix.cli import console
    from edgemix.errors import InputError

    if html is not None and not html.parent.is_dir():
        raise InputError(f"there is no folder {html.parent}", do="make it, or name another file")
    if html is not None and html.is_dir():
        raise InputError(f"the page {html} is a folder", do="name a file")
    asked = profiling.Asked(artifact, threads, runs, on)
    with console.Bars(quiet=as_json) as bars, bars.step(f"profile {artifact}", 1.0) as done:
        found = profiling.run(asked, done)
    if html is not None:
        from edgemix.report.html import render_profile

        files.write_bytes(html, render_profile(found).encode())
    if as_json:
        console.print_json(asdict(found))
    else:
        _print(found)


def _print(found: Profile) -> None:
    from edgemix.cli import console
    from edgemix.latency.samples import FLAGS
    from edgemix.latency.units import duration

    console.say(
        f"{found.artifact} on this host, {found.threads} thread"
        f"{'s' if found.threads != 1 else ''}, {found.kind} by {found.method} in {found.runs} runs"
    )
    beside = bool(found.estimate)
    rows = [
        (
            o.where or "–", o.op, o.name, duration(o.ms, 3),
            f"{o.share:.1%}", *([_percent(o.estimated)] if beside else []),
        )
        for o in found.operators[:_WORST]
    ]  # fmt: skip
    names = ("where in the model", "operator", "as the runtime calls it", "time", "share")
    estimated = ("estimated",) if beside else ()
    console.out.print(console.plain_table((*names, *estimated), rows, words=(0, 1, 2)))
    rest = found.operators[_WORST:]
    if rest:
        share = sum(o.share for o in rest)
        console.say(
            f"{len(rest)} more operators: {duration(sum(o.ms for o in rest), 3)}, {share:.1%}"
        )
    types = [
        (
            t.op, str(t.count), duration(t.ms, 3), f"{t.share:.1%}",
            *([_percent(t.estimated)] if beside else []),
        )
        for t in found.types
    ]  # fmt: skip
    console.out.print(console.plain_table(("by type", "calls", "time", "share", *estimated), types))
    console.say(
        f"no operator accounts for {duration(found.overhead_ms, 3)}, {found.overhead:.1%}: the "
        "runtime between them, and the profiler"
    )
    console.say(
        f"an inference took {duration(found.total_ms, 3)} with the profiler, "
        f"{duration(found.unprofiled_ms, 3)} without"
    )
    if beside:
        console.say(f"estimated: {found.estimate}; {_percent(found.estimated_elsewhere)} of it for "
            "operators that are not told apart here, fused or moved")  # fmt: skip
    flags = [f"{name}: {found.environment[name]}" for name in FLAGS if name in found.environment]
    for note in (*found.notes, *flags):
        console.say(f"note: {note}", style="yellow")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"
