"""Weights with a scale for every block of columns: ``constexpr_blockwise_shift_scale``, iOS 18.

coremltools takes such weights from torchao only; this teaches its converter our operator.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from edgemix.extras import need

_ALIASES = [f"quantized_decomposed{sign}dequantize_per_channel_group" for sign in ("::", ".")]


@cache
def teach_blocks() -> None:
    """Register the operator with coremltools' converter."""
    registry = need("coremltools.converters.mil.frontend.torch.torch_op_registry", extra="coreml")
    ops = need("coremltools.converters.mil.frontend.torch.ops", extra="coreml")
    builder = need("coremltools.converters.mil", extra="coreml").Builder
    types = need("coremltools.converters.mil.mil", extra="coreml").types

    def dequantize_per_channel_group(context: Any, node: Any) -> None:
        codes, scales, zeros, low, high = (v.val for v in ops._get_inputs(context, node)[:5])
        if np.any(zeros):
            raise NotImplementedError("weights in blocks have no zero points")
        held = types.nptype_from_builtin(types.int4 if low >= -8 and high <= 7 else types.int8)
        made = builder.constexpr_blockwise_shift_scale(
            data=codes.astype(held), scale=scales, name=node.name
        )
        context.add(made)

    registry.register_torch_op(dequantize_per_channel_group, torch_alias=_ALIASES, override=True)
