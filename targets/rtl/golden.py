"""Golden vectors beside the RTL testbench: packed buses, lowest bits first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgemix.targets.fpga.golden import Floats, Golden
from edgemix.targets.rtl.bits import Bytes, pack_bus
from edgemix.targets.rtl.buses import Bus, Ports


def write(folder: Path, golden: Golden, ports: Ports) -> None:
    """Write both files; with states, a record of ``in.bin`` starts with a byte for the reset."""
    folder.mkdir(exist_ok=True)
    given = [_packed([golden.inputs], ports.takes)]
    found = [_packed([golden.outputs], ports.gives)]
    if golden.resets is not None:
        given.insert(0, golden.resets.astype(np.uint8)[:, None])
        found.append(_packed(golden.states, ports.states))
    np.concatenate(given, axis=1).tofile(folder / "in.bin")
    np.concatenate(found, axis=1).tofile(folder / "out.bin")


def _packed(values: Sequence[Floats], buses: Sequence[Bus]) -> Bytes:
    return pack_bus(
        [
            (np.rint(v.reshape(len(v), -1) * 2.0**b.fixed.fraction).astype(np.int64), b.fixed.width)
            for v, b in zip(values, buses, strict=True)
        ]
    )
