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
from edgemix.quantize.params import encode, representable
from edgemix.quantize.recipe import Rule
from edgemix.quantize.simulate import Rounding, Simulation

SAMPLES = 64
_AT_ONCE = 8
_DIRECTIONS = 6
_WORTH = 0.8
"""A range is cut only where that takes a fifth of its error away: what was not seen may be larger."""
_PROVEN = 96
"""Samples on which a cut is tried for real: the slope alone knows nothing of large errors."""
_BOTH = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.28, 0.22, 0.17, 0.13, 0.1)
"""Shares of the full range that are tried, the same at both ends, then at each end alone."""
_ALONE = (1.0, 0.85, 0.7, 0.55, 0.4, 0.28, 0.18, 0.1)


@dataclass(frozen=True)
class _Place:
    """One encoding that is free to be chosen, and where it is used."""

    rule: Rule
    full: Encoding
    roundings: tuple[Rounding, ...]
    """Those that round something: views of a rounded value have nothing left to round."""
    shared: tuple[Rounding, ...]
    """All that take the encoding."""


def choose_ranges(
    draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None
) -> Draft:
    """The draft with the ranges that move the output least.

    Args:
        draft: any.
        samples: inputs [n, ...]; the first 64 are used.
        on_step: called with the share that is done.
    """
    simulation = draft.simulate()
    places = list(_places(draft, simulation))
    samples = samples[:SAMPLES]
    chosen = [p.full for p in places]
    for stage, part in enumerate((_scaled, _cut_below, _cut_above)):
        tried = [list(dict.fromkeys(part(p, c))) for p, c in zip(places, chosen, strict=True)]
        costs = [torch.zeros(len(t), dtype=torch.float64) for t in tried]
        generator = torch.Generator().manual_seed(stage)
        pieces = samples.split(_AT_ONCE)
        for i, piece in enumerate(pieces):
            _add_costs(simulation, piece, places, tried, costs, generator)
            on_step((stage + (i + 1) / len(pieces)) / 6)
        chosen = [t[int(c.argmin())] for t, c in zip(tried, costs, strict=True)]
    for i, (place, encoding) in enumerate(zip(places, chosen, strict=True)):
        half = _between(place, encoding)
        _settle(
            simulation, samples[:_PROVEN], place, list(dict.fromkeys([place.full, half, encoding]))
        )
        on_step(0.5 + 0.5 * (i + 1) / len(places))
    return draft.updated(simulation)


def _between(place: _Place, cut: Encoding) -> Encoding:
    """Half-way from the full range to the one that is cut most."""
    (a, b), (c, d) = representable(place.full), representable(cut)
    return encode(((a + c) / 2, (b + d) / 2), place.rule)


def _settle(simulation: Simulation, x: Tensor, place: _Place, candidates: list[Encoding]) -> None:
    """Take the candidate that really moves the output least, with nothing else rounded."""
    if len(candidates) > 1:
        with simulation.only():
            expected = simulation.run(x)
        errors = []
        for encoding in candidates:
            for rounding in place.shared:
                rounding.encoding = encoding
            with simulation.only(lambda r: r in place.shared):
                errors.append(float((simulation.run(x) - expected).double().square().sum()))
        best = candidates[errors.index(min(errors))]
        if min(errors) > _WORTH * errors[0]:
            best = candidates[0]
    else:
        best = candidates[0]
    for rounding in place.shared:
        rounding.encoding = best


def _places(draft: Draft, simulation: Simulation) -> Iterator[_Place]:
    groups: dict[str, list[str]] = {}
    for name, root in draft.plan.groups.items():
        if root in draft.plan.rules:
            groups.setdefault(root, []).append(name)
    for root, names in groups.items():
        all_of = tuple(simulation.values[n] for n in names)
        own = tuple(
            simulation.values[n] for n in names if simulation.nodes[n].target not in g.VIEW | g.SELECTING
        )  # fmt: skip
        full = draft.plan.encodings[names[0]]
        yield _Place(draft.plan.rules[root], full, own or all_of[:1], all_of)
    for edge, rounding in simulation.narrow.items():
        node = simulation.nodes[edge[0]]
        rule = draft.recipe.operand_rule(g.where(node), g.op_name(node))
        rule = rule or draft.recipe.activations
        assert rule is not None
        yield _Place(
            rule.with_bits(rounding.encoding.bits), rounding.encoding, (rounding,), (rounding,)
        )


def _scaled(place: _Place, now: Encoding) -> Iterator[Encoding]:
    low, high = representable(place.full)
    for share in _BOTH:
        yield encode((low * share, high * share), place.rule)
    yield now


def _cut_below(place: _Place, now: Encoding) -> Iterator[Encoding]:
    low, high = representable(now)
    yield now
    if not place.rule.symmetric:
        yield from (encode((low * share, high), place.rule) for share in _ALONE)


def _cut_above(place: _Place, now: Encoding) -> Iterator[Encoding]:
    low, high = representable(now)
    yield now
    if not place.rule.symmetric:
        yield from (encode((low, high * share), place.rule) for share in _ALONE)


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
                value = inside[rounding].flatten(1)
                slope = torch.stack(slopes[rounding])  # [directions, samples, values]
                for i, e in enumerate(encodings):
                    rounded = torch.fake_quantize_per_tensor_affine(
                        value, e.scale[0], e.zero_point[0], e.qmin, e.qmax
                    )
                    moved = torch.einsum("dsv,sv->ds", slope, rounded - value)
                    cost[i] += float(moved.square().sum())
