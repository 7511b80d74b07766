"""AugmentationLab: the views that the two contrastive losses see of one image."""

from __future__ import annotations

import dataclasses

import ipywidgets
import torch
from matplotlib.figure import Figure

from pcl_lib import plots
from pcl_lib.data import FaceSet
from pcl_lib.presets import Preset, ViewPreset
from pcl_lib.widgets import pictures
from pcl_lib.widgets.base import DESCRIBED, Panel, Tile, slider, wrapped

LINES = ("face views", "pose views", "pose negatives")
COUNT = 6
SHARES = ("flip", "jitter", "grey", "blur", "gradient")  # probabilities
STRENGTHS = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}  # and their largest values


class AugmentationLab(Panel):
    """Face views, pose views and pose negatives (views of the flip) of one image, every parameter a control.

    faces: a prepared set; preset: whose `face_view` and `pose_view` it starts from. The first training
    image is shown first.
    """

    tries = (
        "Turn settings of the face views off, one by one, until a view is the same as its image.",
        "Let the pose views be cropped (resized). Is the turn of the head still easy to see in each of them?",
        "Set gradient to 1 for the pose views. What is left of the face, and can you still tell its pose?",
    )

    def __init__(self, faces: FaceSet, preset: Preset) -> None:
        super().__init__()
        self.faces = faces
        self.views = {"face views": preset.face_view, "pose views and negatives": preset.pose_view}
        self.image = ipywidgets.BoundedIntText(
            value=int(faces.split("train")[0]), min=0, max=len(faces) - 1, description="image (row)",
            style=DESCRIBED,
        )  # fmt: skip
        self.draw = ipywidgets.BoundedIntText(
            value=0, min=0, max=9999, description="draw (seed)", style=DESCRIBED
        )
        self.again = ipywidgets.Button(description="draw again", icon="refresh")
        self.chain = ipywidgets.ToggleButtons(
            options=list(self.views),
            description="settings of",
            style={"button_width": "auto"},
        )
        self.source = Tile("Image", width="100px")
        self.tiles = {name: Tile(name.capitalize(), width=f"{COUNT * 100}px") for name in LINES}
        self.controls = self._controls(preset.face_view)
        self.loading = False
        self.redraw_on([self.image, self.draw, *self.controls.values()], self.redraw)
        self.chain.observe(lambda _: self._load(), "value")
        self.again.on_click(lambda _: setattr(self.draw, "value", (self.draw.value + 1) % 10000))
        self.put(
            wrapped([self.image, self.draw, self.again]),
            self.message,
            self.source.box,
            *[tile.box for tile in self.tiles.values()],
            self.chain,
            wrapped([*self.controls.values()]),
        )
        self.redraw()

    def _controls(self, view: ViewPreset) -> dict[str, ipywidgets.Widget]:
        """One control per field of `ViewPreset`, under its name."""
        found: dict[str, ipywidgets.Widget] = {
            "crop": ipywidgets.Dropdown(
                options=["quadrant", "resized", "none"], value=view.crop, description="crop", style=DESCRIBED
            ),
            "crop_scale": _range("crop area (share)", view.crop_scale, 0.05, 1.0, 0.05),
            "blur_sigma": _range("blur sigma (pixels)", view.blur_sigma, 0.1, 4.0, 0.1),
        }
        for name in SHARES:
            found[name] = slider(name, getattr(view, name), 0.0, 1.0, 0.05, unit="probability")
        for name, most in STRENGTHS.items():
            found[name] = slider(name, getattr(view, name), 0.0, most, 0.05, unit="strength")
        return found

    def _load(self) -> None:
        """Move the controls to the settings of the chain that was chosen."""
        self.loading = True
        for name, value in dataclasses.asdict(self.views[self.chain.value]).items():
            self.controls[name].value = value
        self.loading = False

    def chosen(self) -> torch.Tensor:
        """The image whose views are shown: uint8 [3, S, S]."""
        image: torch.Tensor = self.faces.images([self.image.value])[0]
        return image

    def rows(self) -> torch.Tensor:
        """The views shown: float [3, COUNT, 3, S, S], lines as in `LINES`."""
        face_view, pose_view = self.views.values()
        return pictures.view_rows(self.chosen(), face_view, pose_view, COUNT, self.draw.value)

    def redraw(self) -> None:
        """Take the settings over and draw the views."""
        if self.loading:
            return
        chosen = {name: control.value for name, control in self.controls.items()}
        self.views[self.chain.value] = ViewPreset(**chosen)
        self.source.show(pictures.to_rgb(self.chosen()), "the image")
        for (name, tile), views in zip(self.tiles.items(), self.rows(), strict=True):
            flipped = ", of the flipped image" if name == LINES[-1] else ""
            tile.show(pictures.sheet(views[None]), name + flipped)

    def frames(self) -> list[pictures.RGB]:
        """The lines of views in six draws, from the one that is shown on."""
        face_view, pose_view = self.views.values()
        seeds = [(self.draw.value + step) % 10000 for step in range(6)]
        rows = [pictures.view_rows(self.chosen(), face_view, pose_view, COUNT, seed) for seed in seeds]
        return [pictures.sheet(row) for row in rows]

    def figure(self) -> Figure:
        """The image and its views, a line each."""
        image = self.chosen().float() / 255
        first = torch.stack([image, image, image.flip(2)])[:, None]
        columns = ["image", *[""] * COUNT]
        return plots.face_grid(torch.cat([first, self.rows()], 1), rows=LINES, columns=columns)


def _range(
    name: str, value: tuple[float, float], low: float, high: float, step: float
) -> ipywidgets.FloatRangeSlider:
    return ipywidgets.FloatRangeSlider(
        value=value, min=low, max=high, step=step, description=name, readout_format=".2f", style=DESCRIBED,
        layout=ipywidgets.Layout(flex="1 1 300px", min_width="260px", max_width="480px"),
    )  # fmt: skip
