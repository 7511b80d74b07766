"""The part of the benchmark about what the kit chooses by measuring: memory format, precision and threads."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from pcl_lib import methods
from pcl_lib.bench.timing import Bench, threads
from pcl_lib.bench.training import best_dtype
from pcl_lib.models import PCL
from pcl_lib.presets import PRESETS, ModelPreset
from pcl_lib.pretrain import formats

NETWORKS = {  # what is trained at `cpu`, and the paper's network
    "cpu preset": PRESETS["cpu"].model,
    "cpu preset, pcl_video": methods.build("pcl_video", PRESETS["cpu"]).preset.model,
    "paper network": PRESETS["paper"].model,
}


def bench_choice(bench: Bench) -> None:
    """Forward and backward through the encoder, 32 images, in each form; "taken" is what a long training takes here.

    The first form is the default of the network, in float32 and with all threads; the last has one thread.
    """
    for name, config in NETWORKS.items():
        bench_network(bench, name, config)


def bench_network(bench: Bench, name: str, config: ModelPreset) -> None:
    """Time one network in each format and precision, and as it is taken with one thread."""
    default = formats.default_format(PCL(config))
    taken = formats.choose_format(config, bench.device, best_dtype())
    for dtype in dict.fromkeys([torch.float32, best_dtype()]):
        for kind in dict.fromkeys([default, *formats.FORMATS]):
            note = "taken" if (dtype, kind) == (best_dtype(), taken) else ""
            _time(bench, name, config, kind, dtype, note=note)
    if bench.device.type == "cpu":
        with threads(1):
            _time(bench, name, config, taken, best_dtype(), more=", one thread")


def _time(
    bench: Bench,
    name: str,
    config: ModelPreset,
    kind: str,
    dtype: torch.dtype,
    more: str = "",
    note: str = "",
) -> None:
    step = partial(formats.step_seconds, config, kind, bench.device, dtype)
    step()
    ms = 1e3 * np.array([step() for _ in range(bench.repeats)])
    form = f"{kind}, {str(dtype).removeprefix('torch.')}{more}"
    bench.keep(name, form, ms, count=formats.BATCH, note=note)
