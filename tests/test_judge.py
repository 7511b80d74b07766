"""The judge of the shipped weights: features of a known content tell what they hold, tables show what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from pcl_lib import data, presets, probes
from pcl_lib.disentangle import swap_truth
from pcl_lib.models import PCL
from pcl_lib.probes import FrozenFeatures
from pcl_lib.reproduce import judge, shipped_report


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    folder = tmp_path_factory.mktemp("judge") / "set"
    people = (40, 6, swap_truth.PEOPLE)
    return data.prepare_rendered(folder, identities=people, images_per_identity=6, size=32, progress=False)


def test_features_tell_what_they_hold_and_nothing_else(
    faces: data.PreparedFaces,
) -> None:
    """The face-aware feature is the person and the expression, the pose-related one the three angles."""
    table = faces.table
    person = F.one_hot(torch.from_numpy(pd.factorize(table["identity"])[0])).float()
    smile = F.one_hot(torch.from_numpy(pd.factorize(table["expression"])[0])).float()
    angles = torch.tensor(table[["yaw", "pitch", "roll"]].to_numpy(np.float32))
    face, pose = torch.cat([person, 0.01 * smile], 1), angles / angles.std(0)
    made = FrozenFeatures(torch.cat([face, pose], 1), face, pose, face, pose)
    found = judge.features_tell(made, faces)
    assert found["face verification"] == found["face cross-pose"] == 1
    assert found["face expression"] == found["general expression"] == 1 and found["pose expression"] < 0.5
    for angle in ("yaw", "pitch", "roll"):
        assert found[f"pose {angle}"] > 0.999 and found[f"face {angle}"] < 0.2
    assert found["pose |yaw|"] < 0.2 and found["pose verification"] < 0.75


def test_verification_is_the_share_of_pairs_that_a_threshold_tells() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    first, second = np.array([0, 2, 0, 1] * 2), np.array([1, 3, 2, 3] * 2)
    pairs = pd.DataFrame({"first": first, "second": second, "same": [True, True, False, False] * 2})
    assert judge.verification(x, pairs.assign(fold=[0] * 4 + [1] * 4)) == 1
    wrong = pairs.assign(fold=[0] * 4 + [1] * 4, same=[True, False, True, False] * 2)
    assert judge.verification(x, wrong) == 0.5


def test_the_tables_show_what_was_measured_and_what_the_readers_make_of_the_truth(
    faces: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap_truth, "STEPS", 2)
    monkeypatch.setattr(swap_truth, "PICTURES", 2)
    model = PCL(presets.get("smoke").model).eval()
    table = shipped_report.swap_table({"a": model}, faces, n=40).frame
    assert table["method"].tolist() == ["a", shipped_report.TRUTH]
    readers = swap_truth.fit_probes(faces, 32)
    swaps = swap_truth.draw_swaps(faces, 32, 40)
    error = np.abs(readers.pose(swaps.truth) - swaps.angles)[:, 0].mean()
    assert float(table["yaw MAE"].iloc[-1]) == pytest.approx(error)
    drawn = swap_truth.decoded(model, swaps)[0]
    assert float(table["yaw MAE"].iloc[0]) == pytest.approx(
        np.abs(readers.pose(drawn) - swaps.angles)[:, 0].mean()
    )
    context = {
        "preset": "smoke",
        "seed": 0,
        "data": faces.name,
        "protocol": "validation",
        "precision": "32-true",
    }
    context |= {"device": "cpu", "versions": "", "commit": ""}
    found = {"a": probes.extract(probes.EvenOdd(model), faces)}
    probed = shipped_report.probe_table(found, faces, **context).frame
    assert probed["method"].tolist() == ["PCA", "HoG", "LBP", "a", "a, branches", "a, components"]
    told = shipped_report.feature_table(found, faces).frame
    assert told["feature"].tolist() == ["general", "face", "pose"] and float(told["yaw"].iloc[0]) <= 1
    judge.draw_swaps(model, faces, tmp_path / "swaps.png")
    assert (tmp_path / "swaps.png").stat().st_size > 1000


def test_shipped_weights_are_probed_on_sets_of_other_sizes(tmp_path: Path) -> None:
    people = {"identities": (12, 4, 6), "images_per_identity": 4, "size": 32, "progress": False}
    data.prepare_rendered(tmp_path / "mine", **people)
    info = tmp_path / "mine" / "dataset.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"pseudo": ["yaw"]}))
    shipped_report.main(["--data", str(tmp_path / "mine"), "--out", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out" / "tables" / "shipped_mine.csv")
    assert {"PCA", "HoG", "pcl", "pcl_plus", "pcl_video, components"} <= set(table["method"])
    said = (tmp_path / "out" / "tables" / "shipped_mine.md").read_text()
    assert "pseudo labels head pose, cross-pose verification" in said
    assert "yaw MAE" in table and not (tmp_path / "out" / "swaps_video.png").exists()
