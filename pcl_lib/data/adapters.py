"""Views of prepared sets, each a `FaceSet`: at another size, with one fold as test, or two sets joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pcl_lib.data.batches import resize_images
from pcl_lib.data.face_set import FaceSet, Rows
from pcl_lib.data.labels import hashed_split, identity_codes
from pcl_lib.utils import BadInput

FOLD_VALIDATION = 0.15  # of the people that are not in the test fold


class _View:
    """A set that shows another one; what a subclass does not change is the other's."""

    def __init__(self, faces: FaceSet) -> None:
        self._faces = faces

    def __len__(self) -> int:
        return len(self._faces)

    @property
    def name(self) -> str:
        """As that of the set."""
        return self._faces.name

    @property
    def table(self) -> pd.DataFrame:
        """As that of the set."""
        return self._faces.table

    @property
    def image_size(self) -> int:
        """As that of the set."""
        return self._faces.image_size

    @property
    def info(self) -> Mapping[str, Any]:
        """As that of the set."""
        return self._faces.info

    @property
    def pairs(self) -> pd.DataFrame | None:
        """As those of the set."""
        return self._faces.pairs

    def split(self, name: str) -> np.ndarray:
        """As `PreparedFaces.split`."""
        return self._faces.split(name)

    def images(self, rows: Rows) -> Tensor:
        """As `PreparedFaces.images`."""
        return self._faces.images(rows)


class SizedFaces(_View):
    """A set seen at another image size: the encoder's branches and the decoder fit the trained size alone."""

    def __init__(self, faces: FaceSet, size: int) -> None:
        super().__init__(faces)
        self._size = size

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self._size

    def images(self, rows: Rows) -> Tensor:
        """As `PreparedFaces.images`, resized."""
        return resize_images(self._faces.images(rows), self._size)


class FoldFaces(_View):
    """A set with one of its folds as test; `FOLD_VALIDATION` of the other people are validation, the rest train."""

    def __init__(self, faces: FaceSet, fold: int) -> None:
        super().__init__(faces)
        self._fold = fold
        held = (faces.table["fold"] == fold).to_numpy()
        self._split = np.full(len(held), "test", dtype=object)
        self._split[~held] = hashed_split(faces.table[~held], (FOLD_VALIDATION, 0.0))

    @property
    def name(self) -> str:
        """The set's, with the fold."""
        return f"{self._faces.name}, fold {self._fold}"

    def split(self, name: str) -> np.ndarray:
        """As `PreparedFaces.split`."""
        return np.flatnonzero(self._split == name)


def fold_views(faces: FaceSet) -> list[FaceSet]:
    """The set itself; where its table has folds of people (column fold, as DISFA's), one view per fold as test.

    Raises BadInput where a row has no fold, there is one alone, or a person is in two.
    """
    if "fold" not in faces.table:
        return [faces]
    folds = faces.table["fold"]
    if folds.isna().any() or folds.nunique() < 2:
        raise BadInput(
            f"{faces.name}: column fold must number two folds or more and leave no row out; correct the labels"
        )
    of_person = folds.groupby(identity_codes(faces.table)).nunique()
    if (of_person > 1).any():
        raise BadInput(
            f"{faces.name}: column fold puts {(of_person > 1).sum()} people into two folds; correct the labels"
        )
    return [FoldFaces(faces, int(fold)) for fold in sorted(folds.unique())]


class JoinedFaces:
    """Two sets that serve one probe: the first trains and validates it, the second tests it (300W-LP and AFLW2000).

    table holds `columns` and identities. Images are of one size. There are no pairs.
    """

    pairs = None

    def __init__(self, train: FaceSet, test: FaceSet, columns: Sequence[str]) -> None:
        self.train, self.test = train, test
        self.name = f"train {train.name}, test {test.name}"
        self.image_size = train.image_size
        self.info = {"pseudo": sorted({*train.info.get("pseudo", ()), *test.info.get("pseudo", ())})}
        kept = [part.table.reindex(columns=["identity", *columns]) for part in (train, test)]
        self.table = pd.concat(kept, ignore_index=True)

    def __len__(self) -> int:
        return len(self.table)

    def split(self, name: str) -> np.ndarray:
        """Row numbers of a split; the second set's rows come after the first's."""
        return self.test.split(name) + len(self.train) if name == "test" else self.train.split(name)

    def images(self, rows: Rows) -> Tensor:
        """uint8 [n, 3, S, S] of these rows, in the order asked."""
        rows = np.asarray(rows)
        second = rows >= len(self.train)
        parts = [self.train.images(rows[~second]), self.test.images(rows[second] - len(self.train))]
        order = np.argsort(np.concatenate([np.flatnonzero(~second), np.flatnonzero(second)]))
        return torch.cat([part for part in parts if len(part)])[torch.from_numpy(order)]
