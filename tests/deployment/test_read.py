"""``deploy.toml``: what it becomes, and how mistakes in it are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgemix.deployment import over, parse, read
from edgemix.errors import InputError
from edgemix.order import Order
from edgemix.targets.fpga.hardware import Hardware

WHOLE = """\
out = "build"
targets = ["onnx", "rtl"]
devices = ["iphone12", "boards/own.toml"]
threads = 2

[model]
source = "model.pt2"
chunk = 4
stream = 500

[data]
calibrate = "images:pictures/calibration"
evaluate = "heldout.npz"
samples = 64
evaluate_samples = 10

[recipe]
name = "int8"
quality = "fast"
bits = "w6a8"

[hardware]
part = "xcvu13p-flga2577-2-e"
clock = "200MHz"
io = "io_stream"
layers = ["stages.0.*=reuse:4"]

[budget]
onnx = "5ms"
iphone12 = "2ms"
own = "9ms"
size = "5MB"
lut = "50%"
rtl.dsp = 100
max_drop = 0.5
contract = { onnx = "exact" }

[search]
trials = 3
recipes = ["int8", "recipes/own.toml"]
variants = [{ source = "other.pt2" }, { source = "timm:resnet18", name = "small" }]
"""
BARE = """\
out = "build"
[model]
source = "package.module:factory"
[data]
calibrate = "digits:train"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "own.toml").write_text('name = "own"\n')
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    return tmp_path


def test_every_table_reaches_the_order(folder: Path) -> None:
    (folder / "deploy.toml").write_text(WHOLE)
    found = read(folder / "deploy.toml")
    assert found.order == Order(
        source=str(folder / "model.pt2"), targets=("onnx", "rtl"), out=folder / "build",
        evaluate=str(folder / "heldout.npz"), calibrate=f"images:{folder}/pictures/calibration",
        recipe="int8", quality="fast", bits="w6a8", samples=64, evaluate_samples=10, step=True,
        chunk=4, stream=500, devices=("iphone12", str(folder / "boards/own.toml")),
        budgets=("onnx=5ms", "iphone12=2ms", "own=9ms", "size=5MB", "lut=50%", "rtl.dsp=100"),
        contracts=("onnx=exact",), max_drop=0.5, threads=2,
        hardware=Hardware("xcvu13p-flga2577-2-e", 5.0, interface="io_stream",
                          layers=found.order.hardware.layers),
    )  # fmt: skip
    assert [k.reuse for k in found.order.hardware.layers] == [4]
    assert found.search is not None
    assert found.search.recipes == ["int8", str(folder / "recipes/own.toml")]
    names = [(v.name, v.source) for v in found.search.variants]
    assert names == [("other.pt2", str(folder / "other.pt2")), ("small", "timm:resnet18")]


def test_little_is_needed(tmp_path: Path) -> None:
    order = parse(BARE, Path("deploy.toml")).order
    assert order == Order(
        source="package.module:factory", targets=("onnx", "tflite", "coreml"), out=Path("build"),
        calibrate="digits:train", evaluate="digits:train",
    )  # fmt: skip
    assert parse(BARE, Path("deploy.toml"), tmp_path).order.out == tmp_path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('iphone12 = "2ms"', 'iphone12 = "2"', 'deploy.toml:30: budget.iphone12: "2" has no unit\n  try: write it like 2ms'),
        ('onnx = "5ms"', "onnx = 5", 'deploy.toml:29: budget.onnx: "5" has no unit'),
        ('size = "5MB"', 'size = "5ms"', 'deploy.toml:32: budget.size: "5ms" is a time'),
        ('size = "5MB"', 'sise = "5MB"', "deploy.toml:32: budget.sise: nothing has this name\n  try: did you mean size?"),
        ('own = "9ms"', 'iphone11 = "9ms"', "budget.iphone11: nothing has this name\n  try: did you mean iphone12?"),
        ("rtl.dsp = 100", 'rtl.dsp = "9ms"', "deploy.toml:34: budget.rtl.dsp: \"9ms\" is neither a count nor a share"),
        ("rtl.dsp = 100", "rtl.dsp = [1]", "deploy.toml:34: budget.rtl.dsp: this is no budget"),
        ("max_drop = 0.5", "max_drop = true", "deploy.toml:35: budget.max_drop: this is no number of points"),
        ('onnx = "exact"', 'onnx = "close"', "deploy.toml:36: budget.contract.onnx: no contract: close"),
        ('onnx = "exact"', 'coreml = "exact"', "budget.contract.coreml: this target is not being built"),
        ("samples = 64", "sampels = 64", "deploy.toml:14: data.sampels: there is no such key\n  try: did you mean samples?"),
        ("samples = 64", 'samples = "64"', "deploy.toml:14: data.samples: Input should be a valid integer"),
        ("[recipe]", "[receipt]", "deploy.toml:17: receipt: there is no such key\n  try: did you mean recipe?"),
        ('quality = "fast"', 'quality = "quick"', "deploy.toml:19: recipe.quality: Input should be 'fast', 'balanced' or 'best'"),
        ('name = "int8"', 'name = "int7"', "deploy.toml:18: recipe.name: there is no recipe int7"),
        ('bits = "w6a8"', 'bits = "w6a80"', "deploy.toml:20: recipe.bits: no widths of weights and activations: w6a80"),
        ('"onnx", "rtl"', '"onx", "rtl"', "deploy.toml:2: targets.0: there is no target onx\n  try: did you mean onnx?"),
        ('clock = "200MHz"', 'clock = "fast"', "deploy.toml:24: hardware.clock: no clock: fast"),
        ("xcvu13p-flga2577-2-e", "xcvu", "deploy.toml:23: hardware.part: nobody here knows the part xcvu"),
        ("reuse:4", "reuse:x", "deploy.toml:26: hardware.layers.0: no knobs of a layer"),
        ('source = "model.pt2"\n', "", "deploy.toml:6: model.source: this key is missing"),
        ('calibrate = "images:pictures/calibration"\nevaluate = "heldout.npz"\n', "", "deploy.toml:11: data: there is no data"),
        ("chunk = 4", "chunk = 4\nunroll = true", "deploy.toml:6: model: unroll and step ask for different programs"),
        ('name = "int8"', 'name = "int8"\nfile = "x.toml"', "deploy.toml:17: recipe: give a name or a file, not both"),
        ("[data]", "[data", "deploy.toml:11: this is not TOML"),
        ("trials = 3", "trials = 0", "deploy.toml:39: search.trials: Input should be greater than or equal to 1"),
        ("trials = 3", "pruning = [0.5]", "deploy.toml:39: search.pruning.0: Input should be a valid string"),
        ("trials = 3", 'pruning = ["half"]', "deploy.toml:39: search.pruning.0: no pruning budget: half"),
        ("trials = 3", 'bits = ["8"]', "deploy.toml:39: search.bits.0: no widths"),
        ("trials = 3", "recipes = []", "this is not TOML"),
        ('"int8", "recipes', '"int7", "recipes', "deploy.toml:40: search.recipes.0: there is no recipe int7"),
        ("name = \"small\"", "nmae = \"small\"", "deploy.toml:41: search.variants.1.nmae: there is no such key\n  try: did you mean name?"),
        ("name = \"small\"", 'name = "other.pt2"', "search.variants.1: two variants are called"),
        ('out = "build"\n', "", "deploy.toml: there is no output folder"),
        ('out = "build"', 'out = "."', "deploy.toml lies in its own output folder"),
        ("threads = 2", '"some threads" = 2', "deploy.toml:4: some threads: there is no such key"),
        ("samples = 64", "number-of-samples = 64", "deploy.toml:14: data.number-of-samples: there is no such key\n  try: keys: calibrate"),
        ("max_drop = 0.5", "max_drop = nan", "deploy.toml:35: budget.max_drop: this is no number of points"),
        ('name = "int8"', 'file = "bytes.toml"', "deploy.toml:18: recipe.file: bytes.toml cannot be read: 'utf-8' codec"),
        ("[search]", '[coreml]\nlabels = "bytes.toml"\n[search]', "deploy.toml:39: coreml.labels: bytes.toml cannot be read: 'utf-8' codec"),
        ("[search]", '[coreml]\nlabels = "nowhere"\n[search]', "deploy.toml:39: coreml.labels: there is no file nowhere"),
    ],
)  # fmt: skip
def test_mistakes_name_file_line_and_key(old: str, new: str, message: str, folder: Path) -> None:
    assert WHOLE.count(old) == 1
    with pytest.raises(InputError) as caught:
        parse(WHOLE.replace(old, new), folder / "deploy.toml")
    assert message in caught.value.message.replace(f"{folder}/", "")


def test_a_missing_file_is_told() -> None:
    with pytest.raises(InputError, match="nowhere.toml cannot be read"):
        read(Path("nowhere.toml"))


def test_options_win_over_the_file() -> None:
    file = replace(
        parse(
            WHOLE.replace('recipes = ["int8", "recipes/own.toml"]\n', ""), Path("deploy.toml")
        ).order
    )
    asked = Order(
        source="deploy.toml", targets=("tflite",), out=Path("elsewhere"), evaluate="",
        recipe="w8", samples=7, chunk=2, budgets=("onnx=1ms", "ff=3%"), max_drop=2.0,
        hardware=Hardware(clock_ns=3.0, reuse=9),
    )  # fmt: skip
    assert over(file, asked, ()) == file
    assert over(file, asked, ("source", "as_json", "quiet")) == file
    other = replace(asked, calibrate="digits:train", evaluate="digits:train")
    assert over(file, other, ("calibrate",)).evaluate == "heldout.npz"
    bare = parse(BARE.replace("digits:train", "keywords:train"), Path("deploy.toml")).order
    assert over(bare, other, ("calibrate",)).evaluate == "digits:train"
    found = over(file, asked, ("to", "out", "samples", "budget", "clock"))
    assert (found.targets, found.out, found.samples) == (("tflite",), Path("elsewhere"), 7)
    assert (found.recipe, found.max_drop) == ("int8", 0.5)
    assert found.hardware == replace(file.hardware, clock_ns=3.0)
    assert found.budgets == (
        "onnx=1ms", "iphone12=2ms", "own=9ms", "size=5MB", "lut=50%", "rtl.dsp=100", "ff=3%",
    )  # fmt: skip


def test_what_the_docstrings_show_can_be_read() -> None:
    import edgemix.deployment
    import edgemix.search

    shown = [
        line.removeprefix("    ")
        for module in (edgemix.deployment, edgemix.search)
        for line in (module.__doc__ or "").splitlines()
        if line.startswith("    ")
    ]
    found = parse("\n".join(shown), Path("deploy.toml"))
    assert found.order.budgets == ("onnx=5ms", "iphone12=2ms", "size=5MB")
    assert found.search is not None and found.search.variants[0].name == "wide"
