"""Tasks on Dask: workers of this machine, or of a scheduler somewhere.

What is done is kept in the cache as it comes, so an interrupted exploration goes on where it was. A
worker that dies loses what it was at: the scheduler gives its tasks to others.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sim.cache import find, keep
from sw.compiler.errors import InputError, first_line
from sw.explore.estimate import Result, Task, estimate, name_of, version

__all__ = ["Map", "here", "kept_tasks", "workers"]

FOLDER = "explore"
CONNECT_SECONDS = 10

Progress = Callable[[int, int], None]
Map = Callable[[Sequence[Task], Progress], list[list[Result]]]
"""Results of tasks, in their order; progress: (tasks done, tasks)."""


def here(tasks: Sequence[Task], progress: Progress) -> list[list[Result]]:
    """In this process, one after another."""
    found = []
    for number, task in enumerate(tasks):
        found.append(estimate(task))
        progress(number + 1, len(tasks))
        _keep(task, found[-1])
    return found


def kept_tasks(run: Map) -> Map:
    """The same, but for tasks whose results are in the cache."""

    def mapped(tasks: Sequence[Task], progress: Progress) -> list[list[Result]]:
        known = [_find(task) for task in tasks]
        left = [task for task, result in zip(tasks, known, strict=True) if result is None]
        done = len(tasks) - len(left)
        new = iter(run(left, lambda n, _: progress(done + n, len(tasks))) if left else [])
        return [next(new) if result is None else result for result in known]

    return mapped


def _find(task: Task) -> list[Result] | None:
    path = find(FOLDER, f"{name_of(task)}.json")
    return None if path is None else json.loads(path.read_text())


def _keep(task: Task, result: list[Result]) -> None:
    keep(FOLDER, f"{name_of(task)}.json", json.dumps(result).encode())


@contextmanager
def workers(address: str | None = None, count: int | None = None) -> Iterator[Map]:
    """Workers of a scheduler at an address, or `count` processes of this machine (as many as it has
    cores). Raises `InputError`."""
    if importlib.util.find_spec("distributed") is None:
        raise InputError('exploring needs Dask: pip install -e ".[explore]"')
    dask, distributed = map(importlib.import_module, ("dask", "distributed"))

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers: one core each
    settings = {"distributed.comm.timeouts.connect": CONNECT_SECONDS}
    with dask.config.set(settings):
        if address is None:
            number = count or os.cpu_count() or 1
            cluster = distributed.LocalCluster(
                n_workers=number, threads_per_worker=1, dashboard_address=None, memory_limit=0
            )
            with cluster, distributed.Client(cluster) as client:
                yield _mapped(client)
            return
        try:
            client = distributed.Client(address, timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {address}: {first_line(error)}"
            ) from None
        with client:
            _check(client, address)
            yield _mapped(client)


def _check(client, address: str) -> None:
    """All workers must be there and have this Weft. Raises `InputError`."""
    if not client.scheduler_info()["workers"]:
        raise InputError(f"the scheduler at {address} has no workers: `dask worker {address}`")
    try:
        found = client.run(_version_there)
    except Exception as error:  # whatever a worker without these sources raises
        raise InputError(f"a worker of {address} cannot run Weft: {first_line(error)}") from None
    for worker, theirs in sorted(found.items()):
        if theirs != version():
            raise InputError(
                f"worker {worker} has another version of Weft ({theirs}, here {version()}): give "
                "all the same sources"
            )


def _version_there() -> str:
    """Executed by a worker."""
    return version()


def _mapped(client) -> Map:
    from distributed import as_completed

    def mapped(tasks: Sequence[Task], progress: Progress) -> list[list[Result]]:
        futures = {
            client.submit(estimate, task, key=f"weft-{name_of(task)}", retries=3): n
            for n, task in enumerate(tasks)
        }
        found: dict[int, list[Result]] = {}
        for future in as_completed(list(futures)):
            number = futures[future]
            try:
                found[number] = future.result()
            except Exception as error:  # of a worker
                raise InputError(f"a task failed on a worker: {first_line(error)}") from None
            _keep(tasks[number], found[number])
            progress(len(found), len(tasks))
        return [found[n] for n in range(len(tasks))]

    return mapped
