"""What others make of the same model, data and budget, each in one file.

A peer is a function ``prune(task, share, setting)``: it gives a module that does the task with that
share left, and says what it did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgemix.program import Program
from edgemix.quantize.prune.finetune import learn
from edgemix.quantize.prune.size import Counted

if TYPE_CHECKING:
    from tests.benchmarks.prune.suite import Task


@dataclass(frozen=True)
class Made:
    """What a peer made."""

    module: nn.Module
    what: str
    """What it did, and what was mended by hand so that it could."""
    labels: bool = False
    """Whether it saw labels."""
    counted: Counted = "macs"
    """Of what the share is left."""
    zeros: int = 0
    """Weights that are zero and stay so."""

    def weights(self, program: Program) -> float:
        """How many are left, by the same count for all."""
        return program.parameters - self.zeros

    def bare(self) -> nn.Module:
        """The module with its masks multiplied in."""
        for module in list(self.module.modules()):
            if parametrize.is_parametrized(module):
                for name in list(module.parametrizations):  # type: ignore[arg-type]
                    parametrize.remove_parametrizations(module, name)
        return self.module

    def learn(self, task: Task, epochs: int) -> None:
        """Train it in the loop that edgemix uses, towards the whole model."""
        samples, labels = task.training
        self.module.requires_grad_(True)
        wanted = task.run(task.base.module, samples)
        learn(self.module, tuple(self.module.parameters()), samples, wanted, labels, epochs)


class Refused(Exception):
    """The peer cannot take the model, or has nothing of the kind."""


Peer = Callable[["Task", float, str], Made]
"""Raises Refused."""


def bisect(measure: Callable[[float], float], share: float) -> float:
    """The least ratio that leaves no more than a share, of a measure that falls with the ratio.

    One where none of those that were tried does.
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if measure(middle) <= share else (middle, high)
    return high


_HALVINGS = 9


def loss(found: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy for classes, squared error for values; for each sample with ``none``."""
    if not labels.is_floating_point():
        return nn.functional.cross_entropy(found, labels, reduction=reduction)
    each = (found - labels).square().flatten(1).mean(1)
    return each if reduction == "none" else torch.mean(each)
