"""What notebooks share: donors, swaps, rows that are read or made, and sets with few labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images

from pcl_lib import data, probes, reproduce, tables
from pcl_lib.data import adapters
from pcl_lib.models import PCL
from pcl_lib.presets import PRESETS, ModelPreset, override
from pcl_lib.reproduce import measure, run

SMALL = ModelPreset(width=0.125, image_size=16, projector_hidden=8, projector_out=8)
PRESET = override(
    PRESETS["smoke"],
    {"model.image_size": 16, "train.epochs": 1, "train.face_batch": 8, "train.pdd_batch": 8},
)


def prepared(folder: Path, name: str, size: int = 16, **labels: object) -> data.PreparedFaces:
    table = pd.DataFrame({"split": np.repeat(["train", "validation", "test"], [60, 30, 30])} | labels)
    data.write_prepared(folder / name, blob_images(120, size), table, name=name, source="drawn by the tests")
    return data.PreparedFaces(folder / name)


@pytest.fixture(scope="module")
def yawed(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    yaw = np.random.default_rng(0).normal(0, 25, 120)
    return prepared(tmp_path_factory.mktemp("sets"), "yawed", identity=np.arange(120) // 3, yaw=yaw)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    return prepared(tmp_path_factory.mktemp("sets"), "bare", size=24)


def test_donors_are_frontal_faces_and_other_people_sorted_by_yaw(yawed: data.PreparedFaces) -> None:
    face_rows, pose_rows = measure.donors(yawed, (3, 5))
    table, test = yawed.table, set(yawed.split("test"))
    assert {*face_rows, *pose_rows} <= test and len(face_rows) == 3 and len(pose_rows) == 5
    faces, poses = table.iloc[face_rows], table.iloc[pose_rows]
    assert faces["identity"].is_unique and not set(faces["identity"]) & set(poses["identity"])
    assert poses["yaw"].is_monotonic_increasing
    assert faces["yaw"].abs().iloc[0] == table.iloc[sorted(test)]["yaw"].abs().min()


def test_donors_without_labels_are_spread_over_the_test_split(bare: data.PreparedFaces) -> None:
    face_rows, pose_rows = measure.donors(bare, (4, 6))
    assert len(set(face_rows)) == 4 and len(set(pose_rows)) == 6
    assert {*face_rows, *pose_rows} <= set(bare.split("test"))


def test_a_swap_decodes_the_face_of_its_row_with_the_pose_of_its_column(bare: data.PreparedFaces) -> None:
    model = PCL(SMALL).eval()
    model.decoder_noise = 0.5
    swaps = measure.swap(model, bare, np.array([90, 91]), np.array([95, 96, 97]))
    assert swaps.faces.shape == (2, 3, 16, 16) and swaps.labels == ["", "", ""]  # resized from 24 pixels
    with torch.no_grad():
        noise = 0.5 * torch.randn(
            3, 16, 16, generator=torch.Generator().manual_seed(0)
        )  # as the decoder's training
        face = model.features(swaps.faces[1:] / 255 + noise).face
        pose = model.features(swaps.poses[2:] / 255 + noise).pose
        torch.testing.assert_close(swaps.pictures[1, 2], model.decode(face, pose)[0], rtol=1e-4, atol=1e-4)


def test_rows_are_made_once_and_then_read(
    yawed: data.PreparedFaces,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "METHODS", ("random",))
    setup = reproduce.open_run(PRESET, yawed.folder, tmp_path / "run", 0)
    made = pd.DataFrame({"value": [1.0], "method": "pcl", "precision": "32-true"})
    calls = []
    monkeypatch.setitem(measure.MAKERS, "probes", lambda own, _: calls.append(own) or made)
    first, again = measure.rows_of(setup, "probes"), measure.rows_of(setup, "probes")
    assert len(calls) == 1 and first["value"].item() == again["value"].item() == 1
    said = capsys.readouterr().out
    assert "made now" in said and "read from" in said
    path = setup.out / "tables" / "probes.csv"
    pd.read_csv(path).assign(seed=7).to_csv(path, index=False)
    measure.rows_of(setup, "probes")
    assert len(calls) == 2  # rows of another seed are not taken


def test_encode_probe_and_read(yawed: data.PreparedFaces, tmp_path: Path) -> None:
    setup = reproduce.open_run(PRESET, yawed.folder, tmp_path / "run", 0)
    encoded = measure.encode(setup, ("raw pixels", "HoG", "random", "simclr"))
    assert list(encoded) == ["raw pixels", "HoG", "random", "simclr"]
    assert encoded["random"].features.face is not None and encoded["simclr"].features.face is None
    rows = setup.save_rows(measure.probe_rows(setup, encoded), "probes")
    assert list(rows["method"].unique()) == [tables.CONSTANT, "raw pixels", "HoG", "random", "simclr"]
    found = measure.predict_pose(yawed, encoded["random"].features)
    assert found is not None
    error = np.abs(found[0] - found[1])[:, 0].mean()
    own = rows[(rows["method"] == "random") & (rows["feature"] == "general") & (rows["metric"] == "MAE yaw")]
    assert own["value"].item() == pytest.approx(error)
    assert measure.predict_expression(yawed, encoded["random"].features) is None


def test_rows_of_features_are_read_until_the_weights_or_the_library_change(
    yawed: data.PreparedFaces,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = reproduce.open_run(PRESET, yawed.folder, tmp_path / "run", 0)
    encoded = measure.encode(setup, ("raw pixels", "random"))
    made = measure.rows_of(setup, "leakage", encoded)
    assert "Stored" not in capsys.readouterr().out
    again = measure.encode(setup, ("raw pixels", "random"))
    assert f"Stored features were loaded from {setup.out / 'features'}: raw pixels, random." in (
        capsys.readouterr().out
    )
    read = measure.rows_of(setup, "leakage", again)
    assert "nothing is computed again" in capsys.readouterr().out
    np.testing.assert_allclose(read["value"], made["value"])
    other = measure.Encoded(
        encoded["random"].features, "32-true", encoded["random"].model, "other weights", False
    )
    measure.rows_of(setup, "leakage", {**encoded, "random": other})
    assert "made now" in capsys.readouterr().out
    monkeypatch.setattr(measure, "library_hash", lambda: "newer")
    measure.rows_of(setup, "leakage", encoded)
    assert "made now" in capsys.readouterr().out


def test_further_sets_are_probed_with_the_same_models(
    yawed: data.PreparedFaces, bare: data.PreparedFaces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expression = np.random.default_rng(1).choice(["happy", "sad"], 120)
    faces = prepared(tmp_path, "smiles", size=24, expression=expression)
    folders = run.join_folders([yawed.folder, bare.folder, faces.folder])
    setup = reproduce.open_run(PRESET, folders, tmp_path / "run", 0)
    encoded = measure.encode(setup, ("random",))
    rows = setup.save_rows(measure.probe_rows(setup, encoded), "probes")
    assert "bare is not probed" in capsys.readouterr().out
    assert list(rows["data"].unique()) == ["yawed", "smiles"]
    own = measure.rows_of_set(rows, yawed)
    alone = measure.probe_rows(reproduce.open_run(PRESET, yawed.folder, tmp_path / "alone", 0), encoded)
    assert own["value"].tolist() == alone["value"].tolist()
    small = adapters.SizedFaces(faces, 16)  # resized to the model's size
    by_hand = probes.evaluate(encoded["random"].model, small)
    found = rows[(rows["data"] == "smiles") & (rows["method"] == "random")]
    assert found["value"].tolist() == by_hand["value"].tolist()
    measure.rows_of(setup, "probes")
    assert "stored rows read from" in capsys.readouterr().out
    path = setup.out / "tables" / "probes.csv"
    kept = pd.read_csv(path)
    kept[kept["data"] == "yawed"].to_csv(path, index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure.MAKERS, "probes", lambda *_: rows)
        measure.rows_of(setup, "probes")
    assert "made now" in capsys.readouterr().out  # rows that lack a set are not taken


def test_contact_sheets_show_what_there_is(yawed: data.PreparedFaces, bare: data.PreparedFaces) -> None:
    rows, labels = measure.contact_sheet(yawed)
    yaw = yawed.table["yaw"].to_numpy()[rows]
    assert rows.shape == (3, 8) and labels == [] and (np.diff(yaw.mean(0)) > 0).all()
    rows, labels = measure.contact_sheet(bare)
    assert rows.shape == (2, 8) and len(np.unique(rows)) == 16 and labels == []
    few = SimpleNamespace(table=pd.DataFrame({"expression": ["sad", None, "happy"]}))
    rows, labels = measure.contact_sheet(few, count=4)
    assert labels == ["happy", "sad"] and rows.tolist() == [[2] * 4, [0] * 4]
    single = SimpleNamespace(table=pd.DataFrame({"yaw": [np.nan, 3.0]}))
    assert (measure.contact_sheet(single)[0] == 1).all()


def test_sets_without_labels_give_empty_rows_and_a_sentence(
    bare: data.PreparedFaces, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = reproduce.open_run(PRESET, bare.folder, tmp_path / "run", 0)
    encoded = measure.encode(setup, ("random",))
    assert (
        encoded["random"].features.general.shape[1]
        == PCL(PRESET.model).encoder(torch.zeros(1, 3, 16, 16))[0].numel()
    )
    assert measure.probe_rows(setup, encoded).empty and measure.leakage_rows(setup, encoded).empty
    assert measure.swap_rows(setup).empty and setup.save_rows(pd.DataFrame(), "swaps").empty
    said = capsys.readouterr().out
    assert "no labels for yaw" in said and "Identity left out" in said
    assert not list((setup.out / "tables").iterdir())


def test_compare_says_where_something_reads_best() -> None:
    assert measure.compare({"face": 0.1, "pose": 0.8}) == "pose"
    assert measure.compare({"face": 0.8, "pose": 0.1}) == "face"
    assert measure.compare({"face": -0.3, "pose": 0.04}) == "neither"
    assert measure.compare({"face": 0.22, "pose": 0.2}, chance=0.2) == "neither"
    assert measure.compare({"face": 0.52, "pose": 0.5}) == "both alike"


def test_published_figures_have_sources() -> None:
    published = measure.reference_results()
    assert list(published) == ["method", "dataset", "metric", "value", "unit", "source"]
    assert published.notna().all(axis=None) and "PCL" not in set(published["method"])


def test_the_pose_reader_is_that_of_the_probe(yawed: data.PreparedFaces) -> None:
    x = probes.FrozenFeatures(torch.tensor(yawed.table["yaw"].to_list())[:, None].repeat(1, 2))
    found = measure.predict_pose(yawed, x)
    assert found is not None and np.abs(found[0] - found[1]).max() < 1  # yaw itself is readable
