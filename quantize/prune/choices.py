"""What users choose by name, in a file that imports nothing heavy: help texts show them."""

from __future__ import annotations

from typing import Literal

Importance = Literal["refit", "hessian", "taylor", "activation", "magnitude", "order"]
"""What a unit is worth. ``refit``: what is left of the outputs' error after the weights that stay
make up for it; ``hessian``: the outputs' squared change to first order (Gauss-Newton's diagonal);
``taylor``: the loss's change to first order; ``activation``: the size of what is read times its
weights; ``magnitude``: the size of the weights; ``order``: the first of each width are worth most,
as in models that were trained in nested widths."""

WITHOUT_DATA = ("magnitude", "order")

TokenMethod = Literal["tome", "pitome", "zerotprune"]
"""``tome``: tokens merge with those that they are most like (Bolya et al., "Token Merging: Your ViT
But Faster", ICLR 2023); ``pitome``: only those in crowds do (Tran et al., "Accelerating
Transformers with Spectrum-Preserving Token Merging", NeurIPS 2024); ``zerotprune``: tokens that
attention ranks low, or that are like one it ranks higher, go (Wang et al., "Zero-TPrune", CVPR
2024)."""
