"""What this machine has, and what that means for the minutes of the course: `python -m pcl_lib.reproduce.doctor`.

It reads what is there (`look`), times one training step (`step_ms`), and scales the minutes of
figures/tables/minutes.csv, which hold the time of the same step on the machine that they were measured on.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import matplotlib
import pandas as pd
import psutil
import torch

from pcl_lib import methods, presets
from pcl_lib.models import PCL
from pcl_lib.utils import (
    PACKAGE,
    REPOSITORY,
    BadInput,
    check_writable,
    device_name,
    exit_cleanly,
    has_fast_bf16,
    machine,
    versions,
)

MINUTES = Path("figures", "tables", "minutes.csv")
SECONDS = 4.0  # of measuring, and the step that was begun
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "microsoft-edge", "safari")
CGROUP = Path("/sys/fs/cgroup/memory.max")  # the limit of a container; "max" where there is none
GIB = 2**30
# What a reader needs at least, in GiB.
MEMORY, FREE_MEMORY, DISK = 4, 2, 3
BUSY = 0.3  # share of the processors from which the measured step means little


@dataclass(frozen=True)
class Facts:
    """What a machine has. Sizes in GiB; caches: folder -> why it cannot be written, "" where it can."""

    system: str
    processor: str
    cores: int
    vector: str  # "AVX-512", "AVX2", another instruction set, or "" where none is known
    bf16: bool
    memory: float
    free_memory: float
    disk: float  # free, where runs are written
    gpu: str  # "" where there is none
    gpu_memory: float
    browser: str  # "" where there is none
    versions: str
    caches: Mapping[str, str]
    busy: float  # share of the processors that other programs take, in [0, 1]


def look(runs: Path = REPOSITORY / "runs") -> Facts:
    """The facts of this machine. runs: the folder that run folders are made in."""
    cuda = torch.cuda.is_available()
    capability = torch.backends.cpu.get_cpu_capability()
    memory = psutil.virtual_memory()
    limit = _container_limit()
    existing = next(folder for folder in (runs, *runs.parents) if folder.exists())
    return Facts(
        system=f"{platform.system()} {platform.release()}",
        processor=machine("cpu")["processor"],
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        vector="" if capability == "DEFAULT" else capability.replace("AVX512", "AVX-512"),
        bf16=has_fast_bf16(),
        memory=min(memory.total, limit) / GIB,
        free_memory=min(memory.available, limit) / GIB,
        disk=shutil.disk_usage(existing).free / GIB,
        gpu="" if device_name() == "cpu" else device_name(),
        gpu_memory=torch.cuda.get_device_properties(0).total_memory / GIB if cuda else 0.0,
        browser=find_browser(),
        versions=f"{versions()}, jupyterlab {metadata.version('jupyterlab')}",
        caches=_caches(runs),
        busy=psutil.cpu_percent(interval=0.5) / 100,
    )


def _container_limit() -> float:
    try:
        return float(CGROUP.read_text())  # raises on "max", as on a machine without control groups
    except (OSError, ValueError):
        return float("inf")


def find_browser() -> str:
    """The name of a browser that can open JupyterLab; "" where none is found."""
    if found := next((name for name in BROWSERS if shutil.which(name)), ""):
        return found
    if sys.platform.startswith(("darwin", "win")):  # these systems come with one, which is not on the path
        return webbrowser.get().name if hasattr(webbrowser.get(), "name") else "the system's"
    return ""


def _caches(runs: Path) -> dict[str, str]:
    """Folders that the kit and its libraries write to, each with why it cannot be written."""
    folders = {
        "runs": runs,
        "compiled renderer": Path(os.environ.get("NUMBA_CACHE_DIR", PACKAGE / "faces" / "__pycache__")),
        "fonts of figures": Path(matplotlib.get_cachedir()),
    }
    problems = {}
    for name, folder in folders.items():
        try:
            check_writable(folder)
            problems[name] = ""
        except BadInput as error:
            problems[name] = str(error)
    return problems


def step_ms(device: str, seconds: float = SECONDS) -> float:
    """Milliseconds of one step of PCL's face task at the cpu preset, the fastest of those that fit in `seconds`.

    Random images and a fresh model, in the precision that training takes here. The first step, which sets things up,
    does not count, and one more is always timed.
    """
    preset = presets.PRESETS["cpu"]
    method = methods.build("pcl", preset)
    (task,) = (task for task in method.tasks if task.name == "face")
    model = PCL(method.preset.model, 0).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.train.lr)
    generator = torch.Generator(device).manual_seed(0)
    size = preset.model.image_size
    images = torch.randint(256, (task.batch, 3, size, size), dtype=torch.uint8, device=device)

    def step() -> float:
        start = time.perf_counter()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_fast_bf16()):
            loss = task.loss(model, images, generator)[task.name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU
        return 1e3 * (time.perf_counter() - start)

    step()  # compiles what a new machine has not compiled yet, which takes longer than all that follows
    end, times = time.monotonic() + seconds, [step()]
    while time.monotonic() < end:
        times.append(step())
    return min(times)


def speed(device: str) -> dict[str, str | float]:
    """What a run's summary says of its machine. device: as `utils.device_name` calls it."""
    found = machine("cpu")
    milliseconds = step_ms("cuda" if device.startswith("cuda") else "cpu")
    return {
        "processor": f"{found['processor']}, {found['cores']} cores",
        "instructions": "GPU" if device.startswith("cuda") else found["instructions"],
        "step_ms": round(milliseconds, 1),
    }


def of_kind(minutes: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Of minutes.csv one row for each notebook and preset: of this kind of processor where it was timed on one."""
    own = minutes.assign(own=minutes["instructions"] == kind).sort_values("own", kind="stable")
    return own.drop(columns="own").drop_duplicates(["notebook", "preset"], keep="last").sort_index()


def scaled(minutes: pd.DataFrame, here_ms: float) -> pd.DataFrame:
    """The minutes to expect here: notebook by preset, from the table of minutes.csv and `step_ms` of this machine.

    Every number is multiplied by the ratio of the two steps, so parts that are not training are a guess.
    """
    guess = minutes.assign(minutes=minutes["minutes"] * here_ms / minutes["step_ms"])
    return guess.pivot(index="notebook", columns="preset", values="minutes")


def missing(facts: Facts) -> list[str]:
    """One sentence for each thing that is missing or scarce; empty where nothing is."""
    said = []
    if facts.memory < MEMORY:
        said.append(
            f"There are {facts.memory:.1f} GiB of memory, and {MEMORY} are advised: close other programs, run one"
            ' notebook at a time, and begin with preset = "smoke".'
        )
    elif facts.free_memory < FREE_MEMORY:
        said.append(
            f"Only {facts.free_memory:.1f} of {facts.memory:.1f} GiB of memory are free, and a notebook wants"
            f" {FREE_MEMORY}: close other programs first."
        )
    if facts.disk < DISK:
        said.append(
            f"The disk that holds runs/ has {facts.disk:.1f} GiB left, and a run with all ablations wants {DISK}:"
            " free some, or pass OUT= on another disk."
        )
    if not facts.gpu:
        said.append("There is no GPU: the presets smoke and cpu are made for that, gpu and paper are not.")
    if not facts.gpu and not facts.bf16:
        said.append(
            "The processor does not compute bfloat16 in hardware, so that training takes float32, which is slower."
        )
    if not facts.browser:
        said.append(
            "No browser was found: on a server, open the address that make lab prints from your own machine"
            " (ssh -L 8888:localhost:8888), or run the notebooks without one by make reproduce."
        )
    said += [f"The folder for {name}: {why}." for name, why in facts.caches.items() if why]
    return said


def lines(facts: Facts) -> list[str]:
    """What is there, one line each."""
    gpu = f"{facts.gpu}, {facts.gpu_memory:.0f} GiB" if facts.gpu_memory else facts.gpu
    bf16 = "bfloat16 in hardware" if facts.bf16 else "no bfloat16 in hardware"
    return [
        f"system      {facts.system}",
        f"processor   {facts.processor}, {facts.cores} cores, {facts.vector or 'plain instructions'}, {bf16}",
        f"memory      {facts.memory:.1f} GiB, {facts.free_memory:.1f} free",
        f"disk        {facts.disk:.0f} GiB free",
        f"GPU         {gpu or 'none'}",
        f"browser     {facts.browser or 'none found'}",
        f"versions    {facts.versions}",
        f"writable    {', '.join(name for name, why in facts.caches.items() if not why) or 'nothing'}",
    ]


def prognosis(minutes: pd.DataFrame, here_ms: float | None) -> list[str]:
    """What the measured step means for minutes, as lines: a sentence, a table, and their sum.

    here_ms: `step_ms` of this machine; None where it could not be measured: the minutes are then the recorded ones.
    """
    names = [name for name in presets.PRESETS if (minutes["preset"] == name).any()]
    origin = minutes.drop_duplicates("preset").set_index("preset").loc[names]
    kinds = ", ".join(f"{row.processor} ({name})" for name, row in origin.iterrows())
    if here_ms is None:
        table = scaled(minutes.assign(step_ms=1.0), 1.0)
        said = [f"These minutes were measured on {kinds}:"]
    else:
        table = scaled(minutes, here_ms)
        there = ", ".join(f"{value:.0f} ms" for value in origin["step_ms"].unique())
        said = [
            f"A training step takes {here_ms:.0f} ms here; it took {there} where the minutes were measured: {kinds}.",
            "So expect about these minutes:",
        ]
    said.append(f"  {'notebook':32}" + "".join(f"{name:>8}" for name in names))
    for notebook, row in table[names].iterrows():
        shown = ("?" if pd.isna(value) else f"{value:.1f}" for value in row)  # not timed
        said.append(f"  {notebook:32}" + "".join(f"{each:>8}" for each in shown))
    return [*said, f"  {'all':32}" + "".join(f"{value:8.1f}" for value in table[names].sum())]


def measured_step(facts: Facts) -> float | None:
    """`step_ms` on the device that trains; None, and a sentence printed, where other programs would distort it."""
    if facts.busy > BUSY:
        print(
            f"Other programs take {facts.busy:.0%} of the processors, so the speed was not measured: end them and run"
            " make doctor again."
        )
        return None
    return step_ms("cuda" if facts.gpu_memory else "cpu")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce.doctor."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce.doctor",
        description="Say what this machine has, what is missing, and how long the notebooks take on it.",
    )
    parser.parse_args(argv)
    facts = look()
    print("\n".join(lines(facts)), end="\n\n")
    path = REPOSITORY / MINUTES
    if path.is_file():
        kind = "GPU" if facts.gpu_memory else machine("cpu")["instructions"]
        minutes = of_kind(pd.read_csv(path), kind)
        print("\n".join(prognosis(minutes, measured_step(facts))), end="\n\n")
    print("\n".join(missing(facts)) or "Nothing is missing.")


if __name__ == "__main__":
    exit_cleanly(main)
