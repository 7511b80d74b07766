"""One's own labels: linear probe, fine-tuning and training from scratch by number of labels."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, mean_absolute_error, roc_auc_score
from test_learning import drawn_heads, factors
from test_pretrain import assert_equal_weights

from pcl_lib import data, finetune, probes
from pcl_lib.models import PCL, save_checkpoint
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput, exit_cleanly

CONFIG = ModelPreset(width=0.125, image_size=16, projector_hidden=8, projector_out=8, norm="batch")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    rng = np.random.default_rng(0)
    table = factors(rng)
    folder = tmp_path_factory.mktemp("heads") / "set"
    data.write_prepared(folder, drawn_heads(table, rng), table, name="heads", source="drawn by the tests")
    return data.PreparedFaces(folder)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    """Blobs that are happy where there is more red in them than blue, one in ten labelled wrongly."""
    n = 480
    images = blob_images(n, 16)
    red, _, blue = images.double().mean((2, 3)).T.numpy()
    wrong = np.random.default_rng(0).random(n) < 0.1
    table = pd.DataFrame(
        {"identity": np.arange(n), "expression": np.where((red > blue) ^ wrong, "happy", "sad")}
    )
    table["split"] = ["train"] * 300 + ["validation"] * 60 + ["test"] * 120
    folder = tmp_path_factory.mktemp("coloured") / "set"
    data.write_prepared(folder, images, table, name="coloured", source="drawn by the tests")
    return data.PreparedFaces(folder)


@pytest.fixture(scope="module")
def curve(coloured: data.PreparedFaces) -> pd.DataFrame:
    model = PCL(CONFIG, seed=7).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = finetune.learning_curve(
        model, finetune.Labels(coloured, "expression"), [4, 300], seeds=2, iterations=150
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return rows


def test_rows_hold_every_way_count_and_seed_once(curve: pd.DataFrame) -> None:
    keys = curve[["method", "labels", "seed"]]
    assert len(keys) == len(keys.drop_duplicates()) == 3 * 2 * 2 and set(keys["method"]) == set(finetune.WAYS)
    assert set(curve["n"]) == {120} and curve["value"].between(0, 1).all()


def test_with_all_labels_the_linear_probe_is_that_of_evaluate(
    curve: pd.DataFrame, coloured: data.PreparedFaces
) -> None:
    table = probes.evaluate(PCL(CONFIG, seed=7).eval(), coloured, features=["general"])
    wanted = table.loc[table["task"] == "expression", "value"].item()
    found = curve[(curve["method"] == "linear probe") & (curve["labels"] == 300)]["value"]
    np.testing.assert_allclose(found, wanted, atol=0.01)  # the seeds order the same images differently


def test_more_labels_help_and_whole_networks_learn(curve: pd.DataFrame, coloured: data.PreparedFaces) -> None:
    mean = curve.groupby(["method", "labels"])["value"].mean().unstack()
    for way in ("fine-tuned", "from scratch"):
        assert (
            mean.loc[way, 300] > max(finetune.Labels(coloured, "expression").chance(), mean.loc[way, 4]) + 0.1
        )


def test_constant_answers_and_scores_are_those_of_scikit_learn(heads: data.PreparedFaces) -> None:
    table, g = heads.table, np.random.default_rng(0)
    train, test = heads.split("train"), heads.split("test")
    labels = finetune.Labels(heads, "expression")
    dummy = DummyClassifier().fit(train[:, None], labels.y[train])
    assert labels.chance() == pytest.approx(accuracy_score(labels.y[test], dummy.predict(test[:, None])))
    pose = finetune.Labels(heads, "head pose")
    angles = table[["yaw", "pitch", "roll"]].to_numpy()
    guess = angles[test] + g.normal(size=(len(test), 3))
    assert pose.score(guess, test) == pytest.approx(mean_absolute_error(angles[test], guess))
    units = finetune.Labels(heads, "action units")
    logits, present = g.normal(size=(len(test), 1)), (table["au01"].to_numpy() >= 2)[test]
    assert units.score(logits, test) == pytest.approx(roc_auc_score(present, logits[:, 0]))
    assert units.chance() == 0.5


def test_units_that_never_vary_are_left_out(coloured: data.PreparedFaces, tmp_path: Path) -> None:
    rng, happy = np.random.default_rng(0), coloured.table["expression"] == "happy"
    table = coloured.table.drop(columns=["shard", "row", "expression"]).assign(
        au06=rng.integers(0, 5, len(happy)), au12=np.where(happy, 3, 0), au20=0
    )
    data.write_prepared(tmp_path / "set", coloured.images(slice(None)), table, name="units", source="tests")
    labels = finetune.Labels(data.PreparedFaces(tmp_path / "set"), "action units")
    assert labels.y.shape == (480, 2)
    rows = finetune.learning_curve(PCL(CONFIG, seed=7), labels, [300], seeds=1, iterations=60)
    assert rows["value"].between(0.55, 1).all()  # au12 is the colour, au06 chance; au20 would have no AUC


def test_smaller_draws_lie_in_larger_ones_and_batches_are_whole_orders() -> None:
    rows = np.arange(70)
    batches = list(finetune._batches(rows, 5, 0))
    assert [len(part) for part in batches] == [32, 32, 32, 32, 32]
    assert len(set(np.concatenate(batches[:2]))) == 64
    assert [sorted(part) for part in finetune._batches(rows[:5], 2, 0)] == [list(range(5))] * 2


@pytest.mark.parametrize(("task", "metric"), [("head pose", "MAE mean"), ("action units", "AUC mean")])
def test_command_leaves_a_table_a_figure_and_its_rows(
    task: str, metric: str, heads: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    weights = tmp_path / "own.safetensors"
    save_checkpoint(PCL(CONFIG), weights, {"method": "pcl", "preset": "mine"})
    words = ["finetune", "--data", str(heads.folder), "--weights", str(weights), "--task", task]
    words += ["--labels", "40", "200", "--seeds", "2", "--iterations", "4", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    finetune.main()
    name = f"finetune_{task.replace(' ', '_')}"
    table = pd.read_csv(tmp_path / "out" / "tables" / f"{name}.csv")
    rows = pd.read_csv(tmp_path / "out" / "tables" / f"{name}_rows.csv")
    assert len(rows) == 3 * 2 * 2 and set(rows["preset"]) == {"mine"} and set(rows["metric"]) == {metric}
    for way in finetune.WAYS:
        for line, count in enumerate((40, 200)):
            part = rows[(rows["method"] == way) & (rows["labels"] == count)]["value"]
            assert table[f"{way}, {metric}"][line] == pytest.approx(part.mean())
    if task == "head pose":
        assert (table["linear probe, MAE mean"] < 1.3 * table["chance baseline"]).all()
    assert (tmp_path / "out" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    said = capsys.readouterr().out
    assert "480 training images with labels" in said and "| training labels |" in said


def test_what_cannot_be_done_is_one_sentence(
    heads: data.PreparedFaces, blobs: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(
        BadInput, match=r"blobs cannot be trained on expression\. Expression left out: blobs has no labels"
    ):
        finetune.Labels(blobs, "expression")
    with pytest.raises(BadInput, match="unknown task 'age': choose expression, head pose, action units"):
        finetune.Labels(heads, "age")
    with pytest.raises(BadInput, match="give numbers from 2 to 480"):
        finetune.learning_curve(PCL(CONFIG), finetune.Labels(heads, "expression"), [481])
    (tmp_path / "other.safetensors").write_bytes(b"somebody else's file")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    for name in ("other.safetensors", "other.pth"):
        words = [
            "finetune",
            "--data",
            str(heads.folder),
            "--weights",
            str(tmp_path / name),
            "--out",
            str(tmp_path),
        ]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit):
            exit_cleanly(finetune.main)
        said = capsys.readouterr().err
        assert said.startswith("error: ") and name in said and said.count("\n") == 1


def test_default_counts_grow_fourfold_and_end_with_all() -> None:
    assert finetune._counts([], 480) == [25, 100, 400, 480] and finetune._counts([], 20) == [20]
    assert finetune._counts([300, 10, 10], 480) == [10, 300]


def test_images_of_another_size_are_resized_to_the_models(tmp_path: Path) -> None:
    n = 60
    table = pd.DataFrame({"identity": np.arange(n) // 2, "expression": ["happy", "sad"] * (n // 2)})
    table["split"] = ["train"] * 30 + ["validation"] * 16 + ["test"] * 14
    data.write_prepared(
        tmp_path / "set", blob_images(n, 24), table, name="large", source="drawn by the tests"
    )
    labels = finetune.Labels(data.PreparedFaces(tmp_path / "set"), "expression")
    model = PCL(CONFIG)
    rows = finetune.learning_curve(model, labels, [30], seeds=1, iterations=2)
    assert rows["value"].between(0, 1).all()
    assert_equal_weights(model, PCL(CONFIG))
