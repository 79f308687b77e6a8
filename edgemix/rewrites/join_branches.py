"""Convolutions of the same input whose results are added → one convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn.functional import pad

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.affine import gives_affine, scale_outputs
from edgemix.rewrites.writer import Writer
from edgemix.seams import output_axis, per_channel

_DEFAULTS: tuple[Any, ...] = (None, 1, 0, 1, 1)
"""Of a convolution: bias, stride, padding, dilation, groups."""


@dataclass(frozen=True)
class JoinBranches:
    """What was trained as branches beside each other becomes what they compute together.

    Ding et al., "RepVGG", CVPR 2021, section 3.3; Vasu et al., "FastViT", ICCV 2023, equation 2::

        conv3×3(x) + conv1×1(x) + norm(x)         becomes   conv3×3(x)
        x + γ · (depthwise(x) − norm(x))          becomes   depthwise(x)
        norm(depthwise(x) + a·x + x)              becomes   depthwise(x)

    where ``fold_norm`` left a depthwise 1×1 convolution of each norm. Kernels are padded to the
    largest and groups widened to hold all of them, wherever that takes no more products than the
    branches took. What another operator reads too is no branch.

    A residual without a norm is one beside other branches of a depthwise convolution alone. In
    ``x + depthwise(x)`` it stays: a weight near one would take the bits of the small ones beside
    it. In four such blocks on noise, 8 bits gain or lose little (+3 to -2 dB of signal to noise),
    but 6 lose 2 to 7 dB and 4 lose 3 to 16, and all that is saved is a sum; beside a dense kernel
    it saves even less.
    """

    name: ClassVar[str] = "join_branches"

    def apply(self, module: GraphModule) -> int:
        """Join them all; returns how many sums and norms there were."""
        count = 0
        for node in list(module.graph.nodes):  # in order: a branch may be a sum of branches
            if _is_sum(node) and not _is_inner(node):
                count += _join_sum(module, node, self.name)
            elif node.target in g.CONVOLUTION:
                count += _join_norm(module, node)
        return count


@dataclass(frozen=True)
class _Branch:
    """A linear operator of ``source``."""

    source: Node
    target: Any
    weight: Tensor
    """[out, in / groups, *kernel]."""
    bias: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int
    joined: bool
    """Whether several branches were trained beside each other."""

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    @property
    def windows(self) -> tuple[Any, ...]:
        """The same for branches whose windows lie around the same centres.

        An even kernel has its centre between two positions: k − 2p is even too, and no odd one's.
        """
        inside = tuple(k - 2 * p for k, p in zip(self.kernel, self.padding, strict=True))
        return self.source, self.target, self.weight.shape[0], self.stride, inside

    def times(self, factor: Tensor) -> _Branch:
        weight = self.weight * factor.reshape(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=self.bias * factor)

    def widened(self, kernel: tuple[int, ...], groups: int) -> _Branch:
        """The same operator as a larger kernel in fewer groups."""
        margins = [(k - own) // 2 for k, own in zip(kernel, self.kernel, strict=True)]
        weight = pad(self.weight, [m for margin in reversed(margins) for m in (margin, margin)])
        if groups < self.groups:
            weight = _spread(weight, groups, self.groups // groups)
        padding = tuple(p + m for p, m in zip(self.padding, margins, strict=True))
        return replace(self, weight=weight, padding=padding, groups=groups)


def _spread(weight: Tensor, groups: int, parts: int) -> Tensor:
    """Every ``parts`` groups as one: zeros between channels that did not meet."""
    blocks = weight.reshape(groups, parts, -1, *weight.shape[1:])
    wide = blocks.new_zeros(*blocks.shape[:3], parts, *blocks.shape[3:])
    for i in range(parts):
        wide[:, i, :, i] = blocks[:, i]
    return wide.reshape(weight.shape[0], -1, *weight.shape[2:])


def _join_sum(module: GraphModule, node: Node, name: str) -> bool:
    terms = list(_terms(node, 1))
    # Python's sum() starts from a zero.
    added = [(x, s) for x, s in terms if isinstance(x, Node) or x != 0]
    parts = _parts(module, added)
    if len(parts) == len(terms):
        return False
    write, result = Writer(module, node, name), None
    for term, sign in parts:
        value = _written(write, term) if isinstance(term, _Branch) else term
        target = aten.add.Tensor if sign > 0 else aten.sub.Tensor
        result = value if result is None else write(target, result, value)
    assert result is not None
    operands = node.all_input_nodes
    write.replace(result)
    _erase(module, operands)
    return True


def _parts(module: GraphModule, terms: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
    """Terms with signs, each a node, a number, or the branch that several of them become."""
    known: dict[int, _Branch] = {}
    for i, (term, sign) in enumerate(terms):
        branch = _branch(module, term)
        if branch is not None:
            known[i] = branch if sign > 0 else branch.times(torch.tensor([-1.0]))
    # The largest first, so that what is smaller finds it; identities last.
    order = sorted(known, key=lambda i: -known[i].weight.numel())
    order += [i for i in range(len(terms)) if i not in known]
    bins: list[tuple[list[int], _Branch | None]] = []
    for i in order:
        for at, (members, branch) in enumerate(bins):
            other = known.get(i) or _identity(*terms[i], branch)
            both = branch and other and _both(branch, other)
            if both:
                bins[at] = ([*members, i], both)
                break
        else:
            bins.append(([i], known.get(i)))
    bins.sort(key=lambda b: min(b[0]))
    return [(branch, 1) if len(m) > 1 else terms[m[0]] for m, branch in bins]


def _both(a: _Branch, b: _Branch) -> _Branch | None:
    """One operator for two, unless it takes more products."""
    if a.windows != b.windows:
        return None
    groups = math.gcd(a.groups, b.groups)
    kernel = tuple(map(max, a.kernel, b.kernel))
    products = a.weight.shape[0] * (a.weight.shape[1] * a.groups // groups) * math.prod(kernel)
    if products > a.weight.numel() + b.weight.numel():
        return None
    a, b = a.widened(kernel, groups), b.widened(kernel, groups)
    return replace(a, weight=a.weight + b.weight, bias=a.bias + b.bias, joined=True)


def _identity(x: Any, sign: int, beside: _Branch | None) -> _Branch | None:
    """A residual as a branch, beside those of a depthwise convolution of the same value."""
    if beside is None or beside.source is not x or not beside.joined:
        return None
    if beside.weight.shape[:2] != (beside.groups, 1):
        return None
    c, axes = beside.groups, len(beside.kernel)
    weight = torch.full((c, 1, *[1] * axes), float(sign))
    return _Branch(
        x, beside.target, weight, torch.zeros(c), (1,) * axes, (0,) * axes, c, joined=False
    )


def _branch(module: GraphModule, node: Any) -> _Branch | None:
    """What a node computes, where nobody else reads it; None where it is no linear operator."""
    if not isinstance(node, Node) or len(node.users) != 1:
        return None
    return _scaled(module, node) if node.target is aten.mul.Tensor else _operator(module, node)


def _operator(module: GraphModule, node: Node) -> _Branch | None:
    if node.target not in g.LINEAR or output_axis(node) is None:
        return None
    given: list[Any] = [*node.args, *_DEFAULTS[len(node.args) - 2 :]]
    source, weight, bias, *geometry, groups = given
    value = g.constant(module, weight)
    axes = value.ndim - 2
    if any(isinstance(each, str) for each in geometry) or not (bias is None or _constant(bias)):
        return None
    stride, padding, dilation = (_each(numbers, axes) for numbers in geometry)
    if any(d != 1 for d in dilation):
        return None
    shift = value.new_zeros(len(value)) if bias is None else g.constant(module, bias)
    joined = node.meta.get("edgemix_rewrite") == JoinBranches.name
    return _Branch(source, node.target, value, shift, stride, padding, groups, joined)


def _scaled(module: GraphModule, node: Node) -> _Branch | None:
    """A branch times a constant: one number, or one for each channel."""
    x: Any
    factor: Any
    x, factor = node.args[:2]
    if _constant(x):
        x, factor = factor, x
    branch = _branch(module, x)
    if branch is None or g.shape_of(x) != g.shape_of(node):
        return None
    if isinstance(factor, (int, float)):
        return branch.times(torch.tensor([float(factor)]))
    axis = 1 if branch.kernel else len(g.shape_of(x)) - 1
    by = per_channel(g.constant(module, factor), x, axis) if _constant(factor) else None
    return None if by is None else branch.times(by)


def _written(write: Writer, branch: _Branch) -> Node:
    bias = write.constant("bias", branch.bias) if branch.bias.any() else None
    args: list[Any] = [branch.source, write.constant("weight", branch.weight), bias]
    if branch.kernel:
        args += [list(branch.stride), list(branch.padding), [1] * len(branch.kernel), branch.groups]
    return write(branch.target, *args)


def _join_norm(module: GraphModule, node: Node) -> bool:
    """A norm behind a sum, now that the sum is one convolution."""
    norm = _operator(module, node)
    if norm is None or norm.weight.numel() != norm.groups or not gives_affine(norm.source):
        return False
    if any(norm.padding) or any(s != 1 for s in norm.stride):
        return False
    scale_outputs(module, norm.source, norm.weight.flatten(), norm.bias)
    node.replace_all_uses_with(norm.source, propagate_meta=False)
    _erase(module, [node])
    return True


def _terms(node: Node, sign: int) -> Iterator[tuple[Any, int]]:
    """What a tree of sums and differences adds up, with signs."""
    other = -sign if node.target is aten.sub.Tensor else sign
    for operand, own in zip(node.args, (sign, other), strict=True):
        if isinstance(operand, Node) and _is_inner(operand):
            yield from _terms(operand, own)
        else:
            yield operand, own


def _is_sum(node: Node) -> bool:
    return node.target in g.ADDITION and len(node.args) == 2 and not node.kwargs


def _is_inner(node: Node) -> bool:
    """Whether a sum is a term of one other sum, and nothing else."""
    return _is_sum(node) and len(node.users) == 1 and _is_sum(next(iter(node.users)))


def _erase(module: GraphModule, nodes: list[Node]) -> None:
    """Nodes that nobody reads any more, and what only they read: it would count as a reader."""
    for node in nodes:
        if not node.users and node.op == "call_function":
            operands = node.all_input_nodes
            module.graph.erase_node(node)
            _erase(module, operands)


def _constant(value: Any) -> bool:
    return isinstance(value, Node) and value.op == "get_attr"


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """What an operator takes as one number, or as one for each axis."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return numbers if len(numbers) == axes else numbers * axes
