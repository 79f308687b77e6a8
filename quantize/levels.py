"""The algorithms by name, and which of them ``--quality`` picks."""

from __future__ import annotations

from typing import Literal

Algorithm = Literal[
    "equalize", "reparam", "smooth", "domains", "ranges", "gptq", "adaround", "brevitas-gptq",
    "brevitas-gpfq", "brevitas-learned", "reconstruct", "bias",
]  # fmt: skip
"""One file each in :mod:`edgemix.quantize.algorithms`; they run in this order."""

Quality = Literal["fast", "balanced", "best"]

QUALITY: dict[Quality, tuple[Algorithm, ...]] = {
    "fast": ("equalize", "reparam", "smooth", "domains"),
    "balanced": ("equalize", "reparam", "smooth", "domains", "ranges", "gptq", "bias"),
    "best": ("equalize", "reparam", "smooth", "domains", "ranges", "gptq", "reconstruct", "bias"),
}
