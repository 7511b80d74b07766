"""Writing a prepared folder: shards first, dataset.json last, every file whole or absent.

While a folder is being written it holds `unfinished.json`; once dataset.json is there, it is complete.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import torch

from pcl_lib.data.labels import SPLITS, check_labels, identity_codes
from pcl_lib.data.pairs import check_pairs
from pcl_lib.utils import BadInput, lock_file, make_folder, readable_errors, replace_atomically

FORMAT = "pcl-prepared-faces"
VERSION = 1
INFO, TABLE, PAIRS_FILE, UNFINISHED = "dataset.json", "faces.parquet", "pairs.parquet", "unfinished.json"


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"shard-{number:05d}.npy"


def write_hashed(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write `parts` to `path`, whole or not at all; return their SHA-256. BadInput where the disk refuses."""
    digest = hashlib.sha256()
    with replace_atomically(path) as temporary, open(temporary, "wb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(hashes: Mapping[str, str]) -> str:
    """One SHA-256 over the files of a set: over the lines "name hash", in the order given."""
    return hashlib.sha256("".join(f"{name} {value}\n" for name, value in hashes.items()).encode()).hexdigest()


def as_uint8(images: np.ndarray | torch.Tensor) -> np.ndarray:
    """Check one batch and return it as a contiguous uint8 array [n, 3, S, S]."""
    batch = images.cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1] != 3 or batch.shape[2] != batch.shape[3]:
        raise BadInput(f"images must be uint8 [n, 3, S, S], not {batch.dtype} {list(batch.shape)}")
    return np.ascontiguousarray(batch)


def write_shard(path: Path, shard: np.ndarray) -> str:
    """Write uint8 [n, 3, S, S] as .npy, whole or not at all; return its SHA-256."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(shard))
    return write_hashed(path, [header.getvalue(), shard.reshape(-1).data])


@dataclass(frozen=True)
class Part:
    """A shard that was made out of turn: its number, images (0: there is no file), their side and hash.

    note: what its maker wants to be known once all are there; survives an interruption. JSON types only.
    """

    number: int
    rows: int
    size: int
    sha256: str
    note: dict[str, Any] = field(default_factory=dict)


def write_part(folder: Path, number: int, images: np.ndarray, note: dict[str, Any]) -> Part:
    """Write shard `number` of uint8 [n, 3, S, S] and, once it is whole, its part file: what any worker may do."""
    shard = as_uint8(images)
    digest = write_shard(folder / shard_name(number), shard) if len(shard) else ""
    part = Part(number, len(shard), shard.shape[2], digest, note)
    write_hashed(folder / f"part-{number:05d}.json", [json.dumps(asdict(part)).encode()])
    return part


def read_parts(folder: Path) -> list[Part]:
    """The parts that earlier runs finished, by number; those that are damaged are passed over, and made again."""
    parts = [part for path in sorted(folder.glob("part-*.json")) if (part := _read_part(path)) is not None]
    return sorted(parts, key=lambda part: part.number)


def _read_part(path: Path) -> Part | None:
    try:
        part = Part(**json.loads(path.read_text(encoding="utf-8")))
        named = path.name == f"part-{part.number:05d}.json"
        counts = [type(number) is int and number >= 0 for number in (part.number, part.rows, part.size)]
    except (ValueError, TypeError, RecursionError):
        return None
    known = named and all(counts) and isinstance(part.note, dict) and _is_digest(part.sha256, part.rows)
    shape = (part.rows, 3, part.size, part.size)
    whole = known and (not part.rows or shard_shape(path.parent / shard_name(part.number)) == shape)
    return part if whole else None


def _is_digest(value: Any, rows: int) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value) if rows else not value)


def shard_shape(path: Path) -> tuple[int, ...]:
    """The shape of a whole shard of uint8, by its header and the file's size; () where it is none."""
    try:
        return np.load(path, mmap_mode="r").shape if path.stat().st_size else ()
    except Exception:  # on damaged headers NumPy raises almost anything
        return ()


def remove_marks(folder: Path) -> None:
    """Remove the marks of unfinished work from a whole folder: a writer may be killed before it has done so."""
    for path in [*folder.glob("part-*.json"), folder / UNFINISHED]:
        path.unlink(missing_ok=True)


class FolderWriter:
    """Writes a prepared folder; use it as a context manager.

    Either shard by shard (`add_shard`), or, with `in_parts`, in parts that several workers make in any order
    (`write_part`, then one `add_parts` of all). settings: whatever decides the content. A folder left unfinished
    with the same settings goes on after its finished shards (`shards_done`), or with the parts that are missing
    (`read_parts`); with other settings, or with settings None, all is written anew.
    Raises BadInput where the folder is complete already, holds something else, or is being written by another
    process.
    """

    def __init__(
        self, folder: str | Path, settings: Mapping[str, Any] | None = None, *, in_parts: bool = False
    ) -> None:
        self.folder, self._in_parts = Path(folder), in_parts
        self.names: list[str] = []
        self.hashes: list[str] = []
        self.rows: list[int] = []
        self.size = 0
        if (self.folder / INFO).exists():
            raise BadInput(
                f"{self.folder} already holds a prepared set; choose another folder or remove it first"
            )
        with readable_errors(make_folder(self.folder)):
            present = {path.name for path in self.folder.iterdir()}
            if present and UNFINISHED not in present:
                raise BadInput(
                    f"{self.folder} holds other files ({min(present)}, ...); choose an empty or new folder"
                )
            self._lock = self._open_marker(settings)

    def _open_marker(self, settings: Mapping[str, Any] | None) -> IO[str]:
        marker = open(self.folder / UNFINISHED, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115 - until close()
        if not lock_file(marker, str(self.folder)):
            marker.close()
            raise BadInput(f"another process is writing {self.folder}; wait for it, then run this again")
        wanted = json.dumps(settings, sort_keys=True)
        marker.seek(0)
        for path in self.folder.glob(".*.tmp"):  # what a killed writer was about to write
            path.unlink()
        if settings is not None and marker.read() == wanted:
            if not self._in_parts:
                self._find_finished()
            return marker
        for pattern in ("part-*.json", "shard-*.npy"):  # parts first: each vouches for its shard
            for path in self.folder.glob(pattern):
                path.unlink()
        marker.truncate(0)
        marker.write(wanted)
        marker.flush()
        return marker

    def _find_finished(self) -> None:
        while len(shape := shard_shape(path := self.folder / shard_name(self.shards_done))) == 4:
            self._record(path.name, shape[0], shape[2], file_hash(path))

    def _record(self, name: str, rows: int, size: int, digest: str) -> None:
        if self.size not in (0, size):
            raise _mixed_sizes(size, self.size)
        self.size = size
        self.names.append(name)
        self.rows.append(rows)
        self.hashes.append(digest)

    @property
    def shards_done(self) -> int:
        """Shards that are whole and on the disk."""
        return len(self.rows)

    def add_shard(self, images: np.ndarray | torch.Tensor) -> None:
        """Write uint8 [n, 3, S, S] as the next shard."""
        shard = as_uint8(images)
        if self.size not in (0, shard.shape[2]):
            raise _mixed_sizes(shard.shape[2], self.size)
        path = self.folder / shard_name(self.shards_done)
        self._record(path.name, len(shard), shard.shape[2], write_shard(path, shard))

    def add_parts(self, parts: Iterable[Part]) -> None:
        """Take all parts of the set, in the order of their numbers, for its shards; empty ones have none."""
        for part in sorted(parts, key=lambda part: part.number):
            if part.rows:
                self._record(shard_name(part.number), part.rows, part.size, part.sha256)

    def finish(
        self, table: pd.DataFrame, info: Mapping[str, Any], pairs: pd.DataFrame | None = None
    ) -> dict[str, Any]:
        """Write faces.parquet, pairs.parquet and, last, dataset.json; return what that holds."""
        if len(table) != sum(self.rows) or not self.rows:
            raise BadInput(
                f"{sum(self.rows)} images for {len(table)} rows of the table: they must be equal, not 0"
            )
        table = table.reset_index(drop=True)
        check_labels(table, "the table")
        places = {
            "shard": np.repeat(np.arange(self.shards_done, dtype=np.int32), self.rows),
            "row": np.concatenate([np.arange(n, dtype=np.int32) for n in self.rows]),
        }
        table = pd.DataFrame(places).join(table.drop(columns=["shard", "row"], errors="ignore"))
        hashes = dict(zip(self.names, self.hashes, strict=True))
        hashes[TABLE] = write_hashed(self.folder / TABLE, [_parquet(table)])
        if pairs is not None:
            check_pairs(pairs, len(table), "the pairs")
            hashes[PAIRS_FILE] = write_hashed(
                self.folder / PAIRS_FILE, [_parquet(pairs.reset_index(drop=True))]
            )
        whole = {
            "format": FORMAT,
            "version": VERSION,
            "image_size": self.size,
            "counts": count(table, pairs),
            "shards": [{"file": name, "rows": n} for name, n in zip(self.names, self.rows, strict=True)],
            "sha256": hashes,
            "content_hash": content_hash(hashes),
        }
        if clash := whole.keys() & info.keys():
            raise BadInput(f"dataset.json sets {min(clash)} itself: name that entry otherwise")
        record = {**info, **whole}
        write_hashed(self.folder / INFO, [json.dumps(record, indent=1).encode()])
        with readable_errors(self.folder):
            remove_marks(self.folder)
        return record

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()  # gives the lock back


def count(table: pd.DataFrame, pairs: pd.DataFrame | None) -> dict[str, int]:
    """How many images, identities, pairs, and images of each split."""
    counts = {"images": len(table)}
    if "identity" in table.columns:
        counts["identities"] = len(np.unique(identity_codes(table)))
    if "split" in table.columns:
        counts |= {split: int((table["split"] == split).sum()) for split in SPLITS}
    return counts | ({"pairs": len(pairs)} if pairs is not None else {})


def _mixed_sizes(new: int, old: int) -> BadInput:
    return BadInput(f"images of {new} pixels follow images of {old}: use one size per set")


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    try:
        table.to_parquet(buffer, index=False)
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"the table cannot be written as parquet ({error}); give each column one type"
        ) from error
    return buffer.getvalue()


def rebatch(images: Iterable[np.ndarray | torch.Tensor], rows: int) -> Iterator[np.ndarray]:
    """Cut batches of any length into arrays of `rows` images (the last one may be shorter)."""
    waiting: list[np.ndarray] = []
    held = 0
    for images_of_batch in images:
        batch = as_uint8(images_of_batch)
        if waiting and batch.shape[2] != waiting[0].shape[2]:
            raise _mixed_sizes(batch.shape[2], waiting[0].shape[2])
        while len(batch):
            part, batch = batch[: rows - held], batch[rows - held :]
            waiting.append(part)
            held += len(part)
            if held == rows:
                yield np.concatenate(waiting)
                waiting, held = [], 0
    if held:
        yield np.concatenate(waiting)


def write_prepared(
    folder: str | Path,
    images: np.ndarray | torch.Tensor | Iterable[np.ndarray | torch.Tensor],
    table: pd.DataFrame,
    *,
    name: str,
    source: str,
    licence: str = "",
    image_size: int | None = None,
    shard_rows: int = 4096,
    pairs: pd.DataFrame | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a prepared folder; memory is bounded by one shard and one batch.

    images: uint8 [n, 3, S, S], or an iterable of such batches of one S (must be `image_size` if given).
    table: one row an image, in the same order; labels under the names of `pcl_lib.data.labels`.
    pairs: first, second (row numbers), same (bool), fold (0..9). extra: further entries of dataset.json.
    The folder must be new, empty, or left unfinished by an earlier try. dataset.json is written last: without
    it a folder is never taken for a whole one. Returns the folder.
    Raises BadInput: labels out of range, numbers of images and rows that differ, a full or forbidden disk
    (shards that were complete stay).
    """
    if shard_rows < 1:
        raise BadInput(f"shard_rows is {shard_rows}; it must be at least 1")
    check_labels(table, "the table")
    batches = [images] if isinstance(images, np.ndarray | torch.Tensor) else images
    with FolderWriter(folder) as writer:
        for shard in rebatch(batches, shard_rows):
            if image_size not in (None, shard.shape[2]):
                raise BadInput(f"images of {shard.shape[2]} pixels where image_size is {image_size}")
            writer.add_shard(shard)
        writer.finish(table, {"name": name, "source": source, "licence": licence, **(extra or {})}, pairs)
    return Path(folder)
