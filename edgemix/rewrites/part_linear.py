"""One linear operator for queries, keys and values → one for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.base import inherit
from edgemix.seams import moved_axis

_SHAPED = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)


@dataclass(frozen=True)
class PartLinear:
    """``linear → view [..., n, ...] → (permute) → select(i) for all i`` → n linear operators.

    The same products and sums. But what is taken apart needs no common range: queries, keys and
    values each get their own, and a factor of one of them can go into its weights.
    """

    name: ClassVar[str] = "part_linear"

    def apply(self, module: GraphModule) -> int:
        """Part them all; returns how many there were."""
        count = 0
        for linear in module.graph.find_nodes(op="call_function", target=aten.linear.default):
            count += _part(module, linear, self.name)
        return count


def _part(module: GraphModule, linear: Node, name: str) -> bool:
    weight: Any = linear.args[1]
    chain: list[Node] = []
    node = linear
    while len(node.users) == 1 and next(iter(node.users)).target in g.REORDERING:
        node = next(iter(node.users))
        chain.append(node)
    if not chain or chain[0].target not in _SHAPED or weight.op != "get_attr":
        return False
    if any(view.target in _SHAPED for view in chain[1:]):
        return False
    features = g.shape_of(linear)[-1]
    before, after = g.shape_of(linear)[:-1], g.shape_of(chain[0])
    if after[: len(before)] != before or len(after) == len(before):
        return False
    axis = len(before)  # the first of those that the features were laid out on
    parts = after[axis]
    at: int | None = axis
    for view in chain[1:]:
        at = None if at is None else moved_axis(view, at)
    selects = [(s, *_arguments(s)) for s in node.users]
    ndim = len(g.shape_of(node))
    if at is None or any(
        s.target is not aten.select.int or dim % ndim != at for s, dim, _ in selects
    ):
        return False
    indices = [index % parts for _, _, index in selects]
    if sorted(indices) != list(range(parts)):
        return False
    rows = features // parts
    bias = linear.args[2] if len(linear.args) > 2 else None
    for (select, dim, _), index in zip(selects, indices, strict=True):
        taken = slice(index * rows, (index + 1) * rows)
        constants = []
        for kind, constant in (("weight", weight), ("bias", bias)):
            if isinstance(constant, Node):
                value = g.constant(module, constant)[taken].clone()
                name_of = f"{linear.name}_{kind}_{index}"
                constants.append(g.add_constant(module, linear, name_of, value))
        with module.graph.inserting_before(linear):
            new = inherit(
                module.graph.call_function(aten.linear.default, (linear.args[0], *constants)),
                linear, name,
            )  # fmt: skip
            new.meta["val"] = linear.meta["val"][..., taken]
            for view in chain:
                args = (new, *view.args[1:])
                if view is chain[0]:
                    args = (new, [*before, 1, *after[axis + 1 :]])
                moved = inherit(module.graph.call_function(view.target, args), view, name)  # type: ignore[arg-type]
                moved.meta["val"] = view.target(new.meta["val"], *args[1:])  # type: ignore[operator]
                new = moved
        select.target, select.args = aten.squeeze.dim, (new, dim)
    return True


def _arguments(select: Node) -> tuple[int, int]:
    """Axis and index of a select; of anything else something harmless."""
    args: list[Any] = [*select.args, 0, 0]
    return (args[1], args[2]) if select.target is aten.select.int else (0, 0)
