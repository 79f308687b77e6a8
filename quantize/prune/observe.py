"""What calibration data says of units: what layers read, and what the outputs make of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.nn.functional import cross_entropy

from edgemix import graph as g
from edgemix.batched import batched
from edgemix.program import Program
from edgemix.quantize.columns import columns, rows
from edgemix.quantize.prune.axes import Units
from edgemix.quantize.prune.gates import add_gates, set_gates

_AT_ONCE = 16
_SEQUENCES = 32
_DRAWS = 2
"""Random mixtures of the outputs a sample is asked for."""


@dataclass(frozen=True)
class Reader:
    """One group of a linear operator, and what it reads."""

    node: str
    part: int
    mean: Tensor
    """Of its columns, over samples and positions: [columns]."""
    covariance: Tensor
    """[columns, columns]."""
    weight: Tensor
    """[rows, columns]."""
    sensitivity: Tensor
    """What a squared error of each row costs, at each position: [rows]."""


@dataclass(frozen=True)
class Observation:
    """What a pass over calibration data gathered."""

    slopes: Tensor
    """Of a random mixture of the outputs, or of the loss, to each gate: [draws, units + 1]; all
    zero where no slope gets through."""
    readers: tuple[Reader, ...]

    def by_share(self) -> Observation:
        """The same, where an error costs the share of its layer's own results that it is."""
        readers = (replace(r, sensitivity=_relative(r, self.readers)) for r in self.readers)
        return Observation(self.slopes, tuple(readers))


def observe(
    program: Program,
    units: Units,
    samples: Tensor,
    labels: Tensor | None = None,
    on_samples: Callable[[int], None] = lambda _: None,
) -> Observation:
    """Run samples forward and back, with gates at all that reads units.

    The outputs' own scale does not matter: each is divided by its deviation over the samples. The
    slopes of random mixtures of outputs have the outputs' Gauss-Newton matrix as their second
    moment (Martens, "New Insights and Perspectives on the Natural Gradient Method", JMLR 2020).
    Programs with states run forward alone; there, and where spikes let no slope through, layers
    count by the share of their own results that an error is.

    Args:
        program: float.
        units: its units.
        samples: [n, ...]; of a program with states [n, steps, ...].
        labels: classes [n]; then slopes are those of the cross-entropy.
        on_samples: called with how many are done.
    """
    if program.states:
        sums = _follow(program, samples, on_samples)
        slopes = torch.zeros(1, units.count + 1)
    else:
        sums, slopes = _back_and_forth(program, units, samples, labels, on_samples)
    readers = tuple(_readers(program, sums))
    found = Observation(slopes, readers)
    blind = program.states or any(not r.sensitivity.any() for r in readers)
    return found.by_share() if blind else found


def _relative(reader: Reader, readers: tuple[Reader, ...]) -> Tensor:
    """One by the power of a layer's results: all of its groups together."""
    own = [r for r in readers if r.node == reader.node]
    power = sum(float(((r.weight @ r.covariance) * r.weight).sum()) for r in own)
    return torch.full((len(reader.weight),), 1.0 / max(power, 1e-12))


class _Sums:
    """Moments of what layers read, and of the slopes to what they give."""

    def __init__(self, module: GraphModule) -> None:
        self.layers = {n.name: n for n in module.graph.nodes if n.target in g.LINEAR and _own(n)}
        self.count: dict[str, int] = defaultdict(int)
        self.sum: dict[str, Tensor] = {}
        self.square: dict[str, Tensor] = {}
        self.slope: dict[str, Tensor] = {}

    def read(self, name: str, value: Tensor) -> None:
        """What a layer read, [n, ...]."""
        for part in columns(self.layers[name], value):
            _add(self.square, name, torch.einsum("ngcl,ngdl->gcd", part, part))
            _add(self.sum, name, part.sum((0, 3)))
            self.count[name] += part.shape[0] * part.shape[3]

    def give(self, name: str, slope: Tensor) -> None:
        """Slopes to what a layer gave, [n, ...]."""
        _add(self.slope, name, rows(self.layers[name], slope).square().sum((0, 3)))


def _own(node: Node) -> bool:
    return isinstance(node.args[1], Node) and node.args[1].op == "get_attr"


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value


def _readers(program: Program, sums: _Sums) -> Iterator[Reader]:
    module = program.module()
    for name, node in sums.layers.items():
        weight: Any = node.args[1]
        count = sums.count[name]
        mean = sums.sum[name] / count
        covariance = sums.square[name] / count - mean[:, :, None] * mean[:, None, :]
        value = g.constant(module, weight)
        matrices = value.reshape(len(mean), value.shape[0] // len(mean), -1)
        # The error of a row is a mean over positions; its cost adds up over them.
        slopes = sums.slope.get(name, torch.zeros(matrices.shape[:2]))
        for part in range(len(mean)):
            yield Reader(name, part, mean[part], covariance[part], matrices[part], slopes[part])


def _back_and_forth(
    program: Program,
    units: Units,
    samples: Tensor,
    labels: Tensor | None,
    on_samples: Callable[[int], None],
) -> tuple[_Sums, Tensor]:
    module, _, mapped = batched(program)
    add_gates(module, units)
    sums = _Sums(module)
    size = program.inputs[0].shape[0] if mapped else _AT_ONCE
    generator = torch.Generator().manual_seed(0)
    scale = _scale(module, samples, size)
    slopes: list[Tensor] = []
    for start in range(0, len(samples), size):
        x = samples[start : start + size]
        gates = torch.ones(len(x), units.count + 1, requires_grad=True)
        set_gates(module, gates)
        taps = _Taps(module, sums.layers)
        y = taps.run(x)[0]
        if labels is None:
            losses = _mixtures(y / scale, generator)
        else:
            losses = [cross_entropy(y, labels[start : start + size], reduction="sum")]
        for draw, loss in enumerate(losses):
            wanted = [gates, *taps.results.values()]
            found = torch.autograd.grad(
                loss, wanted, retain_graph=draw < len(losses) - 1, allow_unused=True
            )
            slopes.append(_or_zeros(found[0], gates))
            for (name, result), slope in zip(taps.results.items(), found[1:], strict=True):
                share = (len(losses) * len(samples)) ** -0.5
                sums.give(name, _or_zeros(slope, result) * share)
        for name, value in taps.reads.items():
            sums.read(name, value)
        on_samples(min(start + size, len(samples)))
    return sums, torch.cat(slopes)


def _follow(program: Program, samples: Tensor, on_samples: Callable[[int], None]) -> _Sums:
    """Run sequences step by step, from the initial states."""
    module = g.flat(program.module())
    sums = _Sums(module)
    names = list(sums.layers)

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        taps = _Taps(module, sums.layers)
        results = taps.run(*inputs)
        return (*results, *(taps.reads[name] for name in names))

    together = torch.vmap(step)
    outputs, held = len(program.outputs), len(program.states)
    with torch.no_grad():
        for start in range(0, len(samples), _SEQUENCES):
            some = samples[start : start + _SEQUENCES]
            states = [s.start().expand(len(some), *s.shape) for s in program.states]
            for t in range(some.shape[1]):
                values = together(some[:, t, None], *states)
                states = list(values[outputs : outputs + held])
                for name, value in zip(names, values[outputs + held :], strict=True):
                    sums.read(name, value.flatten(0, 1))
            on_samples(min(start + _SEQUENCES, len(samples)))
    return sums


def _mixtures(y: Tensor, generator: torch.Generator) -> list[Tensor]:
    signs = torch.randint(0, 2, (_DRAWS, *y.shape), generator=generator) * 2.0 - 1.0
    return [(y * some).sum() for some in signs]


def _scale(module: Any, samples: Tensor, size: int) -> Tensor:
    with torch.no_grad():
        y = torch.cat([module(x)[0] for x in torch.split(samples[:256], size)])
    scale: Tensor = y.std(0, correction=0).clamp(min=1e-6) * (y[0].numel() ** 0.5)
    return scale


def _or_zeros(value: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if value is None else value


class _Taps(Interpreter):
    """Runs a graph, keeping what some layers read and give."""

    def __init__(self, module: Any, layers: Mapping[str, Node]) -> None:
        super().__init__(module)
        self.layers = layers
        self.reads: dict[str, Tensor] = {}
        self.results: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.name in self.layers:
            source: Any = n.args[0]
            self.reads[n.name] = self.env[source].detach()
            if torch.is_grad_enabled():
                # Behind no gate and no weight that can be trained nothing wants a slope yet.
                self.results[n.name] = result if result.requires_grad else result.requires_grad_()
        return result
