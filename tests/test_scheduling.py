"""Cells side by side: within a budget, and on a real Dask cluster of two processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images

from pcl_lib import data, presets, reproduce
from pcl_lib.ablations import cells, scheduling
from pcl_lib.presets import PRESETS
from pcl_lib.utils import BadInput

SMALL = presets.override(
    PRESETS["smoke"],
    {"model.image_size": 16, "train.epochs": 1, "train.face_batch": 8, "train.pdd_batch": 8},
)


def test_without_a_budget_all_run_in_order() -> None:
    def submit(item: int) -> Future[int]:
        job: Future[int] = Future()
        job.set_result(item)
        return job

    found = [(item, job.result()) for item, job in scheduling.run_in_time(submit, range(5), 1)]
    assert found == [(item, item) for item in range(5)]


def test_none_is_begun_that_would_not_end_in_time() -> None:
    def run(budget: float) -> int:
        now = 0.0

        def submit(item: int) -> Future[int]:
            job: Future[int] = Future()
            job.set_result(item)
            return job

        def clock() -> float:
            nonlocal now
            now += 1.0  # every look at the clock
            return now

        return len(list(scheduling.run_in_time(submit, range(100), 1, budget, clock)))

    counts = [run(budget) for budget in (20.0, 40.0, 80.0)]
    assert 0 < counts[0] < counts[1] < counts[2] < 100


def test_what_is_in_work_at_the_end_is_neither_waited_for_nor_yielded() -> None:
    done: Future[int] = Future()
    done.set_result(0)
    hanging: Future[int] = Future()
    start = time.monotonic()
    jobs = [done, hanging]
    found = [item for item, _ in scheduling.run_in_time(lambda item: jobs[item], [0, 1], 2, 0.3)]
    assert found == [0] and time.monotonic() - start < 5


def test_the_most_telling_variants_come_first_seed_by_seed(tmp_path: Path) -> None:
    found = cells.left(tmp_path, SMALL, ["K = 1", "simclr", "pcl"], [0, 1])
    assert [cell.variant for cell in found] == ["pcl", "simclr", "K = 1"] * 2
    assert [cell.seed for cell in found] == [0, 0, 0, 1, 1, 1]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a Dask scheduler on loopback with two worker processes of one thread."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    file = tmp_path / "scheduler.json"
    shared = ["--no-dashboard", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen([*command, *shared], stderr=subprocess.DEVNULL)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", *shared]
    workers = [subprocess.Popen(worker, stderr=subprocess.DEVNULL, cwd=tmp_path) for _ in range(2)]
    try:
        for _ in range(600):
            if file.is_file() and file.stat().st_size:
                break
            time.sleep(0.1)
        from distributed import Client

        with Client(scheduler_file=str(file), timeout=120) as client:
            client.wait_for_workers(2, timeout=120)
            address = client.scheduler.address
        yield address
    finally:
        for process in (*workers, scheduler):
            process.terminate()
            process.wait(30)


def test_a_dask_cluster_runs_the_cells_and_gives_their_rows(cluster: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"split": np.repeat(["train", "validation", "test"], [64, 16, 16])})
    yaw = np.random.default_rng(0).normal(0, 25, 96)
    table = table.assign(identity=np.arange(96) // 4, yaw=yaw)
    data.write_prepared(
        tmp_path / "set", blob_images(96, 20), table, name="blobs", source="drawn by the tests"
    )
    run = reproduce.open_run(SMALL, tmp_path / "set", tmp_path / "run", 0)
    assert cells.run_cells(run, ["simclr", "random"], [0], 2, scheduler=cluster) == {}
    found = cells.read(run.out, "cells")
    assert set(found["method"]) == {"simclr", "random"}
    cell = cells.Cell("simclr", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = cells.run_cell(cell, SMALL, run.faces, tmp_path / "here")["probes"]
    torch.set_num_threads(threads)
    there = cells.read(run.out, "probes").query("method == 'simclr'")
    np.testing.assert_allclose(there["value"], here["value"], rtol=1e-5)


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "PATIENCE", 1)
    with (
        pytest.raises(BadInput, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        scheduling.pool_of(1, "tcp://127.0.0.1:9"),
    ):
        pass
