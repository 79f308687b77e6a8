"""``adb[:SERIAL]``: an Android device, by TFLite's own ``benchmark_model``.

Untested on a real device: checked against transcripts of adb and of benchmark_model.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgemix.errors import InputError, ToolError
from edgemix.latency import samples
from edgemix.latency.base import Latency
from edgemix.latency.board.sampling import MIN_RUNS, WARMUP
from edgemix.latency.connect.base import Job, Options, Progress
from edgemix.latency.connect.stream import tail

_ROOM = "/data/local/tmp"
_TOOL = "benchmark_model"
_COUNT = re.compile(r"count=(\d+)((?: \w+=[-+.\deE]+)*)")
_VALUE = re.compile(r"(\w+)=([-+.\deE]+)")
_INFERENCE = re.compile(
    r"\b(?:Inference \(avg\)|Inference|no stats): ([-+.\deE]+)\s*$", re.MULTILINE
)
_SHORT_S = 30.0
"""For all but copying and measuring."""
_PROPERTIES = {
    "device": "ro.product.model", "soc": "ro.soc.model", "platform": "ro.board.platform",
    "processor": "ro.product.cpu.abi", "android": "ro.build.version.release",
}  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    """What ``benchmark_model`` printed, in µs."""

    runs: int
    warmup: int
    mean: float
    largest: float
    median: float | None
    """None: the tool is older than its percentiles."""
    p95: float | None


@dataclass(frozen=True)
class Adb:
    """A phone, reached by the system's adb."""

    serial: str
    """As ``adb devices`` shows it; empty: the only one."""
    tool: Path | None

    @classmethod
    def at(cls, address: str, options: Options) -> Adb:
        """Read a serial number, which may be HOST:PORT.

        Raises:
            InputError: it cannot be one, or there is no such benchmark_model.
        """
        if address and not re.fullmatch(r"[\w.\[][\w.:\[\]-]*", address, re.ASCII):
            raise InputError(f"no serial number: {address}", do="take one that `adb devices` shows")
        tool = options.benchmark_model
        if tool is not None and not tool.is_file():
            raise InputError(f"there is no file {tool}", do="name TFLite's benchmark_model")
        return cls(address, tool)

    def measure(self, job: Job, progress: Progress) -> tuple[Latency, ...]:
        """See :class:`edgemix.latency.connect.base.Connector`."""
        if job.model.suffix != ".tflite":
            raise InputError(
                f"Android's benchmark_model runs .tflite alone, not {job.model.name}",
                do="deploy with --to tflite",
            )
        self._check()
        about = self._about()
        with self._folder() as folder:
            tool = self._tool(folder, job.timeout_s)
            self._run("push", str(job.model.resolve()), f"{folder}/model.tflite", s=job.timeout_s)
            progress(0.1)
            said = self._benchmark(tool, f"{folder}/model.tflite", job)
        progress(1.0)
        return (_latency(read_benchmark(said), job, self._title(about), about),)

    def _title(self, about: dict[str, str]) -> str:
        return about.get("device") or self.serial or "the Android device"

    def _check(self) -> None:
        done = self._call("get-state", s=_SHORT_S)
        if done.returncode != 0 or done.stdout.strip() != "device":
            raise _refusal(self.serial, done.stderr or done.stdout)

    def _about(self) -> dict[str, str]:
        asked = {name: self._shell(f"getprop {key}").strip() for name, key in _PROPERTIES.items()}
        return {name: value for name, value in asked.items() if value}

    @contextmanager
    def _folder(self) -> Iterator[str]:
        """A fresh folder there, removed also after a failure."""
        folder = self._shell(f"mktemp -d {_ROOM}/edgemix.XXXXXXXX").strip()
        if not re.fullmatch(rf"{_ROOM}/edgemix\.\w+", folder):
            raise ToolError(f"the device made no folder: {folder!r}")
        try:
            yield folder
        finally:
            # Whatever went wrong before is what the user should hear of.
            with suppress(ToolError):
                self._call("shell", f"rm -rf {folder}", s=_SHORT_S)

    def _tool(self, folder: str, timeout_s: float) -> str:
        if self.tool is None:
            there = f"{_ROOM}/{_TOOL}"
            if self._call("shell", f"test -x {there}", s=_SHORT_S).returncode != 0:
                raise InputError(
                    f"the device has no {there}",
                    do="name one for its processor with --benchmark-model; LiteRT's site has them",
                )
            return there
        self._run("push", str(self.tool.resolve()), f"{folder}/{_TOOL}", s=timeout_s)
        self._shell(f"chmod 755 {folder}/{_TOOL}")
        return f"{folder}/{_TOOL}"

    def _benchmark(self, tool: str, model: str, job: Job) -> str:
        options = {
            "graph": model, "num_threads": job.threads, "warmup_runs": WARMUP,
            "num_runs": MIN_RUNS, "min_secs": f"{job.seconds:g}", "use_xnnpack": "true",
        }  # fmt: skip
        command = [tool, *(f"--{name}={value}" for name, value in options.items())]
        done = self._call("shell", shlex.join(command), s=job.timeout_s)
        said = done.stdout + done.stderr
        if done.returncode != 0:
            how = (
                f"crashed (signal {done.returncode - 128})"
                if done.returncode > 128
                else f"ended with exit code {done.returncode}"
            )
            raise ToolError(f"benchmark_model {how}\n{tail(said)}".rstrip())
        return said

    def _shell(self, command: str) -> str:
        return self._run("shell", command, s=_SHORT_S)

    def _run(self, *arguments: str, s: float) -> str:
        done = self._call(*arguments, s=s)
        if done.returncode != 0:
            raise ToolError(
                f"adb {arguments[0]} failed\n{tail(done.stderr or done.stdout)}".rstrip(),
                do="look at `adb devices`",
            )
        return done.stdout

    def _call(self, *arguments: str, s: float) -> subprocess.CompletedProcess[str]:
        adb = shutil.which("adb")
        if adb is None:
            raise InputError(
                "there is no adb on this machine",
                do="apt-get install adb, or install Android's platform tools",
            )
        chosen = ["-s", self.serial] if self.serial else []
        try:
            return subprocess.run(
                [adb, *chosen, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                text=True, errors="replace", timeout=s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ToolError(
                f"adb {arguments[0]} took longer than {s:g} s",
                do="reconnect the device, or give it more time with --timeout",
            ) from error


def read_benchmark(text: str) -> Benchmark:
    """What ``benchmark_model`` prints: a line ``count=…`` for the warm-up, another for the runs.

    Raises:
        ToolError: it has no runs.
    """
    found = [_count(*match.groups()) for match in _COUNT.finditer(text)]
    mean = _INFERENCE.search(text)
    if not found or found[-1]["count"] == 0 or mean is None:
        raise ToolError(f"benchmark_model told no times\n{tail(text)}".rstrip())
    last = found[-1]
    return Benchmark(
        runs=int(last["count"]),
        warmup=int(found[-2]["count"]) if len(found) > 1 else 0,
        mean=float(mean[1]),
        largest=last["max"],
        median=last.get("median"),
        p95=last.get("p95"),
    )


def _count(count: str, rest: str) -> dict[str, float]:
    values = {name: float(value) for name, value in _VALUE.findall(rest)}
    # A tool whose runs all took the same prints the last one alone.
    if "max" not in values:
        values |= dict.fromkeys(("max", "median", "p95"), values.get("curr", 0.0))
    return {"count": float(count), **values}


def _latency(found: Benchmark, job: Job, device: str, about: dict[str, str]) -> Latency:
    """The tool keeps no samples: what stands for its percentiles is said, and never too small."""
    told = ["the median"] if found.median is not None else ["the mean in place of p50"]
    told.append("p95 in place of p90" if found.p95 is not None else "the longest in place of p90")
    told.append("the longest in place of p99")
    p50 = found.mean if found.median is None else found.median
    p90 = found.largest if found.p95 is None else found.p95
    return Latency(
        kind="measured", device=device,
        method="benchmark_model, XNNPACK, random input",
        p50_ms=p50 / 1e3, p90_ms=p90 / 1e3, p99_ms=found.largest / 1e3,
        runs=found.runs, warmup=found.warmup, threads=job.threads,
        environment={
            **about, "percentiles": f"benchmark_model tells {', '.join(told)}",
            samples.LEFT_OUT: f"0 of {found.runs}",
        },
    )  # fmt: skip


def _refusal(serial: str, said: str) -> ToolError:
    name = serial or "an Android device"
    reasons = (
        ("unauthorized", f"{name} has not allowed this machine", "unlock it and allow debugging"),
        ("offline", f"{name} is offline", "reconnect it, then `adb reconnect`"),
        ("not found", f"there is no device {name}", "take a serial that `adb devices` shows"),
        ("no devices", "no Android device is connected", "connect one, and allow USB debugging"),
        ("more than one", "several devices are connected", "name one of them: adb:SERIAL"),
        ("no permissions", f"this user may not use {name}", "add a udev rule for it"),
    )
    for sign, what, remedy in reasons:
        if sign in said:
            return ToolError(what, do=remedy)
    return ToolError(f"adb does not reach {name}\n{tail(said)}".rstrip(), do="run `adb devices`")
