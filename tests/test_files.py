"""Files are whole or absent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgemix import files
from edgemix.errors import InputError


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    files.write_text(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*report.json: No space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), files.whole_folder(target) as scratch:
        (scratch / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.whole_folder(target) as scratch:
        (scratch / "whole").write_text("x")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["whole"]


def test_a_failed_replacement_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("x")
    with pytest.raises(RuntimeError), files.whole_folder(target) as scratch:
        (scratch / "new").write_text("x")
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["old"]


def test_a_folder_that_is_there_stays_and_gets_a_new_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    (real / "old").mkdir(parents=True)
    link.symlink_to(real)
    monkeypatch.chdir(real)
    before = real.stat().st_ino
    for target in (Path(), link, real):
        with files.whole_folder(target) as scratch:
            (scratch / "deep").mkdir()
            (scratch / "deep" / "new").write_text(str(target))
        assert [p.name for p in real.iterdir()] == ["deep"]
        assert (real / "deep" / "new").read_text() == str(target)
    assert link.is_symlink()
    assert real.stat().st_ino == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_output_folders_that_cannot_serve(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("x")
    with pytest.raises(InputError, match="is a file"):
        files.check_output_folder(taken, force=True)
    with pytest.raises(InputError, match="is not empty\n  try: .*--force"):
        files.check_output_folder(tmp_path, force=False)
    files.check_output_folder(tmp_path, force=True)
    files.check_output_folder(tmp_path / "new" / "deep", force=False)
    with pytest.raises(InputError, match="cannot be written"):
        files.check_output_folder(taken / "below", force=False)


def test_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked through os.access, since the superuser may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="cannot be written"):
        files.check_output_folder(tmp_path / "out", force=False)


def test_a_folders_hash_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = files.sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = files.sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, files.sha256(tmp_path)}) == 3
