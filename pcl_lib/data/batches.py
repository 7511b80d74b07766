"""From a prepared set to batches on the device: who is drawn, and where the pixels wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pcl_lib.data.face_set import FaceSet
from pcl_lib.data.labels import identity_codes
from pcl_lib.utils import BadInput

CHUNK = 2048  # images that are resized or moved at a time
HOST_BUDGET = 4 << 30  # bytes of main memory that one resident set may take


@dataclass(frozen=True)
class IdentityIndex:
    """Rows grouped by identity: those of identity i are rows[offsets[i]:offsets[i + 1]]."""

    rows: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Number of identities."""
        return len(self.offsets) - 1

    def epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        """One random row of each identity, in random order: int64 [identities].

        Source: released code, one frame per identity and epoch (notebooks/method.md, section 6).
        """
        picks = rng.integers(self.offsets[:-1], self.offsets[1:])
        return rng.permutation(self.rows[picks])


def identity_index(table: pd.DataFrame, rows: np.ndarray) -> IdentityIndex:
    """Group `rows` (int [n], row numbers of `table`) by the column identity.

    Rows without an identity, or all rows where there is no such column, are identities of their own.
    Raises BadInput where `rows` is empty.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if not len(rows):
        raise BadInput("no rows to draw from: the split is empty")
    codes = identity_codes(
        table[["identity"]].iloc[rows] if "identity" in table.columns else table.iloc[rows, :0]
    )
    # small types sort by radix, several times faster
    order = np.argsort(codes.astype(np.uint16) if codes.max() < 1 << 16 else codes, kind="stable")
    return IdentityIndex(rows[order], np.concatenate([[0], np.cumsum(np.bincount(codes))]))


def resize_images(images: Tensor, size: int) -> Tensor:
    """Resize uint8 [n, 3, S, S] to uint8 [n, 3, size, size]: bilinear, antialiased, rounded."""
    if images.shape[-1] == size:
        return images
    parts = [
        interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .byte()
        for part in images.split(CHUNK)
    ]
    return torch.cat(parts) if parts else images.new_empty(0, 3, size, size)


class ImageSource:
    """Batches of the given rows on a device: resident there when they fit, else streamed from the memory map.

    rows: int [n], row numbers of faces.table. size: side to resize to, None for that of the set.
    resident: None keeps the images on the device if they take at most `budget_bytes` (None: half the free
    memory of a GPU, 4 GiB of main memory). Both ways give the same batches.
    """

    def __init__(
        self,
        faces: FaceSet,
        rows: np.ndarray,
        device: torch.device | str = "cpu",
        *,
        size: int | None = None,
        resident: bool | None = None,
        budget_bytes: int | None = None,
    ) -> None:
        self.faces, self.device = faces, torch.device(device)
        self.size = size or faces.image_size
        self.rows = np.asarray(rows, dtype=np.int64)
        if budget_bytes is None:
            on_gpu = self.device.type == "cuda"
            budget_bytes = torch.cuda.mem_get_info(self.device)[0] // 2 if on_gpu else HOST_BUDGET
        self.nbytes = len(self.rows) * 3 * self.size**2
        self.resident = self.nbytes <= budget_bytes if resident is None else resident
        self._place = np.full(len(faces), -1, dtype=np.int64)
        self._place[self.rows] = np.arange(len(self.rows))
        self._images: Tensor | None = None
        if self.resident:
            self._images = torch.empty(
                (len(self.rows), 3, self.size, self.size), dtype=torch.uint8, device=self.device
            )
            for start in range(0, len(self.rows), CHUNK):
                part = self.rows[start : start + CHUNK]
                self._images[start : start + CHUNK] = self._stream(part)

    def _stream(self, rows: np.ndarray) -> Tensor:
        images = self.faces.images(rows)
        if self.device.type == "cuda":
            images = images.pin_memory()  # lets the copy run during the computation
        return resize_images(images.to(self.device, non_blocking=True), self.size)

    def take(self, rows: np.ndarray) -> Tensor:
        """The images of `rows` (int [n], row numbers of faces.table), uint8 [n, 3, size, size] on the device.

        Raises BadInput for a row that is not among this source's rows.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self._place)):
            raise BadInput(
                f"{self.faces.name}: rows {rows.min()}..{rows.max()} lie outside 0..{len(self.faces) - 1}"
            )
        places = self._place[rows]
        if (places < 0).any():
            raise BadInput(
                f"row {rows[places < 0][0]} of {self.faces.name} is not among the rows of this source"
            )
        if self._images is None:
            return self._stream(rows)
        wanted = torch.from_numpy(places)
        if self.device.type == "cuda":
            wanted = wanted.pin_memory()  # so that the copy does not wait for the device
        return self._images[wanted.to(self.device, non_blocking=True)]


T = TypeVar("T")


def read_ahead(batches: Iterator[T], source: ImageSource) -> Iterator[T]:
    """The batches in turn; where `source` streams from the disk, the next one is read while one is used.

    Not on a processor whose cores all compute: there a thread that reads holds up those that it would serve.
    """
    computing = source.device.type == "cpu" and torch.get_num_threads() >= (os.cpu_count() or 1)
    if source.resident or computing:
        yield from batches
        return
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch
