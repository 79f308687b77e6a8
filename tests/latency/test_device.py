"""Profiles of devices: every figure has a source, and mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemix.errors import InputError
from edgemix.latency import device
from edgemix.latency.fits import fits
from edgemix.targets import TARGETS

NAMES = device.names()


def test_the_devices_that_people_ship_to_are_there() -> None:
    assert {
        "iphone12", "iphone16", "pixel6", "pixel9", "galaxys23", "galaxys25", "rpi4", "rpi5",
        "jetson-nano", "jetson-orin-nano", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55",
        "zynq7020", "zu7ev", "vu9p", "vu13p", "host",
    } <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_says_where_its_figures_are_from(name: str) -> None:
    found = device.load(name)
    assert all(figure.source for figure in found.figures)
    for runtime in found.runtimes:
        assert runtime.fit in fits() and runtime.target in TARGETS
        if runtime.faster != 1:
            assert runtime.source, "a factor without a reason"


def test_aliases_are_no_second_name_for_another_device() -> None:
    spellings = [s for n in NAMES for s in (n, *device.load(n).aliases)]
    assert len(spellings) == len(set(spellings))
    assert device.load("Raspberry-Pi-4").name == "rpi4"


def test_an_unknown_device_brings_a_suggestion() -> None:
    with pytest.raises(InputError, match="nobody here knows the device iphone11") as error:
        device.load("iphone11")
    assert "iphone1" in str(error.value.do)


OWN = """
title = "My board"
kind = "board"
chip = "SoC"

[[runtimes]]
target = "onnx"
unit = "CPU"
precision = "float32"
fit = "ncnn/rpi4-4t"
faster = 2.0
source = "measured by us"
"""


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(OWN)
    assert device.load(str(file)).name == "mine"
    assert device.load(str(file)).targets == ("onnx",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("board", "toaster"), "kind: input should be"),
        (('chip = "SoC"\n', ""), "chip: field required"),
        (("faster = 2.0", "faster = 0"), "runtimes.0.faster: input should be greater than 0"),
        (("[[runtimes]]", "[[runtimes"), "this is no TOML"),
        (('title = "My board"', 'title = "My board"\nname = "x"'), "name is its file's"),
        (('title = "My board"', 'title = "My board"\nspeed = 3'), "speed: extra inputs"),
        (
            ("ncnn/rpi4-4t", "ncnn/rpi4"),
            r"runtimes.0.fit: there are no costs ncnn/rpi4; did you mean .*ncnn/rpi4-4t",
        ),
    ],
)
def test_a_broken_profile_is_told_with_its_file(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(OWN.replace(*change))
    with pytest.raises(InputError, match=message) as error:
        device.load(str(file))
    assert error.value.at == str(file)


def test_a_profile_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    file = tmp_path / "bytes.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match="bytes.toml cannot be read: 'utf-8' codec"):
        device.load(str(file))
    with pytest.raises(InputError, match="there is no device profile"):
        device.load("nowhere.toml")
