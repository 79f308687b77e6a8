"""Program → ``model.mlpackage``. Runs in a child process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.fx import Graph, GraphModule, Node

from edgemix.exporting import export, quiet
from edgemix.extras import need, versions
from edgemix.graph import aten
from edgemix.grids import wide_grids
from edgemix.program import Program, StateSpec, TensorSpec
from edgemix.targets.base import Artifact, plain_bindings
from edgemix.targets.composites import whole_softmax
from edgemix.targets.constants import real_biases
from edgemix.targets.coreml import flexible, precision, stateful
from edgemix.targets.coreml.audit import constexpr_types, operations
from edgemix.targets.coreml.blocks import teach_blocks
from edgemix.targets.coreml.decompositions import table
from edgemix.targets.coreml.deployment import deployment
from edgemix.targets.coreml.package import open_package
from edgemix.targets.coreml.placement import placements, summarize
from edgemix.targets.coreml.shipping import Shipping
from edgemix.targets.coreml.sparse import has_sparse_weights, with_sparse
from edgemix.targets.results import own_results

MAIN = "model.mlpackage"
_INEXACT = {"common::fuse_elementwise_to_batchnorm"}
"""A pass of coremltools 9 that scales by 1 − 5e-6: it makes a product and a sum one batch norm of
variance 1, and leaves that its default epsilon, 1e-5. Sixteen bits do not see it."""


def lower(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the package; the answer is the Artifact as JSON.

    Inputs and outputs stay float: Core ML takes no int8 there.
    """
    ct = need("coremltools", extra="coreml")
    program = Program.load(Path(request["program"]))
    path = Path(request["folder"]) / MAIN
    module = program.module()
    shipping = Shipping.from_json(request["shipping"])
    joined = 0 if program.states else whole_softmax(module)
    if program.states:
        wide_grids(module)
    real_biases(module)
    own_results(module, _again)
    module.recompile()
    needs = deployment(program, module)
    with quiet():
        teach_blocks()
        model = _converted(ct, program, module, needs.target, shipping)
        if program.palettes:
            model = _with_palettes(ct, model)
        elif has_sparse_weights(module):
            model = with_sparse(model)
        _describe(model, program, shipping)
        model.save(str(path))
    native: dict[str, Any] = {}
    if program.states:
        held = stateful.write(module, program, path.with_name(stateful.MAIN), ct)
        native = {"states held by Core ML": held}
    kinds = operations(path)
    softmax = f"{joined} put together again" if joined else "whole"
    artifact = Artifact(
        target="coreml",
        program=program.digest,
        main=MAIN,
        **plain_bindings(program),
        toolchain=versions("torch", "coremltools"),
        facts={
            "deployment target": str(needs),
            **_chosen(shipping),
            "floats": precision.described(program),
            **({} if program.states else {"softmax": softmax}),
            "compressed weights": constexpr_types(path),
            **_expected_units(path),
            "operations": kinds,
            **native,
        },
    )
    return artifact.to_json()


def _converted(
    ct: Any, program: Program, module: GraphModule, target: str, shipping: Shipping
) -> Any:
    if shipping.batches:
        exported = flexible.batches(program, module, shipping.batches)
    elif shipping.shapes:
        exported = flexible.shapes(program, module, shipping.shapes)
    else:
        exported = export(module, program.example())
    kinds, passes = ct.precision, ct.PassPipeline.DEFAULT
    if precision.wide(program):
        passes.remove_passes(_INEXACT)
    with _unchecked_passes():
        return ct.convert(
            exported.run_decompositions(table()),
            pass_pipeline=passes,
            minimum_deployment_target=getattr(ct.target, target),
            compute_precision=kinds.FLOAT32 if precision.wide(program) else kinds.FLOAT16,
            inputs=[_input(ct, spec, shipping) for spec in program.takes],
            outputs=[ct.TensorType(name=s.name) for s in program.gives],
        )


@contextlib.contextmanager
def _unchecked_passes() -> Iterator[None]:
    """Leave out that coremltools checks the whole program after each of its hundred passes.

    That is a quarter of a conversion, and most of a large one's. What comes out is read, executed
    and compared anyway.
    """
    kind = need("coremltools.converters.mil.mil", extra="coreml").Program
    checked = kind.validate
    kind.validate = lambda *_, **__: None
    try:
        yield
    finally:
        kind.validate = checked


def _again(graph: Graph, x: Node) -> Node:
    """Coremltools drops copies, and two outputs would have one name."""
    return graph.call_function(aten.maximum.default, (x, x))


def _input(ct: Any, spec: TensorSpec | StateSpec, shipping: Shipping) -> Any:
    shape: Any = spec.shape
    shapes = [[n, *spec.shape[1:]] for n in shipping.batches]
    if shipping.shapes:
        shapes = [list(spec.shape), *(list(s.shape) for s in shipping.shapes)]
    if shapes:
        shape = ct.EnumeratedShapes(shapes=shapes, default=shapes[0])
    if shipping.image is None:
        return ct.TensorType(name=spec.name, shape=shape)
    image = shipping.image
    bias = list(image.bias) * (image.channels if len(image.bias) == 1 else 1)
    return ct.ImageType(
        name=spec.name,
        shape=shape,
        scale=image.scale,
        bias=bias if image.channels == 3 else bias[0],
        color_layout=getattr(ct.colorlayout, image.color),
    )


def _with_palettes(ct: Any, model: Any) -> Any:
    """Weights that take few values as tables and places in them: nothing is rounded."""
    optimize = need("coremltools.optimize.coreml", extra="coreml")
    every = optimize.OpPalettizerConfig(mode="unique", weight_threshold=0)
    return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=every))


def _chosen(shipping: Shipping) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if shipping.image is not None:
        found["image"] = asdict(shipping.image)
    if shipping.batches:
        found["batches"] = list(shipping.batches)
    if shipping.shapes:
        found["further shapes"] = [list(s.shape) for s in shipping.shapes]
    return found


def _expected_units(path: Path) -> dict[str, Any]:
    """Where it will run, from documented constraints; `edgemix inspect` shows all of it."""
    summary = summarize(placements(open_package(path)))
    units = {unit: f"{share:.0%} of operations" for unit, share in summary.takes.items()}
    kept = {o.op: f"{len(o.names)}, {o.why}" for o in summary.obstacles}
    return {
        "units expected to take it": units,
        **({"kept off the Neural Engine": kept} if kept else {}),
    }


def _describe(model: Any, program: Program, shipping: Shipping) -> None:
    model.author, model.license = shipping.author, shipping.licence
    if shipping.labels:
        model.user_defined_metadata["classes"] = json.dumps(shipping.labels)
    model.short_description = f"edgemix {program.digest[:12]} from {program.origin.source}"
    model.user_defined_metadata["edgemix.version"] = versions("edgemix")["edgemix"]
    model.user_defined_metadata["edgemix.recipe"] = program.recipe
    model.user_defined_metadata["edgemix.program"] = program.digest
