"""``edgemix prune``: a smaller model with the same inputs and outputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemix.errors import InputError
from edgemix.quantize.prune.choices import Importance, TokenMethod

if TYPE_CHECKING:
    from edgemix.report.schema import PruningReport


def prune(
    source: Annotated[
        str,
        typer.Argument(
            help="timm:NAME[?kw=v], package.module:factory (runs that Python code), a .pt2 file, "
            "or a saved float program."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the program and a report.")],
    calibrate: Annotated[
        str, typer.Option(help="Data that units are weighed on, as for `edgemix deploy`.")
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="What narrower widths are to leave: a share of the multiply-accumulates like "
            "50%, or parameters=40%, macs=20M, size=500kB, iphone12=1.5ms, lut=30000. Default: "
            "50% where nothing else is asked for.",
        ),
    ] = None,
    evaluate: Annotated[
        str | None, typer.Option(help="Data that the curve is measured on; default: the same.")
    ] = None,
    importance: Annotated[
        Importance,
        typer.Option(
            help="What a unit is worth: refit (what the outputs lose after the others make up for "
            "it), hessian, taylor (needs labels), activation, "
            "magnitude, order (of models trained in nested widths; these two need no data)."
        ),
    ] = "refit",
    heads: Annotated[
        bool, typer.Option("--heads", help="Attention loses whole heads, not channels of each.")
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Module paths, or patterns of them, whose widths stay; may be given again."
        ),
    ] = None,
    least: Annotated[
        float, typer.Option(min=0.001, max=1.0, help="Share of each width that stays.")
    ] = 0.1,
    multiple: Annotated[
        int, typer.Option(min=1, help="Widths stay multiples of this, but for narrow ones.")
    ] = 8,
    refit: Annotated[
        bool,
        typer.Option(help="Fit the weights that stay to what the whole model computes."),
    ] = True,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Before widths: share of the multiply-accumulates, like 65%, to which fewer "
            "tokens bring an attention model, in static shapes."
        ),
    ] = None,
    merging: Annotated[
        TokenMethod,
        typer.Option(help="How tokens go: merged (tome, pitome) or left out (zerotprune)."),
    ] = "tome",
    branches: Annotated[
        int, typer.Option(min=0, help="Before widths: residual branches that go as a whole.")
    ] = 0,
    factors: Annotated[
        str | None,
        typer.Option(
            help="After widths: share of what is left, like 75% or parameters=60%, to which "
            "factors of low rank bring it."
        ),
    ] = None,
    sparse: Annotated[
        str | None,
        typer.Option(
            help="Then: 2:4 (two of each four weights stay), 1:4, or 70% (so many are zero)."
        ),
    ] = None,
    finetune: Annotated[
        int,
        typer.Option(
            min=0,
            help="At the end: epochs of training towards the whole model's outputs, and the "
            "labels where the calibration data has them.",
        ),
    ] = 0,
    curve: Annotated[
        str, typer.Option(help="Further shares of the MACs that the report shows; '' for none.")
    ] = "80%,65%,50%,35%,25%",
    samples: Annotated[int, typer.Option(min=1, help="Calibration samples at most.")] = 512,
    step: Annotated[
        bool, typer.Option("--step", help="One step of a model that works on sequences.")
    ] = False,
    family: Annotated[
        bool,
        typer.Option(
            "--family",
            help="Write every program of the curve, all with one calibration; `edgemix deploy "
            "FOLDER --budget …` takes the largest that keeps within its budgets.",
        ),
    ] = False,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Device that times are estimated for (in float); may be given again."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the output folder holds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a model smaller: narrower layers, fitted to what the whole model computes.

    Also fewer tokens, fewer branches, lower ranks, sparse weights. No training and no labels:
    minutes on calibration data. The program that it writes goes into `edgemix deploy` as any
    other; `edgemix deploy --prune` does both.

    Exit code 0: done; 2: the input cannot be used, or the budget cannot be met.
    """
    from pydantic import ValidationError

    from edgemix.cli import console
    from edgemix.latency.estimator import house
    from edgemix.pruning import Asked, run
    from edgemix.quantize.prune.recipe import Pruning

    if budget is None and not any((tokens, branches, factors, sparse, finetune)):
        budget = "50%"
    try:
        pruning = Pruning(
            tokens=tokens, merging=merging, branches=branches, factors=factors, sparse=sparse,
            finetune=finetune, budget=budget, importance=importance, heads=heads,
            keep=list(keep or ()), least=least,
            multiple=multiple, refit=refit, curve=_shares(curve),
        )  # fmt: skip
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    asked = Asked(
        source, out, pruning, calibrate, evaluate or calibrate, samples, step,
        tuple(device or ()), family, force, ("edgemix", *sys.argv[1:]),
    )  # fmt: skip
    with console.Bars(quiet=quiet or as_json) as bars:
        report = run(asked, house(), bars)
    if as_json:
        console.print_json(report.model_dump(mode="json"))
    elif not quiet:
        _print(report)
        console.say(f"program: {out / 'program.edgemix'}")
        console.say(f"report: {out / 'pruning.html'}")


def _shares(text: str) -> list[float]:
    try:
        return [float(part.strip().removesuffix("%")) / 100 for part in text.split(",") if part]
    except ValueError as error:
        raise InputError(f"no shares: {text}", do="write them like 80%,50%") from error


def _print(report: PruningReport) -> None:
    from edgemix.cli import console
    from edgemix.latency.units import duration

    found = report.pruning
    whole = found.points[0]
    devices = list(whole.times_ms)
    rows = [
        (
            f"{p.asked}{' (chosen)' if p.chosen else ''}",
            f"{p.macs:,}", f"{p.macs / whole.macs:.1%}",
            f"{p.parameters:,}", f"{p.parameters / whole.parameters:.1%}",
            *([] if p.accuracy is None else [f"{p.accuracy:.2%}"]),
            "–" if p.sqnr_db is None else f"{p.sqnr_db:.1f}",
            *(duration(p.times_ms[d], 3) for d in devices),
        )
        for p in found.points
    ]  # fmt: skip
    accuracy = [] if whole.accuracy is None else ["accuracy"]
    names = ("", "MACs", "", "weights", "", *accuracy, "SQNR, dB")
    estimated = (f"{d}, estimated" for d in devices)
    console.out.print(console.plain_table((*names, *estimated), rows, words=(0,)))
    for where in found.blind:
        console.say(f"note: pruning does not see through {where}", style="yellow")
