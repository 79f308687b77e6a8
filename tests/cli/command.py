"""The command line as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def edgemix(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``edgemix ARGUMENTS`` in a process of its own and a terminal of 140 columns."""
    return subprocess.run(
        [sys.executable, "-m", "edgemix", *map(str, arguments)],
        capture_output=True, text=True, timeout=400, cwd=cwd, check=False,
        env={**os.environ, "COLUMNS": "140"},
    )  # fmt: skip
