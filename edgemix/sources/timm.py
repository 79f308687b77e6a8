"""``timm:NAME[?kw=v&kw=v]``: a model of timm, by name."""

from __future__ import annotations

import ast
from typing import Any
from urllib.parse import parse_qsl

import torch

from edgemix.errors import InputError, did_you_mean
from edgemix.extras import need, versions
from edgemix.program import Origin
from edgemix.sources.base import SourceModel


def load(argument: str) -> SourceModel:
    """The model with its default input size at batch 1.

    Keywords go to ``timm.create_model``, but for two: ``checkpoint=FILE`` (safetensors or
    weights-only torch) loads trained weights, ``input_size=64`` traces with images of 64 × 64.

    Raises:
        InputError: timm does not know the name (near ones are given) or a keyword.
    """
    name, _, query = argument.partition("?")
    keywords = {key: _literal(value) for key, value in parse_qsl(query, keep_blank_values=True)}
    checkpoint, size = keywords.pop("checkpoint", None), keywords.pop("input_size", None)
    timm = need("timm", extra="timm")
    if not timm.is_model(name.split(".")[0]):
        near = did_you_mean(name, timm.list_models(), most=3, cutoff=0.5)
        raise InputError(f"timm has no model {name}", do=f"{near}timm.list_models() has all")
    try:
        module = timm.create_model(name, **keywords)
        if checkpoint is not None:
            timm.models.load_checkpoint(module, str(checkpoint), weights_only=True)
    except Exception as error:  # timm and its models raise whatever they like
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"timm cannot build {argument}: {type(error).__name__}: {reason}",
            do="check the keywords; pretrained weights need a network",
        ) from error
    channels, height, width = _input_size(module, keywords, size)
    licence = str(getattr(module, "pretrained_cfg", {}).get("license") or "")
    origin = Origin(f"timm:{argument}", versions("timm", "torch"), licence)
    return SourceModel(module.eval(), (torch.zeros(1, channels, height, width),), origin)


def _input_size(module: Any, keywords: dict[str, Any], size: Any) -> tuple[int, int, int]:
    channels, height, width = module.pretrained_cfg.get("input_size", (3, 224, 224))
    size = size or keywords.get("img_size", (height, width))
    height, width = (size, size) if isinstance(size, int) else size
    return int(keywords.get("in_chans", channels)), int(height), int(width)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
