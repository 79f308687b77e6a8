"""Layer list → hls4ml project on disk. Runs in a child process."""

from __future__ import annotations

import contextlib
import io
import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.extras import need, versions
from edgemix.files import write_text
from edgemix.program import Program, TensorSpec
from edgemix.targets.base import Artifact, Binding, bindings
from edgemix.targets.fpga.golden import vectors
from edgemix.targets.fpga.hardware import Hardware
from edgemix.targets.fpga.precision import needed, result_type
from edgemix.targets.hls4ml import golden, memory
from edgemix.targets.hls4ml.knobs import knobs
from edgemix.targets.hls4ml.lower import build

MAIN = "project"
NAME = "firmware"


def lower(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the project; the answer is the Artifact as JSON."""
    need("hls4ml", extra="hls4ml")
    program = Program.load(Path(request["program"]))
    project = Path(request["folder"]) / MAIN
    hardware = Hardware.from_json(request["hardware"])
    firmware, given = build(program, hardware.interface)
    chosen = {
        layer["name"]: knobs(hardware, layer, firmware.origins[layer["name"]])
        for layer in firmware.layers
    }
    if any(k.strategy == "distributed_arithmetic" for k in chosen.values()):
        need("da4ml", extra="rtl")
    from hls4ml.model.graph import ModelGraph

    from edgemix.targets.hls4ml.layers import register

    register(hardware.backend)
    config = {
        "OutputDir": str(project),
        "ProjectName": NAME,
        "Backend": hardware.backend,
        "Part": hardware.part,
        "ClockPeriod": hardware.clock_ns,
        "ClockUncertainty": "12.5%",
        "IOType": hardware.interface,
        "Version": "1.0.0",
        "WriterConfig": {"Namespace": None, "WriteWeightsTxt": True, "WriteTar": False},
        "HLSConfig": {
            "Model": {
                "Precision": {"default": "ap_fixed<16,6>"},
                "ReuseFactor": hardware.reuse,
                "Strategy": "Latency",
                "TraceOutput": False,
            },
            "LayerName": {
                name: {"Precision": types, **chosen[name].config}
                for name, types in firmware.precisions.items()
            },
        },
    }
    with contextlib.redirect_stdout(io.StringIO()):
        model = ModelGraph.from_layer_list(
            config, firmware.layers,
            [x["name"] for x in firmware.layers if x["class_name"] == "InputLayer"],
            [value.variable for value in given],
        )  # fmt: skip
        model.write()
    stamp, own = str(model.config.get_config_value("Stamp")), f"edgemix-{program.digest[:8]}"
    # YAML quotes a stamp that happens to be a number.
    names = {str(project.resolve()): ".", str(project): ".", f"'{stamp}'": own, stamp: own}
    _forget(project, names)
    _testbench(project, program, hardware)

    def bind(_: int, spec: TensorSpec, encoding: Encoding | None) -> Binding:
        kind = result_type(needed(encoding, spec.name))
        return Binding(spec, spec.name, _layout(spec.shape), kind, encoding)

    bound = bindings(program, bind, bind)
    artifact = Artifact(
        target="hls4ml",
        program=program.digest,
        main=MAIN,
        inputs=bound["inputs"],
        outputs=bound["outputs"],
        states=tuple(replace(state, takes=None) for state in bound["states"]),
        toolchain={**versions("torch", "hls4ml"), **_compiler()},
        facts={
            "backend": hardware.backend,
            "part": hardware.part,
            "clock_ns": hardware.clock_ns,
            "io_type": hardware.interface,
            "layers": len(firmware.layers),
            "multiply_accumulates": firmware.multiply_accumulates,
            "accumulators": firmware.accumulators,
            "notes": {name: k.note for name, k in chosen.items() if k.note},
            "near_ties": {name: n for name, n in firmware.near_ties.items() if n},
        },
    )
    return artifact.to_json()


def _testbench(project: Path, program: Program, hardware: Hardware) -> None:
    """A testbench that compares with golden vectors, in place of hls4ml's, which only prints."""
    golden.write(project / "tb_data", vectors(program))
    vivado = hardware.backend == "Vivado"
    steps = "reset=1 csim=0 synth=1 cosim=0 validation=0 export=0 vsynth=0 fifo_opt=0"
    values = {
        "name": NAME, "part": hardware.part, "clock_ns": hardware.clock_ns,
        "interface": hardware.interface, "streaming": hardware.interface == "io_stream",
        "inputs": math.prod(program.inputs[0].shape[1:]),
        "outputs": math.prod(program.outputs[0].shape[1:]),
        "input_type": "input_t", "output_type": "result_t",
        "compiler": "vivado_hls" if vivado else "vitis-run",
        "command": f'vivado_hls -f build_prj.tcl "{steps}"' if vivado
        else "vitis-run --mode hls --tcl build_prj.tcl",
    }  # fmt: skip
    pages = Environment(
        loader=PackageLoader("edgemix.targets.hls4ml"), undefined=StrictUndefined,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    if program.states:
        values |= memory.arguments(program)
        memory.write(project, NAME, values, pages)
    testbench = "testbench_steps.cpp.jinja" if program.states else "testbench.cpp.jinja"
    for template, path in (
        (testbench, project / f"{NAME}_test.cpp"),
        ("Makefile.jinja", project / "Makefile"),
    ):
        write_text(path, pages.get_template(template).render(values))


def _layout(shape: tuple[int, ...]) -> str:
    return "nhwc" if len(shape) == 4 else "flat"


def _forget(project: Path, names: Mapping[str, str]) -> None:
    """Take out what differs between two runs: this machine's paths, a random stamp."""
    for path in project.rglob("*"):
        if path.suffix in (".yml", ".tcl", ".sh", ".cpp", ".h", ".txt", ".json") and path.is_file():
            if "ap_types" in path.parts:
                continue
            text = clean = path.read_text(errors="replace")
            for name, instead in names.items():
                clean = clean.replace(name, instead)
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
