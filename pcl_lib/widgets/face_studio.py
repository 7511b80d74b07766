"""FaceStudio: make a face by its factors, and see what each branch reads from it."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from pcl_lib import plots
from pcl_lib.data import FaceSet
from pcl_lib.faces import AUS, render, sample_factors
from pcl_lib.faces.factors import POSE_SPREAD
from pcl_lib.models import PCL
from pcl_lib.probes.directions import fit_probes
from pcl_lib.probes.features import evaluating
from pcl_lib.widgets import pictures
from pcl_lib.widgets.base import DESCRIBED, Panel, Tile, slider, wrapped
from pcl_lib.widgets.pictures import Scale

ANGLES = tuple(Scale(name, -bound, bound, "°") for name, (_, bound) in POSE_SPREAD.items())
LIGHT = (Scale("light_azimuth", -80, 80, "°"), Scale("light_elevation", -10, 60, "°"))
UNITS = tuple(Scale(name, 0, 5) for name in AUS)
SCALES = (*ANGLES, *UNITS, *LIGHT)
UNIT_NAMES = (
    "1 inner brows up, 2 outer brows up, 4 brows down, 6 cheeks up, 9 nose wrinkled, 12 lip corners up, "
    "15 lip corners down, 20 lips stretched, 25 lips apart, 26 jaw dropped"
)
TRIES = (
    "Make a surprised face: AUs 1, 2, 25 and 26. What turns it into fear?",
    "Find a light that leaves half of the face in shadow.",
    "Turn yaw to 60 degrees, then move pitch. In which direction does the nose go?",
)
PROBED_TRIES = (
    "Move yaw from one end to the other. Which dot follows, and how far?",
    "Make a smile: AUs 6 and 12. Which feature notices it?",
    "Change the number of the identity. Does the predicted yaw stay where it was?",
)
NOTHING_TO_PROBE = "The faces have no labels of these factors, so nothing can be predicted from the features."


class FaceStudio(Panel):
    """Sliders for the renderer's factors, the face, and what linear probes predict from each branch next to the truth.

    model: a `PCL` in eval mode; faces: a prepared set at its size whose training and validation images the probes
    are fitted on, for the factors it has labels of. Without both, there is the face alone.
    """

    def __init__(self, model: PCL | None = None, faces: FaceSet | None = None) -> None:
        super().__init__()
        self.model = model
        self.size = model.image_size if model is not None else 64
        names = [scale.name for scale in SCALES]
        self.probes = {} if model is None or faces is None else fit_probes(model, faces, names)
        self.tries = PROBED_TRIES if self.probes else TRIES
        self.identity = ipywidgets.BoundedIntText(
            value=7, min=0, max=999_999, description="identity (number)", style=DESCRIBED
        )
        self.sliders = {
            scale.name: slider(
                scale.name.replace("_", " "), 0.0, scale.low, scale.high, 1.0 if scale.unit else 0.1,
                unit=scale.unit or "0 to 5", digits=0 if scale.unit else 1,
            )
            for scale in SCALES
        }  # fmt: skip
        self.sliders["light_elevation"].value = 25.0
        self.face, self.chart = Tile("Face", width="256px"), Tile("Readings", width="560px")
        if not self.probes:
            self.say(
                NOTHING_TO_PROBE
                if model is not None
                else "Without a model nothing is predicted from the face."
            )
        controls = [self.identity, *self.sliders.values()]
        self.redraw_on(controls, self.redraw)
        self.put(
            self.message,
            wrapped([self.face.box, self.chart.box]),
            self.identity,
            wrapped([*self.sliders.values()]),
            ipywidgets.HTML(f"<div style='line-height: 1.4'>Action units: {UNIT_NAMES}.</div>"),
        )
        self.redraw()

    def factors(self) -> pd.DataFrame:
        """The one row that the sliders describe; all else is the identity's own, on a calm background."""
        values = {name: control.value for name, control in self.sliders.items()}
        return sample_factors(1, first_identity=self.identity.value).assign(**values)

    def readings(self, image: torch.Tensor) -> dict[str, dict[str, float]]:
        """Branch -> factor -> what its linear probe predicts for one image uint8 [3, S, S]."""
        if self.model is None or not self.probes:
            return {}
        device = next(self.model.parameters()).device
        with evaluating(self.model), torch.inference_mode():
            features = self.model.features(image[None].to(device))
        return {
            branch: dict(zip(probe.names, probe.predict(getattr(features, branch))[0].tolist(), strict=True))
            for branch, probe in self.probes.items()
        }

    def redraw(self) -> None:
        """Render the face and predict its factors."""
        factors = self.factors()
        image = render(factors, size=self.size)[0]
        self.face.show(pictures.to_rgb(image), f"what the encoder sees, {self.size} x {self.size} pixels")
        truth = {scale.name: float(factors[scale.name].iloc[0]) for scale in SCALES}
        chart = pictures.readings_chart(SCALES, truth, self.readings(image)) if self.probes else None
        self.chart.show(chart, "true values, and what linear probes predict from each feature")

    def _turned(self, count: int) -> tuple[np.ndarray, torch.Tensor]:
        """Yaws from -60 to 60 degrees, and the face at each: uint8 [count, 3, S, S]."""
        yaws, row = np.linspace(-60, 60, count), self.factors()
        turned = row.loc[row.index.repeat(count)].reset_index(drop=True).assign(yaw=yaws)
        return yaws, render(turned, size=self.size)

    def frames(self) -> list[pictures.RGB]:
        """The face, turned from left to right."""
        yaws, images = self._turned(13)
        return [
            pictures.sheet(image[None, None], [[f"yaw {yaw:+.0f}°"]], side=192)
            for yaw, image in zip(yaws, images, strict=True)
        ]

    def figure(self) -> Figure:
        """The face turned from left to right, with the yaw that is predicted from each branch above."""
        yaws, images = self._turned(7)
        columns = []
        for yaw, image in zip(yaws, images, strict=True):
            predicted = [
                f"{name} {own['yaw']:+.0f}°" for name, own in self.readings(image).items() if "yaw" in own
            ]
            columns.append("\n".join([f"yaw {yaw:+.0f}°", *predicted]))
        return plots.face_grid(images[None], columns=columns)
