"""From a listing to a prepared folder: the same bytes for any number of workers, on one machine or a cluster.

The listing is cut into shards. A worker makes a whole shard: it decodes and crops the images, writes the shard, then
a small part file which says what could not be used and why. Both are whole or absent, so that a run that was
killed goes on with the shards that are missing. The table is written once all parts are there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import PIL
from tqdm.auto import tqdm

from data_scripts.align import cut, find_face, side_of
from data_scripts.images import open_all
from data_scripts.listing import BOX_COLUMNS, CROP_COLUMNS, LeftOut, Listing, Recipe, fingerprint
from data_scripts.repeats import digest_of, repeats
from data_scripts.report import report, skipped_csv
from data_scripts.sources import packed, printable, unpacked
from data_scripts.splits import settle
from pcl_lib.data.writer import INFO, FolderWriter, Part, read_parts, remove_marks, write_part
from pcl_lib.utils import BadInput

SHARD_ROWS = (128, 1024)  # images of a shard: few enough that small sets keep several workers busy
SHARD_BYTES = 64 << 20  # what a worker may hold at most, besides the image at hand
PATIENCE = 20  # seconds for a scheduler to answer
DIFFERS = {
    "pictures": "pictures that have been replaced since (their sizes or dates differ)",
    "listing": "other files, labels or pairs",
}
BACKENDS = ("threading", "loky")
NOTES = ("failed", "boxes", "digests")  # what each part tells
DETECT_MARGIN = 0.15  # OpenCV's boxes go from brows to chin


@dataclass(frozen=True)
class Job:
    """One shard to be made: which images, cut how, written where. `places`: [n, columns of the recipe]."""

    number: int
    root: Path
    files: list[str]
    places: np.ndarray
    recipe: Recipe
    size: int
    folder: Path


def make_part(job: Job) -> Part:
    """Do a job: decode, crop, write. What fails is told in the part's note, by position in the job.

    note: failed [[position, reason], ...]; boxes [[left, top, right, bottom], ...] of the others where faces were
    detected; digests of the others' pixels. Raises BadInput only where the disk refuses.
    """
    recipe, size = job.recipe, job.size
    sides = [side_of_or_nan(recipe, place) for place in job.places.tolist()]
    images = np.empty((len(job.files), 3, size, size), dtype=np.uint8)
    failed: list[list[Any]] = []
    boxes: list[list[float]] = []
    for position, got in enumerate(open_all(job.root, job.files, sides, size)):
        try:
            if isinstance(got, BadInput):
                raise got
            image, scale = got
            place: Sequence[float] = job.places[position]
            if recipe.how == "detect":
                place = find_face(image)
                boxes.append([round(value, 2) for value in place])
            images[position - len(failed)] = cut(image, scale, recipe, place, size)
        except BadInput as error:
            failed.append([position, printable(str(error))])
            del boxes[position + 1 - len(failed) :]
    kept = images[: len(job.files) - len(failed)]
    told = (failed, boxes, [digest_of(image) for image in kept])
    return write_part(job.folder, job.number, kept, dict(zip(NOTES, told, strict=True)))


def side_of_or_nan(recipe: Recipe, place: Sequence[float]) -> Callable[[int, int], float]:
    """`side_of`, which is unknown where the place makes no sense: `cut` will say so."""
    try:
        side = side_of(recipe, place)
        side(1, 1)
    except BadInput:
        return lambda *_: float("nan")
    return side


def shard_rows(images: int, size: int) -> int:
    """How many images a shard of a listing takes; hangs on nothing else, so that any run makes the same shards."""
    least, most = SHARD_ROWS
    return max(1, min(most, SHARD_BYTES // (3 * size**2), max(least, -(-images // 64))))


def prepare(
    listing: Listing,
    out: str | Path,
    *,
    size: int = 64,
    workers: int = 1,
    scheduler: str | None = None,
    backend: str = "threading",
    progress: bool = True,
) -> dict[str, Any]:
    """Make the prepared folder `out` of a listing; go on where an earlier run of the same listing was stopped.

    size: pixels. workers: on this machine; scheduler: address of a Dask scheduler instead, whose workers see the
    same paths and have this kit installed. backend: threads or processes. A set that is there already, made of the
    same listing in the same way, is left as it is. Returns what dataset.json holds; prints a summary.
    Raises BadInput: a listing that contradicts itself, a folder that holds something else, no image that can be
    used, no pair that has both images, a disk that is full or forbidden.
    """
    started, out = time.perf_counter(), Path(out).absolute()
    listing.check()
    settings = {"size": size, **listing.recipe.record()}
    pixels = settings | {
        "images": _digest(listing, CROP_COLUMNS[listing.recipe.how]),
        "pictures": fingerprint(listing),
        "pillow": PIL.__version__,
        "notes": NOTES,
    }
    settings |= {
        "listing": _digest(listing, [str(name) for name in listing.table]),
        "pictures": pixels["pictures"],
    }
    if (found := _already(out, settings)) is not None:
        with contextlib.suppress(OSError):  # of a folder that may only be read
            remove_marks(out)
        print(f"{out} holds this set already, made in the same way; nothing to do.")
        return found
    rows = shard_rows(len(listing.table), size)
    with FolderWriter(out, pixels, in_parts=True) as writer:
        parts = {part.number: part for part in read_parts(out)}
        if parts:
            print(f"Going on after {len(parts)} shards that are finished in {out}.")
        jobs = [job for job in cut_jobs(listing, out, size, rows) if job.number not in parts]
        with _pool(workers, scheduler, backend) as pool:
            tried = _make(jobs, pool, parts, len(listing.table), listing.name, progress)
        whole = join(listing, parts, rows)
        skipped_csv(out, whole.left_out)
        writer.add_parts(parts.values())
        info = _info(whole, settings)
        record = writer.finish(_stored(whole.table), info, whole.pairs)
    pairs_lost = 0 if listing.pairs is None else len(listing.pairs) - record["counts"]["pairs"]
    seconds = time.perf_counter() - started
    report(out, record, whole.left_out, pairs_lost, tried, seconds)
    return record


def _make(
    jobs: Sequence[Job], pool: joblib.Parallel, parts: dict[int, Part], images: int, name: str, progress: bool
) -> int:
    """Have `jobs` done, add what they make to `parts`, show how far of all `images`; returns how many were tried."""
    here = sum(len(job.files) for job in jobs)
    if jobs:
        _check_room(jobs[0].folder, here * 3 * jobs[0].size ** 2)
    with tqdm(total=images, initial=images - here, unit="image", desc=name, disable=not progress) as bar:
        for part in pool(joblib.delayed(make_part)(job) for job in jobs):
            parts[part.number] = part
            bar.update(part.rows + len(part.note["failed"]))
    return here


def _digest(listing: Listing, columns: Sequence[str]) -> str:
    """A hash over the rows of the listing: paths, and `columns`."""
    table = listing.table[list(dict.fromkeys(["file", *columns]))].assign(
        file=listing.table["file"].map(printable)
    )
    digest = hashlib.sha256(",".join(map(str, table.columns)).encode())
    digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    if listing.pairs is not None and columns != CROP_COLUMNS[listing.recipe.how]:
        digest.update(pd.util.hash_pandas_object(listing.pairs, index=False).to_numpy().tobytes())
    return digest.hexdigest()[:16]


def _already(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What dataset.json in `out` holds; None where there is none. BadInput where it was made of other things."""
    if not (out / INFO).exists():
        return None
    found: dict[str, Any] = json.loads((out / INFO).read_text(encoding="utf-8"))
    made, wanted = found.get("settings") or {}, json.loads(json.dumps(settings))
    if made == wanted:
        return found
    told = [
        DIFFERS.get(name, f"another {name}")
        for name in sorted(wanted.keys() | made)
        if made.get(name) != wanted.get(name)
    ]
    raise BadInput(
        f"{out} already holds a prepared set, made of {', '.join(told)}; choose another folder or remove it first"
    )


def _check_room(out: Path, wanted: int) -> None:
    free = shutil.disk_usage(out).free
    if wanted > free:
        raise BadInput(
            f"{out} needs {wanted / 2**20:,.1f} MiB, and its disk has {free / 2**20:,.1f} MiB free: free some space"
            " or choose another folder or a smaller --size"
        )


def cut_jobs(listing: Listing, out: Path, size: int, rows: int) -> Iterator[Job]:
    """The shards of a listing, `rows` images each."""
    files = listing.table["file"].tolist()
    places = listing.table[list(CROP_COLUMNS[listing.recipe.how])].to_numpy(dtype=np.float64, na_value=np.nan)
    root = listing.root.absolute()
    for number, start in enumerate(range(0, len(files), rows)):
        part = slice(start, start + rows)
        yield Job(number, root, files[part], places[part], listing.recipe, size, out)


@contextlib.contextmanager
def _pool(workers: int, scheduler: str | None, backend: str) -> Iterator[joblib.Parallel]:
    """Something that runs delayed calls and yields their results as they come."""
    options = {
        "return_as": "generator_unordered",
        "pre_dispatch": "2*n_jobs",
    }  # results as they come; few jobs wait
    if scheduler is None:
        with joblib.Parallel(workers, backend=backend, **options) as pool:
            yield pool
        return
    from distributed import Client

    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"no Dask scheduler answers at {scheduler} ({type(error).__name__}); start one with dask scheduler"
        ) from error
    with (
        client,
        joblib.parallel_config(backend="dask", wait_for_workers_timeout=60),
        joblib.Parallel(n_jobs=-1, **options) as pool,
    ):
        yield pool


def join(listing: Listing, parts: dict[int, Part], rows: int) -> Listing:
    """The listing as it was made: without the rows that failed, which `left_out` then has; pairs renumbered.

    Its notes tell of pictures that are there twice. Raises BadInput where no image is left, or no pair of all that
    there were.
    """
    kept = np.ones(len(listing.table), dtype=bool)
    failed, boxes, digests = LeftOut(), [], []
    files = listing.table["file"]
    for number in sorted(parts):
        for position, reason in parts[number].note["failed"]:
            row = number * rows + position
            kept[row] = False
            failed.add(files.iloc[row], reason)
        boxes += parts[number].note["boxes"]
        digests += parts[number].note["digests"]
    if not kept.any():
        first = failed.frame().iloc[0]
        raise BadInput(
            f"none of the {len(kept)} images in {printable(str(listing.root))} can be used"
            f" ({printable(first.file)}: {first.reason})"
        )
    table = listing.table[kept].reset_index(drop=True)
    if listing.recipe.how == "detect":
        table = table.assign(**dict(zip(BOX_COLUMNS, np.array(boxes).T, strict=True)))
    pairs = listing.pairs
    if pairs is not None:
        new_row = np.cumsum(kept) - 1
        pairs = pairs[kept[pairs["first"]] & kept[pairs["second"]]].reset_index(drop=True)
        pairs = pairs.assign(first=new_row[pairs["first"]], second=new_row[pairs["second"]])
        if pairs.empty:
            raise BadInput(
                f"none of the {len(listing.pairs)} pairs has both images: each names one that cannot be used"  # type: ignore[arg-type]
            )
    left_out = pd.concat([listing.left_out, failed.frame()], ignore_index=True)
    notes = [*listing.notes, *repeats(table, digests)]
    return replace(listing, table=table, pairs=pairs, left_out=left_out, notes=notes)


def _stored(table: pd.DataFrame) -> pd.DataFrame:
    """The table for faces.parquet: names as text, labels that no row has left out."""
    return table.assign(file=table["file"].map(printable)).dropna(axis="columns", how="all")


def _info(listing: Listing, settings: dict[str, Any]) -> dict[str, Any]:
    """What dataset.json says besides what the shards say."""
    info: dict[str, Any] = {
        "name": listing.name,
        "source": listing.source,
        "licence": listing.licence,
        "skipped": len(listing.left_out),
        "settings": settings,
    }
    if listing.pseudo:
        info["pseudo"] = list(listing.pseudo)
    if listing.notes:
        info["notes"] = list(listing.notes)
    return info | listing.extra


# Command line -----------------------------------------------------------------------------------------------


def standard_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line that all scripts share; a script may add options of its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "root",
        type=Path,
        metavar="ROOT",
        help="the set as it was downloaded: a folder, or a .zip or .tar(.gz, ...)",
    )
    add(
        "out",
        type=Path,
        metavar="OUT",
        help="the prepared folder to make, new or empty; or one left unfinished",
    )
    add("--size", type=int, default=64, help="side of the square images in pixels (64)")
    add("--align", choices=("detect", "none"), help="crop to the face that OpenCV finds, or keep each image's central "
        "square, instead of what suits the set")  # fmt: skip
    add(
        "--margin",
        type=float,
        help="what to add at every edge of the crop, as a share of its side; negative trims",
    )
    add("--workers", type=int, default=os.cpu_count() or 1, help="how many work at a time (all cores)")
    add(
        "--backend",
        choices=BACKENDS,
        default="threading",
        help="workers are threads, or processes (threading)",
    )
    add(
        "--scheduler",
        metavar="ADDRESS",
        help="work on a Dask cluster, tcp://HOST:PORT, that sees the same paths",
    )
    add("--name", help="name of the set")
    add("--licence", help="terms of use, recorded in dataset.json")
    return parser


def check_range(options: argparse.Namespace, name: str, low: float, high: float) -> None:
    """Raise BadInput where an option is given and lies outside low..high."""
    value = getattr(options, name)
    if value is not None and not low <= value <= high:
        raise BadInput(f"--{name.replace('_', '-')} is {value}; it must be from {low} to {high}")


def choose_recipe(recipe: Recipe, align: str | None, margin: float | None) -> Recipe:
    """A set's recipe, changed as the command line asks."""
    if align is not None:
        recipe = Recipe("detect", DETECT_MARGIN) if align == "detect" else Recipe("as_is")
    return recipe if margin is None else replace(recipe, margin=margin)


def run(
    read: Callable[[Path, argparse.Namespace], Listing],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Read a set as the command line says and prepare it; returns what dataset.json holds.

    read: takes the folder (an archive has been unpacked by then) and the options. Raises BadInput.
    """
    options = parser.parse_args(argv)
    check_range(options, "size", 1, 4096)
    check_range(options, "workers", 1, 1024)
    check_range(options, "margin", -0.45, 4)
    with unpacked(options.root, options.out) as (root, refused):
        listing = read(root, options)
        archives, told = packed(root, refused)
        listing = replace(
            listing,
            name=options.name or listing.name,
            licence=listing.licence if options.licence is None else options.licence,
            left_out=pd.concat([refused.frame(), archives.frame(), listing.left_out], ignore_index=True),
            notes=[*listing.notes, *told],
            recipe=choose_recipe(listing.recipe, options.align, options.margin),
        )
        listing = settle(listing)
        return prepare(
            listing,
            options.out,
            size=options.size,
            workers=options.workers,
            scheduler=options.scheduler,
            backend=options.backend,
        )
