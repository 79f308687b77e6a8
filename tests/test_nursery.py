"""Children of a nursery behave as those that are started anew, and are there at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemix import child, nursery
from edgemix.errors import InputError, ToolError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nurseries are for Linux")

FUNCTIONS = """
import ctypes, os, sys, tempfile, time
from edgemix.child import progress
from edgemix.errors import InputError

def tell(request):
    import slow_import
    print("noise"); progress(0.5)
    os.environ["LEFT"] = "here"
    with tempfile.NamedTemporaryFile() as own:
        name = own.name
    return {
        "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "cwd": os.getcwd(),
        "when": slow_import.WHEN, "asked": os.environ.get("ASKED"), "name": name,
        "path": sys.path[0], "handles": sorted(map(int, os.listdir("/proc/self/fd"))),
    }

def crash(request):
    print("last words", flush=True)
    ctypes.string_at(0)

def refuse(request):
    raise InputError("no such model", at="node x", do="name another")

def sleep(request):
    open(request["pid"], "w").write(str(os.getpid()))
    time.sleep(600)
"""
SLOW = "import time\ntime.sleep(0.5)\nWHEN = time.monotonic()\n"


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "nursed"
    room.mkdir()
    (room / "__init__.py").touch()
    (room / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "slow_import.py").write_text(SLOW)
    (tmp_path / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setitem(nursery.IMPORTS, "nursed", ("slow_import", "there_is_no_such_module"))


def tell() -> dict[str, object]:
    return child.call("nursed.functions:tell", {}, tool="teller")


def test_children_share_an_import_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = tell()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("ASKED", "yes")
    second = tell()
    assert first["when"] == second["when"]
    assert first["parent"] == second["parent"] != os.getpid()
    assert first["pid"] != second["pid"] and first["name"] != second["name"]
    assert second["group"] == second["pid"]
    assert second["cwd"] == second["path"] == str(tmp_path / "elsewhere")
    assert (first["asked"], second["asked"]) == (None, "yes")
    assert len(first["handles"]) == len(second["handles"])  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")


def test_progress_errors_and_crashes_arrive() -> None:
    seen: list[float] = []
    child.call("nursed.functions:tell", {}, tool="teller", on_progress=seen.append)
    assert seen == [0.5]
    with pytest.raises(InputError) as caught:
        child.call("nursed.functions:refuse", {}, tool="loader")
    assert caught.value.message == "no such model\n  at: node x\n  try: name another"
    with pytest.raises(ToolError, match=r"(?s)the runtime crashed \(SIGSEGV\).*last words"):
        child.call("nursed.functions:crash", {}, tool="the runtime")
    assert tell()["pid"]


def test_a_hang_ends_at_the_time_limit_and_others_go_on(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    parent = tell()["parent"]
    with pytest.raises(ToolError, match="did not finish within 2 s"):
        child.call("nursed.functions:sleep", {"pid": str(pid)}, tool="sleeper", timeout=2)
    time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert tell()["parent"] == parent


def test_a_nursery_that_was_killed_is_started_again() -> None:
    parent = tell()["parent"]
    assert isinstance(parent, int)
    os.kill(parent, 9)
    while Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert tell()["parent"] not in (parent, os.getpid())


def test_where_an_import_leaves_a_thread_children_are_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(nursery.IMPORTS, "nursed", ("threaded",))
    first, second = tell(), tell()
    assert first["parent"] == second["parent"] == os.getpid()
    assert first["when"] != second["when"]


PARENT = """
import sys
from edgemix import child, nursery
nursery.IMPORTS["nursed"] = ("slow_import",)
print(child.call("nursed.functions:tell", {}, tool="teller")["parent"], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "close"])
def test_a_nursery_ends_with_its_process(end: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None and parent.stdin is not None
    kept = int(parent.stdout.readline())
    assert Path(f"/proc/{kept}").exists()
    if end == "kill":
        parent.kill()
    parent.stdin.close()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if not Path(f"/proc/{kept}").exists():
            return
        time.sleep(0.02)
    pytest.fail("the nursery is still there")


def test_descendants_use_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tell()["parent"]
    code = PARENT.replace('("slow_import",)', '("slow_import", "there_is_no_such_module")')
    monkeypatch.setenv(nursery.FOLDER, str(nursery._own()))
    done = subprocess.run(
        [sys.executable, "-c", code], input="", capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == mine
