"""Which systems the matrix has rows of, and where each is built.

A system of the first tier stands there twice: at a published size, which phones take, and as a tiny
variant of the same parts, which FPGAs and tests afford. Those of the second tier are tiny models of
its mixers. Then come timm's families.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Literal

from edgemix.errors import InputError, did_you_mean

Group = Literal["tiny", "tier2", "published", "timm"]
GROUPS: tuple[Group, ...] = ("tiny", "tier2", "published", "timm")
SMALL: tuple[Group, ...] = ("tiny", "tier2")
"""Those that FPGAs have room for."""

Kind = Literal["float", "integer", "float step", "step"]
"""Whole inputs in 32 bits or in 8; and in both a step, which carries its memory along."""
KINDS: tuple[Kind, ...] = ("float", "integer", "float step", "step")
FLOATS: tuple[Kind, ...] = ("float", "float step")
STEPS: tuple[Kind, ...] = ("float step", "step")

PHONES = ("onnx", "tflite", "coreml")
FPGAS = ("hls4ml", "rtl")
TARGETS = PHONES + FPGAS


@dataclass(frozen=True)
class System:
    """One row of the matrix."""

    name: str
    group: Group
    title: str
    """What it is called where it was published."""
    source: str
    """``timm:NAME``, or a factory of this package, ``package.module:function``."""
    memory: bool = False
    """Whether it reads a sequence step by step, and so has a step form."""

    @property
    def key(self) -> str:
        """Its name among all: a tiny variant is called as its system is."""
        return f"{self.group}/{self.name}"


@dataclass(frozen=True)
class Slot:
    """One cell's place: what runs where."""

    system: str
    """Its key."""
    target: str
    kind: Kind

    @property
    def recipe(self) -> str:
        """By which the target takes such a program.

        Core ML's for integers computes in 32 bits between them: 16 bits promise decisions only.
        """
        if self.target in FPGAS:
            return "fixed8"
        if self.kind in FLOATS:
            return "float32"
        return "int8-exact" if self.target == "coreml" else "int8"


def slots(system: System) -> Iterator[Slot]:
    """All that a system is asked for.

    No FPGA computes in floats, and none has room for a model of published size. What has a memory
    goes in whole, a few steps unrolled, as a tiny variant alone.
    """
    for target in TARGETS if system.group in SMALL else PHONES:
        for kind in KINDS:
            if kind in FLOATS and target in FPGAS:
                continue
            if kind in STEPS and not system.memory:
                continue
            if kind not in STEPS and system.memory and system.group not in SMALL:
                continue
            yield Slot(system.key, target, kind)


_PRESETS = "edgemix.models.presets"
_TINY = "edgemix.models.tiny"

_TIER_1 = (
    # Name, title, tiny variant, published size.
    ("poolformer", "PoolFormer", f"{_PRESETS}.tiny_timm:poolformer", "timm:poolformer_s12"),
    ("caformer", "CAFormer (MetaFormer baselines)", f"{_PRESETS}.baselines:tiny",
     "timm:caformer_s18"),
    ("iformer", "iFormer", f"{_PRESETS}.iformer:tiny", f"{_PRESETS}:iformer_small"),
    ("ffnet", "FFNet (MetaMixer)", f"{_PRESETS}.ffnet:tiny", f"{_PRESETS}:ffnet_1"),
    ("efficientformer", "EfficientFormer", f"{_PRESETS}.tiny_timm:efficientformer",
     "timm:efficientformer_l1"),
    ("efficientformerv2", "EfficientFormerV2", f"{_PRESETS}.tiny_timm:efficientformer_v2",
     "timm:efficientformerv2_s0"),
    ("fmvit", "FMViT", f"{_PRESETS}.fmvit:tiny", ""),  # nobody published its layers
    ("nextvit", "Next-ViT", f"{_PRESETS}.tiny_timm:next_vit", "timm:nextvit_small"),
    ("cas_vit", "CAS-ViT", f"{_PRESETS}.cas_vit:tiny", f"{_PRESETS}:cas_vit_xs"),
    ("edgenext", "EdgeNeXt", f"{_PRESETS}.tiny_timm:edgenext", "timm:edgenext_xx_small"),
    ("affnet", "AFFNet", f"{_PRESETS}.affnet:tiny", f"{_PRESETS}:affnet_et"),
    ("patch_tsmixer", "PatchTSMixer", f"{_PRESETS}.patch_tsmixer:tiny",
     f"{_PRESETS}:patch_tsmixer_512"),
    ("ttm", "Tiny Time Mixers", f"{_PRESETS}.ttm:tiny", f"{_PRESETS}:ttm_r2_512"),
    ("mamba_mixer", "MambaMixer (ViM2)", f"{_PRESETS}.mamba_mixer:tiny", f"{_PRESETS}:vim2_t"),
    ("hydra", "Hydra", f"{_PRESETS}.hydra:tiny", f"{_PRESETS}:hydra_vit_b"),
    ("sequencer2d", "Sequencer2D", f"{_PRESETS}.tiny_timm:sequencer2d", "timm:sequencer2d_s"),
    ("esc_transformer", "Tiny transformer for sounds", f"{_PRESETS}.esc_transformer:tiny",
     f"{_PRESETS}:esc_transformer_6k"),
)  # fmt: skip

_TIER_1_WITH_MEMORY = (
    ("max_former", "Max-Former", f"{_TINY}:max_former", f"{_PRESETS}:max_former_cifar10"),
    ("lmuformer", "LMUFormer", f"{_TINY}:lmuformer", f"{_PRESETS}:lmuformer_commands"),
    ("spiking_lmuformer", "Spiking LMUFormer", f"{_TINY}:spiking_lmuformer",
     f"{_PRESETS}:spiking_lmuformer_commands"),
    ("delays", "DCLS-Delays", f"{_TINY}:delay_mlp", f"{_PRESETS}:delays_shd"),
    ("mamba", "Mamba", f"{_TINY}:mamba_backbone", f"{_PRESETS}:mamba_130m"),
    ("linear_transformer", "Linear Transformer", f"{_TINY}:linear_transformer",
     f"{_PRESETS}:linear_transformer_mnist"),
    ("fast_conformer", "Cache-aware FastConformer", f"{_TINY}:fast_conformer",
     f"{_PRESETS}:fast_conformer_large"),
    ("skim", "SkiM", f"{_TINY}:skim", f"{_PRESETS}:skim_causal"),
)  # fmt: skip

_MAPS = "edgemix.models.tiny_maps"
_SERIES = "edgemix.models.tiny_series"

_TIER_2 = (
    # Name, title, tiny model.
    ("fnet", "FNet", f"{_MAPS}:fourier"),
    ("gfnet", "GFNet", f"{_MAPS}:global_filter"),
    ("spectformer", "SpectFormer", f"{_MAPS}:spectral"),
    ("raft_mlp", "RaftMLP", f"{_MAPS}:raft_mlp"),
    ("ms_mlp", "MS-MLP", f"{_MAPS}:mix_shift"),
    ("ninformer", "NiNformer", f"{_MAPS}:gating_unit"),
    ("smt", "SMT", f"{_MAPS}:scale_modulation"),
    ("transnext", "TransNeXt", f"{_MAPS}:aggregated_attention"),
    ("davit", "DaViT", f"{_MAPS}:dual_attention"),
    ("twins", "Twins", f"{_MAPS}:twins"),
    ("s2aformer", "S2AFormer", f"{_MAPS}:strip_attention"),
    ("dualtoken_vit", "DualToken-ViT", f"{_MAPS}:dual_tokens"),
    ("lit", "LIT", f"{_MAPS}:less_attention"),
    ("svt", "SVT (scattering)", f"{_MAPS}:scattering"),
    ("dsm", "Dynamic Spectrum Mixer", f"{_MAPS}:dynamic_spectrum"),
    ("ponet", "PoNet", f"{_MAPS}:pooling_network"),
    ("monarch_mixer", "Monarch Mixer", f"{_MAPS}:monarch"),
    ("aft", "Attention Free Transformer", f"{_MAPS}:attention_free"),
    ("latte", "Latte", f"{_MAPS}:latent_attention"),
    ("transnormer", "TransNormer", f"{_MAPS}:norm_attention"),
    ("flowformer", "Flowformer", f"{_MAPS}:flow_attention"),
    ("itransformer", "iTransformer", f"{_SERIES}:itransformer"),
    ("samformer", "SAMformer", f"{_SERIES}:samformer"),
    ("softs", "SOFTS", f"{_SERIES}:softs"),
    ("xpatch", "xPatch", f"{_SERIES}:xpatch"),
    ("autoformer", "Autoformer", f"{_SERIES}:autoformer"),
    ("just_dense", "JustDense", f"{_SERIES}:just_dense"),
    ("tft", "Temporal Fusion Transformer", f"{_SERIES}:tft"),
)

_TIER_2_WITH_MEMORY = (
    ("gla", "Gated linear attention", f"{_TINY}:gated_linear_attention"),
    ("delta_net", "DeltaNet", f"{_TINY}:delta_net"),
    ("delta_product", "DeltaProduct", f"{_TINY}:delta_product"),
    ("slstm", "xLSTM, sLSTM", f"{_TINY}:slstm"),
    ("mlstm", "xLSTM, mLSTM", f"{_TINY}:mlstm"),
    ("conv_tasnet", "Conv-TasNet (TCN)", f"{_TINY}:tcn"),
    ("s4", "S4 (S4D)", f"{_TINY}:s4d"),
    ("fsmn", "FunASR (FSMN)", f"{_TINY}:fsmn"),
    ("mossformer2", "MossFormer2 (deep FSMN)", f"{_TINY}:deep_fsmn"),
    ("chunked_attention", "Attention in chunks with a cache", f"{_TINY}:chunked_attention"),
)

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
"""The smallest of each of timm's families with a token mixer and a channel mixer."""


_OF_TIER_1: tuple[Group, ...] = ("tiny", "published")


@cache
def systems() -> tuple[System, ...]:
    """All rows, group by group."""
    rows = [
        System(name, group, title, source, memory)
        for memory, table in ((False, _TIER_1), (True, _TIER_1_WITH_MEMORY))
        for name, title, *sources in table
        for group, source in zip(_OF_TIER_1, sources, strict=True)
        if source
    ]
    rows += [
        System(name, "tier2", title, source, memory)
        for memory, table in ((False, _TIER_2), (True, _TIER_2_WITH_MEMORY))
        for name, title, source in table
    ]
    rows += [System(name, "timm", name, f"timm:{name}") for name in TIMM]
    return tuple(sorted(rows, key=lambda row: GROUPS.index(row.group)))


def system(key: str) -> System:
    """The row of this key."""
    return next(row for row in systems() if row.key == key)


def same(key: str) -> tuple[str, ...]:
    """The keys of all rows of one model: some of timm's families are systems of the first tier."""
    source = next((row.source for row in systems() if row.key == key), None)
    return tuple(row.key for row in systems() if row.source == source)


def chosen(patterns: Sequence[str], groups: Sequence[str] = GROUPS) -> tuple[System, ...]:
    """The rows of some groups whose names match a pattern like ``mobilevit*``; no pattern is all.

    Raises:
        InputError: a pattern or a group is none.
    """
    for group in groups:
        if group not in GROUPS:
            raise InputError(f"there is no group {group}", do=f"groups: {', '.join(GROUPS)}")
    rows = [row for row in systems() if row.group in groups]
    for pattern in patterns:
        if not any(fnmatchcase(row.name, pattern) for row in rows):
            near = did_you_mean(pattern, {row.name for row in rows}, most=3)
            raise InputError(
                f"there is no system {pattern}", do=f"{near}`edgemix systems` lists all"
            )
    return tuple(
        row for row in rows if not patterns or any(fnmatchcase(row.name, p) for p in patterns)
    )
