"""A graph that was exported for one batch size, exported again for several."""

from __future__ import annotations

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from edgemix.batched import open_batch
from edgemix.errors import UnsupportedError
from edgemix.program import Program, quiet


def exported(program: Program, module: GraphModule, batches: tuple[int, ...]) -> ExportedProgram:
    """The graph with its batch left open between the smallest and the largest size.

    Args:
        program: whose graph ``module`` is, lowered; without states.
        module: it is changed.
        batches: sizes.

    Raises:
        UnsupportedError: the graph writes its batch down where it cannot be left open.
    """
    if not open_batch(program, module):
        raise UnsupportedError(
            "the program's graph cannot take several batch sizes",
            do="leave --batches out, or deploy a program for each size",
        )
    module.recompile()
    largest = max(2, *batches)
    batch = Dim("batch", min=1, max=largest)
    example = tuple(torch.zeros(largest, *spec.shape[1:]) for spec in program.inputs)
    with quiet(), torch.no_grad():
        return torch.export.export(
            module, example, dynamic_shapes=tuple({0: batch} for _ in example), strict=False
        )
