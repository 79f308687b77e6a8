"""What the firmware cannot take, said before anything is generated."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edgemix.graph import Where
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.fpga import support
from edgemix.targets.fpga.dataflow import clamped
from edgemix.targets.fpga.hardware import Interface
from edgemix.targets.hls4ml.emit import emitter

MAX_MULTIPLY_ACCUMULATES = 4_000_000
"""io_parallel gives every one of them a place in the fabric; far fewer fit a real part, and the
compiler runs out of memory not far above."""


def findings(program: Program, interface: Interface = "io_parallel") -> tuple[Finding, ...]:
    """Nodes without a layer, values that are no fixed point, and a model too large to unroll."""
    found = support.findings(program, takes, "hls4ml", MAX_MULTIPLY_ACCUMULATES)
    if program.states and interface == "io_stream":
        why = "a step reads its states at once, which streams do not give it"
        found += (Finding(Where("program"), why, "leave --io at io_parallel"),)
    return found


def takes(module: GraphModule, node: Node) -> bool:
    """Whether there is a layer for an operator."""
    return emitter(module, clamped(node) or node) is not None
