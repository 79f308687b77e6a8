"""Recurrent layers of torch as plain operators over a sequence of fixed length.

For a model that reads its sequence from the end too: it has no step, but the whole of it exists.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from edgemix.streaming.forms import Recurrent
from edgemix.streaming.protocol import by_steps, held


def unrolled(module: nn.Module) -> nn.Module:
    """A copy of a model in which every ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` is written out.

    The copy takes and gives what the model does; traced, it has no recurrent operator.
    """
    if isinstance(module, (nn.LSTM, nn.GRU, nn.RNN)):
        return Unrolled(module)
    found = copy.deepcopy(module)
    for name, child in list(found.named_modules()):
        if isinstance(child, (nn.LSTM, nn.GRU, nn.RNN)):
            parent, _, last = name.rpartition(".")
            setattr(found.get_submodule(parent), last, Unrolled(child))
    return found


class Unrolled(nn.Module):
    """A recurrent layer, step after step in one graph, from the end too if it has two directions.

    Shape: [batch, time, features] or, without ``batch_first``, [time, batch, features], as the
    layer has it; and a second value, the hidden state at the end (and for an LSTM the cell).
    """

    def __init__(self, module: nn.LSTM | nn.GRU | nn.RNN) -> None:
        super().__init__()
        self.batch_first = module.batch_first
        self.lstm = isinstance(module, nn.LSTM)
        directions = 2 if module.bidirectional else 1
        self.layers = nn.ModuleList(
            nn.ModuleList(Recurrent(_single(module, i, d)) for d in range(directions))
            for i in range(module.num_layers)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, object]:  # noqa: D102
        x = x if self.batch_first else x.transpose(0, 1)
        ends: list[tuple[Tensor, ...]] = []
        for layer in self.layers:
            found = []
            for direction, one in enumerate(cast(nn.ModuleList, layer)):
                assert isinstance(one, Recurrent)
                y, end = by_steps(one, x.flip(1) if direction else x)
                found.append(y.flip(1) if direction else y)
                kinds = ("hidden_0", "cell_0") if self.lstm else ("hidden_0",)
                ends.append(tuple(held(end, kind) for kind in kinds))
            x = torch.cat(found, -1) if len(found) > 1 else found[0]
        last = tuple(torch.stack(kind) for kind in zip(*ends, strict=True))
        y = x if self.batch_first else x.transpose(0, 1)
        return y, last if self.lstm else last[0]


class First(nn.Module):
    """A model without what it gives besides its output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:  # noqa: D102
        found = self.module(*inputs)
        output: Tensor = found[0] if isinstance(found, tuple) else found
        return output


def _single(
    module: nn.LSTM | nn.GRU | nn.RNN, layer: int, direction: int
) -> nn.LSTM | nn.GRU | nn.RNN:
    """One direction of one layer as a module of its own."""
    suffix = f"_l{layer}{'_reverse' if direction else ''}"
    weight = getattr(module, f"weight_ih{suffix}")
    options = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
    single = type(module)(
        weight.shape[1], module.hidden_size, bias=module.bias, batch_first=True, **options
    )
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
    with torch.no_grad():
        for name in names:
            getattr(single, f"{name}_l0").copy_(getattr(module, f"{name}{suffix}"))
    return single
