"""In which type Core ML computes a program, and what that costs.

Sixteen bits: every result is rounded once, by at most u = 2**-11 of itself. Independent roundings
add up as the root of their number, so a chain of d operators strays by about u·√d, of which the
contract allows three times (Higham, "Accuracy and Stability of Numerical Algorithms", 2002,
section 2.8). A unit that also *adds up* in 16 bits may stray further, see :func:`summing_bound`:
the evaluator adds up in 32, as Core ML's CPU does, and no contract here speaks for other units.
"""

from __future__ import annotations

import math

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.program import Program
from edgemix.proof import Contract
from edgemix.targets import base

FLOAT32 = "float32"
UNIT = 2.0**-11
"""The largest relative error of one rounding to float16."""
_ALLOWED = 3.0


def wide(program: Program) -> bool:
    """Whether it is computed in 32 bits: asked for, or for states, whose 16 bits need more."""
    return program.floats == "float32" or bool(program.states)


def promise(program: Program) -> Contract:
    """The contract of a package made from this program."""
    if wide(program):
        return base.promised(program, Contract("lsb", 1, 0.99))
    bound = _ALLOWED * UNIT * math.sqrt(depth(program.shared))
    return base.promised(program, Contract("decisions", 0, 0.99), Contract("relative", bound=bound))


def depth(module: GraphModule) -> int:
    """Operators that compute, on the longest way from an input to an output."""
    longest: dict[Node, int] = {}
    computing = set(g.float_ops(module))
    for node in module.graph.nodes:
        before = max((longest[n] for n in node.all_input_nodes), default=0)
        longest[node] = before + (node in computing)
    return max(longest.values(), default=0)


def summing_bound(terms: int) -> float:
    """What adding up products in 16 bits, in any order, may cost: a share of Σ|x·w|.

    γ_n = n·u / (1 - n·u) (Higham 2002, section 3.1); infinite where n·u reaches 1.
    """
    strayed = terms * UNIT
    return strayed / (1 - strayed) if strayed < 1 else math.inf


def longest_sum(program: Program) -> int:
    """The most products that one output of a linear operator adds up."""
    module, most = program.shared, 0
    for node in module.graph.nodes:
        if node.target in g.LINEAR:
            weight = g.shape_of(node.args[1])
            most = max(most, math.prod(weight[1:]))
    return most


def described(program: Program) -> str:
    """For the report: the type, and what a unit that adds up in it may cost."""
    if wide(program):
        return FLOAT32
    terms = longest_sum(program)
    bound, typical = summing_bound(terms), UNIT * math.sqrt(terms)
    worst = f"{bound:.1%}" if math.isfinite(bound) else "any share"
    return (
        f"float16, added up in 32 bits here; a unit that adds up to {terms} products in 16 bits "
        f"strays by about {typical:.1%} of their sizes, at worst by {worst}"
    )
