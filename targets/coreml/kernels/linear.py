"""Products of matrices, and attention. MIL: ``linear``, ``transformers``."""

from __future__ import annotations

import torch
from torch import Tensor

from edgemix.targets.coreml.kernels.base import Tensors, kernels


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    wide, weight = _alike(x, weight)
    return torch.nn.functional.linear(wide, weight, None if bias is None else bias.to(wide.dtype))


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Transposing has no effect on a vector."""
    left = x.mT if transpose_x and x.ndim > 1 else x
    right = y.mT if transpose_y and y.ndim > 1 else y
    left, right = _alike(left, right)
    return left @ right


def einsum(values: Tensors, equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """softmax(Q Kᵀ / √E + mask) V; of a boolean mask, true takes part."""
    if attn_mask is not None and attn_mask.ndim == 1:
        attn_mask = attn_mask[None]
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask)


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the type that holds both: from iOS 17 on, they may differ."""
    common = torch.promote_types(x.dtype, y.dtype)
    return x.to(common), y.to(common)


KERNELS = kernels(linear, matmul, einsum, scaled_dot_product_attention)
