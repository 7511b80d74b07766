"""Test people choose nothing: with other labels on test images every choice and every weight stays as it was.

The linear probes' own choices are in test_probes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import blob_images
from test_finetune import CONFIG
from test_pretrain import assert_equal_weights, tiny
from test_probes import FakeFaces, Lookup, known_features, make_faces

from pcl_lib import data, disentangle, finetune, pretrain
from pcl_lib.models import PCL
from pcl_lib.probes import linear


def shuffled(faces: FakeFaces, columns: list[str]) -> FakeFaces:
    """The set with these labels of its test images permuted, each column on its own."""
    table, g = faces.table.copy(), np.random.default_rng(8)
    test = faces.split("test")
    for column in columns:
        table.loc[test, column] = g.permutation(table.loc[test, column].to_numpy())
    return FakeFaces(table, faces.pairs)


def seen(monkeypatch: pytest.MonkeyPatch, name: str, keep: Callable[..., Any]) -> list[Any]:
    """What `keep` takes of the arguments and the result of each call of `linear`'s function `name`."""
    calls, real = [], getattr(linear, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        calls.append(keep(arguments, found))
        return found

    monkeypatch.setattr(linear, name, watched)
    return calls


def test_leakage_chooses_penalties_without_test_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = make_faces(400)
    model = Lookup(**known_features(faces))
    values = seen(monkeypatch, "predict_values", lambda _, found: (found[0].tolist(), found[1]))
    classes = seen(monkeypatch, "predict_classes", lambda _, found: (found[0].tolist(), found[1]))
    paths = seen(monkeypatch, "ridge_path", lambda given, _: given[3:])
    factors = ["expression", "yaw", "skin_tone"]
    both = []
    for each in (faces, shuffled(faces, [*factors, "identity"])):
        disentangle.leakage(model, each, features=("general", "pose"))
        both.append((values[:], classes[:], paths[:]))
        for calls in (values, classes, paths):
            calls.clear()
    assert both[0][0] and both[0][1] and both[0][2]
    assert both[0] == both[1]


def happy_or_sad(n: int = 96) -> pd.DataFrame:
    g = np.random.default_rng(0)
    table = pd.DataFrame({"identity": np.arange(n), "expression": g.choice(["happy", "sad"], n)})
    return table.assign(split=["train"] * (n - 48) + ["validation"] * 24 + ["test"] * 24)


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> list[data.PreparedFaces]:
    """The same pictures; in the second all test images have the other label."""
    folder, table = tmp_path_factory.mktemp("sets"), happy_or_sad()
    other = table.copy()
    test = other["split"] == "test"
    other.loc[test, "expression"] = other.loc[test, "expression"].map({"happy": "sad", "sad": "happy"})
    for name, labels in (("a", table), ("b", other)):
        data.write_prepared(folder / name, blob_images(len(labels), 16), labels, name="x", source="drawn")
    return [data.PreparedFaces(folder / name) for name in ("a", "b")]


def test_fine_tuning_stops_and_takes_its_rate_without_test_labels(
    two_sets: list[data.PreparedFaces], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All answers turn from right to wrong: accuracies on test are 1 less what they were, those on validation stay."""
    monkeypatch.setattr(finetune, "CHECKS", 3)
    found, real = [], finetune._train

    def watched(*arguments: Any) -> tuple[float, float]:
        found.append(real(*arguments))
        return found[-1]

    monkeypatch.setattr(finetune, "_train", watched)
    best = []
    for faces in two_sets:
        labels = finetune.Labels(faces, "expression")
        best.append(finetune._trained(PCL(CONFIG, 1), labels, labels.split, 6, 0))
    first, second = found[: len(finetune.RATES)], found[len(finetune.RATES) :]
    assert [validation for validation, _ in first] == [validation for validation, _ in second]
    assert [test for _, test in second] == pytest.approx([1 - test for _, test in first])
    assert best[1] == pytest.approx(1 - best[0])


def test_training_never_sees_test_labels(two_sets: list[data.PreparedFaces], tmp_path: Path) -> None:
    """A supervised training with readings by the way: the same weights bit for bit."""
    method, settings = "supervised_expression", {"preset": tiny(train__probe_every=1), "progress": False}
    first, second = (
        pretrain.fit(method, faces=faces, out=tmp_path / str(i), **settings)
        for i, faces in enumerate(two_sets)
    )
    assert_equal_weights(first.model, second.model)
