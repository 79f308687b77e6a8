"""Ranges by what they do to the output: rounding and clipping weighed by the model's own slope.

A value's error e moves the output by J e to first order. With random signs u, the mean of
(uᵀ J e)² is |J e|², and uᵀ J is one backward pass: the cost of every candidate of every value comes
from the same few passes. (The weighing is that of Hessian-guided metrics as in Yuan et al.,
"PTQ4ViT", ECCV 2022, without taking e's elements for independent: clipping moves them together.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.quantize.draft import Draft
from edgemix.quantize.params import Range, encode
from edgemix.quantize.recipe import Rule
from edgemix.quantize.simulate import Recorded, Rounding, Simulation

SAMPLES = 256
_AT_ONCE = 8
_SETTLED_AT_ONCE = 16
_VALUES = 1 << 14
"""Of a sample, at once: what is computed of them stays in the cache."""
_DIRECTIONS = 6
_BOTH = (1.4, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.28, 0.22, 0.17, 0.13, 0.1)
"""Shares of the range that are tried, the same at both ends, then at each end alone. Above 1: what
is to come may be larger than what was seen."""
_ALONE = (1.0, 0.85, 0.7, 0.55, 0.4, 0.28, 0.18, 0.1)


@dataclass(frozen=True)
class _Place:
    """One encoding that is free to be chosen, and where it is used."""

    rule: Rule
    full: Range
    """Of all that calibration saw."""
    roundings: tuple[Rounding, ...]
    """Those that round something: views of a rounded value have nothing left to round."""
    shared: tuple[Rounding, ...]
    """All that take the encoding."""

    def use(self, encoding: Encoding) -> None:
        """Round in this encoding."""
        for rounding in self.shared:
            rounding.encoding = encoding


def choose_ranges(
    draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None
) -> Draft:
    """The draft with the ranges that move the output least.

    Cross-validated: shares of the range of one half of the samples are judged on the other half,
    and the other way round, so that a range is as wide as what was not seen needs.

    Args:
        draft: any.
        samples: inputs [n, ...]; the first 256 are used, at least two are needed.
        on_step: called with the share that is done.
    """
    simulation = draft.simulate()
    places = list(_places(draft, simulation))
    x = samples[:SAMPLES]
    half = len(x) // 2
    folds = ((x[:half], x[half : 2 * half]), (x[half : 2 * half], x[:half])) if half else ((x, x),)
    found = [
        _shares(simulation, places, *fold, lambda s: on_step((i + s) / len(folds)))  # noqa: B023
        for i, fold in enumerate(folds)
    ]
    for place, pairs in zip(places, zip(*found, strict=True), strict=True):
        low, high = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
        place.use(encode((place.full[0] * low, place.full[1] * high), place.rule))
    return draft.updated(simulation)


def _shares(
    simulation: Simulation, places: list[_Place], seen: Tensor, judged: Tensor,
    on_step: Callable[[float], None],
) -> list[tuple[float, float]]:  # fmt: skip
    """For every place, the shares of the range of ``seen`` that are best for ``judged``."""
    limits = _limits(simulation, places, seen)
    chosen = [encode(r, p.rule) for p, r in zip(places, limits, strict=True)]
    ranges = [e.limits for e in chosen]
    for stage, part in enumerate((_scaled, _cut_below, _cut_above)):
        tried = [
            list(dict.fromkeys(part(p, r, c)))
            for p, r, c in zip(places, ranges, chosen, strict=True)
        ]
        costs = [torch.zeros(len(t), dtype=torch.float64) for t in tried]
        generator = torch.Generator().manual_seed(stage)
        pieces = torch.split(judged, min(_AT_ONCE, simulation.at_once))
        for i, piece in enumerate(pieces):
            _add_costs(simulation, piece, places, tried, costs, generator)
            on_step((stage + (i + 1) / len(pieces)) / 6)
        chosen = [t[int(c.argmin())] for t, c in zip(tried, costs, strict=True)]
    tried = [
        list(_finalists(place, full, cut))
        for place, full, cut in zip(places, ranges, chosen, strict=True)
    ]
    best = _settled(simulation, judged, places, tried, lambda share: on_step(0.5 + 0.5 * share))
    ends = [e.limits for e in best]
    return [
        (_share(low, full[0]), _share(high, full[1]))
        for (low, high), full in zip(ends, ranges, strict=True)
    ]


def _finalists(place: _Place, full: Range, cut: Encoding) -> Iterator[Encoding]:
    """The whole range, somewhat more, the choice of the slope, and what lies between."""
    low, high = cut.limits
    middle = (full[0] + low) / 2, (full[1] + high) / 2
    each = (full, (1.2 * full[0], 1.2 * full[1]), middle)
    yield from dict.fromkeys([*(encode(r, place.rule) for r in each), cut])


def _share(end: float, full: float) -> float:
    return min(max(end / full, 0.02), 2.0) if full != 0.0 else 1.0


def _limits(simulation: Simulation, places: list[_Place], x: Tensor) -> list[Range]:
    """The range of every place's values."""
    seen: dict[Rounding, Range] = {}

    def keep(rounding: Rounding, given: tuple[Tensor, ...]) -> None:
        low, high = seen.get(rounding, (0.0, 0.0))
        seen[rounding] = min(low, given[0].amin().item()), max(high, given[0].amax().item())

    hooks = [r.register_forward_pre_hook(keep) for p in places for r in p.roundings]  # type: ignore[arg-type]
    with simulation.only():
        simulation.run(x)
    for hook in hooks:
        hook.remove()
    return [
        (min(seen[r][0] for r in p.roundings), max(seen[r][1] for r in p.roundings)) for p in places
    ]


def _places(draft: Draft, simulation: Simulation) -> Iterator[_Place]:
    stats = draft.calibration.stats
    groups: dict[str, list[str]] = {}
    for name, root in draft.plan.groups.items():
        if root in draft.plan.rules:
            groups.setdefault(root, []).append(name)
    for root, names in groups.items():
        own = [n for n in names if simulation.nodes[n].target not in g.VIEW | g.SELECTING]
        ranges = [(stats[n].minimum, stats[n].maximum) for n in own or names if n in stats]
        if ranges:
            full = min(0.0, *(r[0] for r in ranges)), max(0.0, *(r[1] for r in ranges))
            full = encode(full, draft.plan.rules[root]).limits
            shared = tuple(simulation.values[n] for n in names)
            rounds = tuple(simulation.values[n] for n in own) or shared[:1]
            yield _Place(draft.plan.rules[root], full, rounds, shared)
    # The program's own nodes: in the simulation, views read roundings.
    nodes = {n.name: n for n in draft.program.shared.graph.nodes}
    for edge, rounding in simulation.narrow.items():
        node = nodes[edge[0]]
        rule = draft.recipe.operand_rule(g.where(node), g.op_name(node)) or draft.recipe.activations
        assert rule is not None
        source = stats[g.reordered(nodes[edge[1]]).name]
        rule = rule.with_bits(rounding.encoding.bits)
        full = encode((source.minimum, source.maximum), rule).limits
        yield _Place(rule, full, (rounding,), (rounding,))


def _scaled(place: _Place, full: Range, now: Encoding) -> Iterator[Encoding]:
    yield now
    yield from (encode((full[0] * share, full[1] * share), place.rule) for share in _BOTH)


def _cut_below(place: _Place, full: Range, now: Encoding) -> Iterator[Encoding]:
    low, high = now.limits
    yield now
    if not place.rule.symmetric:
        yield from (encode((low * share, high), place.rule) for share in _ALONE)


def _cut_above(place: _Place, full: Range, now: Encoding) -> Iterator[Encoding]:
    low, high = now.limits
    yield now
    if not place.rule.symmetric:
        yield from (encode((low, high * share), place.rule) for share in _ALONE)


def _settled(
    simulation: Simulation, x: Tensor, places: list[_Place], tried: list[list[Encoding]],
    on_step: Callable[[float], None],
) -> list[Encoding]:  # fmt: skip
    """For every place, the candidate that really moves the output least, nothing else rounded.

    The slope alone knows nothing of large errors.
    """
    errors = [[0.0] * len(candidates) for candidates in tried]
    pieces = torch.split(x, min(_SETTLED_AT_ONCE, simulation.at_once))
    for i, piece in enumerate(pieces):
        with simulation.only():
            recorded = Recorded(simulation, piece)
            expected = recorded.outputs(())
            for j, (place, candidates) in enumerate(zip(places, tried, strict=True)):
                for rounding in place.shared:
                    rounding.enabled = True
                for k, encoding in enumerate(candidates):
                    place.use(encoding)
                    moved = recorded.outputs(place.shared) - expected
                    errors[j][k] += float(moved.double().square().sum())
                for rounding in place.shared:
                    rounding.enabled = False
                on_step((i + (j + 1) / len(places)) / len(pieces))
    return [c[e.index(min(e))] for c, e in zip(tried, errors, strict=True)]


def _add_costs(
    simulation: Simulation, x: Tensor, places: list[_Place], tried: list[list[Encoding]],
    costs: list[Tensor], generator: torch.Generator,
) -> None:  # fmt: skip
    inside: dict[Rounding, Tensor] = {}

    def keep(rounding: Rounding, given: tuple[Tensor, ...]) -> Tensor:
        value = given[0] if given[0].requires_grad else given[0].detach().requires_grad_()
        inside[rounding] = value
        return (value,)  # type: ignore[return-value]

    watched = [r for p in places for r in p.roundings]
    hooks = [r.register_forward_pre_hook(keep) for r in watched]  # type: ignore[arg-type]
    try:
        with simulation.only():
            output = simulation(x.clone().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    reached = [r for r in watched if r in inside]
    slopes: dict[Rounding, list[Tensor]] = {r: [] for r in reached}
    for k in range(_DIRECTIONS):
        signs = torch.randint(0, 2, output.shape, generator=generator) * 2.0 - 1.0
        found = torch.autograd.grad(
            output, [inside[r] for r in reached], signs, retain_graph=k + 1 < _DIRECTIONS,
            allow_unused=True,
        )  # fmt: skip
        for rounding, slope in zip(reached, found, strict=True):
            if slope is not None:
                slopes[rounding].append(slope.flatten(1))
    with torch.no_grad():
        for place, encodings, cost in zip(places, tried, costs, strict=True):
            for rounding in place.roundings:
                if not slopes.get(rounding):
                    continue
                slope = torch.stack(slopes[rounding], 2)
                cost += _moved(inside[rounding].flatten(1), slope, encodings).double()


def _moved(values: Tensor, slope: Tensor, encodings: list[Encoding]) -> Tensor:
    """The squared error that every encoding of values [s, v] makes, by slopes [s, v, directions].

    All encodings in one product, since reading the slopes is what takes time.
    """
    moved = torch.zeros(len(values), len(encodings), slope.shape[2])
    for value, part in zip(
        torch.split(values, _VALUES, 1), torch.split(slope, _VALUES, 1), strict=True
    ):
        errors = [
            torch.fake_quantize_per_tensor_affine(
                value, e.scale[0], e.zero_point[0], e.qmin, e.qmax
            ).sub_(value)
            for e in encodings
        ]
        moved += torch.bmm(torch.stack(errors, 1), part)
    return moved.square().sum((0, 2))
