"""Fewer tokens: attention models in smaller shapes, without training.

Where tokens may go is found in the graph (``stream.py``), how they go is the method's
(``matching.py``), and how many go at each place is what costs the outputs least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from edgemix import graph as g
from edgemix.batched import batched
from edgemix.diagnosis import macs, multiply_accumulates
from edgemix.errors import InputError
from edgemix.exporting import export
from edgemix.graph import aten
from edgemix.program import Program, Step
from edgemix.quantize.prune.axes import shape
from edgemix.quantize.prune.matching import KINDS, Merging, Method
from edgemix.quantize.prune.rules import arguments, slice_of
from edgemix.quantize.prune.stream import Place, Stream, find

_STEPS = 16
"""Tokens go in steps of one so many-th of them."""
_AT_ONCE = 32
_MEASURED, _WORK = 64, 5e9
"""Samples that schedules are compared on, and their multiply-accumulates, at most."""
_LEAST = 4
"""Samples that they are compared on, however large the model."""
_TO_THE_END = 2**63 - 1
_REDUCTION = "edgemix_tokens"


@dataclass(frozen=True)
class Reduced:
    """One place at which tokens go."""

    where: g.Where
    before: int
    after: int


@dataclass(frozen=True)
class TokenPlan:
    """How many tokens there are, and what that saves."""

    method: Method
    schedule: str
    """``constant``: as many go everywhere; ``greedy``: where it costs the outputs least."""
    kept: int
    """Tokens in front that always stay."""
    layers: tuple[Reduced, ...]
    macs: tuple[int, int]
    """Multiply-accumulates before and after, what choosing tokens costs among them."""
    choosing: int
    """Of those after, what choosing and moving tokens takes."""
    sqnr_db: float | None
    """Of the outputs on the samples; None where they are the same."""


def reduce_tokens(
    program: Program,
    samples: Tensor,
    method: Method = "pitome",
    budget: float = 0.65,
    on_step: Callable[[float], None] = lambda _: None,
    *,
    proportional: bool = True,
) -> tuple[Program, TokenPlan]:
    """Let tokens go until a program keeps within a budget.

    Where the model is asked for its class token alone, the last attention computes no other, which
    changes nothing. Then the same number goes at every place, or as many as cost the outputs least
    in steps of a sixteenth, whichever gives the smaller error.

    Args:
        program: float, after the standard rewrites; the result takes them again, which make
            constants of the numbers that choosing tokens computes with.
        samples: [n, ...], of which the first 64 are run, fewer of large models.
        method: who goes, and what becomes of it.
        budget: multiply-accumulates that stay, as a share.
        on_step: called with the share that is done.
        proportional: let attention count a merged token as often as the tokens it stands for.

    Raises:
        InputError: there are no tokens that can go, or not enough of them.
    """
    if program.quantized:
        raise InputError(
            "tokens are reduced in the float program", do="reduce them first, quantize then"
        )
    if not budget > 0.0:
        raise InputError(f"a budget must be above 0 %: {budget:.1%}")
    if not len(samples):
        raise InputError("schedules are compared on samples, and there are none")
    enough = max(int(_WORK / max(multiply_accumulates(program), 1)), _LEAST)
    study = _Study(program, find(program), method, proportional, samples[: min(enough, _MEASURED)])
    gone, schedule, error = study.choose(budget, on_step)
    module = g.flat(program.module())
    _insert(module, study.stream, gone, method, proportional)
    _inline(module)
    step = Step("reduce_tokens", {"method": method, "gone": list(gone)})
    small = program.with_module(module, step)
    choosing = sum(study.overhead(gone))
    plan = TokenPlan(
        method, schedule, study.stream.kept, tuple(_layers(study.stream, gone)),
        (multiply_accumulates(program), multiply_accumulates(small)), choosing,
        study.db(error),
    )  # fmt: skip
    on_step(1.0)
    return small, plan


def _layers(stream: Stream, gone: Sequence[int]) -> list[Reduced]:
    counts = _counts(stream, gone)
    return [
        Reduced(p.where, *pair) for p, pair in zip(stream.places, pairwise(counts), strict=True)
    ]


def _counts(stream: Stream, gone: Sequence[int]) -> list[int]:
    """How many tokens there are before the first place, and after each."""
    counts = [stream.count]
    for some in gone:
        counts.append(counts[-1] - some)
    return counts


class _Study:
    """What schedules cost and save."""

    def __init__(
        self, program: Program, stream: Stream, method: Method, proportional: bool, samples: Tensor
    ) -> None:
        self.stream, self.method, self.proportional = stream, method, proportional
        self.base, _, mapped = batched(program)
        self.pieces = torch.split(samples, 1 if mapped else _AT_ONCE)
        self.whole = [self._outputs(self.base, x) for x in self.pieces]
        self.scale = sum(float(y.double().square().sum()) for y in self.whole)
        self._costs: dict[tuple[int, int, Place], int] = {}
        self._terms = list(_terms(program.module(), stream))

    def choose(
        self, budget: float, on_step: Callable[[float], None]
    ) -> tuple[tuple[int, ...], str, float]:
        """How many tokens go at each place, by which schedule, at which squared error.

        Raises:
            InputError: all that may go does not suffice; the message says how far it goes.
        """
        whole = self.macs((0,) * len(self.stream.places))
        free = self._rest((0,) * self._open)
        limit = budget * whole
        if self.macs(free) <= limit:
            return free, "constant", self.error(free)
        constant = self._constant()
        floor = min(map(self.macs, [free, *constant]))
        gone = self._greedy(limit, on_step)
        found = [] if gone is None else [(self.error(gone), "greedy", gone)]
        within = [gone for gone in constant if self.macs(gone) <= limit]
        found += [(self.error(gone), "constant", gone) for gone in within[:1]]
        if not found:
            raise InputError(
                f"the budget cannot be met: {floor / whole:.1%} is the least that reducing tokens "
                f"by {self.method} leaves",
                do="ask for less, or prune channels too",
            )
        error, name, gone = min(found)
        return gone, name, error

    @property
    def _open(self) -> int:
        """Places at which it is to be chosen how many go."""
        return len(self.stream.places) - bool(self.stream.narrowed)

    def _rest(self, gone: tuple[int, ...]) -> tuple[int, ...]:
        """With all that nobody asks for gone at the last place."""
        last = self.stream.count - sum(gone) - self.stream.kept
        return (*gone, last) if self.stream.narrowed else gone

    def _most(self, gone: Sequence[int]) -> int:
        """How many can go behind these."""
        return KINDS[self.method].most(self.stream.count - sum(gone) - self.stream.kept)

    def _fits(self, gone: tuple[int, ...]) -> bool:
        return all(some <= self._most(gone[:i]) for i, some in enumerate(gone))

    def _constant(self) -> list[tuple[int, ...]]:
        """As many everywhere as there are: one, two and so on."""
        found = []
        for some in range(1, self._most(()) + 1):
            gone: tuple[int, ...] = ()
            for _ in range(self._open):
                gone = (*gone, min(some, self._most(gone)))
            found.append(self._rest(gone))
        return found

    def _greedy(self, limit: float, on_step: Callable[[float], None]) -> tuple[int, ...] | None:
        """Always where a multiply-accumulate less costs least."""
        gone = (0,) * self._open
        start = self.macs(self._rest(gone))
        step = max(self.stream.count // _STEPS, 1)
        error = self.error(self._rest(gone))
        while (now := self.macs(self._rest(gone))) > limit:
            on_step((start - now) / (start - limit))
            best: tuple[float, tuple[int, ...], float] | None = None
            for i in range(len(gone)):
                taken = self._more(gone, i, step, limit)
                if taken is None:
                    continue
                found = self.error(self._rest(taken))
                price = (found - error) / (now - self.macs(self._rest(taken)))
                if best is None or price < best[0]:
                    best = price, taken, found
            if best is None:
                return None
            _, gone, error = best
        return self._rest(gone)

    def _more(
        self, gone: tuple[int, ...], place: int, step: int, limit: float
    ) -> tuple[int, ...] | None:
        """A step more at one place, or less than that where less suffices."""
        now = self.macs(self._rest(gone))
        for count in (*range(1, step), step, 2 * step):
            taken = (*gone[:place], gone[place] + count, *gone[place + 1 :])
            if not self._fits(taken):
                return None
            left = self.macs(self._rest(taken))
            if left <= limit or (count >= step and left < now):
                return taken
        return None

    def macs(self, gone: tuple[int, ...]) -> int:
        """Multiply-accumulates with so many tokens gone."""
        counts = _counts(self.stream, gone)
        total = 0.0
        for product, labels in self._terms:
            total += product * math.prod(counts[n] / self.stream.count for n in labels)
        return round(total) + sum(self.overhead(gone))

    def overhead(self, gone: tuple[int, ...]) -> list[int]:
        """What choosing and moving tokens takes at each place."""
        counts = _counts(self.stream, gone)
        return [
            self._cost(counts[i], gone[i], place)
            for i, place in enumerate(self.stream.places[: self._open])
            if gone[i]
        ]

    def _cost(self, count: int, gone: int, place: Place) -> int:
        key = count, gone, place
        if key not in self._costs:
            width, heads, channels = place.sizes
            reduction = KINDS[self.method](count, gone, self.stream.kept, 0.0)
            self._costs[key] = reduction.macs(width, heads, channels)
        return self._costs[key]

    def error(self, gone: tuple[int, ...]) -> float:
        """Squared error of the first output, summed over samples."""
        module = _copy(self.base)
        _insert(module, self.stream, gone, self.method, self.proportional)
        return sum(
            float((self._outputs(module, x) - y).double().square().sum())
            for x, y in zip(self.pieces, self.whole, strict=True)
        )

    def db(self, error: float) -> float | None:
        """The SQNR that an error leaves."""
        return 10 * math.log10(self.scale / error) if error and self.scale else None

    @staticmethod
    def _outputs(module: GraphModule, x: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = module(x)[0]
        return found


def _terms(module: GraphModule, stream: Stream) -> Any:
    """Every product's multiply-accumulates, and the counts of tokens that scale it."""
    for node in module.graph.nodes:
        if node.target not in g.PRODUCT:
            continue
        labels = list(stream.axes.get(node.name, {}).values())
        if node.target in g.MATRIX_PRODUCT:
            left = arguments(node)[0]
            inner = stream.axes.get(left.name, {}).get(len(shape(left)) - 1)
            labels += [] if inner is None else [inner]
        yield macs(node), labels


def _copy(module: GraphModule) -> GraphModule:
    """The same graph to be changed, over the same weights."""
    graph, named = Graph(), dict[Node, Node]()
    graph.output(graph.graph_copy(module.graph, named))
    for old, new in named.items():
        new.meta = dict(old.meta)
    return GraphModule(module, graph)


def _insert(
    module: GraphModule, stream: Stream, gone: Sequence[int], method: Method, proportional: bool
) -> None:
    """Let so many tokens go at each place, in place; reductions are called as modules."""
    named = {n.name: n for n in module.graph.nodes}
    counts = _counts(stream, gone)
    _resize(named, stream, counts)
    size: Node | None = None
    open_ = len(stream.places) - bool(stream.narrowed)
    for i, place in enumerate(stream.places[:open_]):
        total, softmax = named[place.sum], named[place.softmax]
        if size is not None and proportional:
            _count_merged(module, softmax, size, stream.kept)
        if not gone[i]:
            continue
        reduction = KINDS[method](counts[i], gone[i], stream.kept, i / len(stream.places))
        name = f"{_REDUCTION}_{i}"
        module.add_submodule(name, reduction)
        merges = isinstance(reduction, Merging)
        if merges and size is None:
            ones = torch.ones(1, counts[i] - stream.kept, 1)
            size = g.add_constant(module, total.next, f"{_REDUCTION}_sizes", ones)
        more = size if merges else softmax
        with module.graph.inserting_before(_after(total, size)):
            taken = module.graph.call_module(name, (total, more, named[place.keys]))
            fewer = taken
            if merges:
                fewer = module.graph.call_function(_part, (taken, 0))
                size = module.graph.call_function(_part, (taken, 1))
        total.replace_all_uses_with(fewer, lambda n, skip=taken: n is not skip)  # type: ignore[misc]
        for node in (taken, fewer, size):
            if node is not None and node.op != "get_attr":
                _describe(node, total)
    if size is not None and proportional and stream.narrowed:
        _count_merged(module, named[stream.places[-1].softmax], size, stream.kept)
    for reader, source in stream.narrowed:
        _slice(named[reader], named[source], stream.kept)
    if size is not None:
        for pooled in stream.means:
            _weigh(named[pooled], size, stream)
    module.graph.lint()
    module.recompile()


def _after(total: Node, size: Node | None) -> Node:
    """The operator before which both are there."""
    return size.next if size is not None and size.prev is total else total.next


def _part(pair: tuple[Tensor, Tensor], number: int) -> Tensor:
    return pair[number]


def _describe(node: Node, like: Node) -> None:
    for key in ("nn_module_stack", "stack_trace"):
        if key in like.meta:
            node.meta[key] = like.meta[key]


def _resize(named: dict[str, Node], stream: Stream, counts: Sequence[int]) -> None:
    """Write fewer tokens where an operator says how many there are."""
    for name, axes in stream.axes.items():
        node = named[name]
        if node.target in (aten.view.default, aten.reshape.default, aten._unsafe_view.default):
            sizes: Any = list(arguments(node)[1])
            for axis, label in axes.items():
                sizes[axis] = shape(node)[axis] - (stream.count - counts[label])
            node.args = (node.args[0], sizes)
        elif node.target is aten.slice.Tensor:
            _open_end(node, stream)


def _open_end(node: Node, stream: Stream) -> None:
    source: Any = node.args[0]
    dim, start, _, _ = slice_of(node)
    if dim in stream.axes.get(source.name, {}):
        node.args = (source, dim, start, _TO_THE_END)


def _slice(reader: Node, source: Node, kept: int) -> None:
    """Let a reader take the first tokens alone."""
    current = next(n for n in reader.all_input_nodes if n is source or _stands_for(n, source))
    with reader.graph.inserting_before(reader):
        first = reader.graph.call_function(aten.slice.Tensor, (current, 1, 0, kept))
    _describe(first, reader)
    reader.replace_input_with(current, first)


def _stands_for(node: Node, source: Node) -> bool:
    """Whether a value is what is left of another's tokens."""
    call: Any = node.args[0] if node.target is _part else node
    return call.op == "call_module" and call.args[0] is source


def _count_merged(module: GraphModule, softmax: Node, size: Node, kept: int) -> None:
    """Add the logarithms of sizes to scores: a merged token counts as often as it stands for."""
    scores: Any = softmax.args[0]
    graph = module.graph
    with graph.inserting_before(softmax):
        log = graph.call_function(aten.log.default, (size,))
        row = graph.call_function(aten.transpose.int, (log, 1, 2))
        if kept:
            row = graph.call_function(aten.constant_pad_nd.default, (row, [kept, 0], 0.0))
        row = graph.call_function(aten.unsqueeze.default, (row, 1))
        added = graph.call_function(aten.add.Tensor, (scores, row))
    for node in (log, row, added):
        _describe(node, softmax)
    softmax.replace_input_with(scores, added)


def _weigh(mean: Node, size: Node, stream: Stream) -> None:
    """Let a mean over tokens count each as often as it stands for."""
    source: Any = mean.args[0]
    axes = stream.axes.get(source.name, {})
    sizes = shape(source)
    if list(axes) != [1] or len(sizes) != 3:
        return
    graph = mean.graph
    with graph.inserting_before(mean):
        weights = size
        if sizes[1] == stream.count and stream.kept:
            ends = [0, 0, stream.kept, 0]
            weights = graph.call_function(aten.constant_pad_nd.default, (size, ends, 1.0))
        whole = graph.call_function(aten.mul.Tensor, (source, weights))
        total = graph.call_function(aten.sum.dim_IntList, (whole, *mean.args[1:]))
        found = graph.call_function(aten.mul.Tensor, (total, 1.0 / sizes[1]))
    for node in (whole, total, found):
        _describe(node, mean)
    mean.replace_all_uses_with(found)
    graph.erase_node(mean)


def _inline(module: GraphModule) -> None:
    """Write the operators of reductions in the place of their calls."""
    for call in list(module.graph.nodes):
        if call.op != "call_module":
            continue
        name = str(call.target)
        given: Any = call.args
        reduction: Any = module.get_submodule(name)
        count, heads = reduction.kept + reduction.free, shape(given[2])[1:3]
        more = (
            torch.ones(1, reduction.free, 1) if isinstance(reduction, Merging)
            else torch.zeros(1, heads[0], count, count)
        )  # fmt: skip
        example = (torch.zeros(1, count, shape(given[0])[2]), more, torch.zeros(1, *heads, count))
        body: Any = export(reduction, example).module(check_guards=False)
        values: dict[Node, Node] = {}
        places = iter(given)
        for node in body.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(places)
            elif node.op == "get_attr":
                own = f"{name}_{str(node.target).replace('.', '_')}"
                values[node] = g.add_constant(module, call, own, g.constant(body, node))
            elif node.op == "call_function":
                with module.graph.inserting_before(call):
                    values[node] = module.graph.node_copy(node, lambda n: values[n])  # noqa: B023
                values[node].meta = {"val": node.meta["val"]}
                _describe(values[node], call)
        (output,) = body.graph.find_nodes(op="output")
        results: Any = map_arg(output.args[0], lambda n: values[n])  # noqa: B023
        for user in list(call.users):
            if user.target is _part:
                user.replace_all_uses_with(results[user.args[1]])
                module.graph.erase_node(user)
        if call.users:
            call.replace_all_uses_with(
                results[0] if isinstance(results, (tuple, list)) else results
            )
        module.graph.erase_node(call)
        module.delete_submodule(name)
