"""QONNX out and in: the same integers, by qonnx's own executor and by ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgemix import data, rewrites, sources, targets
from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.targets.onnx import qonnx

DOMAIN = "qonnx.custom_op.general"


def quantized_demo(recipe: str) -> Program:
    chosen = Recipe.load(recipe)
    program = rewrites.standard(sources.load("edgemix.models.demo:create"), chosen.split)
    samples = data.load("digits:train", program.inputs[0]).tensor()[:64]
    return quantize(program, calibrate(program, [samples]), chosen)


@pytest.mark.parametrize("recipe", ["fixed8", "int8", "w4a4"])
def test_what_goes_out_comes_back_and_qonnx_agrees(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    # qonnx makes models of the newest kind, which this ONNX Runtime does not read yet.
    monkeypatch.setattr(onnx, "IR_VERSION", 10)
    program = quantized_demo(recipe)
    path = tmp_path / "model.onnx"
    assert qonnx.write(program, path) > 50
    back = sources.load(str(path))
    assert back.output_encodings == program.output_encodings
    assert len(back.encodings) == len(program.encodings)
    x = data.load("digits:heldout", program.inputs[0]).tensor()[:100]
    expected = program.run(x)[0]
    assert torch.equal(back.run(x)[0], expected)
    model = ModelWrapper(str(path)).transform(InferShapes())
    name = model.graph.input[0].name
    for i in range(8):
        (found,) = execute_onnx(model, {name: x[i : i + 1].numpy()}).values()
        assert np.array_equal(found, expected[i : i + 1].numpy())


@pytest.mark.parametrize("recipe", ["int8", "fixed8"])
def test_the_onnx_targets_own_model_comes_back(
    recipe: str, program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    program = quantized_demo(recipe)
    artifact = targets.load("onnx").lower(program, program_file(program), tmp_path)
    back = sources.load(str(tmp_path / artifact.main))
    x = data.load("digits:heldout", program.inputs[0]).tensor()[:100]
    assert torch.equal(back.run(x)[0], program.run(x)[0])


def graph(nodes: list[Any], constants: dict[str, np.ndarray], path: Path, shape: tuple[Any, ...] = (1, 4)) -> str:  # fmt: skip
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)])  # fmt: skip
    path.write_bytes(model.SerializeToString())
    return str(path)


def quant(x: str, y: str, bits: str = "eight", scale: str = "s", **more: Any) -> Any:
    options = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **more}
    return helper.make_node("Quant", [x, scale, "zero", bits], [y], domain=DOMAIN, **options)


NUMBERS = {
    "s": np.array(0.25), "zero": np.array(0.0), "eight": np.array(8.0), "three": np.array(3.0),
    "wide": np.array(40.0), "row": np.array([0.5, -0.5, 1.0]), "rows": np.array([[0.5, 0.25, 1.0]]),
    "w": np.arange(12).reshape(4, 3) / 8 - 0.7, "four": np.full(4, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
def test_a_product_as_other_tools_write_it(turned: bool, tmp_path: Path) -> None:
    """MatMul with weights [in, out] (or [out, in] behind a Transpose), then Add: one operator."""
    weight = NUMBERS["w"].T if turned else NUMBERS["w"]
    scale = "cols" if turned else "rows"
    nodes = [
        quant("x", "xq"),
        quant("w", "wq", "three", scale, narrow=1),
        *([helper.make_node("Transpose", ["wq"], ["wt"], perm=[1, 0])] if turned else []),
        helper.make_node("MatMul", ["xq", "wt" if turned else "wq"], ["p"]),
        helper.make_node("Add", ["p", "row"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        quant("r", "y", signed=0, scale="s"),
    ]
    constants = {**NUMBERS, "w": weight, "cols": NUMBERS["rows"].T}
    program = sources.load(graph(nodes, constants, tmp_path / "m.onnx"))
    operators = [n for n in program.module().graph.nodes if n.target in g.LINEAR]
    assert len(operators) == 1 and len(operators[0].args) == 3
    x = torch.tensor([[0.3, -0.125, 200.0, 0.375], [-1.0, 0.625, -0.1, 2.0]])
    coded = np.clip(np.rint(x.numpy() / 0.25), -128, 127) * 0.25
    weights = np.clip(np.rint(NUMBERS["w"] / NUMBERS["rows"]), -3, 3) * NUMBERS["rows"]
    bias = np.rint(NUMBERS["row"] / (0.25 * NUMBERS["rows"][0])) * 0.25 * NUMBERS["rows"][0]
    expected = np.clip(np.rint(np.maximum(coded @ weights + bias, 0) / 0.25), 0, 255) * 0.25
    assert np.array_equal(program.run(x)[0].numpy(), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Einsum", ["x"], ["y"])], "the operator Einsum is not known"),
        ([quant("x", "y", "wide")], "it has 40 bits; 1 to 32 are possible"),
        ([quant("x", "y", rounding_mode="FLOOR")], "it rounds by FLOOR; ROUND is what there is"),
        ([quant("x", "y", scale="four")], "values have a scale for every channel"),
        ([quant("x", "y", scale="nothing")], "its scale or zero point is no constant: 'nothing'"),
    ],
)  # fmt: skip
def test_what_cannot_come_in_is_named(nodes: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        sources.load(graph(nodes, NUMBERS, tmp_path / "m.onnx"))


def test_damaged_files_and_open_axes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    nodes = [quant("x", "q"), helper.make_node("Relu", ["q"], ["y"])]
    whole = Path(graph(nodes, NUMBERS, path)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is no ONNX file, or it is damaged"):
        sources.load(str(path))
    with pytest.raises(InputError, match="axis 1 of the input x has no size"):
        sources.load(graph(nodes, NUMBERS, path, ("n", "m")))
    assert sources.load(graph(nodes, NUMBERS, path, ("n", 4))).inputs[0].shape == (1, 4)


def test_only_quantized_programs_go_out(float_program: Program, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this program is not quantized"):
        qonnx.write(float_program, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
