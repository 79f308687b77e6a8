"""Speech that is made, and its front end: the same frames whole and as a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemix import data
from edgemix.data import mel, speech
from edgemix.errors import InputError
from edgemix.program import TensorSpec


def noise(samples: int, seed: int = 0) -> mel.Sound:
    return (np.random.default_rng(seed).normal(size=samples) * 0.1).astype(np.float32)


def test_frames_are_those_of_another_front_end() -> None:
    sound = noise(8000)
    # From the definition, bin by bin, with torch's transform.
    window = torch.hann_window(mel.WINDOW, periodic=True, dtype=torch.float64)
    spectrum = torch.stft(
        torch.from_numpy(sound).double(), mel.WINDOW, mel.HOP, window=window, center=False,
        return_complex=True,
    )  # fmt: skip
    power = spectrum.abs().square().T.numpy() * 4 / mel.WINDOW**2
    expected = (np.log(power @ mel.bank().T + mel.FLOOR) - mel.CENTRE) / mel.SPREAD
    found = mel.log_mel(sound)
    assert found.shape == ((8000 - mel.WINDOW) // mel.HOP + 1, mel.BANDS)
    np.testing.assert_allclose(found, np.clip(expected, -4, 4), rtol=0, atol=1e-5)


def test_a_tone_is_in_its_band_and_silence_at_the_floor() -> None:
    time = np.arange(4000) / mel.RATE
    tone = mel.log_mel(np.sin(2 * np.pi * 1000 * time).astype(np.float32))
    bins = mel.bank() @ (np.arange(mel.WINDOW // 2 + 1) * mel.RATE / mel.WINDOW)
    assert abs(int(tone[5].argmax()) - int(np.abs(bins - 1000).argmin())) <= 1
    assert tone[5].max() > tone[5].min() + 2
    silence = mel.log_mel(np.zeros(4000, np.float32))
    floor = (np.log(mel.FLOOR) - mel.CENTRE) / mel.SPREAD
    assert np.allclose(silence, floor)
    assert mel.log_mel(np.zeros(mel.WINDOW - 1, np.float32)).shape == (0, mel.BANDS)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=12))
def test_a_stream_of_any_pieces_gives_the_same_frames(sizes: list[int]) -> None:
    sound = noise(sum(sizes))
    stream, start, frames = mel.Stream(), 0, []
    for size in sizes:
        frames.append(stream.push(sound[start : start + size]))
        start += size
    assert np.array_equal(np.concatenate(frames), mel.log_mel(sound))


def test_speakers_of_one_part_are_silent_in_the_other() -> None:
    parts = {name: speech.draw(400, 5, name)[0] for name in ("train", "heldout")}
    spoken = {name: {u.voice.split("+")[1] for u in drawn} for name, drawn in parts.items()}
    assert not spoken["train"] & spoken["heldout"]
    assert len(spoken["heldout"]) > 12 and len(spoken["train"]) > 40


def test_utterances_are_the_same_every_time_and_of_every_class() -> None:
    drawn, labels = speech.draw(24, 7, "train")
    assert speech.draw(24, 7, "train")[0] == drawn
    assert np.bincount(labels).tolist() == [2] * len(speech.CLASSES)
    for utterance, label in zip(drawn[:12], labels[:12], strict=True):
        sound = speech.record(utterance)
        assert sound.shape == (speech.LENGTH,) and np.abs(sound).max() <= 1
        assert np.array_equal(sound, speech.record(utterance))
        assert (utterance.word == "") == (speech.CLASSES[label] == "silence")
        assert mel.log_mel(sound).shape == (speech.FRAMES, mel.BANDS)


def test_a_part_is_kept_and_a_damaged_copy_made_again(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, y = speech.kept(12, 3, "train")
    (stored,) = speech.files.cache().glob("keywords-*.npy")
    stored.write_bytes(stored.read_bytes()[:100])
    again, _ = speech.kept(12, 3, "train")
    assert np.array_equal(x, again) and y.tolist() == list(range(12))
    monkeypatch.setattr(speech, "features", None)  # not asked for what is there
    assert np.array_equal(speech.kept(12, 3, "train")[0], x)


def test_without_a_synthesizer_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speech.shutil, "which", lambda _: None)
    speech.synthesizer.cache_clear()
    with pytest.raises(InputError, match="apt-get install espeak-ng"):
        speech.synthesizer()
    speech.synthesizer.cache_clear()


def test_sequences_are_taken_apart_into_steps(tmp_path: object) -> None:
    path = f"{tmp_path}/x.npz"
    np.savez(path, x=np.zeros((3, 12, 4), np.float32), y=np.arange(3))
    assert data.load(path, TensorSpec("x", (1, 4)), steps=True).samples.shape == (3, 12, 4)
    chunks = data.load(path, TensorSpec("x", (1, 6, 4)), steps=True)
    assert chunks.samples.shape == (3, 2, 6, 4)
    for shape in ((1, 5), (1, 5, 4)):
        with pytest.raises(InputError, match=r"give samples of shape \(steps, 5"):
            data.load(path, TensorSpec("x", shape), steps=True)
    noise_steps = data.load("random:3", TensorSpec("x", (1, 4)), steps=True)
    assert noise_steps.samples.shape == (3, 100, 4)
