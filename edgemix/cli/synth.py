"""``edgemix synth``: synthesis of an FPGA project, or the reports of one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgemix.errors import EXIT_GATE


def synth(
    project: Annotated[
        Path, typer.Argument(help="The folder of one FPGA target, like out/hls4ml or out/rtl.")
    ],
    reports: Annotated[
        Path | None,
        typer.Option(help="Read the reports of a run made elsewhere, in this folder and below."),
    ] = None,
    steps: Annotated[
        str,
        typer.Option(
            help="Steps of Vivado or Vitis HLS: csim, csynth, cosim, export, vsynth, or all. "
            "Finished ones are not run again."
        ),
    ] = "csim,csynth",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="latency=2us, lut=50%, dsp=100 (lut, ff, dsp, bram, uram); may be given again."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.01, help="Hours that a step may take.")] = 4.0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run every step again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Synthesize an FPGA project: latency, interval, clock and resources, checked by budgets.

    hls4ml projects go through Vivado HLS or Vitis HLS, where installed, or through --reports; RTL
    projects through Verilator and Yosys. Exit code 0: every gate passed; 1: a budget, the clock or
    cosimulation failed; 2: the input cannot be used or a tool failed.
    """
    from edgemix import synthesis
    from edgemix.cli import console

    job = synthesis.Job(
        project, reports, tuple(synthesis.steps_of(steps)), tuple(budget or ()), timeout * 3600,
        fresh,
    )  # fmt: skip
    with console.Bars(quiet=quiet or as_json) as bars:
        found = synthesis.synthesize(job, bars)
    if as_json:
        console.print_json(asdict(found))
    elif not quiet:
        console.print_synthesis(found)
    if not all(v.passed for v in found.verdicts):
        raise typer.Exit(EXIT_GATE)
