"""Recurrent layers. MIL: ``recurrent``. Sequences are [steps, batch, features].

Where MIL's text leaves something open, what coremltools' own tests compare Core ML with decides
(``mil/ops/tests/iOS14/test_recurrent.py``): a layer of direction "reverse" gives its steps in the
order in which it computed them; the way back of a bidirectional one gives them in the input's.
``clip`` bounds the cell's state, though the text says its gate, and scaled_tanh has no scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from edgemix.errors import UnsupportedError
from edgemix.targets.coreml.kernels.base import kernels

_Function = Callable[[Tensor], Tensor]


_FUNCTIONS: Mapping[str, _Function] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "linear": lambda x: x,
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "scaled_tanh": torch.tanh,
}  # fmt: skip


def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    act = _function(activation)
    gates = torch.nn.functional.linear(x, weight_ih, bias)
    h, states = initial_h, []
    for gate in _in_order(gates, direction):
        h = act(gate + h @ weight_hh.T)
        states.append(h)
    return _sequence(states, output_sequence), h


def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    input_bias: Tensor | None = None,
    reset_after: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gates in the order reset, output, update.

    The state is reset before its product with the weights; after it, as torch does, if
    ``reset_after``. ``bias`` belongs to that product.
    """
    inner, act = _function(recurrent_activation), _function(activation)
    size = weight_hh.shape[1]
    gates = torch.nn.functional.linear(x, weight_ih, input_bias)
    w_r, w_o, w_z = torch.split(weight_hh, size)
    b_r, b_o, b_z = torch.zeros(3, size) if bias is None else torch.split(bias, size)
    h, states = initial_h, []
    for gate in _in_order(gates, direction):
        g_r, g_o, g_z = torch.split(gate, size, -1)
        r = inner(g_r + h @ w_r.T + b_r)
        z = inner(g_z + h @ w_z.T + b_z)
        kept = r * (h @ w_o.T + b_o) if reset_after else (r * h) @ w_o.T + b_o
        h = (1 - z) * act(g_o + kept) + z * h
        states.append(h)
    return _sequence(states, output_sequence), h


def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gates in the order input, forget, output, cell."""
    functions = tuple(_function(n) for n in (recurrent_activation, cell_activation, activation))
    if direction != "bidirectional":
        return _lstm(
            x, initial_h, initial_c, weight_ih, weight_hh, bias, peephole, direction,
            output_sequence, functions, clip,
        )  # fmt: skip
    if weight_ih_back is None or weight_hh_back is None:
        raise UnsupportedError("a bidirectional lstm without weights for its way back")
    (h_to, h_back), (c_to, c_back) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    to = _lstm(
        x, h_to, c_to, weight_ih, weight_hh, bias, peephole, "forward", output_sequence,
        functions, clip,
    )  # fmt: skip
    back = _lstm(
        x, h_back, c_back, weight_ih_back, weight_hh_back, bias_back, peephole_back, "reverse",
        output_sequence, functions, clip,
    )  # fmt: skip
    sequence = torch.cat([to[0], back[0].flip(0)], -1)
    return sequence, torch.cat([to[1], back[1]], -1), torch.cat([to[2], back[2]], -1)


def _lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
    direction: str,
    output_sequence: bool,
    functions: tuple[_Function, ...],
    clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    inner, cell, act = functions
    size = weight_hh.shape[1]
    p_i, p_f, p_o = torch.zeros(3, size) if peephole is None else torch.split(peephole, size)
    states = []
    for gate in _in_order(torch.nn.functional.linear(x, weight_ih, bias), direction):
        i, f, o, z = torch.split(gate + h @ weight_hh.T, size, -1)
        c = inner(f + p_f * c) * c + inner(i + p_i * c) * cell(z)
        if clip is not None:
            c = c.clamp(-clip, clip)
        h = inner(o + p_o * c) * act(c)
        states.append(h)
    return _sequence(states, output_sequence), h, c


def _function(name: str) -> _Function:
    if name not in _FUNCTIONS:
        raise UnsupportedError(f"a recurrent layer with the activation {name}")
    return _FUNCTIONS[name]


def _in_order(gates: Tensor, direction: str) -> Tensor:
    if direction not in ("forward", "reverse"):
        raise UnsupportedError(f"a recurrent layer with the direction {direction}")
    return gates.flip(0) if direction == "reverse" else gates


def _sequence(states: list[Tensor], whole: bool) -> Tensor:
    """All steps in the order in which they were computed, or the last one."""
    return torch.stack(states) if whole else states[-1].unsqueeze(0)


KERNELS = kernels(rnn, gru, lstm)
