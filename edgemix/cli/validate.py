"""``edgemix validate``: replay the proof of an artifact."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgemix.errors import EXIT_GATE


def validate(
    folder: Annotated[Path, typer.Argument(help="The folder of one target, like out/onnx.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the exit code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> None:
    """Check an artifact again: its hashes, and its outputs on the stored vectors.

    Exit code 0: it is what was proven; 1: it is not; 2: the folder holds no artifact.
    """
    from edgemix import evidence
    from edgemix.cli import console

    with console.Bars(quiet=quiet or as_json) as bars, bars.step(f"run {folder}", 1.0) as done:
        verdicts = evidence.validate(folder, done)
    if as_json:
        console.print_json([asdict(v) for v in verdicts])
    elif not quiet:
        for v in verdicts:
            mark = "ok    " if v.passed else "FAILED"
            why = f"; {v.why}" if v.why else ""
            console.out.print(
                f"{mark} {v.gate}: asked {v.asked}, found {v.found}{why}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
    if not all(v.passed for v in verdicts):
        raise typer.Exit(EXIT_GATE)
