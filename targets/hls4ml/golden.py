"""Golden vectors beside the C++ testbench, a line a sample or a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemix.targets.fpga.golden import Floats, Golden


def write(folder: Path, golden: Golden) -> None:
    """Write all files: images channels last, as the firmware has them."""
    folder.mkdir(exist_ok=True)
    files = {"golden_in": golden.inputs, "golden_out": golden.outputs}
    files |= {f"golden_state{i}": values for i, values in enumerate(golden.states)}
    for name, values in files.items():
        _write(folder / f"{name}.dat", values)
    if golden.resets is not None:
        np.savetxt(folder / "golden_reset.dat", golden.resets.astype(int), fmt="%d")


def _write(path: Path, values: Floats) -> None:
    flat = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
    with path.open("w") as file:
        # 17 digits hold every value of 53 bits exactly.
        np.savetxt(file, flat.reshape(len(flat), -1), fmt="%.17g")
