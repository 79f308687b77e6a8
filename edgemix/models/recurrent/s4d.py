"""S4D: a state space whose matrix is diagonal, in real numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.streaming.protocol import State, Stepwise, held, zeros


class DiagonalStateSpace(Stepwise):
    """h' = A h + B u, y = 2 Re(C h) + D u for every channel, A diagonal and complex, B one.

    Gu, Gupta, Goel, Ré, "On the Parameterization and Initialization of Diagonal State Space
    Models", NeurIPS 2022, section 3. By zero-order hold over a step of Δ

        Ā = exp(Δ A),  B̄ = (Ā − 1) / A,  h_t = h_{t−1} + (Ā − 1) h_{t−1} + B̄ u_t

    A = −exp(a) + i ω starts as S4D-Lin, −1/2 + i π n. Each number stands for itself and for its
    conjugate, hence the 2. The memory holds real and imaginary parts.

    Shape: [batch, time, channels] → [batch, time, channels].

    Args:
        channels: each with a state of its own.
        states: complex numbers that the state of a channel has, half the order of the system.
        shortest: the first channel's step Δ.
        longest: the last channel's; in between they grow by the same factor.
    """

    def __init__(
        self, channels: int, states: int, *, shortest: float = 1e-3, longest: float = 1e-1
    ) -> None:
        super().__init__()
        self.shape = (channels, states)
        steps = torch.linspace(math.log(shortest), math.log(longest), channels)
        self.log_step = nn.Parameter(steps[:, None])
        self.log_decay = nn.Parameter(torch.full(self.shape, math.log(0.5)))
        frequency = math.pi * torch.arange(states, dtype=steps.dtype)
        self.frequency = nn.Parameter(frequency.repeat(channels, 1))
        self.read_real = nn.Parameter(torch.randn(self.shape) * 0.5**0.5)
        self.read_imag = nn.Parameter(torch.randn(self.shape) * 0.5**0.5)
        self.skip = nn.Parameter(torch.ones(channels))

    def initial_state(self, batch: int = 1) -> State:
        """``real`` and ``imag``: both parts of h, [batch, channels, states]."""
        return {"real": zeros(batch, *self.shape), "imag": zeros(batch, *self.shape)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        (keep_real, keep_imag), (drive_real, drive_imag) = self.discrete()
        real, imag, u = held(state, "real"), held(state, "imag"), x[:, :, None]
        # As in the Legendre memory: the change is small, and what a quantizer should see.
        change_real = keep_real * real - keep_imag * imag + drive_real * u
        change_imag = keep_imag * real + keep_real * imag + drive_imag * u
        real, imag = real + change_real, imag + change_imag
        y = (2 * self.read_real * real - 2 * self.read_imag * imag).sum(-1)
        return y + self.skip * x, {"real": real, "imag": imag}

    def forward(self, x: Tensor) -> Tensor:
        """As a convolution with the response, by the Fourier transform."""
        size = 2 * x.shape[1]
        response = torch.fft.rfft(self.response(x.shape[1]), n=size, dim=0)
        y: Tensor = torch.fft.irfft(torch.fft.rfft(x, n=size, dim=1) * response, n=size, dim=1)
        return y[:, : x.shape[1]] + self.skip * x

    def discrete(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Ā − 1 and B̄, each as its real and its imaginary part, [channels, states]."""
        rate, angle = self._rates()
        size = torch.exp(rate)
        real, imag = size * torch.cos(angle) - 1, size * torch.sin(angle)
        decay, frequency = torch.exp(self.log_decay), self.frequency
        norm = decay * decay + frequency * frequency
        drive = (frequency * imag - decay * real) / norm, -(decay * imag + frequency * real) / norm
        return (real, imag), drive

    def response(self, length: int) -> Tensor:
        """2 Re(C Ā^t B̄), what an impulse gives at step t, [length, channels]."""
        _, (drive_real, drive_imag) = self.discrete()
        real = self.read_real * drive_real - self.read_imag * drive_imag
        imag = self.read_real * drive_imag + self.read_imag * drive_real
        rate, angle = self._rates()
        t = torch.arange(length, dtype=rate.dtype, device=rate.device)[:, None, None]
        waves = real * torch.cos(angle * t) - imag * torch.sin(angle * t)
        return 2 * (torch.exp(rate * t) * waves).sum(-1)

    def _rates(self) -> tuple[Tensor, Tensor]:
        """Δ A, its real and its imaginary part."""
        step = torch.exp(self.log_step)
        return -step * torch.exp(self.log_decay), step * self.frequency


class S4D(Stepwise):
    """y = a · sigmoid(b), (a, b) = W gelu(ssm(x)): a state space a channel, then a gated mix.

    Gu et al., NeurIPS 2022; the layer around the state space is that of the authors' code.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(
        self, dim: int, *, states: int = 32, shortest: float = 1e-3, longest: float = 1e-1
    ) -> None:
        super().__init__()
        self.space = DiagonalStateSpace(dim, states, shortest=shortest, longest=longest)
        self.mix = nn.Linear(dim, 2 * dim)

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return self.space.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        y, after = self.space.step(x, state)
        return self._mixed(y), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self._mixed(self.space(x))

    def _mixed(self, y: Tensor) -> Tensor:
        value, gate = self.mix(functional.gelu(y)).chunk(2, -1)
        result: Tensor = value * torch.sigmoid(gate)
        return result
