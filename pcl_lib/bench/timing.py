"""Times and memory for `pcl_lib.bench`: a call by the clock, the most bytes it takes, and on what machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """One measurement. ms: median of a call, with its lowest and highest; count: how many of `unit` a call makes.

    ratio: time of the case's first form over this one's (above 1: faster). peak_mib: most memory in tensors above
    what was there before the call, where it was asked for.
    """

    part: str
    case: str
    form: str
    threads: int
    repeats: int
    ms: float
    ms_low: float
    ms_high: float
    count: int
    unit: str
    per_second: float
    ratio: float
    peak_mib: float | None = None
    note: str = ""


class Bench:
    """Collects rows, and prints each as it comes."""

    def __init__(self, part: str, repeats: int, device: str) -> None:
        self.part, self.repeats, self.device = part, repeats, torch.device(device)
        self.rows: list[Row] = []

    def time(
        self,
        case: str,
        form: str,
        call: Callable[[], object],
        *,
        count: int = 1,
        unit: str = "images",
        repeats: int = 0,
        calls: float = 1,
        memory: bool = False,
        note: str = "",
    ) -> None:
        """Call once to warm up, then `repeats` times by the clock. calls: what one stands for (extrapolation)."""
        call()
        spent = np.array([self._once(call) for _ in range(repeats or self.repeats)]) * calls * 1e3
        peak = peak_bytes(call, self.device) / 2**20 if memory else None
        self.keep(case, form, spent, count=count, unit=unit, peak=peak, note=note)

    def keep(
        self,
        case: str,
        form: str,
        ms: np.ndarray,
        *,
        count: int = 1,
        unit: str = "images",
        peak: float | None = None,
        note: str = "",
        ratio: float | None = None,
    ) -> None:
        """Add a row of measured milliseconds, and print it. ratio: where it is not against the case's first form."""
        middle = float(np.median(ms))
        first = next((row.ms for row in self.rows if row.case == case), middle)
        row = Row(
            self.part, case, form, torch.get_num_threads(), len(ms), middle, float(ms.min()), float(ms.max()),
            count, unit, 1e3 * count / max(middle, 1e-3), first / max(middle, 1e-3) if ratio is None else ratio, peak,
            note,
        )  # fmt: skip
        self.rows.append(row)
        print(_line(row), flush=True)

    def _once(self, call: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _line(row: Row) -> str:
    memory = "" if row.peak_mib is None else f"  {row.peak_mib:,.1f} MiB"
    return (
        f"{row.part:8} {row.case:40} {row.form:28} {row.ms:10,.1f} ms ({row.ms_low:,.1f} to {row.ms_high:,.1f})"
        f"  {shown_rate(row):>9} {row.unit}/s  x{row.ratio:,.1f}{memory}  {row.threads} threads {row.note}"
    )


def shown_rate(row: Row) -> str:
    """How many of its unit a row makes in a second, in few digits."""
    return f"{row.per_second:,.0f}" if row.per_second >= 100 else f"{row.per_second:.2g}"


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes that tensors take on `device` during a call, above what was there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        call()
    changes = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    steps = [event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())]
    return max(int(np.cumsum(steps).max(initial=0)), 0)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Run with that many threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
