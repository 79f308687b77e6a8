"""Fewer tokens in the reference model, by every method: ``python -m tests.benchmarks.prune.tokens``."""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from torch import Tensor

from edgemix import proof, rewrites
from edgemix.batched import batched
from edgemix.program import Origin, Program
from edgemix.quantize.prune.matching import KINDS
from edgemix.quantize.prune.tokens import reduce_tokens
from tests.benchmarks.prune.models import vit
from tests.benchmarks.ptq import data
from tests.benchmarks.ptq.suite import CALIBRATION, EVALUATION

BUDGETS = (0.8, 0.65, 0.5)


def main() -> None:
    """Print a line for each method and budget."""
    torch.set_num_threads(1)
    module, example = vit()
    program = rewrites.standard(Program.trace(module, example, Origin("vit")))
    train, held_out = data.digits32("train"), data.digits32("heldout")
    assert held_out.labels is not None
    order = np.random.default_rng(0).permutation(len(train))[:CALIBRATION]
    picked = np.random.default_rng(1).permutation(len(held_out))[:EVALUATION]
    samples, labels = held_out.samples[picked], held_out.labels[picked]
    calibration = torch.from_numpy(np.array(train.samples[order]))

    def outputs(tried: Program) -> Tensor:
        run = batched(tried)[1]
        with torch.no_grad():
            parts = torch.split(torch.from_numpy(np.array(samples)), 50)
            return torch.cat([run(x)[0] for x in parts])

    def points(found: Tensor) -> float:
        return 100 * float((found.argmax(1).numpy() == labels).mean())

    whole = outputs(program)
    print(f"float {points(whole):.1f} %")
    for method in [m for m in KINDS if m in sys.argv[1:] or len(sys.argv) == 1]:
        for budget in BUDGETS:
            start = time.perf_counter()
            small, plan = reduce_tokens(program, calibration, method, budget)
            seconds = time.perf_counter() - start
            found = outputs(small)
            print(
                f"{method} {budget:.0%}: {plan.macs[1] / plan.macs[0]:.1%} of the macs, "
                f"{plan.choosing / plan.macs[0]:.1%} to choose; {points(found):.1f} %, "
                f"{proof.sqnr_db(whole, found):.1f} dB; {plan.schedule} "
                f"{[r.after for r in plan.layers]}, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
