"""Widgets driven at ten moves a second beside a TrainingMonitor that does not end: memory flat, no file left open.

    python tests/reliability/soak.py --minutes 120

The first tenth of the time is warm-up. After it memory may grow by GROWTH of itself an hour, by a line fitted to all
measurements, and the number of open files and threads may not grow at all.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch

from pcl_lib import data, presets
from pcl_lib.data.rendered import Gallery
from pcl_lib.models.shipped import shipped
from pcl_lib.widgets import AugmentationLab, FaceStudio, NeighbourBrowser, SwapExplorer, TrainingMonitor

GROWTH, MOVES = 0.02, 10  # an hour, a second
SLACK = 8 << 20  # bytes that allocators may take at any time: short soaks are judged by them


def memory() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def handles() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def endless(faces: data.PreparedFaces, out: Path) -> TrainingMonitor:
    """A monitor of a training with a checkpoint and pictures after every epoch, which only stops when told to."""
    preset = presets.override(presets.get("smoke"), {"train.epochs": 1_000_000, "train.checkpoint_every": 1})
    return TrainingMonitor("pcl", preset=preset, faces=faces, out=out)


def move(widgets: list[object], rng: np.random.Generator) -> None:
    """Move one slider of one widget, as somebody does who plays with it."""
    studio, swaps, lab, browser = widgets
    which = int(rng.integers(4))
    if which == 0:
        slider = rng.choice(list(studio.sliders.values()))  # type: ignore[attr-defined]
        slider.value = slider.min + (slider.max - slider.min) * rng.random()
    elif which == 1:
        swaps.pose.value, swaps.face.value = rng.random(2).round(2)  # type: ignore[attr-defined]
    elif which == 2:
        lab.draw.value = int(rng.integers(1000))  # type: ignore[attr-defined]
    else:
        browser.redraw()  # type: ignore[attr-defined]


def judge(
    times: np.ndarray, bytes_: np.ndarray, before: tuple[int, int], after: tuple[int, int]
) -> list[str]:
    """What is wrong with a soak; times in hours."""
    slope = np.polyfit(times, bytes_, 1)[0]
    grown = slope * (times[-1] - times[0])
    wrong = []
    if slope > GROWTH * bytes_[0] and grown > SLACK:
        wrong.append(f"memory grows by {slope / bytes_[0]:.1%} an hour ({grown / 2**20:.0f} MiB here)")
    if after > before:
        wrong.append(f"open files and threads went from {before} to {after}")
    return wrong


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120)
    given = parser.parse_args()
    os.environ["PCL_KIT_HEADLESS"] = ""
    torch.set_num_threads(1)
    rng, model = np.random.default_rng(0), shipped("pcl")
    faces = Gallery(model.image_size, people=20, images_per_person=4)
    widgets: list[object] = [
        FaceStudio(model, faces), SwapExplorer(model, faces), AugmentationLab(faces, presets.get("cpu")),
        NeighbourBrowser(model, faces),
    ]  # fmt: skip
    rows: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as place:
        smoke = presets.get("smoke")
        training_faces = data.open_faces(None, smoke, Path(place))
        monitor = endless(training_faces, Path(place) / "run")
        monitor.begin()
        assert monitor.thread is not None  # begin makes it
        begun, moves, before = time.monotonic(), 0, None
        while (minutes := (time.monotonic() - begun) / 60) < given.minutes and monitor.thread.is_alive():
            tick = time.monotonic()
            move(widgets, rng)
            moves += 1
            if minutes > given.minutes / 10:
                before = before or handles()
                rows.append((minutes / 60, memory()))
            time.sleep(max(0.0, 1 / MOVES - (time.monotonic() - tick)))
        after, alive = handles(), monitor.thread.is_alive()
        monitor.end()
        monitor.thread.join()
    times, bytes_ = np.array(rows).T
    wrong = judge(times, bytes_, before or after, after) + ([] if alive else ["the training ended early"])
    print(
        f"{minutes:.1f} minutes, {moves} moves, {len(monitor.history)} epochs, "
        f"{bytes_[0] / 2**20:.0f} MiB after warm-up, "
        f"{bytes_[-1] / 2**20:.0f} MiB at the end, {bytes_.max() / 2**20:.0f} MiB at most; "
        f"open files and threads {before} to {after}"
    )
    print("; ".join(wrong) or "flat")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
