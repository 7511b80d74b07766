"""The widgets of notebooks 00, 03 and 05 in a real JupyterLab: each slider by keyboard, its picture checked.

The notebooks are cut down to set-up and the widgets' own cells. What it needs, and what can be set: see `browser`.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from browser import SECOND, Jupyter, Lab
from PIL import Image

from pcl_lib import presets, reproduce
from pcl_lib.data import rendered
from pcl_lib.faces import render, sample_factors
from pcl_lib.models import load_checkpoint
from pcl_lib.models.shipped import shipped
from pcl_lib.probes.directions import fit_probes
from pcl_lib.widgets import pictures
from pcl_lib.widgets.augmentation_lab import COUNT, LINES
from pcl_lib.widgets.face_studio import LIGHT, SCALES, UNITS

CAPTION = 21  # pixels below each picture of a sheet


def label(scale: pictures.Scale) -> str:
    return f"{scale.name.replace('_', ' ')} ({scale.unit or '0 to 5'})"


def studio_face(places: dict[str, float], identity: int = 7) -> torch.Tensor:
    """What the renderer draws for the sliders of FaceStudio: uint8 [3, 64, 64]."""
    rest = dict.fromkeys((scale.name for scale in SCALES), 0.0) | {"light_elevation": 25.0}
    return render(sample_factors(1, first_identity=identity).assign(**(rest | places)), size=64)[0]


def test_every_factor_of_the_studio_in_00(jupyter: Jupyter) -> None:
    with jupyter.open_cells("00_tour", "widgets.FaceStudio") as lab:
        lab.wait_for("face", before := pictures.to_rgb(studio_face({})))
        places: dict[str, float] = {}
        for scale in (*UNITS, *LIGHT, *[scale for scale in SCALES if scale not in (*UNITS, *LIGHT)]):
            lab.move(label(scale), "End")
            face = pictures.to_rgb(studio_face(places | {scale.name: scale.high}))
            assert np.abs(face.astype(int) - before).mean() > 0.1, f"{scale.name} changes nothing"
            lab.wait_for("face", face)
            if scale in UNITS:
                lab.move(label(scale), "Home")  # or the mouth would be hidden by the turned head
            else:
                places[scale.name], before = scale.high, face
        number = lab.page.locator(".widget-text", has_text="identity").locator("input")
        number.fill("11")
        number.press("Enter")
        lab.wait_for("face", pictures.to_rgb(studio_face(places, 11)))
        lab.look("face_studio", "img.pcl-face")
        lab.assert_quiet()


def test_what_the_studio_in_05_reads(jupyter: Jupyter) -> None:
    model, faces = shipped("pcl_plus"), rendered.gallery(64)
    readers = fit_probes(model, faces, [scale.name for scale in SCALES])
    with jupyter.open_cells("05_downstream_probes", "widgets.FaceStudio", "studio.still", "Neighbour") as lab:
        assert lab.page.get_by_text("In use: the weights of pcl_plus that come with the kit").count() == 1
        lab.move("yaw (°)", "ArrowRight", 40)
        image = studio_face({"yaw": 40.0})
        lab.wait_for("face", pictures.to_rgb(image))
        with torch.inference_mode():
            found = model.features(image[None])._asdict()
        read = {
            branch: dict(zip(reader.names, reader.read(found[branch])[0].tolist(), strict=True))
            for branch, reader in readers.items()
        }
        truth = dict.fromkeys(readers["pose"].names, 0.0) | {"light_elevation": 25.0, "yaw": 40.0}
        chart = pictures.readings_chart(SCALES, truth, read)
        off = np.abs(lab.picture("readings") - chart).max(2) > 3
        assert off.mean() < 0.002  # a last digit that rounds the other way, a dot one pixel on
        neighbours_follow_the_query(lab, model, faces)
        lab.look("face_studio_readings", "img.pcl-face")
        lab.look("neighbour_browser", "img.pcl-query")
        lab.assert_quiet()


def neighbours_follow_the_query(lab: Lab, model: Any, faces: rendered.Gallery) -> None:
    rows = faces.split("test")
    with torch.inference_mode():
        found = model.features(faces.images(rows))._asdict()
    for key, presses, query in (("ArrowRight", 5, 5), ("End", 1, len(rows) - 1), ("Home", 1, 0)):
        lab.move("query (number)", key, presses)
        lab.wait_for("query", pictures.to_rgb(faces.images(rows[[query]])[0]))
        for branch in ("face", "pose"):
            x = found[branch].double()
            unit = torch.nn.functional.normalize(x - x.mean(0), dim=1)
            cosine = (unit @ unit[query]).index_fill(0, torch.tensor([query]), -2.0)
            nearest = rows[cosine.argsort(descending=True)[:6].numpy()]
            page = pictures.sheet(faces.images(nearest).unflatten(0, (2, 3)), [[""] * 3] * 2)
            for line in range(2):  # the captions' digits may round the other way
                start = line * len(page) // 2
                lab.wait_for(f"by-{branch}", page, slice(start, start + len(page) // 2 - CAPTION))
    lab.press("another face")
    lab.wait_for("query", pictures.to_rgb(faces.images(rows[[37]])[0]))


# Field of the settings, slider, handle, key, and where it goes from where the smoke preset has it; in an order in which
# each move shows: no gradients before all that they hide, jitter before the colours, grey last.
MOVES: tuple[tuple[str, str, int, str, Any], ...] = (
    ("crop_scale", "crop area", 0, "Home", (0.05, 1.0)),
    ("crop_scale", "crop area", 1, "ArrowLeft", (0.05, 0.95)),
    ("gradient", "gradient (probability)", 0, "Home", 0.0),
    ("jitter", "jitter (probability)", 0, "End", 1.0),
    ("brightness", "brightness (strength)", 0, "Home", 0.0),
    ("contrast", "contrast (strength)", 0, "Home", 0.0),
    ("saturation", "saturation (strength)", 0, "Home", 0.0),
    ("hue", "hue (strength)", 0, "End", 0.5),
    ("blur", "blur (probability)", 0, "End", 1.0),
    ("blur_sigma", "blur sigma (pixels)", 1, "End", (0.1, 4.0)),
    ("blur_sigma", "blur sigma (pixels)", 0, "PageUp", (0.6, 4.0)),
    ("flip", "flip (probability)", 0, "End", 1.0),
    ("grey", "grey (probability)", 0, "End", 1.0),
)


def view_sheets(image: torch.Tensor, face: Any, pose: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """What the pure functions draw for AugmentationLab, by tile."""
    rows = pictures.view_rows(image, face, pose, COUNT, seed)
    return {
        name.replace(" ", "-"): pictures.sheet(views[None]) for name, views in zip(LINES, rows, strict=True)
    }


def wait_for_views(lab: Lab, expected: dict[str, np.ndarray]) -> None:
    for name, sheet in expected.items():
        lab.wait_for(name, sheet)


def test_every_parameter_of_the_augmentations_in_03(jupyter: Jupyter) -> None:
    with jupyter.open_cells("03_contrastive_pretraining", "AugmentationLab") as lab:
        faces = reproduce.open_run("smoke", "", jupyter.folder / "runs" / "smoke", 0).faces
        image = faces.images(faces.split("train")[:1])[0]
        face, pose = presets.get("smoke").face_view, presets.get("smoke").pose_view
        wait_for_views(lab, before := view_sheets(image, face, pose))
        crop = lab.page.locator(".widget-dropdown", has_text="crop").locator("select")
        crop.select_option("resized")
        face = replace(face, crop="resized")
        for field, slider, handle, key, value in MOVES:
            lab.move(slider, key, handle=handle)
            face = replace(face, **{field: value})
            wait_for_views(lab, after := view_sheets(image, face, pose))
            assert (after["face-views"] != before["face-views"]).any(), f"{slider} changes nothing"
            before = after
        lab.look("augmentation_lab", "img.pcl-image")
        lab.press("pose views and negatives")
        shown = lab.page.locator(".widget-slider", has_text="flip (probability)").filter(has_text="0.00")
        shown.wait_for(timeout=10 * SECOND)  # the sliders have gone to the other chain's settings
        lab.move("flip (probability)", "End")
        wait_for_views(lab, after := view_sheets(image, face, replace(pose, flip=1.0)))
        assert all((after[name] != before[name]).any() for name in ("pose-views", "pose-negatives"))
        lab.press("draw again")
        wait_for_views(lab, view_sheets(image, face, replace(pose, flip=1.0), seed=1))
        lab.assert_quiet()


def test_the_monitor_in_03_stops_with_a_checkpoint_and_goes_on(jupyter: Jupyter) -> None:
    out = jupyter.folder / "runs" / "smoke"
    shutil.rmtree(out, ignore_errors=True)  # what other notebooks trained
    with jupyter.open_cells("03_contrastive_pretraining", "TrainingMonitor") as lab:
        assert not lab.page.locator("img.pcl-curves").is_visible()  # nothing has been trained
        lab.press("train")
        lab.button("stop").click()
        said = lab.page.get_by_text(re.compile(r"(Stopped|Finished) after \d of 4 epochs"))
        said.wait_for(timeout=120 * SECOND)
        done = int(re.findall(r"after (\d)", said.inner_text())[0])
        assert 1 <= done < 4 and len(pd.read_csv(out / "logs" / "pcl.csv")) == done
        assert load_checkpoint(out / "checkpoints" / "pcl.safetensors").image_size == 32
        for name in ("curves", "swaps"):
            assert len(Image.fromarray(lab.picture(name).astype(np.uint8)).getcolors(10**6) or []) > 20, name
        lab.press("train")
        lab.page.get_by_text("Finished after 4 of 4 epochs").wait_for(timeout=120 * SECOND)
        assert len(pd.read_csv(out / "logs" / "pcl.csv")) == 4
        lab.look("training_monitor", "img.pcl-curves")
        lab.assert_quiet()
