"""Leaky integrate-and-fire neurons in discrete time.

A step charges the membrane, compares it with the threshold, and resets it:

    v' = v − λ v + i,   s = [v' ≥ θ],   v ← v' − θ s  (subtract)   or   v' (1 − s)  (zero)

with the leak λ = 1 − β. Neftci, Mostafa, Zenke, "Surrogate Gradient Learning in Spiking Neural
Networks", IEEE SPM 2019, equations 5 to 7; for training the step function's derivative is that of
an arctangent, 1 / (1 + (π x)²) (Fang et al., "Incorporating Learnable Membrane Time Constant",
ICCV 2021).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.streaming.protocol import State, Stepwise, held, zeros

Reset = Literal["subtract", "zero"]


class _Surrogate(torch.autograd.Function):
    """[x ≥ 0], with the derivative of an arctangent."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        found: Tensor = gradients[0] / (1 + (math.pi * x) ** 2)
        return found


def fires(membrane: Tensor, threshold: Tensor | float, *, training: bool) -> Tensor:
    """[v ≥ θ] as 0 or 1, differentiable in training."""
    if training:
        found: Tensor = _Surrogate.apply(membrane - threshold)  # type: ignore[no-untyped-call]
        return found
    return (membrane >= threshold).to(membrane.dtype)


class LIF(Stepwise):
    """Leaky integrate-and-fire, one neuron a feature; a leak of 0 is integrate-and-fire.

    Shape: [batch, time, *shape] → [batch, time, *shape], of 0 and 1.
    """

    def __init__(
        self, *shape: int, leak: float = 0.5, threshold: float = 1.0, reset: Reset = "subtract"
    ) -> None:
        super().__init__()
        if not 0 <= leak < 1 or threshold <= 0:
            raise InputError(
                f"a neuron with leak {leak} and threshold {threshold} never rests",
                do="take 0 ≤ leak < 1 and a positive threshold",
            )
        self.shape, self.leak, self.threshold, self.reset = shape, leak, threshold, reset

    def initial_state(self, batch: int = 1) -> State:
        """``membrane``: v after the reset."""
        return {"membrane": zeros(batch, *self.shape)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        charged = leaked(held(state, "membrane"), self.leak) + x
        spikes = fires(charged, self.threshold, training=self.training)
        return spikes, {"membrane": settled(charged, spikes, self.threshold, self.reset)}


def averaging(*shape: int, threshold: float = 1.0, tau: float = 2.0) -> LIF:
    """A neuron whose input decays too, v' = v + (i − v) / τ, reset to zero.

    What SpikingJelly calls an ``LIFNode`` with ``decay_input``. Written for u = τ v, which is
    u' = u − u / τ + i and fires at τ θ, it is an :class:`LIF`.
    """
    return LIF(*shape, leak=1.0 / tau, threshold=tau * threshold, reset="zero")


class AdaptiveLIF(Stepwise):
    """A neuron whose threshold rises with every spike: θ' = θ + κ a, a' = a − λ_a a + s.

    Bellec et al., "Long Short-Term Memory and Learning-to-Learn in Networks of Spiking Neurons",
    NeurIPS 2018, equations 1 and 2.

    Shape: [batch, time, *shape] → [batch, time, *shape], of 0 and 1.
    """

    def __init__(
        self, *shape: int, leak: float = 0.5, threshold: float = 1.0, adaptation: float = 0.25,
        adaptation_leak: float = 0.0625, reset: Reset = "subtract",
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.leak, self.threshold, self.reset = shape, leak, threshold, reset
        self.adaptation, self.adaptation_leak = adaptation, adaptation_leak

    def initial_state(self, batch: int = 1) -> State:
        """``membrane`` v, and the ``adaptation`` a."""
        return {"membrane": zeros(batch, *self.shape), "adaptation": zeros(batch, *self.shape)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        charged = leaked(held(state, "membrane"), self.leak) + x
        adaptation = held(state, "adaptation")
        above = charged - self.adaptation * adaptation
        spikes = fires(above, self.threshold, training=self.training)
        return spikes, {
            "membrane": settled(charged, spikes, self.threshold, self.reset),
            "adaptation": leaked(adaptation, self.adaptation_leak) + spikes,
        }


class LeakyIntegrator(Stepwise):
    """A neuron that never fires, to read out: v' = v − λ v + i, y = v'.

    Shape: [batch, time, *shape] → [batch, time, *shape].
    """

    def __init__(self, *shape: int, leak: float = 0.0625) -> None:
        super().__init__()
        self.shape, self.leak = shape, leak

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {"membrane": zeros(batch, *self.shape)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        membrane = leaked(held(state, "membrane"), self.leak) + x
        return membrane, {"membrane": membrane}


def leaked(membrane: Tensor, leak: float) -> Tensor:
    """What is left of a membrane after a step."""
    return membrane - membrane * leak if leak else membrane


def settled(charged: Tensor, spikes: Tensor, threshold: float, reset: Reset) -> Tensor:
    """The membrane after its reset."""
    if reset == "subtract":
        return charged - spikes * threshold
    return charged * (1.0 - spikes)


def spike_counts(module: nn.Module, x: Tensor) -> dict[str, tuple[int, int]]:
    """Spikes of every spiking layer on sequences, and how many there could have been."""
    counts: dict[str, tuple[int, int]] = {}
    handles = []

    def count(name: str) -> Any:
        def hook(_: nn.Module, __: Any, spikes: Tensor) -> None:
            found, possible = counts.get(name, (0, 0))
            counts[name] = (found + int(spikes.sum()), possible + spikes.numel())

        return hook

    for name, part in module.named_modules():
        if isinstance(part, (LIF, AdaptiveLIF)):
            handles.append(part.register_forward_hook(count(name)))
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return counts
