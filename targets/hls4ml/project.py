"""Layer list → hls4ml project on disk. Runs in a child process."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemix.errors import InputError
from edgemix.extras import need, versions
from edgemix.program import Program
from edgemix.targets.base import Artifact, Binding
from edgemix.targets.hls4ml.lower import build
from edgemix.targets.hls4ml.precision import needed, result_type

MAIN = "project"
NAME = "firmware"
BACKEND = "Vivado"
PART = "xc7z020clg400-1"
CLOCK_NS = 10


def lower(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the project; the answer is the Artifact as JSON."""
    need("hls4ml", extra="hls4ml")
    program = Program.load(Path(request["program"]))
    project = Path(request["folder"]) / MAIN
    firmware, output = build(program)
    from hls4ml.model.graph import ModelGraph

    from edgemix.targets.hls4ml.layers import register

    register(BACKEND)
    config = {
        "OutputDir": str(project),
        "ProjectName": NAME,
        "Backend": BACKEND,
        "Part": PART,
        "ClockPeriod": CLOCK_NS,
        "ClockUncertainty": "12.5%",
        "IOType": "io_parallel",
        "Stamp": "edgemix",
        "Version": "1.0.0",
        "WriterConfig": {"Namespace": None, "WriteWeightsTxt": True, "WriteTar": False},
        "HLSConfig": {
            "Model": {
                "Precision": {"default": "ap_fixed<16,6>"},
                "ReuseFactor": 1,
                "Strategy": "Latency",
                "TraceOutput": False,
            },
            "LayerName": {
                name: {"Precision": types, "ReuseFactor": 1, "Strategy": "Latency"}
                for name, types in firmware.precisions.items()
            },
        },
    }
    with contextlib.redirect_stdout(io.StringIO()):
        model = ModelGraph.from_layer_list(
            config, firmware.layers, [firmware.layers[0]["name"]], [output.variable]
        )
        model.write()
    _forget_paths(project)
    spec = program.inputs[0]
    first = next(iter(firmware.precisions.values()))["result"]
    artifact = Artifact(
        target="hls4ml",
        program=program.digest,
        main=MAIN,
        inputs=(Binding(spec, firmware.layers[0]["name"], _layout(spec.shape), first, None),),
        outputs=(
            Binding(
                program.outputs[0],
                output.variable,
                "flat",
                result_type(needed(output.encoding, "the output")),
                output.encoding,
            ),
        ),
        toolchain={**versions("torch", "hls4ml"), **_compiler()},
        facts={
            "backend": BACKEND,
            "part": PART,
            "clock_ns": CLOCK_NS,
            "io_type": "io_parallel",
            "layers": len(firmware.layers),
            "multiply_accumulates": firmware.multiply_accumulates,
            "accumulators": firmware.accumulators,
        },
    )
    return artifact.to_json()


def _layout(shape: tuple[int, ...]) -> str:
    return "nhwc" if len(shape) == 4 else "flat"


def _forget_paths(project: Path) -> None:
    """Take this machine's paths out of the project: it is hashed, moved and shipped."""
    for path in project.rglob("*"):
        if path.suffix in (".yml", ".tcl", ".sh", ".cpp", ".h", ".txt", ".json") and path.is_file():
            if "ap_types" in path.parts:
                continue
            text = path.read_text(errors="replace")
            clean = text.replace(str(project.resolve()), ".").replace(str(project), ".")
            if clean != text:
                path.write_text(clean)


def _compiler() -> dict[str, str]:
    if shutil.which("g++") is None:
        return {}
    said = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+\.\d+\.\d+)", said)
    return {"g++": found[1]} if found else {}


def compiler() -> str:
    """The path of g++.

    Raises:
        InputError: there is none.
    """
    path = shutil.which("g++")
    if path is None:
        raise InputError("C simulation needs a C++ compiler", do="apt-get install g++")
    return path
