"""Third-party converters and runtimes run in a child process of their own.

A runtime that takes the interpreter down (ONNX Runtime does, on some valid models) or that
prints pages costs an error message and nothing else. A request and its answer are JSON; arrays
travel as files that the request names. Progress comes back as lines, see :func:`progress`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edgemix import nursery
from edgemix.errors import LOG, EdgemixError, InputError, ToolError, UnsupportedError

_KINDS: dict[str, type[EdgemixError]] = {
    kind.__name__: kind for kind in (EdgemixError, InputError, ToolError, UnsupportedError)
}
_PROGRESS = "EDGEMIX_PROGRESS_FD"
_LIFELINE = "EDGEMIX_LIFELINE_FD"

Progress = Callable[[float], None]


def call(
    function: str,
    request: Mapping[str, Any],
    *,
    tool: str,
    timeout: float = 1800.0,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Run ``function`` (``"package.module:name"``) on ``request`` in a process of its own.

    Where it can be, that is forked from one that has the slow imports, see :mod:`edgemix.nursery`.

    Args:
        function: a function from a JSON mapping to a JSON mapping.
        request: its argument.
        tool: what runs there, for messages ("ONNX Runtime").
        timeout: seconds after which the child is killed.
        on_progress: called with shares done, from 0 to 1.

    Raises:
        EdgemixError: what the child raised, as the class it raised.
        ToolError: the child crashed, ran out of time, or raised something of its own.
    """
    with tempfile.TemporaryDirectory(prefix="edgemix-") as folder:
        asked, answered, log = (Path(folder) / n for n in ("request.json", "answer.json", "log"))
        asked.write_text(json.dumps(request))
        read_end, write_end = os.pipe()
        lifeline, held = os.pipe()
        reader = threading.Thread(target=_relay, args=(read_end, on_progress), daemon=True)
        reader.start()
        with log.open("wb") as output:
            handles = {_PROGRESS: write_end, _LIFELINE: lifeline}
            process = _started((function, str(asked), str(answered)), output, handles)
            os.close(write_end)
            os.close(lifeline)
            try:
                code = process.wait(timeout=timeout)
            except subprocess.TimeoutExpired as error:
                raise ToolError(
                    f"{tool} did not finish within {timeout:g} s", do="raise the time limit"
                ) from error
            finally:
                _stop(process)
                os.close(held)
                reader.join(timeout=5)
        if answered.exists():
            answer: dict[str, Any] = json.loads(answered.read_text())
            if "error" in answer:
                raise _KINDS[answer["error"]](answer["what"], at=answer["at"], do=answer["do"])
            result: dict[str, Any] = answer["result"]
            return result
        raise ToolError(f"{tool} {_death(code)}\n{_tail(log)}", do="run `edgemix doctor`")


def _started(
    arguments: tuple[str, ...], output: IO[bytes], handles: Mapping[str, int]
) -> nursery.Forked | subprocess.Popen[bytes]:
    forked = nursery.fork(arguments, log=output.fileno(), handles=handles)
    if forked is not None:
        return forked
    return subprocess.Popen(
        [sys.executable, "-m", "edgemix.child", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **{name: str(handle) for name, handle in handles.items()}},
        pass_fds=tuple(handles.values()),
        start_new_session=True,
    )


class Conversation:
    """A child that stays and answers one message after the other: bytes to bytes.

    Ends with :meth:`close`, at the end of a ``with`` block, or with the parent.
    """

    def __init__(self, function: str, request: Mapping[str, Any], *, tool: str) -> None:
        """Start it.

        Args:
            function: ``"package.module:name"``, from a JSON mapping to a function from a message
                to its answer; the first call of that function is made with an empty message.
            request: its argument.
            tool: what runs there, for messages.

        Raises:
            EdgemixError: the child cannot start to answer.
        """
        self._tool = tool
        self._scratch = tempfile.TemporaryDirectory(prefix="edgemix-")
        asked = Path(self._scratch.name) / "request.json"
        self._log = Path(self._scratch.name) / "log"
        asked.write_text(json.dumps(request))
        lifeline, self._held = os.pipe()
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgemix.child", function, str(asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, _LIFELINE: str(lifeline)},
                pass_fds=(lifeline,),
                start_new_session=True,
            )
        os.close(lifeline)
        try:
            self.ask(b"")
        except EdgemixError:
            self.close()
            raise

    def ask(self, message: bytes) -> bytes:
        """The child's answer.

        Raises:
            EdgemixError: what the child raised, as the class it raised.
            ToolError: the child crashed, or raised something of its own.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _send(self._process.stdin, b"m", message)
            kind, answer = _receive(self._process.stdout)
        except (BrokenPipeError, EOFError) as error:
            code = self._process.wait()
            raise ToolError(
                f"{self._tool} {_death(code)}\n{_tail(self._log)}", do="run `edgemix doctor`"
            ) from error
        if kind == b"e":
            told = json.loads(answer)
            raise _KINDS[told["error"]](told["what"], at=told["at"], do=told["do"])
        return answer

    def close(self) -> None:
        """End the child; a second time does nothing."""
        _stop(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        self._scratch.cleanup()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def progress(share: float) -> None:
    """Tell the parent, from inside a child, what share of the work is done (0 to 1)."""
    handle = os.environ.get(_PROGRESS)
    if handle is not None:
        os.write(int(handle), f"{share:.4f}\n".encode())


def _die_with_parent(lifeline: int) -> None:
    """End this process and all that it started when the parent, killed or not, is gone."""
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


def _relay(handle: int, on_progress: Progress | None) -> None:
    with os.fdopen(handle) as lines:
        for line in lines:
            if on_progress is not None:
                on_progress(float(line))


def _stop(process: nursery.Forked | subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _death(code: int) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


def _tail(log: Path, lines: int = 12) -> str:
    text = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(LOG + line for line in text[-lines:])


def _send(stream: IO[bytes], kind: bytes, message: bytes) -> None:
    stream.write(kind + len(message).to_bytes(8, "little") + message)
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[bytes, bytes]:
    head = stream.read(9)
    if len(head) < 9:
        raise EOFError
    message = stream.read(int.from_bytes(head[1:], "little"))
    return head[:1], message


def _told(error: EdgemixError) -> dict[str, Any]:
    return {"error": type(error).__name__, "what": error.what, "at": error.at, "do": error.do}


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _talk(function: str, asked: str) -> None:
    """Answer messages until there are no more; what tools print goes to the log."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer: Callable[[bytes], bytes] | None = None
    while True:
        try:
            _, message = _receive(questions)
        except EOFError:
            return
        try:
            if answer is None:
                answer = _function(function)(json.loads(Path(asked).read_text()))
            _send(answers, b"a", answer(message) if message else b"")
        except EdgemixError as error:
            _send(answers, b"e", json.dumps(_told(error)).encode())


def _main(function: str, asked: str, answered: str) -> None:
    try:
        answer = {"result": _function(function)(json.loads(Path(asked).read_text()))}
    except EdgemixError as error:
        answer = _told(error)
    except Exception:
        traceback.print_exc()
        sys.exit(70)
    temporary = f"{answered}.part"
    Path(temporary).write_text(json.dumps(answer))
    os.replace(temporary, answered)


def enter(arguments: Sequence[str]) -> None:
    """Be the child that a parent has asked for."""
    lifeline = int(os.environ.pop(_LIFELINE))
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    if len(arguments) == 2:
        _talk(*arguments)
    else:
        _main(*arguments)


if __name__ == "__main__":
    enter(sys.argv[1:])
