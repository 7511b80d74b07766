"""Cells side by side: in processes of this machine or on a Dask cluster, and within a time budget."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from pcl_lib.utils import BadInput

Item = TypeVar("Item")
PATIENCE = 20  # seconds for a scheduler to answer


@contextmanager
def pool_of(workers: int, scheduler: str | None) -> Iterator[tuple[Executor, int]]:
    """Something to submit calls to, and how many it runs at a time.

    workers: processes of this machine, on one thread each. scheduler: address of a Dask scheduler instead, such as
    tcp://host:8786; its workers run one call a thread, have this library and see the same folders. Raises BadInput
    where none answers or it has no workers.
    """
    if scheduler is None:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit the threads of torch in any state
        pool = ProcessPoolExecutor(workers, spawn, _start)
        try:
            yield pool, workers
        finally:
            end_now(pool)
        return
    from distributed import Client

    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"no Dask scheduler answers at {scheduler} ({type(error).__name__}); start one with dask scheduler"
        ) from error
    with client:
        if not (threads := sum(client.nthreads().values())):
            raise BadInput(f"the Dask scheduler at {scheduler} has no workers; start some with dask worker")
        client.run(torch.set_num_threads, 1)
        yield client.get_executor(pure=False), threads


def end_now(pool: Executor) -> None:
    """Shut a pool down without waiting for calls that still run: its processes are ended."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()  # a signal that ends this process reaches it alone


def run_in_time(
    submit: Callable[[Item], Future[Any]],
    items: Sequence[Item],
    at_once: int,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Item, Future[Any]]]:
    """Run items in order, `at_once` at a time, and yield each with its future as it finishes.

    seconds: the budget; None for as long as it takes. An item is begun only where one of the longest that finished so
    far would still end in time, and none is waited for beyond it: what is in work then is not yielded.
    """
    start, waiting, longest = clock(), deque(items), 0.0
    running: dict[Future[Any], tuple[Item, float]] = {}
    while waiting or running:
        spent = clock() - start
        while waiting and len(running) < at_once and (seconds is None or spent + longest <= seconds):
            item = waiting.popleft()
            running[submit(item)] = (item, clock())
        if not running:
            return
        rest = None if seconds is None else max(0.0, seconds - (clock() - start))
        finished, _ = wait(running, rest, FIRST_COMPLETED)
        if not finished:
            return
        for job in finished:
            item, began = running.pop(job)
            longest = max(longest, clock() - began)
            yield item, job


def _start() -> None:
    torch.set_num_threads(1)  # two cells on a thread each do a third more than one on two
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A command that is killed leaves no cells computing: they would only notice at their end."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
