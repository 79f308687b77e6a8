"""Packages that are none, that are damaged, and that were made to do harm."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.proto import Model_pb2

from edgemix.errors import EdgemixError, InputError, UnsupportedError
from edgemix.targets.coreml import evaluate
from edgemix.targets.coreml.evaluate import Evaluator, operations
from edgemix.targets.coreml.package import Package, open_package

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")

SPEC = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with weights, control flow and a list."""
    kernels = np.random.default_rng(0).normal(0, 1, (8, 4, 3, 3)).astype(np.float32)
    specs = [mb.TensorSpec(shape=(1, 4, 6, 6)), mb.TensorSpec(shape=(1,), dtype=types.int32)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS18)
    def program(x: Any, n: Any) -> Any:
        # Named, since coremltools counts through all that a process builds.
        x = mb.relu(x=mb.conv(x=x, weight=kernels, pad_type="same"), name="positive")
        x = mb.reduce_mean(x=x, axes=[2, 3])
        n = mb.squeeze(x=n)
        z = mb.cond(
            pred=mb.greater(x=n, y=2),
            _true_fn=lambda: mb.add(x=x, y=1.0),
            _false_fn=lambda: mb.mul(x=x, y=2.0),
            name="either",
        )
        _, total = mb.while_loop(
            _cond=lambda i, a: mb.less(x=i, y=n),
            _body=lambda i, a: (mb.add(x=i, y=1), mb.add(x=a, y=z)),
            loop_vars=(0, z),
        )
        kept = mb.make_list(init_length=2, elem_shape=(1, 8))
        kept = mb.list_write(ls=kept, index=0, value=total)
        _, places = mb.topk(x=mb.list_read(ls=kept, index=0), k=3)
        first, _ = mb.split(x=total, num_splits=2, axis=1)
        return first, mb.gather(x=x, indices=places, axis=1)

    model = ct.convert(
        program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32, skip_model_load=True,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("made") / "model.mlpackage"
    model.save(str(path))
    return path


@pytest.fixture
def package(made: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "model.mlpackage"))


def inputs(steps: int = 3) -> dict[str, torch.Tensor]:
    return {"x": torch.ones(1, 4, 6, 6), "n": torch.tensor([steps], dtype=torch.int32)}


def test_undamaged(package: Path) -> None:
    found = Evaluator.load(open_package(package)).run(inputs())
    assert [list(v.shape) for v in found.values()] == [[1, 4], [1, 1, 3]]


def refused(path: Path, kind: type[EdgemixError], message: str) -> None:
    with pytest.raises(EdgemixError) as caught:
        Evaluator.load(open_package(path)).run(inputs())
    assert type(caught.value) is kind
    assert message in caught.value.message


def test_what_is_no_package(tmp_path: Path, package: Path) -> None:
    file = tmp_path / "model.mlmodel"
    file.write_bytes(b"\x08\x01")
    archive = tmp_path / "model.zip"
    archive.write_bytes(b"PK")
    compiled = tmp_path / "model.mlmodelc"
    compiled.mkdir()
    renamed = tmp_path / "compiled"
    renamed.mkdir()
    (renamed / "coremldata.bin").write_bytes(b"")
    empty = tmp_path / "empty.mlpackage"
    empty.mkdir()
    refused(tmp_path / "none.mlpackage", InputError, "none.mlpackage does not exist")
    refused(file, InputError, "model.mlmodel is a file, and an .mlpackage is a folder")
    refused(file, InputError, "minimum deployment target iOS 15 or later")
    refused(archive, InputError, "unpack it, if it is an archive")
    refused(compiled, UnsupportedError, "is a compiled model, whose program only Core ML reads")
    refused(renamed, UnsupportedError, "give the .mlpackage that it was compiled from")
    refused(empty, InputError, "empty.mlpackage has no Manifest.json: it is no Core ML package")


def manifest(root: Any = "1", path: Any = "com.apple.CoreML/model.mlmodel") -> dict[str, Any]:
    return {"rootModelIdentifier": root, "itemInfoEntries": {"1": {"path": path}}}


NO_ROOT = "the manifest of model.mlpackage names no root model"
OUTSIDE = "the manifest's root model lies outside its package\n  try: do not trust this package"
MANIFESTS: dict[str, tuple[Any, str]] = {
    "cut off": (b'{"rootModel', "the manifest of model.mlpackage is damaged: Unterminated string"),
    "no text": (b"\xff\xfe\x00", "the manifest of model.mlpackage is damaged"),
    "nested too deep": (b"[" * 10**5, "the manifest of model.mlpackage is damaged"),
    "no table": ([], "the manifest of model.mlpackage is damaged: it is no table"),
    "empty": ({}, NO_ROOT),
    "another root": (manifest(root="2"), NO_ROOT),
    "a root that is no name": (manifest(root=["1"]), NO_ROOT),
    "items that are none": ({"rootModelIdentifier": "1", "itemInfoEntries": ["1"]}, NO_ROOT),
    "an item that is none": ({"rootModelIdentifier": "1", "itemInfoEntries": {"1": 1}}, NO_ROOT),
    "no path": (manifest(path=""), OUTSIDE),
    "up": (manifest(path="../../../../etc/passwd"), OUTSIDE),
    "up and back": (manifest(path="../Data/com.apple.CoreML/model.mlmodel"), OUTSIDE),
    "absolute": (manifest(path="/etc/passwd"), OUTSIDE),
    "another file": (manifest(path="other"), "model.mlpackage lacks its root model other"),
    "a zero byte": (manifest(path="a\0b"), "the manifest's root model is no path: embedded null"),
    "a long name": (manifest(path="a" * 5000), "the manifest's root model is no path: "),
    "a path that is no text": (manifest(path={"a": 1}), "lacks its root model {'a': 1}"),
}  # fmt: skip


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(case: str, package: Path) -> None:
    content, message = MANIFESTS[case]
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (package / "Manifest.json").write_bytes(data)
    refused(package, InputError, message)


def test_links_out_of_the_package(package: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(package / SPEC, outside)
    (package / SPEC).symlink_to(outside)
    refused(package, InputError, OUTSIDE)
    (package / SPEC).unlink()
    (package / SPEC).symlink_to(package / SPEC)
    refused(package, InputError, "the manifest's root model is no path: Symlink loop")
    (package / SPEC).unlink()
    shutil.move(outside, package / SPEC)
    shutil.move(package / WEIGHTS, outside)
    (package / WEIGHTS).symlink_to(outside)
    refused(package, InputError, "weights/weight.bin' lies outside its package")


def test_programs_that_are_damaged(package: Path) -> None:
    whole = (package / SPEC).read_bytes()
    damaged = "the program of model.mlpackage is damaged or encrypted"
    for data in (b"", whole[:-1], whole[:1000], random.Random(0).randbytes(4096)):
        (package / SPEC).write_bytes(data)
        refused(package, InputError, damaged)
    (package / SPEC).unlink()
    refused(
        package, InputError, "model.mlpackage lacks its root model com.apple.CoreML/model.mlmodel"
    )


def test_models_of_other_types(package: Path) -> None:
    spec = Model_pb2.Model()
    spec.specificationVersion = 4
    spec.neuralNetwork.layers.add().name = "old"
    (package / SPEC).write_bytes(spec.SerializeToString())
    refused(
        package,
        UnsupportedError,
        "model.mlpackage holds a model of type neuralNetwork, not an ML Program\n"
        "  try: convert it again with a minimum deployment target of iOS 15 or later",
    )


def test_weights_that_are_missing_or_cut_off(package: Path) -> None:
    whole = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(whole[:-10])
    refused(package, InputError, "the file is cut off, or the package was changed: save it again")
    (package / WEIGHTS).write_bytes(whole[:10])
    refused(package, InputError, "weight.bin has 10 bytes, fewer than its header")
    (package / WEIGHTS).unlink()
    refused(package, InputError, "model.mlpackage lacks the weight file 'weights/weight.bin'")


@pytest.fixture
def change(package: Path) -> Callable[[Callable[[Any], Any]], Path]:
    """Changes the main block of the program."""

    def apply(edit: Callable[[Any], Any]) -> Path:
        spec = Model_pb2.Model.FromString((package / SPEC).read_bytes())
        edit(_main(spec))
        (package / SPEC).write_bytes(spec.SerializeToString())
        return package

    return apply


def _main(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def first(block: Any, type_: str, output: str | None = None) -> Any:
    return next(
        op
        for op in operations(block)
        if op.type == type_ and (output is None or output in op.outputs[0].name)
    )


def weights(block: Any) -> Any:
    return next(
        op.attributes["val"]
        for op in operations(block)
        if op.type == "const" and op.attributes["val"].WhichOneof("value") == "blobFileValue"
    )


def rename(place: Any, name: str) -> Any:
    place.blobFileValue.fileName = name


def declare(block: Any, *sizes: int) -> Any:
    dimensions = first(block, "relu").outputs[0].type.tensorType.dimensions
    for dimension, size in zip(dimensions, sizes, strict=False):
        dimension.constant.size = size


def retype(op: Any, type_: str) -> Any:
    op.type = type_


def reread(op: Any, parameter: str, name: str) -> Any:
    op.inputs[parameter].arguments[0].name = name


def immediate(block: Any, output: str) -> Any:
    return first(block, "const", output).attributes["val"].immediateValue.tensor


PROGRAMS: dict[str, tuple[Callable[[Any], Any], type[EdgemixError], str]] = {
    "weights elsewhere": (
        lambda b: rename(weights(b), "@model_path/../../../secret"), InputError,
        "the program's weight file '@model_path/../../../secret' lies outside its package",
    ),
    "weights of the system": (
        lambda b: rename(weights(b), "/etc/passwd"), InputError,
        "the program's weight file '/etc/passwd' lies outside its package",
    ),
    "weights behind a zero byte": (
        lambda b: rename(weights(b), "@model_path/a\0"), InputError, "is no path: embedded null",
    ),
    "weights of another type": (
        lambda b: setattr(weights(b).type.tensorType, "dataType", 10), InputError,
        "float16[8, 4, 3, 3], its weights are stored as float32",
    ),
    "weights of another size": (
        lambda b: setattr(weights(b).type.tensorType.dimensions[0].constant, "size", 9), InputError,
        "is float32[9, 4, 3, 3]: 1,296 bytes, but 1,152 are stored",
    ),
    "a constant that does not fit": (
        lambda b: immediate(b, "axes").ints.values.extend([1, 2]), InputError,
        "2 values, but 4 are stored",
    ),
    "a constant without a value": (
        lambda b: first(b, "const", "axes").attributes["val"].Clear(), InputError,
        "a constant has no value",
    ),
    "more than memory holds": (
        lambda b: declare(b, 2**20, 2**12), InputError,
        "declares a tensor of type float32[1048576, 4096, 6, 6], larger than 8 GiB",
    ),
    "sizes that overflow": (
        lambda b: declare(b, *[2**64 - 1] * 4), InputError, "larger than 8 GiB",
    ),
    "another shape than declared": (
        lambda b: declare(b, 1, 7), InputError,
        "has the shape [1, 8, 6, 6], declared is float32[1, 7, 6, 6]",
    ),
    "a type that is none": (
        lambda b: setattr(first(b, "relu").outputs[0].type.tensorType, "dataType", 999), InputError,
        "the model declares a tensor of type 999, which is none",
    ),
    "a name that nothing gives": (
        lambda b: reread(first(b, "relu"), "x", "nothing"), InputError,
        "reads 'nothing', which nothing before it gives",
    ),
    "a name that something later gives": (
        lambda b: reread(first(b, "relu"), "x", first(b, "split").outputs[0].name), InputError,
        "which nothing before it gives",
    ),
    "an output that nothing gives": (
        lambda b: b.outputs.append("nothing"), InputError,
        "the program gives nothing, which nothing computes",
    ),
    "an operation that none knows": (
        lambda b: (retype(first(b, "relu"), "telepathy"), retype(first(b, "add"), "magic")),
        UnsupportedError, "edgemix does not evaluate the operations magic, telepathy",
    ),
    "a parameter that none knows": (
        lambda b: first(b, "relu").inputs["mood"].CopyFrom(first(b, "relu").inputs["x"]),
        UnsupportedError, "has mood, which edgemix does not know",
    ),
    "a parameter that lacks": (
        lambda b: first(b, "relu").inputs.pop("x"), InputError, "operation relu 'positive' lacks x",
    ),
    "a parameter given twice": (
        lambda b: first(b, "relu").inputs["x"].arguments.add(name="x"), InputError,
        "operation relu 'positive': its x is given 2 times",
    ),
    "a tensor where a number belongs": (
        lambda b: reread(first(b, "topk"), "k", first(b, "const", "axes").outputs[0].name),
        InputError, "its k is a tensor of shape [2], where one number belongs",
    ),
    "a branch that lacks": (
        lambda b: first(b, "cond").blocks.pop(), InputError,
        "operation cond 'either' is damaged: its parts do not fit together",
    ),
    "a branch that gives nothing": (
        lambda b: first(b, "cond").blocks[0].ClearField("outputs"), InputError, "do not fit together",
    ),
    "a loop that changes too much": (
        lambda b: first(b, "while_loop").blocks[0].inputs.pop(), InputError, "do not fit together",
    ),
    "a state that is none": (
        lambda b: retype(first(b, "relu"), "read_state"), InputError, "do not fit together",
    ),
    "no axis": (
        lambda b: immediate(b, "axes").ints.values.__setitem__(0, 9), InputError,
        "operation reduce_mean",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PROGRAMS)
def test_programs(case: str, change: Callable[[Callable[[Any], Any]], Path]) -> None:
    edit, kind, message = PROGRAMS[case]
    refused(change(edit), kind, message)


def test_an_output_that_is_given_twice(change: Callable[[Callable[[Any], Any]], Path]) -> None:
    """Coremltools writes that of a module that returns a tensor twice."""
    loaded = Evaluator.load(open_package(change(lambda b: b.outputs.append(b.outputs[0]))))
    found = loaded.run(inputs())
    assert list(found) == list(loaded.outputs) and len(found) == 2


def test_functions_that_are_not_there(package: Path) -> None:
    with pytest.raises(InputError, match="has no function 'other', but main"):
        Evaluator.load(open_package(package), "other")
    spec = copy.deepcopy(open_package(package).spec)
    spec.mlProgram.functions["main"].opset = "CoreML99"
    with pytest.raises(InputError, match="has no block for its opset 'CoreML99'"):
        Evaluator.load(Package(package, spec, package / "model.mlmodel"))


def test_loops_that_do_not_end(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MOST_TURNS", 50)
    loaded = Evaluator.load(open_package(package))
    loaded.run(inputs(steps=49))
    with pytest.raises(
        InputError, match=r"operation while_loop '\w+' does not end within 50 turns"
    ):
        loaded.run(inputs(steps=51))


def test_inputs_that_do_not_fit(package: Path) -> None:
    loaded = Evaluator.load(open_package(package))
    with pytest.raises(InputError, match="the model's input 'n' is missing"):
        loaded.run({"x": torch.ones(1, 4, 6, 6)})
    with pytest.raises(InputError, match=r"the input 'x' has the shape \[1, 4, 6\], declared is"):
        loaded.run(inputs() | {"x": torch.ones(1, 4, 6)})


INDEXED: dict[str, dict[str, Any]] = {
    "gather": {"x": np.zeros((3, 4), np.float32)},
    "gather_nd": {"x": np.zeros((3, 4), np.float32)},
    "gather_along_axis": {"x": np.zeros((3, 1), np.float32)},
    "scatter": {"data": np.zeros((3, 4), np.float32), "updates": np.zeros((2, 4), np.float32)},
    "scatter_nd": {"data": np.zeros((3, 4), np.float32), "updates": np.zeros((2, 4), np.float32)},
    "scatter_along_axis": {"data": np.zeros((3, 1), np.float32), "updates": np.zeros((2, 1), np.float32)},
}  # fmt: skip


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("index", [3, -4, 2**31 - 1, -(2**31)])
def test_indices_out_of_range(name: str, index: int, kernel: Callable[..., Any]) -> None:
    """Core ML leaves it undefined where ``validate_indices`` is false; here nothing is read."""
    indices = np.array([0, index], np.int32)
    if name != "gather" and name != "scatter":
        indices = indices[:, None]
    with pytest.raises(InputError, match=f"{name} 'y0': an index lies outside an axis of 3"):
        kernel(name, ["FLOAT32"], indices=indices, **INDEXED[name])


def test_lists_out_of_range(kernel: Callable[..., Any]) -> None:
    (fixed,) = kernel("make_list", ["LIST"], init_length=2, dynamic_length=False, elem_shape=[1])
    (free,) = kernel("make_list", ["LIST"], init_length=0)
    one = np.ones(1, np.float32)
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("list_read", {"ls": fixed, "index": 2}, "place 2 lies outside a list of 2"),
        ("list_read", {"ls": fixed, "index": -1}, "place -1 lies outside a list of 2"),
        ("list_write", {"ls": fixed, "index": 2, "value": one}, "place 2 lies behind a list of 2"),
        ("list_write", {"ls": free, "index": -1, "value": one}, "place -1 lies before a list of 0"),
        ("list_write", {"ls": free, "index": 2**30, "value": one}, "a list of 1073741825 tensors"),
    ]
    for name, given, message in cases:
        with pytest.raises(InputError, match=message):
            kernel(name, ["LIST"], **given)
    with pytest.raises(InputError, match="a list of 1073741824 tensors"):
        kernel("make_list", ["LIST"], init_length=2**30)


def changes(spec: Any, generator: random.Random) -> None:
    """Something at random taken away, renamed, or told to be something else."""
    block = _main(spec)
    every = operations(block)
    op = generator.choice(every)
    names = [o.name for other in every for o in other.outputs] + ["nothing", ""]
    parameter = generator.choice(list(op.inputs) or [""])
    inner = generator.choice(list(op.blocks)) if op.blocks else block
    kinds: list[Callable[[], Any]] = [
        lambda: op.inputs.pop(parameter),
        lambda: op.inputs[parameter].arguments.add(name=generator.choice(names)),
        lambda: op.inputs[parameter].ClearField("arguments"),
        lambda: setattr(op.inputs[parameter].arguments[0], "name", generator.choice(names)),
        lambda: op.outputs.pop(),
        lambda: op.blocks.pop(),
        lambda: inner.outputs.pop(),
        lambda: inner.inputs.pop(),
        lambda: inner.operations.pop(),
        lambda: setattr(op, "type", generator.choice([o.type for o in every])),
        lambda: op.attributes["val"].Clear(),
        lambda: op.outputs[0].type.Clear(),
        lambda: setattr(op.outputs[0].type.tensorType, "dataType", generator.randrange(60)),
        lambda: op.outputs[0].type.tensorType.dimensions.pop(),
        lambda: op.attributes["val"].immediateValue.tensor.ints.values.append(-1),
        lambda: setattr(op.attributes["val"].blobFileValue, "offset", generator.randrange(999)),
    ]
    generator.choice(kinds)()


def test_only_our_errors_escape(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MOST_TURNS", 20)
    sound = open_package(package)
    refused_ = 0
    for seed in range(400):
        generator = random.Random(seed)
        spec = copy.deepcopy(sound.spec)
        for _ in range(generator.randint(1, 3)):
            try:
                changes(spec, generator)
            except (IndexError, KeyError):
                continue  # There was nothing to take away.
        try:
            Evaluator.load(Package(package, spec, sound.model)).run(inputs())
        except EdgemixError:
            refused_ += 1
    assert refused_ > 100


def test_only_our_errors_escape_of_flipped_bits(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "MOST_TURNS", 20)
    for place, seeds in ((SPEC, range(150)), (WEIGHTS, range(30))):
        whole = (package / place).read_bytes()
        for seed in seeds:
            generator, data = random.Random(seed), bytearray(whole)
            for _ in range(generator.randint(1, 4)):
                # Of the weights only headers can be wrong.
                at = generator.randrange(len(data) if place == SPEC else 128)
                data[at] ^= 1 << generator.randrange(8)
            (package / place).write_bytes(data)
            try:
                Evaluator.load(open_package(package)).run(inputs())
            except EdgemixError:
                continue
        (package / place).write_bytes(whole)
