"""Children: a crash, a hang or chatter over there is one error message here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemix import child
from edgemix.errors import InputError, ToolError

FUNCTIONS = """
import ctypes, os, sys, time
from edgemix.child import progress
from edgemix.errors import InputError

def add(request):
    print("noise " * 1000); sys.stderr.write("more\\n")
    progress(0.5); progress(1.0)
    return {"sum": request["a"] + request["b"]}

def crash(request):
    print("last words", flush=True)
    ctypes.string_at(0)

def refuse(request):
    raise InputError("no such model", at="node x", do="name another")

def stumble(request):
    raise ValueError("inner")

def sleep(request):
    open(request["pid"], "w").write(str(os.getpid()))
    time.sleep(600)

def start(request):
    import subprocess
    tool = subprocess.Popen(["sleep", "600"])
    with open(request["pids"] + ".part", "w") as out:
        out.write(f"{os.getpid()} {tool.pid}")
    os.rename(request["pids"] + ".part", request["pids"])
    tool.wait()
"""


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child_functions.py").write_text(FUNCTIONS)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def test_it_answers_and_reports_progress_and_its_noise_stays_there(
    capfd: pytest.CaptureFixture[str],
) -> None:
    seen: list[float] = []
    answer = child.call(
        "child_functions:add", {"a": 2, "b": 3}, tool="adder", on_progress=seen.append
    )
    assert answer == {"sum": 5}
    assert seen == [0.5, 1.0]
    assert capfd.readouterr() == ("", "")


def test_a_segmentation_fault_is_an_error_with_the_last_lines() -> None:
    with pytest.raises(ToolError, match=r"(?s)the runtime crashed \(SIGSEGV\).*last words"):
        child.call("child_functions:crash", {}, tool="the runtime")


def test_an_error_meant_for_the_user_arrives_as_it_was() -> None:
    with pytest.raises(InputError) as caught:
        child.call("child_functions:refuse", {}, tool="loader")
    assert caught.value.message == "no such model\n  at: node x\n  try: name another"


def test_any_other_exception_names_the_tool() -> None:
    with pytest.raises(ToolError, match=r"(?s)loader ended with exit code 70.*ValueError: inner"):
        child.call("child_functions:stumble", {}, tool="loader")


def test_a_hang_ends_at_the_time_limit_and_leaves_no_process(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(ToolError, match="did not finish within 4 s"):
        child.call("child_functions:sleep", {"pid": str(pid)}, tool="sleeper", timeout=4)
    time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_killed_parent_leaves_neither_child_nor_grandchild(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"from edgemix import child; child.call('child_functions:start', {{'pids': {str(pids)!r}}}, tool='T')"
    parent = subprocess.Popen([sys.executable, "-c", code])
    while not pids.exists():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    for pid in map(int, pids.read_text().split()):
        for _ in range(500):
            if not running(pid):
                break
            time.sleep(0.02)
        assert not running(pid)


def running(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


TALK = """
import ctypes
from edgemix.errors import InputError

def echo(request):
    if request.get("refuse"):
        raise InputError("no such model", do="name another")
    count = 0

    def answer(message):
        nonlocal count
        print("noise on the tool's own output")
        count += 1
        if message == b"crash":
            ctypes.string_at(0)
        if message == b"refuse":
            raise InputError("not this one")
        return message * 2 + str(count).encode()

    return answer
"""


@pytest.fixture
def talking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "talk_functions.py").write_text(TALK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "talk_functions:echo"


def test_a_conversation_keeps_what_it_knows(talking: str) -> None:
    with child.Conversation(talking, {}, tool="the tool") as conversation:
        assert conversation.ask(b"ab") == b"abab1"
        assert conversation.ask(b"\0" * 100_000)[-1:] == b"2"
        with pytest.raises(InputError, match="not this one"):
            conversation.ask(b"refuse")
        assert conversation.ask(b"c") == b"cc4"  # an error ends nothing


def test_a_conversation_that_crashes_is_one_error(talking: str) -> None:
    conversation = child.Conversation(talking, {}, tool="the tool")
    with pytest.raises(ToolError, match=r"the tool crashed \(SIGSEGV\)"):
        conversation.ask(b"crash")
    conversation.close()
    conversation.close()


def test_a_conversation_that_cannot_start(talking: str) -> None:
    with pytest.raises(InputError, match="no such model"):
        child.Conversation(talking, {"refuse": True}, tool="the tool")
    with pytest.raises(ToolError, match="ended with exit code 1"):
        child.Conversation("talk_functions:missing", {}, tool="the tool")
