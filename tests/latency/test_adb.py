"""Android by transcripts: an adb that plays them, and a phone that is a folder here."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgemix.errors import InputError, ToolError
from edgemix.latency.base import Latency
from edgemix.latency.connect import parse
from edgemix.latency.connect.adb import Adb, Benchmark, read_benchmark
from edgemix.latency.connect.base import Job, Options
from edgemix.latency.samples import LEFT_OUT

# As the tool of 2025 prints it.
TODAY = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [200]
INFO: Num threads: [2]
INFO: Min warmup runs: [20]
INFO: Graph: [/data/local/tmp/edgemix.0a1B2c3D/model.tflite]
INFO: Signature to run: []
INFO: Use xnnpack: [1]
INFO: Loaded model /data/local/tmp/edgemix.0a1B2c3D/model.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 31 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0.
INFO: The input model file size (MB): 3.5
INFO: Initialized session in 12.75ms.
INFO: Running benchmark for at least 20 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=37 first=14744 curr=15520 min=13164 max=18295 avg=13764.3 std=967 p5=13170 median=13500 p95=15600

INFO: Running benchmark for at least 200 iterations and at least 2 seconds but terminate if exceeding 150 seconds.
INFO: count=200 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470 p5=13110 median=13402 p95=14471

INFO: Inference timings in us: Init: 12750, First inference: 14744, Warmup (avg): 13764.3, Inference (avg): 13520.2
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=14.2 overall=19.8
"""

# As those of 2020 and 2019 did.
OF_2020 = """\
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Peak memory footprint (MB): init=0 overall=12.8672
"""
OF_2019 = """\
count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944

count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
"""
ALL_SAME = """\
count=20 curr=4(all same)

count=200 curr=4(all same)

Inference timings in us: Init: 80, First inference: 4, Warmup (avg): 4, Inference (avg): 4
"""
FAILED = """\
INFO: STARTING!
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
ERROR: tensorflow/lite/kernels/batch_matmul.cc:353 lhs_data->type == rhs_data->type was not true.
ERROR: Node number 57 (BATCH_MATMUL) failed to prepare.
ERROR: Failed to allocate tensors!
ERROR: Benchmarking failed.
"""
CRASHED = """\
INFO: STARTING!
INFO: Loaded model /data/local/tmp/edgemix.0a1B2c3D/model.tflite
INFO: Running benchmark for at least 20 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
Segmentation fault
"""

OFFLINE = "error: device offline\n"
UNAUTHORIZED = """\
error: device unauthorized.
This adb server's $ADB_VENDOR_KEYS is not set
Try 'adb kill-server' if that seems wrong.
Otherwise check for a confirmation dialog on your device.
"""


def test_todays_output() -> None:
    assert read_benchmark(TODAY) == Benchmark(200, 37, 13520.2, 15765, 13402, 14471)


def test_older_outputs_have_no_percentiles() -> None:
    assert read_benchmark(OF_2020) == Benchmark(50, 15, 33209.4, 34005, None, None)
    assert read_benchmark(OF_2019) == Benchmark(15, 7, 66767.6, 66838, None, None)


def test_runs_that_all_took_the_same() -> None:
    assert read_benchmark(ALL_SAME) == Benchmark(200, 20, 4, 4, 4, 4)


@pytest.mark.parametrize(
    "text",
    ["", FAILED, CRASHED, "count=0\n\nInference (avg): 3\n", TODAY[: TODAY.index("Inference t")]],
)
def test_output_without_times(text: str) -> None:
    with pytest.raises(ToolError, match="benchmark_model told no times"):
        read_benchmark(text)


ADB = """#!{python}
import os, pathlib, shlex, subprocess, sys
phone = pathlib.Path({phone!r})
with open(phone / "calls", "a") as log:
    log.write(" ".join(sys.argv[1:]) + chr(10))
arguments = sys.argv[1:]
if arguments[:1] == ["-s"]:
    arguments = arguments[2:]
if (phone / "refusal").exists():
    sys.stderr.write((phone / "refusal").read_text())
    sys.exit(1)
here = lambda path: path.replace("/data/local/tmp", str(phone / "tmp"))
verb, *rest = arguments
if verb == "get-state":
    print("device")
elif verb == "push":
    sys.exit(subprocess.run(["cp", rest[0], here(rest[1])]).returncode)
elif verb == "shell":
    (line,) = rest
    if line.startswith("getprop"):
        print({{"ro.product.model": "Pixel 9", "ro.build.version.release": "16"}}.get(line.split()[1], ""))
        sys.exit()
    done = subprocess.run(["sh", "-c", here(line)], capture_output=True, text=True)
    sys.stdout.write(done.stdout.replace(str(phone / "tmp"), "/data/local/tmp"))
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)
"""


@dataclass(frozen=True)
class Phone:
    folder: Path

    def refuse(self, text: str) -> None:
        (self.folder / "refusal").write_text(text)

    def benchmark(self, text: str, end: str = "exit 0") -> Path:
        """A benchmark_model that prints a transcript."""
        (self.folder / "transcript").write_text(text)
        tool = self.folder / "benchmark_model"
        tool.write_text(
            f'#!/bin/sh\necho "$@" >{self.folder}/asked\ncat {self.folder}/transcript\n{end}\n'
        )
        return tool

    @property
    def temporary(self) -> list[str]:
        return [p.name for p in (self.folder / "tmp").iterdir()]


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    folder = tmp_path / "phone"
    for name in ("bin", "tmp"):
        (folder / name).mkdir(parents=True)
    adb = folder / "bin" / "adb"
    adb.write_text(ADB.format(python=sys.executable, phone=str(folder)))
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return Phone(folder)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    model = tmp_path / "it's; $(x) model.tflite"
    model.write_text("TFL3")
    return Job(model, threads=2)


def measure(job: Job, tool: Path | None = None, at: str = "adb:P1") -> Latency:
    (found,) = parse(at, Options(benchmark_model=tool)).measure(job, lambda _: None)
    return found


def test_a_phone_is_measured(phone: Phone, job: Job) -> None:
    found = measure(job, phone.benchmark(TODAY))
    assert (found.kind, found.device, found.threads) == ("measured", "Pixel 9", 2)
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == (13.402, 14.471, 15.765)
    assert (found.runs, found.warmup) == (200, 37)
    assert found.environment["percentiles"] == (
        "benchmark_model tells the median, p95 in place of p90, the longest in place of p99"
    )
    assert found.environment["android"] == "16" and found.environment[LEFT_OUT] == "0 of 200"
    asked = (phone.folder / "asked").read_text().split()
    assert asked[0].startswith("--graph=") and asked[0].endswith("/model.tflite")
    assert asked[1:] == [
        "--num_threads=2", "--warmup_runs=20", "--num_runs=200", "--min_secs=2",
        "--use_xnnpack=true",
    ]  # fmt: skip
    calls = (phone.folder / "calls").read_text().splitlines()
    assert all(call.startswith("-s P1 ") for call in calls)
    assert phone.temporary == []


def test_a_tool_that_is_there_already(phone: Phone, job: Job) -> None:
    with pytest.raises(InputError, match="the device has no /data/local/tmp/benchmark_model"):
        measure(job, at="adb")
    there = phone.folder / "tmp" / "benchmark_model"
    phone.benchmark(OF_2020).rename(there)
    there.chmod(0o755)
    found = measure(job, at="adb")
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == (33.2094, 34.005, 34.005)
    assert "the mean in place of p50" in found.environment["percentiles"]
    assert phone.temporary == ["benchmark_model"]


@pytest.mark.parametrize(
    ("text", "end", "message"),
    [
        (CRASHED, "exit 139", r"benchmark_model crashed \(signal 11\)(\n.*)*Segmentation fault"),
        (FAILED, "exit 1", r"ended with exit code 1(\n.*)*Node number 57 \(BATCH_MATMUL\)"),
        (FAILED, "exit 0", r"told no times(\n.*)*Benchmarking failed"),
    ],
)
def test_a_benchmark_that_fails(phone: Phone, job: Job, text: str, end: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        measure(job, phone.benchmark(text, end))
    assert phone.temporary == []


def test_a_phone_that_hangs(phone: Phone, job: Job) -> None:
    slow = phone.benchmark(TODAY, "sleep 2")
    with pytest.raises(ToolError, match="adb shell took longer than 0.5 s"):
        measure(Job(job.model, timeout_s=0.5), slow)
    assert phone.temporary == []


def test_a_phone_that_is_gone_does_not_hide_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(*_: object, **__: object) -> None:
        raise ToolError("adb shell took longer than 30 s")

    monkeypatch.setattr(Adb, "_shell", lambda *_: "/data/local/tmp/edgemix.0a1B2c3D\n")
    monkeypatch.setattr(Adb, "_call", late)
    with pytest.raises(ToolError, match="the cable broke"), Adb("P1", None)._folder():
        raise ToolError("the cable broke")


@pytest.mark.parametrize(
    ("said", "what", "do"),
    [
        (OFFLINE, "P1 is offline", "reconnect it, then `adb reconnect`"),
        (UNAUTHORIZED, "P1 has not allowed this machine", "unlock it and allow debugging"),
        ("error: device 'P1' not found\n", "there is no device P1", "`adb devices` shows"),
        ("error: no devices/emulators found\n", "no Android device is connected", "connect one"),
        ("adb: more than one device/emulator\n", "several devices are connected", "adb:SERIAL"),
        ("error: closed\n", "adb does not reach P1\n  | error: closed", "run `adb devices`"),
    ],
)
def test_a_phone_that_is_not_reached(phone: Phone, job: Job, said: str, what: str, do: str) -> None:
    phone.refuse(said)
    with pytest.raises(ToolError) as error:
        measure(job)
    assert error.value.what == what
    assert error.value.do is not None and do in error.value.do


def test_no_adb_here(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="there is no adb on this machine") as error:
        measure(job)
    assert error.value.do is not None and "apt-get install adb" in error.value.do


def test_what_it_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="runs .tflite alone, not m.onnx"):
        measure(Job(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match="there is no file /nowhere"):
        parse("adb", Options(benchmark_model=Path("/nowhere")))
    for serial in ("-a", "a b", "a;b", "$(x)"):
        with pytest.raises(InputError, match="no serial number"):
            parse(f"adb:{serial}")
    assert parse("adb:192.168.1.5:5555") is not None
