"""Brevitas's own ways to round weights, on our layers: GPTQ, GPFQ, learned rounding.

Each layer becomes a Brevitas layer of the same shape, reads what the layer reads, and gives its
weights back. Weights are in steps of their own grid there, so that the grid is the integers and
Brevitas has no scale to choose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.exporting import quiet
from edgemix.extras import need
from edgemix.graph import aten
from edgemix.quantize.draft import Draft
from edgemix.quantize.simulate import RoundedConstant

SAMPLES = 128
_STEPS = 300
_RATE = 1e-2
_BATCH = 32

Solve = Callable[[Any, list[Tensor]], None]
"""Changes a Brevitas layer's weights, given the batches that the layer reads."""


def gptq(draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None) -> Draft:
    """The draft with weights by Brevitas's GPTQ (Frantar et al., ICLR 2023)."""
    return _reround(draft, samples, on_step, _greedy("gptq"))


def gpfq(draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None) -> Draft:
    """The draft with weights by Brevitas's GPFQ (Lybrand and Saab, JMLR 2021)."""
    return _reround(draft, samples, on_step, _greedy("gpfq"))


def learned(
    draft: Draft, samples: Tensor, on_step: Callable[[float], None] = lambda _: None
) -> Draft:
    """The draft with weights by Brevitas's learned rounding (Nagel et al., ICML 2020)."""
    return _reround(draft, samples, on_step, _learned)


def _reround(
    draft: Draft, samples: Tensor, on_step: Callable[[float], None], solve: Solve
) -> Draft:
    """Layer after layer, each on what it reads in the simulation.

    Args:
        draft: any; of weights that were rounded before, the real ones are rounded again.
        samples: inputs [n, ...]; the first 128 are used.
        on_step: called with the share that is done.
        solve: one of Brevitas's algorithms.

    Raises:
        InputError: Brevitas is not installed, or weights have a scale for every group.
    """
    simulation = draft.simulate()
    layers = {
        edge: constant
        for edge, constant in simulation.constants.items()
        if simulation.nodes[edge[0]].target in g.LINEAR and edge in draft.plan.constants
    }
    for i, (edge, constant) in enumerate(layers.items()):
        node = simulation.nodes[edge[0]]
        if constant.encoding.group is not None:
            raise InputError(
                "Brevitas's roundings know no scale for every group of columns",
                at=str(g.where(node)), do="take gptq, or scales for channels",
            )  # fmt: skip
        batches = [r[edge[0]][0] for r in simulation.reads(samples[:SAMPLES], {edge[0]}, _BATCH)]
        with quiet():  # Brevitas warns of what it will change in itself
            layer = _layer(node, constant)
            solve(layer, batches)
            with torch.no_grad():
                found = layer.quant_weight()
        steps = constant.encoding.steps(constant.real)
        made = getattr(found, "value", found).detach() * steps
        constant.set(torch.where(constant.real == 0, 0.0, made))  # zeros of pruning stay
        on_step((i + 1) / len(layers))
    return draft.updated(simulation)


def _layer(node: Node, constant: RoundedConstant) -> Any:
    """A Brevitas layer without bias whose weights are in steps and whose grid is the integers."""
    qnn, quant = need("brevitas.nn", extra="brevitas"), need("brevitas.quant", extra="brevitas")
    encoding = constant.encoding
    unit = type(
        "Unit",
        (quant.Int8WeightPerTensorFloat,),
        {
            "bit_width": encoding.bits,
            "narrow_range": encoding.qmin == -encoding.qmax,
            "scaling_impl_type": "const",
            # Brevitas divides it by the largest integer.
            "scaling_const": float(max(encoding.qmax, -encoding.qmin)),
            "scaling_init": float(max(encoding.qmax, -encoding.qmin)),
        },
    )
    shape = tuple(constant.real.shape)
    if node.target is aten.linear.default:
        layer = qnn.QuantLinear(shape[1], shape[0], bias=False, weight_quant=unit)
    else:
        options: list[Any] = [*node.args[3:], *[None] * 4]
        stride, padding, dilation, groups = (
            o or d for o, d in zip(options, (1, 0, 1, 1), strict=False)
        )
        kind = qnn.QuantConv1d if len(shape) == 3 else qnn.QuantConv2d
        pairs = (tuple(v) if isinstance(v, list) else v for v in (stride, padding, dilation))
        stride, padding, dilation = (_full(v, len(shape) - 2) for v in pairs)
        layer = kind(
            shape[1] * groups, shape[0], shape[2:], stride=stride, padding=padding,
            dilation=dilation, groups=groups, bias=False, weight_quant=unit,
        )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(constant.real / encoding.steps(constant.real))
    layer.eval()
    return layer


def _full(value: Any, axes: int) -> Any:
    return value * axes if isinstance(value, tuple) and len(value) == 1 else value


def _greedy(name: str) -> Solve:
    def solve(layer: Any, batches: list[Tensor]) -> None:
        module = need(f"brevitas.graph.{name}", extra="brevitas")
        model = nn.Sequential(layer)
        with torch.no_grad(), getattr(module, f"{name}_mode")(model, act_order=True) as mode:
            for _ in range(mode.num_layers):
                for batch in batches:
                    mode.model(batch)
                mode.update()

    return solve


def _learned(layer: Any, batches: list[Tensor]) -> None:
    enums = need("brevitas.inject.enum", extra="brevitas")
    ours = need("brevitas_examples.common.learned_round.learned_round_method", extra="brevitas")
    with torch.no_grad():
        exact = [_plain(layer, batch) for batch in batches]
    ours.insert_learned_round_quantizers(layer, enums.LearnedRoundImplType.HARD_SIGMOID)
    (rounding,) = ours.return_learned_round_quantizers(layer)
    penalty = ours.RoundRegularisationLoss(layer, max_count=_STEPS)
    optimizer = torch.optim.Adam([rounding.value], lr=_RATE)
    scale = float(torch.cat([e.flatten() for e in exact]).square().mean().clamp(min=1e-12))
    layer.train()
    for k in range(_STEPS):
        batch, target = batches[k % len(batches)], exact[k % len(exact)]
        found = layer(batch)
        loss = nn.functional.mse_loss(found, target) / scale * _WEIGHT + penalty(found, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layer.eval()


_WEIGHT = 1e4
"""Of the error against Brevitas's penalty for roundings that are still between two integers."""


def _plain(layer: Any, x: Tensor) -> Tensor:
    """The layer with its real weights."""
    if layer.weight.ndim == 2:
        return nn.functional.linear(x, layer.weight)
    function = nn.functional.conv1d if layer.weight.ndim == 3 else nn.functional.conv2d
    found: Tensor = function(
        x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return found
