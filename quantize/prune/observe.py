"""What calibration data says of units: what layers read, and what the outputs make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from edgemix import graph as g
from edgemix.batched import batched
from edgemix.program import Program
from edgemix.quantize.columns import columns, rows
from edgemix.quantize.prune.axes import Units
from edgemix.quantize.prune.gates import add_gates, set_gates

_AT_ONCE = 16
_DRAWS = 2
"""Random mixtures of the outputs a sample is asked for."""


@dataclass(frozen=True)
class Reader:
    """One group of a linear operator, and what it reads."""

    node: str
    part: int
    covariance: Tensor
    """Of its columns, over samples and positions: [columns, columns]; a bias takes the means."""
    weight: Tensor
    """[rows, columns]."""
    sensitivity: Tensor
    """Mean squared slope of the outputs to each row, summed over positions: [rows]."""


@dataclass(frozen=True)
class Observation:
    """What a pass over calibration data gathered."""

    slopes: Tensor
    """Of a random mixture of the outputs, or of the loss, to each gate: [draws, units + 1]."""
    readers: tuple[Reader, ...]


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

    Args:
        program: float, without states.
        units: its units.
        samples: [n, ...].
        labels: classes [n]; then slopes are those of the cross-entropy.
        on_samples: called with how many are done.
    """
    module, _, mapped = batched(program)
    add_gates(module, units)
    size = program.inputs[0].shape[0] if mapped else _AT_ONCE
    generator = torch.Generator().manual_seed(0)
    layers = {n.name: n for n in module.graph.nodes if n.target in g.LINEAR and _has_weight(n)}
    sums: dict[str, list[Tensor]] = {}
    slopes: list[Tensor] = []
    scale = _scale(module, samples[:256], size)
    for start in range(0, len(samples), size):
        x = samples[start : start + size]
        gates = torch.ones(len(x), units.count + 1, requires_grad=True)
        set_gates(module, gates)
        taps = _Taps(module, layers)
        y = taps.run(x)[0]
        losses = (
            _mixtures(y / scale, generator)
            if labels is None
            else [
                torch.nn.functional.cross_entropy(y, labels[start : start + size], reduction="sum")
            ]
        )
        for draw, loss in enumerate(losses):
            wanted = [gates, *taps.results.values()]
            found = torch.autograd.grad(
                loss, wanted, retain_graph=draw < len(losses) - 1, allow_unused=True
            )
            slopes.append(_or_zeros(found[0], gates))
            for (name, result), slope in zip(taps.results.items(), found[1:], strict=True):
                squared = rows(layers[name], _or_zeros(slope, result)).square().sum((0, 3))
                _add(sums, f"{name} slope", squared / len(losses))
        for name, value in taps.reads.items():
            for part in columns(layers[name], value):
                _add(sums, f"{name} square", torch.einsum("ngcl,ngdl->gcd", part, part))
                _add(sums, f"{name} sum", part.sum((0, 3)))
                _add(sums, f"{name} count", torch.tensor(float(part.shape[0] * part.shape[3])))
        on_samples(min(start + size, len(samples)))
    readers = tuple(_readers(program, layers, sums, len(samples)))
    return Observation(torch.cat(slopes), readers)


def _has_weight(node: Node) -> bool:
    return isinstance(node.args[1], Node) and node.args[1].op == "get_attr"


def _mixtures(y: Tensor, generator: torch.Generator) -> list[Tensor]:
    signs = torch.randint(0, 2, (_DRAWS, *y.shape), generator=generator) * 2.0 - 1.0
    return [(y * some).sum() for some in signs]


def _scale(module: Any, samples: Tensor, size: int) -> Tensor:
    with torch.no_grad():
        y = torch.cat([module(x)[0] for x in torch.split(samples, size)])
    scale: Tensor = y.std(0, correction=0).clamp(min=1e-6) * (y[0].numel() ** 0.5)
    return scale


def _or_zeros(value: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if value is None else value


def _add(sums: dict[str, Any], key: str, value: Tensor) -> None:
    sums[key] = value if key not in sums else sums[key] + value


def _readers(
    program: Program, layers: Mapping[str, Node], sums: Mapping[str, Any], samples: int
) -> Iterator[Reader]:
    module = program.module()
    for name, node in layers.items():
        weight: Any = node.args[1]
        count = sums[f"{name} count"]
        mean = sums[f"{name} sum"] / count
        covariance = sums[f"{name} square"] / count - mean[:, :, None] * mean[:, None, :]
        parts = len(covariance)
        value = g.constant(module, weight)
        matrices = value.reshape(parts, value.shape[0] // parts, -1)
        for part in range(parts):
            sensitivity = sums[f"{name} slope"][part] / samples
            yield Reader(name, part, covariance[part], matrices[part], sensitivity)


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
            if result.requires_grad:
                self.results[n.name] = result
        return result
