"""Histograms and the ranges that are chosen from them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from edgemix.quantize.observers import BINS, TensorStats, choose_range
from edgemix.quantize.params import encode
from edgemix.quantize.recipe import Rule

batches = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), min_size=1, max_size=6
)


def merged(parts: list[torch.Tensor]) -> TensorStats:
    stats = TensorStats.of(parts[0])
    for part in parts[1:]:
        stats = stats.merge(TensorStats.of(part))
    return stats


@given(batches)
def test_the_order_of_batches_does_not_matter(values: list[list[float]]) -> None:
    parts = [torch.tensor(v) for v in values]
    forward, backward = merged(parts), merged(parts[::-1])
    assert (forward.minimum, forward.maximum) == (backward.minimum, backward.maximum)
    assert torch.equal(forward.counts, backward.counts)
    assert forward.count == sum(map(len, values))
    assert torch.allclose(forward.sums, backward.sums)
    assert forward.counts.shape == (BINS,)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60))
def test_minmax_covers_everything_seen(values: list[float]) -> None:
    x = torch.tensor(values)
    assert choose_range(TensorStats.of(x), Rule()) == (x.min().item(), x.max().item())


def test_percentile_leaves_an_outlier_out() -> None:
    x = torch.cat([torch.linspace(-1, 1, 100_000), torch.tensor([1000.0])])
    low, high = choose_range(TensorStats.of(x), Rule(observer="percentile", percentile=99.9))
    assert -1.0 <= low < -0.9
    assert high < 2.0


def test_mse_is_never_worse_than_minmax() -> None:
    generator = torch.Generator().manual_seed(0)
    heavy = torch.randn(20_000, generator=generator) ** 3
    for scale in ("free", "power_of_two"):
        rule = Rule(observer="mse", scale=scale)
        error = {}
        for name in ("minmax", "mse"):
            chosen = choose_range(TensorStats.of(heavy), rule.model_copy(update={"observer": name}))
            encoding = encode(chosen, rule)
            error[name] = float(
                (heavy - encoding.dequantize(encoding.quantize(heavy))).square().mean()
            )
        assert error["mse"] <= error["minmax"], scale


def test_a_constant_and_a_zero_tensor_get_an_encoding_that_holds_them() -> None:
    for value in (0.0, 3.0, -3.0, 1e-30):
        for scale in ("free", "power_of_two"):
            for observer in ("minmax", "mse", "percentile"):
                rule = Rule(observer=observer, scale=scale)
                x = torch.full((10,), value)
                encoding = encode(choose_range(TensorStats.of(x), rule), rule)
                back = encoding.dequantize(encoding.quantize(x))
                assert torch.allclose(back, x, atol=encoding.lsb), (value, scale, observer)


@given(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32))
def test_every_encoding_represents_its_range_and_zero_exactly(a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    for scale in ("free", "power_of_two"):
        encoding = encode((low, high), Rule(scale=scale))
        first, last = encoding.limits
        assert first - encoding.lsb <= low
        assert high <= last + encoding.lsb
        assert encoding.dequantize(encoding.quantize(torch.zeros(1))).item() == 0.0
        if scale == "power_of_two":
            assert encoding.fixed_point() is not None


def test_a_power_of_two_range_that_is_used_again_gives_the_same_encoding() -> None:
    rule = Rule(scale="power_of_two")
    for bounds in ((0.0, 0.7), (-3.0, 1.0), (0.0, 255.0), (-128.0, 127.0)):
        encoding = encode(bounds, rule)
        assert encode(encoding.limits, rule) == encoding
