"""MIL operations as coremltools builds them, and saved packages, for the evaluator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Function, types
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from torch import Tensor

from edgemix.targets.coreml import evaluate
from edgemix.targets.coreml.evaluate import Evaluator
from edgemix.targets.coreml.kernels import KERNELS
from edgemix.targets.coreml.kernels.lists import TensorList
from edgemix.targets.coreml.package import open_package
from edgemix.targets.coreml.values import Kind

_WIDER = {"uint16": np.int32, "uint32": np.int64}
"""What the evaluator holds instead of what torch computes little with."""


def _held(value: Any) -> Any:
    if isinstance(value, (str, Tensor, TensorList)):
        return value
    array = np.array(value)
    return torch.from_numpy(array.astype(_WIDER.get(array.dtype.name, array.dtype)))


def run_kernel(name: str, dtypes: Sequence[str | Kind], /, **arguments: Any) -> tuple[Any, ...]:
    """The results of an operation on numpy arrays, as the evaluator computes them.

    Args:
        name: the operation.
        dtypes: of its results, as MIL names them: ``FLOAT32``; or all that is declared of them.
        arguments: a list or tuple holds values that are bound to a parameter one by one.
    """
    kernel = KERNELS[name]
    bound = {
        parameter: tuple(map(_held, value)) if isinstance(value, (list, tuple)) else (_held(value),)
        for parameter, value in arguments.items()
        if value is not None
    }
    evaluate._accepts(kernel, bound, name)
    fixed = {p: evaluate._argument(kernel, p, v, name) for p, v in bound.items()}
    kinds = [d if isinstance(d, Kind) else Kind(d, (), variadic=True) for d in dtypes]
    outputs = tuple((f"y{i}", declared) for i, declared in enumerate(kinds))
    return evaluate._computed(evaluate._Step(name, kernel, fixed, {}, outputs), {})


def infer(
    build: Callable[[], Any], opset: ct.target = ct.target.iOS18
) -> tuple[list[Any], tuple[Any, ...]]:
    """What coremltools infers for an operation on constants, and what the kernel computes."""
    with Function({}, opset_version=opset), np.errstate(all="ignore"):
        built = build()
    op = (built[0] if isinstance(built, (list, tuple)) else built).op
    arguments = {
        parameter: [v.val for v in given] if isinstance(given, (list, tuple)) else given.val
        for parameter, given in op.inputs.items()
        if given is not None
    }
    declared = [Kind(mil_name(o.dtype), tuple(map(int, o.shape))) for o in op.outputs]
    found = run_kernel(op.op_type, declared, **arguments)
    return [o.val for o in op.outputs], found


def infer_in_float64(name: str, **given: Any) -> Any:
    """What coremltools' inference computes, with its floats widened to float64."""
    (*_, newest) = SSAOpRegistry.core_ops[name].values()
    op = newest.__new__(newest)
    op._input_types = {}
    for parameter, value in given.items():
        operand = SimpleNamespace(val=_wide(value), shape=np.shape(value))
        setattr(op, parameter, None if value is None else operand)
    with np.errstate(all="ignore"):
        return op.value_inference()


def _wide(value: Any) -> Any:
    if isinstance(value, str) or np.asarray(value).dtype.kind != "f":
        return value
    return np.asarray(value, np.float64)


def mil_name(builtin: Any) -> str:
    """A type of coremltools as a file names it."""
    return str(types.builtin_to_string(builtin)).upper().replace("FP", "FLOAT")


def assert_within(found: Tensor, reference: Any, roundings: float, slack: Any = 0.0) -> None:
    """Every value is the reference rounded, or as near to it as float32 arithmetic comes.

    Args:
        found: float32 or float16; the evaluator computes in float32, and rounds to float16 once.
        reference: numbers, taken as exact.
        roundings: how many halves of a unit in the last place of float32, 2**-24 relative, the
            arithmetic may be wrong by: one for each operation that is rounded, two for a function
            that is right to one unit.
        slack: what it may be wrong by besides, absolute: where a difference cancels.
    """
    exact = np.asarray(reference, np.float64)
    values = found.numpy()
    with np.errstate(all="ignore"):
        rounded = exact.astype(values.dtype)
        allowed = roundings * 2.0**-24 * np.abs(exact) + slack + 2.0**-149
        if values.dtype == np.float16:
            allowed = allowed + np.abs(np.spacing(rounded).astype(np.float64)) / 2
        error = np.abs(values.astype(np.float64) - exact)
    fine = (values == rounded) | (np.isnan(values) & np.isnan(exact)) | (error <= allowed)
    assert values.shape == exact.shape
    if not fine.all():
        place = np.unravel_index(np.argmin(fine), fine.shape)
        raise AssertionError(
            f"{(~fine).sum()} of {fine.size} differ; at {place}: {values[place]!r}, not "
            f"{exact[place]!r}, more than {np.broadcast_to(allowed, fine.shape)[place]:.3g}"
        )


@pytest.fixture(scope="session")
def within() -> Callable[..., None]:
    """:func:`assert_within`."""
    return assert_within


@pytest.fixture(scope="session")
def kernel() -> Callable[..., tuple[Any, ...]]:
    """:func:`run_kernel`."""
    return run_kernel


@pytest.fixture(scope="session")
def inferred() -> Callable[..., tuple[list[Any], tuple[Any, ...]]]:
    """:func:`infer`."""
    return infer


@pytest.fixture(scope="session")
def formula() -> Callable[..., Any]:
    """:func:`infer_in_float64`."""
    return infer_in_float64


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Converts what ``coremltools.convert`` takes and gives the package's path."""

    def save(source: Any, **options: Any) -> Path:
        options = {"minimum_deployment_target": ct.target.iOS18} | options
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.mlpackage"
        # It renames what is no identifier, and leaves a folder to the garbage collector.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ct.convert(source, convert_to="mlprogram", skip_model_load=True, **options)
            model.save(str(path))
        return path

    return save


@pytest.fixture
def evaluator(saved: Callable[..., Path]) -> Callable[..., Evaluator]:
    """Converts, saves, opens."""

    def load(source: Any, **options: Any) -> Evaluator:
        return Evaluator.load(open_package(saved(source, **options)))

    return load
