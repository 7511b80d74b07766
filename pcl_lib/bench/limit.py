"""How near the training steps come to what the machine can do: achieved FLOP/s over those of a matrix product."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from pcl_lib import methods, presets
from pcl_lib.bench.timing import Bench
from pcl_lib.bench.training import SMALL, stepper
from pcl_lib.presets import PRESETS, Preset
from pcl_lib.utils import has_fast_bf16

SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices


def bench_limit(bench: Bench) -> None:
    """Each step's share of the rate of a square matrix product, measured in the same run (PCL at two sizes)."""
    paper = PRESETS["paper"] if bench.device.type == "cuda" else presets.override(PRESETS["paper"], SMALL)
    dtypes = [torch.float32, *([torch.bfloat16] if has_fast_bf16() else [])]
    for dtype in dtypes:
        rate = product_rate(bench, dtype)
        bench_share(bench, "cpu preset", PRESETS["cpu"], dtype, rate)
        bench_share(bench, "paper network", paper, dtype, rate)


def product_rate(bench: Bench, dtype: torch.dtype) -> float:
    """GFLOP/s of a product of two square matrices."""
    side = SIDE[bench.device.type]
    a = torch.randn(side, side, device=bench.device).to(dtype)
    name = str(dtype).removeprefix("torch.")
    count = round(2 * side**3 / 1e9)
    bench.time("matrix product", name, partial(torch.matmul, a, a), count=count, unit="GFLOP")
    return bench.rows[-1].per_second


def bench_share(bench: Bench, case: str, preset: Preset, dtype: torch.dtype, rate: float) -> None:
    """Time each task's step of `pcl` and note its share of `rate`, GFLOP/s."""
    method = methods.build("pcl", preset)
    for task in method.tasks:
        step = stepper(method.preset, task, bench.device, False, dtype)
        name = str(dtype).removeprefix("torch.")
        count, repeats = max(1, round(step_flops(step) / 1e9)), min(bench.repeats, 3)
        where = f"{case}, {task.name} of {task.batch}"
        bench.time(where, name, step, count=count, unit="GFLOP", repeats=repeats, memory=True)
        share = bench.rows[-1].per_second / rate
        bench.rows[-1] = dataclasses.replace(bench.rows[-1], note=f"{share:.0%} of the matrix product's rate")
        print(f"  {bench.rows[-1].note}; {task.batch * 1e3 / bench.rows[-1].ms:,.0f} images/s", flush=True)


def step_flops(step: Callable[[], None]) -> int:
    """Floating-point operations of the matrix products and convolutions of a call, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
