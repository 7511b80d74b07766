"""Any folder of face images, optionally with labels and verification pairs -> a prepared folder.

    python data_scripts/prepare_folder.py lfw data/lfw --pairs lfw/pairs.txt --labels pose.csv --pseudo yaw,pitch,roll

Images are found in all subfolders, in the order of their paths, turned upright by their EXIF orientation, cut to
the central square and resized with an antialiasing bilinear filter. Files that cannot be read are skipped and
listed with the reason in OUT/skipped.csv. Faces are not detected or aligned: give crops.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from pcl_lib.errors import BadInput, exit_cleanly
from pcl_lib.files import replace_atomically
from pcl_lib.labels import KNOWN_LABELS, check_labels, hashed_split
from pcl_lib.shards import FolderWriter, rebatch

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif", ".jp2")
MAX_PIXELS = 80_000_000  # more is taken for a decompression bomb
MIN_SIDE = 8  # pixels; less cannot show a face
SHARD_ROWS = 4096
CHUNK = 64  # images a worker decodes at a time
SPLIT_HELP = """who is in train, validation and test. labels: column split of the CSV. official: every identity that
occurs in the first TEST_FOLDS folds of the pairs is in test, 15%% of the other identities in validation. identity:
70, 15 and 15%% of the identities. all-train: everything in train, for pre-training only (probes then have nothing
to test on). In none of them does an identity lie in two splits. Default: labels if the CSV has that column, else
official if there are pairs, else identity"""


def find_images(source: Path) -> list[Path]:
    """All image files below `source`, by suffix, sorted by path. Raises BadInput where there are none."""
    if not source.is_dir():
        raise BadInput(f"there is no folder {source}; give the folder that holds the images")
    found = [
        Path(folder, file)
        for folder, _, files in os.walk(source)
        for file in files
        if file.lower().endswith(SUFFIXES)
    ]
    if not found:
        raise BadInput(f"there are no images in {source} (looked for {' '.join(SUFFIXES)})")
    return sorted(found, key=lambda path: path.relative_to(source).as_posix())


def read_image(path: Path, size: int, crop: float) -> np.ndarray:
    """Decode one image: uint8 [3, size, size], RGB, upright, central square less `crop` of its side at every edge.

    Transparency is laid over white; 16-bit grey keeps its upper 8 bits.
    Raises BadInput with the reason where the file is empty, no image, corrupt, truncated, tiny or huge.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadInput(f"{width}x{height} pixels: taken for a decompression bomb")
            if min(width, height) < MIN_SIDE:
                raise BadInput(f"only {width}x{height} pixels")
            return _square(ImageOps.exif_transpose(image), size, crop)
    except UnidentifiedImageError:
        raise BadInput("not an image" if path.stat().st_size else "empty file") from None
    except BadInput:
        raise
    except Exception as error:  # on corrupt bytes the decoders raise almost anything
        raise BadInput(f"{type(error).__name__}: {error}") from error


def _square(image: Image.Image, size: int, crop: float) -> np.ndarray:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadInput(f"pixels of mode {image.mode}, whose white is unknown; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    image = image.convert("RGB")
    side = min(image.size) * (1 - 2 * crop)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box)).transpose(2, 0, 1)


def _read_chunk(paths: Sequence[Path], size: int, crop: float) -> tuple[np.ndarray, dict[Path, str]]:
    images, reasons = [], {}
    for path in paths:
        try:
            images.append(read_image(path, size, crop))
        except BadInput as error:
            reasons[path] = str(error)
    return np.array(images, dtype=np.uint8).reshape(-1, 3, size, size), reasons


def read_images(
    paths: Sequence[Path], size: int, crop: float, workers: int, skipped: dict[Path, str]
) -> Iterator[np.ndarray]:
    """Batches of uint8 [n, 3, size, size] in the order of `paths`, decoded by `workers` threads.

    Files that cannot be read are left out; `skipped` receives them with the reason. At most one shard is held.
    """
    with (
        tqdm(total=len(paths), unit="image", desc="reading") as bar,
        joblib.Parallel(workers, backend="threading", return_as="generator") as pool,
    ):
        for start in range(0, len(paths), SHARD_ROWS):
            part = paths[start : start + SHARD_ROWS]
            chunks = [part[i : i + CHUNK] for i in range(0, len(part), CHUNK)]
            for images, reasons in pool(joblib.delayed(_read_chunk)(chunk, size, crop) for chunk in chunks):
                skipped.update(reasons)
                yield images
                bar.update(len(images) + len(reasons))


def find_identities(source: Path, paths: Sequence[Path], how: str) -> list[str | None]:
    """Whom each image shows. parent: the folder's name; name: the file's name up to its number; none: unknown.

    An image that lies in `source` itself has no parent folder, hence no identity.
    """
    if how == "parent":
        return [None if path.parent == source else path.parent.name for path in paths]
    if how == "name":
        return [path.stem.rstrip("0123456789").rstrip("_- .") or path.stem for path in paths]
    return [None] * len(paths)


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV with a column `file` and label columns, checked. Raises BadInput naming column, row and value."""
    try:
        labels = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path} ({error}); give a CSV file with a column file") from error
    if "file" not in labels:
        raise BadInput(f"{path} has no column file; its columns are {', '.join(map(str, labels.columns))}")
    if taken := {"shard", "row"} & set(labels):
        raise BadInput(f"{path}: column {min(taken)} is a name of the prepared folder; rename it")
    if not set(labels) & set(KNOWN_LABELS):
        raise BadInput(f"{path} has none of the columns {', '.join(KNOWN_LABELS)}; rename its columns")
    again = labels["file"].duplicated()
    if again.any():
        row = int(np.flatnonzero(again)[0])
        raise BadInput(
            f"{path}, row {row}: {labels['file'].iloc[row]} has been labelled before; keep one row"
        )
    check_labels(labels, str(path))
    return labels


def add_labels(table: pd.DataFrame, labels: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Join labels to `table` by relative path, or else by file name where that is unique; count what did not match.

    A label takes the place of what was read off the folders. Raises BadInput where nothing matches.
    """
    at = pd.Series(np.arange(len(labels)), index=labels["file"].astype(str).str.replace("\\", "/"))
    base = table["file"].str.rsplit("/", n=1).str[-1]
    row = table["file"].map(at).fillna(base.where(~base.duplicated(keep=False)).map(at))
    counts = {
        "images_without_labels": int(row.isna().sum()),
        "labels_without_image": len(labels) - row.nunique(),
    }
    if row.isna().all():
        raise BadInput(
            f"{path}: no row names an image of the folder (the first is {labels['file'].iloc[0]!r})"
        )
    columns = labels.drop(columns="file").reindex(row.fillna(-1).astype(int)).reset_index(drop=True)
    kept = table.drop(columns=[name for name in columns if name in table])
    return pd.concat([kept, columns], axis=1), counts


def read_pairs(path: Path) -> tuple[pd.DataFrame, int]:
    """Pairs as LFW lists them: first and second (file stems), same, fold (0..); and how many the file announces.

    First line: number of folds, pairs of each kind. Then, fold by fold, "NAME i j" for two images of one person
    and "NAME1 i NAME2 j" for two people. Lines may be missing: a fold ends where positive lines follow negative.
    Source: LFW, README of View 2.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        folds, of_each_kind = map(int, lines[0])
        pairs = [(row[0], row[1], row[0], row[2]) if len(row) == 3 else tuple(row) for row in lines[1:]]
        stems = [(f"{a}_{int(i):04d}", f"{b}_{int(j):04d}") for a, i, b, j in pairs]
    except (OSError, ValueError, IndexError) as error:
        raise BadInput(f"cannot read {path} as a list of LFW pairs ({error})") from error
    same = np.array([len(row) == 3 for row in lines[1:]], dtype=bool)
    fold = np.cumsum(same & ~np.roll(same, 1)) - 1 if len(same) and not same[-1] else np.zeros(0, dtype=int)
    if not len(fold) or fold.min() < 0 or fold.max() + 1 != folds:
        raise BadInput(f"{path}: the first line announces {folds} folds, but its pairs do not form that many")
    return pd.DataFrame(stems, columns=["first", "second"]).assign(
        same=same, fold=fold
    ), 2 * folds * of_each_kind


def locate_pairs(pairs: pd.DataFrame, files: pd.Series) -> pd.DataFrame:
    """Replace file stems by row numbers of `files`; pairs with a missing image are left out."""
    stems = files.str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
    named = pd.unique(pairs[["first", "second"]].to_numpy().ravel())
    unclear = stems[stems.duplicated(keep=False) & stems.isin(named)]
    if len(unclear):
        raise BadInput(
            f"the pairs name {unclear.iloc[0]}, but {files[unclear.index[0]]} is not the only such file"
        )
    row = pd.Series(np.arange(len(files)), index=stems)
    row = row[~row.index.duplicated()]
    found = pairs.assign(first=pairs["first"].map(row), second=pairs["second"].map(row)).dropna()
    return found.astype({"first": np.int64, "second": np.int64, "fold": np.int64}).reset_index(drop=True)


def choose_split(
    table: pd.DataFrame, pairs: pd.DataFrame | None, how: str | None, test_folds: int | None
) -> pd.Series:
    """The split of each row of `table`; `how` and `test_folds` as the command line explains them."""
    how = how or ("labels" if "split" in table else "official" if pairs is not None else "identity")
    if how == "labels":
        if "split" not in table:
            raise BadInput("--split labels needs a column split in the CSV of --labels")
        return table["split"]
    if how == "all-train":
        return pd.Series("train", index=table.index)
    if how == "identity":
        return hashed_split(table)
    if pairs is None or table["identity"].isna().any():
        raise BadInput("--split official needs --pairs and an identity for every image")
    held_out = pairs[pairs["fold"] < (test_folds or 10)]
    people = set(table["identity"].iloc[held_out["first"]]) | set(table["identity"].iloc[held_out["second"]])
    split = pd.Series("test", index=table.index)
    others = ~table["identity"].isin(people)
    if others.any():
        split[others] = hashed_split(table[others], (0.15, 0.0))
    return split


def plan(
    options: argparse.Namespace, paths: Sequence[Path]
) -> tuple[pd.DataFrame, pd.DataFrame | None, dict[str, Any]]:
    """Table and pairs for all files found, and what to record about them, before anything is decoded."""
    files = [path.relative_to(options.source).as_posix() for path in paths]
    table = pd.DataFrame(
        {"file": files, "identity": find_identities(options.source, paths, options.identity_from)}
    )
    extra: dict[str, Any] = {}
    if options.labels:
        table, extra["labels"] = add_labels(table, read_csv(options.labels), options.labels)
    if unknown := set(options.pseudo) - set(table):
        raise BadInput(f"--pseudo names {min(unknown)}, but the labels have no such column")
    if options.pseudo:
        extra["pseudo"] = options.pseudo
    pairs = None
    if options.pairs:
        listed, announced = read_pairs(options.pairs)
        pairs = locate_pairs(listed, table["file"])
        extra["pairs"] = {"announced": announced, "listed": len(listed)}
    table["split"] = choose_split(table, pairs, options.split, options.test_folds)
    check_labels(table, "the table")
    return table.dropna(axis="columns", how="all"), pairs, extra


def prepare(options: argparse.Namespace) -> None:
    """Do what the command line asks."""
    started = time.perf_counter()
    paths = find_images(options.source)
    table, pairs, extra = plan(options, paths)
    skipped: dict[Path, str] = {}
    with FolderWriter(options.out) as writer:
        images = read_images(paths, options.size, options.crop, options.workers, skipped)
        for shard in rebatch(images, SHARD_ROWS):
            writer.add_shard(shard)
        if len(skipped) == len(paths):
            path, reason = next(iter(skipped.items()))
            raise BadInput(
                f"none of the {len(paths)} images in {options.source} can be read ({path}: {reason})"
            )
        kept = np.array([path not in skipped for path in paths])
        if pairs is not None:
            new_row = np.cumsum(kept) - 1
            whole = kept[pairs["first"]] & kept[pairs["second"]]
            pairs = pairs[whole].assign(
                first=new_row[pairs["first"][whole]], second=new_row[pairs["second"][whole]]
            )
        listing = pd.DataFrame(
            {
                "file": [path.relative_to(options.source).as_posix() for path in skipped],
                "reason": skipped.values(),
            }
        )
        with replace_atomically(options.out / "skipped.csv") as temporary:
            listing.to_csv(temporary, index=False)
        info = {
            "name": options.name or options.source.resolve().name,
            "source": f"data_scripts/prepare_folder.py, from a folder named {options.source.resolve().name}",
            "licence": options.licence,
            "skipped": len(skipped),
            "settings": {"size": options.size, "crop": options.crop, "identity_from": options.identity_from},
        }
        record = writer.finish(table[kept], info | extra, pairs)
    report(options.out, record, listing, len(paths) / (time.perf_counter() - started))


def report(out: Path, record: dict[str, Any], skipped: pd.DataFrame, speed: float) -> None:
    """Print what was made, what was left out, and what follows from it."""
    counts = record["counts"]
    print(
        f"{out}: "
        + ", ".join(f"{value} {name}" for name, value in counts.items())
        + f" ({speed:.0f} images/s)"
    )
    if len(skipped):
        first = skipped.iloc[0]
        print(
            f"Skipped {len(skipped)} files, listed in {out / 'skipped.csv'}; the first: {first.file}: {first.reason}"
        )
    if "labels" in record:
        missing = record["labels"]
        print(
            f"Images without labels: {missing['images_without_labels']};"
            f" labels without an image: {missing['labels_without_image']}"
        )
    if "pairs" in record:
        told = record["pairs"]
        print(
            f"Pairs: {counts['pairs']} of the {told['announced']} announced: {told['announced'] - told['listed']} are"
            f" not in the file, {told['listed'] - counts['pairs']} lack an image"
        )
        if counts["train"] < 0.5 * counts["images"]:
            print("Less than half of the images are left to train on; --test-folds 2 holds out fewer people")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="folder of images, searched with its subfolders")
    add("out", type=Path, metavar="OUT", help="the prepared folder to make (new or empty)")
    add("--size", type=int, default=64, help="side of the square images in pixels (64)")
    add(
        "--crop",
        type=float,
        default=0.0,
        help="share of the square's side to trim at every edge, 0 to 0.45 (0)",
    )
    add(
        "--labels",
        type=Path,
        help="CSV: column file (path within SOURCE, or file name) and label columns: "
        + ", ".join(KNOWN_LABELS),
    )
    add(
        "--pseudo",
        type=lambda text: text.split(","),
        default=[],
        help="columns that were estimated, not measured: "
        "recorded in dataset.json, so that results can say so",
    )
    add(
        "--identity-from",
        choices=("parent", "name", "none"),
        default="parent",
        help="whom an image shows: its "
        "folder, its file name without the trailing number, or unknown (parent)",
    )
    add("--pairs", type=Path, help="verification pairs as LFW lists them (pairs.txt)")
    add("--split", choices=("labels", "official", "identity", "all-train"), help=SPLIT_HELP)
    add(
        "--test-folds",
        type=int,
        help="with official: hold out the people of the first so many folds only (all)",
    )
    add("--name", help="name of the set (that of SOURCE)")
    add("--licence", default="", help="terms of use, recorded in dataset.json")
    add("--workers", type=int, default=os.cpu_count() or 1, help="threads that decode (all cores)")
    options = parser.parse_args(arguments)
    for name, low, high in (
        ("size", 1, 4096),
        ("crop", 0, 0.45),
        ("workers", 1, 1024),
        ("test_folds", 1, 10),
    ):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise BadInput(f"--{name.replace('_', '-')} is {value}; it must be from {low} to {high}")
    return options


def main() -> None:
    """Entry point."""
    prepare(parse())


if __name__ == "__main__":
    exit_cleanly(main)
