"""How far a program strays from itself when roundings go the other way.

Integers that move redraw those of every layer behind, and deep models whose weights are drawn blow
a rounding of real numbers up. Where that alone misses a contract, no implementation that adds up in
another order can keep it but by chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgemix import graph as g
from edgemix.program import Program
from edgemix.proof import Fidelity, Floats, compare
from edgemix.rollout import each_step

_COMPARED = 64
"""Batches on which a program is held against itself."""


def strayed(program: Program, samples: Tensor) -> tuple[Tensor, ...]:
    """Outputs, and states after every step, when roundings go the other way.

    Of each layer, the sum that is nearest to a tie rounds the other way; of real numbers, every
    input is one rounding off.

    Args:
        program: with one input.
        samples: [n, ...]; of a program with states [n, steps, ...].
    """
    if not program.quantized:
        generator = torch.Generator().manual_seed(0)
        up = torch.rand(samples.shape, generator=generator) < 0.5
        ends = torch.where(up, torch.inf, -torch.inf)
        return followed(program, torch.nextafter(samples, ends))
    moved = _Moved(g.flat(program.module()))
    with torch.no_grad():
        if not program.states:
            batch = program.inputs[0].shape[0]
            pieces = [moved.run(x) for x in torch.split(samples, batch)]
            return tuple(torch.cat(piece) for piece in zip(*pieces, strict=True))
        sequences = [_rolled(moved, program, x) for x in samples]
        return tuple(torch.stack(found) for found in zip(*sequences, strict=True))


def followed(program: Program, samples: Tensor) -> tuple[Tensor, ...]:
    """What a program gives; with states, outputs and states after every step.

    Args:
        program: with one input.
        samples: [n, ...]; of a program with states [n, steps, ...].
    """
    if not program.states:
        return program.run(samples)
    found = program.rollout(samples)
    return (*found.outputs, *found.states)


def _rolled(moved: _Moved, program: Program, sequence: Tensor) -> tuple[Tensor, ...]:
    """What every step gives, [steps, ...] each."""
    start = tuple(state.start() for state in program.states)
    steps = each_step(program, moved.run, ((x[None],) for x in sequence), start)
    return tuple(torch.cat(found) for found in zip(*steps, strict=True))


def explained(
    fidelity: Fidelity, program: Program, samples: Tensor, expected: Floats, target: str
) -> Fidelity:
    """A contract of integers that was missed, with what the program keeps of it against itself.

    Args:
        fidelity: of an artifact.
        program: what it was made from.
        samples: [n, ...].
        expected: what the program gives for them.
        target: whose contract it is.
    """
    contract = fidelity.contract
    if fidelity.passed or program.states or contract.level != "lsb":
        return fidelity
    some = samples[: _COMPARED * program.inputs[0].shape[0]]
    moved = strayed(program, some)[0].numpy()
    own = compare(expected[: len(some)], moved, program.output_encodings[0], contract)
    if own.passed:
        return fidelity
    why = (
        f"{fidelity.why}; of the program's own {own.within:.2%} stay within 1 LSB when one sum of "
        "each layer is rounded the other way, so whatever adds up in another order strays as far: "
        f"--contract {target}=decisions@99% asks for what people see"
    )
    return replace(fidelity, why=why)


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
