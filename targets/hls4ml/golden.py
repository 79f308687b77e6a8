"""Golden vectors beside the C++ testbench, a line a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemix.targets.fpga.golden import Floats


def write(folder: Path, inputs: Floats, outputs: Floats) -> None:
    """Write both files: images channels last, as the firmware has them."""
    folder.mkdir(exist_ok=True)
    for name, values in (("golden_in", inputs), ("golden_out", outputs)):
        flat = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
        with (folder / f"{name}.dat").open("w") as file:
            # 17 digits hold every value of 53 bits exactly.
            np.savetxt(file, flat.reshape(len(flat), -1), fmt="%.17g")
