"""pcl_lib.widgets without a browser: controls change what is shown, bad input leaves it, figures stand in."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbconvert import HTMLExporter
from PIL import Image
from test_photographs import BAD_FILES, as_file, scene

from pcl_lib import presets, pretrain, utils, widgets
from pcl_lib.data import PreparedFaces, rendered
from pcl_lib.faces import render
from pcl_lib.models import PCL, load_checkpoint
from pcl_lib.reproduce import measure
from pcl_lib.widgets import pictures
from pcl_lib.widgets.base import SAVED, WAS_LIVE, Panel, Tile
from pcl_lib.widgets.photographs import EXPECT, read_photograph
from pcl_lib.widgets.swap_explorer import PARTS
from pcl_lib.widgets.swap_matrix import COUNT
from pcl_lib.widgets.training_monitor import MOST_FRAMES


@pytest.fixture(scope="module")
def model() -> PCL:
    model = PCL(presets.get("smoke").model, seed=1).eval()
    model.decoder_noise = 0.1
    return model


@pytest.fixture(scope="module")
def faces() -> rendered.Gallery:
    return rendered.Gallery(32, people=10, images_per_person=6)


@pytest.fixture
def explorer(model: PCL, faces: rendered.Gallery) -> widgets.SwapExplorer:
    return widgets.SwapExplorer(model, faces)


def shown(tile: Tile) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tile.image.value))).astype(int)


def reads_as(panel: Panel) -> str:
    return str(panel.message.value)


def test_gallery_splits_are_different_people(faces: rendered.Gallery) -> None:
    people = [
        set(faces.table.iloc[faces.split(name)]["identity"]) for name in ("train", "validation", "test")
    ]
    assert [len(part) for part in people] == [6, 2, 2] and not people[0] & people[1] | people[1] & people[2]
    assert min(people[0]) >= 1_000_000
    rows = faces.split("test")[:2]
    assert (faces.images(rows) == render(faces.table.iloc[rows].drop(columns="split"), size=32)).all()


def test_pose_at_b_is_the_swap_and_at_a_the_reconstruction(
    explorer: widgets.SwapExplorer, model: PCL, faces: rendered.Gallery
) -> None:
    a, b = explorer.rows[0], explorer.rows[-2]
    with torch.inference_mode():
        _, face, pose = model.decoder_features(faces.images([a, b]))
        swap, plain = model.decode(face[[0, 0]], pose[[1, 0]])
    assert np.abs(shown(explorer.tiles["Blend"]) - pictures.to_rgb(swap)).max() <= 1
    explorer.pose.value = 0.0
    assert np.abs(shown(explorer.tiles["Blend"]) - pictures.to_rgb(plain)).max() <= 1
    assert (shown(explorer.tiles["A"]) == pictures.to_rgb(faces.images([a])[0])).all()


def test_turning_reads_as_many_degrees_more(explorer: widgets.SwapExplorer) -> None:
    reader = explorer.probe
    assert reader is not None
    moved = reader.turn(explorer.a.pose[None], "yaw", 30.0)
    assert float(reader.predict(moved) - reader.predict(explorer.a.pose[None])) == pytest.approx(30, abs=0.1)
    before = shown(explorer.tiles["Truth"])
    explorer.turn.value = 30.0
    assert "turned +30°" in explorer.tiles["Blend"].caption.value
    assert np.abs(shown(explorer.tiles["Truth"]) - before).mean() > 1


def test_swap_button_and_lists_change_the_donors(explorer: widgets.SwapExplorer) -> None:
    a, b = shown(explorer.tiles["A"]), shown(explorer.tiles["B"])
    explorer.swap.click()
    assert (shown(explorer.tiles["A"]) == b).all() and (shown(explorer.tiles["B"]) == a).all()
    assert explorer.choose_a.value == explorer.rows[-2]
    explorer.choose_a.value = explorer.rows[0]
    assert (shown(explorer.tiles["A"]) == a).all()


def upload(content: bytes) -> tuple[dict[str, Any], ...]:
    return ({"name": "x", "type": "image/png", "size": len(content), "content": memoryview(content)},)


def test_uploads_are_shown_or_refused_and_the_last_good_state_stays(explorer: widgets.SwapExplorer) -> None:
    before = [shown(tile) for tile in explorer.tiles.values()]
    for content, says in BAD_FILES:
        explorer.portraits.upload_files("a", upload(content))
        assert says in reads_as(explorer)
        assert all(
            (shown(tile) == old).all() for tile, old in zip(explorer.tiles.values(), before, strict=True)
        )
    assert explorer.portraits.tile.box.layout.display == "none"
    for mode in ("RGBA", "RGB"):
        explorer.portraits.upload_files("a", upload(as_file(Image.new(mode, (50, 50), (200, 20, 20)))))
        assert (shown(explorer.tiles["A"]) == (200, 20, 20)).all() and "No face was found" in reads_as(
            explorer
        )
    assert explorer.tiles["Truth"].box.layout.display == "none"  # nobody knows the factors of an upload
    explorer.choose_b.value = explorer.rows[1]
    assert (shown(explorer.tiles["A"]) == (200, 20, 20)).all()
    assert explorer.portraits.tile.box.layout.display == "flex"  # that of A, who has not changed
    explorer.choose_a.value = explorer.rows[0]
    assert explorer.portraits.tile.box.layout.display == "none"


def test_the_camera_gives_a_face_or_a_sentence(explorer: widgets.SwapExplorer, model: PCL) -> None:
    content = as_file(scene((7, 240, 300, 160)), "jpeg", quality=90)
    said = explorer.portraits.said
    said.value = "B data:image/jpeg;base64," + base64.b64encode(content).decode()
    found = read_photograph(content, model.image_size)
    assert (shown(explorer.tiles["B"]) == pictures.to_rgb(found.face)).all()
    assert (shown(explorer.portraits.tile) == found.shown).all()
    assert (
        EXPECT in html.unescape(reads_as(explorer)) and said.value == ""
    )  # the picture is not kept in the page
    for what, sentence in {
        "! NotFoundError 1": "No camera was found",
        "! NotAllowedError 2": "may not use the camera",
        "! insecure 3": "https://",
        "! AbortError 4": "cannot be used (AbortError)",
        "B data:image/jpeg;base64,%%%": "did not arrive whole",
    }.items():
        said.value = what
        assert sentence in html.unescape(reads_as(explorer))
        assert (shown(explorer.tiles["B"]) == pictures.to_rgb(found.face)).all()


def test_a_face_taken_up_is_decoded_in_each_pose_it_is_dropped_on(
    explorer: widgets.SwapExplorer, model: PCL, faces: rendered.Gallery
) -> None:
    matrix, rows = explorer.matrix, measure.donors(faces, (COUNT, COUNT))
    explorer.part.value = PARTS[1]
    assert explorer.blend.layout.display == "none" and matrix.box.layout.display == "flex"
    matrix.pose_buttons[1].click()
    assert "Choose a face first" in reads_as(explorer) and not matrix.cells
    matrix.face_buttons[1].click()
    for pose in (3, 0):
        matrix.pose_buttons[pose].click()
    assert "Face 2 in pose A" in reads_as(explorer) and [*matrix.cells] == [(1, 3), (1, 0)]
    swaps = measure.swap(model, faces, *rows).pictures
    for (face, pose), image in matrix.images.items():
        picture = np.asarray(Image.open(io.BytesIO(image.value))).astype(int)
        if (face, pose) in matrix.cells:
            assert np.abs(picture - pictures.to_rgb(swaps[face, pose])).max() <= 1
        else:
            assert (picture == 235).all()
    found = kept(explorer)
    assert found["gif"].n_frames == 4 and found["png"].width > 100  # empty, one, two, and back
    matrix.pose_buttons[4].click()
    assert not explorer.kept.value  # the links would save what is no longer shown


def test_faces_without_labels_have_no_turn_and_no_truth(model: PCL, faces: rendered.Gallery) -> None:
    bare = rendered.Gallery(32, people=10, images_per_person=6)
    bare.table = faces.table[["identity", "split"]]
    explorer = widgets.SwapExplorer(model, bare)
    assert explorer.turn.disabled and explorer.tiles["Truth"].box.layout.display == "none"
    studio = widgets.FaceStudio(model, bare)
    assert "nothing can be predicted" in reads_as(studio) and not studio.readings(bare.images([0])[0])


def test_studio_renders_its_sliders_and_reads_the_branches(model: PCL, faces: rendered.Gallery) -> None:
    studio = widgets.FaceStudio(model, faces)
    studio.sliders["yaw"].value, studio.sliders["au12"].value, studio.identity.value = 30.0, 4.0, 11
    factors = studio.factors()
    assert factors[["identity", "yaw", "au12"]].iloc[0].tolist() == [11, 30.0, 4.0]
    image = render(factors, size=32)[0]
    assert (shown(studio.face) == pictures.to_rgb(image)).all()
    with torch.inference_mode():
        pose = model.features(image[None]).pose
    said = studio.readings(image)["pose"]["yaw"]
    assert said == pytest.approx(float(studio.probes["pose"].predict(pose)[0, 0]), abs=1e-3)


def test_lab_controls_change_their_own_chain_alone(faces: rendered.Gallery) -> None:
    preset = presets.get("cpu")
    lab = widgets.AugmentationLab(faces, preset)
    before = lab.rows()
    lab.controls["crop_scale"].value = (0.1, 0.15)
    assert (lab.rows()[1:] == before[1:]).all() and (lab.rows()[0] != before[0]).any()
    lab.chain.value = "pose views and negatives"
    assert lab.controls["crop"].value == preset.pose_view.crop
    lab.controls["gradient"].value = 1.0
    assert lab.views["face views"].crop_scale == (0.1, 0.15)
    assert (lab.rows()[1] == lab.rows()[1][:, [0]]).all()  # gradients are grey
    draw = lab.rows()
    lab.again.click()
    assert (lab.rows() != draw).any()


def test_each_line_of_views_has_its_tile(faces: rendered.Gallery) -> None:
    lab = widgets.AugmentationLab(faces, presets.get("cpu"))
    for tile, views in zip(lab.tiles.values(), lab.rows(), strict=True):
        assert (shown(tile) == pictures.sheet(views[None])).all()
    lab.image.value = int(faces.split("train")[1])
    assert (shown(lab.source) == pictures.to_rgb(faces.images([lab.image.value])[0])).all()


def test_neighbours_are_those_of_the_feature(model: PCL, faces: rendered.Gallery) -> None:
    browser = widgets.NeighbourBrowser(model, faces, rows=range(20), count=3)
    browser.query.value = 4.999999999999999  # what a browser sends for 5
    with torch.inference_mode():
        x = model.features(faces.images(range(20))).pose
    x = x - x.mean(0)
    cosine = torch.cosine_similarity(x[5], x).index_fill(0, torch.tensor([5]), -2)
    images, captions = browser.neighbours("pose")
    assert (images == faces.images(cosine.topk(3).indices)).all() and len(captions) == 3
    few = widgets.NeighbourBrowser(model, faces, rows=range(5))  # four neighbours: no two whole lines
    assert shown(few.tiles["pose"]).shape[1] > shown(browser.tiles["pose"]).shape[1]


def panels(model: PCL, faces: rendered.Gallery, out: Path) -> list[Panel]:
    """One of each widget."""
    return [
        widgets.SwapExplorer(model, faces),
        widgets.FaceStudio(model, faces),
        widgets.FaceStudio(),
        widgets.AugmentationLab(faces, presets.get("smoke")),
        widgets.NeighbourBrowser(model, faces),
        widgets.TrainingMonitor("pcl", preset=presets.get("smoke"), faces=faces, out=out),
    ]


def kept(panel: Panel) -> dict[str, Image.Image]:
    """The pictures that a panel offers after its button was pressed, by the end of their names."""
    panel.keep.click()
    found = re.findall(r'download="(\w+\.(\w+))" href="data:image/(\w+);base64,([^"]+)"', panel.kept.value)
    assert all(
        name == f"{type(panel).__name__.lower()}.{end}" and end == kind for name, end, kind, _ in found
    )
    return {end: Image.open(io.BytesIO(base64.b64decode(data))) for _, end, _, data in found}


def test_each_panel_has_three_things_to_try_and_keeps_pictures(
    model: PCL, faces: rendered.Gallery, tmp_path: Path
) -> None:
    assert {type(panel).__name__ for panel in panels(model, faces, tmp_path)} == set(widgets.__all__)
    for panel in panels(model, faces, tmp_path):
        assert len(set(panel.tries)) == 3
        foot = panel.view.children[-1].value
        assert all(html.escape(text) in foot for text in panel.tries) and foot.count("<li>") == 3
        found = kept(panel)
        assert found["png"].format == "PNG" and min(found["png"].size) > 30
        if isinstance(panel, widgets.TrainingMonitor):  # nothing has been trained
            assert set(found) == {"png"}
        else:
            assert found["gif"].is_animated and found["gif"].n_frames >= 6


def test_a_monitor_keeps_few_pictures_of_a_long_training(faces: rendered.Gallery, tmp_path: Path) -> None:
    monitor = widgets.TrainingMonitor("pcl", preset=presets.get("smoke"), faces=faces, out=tmp_path)
    for epoch in range(1, 1001):
        grey = np.full((2, 2, 3), epoch % 256, np.uint8)
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "PNG")
        monitor.remember(epoch, file.getvalue())
        assert len(monitor.seen) <= MOST_FRAMES
    *even, last = (epoch for epoch, _ in monitor.seen)
    assert last == 1000 and len(even) > 20 and set(np.diff([0, *even])) == {even[0]}
    assert [frame[0, 0, 0] for frame in monitor.frames()] == [epoch % 256 for epoch in (*even, last)]


def test_kept_frames_go_there_and_back(explorer: widgets.SwapExplorer, model: PCL) -> None:
    explorer.face.value, explorer.turn.value = 0.25, 10.0
    moving, frames = kept(explorer)["gif"], explorer.frames()
    assert moving.n_frames == 2 * len(frames) - 2
    for place, frame in ((0, frames[0]), (len(frames) - 1, frames[-1]), (len(frames), frames[-2])):
        moving.seek(place)
        assert np.abs(np.asarray(moving.convert("RGB")).astype(int) - frame).mean() < 6  # 256 colours
    a, b = explorer.a, explorer.b
    blend = pictures.blends(model, a, b, [0.25], [1.0], 10.0, explorer.probe)[0]
    truth = pictures.blend_truth(a, b, 0.25, 1.0, 10.0, model.image_size)
    assert truth is not None
    row = torch.stack([a.image / 255, blend, truth / 255, b.image / 255])
    assert (frames[-1] == pictures.sheet(row[None], [["A", "blend", "truth", "B"]])).all()
    explorer.pose.value = 0.5
    assert not explorer.kept.value  # the links would save what is no longer shown


def test_the_figure_shows_the_truth_below_where_it_is_known(explorer: widgets.SwapExplorer) -> None:
    def rows(panel: widgets.SwapExplorer) -> int:
        return len([axes for axes in panel.figure().axes if axes.images]) // 7

    assert rows(explorer) == 2
    explorer.portraits.upload_files("b", upload(as_file(Image.new("RGB", (50, 50), (200, 20, 20)))))
    assert rows(explorer) == 1 and kept(explorer)["gif"].width < 4 * 100


def test_without_a_reader_or_weights_the_figure_stands_in(
    model: PCL, faces: rendered.Gallery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(utils.HEADLESS, "1")
    made = panels(model, faces, tmp_path)
    for panel in made:
        bundle = panel._repr_mimebundle_()
        assert "Nobody watches" in bundle["text/plain"] and "data:image/png;base64," in bundle["text/html"]
        assert panel.still() is None  # the widget shows it already
    for nothing in (widgets.SwapExplorer(None, faces), widgets.NeighbourBrowser(None, faces)):
        assert "no trained weights" in nothing._repr_mimebundle_()["text/html"]


def test_a_saved_copy_shows_a_still_and_says_that_the_panel_was_live(
    model: PCL, faces: rendered.Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcl_lib.widgets.base.headless", lambda: "")
    browser = widgets.NeighbourBrowser(model, faces)
    bundle = browser._repr_mimebundle_()
    assert WAS_LIVE in bundle["text/html"] and "data:image/png;base64," in bundle["text/html"]
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == browser.view.model_id
    assert SAVED in html.unescape(browser.view.children[-1].value)
    # a page made of a notebook without the widgets' state
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", bundle)])
    page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert WAS_LIVE in page and "widget-view+json" not in page.split("</style>")[-1]


def test_monitor_stops_with_a_checkpoint_that_goes_on(blobs: PreparedFaces, tmp_path: Path) -> None:
    changes = {"model.image_size": 16, "train.pdd_batch": 4, "train.face_batch": 4, "train.pose_batch": 2}
    preset = presets.override(
        presets.get("smoke"),
        changes | {"train.epochs": 2, "train.checkpoint_every": 2, "train.probe_every": 1},
    )
    monitor = widgets.TrainingMonitor("pcl", preset=preset, faces=blobs, out=tmp_path / "stopped")
    assert monitor.curves.box.layout.display == "none" and not reads_as(monitor)
    monitor.stopping.set()  # as if stop were pressed in the first epoch
    monitor._train()
    assert "Stopped after 1 of 2 epochs" in reads_as(monitor) and not monitor.start.disabled
    assert len(pd.read_csv(tmp_path / "stopped" / "logs" / "pcl.csv")) == 1
    assert all(bytes(tile.image.value[:4]) == b"\x89PNG" for tile in (monitor.curves, monitor.swaps))
    assert "knn identity" in [axes.get_title() for axes in monitor.figure().axes]
    monitor = widgets.TrainingMonitor("pcl", preset=preset, faces=blobs, out=tmp_path / "stopped")
    assert "1 of 2 epochs were trained before" in reads_as(monitor) and monitor.progress.value == 1
    assert monitor.curves.image.value[:4] == b"\x89PNG"
    monitor.begin()
    assert monitor.thread is not None
    monitor.thread.join(120)
    assert "Finished after 2 of 2 epochs" in reads_as(monitor) and len(monitor.frames()) == 1
    pretrain.fit("pcl", preset=preset, faces=blobs, out=tmp_path / "straight", progress=False)
    one, other = (
        load_checkpoint(tmp_path / name / "checkpoints" / "pcl.safetensors").state_dict()
        for name in ("stopped", "straight")
    )
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    monitor.out = tmp_path / "nowhere" / "x"
    (tmp_path / "nowhere").write_text("a file in the way")
    monitor._train()
    assert "cannot write" in reads_as(monitor)
