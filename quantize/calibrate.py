"""Calibration: what every tensor of a program looks like on real data, gathered once and kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edgemix import files
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.observers import BINS, TensorStats
from edgemix.quantize.watch import Observer

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
    digest, samples, shape = _Hash(), 0, program.inputs[0].shape[1:]
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


class _Hash:
    """Of samples: depends on their order, and not on how they are batched."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    @property
    def hex(self) -> str:
        return self._digest.hexdigest()

    def add(self, batch: Tensor) -> None:
        self._digest.update(batch.contiguous().numpy().data)


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


def fingerprint(batches: Iterable[Tensor]) -> str:
    """The hash of all samples, as a Calibration keeps it."""
    digest = _Hash()
    for batch in batches:
        digest.add(batch)
    return digest.hex
