"""Series cut into patches, which are the tokens of a mixer."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.sizes import check_size


class Patches(nn.Module):
    """Patches of each series, and a linear embedding that all channels share.

    Ekambaram et al., "TSMixer", KDD 2023, section 3.2.1; Nie et al., "A Time Series is Worth 64
    Words", ICLR 2023, section 3.1.

    Shape: [n, channels, time] → [n, channels, patches, hidden].

    Args:
        time: steps of the series.
        length: steps of a patch.
        stride: steps from one patch to the next; as many as a patch has if None.
        hidden: features of an embedded patch.

    Raises:
        InputError: the patches do not end where the series does; of the input, where it is longer
            or shorter.
    """

    def __init__(self, time: int, length: int, hidden: int, stride: int | None = None) -> None:
        super().__init__()
        self.length, self.stride = length, length if stride is None else stride
        if min(self.length, self.stride) < 1 or time < length or (time - length) % self.stride:
            raise InputError(
                f"patches of {length} steps, {self.stride} apart, do not end where a series of "
                f"{time} steps does",
                do="choose a time that is a patch and a whole number of strides",
            )
        self.time = time
        self.count = (time - length) // self.stride + 1
        self.embed = nn.Linear(length, hidden)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "series", x.shape[2:], (self.time,))
        if self.stride == self.length:
            patches = x.reshape(*x.shape[:2], self.count, self.length)
        else:
            patches = x.unfold(-1, self.length, self.stride)
        tokens: Tensor = self.embed(patches)
        return tokens
