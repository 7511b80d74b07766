"""Weights that ship with the kit, and which model a notebook plays with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pcl_lib import presets, probes, reproduce, utils
from pcl_lib.data import rendered
from pcl_lib.models import PCL, load_checkpoint, save_checkpoint, shipped
from pcl_lib.reproduce import shipped_weights
from pcl_lib.utils import BadInput
from pcl_lib.widgets import live

METHODS = ("pcl", "pcl_plus", "pcl_video")


@pytest.mark.parametrize("method", METHODS)
def test_what_ships_is_whole_and_says_where_it_is_from(method: str) -> None:
    model, about = shipped.shipped(method), shipped.card(method)
    assert about["method"] == method and about["epochs"] > 0 and about["metrics"]
    for key in ("preset", "seed", "seconds", "command", "hardware", "data", "versions", "commit", "exported"):
        assert about[key] not in ("", None), key
    settings = presets.from_dict(presets.Preset, about["settings"])
    assert settings == shipped_weights.RECIPES[method].of(
        presets.get(about["preset"])
    )  # what `make weights` would train
    assert model.decoder_noise == (0 if method == "pcl_video" else settings.loss.noise)
    assert settings.model.width == model.config.width and settings.model.image_size == model.image_size
    with torch.inference_mode():
        picture = model.decode(*model.features(torch.rand(2, 3, 64, 64))[1:])
    assert torch.isfinite(picture).all() and not model.training


def test_it_has_learnt_something_that_an_untrained_one_has_not() -> None:
    """The shipped pose feature tells yaw of strangers better than an untrained encoder's (pcl_plus: by design)."""
    from pcl_lib.probes.directions import fit_probes

    faces = rendered.Gallery(64, people=40, images_per_person=8)
    trained = shipped.shipped("pcl_plus")
    untrained = PCL(trained.config, seed=0).eval()
    r2 = [fit_probes(model, faces, ("yaw",))["pose"].r2["yaw"] for model in (trained, untrained)]
    assert r2[0] > r2[1] and r2[0] > 0.6


@pytest.fixture(scope="module")
def shipment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ship` makes of one epoch at smoke: weights in "weights", the training in "run"."""
    out = tmp_path_factory.mktemp("ship")
    preset = presets.override(presets.get("smoke"), {"train.epochs": 1})
    faces = rendered.open_faces(None, preset, out)
    shipped_weights.export_weights("pcl", preset, faces, out / "run", out / "weights", "the command")
    return out


def test_shipping_halves_the_weights_and_writes_a_card(
    shipment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "WEIGHTS", shipment / "weights")
    about, model = shipped.card("pcl"), shipped.shipped("pcl")
    trained = shipment / "run" / "checkpoints" / "pcl.safetensors"
    for key, value in load_checkpoint(trained).state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, atol=1e-6, rtol=2**-10)
    assert (shipment / "weights" / "pcl.safetensors").stat().st_size < 0.6 * trained.stat().st_size
    assert about["command"] == "the command" and about["epochs"] == 1 and about["preset"] == "smoke"
    faces = rendered.open_faces(None, presets.get("smoke"), shipment)
    rows = probes.evaluate(model, faces, features=["general"])
    yaw = rows.loc[rows["metric"] == "MAE yaw", "value"].item()
    assert about["metrics"]["general: head pose MAE yaw"] == pytest.approx(yaw, abs=1e-3)
    assert {"face: expression accuracy", "odd: head pose MAE yaw"} <= set(about["metrics"])


def test_shipping_goes_on_from_a_finished_training_and_keeps_to_the_limit(
    shipment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = presets.override(presets.get("smoke"), {"train.epochs": 1})
    faces = rendered.open_faces(None, preset, shipment)
    before = (shipment / "run" / "checkpoints" / "pcl.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(shipped_weights, "LIMIT", 1000)
    with pytest.raises(BadInput, match="may be shipped"):
        shipped_weights.export_weights("pcl", preset, faces, shipment / "run", tmp_path)
    assert (shipment / "run" / "checkpoints" / "pcl.safetensors").stat().st_mtime_ns == before


def test_a_second_training_begins_with_the_first_ones_weights_and_the_card_says_so(
    shipment: Path, tmp_path: Path
) -> None:
    preset = presets.override(presets.get("smoke"), {"train.epochs": 1})
    faces = rendered.open_faces(None, preset, shipment)
    start = shipped_weights._first("pcl", preset, faces, tmp_path)
    assert start.parent.parent == tmp_path / "first"  # apart from the second training
    untouched = presets.override(preset, {"train.epochs": 0})
    path = shipped_weights.export_weights(
        "pcl", untouched, faces, tmp_path, tmp_path / "weights", start=start
    )
    for key, value in load_checkpoint(start).state_dict().items():
        torch.testing.assert_close(load_checkpoint(path).state_dict()[key], value, atol=1e-6, rtol=2**-10)
    about = json.loads(path.with_suffix(".json").read_text())
    first = about["begins with"]
    assert first["epoch"] == 1 and about["seconds"] == pytest.approx(
        first["seconds"], abs=0.11
    )  # 0 epochs after it
    again = shipped_weights.export_weights(
        "pcl", untouched, faces, tmp_path / "more", tmp_path / "third", start=path
    )  # a card says more than a checkpoint's notes
    assert json.loads(again.with_suffix(".json").read_text())["begins with"]["settings"] == about["settings"]


def test_what_does_not_ship_is_one_sentence() -> None:
    with pytest.raises(BadInput, match="no weights of simclr"):
        shipped.shipped("simclr")
    command = [sys.executable, "-m", "pcl_lib.reproduce.shipped_weights", "--only", "simclr"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "simclr does not ship" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def setup(tmp_path: Path) -> reproduce.Run:
    return reproduce.open_run("smoke", "", tmp_path / "runs" / "smoke", 0)


def test_the_best_weights_at_hand_are_taken_and_named(
    setup: reproduce.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "headless", lambda: "")
    small = rendered.Gallery(32, people=10, images_per_person=2)
    monkeypatch.setattr(live, "gallery", lambda size: small)  # noqa: ARG005
    chosen = live.load_model(setup, "pcl")
    assert "come with the kit" in capsys.readouterr().out and chosen.faces is small and chosen.out is None
    path = setup.out.parent / "cpu" / "checkpoints" / "pcl.safetensors"
    own = PCL(setup.preset.model, seed=9)
    save_checkpoint(own, path, {"epoch": 7, "preset": "cpu"})
    chosen = live.load_model(setup, "pcl")
    assert f"{path}, trained here (7 epochs of preset cpu)" in capsys.readouterr().out
    assert torch.equal(chosen.model.state_dict()["decoder.fc.weight"], own.state_dict()["decoder.fc.weight"])
    path.write_bytes(b"torn")
    chosen = live.load_model(setup, "pcl")
    said = capsys.readouterr().out
    assert "Passed over" in said and "come with the kit" in said


def test_without_any_weights_the_run_trains_its_own_and_says_so(
    setup: reproduce.Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(live, "headless", lambda: "")
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "nowhere")
    chosen = live.load_model(setup, "pcl")
    said = capsys.readouterr().out
    assert (
        "Passed over: no weights of pcl come with the kit" in said and "In use: the pcl of this run" in said
    )
    assert chosen.out == setup.out


def test_a_picture_to_begin_with_needs_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(utils.HEADLESS, "1")
    monkeypatch.setattr(live, "gallery", lambda size: size)
    chosen = live.load_shipped("pcl_plus")
    assert chosen.out is None and "come with the kit" in capsys.readouterr().out


def test_weights_of_two_trainings_are_told_with_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"epochs": 40, "preset": "cpu", "seed": 0, "seconds": 600, "hardware": "cpu B"}
    for first, said in (
        ({}, "(40 epochs of preset cpu, seed 0, 10 min on cpu B)"),
        (
            {"begins with": {"epochs": 80, "hardware": "cpu A"}},
            "(80 + 40 epochs of preset cpu, seed 0, 10 min on cpu A, then cpu B)",
        ),
        ({"begins with": {"epochs": 80, "hardware": "cpu B"}}, "10 min on cpu B)"),
    ):
        monkeypatch.setattr(live, "card", lambda _, first=first: about | first)
        monkeypatch.setattr(live, "shipped", lambda _: SimpleNamespace(image_size=64))
        monkeypatch.setattr(live, "gallery", lambda size: size)
        live.load_shipped("pcl_video")
        assert said in capsys.readouterr().out


def test_a_run_without_a_reader_never_takes_shipped_weights(
    setup: reproduce.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(utils.HEADLESS, "1")
    save_checkpoint(
        PCL(setup.preset.model),
        setup.out.parent / "cpu" / "checkpoints" / "pcl.safetensors",
        {"epoch": 7, "preset": "cpu"},
    )
    chosen = live.load_model(setup, "pcl")
    assert chosen.out == setup.out and "training 4 epochs" in capsys.readouterr().out
    assert (setup.out / "checkpoints" / "pcl.safetensors").is_file() and len(chosen.faces) == len(setup.faces)
    assert np.array_equal(chosen.faces.split("test"), setup.faces.split("test"))
