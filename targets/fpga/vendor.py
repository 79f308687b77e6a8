"""Vivado HLS and Vitis HLS, one step after the other, in a copy of the project.

Every finished step is noted in ``state.json``; a run that broke goes on from the step that it
broke in. The project itself stays as it was proven.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from edgemix import files
from edgemix.errors import InputError, ToolError
from edgemix.targets.fpga.hardware import Backend

Step = Literal["csim", "csynth", "cosim", "export", "vsynth"]
"""C simulation, C synthesis, cosimulation of its RTL, IP export, logic synthesis by Vivado."""
STEPS: tuple[Step, ...] = get_args(Step)

_OPTIONS: dict[Step, str] = {
    "csim": "csim", "csynth": "synth", "cosim": "cosim", "export": "export", "vsynth": "vsynth",
}  # fmt: skip
"""hls4ml's names of the steps."""
_ALL = ("reset", "csim", "synth", "cosim", "validation", "export", "vsynth", "fifo_opt")
_NEEDS: dict[Step, Step] = {"cosim": "csynth", "export": "csynth", "vsynth": "csynth"}
_FORMAT = 1
_TAIL = 15
_POLL_S = 0.2


@dataclass(frozen=True)
class Tool:
    """An HLS compiler on this machine."""

    name: str
    path: str
    backend: Backend


def tool_for(backend: Backend) -> Tool:
    """The compiler that a project's C++ is written for.

    Raises:
        InputError: it is not installed.
    """
    names = ("vivado_hls",) if backend == "Vivado" else ("vitis-run", "vitis_hls")
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return Tool(name, path, backend)
    raise InputError(
        f"{' or '.join(names)} is not on the PATH",
        do="source the settings64.sh of AMD's tools, or give the reports of a run made elsewhere "
        "with --reports DIR",
    )


@dataclass(frozen=True)
class Workspace:
    """A copy of the project in which the tool works, its logs, and what is done."""

    folder: Path
    digest: str
    """Of the project."""

    @classmethod
    def prepare(cls, project: Path, folder: Path, tool: Tool, *, fresh: bool) -> Workspace:
        """Copy the project, or take up a copy of the very same one."""
        workspace = cls(folder, files.sha256(project))
        known = workspace._state()
        same = known.get("project") == workspace.digest and known.get("tool") == tool.name
        if fresh or not same:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            shutil.copytree(project, workspace.project)
            (folder / "logs").mkdir()
            workspace._write({"project": workspace.digest, "tool": tool.name, "done": {}})
        return workspace

    @property
    def project(self) -> Path:
        """Where the tool works."""
        return self.folder / "project"

    @property
    def done(self) -> Mapping[str, float]:
        """Finished steps and their seconds."""
        return dict(self._state()["done"])

    def log(self, step: Step) -> Path:
        """What the tool printed in a step."""
        return self.folder / "logs" / f"{step}.log"

    def finished(self, step: Step, seconds: float) -> None:
        """Note that a step is done; what was built on an older one is not any more."""
        state = self._state()
        after = {s for s, needed in _NEEDS.items() if needed == step}
        kept = {name: took for name, took in state["done"].items() if name not in after}
        self._write({**state, "done": {**kept, step: seconds}})

    def _state(self) -> dict[str, Any]:
        path = self.folder / "state.json"
        if not path.is_file():
            return {}
        try:
            state: dict[str, Any] = json.loads(path.read_text())
            return state if state.get("format") == _FORMAT else {}
        except ValueError:
            return {}

    def _write(self, state: Mapping[str, Any]) -> None:
        files.write_json(self.folder / "state.json", {**state, "format": _FORMAT})


def ordered(names: tuple[str, ...]) -> tuple[Step, ...]:
    """Steps in the order in which they run, with those that they build on.

    Raises:
        InputError: there is no such step.
    """
    wanted = set(STEPS if names == ("all",) else names)
    unknown = wanted - set(STEPS)
    if unknown or not wanted:
        raise InputError(
            f"there is no step {', '.join(sorted(unknown)) or 'given'}",
            do=f"choose from {', '.join(STEPS)}, or all",
        )
    wanted |= {_NEEDS[step] for step in STEPS if step in wanted and step in _NEEDS}
    return tuple(step for step in STEPS if step in wanted)


def run(
    tool: Tool, workspace: Workspace, step: Step, timeout: float,
    on_line: Callable[[str], None] = lambda _: None,
) -> None:  # fmt: skip
    """Run one step.

    Raises:
        ToolError: it failed or did not end in time; the message ends with the log's last lines.
    """
    reset = not any(s in workspace.done for s in STEPS)
    options = {name: int(name == _OPTIONS[step]) for name in _ALL} | {"reset": int(reset)}
    if tool.backend == "Vitis":
        listed = "\n".join(f"    {name} {value}" for name, value in options.items())
        files.write_text(workspace.project / "build_opt.tcl", f"array set opt {{\n{listed}\n}}\n")
    start = time.monotonic()
    code = _watched(_command(tool, options), workspace, step, start + timeout, on_line)
    if code == 0:
        workspace.finished(step, round(time.monotonic() - start, 1))
        return
    what = f"did not end within {timeout:g} s" if code is None else f"ended with code {code}"
    said = workspace.log(step).read_text(errors="replace").rstrip().splitlines()[-_TAIL:]
    raise ToolError(
        f"{tool.name} {what} in the step {step}\n" + "\n".join(f"  | {line}" for line in said),
        at=str(workspace.log(step)),
        do="the same command goes on from this step",
    )


def _command(tool: Tool, options: Mapping[str, int]) -> list[str]:
    script = "build_prj.tcl"
    match tool.name:
        case "vivado_hls":
            said = " ".join(f"{name}={value}" for name, value in options.items())
            return [tool.path, "-f", script, said]
        case "vitis-run":
            return [tool.path, "--mode", "hls", "--tcl", script]
        case _:
            return [tool.path, "-f", script]


def _watched(
    command: list[str], workspace: Workspace, step: Step, deadline: float,
    on_line: Callable[[str], None],
) -> int | None:  # fmt: skip
    """The exit code, or None where the deadline came first."""
    with workspace.log(step).open("wb") as log:
        process = subprocess.Popen(
            command, cwd=workspace.project, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            with workspace.log(step).open(errors="replace") as reader:
                while True:
                    code = process.poll()
                    for line in reader:
                        on_line(line.rstrip())
                    if code is not None or time.monotonic() > deadline:
                        return code
                    time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
