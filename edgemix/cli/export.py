"""``edgemix export``: a quantized program in the format of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemix.errors import InputError


def export(
    program: Annotated[
        Path, typer.Argument(help="A quantized program: program.edgemix of a deployment.")
    ],
    out: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Write a quantized program as QONNX, for FINN, hls4ml and other tools that read it."""
    from edgemix.cli import console
    from edgemix.program import Program
    from edgemix.targets.onnx import qonnx

    if out.suffix != ".onnx":
        raise InputError(f"{out} is no .onnx file", do="give it a name that ends so")
    if out.exists() and not force:
        raise InputError(f"{out} is there already", do="give another name, or --force")
    count = qonnx.write(Program.load(program), out)
    console.say(f"{out}: {count} quantized tensors")
