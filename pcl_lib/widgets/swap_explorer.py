"""SwapExplorer: blend face and pose of two images, turn the head, and drag faces onto poses."""

from __future__ import annotations

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure

from pcl_lib import plots
from pcl_lib.data import FaceSet
from pcl_lib.models import PCL
from pcl_lib.probes.directions import DirectionProbe, fit_probes
from pcl_lib.probes.features import AsDecoded
from pcl_lib.reproduce import measure
from pcl_lib.widgets import pictures
from pcl_lib.widgets.base import Panel, Tile, slider, together, wrapped
from pcl_lib.widgets.pictures import Donor
from pcl_lib.widgets.portraits import Portraits
from pcl_lib.widgets.swap_matrix import SwapMatrix

NO_DECODER = "There are no trained weights with a decoder, so here are the faces alone: train pcl first."
CHOICES = 12  # faces to choose from
PARTS = ("blend two faces", "matrix of swaps")


class SwapExplorer(Panel):
    """Two faces, two blends, a turn of the head, and a film strip of the whole blend; or a matrix to drag faces in.

    model: a `PCL` in eval mode (None: the faces alone, as a figure). faces: a prepared set at the model's size, with
    `table`, `images` and `split`; a dozen faces of unseen people can be chosen. The direction of the turn, in degrees,
    is learnt from the training faces where yaw is known (`directions.DirectionProbe.turn`).
    """

    tries = (
        "Move pose A to B from one end to the other. Does the head turn through the front, or do two faces blend?",
        "Move face A to B. What changes first: skin, hair or expression? Is it what Truth shows?",
        "Open the matrix and drag one face onto every pose. Which properties stay along its row, and which should?",
    )

    def __init__(self, model: PCL | None, faces: FaceSet) -> None:
        super().__init__()
        self.faces, self.rows = faces, list(spread(faces))
        if model is None or not hasattr(model, "decode"):
            self.problem = NO_DECODER
            return
        self.model = model
        probes = fit_probes(AsDecoded(model), faces, ("yaw",))
        self.probe: DirectionProbe | None = probes.get("pose")
        self._build()
        self.a, self.b = self._donor(self.choose_a.value), self._donor(self.choose_b.value)
        self.redraw()

    def _build(self) -> None:
        names = {label(self.faces, row): row for row in self.rows}
        first = (self.rows[0], self.rows[-2 if len(self.rows) > 2 else -1])  # the last is often in profile
        self.choose_a, self.choose_b = (
            ipywidgets.Dropdown(
                options=names,
                value=row,
                description=f"face {name}",
                style={"description_width": "4em"},
            )
            for name, row in zip("AB", first, strict=True)
        )
        self.portraits = Portraits(self, self.model.image_size, self._use)
        self.matrix = SwapMatrix(self, self.model, self.faces)
        self.pose = slider("pose A to B", 1.0, 0.0, 1.0, 0.05)
        self.face = slider("face A to B", 0.0, 0.0, 1.0, 0.05)
        self.turn = slider("turn the head", 0.0, -60.0, 60.0, 2.0, unit="°", digits=0)
        self.turn.disabled = self.probe is None
        self.swap = ipywidgets.Button(description="swap A and B", icon="exchange")
        self.tiles = {name: Tile(name) for name in ("A", "B", "Blend", "Truth")}
        self.shown: dict[str, Donor] = {}  # in the first two tiles
        self.strip = Tile("Film strip", width="644px")
        self.redraw_on([self.pose, self.face, self.turn], self.redraw)
        self.quiet = False  # while the lists follow what has been done already
        for name, choice in (("a", self.choose_a), ("b", self.choose_b)):
            choice.observe(lambda change, name=name: self._choose(name, change.new), "value")
        self.swap.on_click(lambda _: self.guarded(self._swap))
        uploads = (self.portraits.upload_a, self.portraits.upload_b)
        chosen = [together(pair) for pair in zip((self.choose_a, self.choose_b), uploads, strict=True)]
        self.blend = ipywidgets.VBox(
            [
                wrapped([*chosen, self.swap]),
                self.portraits.box,
                wrapped([self.pose, self.face, self.turn]),
                wrapped([tile.box for tile in self.tiles.values()]),
                self.strip.box,
            ]
        )
        self.part = ipywidgets.ToggleButtons(options=PARTS, style={"button_width": "auto"})
        self.redraw_on([self.part], self._open)
        self._open()
        self.put(self.part, self.message, self.blend, self.matrix.box)

    def _open(self) -> None:
        """Show the part that was chosen, and hide the other."""
        for name, box in zip(PARTS, (self.blend, self.matrix.box), strict=True):
            box.layout.display = "flex" if self.part.value == name else "none"

    def _donor(self, row: int) -> Donor:
        return pictures.encode_donor(self.model, self.faces.images([row])[0], self.faces.table.iloc[[row]])

    def _choose(self, name: str, row: int | None) -> None:
        if row is None or self.quiet:
            return
        self.say("")
        self.portraits.forget(name)
        setattr(self, name, self._donor(row))
        self.redraw()

    def _set_lists(self, a: int | None, b: int | None) -> None:
        self.quiet = True
        self.choose_a.value, self.choose_b.value = a, b
        self.quiet = False

    def _swap(self) -> None:
        self.say("")
        self.portraits.forget("a", "b")
        self.a, self.b = self.b, self.a
        self._set_lists(self.choose_b.value, self.choose_a.value)
        self.redraw()

    def _use(self, name: str, image: torch.Tensor) -> None:
        """Take a photograph's face as "a" or "b"."""
        setattr(self, name, pictures.encode_donor(self.model, image))
        if name == "a":
            self._set_lists(None, self.choose_b.value)
        else:
            self._set_lists(self.choose_a.value, None)
        self.redraw()

    def redraw(self) -> None:
        """Draw everything for where the sliders are now."""
        face, pose, turn = self.face.value, self.pose.value, self.turn.value
        blend = pictures.blends(self.model, self.a, self.b, [face], [pose], turn, self.probe)[0]
        for name, donor in (("A", self.a), ("B", self.b)):
            if self.shown.get(name) is not donor:  # a slider leaves them as they are
                self.tiles[name].show(pictures.to_rgb(donor.image))
                self.shown[name] = donor
        self.tiles["Blend"].show(
            pictures.to_rgb(blend), f"face {face:.0%} B, pose {pose:.0%} B{degrees(turn)}"
        )
        truth = pictures.blend_truth(self.a, self.b, face, pose, turn, self.model.image_size)
        whose = "B" if face > 0.5 else "A"
        self.tiles["Truth"].show(
            None if truth is None else pictures.to_rgb(truth), f"truth, rendered: {whose} in that pose"
        )
        strip = pictures.film_strip(self.model, self.a, self.b, face, pose, turn, self.probe)
        self.strip.show(strip, "in steps from A to B: the pose in the upper row, the face in the lower row")

    def _walk(self, count: int) -> tuple[list[float], torch.Tensor, torch.Tensor | None]:
        """Shares of B's pose from 0 to 1, blends [count, 3, S, S] with the rest as it is, and their truth, if known."""
        face, turn, size = self.face.value, self.turn.value, self.model.image_size
        shares = np.linspace(0, 1, count).tolist()
        walk = pictures.blends(self.model, self.a, self.b, [face] * count, shares, turn, self.probe)
        truth = [pictures.blend_truth(self.a, self.b, face, share, turn, size) for share in shares]
        known = [picture for picture in truth if picture is not None]
        return shares, walk.cpu(), torch.stack(known).float() / 255 if known else None

    def figure(self) -> Figure:
        """Both donors and the walk of the pose from A to B, over the truth where it is known; or the matrix.

        Without a model, the faces alone.
        """
        if self.problem:
            return plots.face_grid(self.faces.images(self.rows)[None])
        if self.part.value == PARTS[1]:
            return plots.face_grid(self.matrix.grid())
        shares, *walks = self._walk(5)
        a, b = (x.image[None].float() / 255 for x in (self.a, self.b))
        rows = [torch.cat([a, walk, b]) for walk in walks if walk is not None]
        columns = ["A", *[f"pose {share:.0%} B" for share in shares], "B"]
        names = ["blend", "truth"] if len(rows) > 1 else []
        return plots.face_grid(torch.stack(rows), rows=names, columns=columns)

    def frames(self) -> list[pictures.RGB]:
        """A, the blend on its way to B's pose, its truth where that is known, and B; or the matrix as it fills."""
        if self.part.value == PARTS[1]:
            return self.matrix.frames()
        shares, *walks = self._walk(13)
        a, b = (x.image.float() / 255 for x in (self.a, self.b))
        shown = [walk for walk in walks if walk is not None]
        names = ["A", "blend", "truth", "B"] if len(shown) > 1 else ["A", "blend", "B"]
        return [
            pictures.sheet(torch.stack([a, *[walk[step] for walk in shown], b])[None], [names])
            for step in range(len(shares))
        ]


def degrees(turn: float) -> str:
    """ ", turned +20°", or nothing for no turn."""
    return f", turned {turn:+.0f}°" if turn else ""


def spread(faces: FaceSet) -> np.ndarray:
    """Rows of unseen people: two frontal ones, the others from the least to the most yaw, where that is known."""
    face_rows, pose_rows = measure.donors(faces, (2, CHOICES - 2))
    return np.concatenate([face_rows[::-1], pose_rows])


def label(faces: FaceSet, row: int) -> str:
    """What a list calls a face: its row, and how it is turned where that is known."""
    known = faces.table.iloc[row]
    parts = [f"image {row}"]
    if "yaw" in known and np.isfinite(known["yaw"]):
        parts.append(f"yaw {known['yaw']:+.0f}°")
    return ", ".join(parts)
