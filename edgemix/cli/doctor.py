"""``edgemix doctor``: what this machine has, and the command that adds what it lacks."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated, Any

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """List targets, runtimes, compilers and synthesis tools, and how to get each missing one."""
    from edgemix.cli import console

    rows = findings()
    if as_json:
        console.print_json(rows)
        return
    for row in rows:
        mark, style = ("✓", "green") if row["present"] else ("·", "yellow")
        detail = row["detail"] if row["present"] else f"missing; {row['remedy']}"
        console.out.print(f"[{style}]{mark}[/] ", end="")
        console.out.print(
            f"{row['name']}: {row['purpose']} ({detail})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def findings() -> list[dict[str, Any]]:
    """One row a thing: name, purpose, whether it is there, its version or the command for it."""
    from edgemix.extras import EXTRAS, install_command, present, versions
    from edgemix.latency.host import instruction_sets

    packages = {
        "onnx": ("ONNX target", ("onnx", "onnxruntime")),
        "tflite": ("TFLite target", ("ai-edge-litert", "litert-torch")),
        "coreml": ("Core ML target", ("coremltools",)),
        "coreai": ("Core AI target", ("coreai-core", "coreai-torch")),
        "hls4ml": ("hls4ml target", ("hls4ml",)),
        "rtl": ("RTL target", ("da4ml",)),
        "nir": ("NIR files as sources", ("nir",)),
        "timm": ("timm models as sources", ("timm",)),
        "brevitas": ("Brevitas' models, and its ways to round weights", ("brevitas",)),
        "search": ("searching recipes and models", ("optuna", "joblib")),
        "dask": ("searches on several machines", ("distributed",)),
        "mixed": ("mixed precision under a budget", ("scipy",)),
        "demo": ("the demo's data", ("scikit-learn",)),
    }
    rows = []
    for extra in EXTRAS:
        purpose, names = packages[extra]
        found = ", ".join(f"{n} {v}" for n, v in versions(*names).items())
        rows.append(
            _row(f"edgemix[{extra}]", purpose, present(extra), found, install_command(extra))
        )
    tools = (
        ("g++", "C simulation of firmware", "apt-get install g++"),
        ("make", "building of firmware and RTL", "apt-get install make"),
        (
            "vivado_hls",
            "FPGA synthesis",
            "install Vivado HLS 2020.1 from AMD and source its settings64.sh",
        ),
        ("vitis_hls", "FPGA synthesis", "install Vitis from AMD and source its settings64.sh"),
        ("vitis-run", "FPGA synthesis", "install Vitis from AMD and source its settings64.sh"),
        ("vivado", "FPGA logic synthesis", "install Vivado from AMD and source its settings64.sh"),
        ("verilator", "cycle-exact simulation of RTL", "apt-get install verilator"),
        ("yosys", "open FPGA synthesis", "apt-get install yosys"),
        ("ssh", "measuring on boards", "apt-get install openssh-client"),
        ("adb", "measuring on Android", "apt-get install adb"),
        ("espeak-ng", "the speech of the keyword spotters", "apt-get install espeak-ng"),
    )
    for name, purpose, remedy in tools:
        path = shutil.which(name)
        rows.append(_row(name, purpose, path is not None, path or "", remedy))
    mac = sys.platform == "darwin"
    rows.append(_row("Core ML runtime", "prediction and timing", mac, "macOS", "run on a Mac"))
    isa = " ".join(instruction_sets())
    rows.append(_row("vector unit", "int8 kernels", bool(isa), isa, "none that edgemix knows"))
    return rows


def _row(name: str, purpose: str, there: bool, detail: str, remedy: str) -> dict[str, Any]:
    return {
        "name": name, "purpose": purpose, "present": there, "detail": detail, "remedy": remedy,
    }  # fmt: skip
