"""Dask with a scheduler and two workers in processes of their own, and what can go wrong there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sw.bench import workloads
from sw.compiler.errors import InputError
from sw.energy import TABLES, read_table
from sw.explore import cluster, estimate
from sw.explore.cluster import here, kept_tasks, workers
from sw.explore.estimate import batches
from sw.explore.space import draw
from sw.explore.workload import workload

pytest.importorskip("distributed", reason='Dask is missing: pip install -e ".[explore]"')
ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.filterwarnings("default")  # Dask's own


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tasks():
    rng = random.Random(4)
    small = workload("small", workloads.encoder(64, 2, 128, 16, layers=3))
    return batches("analytic", small, [draw(rng) for _ in range(48)], 4)


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """(address, workers) of a scheduler and two workers."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = []

    def start(module: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments, "--no-dashboard"]
        with (folder / f"{len(started)}.log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        started.append(process)
        return process

    start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    both = [
        start("dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny")
        for _ in range(2)
    ]
    import json

    deadline = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < deadline, "no scheduler"
        time.sleep(0.1)
    address = json.loads(file.read_text())["address"]
    from distributed import Client

    with Client(address) as client:
        client.wait_for_workers(2, timeout=120)
    yield address, both
    for process in started:
        process.kill()
        process.wait()


def quiet(_done: int, _total: int) -> None:
    pass


def test_a_scheduler_somewhere(dask, tasks):
    with workers(dask[0]) as run:
        assert run(tasks, quiet) == here(tasks, quiet)


def test_workers_of_another_version(dask, monkeypatch):
    monkeypatch.setattr(cluster, "version", lambda: "0123456789abcdef")
    with pytest.raises(InputError, match="has another version of Weft"), workers(dask[0]):
        pass


def test_a_worker_that_dies(dask, tasks):
    """Last of those with `dask`: one worker is left."""
    killed = []

    def kill_one(done: int, _total: int) -> None:
        if not killed:
            killed.append(done)
            os.kill(dask[1][0].pid, signal.SIGKILL)

    with workers(dask[0]) as run:
        assert run(tasks, kill_one) == here(tasks, quiet)
    assert killed and dask[1][0].wait(10) == -signal.SIGKILL


def test_nobody_at_an_address(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        with workers("tcp://127.0.0.1:9"):
            pass
    with pytest.raises(InputError, match="no Dask scheduler answers at nonsense"):
        with workers("nonsense://x"):
            pass


def test_an_interrupted_run_goes_on(tasks):
    asked = []

    def run(some, progress):
        asked.append(len(some))
        return here(some, progress)

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_tasks(run)(tasks, stop)
    found = kept_tasks(run)(tasks, quiet)
    assert asked == [len(tasks), len(tasks) - 3 + 1]  # the third was not kept yet
    assert found == [estimate.estimate(task) for task in tasks]
    kept_tasks(run)(tasks, quiet)
    assert len(asked) == 2


def test_results_are_kept_by_what_they_depend_on(tasks):
    names = {estimate.name_of(task) for task in tasks}
    assert len(names) == len(tasks)
    _, small, configs, _ = tasks[0]
    others = [("lowered", small, configs, None)]
    others += [("energy", small, configs, read_table(name)) for name in TABLES]
    names |= {estimate.name_of(task) for task in others}
    assert len(names) == len(tasks) + len(others)
