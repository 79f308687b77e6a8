"""How a model comes in, one file each.

timm:NAME[?kw=v]          a timm model
package.module:factory    a Python function (the one source that runs foreign code); its model
                          may consist of Brevitas layers, and comes quantized then
FILE.pt2                  a file of torch.export.save
FILE.onnx                 a quantized graph in QONNX, or with QuantizeLinear nodes
FILE.nir?like=LIBRARY     a NIR graph of spiking neurons, in the dialect of who wrote it
FILE                      a program that edgemix saved
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from edgemix import archive
from edgemix.errors import InputError
from edgemix.extras import versions
from edgemix.program import Origin, Program

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load(
    spec: str,
    *,
    step: bool = False,
    chunk: int | None = None,
    unroll: bool = False,
    shape: tuple[int, ...] | None = None,
) -> Program:
    """The program that a source names.

    Args:
        spec: one of the above.
        step: whether the program is one step of a model that works on sequences, its memory
            being states.
        chunk: how many steps the program takes at once; None is one.
        unroll: whether recurrent layers are written out over the whole sequence.
        shape: of the input, where it is not to be that of the model's example; of a model in
            Python or of timm, without states.

    Raises:
        InputError: nothing of this name, a file of another kind, or a model that cannot be traced
            or has no step form.
    """
    if spec.partition("?")[0].endswith(".nir"):
        from edgemix.sources import nir

        return nir.load(spec, chunk=chunk)
    path = Path(spec)
    if (step or unroll) and (
        path.exists() or not _FACTORY.fullmatch(spec) or spec.startswith("timm:")
    ):
        raise InputError(
            f"{spec} is not a Python model: its step form cannot be found",
            do="name a factory, package.module:function, or a program that was saved as a step",
        )
    if shape is not None:
        return _traced_with(spec, shape, whole=not (step or unroll or chunk))
    if spec.startswith("timm:"):
        from edgemix.sources import timm

        model = timm.load(spec.removeprefix("timm:"))
        return Program.trace(model.module, model.example, model.origin)
    if not path.exists() and _FACTORY.fullmatch(spec):
        from edgemix.sources import brevitas, factory

        model = factory.load(spec)
        if brevitas.uses_brevitas(model.module):
            if step or unroll:
                raise InputError("a model with Brevitas layers has no step form yet", at=spec)
            return brevitas.trace(model)
        if step:
            from edgemix.streaming.trace import step_program

            if len(model.example) != 1:
                raise InputError("a step form takes one sequence", at=spec)
            return step_program(model.module, model.example[0], model.origin, chunk=chunk)
        if unroll:
            from edgemix.streaming.unroll import First, unrolled

            return Program.trace(First(unrolled(model.module)), model.example, model.origin)
        return Program.trace(model.module, model.example, model.origin)
    if path.is_dir():
        raise InputError(f"{spec} is a folder", do="name a file: a saved program or a .pt2")
    if not path.exists():
        raise InputError(
            f"there is no model {spec}",
            do="give timm:NAME, package.module:factory, a .pt2 file or a saved program",
        )
    if archive.is_program(path):
        return Program.load(path)
    if path.suffix == ".pt2":
        return Program.from_exported(
            archive.load_pt2(path), Origin(str(path.name), versions("torch"))
        )
    if path.suffix == ".onnx":
        from edgemix.sources import qonnx

        return qonnx.load(path)
    raise InputError(
        f"{spec} is neither an edgemix program nor a .pt2 file, or it is truncated",
        do="save a model with torch.export.save(torch.export.export(model, inputs), 'model.pt2')",
    )


def _traced_with(spec: str, shape: tuple[int, ...], *, whole: bool) -> Program:
    """A model's graph for another input than its example's."""
    if not whole or not (spec.startswith("timm:") or _FACTORY.fullmatch(spec)):
        raise InputError(
            f"{spec} comes with one input shape",
            do="name a Python model (package.module:factory) or one of timm, not as a step",
        )
    from edgemix.sources import brevitas, factory, timm

    name = spec.removeprefix("timm:")
    model = timm.load(name) if spec.startswith("timm:") else factory.load(spec)
    if len(model.example) != 1 or model.example[0].ndim != len(shape):
        shapes = ", ".join(str(list(t.shape)) for t in model.example)
        raise InputError(f"{spec} takes {shapes}, not {list(shape)}", do="give as many axes")
    if brevitas.uses_brevitas(model.module):
        raise InputError(f"{spec} has Brevitas layers, which come with one input shape")
    return Program.trace(model.module, (torch.zeros(shape),), model.origin)
