"""What ONNX cannot take."""

from __future__ import annotations

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.composites import complex_values

_NO_OPERATOR = {
    "grid_sampler_2d_backward": "gradients are not part of inference",
    "_cudnn_rnn": "a CUDA kernel",
}


def findings(program: Program) -> tuple[Finding, ...]:
    """Nodes without an ONNX operator; the exporter's own refusals come as its error."""
    module = program.shared
    lacking = (
        Finding(g.where(node), _NO_OPERATOR[g.op_name(node)], "export the model in evaluation mode")
        for node in g.float_ops(module)
        if g.op_name(node) in _NO_OPERATOR
    )
    return (*lacking, *complex_values(module, "ONNX's operators have"))
