"""Data for calibration and evaluation: streamed in batches, checked before anything runs.

A data argument is a set's part (``digits:train``, ``digits:heldout``; the table ``SETS`` lists
them), ``recordings:FOLDER:PART`` (spoken words in the layout of Speech Commands),
``images:FOLDER``, ``audio:FOLDER`` or ``arrays:FOLDER`` (see :mod:`edgemix.data.folders`),
``random:COUNT`` (uniform noise, for a first look only), a ``.npy`` file of samples or a ``.npz``
file with samples ``x`` and, optionally, labels ``y``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edgemix.data import folders, jets, recordings, speech
from edgemix.data.base import Data
from edgemix.data.scans import digits
from edgemix.errors import InputError
from edgemix.program import TensorSpec

__all__ = ["Data", "SETS", "digits", "load"]

SETS: dict[str, Callable[[str], Data]] = {
    "digits": digits,
    **{name: partial(jets.part, name) for name in jets.MAKERS},
    "keywords": speech.part,
}
"""The sets that come with the package, each with the parts ``train`` and ``heldout``."""


def load(argument: str, spec: TensorSpec, *, steps: bool = False, most: int | None = None) -> Data:
    """The data that an argument names, for an input of this shape.

    Args:
        argument: see above.
        spec: the input.
        steps: whether it is one step's: samples are then sequences [n, time, ...], taken apart
            into as many steps as they have.
        most: how many files of a folder are wanted at most; other data comes whole.

    Raises:
        InputError: no such file or set, damaged, empty, of another shape or type, NaN or Inf
            (the first such sample is named), or labels that do not fit.
    """
    kind, _, rest = argument.partition(":")
    if kind in SETS:
        data = SETS[kind](rest)
    elif kind == "recordings":
        data = recordings.part(rest)
    elif kind in folders.KINDS:
        data = folders.load(kind, rest, spec, most)
    elif kind == "random":
        data = _random(rest, spec, steps=steps)
    else:
        data = _file(Path(argument))
    if steps:
        data = _in_steps(data, spec)
    _check(data, spec, axes=2 if steps else 1)
    return data


def _in_steps(data: Data, spec: TensorSpec) -> Data:
    """Sequences [n, time, ...] of steps that take several positions at once: [n, steps, k, ...]."""
    x, step = data.samples, spec.shape[1:]
    if x.ndim == 1 + len(step) and x.shape[2:] == step[1:] and x.shape[1] % step[0] == 0:
        x = x.reshape(len(x), -1, *step)
    return Data(data.source, x, data.labels)


_RANDOM_STEPS = 100


def _random(count: str, spec: TensorSpec, *, steps: bool) -> Data:
    if not count.isdigit() or int(count) == 0:
        raise InputError(f"random:{count} names no number of samples", do="write random:64")
    generator = np.random.default_rng(0)
    shape = (_RANDOM_STEPS, *spec.shape[1:]) if steps else spec.shape[1:]
    samples = generator.random((int(count), *shape), dtype=np.float32)
    return Data(f"random:{count}", samples)


def _file(path: Path) -> Data:
    if not path.exists():
        raise InputError(
            f"there is no data file {path}",
            do="give a .npz or .npy file, digits:heldout or random:64",
        )
    if path.suffix not in (".npz", ".npy"):
        raise InputError(
            f"{path} is no .npz or .npy file", do="save samples with numpy.savez(x=…, y=…)"
        )
    try:
        if path.suffix == ".npy":
            return Data(str(path), np.load(path, allow_pickle=False, mmap_mode="r"))
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as loaded:
            if "x" not in loaded:
                raise InputError(f"{path} holds no array x: {', '.join(loaded) or 'it is empty'}")
            return Data(str(path), loaded["x"], loaded["y"] if "y" in loaded.files else None)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged, or no numpy file: {error}") from error


def _check(data: Data, spec: TensorSpec, axes: int) -> None:
    x, y = data.samples, data.labels
    if x.ndim == 0 or len(x) == 0:
        raise InputError(f"{data.source} holds no samples")
    if x.shape[axes:] != spec.shape[1:] or x.ndim < axes or 0 in x.shape[:axes]:
        wanted = ", ".join(map(str, ("steps", *spec.shape[1:]) if axes == 2 else spec.shape[1:]))
        raise InputError(
            f"the samples in {data.source} have shape {x.shape[1:]}",
            do=f"give samples of shape ({wanted}), as the input {spec.name} takes them",
        )
    if x.dtype != np.dtype(spec.dtype):
        raise InputError(
            f"the samples in {data.source} are {x.dtype}", do=f"convert them to {spec.dtype}"
        )
    if len(x) % spec.shape[0]:
        raise InputError(
            f"{data.source} holds {len(x)} samples, which is no multiple of the program's batch",
            do=f"give a multiple of {spec.shape[0]}",
        )
    for start in range(0, len(x), 1024):
        bad = ~np.isfinite(x[start : start + 1024]).reshape(len(x[start : start + 1024]), -1).all(1)
        if bad.any():
            raise InputError(
                f"sample {start + int(bad.argmax())} in {data.source} holds NaN or Inf"
            )
    if y is not None and (y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer)):
        raise InputError(
            f"the labels y in {data.source} are {y.dtype} of shape {y.shape}",
            do=f"give {len(x)} integers",
        )
