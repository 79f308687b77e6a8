"""The linear Transformers that draw pictures pixel by pixel."""

from __future__ import annotations

from functools import partial

from edgemix.models.presets.base import Preset
from edgemix.models.recurrent.linear_transformer import LinearTransformer

_DIM, _HEADS, _MIXTURES = 256, 8, 10
_SOURCE = "Katharopoulos et al., Transformers are RNNs, ICML 2020, section 4.2, and its code"


def _of(depth: int, pixels: int, counted: float) -> Preset:
    """Ten logistics of three numbers each; what comes in was embedded outside."""
    build = partial(LinearTransformer, _DIM, depth, _HEADS, 3 * _MIXTURES)
    return Preset(build, (pixels, _DIM), None, None, _SOURCE, counted=counted)


PRESETS = {
    "linear_transformer_mnist": _of(8, 28 * 28, 6.3),
    "linear_transformer_cifar10": _of(16, 32 * 32 * 3, 12.6),
}
