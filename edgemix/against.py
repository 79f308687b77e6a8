"""An artifact that others may have made, against a program: the same data through both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from edgemix import data, proof, sources, targets
from edgemix.errors import InputError
from edgemix.latency.budget import Verdict
from edgemix.proof import Contract
from edgemix.targets.base import Adopting


def against(
    model: Path,
    source: str,
    evaluate: str,
    *,
    contract: Contract | None = None,
    samples: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[Verdict, ...]:
    """Whether a model file computes what a program does: one verdict an output.

    Args:
        model: a ``.mlpackage``.
        source: the program: a saved one, or whatever ``deploy`` takes.
        evaluate: data for its input.
        contract: what is asked; None: what the target promises of such a program.
        samples: of the data, at most; None: all.
        on_progress: called with shares done.

    Raises:
        InputError: one of them cannot be read, or they do not fit each other.
        UnsupportedError: the model holds operations that edgemix does not evaluate.
    """
    target = _target(model)
    if not model.exists():
        raise InputError(f"{model} does not exist")
    program = sources.load(source)
    if program.states or len(program.inputs) != 1:
        raise InputError(
            "only programs of one input and no states are compared with other models",
            do="deploy them with edgemix, and validate the folder that it wrote",
        )
    held_out = data.load(evaluate, program.inputs[0], most=samples)
    x = held_out.samples if samples is None else held_out.samples[:samples]
    artifact = target.adopt(model, program)
    expected = program.run(torch.from_numpy(x))
    found = target.run(artifact, model.parent, (x,), on_progress)
    if found is None:
        raise InputError(f"this machine cannot run {model.name}")
    asked = contract or target.promise(program)
    rows = zip(expected, found, artifact.outputs, program.output_encodings, strict=True)
    verdicts = []
    for want, have, binding, encoding in rows:
        near = proof.compare(want.numpy(), have, encoding, asked)
        verdicts.append(
            Verdict(
                f"output {binding.name}", target.name, str(asked),
                f"{near.worst_relative:.2g} of the range at most, "
                f"{near.decisions_equal:.2%} of {near.samples} decisions equal",
                near.passed, near.why,
            )
        )  # fmt: skip
    return tuple(verdicts)


def _target(model: Path) -> Adopting:
    for name in targets.TARGETS:
        target = targets.load(name)
        if isinstance(target, Adopting) and model.suffix in target.suffixes:
            return target
    raise InputError(
        f"{model} is of no kind that edgemix compares with a program",
        do="give an .mlpackage; artifacts of edgemix are validated by their folder",
    )
