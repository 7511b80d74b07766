"""Sliders without a kernel: every picture that a few places of a widget's sliders give, drawn beforehand.

A strip is one file, a sheet of all pictures, and a few controls. `static/strips.js` shows the picture of their places.
"""

from __future__ import annotations

import dataclasses
import html
import io
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pcl_lib.data import rendered
from pcl_lib.faces import AUS, render, sample_factors
from pcl_lib.models.shipped import shipped
from pcl_lib.presets import PRESETS
from pcl_lib.probes.directions import fit_probes
from pcl_lib.probes.features import AsDecoded
from pcl_lib.utils import replace_atomically
from pcl_lib.widgets import pictures
from pcl_lib.widgets.face_studio import UNIT_NAMES
from pcl_lib.widgets.pictures import RGB
from pcl_lib.widgets.swap_explorer import spread

METHOD = "pcl_video"  # whose shipped weights draw the blends
QUALITY = 85  # of the WebP files
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
TURNS = (-40, -20, 0, 20, 40)
LEVELS = (0, 1, 2, 3, 4, 5)
DRAWS, VIEWS = 8, 4  # draws of the views; views in a line
COLOURS = (0.0, 0.5, 1.0)  # of the preset's strength


@dataclass(frozen=True)
class Control:
    """A control of a strip: what it is called, what its places are called, and the place that it starts from."""

    name: str
    places: Sequence[str]
    start: int = 0


@dataclass(frozen=True)
class Strip:
    """One widget as pictures.

    widget: the class of `pcl_lib.widgets` that it stands for. about: a sentence on what the picture shows. pictures:
    one for each combination of the controls' places, those of the last control in a row; uint8 [H, W, 3] each.
    """

    name: str
    widget: str
    about: str
    controls: Sequence[Control]
    pictures: Sequence[RGB]

    def __post_init__(self) -> None:
        assert len(self.pictures) == math.prod(len(control.places) for control in self.controls)

    @property
    def columns(self) -> int:
        """Pictures in a line of the sheet: a sheet near a square stays within what browsers can show."""
        return math.ceil(math.sqrt(len(self.pictures)))

    def sheet(self) -> Image.Image:
        """All pictures, line by line."""
        height, width = self.pictures[0].shape[:2]
        lines = math.ceil(len(self.pictures) / self.columns)
        page = Image.new("RGB", (self.columns * width, lines * height), "white")
        for place, picture in enumerate(self.pictures):
            line, column = divmod(place, self.columns)
            page.paste(Image.fromarray(picture), (column * width, line * height))
        return page

    def save(self, folder: Path) -> Path:
        """Write the sheet to folder/<name>.webp."""
        path, content = folder / f"{self.name}.webp", io.BytesIO()
        self.sheet().save(content, "webp", quality=QUALITY, method=4)
        with replace_atomically(path) as temporary:
            temporary.write_bytes(content.getvalue())
        return path

    def html(self, address: str, number: int) -> str:
        """The strip as a part of a page. address: of its sheet. number: tells strips of one page apart."""
        height, width = self.pictures[0].shape[:2]
        columns, lines = self.columns, math.ceil(len(self.pictures) / self.columns)
        data = {"columns": columns, "lines": lines, "counts": [len(c.places) for c in self.controls]}
        said = html.escape(self.about)
        rows = "".join(
            _control(control, f"{self.name}-{number}-{i}") for i, control in enumerate(self.controls)
        )
        return (
            f'<figure class="strip" data-strip="{html.escape(json.dumps(data))}">'
            f'<div class="strip-picture" role="img" aria-label="{said}" style="--width: {width};'
            f" aspect-ratio: {width} / {height}; background-image: url({address});"
            f' background-size: {100 * columns}% {100 * lines}%"></div>{rows}<figcaption>{said}</figcaption></figure>'
        )


def _control(control: Control, name: str) -> str:
    """A native slider, which keyboards, fingers and screen readers know how to use."""
    places = html.escape(json.dumps(list(control.places)))
    return (
        f'<div class="strip-control"><label for="{name}">{html.escape(control.name)}</label>'
        f'<input type="range" id="{name}" min="0" max="{len(control.places) - 1}" value="{control.start}" step="1"'
        f' data-places="{places}" aria-valuetext="{html.escape(control.places[control.start])}">'
        f'<output for="{name}">{html.escape(control.places[control.start])}</output></div>'
    )


def _side_by_side(images: Sequence[Tensor], side: int) -> RGB:
    """Images [3, S, S] in one line, `side` pixels each."""
    shown = [Image.fromarray(pictures.to_rgb(image)) for image in images]
    return np.concatenate(
        [np.asarray(x.resize((side, side), Image.Resampling.BICUBIC)) for x in shown], axis=1
    )


def swap_strip() -> Strip:
    """SwapExplorer: A, B, the blend, and the rendered truth, by pose, face and turn; with the shipped weights."""
    model = shipped(METHOD)
    faces = rendered.gallery(model.image_size)
    probe = fit_probes(AsDecoded(model), faces, ("yaw",))["pose"]
    rows = spread(faces)[[0, -2]]
    a, b = (pictures.encode_donor(model, faces.images([row])[0], faces.table.iloc[[row]]) for row in rows)
    drawn = []
    for pose, face, turn in itertools.product(SHARES, SHARES, TURNS):
        blend = pictures.blends(model, a, b, [face], [pose], turn, probe)[0]
        truth = pictures.blend_truth(a, b, face, pose, turn, model.image_size)
        assert truth is not None  # the gallery's factors are known
        drawn.append(_side_by_side([a.image, b.image, blend, truth], 96))
    shares = [f"{share:.0%} B" for share in SHARES]
    controls = (
        Control("pose, from A to B", shares, len(SHARES) - 1),
        Control("face, from A to B", shares),
        Control("turn the head", [f"{turn:+d}°" if turn else "0°" for turn in TURNS], TURNS.index(0)),
    )
    about = (
        "From left to right: face A, face B, the decoder's blend of the two, and what a perfect model would draw"
        f" (rendered). The weights are those of {METHOD} that come with the kit."
    )
    return Strip("swap", "SwapExplorer", about, controls, drawn)


def units_strip() -> Strip:
    """FaceStudio: one action unit at a time, at six intensities, on a face that turns."""
    start = sample_factors(1, first_identity=7).assign(**dict.fromkeys(AUS, 0.0), pitch=0.0, roll=0.0)
    places = list(itertools.product(AUS, LEVELS, TURNS))
    table = start.loc[start.index.repeat(len(places))].reset_index(drop=True)
    for row, (unit, level, yaw) in enumerate(places):
        table.loc[row, [unit, "yaw"]] = [float(level), float(yaw)]
    names = dict(part.split(" ", 1) for part in UNIT_NAMES.split(", "))
    units = [f"AU {int(unit[2:])}: {names[str(int(unit[2:]))]}" for unit in AUS]
    controls = (
        Control("action unit", units, AUS.index("au12")),
        Control("intensity", [str(level) for level in LEVELS], len(LEVELS) - 1),
        Control("yaw", [f"{yaw:+d}°" if yaw else "0°" for yaw in TURNS], TURNS.index(0)),
    )
    about = "A rendered face with one action unit drawn, from 0 (not at all) to 5. Yaw above 0 looks to the left edge."
    return Strip(
        "units", "FaceStudio", about, controls, [pictures.to_rgb(x) for x in render(table, size=160)]
    )


def views_strip() -> Strip:
    """AugmentationLab: face views, pose views and pose negatives of one image, by draw and strength of the colours."""
    preset = PRESETS["cpu"]
    faces = rendered.gallery(preset.model.image_size)
    image = faces.images(faces.split("train")[:1])[0]
    drawn = []
    for draw, colour in itertools.product(range(DRAWS), COLOURS):
        face, pose = (
            dataclasses.replace(
                view,
                **{
                    name: colour * getattr(view, name)
                    for name in ("brightness", "contrast", "saturation", "hue")
                },
            )
            for view in (preset.face_view, preset.pose_view)
        )
        rows = pictures.view_rows(image, face, pose, VIEWS, draw)
        whole = torch.stack([image / 255, image / 255, image.flip(2) / 255])[:, None]
        drawn.append(np.concatenate([_side_by_side(list(row), 96) for row in torch.cat([whole, rows], 1)]))
    controls = (
        Control("draw", [str(draw + 1) for draw in range(DRAWS)]),
        Control("strength of the colours", ["none", "half", "as in the preset"], 2),
    )
    about = (
        "The image in the first column, its views behind it. First line: face views; second: pose views; third: pose"
        " negatives, views of the flipped image."
    )
    return Strip("views", "AugmentationLab", about, controls, drawn)


STRIPS: tuple[Callable[[], Strip], ...] = (swap_strip, units_strip, views_strip)
