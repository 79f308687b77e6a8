"""A graph over fewer tokens: reductions put in, and every number that says how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from edgemix import graph as g
from edgemix.exporting import export
from edgemix.graph import aten
from edgemix.quantize.prune.axes import shape
from edgemix.quantize.prune.choices import TokenMethod
from edgemix.quantize.prune.matching import KINDS, Merging
from edgemix.quantize.prune.rules import arguments, slice_of
from edgemix.quantize.prune.stream import Stream

_TO_THE_END = 2**63 - 1
_REDUCTION = "edgemix_tokens"


def counts_of(stream: Stream, gone: Sequence[int]) -> list[int]:
    """How many tokens there are before the first place, and after each."""
    counts = [stream.count]
    for some in gone:
        counts.append(counts[-1] - some)
    return counts


def copied(module: GraphModule) -> GraphModule:
    """The same graph to be changed, over the same weights."""
    graph, named = Graph(), dict[Node, Node]()
    graph.output(graph.graph_copy(module.graph, named))
    for old, new in named.items():
        new.meta = dict(old.meta)
    return GraphModule(module, graph)


def shorten(
    module: GraphModule,
    stream: Stream,
    gone: Sequence[int],
    method: TokenMethod,
    proportional: bool,
) -> None:
    """Let so many tokens go at each place, in place; reductions are called as modules."""
    named = {n.name: n for n in module.graph.nodes}
    counts = counts_of(stream, gone)
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


def inline(module: GraphModule) -> None:
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
