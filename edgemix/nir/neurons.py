"""NIR's neurons in discrete time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgemix.nir.dialect import Dialect
from edgemix.streaming.protocol import State, Stepwise, held

Node = Any
"""A node of the ``nir`` package."""


class Neuron(Stepwise):
    """LIF, LI, CubaLIF, CubaLI, IF or I of NIR, its equations stepped as the dialect says.

        j' = (1 − λ_s) j + w x                     (with a synapse; else j' is x)
        v' = (1 − λ) v + λ v_leak + g j'           λ = dt / τ, g = λ R;  IF, I: λ = 0, g = dt R
        s  = [v' ≥ θ]  or  [v' > θ]

    Shape: [batch, *shape] → [batch, *shape] a step.
    """

    rest: Tensor
    threshold: Tensor
    after_spike: Tensor

    def __init__(self, node: Node, dialect: Dialect) -> None:
        super().__init__()
        self.node, self.dialect = node, dialect
        self._neutral: set[str] = set()
        kind = type(node).__name__
        self.synapse = kind.startswith("Cuba")
        self.fires = kind.endswith("IF")
        tau = getattr(node, "tau_mem", getattr(node, "tau", None))
        r = np.asarray(node.r, np.float64)
        if tau is None:
            rate = np.zeros_like(r)
            gain = r * (1.0 if dialect.current == "jump" else dialect.dt)
        else:
            rate = dialect.dt / np.asarray(tau, np.float64)
            gain = rate * r
        leak = np.asarray(getattr(node, "v_leak", 0.0), np.float64)
        self._constant("kept", 1.0 - rate)
        self._constant("rest", rate * leak, neutral=0.0)
        self._constant("gain", gain)
        self.start = leak if tau is not None else np.zeros_like(r)
        if self.synapse:
            slow = dialect.dt / np.asarray(node.tau_syn, np.float64)
            weight = np.asarray(node.w_in, np.float64)
            self._constant("synapse_kept", 1.0 - slow)
            self._constant("weight", weight * (1.0 if dialect.current == "jump" else slow))
        if self.fires:
            reset = getattr(node, "v_reset", None)
            self._constant("threshold", np.asarray(node.v_threshold, np.float64))
            self._constant("after_spike", 0.0 if reset is None else reset, neutral=0.0)
        self.shape: tuple[int, ...] = np.shape(r)

    def initial_state(self, batch: int = 1) -> State:
        """``membrane`` v at rest and, with a synapse, its ``current`` j."""
        start = torch.from_numpy(np.broadcast_to(self.start, self.shape).copy()).float()
        state = {"membrane": start.expand(batch, *self.shape).clone()}
        if self.synapse:
            state["current"] = torch.zeros(batch, *self.shape)
        return state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        after: dict[str, Tensor] = {}
        if self.synapse:
            given = x
            x = self._times(held(state, "current"), "synapse_kept")
            x = x + self._times(given, "weight")
            after["current"] = x
        before = held(state, "membrane")
        late = self.fires and self.dialect.when == "before"
        last = self._spikes(before) if late else None
        if last is not None and self.dialect.reset == "zero":
            before = self._reset(before, last)
        charged = self._times(before, "kept") + self._times(x, "gain")
        if "rest" not in self._neutral:
            charged = charged + self.rest
        if not self.fires:
            return charged, {"membrane": charged, **after}
        if last is not None:
            # A threshold that is taken off late is taken off whole: it has not leaked.
            if self.dialect.reset == "subtract":
                charged = self._reset(charged, last)
            return self._spikes(charged), {"membrane": charged, **after}
        spikes = self._spikes(charged)
        return spikes, {"membrane": self._reset(charged, spikes), **after}

    def _spikes(self, membrane: Tensor) -> Tensor:
        over = membrane >= self.threshold if self.dialect.at == "ge" else membrane > self.threshold
        return over.to(membrane.dtype)

    def _reset(self, charged: Tensor, spikes: Tensor) -> Tensor:
        if self.dialect.reset == "none":
            return charged
        if self.dialect.reset == "subtract":
            return charged - self._times(spikes, "threshold")
        settled = charged * (1.0 - spikes)
        return settled if "after_spike" in self._neutral else settled + spikes * self.after_spike

    def _constant(self, name: str, value: Any, neutral: float = 1.0) -> None:
        found = np.array(value, np.float64)
        self.register_buffer(name, torch.from_numpy(found).float())
        if (found == neutral).all():
            self._neutral.add(name)

    def _times(self, x: Tensor, name: str) -> Tensor:
        """A product, left out where it changes nothing."""
        factor: Tensor = getattr(self, name)
        return x if name in self._neutral else x * factor
