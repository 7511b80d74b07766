"""Readings of validation people while a model is trained, against scikit-learn; and that training does not notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images
from sklearn.linear_model import RidgeCV
from sklearn.metrics import accuracy_score, mean_absolute_error
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from test_pretrain import assert_equal_weights, fit, tiny, without_clock
from test_probes import FakeFaces, Lookup, known_features, make_faces

from pcl_lib import data, plots, pretrain, probes
from pcl_lib.probes import progress
from pcl_lib.probes.progress import ValidationProbe
from pcl_lib.utils import BadInput


@pytest.fixture
def labelled() -> FakeFaces:
    faces = make_faces(900)
    faces.table.loc[faces.table.index % 7 == 0, "expression"] = None
    return faces


def test_readings_are_those_of_scikit_learn(labelled: FakeFaces) -> None:
    features = known_features(labelled, noise=2.0)
    probe = ValidationProbe(labelled, 4)
    found = probe(Lookup(**features))
    rows = probe.rows
    assert set(rows) <= set(labelled.split("validation")) and len(rows) <= progress.MOST
    x, table = features["general"][rows].astype(np.float32).astype(float), labelled.table.iloc[rows]
    people, mood = table["identity"].to_numpy(), table["expression"].to_numpy()
    nearest, voted = [], []
    for i in range(len(rows)):
        others = np.arange(len(rows)) != i
        one = KNeighborsClassifier(1, metric="cosine").fit(x[others], people[others])
        nearest.append(one.predict(x[[i]])[0])
        strangers = (people != people[i]) & pd.notna(mood)
        five = KNeighborsClassifier(5, metric="cosine").fit(x[strangers], mood[strangers])
        voted.append(five.predict_proba(x[[i]])[0].max() if pd.isna(mood[i]) else five.predict(x[[i]])[0])
    assert found["knn_identity"] == pytest.approx(accuracy_score(people, nearest))
    known = pd.notna(mood)
    right = np.array([a == b for a, b in zip(voted, mood, strict=True)])[known].mean()
    assert found["knn_expression"] == pytest.approx(right, abs=0.05)  # ties are broken in another order
    angles = table[["yaw", "pitch", "roll"]].to_numpy()
    folds = GroupKFold(5).split(x, groups=probe.people)
    errors = []
    for train, test in folds:
        scale = StandardScaler().fit(x[train])
        ridge = RidgeCV(alphas=[1, 10, 100, 1e3, 1e4, 1e5]).fit(scale.transform(x[train]), angles[train])
        errors.append(len(test) * mean_absolute_error(angles[test], ridge.predict(scale.transform(x[test]))))
        assert not set(people[train]) & set(people[test])
    assert found["pose_mae"] == pytest.approx(sum(errors) / len(rows), rel=1e-3)


def test_readings_tell_a_feature_that_knows_from_one_that_does_not(labelled: FakeFaces) -> None:
    probe = ValidationProbe(labelled, 4)
    knows = probe(Lookup(**known_features(labelled, noise=0.1)))
    noise = np.random.default_rng(0).normal(size=(len(labelled), 80))
    blind = probe(Lookup(general=noise))
    assert knows["knn_identity"] > 0.9 and blind["knn_identity"] < 0.2
    assert knows["knn_expression"] > blind["knn_expression"] + 0.2
    assert knows["pose_mae"] < 0.5 * blind["pose_mae"]


def test_what_has_no_labels_is_not_read_and_nothing_to_read_is_said(labelled: FakeFaces) -> None:
    bare = FakeFaces(labelled.table[["split", "yaw"]])
    assert set(ValidationProbe(bare, 4)(Lookup(**known_features(labelled)))) == {"pose_mae"}
    assert not ValidationProbe(bare, 4).paired.any()
    with pytest.raises(
        BadInput, match=r"fake has no labels to read while training .* set train.probe_every=0"
    ):
        ValidationProbe(FakeFaces(labelled.table[["split"]]), 4)


def test_the_same_images_are_read_each_time_and_the_model_keeps_its_mode(labelled: FakeFaces) -> None:
    model = Lookup(**known_features(labelled)).train()
    state = torch.get_rng_state()
    probe = ValidationProbe(labelled, 4)
    assert probe(model) == ValidationProbe(labelled, 4)(model)
    assert model.modes == {False} and model.norm.training and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_training_gives_the_same_weights_bit_for_bit_with_and_without_readings(
    norm: str, blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    plain = fit(blobs, tmp_path / "plain", model__norm=norm)
    read = fit(blobs, tmp_path / "read", model__norm=norm, train__probe_every=3)
    assert_equal_weights(plain.model, read.model)
    pd.testing.assert_frame_equal(
        without_clock(read.history).drop(columns="knn_identity"), without_clock(plain.history)
    )
    log = pd.read_csv(tmp_path / "read" / "logs" / "pcl.csv")
    assert log["knn_identity"].notna().tolist() == [False, False, True, True]  # the third, and the last
    titles = [axes.get_title() for axes in plots.training_curves({"pcl": log}).axes]
    assert "knn identity" in titles


def test_a_resumed_run_reads_what_the_uninterrupted_one_reads(
    blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    whole = fit(blobs, tmp_path / "whole", train__probe_every=2)
    settings = {"preset": tiny(train__probe_every=2), "faces": blobs, "seed": 3, "progress": False}
    pretrain.fit("pcl", out=tmp_path / "two", callback=lambda _, history: len(history) == 2, **settings)
    resumed = pretrain.fit("pcl", out=tmp_path / "two", **settings)
    pd.testing.assert_frame_equal(without_clock(resumed.history), without_clock(whole.history))


def test_last_reading_is_that_of_the_finished_model(tmp_path: Path) -> None:
    n = 128
    g = np.random.default_rng(0)
    table = pd.DataFrame({"identity": np.arange(n) // 2, "yaw": g.normal(0, 20, n)})
    table["split"] = ["train"] * 96 + ["validation"] * 24 + ["test"] * 8
    data.write_prepared(
        tmp_path / "set", blob_images(n, 16), table, name="turned", source="drawn by the tests"
    )
    faces = data.PreparedFaces(tmp_path / "set")
    run = fit(faces, tmp_path / "run", "simclr", train__probe_every=1)
    last = run.history.iloc[-1]
    again = ValidationProbe(faces, 16)(run.model)
    assert {name: last[name] for name in again} == pytest.approx(again)
    assert set(again) == {"knn_identity", "pose_mae"} and probes.extract(run.model, faces).general is not None
