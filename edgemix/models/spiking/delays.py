"""A spiking network that learns when a spike arrives, not only how much it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.norm import FeatureNorm
from edgemix.models.spiking.neurons import LIF, LeakyIntegrator, Reset
from edgemix.streaming.forms import Pointwise
from edgemix.streaming.protocol import Assembled, Run, State, Stepwise, held, zeros
from edgemix.streaming.window import convolve_last


class DelayedLinear(Stepwise):
    """y_o(t) = Σ_i Σ_k W_oik x_i(t − d_oik): every synapse has delays of its own, mostly one.

    Hammouamri, Khalfaoui-Hassani, Masquelier, "Learning Delays in Spiking Neural Networks Using
    Dilated Convolutions with Learnable Spacings", ICLR 2024, section 3. In training a synapse is a
    Gaussian over time around its position, whose width ``sigma`` a script narrows; in evaluation it
    is one tap at the nearest whole step.

    Shape: [batch, time, inputs] → [batch, time, outputs].
    """

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int, longest: int, *, count: int = 1) -> None:
        super().__init__()
        self.inputs, self.longest = inputs, longest
        self.weight = nn.Parameter(torch.empty(outputs, inputs, count))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.delay = nn.Parameter(torch.rand(outputs, inputs, count) * (longest - 1))
        self.sigma = longest / 2
        self.register_buffer("kernel", torch.zeros(outputs, inputs, longest), persistent=False)
        self.eval().train()

    def train(self, mode: bool = True) -> DelayedLinear:
        """In evaluation the taps are constants."""
        if not mode:
            with torch.no_grad():
                self.kernel = self._taps(self.delay.round().clamp(0, self.longest - 1), 0.0)
        super().train(mode)
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(*args, **kwargs)
        self.train(self.training)

    def initial_state(self, batch: int = 1) -> State:
        """``past``: the last inputs, the oldest first."""
        return {"past": zeros(batch, self.inputs, self.longest - 1)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        y, past = convolve_last(held(state, "past"), x, self._kernel())
        return y, {"past": past}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        padded = functional.pad(x.transpose(1, 2), (self.longest - 1, 0))
        return functional.conv1d(padded, self._kernel()).transpose(1, 2)

    def _kernel(self) -> Tensor:
        if not self.training:
            return self.kernel
        return self._taps(self.delay.clamp(0, self.longest - 1), self.sigma)

    def _taps(self, delay: Tensor, sigma: float) -> Tensor:
        """The weights [outputs, inputs, longest]; the last tap is the present."""
        age = torch.arange(self.longest - 1, -1, -1, device=delay.device)
        distance = age - delay[..., None]
        if sigma == 0.0:
            taps = self.weight[..., None] * (distance == 0)
        else:
            bell = torch.exp(-0.5 * (distance / sigma) ** 2)
            taps = self.weight[..., None] * (bell / (bell.sum(-1, keepdim=True) + 1e-7))
        return taps.sum(2)


class DelayMlp(Assembled):
    """Layers of delayed synapses, batch norm and LIF neurons; a leaky readout.

    Shape: [batch, time, inputs] → [batch, time, classes].

    Args:
        inputs: features of a step.
        hidden: neurons of every layer.
        classes: of the readout.
        longest: steps that a delay may last, the present one included.
        count: delays of a synapse.
        leak: of the neurons.
        reset: of the neurons.
        head: what leads to the readout, from neurons and classes.
        readout_leak: of the readout.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], classes: int, *, longest: int = 8, count: int = 1,
        leak: float = 0.5, reset: Reset = "subtract",
        head: Callable[[int, int], Stepwise] = lambda a, b: Pointwise(nn.Linear(a, b)),
        readout_leak: float = 0.0625,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [inputs, *hidden]
        pairs = list(pairwise(widths))
        self.synapses = nn.ModuleList([DelayedLinear(a, b, longest, count=count) for a, b in pairs])
        self.norms = nn.ModuleList([FeatureNorm(b) for _, b in pairs])
        self.neurons = nn.ModuleList([LIF(b, leak=leak, reset=reset) for _, b in pairs])
        self.head = head(widths[-1], classes)
        self.readout = LeakyIntegrator(classes, leak=readout_leak)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        found: dict[str, Stepwise] = {"head": self.head, "readout": self.readout}
        for i, (synapse, neuron) in enumerate(zip(self.synapses, self.neurons, strict=True)):
            found |= {f"synapse_{i}": synapse, f"neuron_{i}": neuron}  # type: ignore[dict-item]
        return found

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        for i, norm in enumerate(self.norms):
            x = run(f"neuron_{i}", norm(run(f"synapse_{i}", x)))
        return run("readout", run("head", x))
