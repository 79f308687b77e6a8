"""Hydra: what a state space reads from before and from after, as one quasiseparable matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError


class Hydra(nn.Module):
    """Short convolution, quasiseparable mixing in heads, norm, gate.

    Hwang et al., "Hydra: Bidirectional State Space Models Through Generalized Matrix Mixers",
    NeurIPS 2024, section 3, with the heads of Dao, Gu, "Transformers are SSMs", ICML 2024:

        y = shift(SS(x)) + flip(shift(SS'(flip(x)))) + D x,  result = W_o (norm(y) · silu(z))

    x, z, both ways' B, C and Δ are linear in the input; a silu and a depthwise convolution over
    ``kernel`` neighbours stand behind x, B and C; D is linear in x. Both ways share A and the bias
    of Δ. The mixing is written as the matrix that it is: with a = Δ exp(A) it weighs, in head h,

        M_ij = Δ_j exp(−Σ_{j<k<i} a_k) C_{i−1} · B_j    for j < i,
        M_ij = Δ'_j exp(−Σ_{i<k<j} a'_k) C'_{i+1} · B'_j    for j > i.

    For T steps, N states and H heads of P channels that is T² (2 N + H P) multiplications in three
    matrix products and about 10 H T² operations on single elements, the cost of attention and, up
    to 256 steps, that of the published code's one chunk; a scan has 4 T N H P, in 2 T steps that
    wait for each other.

    Shape: [n, time, dim] → [n, time, dim].

    Args:
        dim: channels of input and output.
        expand: how many times as many are mixed.
        states: of each head.
        kernel: steps that the convolution sees, an odd number.
        size: channels of a head.

    Raises:
        InputError: the channels do not divide into heads, or the kernel has no middle.
    """

    def __init__(
        self, dim: int, *, expand: int = 2, states: int = 64, kernel: int = 7, size: int = 64
    ) -> None:
        super().__init__()
        inner = expand * dim
        if inner % size:
            raise InputError(f"{inner} channels do not divide into heads of {size}")
        if kernel % 2 == 0:
            raise InputError(f"a kernel of {kernel} steps has no middle", do="make it odd")
        self.heads, self.size, self.states = inner // size, size, states
        self.parts = (inner, inner + 4 * states, 2 * self.heads)
        self.enter = nn.Linear(dim, sum(self.parts), bias=False)
        wide = self.parts[1]
        self.conv = nn.Conv1d(wide, wide, kernel, padding=kernel // 2, groups=wide)
        self.log_decay = nn.Parameter(torch.zeros(self.heads))
        # Steps between 1/1000 and 1/10, as the published code starts with.
        steps = torch.exp(torch.linspace(0, 1, self.heads) * 4.6 - 6.9)
        self.rate = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
        self.skip = nn.Linear(inner, self.heads)
        nn.init.ones_(self.skip.bias)
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.leave = nn.Linear(inner, dim, bias=False)

    def forward(self, u: Tensor) -> Tensor:  # noqa: D102
        z, mixed, rate = self.enter(u).split(self.parts, -1)
        mixed = functional.silu(self.conv(mixed.transpose(1, 2)).transpose(1, 2))
        x, *projected = torch.split(mixed, [self.parts[0], *[self.states] * 4], -1)
        values = x.reshape(*x.shape[:2], self.heads, self.size)
        matrix = self.matrix(projected, rate)
        y = (matrix @ values.transpose(1, 2)).transpose(1, 2)
        y = (y + values * self.skip(x)[..., None]).flatten(2)
        result: Tensor = self.leave(self.norm(y) * functional.silu(z))
        return result

    def matrix(self, projected: list[Tensor], rate: Tensor) -> Tensor:
        """M without D, [n, heads, time, time], from B, C, B', C' and Δ beside Δ' before its bias.

        Shape: [n, time, states] four times, [n, time, 2 heads] → [n, heads, time, time].
        """
        b, c, b_after, c_after = projected
        time = rate.shape[1]
        earlier = torch.ones(time, time, device=rate.device).tril(-1)
        rate, rate_after = (
            functional.softplus(r + self.rate).transpose(1, 2) for r in rate.chunk(2, -1)
        )
        before = _decayed(rate * self.log_decay.exp()[:, None], earlier)
        after = _decayed(rate_after * self.log_decay.exp()[:, None], earlier.T)
        # The shift: a row reads with what its neighbour, the last that it may see, reads with. The
        # row that has none sees nothing, whatever it reads with.
        c = torch.cat([c[:, -1:], c[:, :-1]], 1)
        c_after = torch.cat([c_after[:, 1:], c_after[:, :1]], 1)
        before = before * (c @ b.transpose(1, 2))[:, None] * rate[:, :, None]
        after = after * (c_after @ b_after.transpose(1, 2))[:, None] * rate_after[:, :, None]
        return before + after


def _decayed(rate: Tensor, seen: Tensor) -> Tensor:
    """exp(−Σ rate_k) over the k between j and i where i sees j, else 0.

    Shape: [n, heads, time], [time, time] → [n, heads, time, time].
    """
    total = rate @ seen.T  # of all that i sees; with j's own, of all up to j
    between = total[..., :, None] - (total + rate)[..., None, :]
    # Not seen is negative: kept from growing beyond every grid before it is taken away.
    return torch.exp(-between.relu()) * seen
