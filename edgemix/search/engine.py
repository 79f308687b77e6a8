"""Where trials run: processes of this machine, or whatever a Dask scheduler has."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

from edgemix.errors import InputError, ToolError
from edgemix.extras import need

_DASK = "dask://"
_CONNECT_S = 20

Request = Mapping[str, Any]
Work = Callable[[Request], dict[str, Any]]


def attended(work: Work, parent: int, request: Request) -> dict[str, Any]:
    """Work in a process that ends with ``parent`` where that started it: joblib's would live on."""
    if os.getppid() == parent:
        _watch(parent)
    return work(request)


@cache
def _watch(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Lost(Exception):
    """Workers died: what they were at is not known to be done."""


def check(engine: str | None) -> None:
    """Refuse an engine that is none.

    Raises:
        InputError: it is not written like ``dask://HOST:PORT``.
    """
    host, _, port = (engine or f"{_DASK}host:1").removeprefix(_DASK).rpartition(":")
    if engine is not None and (not engine.startswith(_DASK) or not host or not port.isdigit()):
        raise InputError(f"there is no engine {engine}", do="write it like dask://host:8786")


def run(
    work: Work, requests: Iterator[Request], jobs: int, engine: str | None
) -> Iterator[dict[str, Any]]:
    """Answers as they come; requests are taken as workers get free.

    Args:
        work: what a worker does.
        requests: taken from another thread than this one.
        jobs: processes on this machine; a scheduler's workers are as many as it has.
        engine: ``dask://HOST:PORT``; None: this machine.

    Raises:
        InputError: joblib or dask is not installed.
        ToolError: no scheduler answers.
        Lost: a worker died.
    """
    joblib = need("joblib", extra="search")
    loky = need("joblib.externals.loky", extra="search")
    with ExitStack() as stack:
        dead: tuple[type[Exception], ...] = (loky.BrokenProcessPool,)
        if engine is not None:
            distributed = need("distributed", extra="dask")
            client = _connected(distributed, engine.removeprefix(_DASK))
            stack.enter_context(client)
            stack.enter_context(joblib.parallel_config(backend="dask"))
            dead = (distributed.KilledWorker,)
        parallel = joblib.Parallel(
            n_jobs=jobs if engine is None else -1,
            pre_dispatch="n_jobs",
            batch_size=1,
            return_as="generator_unordered",
        )
        try:
            task = joblib.delayed(partial(attended, work, os.getpid()))
            yield from parallel(task(request) for request in requests)
        except dead as error:
            raise Lost(str(error)) from error
        except OSError as error:
            raise ToolError(f"the workers cannot be reached any more: {error}") from error


def _connected(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(f"tcp://{address}", timeout=_CONNECT_S, set_as_default=True)
    except (OSError, TimeoutError) as error:
        raise ToolError(
            f"no Dask scheduler answers at {address}", do="start one: dask scheduler"
        ) from error
