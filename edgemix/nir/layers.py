"""NIR's stateless nodes, its threshold and its delay, as modules of one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError
from edgemix.nir.dialect import Dialect
from edgemix.nir.neurons import Neuron, Node
from edgemix.streaming.protocol import State, Stepwise, held


class Layer(Stepwise):
    """A node without a memory."""

    def __init__(self, node: Node, function: Callable[..., Tensor], **constants: Any) -> None:
        super().__init__()
        self.node, self._function, self._names = node, function, tuple(constants)
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(np.array(value)).float())

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        return self._function(x, *(getattr(self, name) for name in self._names)), {}


class Delay(Stepwise):
    """Every element arrives later by a time of its own, rounded to whole steps."""

    choice: Tensor

    def __init__(self, node: Node, dialect: Dialect) -> None:
        super().__init__()
        self.node = node
        delay = np.asarray(node.delay, np.float64)
        steps = np.rint(delay / dialect.dt).astype(np.int64)
        self.shape, self.longest = steps.shape, int(steps.max(initial=0))
        ages = np.arange(self.longest, -1, -1)
        self.register_buffer("choice", torch.from_numpy(steps[..., None] == ages).float())

    def initial_state(self, batch: int = 1) -> State:
        """``past``: the last inputs, the oldest first."""
        return {"past": torch.zeros(batch, *self.shape, self.longest)} if self.longest else {}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        if not self.longest:
            return x, {}
        window = torch.cat([held(state, "past"), x[..., None]], -1)
        return (window * self.choice).sum(-1), {"past": window[..., 1:]}


def module_of(node: Node, dialect: Dialect) -> Stepwise:
    """The module that computes a node.

    Raises:
        InputError: there is none for this kind of node.
    """
    kind = type(node).__name__
    if kind in ("LIF", "LI", "CubaLIF", "CubaLI", "IF", "I"):
        return Neuron(node, dialect)
    if kind == "Delay":
        return Delay(node, dialect)
    if kind not in _LAYERS:
        raise InputError(
            f"there is no step for a NIR node of the kind {kind}",
            do=f"known are {', '.join(sorted([*_LAYERS, 'LIF', 'LI', 'CubaLIF', 'IF', 'Delay']))}",
        )
    return _LAYERS[kind](node, dialect)


def _affine(node: Node, _: Dialect) -> Stepwise:
    return Layer(node, functional.linear, weight=node.weight, bias=np.ravel(node.bias))


def _linear(node: Node, _: Dialect) -> Stepwise:
    return Layer(node, functional.linear, weight=node.weight)


def _scale(node: Node, _: Dialect) -> Stepwise:
    return Layer(node, torch.mul, scale=node.scale)


def _same(node: Node, _: Dialect) -> Stepwise:
    return Layer(node, nn.Identity())


def _threshold(node: Node, dialect: Dialect) -> Stepwise:
    def fire(x: Tensor, threshold: Tensor) -> Tensor:
        return (x >= threshold if dialect.at == "ge" else x > threshold).to(x.dtype)

    return Layer(node, fire, threshold=node.threshold)


def _convolution(dimensions: int) -> Callable[[Node, Dialect], Stepwise]:
    apply = functional.conv1d if dimensions == 1 else functional.conv2d

    def build(node: Node, _: Dialect) -> Stepwise:
        stride, dilation = (_numbers(v, dimensions) for v in (node.stride, node.dilation))
        padding = _padding(node.padding, dimensions)

        def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return apply(x, weight, bias, stride, padding, dilation, int(node.groups))

        bias = np.zeros(np.shape(node.weight)[0]) if node.bias is None else node.bias
        return Layer(node, call, weight=node.weight, bias=bias)

    return build


def _pool(*, average: bool) -> Callable[[Node, Dialect], Stepwise]:
    def build(node: Node, _: Dialect) -> Stepwise:
        kernel, stride, padding = (
            _numbers(v, 2) for v in (node.kernel_size, node.stride, node.padding)
        )

        def call(x: Tensor) -> Tensor:
            found = functional.avg_pool2d(x, kernel, stride, padding)
            return found if average else found * float(math.prod(kernel))

        return Layer(node, call)

    return build


def _flatten(node: Node, _: Dialect) -> Stepwise:
    # NIR counts axes without the batch.
    first = int(node.start_dim) + (1 if int(node.start_dim) >= 0 else 0)
    last = int(node.end_dim) + (1 if int(node.end_dim) >= 0 else 0)

    def call(x: Tensor) -> Tensor:
        return x.flatten(max(first, 1), last)

    return Layer(node, call)


def _numbers(value: Any, count: int) -> tuple[int, ...]:
    found = np.broadcast_to(np.asarray(value), (count,))
    return tuple(int(v) for v in found)


def _padding(value: Any, count: int) -> Any:
    text = value.decode() if isinstance(value, bytes) else value
    return text if isinstance(text, str) else _numbers(value, count)


_LAYERS: dict[str, Callable[[Node, Dialect], Stepwise]] = {
    "Affine": _affine, "Linear": _linear, "Scale": _scale, "Threshold": _threshold,
    "Conv1d": _convolution(1), "Conv2d": _convolution(2), "AvgPool2d": _pool(average=True),
    "SumPool2d": _pool(average=False), "Flatten": _flatten, "Input": _same, "Output": _same,
}  # fmt: skip
