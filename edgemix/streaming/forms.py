"""Step forms that are known without being asked for: torch's recurrent layers and others.

A module with ``initial_state`` and ``step`` is its own step form. ``nn.LSTM``, ``nn.GRU`` and
``nn.RNN`` have the one that their documentation defines. A convolution over time has one if it is
padded on the left only. What works on every step by itself has one without a memory, and a chain of
such modules has one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError
from edgemix.streaming.protocol import Assembled, Run, State, Stepping, Stepwise, held, zeros
from edgemix.streaming.window import convolve_last

POINTWISE = (
    nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.Dropout, nn.ReLU, nn.GELU, nn.SiLU,
    nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.ELU, nn.LeakyReLU,
    nn.Softplus, nn.Softmax, nn.LogSoftmax,
)  # fmt: skip
"""Modules that treat every step [batch, features] as they treat all of them together."""


def form_of(module: nn.Module) -> Stepwise | None:
    """The step form of a module, or None where none is known.

    Raises:
        InputError: the module is of a known kind, but looks ahead.
    """
    if isinstance(module, Stepwise):
        return module
    if isinstance(module, Stepping):
        return Own(module)
    if isinstance(module, (nn.LSTM, nn.GRU, nn.RNN)):
        return Recurrent(module)
    if isinstance(module, POINTWISE):
        return Pointwise(module)
    if isinstance(module, nn.Sequential):
        return _chain(module)
    return None


class Own(Stepwise):
    """A module that keeps the protocol without the base class."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.chunk = getattr(module, "chunk", None)
        self.time_axis = getattr(module, "time_axis", 1)

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        state: State = self.module.initial_state(batch)  # type: ignore[operator]
        return state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        result: tuple[Tensor, State] = self.module.step(x, state)  # type: ignore[operator]
        return result

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if type(self.module).forward is nn.Module.forward:
            return super().forward(x)
        result: Tensor = self.module(x)
        return result


class Pointwise(Stepwise):
    """A module without a memory."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        return self.module(x), {}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        result: Tensor = self.module(x)
        return result


class Chain(Assembled):
    """Modules one after the other, each with its own memory."""

    def __init__(self, parts: Sequence[Stepwise]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.time_axis = parts[0].time_axis

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {f"part_{i}": module for i, module in enumerate(self.parts)}  # type: ignore[misc]

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        for name in self.members():
            x = run(name, x)
        return x


class Recurrent(Stepwise):
    """``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``, one direction; the outputs of the last layer.

    Equations: the documentation of these classes. The memory holds ``hidden_0 … hidden_{n-1}``, a
    tensor a layer, and for an LSTM ``cell_0 …``.
    """

    def __init__(self, module: nn.LSTM | nn.GRU | nn.RNN) -> None:
        super().__init__()
        if module.bidirectional:
            raise InputError(
                f"a bidirectional {type(module).__name__} reads its sequence from the end too: no "
                "step knows its output before the last input has come",
                do="deploy the whole sequence as one program (--unroll instead of --step), "
                "or train it with one direction",
            )
        if module.proj_size:
            raise InputError("an LSTM with projections has no step form here")
        self.module = module

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        size = self.module.hidden_size
        kinds = ("hidden", "cell") if isinstance(self.module, nn.LSTM) else ("hidden",)
        return {
            f"{kind}_{layer}": zeros(batch, size)
            for layer in range(self.module.num_layers)
            for kind in kinds
        }

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        after: dict[str, Tensor] = {}
        for layer in range(self.module.num_layers):
            x = self._layer(x, state, layer, after)
        return x, after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if self.module.batch_first:
            result: Tensor = self.module(x)[0]
            return result
        result = self.module(x.transpose(0, 1))[0].transpose(0, 1)
        return result

    def _layer(self, x: Tensor, state: State, layer: int, after: dict[str, Tensor]) -> Tensor:
        hidden = held(state, f"hidden_{layer}")
        given = self._linear(x, f"ih_l{layer}")
        recurrent = self._linear(hidden, f"hh_l{layer}")
        if isinstance(self.module, nn.LSTM):
            cell = held(state, f"cell_{layer}")
            i, f, c, o = (given + recurrent).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(c)
            after[f"cell_{layer}"] = cell
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        elif isinstance(self.module, nn.GRU):
            (rx, zx, nx), (rh, zh, nh) = given.chunk(3, 1), recurrent.chunk(3, 1)
            reset, update = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
            new = torch.tanh(nx + reset * nh)
            hidden = new + update * (hidden - new)
        else:
            squash = torch.tanh if self.module.nonlinearity == "tanh" else torch.relu
            hidden = squash(given + recurrent)
        after[f"hidden_{layer}"] = hidden
        return hidden

    def _linear(self, x: Tensor, suffix: str) -> Tensor:
        bias = getattr(self.module, f"bias_{suffix}") if self.module.bias else None
        return functional.linear(x, getattr(self.module, f"weight_{suffix}"), bias)


class CausalPair(Stepwise):
    """A padding on the left and the convolution over time that it is for, [batch, channels, time].

    The memory holds the last (kernel − 1) · dilation inputs.
    """

    time_axis = 2

    def __init__(self, pad: nn.ConstantPad1d, convolution: nn.Conv1d) -> None:
        super().__init__()
        self.pad, self.convolution = pad, convolution
        self.reach = (convolution.kernel_size[0] - 1) * convolution.dilation[0]

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {
            "past": torch.full((batch, self.convolution.in_channels, self.reach), self.pad.value)
        }

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        c = self.convolution
        y, past = convolve_last(
            held(state, "past"), x, c.weight, c.bias, dilation=c.dilation[0], groups=c.groups
        )
        return y, {"past": past}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        result: Tensor = self.convolution(self.pad(x))
        return result


def _chain(module: nn.Sequential) -> Stepwise | None:
    children = list(module)
    parts: list[Stepwise] = []
    while children:
        first = children.pop(0)
        if isinstance(first, nn.ConstantPad1d) and children and isinstance(children[0], nn.Conv1d):
            parts.append(_causal(first, children.pop(0)))
            continue
        form = form_of(first)
        if form is None:
            return None
        parts.append(form)
    axes = {p.time_axis for p in parts if not isinstance(p, Pointwise)}
    if not parts or len(axes) > 1:
        return None
    chain = parts[0] if len(parts) == 1 else Chain(parts)
    chain.time_axis = axes.pop() if axes else 1
    return chain


def _causal(pad: nn.ConstantPad1d, convolution: nn.Module) -> CausalPair:
    assert isinstance(convolution, nn.Conv1d)
    reach = (convolution.kernel_size[0] - 1) * convolution.dilation[0]
    plain = convolution.stride == (1,) and convolution.padding in ((0,), "valid", 0)
    if not plain or tuple(pad.padding) != (reach, 0) or reach == 0:
        raise InputError(
            f"a convolution of kernel {convolution.kernel_size[0]} behind a padding of "
            f"{tuple(pad.padding)} is not causal at stride 1",
            do=f"pad ({reach}, 0), and let the convolution neither pad nor stride",
        )
    return CausalPair(pad, convolution)
