"""FPGA benchmarks: ``python tests/benchmarks/fpga.py jets|mlp|speed [--json FILE]``.

Every figure but the cited ones is made in the run that prints it. Cycles are simulated by
Verilator, cells counted by Yosys without place and route, times measured on this machine.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from edgemix import data, rewrites, targets
from edgemix.models import demo, jets
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.targets.fpga.hardware import Hardware

PART, CLOCK_NS = "xcvu13p-flga2577-2-e", 5.0
RTL_SAMPLES = 512
CITED = (
    "cited, not run here: hls4ml transformers on a VU13P 1.908 µs (interval 119) and 2.077 µs "
    "(interval 49), arXiv 2409.05207;\nJEDI-linear, 32 particles × 3 features, 24 cycles, post-route "
    "80 ns (its clock: 3.3 ns); 128 × 16, 26 cycles, 109 ns: github.com/calad0i/JEDI-linear"
)
Saved = Annotated[Path | None, typer.Option("--json", help="Write the rows to this file, too.")]
Names = Annotated[list[str] | None, typer.Argument(help="Of the taggers; all without.")]
T = TypeVar("T")
app = typer.Typer(help=__doc__, no_args_is_help=True)
console = Console(stderr=True)


def quantized(module: Any, example: Any, name: str, train: str) -> tuple[Program, Program]:
    """The float program and the fixed8 program, as ``edgemix deploy`` makes them."""
    recipe = Recipe.load("fixed8")
    source = Program.trace(module, example, Origin(name))
    program = rewrites.standard(source, recipe.split)
    samples = data.load(train, program.inputs[0])
    return source, quantize(program, calibrate(program, samples.batches(64, 1024)), recipe)


def accuracy(program: Program, held_out: data.Data) -> float:
    """Share of right answers."""
    found = torch.cat([program.run(x)[0] for x in held_out.batches(500)]).argmax(1)
    assert held_out.labels is not None
    return float((found.numpy() == held_out.labels).mean())


@contextmanager
def workplace(program: Program) -> Iterator[tuple[Path, Path]]:
    """A scratch folder and the program's file in it."""
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        file = Path(scratch) / "program.edgemix"
        program.save(file)
        yield Path(scratch), file


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns and the seconds that it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def show(title: str, rows: list[dict[str, Any]], saved: Path | None, *notes: str) -> None:
    """Print rows as a table, and save them."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{v:,.4g}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int)
                        and not isinstance(v, bool) else str(v) for v in row.values()))  # fmt: skip
    out = Console()
    out.print(table)
    for note in notes:
        out.print(note, highlight=False)
    if saved is not None:
        saved.write_text(json.dumps(rows, indent=1) + "\n")


@app.command("jets")
def tag_jets(names: Names = None, saved: Saved = None) -> None:
    """(a) Jet taggers at 200 MHz in cycle-exact RTL, against the program on 512 held-out jets."""
    rows = []
    for name in names or jets.MODELS:
        entry = jets.MODELS[name]
        with console.status(name):
            module, example = getattr(jets, name)()
            source, program = quantized(module, example, name, f"{entry.data}:train")
            held_out = data.load(f"{entry.data}:heldout", program.inputs[0])
            target = targets.load("rtl", Hardware(PART, CLOCK_NS))
            with workplace(program) as (folder, file):
                artifact = target.lower(program, file, folder)
                x = held_out.head(RTL_SAMPLES).tensor()
                (found,) = target.run(artifact, folder, (x.numpy(),)) or ()
                latency = target.latency(artifact, folder, 1)
            assert latency is not None
            same = float((found == program.run(x)[0].numpy()).mean())
            rows.append(
                {
                    "model": name, "input": "×".join(map(str, program.inputs[0].shape[1:])),
                    "cycles": int(latency.environment["cycles"]), "ns": latency.p50_ms * 1e6,
                    "interval": int(latency.environment["interval"]), "identical": same,
                    "float acc": accuracy(source, held_out),
                    "fixed8 acc": accuracy(program, held_out),
                    "register bits": int(artifact.facts["register_bits"]),
                    "products": int(artifact.facts["multipliers"]),
                }
            )  # fmt: skip
    show(f"Jet taggers, RTL simulated at {1e3 / CLOCK_NS:g} MHz for {PART}", rows, saved, CITED)


@app.command()
def mlp(saved: Saved = None) -> None:
    """(b) The perceptron 16-64-32-32-5: hls4ml's frontend and ours, same bits, LUTs and stages."""
    import hls4ml_frontend as peer

    from edgemix.targets.rtl import cells
    from edgemix.targets.rtl.schedule import FABRICS, schedule
    from edgemix.targets.rtl.trace import trace

    _, program = quantized(*jets.mlp(), "mlp", "jet-features:train")
    rows = []

    def add(flow: str, rounding: str, strategy: str, logic: Any, used: Mapping[str, int]) -> None:
        stages, slowest = peer.cut_by_additions(logic)
        rows.append(
            {
                "flow": flow, "rounding": rounding, "strategy": strategy, "LUT": used["lut"],
                "FF": used["ff"],
                "stages of 5 ns": schedule(logic, CLOCK_NS, FABRICS["xcup"]).stages,
                "stages of 5 additions": stages, "their ns": slowest,
            }
        )  # fmt: skip

    with workplace(program) as (folder, file), console.status("tracing") as status:
        for rounding, name in peer.ROUNDINGS.items():
            model = peer.hls4ml_model(program, folder / name, name)
            for strategy, slack in peer.ADDER_SLACK.items():
                status.update(f"hls4ml's frontend, {rounding}, {strategy}")
                logic = peer.traced(model, slack, rounding)
                sources = peer.write_verilog(logic, folder / f"peer_{name}_{strategy}")
                used = cells.read(peer.yosys(sources), PART, cells.version()).used
                add("hls4ml's frontend", rounding, strategy, logic, used)
        for strategy in peer.ADDER_SLACK:
            status.update(f"edgemix, {strategy}")
            hardware = Hardware(PART, CLOCK_NS, strategy=strategy)  # type: ignore[arg-type]
            target: Any = targets.load("rtl", hardware)
            (made := folder / f"ours_{strategy}").mkdir()
            used = target.resources(target.lower(program, file, made), made).used
            add("edgemix", "half to even", strategy, trace(program, hardware), used)
    show(
        f"Jet perceptron 16-64-32-32-5, fixed8, {PART}", rows, saved,
        f"LUT and FF: {cells.version()}, no place and route; edgemix's registers cut stages of 5 ns "
        "(by its own delays), those of hls4ml's frontend, in da4ml's Verilog, of 5 additions.",
    )  # fmt: skip


@app.command()
def speed(saved: Saved = None) -> None:
    """(c) From program to compiled C simulation, and samples a second that stay bit-exact."""
    rows = []
    models = {
        "mlp": (*jets.mlp(), "jet-features"), "transformer": (*jets.transformer(), "jets"),
        "digits": (*demo.create(), "digits"),
    }  # fmt: skip
    for name, (module, example, source) in models.items():
        _, program = quantized(module, example, name, f"{source}:train")
        x = data.load(f"{source}:heldout", program.inputs[0]).tensor()
        with console.status(name):
            rows += [_program_speed(name, program, x), *_simulation_speeds(name, program, x)]
            if name == "mlp":
                rows.append(_peer_speed(program, x))
    show("Bit-exact evaluation on this machine, one process", rows, saved)


def _row(name: str, what: str, ready_s: float, rate: float, same: float) -> dict[str, Any]:
    return {
        "model": name, "evaluation": what, "ready after s": ready_s, "samples/s": rate,
        "identical": same,
    }  # fmt: skip


def _program_speed(name: str, program: Program, x: torch.Tensor) -> dict[str, Any]:
    program.run(x[:8])
    _, seconds = timed(lambda: [program.run(part) for part in x.split(500)])
    return _row(name, "Program.run, torch", 0.0, len(x) / seconds, 1.0)


def _simulation_speeds(name: str, program: Program, x: torch.Tensor) -> Iterator[dict[str, Any]]:
    """Twice with different counts: the difference is samples, the rest is getting ready."""
    target = targets.load("hls4ml", Hardware(PART, CLOCK_NS))
    with workplace(program) as (folder, file):
        artifact, lowering = timed(lambda: target.lower(program, file, folder))
        few, many = x[:1].numpy(), x.repeat(-(-20000 // len(x)), *[1] * (x.ndim - 1)).numpy()
        _, compiling = timed(lambda: target.run(artifact, folder, (few,)))
        found, whole = timed(lambda: target.run(artifact, folder, (many,)))
        assert found is not None
        same = float((found[0][: len(x)] == program.run(x)[0].numpy()).mean())
        rate = (len(many) - 1) / (whole - compiling)
        yield _row(name, "C simulation", lowering + compiling, rate, same)


def _peer_speed(program: Program, x: torch.Tensor) -> dict[str, Any]:
    import hls4ml_frontend as peer

    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        model, making = timed(lambda: peer.hls4ml_model(program, Path(scratch) / "project"))
        _, compiling = timed(model.compile)
        # Its input type wraps; it is given what the program's input encoding makes of the samples.
        given = next(iter(program.encodings.values()))
        grid = given.dequantize(given.quantize(x))
        samples = np.ascontiguousarray(grid.repeat(4, 1).numpy())
        found, seconds = timed(lambda: model.predict(samples))
    same = float((found[: len(x)] == program.run(x)[0].numpy()).mean())
    return _row("mlp", "hls4ml's frontend", making + compiling, len(samples) / seconds, same)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    app()
