"""One trial, wherever it runs: a worker calls a child and gives back numbers, or why not.

Light on purpose: a worker imports this module alone, and the child whatever it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemix import child
from edgemix.errors import EdgemixError


def attempt(request: Mapping[str, Any]) -> dict[str, Any]:
    """``{"number", "values"}``, or ``{"number", "failed"}`` with a message; it never raises."""
    number = {"number": request["number"]}
    try:
        found = child.call(
            "edgemix.search.trial:child", request, tool="the trial", timeout=request["limit"]
        )
    except EdgemixError as error:
        return {**number, "failed": error.reason}
    return {**number, **found}
