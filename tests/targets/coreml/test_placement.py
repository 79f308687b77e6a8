"""Each documented constraint, on a saved operation made to hit it and on one that barely does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgemix.errors import InputError
from edgemix.exporting import quiet
from edgemix.targets.coreml import constraints, placement
from edgemix.targets.coreml.constraints import CONSTRAINTS, REMARKS, UNITS
from edgemix.targets.coreml.nodes import Node, nodes
from edgemix.targets.coreml.package import Package, open_package
from edgemix.targets.coreml.placement import (
    NO_CONSTRAINT,
    Placement,
    placements,
    remarks,
    summarize,
)

with quiet():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import get_new_symbol, types

NOT_THE_ENGINE = ("GPU", "CPU")
Inputs = Mapping[str, Any]
Case = Callable[[Inputs, str], Any]


def f16(*shape: int) -> np.ndarray:
    return np.full(shape, 0.5, np.float16)


def scales(*shape: int, out: int = 4, into: int = 64) -> Any:
    """Weights of int8 with these scales."""
    data = np.ones((out, into, 1, 1), np.int8)
    return mb.constexpr_blockwise_shift_scale(data=data, scale=f16(*shape, 1, 1))


def palettized() -> Any:
    indices = np.ones((4, 4, 1, 1), types.np_uint4_dtype)
    return mb.constexpr_lut_to_dense(indices=indices, lut=f16(1, 1, 1, 1, 16, 1))


def by_eight(i: Inputs, name: str, *, activations: bool) -> Any:
    x = i["x"]
    if activations:
        q = mb.quantize(input=x, scale=np.float16(0.1), output_dtype="int8")
        x = mb.dequantize(input=q, scale=np.float16(0.1))
    return mb.conv(x=x, weight=scales(4, 1, into=4), name=name)


def recurrent(i: Inputs, name: str) -> Any:
    h = f16(2, 8)
    return mb.rnn(x=i["sequence"], initial_h=h, weight_ih=f16(8, 8), weight_hh=f16(8, 8), name=name)


def loop(i: Inputs, name: str) -> Any:
    def below(v: Any) -> Any:
        return mb.less(x=mb.reduce_max(x=v, keep_dims=False), y=np.float16(9))

    return mb.while_loop(
        _cond=below, _body=lambda v: mb.add(x=v, y=v), loop_vars=[i["x"]], name=name
    )


def branch(i: Inputs, name: str) -> Any:
    return mb.cond(
        pred=mb.less(x=mb.reduce_max(x=i["x"], keep_dims=False), y=np.float16(9)),
        _true_fn=lambda: mb.relu(x=i["x"]),
        _false_fn=lambda: mb.tanh(x=i["x"]),
        name=name,
    )


def searched(x: Any, name: str) -> Any:
    # Models give no uint16.
    return mb.cast(x=mb.reduce_argmax(x=x, axis=-1, output_dtype="uint16", name=name), dtype="fp16")


def compared(i: Inputs, name: str) -> Any:
    above = mb.greater(x=i["x"], y=np.float16(0), name=name)
    return mb.select(cond=above, a=i["x"], b=i["x"])


def scattered(i: Inputs, name: str) -> Any:
    at, updates = np.array([[0]], np.int32), f16(1, 4, 8, 32)
    return mb.scatter_nd(data=i["x"], indices=at, updates=updates, name=name)


INPUTS: Mapping[str, tuple[tuple[int, ...], Any]] = {
    "x": ((1, 4, 8, 32), types.fp16),
    "pair": ((2, 4, 8, 32), types.fp16),
    "kernels": ((4, 4, 1, 1), types.fp16),
    "channels": ((1, 64, 8, 32), types.fp16),
    "long": ((1, 16_385), types.fp16),
    "nearly": ((1, 16_384), types.fp16),
    "deep": ((1, 16_385, 2, 32), types.fp16),
    "volume": ((1, 4, 4, 8, 32), types.fp16),
    "sequence": ((3, 2, 8), types.fp16),
    "single": ((1, 4, 8, 32), types.fp32),
    "whole": ((4,), types.int32),
}

CASES: tuple[tuple[str, Case, Case], ...] = (
    (
        "float32",
        lambda i, n: mb.relu(x=i["single"], name=n),
        lambda i, n: mb.cast(x=i["single"], dtype="fp16", name=n),
    ),
    (
        "other types",
        lambda i, n: mb.add(x=i["whole"], y=i["whole"], name=n),
        compared,
    ),
    ("recurrent layers", recurrent, lambda i, n: mb.tanh(x=i["sequence"], name=n)),
    (
        "scatter",
        scattered,
        lambda i, n: mb.gather(x=i["x"], indices=np.array([1, 0], np.uint16), axis=1, name=n),
    ),
    (
        "computed reshape",
        lambda i, n: mb.reshape(x=i["x"], shape=mb.cast(x=i["whole"], dtype="int16"), name=n),
        lambda i, n: mb.reshape(x=i["x"], shape=[1, 32, 32], name=n),
    ),
    (
        "blocks of weights",
        lambda i, n: mb.conv(x=i["channels"], weight=scales(4, 2), name=n),
        lambda i, n: mb.conv(x=i["channels"], weight=scales(4, 1), name=n),
    ),
    ("loops", loop, lambda i, n: mb.add(x=i["x"], y=i["x"], name=n)),
    ("branches", branch, compared),
    (
        "no engine path",
        lambda i, n: mb.reduce_prod(x=i["x"], axes=[3], name=n),
        lambda i, n: mb.reduce_sum(x=i["x"], axes=[3], name=n),
    ),
    (
        "sine and cosine",
        lambda i, n: mb.sin(x=i["x"], name=n),
        lambda i, n: mb.exp(x=i["x"], name=n),
    ),
    (
        "top k",
        lambda i, n: mb.topk(x=i["x"], k=2, axis=3, output_indices_dtype="uint16", name=n)[0],
        lambda i, n: mb.reduce_max(x=i["x"], axes=[3], name=n),
    ),
    (
        "M1",
        lambda i, n: mb.affine(
            x=i["x"], transform_matrix=f16(1, 6), output_height=8, output_width=8,
            sampling_mode="bilinear", padding_mode="constant", padding_value=np.float16(0),
            coordinates_mode="normalized_minus_one_to_one", align_corners=True, name=n,
        ),
        lambda i, n: mb.upsample_nearest_neighbor(
            x=i["x"], scale_factor_height=4, scale_factor_width=4, name=n
        ),
    ),
    (
        "reflection",
        lambda i, n: mb.pad(x=i["x"], pad=[1, 1], mode="reflect", name=n),
        lambda i, n: mb.pad(x=i["x"], pad=[1, 1], mode="constant", name=n),
    ),
    (
        "three-dimensional convolution",
        lambda i, n: mb.conv(x=i["volume"], weight=f16(4, 4, 1, 1, 1), name=n),
        lambda i, n: mb.relu(x=i["volume"], name=n),
    ),
    (
        "five-axis product",
        lambda i, n: mb.matmul(x=i["volume"], y=i["volume"], transpose_y=True, name=n),
        lambda i, n: mb.matmul(x=i["x"], y=i["x"], transpose_y=True, name=n),
    ),
    (
        "wide kernels",
        lambda i, n: mb.conv(x=i["x"], weight=f16(4, 4, 1, 17), name=n),
        lambda i, n: mb.conv(x=i["x"], weight=f16(4, 4, 8, 16), name=n),
    ),
    (
        "computed kernels",
        lambda i, n: mb.conv(x=i["pair"], weight=i["kernels"], name=n),
        lambda i, n: mb.conv(x=i["x"], weight=i["kernels"], name=n),
    ),
    (
        "long axes",
        lambda i, n: mb.relu(x=i["long"], name=n),
        lambda i, n: mb.relu(x=i["nearly"], name=n),
    ),
    (
        "long arguments",
        lambda i, n: searched(i["nearly"], n),
        lambda i, n: searched(i["x"], n),
    ),
)  # fmt: skip
"""A constraint's name, an operation that it refuses, one that nothing refuses."""

FREE: Mapping[str, Case] = {
    "dilated convolution": lambda i, n: mb.conv(
        x=i["x"], weight=f16(4, 4, 2, 2), dilations=[2, 2], name=n
    ),
    "wide pool": lambda i, n: mb.max_pool(
        x=i["channels"], kernel_sizes=[8, 14], strides=[3, 3], pad_type="valid", name=n
    ),
    "broadcast": lambda i, n: mb.mul(x=i["x"], y=f16(4, 1, 1), name=n),
    "many channels of a convolution": lambda i, n: mb.conv(
        x=i["deep"], weight=f16(1, 16_385, 1, 1), name=n
    ),
    "wide compressed kernel": lambda i, n: mb.conv(
        x=i["x"],
        weight=mb.constexpr_blockwise_shift_scale(
            data=np.ones((4, 4, 1, 17), np.int8), scale=f16(4, 1, 1, 1)
        ),
        name=n,
    ),
}
"""What older lists refuse, and what is nearly refused."""

REMARKED: tuple[tuple[str, Case, Case], ...] = (
    (
        "eight bits by eight bits",
        lambda i, n: by_eight(i, n, activations=True),
        lambda i, n: by_eight(i, n, activations=False),
    ),
    (
        "palettized weights",
        lambda i, n: mb.conv(x=i["x"], weight=palettized(), name=n),
        lambda i, n: mb.conv(x=i["x"], weight=f16(4, 4, 1, 1), name=n),
    ),
    (
        "dilation",
        lambda i, n: mb.conv(x=i["x"], weight=f16(4, 4, 2, 1), dilations=[4, 1], name=n),
        lambda i, n: mb.conv(x=i["x"], weight=f16(4, 4, 2, 1), dilations=[3, 1], name=n),
    ),
    (
        "narrow last axes",
        lambda i, n: mb.reduce_mean(x=i["x"], axes=[3], keep_dims=True, name=n),
        lambda i, n: mb.reduce_mean(x=i["x"], axes=[2], keep_dims=True, name=n),
    ),
)

ELSEWHERE = frozenset(
    {"rank", "custom layers", "shapes by ranges", "weights of 1 GB", "shape by value",
     "width of states"}
)  # fmt: skip
"""Constraints on whole models, or that coremltools does not let one break."""


def saved(path: Path, function: Callable[..., Any], specs: list[Any], **options: Any) -> Package:
    """A program as it stands: no pass changes its operations."""
    target = ct.target.iOS18
    with quiet():
        model = ct.convert(
            mb.program(input_specs=specs, opset_version=target)(function),
            convert_to="mlprogram",
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            **options,
        )
        model.save(str(path))
    return open_package(path)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Node]:
    """All cases in one package, by the name of their operation."""
    made: dict[str, Case] = dict(FREE)
    for name, hit, miss in (*CASES, *REMARKED):
        made |= {f"{name} hit": hit, f"{name} miss": miss}
    names = {name: f"case{i}" for i, name in enumerate(made)}

    # The builder reads the inputs' names from the signature.
    def program(
        x: Any, pair: Any, kernels: Any, channels: Any, long: Any, nearly: Any, deep: Any,
        volume: Any, sequence: Any, single: Any, whole: Any,
    ) -> Any:  # fmt: skip
        inputs = dict(zip(INPUTS, (x, pair, kernels, channels, long, nearly, deep, volume,
                                   sequence, single, whole), strict=True))  # fmt: skip
        given = (case(inputs, names[name]) for name, case in made.items())
        return tuple(v[0] if isinstance(v, (list, tuple)) else v for v in given)

    specs = [mb.TensorSpec(shape, dtype=dtype) for shape, dtype in INPUTS.values()]
    folder = tmp_path_factory.mktemp("cases")
    package = saved(folder / "cases.mlpackage", program, specs)
    # Of several results, the first is called so.
    by_name = {node.name.removesuffix("_0"): node for node in nodes(package)}
    return {name: by_name[name_there] for name, name_there in names.items()}


def fired(node: Node) -> set[str]:
    return {row.name for row in CONSTRAINTS if row.applies(node)}


@pytest.mark.parametrize("name", [case[0] for case in CASES])
def test_a_constraint_fires_on_what_it_is_about_and_on_nothing_less(
    found: dict[str, Node], name: str
) -> None:
    assert fired(found[f"{name} hit"]) == {name}
    assert fired(found[f"{name} miss"]) == set()


@pytest.mark.parametrize("name", FREE)
def test_what_newer_measurements_accept_is_not_refused(found: dict[str, Node], name: str) -> None:
    assert fired(found[name]) == set()


@pytest.mark.parametrize("name", [case[0] for case in REMARKED])
def test_a_remark_refuses_nothing(found: dict[str, Node], name: str) -> None:
    (row,) = [row for row in REMARKS if row.name == name]
    assert row.refuses == ()
    assert row.applies(found[f"{name} hit"]) and not row.applies(found[f"{name} miss"])
    assert fired(found[f"{name} hit"]) == set()


def test_loops_and_branches_keep_what_is_in_them(found: dict[str, Node]) -> None:
    package = found["loops hit"].package
    inner = {p.op: p for p in placements(package) if p.op in ("tanh", "while_loop")}
    inner |= {n.op: placement._placed(n) for n in nodes(package) if n.path == ("cond", "tanh")}
    assert inner["while_loop"].units == ("CPU",)
    assert inner["tanh"].units == NOT_THE_ENGINE


def test_every_row_is_tested_and_has_a_source_that_one_can_open() -> None:
    tested = {case[0] for case in (*CASES, *REMARKED)} | ELSEWHERE
    assert [row.name for row in (*CONSTRAINTS, *REMARKS) if row.name not in tested] == []
    for row in (*CONSTRAINTS, *REMARKS):
        assert str(row.source).startswith(("Apple: ", "community finding: ")), row.name
        assert row.source.url.startswith("https://"), row.name


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("recurrent layers", ("lstm", "gru", "rnn")),
        ("scatter", ("scatter", "scatter_nd", "scatter_along_axis")),
        ("sine and cosine", ("sin", "cos")),
        ("M1", ("argsort", "resample", "affine", "crop_resize")),
        ("no engine path", constraints._NO_PATH),
    ],
)
def test_a_constraint_on_types_names_them_as_mil_does(
    found: dict[str, Node], name: str, ops: tuple[str, ...]
) -> None:
    with quiet():
        from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
    assert [op for op in ops if op not in SSAOpRegistry.core_ops] == []
    assert all(fired(replace(found["loops miss"], op=op)) == {name} for op in ops)


def convnet(path: Path) -> Package:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, groups=32), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 10), nn.Softmax(-1),
    ).eval()  # fmt: skip
    with quiet(), torch.no_grad():
        example = torch.zeros(1, 3, 64, 64)
        converted = ct.convert(
            torch.export.export(model, (example,)).run_decompositions({}),
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        )
        converted.save(str(path))
    return open_package(path)


def test_a_plain_convnet_is_expected_on_all_units(tmp_path: Path) -> None:
    found = placements(convnet(tmp_path / "net.mlpackage"))
    assert {p.op for p in found} >= {"cast", "conv", "linear", "softmax"}
    assert {(p.units, p.why, p.source) for p in found} == {(UNITS, NO_CONSTRAINT, "")}
    summary = summarize(found)
    assert summary.takes == {"Neural Engine": 1.0, "GPU": 1.0, "CPU": 1.0}
    assert summary.likely == {"Neural Engine": 1.0, "GPU": 0.0, "CPU": 0.0}
    assert (summary.switches, summary.obstacles, summary.cost) == (0, (), None)


def one(path: Path, **options: Any) -> Package:
    specs = [mb.TensorSpec((1, 4, 8, 32), dtype=types.fp16)]
    return saved(path, lambda x: mb.relu(x=x, name="y"), specs, **options)


def rows(package: Package) -> list[set[str]]:
    return [fired(node) for node in nodes(package)]


def test_six_axes_are_for_no_unit(tmp_path: Path) -> None:
    package = one(tmp_path / "a.mlpackage")
    function = package.program.functions["main"]
    (op,) = function.block_specializations[function.opset].operations
    for _ in range(2):
        op.outputs[0].type.tensorType.dimensions.add().constant.size = 1
    (found,) = placements(package)
    assert (found.units, found.likely) == ((), None)
    assert found.why == "Core ML has no tensors of more than five axes"


def test_custom_layers_are_for_cpu_and_gpu(tmp_path: Path) -> None:
    package = one(tmp_path / "a.mlpackage")
    assert rows(package) == [set()]
    function = package.program.functions["main"]
    function.block_specializations[function.opset].operations[0].type = "custom_layer"
    assert rows(package) == [{"custom layers"}]


def flexible(path: Path, shape: Any) -> Package:
    specs = [mb.TensorSpec((1, 4, get_new_symbol(), 32), dtype=types.fp16)]
    inputs = [ct.TensorType(name="x", shape=shape, dtype=np.float16)]
    return saved(path, lambda x: mb.relu(x=x), specs, inputs=inputs)


def test_ranges_of_shapes_are_refused_and_enumerated_shapes_are_not(tmp_path: Path) -> None:
    ranges = ct.Shape((1, 4, ct.RangeDim(4, 16, 8), 32))
    enumerated = ct.EnumeratedShapes([[1, 4, 4, 32], [1, 4, 8, 32]])
    assert rows(flexible(tmp_path / "a.mlpackage", ranges)) == [{"shapes by ranges"}]
    assert rows(flexible(tmp_path / "b.mlpackage", enumerated)) == [set()]


def test_a_slice_that_a_value_ends_is_refused(tmp_path: Path) -> None:
    def program(x: Any, end: Any) -> Any:
        whole = mb.cast(x=end, dtype="int32", name="whole")
        fixed = mb.slice_by_index(x=x, begin=[0, 0], end=[1, 2], name="fixed")
        return mb.slice_by_index(x=x, begin=[0, 0], end=whole, name="open"), fixed

    specs = [mb.TensorSpec((4, 32), dtype=types.fp16), mb.TensorSpec((2,), dtype=types.fp16)]
    package = saved(tmp_path / "a.mlpackage", program, specs)
    by_name = {node.name: fired(node) for node in nodes(package)}
    # The bound itself is an int32, as MIL demands.
    assert by_name["open"] == {"shape by value", "other types"}
    assert by_name["fixed"] == set()


@pytest.mark.parametrize(("width", "expected"), [(33, {"width of states"}), (64, set())])
def test_states_are_multiples_of_32_wide(tmp_path: Path, width: int, expected: set[str]) -> None:
    def program(x: Any, memory: Any) -> Any:
        held = mb.read_state(input=memory)
        return mb.coreml_update_state(state=memory, value=mb.add(x=x, y=held))

    specs = [
        mb.TensorSpec((1, width), dtype=types.fp16),
        mb.StateTensorSpec((1, width), dtype=types.fp16),
    ]
    package = saved(tmp_path / "a.mlpackage", program, specs)
    of_states = [fired(n) for n in nodes(package) if n.op in ("read_state", "write_state")]
    assert len(of_states) == 3 and all(found == expected for found in of_states)
    assert rows(package).count(set()) >= 1


def test_a_gigabyte_of_weights_is_too_much_for_a_phone(tmp_path: Path) -> None:
    package = one(tmp_path / "a.mlpackage")
    weights = package.folder / "weights" / "weight.bin"
    weights.parent.mkdir(exist_ok=True)
    for size, expected in ((10**9, set()), (10**9 + 1, {"weights of 1 GB"})):
        with weights.open("wb") as file:
            file.truncate(size)
        assert rows(package) == [expected]


def test_reasons_and_sources_add_up(tmp_path: Path) -> None:
    specs = [mb.TensorSpec((1, 4), dtype=types.fp32)]
    package = saved(tmp_path / "a.mlpackage", lambda x: mb.sin(x=x, name="y"), specs)
    (found,) = placements(package)
    assert found.units == NOT_THE_ENGINE
    assert found.why == (
        "it computes in float32, which bars the Neural Engine; "
        "the M1's and the M2's Neural Engines do not take it"
    )
    assert found.source.count("https://") == 2
    assert found.source.startswith("Apple: coremltools guide, Typed Execution, https://")
    assert "; community finding: ANE guide, " in found.source


def test_a_summary_counts_units_switches_and_obstacles(tmp_path: Path) -> None:
    def program(x: Any) -> Any:
        for turn in range(3):
            x = mb.relu(x=mb.sin(x=x, name=f"sin_{turn}"), name=f"relu_{turn}")
        return mb.mod(x=x, y=np.float16(2), name="last")

    specs = [mb.TensorSpec((1, 4, 8, 32), dtype=types.fp16)]
    package = saved(tmp_path / "a.mlpackage", program, specs)
    summary = summarize(placements(package))
    assert (summary.operations, summary.switches) == (7, 6)
    assert summary.takes == {"Neural Engine": 3 / 7, "GPU": 1.0, "CPU": 1.0}
    assert summary.likely == {"Neural Engine": 3 / 7, "GPU": 4 / 7, "CPU": 0.0}
    first, second = summary.obstacles
    assert (first.op, first.names) == ("sin", ("sin_0", "sin_1", "sin_2"))
    assert (second.op, second.names) == ("mod", ("last",))
    json.dumps(asdict(summary))
    assert summarize(()).takes == {"Neural Engine": 0.0, "GPU": 0.0, "CPU": 0.0}


def test_remarks_are_counted(found: dict[str, Node]) -> None:
    by_why = {r.why: r for r in remarks(found["dilation hit"].package)}
    assert (
        by_why["are dilated by more than 3, which costs; chains of 2 and 3 cost less"].operations
        == 1
    )


def test_a_preferred_unit_is_the_likely_one() -> None:
    expected = Placement("relu", "y", UNITS, NO_CONSTRAINT, "")
    assert expected.likely == "Neural Engine"
    assert replace(expected, units=NOT_THE_ENGINE).likely == "GPU"
    assert replace(expected, preferred="CPU").likely == "CPU"


def test_a_missing_function_is_named(tmp_path: Path) -> None:
    package = one(tmp_path / "a.mlpackage")
    with pytest.raises(InputError, match="a.mlpackage has no function 'step', but main"):
        placements(package, "step")


def test_an_operand_that_nothing_gives_is_an_error(tmp_path: Path) -> None:
    package = one(tmp_path / "a.mlpackage")
    function = package.program.functions["main"]
    (op,) = function.block_specializations[function.opset].operations
    op.inputs["x"].arguments[0].name = "nowhere"
    with pytest.raises(InputError, match="operation relu 'y' reads 'nowhere', which nothing"):
        placements(package)
