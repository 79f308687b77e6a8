"""The types in which the firmware computes, read back from its headers."""

from __future__ import annotations

import re
from pathlib import Path

from edgemix.errors import ToolError
from edgemix.targets.base import Arithmetic, OpPrecision
from edgemix.targets.hls4ml.project import NAME

_TYPEDEF = re.compile(r"typedef\s+(.+?)\s+(\w+);")
_CALL = re.compile(r"nnet::(?:edgemix_layer2?<nnet::)?(\w+)[<,](.+)>\(.*\);\s*(?://\s*(\S+))?")
_MOVES = ("edgemix_wires", "load_weights_from_txt", "clone_stream", "zeropad2d_cl", "zeropad1d_cl")


def audit(project: Path) -> tuple[OpPrecision, ...]:
    """Every layer's call in the firmware with the type of its result.

    Raises:
        ToolError: the project's files are not what hls4ml writes.
    """
    folder = project / "firmware"
    defines, source = folder / "defines.h", folder / f"{NAME}.cpp"
    if not defines.is_file() or not source.is_file():
        raise ToolError(f"{project} is no hls4ml project")
    types = {name: text for text, name in _TYPEDEF.findall(defines.read_text())}
    found = []
    for call, arguments, name in _CALL.findall(source.read_text()):
        if call in _MOVES:
            continue
        result = arguments.split(",")[-2].strip()
        text = types.get(result, result).removeprefix("nnet::array<")
        achieved: Arithmetic = "fixed" if text.startswith(("ap_fixed", "ap_ufixed")) else "float"
        found.append(
            OpPrecision(
                call.removeprefix("edgemix_"), f"{name or result}: {text}", "fixed", achieved
            )
        )
    if not found:
        raise ToolError(f"{project} calls no layer")
    return tuple(found)
