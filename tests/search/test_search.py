"""Searches: nothing is tried twice, nothing is lost, whatever dies."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgemix.deployment import parse
from edgemix.errors import InputError, ToolError
from edgemix.search import engine, outcome
from edgemix.search.outcome import front
from edgemix.search.page import render
from edgemix.search.space import Space
from edgemix.search.study import JOURNAL, Trial
from tests.cli.command import edgemix
from tests.search import workers

TEXT = """\
out = "out"
targets = ["onnx"]
[model]
source = "edgemix.models.demo:create"
[data]
calibrate = "digits:train"
[search]
trials = 8
recipes = ["int8", "w8", "w4a8", "float32"]
quality = ["none", "fast"]
objectives = ["loss", "size"]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """The file, with some of its text replaced."""

    def write(old: str = "", new: str = "") -> Path:
        (tmp_path / "deploy.toml").write_text(TEXT.replace(old, new))
        return tmp_path / "deploy.toml"

    return write


def log(file: Path) -> list[str]:
    path = file.parent / "out" / "log"
    return path.read_text().splitlines() if path.exists() else []


def ended(file: Path) -> int:
    """How many trials the journal knows the end of."""
    path = file.parent / "out" / JOURNAL
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(json.loads(line).get("state") in (1, 3) for line in lines[:-1])


def names(trials: list[Trial]) -> list[str]:
    return sorted(" ".join(t.params.values()) for t in trials)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


EVERY = sorted(f"{r} {q}" for r in workers.VALUES for q in ("none", "fast"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_choice_is_tried_once(jobs: int, write: Callable[..., Path]) -> None:
    file, told = write("trials = 8", "trials = 50"), []
    trials = workers.search(file, workers.quick, jobs=jobs, told=told.append)
    assert names(trials) == sorted(log(file)) == EVERY
    assert sorted(t.number for t in told) == [t.number for t in trials]
    best = {" ".join(t.params.values()) for t in trials if t.front}
    assert best == {"w8 none", "w4a8 none"}


def test_what_is_known_is_not_tried_again_and_more_trials_go_on(
    write: Callable[..., Path],
) -> None:
    few = workers.search(write("trials = 8", "trials = 3"), workers.quick)
    assert len(few) == 3
    file = write()
    trials = workers.search(file, workers.quick)
    assert trials[:3] != [] and {t.number for t in few} < {t.number for t in trials}
    assert names(trials) == sorted(log(file)) == EVERY
    again = workers.search(file, workers.quick)
    assert [(t.number, t.values) for t in again] == [(t.number, t.values) for t in trials]
    assert sorted(log(file)) == EVERY
    assert len(workers.search(file, workers.quick, force=True)) == 8
    assert sorted(log(file)) == EVERY  # dropped, and done anew


def test_a_killed_search_goes_on_where_it_was(write: Callable[..., Path]) -> None:
    file = write()
    process = subprocess.Popen([sys.executable, "-m", "tests.search.workers", str(file)])
    deadline = time.monotonic() + 60
    while ended(file) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    started = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    known = ended(file)
    assert 3 <= known < 8
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]  # no orphan works on
    before = Counter(log(file))
    journal = file.parent / "out" / JOURNAL
    with journal.open("a") as stream:
        stream.write('{"op_code":4,"half a li')
    trials = workers.search(file, workers.quick)
    assert names(trials) == EVERY
    assert all(t.values for t in trials)
    after = Counter(log(file))
    # Those that were told of are not repeated; at most the two under way were.
    assert sum(after.values()) - 8 <= 2
    assert max(after.values()) <= 2 and set(before) <= set(after)


def test_a_worker_that_dies_loses_nothing(write: Callable[..., Path]) -> None:
    file = write()
    trials = workers.search(file, workers.deadly_once, jobs=2)
    assert (file.parent / "out" / "mark").exists()
    assert names(trials) == EVERY
    assert all(t.values for t in trials)


def test_a_trial_that_kills_every_worker_is_given_up(write: Callable[..., Path]) -> None:
    file = write('"none", "fast"', '"none"')
    trials = workers.search(file, workers.deadly, jobs=2)
    assert {t.params["recipe"]: t.failed for t in trials if not t.values} == {
        "w8": "its worker died 2 times while nothing else ran"
    }
    assert names([t for t in trials if t.values]) == ["float32 none", "int8 none", "w4a8 none"]


def test_a_failure_is_kept_with_its_message(write: Callable[..., Path]) -> None:
    file = write('"none", "fast"', '"none"')
    trials = workers.search(file, workers.half_broken)
    (broken,) = (t for t in trials if t.failed)
    assert (broken.params["recipe"], broken.failed) == ("w8", "there is no w8 today")
    assert not any(t.front for t in trials if t.failed)
    assert len(workers.search(file, workers.quick)) == 4
    assert len(log(file)) == 3  # nor is what failed tried again
    page = render("a model", ("loss", "size"), trials)
    assert "there is no w8 today" in page and page.count('<circle class="best missed"') == 3


def test_another_search_and_a_folder_with_something_else_are_refused(
    write: Callable[..., Path],
) -> None:
    file = write("trials = 8", "trials = 1")
    workers.search(file, workers.quick)
    with pytest.raises(InputError, match="a search with another choices\n.*--force"):
        workers.search(write('"w8", ', ""), workers.quick)
    with pytest.raises(InputError, match="a search with another data"):
        workers.search(write("digits:train", "digits:heldout"), workers.quick)
    (file.parent / "out" / JOURNAL).unlink()
    with pytest.raises(InputError, match="is not empty"):
        workers.search(write(), workers.quick)


def test_two_searches_do_not_share_a_folder(write: Callable[..., Path]) -> None:
    file, met = write(), []

    def second(trial: Trial) -> None:
        with pytest.raises(InputError, match="another search is at work"):
            workers.search(file, workers.quick, force=bool(trial.number % 2))
        met.append(trial)

    workers.search(file, workers.quick, told=second)
    assert len(met) == 8


def test_no_trial_starts_after_the_timeout(write: Callable[..., Path]) -> None:
    assert workers.search(write("trials = 8", "timeout = 1e-9"), workers.quick) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[search]", "[serach]", "serach: there is no such key\n  try: did you mean search?"),
        ('recipes = ["int8", "w8", "w4a8", "float32"]\nquality = ["none", "fast"]\n', "", "deploy.toml:7: search: it varies nothing"),
        ('"loss", "size"', '"loss", "tflite"', "deploy.toml:11: search.objectives.1: there is no tflite to minimise here\n  try: use loss, onnx, size"),
        ("trials = 8", 'trials = 8\npruning = ["50%", "none", "half"]', "search.pruning.2: no pruning budget: half"),
        ("trials = 8", "trails = 8", "deploy.toml:8: search.trails: there is no such key\n  try: did you mean trials?"),
        (TEXT[TEXT.index("[search]") :], "", "there is no table [search]"),
    ],
)  # fmt: skip
def test_bad_tables(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Space.of(parse(TEXT.replace(old, new), Path("deploy.toml")))
    assert message in caught.value.message


@pytest.mark.parametrize("text", ["dask:host:1", "dask://host", "ray://host:1", "dask://:1"])
def test_engines_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="write it like dask://host:8786"):
        engine.check(text)


def test_a_scheduler_that_is_not_there(write: Callable[..., Path], monkeypatch: Any) -> None:
    monkeypatch.setattr(engine, "_CONNECT_S", 1)
    with pytest.raises(ToolError, match="no Dask scheduler answers at 127.0.0.1:9"):
        workers.search(write(), workers.quick, engine="dask://127.0.0.1:9")


@pytest.mark.filterwarnings("ignore")  # of a cluster that starts and ends
def test_dask_workers_over_tcp(write: Callable[..., Path]) -> None:
    from distributed import LocalCluster

    file = write()
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
        protocol="tcp",
    ) as cluster:  # fmt: skip
        address = cluster.scheduler_address.removeprefix("tcp://")
        trials = workers.search(file, workers.quick, engine=f"dask://{address}")
    assert names(trials) == sorted(log(file)) == EVERY


def test_an_unknown_device_is_told_before_any_trial(write: Callable[..., Path]) -> None:
    file = write('targets = ["onnx"]', 'targets = ["onnx"]\ndevices = ["rpi4", "rpy5"]')
    done = edgemix("search", file)
    assert done.returncode == 2
    assert "deploy.toml:3: devices.1: nobody here knows the device rpy5" in done.stderr
    assert "did you mean rpi5" in done.stderr
    assert not (file.parent / "out").exists()


def test_a_loss_that_is_no_number_is_no_result() -> None:
    report: Any = SimpleNamespace(
        evaluation=SimpleNamespace(program_accuracy=None, program_sqnr_db=math.nan),
        targets=[SimpleNamespace(size=9, latency=None, estimates=(), fidelity=None)],
    )
    assert outcome.values(report, ["size"]) == {"size": 9.0}
    with pytest.raises(ToolError, match="loss is no finite number"):
        outcome.values(report, ["loss", "size"])


def test_front() -> None:
    points = [(0, (1.0, 5.0)), (1, (2.0, 2.0)), (2, (2.0, 3.0)), (3, (2.0, 2.0)), (4, (9.0, 9.0))]
    assert front(points) == {0, 1, 3}
    assert front([]) == set()


MODELS = """\
import os
from edgemix.models.demo import create

def crash():
    os.abort()
"""


@pytest.mark.slow
def test_real_trials_end_to_end(tmp_path: Path) -> None:
    """Two deployments and two crashes; the search is killed on the way."""
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "deploy.toml").write_text("""\
out = "out"
targets = ["onnx"]
[model]
source = "models:create"
[data]
calibrate = "digits:heldout"
samples = 32
evaluate_samples = 50
[budget]
max_drop = 50
[search]
recipes = ["w8", "float32"]
variants = [{ source = "models:create", name = "fine" }, { source = "models:crash", name = "bad" }]
""")
    command = [sys.executable, "-m", "edgemix", "search", "deploy.toml", "--json", "--jobs", "2"]
    # The folder's own modules first: the file's folder is not on the path otherwise.
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, **options) as first:
        deadline = time.monotonic() + 120
        while ended(tmp_path / "deploy.toml") < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["objectives"] == ["loss", "onnx", "size"]
    failed = {t["params"]["recipe"]: t["failed"] for t in found["trials"] if t["failed"]}
    assert set(failed) == {"w8", "float32"}
    assert all("the trial crashed (SIGABRT)" in why for why in failed.values())
    fine = {t["params"]["recipe"]: t for t in found["trials"] if t["values"]}
    assert set(fine) == {"w8", "float32"}
    assert fine["w8"]["front"] and fine["w8"]["passed"]
    assert fine["w8"]["values"]["size"] < fine["float32"]["values"]["size"]
    for trial in fine.values():
        folder = tmp_path / "out" / "trials" / f"{trial['number']:03d}"
        assert (folder / "report.json").is_file()
        assert (folder / "onnx").is_dir() == trial["front"]
    page = (tmp_path / "out" / "search.html").read_text()
    assert "wrong answers" in page and "onnx, measured" in page and "SIGABRT" in page
