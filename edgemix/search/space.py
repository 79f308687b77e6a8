"""What a search may vary, and what one choice of it asks to be deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from edgemix.deployment import NONE, Deployment
from edgemix.deployment.schema import Search
from edgemix.latency.device import called
from edgemix.order import Order
from edgemix.quantize.prune.recipe import Pruning

LOSS, SIZE = "loss", "size"
TIMED = {"onnx": "measured", "tflite": "measured", "rtl": "simulated"}
"""Targets whose time this machine finds, and how; times on devices are estimated."""

Params = Mapping[str, str]


@dataclass(frozen=True)
class Space:
    """Choices by what they are about, and what is minimised."""

    choices: Mapping[str, tuple[str, ...]]
    objectives: tuple[str, ...]

    @classmethod
    def of(cls, deployment: Deployment) -> Space:
        """The space of a file's ``[search]``.

        Raises:
            InputError: there is no such table, it varies nothing, or it names an objective that
                there is none of.
        """
        table, order = deployment.search, deployment.order
        if table is None:
            raise deployment.locate((), "there is no table [search]", 'like recipes = ["int8"]')
        found = {
            "variant": tuple(v.name or v.source for v in table.variants),
            "recipe": tuple(dict.fromkeys(table.recipes)),
            "quality": tuple(dict.fromkeys(table.quality)),
            "bits": tuple(dict.fromkeys(table.bits)),
            "pruning": tuple(dict.fromkeys(table.pruning)),
        }
        choices = {name: values for name, values in found.items() if values}
        if not choices:
            raise deployment.locate(
                ("search",), "it varies nothing", "give recipes, quality, bits, pruning or variants"
            )
        return cls(choices, _objectives(deployment, table, order))

    @property
    def combinations(self) -> list[dict[str, str]]:
        """All that there are."""
        return [
            dict(zip(self.choices, values, strict=True))
            for values in product(*self.choices.values())
        ]


def chosen(order: Order, table: Search, params: Params, out: Path) -> Order:
    """The order of one trial."""
    sources = {v.name or v.source: v.source for v in table.variants}
    changes: dict[str, Any] = {"out": out, "force": True}
    if "variant" in params:
        changes["source"] = sources[params["variant"]]
    if "quality" in params:
        changes["quality"] = None if params["quality"] == NONE else params["quality"]
    if "pruning" in params:
        changes["pruning"] = _pruned(order.pruning or Pruning(), params["pruning"])
    changes.update({name: params[name] for name in ("recipe", "bits") if name in params})
    return replace(order, **changes)


def _pruned(pruning: Pruning, budget: str) -> Pruning | None:
    """As the order wants it, to another budget; a search draws its own curve."""
    if budget == NONE:
        return None
    return pruning.model_copy(update={"budget": budget, "curve": []})


def _objectives(deployment: Deployment, table: Search, order: Order) -> tuple[str, ...]:
    timed = [name for name in order.targets if name in TIMED]
    known = [LOSS, *timed, *map(called, order.devices), SIZE]
    for i, name in enumerate(table.objectives):
        if name not in known:
            raise deployment.locate(
                ("search", "objectives", i), f"there is no {name} to minimise here",
                f"use {', '.join(known)}",
            )  # fmt: skip
    return tuple(name for name in known if name in (table.objectives or known))
