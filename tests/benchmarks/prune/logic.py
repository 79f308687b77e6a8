"""What goes from a model goes from its logic: ``python -m tests.benchmarks.prune.logic``.

The jet perceptron 16-64-32-32-5 narrower, or with weights zero anywhere, as fixed8 Verilog. Cells are counted by Yosys without place and route, adders are those of da4ml's graph, accuracy is that of
the Program, which the Verilog equals bit for bit.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from edgemix import data, rewrites, targets
from edgemix.models import jets
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.prune.prune import prune
from edgemix.quantize.prune.recipe import Pruning
from edgemix.quantize.prune.sparse import Pattern, sparsify, sparsities
from edgemix.quantize.recipe import Recipe
from edgemix.targets.fpga.hardware import Hardware
from edgemix.targets.rtl.trace import trace

PART, CLOCK_NS = "xcvu13p-flga2577-2-e", 5.0
WIDTHS = (75, 50, 25)
ZEROS = (25, 50, 75, 90)
"""Percent, of the layers between the first and the last."""
CALIBRATION = 512
_ADDITIONS = (0, 1)
"""da4ml's codes for a sum and a difference."""


def narrower(program: Program, samples: data.Data, share: int) -> Program:
    """Widths for so many percent of the multiply-accumulates."""
    asked = Pruning(budget=f"{share}%", multiple=1)
    return prune(program, samples.head(CALIBRATION).tensor(), asked)


def sparser(program: Program, samples: data.Data, share: int) -> Program:
    """So many percent of the weights between the first and the last layer zero."""
    return sparsify(program, samples.head(CALIBRATION).tensor(), Pattern(share / 100))


def row(what: str, small: Program, samples: data.Data, held_out: data.Data) -> dict[str, Any]:
    """Weights, logic and accuracy of one model."""
    layers = sparsities(small, Pattern(0.5))
    coded = quantize(
        small, calibrate(small, samples.batches(64, CALIBRATION)), Recipe.load("fixed8")
    )
    hardware = Hardware(PART, CLOCK_NS)
    adders = sum(op.opcode in _ADDITIONS for op in trace(coded, hardware).ops)
    target: Any = targets.load("rtl", hardware)
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        file = Path(scratch) / "program.edgemix"
        coded.save(file)
        artifact = target.lower(coded, file, Path(scratch))
        used = target.resources(artifact, Path(scratch)).used
    return {
        "model": what,
        "MACs that are not zero": sum(s.weights - s.zeros for s in layers),
        "adders": adders,
        "LUT": used["lut"],
        "FF": used["ff"],
        "float %": accuracy(small, held_out),
        "fixed8 %": accuracy(coded, held_out),
    }


def accuracy(program: Program, held_out: data.Data) -> float:
    """Percent of right answers."""
    found = torch.cat([program.run(x)[0] for x in held_out.batches(500)]).argmax(1)
    assert held_out.labels is not None
    return 100 * float((found.numpy() == held_out.labels).mean())


def main(
    saved: Annotated[Path | None, typer.Option("--json", help="Write the rows here, too.")] = None,
) -> None:
    """LUTs and accuracy of every model."""
    module, example = jets.mlp()
    recipe = Recipe.load("fixed8")
    program = rewrites.standard(Program.trace(module, example, Origin("mlp")), recipe.split)
    samples, held_out = (
        data.load(f"jet-features:{part}", program.inputs[0]) for part in ("train", "heldout")
    )
    models = {
        "whole": program,
        **{f"{n}% of MACs": narrower(program, samples, n) for n in WIDTHS},
        **{f"{n}% zeros": sparser(program, samples, n) for n in ZEROS},
    }
    rows = []
    for what, small in models.items():
        rows.append(row(what, small, samples, held_out))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    table = Table(*rows[0], title=f"Jet perceptron, fixed8, {PART}, {CLOCK_NS:g} ns")
    for found in rows:
        table.add_row(*(f"{v:,.1f}" if isinstance(v, float) else str(v) for v in found.values()))
    Console().print(table)
    if saved is not None:
        saved.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
