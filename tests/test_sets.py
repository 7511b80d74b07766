"""Several sets in one run: names, joins of a set to train a probe on with one to test it, folds, pseudo labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images

from pcl_lib import data, probes
from pcl_lib.data import adapters
from pcl_lib.data.labels import PAPER_UNITS
from pcl_lib.probes import tasks
from pcl_lib.reproduce import run
from pcl_lib.utils import BadInput


def prepared(
    folder: Path, name: str, table: pd.DataFrame, seed: int = 0, pairs: pd.DataFrame | None = None
) -> data.PreparedFaces:
    """A prepared folder of blobs with these labels."""
    images = blob_images(len(table), 16, seed)
    data.write_prepared(folder / name, images, table, name=name, source="drawn by the tests", pairs=pairs)
    return data.PreparedFaces(folder / name)


def angles(n: int, split: list[str], seed: int, **more: object) -> pd.DataFrame:
    drawn = np.random.default_rng(seed).normal(0, 20, (n, 3))
    return pd.DataFrame(drawn, columns=["yaw", "pitch", "roll"]).assign(split=split, **more)


@pytest.fixture(scope="module")
def lp(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    table = angles(60, ["train"] * 40 + ["validation"] * 20, 1, identity=np.arange(60) // 2)
    return prepared(tmp_path_factory.mktemp("sets"), "300W-LP", table)


@pytest.fixture(scope="module")
def aflw(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    return prepared(tmp_path_factory.mktemp("sets"), "AFLW2000", angles(30, ["test"] * 30, 2), seed=5)


@pytest.fixture(scope="module")
def cplfw(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    """Pairs alone: no split but test, no labels but identity."""
    table = pd.DataFrame({"identity": np.arange(40) // 2, "split": "test"})
    first = np.arange(0, 40, 2)
    same = pd.DataFrame({"first": first, "second": first + 1, "same": True, "fold": np.arange(20) % 2})
    different = same.assign(second=np.roll(first, 1), same=False)
    pairs = pd.concat([same, different], ignore_index=True)
    return prepared(tmp_path_factory.mktemp("sets"), "CPLFW", table, pairs=pairs)


class Truth:
    """Features that are the angles themselves, looked up by an image's pixels; needs no training."""

    def __init__(self, *known: data.PreparedFaces) -> None:
        self.by_image = {}
        for faces in known:
            values = faces.table[["yaw", "pitch", "roll"]].to_numpy()
            for image, value in zip(faces.images(slice(None)), values, strict=True):
                self.by_image[image.numpy().tobytes()] = torch.tensor(value, dtype=torch.float32)

    def features(self, x: torch.Tensor) -> probes.FrozenFeatures:
        return probes.FrozenFeatures(torch.stack([self.by_image[image.numpy().tobytes()] for image in x]))


def test_folders_are_joined_and_split_again(tmp_path: Path) -> None:
    assert run.join_folders([""]) == "" and run.split_folders("") == [""]
    both = run.join_folders([tmp_path / "a", tmp_path / "b b"])
    assert run.split_folders(both) == [str(tmp_path / "a"), str(tmp_path / "b b")]
    assert run.split_folders(run.join_folders(["", tmp_path])) == ["", str(tmp_path)]
    assert run.split_folders(Path("data/one")) == ["data/one"]
    with pytest.raises(BadInput, match="names an empty folder"):
        run.split_folders(f"a{run.SEPARATOR}{run.SEPARATOR}b")
    with pytest.raises(BadInput, match="rename that folder"):
        run.join_folders([f"a{run.SEPARATOR}b"])


def test_one_set_trains_the_probe_and_the_other_tests_it(
    lp: data.PreparedFaces, aflw: data.PreparedFaces
) -> None:
    found = tasks.probed([aflw, lp])  # the order plays no part
    assert [view.name for view in found.views] == ["train 300W-LP, test AFLW2000"]
    (pair,) = found.views
    assert len(pair) == 90 and tuple(len(pair.split(name)) for name in tasks.Split._fields) == (40, 20, 30)
    rows = np.array([89, 0, 60, 59, 3])
    wanted = [aflw.images(29), lp.images(0), aflw.images(0), lp.images(59), lp.images(3)]
    assert torch.equal(pair.images(rows), torch.cat(wanted))
    pd.testing.assert_series_equal(pair.table["yaw"][60:].reset_index(drop=True), aflw.table["yaw"])
    said = " ".join(map(str, found.told()))
    assert "Head pose: trained on 300W-LP, tested on AFLW2000" in said and "Head pose left out" not in said
    table = probes.evaluate(Truth(lp, aflw), pair).set_index("metric")
    assert (table["value"] < 1.0).all() and (table["n"] == 30).all() and "MAE mean" in table.index
    constant = probes.baseline_rows(pair).set_index("metric")["value"]
    test_yaw, mean = aflw.table["yaw"].to_numpy(), lp.table["yaw"][:40].mean()
    assert constant["MAE yaw"] == pytest.approx(np.abs(test_yaw - mean).mean())


def test_sets_with_three_splits_are_never_joined(
    lp: data.PreparedFaces, aflw: data.PreparedFaces, tmp_path: Path
) -> None:
    whole = prepared(tmp_path, "whole", angles(40, ["train"] * 20 + ["validation"] * 10 + ["test"] * 10, 3))
    assert [view.name for view in tasks.probed([whole, aflw]).views] == ["whole"]
    assert [view.name for view in tasks.probed([whole, lp]).views] == ["whole"]
    alone = tasks.probed([lp])
    assert not alone.views and "no labelled images in test" in " ".join(map(str, alone.told()))
    assert "300W-LP is not probed" in str(alone.notes["300W-LP"][-1])
    only_yaw = prepared(
        tmp_path, "only yaw", angles(30, ["test"] * 30, 4).drop(columns=["pitch", "roll"]), seed=6
    )
    (pair,) = tasks.probed([lp, only_yaw]).views
    assert set(probes.baseline_rows(pair)["metric"]) == {"MAE yaw"}  # what both have


def test_action_units_are_joined_too_and_other_sets_are_told_of_briefly(
    tmp_path: Path, lp: data.PreparedFaces
) -> None:
    present = np.where(np.arange(60) % 2, 3.0, 0.0)
    train = pd.DataFrame({"au01": present, "au02": present, "split": ["train"] * 40 + ["validation"] * 20})
    test = pd.DataFrame({"au02": present, "au12": present, "split": "test"})
    sides = prepared(tmp_path, "a", train), prepared(tmp_path, "b", test, 1)
    found = tasks.probed([lp, *sides])
    assert [view.name for view in found.views] == ["train a, test b"]
    assert set(probes.baseline_rows(found.views[0])["metric"]) == {"F1 au02", "F1 mean"}
    others = found.told()[len(found.notes["300W-LP"]) :]
    assert list(map(str, others)) == [
        "Action units: trained on a, tested on b; neither set has the other part."
    ]
    assert any("a has no labels for yaw" in str(said) for said in found.notes["a"])


def test_a_set_of_pairs_alone_is_probed_for_verification(cplfw: data.PreparedFaces) -> None:
    found = tasks.probed([cplfw])
    assert [view.name for view in found.views] == ["CPLFW"]
    rows = probes.evaluate(probes.RawPixels(), cplfw)
    assert rows["task"].tolist() == ["verification"] and rows["n"].tolist() == [40]


def with_folds(folder: Path, name: str = "DISFA", **changes: object) -> data.PreparedFaces:
    """27 people in three folds, 8 frames each; units are present in every second frame, au05 in fold 0 alone."""
    person = np.arange(216) // 8
    present = np.where(np.arange(216) % 2, 3.0, 0.0)
    units = dict.fromkeys(PAPER_UNITS, present) | {"au05": np.where(person % 3 == 0, present, 0.0)}
    table = pd.DataFrame({"identity": person, "fold": person % 3, **units}).assign(**changes)
    return prepared(folder, name, table)


def test_each_fold_is_test_once_and_means_are_over_folds(tmp_path: Path) -> None:
    faces = with_folds(tmp_path)
    views = adapters.fold_views(faces)
    assert sorted(np.concatenate([view.split("test") for view in views])) == list(range(216))
    for fold, view in enumerate(views):
        people = [set(faces.table["identity"].iloc[view.split(name)]) for name in tasks.Split._fields]
        assert people[2] == {i for i in range(27) if i % 3 == fold} and len(people[1]) == 3
        assert not people[0] & people[1] and not (people[0] | people[1]) & people[2]
    rng = np.random.default_rng(0)
    noisy = faces.table["au01"].to_numpy()[:, None] + rng.normal(0, 3, (216, 2))
    x = probes.FrozenFeatures(torch.tensor(noisy, dtype=torch.float32))
    table = probes.evaluate(x, faces).set_index("metric")
    assert "F1 au05" not in table.index and (table["n"] == 216).all()
    by_hand = []
    for view in views:
        plain = probes.evaluate(x, SingleFold(view)).set_index("metric")["value"]
        by_hand.append(plain["F1 au01"])
    assert table.loc["F1 au01", "value"] == pytest.approx(np.mean(by_hand))
    assert len(set(by_hand)) > 1  # a mean over something
    assert table.loc["F1 mean of 8", "value"] == pytest.approx(
        table.loc[[f"F1 {u}" for u in PAPER_UNITS], "value"].mean()
    )
    assert table.loc["F1 au01", "low"] < table.loc["F1 au01", "value"] < table.loc["F1 au01", "high"]
    assert sum(one.columns == ("au05",) and one.reason == "constant" for one in tasks.left_out(faces)) == 1


class SingleFold:
    """A fold's view as a set of its own, without the column fold."""

    def __init__(self, view: object) -> None:
        self.view, self.table = view, view.table.drop(columns=["fold", "au05"])  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.table)

    def __getattr__(self, name: str) -> object:
        return getattr(self.view, name)


def test_a_fold_of_one_person_has_nothing_to_resample_and_counts(tmp_path: Path) -> None:
    person = np.arange(216) // 8
    fold = np.select([person == 0, person < 14], [0, 1], 2)
    faces = with_folds(tmp_path, fold=fold)
    features = probes.FrozenFeatures(torch.randn(216, 5, generator=torch.Generator().manual_seed(0)))
    table, replicates = probes.evaluate_paired(features, faces)
    assert (table["low"] <= table["high"]).all() and (table["low"] < table["high"]).any()
    values = replicates.drop(columns=["feature", "task", "metric"])
    assert values.shape[1] == 200 and values.notna().any(axis=1).all()


def test_folds_that_share_people_are_refused(tmp_path: Path) -> None:
    shared = with_folds(tmp_path, fold=np.arange(216) % 3)
    with pytest.raises(BadInput, match="27 people into two folds"):
        adapters.fold_views(shared)
    with pytest.raises(BadInput, match="two folds or more"):
        adapters.fold_views(with_folds(tmp_path, "one", fold=0))


def test_pseudo_labels_are_marked_row_by_row(tmp_path: Path, lp: data.PreparedFaces) -> None:
    split = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    expression = np.tile(["happy", "sad"], 20)
    faces = prepared(tmp_path, "guessed", angles(40, split, 3, expression=expression))
    faces.info["pseudo"] = ["yaw"]  # as the data scripts write it to dataset.json
    rows = tasks.mark_labels(probes.baseline_rows(faces), faces)
    kinds = rows.set_index("metric")["labels"]
    assert kinds.to_dict() == {
        "accuracy": "given", "MAE yaw": "pseudo", "MAE pitch": "given", "MAE roll": "given", "MAE mean": "pseudo"
    }  # fmt: skip
    assert set(rows["data"]) == {"guessed"}
    pair = adapters.JoinedFaces(lp, faces, ["yaw"])
    assert pair.info["pseudo"] == ["yaw"]
