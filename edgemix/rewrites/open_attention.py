"""Attention as one operator → its two products and the softmax between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.base import drawn, step


@dataclass(frozen=True)
class OpenAttention:
    """softmax(q kᵀ · scale + mask) v, written out (Vaswani et al., 2017, equation 1).

    Scores and probabilities are values like others then: they can be quantized, and every target
    has the operators. The scale goes to the queries, of which there are fewer than scores.
    """

    name: ClassVar[str] = "open_attention"

    def apply(self, module: GraphModule) -> int:
        """Open them all; returns how many there were.

        Raises:
            UnsupportedError: a dropout that is on, whose results are drawn.
        """
        found = module.graph.find_nodes(
            op="call_function", target=aten.scaled_dot_product_attention.default
        )
        for node in found:
            _open(module, node, self.name)
        return len(found)


def _open(module: GraphModule, node: Node, name: str) -> None:
    given: dict[str, Any] = dict(
        zip(
            ("query", "key", "value", "attn_mask", "dropout_p", "is_causal"),
            node.args,
            strict=False,
        )
    )
    given |= node.kwargs
    if given.get("dropout_p"):
        raise drawn(node)
    q, k, v = given["query"], given["key"], given["value"]
    scale = given.get("scale")
    scale = 1.0 / math.sqrt(g.shape_of(q)[-1]) if scale is None else float(scale)
    factor = g.add_constant(module, node, f"{node.name}_scale", torch.tensor([scale]))
    mask = given.get("attn_mask")
    if given.get("is_causal"):
        rows, columns = g.shape_of(q)[-2], g.shape_of(k)[-2]
        mask = torch.ones(rows, columns, dtype=torch.bool).tril()
    if isinstance(mask, Node) and mask.op == "get_attr":
        mask = g.constant(module, mask)
    if isinstance(mask, torch.Tensor):
        # A finite number far below any score: exp of it is 0, and a table can hold it.
        real = torch.where(mask, 0.0, _FAR) if mask.dtype is torch.bool else mask.clamp(min=_FAR)
        mask = g.add_constant(module, node, f"{node.name}_mask", real)
    with module.graph.inserting_before(node):
        scaled = step(node, name, aten.mul.Tensor, q, factor)
        turned = step(node, name, aten.transpose.int, k, -2, -1)
        scores = step(node, name, aten.matmul.default, scaled, turned)
        if mask is not None:
            scores = step(node, name, aten.add.Tensor, scores, mask)
        weights = step(node, name, aten.softmax.int, scores, -1)
        mixed = step(node, name, aten.matmul.default, weights, v)
    node.replace_all_uses_with(mixed)
    module.graph.erase_node(node)


_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_FAR = -30.0
