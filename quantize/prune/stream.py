"""Where tokens flow, and where some of them can go.

Tokens are an axis that attention alone mixes: every other operator treats each of them alike, up to
a mean over them, or to the class token, which is the one that is read in the end. In such a stream
a token's place says nothing, so that any of them may go or become one, and every operator computes
the same in a smaller shape.

The stream is followed from the residual sum behind the first attention. Each axis of tokens carries
how many places it has passed at which tokens go: there are two counts in front of and behind one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.graph import aten
from edgemix.program import Program
from edgemix.quantize.prune.axes import shape
from edgemix.quantize.prune.rules import ELEMENTWISE, arguments, slice_of

Axes = Mapping[int, int]
"""Which axes of a value are tokens, and behind how many places they are."""


@dataclass(frozen=True)
class Place:
    """Between attention and the channel mixer behind it: where tokens go."""

    sum: str
    """The residual sum: [1, tokens, channels]."""
    softmax: str
    keys: str
    """What queries are multiplied by: [1, heads, channels, tokens]."""
    sizes: tuple[int, int, int]
    """Channels of a token, heads, channels of a key in one head."""
    where: g.Where


@dataclass(frozen=True)
class Stream:
    """Tokens from the first attention to the end."""

    places: tuple[Place, ...]
    count: int
    """Of the tokens, before any goes."""
    kept: int
    """So many in front are read one by one: a class token."""
    alone: bool
    """Whether no others are read in the end."""
    axes: Mapping[str, Axes]
    narrowed: tuple[tuple[str, str], ...]
    """(reader, source): where the last attention's reader takes the kept tokens alone, of which
    alone it is asked; none where all are read in the end."""
    means: tuple[str, ...]
    """Means over tokens."""


def find(program: Program) -> Stream:
    """The longest stream to the end of a program.

    Raises:
        InputError: there is no attention, or what follows it asks for tokens' places; the message
            says which operator does.
    """
    module = program.module()
    if program.states or len(program.inputs) != 1 or program.inputs[0].shape[0] != 1:
        raise InputError(
            "tokens are reduced in models of one input, batch 1 and no states",
            do="export the model for whole sequences, one at a time",
        )
    places = [p for n in module.graph.nodes if (p := _place(n)) is not None]
    if not places:
        raise InputError(
            "no attention over tokens was found: softmax(q · k) · v, a linear layer and a "
            "residual sum [1, tokens, channels]",
            at=program.origin.source,
            do="prune channels instead",
        )
    refusal: InputError | None = None
    for first in range(len(places)):
        try:
            return _follow(module, tuple(places[first:]))
        except InputError as error:
            refusal = error
    assert refusal is not None
    raise refusal


def _follow(module: GraphModule, places: tuple[Place, ...]) -> Stream:
    """The stream through these places."""
    flow = Flow(module, places, ())
    flow.run()
    if flow.pooled or not flow.kept:
        return flow.stream()
    narrowed = _only_asked(module, places[-1])
    if not narrowed:
        return flow.stream()
    flow = Flow(module, places, narrowed)
    flow.run()
    return flow.stream()


class Flow:
    """Which axes are tokens, found operator by operator."""

    def __init__(
        self, module: GraphModule, places: tuple[Place, ...], narrowed: tuple[tuple[str, str], ...]
    ) -> None:
        self.module, self.places, self.narrowed = module, places, narrowed
        self.axes: dict[Node, Axes] = {}
        self.kept = 0
        self.pooled: list[Node] = []
        self._sums = {p.sum: i + 1 for i, p in enumerate(places)}
        named = {n.name: n for n in module.graph.nodes}
        self.count = shape(named[places[0].sum])[1]

    def run(self) -> None:
        """Visit every operator behind the first place."""
        for node in self.module.graph.nodes:
            if node.op == "output":
                if any(self.axes.get(n) for n in node.all_input_nodes):
                    raise _refused(node, "the model gives a value for each token")
            elif node.name in self._sums:
                self._check_place(node)
                self.axes[node] = {1: self._sums[node.name]}
            elif any(self.axes.get(n) for n in node.all_input_nodes):
                rule = _RULES.get(node.target)
                if rule is None:
                    raise _refused(node, "it may ask for tokens' places")
                self.axes[node] = rule(self, node)

    def _check_place(self, node: Node) -> None:
        """What is added up behind a place must be the tokens of the place before, mixed."""
        number = self._sums[node.name] - 1
        if number == 0:
            return
        softmax = next(n for n in self.module.graph.nodes if n.name == self.places[number].softmax)
        if not self._elementwise(node) or self.axes.get(softmax, {}).get(3) != number:
            raise _refused(node, "attention apart from the tokens of the blocks before it")

    def stream(self) -> Stream:
        """What was found."""
        return Stream(
            self.places,
            self.count,
            self.kept,
            not self.pooled,
            {n.name: a for n, a in self.axes.items() if a},
            self.narrowed,
            tuple(n.name for n in self.pooled if n.target is aten.mean.dim),
        )

    def read(self, node: Node, source: Any) -> Axes:
        """The axes of tokens of what an operator reads."""
        axes = self.axes.get(source, {})
        if (node.name, getattr(source, "name", "")) in self.narrowed:
            return dict.fromkeys(axes or {1: 0}, len(self.places))
        return axes

    def _elementwise(self, node: Node) -> Axes:
        """Values of one shape, up to axes of one index."""
        found: dict[int, int] = {}
        ndim = len(shape(node))
        read = [a for a in node.args if isinstance(a, Node)]
        for source in read:
            shift = ndim - len(shape(source))
            for axis, label in self.read(node, source).items():
                if found.setdefault(axis + shift, label) != label:
                    raise _refused(node, "it reads tokens from before and after some are gone")
        for source in read:
            shift = ndim - len(shape(source))
            axes = self.read(node, source)
            for axis in found:
                own = axis - shift
                if own >= 0 and own not in axes and shape(source)[own] > 1:
                    what = "a constant" if source.op == "get_attr" else "a value"
                    raise _refused(node, f"{what} has a number for each token's place")
        return found

    def _linear(self, node: Node) -> Axes:
        axes = self.read(node, node.args[0])
        if len(shape(node)) - 1 in axes:
            raise _refused(node, "weights mix tokens by their places")
        return axes

    def _norm(self, node: Node) -> Axes:
        axes, sizes = self.read(node, node.args[0]), arguments(node)[1]
        if any(axis >= len(shape(node)) - len(sizes) for axis in axes):
            raise _refused(node, "it normalizes over tokens, with a gain for each place")
        return axes

    def _same(self, node: Node) -> Axes:
        return self.read(node, node.args[0])

    def _product(self, node: Node) -> Axes:
        a, b = arguments(node)[:2]
        left, right = self.read(node, a), self.read(node, b)
        ndim, rows, inner = len(shape(node)), len(shape(a)) - 2, len(shape(b)) - 2
        if left.get(rows + 1) != right.get(inner):
            raise _refused(node, "weights mix tokens by their places")
        found = {ndim - 2: left[rows]} if rows in left else {}
        if inner + 1 in right:
            found[ndim - 1] = right[inner + 1]
        if any(axis < rows for axis in left) or any(axis < inner for axis in right):
            raise _refused(node, "a product for each token by itself")
        return found

    def _view(self, node: Node) -> Axes:
        """Tokens stay an axis of their own; others may be merged and split."""
        source: Any = node.args[0]
        before, after = shape(source), shape(node)
        found = {}
        for axis, label in self.read(node, source).items():
            place = _same_axis(before, after, axis)
            if place is None:
                raise _refused(node, "it puts tokens on a grid, or together with channels")
            found[place] = label
        return found

    def _permute(self, node: Node) -> Axes:
        order = [int(i) % len(shape(node)) for i in arguments(node)[1]]
        axes = self.read(node, node.args[0])
        return {order.index(axis): label for axis, label in axes.items()}

    def _transpose(self, node: Node) -> Axes:
        ndim = len(shape(node))
        a, b = (0, 1) if node.target is aten.t.default else arguments(node)[1:3]
        swap = {a % ndim: b % ndim, b % ndim: a % ndim}
        axes = self.read(node, node.args[0])
        return {swap.get(axis, axis): label for axis, label in axes.items()}

    def _select(self, node: Node) -> Axes:
        source, dim, index = arguments(node)[:3]
        dim %= len(shape(source))
        axes = self.read(node, source)
        if dim in axes:
            if index < 0:
                raise _refused(node, "it reads a token other than the first ones")
            self.kept = max(self.kept, index + 1)
        return {a - (a > dim): label for a, label in axes.items() if a != dim}

    def _slice(self, node: Node) -> Axes:
        source = arguments(node)[0]
        dim, start, end, step = slice_of(node)
        axes = dict(self.read(node, source))
        if dim not in axes:
            return axes
        if step == 1 and start == 0:
            self.kept = max(self.kept, end)
            return {a: label for a, label in axes.items() if a != dim}
        if step == 1 and end == shape(source)[dim]:
            self.kept = max(self.kept, start)
            return axes
        raise _refused(node, "it parts tokens by their places")

    def _pool(self, node: Node) -> Axes:
        """Means, sums and extrema over tokens, or over channels."""
        source: Any = node.args[0]
        ndim = len(shape(source))
        given: Any = node.args[1] if len(node.args) > 1 else None
        dims = {int(d) % ndim for d in (given or range(ndim))}
        axes = self.read(node, source)
        if any(axis in dims for axis in axes):
            self.pooled.append(node)
        keepdim = bool(node.args[2]) if len(node.args) > 2 else False
        return {
            a if keepdim else a - sum(d < a for d in dims): label
            for a, label in axes.items()
            if a not in dims
        }

    def _cat(self, node: Node) -> Axes:
        parts: Any = node.args[0]
        ndim = len(shape(node))
        dim = int(arguments(node)[1] if len(node.args) > 1 else 0) % ndim
        found = self.read(node, parts[0])
        if dim in found or any(self.read(node, part) != found for part in parts):
            raise _refused(node, "tokens are put beside others")
        return found

    def _split(self, node: Node) -> Axes:
        dim = int(arguments(node)[2] if len(node.args) > 2 else 0)
        axes = self.read(node, node.args[0])
        if dim % len(shape(arguments(node)[0])) in axes:
            raise _refused(node, "it parts tokens by their places")
        return axes


def _same_axis(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    """Where an axis is after a view, or None where it is merged or split."""
    ahead = math.prod(before[:axis])
    for place, size in enumerate(after):
        if size == before[axis] and math.prod(after[:place]) == ahead:
            return place
    return None


def _refused(node: Node, why: str) -> InputError:
    at = node.all_input_nodes[0] if node.op == "output" else node
    return InputError(
        f"tokens cannot be reduced: {why}",
        at=f"{g.where(at)}, {g.op_name(at)}",
        do="prune channels instead",
    )


def _place(node: Node) -> Place | None:
    """The place behind the attention whose softmax this is."""
    square = shape(node)
    if node.target not in (aten.softmax.int, aten._softmax.default) or len(square) != 4:
        return None
    if arguments(node)[1] % 4 != 3 or square[2] != square[3] or square[0] != 1 or square[3] < 2:
        return None
    scores = _back(node.args[0], g.MATRIX_PRODUCT)
    if scores is None or shape(scores) != square:
        return None
    found: Node | None = node
    products = 0
    while found is not None:
        users = list(found.users)
        if len(users) != 1:
            return None
        (reader,) = users
        if reader.target in g.MATRIX_PRODUCT and reader.args[0] is found:
            products += 1
        elif reader.target is aten.add.Tensor and not _by_constant(reader):
            right = products == 1 and len(shape(reader)) == 3 and shape(reader)[1] == square[3]
            keys: Any = scores.args[1]
            if not right or len(shape(keys)) != 4:
                return None
            _, heads, channels, _ = shape(keys)
            sizes = shape(reader)[2], heads, channels
            return Place(reader.name, node.name, keys.name, sizes, g.where(reader))
        elif reader.target not in _CARRIES and not _by_constant(reader):
            return None
        found = reader
    return None


def _back(value: Any, targets: Any) -> Node | None:
    """The operator of some kind whose result this is, behind moves and arithmetic by constants."""
    node: Node | None = value
    while node is not None and node.target not in targets:
        if node.target not in _CARRIES - {aten.linear.default} and not _by_constant(node):
            return None
        node = next((a for a in node.args if isinstance(a, Node) and a.op != "get_attr"), None)
    return node


def _by_constant(node: Node) -> bool:
    values = [a for a in node.args[:2] if isinstance(a, Node) and a.op != "get_attr"]
    return node.target in g.ARITHMETIC and len(values) == 1


_CARRIES = (g.REORDERING | {aten.linear.default}) - {aten.expand.default}


def _only_asked(module: GraphModule, place: Place) -> tuple[tuple[str, str], ...]:
    """Edges at which the last attention can take the kept tokens alone: queries, and the sum."""
    named = {n.name: n for n in module.graph.nodes}
    total, softmax = named[place.sum], named[place.softmax]
    scores = _back(softmax.args[0], g.MATRIX_PRODUCT)
    assert scores is not None
    query: Any = scores.args[0]
    while query.target is not aten.linear.default:
        if query.target not in _CARRIES and not _by_constant(query):
            return ()
        (query,) = [a for a in query.args if isinstance(a, Node) and a.op != "get_attr"]
        if len(query.users) != 1 or query.op != "call_function":
            return ()
    source: Any = query.args[0]
    rows = shape(source)
    (stream,) = [a for a in total.args[:2] if not _from(a, softmax)]
    if len(rows) != 3 or rows[:2] != shape(total)[:2] or not isinstance(stream, Node):
        return ()
    return ((query.name, source.name), (total.name, stream.name))


def _from(node: Any, source: Node) -> bool:
    """Whether a chain of single values leads from a node to another."""
    while node is not source:
        values = [a for a in node.args[:2] if isinstance(a, Node) and a.op != "get_attr"]
        if node.target in g.MATRIX_PRODUCT:
            values = values[:1]
        if len(values) != 1:
            return False
        node = values[0]
    return True


_RULES: dict[Any, Any] = {
    **dict.fromkeys(ELEMENTWISE, Flow._elementwise),
    aten.linear.default: Flow._linear,
    aten.layer_norm.default: Flow._norm,
    aten.rms_norm.default: Flow._norm,
    **dict.fromkeys(g.MATRIX_PRODUCT, Flow._product),
    **dict.fromkeys((aten.softmax.int, aten._softmax.default, operator.getitem), Flow._same),
    **dict.fromkeys(g.SAME_ORDER, Flow._view),
    aten.permute.default: Flow._permute,
    aten.transpose.int: Flow._transpose,
    aten.t.default: Flow._transpose,
    aten.select.int: Flow._select,
    aten.slice.Tensor: Flow._slice,
    **dict.fromkeys(
        (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default), Flow._pool
    ),
    aten.cat.default: Flow._cat,
    **dict.fromkeys((aten.split.Tensor, aten.split_with_sizes.default), Flow._split),
}
