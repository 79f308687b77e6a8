"""NNCF's ``prune``: masks of single weights; it has had no pruning of widths since version 3."""

from __future__ import annotations

import copy
import importlib.metadata
from typing import TYPE_CHECKING, Any

import nncf
import torch
from nncf.torch.function_hook.pruning.magnitude.algo import get_pruned_modules
from nncf.torch.model_graph_manager import get_const_data_by_name
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tests.benchmarks.prune.peers import Made, Refused, bisect

if TYPE_CHECKING:
    from tests.benchmarks.prune.suite import Task

_MODES = {
    "local": nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL,
    "global": nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL,
}


def prune(task: Task, share: float, setting: str) -> Made:
    """The model with so many weights at zero that the share is left of all of them.

    Raises:
        Refused: widths are asked for, which it does not prune.
    """
    if setting == "widths":
        modes = ", ".join(mode.name for mode in nncf.PruneMode)
        version = importlib.metadata.version("nncf")
        raise Refused(f"no structured pruning in {version}: nncf.prune has {modes}")
    weights = task.program.parameters

    def left(ratio: float) -> float:
        return 1 - _zeros(_masks(task, setting, ratio)) / weights

    ratio = bisect(left, share)
    masks = _masks(task, setting, ratio)
    module = copy.deepcopy(task.base.module)
    for name, mask in masks.items():
        path, _, attribute = name.rpartition(".")
        parametrize.register_parametrization(module.get_submodule(path), attribute, _Mask(mask))
    what = f"single weights, magnitude, {setting}, ratio {ratio:.3f}; every width stays"
    return Made(module, what, counted="parameters", zeros=_zeros(masks))


class _Mask(nn.Module):
    """What is zero stays zero in training."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def _masks(task: Task, setting: str, ratio: float) -> dict[str, Tensor]:
    """By the names of the model's own parameters."""
    example: Any = task.base.example
    made = nncf.prune(
        copy.deepcopy(task.base.module),
        _MODES[setting],
        ratio=min(ratio, 0.999),
        examples_inputs=example,
    )
    names = {value.data_ptr(): name for name, value in made.named_parameters()}
    return {
        names[get_const_data_by_name(name, made).data_ptr()]: hook.binary_mask.to(torch.float32)
        for name, hook in get_pruned_modules(made).items()
    }


def _zeros(masks: dict[str, Tensor]) -> int:
    return sum(int((mask == 0).sum()) for mask in masks.values())
