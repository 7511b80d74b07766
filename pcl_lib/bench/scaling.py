"""The part `scaling` of `python -m pcl_lib.bench`: one and two processes that train as one, and whether they agree."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pcl_lib import distributed, methods
from pcl_lib.bench.timing import Bench
from pcl_lib.bench.training import random_images
from pcl_lib.models import PCL
from pcl_lib.presets import PRESETS

STEPS = 5


def measure(rank: int, count: int, port: int, batch: int, answer: Any) -> None:
    """One of `count` processes of one thread: `STEPS` face steps of the cpu preset; rank 0 sends times and gradient."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if count > 1:
        dist.init_process_group("gloo", rank=rank, world_size=count)
    preset = PRESETS["cpu"]
    method = methods.build("pcl", preset)
    model = PCL(preset.model).train()
    if count > 1:
        distributed.share_batch_norms(model)
    images = distributed.own(random_images(batch, preset.model.image_size, torch.device("cpu")))
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.train.lr)
    generator = torch.Generator().manual_seed(0)
    spent, first = [], np.empty(0)
    for step in range(STEPS + 1):
        start = time.perf_counter()
        loss = method.face(model, images, generator)["face"]  # type: ignore[attr-defined]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(model.parameters())
        if step == 0:
            parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            first = torch.cat([*parts, loss.detach()[None]]).numpy()
        optimizer.step()
        spent.append(time.perf_counter() - start)
    if rank == 0:
        answer.put((spent[1:], first))
    if count > 1:
        dist.destroy_process_group()


def run(count: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of each step, and the gradient of the first with its loss last, of `count` processes."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = context.Queue()
    members = [context.Process(target=measure, args=(r, count, port, batch, answer)) for r in range(count)]
    for member in members:
        member.start()
    spent, gradient = answer.get(timeout=600)
    for member in members:
        member.join()
    return np.array(spent) * 1e3, gradient


def bench_scaling(bench: Bench) -> None:
    """A face step in one and in two gloo processes of one thread each: the same batch shared, and twice the batch."""
    batch = PRESETS["cpu"].train.face_batch
    for case, larger in (("strong: one batch shared", 1), ("weak: as much for each", 2)):
        alone, of_one = run(1, batch)
        both, of_two = run(2, batch * larger)
        whole = of_one if larger == 1 else run(1, batch * larger)[1]
        apart = float(np.linalg.norm(of_two - whole) / np.linalg.norm(whole))
        faster = larger * float(np.median(alone)) / float(np.median(both))
        note = f"loss and gradient differ by {apart:.0e} from one process; efficiency {faster / 2:.0%}"
        bench.keep(case, "1 process", alone, count=batch)
        bench.keep(case, "2 processes", both, count=batch * larger, ratio=faster, note=note)
