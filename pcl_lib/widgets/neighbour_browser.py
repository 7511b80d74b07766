"""NeighbourBrowser: the nearest faces of a query by the face-aware and by the pose-related feature."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure

from pcl_lib import plots
from pcl_lib.data import FaceSet
from pcl_lib.probes import FeatureModel, extract
from pcl_lib.probes.directions import BRANCHES
from pcl_lib.widgets import pictures
from pcl_lib.widgets.base import Panel, Tile, slider, wrapped

LIMIT, ACROSS = 500, 3  # faces to search, at most; neighbours in a line


class NeighbourBrowser(Panel):
    """The nearest faces of a query by both features, side by side.

    model: a `PCL` in eval mode; faces: a prepared set at its size; rows: which faces to search, by default those of
    unseen people (at most `LIMIT`); count: neighbours a feature.
    """

    tries = (
        "Take a face in profile. Are the neighbours by the pose-related feature turned the same way?",
        "Do the neighbours by the face-aware feature have its skin and hair? And are they turned as it is?",
        "Find a query whose nearest face by the pose feature is turned the other way. What do the two share?",
    )

    def __init__(
        self, model: FeatureModel | None, faces: FaceSet, rows: Sequence[int] | None = None, count: int = 6
    ) -> None:
        super().__init__()
        self.faces, self.count = faces, count
        unseen = faces.split("test") if len(faces.split("test")) else faces.split("train")
        self.rows = np.asarray(unseen[:LIMIT] if rows is None else rows)
        if model is None:
            self.problem = (
                "There are no trained weights, so nothing is near to anything: here are the faces alone."
            )
            return
        found = extract(model, faces, self.rows)
        self.features = {name: x for name in BRANCHES if (x := getattr(found, name)) is not None}
        self.query = slider("query (number)", 0.0, 0.0, len(self.rows) - 1.0, 1.0, digits=0)
        self.next = ipywidgets.Button(description="another face", icon="random")
        self.next.on_click(lambda _: setattr(self.query, "value", (self.query.value + 37) % len(self.rows)))
        self.face = Tile("Query", width="128px")
        self.tiles = {name: Tile(f"By {name}", width=f"{ACROSS * 100}px") for name in self.features}
        self.redraw_on([self.query], self.redraw)
        self.put(
            self.message,
            wrapped([self.query, self.next]),
            wrapped([self.face.box, *[tile.box for tile in self.tiles.values()]]),
        )
        self.redraw()

    def place(self) -> int:
        """Which of `rows` is the query; rounded, because the browser sends 4.999... for 5."""
        return round(self.query.value)

    def neighbours(self, branch: str, place: int | None = None) -> tuple[torch.Tensor, list[str]]:
        """Images uint8 [count, 3, S, S] nearest to the query by a branch's feature, and what is known of each.

        place: another query of `rows`; None takes the one that is shown.
        """
        query = self.place() if place is None else place
        places, cosine = pictures.nearest(self.features[branch], query, self.count)
        rows = self.rows[places]
        return self.faces.images(rows), [
            f"{self._known(row)} {near:.2f}".strip() for row, near in zip(rows, cosine, strict=True)
        ]

    def _known(self, row: int) -> str:
        known = self.faces.table.iloc[row]
        return f"{known['yaw']:+.0f}°," if "yaw" in known and np.isfinite(known["yaw"]) else ""

    def redraw(self) -> None:
        """Find the neighbours and show them."""
        row = self.rows[self.place()]
        self.face.show(pictures.to_rgb(self.faces.images([row])[0]), f"query {self._known(row)[:-1]}")
        for branch, tile in self.tiles.items():
            images, captions = self.neighbours(branch)
            across = len(captions) if len(captions) % ACROSS else ACROSS
            lines = [captions[start : start + across] for start in range(0, len(captions), across)]
            page = pictures.sheet(images.unflatten(0, (-1, across)), lines)
            tile.show(page, f"nearest by the {branch} feature (yaw, cosine)")

    def frames(self) -> list[pictures.RGB]:
        """Eight queries, from the one that is shown on, each with its neighbours by either feature."""
        return [
            pictures.sheet(self._lines(place % len(self.rows)))
            for place in range(self.place(), self.place() + 8)
        ]

    def _lines(self, place: int) -> torch.Tensor:
        """A query and its neighbours, one line per feature: uint8 [branches, 1 + count, 3, S, S]."""
        query = self.faces.images([self.rows[place]])
        return torch.stack(
            [torch.cat([query, self.neighbours(branch, place)[0]]) for branch in self.features]
        )

    def figure(self) -> Figure:
        """The query and its neighbours, one line per feature; the faces alone where there is no model."""
        if self.problem:
            return plots.face_grid(self.faces.images(self.rows[: self.count])[None])
        lines = self._lines(self.place())
        columns = ["query", *[str(place) for place in range(1, lines.shape[1])]]
        return plots.face_grid(lines, rows=[f"by {name}" for name in self.features], columns=columns)
