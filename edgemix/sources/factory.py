"""``package.module:factory``: a Python function that returns a model.

The one source that runs foreign code: naming it on the command line asks for that.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from torch import Tensor, nn

from edgemix.errors import InputError, did_you_mean
from edgemix.extras import versions
from edgemix.program import Origin
from edgemix.sources.base import SourceModel


def load(argument: str) -> SourceModel:
    """Call the factory: it returns ``(module, example)``, example a tensor or a tuple of tensors.

    Raises:
        InputError: the module or function cannot be found, the function raises, or it returns
            something else.
    """
    path, _, name = argument.partition(":")
    # As `python -m` does: a factory in the current folder needs no installation.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(path)
    except Exception as error:  # importing runs foreign code
        raise InputError(f"cannot import {path}: {type(error).__name__}: {error}") from error
    if not callable(factory := getattr(module, name, None)):
        known = [n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_")]
        near = did_you_mean(name, known, most=3)
        shown = ", ".join(known[:8]) or "none"
        raise InputError(f"{path} has no function {name}", do=f"{near}it has {shown}")
    try:
        made = factory()
    except Exception as error:  # foreign code
        raise InputError(
            f"the factory {argument} raised {type(error).__name__}: {error}",
            do="run it by itself first",
        ) from error
    return _checked(made, argument)


def _checked(made: object, argument: str) -> SourceModel:
    wanted = "return (module, example), example a tensor or a tuple of tensors"
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], nn.Module):
        raise InputError(f"the factory {argument} returned {_describe(made)}", do=wanted)
    module, example = made
    examples = (example,) if isinstance(example, Tensor) else example
    if (
        not isinstance(examples, tuple)
        or not examples
        or not all(isinstance(t, Tensor) for t in examples)
    ):
        raise InputError(
            f"the factory {argument} gave an example of {_describe(example)}", do=wanted
        )
    return SourceModel(module.eval(), examples, Origin(argument, versions("torch")))


def _describe(value: object) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}: {', '.join(type(v).__name__ for v in value)}"
    return f"a {type(value).__name__}" if value is not None else "nothing"
