"""A perceptron over the positions as token mixer (MLP-Mixer)."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.sizes import check_size


class TokenMlp(nn.Module):
    """y = W₂ σ(W₁ x) over the positions, the same for every channel.

    Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", NeurIPS 2021, equation 1.

    Shape: [n, c, h, w] → [n, c, h, w] with h·w = ``positions``.

    Raises:
        InputError: of the input, where its size is another.
    """

    def __init__(self, dim: int, positions: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = 2 * positions if hidden is None else hidden
        self.expand = nn.Linear(positions, hidden)
        self.activation = nn.GELU()
        self.contract = nn.Linear(hidden, positions)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        tokens = x.flatten(2)
        check_size(self, "positions", tokens.shape[2:], (self.expand.in_features,))
        mixed: Tensor = self.contract(self.activation(self.expand(tokens)))
        return mixed.reshape(x.shape)
