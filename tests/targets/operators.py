"""Calls of single torch operators on [1, 4, 9, 11], with the arguments that converters get wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Call = Callable[[Tensor], Tensor]

SHAPE = (1, 4, 9, 11)


def _drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


_PICKED = torch.tensor([2, 0, 1])
_KERNELS, _TRANSPOSED, _ROWS = _drawn(8, 4, 3, 3), _drawn(4, 6, 3, 3), _drawn(4, 4, 3)
_COLUMNS, _BIASES = _drawn(5, 11), _drawn(9, 9)
_ATTENTION = nn.MultiheadAttention(8, 2, batch_first=True).eval()
for _p in _ATTENTION.parameters():
    nn.init.normal_(_p, generator=torch.Generator().manual_seed(1))


def _line(x: Tensor) -> Tensor:
    """[1, 4, 11]"""
    return x[:, :, 3]


def _heads(x: Tensor) -> Tensor:
    """[1, 4, 9, 8]"""
    return x[..., :8]


def _positive(x: Tensor) -> Tensor:
    return x.abs() + 0.01


def _other(x: Tensor) -> Tensor:
    return x.flip(3)


ACTIVATIONS: dict[str, Call] = {
    **{
        name: getattr(F, name)
        for name in (
            "relu", "relu6", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "celu",
            "selu", "mish", "softsign", "logsigmoid", "softplus", "silu", "gelu", "tanhshrink",
            "softshrink", "hardshrink",
        )
    },
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky_relu 0.3": lambda x: F.leaky_relu(x, 0.3),
    "elu 2": lambda x: F.elu(x, 2.0),
    "celu 0.5": lambda x: F.celu(x, 0.5),
    "softplus of beta 2": lambda x: F.softplus(x, 2.0, 1.0),
    "threshold": lambda x: F.threshold(x, 0.3, -2.0),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4])),
    "hardtanh -0.3 0.7": lambda x: F.hardtanh(x, -0.3, 0.7),
    "glu": lambda x: F.glu(x, 1),
    "softmin": lambda x: F.softmin(x, 1),
    "softmax": lambda x: F.softmax(x, 2),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "logsumexp": lambda x: x.logsumexp(1),
}  # fmt: skip

ELEMENTWISE: dict[str, Call] = {
    **{
        name: getattr(torch, name)
        for name in (
            "abs", "neg", "exp", "exp2", "expm1", "sin", "cos", "tan", "atan", "sinh", "cosh",
            "tanh", "asinh", "erf", "erfc", "sigmoid", "floor", "ceil", "round", "trunc", "frac",
            "sign", "square", "deg2rad",
        )
    },
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: _positive(x).rsqrt(),
    "reciprocal": lambda x: _positive(x).reciprocal(),
    "log": lambda x: (x.abs() + 1e-6).log(),
    "log2": lambda x: _positive(x).log2(),
    "log10": lambda x: _positive(x).log10(),
    "log1p": lambda x: x.abs().log1p(),
    "asin": lambda x: x.sin().asin(),
    "acos": lambda x: x.sin().acos(),
    "acosh": lambda x: (1 + x.abs()).acosh(),
    "atanh": lambda x: (0.9 * x.sin()).atanh(),
    "logit": lambda x: x.sigmoid().logit(),
    "1 / x": lambda x: 1 / _positive(x),
    "2 / x": lambda x: 2 / _positive(x),
    "x / y": lambda x: x / _positive(_other(x)),
    "div, floor": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "div, trunc": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "fmod": lambda x: torch.fmod(x, 0.3),
    "remainder": lambda x: torch.remainder(x, 0.3),
    "add, alpha": lambda x: torch.add(x, x.abs(), alpha=0.5),
    "sub, alpha": lambda x: torch.sub(x, x.abs(), alpha=2),
    "rsub, alpha": lambda x: torch.rsub(x, x.abs(), alpha=2),
    "3 - x": lambda x: 3 - x,
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.3),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.3),
    "lerp": lambda x: torch.lerp(x, x.abs(), 0.3),
    "x ** 2": lambda x: x**2,
    "x ** 3": lambda x: x**3,
    "x ** 0.5": lambda x: x.abs() ** 0.5,
    "x ** -1": lambda x: _positive(x) ** -1,
    "2 ** x": lambda x: 2**x,
    "x ** y": lambda x: _positive(x) ** x.sin(),
    "atan2": lambda x: torch.atan2(x, _other(x)),
    "maximum": lambda x: torch.maximum(x, _other(x)),
    "minimum": lambda x: torch.minimum(x, _other(x)),
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "clamp from below": lambda x: x.clamp(min=0.1),
    "clamp by tensors": lambda x: torch.clamp(x, _other(x) - 0.1, _other(x) + 0.1),
    "hypot": lambda x: torch.hypot(x, _other(x)),
    "logaddexp": lambda x: torch.logaddexp(x, _other(x)),
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "masked_fill": lambda x: x.masked_fill(x > 0, -3.0),
    "greater": lambda x: (x > 0.1).float(),
    "equal": lambda x: (x.round() == 0).float(),
    "and": lambda x: ((x > 0) & (x < 1)).float(),
    "or": lambda x: ((x < 0) | (x > 1)).float(),
    "xor": lambda x: ((x > 0) ^ (x < 1)).float(),
    "not": lambda x: (~(x > 0)).float(),
    "isfinite": lambda x: x.isfinite().float(),
    "to integers": lambda x: (x * 10).long().float(),
    "to bool": lambda x: x.round().bool().float(),
    "heaviside": lambda x: torch.heaviside(x.round(), torch.tensor(0.5)),
    "round, ties": lambda x: torch.round(x * 2) / 2 + (x * 4).round().div(8).round(),
    "round, decimals": lambda x: torch.round(x, decimals=1),
    "integer quotient": lambda x: ((x * 9).round().int() // 2).float(),
    "integer remainder": lambda x: ((x * 9).round().int() % 3).float(),
}  # fmt: skip

REDUCTIONS: dict[str, Call] = {
    "sum": lambda x: x.sum().reshape(1),
    "sum of two axes": lambda x: x.sum((2, 3), keepdim=True),
    "mean": lambda x: x.mean().reshape(1),
    "mean of the last axis": lambda x: x.mean(-1),
    "prod": lambda x: x.prod(1),
    "var": lambda x: x.var(1),
    "var, correction 0": lambda x: x.var(1, correction=0),
    "var of all": lambda x: x.var().reshape(1),
    "std of two axes": lambda x: x.std((2, 3)),
    "std_mean": lambda x: torch.std_mean(x, 1)[0],
    "var_mean": lambda x: torch.var_mean(x, 1)[1],
    "amax": lambda x: x.amax((1, 2)),
    "amin": lambda x: x.amin(3),
    "max": lambda x: x.max(1).values,
    "argmax": lambda x: x.argmax(1).float(),
    "argmin": lambda x: x.argmin(-1).float(),
    "norm": lambda x: x.norm(dim=1),
    "norm of 1": lambda x: x.norm(p=1, dim=1),
    "norm of infinity": lambda x: x.norm(p=float("inf"), dim=1),
    "norm of 3": lambda x: x.norm(p=3, dim=1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "cosine_similarity": lambda x: F.cosine_similarity(x, _other(x), 1),
    "cumsum": lambda x: x.cumsum(2),
    "any": lambda x: (x > 1).any(1).float(),
    "all": lambda x: (x > -1).all(1).float(),
    "topk": lambda x: x.topk(3, 1).values,
    "topk, smallest": lambda x: x.topk(3, 1, largest=False).values,
    "topk, places": lambda x: x.topk(3, 3).indices.float(),
}

PLACES: dict[str, Call] = {
    "gather": lambda x: x.gather(1, torch.zeros(1, 2, 9, 11, dtype=torch.long) + 1),
    "index_select": lambda x: x.index_select(1, _PICKED),
    "by a list": lambda x: x[:, _PICKED],
    "by two lists": lambda x: x[:, _PICKED, _PICKED],
    "by a list of rows": lambda x: x[..., _PICKED, :],
    "take_along_dim": lambda x: torch.take_along_dim(x, x.argmax(1, keepdim=True), 1),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "flip": lambda x: x.flip((2, 3)),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "tril": lambda x: x.tril(),
    "triu": lambda x: x.triu(1),
    "slice by steps": lambda x: x[:, :, 1::2, ::3],
    "slice from the end": lambda x: x[:, -2:, :-1],
    "select": lambda x: x[:, 1, :, -1],
    "split": lambda x: torch.cat(x.split(3, 1)[::-1], 1),
    "chunk": lambda x: torch.cat(x.chunk(3, 2)[::-1], 2),
    "unbind and stack": lambda x: torch.stack(x.unbind(1)[::-1], 2),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1) * 1.0,
    "repeat_interleave": lambda x: x.repeat_interleave(3, dim=3),
    "movedim": lambda x: x.movedim(1, 3),
    "unfold": lambda x: x.unfold(2, 3, 2),
    "unfold of images": lambda x: F.unfold(x, 3, padding=1, stride=2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :8, :10], 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "one_hot": lambda x: F.one_hot(x.argmax(1), 4).float(),
    "embedding": lambda x: F.embedding(x.argmax(1), _ROWS[0]),
    "cat": lambda x: torch.cat([x, x.abs(), torch.ones(1, 2, 9, 11)], 1),
    "pad": lambda x: F.pad(x, (1, 0, 0, 2, 1, 1), value=3.0),
    "pad by less": lambda x: F.pad(x, (-1, -2, 1, 0)),
    "pad, reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "pad, replicate": lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "pad, circular": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
    "arange": lambda x: x + torch.arange(11),
    "nearest, twice": lambda x: F.interpolate(x, scale_factor=2),
    "nearest, 5 × 20": lambda x: F.interpolate(x, size=(5, 20)),
    "nearest, exact": lambda x: F.interpolate(x, size=(5, 20), mode="nearest-exact"),
    "bilinear, twice": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear, 5 × 20": lambda x: F.interpolate(x, size=(5, 20), mode="bilinear"),
    "bilinear, 1.3 times": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "bilinear, corners": lambda x: F.interpolate(
        x, size=(5, 20), mode="bilinear", align_corners=True
    ),
    "bilinear, antialias": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, size=(5, 20), mode="bicubic"),
    "area": lambda x: F.interpolate(x, size=(5, 20), mode="area"),
    "grid_sample": lambda x: F.grid_sample(
        x, torch.tanh(x[:, :2].permute(0, 2, 3, 1)), align_corners=False
    ),
}

WINDOWS: dict[str, Call] = {
    "adaptive mean, one": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive mean, even": lambda x: F.adaptive_avg_pool2d(x, (3, 11)),
    "adaptive mean, odd": lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, 1),
    **{
        f"maximum {size}/{stride}, {pad}, ceil {ceil}": lambda x, a=(size, stride, pad), c=ceil: (
            F.max_pool2d(x, *a, ceil_mode=c)
        )
        for size, stride, pad in ((3, 1, 1), (2, 2, 0), (3, 2, 1), (2, 3, 0), (3, 4, 1))
        for ceil in (False, True)
    },
    **{
        f"mean {size}/{stride}, {pad}, ceil {ceil}, count {count}": lambda x, a=(
            size, stride, pad,
        ), c=ceil, i=count: F.avg_pool2d(x, *a, ceil_mode=c, count_include_pad=i)
        for size, stride, pad in ((3, 1, 1), (2, 2, 0), (3, 2, 1), (2, 3, 0), (3, 4, 1))
        for ceil in (False, True)
        for count in (False, True)
    },
    "mean by 5": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
    "mean of lines": lambda x: F.avg_pool1d(_line(x), 3, 1, 1, count_include_pad=False),
    "maximum of lines": lambda x: F.max_pool1d(_line(x), 3, 2, 1),
    "convolution": lambda x: F.conv2d(x, _KERNELS, torch.ones(8)),
    "convolution, all at once": lambda x: F.conv2d(x, _KERNELS, None, (2, 1), (1, 2), (1, 2)),
    "convolution, same": lambda x: F.conv2d(x, _KERNELS, padding="same"),
    "convolution, even and same": lambda x: F.conv2d(x, _KERNELS[..., :2], padding="same"),
    "convolution, groups": lambda x: F.conv2d(x, _KERNELS[:4, :2], groups=2, padding=1),
    "convolution, depthwise": lambda x: F.conv2d(x, _KERNELS[:, :1], groups=4),
    "convolution of lines": lambda x: F.conv1d(_line(x), _ROWS, padding="same", dilation=2),
    "transposed": lambda x: F.conv_transpose2d(
        x, _TRANSPOSED, stride=2, padding=1, output_padding=1
    ),
    "transposed, groups": lambda x: F.conv_transpose2d(x, _TRANSPOSED[:, :3], groups=2, stride=2),
    "transposed, dilated": lambda x: F.conv_transpose2d(x, _TRANSPOSED, dilation=2),
    "transposed lines": lambda x: F.conv_transpose1d(_line(x), _ROWS, stride=2),
    "convolution in space": lambda x: F.conv3d(x.reshape(1, 2, 2, 9, 11), _KERNELS[:4, :2, None]),
}  # fmt: skip

PRODUCTS: dict[str, Call] = {
    "matmul": lambda x: x @ x.transpose(-1, -2),
    "addmm": lambda x: torch.addmm(
        torch.ones(9, 9), x[0, 0], x[0, 1].T, beta=0.5, alpha=2.0
    ).unsqueeze(0),
    "baddbmm": lambda x: torch.baddbmm(
        torch.ones(4, 9, 9), x[0], x[0].transpose(1, 2), beta=0.5, alpha=2.0
    ).unsqueeze(0),
    "einsum to a sum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "einsum of columns": lambda x: torch.einsum("bchw,bchv->bhwv", x, x),
    "linear": lambda x: F.linear(x, _COLUMNS, torch.ones(5)),
    "layer_norm": lambda x: F.layer_norm(x, (9, 11)),
    "layer_norm, affine": lambda x: F.layer_norm(
        x, (11,), torch.arange(11.0), torch.ones(11), 1e-3
    ),
    "rms_norm": lambda x: F.rms_norm(x, (11,), torch.arange(11.0)),
    "group_norm": lambda x: F.group_norm(x, 2, torch.arange(4.0), torch.ones(4)),
    "instance_norm": lambda x: F.instance_norm(x),
    "batch_norm": lambda x: F.batch_norm(
        x,
        torch.ones(4),
        torch.arange(4.0) + 0.1,
        torch.arange(4.0),
        torch.ones(4),
        False,
        0.1,
        1e-3,
    ),
    "attention": lambda x: F.scaled_dot_product_attention(*[_heads(x)] * 3),
    "attention, causal": lambda x: F.scaled_dot_product_attention(*[_heads(x)] * 3, is_causal=True),
    "attention, masked": lambda x: F.scaled_dot_product_attention(
        *[_heads(x)] * 3, attn_mask=torch.ones(9, 9).tril().bool()
    ),
    "attention, biased": lambda x: F.scaled_dot_product_attention(
        *[_heads(x)] * 3, attn_mask=_BIASES
    ),
    "attention, scaled": lambda x: F.scaled_dot_product_attention(*[_heads(x)] * 3, scale=0.3),
    "attention of many heads": lambda x: _ATTENTION(*[_heads(x)[:, 0]] * 3)[0],
}

EVERY: dict[str, Call] = ACTIVATIONS | ELEMENTWISE | REDUCTIONS | PLACES | WINDOWS | PRODUCTS


class Calls(nn.Module):
    """Some of them on one input, an output each."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.attention = _ATTENTION
        self.names = names

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(EVERY[name](x) for name in self.names)
