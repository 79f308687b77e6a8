"""What a person chooses for an app: images, batch sizes, metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgemix import targets
from edgemix.errors import InputError
from edgemix.program import Origin, Program
from edgemix.targets.coreml.package import open_package
from edgemix.targets.coreml.shipping import Image, Shipping, batches

RGB = Image(1 / 128, (-1.0, -0.5, 0.25))


@pytest.fixture(scope="module")
def convnet() -> Program:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return Program.trace(net.eval(), (torch.zeros(1, 3, 8, 8),), Origin("convnet"))


def test_an_image_is_parsed_and_written_back() -> None:
    image = Image.parse("scale=1/128,bias=-1:-0.5:1/4,color=rgb")
    assert image == RGB
    assert Shipping.from_json(Shipping(image, (1, 4)).to_json()) == Shipping(image, (1, 4))
    assert Image.parse("") == Image(1 / 255, (0.0,), "RGB")


@pytest.mark.parametrize(
    "text",
    ["scale=0", "scale=x", "bias=1:2", "color=pink", "size=3", "bias=1:2:3,color=grayscale", "1/0"],
)
def test_no_image(text: str) -> None:
    with pytest.raises(InputError, match="no image input"):
        Image.parse(text)


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1"])
def test_no_batches(text: str) -> None:
    with pytest.raises(InputError, match="no batch sizes"):
        batches(text)
    assert batches("8, 1,8") == (1, 8)


def test_pixels_are_found_again_and_others_refused() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4)).astype(np.uint8)
    bias = np.array(RGB.bias, np.float32).reshape(-1, 1, 1)
    x = (pixels * np.float32(RGB.scale) + bias).astype(np.float32)
    assert np.array_equal(RGB.pixels(x), pixels)
    for wrong in (x + np.float32(0.5 / 128), x - np.float32(2.0)):
        with pytest.raises(InputError, match="the data are no images"):
            RGB.pixels(wrong)


def test_an_input_that_is_no_picture_is_refused(convnet: Program) -> None:
    target = targets.load("coreml", shipping=Shipping(Image(color="GRAYSCALE")))
    with pytest.raises(InputError, match=r"an input of shape \[1, 3, 8, 8\] takes no GRAYSCALE"):
        target.supports(convnet)


def test_a_package_takes_images_and_says_whose_it_is(
    convnet: Program, program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    shipping = Shipping(RGB, (), "Ada", "MIT", ("cat", "dog"))
    target = targets.load("coreml", shipping=shipping)
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(convnet, program_file(convnet), folder)
    description = open_package(folder / artifact.main).spec.description
    assert description.input[0].type.WhichOneof("Type") == "imageType"
    assert (description.metadata.author, description.metadata.license) == ("Ada", "MIT")
    kept = dict(description.metadata.userDefined)
    assert kept["classes"] == '["cat", "dog"]'
    assert kept["edgemix.program"] == convnet.digest
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8))
    bias = np.array(RGB.bias, np.float32).reshape(-1, 1, 1)
    x = (pixels * np.float32(RGB.scale) + bias).astype(np.float32)
    found = target.run(artifact, folder, (x,))
    assert found is not None
    expected = convnet.run(torch.from_numpy(x))[0].numpy()
    # Sixteen bits; pixels, scale and bias round as well as the layers do.
    assert np.abs(found[0] - expected).max() <= 8 * 2.0**-11 * np.abs(expected).max()


def test_a_package_takes_the_batches_that_it_lists(
    quantize_by: Callable[..., Program], program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    x = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    program = quantize_by(net, x, "int8-exact")
    target = targets.load("coreml", shipping=Shipping(batches=(1, 3, 8)))
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(program, program_file(program), folder)
    description = open_package(folder / artifact.main).spec.description
    shapes = description.input[0].type.multiArrayType.enumeratedShapes.shapes
    assert [list(s.shape) for s in shapes] == [[n, 3, 8, 8] for n in (1, 3, 8)]
    found = target.run(artifact, folder, (x.numpy(),))  # 8, 3 and 1 samples
    assert found is not None
    expected = program.run(x)[0].numpy()
    encoding = program.output_encodings[0]
    assert encoding is not None
    assert np.abs(encoding.integers(found[0]) - encoding.integers(expected)).max() <= 1
