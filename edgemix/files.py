"""Files are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemix.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def write_bytes(path: Path, data: bytes) -> None:
    """:func:`write_parts` of one part."""
    write_parts(path, [data])


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Write ``parts`` to ``path`` so that a reader sees the old file or the new one, never half.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", do="choose another folder or free some space"
        ) from error
    finally:
        if temporary is not None:  # also where a part could not be made
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def read_text(path: Path, *, do: str) -> str:
    """UTF-8 text of a file that the user names.

    Args:
        path: the file.
        do: what to do where it cannot be read.

    Raises:
        InputError: there is none, it is not for this user, or it is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", do=do) from error


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a ``.npy`` file, whole or absent."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())


def write_rows(path: Path, shape: tuple[int, ...], rows: Iterable[npt.NDArray[np.float32]]) -> None:
    """Write a ``.npy`` file of float32 row by row, whole or absent: no more than one is held."""
    import numpy as np

    header = io.BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(header, form)
    write_parts(
        path,
        itertools.chain([header.getvalue()], (np.ascontiguousarray(r).tobytes() for r in rows)),
    )


def cache() -> Path:
    """The user's folder for what can be made again, after the XDG base directory specification.

    Raises:
        InputError: it cannot be made.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgemix"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}", do="set XDG_CACHE_HOME"
        ) from error
    return folder


def name_of(text: str) -> str:
    """A short name that stands for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or absent."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or absent."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder, of its relative names and files in sorted order."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(str(file.relative_to(path)).encode() + b"\0")
            digest.update(bytes.fromhex(sha256(file)))
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def check_output_folder(path: Path, *, force: bool) -> None:
    """Refuse an output folder that cannot be written or that holds something already.

    Raises:
        InputError: ``path`` is a file, is not empty (without ``force``), or cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"the output {path} is a file", do="name a folder")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise InputError(
            f"the output folder {path} is not empty", do="name another folder, or add --force"
        )
    parent = path
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"the output folder {path} cannot be written", do="name another folder")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A scratch folder that becomes ``path``, or its content, when the block succeeds.

    Yields:
        The scratch folder. When the block raises, it is removed and ``path`` stays as it was.
    """
    # What is there may be a link, a mount or the current folder: it gets a new content, no more.
    there = path.is_dir()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        home = path if there else path.parent
        scratch = Path(tempfile.mkdtemp(dir=home, prefix=f".{path.resolve().name}."))
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", do="name another folder"
        ) from error
    try:
        os.chmod(scratch, 0o755)
        yield scratch
        if not there:
            os.replace(scratch, path)
            return
        clear(path, keep=(scratch.name,))
        for made in scratch.iterdir():
            os.replace(made, path / made.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def clear(folder: Path, keep: Collection[str] = ()) -> None:
    """Remove what a folder holds, but for the names to keep."""
    for entry in folder.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
