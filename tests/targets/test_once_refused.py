"""What converters refuse by themselves, on every target: the rewrites write it with what all have.

One module holds them all, so that a converter runs once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites, targets
from edgemix.program import Origin, Program
from edgemix.targets.base import FLOAT32
from tests.targets.together import SAMPLES, Together, missed


class Recurrent(nn.Module):
    """All three kinds, one of them in both directions; the last state of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(6, 4, batch_first=True)
        self.rnn = nn.RNN(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.rnn(self.gru(self.lstm(x[:, :, 0, :2].transpose(1, 2))[0])[0])[1]
        return states[0]


class Fourier(nn.Module):
    """A global filter (Rao et al., 2021) and the mixing of FNet (Lee-Thorp et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(4, 4, 4, 2))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.filter)
        filtered = torch.fft.irfft2(spectrum, s=(4, 6), norm="ortho")
        return filtered + torch.fft.fft(torch.fft.fft(x, norm="ortho"), dim=1, norm="ortho").real


class Windows(nn.Module):
    """Windows of 2 × 3 of an image whose channels are last, by views of six axes, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).view(1, 2, 2, 2, 3, 4).permute(0, 1, 3, 2, 4, 5)
        x = self.mix(x.reshape(-1, 6, 4)).view(1, 2, 2, 2, 3, 4).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(1, 4, 6, 4)


class Bicubic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, (5, 9), mode="bicubic")


class Rows(nn.Module):
    """Attention over channels (XCA), of each head's only position."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.normalize(self.into(x[:, :, :1]), dim=-1)
        weights = (x.transpose(-2, -1) @ x).softmax(-1)
        found: Tensor = self.out(x @ weights)
        return found


class Taps(nn.Module):
    """A convolution of one tap behind a product (EfficientViM)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(4, 6, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        found: Tensor = self.mix(x @ x[:, 1:].softmax(-1).transpose(1, 2))
        return found


class Folded(nn.Module):
    """Windows that overlap, weighed and put back (VOLO)."""

    def forward(self, x: Tensor) -> Tensor:
        columns = nn.functional.unfold(x, 3, padding=1, stride=2)
        return nn.functional.fold(columns * columns.softmax(1), (4, 6), 3, padding=1, stride=2)


class Rolled(nn.Module):
    """Parts of two ranges that change places, side by side (MS-MLP)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mix(x).roll(1, 3), 3 * x[:, :2].roll((1, -2), (2, 3))], 1)


class Picked(nn.Module):
    """The largest two of six, each put back at its place (Autoformer)."""

    def forward(self, x: Tensor) -> Tensor:
        kept, places = x[:, :, 0].topk(2)
        at = (places[..., None] == torch.arange(6)).to(x.dtype)
        return kept.softmax(-1)[:, :, None] @ at


INTEGERS = {"folded": Folded, "rolled": Rolled, "picked": Picked}
KINDS = {
    "recurrent": Recurrent, "fourier": Fourier, "windows": Windows, "bicubic": Bicubic,
    "rows": Rows, "taps": Taps,
}  # fmt: skip
REFUSED = {"lstm", "gru", "rnn_tanh", "fft_rfft2", "fft_irfft2", "fft_fft", "upsample_bicubic2d"}


@pytest.fixture(scope="module")
def made(quantize_by: Callable[..., Program]) -> Callable[[str], Program]:
    """The model by a recipe's name."""
    return cache(lambda recipe: quantize_by(Together(KINDS), SAMPLES, recipe))


def test_the_converters_would_meet_them() -> None:
    program = Program.trace(Together(KINDS), (SAMPLES[:1],), Origin("test"))
    nodes = list(g.float_ops(program.module()))
    assert {g.op_name(n) for n in nodes} >= REFUSED
    assert max(n.meta["val"].ndim for n in nodes if g.op_name(n) == "permute") == 6


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("coreml", "float32"), ("onnx", "int8"),
        ("tflite", "float32"),
        pytest.param("onnx", "float32", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_every_target_takes_them(
    name: str, recipe: str, made: Callable[[str], Program], tmp_path: Path
) -> None:  # fmt: skip
    program = made(recipe)
    assert recipe == "int8" or targets.load(name).promise(program) == FLOAT32
    assert missed(KINDS, program, name, tmp_path) == []


def test_litert_takes_integers_that_its_converter_refuses(
    quantize_by: Callable[..., Program], tmp_path: Path
) -> None:
    program = quantize_by(Together(INTEGERS), SAMPLES, "int8")
    assert missed(INTEGERS, program, "tflite", tmp_path) == []


class Left(nn.Module):
    """A function of complex values that has no real twin, and a maximum over six axes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = x.view(1, 2, 2, 2, 3, 4)
        return torch.fft.rfft(x).tanh().abs(), torch.maximum(wide, wide.transpose(1, 2)).reshape(-1)


def test_what_is_left_is_said_before_any_work() -> None:
    program = Program.trace(Left(), (torch.zeros(1, 4, 6, 4),), Origin("test"))
    program = rewrites.standard(program)
    found = {
        name: {f.where.node: f"{f.why}; {f.remedy}" for f in targets.load(name).supports(program)}
        for name in ("tflite", "coreml")
    }
    remedy = "use transforms, sums, products, quotients and views, which become real ones"
    converters = {"tflite": "the converter has", "coreml": "coremltools' export route has"}
    for name, converter in converters.items():
        for node in ("fft_rfft", "tanh"):
            assert (
                found[name][node] == f"it is complex, and {converter} no complex numbers; {remedy}"
            )
    wide = "it has 6 axes, Core ML allows 5; compute with fewer; moves alone may have more"
    assert found["coreml"]["maximum"] == wide
