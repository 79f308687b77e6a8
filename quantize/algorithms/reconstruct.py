"""Block reconstruction: learn roundings, steps and biases until a block gives what it should.

Li et al., "BRECQ", ICLR 2021 (the block as the unit); Wei et al., "QDrop", ICLR 2022 (roundings of
values are left out at random while learning, so that what is learned holds beside the samples).
Steps of values are learned as in Esser et al., "Learned Step Size Quantization", ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.quantize.algorithms.adaround import Soft
from edgemix.quantize.algorithms.blocks import Block, blocks, extract, values_at
from edgemix.quantize.draft import Draft
from edgemix.quantize.insert import Edge
from edgemix.quantize.simulate import RoundedConstant, Rounding, Simulation

STEPS = 300
SAMPLES = 512
_BATCH = 32
_KEPT = 0.5
"""Share of values that are rounded in a learning step: QDrop's."""
_SMALL = 24
"""A program of at most so many layers is also reconstructed as a whole, in the end."""


def reconstruct(
    draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None,
    steps: int = STEPS,
) -> Draft:  # fmt: skip
    """The draft with roundings of weights, steps of values and biases learned block by block.

    No labels are needed: what a block gave in float is what it should give.

    Args:
        draft: any; weights start from its rounding.
        samples: inputs [n, ...]; the first 512 are used.
        on_step: called with the share that is done.
        steps: of learning, for every block.
    """
    simulation = draft.simulate()
    x = samples[:SAMPLES]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = blocks(simulation.module)
        layers = sum(b.weights for b in found)
        if len(found) > 1 and layers <= _SMALL:
            found = [*found, _whole(found)]
        for i, block in enumerate(found):
            _learn(simulation, block, x, steps, lambda s: on_step((i + s) / len(found)))  # noqa: B023
    return draft.updated(simulation)


def _whole(found: list[Block]) -> Block:
    return Block(found[0].start, found[-1].end, tuple(n for b in found for n in b.nodes))


def _learn(
    simulation: Simulation, block: Block, x: Tensor, steps: int, on_step: Callable[[float], None]
) -> None:
    part = extract(simulation.module, block)
    with simulation.only():
        real_in, target = _ends(simulation, block, x)
    coded_in, _ = _ends(simulation, block, x)
    used = set(part.graph.find_nodes(op="call_module"))
    inside = {part.get_submodule(str(n.target)) for n in used}
    learners = [*_learners(simulation, inside)]
    scale = float(target.square().mean().clamp(min=1e-12))
    groups = [{"params": p.parameters, "lr": p.rate} for p in learners]
    optimizer = torch.optim.Adam(groups)
    before = _error(part, coded_in, target)
    kept = [p.state() for p in learners]
    with _learning(learners):
        for k in range(steps):
            pick = torch.randint(0, len(x), (_BATCH,))
            mix = torch.rand_like(real_in[pick]) < _KEPT
            given = torch.where(mix, coded_in[pick], real_in[pick])
            optimizer.zero_grad()
            loss = (part(given) - target[pick]).square().mean() / scale
            push = sum(p.push(k / steps) for p in learners)
            (loss + push).backward()
            optimizer.step()
            on_step((k + 1) / steps)
    for learner in learners:
        learner.settle()
    if not _error(part, coded_in, target) < before:
        for learner, state in zip(learners, kept, strict=True):
            learner.restore(state)


def _ends(simulation: Simulation, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        pairs = [
            values_at(simulation.module, [block.start, block.end], b) for b in torch.split(x, 64)
        ]
    return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])


def _error(part: nn.Module, x: Tensor, target: Tensor) -> float:
    with torch.no_grad():
        pieces = zip(torch.split(x, 64), torch.split(target, 64), strict=True)
        return sum(float((part(a) - b).double().square().sum()) for a, b in pieces)


class _Learner:
    """What is learned of one rounding: tensors, and how they stand in for what is fixed."""

    rate = 1e-3
    parameters: list[Tensor]

    def value(self, *args: Tensor) -> Tensor:
        """What the module gives while it learns."""
        raise NotImplementedError

    def push(self, done: float) -> Any:
        """A cost of its own."""
        return 0.0

    def settle(self) -> None:
        """Fix what was learned."""

    def state(self) -> Any:
        """What :meth:`restore` needs."""

    def restore(self, state: Any) -> None:
        """Forget what was learned."""


class _Weight(_Learner):
    rate = 1e-2

    def __init__(self, constant: RoundedConstant) -> None:
        self.module = constant
        self._step = constant.encoding.steps(constant.real)
        start = constant.coded / self._step
        real = constant.real / self._step
        # The two steps around the real weight or, where an earlier rounding went elsewhere, around
        # that one: it may go back towards the real weight.
        near = (start - real).abs() < 1
        self._down = torch.where(
            near, torch.floor(real), torch.where(start > real, start - 1, start)
        )
        part = torch.where(near, real - self._down, start - self._down)
        # Mostly where the start was, but not so far that nothing can be learned.
        self._soft = Soft(0.5 * part + 0.5 * (start - self._down))
        self.parameters = [self._soft.logit]

    def _at(self, up: Tensor) -> Tensor:
        e = self.module.encoding
        moved = (self._down + up).clamp(e.qmin, e.qmax) * self._step
        return torch.where(self.module.real == 0, 0.0, moved)  # zeros that pruning made stay

    def value(self, *args: Tensor) -> Tensor:
        return self._at(self._soft())

    def push(self, done: float) -> Any:
        return self._soft.push(done) * _PUSH / self._step.numel()

    def settle(self) -> None:
        with torch.no_grad():
            self.module.set(self._at((self._soft() >= 0.5).to(self._step.dtype)))

    def state(self) -> Any:
        return self.module.value

    def restore(self, state: Any) -> None:
        self.module.set(state)


_PUSH = 0.2


class _Bias(_Learner):
    rate = 1e-3

    def __init__(self, constant: RoundedConstant) -> None:
        self.module = constant
        self._start = constant.value
        self._moved = torch.zeros_like(constant.value, requires_grad=True)
        self.parameters = [self._moved]

    def value(self, *args: Tensor) -> Tensor:
        return self._start + self._moved

    def settle(self) -> None:
        self.module.set((self._start + self._moved).detach())

    def state(self) -> Any:
        return self._start

    def restore(self, state: Any) -> None:
        self.module.set(state)


class _Values(_Learner):
    """The step of values that share one encoding, while some of them are left out."""

    rate = 2e-3

    def __init__(self, modules: list[Rounding], *, learn: bool) -> None:
        self.modules = modules
        self._encoding = modules[0].encoding
        self._log = torch.zeros((), requires_grad=learn)
        self.parameters = [self._log] if learn else []

    def value(self, *args: Tensor) -> Tensor:
        (x,) = args
        e = self._encoding
        step = e.scale[0] * self._log.exp()
        low, high = e.qmin - e.zero_point[0], e.qmax - e.zero_point[0]
        scaled = x / step
        limited = scaled.clamp(low, high)
        rounded = limited + (limited.round() - limited).detach()
        kept = torch.rand_like(x) < _KEPT
        return torch.where(kept, rounded * step, x)

    def settle(self) -> None:
        if self.parameters:
            scale = float(self._encoding.scale[0] * self._log.detach().exp())
            self._set(replace(self._encoding, scale=(float(np.float32(scale)),)))

    def _set(self, encoding: Encoding) -> None:
        for module in self.modules:
            module.encoding = encoding

    def state(self) -> Any:
        return self._encoding

    def restore(self, state: Any) -> None:
        self._set(state)


def _learners(simulation: Simulation, inside: set[nn.Module]) -> Iterator[_Learner]:
    plan = simulation.plan
    for edge, constant in simulation.constants.items():
        if constant not in inside:
            continue
        if edge in plan.constants and simulation.nodes[edge[0]].target in g.LINEAR:
            yield _Weight(constant)
        elif edge not in plan.constants:
            yield _Bias(constant)
    groups: dict[str, list[Rounding]] = {}
    for name, rounding in simulation.values.items():
        groups.setdefault(plan.groups[name], []).append(rounding)
    for root, members in groups.items():
        here = [m for m in members if m in inside]
        if here:
            # A step that values elsewhere share, or that must be a power of two, stays.
            rule = plan.rules.get(root)
            free = rule is not None and rule.scale == "free" and len(here) == len(members)
            yield _Values(here, learn=free)
    for _edge, rounding in _inside(simulation.narrow, inside):
        yield _Values([rounding], learn=True)


def _inside(found: dict[Edge, Rounding], inside: set[nn.Module]) -> Iterator[tuple[Edge, Rounding]]:
    return ((edge, rounding) for edge, rounding in found.items() if rounding in inside)


@contextmanager
def _learning(learners: list[_Learner]) -> Iterator[None]:
    """Modules give what their learner gives."""
    changed: list[nn.Module] = []
    for learner in learners:
        for module in getattr(learner, "modules", None) or [learner.module]:  # type: ignore[attr-defined]
            module.forward = learner.value  # type: ignore[method-assign]
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
