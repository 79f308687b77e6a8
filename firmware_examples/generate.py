"""Write the examples: ``python firmware_examples/generate.py [--pages] [NAME ...]``.

An example is committed as what edgemix alone wrote: a Makefile, golden vectors, and a page with the
numbers of one run. ``make`` in its folder lowers the model again (firmware and RTL need hls4ml's
and da4ml's headers, which are theirs) and holds what comes out against the golden vectors.
"""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edgemix import data, endurance, files
from edgemix.program import Program
from edgemix.targets.fpga.golden import Golden, answered
from edgemix.targets.fpga.parts import part
from edgemix.targets.hls4ml import golden as cpp
from edgemix.targets.rtl import golden as verilog
from edgemix.targets.rtl.buses import ports_of

HERE = Path(__file__).parent
SAMPLES = 64
STEPS = 1000
"""Of a stream that the testbenches of a model with states are given."""


@dataclass(frozen=True)
class Example:
    """One model on one part."""

    name: str
    title: str
    about: str
    source: str
    calibrate: str
    evaluate: str
    part: str
    clock: str
    io: str = "io_parallel"
    strategy: str = "latency"
    targets: tuple[str, ...] = ("hls4ml", "rtl")
    more: str = ""
    """Other options of ``edgemix deploy``."""

    @property
    def stream(self) -> bool:
        """Whether the model carries states from step to step."""
        return "--step" in self.more

    @property
    def options(self) -> str:
        """Of ``edgemix deploy``, without ``--out``."""
        return (
            f"{self.source} --recipe fixed8 --to {','.join(self.targets)} "
            f"--calibrate {self.calibrate} --evaluate {self.evaluate} "
            f"--part {self.part} --clock {self.clock} --io {self.io} --strategy {self.strategy} "
            f"{self.more}"
        ).strip()


EXAMPLES = (
    Example(
        "digits_metaformer", "Handwritten digits by a MetaFormer",
        "Pooling at 4×4 positions, then attention with its softmax among the same 16: 3,938 "
        "parameters. The part is that of a PYNQ-Z2 board.",
        "edgemix.models.demo:create", "digits:train", "digits:heldout", "xc7z020clg400-1", "100MHz",
        strategy="resource",
    ),
    Example(
        "jet_tagging_transformer", "Jets by a transformer",
        "Sixteen particles of three features become one of five kinds of jet: a perceptron embeds "
        "them, one encoder block with LayerNorm and two heads of attention relates them. The jets "
        "come from `edgemix/data/shower.py`, the weights from `python -m edgemix.models.jets.train "
        "transformer`.",
        "edgemix.models.jets:transformer", "jets:train", "jets:heldout", "xcvu13p-flga2577-2-e",
        "200MHz",
    ),
    Example(
        "pooling_mixer_stream", "Digits, pixel after pixel",
        "A PoolFormer for digits whose windows slide over streams: line buffers hold two rows, not "
        "whole images, and padding does not count in the means.",
        "edgemix.models.demo:pooling", "digits:train", "digits:heldout", "xc7z020clg400-1",
        "100MHz", io="io_stream", targets=("hls4ml",),
    ),
    Example(
        "keyword_stream", "Spoken words, spike by spike",
        "A spiking LMUFormer hears log-mel frames, one every 20 ms, and says which of ten words it "
        "heard: 16,297 parameters, and every value between its linear maps is a spike. Membranes "
        "and the Legendre memory are registers of 16 bits with a reset. The speech is made by "
        "espeak-ng (`edgemix/data/speech.py`), the weights by `python -m "
        "edgemix.models.keywords.train spiking`.",
        "edgemix.models.keywords:spiking", "keywords:train", "keywords:heldout",
        "xcvu13p-flga2577-2-e", "100MHz", more="--step --samples 300 --evaluate-samples 240",
    ),
)  # fmt: skip


def deploy(example: Example) -> None:
    """Into the example's ``build`` folder."""
    build = HERE / example.name / "build"
    command = [sys.executable, "-m", "edgemix", "deploy", *example.options.split()]
    done = subprocess.run([*command, "--out", str(build), "--force"], check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)


def write(example: Example) -> None:
    """The example's folder, from what its last deployment left in ``build``."""
    folder = HERE / example.name
    report = json.loads((folder / "build" / "report.json").read_text())
    program = Program.load(folder / "build" / "program.edgemix")
    golden(folder / "golden", program, example)
    cells = folder / "cells.json"
    values: dict[str, Any] = {
        "example": example, "report": report, "samples": STEPS if example.stream else SAMPLES,
        "states": sum(math.prod(s.shape) for s in program.states),
        "targets": {t["name"]: t for t in report["targets"]},
        "lacking": lacking(example, report),
        "cells": json.loads(cells.read_text()) if cells.exists() else None,
    }  # fmt: skip
    pages = Environment(
        loader=FileSystemLoader(HERE / "templates"), undefined=StrictUndefined,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    pages.filters["width"] = lambda text: int(re.findall(r"\d+", text)[0])
    for name in ("Makefile", "README.md"):
        files.write_text(folder / name, pages.get_template(f"{name}.jinja").render(values))


def lacking(example: Example, report: dict[str, Any]) -> str:
    """How many more registers the RTL has than the part has flip-flops; empty where it fits."""
    facts = next((t["facts"] for t in report["targets"] if t["name"] == "rtl"), None)
    room = part(example.part).available["ff"]
    if facts is None or facts["register_bits"] <= room:
        return ""
    return f"{facts['register_bits']:,} bits of registers, {room:,} flip-flops"


def golden(folder: Path, program: Program, example: Example) -> None:
    """Held-out samples, or steps of a stream, and the program's integers for them."""
    (given,) = program.input_encodings
    assert given is not None
    held_out = data.load(example.evaluate, program.inputs[0], steps=example.stream)
    folder.mkdir(parents=True, exist_ok=True)
    if example.stream:
        x = given.dequantize(given.quantize(endurance.stream(held_out.samples, STEPS, 1)))
        save(folder / "golden.npz", answered(program, x.numpy()))
        return
    x = given.dequantize(given.quantize(held_out.head(SAMPLES).tensor()))
    vectors = Golden(x.numpy(), program.run(x)[0].numpy())
    cpp.write(folder, vectors)
    if "rtl" in example.targets:
        verilog.write(folder, vectors, ports_of(program))


def save(path: Path, golden: Golden) -> None:
    """A long stream with all states, as one file of numpy."""
    assert golden.resets is not None
    named = {f"state_{i}": values for i, values in enumerate(golden.states)}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, inputs=golden.inputs, outputs=golden.outputs, resets=golden.resets, **named
    )
    files.write_bytes(path, buffer.getvalue())


def main(arguments: Sequence[str]) -> None:
    """Write the named examples, or all; with ``--pages``, from their last deployment."""
    names = [a for a in arguments if a != "--pages"]
    unknown = set(names) - {e.name for e in EXAMPLES}
    if unknown:
        raise SystemExit(f"no example is called {', '.join(sorted(unknown))}")
    for example in EXAMPLES:
        if not names or example.name in names:
            if "--pages" not in arguments:
                deploy(example)
            write(example)


if __name__ == "__main__":
    main(sys.argv[1:])
