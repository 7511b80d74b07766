"""Weights that ship with the kit, and which model a notebook plays with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pcl_lib import live, presets, reproduce
from pcl_lib.errors import BadInput
from pcl_lib.models import PCL, save_checkpoint, shipped

METHODS = ("pcl", "pcl_plus")


@pytest.mark.parametrize("method", METHODS)
def test_what_ships_is_whole_and_says_where_it_is_from(method: str) -> None:
    model, about = shipped.shipped(method), shipped.card(method)
    assert about["method"] == method and about["epochs"] > 0 and about["metrics"]
    for key in ("preset", "seed", "seconds", "command", "hardware", "data", "versions", "commit", "exported"):
        assert about[key] not in ("", None), key
    settings = presets.from_dict(presets.Preset, about["settings"])
    assert settings.model.width == model.config.width and settings.model.image_size == model.image_size
    with torch.inference_mode():
        picture = model.decode(*model.features(torch.rand(2, 3, 64, 64))[1:])
    assert torch.isfinite(picture).all() and not model.training


def test_it_has_learnt_something_that_an_untrained_one_has_not() -> None:
    """The shipped pose feature tells yaw of strangers better than an untrained encoder's (pcl_plus: by design)."""
    from pcl_lib.readers import fit_readers

    faces = live.Gallery(64, people=40, images_per_person=8)
    trained = shipped.shipped("pcl_plus")
    untrained = PCL(trained.config, seed=0).eval()
    r2 = [fit_readers(model, faces, ("yaw",))["pose"].r2["yaw"] for model in (trained, untrained)]
    assert r2[0] > r2[1] and r2[0] > 0.6


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished smoke run as far as an export reads it."""
    preset, out = presets.get("smoke"), tmp_path / "smoke"
    for method in METHODS:
        notes = {"method": method, "preset": "smoke", "seed": 3, "epoch": preset.train.epochs, "seconds": 1.5}
        save_checkpoint(PCL(preset.model, seed=3), out / "checkpoints" / f"{method}.safetensors", notes)
    config = {"preset": presets.to_dict(preset), "data": {"name": "x", "content_hash": "0"}, "versions": "v"}
    (out / "config.json").write_text(json.dumps(config))
    (out / "summary.json").write_text(json.dumps({"device": "cpu", "commit": "abc"}))
    (out / "tables").mkdir()
    row = {"method": "pcl", "feature": "general", "task": "expression", "metric": "accuracy", "value": 0.25}
    pd.DataFrame([row]).to_csv(out / "tables" / "probes.csv", index=False)
    return out


def test_export_halves_the_weights_and_writes_cards(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    shipped.export(run, folder=folder, hardware="two cores")
    monkeypatch.setattr(shipped, "WEIGHTS", folder)
    about = shipped.card("pcl")
    assert about["hardware"] == "two cores" and about["metrics"] == {"general: expression accuracy": 0.25}
    assert about["command"] == "make reproduce PRESET=smoke SEED=3"
    model, original = shipped.shipped("pcl"), PCL(presets.get("smoke").model, seed=3)
    for key, value in original.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, atol=1e-6, rtol=2**-10)
    assert (folder / "pcl.safetensors").stat().st_size < 0.6 * (
        run / "checkpoints" / "pcl.safetensors"
    ).stat().st_size


def test_export_refuses_what_is_not_finished_or_not_there(run: Path, tmp_path: Path) -> None:
    notes = {"method": "pcl", "preset": "smoke", "seed": 3, "epoch": 1, "seconds": 1.5}
    save_checkpoint(PCL(presets.get("smoke").model), run / "checkpoints" / "pcl.safetensors", notes)
    with pytest.raises(BadInput, match="after epoch 1 of 4"):
        shipped.export(run, folder=tmp_path / "weights")
    shutil.rmtree(run / "tables")
    with pytest.raises(BadInput, match="notebook 05"):
        shipped.export(run, ["pcl_plus"], tmp_path / "weights")
    with pytest.raises(BadInput, match="no weights of simclr"):
        shipped.shipped("simclr")
    command = [sys.executable, "-m", "pcl_lib.models.shipped", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "finished run" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def setup(tmp_path: Path) -> reproduce.Setup:
    return reproduce.open_run("smoke", "", tmp_path / "runs" / "smoke", 0)


def test_the_best_weights_at_hand_are_taken_and_named(
    setup: reproduce.Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "headless", lambda: "")
    small = live.Gallery(32, people=10, images_per_person=2)
    monkeypatch.setattr(live, "gallery", lambda size: small)  # noqa: ARG005
    chosen = live.choose(setup, "pcl")
    assert "come with the kit" in capsys.readouterr().out and chosen.faces is small and chosen.out is None
    path = setup.out.parent / "cpu" / "checkpoints" / "pcl.safetensors"
    own = PCL(setup.preset.model, seed=9)
    save_checkpoint(own, path, {"epoch": 7, "preset": "cpu"})
    chosen = live.choose(setup, "pcl")
    assert f"{path}, trained here (7 epochs of preset cpu)" in capsys.readouterr().out
    assert torch.equal(chosen.model.state_dict()["decoder.fc.weight"], own.state_dict()["decoder.fc.weight"])
    path.write_bytes(b"torn")
    chosen = live.choose(setup, "pcl")
    said = capsys.readouterr().out
    assert "Passed over" in said and "come with the kit" in said


def test_without_any_weights_the_run_trains_its_own_and_says_so(
    setup: reproduce.Setup,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(live, "headless", lambda: "")
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "nowhere")
    chosen = live.choose(setup, "pcl")
    said = capsys.readouterr().out
    assert (
        "Passed over: no weights of pcl come with the kit" in said and "In use: the pcl of this run" in said
    )
    assert chosen.out == setup.out


def test_a_picture_to_begin_with_waits_for_no_training(
    setup: reproduce.Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(live.HEADLESS, "1")
    monkeypatch.setattr(live, "gallery", lambda size: size)
    chosen = live.choose(setup, "pcl_plus", now=True)
    assert chosen.out is None and "come with the kit" in capsys.readouterr().out
    assert not (setup.out / "checkpoints" / "pcl_plus.safetensors").exists()


def test_a_run_without_a_reader_never_takes_shipped_weights(
    setup: reproduce.Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(live.HEADLESS, "1")
    save_checkpoint(
        PCL(setup.preset.model),
        setup.out.parent / "cpu" / "checkpoints" / "pcl.safetensors",
        {"epoch": 7, "preset": "cpu"},
    )
    chosen = live.choose(setup, "pcl")
    assert chosen.out == setup.out and "training 4 epochs" in capsys.readouterr().out
    assert (setup.out / "checkpoints" / "pcl.safetensors").is_file() and len(chosen.faces) == len(setup.faces)
    assert np.array_equal(chosen.faces.split("test"), setup.faces.split("test"))
