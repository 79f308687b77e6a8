"""Calibration: what every tensor of a program looks like on real data, gathered once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.fx import Node

from edgemix import files
from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.observers import BINS, TensorStats
from edgemix.threads import one_thread_each


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
        tensors, about = {}, {}
        for name, s in self.stats.items():
            tensors[f"{name}.counts"], tensors[f"{name}.sums"] = s.counts, s.sums
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
                    counts, sums = (
                        file.get_tensor(f"{name}.counts"),
                        file.get_tensor(f"{name}.sums"),
                    )
                    if counts.shape != (BINS,) or sums.shape != (BINS,):
                        raise ValueError(f"{name} has no histogram of {BINS} bins")
                    stats[name] = TensorStats(counts=counts, sums=sums, **s)
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
) -> Calibration:
    """Run ``program`` on data and keep a histogram of every float tensor.

    A program with states runs freely: every step is given the states that the step before it
    computed, so that the ranges are those that the program itself gets into.

    Memory does not grow with the number of batches.

    Args:
        program: a float program with one input.
        batches: tensors of samples [n, ...], n a multiple of the program's batch; where the program
            has states, of sequences [n, steps, ...].
        on_batch: called with the number of samples of each batch when it is done.

    Raises:
        InputError: no data, wrong shape or type, or a value that is not finite (in the data or
            at a node, which is then named).
    """
    if program.quantized:
        raise InputError("this program is quantized already", do="calibrate the float program")
    observer = _Observer(program)
    size = program.inputs[0].shape[0]
    digest, samples = hashlib.sha256(), 0
    for batch in batches:
        check_batch(program, batch, first=samples)
        digest.update(batch.contiguous().numpy().tobytes())
        # A program takes a batch; one with states, as many streams as memory has room for.
        piece = _STREAMS if program.states else size
        with one_thread_each():
            for start in range(0, len(batch), piece):
                observer.watch(batch[start : start + piece].contiguous())
        samples += len(batch)
        if on_batch is not None:
            on_batch(len(batch))
    if samples == 0:
        raise InputError("there is no calibration data", do="give at least one sample")
    data = DataPrint(samples, tuple(batch.shape[1:]), digest.hexdigest())
    return Calibration(program.digest, data, observer.stats)


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


class _Observer:
    """Keeps the statistics of every float tensor of a graph while it runs."""

    def __init__(self, program: Program) -> None:
        module = program.module()
        self._program = program
        self._nodes = [n for n in module.graph.nodes if _observed(n)]
        (output,) = module.graph.find_nodes(op="output")
        given: Any = output.args[0]
        output.args = ((*given, *self._nodes),)
        self._run = g.flat(module)
        self._given = len(given)
        self._together = torch.vmap(self._run)
        self.stats: dict[str, TensorStats] = {}

    @torch.no_grad()
    def watch(self, *inputs: Tensor) -> None:
        """Run one batch of every input, or sequences [n, steps, ...] beside each other."""
        if not self._program.states:
            self._count([[value] for value in self._run(*inputs)[self._given :]])
            return
        held = [s.start().expand(len(inputs[0]), *s.shape) for s in self._program.states]
        seen: list[list[Tensor]] = [[] for _ in self._nodes]
        for t in range(inputs[0].shape[1]):
            values = self._together(*(x[:, t, None] for x in inputs), *held)
            held = list(values[len(self._program.outputs) : self._given])
            for kept, value in zip(seen, values[self._given :], strict=True):
                kept.append(value)
            # A histogram of many steps at once: counting costs more than a small step computes.
            if (t + 1) % _COUNTED_STEPS == 0 or t + 1 == inputs[0].shape[1]:
                self._count(seen)
                seen = [[] for _ in self._nodes]

    def _count(self, seen: list[list[Tensor]]) -> None:
        for node, values in zip(self._nodes, seen, strict=True):
            flat = torch.cat([v.reshape(-1) for v in values])
            if not torch.isfinite(flat).all():
                raise InputError(
                    "the model computes NaN or Inf on the calibration data", at=str(g.where(node))
                )
            if flat.numel():
                new, old = TensorStats.of(flat), self.stats.get(node.name)
                self.stats[node.name] = new if old is None else old.merge(new)


_COUNTED_STEPS = 50
_STREAMS = 32


def _observed(node: Node) -> bool:
    value = node.meta.get("val")
    called = node.op in ("placeholder", "call_function")
    return called and isinstance(value, Tensor) and value.is_floating_point()


def fingerprint(batches: Iterable[Tensor]) -> str:
    """SHA-256 of all samples' bytes, as a Calibration keeps it."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(batch.contiguous().numpy().tobytes())
    return digest.hexdigest()
