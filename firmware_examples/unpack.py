"""Golden steps for a testbench: ``python unpack.py NPZ PROGRAM cpp|verilog FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgemix.program import Program
from edgemix.targets.fpga.golden import Golden
from edgemix.targets.hls4ml import golden as cpp
from edgemix.targets.rtl import golden as verilog
from edgemix.targets.rtl.buses import ports_of


def main(stored: str, program: str, kind: str, folder: str) -> None:
    """Write the files that the testbench in ``folder`` reads."""
    with np.load(stored, allow_pickle=False) as arrays:
        states = tuple(arrays[f"state_{i}"] for i in range(len(arrays.files) - 3))
        golden = Golden(arrays["inputs"], arrays["outputs"], states, arrays["resets"])
    if kind == "cpp":
        cpp.write(Path(folder), golden)
    else:
        verilog.write(Path(folder), golden, ports_of(Program.load(Path(program))))


if __name__ == "__main__":
    main(*sys.argv[1:5])
