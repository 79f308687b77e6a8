"""Parts and clocks that somebody knows, and knobs."""

from __future__ import annotations

import pytest

from edgemix.errors import InputError
from edgemix.targets.fpga.hardware import Hardware, LayerKnobs
from edgemix.targets.fpga.parts import part, period_ns, same


@pytest.mark.parametrize(
    ("name", "family", "luts"),
    [
        ("xc7z020clg400-1", "xc7", 53_200),
        ("xc7a100tcsg324-1", "xc7", 63_400),
        ("xcku115-flvb2104-2-i", "xcu", 663_360),
        ("XCVU13P-FLGA2577-2-e", "xcup", 1_728_000),
        ("xck26-sfvc784-2LV-c", "xcup", 117_120),
        ("xcu250-figd2104-2L-e", "xcup", 1_728_000),
    ],
)
def test_parts(name: str, family: str, luts: int) -> None:
    found = part(name)
    assert (found.family, found.available["lut"]) == (family, luts)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("xc7z021clg400-1", "did you mean xc7z020"),
        ("xcvu99p-flga2577-2-e", "did you mean xcvu9p"),
        ("pynq", "devices: xc7z007s"),
        ("xc7z020", "add package and speed grade, like xc7z020clg400-1"),
        ("xcvu13p-2-e", "add package and speed grade, like xcvu13p-flga2577-2-e"),
    ],
)
def test_parts_that_nobody_knows(name: str, hint: str) -> None:
    with pytest.raises(InputError) as refused:
        part(name)
    assert hint in str(refused.value.do)


def test_one_part_has_several_names() -> None:
    assert same("xc7z020clg400-1", "xc7z020-clg400-1")
    assert same("7z020clg400-1", "xc7z020clg400-1")
    assert same("xcu250figd2104-2L", "xcu250-figd2104-2L-e")
    assert not same("xc7z020clg400-1", "xc7z020clg484-1")
    assert not same("xc7z020clg400-1", "xc7z020clg400-2")


@pytest.mark.parametrize(
    ("text", "ns"), [("5", 5.0), ("5ns", 5.0), ("200MHz", 5.0), ("0.5 GHz", 2.0), ("6.25 ns", 6.25)]
)
def test_clocks(text: str, ns: float) -> None:
    assert period_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "no clock: fast"),
        ("0ns", "no clock: 0ns"),
        ("-5ns", "no clock"),
        ("5 GHz", "has a period of 0.2 ns"),
        ("2000ns", "has a period of 2000 ns"),
    ],
)
def test_clocks_that_nobody_has(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        period_ns(text)


def test_knobs_by_layer() -> None:
    hardware = Hardware(
        reuse=2,
        layers=(
            LayerKnobs.parse("stages.*=reuse:4"),
            LayerKnobs.parse("stages.1.*=strategy:resource"),
            LayerKnobs.parse("conv2d_3=reuse:8,strategy:distributed_arithmetic"),
        ),
    )
    assert hardware.knobs("linear", "head") == (2, "latency")
    assert hardware.knobs("conv2d", "stages.0.norm") == (4, "latency")
    assert hardware.knobs("conv2d_1", "stages.1.mixer") == (4, "resource")
    assert hardware.knobs("conv2d_3", "stem") == (8, "distributed_arithmetic")
    assert Hardware.from_json(hardware.to_json()) == hardware


@pytest.mark.parametrize(
    "text", ["reuse:4", "a=reuse:x", "a=speed:3", "a=strategy:fast", "=reuse:2"]
)
def test_knobs_that_say_nothing(text: str) -> None:
    with pytest.raises(InputError, match="no knobs of a layer"):
        LayerKnobs.parse(text)


def test_hardware_that_cannot_be() -> None:
    with pytest.raises(InputError, match="a reuse factor is at least 1"):
        Hardware(reuse=0).check()
    with pytest.raises(InputError, match="nobody here knows the part zx81"):
        Hardware(part="zx81").check()
