"""The lines that the board's side tells, see :mod:`edgemix.latency.board.__main__`, as times."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from edgemix.errors import LOG, ToolError
from edgemix.latency import samples
from edgemix.latency.base import Latency
from edgemix.latency.board.sampling import ENOUGH
from edgemix.latency.connect.base import Job, Progress

_LONGEST_LINE = 1 << 20
_LONGEST_NS = 1 << 63
_SHOWN = 160
_LOG_LINES = 12


@dataclass(frozen=True)
class Place:
    """Where the lines come from."""

    title: str
    """The device, for messages and results."""
    explain: Callable[[int, str], ToolError | None] = lambda code, log: None
    """What an exit code and the log mean; None: nothing special."""
    lost: int | None = None
    """The exit code that tells of a lost connection; its samples are kept where they suffice."""


@dataclass
class _Case:
    method: str
    facts: Mapping[str, str]
    times_ns: list[int] = field(default_factory=list)


@dataclass
class _Heard:
    """What was told so far."""

    machine: Mapping[str, str] = field(default_factory=dict)
    planned: int = 1
    warmup: int = 0
    cases: list[_Case] = field(default_factory=list)
    done: bool = False


def follow(
    command: Sequence[str], job: Job, place: Place, progress: Progress,
    given: IO[bytes] | int = subprocess.DEVNULL,
) -> tuple[Latency, ...]:  # fmt: skip
    """Run a command that tells times as lines, and make latencies of them.

    Args:
        command: a program and its arguments.
        job: what is measured, and how long it may take.
        place: where.
        progress: hears shares done.
        given: the command's standard input.

    Raises:
        ToolError: it failed, told something else, or ended before there were enough samples.
    """
    heard = _Heard()
    with tempfile.TemporaryFile() as log:
        with _started(command, given, log, job.timeout_s) as (process, is_late):
            assert process.stdout is not None
            while line := process.stdout.readline(_LONGEST_LINE):
                _hear(line, heard, place, progress)
            code = process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    early = None
    if not heard.done:
        early = _early(heard, code, said, place, job.timeout_s if is_late() else None)
    found = tuple(_latencies(heard, job, place, early))
    if not found:
        raise ToolError(f"{place.title} told no time\n{tail(said)}".rstrip())
    return found


@contextlib.contextmanager
def _started(
    command: Sequence[str], given: IO[bytes] | int, log: IO[bytes], timeout_s: float
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], bool]]]:
    """The process, killed with all that it started when the block or the time ends."""
    process = subprocess.Popen(
        command, stdin=given, stdout=subprocess.PIPE, stderr=log, start_new_session=True
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(timeout_s, end)
    timer.start()
    try:
        with process:
            try:
                yield process, late.is_set
            finally:
                _kill(process)
    finally:
        timer.cancel()


def _kill(process: subprocess.Popen[bytes]) -> None:
    # What it started may outlive it and hold the pipe. Until it is waited for, its number, which is
    # its group's, is nobody else's; macOS forbids to kill where only its exit code is left.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _hear(line: bytes, heard: _Heard, place: Place, progress: Progress) -> None:
    value = _json(line)
    match value:
        case {"machine": dict(facts), "cases": int(cases), "warmup": int(warmup)}:
            heard.machine, heard.planned, heard.warmup = _texts(facts), max(cases, 1), warmup
        case {"case": str(method), "facts": dict(facts)}:
            heard.cases.append(_Case(method, _texts(facts)))
        case {"times": [*times], "share": int(share) | float(share)} if heard.cases and all(
            isinstance(t, int) and 0 <= t < _LONGEST_NS for t in times
        ):
            heard.cases[-1].times_ns += times
            progress(min((len(heard.cases) - 1 + share) / heard.planned, 1.0))
        case {"end": dict(facts)} if heard.cases:
            heard.cases[-1].facts = {**heard.cases[-1].facts, **_texts(facts)}
        case {"done": True}:
            heard.done = True
        case {"error": str(what), "do": str(remedy)}:
            raise ToolError(f"{place.title} cannot run the model: {what}", do=remedy)
        case _:
            text = line.decode(errors="replace").rstrip("\r\n")
            shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
            raise ToolError(
                f"{place.title} told something that is no measurement: {shown!r}",
                do="let its login scripts print nothing where no person logs in",
            )


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _texts(facts: Mapping[Any, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in facts.items()}


def _early(heard: _Heard, code: int, said: str, place: Place, late_s: float | None) -> str:
    """Why it ended early, where what arrived suffices."""
    count = len(heard.cases[-1].times_ns) if heard.cases else 0
    if late_s is not None:
        why = f"it took longer than {late_s:g} s"
    elif code == place.lost:
        why = "the connection was lost"
    else:
        raise place.explain(code, said) or ToolError(
            f"measuring on {place.title} ended with exit code {code}\n{tail(said)}".rstrip()
        )
    if count >= ENOUGH or len(heard.cases) > 1:
        return f"{why}; these are the samples that arrived"
    if late_s is None and not heard.cases:
        explained = place.explain(code, said)
        if explained is not None:
            raise explained
    raise ToolError(
        f"measuring on {place.title} ended early: {why} after {count} samples, "
        f"{ENOUGH} are needed\n{tail(said)}".rstrip(),
        do="try again, or give it more time with --timeout",
    )


def tail(log: str) -> str:
    """The end of a log, as messages show it."""
    return "\n".join(LOG + line for line in log.strip().splitlines()[-_LOG_LINES:])


def _latencies(heard: _Heard, job: Job, place: Place, early: str | None) -> Iterator[Latency]:
    cut = {} if early is None else {samples.ENDED_EARLY: early}
    for case in heard.cases:
        if cut and len(case.times_ns) < ENOUGH:
            continue
        yield samples.latency(
            [t / 1e6 for t in case.times_ns],
            device=place.title,
            method=case.method,
            warmup=heard.warmup,
            threads=job.threads,
            environment={**heard.machine, **case.facts, **cut},
        )
