"""Models in the runtimes that this machine has. One function a kind of file.

Core ML's is untested on a real Mac: it is checked against a stand-in of coremltools.
"""

from __future__ import annotations

import collections
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Missing(Exception):
    """This machine cannot run the model; says what to do."""

    def __init__(self, what: str, do: str) -> None:
        self.what = what
        self.do = do
        super().__init__(what)


class Case(NamedTuple):
    """One way to run a model."""

    method: str
    call: Callable[[], object]
    facts: dict[str, str]


def kind_of(model: str) -> str:
    """How the name ends, where it is a kind of model that is known.

    Raises:
        Missing: it is not.
    """
    kind = os.path.splitext(model.rstrip("/"))[1].lower()  # noqa: PTH122
    if kind not in _CASES:
        raise Missing(
            f"no runtime is known for {os.path.basename(model)}",  # noqa: PTH119
            f"give a model that ends in one of {', '.join(_CASES)}",
        )
    return kind


def count(model: str) -> int:
    """How many cases there will be."""
    return len(_UNITS) if kind_of(model) == ".mlpackage" else 1


def cases(model: str, threads: int) -> Iterator[Case]:
    """Every way to run a model, loaded one after the other; inputs are zeros.

    Raises:
        Missing: the machine lacks its runtime.
    """
    return _CASES[kind_of(model)](model, threads)


_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(int16)": "int16",
    "tensor(uint16)": "uint16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}  # fmt: skip


def _onnx(model: str, threads: int) -> Iterator[Case]:
    _need("numpy")  # which the runtime needs, and would miss in words of its own
    runtime = _need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = zeros(session)
    yield Case(
        "ONNX Runtime InferenceSession.run, float in and out",
        lambda: session.run(None, feed),
        {"runtime": f"onnxruntime {runtime.__version__}"},
    )


def zeros(session: Any) -> dict[str, Any]:
    """What an ONNX Runtime session takes, by name.

    Raises:
        Missing: an input has no fixed shape, or is no number.
    """
    np = _need("numpy")
    feed = {}
    for given in session.get_inputs():
        if given.type not in _TYPES or not all(isinstance(size, int) for size in given.shape):
            raise Missing(
                f"the input {given.name} is {given.type} of shape {given.shape}: no fixed shape "
                "of numbers", "export the model with one fixed shape",
            )  # fmt: skip
        feed[given.name] = np.zeros(given.shape, _TYPES[given.type])
    return feed


_TFLITE = ("ai_edge_litert", "tflite_runtime", "tensorflow.lite")


def _tflite(model: str, threads: int) -> Iterator[Case]:
    np = _need("numpy")
    package = next((name for name in _TFLITE if _there(name)), None)
    if package is None:
        raise Missing("it has no runtime for TFLite", "pip install ai-edge-litert, there")
    runner = importlib.import_module(f"{package}.interpreter").Interpreter(
        model, num_threads=threads
    )
    runner.allocate_tensors()
    for given in runner.get_input_details():
        runner.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
    yield Case(
        "LiteRT Interpreter.invoke, XNNPACK", runner.invoke,
        {"runtime": f"{package} {_version(package)}"},
    )  # fmt: skip


_UNITS = {
    "ALL": "all compute units",
    "CPU_AND_NE": "CPU and Neural Engine",
    "CPU_AND_GPU": "CPU and GPU",
    "CPU_ONLY": "CPU",
}
_DEVICES = {
    "MLCPUComputeDevice": "CPU",
    "MLGPUComputeDevice": "GPU",
    "MLNeuralEngineComputeDevice": "Neural Engine",
}
_GRAYSCALE = 10


def _coreml(model: str, threads: int) -> Iterator[Case]:
    if sys.platform != "darwin":
        raise Missing("Core ML runs on macOS alone", "name a Mac: --on macos:USER@HOST")
    ct = _need("coremltools")
    for name, title in _UNITS.items():
        unit = ct.ComputeUnit[name]
        loaded = ct.models.MLModel(model, compute_units=unit)
        told = loaded.get_spec().description
        feed = {given.name: _coreml_input(given.type) for given in told.input}
        keep = {"state": loaded.make_state()} if getattr(told, "state", ()) else {}
        facts = {"runtime": f"coremltools {ct.__version__}", **_planned(loaded, unit)}
        run = functools.partial(loaded.predict, feed, **keep)
        yield Case(f"MLModel.predict, {title}", run, facts)


def _coreml_input(kind: Any) -> Any:
    if kind.WhichOneof("Type") == "imageType":
        image = kind.imageType
        colors = "L" if image.colorSpace == _GRAYSCALE else "RGB"
        return _need("PIL.Image").new(colors, (image.width, image.height))
    return _need("numpy").zeros(tuple(kind.multiArrayType.shape), "float32")


def _planned(loaded: Any, unit: Any) -> dict[str, str]:
    """The share of operations that Core ML plans to run on each unit."""
    plans = importlib.import_module("coremltools.models.compute_plan")
    try:
        plan = plans.MLComputePlan.load_from_path(
            path=loaded.get_compiled_model_path(), compute_units=unit
        )
    except (RuntimeError, ValueError) as error:
        return {"operations": f"no MLComputePlan: {error}"}
    homes = collections.Counter(
        _home(plan.get_compute_device_usage_for_mlprogram_operation(op))
        for function in plan.model_structure.program.functions.values()
        for op in _operations(function.block)
    )
    total = max(sum(homes.values()), 1)
    shares = (f"{n / total:.0%} {home}" for home, n in sorted(homes.items()))
    return {"operations": f"{', '.join(shares)} of {total}, by MLComputePlan"}


def _home(usage: Any | None) -> str:
    name = "" if usage is None else type(usage.preferred_compute_device).__name__
    return _DEVICES.get(name, name or "not told")


def _operations(block: Any) -> list[Any]:
    found = []
    for op in block.operations:
        name = str(op.operator_name).rpartition(".")[2]
        if name != "const" and not name.startswith("constexpr_"):
            found.append(op)
        for inner in op.blocks:
            found += _operations(inner)
    return found


_CASES = {".onnx": _onnx, ".tflite": _tflite, ".mlpackage": _coreml}

_PACKAGES = {"PIL.Image": "pillow"}


def _need(module: str) -> Any:
    if not _there(module):
        package = _PACKAGES.get(module, module)
        raise Missing(f"it has no Python package {package}", f"pip install {package}, there")
    return importlib.import_module(module)


def _there(module: str) -> bool:
    parent = module.rpartition(".")[0]
    return (not parent or _there(parent)) and importlib.util.find_spec(module) is not None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package.partition(".")[0].replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
