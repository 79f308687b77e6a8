"""Times and sizes as people read them."""

from __future__ import annotations

BYTES = {"B": 1.0, "kB": 1e3, "KiB": 1024.0, "MB": 1e6, "MiB": 1024.0**2}
MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "ns": 1e-6}
_UNITS = (("s", 1e3), ("ms", 1.0), ("µs", 1e-3), ("ns", 1e-6))


def duration(ms: float, digits: int = 4) -> str:
    """A time in milliseconds, in the largest unit of which it is at least one: ``65 ns``."""
    name, size = next((u for u in _UNITS if abs(ms) >= u[1] * (1 - 1e-9)), _UNITS[-1])
    return f"{ms / size:.{digits}g} {name}"


def storage(count: float, digits: int = 4) -> str:
    """A number of bytes, in the largest decimal unit of which it is at least one: ``5.2 MB``."""
    name = next((u for u in ("MB", "kB") if abs(count) >= BYTES[u]), "B")
    return f"{count / BYTES[name]:.{digits}g} {name}"
