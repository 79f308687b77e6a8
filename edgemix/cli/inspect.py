"""``edgemix inspect``: what a model is, and what each target says of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

_STEPS = 20


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            help="timm:NAME[?kw=v], package.module:factory (runs that Python code), a .pt2 file, "
            "a saved edgemix program, or an .mlpackage."
        ),
    ],
    step: Annotated[
        bool,
        typer.Option("--step", help="One step of a model that works on sequences, with states."),
    ] = False,
    recipe: Annotated[
        str, typer.Option(help="The recipe that targets are asked about; FPGA needs fixed8.")
    ] = "int8",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show parameters, MACs, operators and states, and per target what it cannot take and why.

    Of a Core ML package: what it takes and gives, and which units it will run on, as expected from
    documented constraints; on macOS as Core ML plans it.
    """
    from edgemix.cli import console, package

    if source.endswith(".mlpackage"):
        with console.Bars(quiet=quiet or as_json) as bars, bars.step(f"read {source}"):
            found = package.facts(Path(source))
        if as_json:
            console.print_json(found)
        else:
            package.show(found)
        return
    with console.Bars(quiet=quiet or as_json) as bars:
        facts = _facts(source, recipe, bars, step=step)
    if as_json:
        console.print_json(facts)
        return
    show = console.out
    show.print(f"{facts['source']}", style="bold", highlight=False)
    for side in ("inputs", "outputs", "states"):
        for spec in facts[side]:
            shape = " × ".join(map(str, spec["shape"]))
            show.print(f"  {side[:-1]} {spec['name']}: {shape} {spec['dtype']}", highlight=False)
    show.print(f"  {facts['parameters']:,} parameters, {facts['macs']:,} multiply-accumulates")
    listed = ", ".join(f"{n} {name}" for name, n in facts["operators"].items())
    show.print(f"  operators: {listed}", highlight=False)
    for name, findings in facts["targets"].items():
        if not findings:
            show.print(f"  {name}: takes all of it with the recipe {recipe}", highlight=False)
        for finding in findings:
            show.print(f"  {name}: {finding}", markup=False, highlight=False, soft_wrap=True)


def _facts(source: str, recipe_name: str, bars: Any, *, step: bool) -> dict[str, Any]:
    from dataclasses import asdict

    import torch

    from edgemix import diagnosis, rewrites, sources, targets
    from edgemix import graph as g
    from edgemix.quantize.calibrate import calibrate
    from edgemix.quantize.convert import quantize
    from edgemix.quantize.recipe import Recipe

    recipe = Recipe.load(recipe_name)
    with bars.step(f"load {source}"):
        program = sources.load(source, step=step)
    with bars.step("ask the targets"):
        prepared = asked = rewrites.standard(program, recipe.split)
        if not program.quantized and len(program.inputs) == 1:
            # Random data: only the shape of the quantized graph matters here.
            shape = prepared.inputs[0].shape
            if prepared.states:
                shape = (1, _STEPS, *shape[1:])
            noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            asked = quantize(prepared, calibrate(prepared, [noise]), recipe)
        findings = {
            name: [str(f) for f in targets.load(name).supports(asked)] for name in targets.TARGETS
        }
    operators = Counter(g.op_name(n) for n in g.float_ops(program.shared))
    return {
        "source": program.origin.source,
        "inputs": [asdict(s) for s in program.inputs],
        "outputs": [asdict(s) for s in program.outputs],
        "states": [asdict(s) for s in program.states],
        "parameters": program.parameters,
        "macs": diagnosis.multiply_accumulates(prepared),
        "operators": dict(operators.most_common()),
        "history": [s.name for s in program.history],
        "targets": findings,
    }
