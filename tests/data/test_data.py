"""Data that cannot serve is refused before anything runs, and the message says which sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgemix import data
from edgemix.errors import InputError
from edgemix.program import TensorSpec

SPEC = TensorSpec("x", (1, 1, 8, 8))


def save(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


def images(count: int = 4, dtype: str = "float32") -> np.ndarray:
    return np.zeros((count, 1, 8, 8), dtype)


def test_the_split_is_fixed_and_its_parts_are_disjoint() -> None:
    train, held_out = data.digits("train"), data.digits("heldout")
    assert (len(train), len(held_out)) == (1297, 500)
    seen = {x.tobytes() for x in train.samples}
    assert sum(x.tobytes() in seen for x in held_out.samples) == 0
    assert np.bincount(held_out.labels).min() >= 48


def test_batches_cover_everything_once() -> None:
    held_out = data.digits("heldout")
    sizes = [len(b) for b in held_out.batches(64, 130)]
    assert sizes == [64, 64, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": images()[:, :, :7]}, r"shape \(1, 7, 8\)\n  try: give samples of shape \(1, 8, 8\)"),
        ({"x": images(dtype="float64")}, "are float64\n  try: convert them to float32"),
        ({"x": images(0)}, "holds no samples"),
        ({"z": images()}, "holds no array x: z"),
        (
            {"x": images(), "y": np.zeros(3, int)},
            r"labels y .* shape \(3,\)\n  try: give 4 integers",
        ),
        ({"x": images(), "y": np.zeros(4)}, "labels y .* are float64"),
    ],
)
def test_wrong_arrays(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    path = save(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=message):
        data.load(path, SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    x = images(1030)
    x[1027, 0, 3, 3] = value
    with pytest.raises(InputError, match="sample 1027 in .* holds NaN or Inf"):
        data.load(save(tmp_path / "data.npz", x=x), SPEC)


def test_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no data file"):
        data.load(str(tmp_path / "none.npz"), SPEC)
    text = tmp_path / "data.csv"
    text.write_text("1,2")
    with pytest.raises(InputError, match=r"is no .npz or .npy file"):
        data.load(str(text), SPEC)
    broken = tmp_path / "data.npz"
    np.savez(broken, x=images())
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(InputError, match="is damaged, or no numpy file"):
        data.load(str(broken), SPEC)
    pickled = tmp_path / "objects.npy"
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="is damaged, or no numpy file"):
        data.load(str(pickled), SPEC)


def test_generated_data() -> None:
    assert data.load("random:3", SPEC).samples.shape == (3, 1, 8, 8)
    for argument in ("random:", "random:x", "random:0"):
        with pytest.raises(InputError, match="names no number of samples"):
            data.load(argument, SPEC)
    with pytest.raises(InputError, match="there is no digits:test"):
        data.load("digits:test", SPEC)


@pytest.mark.parametrize(
    ("name", "shape"), [("jets", (16, 3)), ("jets32", (32, 3)), ("jet-features", (16,))]
)
def test_jets_are_balanced_bounded_and_fixed(name: str, shape: tuple[int, ...]) -> None:
    spec = TensorSpec("x", (1, *shape))
    held_out = data.load(f"{name}:heldout", spec)
    assert held_out.samples.shape == (5000, *shape)
    assert held_out.samples.dtype == np.float32
    assert np.bincount(held_out.labels).tolist() == [1000] * 5
    assert np.abs(held_out.samples).max() <= 4
    assert held_out.samples.std() > 0.5
    with pytest.raises(ValueError, match="read-only"):
        held_out.samples[0] = 0
    with pytest.raises(InputError, match=f"there is no {name}:test\n  try: use {name}:train or"):
        data.load(f"{name}:test", spec)


def test_training_and_held_out_jets_are_different_jets() -> None:
    train, held_out = data.SETS["jets"]("train"), data.SETS["jets"]("heldout")
    assert len(train) == 20_000
    seen = {x.tobytes() for x in train.samples}
    assert sum(x.tobytes() in seen for x in held_out.samples) == 0


def test_every_set_refuses_an_unknown_part() -> None:
    for name, part in data.SETS.items():
        with pytest.raises(InputError, match=f"there is no {name}:\n  try: use {name}:train or"):
            part("")
