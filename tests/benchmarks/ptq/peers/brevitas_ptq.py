"""Brevitas alone: its graph quantization, with the algorithms of its own PTQ example."""

from __future__ import annotations

import copy
from typing import Any

import torch
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
from brevitas.graph.equalize import activation_equalization_mode
from brevitas.graph.gptq import gptq_mode
from brevitas.graph.quantize import preprocess_for_quantize
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer as QuantWBIOL
from brevitas_examples.imagenet_classification.ptq.ptq_common import quantize_model
from torch import Tensor, nn

from tests.benchmarks.ptq.peers import Bits, Made, Refused


def quantize(model: nn.Module, calibration: Tensor, bits: Bits) -> list[Made]:
    """Layerwise or by graph, ranges by percentile or error; equalization, GPTQ, bias correction."""
    found, reasons = [], []
    for backend in ("fx", "layerwise"):
        for gptq in (False, True):
            try:
                found.append(_one(model, calibration, bits, backend, gptq))
            except Exception as error:  # each setting may refuse the model in its own way
                reasons.append(f"{backend}: {type(error).__name__}: {error}")
    if not found:
        raise Refused("; ".join(reasons)[:300])
    return found


def _keep_ends(made: nn.Module, x: Tensor) -> None:
    """The first and the last layer in eight bits, as edgemix has them; Brevitas's own switch knows
    them by ImageNet's three channels and 1000 classes."""
    ran: list[Any] = []
    layers = [m for m in made.modules() if isinstance(m, QuantWBIOL)]
    hooks = [m.register_forward_hook(lambda module, _, __: ran.append(module)) for m in layers]
    with torch.no_grad():
        made(x)
    for hook in hooks:
        hook.remove()
    for layer in (ran[0], ran[-1]):
        for proxy in (layer.weight_quant, layer.input_quant):
            if proxy.is_quant_enabled:
                proxy.quant_injector = proxy.quant_injector.let(bit_width=8)
                proxy.init_tensor_quant()


def _one(model: nn.Module, x: Tensor, bits: Bits, backend: str, gptq: bool) -> Made:
    work = copy.deepcopy(model)
    if backend == "fx":
        work = preprocess_for_quantize(work, equalize_iters=20, equalize_merge_bias=True)
    with torch.no_grad(), activation_equalization_mode(work, 0.5, layerwise=backend == "layerwise", add_mul_node=backend == "layerwise"):  # fmt: skip
        for batch in x.split(16):
            work(batch)
    made = quantize_model(
        work, backend=backend, weight_bit_width=bits[0], act_bit_width=bits[1], bias_bit_width=32,
        scale_factor_type="float_scale", act_param_method="stats", weight_param_method="mse",
        weight_quant_granularity="per_channel", weight_quant_type="sym", act_quant_type="asym",
        act_quant_percentile=99.999, quant_format="int", uint_sym_act_for_unsigned_values=True,
    )  # fmt: skip
    _keep_ends(made, x[:1])
    with torch.no_grad(), calibration_mode(made):
        for batch in x.split(16):
            made(batch)
    if gptq:
        with torch.no_grad(), gptq_mode(made, use_quant_activations=True) as mode:
            for _ in range(mode.num_layers):
                for batch in x.split(16):
                    mode.model(batch)
                mode.update()
    with torch.no_grad(), bias_correction_mode(made):
        for batch in x.split(16):
            made(batch)

    def run(samples: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([made(batch) for batch in samples.split(100)])

    what = "weights and inputs of layers" if backend == "layerwise" else "weights and activations of its graph"  # fmt: skip
    return Made(run, what, False, f"{backend}{', GPTQ' if gptq else ''}, bias correction")
