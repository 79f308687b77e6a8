"""Third-party converters and runtimes run in a child process of their own.

A runtime that takes the interpreter down (ONNX Runtime does, on some valid models) or that
prints pages costs an error message and nothing else. A request and its answer are JSON; arrays
travel as files that the request names. Progress comes back as lines, see :func:`progress`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgemix.errors import EdgemixError, InputError, ToolError, UnsupportedError

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
    """Run ``function`` (``"package.module:name"``) on ``request`` in a fresh interpreter.

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
            process = subprocess.Popen(
                [sys.executable, "-m", "edgemix.child", function, str(asked), str(answered)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, _PROGRESS: str(write_end), _LIFELINE: str(lifeline)},
                pass_fds=(write_end, lifeline),
                start_new_session=True,
            )
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


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _death(code: int) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


def _tail(log: Path, lines: int = 12) -> str:
    text = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(f"  | {line}" for line in text[-lines:])


def _main(function: str, asked: str, answered: str) -> None:
    module, _, name = function.partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(json.loads(Path(asked).read_text()))
        answer = {"result": result}
    except EdgemixError as error:
        answer = {
            "error": type(error).__name__, "what": error.what, "at": error.at, "do": error.do,
        }  # fmt: skip
    except Exception:
        traceback.print_exc()
        sys.exit(70)
    temporary = f"{answered}.part"
    Path(temporary).write_text(json.dumps(answer))
    os.replace(temporary, answered)


if __name__ == "__main__":
    _lifeline = int(os.environ.pop(_LIFELINE))
    threading.Thread(target=_die_with_parent, args=(_lifeline,), daemon=True).start()
    _main(*sys.argv[1:4])
