"""The search itself: one process asks and keeps the journal, workers only deploy.

A journal with one writer is whole at every moment but for its last line, so whatever is killed
costs the trials that it was at, and these are taken up again.
"""

from __future__ import annotations

import fcntl
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemix import files
from edgemix.deployment import Deployment
from edgemix.errors import EdgemixError, InputError
from edgemix.extras import need
from edgemix.report import schema
from edgemix.search import engine as engines
from edgemix.search import outcome
from edgemix.search.attempt import attempt
from edgemix.search.space import Space

JOURNAL, LOCK, TRIALS = "search.journal", "search.lock", "trials"
_ASKED = 8
"""How often the sampler may name what was tried before something untried is taken."""
_DEATHS = 2
"""Workers that a trial may take along while nothing else runs."""
_SAME, _WHY, _SEARCH = "same as", "failed", "search"


@dataclass(frozen=True)
class Trial:
    """One choice, and what came of it."""

    number: int
    params: Mapping[str, str]
    values: Mapping[str, float]
    """By objective; empty where it failed."""
    failed: str = ""
    """Why there are no values."""
    passed: bool = False
    """Whether every gate of its deployment passed."""
    accuracy: float | None = None
    front: bool = False
    """Whether no other trial beats it."""

    @property
    def name(self) -> str:
        """Its folder's."""
        return f"{self.number:03d}"


Told = Callable[[Trial], None]


def search(
    deployment: Deployment, file: Path, text: str, *, jobs: int = 1, engine: str | None = None,
    force: bool = False, told: Told = lambda trial: None, work: engines.Work = attempt,
) -> list[Trial]:  # fmt: skip
    """Carry out what a file's ``[search]`` asks for, or go on where it was.

    Args:
        deployment: of the file.
        file: its path.
        text: what it holds.
        jobs: processes at once.
        engine: ``dask://HOST:PORT`` in the place of processes; None: here.
        force: drop what the output folder holds.
        told: called with every trial that is done, also with those of earlier runs.
        work: carries out a trial.

    Returns:
        The trials in their order.

    Raises:
        InputError: bad choices, or a folder that holds something else or another search.
        ToolError: the engine cannot be reached.
    """
    space, out = Space.of(deployment), deployment.order.out.resolve()
    engines.check(engine)
    need("optuna", extra="search")
    if not (out / JOURNAL).exists():
        files.check_output_folder(out, force=force)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        if force:
            files.clear(out, keep=(LOCK,))
        study = _Study.open(deployment, space, out, file.resolve(), text)
        for trial in study.done():
            told(trial)
        while True:
            suspect = study.suspect()
            requests = study.requests() if suspect is None else iter([suspect])
            try:
                for answer in engines.run(work, requests, jobs, engine):
                    told(study.tell(answer))
                if suspect is None:
                    return study.trials()
            except engines.Lost:
                study.bury()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One process writes a folder's journal; the lock ends with it, however that ends."""
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another search is at work in {out}", do="wait for it, or name another folder"
            ) from error
        yield


def _mend(journal: Path) -> None:
    """Cut off a last line that was not written to its end."""
    if journal.exists():
        with journal.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


class _Study:
    """An Optuna study with the house's rules: nothing is tried twice, nothing is lost."""

    def __init__(self, study: Any, storage: Any, base: Mapping[str, Any], space: Space,
                 deployment: Deployment, out: Path) -> None:  # fmt: skip
        assert deployment.search is not None
        self._study, self._storage, self._base, self._space = study, storage, base, space
        self._table, self._out = deployment.search, out
        self._lock = threading.RLock()
        self._deaths: dict[int, int] = {}
        self._flying: set[int] = set()
        """What workers are at."""
        self._suspects: set[int] = set()
        """What workers were at when one of them died."""
        self._end = None if (s := self._table.timeout) is None else time.monotonic() + s
        order = space.combinations
        random.Random(self._table.seed).shuffle(order)
        self._order = order

    @classmethod
    def open(cls, deployment: Deployment, space: Space, out: Path, file: Path, text: str) -> _Study:
        """The study in a folder's journal; a new one where there is none.

        Raises:
            InputError: it is a study of something else.
        """
        optuna = need("optuna", extra="search")
        assert deployment.search is not None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        _mend(out / JOURNAL)
        journal = optuna.storages.journal
        storage = optuna.storages.JournalStorage(
            journal.JournalFileBackend(str(out / JOURNAL), lock_obj=_NoLock())
        )
        study = optuna.create_study(
            study_name=_SEARCH, storage=storage, load_if_exists=True,
            directions=["minimize"] * len(space.objectives),
        )  # fmt: skip
        # Drawn anew, the same numbers would ask for the same trials after a resumption.
        seed = deployment.search.seed + len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=min(10, max(2, len(space.combinations) // 4))
        )
        about = _about(deployment, space)
        known = study.user_attrs.get(_SEARCH)
        if known is None:
            study.set_user_attr(_SEARCH, about)
        elif known != about:
            changed = ", ".join(k for k in about if known.get(k) != about[k])
            raise InputError(
                f"{out} holds a search with another {changed}",
                do="name another folder with --out, or add --force to drop what it holds",
            )
        base = {
            "file": str(file), "text": text, "objectives": list(space.objectives),
            "limit": deployment.search.limit,
        }  # fmt: skip
        return cls(study, storage, base, space, deployment, out)

    def requests(self) -> Iterator[dict[str, Any]]:
        """What is still to be tried, interrupted trials first; another thread may iterate."""
        while True:
            with self._lock:
                request = self._next()
            if request is None:
                return
            yield request

    def tell(self, answer: Mapping[str, Any]) -> Trial:
        """Keep a worker's answer, and of the deployments those on the front."""
        with self._lock:
            self._close(answer)
            found = self.trials()
            for trial in found:
                if not trial.front and (trial.values or trial.failed):
                    _strip(self._folder(trial.number))
            return next(t for t in found if t.number == answer["number"])

    def suspect(self) -> dict[str, Any] | None:
        """A trial that was under way when a worker died: it runs alone, so the guilty is known."""
        with self._lock:
            while self._suspects:
                number = self._suspects.pop()
                frozen = next(t for t in self._frozen() if t.number == number)
                if frozen.state.name == "RUNNING" and self._known(number) is None:
                    return self._request(number, frozen.params)
            return None

    def bury(self) -> None:
        """A worker died; a trial that ran alone is given up when it happens again."""
        with self._lock:
            flying = sorted(self._flying)
            self._flying.clear()
            self._suspects.update(flying)
            if len(flying) == 1:
                (alone,) = flying
                self._deaths[alone] = self._deaths.get(alone, 0) + 1
                if self._deaths[alone] >= _DEATHS and self._known(alone) is None:
                    why = f"its worker died {_DEATHS} times while nothing else ran"
                    self._close({"number": alone, "failed": why})

    def done(self) -> list[Trial]:
        """The trials that have ended."""
        return [t for t in self.trials() if t.values or t.failed]

    def trials(self) -> list[Trial]:
        """All but those that repeat another."""
        own = list(self._tried().values())
        ended = {t.number: t.values for t in own if t.state.name == "COMPLETE"}
        best = outcome.front(ended.items())
        return [self._trial(t, front=t.number in best) for t in own]

    def _trial(self, frozen: Any, *, front: bool) -> Trial:
        report = self._report(frozen.number)
        ended = frozen.state.name == "COMPLETE"
        return Trial(
            frozen.number, frozen.params,
            dict(zip(self._space.objectives, frozen.values, strict=True)) if ended else {},
            frozen.user_attrs.get(_WHY, ""), ended and report is not None and report.passed,
            None if report is None else outcome.accuracy(report), front,
        )  # fmt: skip

    def _next(self) -> dict[str, Any] | None:
        if self._end is not None and time.monotonic() > self._end:
            return None
        tried = self._tried()
        for frozen in self._frozen():
            if frozen.state.name != "RUNNING" or frozen.number in self._flying:
                continue
            own = tried.get(_key(frozen.params))
            if own is None or own.number != frozen.number:
                # Killed while it was being asked for, or before it was told to repeat another.
                self._storage.set_trial_user_attr(frozen._trial_id, _SAME, -1)
                self._study.tell(frozen.number, state=_failed())
            elif (answer := self._known(frozen.number)) is not None:
                self._close(answer)  # finished, but nobody was left to say so
            else:
                return self._request(frozen.number, frozen.params)
        if len(tried) >= min(self._table.trials, len(self._order)):
            return None
        for _ in range(_ASKED):
            trial = self._ask()
            same = tried.get(_key(trial.params))
            if same is None:
                return self._request(trial.number, trial.params)
            trial.set_user_attr(_SAME, same.number)
            if same.state.name == "COMPLETE":
                self._study.tell(trial.number, same.values)
            else:
                self._study.tell(trial.number, state=_failed())
        untried = next(params for params in self._order if _key(params) not in tried)
        self._study.enqueue_trial(untried)
        trial = self._ask()
        return self._request(trial.number, trial.params)

    def _ask(self) -> Any:
        trial = self._study.ask()
        for name, values in self._space.choices.items():
            trial.suggest_categorical(name, values)
        return trial

    def _request(self, number: int, params: Mapping[str, str]) -> dict[str, Any]:
        self._flying.add(number)
        folder = str(self._folder(number))
        return {**self._base, "number": number, "params": dict(params), "folder": folder}

    def _close(self, answer: Mapping[str, Any]) -> None:
        number = answer["number"]
        self._flying.discard(number)
        if "values" in answer:
            self._study.tell(number, [answer["values"][n] for n in self._space.objectives])
            return
        frozen = next(t for t in self._frozen() if t.number == number)
        self._storage.set_trial_user_attr(frozen._trial_id, _WHY, answer["failed"])
        self._study.tell(number, state=_failed())

    def _known(self, number: int) -> dict[str, Any] | None:
        """The answer that a finished deployment gives, though its worker never did."""
        report = self._report(number)
        if report is None:
            return None
        try:
            return {"number": number, "values": outcome.values(report, self._space.objectives)}
        except EdgemixError as error:
            return {"number": number, "failed": error.reason}

    def _report(self, number: int) -> schema.Report | None:
        file = self._folder(number) / "report.json"
        return schema.load(file) if file.exists() else None

    def _folder(self, number: int) -> Path:
        return self._out / TRIALS / f"{number:03d}"

    def _frozen(self) -> list[Any]:
        found: list[Any] = self._study.get_trials(deepcopy=False)
        return found

    def _tried(self) -> dict[tuple[tuple[str, str], ...], Any]:
        """By choice, the first trial that made it."""
        found: dict[tuple[tuple[str, str], ...], Any] = {}
        for trial in self._frozen():
            if _SAME not in trial.user_attrs and set(trial.params) == set(self._space.choices):
                found.setdefault(_key(trial.params), trial)
        return found


def _key(params: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(params.items()))


def _about(deployment: Deployment, space: Space) -> dict[str, Any]:
    """What must not change while a study goes on, as JSON."""
    o = deployment.order
    sources = {v.name: v.source for v in deployment.search.variants} if deployment.search else {}
    return {
        "model": [o.source, o.step, o.chunk, o.unroll, sources],
        "data": [o.calibrate, o.evaluate, o.samples, o.evaluate_samples, o.stream],
        "recipe": [o.recipe, o.quality, o.bits],
        "pruning": None if o.pruning is None else o.pruning.model_dump(mode="json"),
        "targets": [list(o.targets), list(o.devices)],
        "choices": {name: list(values) for name, values in space.choices.items()},
        "objectives": list(space.objectives),
    }


def _strip(folder: Path) -> None:
    """Of a deployment that another beats the report alone stays."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "report.json":
                path.unlink()


def _failed() -> Any:
    return need("optuna", extra="search").trial.TrialState.FAIL


class _NoLock:
    """What Optuna takes for a lock: the folder has one already, which no killed process leaves."""

    def acquire(self) -> bool:
        """At once."""
        return True

    def release(self) -> None:
        """Nothing."""
