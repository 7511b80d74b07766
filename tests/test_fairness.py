"""Scores by group of people: against scoring the group alone by hand, and the tables and cards made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_probes import FakeFaces, Lookup, known_features, make_faces

from pcl_lib import probes
from pcl_lib.data.labels import EXPRESSION_NAMES
from pcl_lib.models import shipped
from pcl_lib.probes import linear
from pcl_lib.probes.tasks import plan
from pcl_lib.reproduce import fairness
from pcl_lib.utils import BadInput


@pytest.fixture(scope="module")
def faces() -> FakeFaces:
    made = make_faces(900)
    g = np.random.default_rng(3)
    made.table["age"] = g.uniform(0, 1, 60)[made.table["identity"]]
    for name, count in (("hair_style", 8), ("beard", 5), ("glasses", 2)):
        made.table[name] = g.integers(0, count, 60)[made.table["identity"]]
    return made


def test_a_group_is_scored_as_if_its_images_were_all_there_are(faces: FakeFaces) -> None:
    """One fit for all; accuracy, F1 and MAE of the group's images by hand."""
    model = Lookup(**known_features(faces, noise=2.0))
    dark = (faces.table["skin_tone"] > 0.6).to_numpy()
    everybody = np.ones(len(faces), dtype=bool)
    found = probes.evaluate_groups(
        model, faces, {"all": everybody, "dark": dark}, differences=[("dark", "all")], features=("general",)
    ).set_index(["metric", "task", "group"])
    cached = linear.CachedFeatures(probes.extract(model, faces).general, np.arange(len(faces)), len(faces))
    made = plan(faces)
    y = pd.Categorical(faces.table["expression"], categories=EXPRESSION_NAMES).codes.astype(np.int64)
    told, _ = linear.predict_classes(cached, made.expression, y)
    test = made.expression.test
    right = told == y[test]
    row = found.loc["accuracy", "expression", "dark"]
    assert row["value"] == pytest.approx(right[dark[test]].mean()) and row["n"] == dark[test].sum()
    assert row["low"] <= row["value"] <= row["high"]
    yaw, _ = linear.predict_values(
        cached, made.pose, faces.table[["yaw", "pitch", "roll"]].to_numpy(), robust=True
    )
    error = np.abs(yaw[:, 0] - faces.table["yaw"].to_numpy()[made.pose.test])[dark[made.pose.test]]
    assert found.loc["MAE yaw", "head pose", "dark"]["value"] == pytest.approx(error.mean())
    gap = found.loc["accuracy", "expression", "dark - all"]
    assert gap["value"] == pytest.approx(right[dark[test]].mean() - right.mean()) and np.isnan(gap["n"])
    both = dark[faces.pairs["first"]] & dark[faces.pairs["second"]]
    assert found.loc["accuracy", "verification", "dark"]["n"] == both.sum()


def test_all_people_as_a_group_are_evaluate(faces: FakeFaces) -> None:
    model = Lookup(**known_features(faces))
    everybody = {"all": np.ones(len(faces), dtype=bool)}
    keys = ["feature", "task", "metric", "value", "low", "high", "n"]
    found = probes.evaluate_groups(model, faces, everybody)[keys]
    pd.testing.assert_frame_equal(found, probes.evaluate(model, faces)[keys], check_dtype=False)


def test_groups_that_do_not_fit_are_refused(faces: FakeFaces) -> None:
    with pytest.raises(BadInput, match="group few must say of each of the 900 images"):
        probes.evaluate_groups(Lookup(), faces, {"few": np.ones(3, dtype=bool)})
    with pytest.raises(BadInput, match="has no column age"):
        fairness.groups(FakeFaces(faces.table.drop(columns="age")))


def test_thirds_are_of_test_people_and_differ_in_number_by_one_at_most(faces: FakeFaces) -> None:
    found = fairness.groups(faces)
    test = set(faces.table["identity"].iloc[faces.split("test")])
    for factor, names in fairness.THIRDS.items():
        parts = [set(faces.table["identity"][found[name]]) for name in names]
        assert set.union(*parts) == test and sum(map(len, parts)) == len(test)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        tops = [faces.table[factor][found[name]].agg(["min", "max"]).tolist() for name in names]
        assert tops[0][1] <= tops[1][0] and tops[1][1] <= tops[2][0]


def test_tables_and_cards_hold_every_group(
    faces: FakeFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = fairness.scores(Lookup(**known_features(faces)), faces)
    table = fairness.table({"pcl": scored}, {"data": "drawn"}).frame
    assert len(table) == 1 + 6 + 2 and table["group"].iloc[-1] == "oldest third - youngest third"
    shutil.copytree(shipped.WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    fairness.write_card("pcl", scored, {"name": "drawn"}, tmp_path / "weights")
    about = json.loads((tmp_path / "weights/pcl.json").read_text(encoding="utf-8"))
    (by_group,) = (value for key, value in about["groups"].items() if key != "data")
    assert len(by_group) == 9 and by_group[fairness.EVERYBODY]["general: head pose MAE yaw"][0] > 0
    kinds = fairness.people(faces)
    for _, part in kinds.groupby("factor"):
        assert part[["train", "validation", "test"]].sum().tolist() == [20, 20, 20]
    assert table["AU mean F1"].map(float).notna().all()
