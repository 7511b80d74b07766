"""The search for pcl_video: a try leaves a row, weights and a picture, is not run twice, and its measures are right."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pcl_lib import data, presets
from pcl_lib.ablations import clip_search
from pcl_lib.disentangle import swap_truth
from pcl_lib.reproduce import judge
from pcl_lib.utils import BadInput

SMALL = {"train.epochs": 1, "train.iterations_per_epoch": 2, "train.frames_per_identity": 50}
SMALL |= {"model.backbone": "patches", "model.width": 0.25, "model.decoder_width": 0.25}


def test_a_try_leaves_its_row_weights_and_picture_and_is_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    people = (3, 2, swap_truth.PEOPLE)
    settings = {"images_per_identity": 6, "size": 64, "progress": False}
    few = {"identities": (3, 2, 2), "frames_per_clip": 3, **settings}
    monkeypatch.setattr(clip_search, "CLIPS", few)
    stills = data.prepare_rendered(tmp_path / "stills", identities=people, **settings)
    monkeypatch.setattr(clip_search, "COMMON", SMALL)
    monkeypatch.setattr(swap_truth, "STEPS", 2)
    monkeypatch.setattr(swap_truth, "PICTURES", 2)
    found = clip_search.search(["pcl_video", "person"], tmp_path, stills, tmp_path / "out")
    assert found["try"].tolist() == ["pcl_video", "person"] and found["images"].gt(0).all()
    wanted = {"face |yaw|", "pose pitch", "even expression", "face verification", "face cross-pose"}
    assert wanted | {"swap score SSIM head", "swap identity rank-1", "swap pitch MAE"} <= set(found)
    assert found["face |yaw|"].le(1).all() and found["face verification"].between(0, 1).all()
    folder = tmp_path / "out" / "pcl_video"
    assert (folder / "checkpoints" / "pcl_video.safetensors").is_file()
    rows, columns = judge.DRAWN
    with Image.open(folder / "swaps.png") as picture:
        assert picture.size == (2 * 64 * (columns + 2), 2 * 64 * (2 * rows + 1))
    capsys.readouterr()
    again = clip_search.search(["pcl_video", "person"], tmp_path, stills, tmp_path / "out")
    assert capsys.readouterr().out == "2 tries, 2 of them done before.\n"
    pd.testing.assert_frame_equal(again, found)


def test_a_try_says_how_far_expressions_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        "identities": (2, 1, 1),
        "images_per_identity": 10,
        "frames_per_clip": 5,
        "size": 16,
        "progress": False,
    }
    monkeypatch.setattr(clip_search, "CLIPS", few)
    moved = {}
    for name in ("pcl_video", "expression moves by half", "expression moves"):
        table = clip_search.TRIES[name].clips(tmp_path).table
        moved[name] = table.groupby("clip")["au12"].agg(lambda x: x.max() - x.min()).sum()
    assert moved["pcl_video"] == 0 and moved["expression moves"] > 1
    assert moved["expression moves by half"] == pytest.approx(moved["expression moves"] / 2)


def test_every_try_is_made_of_settings_that_exist() -> None:
    for tried in clip_search.TRIES.values():
        presets.override(presets.get("cpu"), clip_search.COMMON | dict(tried.changes))
    with pytest.raises(BadInput, match="no try 'nonsense'"):
        clip_search.main(["--only", "nonsense"])
