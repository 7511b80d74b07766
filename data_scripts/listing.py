"""What a reader of a data set hands over before any pixel is decoded: which images, labels, pairs, crops.

A script of a set is one function, `read(root, options) -> Listing`; `data_scripts.prepare` does the rest.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcl_lib.data.labels import check_labels
from pcl_lib.data.pairs import check_pairs
from pcl_lib.utils import BadInput

WAYS = ("as_is", "box", "five_points", "detect")
BOX_COLUMNS = ("box_left", "box_top", "box_right", "box_bottom")
POINT_COLUMNS = tuple(f"{axis}{point}" for point in range(5) for axis in "xy")
CROP_COLUMNS = {"as_is": (), "box": BOX_COLUMNS, "five_points": POINT_COLUMNS, "detect": ()}
# Where a five-point crop puts the eye on the image's left, that on its right, the tip of the nose and the corners of
# the mouth, left and right of the image: shares of its side. Symmetrical, brows to chin with a little air.
TEMPLATE = ((0.33, 0.40), (0.67, 0.40), (0.50, 0.60), (0.36, 0.77), (0.64, 0.77))


@dataclass(frozen=True)
class Recipe:
    """How each image is cut to a square; the side in pixels comes from the command line.

    how: "as_is": the largest central square of the image (the set's own alignment). "box": the square about the
    centre of columns BOX_COLUMNS whose side is the longer side of the box. "five_points": a similarity transform
    that takes columns POINT_COLUMNS (eyes, nose tip, mouth corners; left and right of the image) nearest to
    `template`, in the sense of least squares. "detect": as "box", with the box that OpenCV's detector finds.
    margin: what is added at every edge, as a share of that square's side; negative trims. What lies outside the
    image is black. All places are image pixels after EXIF rotation, x right, y down, 0 at the image's corner.
    """

    how: str = "as_is"
    margin: float = 0.0
    template: tuple[tuple[float, float], ...] = TEMPLATE

    def __post_init__(self) -> None:
        if self.how not in WAYS:
            raise BadInput(f"there is no way {self.how!r} to crop; it is one of {', '.join(WAYS)}")
        if not -0.45 <= self.margin <= 4:
            raise BadInput(f"the margin is {self.margin:g}; it must be from -0.45 to 4")

    def record(self) -> dict[str, Any]:
        """What dataset.json says of it; the template only where it was used."""
        told = asdict(self)
        if self.how != "five_points":
            del told["template"]
        return told


@dataclass(frozen=True)
class Listing:
    """The images of a set with their labels, in the order in which they will be stored.

    name, source, licence: for dataset.json. root: the folder that `file` is relative to.
    table: a row an image: `file` ("/" between folders; "clip.mp4#t=3" the frame at 3 s, "clip.avi#n=3" the fourth;
    "fer2013.csv#row=17" the pixels of data row 17 of a CSV, from 0) and labels under the names of pcl_lib.data.labels;
    `split` where the set has an official one; the columns that `recipe` needs.
    pairs: first, second (positions in `table`), same, fold; or None. left_out: file, line (of the label file, from 1;
    or NA), reason. pseudo: columns that were estimated, not measured. notes: sentences for the user, also kept in
    dataset.json. extra: further entries of dataset.json.
    """

    name: str
    source: str
    licence: str
    root: Path
    table: pd.DataFrame
    pairs: pd.DataFrame | None = None
    left_out: pd.DataFrame = field(default_factory=lambda: LeftOut().frame())
    recipe: Recipe = field(default_factory=Recipe)
    pseudo: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise BadInput where the listing is empty, contradicts itself or holds labels out of range."""
        if "file" not in self.table:
            raise BadInput(f"{self.name}: the listing has no column file")
        if not len(self.table):
            raise BadInput(f"{self.name}: no image of {self.root} can be used{first_reason(self.left_out)}")
        again = self.table["file"].duplicated()
        if again.any():
            row = int(np.flatnonzero(again)[0])
            raise BadInput(
                f"{self.name}, row {row}: {self.table['file'].iloc[row]} is listed before; keep one of them"
            )
        if "identity" in self.table and "split" in self.table:
            splits = self.table.groupby("identity")["split"].nunique()
            if (splits > 1).any():
                who = splits.idxmax()
                told = sorted(self.table["split"][self.table["identity"] == who].unique())
                raise BadInput(
                    f"{self.name}: {who} lies in {' and in '.join(told)}"
                    f" ({int((splits > 1).sum())} in all do so); nobody may be in two splits: keep each person's"
                    " images in one (in prepare_folder.py, --identity-from or --identity-level where that is nobody's"
                    " name)"
                )
        if missing := set(CROP_COLUMNS[self.recipe.how]) - set(self.table):
            raise BadInput(f"{self.name}: to crop by {self.recipe.how}, column {min(missing)} is needed")
        if unknown := set(self.pseudo) - set(self.table):
            raise BadInput(f"{self.name}: pseudo names {min(unknown)}, but the labels have no such column")
        check_labels(self.table, self.name)
        if self.pairs is not None:
            check_pairs(self.pairs, len(self.table), f"{self.name}, pairs")


class LeftOut:
    """Collects what a set names but cannot give, for `Listing.left_out`."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, int | None, str]] = []

    def add(self, file: str, reason: str, line: int | None = None) -> None:
        """file: the image's path, or the label file's where its `line` (from 1) is what could not be used."""
        self._rows.append((file, line, reason))

    def extend(self, files: Iterable[str], reason: str) -> None:
        """The same reason for several files."""
        self._rows += [(file, None, reason) for file in files]

    def __len__(self) -> int:
        return len(self._rows)

    def frame(self) -> pd.DataFrame:
        """file, line (Int64), reason."""
        frame = pd.DataFrame(self._rows, columns=["file", "line", "reason"], dtype=object)
        return frame.astype({"line": "Int64"})  # text as objects: names need not be UTF-8


def first_reason(left_out: pd.DataFrame) -> str:
    """The first thing left out and why, in brackets after a space; or nothing."""
    if not len(left_out):
        return ""
    first = left_out.iloc[0]
    return f" ({first.file}{'' if pd.isna(first.line) else f', line {first.line}'}: {first.reason})"


def fingerprint(listing: Listing) -> str:
    """A hash over the size and date of every file that the listing names, so that replaced pictures are noticed."""
    digest, root = hashlib.sha256(), str(listing.root)
    for file in dict.fromkeys(re.sub(r"#(t|row)=[0-9.]+$", "", name) for name in listing.table["file"]):
        try:
            about = os.stat(os.path.join(root, file))
            digest.update(b"%d %d\n" % (about.st_size, about.st_mtime_ns))
        except (OSError, ValueError):
            digest.update(b"absent\n")
    return digest.hexdigest()[:16]
