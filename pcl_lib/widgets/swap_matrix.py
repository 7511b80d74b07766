"""SwapMatrix: faces down, poses across; a face that is dropped on a pose is decoded where the two meet."""

from __future__ import annotations

import base64

import ipywidgets
import numpy as np
from torch import Tensor

from pcl_lib.data import FaceSet
from pcl_lib.models import PCL
from pcl_lib.reproduce import measure
from pcl_lib.widgets import pictures
from pcl_lib.widgets.base import Panel
from pcl_lib.widgets.script import script

COUNT = 5  # faces, and poses
EMPTY = 235  # the grey of a place where nothing has been decoded yet
HOW = (
    "Drag a face (left) onto a pose (above), or choose the face and then the pose by click, finger or Enter. The swap"
    " appears where the two meet: the face of its row in the pose of its column."
)
STYLE = """
.pcl-matrix .jupyter-button { width: 100%; height: auto; aspect-ratio: 1; margin: 0; padding: 0; touch-action: none;
  background-size: cover; display: flex; align-items: flex-end; justify-content: center; overflow: hidden;
  font-size: 11px; line-height: 1.3; color: #fff; text-shadow: 0 0 3px #000, 0 0 2px #000; }
.pcl-matrix .widget-image { margin: 0; }
.pcl-matrix .pcl-matrix-face { cursor: grab; }
.pcl-matrix .pcl-picked { outline: 3px solid #0072b2; outline-offset: -1px; }
.pcl-matrix .pcl-newest { outline: 3px solid #d55e00; outline-offset: -1px; }
"""


class SwapMatrix:
    """COUNT faces of unseen people, COUNT others as poses, and the swaps that somebody has asked for.

    panel: whose message says what to do next. box: the widgets. cells: the swaps, by the numbers of face and pose.
    """

    def __init__(self, panel: Panel, model: PCL, faces: FaceSet) -> None:
        self.panel, self.model = panel, model
        rows = measure.donors(faces, (COUNT, COUNT))
        self.faces, self.poses = (
            [pictures.encode_donor(model, image) for image in faces.images(row)] for row in rows
        )
        self.cells: dict[tuple[int, int], Tensor] = {}
        self.picked: int | None = None
        self.face_buttons = [self._button("face", place + 1) for place in range(len(self.faces))]
        self.pose_buttons = [self._button("pose", chr(ord("A") + place)) for place in range(len(self.poses))]
        for place, button in enumerate(self.face_buttons):
            button.on_click(lambda _, place=place: self.pick(place))
        for place, button in enumerate(self.pose_buttons):
            button.on_click(lambda _, place=place: self.drop(place))
        size = model.image_size
        empty = pictures.png(np.full((size, size, 3), EMPTY, np.uint8))
        self.images = {
            (face, pose): ipywidgets.Image(
                value=empty, format="png", layout=ipywidgets.Layout(width="100%", height="auto")
            )
            for face in range(len(self.faces))
            for pose in range(len(self.poses))
        }
        for (face, pose), image in self.images.items():
            image.add_class(f"pcl-cell-{face}-{pose}")
        self.box = self._box()

    def _button(self, kind: str, name: int | str) -> ipywidgets.Button:
        button = ipywidgets.Button(description=f"{kind} {name}")
        button.add_class(f"pcl-matrix-{kind}")
        return button

    def _box(self) -> ipywidgets.Box:
        style = ipywidgets.HTML()
        looks = []
        for button, donor in zip(self.face_buttons + self.pose_buttons, self.faces + self.poses, strict=True):
            own = f"pcl-donor-{button.model_id}"  # several panels may stand on one page
            button.add_class(own)
            data = base64.b64encode(pictures.png(pictures.to_rgb(donor.image))).decode()
            looks.append(f".pcl-matrix .{own} {{ background-image: url(data:image/png;base64,{data}); }}")
        how = f"<div style='line-height: 1.4'>{HOW}</div>"
        style.value = f"<style>{STYLE}{''.join(looks)}</style>{how}{script('drag.js')}"
        cells = [ipywidgets.HTML(), *self.pose_buttons]
        for face, button in enumerate(self.face_buttons):
            cells += [button, *[self.images[face, pose] for pose in range(len(self.poses))]]
        layout = ipywidgets.Layout(
            grid_template_columns=f"repeat({1 + len(self.poses)}, minmax(0, 96px))", grid_gap="4px"
        )
        box: ipywidgets.Box = ipywidgets.VBox([style, ipywidgets.GridBox(cells, layout=layout)])
        box.add_class("pcl-matrix")
        return box

    def pick(self, face: int) -> None:
        """Take a face up; the next pose that is chosen gets it, and the ones after that as well."""
        if self.picked is not None:
            self.face_buttons[self.picked].remove_class("pcl-picked")
        self.picked = face
        self.face_buttons[face].add_class("pcl-picked")
        self.panel.say(f"Face {face + 1} is taken: choose a pose for it.")

    def drop(self, pose: int) -> None:
        """Decode the face that was taken up in this pose, and show it where the two meet."""
        name = self.pose_buttons[pose].description
        if self.picked is None:
            self.panel.say(f"Choose a face first, then {name}.")
            return
        place = (self.picked, pose)
        swap = pictures.blends(self.model, self.faces[place[0]], self.poses[pose], [0.0], [1.0])[0]
        self.cells.pop(place, None)  # the newest stands last
        self.cells[place] = swap.clamp(0, 1)
        for image in self.images.values():
            image.remove_class("pcl-newest")
        self.images[place].value = pictures.png(pictures.to_rgb(swap))
        self.images[place].add_class("pcl-newest")
        self.panel.kept.value = ""  # these pictures show what was here before
        self.panel.say(f"Face {place[0] + 1} in {name}.")

    def grid(self, count: int | None = None) -> Tensor:
        """Donors and the swaps (the first `count` of them): float [1 + F, 1 + P, 3, S, S]."""
        return pictures.swap_matrix(self.faces, self.poses, dict([*self.cells.items()][:count]))

    def frames(self) -> list[pictures.RGB]:
        """The matrix as it filled up, swap by swap."""
        return [pictures.sheet(self.grid(count), side=72) for count in range(len(self.cells) + 1)]
