"""Fourier transforms as products: every kind and option, and complex arithmetic between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.models.recurrent.lmu import LMU
from edgemix.program import Origin, Program
from edgemix.rewrites.base import apply
from edgemix.rewrites.fourier_products import FourierProducts

ROUNDING = 64 * 2.0**-23
"""Of a sum of 64 numbers, as a share of the largest result: no test here adds up more."""


class Call(nn.Module):
    """A function of real tensors; its complex result as two real ones."""

    def __init__(self, function: Callable[..., Tensor], **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, *x: Tensor) -> tuple[Tensor, ...]:
        found = self.function(*x, **dict(self.named_parameters()))
        return (found.real, found.imag) if found.is_complex() else (found,)


def names(program: Program) -> set[str]:
    return {g.op_name(n) for n in g.float_ops(program.module())}


def check(function: Callable[..., Tensor], *x: Tensor, **parameters: Tensor) -> Program:
    """The rewritten program has no complex value, and gives what the function gives in double."""
    program = Program.trace(Call(function, **parameters), x, Origin("test"))
    for before in ("fold_constants", "unpack_views"):
        program = apply(program, rewrites.load(before))
    program = apply(program, FourierProducts())
    values = [n.meta["val"] for n in program.graph.graph.nodes if n.op == "call_function"]
    assert not any(v.is_complex() for v in values)
    assert not any(name.startswith("fft_") for name in names(program))
    double = {k: v.to(torch.promote_types(v.dtype, torch.float64)) for k, v in parameters.items()}
    with torch.no_grad():
        expected = Call(function, **double)(*(t.double() for t in x))
    for found, wanted in zip(program.call(*x), expected, strict=True):
        assert found.shape == wanted.shape
        worst = float((found - wanted).abs().max())
        assert worst <= ROUNDING * float(torch.stack([w.abs().max() for w in expected]).max())
    return program


KINDS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")


@st.composite
def transforms(draw: st.DrawFn) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    """The name of a transform, a shape of its input and options."""
    kind, suffix = draw(st.sampled_from(KINDS)), draw(st.sampled_from(["", "2", "n"]))
    axes = draw(st.integers(2 if suffix == "2" else 1, 3))
    # Half a spectrum of one value is none: a length has to be named.
    shape = tuple(draw(st.lists(st.integers(2, 7), min_size=axes, max_size=axes)))
    options: dict[str, Any] = {
        "norm": draw(st.sampled_from([None, "backward", "ortho", "forward"]))
    }
    lengths = st.none() | st.integers(1, 9)
    if suffix == "":
        options |= {"dim": draw(st.integers(-axes, axes - 1)), "n": draw(lengths)}
        return kind, shape, options
    count = 2 if suffix == "2" else draw(st.integers(1, axes))
    order = draw(st.permutations(range(axes)))[:count]
    if draw(st.booleans()) and (suffix == "n" or draw(st.booleans())):
        options["dim"] = tuple(a - axes * draw(st.booleans()) for a in order)
    elif suffix == "n":
        count = axes
    if draw(st.booleans()):
        options["s"] = tuple(draw(st.integers(1, 9)) for _ in range(count))
    return kind + suffix, shape, options


@given(transforms(), st.booleans())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_every_transform_with_every_option(
    transform: tuple[str, tuple[int, ...], dict[str, Any]], real: bool
) -> None:
    name, shape, options = transform
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator) for _ in range(2))
    function = getattr(torch.fft, name)
    if real or name.startswith(("rfft", "ihfft")):
        check(lambda x: function(x, **options), a)
    else:
        check(lambda x, y: function(torch.complex(x, y), **options), a, b)


def arithmetic(x: Tensor, y: Tensor, w: Tensor, pairs: Tensor) -> Tensor:
    """Every operator between transforms that is known."""
    a, b = torch.fft.fft(x), torch.complex(x, y)
    a = a * w.conj() + torch.view_as_complex(pairs) * y - b * w / 3
    b = (2 - 1j) * b.conj() + 1 + x - (0.5 - a) + (y - b)
    a = torch.cat([a, b[:, :2].expand(-1, 2, -1)], 1) * (1 - 0.5j)
    a = a / (b[:, :1].abs() + 1) - a / (torch.complex(x[:, :1] * x[:, :1], y[:, :1]) + 3)
    a = -a.transpose(0, 1).reshape(3, -1, 5).permute(0, 2, 1).roll(1, 1)
    a = torch.fft.fftshift(a, 1).unsqueeze(1).flatten(2)[:, 0]
    a = a - torch.fft.ifftshift(a).sum(1, keepdim=True) / 8 + a.mean(0)
    return torch.view_as_real(a.select(0, 1)) * 2 + torch.stack([a[0].imag, a[2].real], -1)


def test_arithmetic_of_complex_values_and_constants(generator: torch.Generator) -> None:
    x, y = (torch.randn(2, 4, 5, generator=generator) for _ in range(2))
    w = torch.randn(4, 5, dtype=torch.complex64, generator=generator)
    pairs = torch.randn(4, 5, 2, generator=generator)
    check(arithmetic, x, y, w=w, pairs=pairs)


def test_products_of_complex_matrices(generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 8, generator=generator)
    w = torch.randn(3, 4, 5, dtype=torch.complex64, generator=generator)

    def mix(x: Tensor, w: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x, norm="ortho")
        mixed = torch.einsum("bik,iok->bok", spectrum, w)
        return torch.fft.irfft(mixed + (spectrum.transpose(1, 2) @ w[:, :, 0]).transpose(1, 2))

    check(mix, x, w=w)


def test_parts_that_were_stacked_are_not_taken_apart_again(generator: torch.Generator) -> None:
    """As in AFNO (Guibas et al., 2021), where stacking them makes one axis more than Core ML has."""
    x = torch.randn(2, 3, 4, 3, 5, generator=generator)

    def shrink(x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, dim=(1, 2), norm="ortho")
        parts = torch.stack([spectrum.real.relu(), spectrum.imag * 2], -1)
        parts = nn.functional.softshrink(parts, 0.1)
        return torch.fft.irfft2(torch.view_as_complex(parts), (3, 4), (1, 2), "ortho")

    program = check(shrink, x)
    assert max(n.meta["val"].ndim for n in g.float_ops(program.module())) == 5


def test_what_is_not_read_is_not_computed() -> None:
    """FNet's mixing takes the real part: the imaginary one of the last transform costs nothing."""
    program = check(lambda x: torch.fft.fft(torch.fft.fft(x), dim=1).real, torch.randn(1, 6, 5))
    linears = [n for n in g.float_ops(program.module()) if g.op_name(n) == "linear"]
    assert len(linears) == 3
    assert len(program.graph.state_dict) == 3


def test_equal_transforms_share_their_matrices() -> None:
    program = check(lambda x: torch.fft.fft(torch.fft.fft(x).real).real, torch.randn(1, 8))
    assert program.parameters == 8 * 8


def test_transforms_in_double_precision_stay_so() -> None:
    x = torch.randn(1, 5)
    back = Call(lambda x: torch.fft.irfft(torch.fft.rfft(x.double()), 5) - x)
    program = rewrites.standard(Program.trace(back, (x,), Origin("test")))
    assert "fft_rfft" not in names(program)
    assert float(program.call(x)[0].abs().max()) < 2.0**-50


def test_the_parallel_legendre_memory_has_no_transform_left() -> None:
    torch.manual_seed(0)
    model = LMU(3, 4, order=5, window=6.0)
    program = Program.trace(model, (torch.zeros(1, 7, 3),), Origin("test"))
    assert {"fft_rfft", "fft_irfft"} <= names(program)
    after = rewrites.standard(program)
    assert not any(name.startswith("fft_") for name in names(after))
    x = torch.randn(4, 7, 3)
    torch.testing.assert_close(after.run(x), program.run(x))


def test_a_chain_that_is_not_known_stays_as_it_is() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            known = torch.fft.rfft(x)
            return torch.fft.irfft(known * 2), torch.fft.irfft(known.tanh())

    program = Program.trace(Both(), (torch.zeros(1, 6),), Origin("test"))
    after = rewrites.standard(program)
    left = [g.op_name(n) for n in g.float_ops(after.module()) if g.op_name(n) != "linear"]
    assert {"fft_rfft", "tanh", "fft_irfft"} <= set(left)
    assert left.count("fft_irfft") == 1
    x = torch.randn(3, 6)
    for found, expected in zip(after.run(x), program.run(x), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shift", [torch.fft.fftshift, torch.fft.ifftshift])
@pytest.mark.parametrize("axes", [None, 1, (0, -1)])
def test_shifts_are_rolls(shift: Callable[..., Tensor], axes: Any) -> None:
    x = torch.arange(30.0).reshape(2, 3, 5)
    program = Program.trace(Call(lambda x: shift(x, axes)), (x,), Origin("test"))
    after = rewrites.standard(program)
    assert names(after) == {"roll"}
    assert torch.equal(after.call(x)[0], shift(x, axes))


def test_lengths_and_angles(generator: torch.Generator) -> None:
    """By arctangents, sines and cosines of real values."""
    x, y = (torch.randn(3, 4, generator=generator) for _ in range(2))

    def function(x: Tensor, y: Tensor) -> Tensor:
        z = torch.complex(x, y)
        return torch.polar(z.abs(), z.angle() * 0.5) + (z * 0.1j).exp() + z**2 - z.square()

    assert check(function, x, y) is not None
    assert check(lambda x: (x + 0j).angle().cos(), x) is not None


def test_a_learned_complex_filter(generator: torch.Generator) -> None:
    x = torch.randn(1, 2, 4, 6, generator=generator)
    stored = torch.randn(4, 4, 2, generator=generator)
    learned = torch.randn(4, 4, dtype=torch.complex64, generator=generator)

    def function(x: Tensor, stored: Tensor, learned: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(stored) * learned
        return torch.view_as_real(torch.fft.irfft2(spectrum, s=(4, 6), norm="ortho") + 0j)

    check(function, x, stored=stored, learned=learned)


@pytest.mark.parametrize("length", [None, 1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_one_value_is_its_own_transform(
    kind: str, length: int | None, generator: torch.Generator
) -> None:
    half = kind in ("irfft", "hfft")
    a, b = (torch.randn(2, 1, 3, generator=generator) for _ in range(2))
    options = {"n": 1 if half and length is None else length, "dim": 1, "norm": "ortho"}
    function = getattr(torch.fft, kind)
    if kind in ("rfft", "ihfft"):
        program = check(lambda x: function(2 * x, **options), a)
    else:
        program = check(lambda x, y: function(2 * torch.complex(x, y), **options), a, b)
    assert ("linear" in names(program)) == (length == 3)
