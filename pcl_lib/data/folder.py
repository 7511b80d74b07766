"""Prepared folders, opened for reading: memory-mapped uint8 shards with a label table."""

from __future__ import annotations

import json
import re
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pcl_lib.data.face_set import Rows
from pcl_lib.data.labels import SPLITS, check_labels, identity_codes, split_by_people
from pcl_lib.data.pairs import check_pairs
from pcl_lib.data.writer import (
    FORMAT,
    INFO,
    PAIRS_FILE,
    TABLE,
    UNFINISHED,
    VERSION,
    content_hash,
    file_hash,
)
from pcl_lib.utils import BadInput


class PreparedFaces:
    """A prepared folder, opened for reading: images memory-mapped, labels in memory, all checked on opening.

    name, source, licence, image_size (pixels), content_hash: from dataset.json; info: all of it.
    table: one row per image (index 0..n-1 = row number); a label that the set lacks is absent, or NaN in a row.
    Raises BadInput, naming the file and where it applies the row, for a folder that is missing, empty, half-written,
    incomplete or not a prepared one, and for labels out of range.

    >>> from tempfile import TemporaryDirectory
    >>> from pcl_lib.data.writer import write_prepared
    >>> images, table = np.zeros((4, 3, 16, 16), np.uint8), pd.DataFrame({"identity": ["ann", "ann", "bo", "cy"]})
    >>> with TemporaryDirectory() as place:
    ...     faces = PreparedFaces(write_prepared(place, images, table, name="mine", source="drawn"))
    ...     len(faces), faces.image_size, tuple(faces.images([0, 2]).shape)
    (4, 16, (2, 3, 16, 16))
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
            raise BadInput(f"{path} is missing: the set is incomplete; prepare it again") from None
        except Exception as error:  # on damaged headers NumPy raises almost anything
            raise BadInput(f"{path} is incomplete ({error}); prepare the set again") from error
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
            raise BadInput(f"{path} is missing: the set is incomplete; prepare it again") from None
        except Exception as error:  # on damaged files pyarrow raises almost anything
            raise BadInput(f"{path} cannot be read ({error}); prepare the set again") from error

    def _read_table(self) -> pd.DataFrame:
        table, path = self._read_parquet(TABLE).reset_index(drop=True), self.folder / TABLE
        if missing := {"shard", "row"} - set(table.columns):
            raise BadInput(f"{path} has no column {min(missing)}; prepare the set again")
        if len(table) != self.info["counts"]["images"] or not len(table):
            raise BadInput(f"{path} has {len(table)} rows, dataset.json says {self.info['counts']['images']}")
        if other := [
            name for name in ("shard", "row") if not pd.api.types.is_integer_dtype(table[name].dtype)
        ]:
            raise BadInput(f"{path}, column {other[0]}, does not hold whole numbers; prepare the set again")
        lengths = np.array([len(shard) for shard in self._shards])
        shard, row = table["shard"].to_numpy(), table["row"].to_numpy()
        known = (shard >= 0) & (shard < len(lengths))
        nowhere = ~known | (row < 0) | (row >= lengths[np.where(known, shard, 0)])
        if nowhere.any():
            at = int(np.flatnonzero(nowhere)[0])
            raise BadInput(
                f"{path}, row {at}, points to image {row[at]} of shard {shard[at]}, which does not exist"
            )
        try:
            check_labels(table, str(path))
            identity_codes(table)
        except TypeError as error:  # cells that are lists or dicts
            raise BadInput(
                f"{path} holds labels of no known kind ({error}); prepare the set again"
            ) from error
        self._shard_of, self._row_of = shard.astype(np.int64), row.astype(np.int64)
        return table

    @cached_property
    def pairs(self) -> pd.DataFrame | None:
        """Verification pairs: first, second (row numbers), same (bool), fold (0..9); None where there are none."""
        if PAIRS_FILE not in self.info["sha256"]:
            return None
        pairs = self._read_parquet(PAIRS_FILE)
        check_pairs(pairs, len(self), str(self.folder / PAIRS_FILE))
        return pairs

    @cached_property
    def _split(self) -> np.ndarray:
        if "split" in self.table:
            return self.table["split"].to_numpy(dtype=object)
        split, told = split_by_people(self.table)
        for sentence in told:
            warnings.warn(f"{self.name}: {sentence}", stacklevel=4)
        return split.to_numpy(dtype=object)

    def split(self, name: str) -> np.ndarray:
        """Row numbers of a split, ascending: int64 [n]; name: train, validation or test.

        A set without a column split is split by `labels.split_by_people`: 70, 15 and 15% of its identities; a
        warning says what is in no split. Empty where there are no such rows. Raises BadInput for another name.
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
    except (OSError, ValueError, RecursionError) as error:
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
    for what, good in (
        ("name", isinstance(info["name"], str)),
        ("image_size", _is_count(info["image_size"]) and info["image_size"] > 0),
        ("counts", isinstance(info["counts"], dict) and _is_count(info["counts"].get("images"))),
        (
            "shards",
            isinstance(info["shards"], list) and info["shards"] and all(map(_is_shard, info["shards"])),
        ),
        ("sha256", isinstance(info["sha256"], dict) and all(map(_is_name, info["sha256"]))),
        ("content_hash", isinstance(info["content_hash"], str)),
    ):
        if not good:
            raise BadInput(f"{path}, entry {what}, is not as this kit writes it; prepare the set again")
    return info


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _is_name(value: Any) -> bool:
    """Whether this is the name of a file of the folder itself."""
    return isinstance(value, str) and bool(re.fullmatch(r"[\w-]+\.\w+", value))


def _is_shard(entry: Any) -> bool:
    return isinstance(entry, dict) and _is_name(entry.get("file")) and _is_count(entry.get("rows"))
