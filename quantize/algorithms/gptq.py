"""GPTQ: round one column after the other, and let the columns left make up for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgemix.quantize.algorithms.objectives import Objective, reround
from edgemix.quantize.draft import Draft
from edgemix.quantize.simulate import RoundedConstant

_DAMPING = 0.01
"""Of the mean second moment, added to each: as in the paper's code."""


def round_by_columns(
    draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None
) -> Draft:
    """The draft with weights rounded for the least error of every layer's outputs.

    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", ICLR 2023, algorithm 1, columns in the order of their inputs' size. Zeros stay:
    pruning made them.

    Args:
        draft: any.
        samples: inputs [n, ...].
        on_step: called with the share that is done.
    """
    return reround(draft, samples, rounded, on_step, attention=False)


def rounded(objective: Objective, constant: RoundedConstant) -> Tensor:
    """A weight on its grid."""
    weight, encoding = constant.real, constant.encoding
    work = objective.matrices(weight).double().clone()
    steps = objective.matrices(encoding.steps(weight)).double()
    moment = objective.inputs.double().clone()
    columns = work.shape[2]
    size = moment.diagonal(dim1=1, dim2=2)
    dead = size == 0
    moment.diagonal(dim1=1, dim2=2)[dead] = 1.0
    moment.diagonal(dim1=1, dim2=2).add_(_DAMPING * size.mean(1, keepdim=True).clamp(min=1e-12))
    # One order for all parts: they are of one layer, and share their kernel's shape.
    order = torch.argsort(size.mean(0), descending=True)
    work, steps, there = work[:, :, order], steps[:, :, order], (work != 0)[:, :, order]
    moment = moment[:, order][:, :, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    factor = torch.linalg.cholesky(inverse, upper=True)
    result = torch.zeros_like(work)
    for j in range(columns):
        step = steps[:, :, j]
        q = torch.round(work[:, :, j] / step).clamp(encoding.qmin, encoding.qmax) * step
        q = torch.where(there[:, :, j], q, 0.0)
        result[:, :, j] = q
        error = (work[:, :, j] - q) / factor[:, j, j, None]
        work[:, :, j:] -= error[:, :, None] * factor[:, j, None, j:]
    back = torch.argsort(order)
    return result[:, :, back].reshape(weight.shape).to(weight.dtype)
