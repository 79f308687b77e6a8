"""Calibration: what every tensor of a program looks like on real data, gathered once and kept."""

from __future__ import annotations

import hashlib
import json
import math
import operator
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import files
from edgemix import graph as g
from edgemix.batched import batched
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.observers import BINS, COUNTED, TensorStats
from edgemix.threads import one_thread_each

_PARTS = ("counts", "sums", "lows", "highs")


@dataclass(frozen=True)
class DataPrint:
    """What data went in: number and shape of the samples, and a hash of all their bytes."""

    samples: int
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Calibration:
    """Statistics of every float tensor of a program, by node name."""

    program: str
    """Digest of the float program that was observed."""
    data: DataPrint
    stats: dict[str, TensorStats]

    def save(self, path: Path) -> None:
        """Write to one safetensors file, whole or absent."""
        tensors: dict[str, Tensor] = {}
        about: dict[str, dict[str, float]] = {}
        for name, s in self.stats.items():
            tensors |= {f"{name}.{part}": getattr(s, part) for part in _PARTS}
            about[name] = {"minimum": s.minimum, "maximum": s.maximum, "exponent": s.exponent}
        header = {"program": self.program, "data": asdict(self.data), "stats": about}
        files.write_bytes(path, safetensors.torch.save(tensors, {"edgemix": json.dumps(header)}))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a saved calibration.

        Raises:
            InputError: missing, damaged, or no calibration.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header: dict[str, Any] = json.loads((file.metadata() or {})["edgemix"])
                stats = {}
                for name, s in header["stats"].items():
                    parts = {part: file.get_tensor(f"{name}.{part}") for part in _PARTS}
                    if parts["counts"].shape != (BINS,) or parts["sums"].shape != (BINS,):
                        raise ValueError(f"{name} has no histogram of {BINS} bins")
                    stats[name] = TensorStats(**parts, **s)
            data = DataPrint(**{**header["data"], "shape": tuple(header["data"]["shape"])})
        except FileNotFoundError as error:
            raise InputError(f"there is no calibration {path}") from error
        except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
            raise InputError(f"{path} is no calibration, or it is damaged: {error}") from error
        return cls(header["program"], data, stats)


def calibrate(
    program: Program,
    batches: Iterable[Tensor],
    *,
    on_batch: Callable[[int], None] | None = None,
    checkpoint: Path | None = None,
) -> Calibration:
    """Run ``program`` on data and keep the statistics of every float tensor.

    A program with states runs freely: every step is given the states that the step before it
    computed, so that the ranges are those that the program itself gets into.

    Memory does not grow with the number of batches. Runs on a GPU where there is one.

    Args:
        program: a float program with one input.
        batches: tensors of samples [n, ...], n a multiple of the program's batch; where the program
            has states, of sequences [n, steps, ...].
        on_batch: called with the number of samples of each batch when it is done.
        checkpoint: a file in which what was gathered is kept every few seconds; a run that was
            interrupted goes on from there, if the data is the same so far. Removed at the end.

    Raises:
        InputError: no data, wrong shape or type, or a value that is not finite (in the data or
            at a node, which is then named).
    """
    if program.quantized:
        raise InputError("this program is quantized already", do="calibrate the float program")
    observer = Observer(program)
    done = _resumed(checkpoint, program)
    digest, samples, shape = _Chain(), 0, program.inputs[0].shape[1:]
    saved = time.monotonic()
    for batch in batches:
        if len(batch) == 0:
            continue
        check_batch(program, batch, first=samples)
        digest.add(batch)
        samples, shape = samples + len(batch), tuple(batch.shape[1:])
        if done is not None and samples <= done.data.samples:
            if samples == done.data.samples and digest.hex == done.data.sha256:
                observer.resume(done.stats, samples)
                done = None
            elif samples == done.data.samples:
                raise InputError(
                    f"{checkpoint} was made of other data",
                    do="remove it, or give the data in the order of the interrupted run",
                )
        elif done is not None:
            raise InputError(
                f"{checkpoint} was made in batches of another size", do="remove it to start again"
            )
        else:
            observer.watch(batch)
            if checkpoint is not None and time.monotonic() - saved > _SAVED_EVERY_S:
                data = DataPrint(samples, shape, digest.hex)
                Calibration(program.digest, data, observer.stats).save(checkpoint)
                saved = time.monotonic()
        if on_batch is not None:
            on_batch(len(batch))
    if samples == 0:
        raise InputError("there is no calibration data", do="give at least one sample")
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Calibration(program.digest, DataPrint(samples, shape, digest.hex), observer.stats)


_SAVED_EVERY_S = 10.0


def _resumed(checkpoint: Path | None, program: Program) -> Calibration | None:
    if checkpoint is None or not checkpoint.exists():
        return None
    found = Calibration.load(checkpoint)
    return found if found.program == program.digest else None


class _Chain:
    """A hash over samples that depends on their order, and not on how they are batched."""

    def __init__(self) -> None:
        self.hex = ""

    def add(self, batch: Tensor) -> None:
        for sample in batch.contiguous().numpy():
            self.hex = hashlib.sha256(self.hex.encode() + sample.tobytes()).hexdigest()


def check_batch(program: Program, batch: Tensor, *, first: int = 0) -> None:
    """Refuse samples that the program cannot take.

    Raises:
        InputError: wrong shape or type, or a sample with NaN or Inf (its index is named).
    """
    spec = program.inputs[0]
    if tuple(batch.shape[2 if program.states else 1 :]) != spec.shape[1:]:
        what = "sequences of steps of shape " if program.states else ""
        raise InputError(
            f"the samples have shape {tuple(batch.shape[1:])}, the program takes {what}"
            f"{spec.shape[1:]}"
        )
    if str(batch.dtype) != f"torch.{spec.dtype}":
        raise InputError(f"the samples are {batch.dtype}, the program takes {spec.dtype}")
    if len(batch) % spec.shape[0]:
        raise InputError(
            f"the number of samples must be a multiple of {spec.shape[0]}: {len(batch)}"
        )
    bad = ~torch.isfinite(batch).flatten(1).all(1)
    if bad.any():
        raise InputError(f"sample {first + int(bad.nonzero()[0])} holds NaN or Inf")


class Observer:
    """Keeps the statistics of every float tensor of a graph while it runs.

    What is kept of a tensor is computed inside the graph, so that no more activations live at a
    time than the graph itself needs. Limits are taken of all values. Counted are some of them, of
    every sample at first and of one in two, four, eight ... later on.
    """

    def __init__(self, program: Program) -> None:
        module, run = _mapped(program) if program.states else batched(program)[:2]
        self._program = program
        self._nodes = [n for n in module.graph.nodes if _observed(n)]
        (output,) = module.graph.find_nodes(op="output")
        given: Any = output.args[0]
        output.args = ((*given, *(part for n in self._nodes for part in _watched(n))),)
        module.recompile()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module.to(self._device)
        self._run = run
        self._given = len(given)
        self._piece = _STREAMS if program.states else pieces(module)
        self._samples = 0
        self._waiting: list[list[Tensor]] = [[] for _ in self._nodes]
        self._held = 0
        """Samples of which values wait to be counted."""
        self._limits: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = []
        self._stats: dict[str, TensorStats] = {}

    @property
    def stats(self) -> dict[str, TensorStats]:
        """Of everything that was watched so far."""
        self._count()
        return dict(self._stats)

    def resume(self, stats: dict[str, TensorStats], samples: int) -> None:
        """Go on from what an earlier run kept after so many samples."""
        self._stats, self._samples = dict(stats), samples

    @torch.no_grad()
    def watch(self, *batch: Tensor) -> None:
        """Run samples [n, ...] of every input, or sequences [n, steps, ...] beside each other."""
        size = 1 if self._program.states else self._program.inputs[0].shape[0]
        for some in zip(*(torch.split(b, self._piece * size) for b in batch), strict=True):
            if self._program.states:
                with one_thread_each():  # a step is small
                    self._follow(*some)
            else:
                values = self._run(*(x.to(self._device) for x in some))
                self._keep(values[self._given :], len(some[0]))
                self._samples += len(some[0])
        # Counting costs as much for one sample as for many.
        if self._held >= _COUNTED_SAMPLES or len(self._limits) >= _COUNTED_BATCHES:
            self._count()

    def _follow(self, sequences: Tensor) -> None:
        states = self._program.states
        held = [s.start().expand(len(sequences), *s.shape).to(self._device) for s in states]
        for t in range(sequences.shape[1]):
            values = self._run(sequences[:, t, None].to(self._device), *held)
            held = list(values[len(self._program.outputs) : self._given])
            self._keep(values[self._given :], 0)
            # Counting costs more than a small step computes: many steps at once.
            if len(self._limits) >= _COUNTED_STEPS:
                self._count()

    def _keep(self, values: tuple[Tensor, ...], samples: int) -> None:
        self._limits.append((values[1::3], values[2::3]))
        counted = [i for i in range(samples) if _is_counted(self._samples + i)]
        if samples and not counted:
            return
        self._held += len(counted)
        for waiting, some in zip(self._waiting, values[::3], strict=True):
            every = samples == 0 or some.ndim == 0 or len(some) != samples
            waiting.append(some if every else some[counted])

    def _count(self) -> None:
        if not self._limits:
            return
        for i, node in enumerate(self._nodes):
            size = _channels(node)
            lows = torch.stack([low[i] for low, _ in self._limits]).reshape(-1, size).amin(0).cpu()
            highs = torch.stack([hi[i] for _, hi in self._limits]).reshape(-1, size).amax(0).cpu()
            if not (torch.isfinite(lows).all() and torch.isfinite(highs).all()):
                raise InputError(
                    "the model computes NaN or Inf on the calibration data", at=str(g.where(node))
                )
            counted = self._waiting[i]
            value = torch.cat([v.reshape(-1) for v in counted]).cpu() if counted else None
            new = TensorStats.of(value, lows, highs)
            old = self._stats.get(node.name)
            self._stats[node.name] = new if old is None else old.merge(new)
        self._limits, self._waiting, self._held = [], [[] for _ in self._nodes], 0


_COUNTED_STEPS = 50
_COUNTED_BATCHES = 256
_COUNTED_SAMPLES = 64
_STREAMS = 32
_LIVE_BYTES = 64 << 20
_ALL = 32


def _is_counted(sample: int) -> bool:
    """Every sample of the first 32, then one in two up to 64, one in four up to 128 ..."""
    return sample < _ALL or sample % (1 << ((sample // _ALL).bit_length())) == 0


def _mapped(program: Program) -> tuple[GraphModule, Callable[..., tuple[Tensor, ...]]]:
    """A step's graph, and the same mapped over streams."""
    module = g.flat(program.module())
    return module, torch.vmap(module)


def pieces(module: GraphModule) -> int:
    """How many runs of a graph go side by side: its largest values should stay in 64 MB."""
    sizes = sorted(
        (n.meta["val"].numel() * 4 for n in module.graph.nodes if _observed(n)), reverse=True
    )
    return int(min(max(_LIVE_BYTES // max(sum(sizes[:4]), 1), 1), 64))


def _watched(node: Node) -> tuple[Node, Node, Node]:
    """New nodes behind one: some of its values, and its limits."""
    graph, value = node.graph, node.meta["val"]
    # By channel where somebody asks: what a linear operator sums over.
    axis = g.channel_axis(node) if _channels(node) > 1 else None
    others = [d for d in range(value.ndim) if d != axis]
    with graph.inserting_after(node):
        # Not aminmax: it copies what is not row-major.
        low, high = (graph.call_function(op, (node, others)) for op in (torch.amin, torch.amax))
        some = graph.call_function(operator.getitem, (node, _some(value)))
    # A slice keeps the whole tensor alive; its copy does not.
    with graph.inserting_after(some):
        some = graph.call_function(torch.clone, (some,))
    return some, low, high


def _channels(node: Node) -> int:
    """How many channels of a value are told apart: those that a linear operator sums over."""
    value = node.meta["val"]
    if value.ndim < 2 or not g.feeds_linear(node):
        return 1
    return int(value.shape[g.channel_axis(node)])


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


def fingerprint(batches: Iterable[Tensor]) -> str:
    """The hash of all samples, as a Calibration keeps it."""
    chain = _Chain()
    for batch in batches:
        chain.add(batch)
    return chain.hex
