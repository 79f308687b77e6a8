"""A graph that was exported for one input shape, exported again for several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.batched import open_batch
from edgemix.errors import UnsupportedError
from edgemix.exporting import quiet
from edgemix.program import Program
from edgemix.reshaping import opened
from edgemix.shapes import Reshaped

Shape = tuple[int, ...]


def batches(program: Program, module: GraphModule, sizes: tuple[int, ...]) -> ExportedProgram:
    """The graph with its batch left open between the smallest and the largest size.

    Args:
        program: whose graph ``module`` is, lowered; without states.
        module: it is changed.
        sizes: of batches.

    Raises:
        UnsupportedError: the graph writes its batch down where it cannot be left open.
    """
    if not open_batch(program, module):
        raise UnsupportedError(
            "the program's graph cannot take several batch sizes",
            do="leave --batches out, or deploy a program for each size",
        )
    return _exported(module, [[(n, *s.shape[1:]) for n in (1, *sizes)] for s in program.inputs])


def shapes(program: Program, module: GraphModule, further: Sequence[Reshaped]) -> ExportedProgram:
    """The graph with those axes left open in which the shapes differ.

    Args:
        program: as for :func:`batches`, of one input.
        module: it is changed.
        further: shapes beside the program's own.

    Raises:
        UnsupportedError: the graph writes a size down where it cannot be left open.
    """
    opened(module, further)
    module = g.flat(module)  # which does not ask for the old shape
    return _exported(module, [[program.inputs[0].shape, *(r.shape for r in further)]])


def _exported(module: GraphModule, inputs: Sequence[Sequence[Shape]]) -> ExportedProgram:
    """Exported for the largest of each input's shapes; axes in which they differ stay open."""
    module.recompile()
    open_axes: dict[int, Dim] = {}
    examples, dynamic = [], []
    for shapes_of_one in inputs:
        columns = list(zip(*shapes_of_one, strict=True))
        different = [i for i, sizes in enumerate(columns) if len(set(sizes)) > 1]
        for i in different:
            # torch takes an axis of one for a fact; an example has to be larger.
            largest = max(2, *columns[i])
            open_axes.setdefault(i, Dim(f"axis_{i}", min=min(columns[i]), max=largest))
        examples.append(torch.zeros([max(2 * (i in different), *c) for i, c in enumerate(columns)]))
        dynamic.append({i: open_axes[i] for i in different})
    with quiet(), torch.no_grad():
        return torch.export.export(
            module, tuple(examples), dynamic_shapes=tuple(dynamic), strict=False
        )
