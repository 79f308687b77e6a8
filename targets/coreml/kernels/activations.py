"""Activation functions. MIL: ``activation``."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgemix.targets.coreml.kernels.base import along, kernels


def clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.where(x >= 0, x, alpha * x).clamp(max=beta)


def elu(x: Tensor, alpha: float) -> Tensor:
    return F.elu(x, alpha)


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    # Torch's own is a polynomial, which is wrong by more and makes NaN of infinity.
    return 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5)))


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


def linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    return x * alpha + beta


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, along(alpha, 1, x.ndim) * x)


def relu(x: Tensor) -> Tensor:
    return x.relu()


def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * x)


def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


def sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def silu(x: Tensor) -> Tensor:
    return F.silu(x)


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-x.abs())) + x.relu()


def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return along(alpha, 1, x.ndim) * softplus(along(beta, 1, x.ndim) * x)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    return x.softmax(axis)


def softsign(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


KERNELS = kernels(
    clamped_relu, elu, gelu, leaky_relu, linear_activation, prelu, relu, relu6, scaled_tanh,
    sigmoid, sigmoid_hard, silu, softplus, softplus_parametric, softmax, softsign,
    thresholded_relu,
)  # fmt: skip
