"""Program → ``model.tflite``. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgemix.encoding import Encoding
from edgemix.errors import ToolError
from edgemix.exporting import quiet
from edgemix.extras import need, versions
from edgemix.graph import aten
from edgemix.program import Program, TensorSpec
from edgemix.targets.base import Artifact, Binding, bindings
from edgemix.targets.composites import whole_softmax
from edgemix.targets.constants import real_biases, real_constants
from edgemix.targets.tflite.borders import real_borders
from edgemix.targets.tflite.comparisons import plain_comparisons
from edgemix.targets.tflite.islands import integer_islands, tables
from edgemix.targets.tflite.kernels import between_integers, strips
from edgemix.targets.tflite.ranks import plain_ranks

MAIN = "model.tflite"
SIGNATURE = "serving_default"
_APPROXIMATE = frozenset({aten.mish.default})
"""Functions that the converter takes apart, and each of whose parts an integer kernel rounds."""
_NORMS = (aten.layer_norm.default, aten.group_norm.default)


def lower(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the model; the answer is the Artifact as JSON."""
    converter = need("litert_torch", extra="tflite")
    program = Program.load(Path(request["program"]))
    path = Path(request["folder"]) / MAIN
    module = program.module()
    plain_ranks(module)
    if program.quantized:
        plain_comparisons(module)
    joined = 0 if program.states else whole_softmax(module)
    norms = sum(n.target in _NORMS for n in module.graph.nodes)
    islands, floats = 0, dict[str, int]()
    if program.states and program.quantized:
        islands = integer_islands(module)
    else:
        tables(module, _APPROXIMATE)
        floats = between_integers(module)
    strips(module)
    real_biases(module)
    real_constants(module)
    module.recompile()
    with quiet():
        edge = converter.convert(
            _Named(module, program),
            sample_args=(),
            sample_kwargs=dict(
                zip((s.name for s in program.takes), program.example(), strict=True)
            ),
            quant_config=_static() if program.quantized else None,
        )
        edge.export(str(path))
    if program.real_borders:
        real_borders(path)
    inputs, outputs = _details(path)
    softmax = f"{joined} put together again" if joined else "whole"
    artifact = Artifact(
        target="tflite",
        program=program.digest,
        main=MAIN,
        **bindings(
            program,
            lambda _, spec, encoding: _binding(spec, inputs[spec.name], encoding),
            lambda _, spec, encoding: _binding(spec, outputs[spec.name], encoding),
        ),
        toolchain=versions("torch", "litert-torch", "ai-edge-litert"),
        facts={
            "signature": SIGNATURE,
            **({"norms in float": norms} if program.encodings and norms else {}),
            **({"integer linear operators": islands} if program.states else {}),
            **floats,
            **({} if program.states else {"softmax": softmax}),
        },
    )
    _check_outputs(program, artifact)
    return artifact.to_json()


class _Named(nn.Module):
    """The graph with its tensors by name, so that the model's signature has the same names.

    The converter calls ``eval``, which an exported module refuses.
    """

    def __init__(self, module: nn.Module, program: Program) -> None:
        super().__init__()
        self.module = module
        self._takes = [spec.name for spec in program.takes]
        self._gives = [spec.name for spec in program.gives]

    def forward(self, **tensors: Any) -> Any:
        found = self.module(*(tensors[name] for name in self._takes))
        values = found if isinstance(found, (tuple, list)) else (found,)
        return dict(zip(self._gives, values, strict=True))

    def train(self, mode: bool = True) -> _Named:
        self.training = mode
        return self


def _static() -> Any:
    """The converter's switch for graphs that hold static quantize and dequantize nodes already."""
    pt2e = need("litert_torch.quantize.pt2e_quantizer", extra="tflite")
    config = need("litert_torch.quantize.quant_config", extra="tflite")
    symmetric = pt2e.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    return config.QuantConfig(pt2e_quantizer=pt2e.PT2EQuantizer().set_global(symmetric))


def _details(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The signature's inputs and outputs by name."""
    litert = need("ai_edge_litert.interpreter", extra="tflite")
    runner = litert.Interpreter(str(path)).get_signature_runner(SIGNATURE)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    return (
        {name: {**detail, "name": name} for name, detail in inputs.items()},
        {name: {**detail, "name": name} for name, detail in outputs.items()},
    )


def _binding(spec: TensorSpec, detail: Mapping[str, Any], encoding: Encoding | None) -> Binding:
    scale, zero_point = detail["quantization"]
    dtype = detail["dtype"].__name__
    if dtype == "int8":
        encoding = Encoding.per_tensor(scale, int(zero_point), dtype=dtype)
    return Binding(spec, detail["name"], spec.layout, dtype, encoding)


def _check_outputs(program: Program, artifact: Artifact) -> None:
    """The artifact's outputs must have the program's scales, or integers could not be compared."""
    for binding, encoding in zip(artifact.outputs, program.output_encodings, strict=True):
        if encoding is not None and binding.encoding != encoding:
            raise ToolError(
                f"the converter changed the output {binding.spec.name} "
                f"from {encoding} to {binding.encoding}"
            )
