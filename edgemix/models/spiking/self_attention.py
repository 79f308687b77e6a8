"""Attention between spikes, without a softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.sizes import check_heads
from edgemix.models.spiking.max_former import spiking_conv
from edgemix.models.spiking.neurons import averaging
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class SpikingSelfAttention(Assembled):
    """x + BN(W spikes(s q (kᵀ v))), q, k, v spikes of maps of the spikes of x.

    Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023, equations
    7 to 9; spikes first and sums of membrane inputs: Fang et al., NeurIPS 2025.

    Shape: [batch, time, dim, h, w] → the same.

    Raises:
        InputError: the channels do not divide into heads.
    """

    def __init__(self, dim: int, size: tuple[int, int], heads: int, scale: float = 0.125) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads, self.width, self.scale, self.size = heads, dim // heads, scale, size
        self.fire = averaging(dim, *size)
        self.maps = nn.ModuleList([spiking_conv(dim, dim, 1) for _ in "qkv"])
        self.fires = nn.ModuleList([averaging(dim, *size) for _ in "qkv"])
        self.mixed_fire = averaging(dim, *size, threshold=0.5)
        self.proj = spiking_conv(dim, dim, 1, bias=True)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        named = zip("qkv", self.fires, strict=True)
        found: dict[str, Stepwise] = {f"fire_{name}": fire for name, fire in named}  # type: ignore[misc]
        return {"fire": self.fire, **found, "mixed_fire": self.mixed_fire}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        spikes = run("fire", x)
        q, k, v = (
            self._in_heads(run(f"fire_{name}", conv(spikes)))
            for name, conv in zip("qkv", self.maps, strict=True)
        )
        # Positions are the last axis here, so each product is the paper's transposed.
        mixed = (v @ k.transpose(-2, -1)) @ q * self.scale
        joined = torch.unflatten(mixed.flatten(-3, -2), -1, self.size)
        changed: Tensor = self.proj(run("mixed_fire", joined))
        return x + changed

    def _in_heads(self, x: Tensor) -> Tensor:
        """[..., dim, h, w] → [..., heads, dim / heads, h · w]."""
        return torch.unflatten(x.flatten(-2), -2, (self.heads, self.width))
