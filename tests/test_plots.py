"""Figures show the numbers they are given, and touch nothing global."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from PIL import Image

from pcl_lib import plots, tables
from pcl_lib.utils import BadInput


def test_a_grid_puts_every_image_in_its_place() -> None:
    colours = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 1, 0], [0, 1, 1], [1, 0, 1]]])
    images = (255 * colours[..., None, None].expand(2, 3, 3, 8, 8)).byte()
    figure = plots.face_grid(images, rows=["a", "b"], columns=["x", "y", "z"], title="T")
    figure.canvas.draw()
    tops = []
    for place, axes in enumerate(figure.axes):
        r, c = divmod(place, 3)
        assert np.allclose(axes.images[0].get_array()[4, 4], colours[r, c])
        tops.append(axes.get_position().y1)
    assert tops[0] == pytest.approx(tops[2]) and tops[0] > tops[3]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["x", "y", "z"]
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["a", "b"]


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 2, 1, 8, 8), (0, 2, 3, 8, 8)])
def test_a_grid_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="grid of faces needs images"):
        plots.face_grid(torch.zeros(shape))


def test_a_wrong_number_of_labels_is_refused() -> None:
    with pytest.raises(BadInput, match="2 column labels were given for a grid of 3 columns"):
        plots.face_grid(torch.zeros(1, 3, 3, 8, 8), columns=["a", "b"])


def test_labels_of_three_lines_are_inside_the_page():
    figure = plots.face_grid(torch.zeros(1, 7, 3, 8, 8), columns=["yaw +60°\nface -1°\npose +55°"] * 7)
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.title.get_window_extent().y1 <= figure.bbox.y1
        assert axes.bbox.height == pytest.approx(
            axes.bbox.width, rel=0.02
        )  # and the faces are not smaller for it


def test_a_swap_grid_frames_swaps_with_their_donors() -> None:
    faces, poses = torch.full((2, 3, 4, 4), 51, dtype=torch.uint8), torch.full((3, 3, 4, 4), 0.4)
    figure = plots.swap_grid(faces, poses, torch.full((2, 3, 3, 4, 4), 1.7), ["-30", "0", "30"])
    shown = np.array([axes.images[0].get_array()[0, 0, 0] for axes in figure.axes]).reshape(3, 4)
    expected = [[1.0, 0.4, 0.4, 0.4], [0.2, 1, 1, 1], [0.2, 1, 1, 1]]  # what lies above 1 is clipped
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    with pytest.raises(BadInput, match="do not fit swaps"):
        plots.swap_grid(faces, poses, torch.zeros(3, 2, 3, 4, 4))


def test_points_lie_on_the_pixels_they_name() -> None:
    picture = Image.new("RGB", (20, 10))
    figure = plots.points_over([picture, picture], [np.array([[4.5, 2.5], [0.5, 9.5]]), None], ["a", "b"])
    first, second = figure.axes
    assert [line.get_xydata().tolist() for line in first.lines] == [
        [[4.0, 2.0]],
        [[0.0, 9.0]],
    ]  # imshow's pixels
    assert [text.get_text() for text in first.texts] == ["1", "2"] and not second.lines
    with pytest.raises(BadInput, match="2 pictures, 1 lists of points"):
        plots.points_over([picture, picture], [None], ["a", "b"])
    assert plots.file_stem("train 300W-LP, test AFLW2000") == "train_300W_LP__test_AFLW2000"


def test_training_curves_draw_what_changes() -> None:
    pcl = pd.DataFrame(
        {"epoch": [1, 2], "seconds": [1.0, 2.0], "lr": [2, 1.0], "face": [3.0, 2.0], "pdd_weight": 1.0}
    )
    simclr = pd.DataFrame({"epoch": [1, 2], "seconds": [1.0, 2.0], "lr": [2, 1.0], "simclr": [5.0, 4.0]})
    figure = plots.training_curves({"pcl": pcl, "simclr": simclr})
    drawn = {axes.get_title(): axes.lines for axes in figure.axes}
    assert drawn.keys() == {"face", "simclr"}
    np.testing.assert_array_equal(drawn["face"][0].get_xydata(), [[1, 3], [2, 2]])
    read = pcl.assign(knn_identity=[np.nan, 0.5])
    (axes,) = [a for a in plots.training_curves({"pcl": read}).axes if a.get_title() == "knn identity"]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[2, 0.5]])
    with pytest.raises(BadInput, match="no run has a training history"):
        plots.training_curves({"random": pd.DataFrame()})


def test_pose_error_curve_has_the_means_of_its_bins() -> None:
    truth = np.arange(-50.0, 50.0)
    figure = plots.pose_error_curve(truth[::-1], {"pcl": np.abs(truth[::-1])}, bins=4)
    x, y = figure.axes[0].lines[0].get_xydata().T
    np.testing.assert_allclose(x, [-38, -13, 12, 37])  # means of 25 neighbours each
    np.testing.assert_allclose(y, [38, 13, 12, 37])
    assert "degrees" in figure.axes[0].get_xlabel() and "degrees" in figure.axes[0].get_ylabel()


def test_confusion_is_in_per_cent_of_the_true_class() -> None:
    figure = plots.confusion(np.array([0, 0, 0, 0, 2]), np.array([0, 0, 0, 2, 2]), names=["a", "b", "c"])
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.collections[0].get_array(), [[75, 25], [0, 100]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c"]  # b never occurs


def test_leakage_shows_values_and_colours_what_lies_above_chance() -> None:
    table = pd.DataFrame(
        {
            "method": "pcl",
            "feature": ["face", "pose"] * 2,
            "factor": ["yaw", "yaw", "expression", "expression"],
        }
        | {
            "metric": ["R2", "R2", "accuracy", "accuracy"],
            "value": [0.1, 0.8, 0.6, 0.2],
            "chance": [0, 0, 0.2, 0.2],
        }
    )
    axes = plots.leakage_heatmap(table).axes[0]
    np.testing.assert_allclose(axes.collections[0].get_array(), [[0.1, 0.5], [0.8, 0]])
    assert [text.get_text() for text in axes.texts] == ["0.10", "0.60", "0.80", "0.20"]


def test_results_dots_place_values_intervals_and_the_constant_answer() -> None:
    rows = pd.DataFrame(
        {
            "method": [tables.CONSTANT, "random", "pcl", "pcl"],
            "feature": ["mean predictor", "general", "general", "pose"],
        }
        | {"task": "head pose", "metric": "MAE yaw", "value": [20.0, 15, 10, 5], "low": [19.0, 14, 9, 4]}
        | {"high": [21.0, 16, 11, 6]}
    )
    axes = plots.results_dots(rows).axes[0]
    constant, *rest = [line.get_xydata() for line in axes.lines]
    assert set(constant[:, 0]) == {20.0}
    expected = [
        [[14, 0], [16, 0]],
        [[15, 0]],
        [[9, 1], [11, 1]],
        [[10, 1]],
    ]  # the pose feature is passed over
    for found, wanted in zip(rest, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_histograms_are_shares_of_each_split() -> None:
    table = pd.DataFrame(
        {"yaw": [0.0, 0, 10, 10, 10, 10], "expression": ["sad", "happy", "sad", "sad", None, "sad"]}
    )
    split = np.array(["train", "train", "train", "train", "test", "test"], dtype=object)
    yaw, expression = plots.label_histograms(table, ["yaw", "expression"], split).axes
    train, test = (to_rgb(plots.COLOURS[number]) for number in (0, 2))
    highest = {line.get_color(): max(line.get_ydata()) for line in yaw.lines}
    assert {to_rgb(colour): height for colour, height in highest.items()} == {train: 50.0, test: 100.0}
    bars = {
        to_rgb(group[0].get_facecolor()): [bar.get_height() for bar in group]
        for group in expression.containers
    }
    assert bars[train] == [25.0, 75.0] and bars[test] == [0.0, 100.0]  # happy, sad


def test_embedding_keeps_colours_and_names_apart() -> None:
    points = np.arange(8.0).reshape(4, 2)
    names = np.array(["b", plots.OTHERS, "a", "b"], dtype=object)
    figure = plots.embedding({"yaw": (points, np.array([-3.0, 0, 1, 2])), "who": (points, names)})
    yaw, who = figure.axes[:2]
    assert yaw.collections[0].get_clim() == (-3, 3)  # zero in the middle
    drawn = {scatter.get_label(): scatter.get_offsets().tolist() for scatter in who.collections}
    assert drawn == {"others": [[2, 3]], "a": [[4, 5]], "b": [[0, 1], [6, 7]]}


def test_figures_are_shown_and_saved_as_png(tmp_path: Path) -> None:
    figure = plots.face_grid(torch.zeros(1, 2, 3, 8, 8))
    assert plots.save(figure, tmp_path / "figures" / "a.png") is figure
    shown = Image.open(io.BytesIO(figure._repr_png_()))  # type: ignore[attr-defined]
    assert shown.width == 1000 and Image.open(tmp_path / "figures" / "a.png").size == shown.size
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write"):
        plots.save(figure, tmp_path / "file" / "a.png")


def test_nothing_global_is_touched() -> None:
    before = dict(matplotlib.rcParams)
    plots.face_grid(torch.zeros(1, 1, 3, 8, 8))
    assert dict(matplotlib.rcParams) == before and not pyplot.get_fignums()
