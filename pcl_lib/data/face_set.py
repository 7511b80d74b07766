"""What training, probes and widgets ask of a set of faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

Rows = int | slice | Sequence[int] | np.ndarray | Tensor


class FaceSet(Protocol):
    """Images with labels and a split by people; `PreparedFaces` and every view of one have all of it."""

    @property
    def name(self) -> str:
        """What result rows call the set."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per image, numbered from 0; labels under the names of `data.labels`."""

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""

    @property
    def info(self) -> Mapping[str, Any]:
        """What dataset.json says; empty for sets that have none."""

    @property
    def pairs(self) -> pd.DataFrame | None:
        """Verification pairs: first, second, same, fold; None where there are none."""

    def __len__(self) -> int:
        """Number of images."""

    def split(self, name: str) -> np.ndarray:
        """Row numbers of train, validation or test: int64 [n], ascending."""

    def images(self, rows: Rows) -> Tensor:
        """uint8 [n, 3, S, S] of these rows, in the order asked."""
