"""Program → ``model.onnx``. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.exporting import export, quiet
from edgemix.extras import need, versions
from edgemix.program import Program
from edgemix.targets.base import Artifact, plain_bindings
from edgemix.targets.onnx.sparse import shrink
from edgemix.targets.real import pools

_qd = torch.ops.quantized_decomposed
MAIN = "model.onnx"
OPSET = 21
"""The first in which a quantizer may have 16 bits."""
_SPARSIFYING = "sparsify"
"""The step that makes zeros on purpose: other sparse constants stay as every runtime reads them."""


def lower(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the model; the answer is the Artifact as JSON."""
    onnx = need("onnx", extra="onnx")
    program = Program.load(Path(request["program"]))
    path = Path(request["folder"]) / MAIN
    module = program.module()
    pools(module)
    groups_as_rows(module)
    unsigned_activations(module)
    narrow_ranges(module)
    module.recompile()
    model = exported(program, module, OPSET)
    onnx.checker.check_model(model, full_check=True)  # before: it has no shapes of sparse ones
    pruned = any(step.name == _SPARSIFYING for step in program.history)
    sparse = shrink(model) if pruned else 0
    onnx.save(model, str(path))
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    artifact = Artifact(
        target="onnx",
        program=program.digest,
        main=MAIN,
        **plain_bindings(program),
        toolchain=versions("torch", "onnx", "onnxscript", "onnxruntime"),
        facts={
            "opset": opset,
            "activations": "uint8",
            **({"sparse initializers": sparse} if sparse else {}),
        },
    )
    return artifact.to_json()


def exported(program: Program, module: GraphModule, opset: int) -> Any:
    """The model that torch's exporter makes of a program's changed graph, without its notes."""
    need("onnxscript", extra="onnx")
    with quiet():
        made = torch.onnx.export(
            export(module, program.example()),
            dynamo=True,
            input_names=[spec.name for spec in program.takes],
            output_names=[spec.name for spec in program.gives],
            verbose=False,
            opset_version=opset,
        )
    assert made is not None
    model = made.model_proto
    _strip(model)
    return model


def groups_as_rows(module: GraphModule) -> None:
    """Weights with a scale for every group of columns, in place: each group a row, then reshaped.

    ONNX Runtime has kernels for ONNX's own blocks in some products only; a reshaped constant is a
    constant again when the session starts.
    """
    for node in list(module.graph.nodes):
        if not g.is_dequantize(node):
            continue
        encoding = g.encoding_of(module, node)
        if encoding.group is None:
            continue
        (source,) = node.all_input_nodes[:1]
        integers = g.constant(module, source)
        rows = g.add_constant(
            module, node, f"{node.name}_rows", integers.reshape(-1, encoding.group)
        )
        scales = g.add_constant(module, node, f"{node.name}_scales", torch.tensor(encoding.scale))
        zeros = g.add_constant(
            module, node, f"{node.name}_zeros", torch.tensor(encoding.zero_point)
        )
        limits = encoding.qmin, encoding.qmax, integers.dtype
        with module.graph.inserting_before(node):
            real = module.graph.call_function(
                _qd.dequantize_per_channel.default, (rows, scales, zeros, 0, *limits)
            )
            whole = module.graph.call_function(g.aten.reshape.default, (real, list(integers.shape)))
        node.replace_all_uses_with(whole)
        module.graph.erase_node(node)


def unsigned_activations(module: GraphModule) -> None:
    """int8 → uint8 in place, zero points moved by 128: the same values, the same steps.

    ONNX Runtime has integer kernels for uint8 activations on every CPU; with int8 on x86 it falls
    back to float wherever a value has two readers. Weights of linear operators stay int8.
    """
    for node in list(module.graph.nodes):
        quantizes, dequantizes = g.is_quantize(node), g.is_dequantize(node)
        if not (quantizes or dequantizes) or node.args[-1] is not torch.int8:
            continue
        encoding = g.encoding_of(module, node)
        if encoding.qmin >= 0:  # a spike is what it is in either type
            node.args = (*node.args[:-1], torch.uint8)
            continue
        if encoding.axis is not None:
            continue
        source = node.args[0]
        limits = encoding.qmin + 128, encoding.qmax + 128
        if dequantizes and source.op == "get_attr":
            if not _elementwise_constant(node):
                continue
            shifted = (g.constant(module, source).to(torch.int16) + 128).to(torch.uint8)
            name = f"{str(source.target).replace('.', '_')}_unsigned"
            module.register_buffer(name, shifted)
            with module.graph.inserting_before(node):
                source = module.graph.get_attr(name)
        node.args = (source, node.args[1], encoding.zero_point[0] + 128, *limits, torch.uint8)


def narrow_ranges(module: GraphModule) -> None:
    """Clamp, in place, what is quantized to fewer bits than its type has: ONNX fills the type."""
    for node in list(module.graph.nodes):
        if not g.is_quantize(node):
            continue
        encoding = g.encoding_of(module, node)
        limits = torch.iinfo(node.args[-1])  # type: ignore[arg-type]
        if encoding.axis is not None or (encoding.qmin, encoding.qmax) == (limits.min, limits.max):
            continue
        if (encoding.qmin, encoding.qmax) == (0, 1):  # a spike is 0 or 1 without being made so
            continue
        lowest, highest = encoding.limits
        with module.graph.inserting_before(node):
            clamped = module.graph.call_function(
                g.aten.clamp.default, (node.args[0], lowest, highest)
            )
        node.args = (clamped, *node.args[1:])


def _elementwise_constant(node: Any) -> bool:
    return node.args[0].op == "get_attr" and all(u.target not in g.LINEAR for u in node.users)


def _strip(model: Any) -> None:
    """Leave out the exporter's notes: most of the bytes, and stack traces of this machine."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
