"""Options on the command line win over the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from edgemix.order import Order

FIELDS = {
    "to": "targets", "prune": "pruning", "device": "devices", "budget": "budgets",
    "contract": "contracts",
    "part": "hardware.part", "clock": "hardware.clock_ns", "backend": "hardware.backend",
    "io": "hardware.interface", "reuse": "hardware.reuse", "strategy": "hardware.strategy",
    "layer": "hardware.layers", "image": "shipping.image", "batches": "shipping.batches",
    "author": "shipping.author", "licence": "shipping.licence", "labels": "shipping.labels",
    **{
        name: name
        for name in (
            "out", "calibrate", "evaluate", "recipe", "quality", "bits", "samples",
            "evaluate_samples", "step", "chunk", "unroll", "stream", "max_drop", "threads",
            "shapes", "force",
        )
    },
}  # fmt: skip
"""The field of an order that each option sets."""
_BY_NAME = ("budgets", "contracts")
"""Lists of ``name=value``: what the command line names takes the place of the file's."""


def over(order: Order, asked: Order, options: Iterable[str]) -> Order:
    """A file's order with what was asked for by options.

    Args:
        order: the file's.
        asked: the one that the command line alone would give.
        options: names of the parameters that were given there.
    """
    given = set(options)
    if "calibrate" in given and order.evaluate == order.calibrate:
        order = replace(order, evaluate=asked.evaluate)  # which is calibration's by default
    for option in given:
        field, _, inner = FIELDS.get(option, "").partition(".")
        if not field:
            continue
        value: Any = getattr(asked, field)
        if inner:
            value = replace(getattr(order, field), **{inner: getattr(value, inner)})
        elif field in _BY_NAME:
            named = {text.partition("=")[0]: text for text in (*getattr(order, field), *value)}
            value = tuple(named.values())
        order = replace(order, **{field: value})
        if option == "chunk":
            order = replace(order, step=True)
    return order
