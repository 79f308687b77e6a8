"""``python -m board MODEL``: measure it, and tell everything as lines of JSON.

In this order, on standard output and nothing else there:

    {"machine": {…}, "cases": n, "warmup": n}
    {"case": method, "facts": {…}}              for each way to run the model,
    {"times": [ns, …], "share": 0 to 1}         as often as needed,
    {"end": {…}}
    {"done": true}                              or {"error": what, "do": remedy} at any place
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Callable
from typing import Any

# Relative, because on a board this folder is all that there is.
from . import machine, runtimes, sampling

_SHOWN = 400


def main() -> None:
    """Read the arguments, measure, tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--limit", type=int, required=True)
    asked = parser.parse_args()
    # Ends this process in whatever call it hangs, also where nobody listens any more.
    signal.alarm(asked.limit)
    tell = _alone_on_stdout()
    try:
        _measure(asked.model, asked.threads, asked.seconds, tell)
        tell({"done": True})
    except runtimes.Missing as error:
        tell({"error": error.what, "do": error.do})
    except Exception as error:  # whatever a runtime raises over a model
        first = (str(error).splitlines() or [""])[0]
        tell({
            "error": f"{type(error).__name__}: {first}"[:_SHOWN],
            "do": "check the model, and whether the runtime there is too old for it",
        })  # fmt: skip


def _measure(
    model: str, threads: int, seconds: float, tell: Callable[[dict[str, Any]], None]
) -> None:
    shares = machine.busy_cores()
    about = {**machine.environment(), **machine.conditions(shares)}
    name = machine.board_name()
    if name is not None:
        about["board"] = name
    with machine.pinned(threads, shares) as cores:
        about["pinned to"] = machine.named(cores)
        count = runtimes.count(model)
        tell({"machine": about, "cases": count, "warmup": sampling.WARMUP})
        for case in runtimes.cases(model, threads):
            tell({"case": case.method, "facts": case.facts})
            before = machine.energy()
            runs = _sample(case.call, seconds, tell)
            tell({"end": machine.energy_each(before, runs)})


def _sample(
    call: Callable[[], object], seconds: float, tell: Callable[[dict[str, Any]], None]
) -> int:
    runs = 0

    def heard(times: list[int], share: float) -> None:
        nonlocal runs
        runs += len(times)
        tell({"times": times, "share": round(share, 4)})

    sampling.sample(call, seconds, heard)
    return runs + sampling.WARMUP


def _alone_on_stdout() -> Callable[[dict[str, Any]], None]:
    """What runtimes print goes to standard error."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(value: dict[str, Any]) -> None:
        lines.write(json.dumps(value) + "\n")
        lines.flush()

    return tell


if __name__ == "__main__":
    main()
