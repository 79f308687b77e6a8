"""Processes that have imported what children need, and fork themselves whenever one is wanted.

A converter takes three to five seconds to import, a fork a few milliseconds. Each child is a
process of its own as before: what crashes or hangs takes no other along. A nursery ends with the
process that started it; that process's descendants use it, too.

Forking is safe where nothing runs beside: a nursery imports and does nothing else, and refuses
where an import left a thread behind.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import hashlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EXPORT = "torch.export._trace"
"""What the first export, or the first program that is read, imports: two seconds of torch."""
IMPORTS = {
    # Not ONNX's runtime, which starts a thread.
    "edgemix.targets.onnx": ("torch.onnx", "onnxscript.function_libs.torch_lib.ops", _EXPORT),
    "edgemix.targets.tflite": ("litert_torch", "litert_torch.quantize.pt2e_quantizer", _EXPORT),
    "edgemix.targets.coreml": ("coremltools", _EXPORT),
    "edgemix.targets.hls4ml": ("hls4ml", _EXPORT),
    "edgemix.targets.rtl": ("da4ml", _EXPORT),
    "edgemix.search": (_EXPORT,),
    "edgemix.systems": ("timm", _EXPORT),
}
"""By package of a child's function: what is slow to import, and starts no thread."""
FOLDER = "EDGEMIX_NURSERIES"
"""The variable that tells descendants where the sockets are."""
_SHAPING = ("PYTHONPATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LD_PRELOAD")
"""Variables that are read while something is imported: with another value it is another nursery."""
_FDS = 8


class Forked:
    """A child of a nursery, with those methods of ``subprocess.Popen`` that are needed here."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self._code: int | None = None
        self.pid = pid

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        if self._code is None:
            self._connection.settimeout(timeout)
            try:
                told = _read(self._connection)
            except TimeoutError as error:
                raise subprocess.TimeoutExpired("a child", timeout or 0.0) from error
            self._code = -signal.SIGKILL if told is None else int(told["code"])
            self._connection.close()
        return self._code

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self._code is None and not select.select([self._connection], [], [], 0)[0]:
            return None
        return self.wait()


def fork(arguments: Sequence[str], *, log: int, handles: Mapping[str, int]) -> Forked | None:
    """Run ``python -m edgemix.child ARGUMENTS`` in a process that has its imports already.

    Args:
        arguments: of the child, its function first.
        log: a file's handle, for what it prints.
        handles: variables of the environment that hold handles for it, and the handles.

    Returns:
        The running child; None where there is no nursery: then it must be started anew.
    """
    imports = IMPORTS.get(arguments[0].rpartition(".")[0])
    if sys.platform != "linux" or imports is None:
        return None
    request = {
        "arguments": list(arguments), "env": {FOLDER: str(_own()), **os.environ},
        "cwd": str(Path.cwd()), "handles": list(handles),
    }  # fmt: skip
    connection = _connected(imports)
    if connection is None:
        return None
    try:
        socket.send_fds(connection, [b"f"], [log, *handles.values()])
        _write(connection, request)
        told = _read(connection)
    except OSError:
        told = None
    if told is None or "pid" not in told:
        connection.close()
        return None
    return Forked(connection, told["pid"])


@dataclass(frozen=True)
class _Kept:
    """A nursery that this process has started."""

    process: subprocess.Popen[bytes]
    lifeline: int
    """Kept open: it ends when this closes, with the process at the latest."""

    def end(self) -> None:
        """Let it go, if it is not gone already."""
        os.close(self.lifeline)
        self.process.kill()
        self.process.wait()


_KEPT: dict[str, _Kept] = {}
_LOCK = threading.Lock()
_OWN: list[tempfile.TemporaryDirectory[str]] = []


@atexit.register
def _end_all() -> None:
    while _KEPT:
        _KEPT.popitem()[1].end()


def prepare(packages: Sequence[str]) -> None:
    """Start the nurseries of those packages that have one, also for this process's descendants."""
    if sys.platform == "linux":
        for package in IMPORTS.keys() & set(packages):
            connection = _connected(IMPORTS[package])
            if connection is not None:
                connection.close()


def _own() -> Path:
    """Where this process's nurseries have their sockets."""
    with _LOCK:
        if not _OWN:
            _OWN.append(tempfile.TemporaryDirectory(prefix="edgemix-"))
    return Path(_OWN[0].name)


def _connected(imports: tuple[str, ...]) -> socket.socket | None:
    """A connection to a nursery of an ancestor or of this process, which starts it at need.

    None of a sibling's: that ends with the sibling, and would take word of a child's end along.
    """
    shaping = [os.environ.get(name) for name in _SHAPING]
    key = hashlib.sha256(json.dumps([imports, shaping]).encode()).hexdigest()[:12]
    path = _own() / key
    for folder in (os.environ.get(FOLDER, path.parent), path.parent):
        with contextlib.suppress(OSError):
            return _connect(Path(folder) / key)
    with _LOCK, contextlib.suppress(OSError):
        with contextlib.suppress(OSError):
            return _connect(path)  # another thread was faster
        path.unlink(missing_ok=True)  # what ended early left it
        if key in _KEPT:
            _KEPT.pop(key).end()
        _KEPT[key] = _started(path, imports)
        return _connect(path)
    return None


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _started(path: Path, imports: tuple[str, ...]) -> _Kept:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    lifeline, held = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemix.nursery", str(listener.fileno()), str(lifeline), *imports],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=(listener.fileno(), lifeline), start_new_session=True,
    )  # fmt: skip
    listener.close()
    os.close(lifeline)
    return _Kept(process, held)


def _write(connection: socket.socket, message: Mapping[str, Any]) -> None:
    text = json.dumps(message).encode()
    connection.sendall(len(text).to_bytes(8, "little") + text)


def _read(connection: socket.socket) -> Any:
    """A message, None where the other side is gone."""
    head = _exactly(connection, 8)
    text = _exactly(connection, int.from_bytes(head, "little")) if head else None
    return None if text is None else json.loads(text)


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            return None
        found += part
    return found


@dataclass(frozen=True)
class _Job:
    """What a forked child is to become."""

    request: Mapping[str, Any]
    log: int
    handles: tuple[int, ...]


def _serve(listener: socket.socket, lifeline: int) -> _Job | None:
    """Fork for whoever connects until the lifeline ends; a child comes back with its job."""
    poll = select.poll()
    running: dict[int, tuple[int, socket.socket]] = {}
    for handle in (listener.fileno(), lifeline):
        poll.register(handle, select.POLLIN)
    while True:
        for handle, _ in poll.poll():
            if handle == lifeline:
                return None
            if handle in running:
                poll.unregister(handle)
                _end(handle, *running.pop(handle))
                continue
            connection, _ = listener.accept()
            try:
                job = _asked(connection)
                pid = os.fork()
            except OSError:
                connection.close()
                continue
            if pid == 0:
                # Whoever waits for another child must hear of that child's end alone.
                for own, (_, other) in running.items():
                    os.close(own)
                    other.close()
                listener.close()
                connection.close()
                os.close(lifeline)
                return job
            for given in (job.log, *job.handles):
                os.close(given)
            running[child := os.pidfd_open(pid)] = pid, connection
            poll.register(child, select.POLLIN)
            with contextlib.suppress(OSError):
                _write(connection, {"pid": pid})


def _asked(connection: socket.socket) -> _Job:
    """What is to be run.

    Raises:
        OSError: nobody may be forked from here, or the other side said nothing.
    """
    connection.settimeout(10)
    _, handles, _, _ = socket.recv_fds(connection, 1, _FDS)
    request = _read(connection)
    if request is None or not handles or _threads() > 1:
        for handle in handles:
            os.close(handle)
        raise OSError("no child")
    connection.settimeout(None)
    return _Job(request, handles[0], tuple(handles[1:]))


def _threads() -> int:
    """Those of this process, Python's and others'."""
    return len(list(Path("/proc/self/task").iterdir()))


def _end(handle: int, pid: int, connection: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(handle)
    with contextlib.suppress(OSError):
        _write(connection, {"code": os.waitstatus_to_exitcode(status)})
    connection.close()


def _become(job: _Job) -> list[str]:
    """Take the log, environment and folder of a child; its arguments."""
    os.setsid()
    os.dup2(job.log, 1)
    os.dup2(job.log, 2)
    os.close(job.log)
    given = dict(zip(job.request["handles"], map(str, job.handles), strict=True))
    os.environ.clear()
    os.environ.update(job.request["env"] | given)
    os.chdir(job.request["cwd"])
    sys.path[0] = job.request["cwd"]
    arguments: list[str] = job.request["arguments"]
    return arguments


def _main(listener: int, lifeline: int, imports: Sequence[str]) -> None:
    for name in imports:
        with contextlib.suppress(ImportError):  # whoever needs it says what to install
            importlib.import_module(name)
    gc.freeze()  # what is there already is not looked at, and so not copied, in children
    job = _serve(socket.socket(fileno=listener), lifeline)
    if job is not None:
        arguments = _become(job)
        from edgemix import child

        child.enter(arguments)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
