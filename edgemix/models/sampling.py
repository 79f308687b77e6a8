"""Reading a map at computed places."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_discrete(x: Tensor, grid: Tensor) -> Tensor:
    """The value at the place that is nearest: RT-DETRv2's discrete sampling.

    Lv et al., "RT-DETRv2: Improved Baseline with Bag-of-Freebies for Real-Time Detection
    Transformer", 2024: it stands where ``grid_sample(x, grid)`` stood, and reads one value in the
    place of four. Other numbers come out, so no rewrite puts it there: a model says so, and is
    fine-tuned with it.

    A place u of [0, 1] is the index ⌊u w + 1/2⌋, no more than w − 1, in the published code: half a
    place to the right of where ``grid_sample(mode="nearest")`` has it.

    Shape: [n, c, h, w], [n, m, k, 2] → [n, c, m, k]; columns come first in the last axis, in
    [−1, 1].
    """
    half = torch.tensor([1 / x.shape[-1], 1 / x.shape[-2]], device=x.device, dtype=x.dtype)
    return F.grid_sample(x, grid + half, "nearest", "border", align_corners=False)
