"""ImageNet for those who have it: one timm model, float and quantized, image after image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from edgemix import data, rewrites, sources
from edgemix.batched import Batched, batched
from edgemix.quantize.levels import QUALITY, Quality
from edgemix.quantize.quality import improve
from edgemix.quantize.recipe import Recipe

_BATCH = 32
PUBLISHED = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Accuracy:
    """Top-1 in percent."""

    real: float
    quantized: float
    images: int


def evaluate(
    model: str, train: Path, held_out: Path, recipe_name: str, quality: Quality, samples: int,
    limit: int | None,
) -> Accuracy:  # fmt: skip
    """Quantize a timm model on some images and count right answers on others.

    Raises:
        InputError: no such model or folder, or images without subfolders for classes.
    """
    name = model.removeprefix("timm:").partition("?")[0]
    source = sources.load(model)
    spec = source.inputs[0]
    known = data.load(f"images:{train}?like=timm:{name}", spec, most=samples)
    asked = data.load(f"images:{held_out}?like=timm:{name}", spec, most=limit)
    recipe = Recipe.load(recipe_name).model_copy(update={"algorithms": QUALITY[quality]})
    program = rewrites.standard(source, recipe.split)
    made = improve(program, known.tensor(), recipe)
    assert asked.labels is not None, "images need subfolders, one for every class"
    right = [0, 0]
    runs = [batched(program)[1], batched(made.program)[1]]
    total = -(-len(asked) // _BATCH)
    start = 0
    for images in track(asked.batches(_BATCH), "evaluating", total, console=Console(stderr=True)):
        labels = torch.from_numpy(asked.labels[start : start + len(images)])
        start += len(images)
        right = [n + _right(run, images, labels) for n, run in zip(right, runs, strict=True)]
    real, quantized = (100.0 * n / len(asked) for n in right)
    return Accuracy(real, quantized, len(asked))


@torch.no_grad()
def _right(run: Batched, images: Tensor, labels: Tensor) -> int:
    return int((run(images)[0].argmax(1) == labels).sum())


def published(model: str) -> list[dict[str, Any]]:
    """What papers say of a model of this name, as (method, bits, fp, value, source)."""
    name = _plain(model.removeprefix("timm:").partition("?")[0].partition(".")[0])
    rows: list[dict[str, Any]] = json.loads(PUBLISHED.read_text())
    return [row for row in rows if _plain(row["model"]) == name]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace("v1", "")
