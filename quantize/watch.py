"""Watching a graph run: the limits of every float tensor, and some of its values."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.batched import Batched, batched
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.limits import Ends, channels, followers, limits
from edgemix.quantize.observers import COUNTED, TensorStats
from edgemix.threads import one_thread_each


class Observer:
    """Keeps the statistics of every float tensor of a graph while it runs.

    What is kept of a tensor is computed inside the graph, so that no more activations live at a
    time than the graph itself needs. Limits are taken of all values. Counted are some of them, of
    every sample at first and of one in two, four, eight ... later on.
    """

    def __init__(self, program: Program) -> None:
        module, run, mapped = _mapped(program) if program.states else batched(program)
        self._program = program
        self._nodes = [n for n in module.graph.nodes if _observed(n)]
        self._chosen = _Chosen()
        self._mapped = mapped
        (output,) = module.graph.find_nodes(op="output")
        given: Any = output.args[0]
        self._followers, self._axes = followers(module, self._nodes)
        seen = (part for n in self._nodes for part in self._watched(module, n))
        output.args = ((*given, *seen),)
        module.recompile()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module.to(self._device)
        self._run = run
        self._given = len(given)
        size = program.inputs[0].shape[0]
        self._piece = _pieces(module) * size
        """Samples that run side by side."""
        self._samples = 0
        self._due: list[tuple[Tensor, ...]] = []
        """Samples that were given and did not run yet: small models run many at once."""
        self._waiting: list[list[Tensor]] = [[] for _ in self._nodes]
        self._held = 0
        """Samples of which values wait to be counted."""
        self._limits: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
        self._stats: dict[str, TensorStats] = {}

    @property
    def stats(self) -> dict[str, TensorStats]:
        """Of everything that was watched so far."""
        self._run_due(all_of_them=True)
        self._count()
        return dict(self._stats)

    def resume(self, stats: dict[str, TensorStats], samples: int) -> None:
        """Go on from what an earlier run kept after so many samples."""
        self._stats, self._samples = dict(stats), samples

    @torch.no_grad()
    def watch(self, *batch: Tensor) -> None:
        """Run samples [n, ...] of every input, or sequences [n, steps, ...] beside each other."""
        if self._program.states:
            with one_thread_each():  # a step is small
                for sequences in torch.split(batch[0], _STREAMS):
                    self._follow(sequences)
            return
        self._due.append(batch)
        if sum(len(b[0]) for b in self._due) >= self._piece:
            self._run_due()

    @torch.no_grad()
    def _run_due(self, *, all_of_them: bool = False) -> None:
        if not self._due:
            return
        inputs = [torch.cat(b) for b in zip(*self._due, strict=True)]
        samples = len(inputs[0])
        whole = samples if all_of_them else samples - samples % self._piece
        for some in zip(*(torch.split(x[:whole], self._piece) for x in inputs), strict=True):
            self._pass(*some)
        self._due = [tuple(x[whole:] for x in inputs)] if whole < samples else []
        # Counting costs as much for one sample as for many.
        if self._held >= _COUNTED_SAMPLES or len(self._limits) >= _COUNTED_BATCHES:
            self._count()

    def _pass(self, *inputs: Tensor) -> None:
        samples = len(inputs[0])
        counted = [i for i in range(samples) if _is_counted(self._samples + i)]
        # Mapped over samples, a watcher sees one at a time: all are counted.
        if not self._mapped and len(counted) < samples:
            self._chosen.index = torch.tensor(counted, dtype=torch.int64, device=self._device)
        else:
            self._chosen.index = None
        self._chosen.among = samples
        values = self._run(*(x.to(self._device) for x in inputs))
        self._keep(values[self._given :])
        self._held += samples if self._mapped else len(counted)
        self._samples += samples

    def _follow(self, sequences: Tensor) -> None:
        states = self._program.states
        held = [s.start().expand(len(sequences), *s.shape).to(self._device) for s in states]
        for t in range(sequences.shape[1]):
            values = self._run(sequences[:, t, None].to(self._device), *held)
            held = list(values[len(self._program.outputs) : self._given])
            self._keep(values[self._given :])
            # Counting costs more than a small step computes: many steps at once.
            if len(self._limits) >= _COUNTED_STEPS:
                self._count()

    def _keep(self, values: tuple[Tensor, ...]) -> None:
        self._limits.append((values[1::3], values[2::3]))
        for waiting, some in zip(self._waiting, values[::3], strict=True):
            waiting.append(some.reshape(-1))

    def _count(self) -> None:
        if not self._limits:
            return
        ends: dict[Node, Ends] = {}
        for i, node in enumerate(self._nodes):
            lows, highs = ends[node] = self._ends(i, ends)
            if channels(node) is None:
                lows, highs = lows.amin().reshape(1), highs.amax().reshape(1)
            if not (torch.isfinite(lows).all() and torch.isfinite(highs).all()):
                raise InputError(
                    "the model computes NaN or Inf on the calibration data", at=str(g.where(node))
                )
            new = TensorStats.of(torch.cat(self._waiting[i]).cpu(), lows, highs)
            old = self._stats.get(node.name)
            self._stats[node.name] = new if old is None else old.merge(new)
        self._limits, self._waiting, self._held = [], [[] for _ in self._nodes], 0

    def _ends(self, i: int, others: dict[Node, Ends]) -> Ends:
        node = self._nodes[i]
        if (follower := self._followers.get(node)) is not None:
            return follower.ends(*others[follower.source])
        axis = self._axes[node]
        size = 1 if axis is None else node.meta["val"].shape[axis]
        lows, highs = (
            torch.cat([seen[end][i].reshape(-1, size) for seen in self._limits]).cpu()
            for end in (0, 1)
        )
        return lows.amin(0), highs.amax(0)

    def _watched(self, module: GraphModule, node: Node) -> Iterator[Node]:
        """New nodes behind one: some of its values, and its ends if they follow from no others."""
        name = f"watch_{node.name}"
        watcher = _Watcher(
            self._chosen, _some(node.meta["val"]), self._axes[node],
            ends=node not in self._followers,
        )  # fmt: skip
        module.add_submodule(name, watcher)
        with module.graph.inserting_after(node):
            watched = module.graph.call_module(name, (node,))
        with module.graph.inserting_after(watched):
            for i in range(3):
                yield module.graph.call_function(operator.getitem, (watched, i))


_COUNTED_STEPS = 50
_COUNTED_BATCHES = 256
_COUNTED_SAMPLES = 64
_STREAMS = 32
_LIVE_BYTES = 64 << 20
_ALL = 32


def _is_counted(sample: int) -> bool:
    """Every sample of the first 32, then one in two up to 64, one in four up to 128 ..."""
    return sample < _ALL or sample % (1 << ((sample // _ALL).bit_length())) == 0


def _mapped(program: Program) -> tuple[GraphModule, Batched, bool]:
    """A step's graph, and the same mapped over streams."""
    module = g.flat(program.module())
    return module, torch.vmap(module), True


def _pieces(module: GraphModule) -> int:
    """How many runs of a graph go side by side: its largest values should stay in 64 MB."""
    sizes = sorted(
        (n.meta["val"].numel() * 4 for n in module.graph.nodes if _observed(n)), reverse=True
    )
    return int(min(max(_LIVE_BYTES // max(sum(sizes[:4]), 1), 1), 512))


class _Chosen:
    """The samples of a pass that are counted."""

    index: Tensor | None = None
    """None: all."""
    among: int = 0


class _Watcher(nn.Module):
    """Some of a tensor's values, and its ends: (some, lows, highs)."""

    def __init__(
        self, chosen: _Chosen, strides: tuple[slice, ...], axis: int | None, *, ends: bool
    ) -> None:
        super().__init__()
        self.chosen = chosen
        self.strides = strides
        self.axis = axis
        self.ends = ends

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index = self.chosen.index
        if index is not None and value.ndim and len(value) == self.chosen.among:
            picked: tuple[Any, ...] = (index, *self.strides[1:])
            some = value[picked]
        else:
            # A slice keeps the whole tensor alive; its copy does not.
            some = value[self.strides].clone()
        return some, *(limits(value, self.axis) if self.ends else (some, some))


def _some(value: Tensor) -> tuple[slice, ...]:
    """Which values of a tensor are counted: those at positions in odd strides."""
    strides = [1] * value.ndim
    counted = list(value.shape)
    while math.prod(counted) > COUNTED:
        widest = max(range(value.ndim), key=lambda d: counted[d])
        strides[widest] += 2
        counted[widest] = -(-value.shape[widest] // strides[widest])
    return tuple(slice(None, None, stride) for stride in strides)


def _observed(node: Node) -> bool:
    """Whether a node's values are not just those of another in another order."""
    value = node.meta.get("val")
    called = node.op in ("placeholder", "call_function") and node.target not in g.REORDERING
    if not called or not isinstance(value, Tensor):
        return False
    return value.is_floating_point() and value.numel() > 0
