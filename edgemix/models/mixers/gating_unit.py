"""A perceptron over the positions as the gate of a linear map (NiNformer)."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.mixers.token_mlp import TokenMlp


class GatingUnit(nn.Module):
    """y = W x ⊙ G(x), G the token mixing of an MLP-Mixer.

    The gate depends on the input, where an MLP-Mixer's map does not. Abdullah et al., "NiNformer: A
    Network in Network Transformer with Token Mixing Generated Gating Function", 2024, section 3.

    Shape: [n, c, h, w] → [n, c, h, w] with h·w = ``positions``.

    Raises:
        InputError: of the input, where its size is another.
    """

    def __init__(self, dim: int, positions: int) -> None:
        super().__init__()
        self.value = nn.Conv2d(dim, dim, 1)
        self.gate = TokenMlp(dim, positions)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mixed: Tensor = self.value(x) * self.gate(x)
        return mixed
