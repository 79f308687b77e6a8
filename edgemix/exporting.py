"""``torch.export`` as the house uses it: static shapes, no chatter, origins that stay."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves


def export(module: nn.Module, example: tuple[Tensor, ...]) -> ExportedProgram:
    """``torch.export`` with static shapes and without its chatter."""
    _forget_sources(module)
    with quiet(), torch.no_grad():
        exported = torch.export.export(module, example, strict=False)
    _forget_sources(exported.graph_module)
    return exported


def _forget_sources(module: nn.Module) -> None:
    """Drop what torch keeps of a node's forebears: it copies all of them whenever it copies one."""
    for part in module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("from_node", None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back third-party warnings: what matters to a user is an error or in the report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def call(module: GraphModule, *tensors: Tensor) -> tuple[Tensor, ...]:
    """What a graph's module gives, as a tuple; it keeps nothing for gradients."""
    with torch.inference_mode():
        result = module(*(row_major(t) for t in tensors))
    return result if isinstance(result, tuple) else (result,)


def row_major(tensor: Tensor) -> Tensor:
    """Row-major strides, also where several orders are equally good: kernels choose by strides."""
    return tensor.clone(memory_format=torch.contiguous_format)


class Leaves(nn.Module):
    """A model whose outputs lie in tuples, lists or dictionaries of one another, side by side."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
        return tuple(tree_leaves(self.model(*inputs)))


def nested(graph: ExportedProgram) -> bool:
    """Whether outputs lie in one another, or in a dictionary."""
    spec = graph.call_spec.out_spec
    flat = spec is None or spec.is_leaf() or spec.type in (tuple, list)
    return not flat or any(not child.is_leaf() for child in (spec.children() if spec else ()))


def mutated_buffer(graph: ExportedProgram) -> str | None:
    """A buffer that a run changes, in the graph's signature or by an in-place operator."""
    signature = graph.graph_signature
    declared = list(signature.buffers_to_mutate.values())
    if declared:
        return str(declared[0])
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable and node.args[0].op == "placeholder":
            buffer = signature.inputs_to_buffers.get(node.args[0].name)
            if buffer is not None:
                return str(buffer)
    return None


def copy_origins(source: GraphModule, exported: ExportedProgram) -> None:
    """Give an exported graph the module paths and source lines of the graph it was made from."""
    before = [n for n in source.graph.nodes if n.op == "call_function"]
    after = [n for n in exported.graph.nodes if n.op == "call_function"]
    if [n.target for n in before] != [n.target for n in after]:
        return
    for old, new in zip(before, after, strict=True):
        for key in ("nn_module_stack", "stack_trace"):
            if key in old.meta:
                new.meta[key] = old.meta[key]
            else:
                new.meta.pop(key, None)
