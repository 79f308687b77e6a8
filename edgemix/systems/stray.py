"""How far a program strays from itself when roundings go the other way.

Integers that move redraw those of every layer behind, and deep models whose weights are drawn blow
a rounding of real numbers up. Where that alone misses a contract, no implementation that adds up in
another order can keep it but by chance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgemix import graph as g
from edgemix.program import Program


def strayed(program: Program, samples: Tensor) -> Tensor:
    """The first output when, of each layer, the sum that is nearest to a tie rounds the other way.

    Of real numbers, when every input is one rounding off.

    Args:
        program: without states.
        samples: [n, ...], for its only input.
    """
    if not program.quantized:
        generator = torch.Generator().manual_seed(0)
        up = torch.rand(samples.shape, generator=generator) < 0.5
        ends = torch.where(up, torch.inf, -torch.inf)
        return program.run(torch.nextafter(samples, ends))[0]
    moved = _Moved(program.shared)
    with torch.no_grad():
        outputs = [moved.run(x) for x in torch.split(samples, program.inputs[0].shape[0])]
    return torch.cat([x[0] if isinstance(x, (tuple, list)) else x for x in outputs])


class _Moved(Interpreter):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.roundings = set[Node]()
        layer = False
        for node in module.graph.nodes:
            layer = layer or node.target in g.PRODUCT
            if layer and g.is_quantize(node):
                self.roundings.add(node)
                layer = False

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.roundings:
            sums, scale, zero, low, high = self.fetch_args_kwargs_from_env(n)[0][:5]
            wanted = sums / scale + zero
            off = (wanted - value).where((wanted > low) & (wanted < high), 0.0).flatten()
            hardest = off.abs().argmax()
            value = value.clone()
            value.flatten()[hardest] += off[hardest].sign().to(value.dtype)
        return value
