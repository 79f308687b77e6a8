"""Untrained models whose every part speaks: weights spread as if trained, norms that have seen.

Some models start parts of them at zero or at 1e-5. Outputs then are the same for all inputs, and a
comparison of two of them sees nothing of the model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_FAINT = 0.1
"""Gains below it are those of LayerScale, which silence a block before it is trained."""
_GAIN = 0.3
_SEEN = 64
_SPREAD = 3**-0.5
"""What torch gives the layers it makes. Wider ones make several steps of one rounding."""


Factory = tuple[nn.Module, tuple[Tensor, ...]]


def drawn(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    wake: Callable[[nn.Module], None] = lambda module: None,
) -> Factory:
    """That model with weights drawn for seed 0, in eval mode, and an example [1, ...] of zeros.

    Args:
        build: the model, as it starts its training.
        shape: of one sample of its input.
        wake: what changes the model before anybody sees it, with numbers of the same seed.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build()
        wake(module)
    return module.eval(), (torch.zeros(1, *shape),)


def lively(
    build: Callable[[], nn.Module], shape: tuple[int, ...], spread: float = _SPREAD
) -> Factory:
    """:func:`drawn`, all parts awake: weights by :func:`enliven`, norms that saw noise."""

    def wake(module: nn.Module) -> None:
        enliven(module, spread)
        see_noise(module, shape)

    return drawn(build, shape, wake)


def enliven(module: nn.Module, spread: float = 1.0) -> None:
    """Draw all weights as spread as after training; what is never trained stays.

    Args:
        module: whose weights are drawn in place.
        spread: of a layer's outputs, where its inputs have a spread of one.
    """
    with torch.no_grad():
        for name, p in module.named_parameters():
            if not p.requires_grad:
                continue
            if p.ndim >= 2 and p[0].numel() > 1:
                p.normal_(0.0, spread * p[0].numel() ** -0.5)
            elif float(p.abs().max()) < _FAINT and not name.endswith("bias"):
                p.normal_(_GAIN, _FAINT)
            else:
                p.add_(torch.randn_like(p), alpha=_FAINT)


def see_noise(module: nn.Module, shape: tuple[int, ...]) -> None:
    """:func:`see` normal noise, samples in that shape."""
    see(module, torch.randn(_SEEN, *shape))


def see(module: nn.Module, samples: Tensor) -> None:
    """Give batch norms the statistics of a few samples, and put the module into eval mode."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all that was seen
        norm.train()
    if norms:
        with torch.no_grad():
            module(samples)
    module.eval()
