"""edgemix: quantize once in the graph, lower everywhere, prove each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Encoding", "InputError", "Program", "StateSpec", "TensorSpec", "deploy"]

if TYPE_CHECKING:
    from edgemix.encoding import Encoding
    from edgemix.errors import InputError
    from edgemix.pipeline import deploy
    from edgemix.program import Program, StateSpec, TensorSpec

_HOMES = {
    "Encoding": "edgemix.encoding",
    "InputError": "edgemix.errors",
    "Program": "edgemix.program",
    "StateSpec": "edgemix.program",
    "TensorSpec": "edgemix.program",
    "deploy": "edgemix.pipeline",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `edgemix --help` loads no torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'edgemix' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
