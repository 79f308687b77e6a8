"""AdaRound: learn for every weight whether it rounds down or up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgemix.quantize.algorithms.objectives import Objective, reround
from edgemix.quantize.draft import Draft
from edgemix.quantize.simulate import RoundedConstant

STEPS = 400
_RATE = 2e-2
_REACH = (-0.1, 1.1)
"""Of the stretched sigmoid: it reaches 0 and 1."""


def learn_rounding(
    draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None
) -> Draft:
    """The draft with weights rounded up or down for the least error where it counts.

    Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020,
    equations 21 to 24. The error is taken from second moments, not from samples: a step costs as
    much for a thousand samples as for ten, and attention is weighed as aespa does.

    Args:
        draft: any; of weights that were rounded before, the real ones are rounded again.
        samples: inputs [n, ...].
        on_step: called with the share that is done.
    """
    return reround(draft, samples, learned, on_step, attention=True)


def learned(objective: Objective, constant: RoundedConstant, steps: int = STEPS) -> Tensor:
    """A weight on its grid."""
    real, encoding = constant.real, constant.encoding
    weight, step = objective.matrices(real), objective.matrices(encoding.steps(real))
    objective = objective.scaled()
    down = torch.floor(weight / step)
    soft = Soft(weight / step - down)
    scale = float(step.square().mean())
    optimizer = torch.optim.Adam([soft.logit], lr=_RATE)

    def change(up: Tensor) -> Tensor:
        moved = (down + up).clamp(encoding.qmin, encoding.qmax) * step - weight
        return torch.where(weight == 0, 0.0, moved)  # zeros that pruning made stay

    for k in range(steps):
        optimizer.zero_grad()
        loss = objective.cost(change(soft())) / scale + soft.push(k / steps)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        nearest, found = torch.round(weight / step) - down, (soft() >= 0.5).to(weight.dtype)
        best = min((change(nearest), change(found)), key=lambda moved: float(objective.cost(moved)))
    return (best + weight).reshape(real.shape)


class Soft:
    """A number between 0 and 1 for every weight, driven to either end in the course of learning."""

    def __init__(self, part: Tensor) -> None:
        """Start where the soft rounding is none: at the weights' own place between two steps."""
        low, high = _REACH
        inner = ((part - low) / (high - low)).clamp(1e-4, 1 - 1e-4)
        self.logit = torch.log(inner / (1 - inner)).requires_grad_()

    def __call__(self) -> Tensor:
        """How far up each weight goes."""
        low, high = _REACH
        return (torch.sigmoid(self.logit) * (high - low) + low).clamp(0.0, 1.0)

    def push(self, done: float) -> Tensor:
        """The regularizer 1 − |2h − 1|^β, whose β falls from 20 to 2 after a fifth of the steps."""
        if done < 0.2:
            return torch.zeros(())
        beta = 2.0 + 18.0 * (1.0 - (done - 0.2) / 0.8)
        return _PUSH * (1.0 - (2.0 * self() - 1.0).abs().pow(beta)).sum()


_PUSH = 0.05
