"""The peer: a multilayer perceptron through hls4ml's own PyTorch frontend, at our program's bits.

hls4ml writes Verilog only through Vivado. Where there is none, da4ml (its distributed arithmetic,
by the same authors) turns the layers into Verilog: weights, biases, accumulators and result types
are what hls4ml's model says after its own passes. da4ml rounds half up, which is cheaper than half
to even, as the program does: the peer is built with both, the second by logic that edgemix lends.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from da4ml.codegen.rtl import VerilogModel
from da4ml.trace import FixedVariableArray, HWConfig, comb_trace, to_pipeline
from da4ml.types import CombLogic
from torch import nn

from edgemix import graph as g
from edgemix.encoding import FixedPoint
from edgemix.program import Program
from edgemix.targets.fpga import dataflow, precision
from edgemix.targets.fpga.dataflow import Step
from edgemix.targets.fpga.tables import constant_array
from edgemix.targets.rtl import arithmetic
from edgemix.targets.rtl.schedule import FABRICS, delay, operands

CUTOFF = 5
"""Additions between registers that da4ml's command line takes by default."""
Rounding = Literal["half up", "half to even"]
ROUNDINGS: dict[Rounding, str] = {"half up": "RND", "half to even": "RND_CONV"}
"""And hls4ml's names."""
ADDER_SLACK = {"latency": 2, "resource": -1}
"""hls4ml passes 2 for its strategy distributed_arithmetic; −1 is the fewest adders."""


@dataclass(frozen=True)
class Layer:
    """A linear layer with the types of its result."""

    weight: np.ndarray[Any, Any]
    bias: np.ndarray[Any, Any]
    result: Any
    relu: bool


def layers(program: Program) -> Iterator[Layer]:
    """The linear layers of a quantized perceptron, with the values that the program computes by."""
    module = program.module()
    for step in dataflow.steps(module):
        if isinstance(step, Step):
            assert step.anchor.target is g.aten.linear.default, step.anchor
            weight, bias = (constant_array(module, a) for a in step.anchor.args[1:3])
            yield Layer(weight, bias, step.fixed, step.clamps)


def hls4ml_model(program: Program, folder: Path, rounding: str = "RND_CONV") -> Any:
    """hls4ml's model of the same perceptron, converted from a torch module."""
    import hls4ml

    net, found = [], list(layers(program))
    for layer in found:
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
        linear.weight.data = torch.tensor(layer.weight, dtype=torch.float32)
        linear.bias.data = torch.tensor(layer.bias, dtype=torch.float32)
        net += [linear, nn.ReLU()] if layer.relu else [linear]
    module = nn.Sequential(*net).eval()
    given = precision.needed(next(iter(program.encodings.values())), "the input")
    with contextlib.redirect_stdout(io.StringIO()):
        config = hls4ml.utils.config_from_pytorch_model(
            module, (program.inputs[0].shape[1],), granularity="name",
            default_precision="ap_fixed<24,12>", backend="Vivado",
        )  # fmt: skip
        types = config["LayerName"]
        types["input_1"]["Precision"] = {"result": precision.plain_type(given)}
        for i, layer in enumerate(found):
            accumulator = precision.plain_type(
                precision.product_sum(given, layer.weight, layer.bias)
            )
            sign = "ap_fixed" if layer.result.signed else "ap_ufixed"
            result = f"{sign}<{layer.result.width},{layer.result.integer},{rounding},SAT>"
            types[f"_{2 * i}"]["Precision"] = {
                "weight": precision.plain_type(precision.exact_type(layer.weight)),
                "bias": precision.plain_type(precision.exact_type(layer.bias)),
                "accum": accumulator,
                "result": accumulator if layer.relu else result,
            }
            if layer.relu:
                types[f"_{2 * i + 1}"]["Precision"] = {"result": result}
            given = layer.result
        return hls4ml.converters.convert_from_pytorch_model(
            module, hls_config=config, output_dir=str(folder), backend="Vivado",
            part="xcvu13p-flga2577-2-e", clock_period=5,
        )  # fmt: skip


def traced(model: Any, slack: int, rounding: Rounding) -> CombLogic:
    """hls4ml's layers as da4ml's logic; half to even is logic that edgemix lends."""
    given = x = None
    for layer in model.get_layers():
        kind, made = layer.class_name, layer.get_output_variable()
        p = made.type.precision
        if kind in ("Input", "InputLayer"):
            n = made.shape[0]
            bits = (int(p.signed), p.integer - int(p.signed), p.fractional)
            given = x = FixedVariableArray.from_kif(
                *(np.full(n, b) for b in bits), hwconf=HWConfig(1, -1, -1),
                solver_options={"hard_dc": slack},
            )  # fmt: skip
            continue
        assert x is not None
        if kind == "Dense":
            x = x @ layer.weights["weight"].data + layer.weights["bias"].data
        else:
            assert kind == "Activation", kind
            x = x.relu()
        if rounding == "half up" or (kind == "Dense" and p.rounding_mode.name == "TRN"):
            x = x.quantize(
                int(p.signed), p.integer - int(p.signed), p.fractional,
                overflow_mode=p.saturation_mode.name, round_mode=p.rounding_mode.name,
            )  # fmt: skip
        else:
            fixed = FixedPoint(p.width, p.integer, bool(p.signed))
            x = FixedVariableArray(np.array([arithmetic.fit(v, fixed) for v in x]))
    return comb_trace(given, x)


def cut_by_additions(logic: CombLogic, cutoff: int = CUTOFF) -> tuple[int, float]:
    """Stages as da4ml cuts them (every addition counts one, whatever its width) and the ns that
    the slowest takes by our delays.
    """
    stages = to_pipeline(logic, cutoff, verbose=False).solutions
    return len(stages), max(_slowest(stage) for stage in stages)


def _slowest(stage: CombLogic) -> float:
    ends: list[float] = []
    for op in stage.ops:
        start = max((ends[i] for i in operands(op)), default=0.0)
        ends.append(start + delay(op, stage, FABRICS["xcup"]))
    return max(ends)


def write_verilog(logic: CombLogic, folder: Path, cutoff: int = CUTOFF) -> Path:
    """da4ml's own Verilog of the pipelined logic; returns the folder of its sources."""
    VerilogModel(
        logic, "peer", folder, latency_cutoff=cutoff, part_name="xcvu13p-flga2577-2-e",
        clock_period=5,
    ).write()  # fmt: skip
    return next(folder.rglob("peer.v")).parent


def yosys(sources: Path, top: str = "peer") -> str:
    """Yosys's statistics of da4ml's Verilog, by the same commands as edgemix's own."""
    files = [f for f in sources.rglob("*.v") if f.name != "lookup_table.v"]
    script = "\n".join(
        [
            *(f"read_verilog -sv {f}" for f in files),
            f"synth_xilinx -family xcup -top {top} -run begin:prepare",
            "proc", "flatten", "opt_expr", "opt_clean", "opt -nodffe -nosdff", "wreduce",
            "peepopt", "opt_clean",
            "synth_xilinx -family xcup -noiopad -noclkbuf -run map_dsp:check",
            "tee -q -o cells.txt stat",
        ]
    )  # fmt: skip
    (sources / "synth.ys").write_text(script)
    subprocess.run(["yosys", "-q", "-s", "synth.ys"], cwd=sources, env=os.environ, check=True)
    return (sources / "cells.txt").read_text()
