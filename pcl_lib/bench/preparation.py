"""The parts of `python -m pcl_lib.bench` about data on the disk: preparing it, and drawing an epoch from it."""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from PIL import Image

from pcl_lib.bench.timing import Bench
from pcl_lib.data import identity_index

SIDE, SIZE, QUALITY = 224, 64, 90  # pixels of the JPEGs and of the prepared images
FILES = 2048
PIECE = 128  # files that a worker of the limit takes at a time
PEOPLE = 7000
ROWS = (10_000, 100_000, 1_000_000)


def write_jpegs(folder: Path, files: int) -> list[str]:
    """`files` JPEGs of rendered faces, 64 different ones over and over; returns their names."""
    from pcl_lib.faces import render, sample_factors

    pictures = [
        Image.fromarray(picture.permute(1, 2, 0).numpy())
        for picture in render(sample_factors(64, seed=0), size=SIDE)
    ]
    names = [f"{number:05d}.jpg" for number in range(files)]
    for name, picture in zip(names, itertools.cycle(pictures), strict=False):
        picture.save(folder / name, quality=QUALITY)
    return names


def decode_alone(folder: Path, names: Sequence[str]) -> int:
    """The limit: decode and resize with the same filter, as plainly as can be; keep nothing."""
    for name in names:
        with Image.open(folder / name) as image:
            np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return len(names)


def alone(folder: Path, names: Sequence[str], workers: int, backend: str) -> None:
    """`decode_alone` by several workers, each with files of its own."""
    pieces = [names[start : start + PIECE] for start in range(0, len(names), PIECE)]
    joblib.Parallel(workers, backend=backend)(joblib.delayed(decode_alone)(folder, piece) for piece in pieces)


def prepare_them(folder: Path, names: Sequence[str], workers: int, backend: str) -> None:
    """What `data_scripts` does with these files, from the listing to dataset.json, into a folder of its own."""
    from data_scripts.listing import Listing
    from data_scripts.prepare import prepare

    out = Path(tempfile.mkdtemp(dir=folder.parent)) / "out"
    listing = Listing("bench", "rendered", "MIT", folder, pd.DataFrame({"file": list(names)}))
    with contextlib.redirect_stdout(io.StringIO()):
        prepare(listing, out, size=SIZE, workers=workers, backend=backend, progress=False)
    shutil.rmtree(out.parent)


@contextlib.contextmanager
def _jpegs(files: int) -> Iterator[tuple[Path, list[str]]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "in")
        folder.mkdir()
        yield folder, write_jpegs(folder, files)


def bench_prepare(bench: Bench) -> None:
    """JPEGs to a prepared folder against decode + resize alone: "faster" says how near that limit (1.0) it comes."""
    with _jpegs(FILES) as (folder, names):
        for workers, backend in ((1, "threading"), (2, "threading"), (2, "loky")):
            kind = "threads" if backend == "threading" else "processes"
            time = partial(bench.time, f"{SIDE} to {SIZE} px, {workers} {kind}", count=len(names), repeats=3)
            time("decode + resize alone", partial(alone, folder, names, workers, backend))
            time("prepare", partial(prepare_them, folder, names, workers, backend))
        time = partial(bench.time, "linear in images, 1 worker", repeats=3)
        for count in (FILES // 2, FILES):
            call = partial(prepare_them, folder, names[:count], 1, "threading")
            time(f"{count} images", call, count=count)


def rows_one_by_one(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """An epoch as a loader without an index makes it: group by a loop over rows, then draw person by person."""
    of: dict[object, list[int]] = {}
    for row, who in enumerate(table["identity"]):
        of.setdefault(who, []).append(row)
    return rng.permutation([rows[rng.integers(len(rows))] for rows in of.values()])


def by_index(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """An epoch by the kit's index, which is made anew."""
    return identity_index(table, np.arange(len(table))).epoch_rows(rng)


def bench_index(bench: Bench) -> None:
    """One row of each of 7,000 identities: what an epoch costs, with its index and once there is one."""
    for rows in ROWS:
        rng = np.random.default_rng(0)
        who = rng.integers(PEOPLE, size=rows)
        table = pd.DataFrame({"identity": [f"id{10000 + person}" for person in who]})
        index = identity_index(table, np.arange(rows))
        time = partial(bench.time, f"{rows:,} rows", count=rows, unit="rows")
        time("a loop over rows", partial(rows_one_by_one, table, rng), repeats=3)
        time("index, then an epoch", partial(by_index, table, rng))
        time("a further epoch", partial(index.epoch_rows, rng))
