"""``edgemix demo``: the whole way, on real data, with a model that comes with edgemix."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from edgemix.errors import EXIT_GATE

SOURCE = "edgemix.models.demo:create"
RUNS = (
    ("fixed8", ("onnx", "tflite", "coreml", "hls4ml")),
    ("int8", ("onnx", "tflite", "coreml")),
)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for both runs.")] = Path(
        "demo-report"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace what the folder holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print both reports as JSON.")] = False,
) -> None:
    """Deploy a tiny MetaFormer for handwritten digits to four targets, in two recipes.

    fixed8 goes to ONNX, TFLite, Core ML and FPGA firmware, int8 to the first three; 500 digits
    that nothing was trained or calibrated on prove each artifact.
    """
    from edgemix import files, pipeline
    from edgemix.cli import console
    from edgemix.order import Order

    files.check_output_folder(out, force=force)
    start = time.perf_counter()
    reports = {}
    for recipe, targets in RUNS:
        order = Order(
            source=SOURCE,
            targets=targets,
            out=out / recipe,
            calibrate="digits:train",
            evaluate="digits:heldout",
            recipe=recipe,
            max_drop=0.5,
            force=force,
            command=command(recipe, targets, out),
        )
        with console.Bars(quiet=quiet or as_json) as bars:
            reports[recipe] = pipeline.deploy(order, bars)
        if not quiet and not as_json:
            console.print_report(reports[recipe])
    if as_json:
        console.print_json({name: r.model_dump(mode="json") for name, r in reports.items()})
    elif not quiet:
        for recipe in reports:
            console.out.print(
                f"report: {out / recipe / 'report.html'}", soft_wrap=True, highlight=False
            )
        console.out.print(f"{time.perf_counter() - start:.0f} s", highlight=False)
    if not all(r.passed for r in reports.values()):
        raise typer.Exit(EXIT_GATE)


def command(recipe: str, targets: tuple[str, ...], out: Path) -> tuple[str, ...]:
    """The ``edgemix deploy`` that does one of the demo's runs."""
    return (
        "edgemix", "deploy", SOURCE, "--recipe", recipe, "--to", ",".join(targets),
        "--calibrate", "digits:train", "--evaluate", "digits:heldout", "--max-drop", "0.5",
        "--out", str(out / recipe),
    )  # fmt: skip
