"""The first and the last layers in more bits than the others."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.quantize.recipe import LayerException, Recipe


def keep_ends(module: GraphModule, recipe: Recipe) -> Recipe:
    """The recipe with an exception for every linear operator at either end of a graph.

    Exceptions that the recipe has win over these.
    """
    if recipe.ends is None:
        return recipe
    there = {e.match for e in recipe.exceptions}
    wide = {"weights": recipe.ends}
    if recipe.operands is not None:
        wide["operands"] = recipe.ends
    found = tuple(
        LayerException(match=node.name, **wide)  # type: ignore[arg-type]
        for node in ends(module)
        if node.name not in there
    )
    return recipe.model_copy(update={"exceptions": (*found, *recipe.exceptions)})


def ends(module: GraphModule) -> list[Node]:
    """The linear operators that no other stands before, and those that none comes after."""
    nodes = list(module.graph.nodes)
    behind: set[Node] = set()
    for node in nodes:
        if any(s in behind or s.target in g.LINEAR for s in node.all_input_nodes):
            behind.add(node)
    before: set[Node] = set()
    for node in reversed(nodes):
        if any(u in before or u.target in g.LINEAR for u in node.users):
            before.add(node)
    linear = [n for n in nodes if n.target in g.LINEAR]
    return [n for n in linear if n not in behind or n not in before]
