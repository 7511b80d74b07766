"""Prepared folders: faces as memory-mapped uint8 shards with a label table (DESIGN.md, "A prepared folder")."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pcl_lib.batches import IdentityIndex, ImageSource, identity_index, resize_images
from pcl_lib.errors import BadInput
from pcl_lib.labels import SPLITS, check_labels, hashed_split
from pcl_lib.shards import (
    FORMAT,
    INFO,
    PAIRS,
    TABLE,
    UNFINISHED,
    VERSION,
    FolderWriter,
    check_pairs,
    content_hash,
    file_hash,
    write_prepared,
)

__all__ = [
    "IdentityIndex",
    "ImageSource",
    "PreparedFaces",
    "identity_index",
    "make_pairs",
    "prepare_rendered",
    "resize_images",
    "write_prepared",
]
RENDER_ROWS = 1024  # images in a shard of rendered faces: what an interruption can cost at most
RENDER_BATCH = 128
FIRST_OF_CLIPS = (
    100_000  # clips show people from this number on, so that no set of still images knows any of them
)

Rows = int | slice | Sequence[int] | np.ndarray | Tensor


class PreparedFaces:
    """A prepared folder, opened for reading: images memory-mapped, labels in memory, all checked on opening.

    name, source, licence, image_size (pixels), content_hash: from dataset.json; info: all of it.
    table: one row an image (index 0..n-1 = row number); a label that the set lacks is absent, or NaN in a row.
    Raises BadInput, naming the file and where it applies the row, for a folder that is missing, empty, foreign,
    half-written or torn, and for labels out of range.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        self.name: str = self.info["name"]
        self.image_size: int = self.info["image_size"]
        self.content_hash: str = self.info["content_hash"]
        self._shards = [self._open_shard(entry["file"], entry["rows"]) for entry in self.info["shards"]]
        self.table = self._read_table()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.table)

    def __repr__(self) -> str:
        return f"PreparedFaces({str(self.folder)!r}: {self.name}, {len(self)} images of {self.image_size} px)"

    def _open_shard(self, file: str, rows: int) -> np.ndarray:
        path = self.folder / file
        try:
            shard = np.load(path, mmap_mode="r")
        except FileNotFoundError:
            raise BadInput(f"{path} is missing: the set is torn; prepare it again") from None
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(f"{path} is torn ({error}); prepare the set again") from error
        wanted = (rows, 3, self.image_size, self.image_size)
        if not isinstance(shard, np.memmap) or shard.dtype != np.uint8 or shard.shape != wanted:
            raise BadInput(
                f"{path} holds {shard.dtype} {shard.shape}, not uint8 {wanted}; prepare the set again"
            )
        if path.stat().st_size != shard.offset + shard.nbytes:
            raise BadInput(f"{path} has a wrong size ({path.stat().st_size} bytes); prepare the set again")
        # numpy keeps a file open as long as its map; large sets have more shards than a process may open files
        size = shard.offset + shard.nbytes
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
        return whole[shard.offset :].reshape(wanted)

    def _read_parquet(self, file: str) -> pd.DataFrame:
        path = self.folder / file
        try:
            return pd.read_parquet(path)
        except FileNotFoundError:
            raise BadInput(f"{path} is missing: the set is torn; prepare it again") from None
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise BadInput(f"{path} cannot be read ({error}); prepare the set again") from error

    def _read_table(self) -> pd.DataFrame:
        table, path = self._read_parquet(TABLE), self.folder / TABLE
        if missing := {"shard", "row"} - set(table.columns):
            raise BadInput(f"{path} has no column {min(missing)}; prepare the set again")
        if len(table) != self.info["counts"]["images"] or not len(table):
            raise BadInput(f"{path} has {len(table)} rows, dataset.json says {self.info['counts']['images']}")
        lengths = np.array([len(shard) for shard in self._shards])
        shard, row = table["shard"].to_numpy(), table["row"].to_numpy()
        known = (shard >= 0) & (shard < len(lengths))
        nowhere = ~known | (row < 0) | (row >= lengths[np.where(known, shard, 0)])
        if nowhere.any():
            at = int(np.flatnonzero(nowhere)[0])
            raise BadInput(
                f"{path}, row {at}, points to image {row[at]} of shard {shard[at]}, which does not exist"
            )
        check_labels(table, str(path))
        self._shard_of, self._row_of = shard.astype(np.int64), row.astype(np.int64)
        return table

    @cached_property
    def pairs(self) -> pd.DataFrame | None:
        """Verification pairs: first, second (row numbers), same (bool), fold (0..9); None where there are none."""
        if PAIRS not in self.info["sha256"]:
            return None
        pairs = self._read_parquet(PAIRS)
        check_pairs(pairs, len(self), str(self.folder / PAIRS))
        return pairs

    @cached_property
    def _split(self) -> np.ndarray:
        return (self.table["split"] if "split" in self.table else hashed_split(self.table)).to_numpy(
            dtype=object
        )

    def split(self, name: str) -> np.ndarray:
        """Row numbers of a split, ascending: int64 [n]; name: train, validation or test.

        A set without a column split is split by `labels.hashed_split`: 70, 15 and 15% of its identities.
        Empty where the set's own split has no such rows. Raises BadInput for another name.
        """
        if name not in SPLITS:
            raise BadInput(f"there is no split {name!r}; it is one of {', '.join(SPLITS)}")
        return np.flatnonzero(self._split == name)

    def images(self, rows: Rows) -> Tensor:
        """The images of `rows` in the order asked: uint8 [n, 3, S, S], in memory of their own.

        rows: an int, a slice, or ints as list, array or tensor; repeats are allowed, negative numbers are not.
        Raises BadInput that names the first row which does not exist.
        """
        index = self._row_numbers(rows)
        out = np.empty((len(index), 3, self.image_size, self.image_size), dtype=np.uint8)
        shard, row = self._shard_of[index], self._row_of[index]
        order = np.lexsort((row, shard))  # each shard once, its pages in order
        ends = np.flatnonzero(np.diff(shard[order], append=-1)) + 1
        for start, end in zip([0, *ends[:-1]], ends, strict=False):
            part = order[start:end]
            out[part] = self._shards[shard[part[0]]][row[part]]
        return torch.from_numpy(out)

    def _row_numbers(self, rows: Rows) -> np.ndarray:
        if isinstance(rows, slice):
            return np.arange(len(self))[rows]
        index = np.atleast_1d(rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows))
        if not index.size:
            return np.empty(0, dtype=np.int64)
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise BadInput(f"rows must be whole numbers in one dimension, not {index.dtype} {index.shape}")
        outside = (index < 0) | (index >= len(self))
        if outside.any():
            raise BadInput(f"{self.folder} has rows 0..{len(self) - 1}; there is no row {index[outside][0]}")
        return index.astype(np.int64)

    def verify(self) -> str:
        """Read every file, compare it with its recorded SHA-256 and return the content hash.

        Raises BadInput that names the first file whose content has changed.
        """
        for file, wanted in self.info["sha256"].items():
            if file_hash(self.folder / file) != wanted:
                raise BadInput(
                    f"{self.folder / file} has changed since it was written; prepare the set again"
                )
        if content_hash(self.info["sha256"]) != self.content_hash:
            raise BadInput(f"{self.folder / INFO} has changed since it was written; prepare the set again")
        return self.content_hash


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / INFO
    if not folder.is_dir():
        raise BadInput(
            f"there is no folder {folder}; make one with data_scripts/prepare_folder.py or render_faces.py"
        )
    if not path.exists():
        if (folder / UNFINISHED).exists():
            raise BadInput(f"{folder} is half written; run the command that makes it again, or remove it")
        state = "is not a prepared folder (it has no dataset.json)" if any(folder.iterdir()) else "is empty"
        raise BadInput(f"{folder} {state}; make one from images with data_scripts/prepare_folder.py")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); prepare the set again") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise BadInput(
            f"{path} does not describe a prepared folder; use data_scripts/prepare_folder.py to make one"
        )
    if info.get("version") != VERSION:
        raise BadInput(
            f"{path} is of version {info.get('version')}, this kit reads {VERSION}; prepare the set again"
        )
    if missing := {"name", "image_size", "counts", "shards", "sha256", "content_hash"} - info.keys():
        raise BadInput(f"{path} has no entry {min(missing)}; prepare the set again")
    return info


def make_pairs(
    table: pd.DataFrame, rows: np.ndarray, *, seed: int = 0, at_most: int = 6000
) -> pd.DataFrame | None:
    """Verification pairs in LFW's style among `rows`: half of one identity, half of two people.

    Folds are identity-disjoint: ten (fewer where there are fewer than 20 identities, so that each has two), all
    of one size: min(at_most, 20 an image) pairs in all, or as many distinct ones as there are. No pair occurs twice.
    Returns first, second (row numbers), same, fold; None where a fold would have no pair of one identity.
    """
    rng = np.random.default_rng([seed, 0x9A125])
    index = identity_index(table, rows)
    folds = min(10, len(index) // 2)
    if folds == 0:
        return None
    wanted = max(1, min(at_most, 20 * len(rows)) // (2 * folds))
    fold_of = rng.permutation(np.arange(len(index)) % folds)
    owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    drawn = []
    for fold in range(folds):
        here = np.flatnonzero(fold_of[owner] == fold)
        drawn.append([_draw_pairs(here, owner, same, wanted, rng) for same in (True, False)])
    smallest = min(len(part) for both in drawn for part in both)
    if smallest == 0:
        return None
    parts = [
        pd.DataFrame(
            {
                "first": index.rows[part[:smallest, 0]],
                "second": index.rows[part[:smallest, 1]],
                "same": same,
                "fold": fold,
            }
        )
        for fold, both in enumerate(drawn)
        for same, part in zip((True, False), both, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _draw_pairs(
    here: np.ndarray, owner: np.ndarray, same: bool, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Up to `wanted` distinct pairs of positions out of `here`, of one owner or of two: int64 [n, 2]."""
    if len(here) <= 400:  # few enough to list them all
        first, second = here[np.stack(np.triu_indices(len(here), 1))]
    elif same:
        starts, sizes = np.unique(owner[here], return_index=True, return_counts=True)[1:]
        group = rng.integers(len(starts), size=4 * wanted)
        first, second = here[starts[group] + rng.integers(sizes[group], size=(2, 4 * wanted))]
    else:
        first, second = rng.choice(here, size=(2, 4 * wanted))
    keep = (first != second) & ((owner[first] == owner[second]) == same)
    found = np.unique(np.sort(np.stack([first[keep], second[keep]], axis=1), axis=1), axis=0)
    return rng.permutation(found)[:wanted]


def prepare_rendered(
    folder: str | Path,
    *,
    identities: tuple[int, int, int],
    images_per_identity: int,
    size: int = 64,
    seed: int = 0,
    clutter: float | None = None,
    frames_per_clip: int = 1,
    expression: str = "fixed",
    progress: bool = True,
) -> PreparedFaces:
    """Render the default data into `folder`, or open it where the same was rendered before (and say so).

    identities: how many for train, validation and test; they are different people. size: pixels.
    clutter: 0 plain background .. 1 busy, None for the renderer's default. The test split gets pairs.
    frames_per_clip: from 2 on, the images of an identity are clips of so many frames (`faces.clips.sample_clips`,
    which says what `expression` means) of other people than any set of still images has, and the table has the
    columns clip and frame.
    An interrupted rendering goes on after its last whole shard; the result is the same.
    Raises BadInput where the folder holds a set of other settings, and as `FolderWriter` does.
    """
    settings = {
        "identities": list(identities),
        "images_per_identity": images_per_identity,
        "size": size,
        "seed": seed,
        "clutter": clutter,
        "renderer": _renderer_hash(),
    }
    if frames_per_clip != 1:  # sets of still images keep the settings that they always had
        settings |= {"frames_per_clip": frames_per_clip, "expression": expression}
    if min(*identities, images_per_identity, size, frames_per_clip) < 1:
        raise BadInput(
            f"rendered faces need at least one identity a split, one image, one pixel; got {settings}"
        )
    if images_per_identity % frames_per_clip:
        raise BadInput(
            f"{images_per_identity} images per identity are not whole clips of {frames_per_clip} frames: "
            "choose a multiple"
        )
    folder = Path(folder)
    if (folder / INFO).exists():
        faces = PreparedFaces(folder)
        made_with = faces.info.get("settings", {})
        if other := [
            f"{key} {made_with.get(key)}" for key in settings if made_with.get(key) != settings[key]
        ]:
            wanted = [f"{key} {settings[key]}" for key in settings if made_with.get(key) != settings[key]]
            raise BadInput(
                f"{folder} holds {faces.name} with {', '.join(other)}, where {', '.join(wanted)} is wanted;"
                " remove it or choose another folder"
            )
        print(f"Using the {len(faces)} rendered faces in {folder}.")
        return faces
    _render_into(folder, settings, progress)
    return PreparedFaces(folder)


def _renderer_hash() -> str:
    """What the renderer is, so that pictures of an older one are not taken for its own."""
    # __main__ only draws figures
    sources = sorted(p for p in Path(__file__).with_name("faces").glob("*.py") if p.stem != "__main__")
    return hashlib.sha256("".join(path.read_text(encoding="utf-8") for path in sources).encode()).hexdigest()[
        :12
    ]


def _factors(settings: dict[str, Any]) -> pd.DataFrame:
    """The factors of a rendered set: of still images or, where the settings ask for them, of clips."""
    from pcl_lib.faces import sample_factors
    from pcl_lib.faces.clips import sample_clips

    total, frames = sum(settings["identities"]), settings.get("frames_per_clip", 1)
    options: dict[str, Any] = {"seed": settings["seed"], "identities": total}
    if settings["clutter"] is not None:
        options["clutter"] = settings["clutter"]
    count = total * settings["images_per_identity"]
    if frames == 1:
        return sample_factors(count, **options)
    return sample_clips(
        count // frames,
        frames,
        expression=settings["expression"],
        first_identity=FIRST_OF_CLIPS,
        **options,
    )


def _render_into(folder: Path, settings: dict[str, Any], progress: bool) -> None:
    from pcl_lib.faces import render  # compiles code: only where it is needed

    seed, factors = settings["seed"], _factors(settings)
    ends = np.cumsum(settings["identities"])[:2]
    place = factors["identity"] - factors["identity"].iloc[0]  # the first row shows the first person
    split = np.array(SPLITS, dtype=object)[np.searchsorted(ends, place, side="right")]
    with FolderWriter(folder, settings) as writer:
        done = sum(writer.rows)
        if done:
            print(f"Going on after the {done} faces already rendered in {folder}.")
        bar = tqdm(total=len(factors), initial=done, unit="image", desc="rendering", disable=not progress)
        with bar:
            for first in range(done, len(factors), RENDER_ROWS):
                shard = factors.iloc[first : first + RENDER_ROWS]
                parts = []
                for start in range(0, len(shard), RENDER_BATCH):
                    parts.append(render(shard.iloc[start : start + RENDER_BATCH], size=settings["size"]))
                    bar.update(len(parts[-1]))
                writer.add_shard(torch.cat(parts))
        pairs = make_pairs(factors, np.flatnonzero(split == "test"), seed=seed)
        info = {"name": "rendered faces", "source": "pcl_lib.faces", "licence": "MIT", "settings": settings}
        writer.finish(factors.assign(split=split), info, pairs)
