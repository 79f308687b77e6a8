"""Program → hls4ml layer list: every quantized operator becomes a layer, views become wires."""

from __future__ import annotations

from collections import Counter

from edgemix import graph as g
from edgemix.errors import UnsupportedError
from edgemix.program import Program
from edgemix.targets.fpga import dataflow
from edgemix.targets.fpga.dataflow import Step
from edgemix.targets.fpga.hardware import Interface
from edgemix.targets.hls4ml import kernels
from edgemix.targets.hls4ml.emit import emitter
from edgemix.targets.hls4ml.firmware import Builder, Firmware, Value, channels_last

_MAX_COPIES = 7
"""Of a stream, in hls4ml 1.3's pass that makes them."""


def build(
    program: Program, interface: Interface = "io_parallel"
) -> tuple[Firmware, tuple[Value, ...]]:
    """The layer list of a quantized program, and what it gives: outputs, then states.

    Raises:
        UnsupportedError: a node has no layer (``supports`` finds these before), or a stream has too
            many readers.
    """
    builder = Builder(program.module(), interface)
    for step in dataflow.steps(builder.module):
        if isinstance(step, Step):
            _operator(builder, step)
        elif step.op == "placeholder":
            builder.input(step)
        else:
            builder.view(step)
    given = []
    for spec, node in zip(program.gives, dataflow.results(builder.module), strict=True):
        value = builder.values[node]
        # A layer of its own makes the variable exactly the program's tensor, channels last.
        order = channels_last(value.index.shape)
        given.append(builder.ordered(value, order, spec.name, force=True))
    if builder.streaming:
        _check_copies(builder.firmware)
    return builder.firmware, tuple(given)


def _check_copies(firmware: Firmware) -> None:
    readers = Counter(name for layer in firmware.layers for name in layer.get("inputs", ()))
    for name, count in readers.items():
        if count > _MAX_COPIES:
            raise UnsupportedError(
                f"{count} layers read it, hls4ml copies a stream {_MAX_COPIES} times at most",
                at=str(firmware.origins[name]),
                do="leave --io at io_parallel",
            )


def _operator(builder: Builder, step: Step) -> None:
    builder.firmware.now = g.where(step.node)
    emit = emitter(builder.module, step.anchor, streaming=builder.streaming)
    if emit is None:
        raise UnsupportedError("hls4ml has no layer for this operator", at=str(g.where(step.node)))
    value = emit(builder, step.anchor, step.encoding, step.fixed)
    builder.values[step.anchor] = builder.values[step.node] = value
    if step.clamps and step.fixed.signed:
        # An unsigned result has clamped already; a signed one, shared with an addition, is
        # clamped after rounding, which is the same: rounding keeps the order and zero.
        builder.values[step.node] = kernels.clamp(builder, step.node, value)
