"""Compressed weights against coremltools: its compressors write them, its numpy decompresses them.

Bit for bit: a product of an integer and a float16 is exact in float32, and rounded once on both
sides. Only an offset that is itself a float16 is subtracted in float16 by coremltools.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as compress
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil.ops.defs.iOS16 import constexpr_ops as old
from coremltools.converters.mil.mil.ops.defs.iOS18 import compression as new

from edgemix.errors import InputError
from edgemix.targets.coreml.evaluate import Evaluator
from edgemix.targets.coreml.kernels.base import Kernel
from edgemix.targets.coreml.package import open_package

# Where coremltools makes a model it leaves a folder to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")

Run = Callable[..., tuple[Any, ...]]
Compress = Callable[[Any], Any]

CONVOLUTION = np.random.default_rng(0).normal(0, 1, (16, 8, 3, 3)).astype(np.float32)
MATRIX = np.random.default_rng(1).normal(0, 1, (24, 40)).astype(np.float32)


def model(target: ct.target, precision: ct.precision = ct.precision.FLOAT16) -> Any:
    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1, 8, 5, 5)), mb.TensorSpec(shape=(2, 40))],
        opset_version=target,
    )
    def program(x: Any, y: Any) -> Any:
        return mb.conv(x=x, weight=CONVOLUTION), mb.linear(x=y, weight=MATRIX)

    return ct.convert(
        program, convert_to="mlprogram", minimum_deployment_target=target,
        compute_precision=precision, skip_model_load=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return {
        "iOS16": model(ct.target.iOS16),
        "iOS17": model(ct.target.iOS17),
        "iOS18": model(ct.target.iOS18),
        "iOS16 fp32": model(ct.target.iOS16, ct.precision.FLOAT32),
        "iOS18 fp32": model(ct.target.iOS18, ct.precision.FLOAT32),
    }


def palettized(joint: bool = False, **options: Any) -> Compress:
    config = compress.OpPalettizerConfig(weight_threshold=0, **options)
    return lambda m: compress.palettize_weights(
        m, compress.OptimizationConfig(global_config=config), joint_compression=joint
    )


def quantized(joint: bool = False, **options: Any) -> Compress:
    config = compress.OpLinearQuantizerConfig(weight_threshold=0, **options)
    return lambda m: compress.linear_quantize_weights(
        m, compress.OptimizationConfig(global_config=config), joint_compression=joint
    )


def pruned(sparsity: float) -> Compress:
    config = compress.OpMagnitudePrunerConfig(weight_threshold=0, target_sparsity=sparsity)
    return lambda m: compress.prune_weights(m, compress.OptimizationConfig(global_config=config))


GROUPS = {"granularity": "per_grouped_channel", "group_size": 8}
BLOCKS = {"granularity": "per_block", "block_size": 8}

CASES: dict[str, tuple[str, tuple[Compress, ...], set[str]]] = {
    **{
        f"{target} palette of {bits} bits, {mode}": (
            target, (palettized(mode=mode, nbits=bits),), {"lut_to_dense"},
        )
        for target, bits, mode in [
            ("iOS16", 1, "kmeans"), ("iOS16", 2, "uniform"), ("iOS17", 4, "kmeans"),
            ("iOS16", 6, "kmeans"), ("iOS16", 8, "uniform"), ("iOS16 fp32", 6, "uniform"),
            ("iOS18", 1, "uniform"), ("iOS18", 2, "kmeans"), ("iOS18", 3, "kmeans"),
            ("iOS18", 4, "uniform"), ("iOS18", 6, "kmeans"), ("iOS18", 8, "kmeans"),
            ("iOS18 fp32", 3, "uniform"),
        ]
    },
    **{
        f"{target} {mode} {dtype} {granularity}": (
            target, (quantized(mode=mode, dtype=dtype, granularity=granularity),), {operation},
        )
        for targets, operation in [
            (("iOS16", "iOS17", "iOS16 fp32"), "affine_dequantize"),
            (("iOS18", "iOS18 fp32"), "blockwise_shift_scale"),
        ]
        for target in targets
        for mode, dtype, granularity in [
            ("linear", "int8", "per_tensor"), ("linear", "uint8", "per_channel"),
            ("linear_symmetric", "int8", "per_channel"),
        ]
    },
    **{
        f"blocks of {dtype}, {mode}": (
            target, (quantized(mode=mode, dtype=dtype, **BLOCKS),), {"blockwise_shift_scale"},
        )
        for target, mode, dtype in [
            ("iOS18", "linear", "int4"), ("iOS18", "linear", "uint4"),
            ("iOS18", "linear_symmetric", "int4"), ("iOS18 fp32", "linear", "int8"),
        ]
    },
    "palettes of groups": (
        "iOS18", (palettized(mode="kmeans", nbits=4, **GROUPS),), {"lut_to_dense"}
    ),
    "palettes of vectors": (
        "iOS18", (palettized(mode="kmeans", nbits=4, cluster_dim=4),), {"lut_to_dense"}
    ),
    "palettes of vectors of groups": (
        "iOS18", (palettized(mode="kmeans", nbits=3, cluster_dim=2, **GROUPS),), {"lut_to_dense"}
    ),
    "palettes with scales": (
        "iOS18", (palettized(mode="kmeans", nbits=4, enable_per_channel_scale=True),),
        {"lut_to_dense", "blockwise_shift_scale"},
    ),
    "iOS16 pruned": ("iOS16", (pruned(0.6),), {"sparse_to_dense"}),
    "iOS18 pruned": ("iOS18", (pruned(0.6),), {"sparse_to_dense"}),
    "pruned, palettes": (
        "iOS18", (pruned(0.6), palettized(True, mode="kmeans", nbits=4)),
        {"lut_to_sparse", "sparse_to_dense"},
    ),
    "pruned, palettes of groups": (
        "iOS18", (pruned(0.4), palettized(True, mode="kmeans", nbits=2, **GROUPS)),
        {"lut_to_sparse", "sparse_to_dense"},
    ),
    "pruned, quantized": (
        "iOS18", (pruned(0.6), quantized(True, mode="linear_symmetric", dtype="int8")),
        {"sparse_blockwise_shift_scale", "sparse_to_dense"},
    ),
    "pruned, quantized in blocks": (
        "iOS18", (pruned(0.3), quantized(True, mode="linear_symmetric", dtype="int4", **BLOCKS)),
        {"sparse_blockwise_shift_scale", "sparse_to_dense"},
    ),
    "palettes that are quantized": (
        "iOS18",
        (palettized(mode="kmeans", nbits=4, **GROUPS),
         quantized(True, mode="linear_symmetric", dtype="int8", granularity="per_tensor")),
        {"lut_to_dense", "blockwise_shift_scale"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_coremltools_compresses(case: str, plain: dict[str, Any], tmp_path: Path) -> None:
    target, steps, operations = CASES[case]
    compressed = plain[target]
    for step in steps:
        compressed = step(compressed)
    compressed.save(str(tmp_path / "m.mlpackage"))
    package = open_package(tmp_path / "m.mlpackage")
    assert operations == {
        op.type.removeprefix("constexpr_")
        for op in _block(package.spec).operations
        if op.type.startswith("constexpr_")
    }
    found = _weights(Evaluator.load(package))
    plainly = compress.decompress_weights(compressed)._mil_program.functions["main"]
    for name, shape in (("conv", CONVOLUTION.shape), ("linear", MATRIX.shape)):
        (op,) = plainly.find_ops(op_type=name)
        expected = op.weight.val
        assert expected.shape == shape and len(np.unique(expected)) > 1
        # The kernel of a float16 operation gets its operands in float32.
        np.testing.assert_array_equal(found[name].numpy(), expected.astype(np.float32))


def test_a_decompressed_model_computes_the_same(plain: dict[str, Any], tmp_path: Path) -> None:
    compressed = quantized(True, mode="linear_symmetric", dtype="int4", **BLOCKS)(
        pruned(0.3)(plain["iOS18"])
    )
    results = []
    inputs = torch.randn(1, 8, 5, 5), torch.randn(2, 40)
    for i, made in enumerate((compressed, compress.decompress_weights(compressed))):
        made.save(str(tmp_path / f"{i}.mlpackage"))
        evaluator = Evaluator.load(open_package(tmp_path / f"{i}.mlpackage"))
        results.append(evaluator.run(dict(zip(evaluator.inputs, inputs, strict=True))))
    for one, other in zip(results[0].values(), results[1].values(), strict=True):
        assert torch.equal(one, other)


def _block(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def _weights(evaluator: Evaluator) -> dict[str, torch.Tensor]:
    return {s.type: s.fixed["weight"] for s in evaluator._block.steps if "weight" in s.fixed}


def test_the_documented_palettes(kernel: Run) -> None:
    """Cases 1, 2.1 and 2.2 of coremltools' ``constexpr_lut_to_dense`` of iOS 18."""
    indices = np.array([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3], np.uint8).reshape(6, 2)
    lut = np.array([1, 5, 9, 13, 2, 10, 18, 26], np.float16).reshape(2, 1, 4, 1)
    (found,) = kernel("constexpr_lut_to_dense", ["FLOAT16"], indices=indices, lut=lut)
    assert found.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]
    indices = np.array([0, 0, 1, 0, 1, 1, 0, 0], np.uint8).reshape(2, 2, 2)
    lut = np.array([10, 11, 12, 20, 21, 22], np.int8).reshape(1, 1, 1, 2, 3)
    given = {"indices": indices, "lut": lut}
    (found,) = kernel("constexpr_lut_to_dense", ["INT8"], vector_axis=1, **given)
    assert found[0].tolist() == [[10, 10], [11, 11], [12, 12], [20, 10], [21, 11], [22, 12]]
    (found,) = kernel("constexpr_lut_to_dense", ["INT8"], vector_axis=-1, **given)
    assert found[0].tolist() == [[10, 11, 12, 10, 11, 12], [20, 21, 22, 10, 11, 12]]


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(("size", "blocks"), [(1, (1, 2, 1)), (2, (2, 1, 3)), (3, (1, 1, 1))])
def test_palettes_of_places_that_are_set(
    size: int, blocks: tuple[int, ...], axis: int, kernel: Run
) -> None:
    generator = np.random.default_rng(0)
    mask = (generator.random((4, 2, 3)) < 0.5).astype(np.uint8)
    places = generator.integers(0, 4, int(mask.sum())).astype(np.uint8)
    lut = generator.normal(0, 1, (*blocks, 4, size)).astype(np.float16)
    vector = {} if size == 1 else {"vector_axis": np.int32(axis)}
    declared = ["UINT1", "FLOAT16"]
    found = kernel(
        "constexpr_lut_to_sparse", declared, indices_mask=mask, indices_nonzero_data=places,
        lut=lut, **vector,
    )  # fmt: skip
    # Coremltools' own numpy takes a negative axis only where it is told to repeat a mask.
    expected = new.constexpr_lut_to_sparse.decompress(
        mask, places, lut, axis % 3 if vector else None
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)
    (dense,) = kernel(
        "constexpr_sparse_to_dense", ["FLOAT16"], nonzero_data=found[1], mask=found[0]
    )
    expected_dense = new.constexpr_sparse_to_dense.decompress(expected[1], expected[0])
    np.testing.assert_array_equal(dense.numpy(), expected_dense)


def test_the_documented_scales_of_places_that_are_set(kernel: Run) -> None:
    """The example of ``constexpr_sparse_blockwise_shift_scale``."""
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]], np.uint8)
    given = {
        "data_mask": mask,
        "nonzero_data": np.array([10, 11, 3, 4, 5, 6, 7, 8, 9], np.int8),
        "scale": np.array([[0.1, 0.2, 0.3, 0.4]], np.float32),
        "offset": np.array([[1, 2, 3, 4]], np.int8),
    }
    found = kernel("constexpr_sparse_blockwise_shift_scale", ["UINT1", "FLOAT32"], **given)
    expected = new.constexpr_sparse_blockwise_shift_scale.decompress(*given.values())
    np.testing.assert_array_equal(found[0].numpy(), expected[0])
    np.testing.assert_array_equal(found[1].numpy(), expected[1])
    assert found[1][:2].tolist() == pytest.approx([0.9, 1.8])


def test_an_offset_that_is_a_float(kernel: Run) -> None:
    generator = np.random.default_rng(0)
    data = generator.integers(-128, 128, (4, 6)).astype(np.int8)
    scale, offset = generator.uniform(0.1, 2, (2, 2, 3)).astype(np.float32)
    given = {"data": data, "scale": scale, "offset": offset}
    (found,) = kernel("constexpr_blockwise_shift_scale", ["FLOAT32"], **given)
    expected = new.constexpr_blockwise_shift_scale.decompress(data, scale, offset)
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("zero", [np.uint8(7), np.float32(0.5)])
@pytest.mark.parametrize("axis", [0, -1])
def test_weights_of_ios_16(axis: int, zero: Any, kernel: Run) -> None:
    generator = np.random.default_rng(0)
    data = generator.integers(0, 256, (4, 6)).astype(np.uint8)
    scale = generator.uniform(0.1, 2, data.shape[axis]).astype(np.float16)
    (found,) = kernel(
        "constexpr_affine_dequantize", ["FLOAT16"], quantized_data=data, zero_point=zero,
        scale=scale, axis=axis,
    )  # fmt: skip
    expected = old.constexpr_affine_dequantize.decompress(data, np.asarray(zero), scale, axis)
    np.testing.assert_array_equal(found.numpy(), expected, strict=True)
    source = np.array([0.1, 65504, -0.0], np.float16)
    (wide,) = kernel("constexpr_cast", ["FLOAT32"], source_val=source, output_dtype="fp32")
    np.testing.assert_array_equal(wide.numpy(), source.astype(np.float32), strict=True)


def test_what_does_not_fit(kernel: Run) -> None:
    scale = np.ones((3, 1), np.float32)
    with pytest.raises(InputError, match="3 blocks do not divide an axis of 4"):
        kernel(
            "constexpr_blockwise_shift_scale",
            ["FLOAT32"],
            data=np.zeros((4, 2), np.int8),
            scale=scale,
        )
    with pytest.raises(InputError, match="2 values for 1 places"):
        kernel(
            "constexpr_sparse_to_dense", ["FLOAT32"], nonzero_data=np.ones(2, np.float32),
            mask=np.array([0, 1, 0], np.uint8),
        )  # fmt: skip
    with pytest.raises(InputError, match=r"a table of shape \(4, 1\) for indices of 1 axes"):
        kernel(
            "constexpr_lut_to_dense", ["FLOAT32"], indices=np.zeros(3, np.uint8),
            lut=np.zeros((4, 1), np.float32),
        )  # fmt: skip


def test_kernels_of_constants_are_all_tried() -> None:
    from edgemix.targets.coreml.kernels.constants import KERNELS

    tables: dict[str, Kernel] = dict(KERNELS)
    tried = {f"constexpr_{o}" for _, _, operations in CASES.values() for o in operations}
    assert set(tables) - tried == {"quantize", "dequantize", "constexpr_cast"}
