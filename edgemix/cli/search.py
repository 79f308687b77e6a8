"""``edgemix search``: recipes and models tried out, and which of them nothing else beats."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemix.errors import EXIT_GATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgemix.search.study import Trial


def search(
    file: Annotated[
        Path, typer.Argument(metavar="DEPLOY.TOML", help="A deployment with a table [search].")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for trials, page and journal; default: the file's."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at once, a process each.")] = 1,
    engine: Annotated[
        str | None,
        typer.Option(
            help="dask://HOST:PORT: the workers of a Dask scheduler in the place of processes; "
            "they have to see the output folder."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Start anew: drop what the output folder holds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trials as JSON.")] = False,
) -> None:
    """Try recipes, widths and model variants; keep those that no other beats.

    Minimises what is lost, times and size together. Each trial on that front stays as a whole
    deployment in OUT/trials/NNN, with the others' reports; OUT/search.html shows them all. What
    was interrupted goes on where it was.

    Exit code 0: a trial passed every gate; 1: none did; 2: the input cannot be used.
    """
    from edgemix import deployment, files
    from edgemix.cli import console
    from edgemix.errors import InputError
    from edgemix.latency import device
    from edgemix.search import study
    from edgemix.search.page import render
    from edgemix.search.space import Space

    found = deployment.read(file, out)
    space = Space.of(found)
    assert found.search is not None
    for i, name in enumerate(found.order.devices):
        try:
            device.load(name)
        except InputError as error:  # once here, in the place of every trial
            raise found.locate(("devices", i), error.what, error.do) from error
    total = float(min(found.search.trials, len(space.combinations)))
    with console.Bars(quiet=quiet or as_json) as bars, bars.step("search", total) as done:
        seen: set[int] = set()

        def told(trial: Trial) -> None:
            seen.add(trial.number)
            done(len(seen))
            bars.say(f"{trial.name} {' '.join(trial.params.values())}: {_line(trial)}")

        trials = study.search(
            found, file, file.read_text(encoding="utf-8"), jobs=jobs, engine=engine, force=force,
            told=told,
        )  # fmt: skip
    page = found.order.out / "search.html"
    files.write_text(page, render(found.order.source, space.objectives, trials))
    if as_json:
        console.print_json(
            {"objectives": list(space.objectives), "trials": [asdict(t) for t in trials]}
        )
    elif not quiet:
        _print(space.objectives, trials)
        console.say(f"page: {page}")
    if not any(t.passed for t in trials):
        raise typer.Exit(EXIT_GATE)


def _line(trial: Trial) -> str:
    from edgemix.search.outcome import shown

    if trial.failed:
        return f"failed: {trial.failed}"
    labels = trial.accuracy is not None
    values = ", ".join(f"{n} {shown(n, v, labels=labels)}" for n, v in trial.values.items())
    return f"{values}{'' if trial.passed else '; missed a gate'}"


def _print(objectives: Sequence[str], trials: Sequence[Trial]) -> None:
    from edgemix.cli import console
    from edgemix.search.outcome import shown
    from edgemix.search.page import heading

    best = sorted((t for t in trials if t.front), key=lambda t: t.values[objectives[0]])
    labels = any(t.accuracy is not None for t in best)
    choices = list(dict.fromkeys(name for t in trials for name in t.params))
    names = ["front", *choices, *(heading(n, labels=labels) for n in objectives), "gates"]
    rows = [
        [
            t.name,
            *(t.params[c] for c in choices),
            *(shown(n, t.values[n], labels=labels) for n in objectives),
            "passed" if t.passed else "missed",
        ]
        for t in best
    ]
    console.out.print(console.plain_table(names, rows, words=range(1 + len(choices))))
    failed = [t for t in trials if t.failed]
    console.out.print(
        f"{len(best)} of {len(trials)} trials on the front"
        + (f", {len(failed)} failed" if failed else ""),
        highlight=False,
    )
