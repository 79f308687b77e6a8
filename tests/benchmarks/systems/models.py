"""The systems of the table: timm's families of token and channel mixers, and models of our own.

Each name in ``TIMM`` is a factory here, so ``edgemix deploy tests.benchmarks.systems.models:NAME``
takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

Factory = tuple[nn.Module, tuple[Tensor, ...]]

TIMM = (
    "cait_xxs24_224", "caformer_s18", "coat_tiny", "coatnet_pico_rw_224", "convformer_s18",
    "convit_tiny", "convmixer_768_32", "convnext_atto", "cpubone_nano", "crossvit_tiny_240",
    "csatv2", "davit_tiny", "deit_tiny_patch16_224", "edgenext_xx_small", "efficientformer_l1",
    "efficientformerv2_s0", "efficientvim_m1", "efficientvit_b0", "efficientvit_m0", "fasternet_t0",
    "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny", "gmlp_ti16_224", "halonet_h1",
    "hiera_tiny_224", "iformer_t", "inception_next_atto", "levit_128s", "lowformer_b0",
    "mambaout_femto", "maxvit_rmlp_pico_rw_256", "mixer_s32_224", "mobilenetv4_hybrid_medium",
    "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny", "nest_tiny", "nextvit_small", "pit_ti_224",
    "poolformer_s12", "poolformerv2_s12", "pvt_v2_b0", "repvit_m1", "resmlp_12_224",
    "sequencer2d_s", "shvit_s1", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_224", "swinv2_tiny_window8_256", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224",
    "twins_pcpvt_small", "twins_svt_small", "visformer_tiny", "vit_relpos_small_patch16_224",
    "vit_tiny_patch16_224", "vit_tiny_patch16_dinov3_qkvb", "vit_tiny_r_s16_p8_224",
    "vitamin_small_224", "volo_d1_224", "xcit_nano_12_p8_224",
)  # fmt: skip
"""The smallest of each family, or what is nearest to a system of the design's table."""

_FAINT = 0.1
"""Gains below it are those of LayerScale, which silence a block before it is trained."""
_GAIN = 0.3
_IMAGES = 4


def __getattr__(name: str) -> Callable[[], Factory]:
    if name in TIMM:
        return partial(build, name)
    raise AttributeError(name)


def build(name: str) -> Factory:
    """A model of timm with weights drawn so that every part of it speaks, and an image for it."""
    torch.manual_seed(0)
    module = timm.create_model(name)
    shape = module.pretrained_cfg["input_size"]
    enliven(module)
    _see(module, torch.randn(_IMAGES, *shape))
    return module.eval(), (torch.zeros(1, *shape),)


def enliven(module: nn.Module) -> None:
    """Weights as spread as after training.

    timm starts some at zero or at 1e-5, and outputs then are 1e-9 or the same for all images: a
    comparison would see none of the model.
    """
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim >= 2 and p[0].numel() > 1:
                p.normal_(0.0, p[0].numel() ** -0.5)
            elif float(p.abs().max()) < _FAINT and not name.endswith("bias"):
                p.normal_(_GAIN, _FAINT)
            else:
                p.add_(torch.randn_like(p), alpha=_FAINT)


def _see(module: nn.Module, images: Tensor) -> None:
    """Statistics for batch norms, from a few images."""
    norms: list[Any] = [
        m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all that was seen
        norm.train()
    if norms:
        with torch.no_grad():
            module(images)
    module.eval()
