"""Attention as a recurrence: linear, gated linear, and by the delta rule."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.sizes import check_heads
from edgemix.streaming.protocol import State, Stepwise, held, zeros


class _Heads(Stepwise):
    """What the three have in common: q, k, v in heads, a memory S [batch, heads, d_k, d_v]."""

    def __init__(self, dim: int, heads: int, *, bias: bool = False) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.dim, self.heads, self.size = dim, heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.proj = nn.Linear(dim, dim)

    def initial_state(self, batch: int = 1) -> State:
        """``memory``: what keys have stored."""
        return {"memory": zeros(batch, self.heads, self.size, self.size)}

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, k, v, each [batch, ..., heads, size]."""
        q, k, v = (self._in_heads(p) for p in self.qkv(x).chunk(3, -1))
        return q, k, v

    def _in_heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, self.size)

    def _joined(self, y: Tensor) -> Tensor:
        result: Tensor = self.proj(y.flatten(-2))
        return result


class LinearAttention(_Heads):
    """S' = S + φ(k) vᵀ,  n' = n + φ(k),  y = φ(q) S' / (φ(q) · n'),  φ(x) = elu(x) + 1.

    Katharopoulos et al., "Transformers are RNNs", ICML 2020, equations 16 to 20. The memory grows
    with the sequence: its range is that of the longest one in calibration.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, heads: int = 2, *, bias: bool = False) -> None:
        super().__init__(dim, heads, bias=bias)

    def initial_state(self, batch: int = 1) -> State:
        """``memory`` and ``normalizer``: sums of what keys have stored, and of the keys."""
        normalizer = zeros(batch, self.heads, self.size)
        return {**super().initial_state(batch), "normalizer": normalizer}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        q, k, v = self._features(x)
        memory = held(state, "memory") + k[..., :, None] * v[..., None, :]
        normalizer = held(state, "normalizer") + k
        y = self._read(q, memory, normalizer)
        return self._joined(y), {"memory": memory, "normalizer": normalizer}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v = self._features(x)
        memory = (k[..., :, None] * v[..., None, :]).cumsum(1)
        return self._joined(self._read(q, memory, k.cumsum(1)))

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._split(x)
        return functional.elu(q) + 1, functional.elu(k) + 1, v

    @staticmethod
    def _read(q: Tensor, memory: Tensor, normalizer: Tensor) -> Tensor:
        found = (q[..., None, :] @ memory)[..., 0, :]
        total = (q * normalizer).sum(-1, keepdim=True)
        return found / total


class GatedLinearAttention(_Heads):
    """S' = diag(α) S + k vᵀ,  y = q S' / √d,  α = sigmoid(W₂ W₁ x)^(1/16).

    Yang et al., "Gated Linear Attention Transformers with Hardware-Efficient Training", ICML 2024,
    equation 3 and section 4.4; each head is normalized, then gated by silu(W_g x).

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, heads: int = 2, rank: int = 4, temper: float = 16.0) -> None:
        super().__init__(dim, heads)
        self.forget = nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim))
        self.gate = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(self.size)
        self.temper = temper

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        q, k, v, alpha = self._gated(x)
        memory = alpha[..., :, None] * held(state, "memory") + k[..., :, None] * v[..., None, :]
        return self._read(q, memory, x), {"memory": memory}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v, alpha = self._gated(x)
        memory, found = held(self.initial_state(len(x)), "memory"), []
        for t in range(x.shape[1]):
            stored = k[:, t, :, :, None] * v[:, t, :, None, :]
            memory = alpha[:, t, :, :, None] * memory + stored
            found.append(memory)
        return self._read(q, torch.stack(found, 1), x)

    def _gated(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v = self._split(x)
        # sigmoid(a)^(1/τ) = exp(−softplus(−a) / τ), which needs no root.
        forget = torch.exp(-functional.softplus(-self.forget(x)) / self.temper)
        return q * self.size**-0.5, k, v, self._in_heads(forget)

    def _read(self, q: Tensor, memory: Tensor, x: Tensor) -> Tensor:
        found = self.norm((q[..., None, :] @ memory)[..., 0, :])
        gate = self._in_heads(functional.silu(self.gate(x)))
        return self._joined(found * gate)


class DeltaNet(_Heads):
    """S' = S + β k (v − kᵀ S)ᵀ,  y = q S',  keys and queries of unit length, β = sigmoid(W_β x).

    Yang et al., "Parallelizing Linear Transformers with the Delta Rule over Sequence Length",
    NeurIPS 2024, equation 4; the rule itself: Schlag et al., "Linear Transformers Are Secretly Fast
    Weight Programmers", ICML 2021.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__(dim, heads)
        self.rate = nn.Linear(dim, heads)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        q, k, v, beta = self._unit(x)
        memory = self._written(held(state, "memory"), k, v, beta)
        return self._joined((q[..., None, :] @ memory)[..., 0, :]), {"memory": memory}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v, beta = self._unit(x)
        memory, found = held(self.initial_state(len(x)), "memory"), []
        for t in range(x.shape[1]):
            memory = self._written(memory, k[:, t], v[:, t], beta[:, t])
            found.append(memory)
        return self._joined((q[..., None, :] @ torch.stack(found, 1))[..., 0, :])

    def _unit(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v = self._split(x)
        q, k = functional.silu(q), functional.silu(k)
        return unit(q), unit(k), v, torch.sigmoid(self.rate(x))

    def _written(self, memory: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        known = (k[..., None, :] @ memory)[..., 0, :]
        correction = beta[..., None] * (v - known)
        return memory + k[..., :, None] * correction[..., None, :]


def unit(x: Tensor) -> Tensor:
    """Of length one along the last axis; what is short stays short, for no grid divides by zero."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-2)
