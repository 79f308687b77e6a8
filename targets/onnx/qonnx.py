"""Program → QONNX: every rounding one Quant node, for FINN, hls4ml and others that read it.

Pappalardo et al., "QONNX: Representing Arbitrary-Precision Quantized Neural Networks", 2022. Quant
adds the zero point before it rounds, a Program after; both round half to even, so that ties of
values with odd zero points go the other way. Symmetric and power-of-two encodings are the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgemix import files
from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.extras import need
from edgemix.program import Program
from edgemix.targets.onnx.lower import exported

DOMAIN = "qonnx.custom_op.general"
OPSET = 18
IR_VERSION = 8
"""The one of opset 18: readers of QONNX bring runtimes that are a few years old."""


def write(program: Program, path: Path) -> int:
    """Write a quantized program as QONNX; returns how many tensors it quantizes.

    Raises:
        InputError: the program is not quantized, or an encoding has no counterpart (weights in
            groups, odd limits).
    """
    if not program.quantized:
        raise InputError("this program is not quantized", do="give program.edgemix of a deployment")
    onnx = need("onnx", extra="onnx")
    module = program.module()
    count = _as_quant(module)
    model = exported(program, module, OPSET)
    del model.functions[:]
    model.ir_version = IR_VERSION
    if all(o.domain != DOMAIN for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    files.write_bytes(path, model.SerializeToString())
    return count


def _as_quant(module: GraphModule) -> int:
    """One operator for every pair of quantize and dequantize nodes, in place."""
    count = 0
    rounded: dict[Node, Node] = {}
    for node in [n for n in module.graph.nodes if g.is_dequantize(n)]:
        encoding = g.encoding_of(module, node)
        (source,) = node.all_input_nodes[:1]
        if g.is_constant(node):
            value: Node = g.add_constant(
                module, node, f"{node.name}_real", g.dequantized(module, node)
            )
            new = _call(module, node, value, encoding)
        elif source in rounded:
            new = rounded[source]
        else:
            inner = source.args[0]
            assert isinstance(inner, Node)
            new = rounded[source] = _call(module, node, inner, encoding)
        count += 1
        node.replace_all_uses_with(new, propagate_meta=False)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return count


def _call(module: GraphModule, node: Node, value: Node, encoding: Encoding) -> Node:
    signed, narrow, zeros = _kind(encoding, node)
    shape: list[int] = []
    if encoding.axis is not None:
        shape = [1] * len(g.shape_of(node))
        shape[encoding.axis] = -1
    tensors = (
        torch.tensor(np.array(part), dtype=torch.float32).reshape(shape)
        for part in (
            encoding.scale if shape else encoding.scale[0], zeros if shape else zeros[0],
        )
    )  # fmt: skip
    names = ("scale", "zero_point")
    constants = [
        g.add_constant(module, node, f"{node.name}_{name}", tensor)
        for name, tensor in zip(names, tensors, strict=True)
    ]
    width = torch.tensor(float(encoding.bits))
    bits = g.add_constant(module, node, f"{node.name}_bits", width)
    with module.graph.inserting_before(node):
        new = module.graph.call_function(
            torch.onnx.ops.symbolic,
            (f"{DOMAIN}::Quant", (value, *constants, bits)),
            {
                "attrs": {"signed": int(signed), "narrow": int(narrow), "rounding_mode": "ROUND"},
                "dtype": torch.float32,
                "shape": list(g.shape_of(node)),
                "version": 1,
            },
        )
    new.meta = dict(node.meta)
    return new


def _kind(encoding: Encoding, node: Node) -> tuple[bool, bool, tuple[int, ...]]:
    """Signed, narrow, and zero points as QONNX counts: unsigned integers start at 0."""
    half = 1 << (encoding.bits - 1)
    limits = encoding.qmin, encoding.qmax
    if encoding.group is None:
        if limits == (-half, half - 1):
            return True, False, encoding.zero_point
        if limits == (1 - half, half - 1):
            return True, True, encoding.zero_point
        if limits == (0, 2 * half - 1):
            return False, False, encoding.zero_point
    raise InputError(
        f"QONNX has no integers from {encoding.qmin} to {encoding.qmax}"
        + (" with a scale for every group" if encoding.group is not None else ""),
        at=str(g.where(node)),
    )
