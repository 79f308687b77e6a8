"""Folders as data: ``images:FOLDER``, ``audio:FOLDER``, ``arrays:FOLDER``.

Files are decoded once, into one array on disk that is mapped, not read: a million images take no
more memory than ten. Where every file lies in a subfolder, the subfolders' names in order are the
labels 0, 1, 2 ..., as ImageNet's are laid out.

``images:FOLDER?like=timm:NAME`` prepares images as timm does for that model; without it, the
shorter side is resized to the input's size / 0.875, the middle is cut out, and ImageNet's mean and
spread are taken off.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemix import files
from edgemix.data.base import Data
from edgemix.errors import InputError
from edgemix.extras import need
from edgemix.program import TensorSpec

Array = npt.NDArray[np.float32]
Decode = Callable[[Path], Array]

KINDS: dict[str, tuple[str, ...]] = {
    "images": (".jpg", ".jpeg", ".png", ".bmp", ".webp"),
    "audio": (".wav",),
    "arrays": (".npy",),
}
"""Which files each kind of folder holds."""
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = 0.875


def load(kind: str, argument: str, spec: TensorSpec, most: int | None = None) -> Data:
    """The files of a folder, as inputs of this shape.

    Args:
        kind: one of ``KINDS``.
        argument: the folder, and how it is prepared.
        spec: the input.
        most: how many files to decode at most, drawn from all subfolders, always the same ones.

    Raises:
        InputError: no such folder, no files in it, some in subfolders and some not, or one that
            cannot be decoded (it is named).
    """
    name, _, query = argument.partition("?")
    folder = Path(name)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in KINDS[kind] and p.is_file())
    if not paths:
        raise InputError(f"{folder} holds no {kind}", do=f"give files {', '.join(KINDS[kind])}")
    decode, labels = _decoder(kind, query, spec), _labels(folder, paths)
    if most is not None and most < len(paths):
        drawn = np.sort(np.random.default_rng(0).permutation(len(paths))[:most])
        paths = [paths[i] for i in drawn]
        labels = None if labels is None else labels[drawn]
    return Data(f"{kind}:{argument}", _decoded(kind, query, paths, spec, decode), labels)


def _labels(folder: Path, paths: list[Path]) -> npt.NDArray[np.int64] | None:
    parents = [p.relative_to(folder).parent.as_posix() for p in paths]
    classes = sorted(set(parents))
    if classes == ["."]:
        return None
    if "." in classes:
        raise InputError(
            f"{folder} holds files beside subfolders", do="use subfolders for all files, or none"
        )
    return np.array([classes.index(parent) for parent in parents])


def _decoded(kind: str, query: str, paths: list[Path], spec: TensorSpec, decode: Decode) -> Array:
    """The decoded files, from the cache if they are what they were."""
    stamps = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    place = files.cache() / f"{kind}-{files.name_of(json.dumps([query, spec.shape, stamps]))}.npy"
    if not place.exists():
        files.write_rows(place, (len(paths), *spec.shape[1:]), _rows(paths, spec, decode))
    found: Array = np.load(place, mmap_mode="r")
    return found


def _rows(paths: list[Path], spec: TensorSpec, decode: Decode) -> Iterator[Array]:
    for path in paths:
        try:
            row = decode(path)
        except (OSError, ValueError, EOFError, wave.Error) as error:
            raise InputError(f"{path} is damaged, or of another kind: {error}") from error
        if row.shape != spec.shape[1:]:
            raise InputError(f"{path} has the shape {row.shape}, the input takes {spec.shape[1:]}")
        yield np.asarray(row, np.float32)


def _decoder(kind: str, query: str, spec: TensorSpec) -> Decode:
    if kind == "arrays":
        return _array
    if kind == "audio":
        return lambda path: _sound(path, spec)
    if query.startswith("like=timm:"):
        return _as_timm(query.removeprefix("like=timm:"))
    if query:
        raise InputError(f"{query!r} is no way to prepare images", do="write ?like=timm:NAME")
    if len(spec.shape) != 4 or spec.shape[1] not in (1, 3):
        raise InputError(f"the input {spec.name} takes no images: {spec.shape}")
    return lambda path: _image(path, spec)


def _array(path: Path) -> Array:
    return np.asarray(np.load(path, allow_pickle=False), np.float32)


def _image(path: Path, spec: TensorSpec) -> Array:
    images = need("PIL.Image", extra="timm")
    _, channels, height, width = spec.shape
    with images.open(path) as file:
        picture = file.convert("RGB" if channels == 3 else "L")
    wanted = (width / CROP, height / CROP)
    grow = max(wanted[0] / picture.width, wanted[1] / picture.height)
    size = round(picture.width * grow), round(picture.height * grow)
    picture = picture.resize(size, images.Resampling.BICUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    pixels = np.asarray(picture.crop((left, top, left + width, top + height)), np.float32)
    cut: Array = pixels / np.float32(255)
    if channels == 1:
        return cut[None]
    normal = (cut - np.array(MEAN, np.float32)) / np.array(SPREAD, np.float32)
    found: Array = np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)
    return found


def _as_timm(name: str) -> Decode:
    """Timm's own transform of a model for evaluation."""
    timm_data, models = need("timm.data", extra="timm"), need("timm.models", extra="timm")
    images = need("PIL.Image", extra="timm")
    if not models.is_model(name.split(".")[0]):
        raise InputError(f"timm has no model {name}")
    config: dict[str, Any] = timm_data.resolve_data_config(
        pretrained_cfg=models.get_pretrained_cfg(name).to_dict(), model=None
    )
    transform = timm_data.create_transform(**config, is_training=False)

    def decode(path: Path) -> Array:
        with images.open(path) as file:
            found: Array = transform(file.convert("RGB")).numpy()
        return found

    return decode


def _sound(path: Path, spec: TensorSpec) -> Array:
    """The start of a recording as one channel in [-1, 1), with silence behind a short one."""
    length = spec.shape[-1]
    with wave.open(str(path), "rb") as file:
        width, channels = file.getsampwidth(), file.getnchannels()
        if width != 2:
            raise InputError(f"{path} has {8 * width} bits", do="convert it to 16 bits")
        raw = np.frombuffer(file.readframes(length), "<i2").reshape(-1, channels)
    sound = np.zeros(length, np.float32)
    sound[: len(raw)] = raw.mean(1) / 32768
    return sound.reshape(spec.shape[1:])
