"""Optional packages: the one place that asks for them and says how to get them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from edgemix.errors import InputError

EXTRAS: dict[str, tuple[str, ...]] = {
    "timm": ("timm",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "tflite": ("ai_edge_litert", "litert_torch"),
    "coreml": ("coremltools",),
    "coreai": ("coreai", "coreai_torch"),
    "hls4ml": ("hls4ml",),
    "rtl": ("da4ml",),
    "nir": ("nir", "h5py"),
    "demo": ("sklearn",),
    "mixed": ("scipy",),
    "brevitas": ("brevitas",),
    "search": ("optuna", "joblib"),
    "dask": ("distributed",),
}


def need(module: str, *, extra: str) -> ModuleType:
    """Import an optional module, or say which command installs it.

    Raises:
        InputError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise InputError(
            f"this needs the package {error.name}, which is not installed",
            do=install_command(extra),
        ) from error


def present(extra: str) -> bool:
    """Whether every package of an extra is installed (nothing is imported)."""
    return all(importlib.util.find_spec(module) is not None for module in EXTRAS[extra])


def install_command(extra: str) -> str:
    """The command that adds an extra."""
    return f"pip install 'edgemix[{extra}]'"


def versions(*packages: str) -> dict[str, str]:
    """Installed versions by distribution name; a package that is missing is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
