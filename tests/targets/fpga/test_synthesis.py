"""Synthesis by a stand-in for Vivado HLS: steps, resuming, failures, reports, budgets."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgemix import files, pipeline, synthesis
from edgemix.errors import InputError, ToolError
from edgemix.order import Order, Silence
from edgemix.program import Origin, Program
from edgemix.synthesis import Job, synthesize
from edgemix.targets.fpga.hardware import Hardware

FAKE = """#!{python}
# Takes Vivado HLS's command line, or reads build_opt.tcl as its scripts do; writes reports.
import json, os, pathlib, re, sys, time
here = pathlib.Path.cwd()
opt = here / "build_opt.tcl"
said = opt.read_text() if opt.exists() else sys.argv[-1].replace("=", " ")
options = dict(re.findall(r"(\\w+) +(\\d)", said))
step = next(n for n in ("csim", "synth", "cosim", "export", "vsynth") if options.get(n) == "1")
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(f"{{pathlib.Path(sys.argv[0]).name}} {{step}} reset={{options['reset']}}\\n")
facts = json.loads(pathlib.Path(os.environ["FAKE_FACTS"]).read_text())
for i in range(40):
    print(f"INFO: line {{i}} of {{step}}")
if facts.get("fail") == step:
    print("ERROR: [HLS 200-70] out of licences", flush=True)
    sys.exit(3)
if facts.get("hang") == step:
    time.sleep(600)
solution = here / "firmware_prj" / "solution1"
def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
if step == "synth":
    put(solution / "syn" / "report" / "firmware_csynth.rpt", facts["csynth"])
if step == "cosim":
    put(solution / "sim" / "report" / "firmware_cosim.rpt", facts["cosim"])
if step == "vsynth":
    put(here / "vivado_synth.rpt", facts["vsynth"])
"""


class Fakes:
    """Stand-ins on the PATH, what they are to do, and what they did."""

    def __init__(self, folder: Path, facts: dict[str, str]) -> None:
        self.folder = folder
        self.facts = facts
        self.log = folder / "log"

    def install(self, name: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(FAKE.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def behave(self, **changes: str) -> None:
        (self.folder / "facts.json").write_text(json.dumps({**self.facts, **changes}))

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def fakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, csynth_report: Callable[..., str],
    utilization_report: Callable[..., str], cosim_report: str,
) -> Fakes:  # fmt: skip
    folder = tmp_path / "tools"
    folder.mkdir()
    found = Fakes(
        folder,
        {"csynth": csynth_report(), "vsynth": utilization_report(), "cosim": cosim_report},
    )
    found.behave()
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_FACTS", str(folder / "facts.json"))
    monkeypatch.setenv("FAKE_LOG", str(found.log))
    return found


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One small model's artifacts for either HLS compiler."""
    made: dict[str, Path] = {}
    place = tmp_path_factory.mktemp("synthesis")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    Program.trace(model, (torch.zeros(1, 4),), Origin("test")).save(place / "model.edgemix")

    def by_backend(backend: str) -> Path:
        if backend not in made:
            order = Order(
                source=str(place / "model.edgemix"), targets=("hls4ml",), out=place / backend,
                calibrate="random:40", evaluate="random:40", recipe="fixed8",
                hardware=Hardware(backend=backend),  # type: ignore[arg-type]
            )  # fmt: skip
            pipeline.deploy(order)
            made[backend] = place / backend / "hls4ml"
        return made[backend]

    return by_backend


@pytest.fixture
def project(deployed: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the Vivado artifact for one test."""
    copy = tmp_path / "hls4ml"
    subprocess.run(["cp", "-r", str(deployed("Vivado")), str(copy)], check=True)
    return copy


def test_every_step_runs_once_and_the_proven_project_stays(project: Path, fakes: Fakes) -> None:
    fakes.install("vivado_hls")
    before = files.sha256(project / "project")
    found = synthesize(
        Job(project, steps=("all",), budgets=("latency=1us", "lut=5%", "dsp=10")),
        Silence(),
    )
    assert fakes.calls() == [
        "vivado_hls csim reset=1", "vivado_hls synth reset=0", "vivado_hls cosim reset=0",
        "vivado_hls export reset=0", "vivado_hls vsynth reset=0",
    ]  # fmt: skip
    # Cosimulation knows cycles better than C synthesis, logic synthesis cells.
    assert (found.cycles, found.interval) == ((19, 20), (4, 5))
    assert found.latency is not None
    assert (found.latency.kind, found.latency.p50_ms) == ("reported", pytest.approx(20 * 10e-6))
    assert [c.used["lut"] for c in found.counts] == [2532, 1526]
    assert {v.gate: v.passed for v in found.verdicts[:2]} == {"clock": True, "cosimulation": True}
    assert [(v.asked, v.passed) for v in found.verdicts[2:]] == [
        ("≤ 1 µs", True), ("LUT ≤ 5%", True), ("DSP ≤ 10", False),
    ]  # fmt: skip
    assert found.verdicts[4].found == "66 (30.0%) by Vivado 2020.1, synthesized"
    assert files.sha256(project / "project") == before
    again = synthesize(Job(project / "project", steps=("all",)), Silence())
    assert len(fakes.calls()) == 5
    assert again.cycles == found.cycles


def test_a_broken_step_is_run_again_alone(project: Path, fakes: Fakes) -> None:
    fakes.install("vivado_hls")
    fakes.behave(fail="cosim")
    with pytest.raises(ToolError) as failed:
        synthesize(Job(project, steps=("cosim", "csim")), Silence())
    message = str(failed.value)
    assert "vivado_hls ended with code 3 in the step cosim" in message
    assert "ERROR: [HLS 200-70] out of licences" in message
    assert "line 39 of cosim" in message
    assert "line 9 of cosim" not in message
    assert "the same command goes on from this step" in message
    fakes.behave()
    synthesize(Job(project, steps=("cosim", "csim")), Silence())
    assert [c.split()[1] for c in fakes.calls()] == ["csim", "synth", "cosim", "cosim"]
    synthesize(Job(project, steps=("csim",), fresh=True), Silence())
    assert fakes.calls()[-1] == "vivado_hls csim reset=1"


def test_a_step_that_hangs_is_stopped(project: Path, fakes: Fakes) -> None:
    fakes.install("vivado_hls")
    fakes.behave(hang="csim")
    start = time.monotonic()
    with pytest.raises(ToolError, match="did not end within 3 s in the step csim"):
        synthesize(Job(project, timeout_s=3.0), Silence())
    assert time.monotonic() - start < 30
    assert subprocess.run(["pgrep", "-f", str(fakes.folder)], capture_output=True).returncode == 1


def test_a_changed_project_starts_anew(project: Path, fakes: Fakes) -> None:
    fakes.install("vivado_hls")
    synthesize(Job(project), Silence())
    with (project / "project" / "firmware" / "firmware.cpp").open("a") as file:
        file.write("\n// changed\n")
    synthesize(Job(project), Silence())
    assert [c.split()[1] for c in fakes.calls()] == ["csim", "synth"] * 2
    (project / "synthesis" / "state.json").write_text("{ cut o")
    synthesize(Job(project, steps=("csim",)), Silence())
    assert fakes.calls()[-1] == "vivado_hls csim reset=1"


@pytest.mark.parametrize("tool", ["vitis-run", "vitis_hls"])
def test_vitis_by_either_name(
    tool: str, deployed: Callable[[str], Path], fakes: Fakes, tmp_path: Path
) -> None:
    copy = tmp_path / "vitis"
    subprocess.run(["cp", "-r", str(deployed("Vitis")), str(copy)], check=True)
    with pytest.raises(InputError, match="vitis-run or vitis_hls is not on the PATH"):
        synthesize(Job(copy), Silence())
    fakes.install(tool)
    found = synthesize(Job(copy, steps=("csynth",)), Silence())
    assert fakes.calls() == [f"{tool} synth reset=1"]
    assert found.cycles == (21, 23)


def test_reports_of_a_run_elsewhere(
    project: Path, tmp_path: Path, csynth_report: Callable[..., str],
    utilization_report: Callable[..., str],
) -> None:  # fmt: skip
    reports = tmp_path / "reports" / "deep"
    reports.mkdir(parents=True)
    job = Job(project, reports=tmp_path / "reports")
    with pytest.raises(
        InputError, match="holds no report of C synthesis for firmware; it has none"
    ):
        synthesize(job, Silence())
    (reports / "firmware_csynth.rpt").write_text(csynth_report())
    (reports / "util.rpt").write_text(utilization_report(luts=99))
    found = synthesize(job, Silence())
    assert found.cycles == (21, 23)
    assert found.modules[0].module == "dense_ap_fixed_config2_s"
    assert found.counts[-1].used["lut"] == 99
    assert found.cosimulated is None


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"top": "myproject"}, "it has those of myproject: another project"),
        ({"part": "xcvu13p-flga2577-2-e"}, "for the part xcvu13p-flga2577-2-e, the project is for"),
        ({"clock": 5.0}, "at 5 ns, the project is for 10 ns"),
        ({"config": 17}, r"with layers that the project has not \(config17\)"),
    ],
)
def test_reports_of_another_project(
    facts: dict[str, object], message: str, project: Path, tmp_path: Path,
    csynth_report: Callable[..., str],
) -> None:  # fmt: skip
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / f"{facts.get('top', 'firmware')}_csynth.rpt").write_text(csynth_report(**facts))
    with pytest.raises(InputError, match=message):
        synthesize(Job(project, reports=reports), Silence())


def test_a_clock_that_is_missed_fails(
    project: Path, tmp_path: Path, csynth_report: Callable[..., str]
) -> None:
    (tmp_path / "firmware_csynth.rpt").write_text(csynth_report(estimated=9.9))
    found = synthesize(Job(project, reports=tmp_path), Silence())
    (verdict,) = found.verdicts
    assert not verdict.passed
    assert verdict.found == "9.9 ns"


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"steps": ("place",)}, "there is no step place\n  try: choose from csim, csynth"),
        ({"steps": ()}, "there is no step given"),
        ({"budgets": ("onnx=2ms",)}, "for a target that is not being built: onnx"),
        ({"budgets": ("gates=5",)}, "for a target that is not being built: gates"),
        ({"budgets": ("lut=50ms",)}, "neither a count nor a share"),
        ({"reports": Path("/nowhere")}, "there is no folder /nowhere"),
    ],
)
def test_mistakes(job: dict[str, object], message: str, project: Path, fakes: Fakes) -> None:
    fakes.install("vivado_hls")
    with pytest.raises(InputError, match=message):
        synthesize(Job(project, **job), Silence())  # type: ignore[arg-type]
    assert fakes.calls() == []


def test_folders_that_hold_no_fpga_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no artifact of edgemix"):
        synthesize(Job(tmp_path), Silence())


def test_the_command_line(project: Path, tmp_path: Path, csynth_report: Callable[..., str]) -> None:
    (tmp_path / "firmware_csynth.rpt").write_text(csynth_report())
    command = [sys.executable, "-m", "edgemix", "synth", str(project), "--reports", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "latency 21 to 23 cycles, 210 to 230 ns reported" in done.stdout
    assert "2,532 (4.8%)" in done.stdout
    late = [*command, "--budget", "latency=200ns", "--json"]
    done = subprocess.run(late, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["interval"] == [4, 4]
    assert [v["passed"] for v in found["verdicts"]] == [True, False]
    assert synthesis.WORKSPACE not in {p.name for p in project.iterdir()}
