"""Golden vectors beside the RTL testbench: packed buses, lowest bits first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemix.encoding import FixedPoint
from edgemix.targets.fpga.golden import Floats
from edgemix.targets.rtl.bits import pack


def write(
    folder: Path, inputs: Floats, outputs: Floats, types: tuple[FixedPoint, FixedPoint]
) -> None:
    """Write both files; ``types`` are those of the input and of the output."""
    folder.mkdir(exist_ok=True)
    for name, values, fixed in zip(("in", "out"), (inputs, outputs), types, strict=True):
        integers = np.rint(values.reshape(len(values), -1) * 2.0**fixed.fraction).astype(np.int64)
        pack(integers, fixed.width).tofile(folder / f"{name}.bin")
