"""``edgemix measure``: how long an inference takes, on this machine or on a device."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgemix.errors import EXIT_GATE

_DAY_S = 86_400.0
"""Timers and alarms take no more than some weeks."""


def measure(
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|MODEL",
            help="The folder of one target, like out/tflite; or an .onnx, .tflite or .mlpackage.",
        ),
    ],
    on: Annotated[
        str,
        typer.Option(
            help="host; ssh:USER@HOST[:PORT], a board with Python; adb[:SERIAL], Android; "
            "macos[:USER@HOST[:PORT]], Core ML; vivado[:FOLDER], what synthesis reports."
        ),
    ] = "host",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1, max=_DAY_S, help="How long to take samples; a minute shows throttling."
        ),
    ] = 2.0,
    budget: Annotated[str | None, typer.Option(help="The longest median, like 2ms.")] = None,
    python: Annotated[
        str, typer.Option(help="With ssh and macos: the Python there that has the runtime.")
    ] = "python3",
    ssh_config: Annotated[
        Path | None,
        typer.Option(envvar="EDGEMIX_SSH_CONFIG", help="With ssh and macos: a file for ssh -F."),
    ] = None,
    benchmark_model: Annotated[
        Path | None,
        typer.Option(
            envvar="EDGEMIX_BENCHMARK_MODEL",
            help="With adb: TFLite's benchmark_model for the device; default: it is in "
            "/data/local/tmp there.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, max=_DAY_S, help="Seconds that all may take.")
    ] = 900.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the exit code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Measure an artifact's latency where it will run: median and tail, and what the machine was.

    Says what puts the numbers in doubt: other work on the machine, throttling, a lost connection.

    Exit code 0: measured; 1: slower than the budget; 2: the input cannot be used, or the device not
    reached.
    """
    from edgemix import measuring
    from edgemix.cli import console
    from edgemix.latency.connect.base import Options

    asked = measuring.Asked(
        artifact, on, budget, threads, seconds, timeout,
        Options(python, ssh_config, benchmark_model),
    )  # fmt: skip
    title = f"measure {artifact} on {on}"
    with console.Bars(quiet=quiet or as_json) as bars, bars.step(title, 1.0) as done:
        found = measuring.measure(asked, done)
    if as_json:
        console.print_json(asdict(found))
    elif not quiet:
        console.print_measured(found)
    if not all(v.passed for v in found.verdicts):
        raise typer.Exit(EXIT_GATE)
