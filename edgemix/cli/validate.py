"""``edgemix validate``: replay the proof of an artifact, or check a model against a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemix.errors import EXIT_GATE, InputError

if TYPE_CHECKING:
    from edgemix.latency.budget import Verdict


def validate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|MODEL",
            help="The folder of one target, like out/onnx; or an .mlpackage, with --against.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(help="The program that a model should compute: whatever deploy takes."),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option("--data", help="With --against: data for its input, as deploy takes it."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="With --against: samples at most; default: all.")
    ] = None,
    contract: Annotated[
        str | None,
        typer.Option(help="With --against: relative:1e-3, lsb:1@99%, decisions@99% or exact."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the exit code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> None:
    """Check an artifact again: its hashes, and its outputs on the stored vectors.

    With --against, run an .mlpackage that anyone made, and a program, on the same data: on macOS by
    Core ML, elsewhere by edgemix's evaluator of ML Programs.

    Exit code 0: it is what was proven, or asked; 1: it is not; 2: the input cannot be used.
    """
    from edgemix.cli import console

    with console.Bars(quiet=quiet or as_json) as bars, bars.step(f"run {model}", 1.0) as done:
        verdicts = _verdicts(model, against, evaluate, samples, contract, done)
    if as_json:
        console.print_json([asdict(v) for v in verdicts])
    elif not quiet:
        for v in verdicts:
            mark = "ok    " if v.passed else "FAILED"
            why = f"; {v.why}" if v.why else ""
            console.say(f"{mark} {v.gate}: asked {v.asked}, found {v.found}{why}")
    if not all(v.passed for v in verdicts):
        raise typer.Exit(EXIT_GATE)


def _verdicts(
    model: Path, program: str | None, evaluate: str | None, samples: int | None,
    contract: str | None, done: Callable[[float], None],
) -> Sequence[Verdict]:  # fmt: skip
    from edgemix import against as comparison
    from edgemix import evidence
    from edgemix.proof import Contract

    if program is None:
        if evaluate is not None or samples is not None or contract is not None:
            raise InputError(
                "--data, --samples and --contract are for a model and the program that it should "
                "compute",
                do="name the program with --against",
            )
        return evidence.validate(model, done)
    if evaluate is None:
        raise InputError("there is no data", do="name it with --data")
    return comparison.against(
        model,
        program,
        evaluate,
        contract=None if contract is None else Contract.parse(contract),
        samples=samples,
        on_progress=done,
    )
