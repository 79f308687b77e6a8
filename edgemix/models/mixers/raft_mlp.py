"""Perceptrons along columns and along rows, over rafts of channels (RaftMLP)."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.sizes import check_size


class RaftMlp(nn.Module):
    """y = V(x) + H(x + V(x)): W₂ σ(W₁ ·) over the columns first, then over the rows.

    A raft is ``raft`` channels that lie c / raft apart; the positions of a line in all channels of
    a raft are mixed together. Tatsunami and Taki, "RaftMLP: How Much Can Be Done Without Attention
    and with Less Spatial Locality?", ACCV 2022, section 3.

    Shape: [n, c, h, w] → [n, c, h, w] with the map that was said.

    Raises:
        InputError: the channels do not divide into rafts; of the input, where its map is another.
    """

    def __init__(self, dim: int, height: int, width: int, raft: int = 2, ratio: int = 2) -> None:
        super().__init__()
        if dim % raft:
            raise InputError(f"{dim} channels do not divide into rafts of {raft}")
        self.size, self.raft = (height, width), raft
        self.columns, self.rows = (_mlp(raft * side, ratio) for side in (height, width))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "maps", x.shape[2:], self.size)
        mixed = self._along(x.transpose(2, 3), self.columns).transpose(2, 3)
        return mixed + self._along(x + mixed, self.rows)

    def _along(self, x: Tensor, mlp: nn.Module) -> Tensor:
        """Lines [n, c, lines, positions], mixed with those of their raft."""
        n, c, lines, places = x.shape
        rafts = x.reshape(n, self.raft, c // self.raft, lines, places).permute(0, 2, 3, 1, 4)
        mixed: Tensor = mlp(rafts.flatten(3)).reshape(rafts.shape)
        return mixed.permute(0, 3, 1, 2, 4).reshape(x.shape)


def _mlp(width: int, ratio: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
    )
