"""Ends of every value, read or followed from others', are those of all its values."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from edgemix import graph as g
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate, fingerprint
from edgemix.quantize.limits import followers, limits
from edgemix.quantize.watch import Observer


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_limits_are_those_of_any_layout(shape: list[int], data: st.DataObject, seed: int) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    axis = data.draw(st.none() | st.integers(0, len(shape) - 1))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).permute(order)
    low, high = limits(x, axis)
    others = [d for d in range(x.ndim) if d != axis]
    assert torch.equal(low.reshape(-1), x.amin(others).reshape(-1))
    assert torch.equal(high.reshape(-1), x.amax(others).reshape(-1))


class Star(nn.Module):
    """StarReLU between two layers: of its four values none needs to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)
        self.scale, self.bias = nn.Parameter(torch.tensor([-0.7])), nn.Parameter(torch.ones(1) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x)) ** 2 * self.scale + self.bias)


@pytest.fixture(scope="module")
def star() -> Program:
    torch.manual_seed(0)
    return Program.trace(Star().eval(), (torch.randn(1, 6),), Origin("star"))


def test_followed_ends_are_exactly_the_values_ends(star: Program) -> None:
    module = star.module()
    nodes = [n for n in module.graph.nodes if n.op in ("placeholder", "call_function")]
    found, _ = followers(module, nodes)
    assert len(found) == 4  # relu, square, times scale, plus bias
    x = torch.randn(10_001, 8, generator=torch.Generator().manual_seed(1)) * 3.7
    for node in nodes:
        if node in found:
            own, ends = found[node], limits(x, 1)
            x = node.target(*(x if a is own.source else own.numbers.get(a, a) for a in node.args))
            for followed, read in zip(own.ends(*ends), limits(x, 1), strict=True):
                assert torch.equal(followed, read)


def test_limits_by_channel_where_a_linear_operator_reads(star: Program) -> None:
    x = torch.randn(700, 6)
    stats = calibrate(star, [x]).stats
    several = {name for name, s in stats.items() if len(s.lows) > 1}
    assert several == {"x", "add"}
    added = _values(star, "add", x)
    # Layers of one sample and of many differ in a float's last bits.
    torch.testing.assert_close(stats["add"].lows, added.amin(0))
    torch.testing.assert_close(stats["add"].highs, added.amax(0))


def _values(program: Program, name: str, x: Tensor) -> Tensor:
    module = g.flat(program.module())
    node = next(n for n in module.graph.nodes if n.name == name)
    (output,) = module.graph.find_nodes(op="output")
    output.args = ((node,),)
    module.recompile()
    with torch.no_grad():
        return torch.cat([module(sample)[0] for sample in x.split(1)])


def test_what_is_kept_does_not_depend_on_batches(star: Program) -> None:
    x = torch.randn(1500, 6)
    at_once = calibrate(star, [x])
    for size in (1, 7, 64, 600):
        again = calibrate(star, x.split(size))
        assert again.data == at_once.data
        for name, stats in at_once.stats.items():
            other = again.stats[name]
            assert (other.minimum, other.maximum) == pytest.approx((stats.minimum, stats.maximum))
            assert other.count == stats.count
    assert fingerprint(x.split(7)) == at_once.data.sha256


def test_samples_that_wait_are_watched_when_asked(star: Program) -> None:
    observer = Observer(star)
    x = torch.zeros(3, 6)
    x[1] = 5.0
    observer.watch(x[:1])
    observer.watch(x[1:])
    stats = observer.stats
    assert max(s.maximum for s in stats.values()) >= 5.0
    observer.watch(x + 9.0)
    assert max(s.maximum for s in observer.stats.values()) >= 14.0
