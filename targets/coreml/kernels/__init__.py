"""What the evaluator computes: one kernel for every operation of MIL that it knows."""

from __future__ import annotations

from collections.abc import Mapping

from edgemix.targets.coreml.kernels import (
    activations,
    constants,
    convolution,
    elementwise,
    gathering,
    linear,
    lists,
    norms,
    pooling,
    recurrent,
    reductions,
    resizing,
    shapes,
)
from edgemix.targets.coreml.kernels.base import Kernel

KERNELS: Mapping[str, Kernel] = {
    **elementwise.KERNELS, **activations.KERNELS, **linear.KERNELS, **convolution.KERNELS,
    **pooling.KERNELS, **norms.KERNELS, **reductions.KERNELS, **shapes.KERNELS,
    **gathering.KERNELS, **resizing.KERNELS, **recurrent.KERNELS, **constants.KERNELS,
    **lists.KERNELS,
}  # fmt: skip
