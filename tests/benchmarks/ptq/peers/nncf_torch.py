"""NNCF's ``quantize`` on the torch model, with and without its fast bias correction."""

from __future__ import annotations

import copy

import nncf
import torch
from torch import Tensor, nn

from tests.benchmarks.ptq.peers import Bits, Made, Refused


def quantize(model: nn.Module, calibration: Tensor, bits: Bits) -> list[Made]:
    """Its presets; eight bits."""
    if bits != (8, 8):
        raise Refused("integers of 8 bits only")
    found = []
    for name, preset in (("mixed", nncf.QuantizationPreset.MIXED), ("performance", nncf.QuantizationPreset.PERFORMANCE)):  # fmt: skip
        for kind in (None, nncf.ModelType.TRANSFORMER):
            samples = nncf.Dataset([s[None] for s in calibration])
            made = nncf.quantize(
                copy.deepcopy(model), samples, preset=preset, model_type=kind,
                subset_size=len(calibration), fast_bias_correction=True,
            )  # fmt: skip
            setting = f"{name}, {'transformer' if kind else 'plain'}"
            found.append(Made(_runner(made), "inputs of the operators OpenVINO has integer kernels for", False, setting))  # fmt: skip
    return found


def _runner(model: nn.Module):  # type: ignore[no-untyped-def]
    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(s[None]) for s in x])

    return run
