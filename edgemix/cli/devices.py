"""``edgemix devices`` and ``edgemix estimate``: what devices are known, and how long they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgemix.errors import EXIT_GATE

if TYPE_CHECKING:
    from edgemix.latency.device import Device
    from edgemix.latency.estimate import Estimate
    from edgemix.latency.fits import Accuracy, Fit

_WORST = 12
"""Operators that a table lists; --json has all."""


def devices(
    name: Annotated[
        str | None, typer.Argument(help="Show one: its name, or the path of a profile.")
    ] = None,
    accuracy: Annotated[
        bool,
        typer.Option(
            "--accuracy",
            help="How far estimates were off for models whose family the fit never saw.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """List the devices that edgemix knows, every figure with its source.

    Accuracies are cross-validated by model family, beside two baselines on the same folds:
    multiplications times a constant, and a regression on multiplications and parameters.
    """
    from edgemix.cli import console
    from edgemix.latency import device

    chosen = [device.load(n) for n in ((name,) if name else device.names())]
    if as_json:
        console.print_json([_json(d, accuracy=accuracy) for d in chosen])
    elif accuracy:
        _print_accuracy(chosen)
    elif name:
        _print_one(chosen[0])
    else:
        _print_all(chosen)


def estimate(
    source: Annotated[str, typer.Argument(help="Whatever deploy takes.")],
    on: Annotated[
        str, typer.Option("--device", help="A device that `edgemix devices` lists, or a profile.")
    ],
    target: Annotated[
        str | None, typer.Option(help="What runs there; default: the device's first.")
    ] = None,
    step: Annotated[
        bool, typer.Option("--step", help="One step of a model with a memory.")
    ] = False,
    budget: Annotated[str | None, typer.Option(help="The longest time, like 2ms.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Estimate how long a model takes on a device, operator by operator, with an interval.

    Exit code 0: estimated, within the budget if there is one; 1: over it; 2: bad input.
    """
    from dataclasses import asdict

    from edgemix import rewrites, sources
    from edgemix.cli import console
    from edgemix.latency import device
    from edgemix.latency.budget import Budget
    from edgemix.latency.estimate import estimate as estimated

    place = device.load(on)
    limit = None if budget is None else Budget.of_time(budget).limit
    with console.Bars(quiet=as_json) as bars, bars.step(f"load {source}"):
        program = rewrites.standard(sources.load(source, step=step))
    found = estimated(program, place, target)
    if as_json:
        operators = [
            {"node": str(t.work.where), "op": t.work.op, "kind": t.work.kind, "ms": t.ms}
            for t in found.operators
        ]
        console.print_json(
            {
                "latency": asdict(found.latency), "low_ms": found.low_ms, "high_ms": found.high_ms,
                "published": [asdict(p) for p in found.published], "notes": found.notes,
                "operators": operators,
            }
        )  # fmt: skip
    else:
        _print_estimate(found)
    if limit is not None and found.latency.p50_ms > limit:
        raise typer.Exit(EXIT_GATE)


def _json(found: Device, *, accuracy: bool) -> object:
    from dataclasses import asdict

    from edgemix.latency.fits import fits

    told = found.model_dump(mode="json")
    if accuracy:
        told["accuracy"] = {
            r.fit: {
                "judged_by": fits()[r.fit].judged_by,
                **{name: asdict(a) for name, a in fits()[r.fit].accuracy.items()},
            }
            for r in found.runtimes
        }
    return told


def _print_all(found: list[Device]) -> None:
    from edgemix.cli import console
    from edgemix.latency.device import ASSUMED

    rows = []
    for d in found:
        assumed = sum(f.source == ASSUMED for f in d.figures)
        runs = ", ".join(dict.fromkeys(f"{r.target} {r.precision}" for r in d.runtimes)) or "none"
        rows.append((d.name, d.title, d.chip, runs, str(len(d.figures)), str(assumed)))
    names = ("device", "title", "chip", "estimates for", "figures", "assumed")
    console.out.print(console.plain_table(names, rows, words=(0, 1, 2, 3)))


def _print_one(found: Device) -> None:
    from edgemix.cli import console

    console.say(f"{found.title}: {found.chip}")
    if found.figures:
        facts = [(f.what, f"{f.value:,g} {f.unit}".strip(), f.source) for f in found.figures]
        console.out.print(console.plain_table(("figure", "value", "source"), facts, words=(0, 2)))
    if found.runtimes:
        rows = [
            (
                r.target, r.unit, r.precision,
                r.fit if r.faster == 1 else f"{r.fit}, {r.faster:g} times as fast", r.source,
            )
            for r in found.runtimes
        ]  # fmt: skip
        names = ("target", "where", "precision", "costs of", "because")
        console.out.print(console.plain_table(names, rows, words=range(5)))


def _print_accuracy(found: list[Device]) -> None:
    from edgemix.cli import console
    from edgemix.latency.fits import fits

    names = ("costs of", "median error", "within 10 %", "regression", "MACs × constant")
    used = dict.fromkeys(r.fit for d in found for r in d.runtimes)
    rows = [_accuracy_row(fits()[name]) for name in used]
    console.out.print(console.plain_table(names, rows))
    console.out.print(
        "Medians of the relative error and Kendall's τ, for models whose family was left out of "
        "the fit. *: judged by all models of its chip or engine, its own are too few. `edgemix "
        "devices` tells which device goes by which costs.",
        highlight=False,
    )


def _accuracy_row(fit: Fit) -> list[str]:
    def short(found: Accuracy) -> str:
        return f"{found.median_error:.1%} τ {found.rank_correlation:.2f}"

    own = fit.accuracy["estimator"]
    mark = "" if fit.judged_by.endswith(f" {fit.name}") else " *"
    return [
        fit.name + mark, short(own), f"{own.within_tenth:.0%}",
        short(fit.accuracy["regression"]), short(fit.accuracy["multiplications"]),
    ]  # fmt: skip


def _print_estimate(found: Estimate) -> None:
    from edgemix.cli import console
    from edgemix.latency.units import duration

    latency = found.latency
    console.say(
        f"{duration(latency.p50_ms, 3)} estimated on {latency.device} "
        f"(four of five models: {duration(found.low_ms, 3)} to {duration(found.high_ms, 3)})"
    )
    console.say(latency.method)
    for note in found.notes:
        console.say(f"note: {note}")
    rows = [
        (
            str(t.work.where), t.work.kind,
            f"{t.work.multiplications / 1e6:.3g} M" if t.work.multiplications else "",
            duration(t.ms, 3), f"{t.ms / latency.p50_ms:.1%}",
        )
        for t in sorted(found.operators, key=lambda t: -t.ms)[:_WORST]
    ]  # fmt: skip
    names = ("operator", "kind", "products", "time", "share")
    console.out.print(console.plain_table(names, rows, words=(0, 1)))
