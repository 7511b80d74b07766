"""Features on disk: computed once for one model and one set, and again for any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_measure import PRESET, prepared

from pcl_lib import probes, reproduce
from pcl_lib.models import PCL
from pcl_lib.probes import FrozenFeatures, stored
from pcl_lib.reproduce import measure
from pcl_lib.reproduce import run as run_module


class Counted:
    """Makes two features of five images, and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> FrozenFeatures:
        self.calls += 1
        x = torch.arange(10.0).view(5, 2)
        return FrozenFeatures(x, face=-x, pose=x + 1)


def test_features_are_made_once_and_read_as_they_were(tmp_path: Path) -> None:
    make = Counted()
    first = stored.extract_once(make, tmp_path, "pcl", ("weights", "data"), ("general", "face"))
    again = stored.extract_once(make, tmp_path, "pcl", ("weights", "data"), ("general", "face"))
    assert make.calls == 1 and first.pose is None and again.pose is None
    for name in ("general", "face"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    again.general[0, 0] = 7.0  # what a reader writes stays his own
    assert stored.extract_once(make, tmp_path, "pcl", ("weights", "data"), ("general",)).general[0, 0] == 0


def test_other_weights_or_data_are_computed_and_replace_the_old_files(tmp_path: Path) -> None:
    make = Counted()
    for key in (("a", "x"), ("b", "x"), ("b", "y")):
        stored.extract_once(make, tmp_path, "pcl", key, ("general",))
        stored.extract_once(make, tmp_path, "pcl_plus", key, ("general",))
    assert make.calls == 6
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["pcl", "pcl_plus"]


def test_a_broken_file_is_computed_again(tmp_path: Path) -> None:
    make = Counted()
    stored.extract_once(make, tmp_path, "pcl", ("a",), ("general",))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert stored.extract_once(make, tmp_path, "pcl", ("a",), ("general",)).general[4, 1] == 9
    assert make.calls == 2


def test_a_folder_that_cannot_be_written_is_said_and_costs_no_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    found = stored.extract_once(Counted(), tmp_path / "file", "pcl", ("a",), ("general",))
    assert found.general[4, 1] == 9 and "not kept" in capsys.readouterr().out


def test_one_changed_weight_changes_the_hash() -> None:
    model, other = PCL(PRESET.model), PCL(PRESET.model)
    assert stored.weights_hash(model) == stored.weights_hash(other)
    with torch.no_grad():
        other.decoder.fc.bias[0] += 1e-6
    assert stored.weights_hash(model) != stored.weights_hash(other)


def test_a_run_encodes_each_method_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yaw = np.random.default_rng(0).normal(0, 25, 120)
    faces = prepared(tmp_path, "yawed", identity=np.arange(120) // 3, yaw=yaw)
    run = reproduce.open_run(PRESET, run_module.join_folders([faces.folder]), tmp_path / "run", 0)
    calls = []
    extract = probes.extract
    monkeypatch.setattr(probes, "extract", lambda *given: calls.append(1) or extract(*given))
    first = measure.encode(run, ("raw pixels", "random", "simclr"))
    again = measure.encode(run, ("simclr", "random", "raw pixels"))
    assert len(calls) == 3
    for method, own in first.items():
        assert own.names == again[method].names
        for name in own.names:
            assert torch.equal(getattr(own.features, name), getattr(again[method].features, name))
    assert first["simclr"].names == ["general", "even", "odd"]
