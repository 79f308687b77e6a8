"""Work for searches that takes no time, and says in a file that it was done."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemix.deployment import read
from edgemix.search import study

VALUES = {"int8": (2.0, 30.0), "w8": (1.0, 20.0), "w4a8": (4.0, 10.0), "float32": (1.0, 40.0)}
"""Loss and size by recipe; float32 is beaten."""


def search(file: Path, work: Any, **options: Any) -> list[study.Trial]:
    return study.search(read(file), file, file.read_text(), work=work, **options)


def quick(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer from the table."""
    params = request["params"]
    out = Path(request["folder"]).parents[1]
    with (out / "log").open("a") as log:
        log.write(" ".join(params.values()) + "\n")
    loss, size = VALUES[params["recipe"]]
    return {
        "number": request["number"],
        "values": {"loss": loss + (params["quality"] == "fast") / 10, "size": size},
    }


def slow(request: Mapping[str, Any]) -> dict[str, Any]:
    """Long enough to be killed in between."""
    time.sleep(0.4)
    return quick(request)


def deadly_once(request: Mapping[str, Any]) -> dict[str, Any]:
    """Takes its worker along the first time that it meets w8."""
    mark = Path(request["folder"]).parents[1] / "mark"
    if request["params"]["recipe"] == "w8" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(request)


def deadly(request: Mapping[str, Any]) -> dict[str, Any]:
    """Takes its worker along whenever it meets w8."""
    if request["params"]["recipe"] == "w8":
        os.kill(os.getpid(), signal.SIGKILL)
    return quick(request)


def half_broken(request: Mapping[str, Any]) -> dict[str, Any]:
    """Fails on w8, as a trial does that raised something."""
    if request["params"]["recipe"] == "w8":
        return {"number": request["number"], "failed": "there is no w8 today"}
    return quick(request)


if __name__ == "__main__":
    search(Path(sys.argv[1]), slow, jobs=2)
