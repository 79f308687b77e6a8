"""The tiny transformer for environmental sounds: BERT on the frames of a mel spectrogram.

Elliott, Otero, Wyatt and Martino, "Tiny Transformers for Environmental Sound Classification at the
Edge", 2021, publish the kind (BERT's encoder), its input (mel spectrograms) and its size (just over
6,000 parameters); Wyatt et al., "Environmental Sound Classification with Tiny Transformers in Noisy
Edge Environments", WF-IoT 2021, put one of less than 20,000 on a Raspberry Pi Zero.

Their abstracts say no more, and the plan here is inferred from the size. With BERT's own
proportions, a feed-forward layer four times as wide as the rest, a layer of 32 features has more
than 12,000 parameters and two layers of 16 have 6,560 without any input: so it is one layer of 16,
3,280. What remains goes to 64 mel bands (1,040), positions of 80 frames and the token that is
classified (1,312), the pooler (272) and eleven classes (187), as many as DCASE 2016's office
sounds have. Bands, frames and classes could be others with the same sum.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.lively import lively
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.sizes import check_size


class Encoder(nn.Module):
    """x ← norm(x + attention(x)), x ← norm(x + W₂ gelu(W₁ x)): norms stand behind the sums.

    Devlin et al., "BERT", NAACL 2019, section 3; Vaswani et al., "Attention Is All You Need", 2017,
    sections 3.1 to 3.3.

    Shape: [n, tokens, dim] → the same.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(f"{dim} features do not divide into {heads} heads")
        self.heads = heads
        self.query, self.key, self.value, self.proj = (nn.Linear(dim, dim) for _ in "1234")
        self.norm1 = nn.LayerNorm(dim, eps=1e-12)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.norm2 = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v = (self._in_heads(part(x)) for part in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-2, -1) * float(q.shape[-1]) ** -0.5).softmax(dim=-1)
        x = self.norm1(x + self.proj((weights @ v).transpose(1, 2).flatten(2)))
        return cast(Tensor, self.norm2(x + self.mlp(x)))

    def _in_heads(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        return x.reshape(n, tokens, self.heads, dim // self.heads).transpose(1, 2)


class SoundTransformer(nn.Module):
    """BERT whose words are mel frames, read out at a token of its own.

    Shape: [n, frames, mels] → [n, classes].

    Raises:
        InputError: of the input, where its size is another.
    """

    def __init__(
        self, mels: int, frames: int, classes: int, dim: int = 16, heads: int = 2, depth: int = 1
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(mels, dim)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.at = nn.Parameter(torch.randn(1, 1 + frames, dim) * 0.02)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.encoders = nn.Sequential(*(Encoder(dim, heads, 4 * dim) for _ in range(depth)))
        self.pooler = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "sounds", x.shape[1:], (self.at.shape[1] - 1, self.embedding.in_features))
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embedding(x)], dim=1)
        encoded = self.encoders(self.norm(tokens + self.at))
        return cast(Tensor, self.head(self.pooler(encoded[:, 0])))


_FRAMES, _MELS = 80, 64

PRESETS = {
    "esc_transformer_6k": Preset(
        partial(SoundTransformer, _MELS, _FRAMES, 11), (_FRAMES, _MELS), 0.006, None,
        "Elliott et al., Tiny Transformers for ESC, 2021, abstract: just over 6,000 parameters",
    ),
}  # fmt: skip


def tiny() -> Factory:
    """The preset on ten frames."""
    return lively(partial(SoundTransformer, _MELS, 10, 11), (10, _MELS), spread=1.0)
