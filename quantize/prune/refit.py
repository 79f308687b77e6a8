"""Fitting the weights that stay to what the whole model computed, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgemix.program import Program, Step
from edgemix.quantize.prune.axes import Units
from edgemix.quantize.prune.cut import Keep
from edgemix.quantize.prune.lockstep import Lockstep


def refit(
    whole: Program,
    small: Program,
    units: Units,
    keep: Keep,
    samples: Tensor,
    on_step: Callable[[float], None] = lambda _: None,
) -> Program:
    """The pruned program with the weights that bring every layer closest to the whole model's.

    Both run side by side, operator by operator, over all samples. At each linear operator the
    weights are those of least squared error to the whole model's result, given what the pruned
    model has at this place: an error of the layers in front is made up for, not added to.
    Where the result is added to another value, that sum is what is fitted. Weights that are zero
    stay zero. The ridge pulls towards the weights that were cut (He et al., "Channel Pruning for
    Accelerating Very Deep Neural Networks", ICCV 2017, section 3.1, with the ridge of each layer
    chosen on samples held out). A step of a program with states is given those of the whole one.

    Args:
        whole: before pruning.
        small: after it: the same operators.
        units: of the whole program.
        keep: which of them stayed.
        samples: [n, ...]; of a program with states [n, steps, ...].
        on_step: called with the share that is done.
    """

    def left(node: Node, value: Tensor) -> Tensor:
        for dim, axis in enumerate(units.axes[node.name]):
            if not keep[axis].all():
                value = value.index_select(dim, torch.from_numpy(np.flatnonzero(keep[axis])))
        return value

    pair = Lockstep(whole, small, samples, left)
    pair.run(on_step)
    return pair.result(Step("refit", {"samples": len(samples)}))
