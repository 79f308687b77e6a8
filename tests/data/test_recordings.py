"""Speech Commands' layout, on a few small files."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edgemix import data
from edgemix.data import mel, speech
from edgemix.errors import InputError
from edgemix.program import TensorSpec

SPEC = TensorSpec("x", (1, mel.BANDS))


def write(path: Path, samples: int = 16_000, rate: int = mel.RATE) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(samples).integers(-3000, 3000, samples).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, samples, "NONE", ""))
        file.writeframes(values.tobytes())
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("yes/a_nohash_0.wav", "yes/b_nohash_0.wav", "bed/a_nohash_0.wav"):
        write(tmp_path / name)
    write(tmp_path / "_background_noise_" / "hum.wav", 40_000)
    (tmp_path / "testing_list.txt").write_text("yes/b_nohash_0.wav\n")
    return tmp_path


def test_parts_follow_the_list_and_other_words_are_unknown(folder: Path) -> None:
    train = data.load(f"recordings:{folder}:train", SPEC, steps=True)
    assert train.samples.shape == (2, speech.FRAMES, mel.BANDS)
    assert train.labels is not None
    assert [speech.CLASSES[i] for i in train.labels] == ["unknown", "yes"]
    held_out = data.load(f"recordings:{folder}:heldout", SPEC, steps=True)
    assert len(held_out) == 1
    values = write(folder / "yes" / "b_nohash_0.wav").astype(np.float32) / 32768
    padded = np.concatenate([values, np.zeros(speech.LENGTH - len(values), np.float32)])
    assert np.array_equal(held_out.samples[0], mel.log_mel(padded))


def test_files_and_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    for argument, message in (
        (f"recordings:{folder}:validation", "there is no"),
        (f"recordings:{folder / 'yes'}:train", "has no testing_list.txt"),
    ):
        with pytest.raises(InputError, match=message):
            data.load(argument, SPEC, steps=True)
    write(folder / "no" / "c.wav", rate=8000)
    with pytest.raises(InputError, match="has 8000 Hz, 16 bits, 1 channels"):
        data.load(f"recordings:{folder}:train", SPEC, steps=True)
    (folder / "no" / "c.wav").write_bytes(b"RIFF, but truncated")
    with pytest.raises(InputError, match="is no .wav file, or it is damaged"):
        data.load(f"recordings:{folder}:train", SPEC, steps=True)
