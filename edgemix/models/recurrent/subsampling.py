"""Fewer, wider frames from a spectrogram: convolutions that halve time and bands."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.streaming.protocol import State, Stepwise, held, zeros

_PAST = 2
"""Frames in front of a kernel of three at stride two."""


class CausalSubsampling(Stepwise):
    """A convolution, then depthwise separable ones, each of stride 2; a linear map of the bands.

    Rekesh et al., "Fast Conformer with Linearly Scalable Attention", ASRU 2023, section 3.1; causal
    in time as in Noroozi et al., ICASSP 2024, section 3: each reads two frames before its own.

    Shape: [batch, time, features] → [batch, time / 2^halvings, dim], time a multiple of ``chunk``.
    """

    def __init__(
        self, features: int, dim: int, *, channels: int, chunk: int, halvings: int = 3
    ) -> None:
        super().__init__()
        self.chunk = chunk * 2**halvings
        self.channels = [1] + [channels] * (halvings - 1)
        self.bands = [features]
        convs: list[nn.Module] = [nn.Conv2d(1, channels, 3, 2)]
        for _ in range(halvings - 1):
            depthwise = nn.Conv2d(channels, channels, 3, 2, groups=channels)
            convs.append(nn.Sequential(depthwise, nn.Conv2d(channels, channels, 1)))
            self.bands.append(self.bands[-1] // 2 + 1)
        self.convs = nn.ModuleList(convs)
        self.out = nn.Linear(channels * (self.bands[-1] // 2 + 1), dim)

    def initial_state(self, batch: int = 1) -> State:
        """``past_0 …``: the last frames of every convolution's input."""
        shapes = zip(self.channels, self.bands, strict=True)
        return {f"past_{i}": zeros(batch, c, _PAST, b) for i, (c, b) in enumerate(shapes)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        x, after = x[:, None], {}
        for i, conv in enumerate(self.convs):
            window = torch.cat([held(state, f"past_{i}"), x], 2)
            after[f"past_{i}"] = window[:, :, -_PAST:]
            x = self._halved(conv, window)
        return self._joined(x), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = x[:, None]
        for conv in self.convs:
            x = self._halved(conv, functional.pad(x, (0, 0, _PAST, 0)))
        return self._joined(x)

    @staticmethod
    def _halved(conv: nn.Module, window: Tensor) -> Tensor:
        return torch.relu(conv(functional.pad(window, (2, 1))))

    def _joined(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return result
