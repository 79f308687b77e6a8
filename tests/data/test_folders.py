"""Folders of images, recordings and arrays as data."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemix import data
from edgemix.data.folders import MEAN, SPREAD
from edgemix.errors import InputError
from edgemix.program import TensorSpec

PICTURES = TensorSpec("x", (1, 3, 16, 24), "float32", "NCHW")
SOUNDS = TensorSpec("x", (1, 400), "float32", "")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(path: Path, size: tuple[int, int], color: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def recording(path: Path, samples: np.ndarray, width: int = 2, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())


def test_images_of_any_size_become_inputs_and_subfolders_labels(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    picture(folder / "n02/b.png", (40, 200), (255, 0, 128))
    picture(folder / "n01/a.JPEG", (300, 31), (0, 0, 0))
    picture(folder / "n02/a.bmp", (7, 5), (255, 0, 128))
    found = data.load(f"images:{folder}", PICTURES)
    assert found.samples.shape == (3, 3, 16, 24)
    assert found.labels is not None and found.labels.tolist() == [0, 1, 1]
    expected = (np.array([1.0, 0.0, 128 / 255]) - MEAN) / SPREAD
    assert np.allclose(found.samples[1].mean((1, 2)), expected, atol=1e-5)
    assert np.allclose(found.samples[2].std((1, 2)), 0.0, atol=1e-5)
    grey = data.load(f"images:{folder}", TensorSpec("x", (1, 1, 8, 8), "float32", "NCHW"))
    assert grey.samples.shape == (3, 1, 8, 8)
    assert grey.samples[0].max() == 0.0


def test_timm_prepares_images_as_it_does_for_a_model(tmp_path: Path) -> None:
    import torch
    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg

    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    folder.mkdir()
    Image.fromarray(rng.integers(0, 255, (300, 260, 3), np.uint8)).save(folder / "a.png")
    spec = TensorSpec("x", (1, 3, 224, 224), "float32", "NCHW")
    found = data.load(f"images:{folder}?like=timm:poolformer_s12", spec)
    cfg = resolve_data_config(pretrained_cfg=get_pretrained_cfg("poolformer_s12").to_dict())
    with Image.open(folder / "a.png") as image:
        expected = create_transform(**cfg, is_training=False)(image.convert("RGB"))
    assert torch.equal(torch.from_numpy(np.array(found.samples[0])), expected)
    assert found.labels is None
    with pytest.raises(InputError, match="timm has no model nothing"):
        data.load(f"images:{folder}?like=timm:nothing", spec)
    with pytest.raises(InputError, match="'size=3' is no way to prepare images"):
        data.load(f"images:{folder}?size=3", spec)


def test_recordings_start_at_their_beginning_and_end_in_silence(tmp_path: Path) -> None:
    folder = tmp_path / "audio"
    recording(folder / "short.wav", np.full(100, 16384, "<i2"))
    stereo = np.stack([np.full(900, 8192), np.full(900, 24576)], 1).astype("<i2")
    recording(folder / "stereo.wav", stereo, channels=2)
    found = data.load(f"audio:{folder}", SOUNDS)
    assert found.samples.shape == (2, 400)
    assert np.all(found.samples[0, :100] == 0.5) and np.all(found.samples[0, 100:] == 0)
    assert np.all(found.samples[1] == 0.5)
    recording(folder / "wide.wav", np.zeros(30, np.uint8), width=3)
    with pytest.raises(InputError, match="has 24 bits\n  try: convert it to 16 bits"):
        data.load(f"audio:{folder}", SOUNDS)


def test_arrays_are_decoded_once_and_again_when_a_file_changes(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    folder.mkdir()
    for i in range(3):
        np.save(folder / f"{i}.npy", np.full(400, i, np.float64))
    first = data.load(f"arrays:{folder}", SOUNDS)
    assert first.samples[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert isinstance(first.samples, np.memmap)
    (cached,) = (tmp_path / "cache").rglob("arrays-*.npy")
    stamp = cached.stat().st_mtime_ns
    data.load(f"arrays:{folder}", SOUNDS)
    assert cached.stat().st_mtime_ns == stamp
    np.save(folder / "1.npy", np.full(400, 7, np.float32))
    assert data.load(f"arrays:{folder}", SOUNDS).samples[:, 0].tolist() == [0.0, 7.0, 2.0]


def test_a_few_files_come_from_all_subfolders(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    for kind in range(4):
        (folder / f"{kind}").mkdir(parents=True)
        for i in range(25):
            np.save(folder / f"{kind}/{i}.npy", np.full(400, kind, np.float32))
    some = data.load(f"arrays:{folder}", SOUNDS, most=20)
    assert some.labels is not None and len(some) == 20
    assert set(some.labels.tolist()) == {0, 1, 2, 3}
    assert np.array_equal(some.samples[:, 0], some.labels)
    again = data.load(f"arrays:{folder}", SOUNDS, most=20)
    assert np.array_equal(again.samples, some.samples)
    assert len(data.load(f"arrays:{folder}", SOUNDS, most=500)) == 100


def test_what_is_wrong_with_a_folder_is_said_and_nothing_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "arrays"
    with pytest.raises(InputError, match="there is no folder"):
        data.load(f"arrays:{folder}", SOUNDS)
    folder.mkdir()
    with pytest.raises(InputError, match=r"holds no arrays\n  try: give files \.npy"):
        data.load(f"arrays:{folder}", SOUNDS)
    np.save(folder / "a.npy", np.zeros(400, np.float32))
    (folder / "class").mkdir()
    np.save(folder / "class/b.npy", np.zeros(400, np.float32))
    with pytest.raises(InputError, match="holds files beside subfolders"):
        data.load(f"arrays:{folder}", SOUNDS)
    (folder / "class/b.npy").unlink()
    np.save(folder / "b.npy", np.zeros(399, np.float32))
    with pytest.raises(
        InputError, match=r"b\.npy has the shape \(399,\), the input takes \(400,\)"
    ):
        data.load(f"arrays:{folder}", SOUNDS)
    whole = (folder / "a.npy").read_bytes()
    (folder / "b.npy").write_bytes(whole[:900])
    with pytest.raises(InputError, match=r"b\.npy is damaged, or of another kind"):
        data.load(f"arrays:{folder}", SOUNDS)
    np.save(folder / "b.npy", np.full(400, np.nan, np.float32))
    with pytest.raises(InputError, match="sample 1 in arrays.* holds NaN or Inf"):
        data.load(f"arrays:{folder}", SOUNDS)
    np.save(folder / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"b\.npy is damaged"):
        data.load(f"arrays:{folder}", SOUNDS)
    kept = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert len(kept) == 1  # of the one load that decoded every file
