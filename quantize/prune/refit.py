"""Fitting the weights that stay to what the whole model computed, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgemix import graph as g
from edgemix.batched import batched
from edgemix.graph import aten
from edgemix.program import Program, Step
from edgemix.quantize.columns import columns, rows
from edgemix.quantize.prune.axes import Units
from edgemix.quantize.prune.cut import Keep

_AT_ONCE = 32
_DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the mean second moment; each layer takes the one that suits samples it was not fitted on."""
_HELD_OUT = 8
"""One part in so many is not fitted on."""


def refit(
    whole: Program,
    small: Program,
    units: Units,
    keep: Keep,
    samples: Tensor,
    on_step: Callable[[float], None] = lambda _: None,
) -> Program:
    """The pruned program with the weights that bring every layer closest to the whole model's.

    Both run side by side, operator by operator, over all samples. At each linear operator the
    weights are those of least squared error to the whole model's result, given what the pruned
    model has at this place: an error of the layers in front is made up for, not added to.
    Where the result is added to another value, that sum is what is fitted. The ridge pulls towards
    the weights that were cut (He et al., "Channel Pruning for Accelerating Very Deep Neural
    Networks", ICCV 2017, section 3.1, with the ridge of each layer chosen on samples held out).

    Args:
        whole: before pruning.
        small: after it: the same operators.
        units: of the whole program.
        keep: which of them stayed.
        samples: [n, ...].
        on_step: called with the share that is done.
    """
    pair = _Pair(whole, small, units, keep, samples)
    pair.run(on_step)
    module = small.module()
    for name, value in pair.fitted.items():
        set_constant(module, name, value)
    return small.with_module(module, Step("refit", {"samples": len(samples)}))


class _Pair:
    """Two graphs of the same operators, side by side."""

    def __init__(
        self, whole: Program, small: Program, units: Units, keep: Keep, samples: Tensor
    ) -> None:
        self.whole, _, mapped = batched(whole)
        self.small = batched(small)[0]
        self.units, self.keep = units, keep
        size = whole.inputs[0].shape[0] if mapped else _AT_ONCE
        self.pieces = torch.split(samples, size)
        self.fitted: dict[str, Tensor] = {}
        self.values: dict[Node, list[Any]] = {}
        self.of: dict[Node, Node] = {}
        """The whole graph's node for each of the small one's."""

    def run(self, on_step: Callable[[float], None]) -> None:
        before, after = (_calls(m) for m in (self.whole, self.small))
        assert [n.target for n in before] == [n.target for n in after]
        for module in (self.whole, self.small):
            given = module.graph.find_nodes(op="placeholder")
            self.values[given[0]] = list(self.pieces)
        self.of = dict(zip(after, before, strict=True))
        last = _last_uses(self.whole) | _last_uses(self.small)
        with torch.no_grad():
            for i, (old, new) in enumerate(zip(before, after, strict=True)):
                self._compute(self.whole, old)
                if _fits(new):
                    self._fit(old, new)
                self._compute(self.small, new)
                for node in (*last.get(old, ()), *last.get(new, ())):
                    self.values.pop(node, None)
                on_step((i + 1) / len(before))

    def _value(self, module: GraphModule, node: Node, piece: int) -> Any:
        return g.constant(module, node) if node.op == "get_attr" else self.values[node][piece]

    def _compute(self, module: GraphModule, node: Node) -> None:
        found = []
        for piece in range(len(self.pieces)):
            args, kwargs = map_arg(
                (node.args, node.kwargs),
                lambda n: self._value(module, n, piece),  # noqa: B023
            )
            assert callable(node.target)
            found.append(node.target(*args, **kwargs))
        self.values[node] = found

    def _fit(self, old: Node, new: Node) -> None:
        branch = _added(new)
        moments = (_Moments(), _Moments())
        for piece in range(len(self.pieces)):
            source: Any = new.args[0]
            x = self.values[source][piece]
            y = self._left(old, piece)
            if branch is not None:
                y = y + self._missing(branch, piece)
            wanted = rows(new, y)
            for some, part in _placed(columns(new, x), wanted):
                moments[piece % _HELD_OUT == _HELD_OUT - 1].add(part, some)
        weight: Any = new.args[1]
        bias: Any = new.args[2] if len(new.args) > 2 else None
        now = g.constant(self.small, weight)
        matrices = now.reshape(moments[0].groups, -1, moments[0].square.shape[-1])
        made, offset = _solve(moments, matrices, centred=bias is not None)
        self._replace(weight, made.reshape(now.shape).to(now.dtype))
        if bias is not None:
            self._replace(bias, offset.reshape(-1).to(now.dtype))

    def _left(self, node: Node, piece: int) -> Tensor:
        """What pruning leaves of a value of the whole graph."""
        value: Tensor = self.values[node][piece]
        for dim, axis in enumerate(self.units.axes[node.name]):
            if not self.keep[axis].all():
                value = value.index_select(dim, torch.from_numpy(np.flatnonzero(self.keep[axis])))
        return value

    def _missing(self, branch: tuple[Node, tuple[Node, ...]], piece: int) -> Tensor:
        """What the other term of a sum lacks, as the fitted layer sees it."""
        other, path = branch
        full = self.of.get(other)
        if full is None:
            return torch.zeros(())
        lack: Tensor = self._left(full, piece) - self.values[other][piece]
        for node in reversed(path):
            lack = self._undone(node, lack)
        return lack

    def _undone(self, node: Node, value: Tensor) -> Tensor:
        if node.target is aten.permute.default:
            order: Any = node.args[1]
            return value.permute([order.index(i) for i in range(len(order))])
        if node.target is aten.transpose.int:
            axes: Any = node.args[1:3]
            return value.transpose(*axes)
        factor: Any = node.args[1]
        scale = g.constant(self.small, factor)
        return value / torch.where(scale.abs() < _TINY, torch.inf, scale)

    def _replace(self, node: Node, value: Tensor) -> None:
        set_constant(self.small, str(node.target), value)
        self.fitted[str(node.target)] = value


_TINY = 1e-3
"""Behind a smaller factor, a layer cannot make up for what a sum lacks."""


def _added(node: Node) -> tuple[Node, tuple[Node, ...]] | None:
    """The other term of the sum that a result ends in, and the operators between, or None."""
    path: list[Node] = []
    while len(node.users) == 1:
        (reader,) = node.users
        if reader.target is aten.add.Tensor and len(reader.args) == 2:
            other = reader.args[0] if reader.args[1] is node else reader.args[1]
            known = isinstance(other, Node) and other.op == "call_function" and other is not node
            if known and g.shape_of(other) == g.shape_of(node):  # type: ignore[arg-type]
                return other, tuple(path)  # type: ignore[return-value]
            return None
        scaled = (
            reader.target is aten.mul.Tensor
            and reader.args[0] is node
            and isinstance(reader.args[1], Node)
            and reader.args[1].op == "get_attr"
        )
        if not scaled and reader.target not in (aten.permute.default, aten.transpose.int):
            return None
        path.append(reader)
        node = reader
    return None


class _Moments:
    """Second moments of columns and wanted rows, by group."""

    def __init__(self) -> None:
        self.count = 0
        self.square: Tensor = torch.zeros(())
        self.cross: Tensor = torch.zeros(())
        self.power: Tensor = torch.zeros(())
        self.sum: Tensor = torch.zeros(())
        self.wanted: Tensor = torch.zeros(())

    @property
    def groups(self) -> int:
        return len(self.square)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Columns [n, groups, columns, positions] and rows [n, groups, rows, positions]."""
        x, y = x.double(), y.double()
        self.count += x.shape[0] * x.shape[3]
        self.square = self.square + torch.einsum("ngcl,ngdl->gcd", x, x)
        self.cross = self.cross + torch.einsum("ngrl,ngcl->grc", y, x)
        self.power = self.power + y.square().sum((0, 3))
        self.sum = self.sum + x.sum((0, 3))
        self.wanted = self.wanted + y.sum((0, 3))

    def centred(self, *, means: bool) -> tuple[Tensor, Tensor]:
        """Covariances of the columns, and of rows with columns."""
        n = max(self.count, 1)
        if not means:
            return self.square / n, self.cross / n
        mx, my = self.sum / n, self.wanted / n
        return (
            self.square / n - mx[:, :, None] * mx[:, None, :],
            self.cross / n - my[:, :, None] * mx[:, None, :],
        )

    def plus(self, other: _Moments) -> _Moments:
        found = _Moments()
        found.count = self.count + other.count
        for name in ("square", "cross", "power", "sum", "wanted"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        return found


def _solve(
    moments: tuple[_Moments, _Moments], now: Tensor, *, centred: bool
) -> tuple[Tensor, Tensor]:
    """Weights [groups, rows, columns] and biases [groups, rows] of least squared error."""
    fit, check = moments
    damping = _DAMPINGS[1]
    if check.count and fit.count:
        damping = min(
            _DAMPINGS,
            key=lambda d: _error(_ridge(fit, now, d, centred=centred), fit, check, centred=centred),
        )
    everything = fit.plus(check) if check.count else fit
    weight = _ridge(everything, now, damping, centred=centred)
    n = max(everything.count, 1)
    offset = everything.wanted / n - torch.einsum("grc,gc->gr", weight, everything.sum / n)
    return weight, offset


def _ridge(moments: _Moments, now: Tensor, damping: float, *, centred: bool) -> Tensor:
    square, cross = moments.centred(means=centred)
    size = square.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)[:, None, None]
    ridge = damping * size
    eye = torch.eye(square.shape[1], dtype=square.dtype)
    pulled = (cross + ridge * now).transpose(1, 2)
    weight: Tensor = torch.linalg.solve(square + ridge * eye, pulled)
    return weight.transpose(1, 2)


def _error(weight: Tensor, fit: _Moments, check: _Moments, *, centred: bool) -> float:
    """Squared error on what was held out, with the bias of what was fitted."""
    n = max(fit.count, 1)
    offset = torch.zeros(weight.shape[:2], dtype=weight.dtype)
    if centred:
        offset = fit.wanted / n - torch.einsum("grc,gc->gr", weight, fit.sum / n)
    m = check.count
    error = (
        check.power
        - 2 * (weight * check.cross).sum(2)
        + torch.einsum("grc,gcd,grd->gr", weight, check.square, weight)
        + 2 * offset * (torch.einsum("grc,gc->gr", weight, check.sum) - check.wanted)
        + m * offset.square()
    )
    return float(error.sum())


def _placed(parts: Iterator[Tensor], wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Wanted rows beside the columns of the same samples."""
    start = 0
    for part in parts:
        yield wanted[start : start + len(part)], part
        start += len(part)


def _calls(module: GraphModule) -> list[Node]:
    return [n for n in module.graph.nodes if n.op == "call_function"]


def _fits(node: Node) -> bool:
    """Whether a layer's weights are its own."""
    if node.target not in g.LINEAR:
        return False
    weights: list[Any] = [a for a in node.args[1:3] if isinstance(a, Node)]
    return all(
        w.op == "get_attr"
        and sum(len(n.users) for n in node.graph.find_nodes(op="get_attr") if n.target == w.target)
        == 1
        for w in weights
    )


def _last_uses(module: GraphModule) -> dict[Node, list[Node]]:
    """For each node, the values that nobody reads after it."""
    last: dict[Node, Node] = {}
    for node in module.graph.nodes:
        for source in node.all_input_nodes:
            last[source] = node
    found: dict[Node, list[Node]] = {}
    for source, node in last.items():
        found.setdefault(node, []).append(source)
    return found


def set_constant(module: GraphModule, name: str, value: Tensor) -> None:
    """Put a value in the place of a graph's constant."""
    path, _, attribute = name.rpartition(".")
    holder = module.get_submodule(path)
    old = getattr(holder, attribute)
    if isinstance(old, torch.nn.Parameter):
        setattr(holder, attribute, torch.nn.Parameter(value, requires_grad=False))
    else:
        setattr(holder, attribute, value)
