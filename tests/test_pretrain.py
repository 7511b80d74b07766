"""pcl_lib.pretrain: it learns, a resumed run is the uninterrupted one bit for bit, and refusals are one sentence."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pcl_lib import data, distributed, methods, presets, pretrain
from pcl_lib.models import PCL, checkpoint_notes, load_checkpoint
from pcl_lib.presets import PRESETS, Preset
from pcl_lib.pretrain.__main__ import main
from pcl_lib.pretrain.fabric import is_full, start_fabric
from pcl_lib.pretrain.trainer import Trainer
from pcl_lib.utils import BadInput, exit_cleanly

FORK = multiprocessing.get_context("fork")  # a process without a second import of torch
forks = pytest.mark.skipif(torch.cuda.is_available(), reason="a process that uses CUDA cannot be forked")
SETTINGS: dict[str, Any] = {  # 96 training images of 48 identities, 16 pixels: three iterations an epoch
    "model.image_size": 16,
    "model.projector_hidden": 16,
    "model.projector_out": 8,
    "train.frames_per_identity": 1,
    "train.pose_negatives": 2,
    "train.epochs": 4,
    "train.checkpoint_every": 1,
}


def tiny(**changes: Any) -> Preset:
    return presets.override(
        PRESETS["smoke"], SETTINGS | {key.replace("__", "."): v for key, v in changes.items()}
    )


def fit(faces: data.PreparedFaces, out: Path, method: str = "pcl", **changes: Any) -> pretrain.Trained:
    return pretrain.fit(method, preset=tiny(**changes), faces=faces, out=out, seed=3, progress=False)


def command(faces: data.PreparedFaces, out: Path) -> list[str]:
    settings = [item for key, value in SETTINGS.items() for item in ("--set", f"{key}={value}")]
    place = ["--preset", "smoke", "--data", str(faces.folder), "--out", str(out), "--seed", "3"]
    return ["pretrain", *place, *settings]


def assert_equal_weights(one: torch.nn.Module, two: torch.nn.Module) -> None:
    ours, theirs = one.state_dict(), two.state_dict()
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key].cpu(), theirs[key].cpu())] == []


@pytest.fixture(scope="module")
def whole(blobs: data.PreparedFaces, tmp_path_factory: pytest.TempPathFactory) -> pretrain.Trained:
    """The uninterrupted run of four epochs."""
    return fit(blobs, tmp_path_factory.mktemp("whole"))


def without_clock(history: pd.DataFrame) -> pd.DataFrame:
    return history.drop(columns="seconds")


def test_losses_fall_below_what_a_collapsed_model_gives(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    """With all features alike, InfoNCE is the logarithm of the number of candidates, whatever the temperature."""
    view = presets.to_dict(PRESETS["cpu"].face_view) | {
        "jitter": 0.0,
        "grey": 0.0,
    }  # colours tell the blobs apart
    gentle = {"model__norm": "group", "loss__temperature": 0.2, "loss__noise": 0.1, "loss__mixing": 0.0}
    gentle |= {"face_view": view, "simclr_view": view, "train__weight_decay": 1e-6, "train__lr": 1e-3}
    gentle |= {"train__frames_per_identity": 2, "train__iterations_per_epoch": 0, "model__width": 0.25}
    # Narrower projectors collapse with some seeds; with these, four seeds all fell by twice the margins below.
    gentle |= {"model__projector_hidden": 32, "model__projector_out": 32}
    history = fit(blobs, tmp_path, train__epochs=12, **gentle).history
    first, last = history.iloc[0], history.iloc[-1]
    assert last["reconstruction"] < 0.7 * first["reconstruction"]
    assert last["face"] < math.log(31) - 0.2 and last["pose"] < math.log(3) - 0.15
    simclr = fit(blobs, tmp_path, "simclr", train__epochs=6, **gentle).history["simclr"]
    assert simclr.iloc[-1] < math.log(71) - 0.3


def test_run_folder_and_history(whole: pretrain.Trained) -> None:
    saved = sorted(str(path.relative_to(whole.folder)) for path in whole.folder.rglob("*") if path.is_file())
    assert saved == ["checkpoints/pcl.safetensors", "checkpoints/pcl.state", "logs/pcl.csv"]
    log = pd.read_csv(whole.folder / "logs" / "pcl.csv")
    pd.testing.assert_frame_equal(log, whole.history, check_exact=False, rtol=1e-12)
    assert log["epoch"].tolist() == [1, 2, 3, 4]
    assert log["iterations"].tolist() == [3, 6, 9, 12]  # 48 identities in batches of 16
    assert log["images"].tolist() == [3 * n * (16 + 16 + 4) for n in (1, 2, 3, 4)]
    weights = log[["face_weight", "pose_weight"]]
    assert (weights.iloc[:2] == 1).all(axis=None) and (weights.iloc[2:] != 1).all(axis=None)
    np.testing.assert_allclose(weights.sum(axis=1), 2)
    assert not whole.model.training
    assert_equal_weights(load_checkpoint(whole.folder / "checkpoints" / "pcl.safetensors"), whole.model)
    notes = checkpoint_notes(whole.folder / "checkpoints" / "pcl.safetensors")
    assert (notes["method"], notes["preset"], notes["seed"], notes["epoch"]) == ("pcl", "smoke", 3, 4)


@pytest.mark.parametrize("method", ["moco", "byol"])
def test_auxiliary_modules_are_resumed_too(
    method: str, blobs: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped after two epochs and goes on ends bit for bit as one that was not."""
    whole = fit(blobs, tmp_path / "whole", method)
    epoch = Trainer.train_epoch

    def stop(self: Trainer) -> dict[str, float]:
        if self.epoch == 2:
            raise KeyboardInterrupt
        return epoch(self)

    monkeypatch.setattr(Trainer, "train_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(blobs, tmp_path / "parts", method)
    monkeypatch.undo()
    parts = fit(blobs, tmp_path / "parts", method)
    assert_equal_weights(parts.model, whole.model)
    kept = [
        torch.load(tmp_path / name / "checkpoints" / f"{method}.state", weights_only=True)["auxiliary"]
        for name in ("whole", "parts")
    ]
    assert kept[0].keys() == kept[1].keys() and any("slow" in key for key in kept[0])
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    assert method == "byol" or "loss.memory_bank.bank" in kept[0]


def test_learning_rate_is_a_cosine_over_all_iterations(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    """Adam's first step moves each weight by lr, whatever its gradient: the optimiser's own lr is read instead."""
    seen: list[float] = []

    class Watched(methods.SimCLR):
        def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            seen.append(trainer.optimizer.param_groups[0]["lr"])
            return super().loss(model, images, generator)

    preset = tiny()
    trainer = Trainer("simclr", preset, blobs, tmp_path, 0, start_fabric(preset))
    trainer.method = Watched(preset)
    for _ in range(4):
        trainer.train_epoch()
    wanted = [preset.train.lr * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    assert seen == pytest.approx(wanted)


def test_an_epoch_has_at_most_the_iterations_of_the_preset(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    run = fit(blobs, tmp_path, train__iterations_per_epoch=2, train__epochs=2)
    assert run.history["iterations"].tolist() == [2, 4]  # of the three that 48 identities would give
    assert run.history["images"].tolist() == [2 * 36, 4 * 36]


def test_batches_draw_one_frame_an_identity(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    preset = tiny()
    trainer = Trainer("pcl", preset, blobs, tmp_path, 0, start_fabric(preset))
    everything = blobs.images(blobs.split("train")).flatten(1)
    drawn = {}
    for number, task in enumerate(trainer.method.tasks[:2]):
        batches = list(trainer._batches(task, number))
        assert [batch.shape for batch in batches] == [(16, 3, 16, 16)] * 3
        rows = (torch.cat(batches).flatten(1)[:, None] == everything).all(2).int().argmax(1).numpy()
        assert sorted(rows // 2) == list(range(48))  # two images an identity: each identity once
        drawn[task.name] = rows
    assert (drawn["pdd"] != drawn["face"]).any()  # each task has batches of its own
    trainer.epoch = 1
    later = torch.cat(list(trainer._batches(trainer.method.tasks[0], 0))).flatten(1)
    rows = (later[:, None] == everything).all(2).int().argmax(1).numpy()
    assert sorted(rows // 2) == list(range(48)) and (rows != drawn["pdd"]).any()  # and each epoch its own


def test_resumed_at_any_epoch_is_the_uninterrupted_run(
    whole: pretrain.Trained, blobs: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three interruptions, before the weights move, as they begin to, and after the last epoch."""
    train_epoch, trained = Trainer.train_epoch, []

    def one_epoch(self: Trainer) -> dict[str, float]:
        if trained and trained[-1] != self.epoch:
            raise KeyboardInterrupt
        losses = train_epoch(self)
        trained.append(self.epoch)
        if self.epoch in (1, 3):
            raise KeyboardInterrupt
        return losses

    monkeypatch.setattr(Trainer, "train_epoch", one_epoch)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(blobs, tmp_path)
    monkeypatch.setattr(Trainer, "train_epoch", train_epoch)
    resumed = fit(blobs, tmp_path)
    assert trained == [1, 2, 3]
    assert_equal_weights(resumed.model, whole.model)
    pd.testing.assert_frame_equal(
        without_clock(resumed.history), without_clock(whole.history), check_exact=True
    )
    again = fit(blobs, tmp_path)  # complete already: nothing is trained
    assert_equal_weights(again.model, whole.model)
    assert len(again.history) == 4


@forks
def test_killed_in_the_middle_of_an_epoch_and_resumed(
    whole: pretrain.Trained, blobs: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of a process of its own inside the second iteration of the third epoch; then the command line again."""
    face, calls = methods.PCLMethod.face, []

    def deadly(self: methods.PCLMethod, *rest: Any) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return face(self, *rest)

    monkeypatch.setattr(methods.PCLMethod, "face", deadly)
    process = FORK.Process(target=fit, args=(blobs, tmp_path))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    assert checkpoint_notes(tmp_path / "checkpoints" / "pcl.safetensors")["epoch"] == 2
    monkeypatch.setattr(sys, "argv", command(blobs, tmp_path))
    main()
    assert_equal_weights(load_checkpoint(tmp_path / "checkpoints" / "pcl.safetensors"), whole.model)
    log = pd.read_csv(tmp_path / "logs" / "pcl.csv")
    pd.testing.assert_frame_equal(without_clock(log), without_clock(whole.history), rtol=1e-12)


def test_another_seed_gives_another_run(
    whole: pretrain.Trained, blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    run = pretrain.fit("pcl", preset=tiny(), faces=blobs, out=tmp_path, seed=4, progress=False)
    assert run.history["pdd"].iloc[0] != whole.history["pdd"].iloc[0]


def test_a_training_can_begin_with_the_weights_of_another(
    whole: pretrain.Trained, blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    weights = whole.folder / "checkpoints" / "pcl.safetensors"
    start: dict[str, Any] = {"faces": blobs, "seed": 5, "progress": False, "start": weights}
    begun = pretrain.fit("pcl", preset=tiny(train__epochs=0), out=tmp_path / "none", **start)
    assert_equal_weights(begun.model, whole.model)
    once, again = (
        pretrain.fit("pcl", preset=tiny(train__epochs=2), out=tmp_path / "two", **start) for _ in range(2)
    )
    assert_equal_weights(once.model, again.model)  # the second call reads what the first has left
    fresh = pretrain.fit(
        "pcl", preset=tiny(train__epochs=2), out=tmp_path / "fresh", **start | {"start": None}
    )
    assert once.history["pdd"][0] < fresh.history["pdd"][0]
    with pytest.raises(
        BadInput, match=r"start was .*, now None"
    ):  # not from random weights in the same folder
        pretrain.fit("pcl", preset=tiny(train__epochs=2), out=tmp_path / "two", **start | {"start": None})
    with pytest.raises(
        BadInput, match=r"pcl\.safetensors cannot be the start: .*model\.projector_out was 8, now 4"
    ):
        pretrain.fit("pcl", preset=tiny(model__projector_out=4), out=tmp_path / "other", **start)


@pytest.mark.parametrize("method", ["moco", "byol"])
def test_copies_of_the_model_begin_with_the_same_weights(
    whole: pretrain.Trained, blobs: data.PreparedFaces, tmp_path: Path, method: str
) -> None:
    preset, weights = tiny(), whole.folder / "checkpoints" / "pcl.safetensors"
    trainer = Trainer(method, preset, blobs, tmp_path, 0, start_fabric(preset), weights)
    assert_equal_weights(trainer.model, whole.model)
    assert_equal_weights(trainer.method.slow, whole.model)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["pcl_video", "drgan"])
def test_what_several_processes_cannot_share_is_refused(
    blobs: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    preset = tiny()
    fabric = start_fabric(preset)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(BadInput, match=f"method {method} trains in one process: use --devices 1"):
        Trainer(method, preset, blobs, tmp_path, 0, fabric)


def test_random_is_the_untrained_model(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    run = fit(blobs, tmp_path, "random")
    assert_equal_weights(run.model, PCL(tiny().model, 3))
    assert run.history.empty and (tmp_path / "checkpoints" / "random.safetensors").is_file()


def test_fit_moves_no_global_random_state(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    fit(blobs, tmp_path, train__epochs=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


# Bad input --------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(whole: pretrain.Trained, tmp_path: Path) -> Path:
    """A folder with the complete run's checkpoint."""
    for path in whole.folder.rglob("pcl.*"):
        target = tmp_path / path.relative_to(whole.folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train__lr": 0.5}, "preset.train.lr was 0.002, now 0.5"),
        ({"loss__negatives": "released_code"}, "preset.loss.negatives was own_flip, now released_code"),
        ({"train__epochs": 5}, "preset.train.epochs was 4, now 5"),
        ({"face_view__blur_sigma": (0.1, 3.0)}, "preset.face_view.blur_sigma was"),
        ({"model__width": 0.25}, "preset.model.width was 0.125, now 0.25"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_field(
    copied: Path, blobs: data.PreparedFaces, change: dict[str, Any], said: str
) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("pcl.*")}
    with pytest.raises(BadInput, match=said) as caught:
        fit(blobs, copied, **change)
    assert str(copied) in str(caught.value)
    assert before == {path: path.read_bytes() for path in copied.rglob("pcl.*")}


def test_a_state_of_a_version_without_a_setting_goes_on(copied: Path, blobs: data.PreparedFaces) -> None:
    path = copied / "checkpoints" / "pcl.state"
    state = torch.load(path)
    del state["settings"]["preset"]["model"]["backbone"], state["settings"]["preset"]["loss"]["pose_change"]
    torch.save(state, path)
    assert fit(blobs, copied).history["epoch"].tolist() == [1, 2, 3, 4]
    with pytest.raises(BadInput, match=r"model.backbone was paper, now test_vit"):
        fit(blobs, copied, model__backbone="test_vit", model__image_size=32)


def test_a_checkpoint_of_another_seed_or_data_is_refused(
    copied: Path, blobs: data.PreparedFaces, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(BadInput, match="seed was 3, now 5"):
        pretrain.fit("pcl", preset=tiny(), faces=blobs, out=copied, seed=5, progress=False)
    other = tmp_path_factory.mktemp("other") / "set"
    table = blobs.table.drop(columns=["shard", "row"])
    data.write_prepared(other, 255 - blobs.images(slice(None)), table, name="negative", source="tests")
    with pytest.raises(BadInput, match="data was"):
        fit(data.PreparedFaces(other), copied)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not a checkpoint"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"epoch": 3}, path),
    ],
    ids=["torn", "empty", "text", "list", "foreign"],
)
def test_a_bad_training_state_is_refused(
    copied: Path, blobs: data.PreparedFaces, damage: Callable[[Path], object]
) -> None:
    damage(copied / "checkpoints" / "pcl.state")
    with pytest.raises(BadInput, match=r"pcl.state .*delete it") as caught:
        fit(blobs, copied)
    assert "\n" not in str(caught.value)


def test_nan_losses_name_loss_epoch_and_iteration_and_the_checkpoint_survives(
    blobs: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face, calls = methods.PCLMethod.face, []

    def poisoned(self: methods.PCLMethod, *rest: Any) -> dict[str, Tensor]:
        calls.append(1)
        parts = face(self, *rest)
        return {name: value * math.nan for name, value in parts.items()} if len(calls) == 8 else parts

    monkeypatch.setattr(methods.PCLMethod, "face", poisoned)
    with pytest.raises(
        BadInput, match=r"loss 'face' .* nan in epoch 3, iteration 2: lower train.lr"
    ) as caught:
        fit(blobs, tmp_path)
    assert str(tmp_path / "checkpoints") in str(caught.value)
    model = load_checkpoint(tmp_path / "checkpoints" / "pcl.safetensors")
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert checkpoint_notes(tmp_path / "checkpoints" / "pcl.safetensors")["epoch"] == 2
    assert len(pd.read_csv(tmp_path / "logs" / "pcl.csv")) == 2


def test_nan_before_the_first_checkpoint_says_that_nothing_is_kept(
    blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"became (nan|inf) in epoch 1.*kept: nothing"):
        fit(blobs, tmp_path, train__lr=1e30)


def test_too_few_faces_for_a_batch_are_refused(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"96 training images of 48 identities.*takes 64"):
        fit(blobs, tmp_path, train__face_batch=64)


def test_a_set_without_training_images_is_refused(tmp_path: Path, blobs: data.PreparedFaces) -> None:
    table = pd.DataFrame({"identity": [0, 1], "split": ["test", "test"]})
    data.write_prepared(tmp_path / "set", blobs.images([0, 1]), table, name="two", source="tests")
    with pytest.raises(BadInput, match=r"empty"):
        fit(data.PreparedFaces(tmp_path / "set"), tmp_path / "run")


def test_unknown_method_and_preset_are_refused(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown method 'dino'"):
        fit(blobs, tmp_path, "dino")
    with pytest.raises(BadInput, match="unknown preset 'huge'"):
        pretrain.fit(preset="huge", faces=blobs, out=tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_before_training(
    blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    start = time.perf_counter()
    with pytest.raises(BadInput, match=r"cannot write .*: a part of the path is a file"):
        fit(blobs, tmp_path / "file" / "run", train__epochs=10_000, train__checkpoint_every=10_000)
    assert time.perf_counter() - start < 5  # thousands of epochs would take minutes


def test_a_full_disk_ends_in_a_sentence_and_keeps_the_checkpoint(
    blobs: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file, saves = os.replace, []

    def full(source: Any, target: Any) -> None:
        saves.append(target)
        if len(saves) > 5:  # log, weights and state of the first epoch, and all but the state of the second
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(BadInput, match=r"cannot write .*pcl.state: the disk is full"):
        fit(blobs, tmp_path)
    monkeypatch.undo()
    state = torch.load(tmp_path / "checkpoints" / "pcl.state", weights_only=True)
    assert state["epoch"] == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_really_full_disk_is_a_sentence_and_the_older_checkpoint_goes_on(
    whole: pretrain.Trained, blobs: data.PreparedFaces, small_disk: Callable[[str], Path]
) -> None:
    """Two checkpoints do not fit, so that the second, which is written next to the first, fills the disk."""
    size = sum(path.stat().st_size for path in whole.folder.rglob("*") if path.is_file()) * 3 // 2 // 1024
    disk = small_disk(f"{size}k")
    with pytest.raises(
        BadInput, match=r"cannot write .*pcl\.(state|safetensors): the disk is full"
    ) as caught:
        fit(blobs, disk)
    assert "\n" not in str(caught.value)
    assert torch.load(disk / "checkpoints" / "pcl.state", weights_only=True)["epoch"] == 1
    assert not list(disk.rglob("*.tmp")) and not list(disk.rglob(".*"))
    subprocess.run(["mount", "-o", "remount,size=100M", str(disk)], check=True)  # space was freed
    assert_equal_weights(fit(blobs, disk).model, whole.model)


def test_a_second_training_of_a_method_in_a_folder_is_refused_by_name(
    blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    """Inside the callback the first training holds the folder; another method may be trained there."""
    said: list[str] = []
    settings = {
        "preset": tiny(),
        "faces": blobs,
        "out": tmp_path,
        "seed": 3,
        "progress": False,
    }

    def second(*_: object) -> bool:
        with pytest.raises(BadInput) as caught:
            pretrain.fit("pcl", **settings)
        said.append(str(caught.value))
        assert len(pretrain.fit("simclr", **settings).history) == 4
        return True  # stop

    pretrain.fit("pcl", **settings, callback=second)
    assert said == [
        f"the training of pcl in {tmp_path} is in use by process {os.getpid()} on {socket.gethostname()}: "
        "wait for it to end, or choose another folder"
    ]
    assert not list(tmp_path.rglob(".*"))


def test_a_finished_training_is_read_where_nothing_can_be_written(
    copied: Path, blobs: data.PreparedFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert len(fit(blobs, copied).history) == 4
    with pytest.raises(BadInput, match="read-only"):
        fit(blobs, copied, "simclr")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("model"),
        lambda state: state.pop("optimizer"),
        lambda state: state.update(epoch="two"),
        lambda state: state.update(epoch=9),
        lambda state: state.update(history=[]),
        lambda state: state.update(model=[1]),
        lambda state: state["settings"].update(preset={1: 2, "a": torch.ones(2)}),
        lambda state: state["model"].popitem(),
        lambda state: state["optimizer"]["param_groups"].clear(),
    ],
)
def test_a_state_that_lacks_something_is_refused(
    copied: Path, blobs: data.PreparedFaces, change: Callable[[dict[str, Any]], object]
) -> None:
    path = copied / "checkpoints" / "pcl.state"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(BadInput, match=r"pcl\.state is .*delete it"):
        fit(blobs, copied)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_a_sentence_and_keeps_what_is_done(
    whole: pretrain.Trained, blobs: data.PreparedFaces, tmp_path: Path, number: int
) -> None:
    """Ctrl-C, or a batch system's SIGTERM, once the first epoch is saved; then the same command again."""
    line = [sys.executable, "-m", "pcl_lib.pretrain", *command(blobs, tmp_path)[1:]]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as here: sums in another order are other bits
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env=one_thread)
    while not (tmp_path / "checkpoints" / "pcl.state").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    if process.returncode:  # else it was done before the signal came
        assert process.returncode == 130 and said.endswith(
            "interrupted: the same command goes on from what is finished\n"
        )
    assert_equal_weights(fit(blobs, tmp_path).model, whole.model)


def test_command_line_refuses_in_one_sentence(
    blobs: data.PreparedFaces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = ["--data", str(blobs.folder), "--out", str(tmp_path / "run")]
    for arguments, said in (
        (["--preset", "huge", *place], "unknown preset 'huge'"),
        (["--preset", "smoke", "--method", "dino", *place], "unknown method 'dino'"),
        (["--preset", "smoke", "--set", "train.speed=3", *place], "unknown key 'train.speed'"),
        (["--preset", "smoke", "--set", "train.lr", *place], "KEY=VALUE is needed"),
        (["--preset", "smoke", "--set", "train.epochs=many", *place], "'train.epochs' holds 'many'"),
        (["--preset", "smoke", "--set", "train.checkpoint_every=0", *place], "train.checkpoint_every is 0"),
        (["--preset", "smoke", "--set", "train.precision=16-true", *place], "unknown train.precision"),
        (["--preset", "smoke", "--seed", "-1", *place], "seed -1: a whole number"),
        (["--preset", "smoke", "--devices", "0", *place], "--devices is 0: it must be from 1 to 4"),
        (["--preset", "smoke", "--devices", "9", *place], "--devices is 9: it must be from 1 to 4"),
        (["--preset", "smoke", "--data", str(tmp_path / "none")], "there is no folder"),
        (["--preset", "smoke", "--data", str(tmp_path)], "is empty"),
    ):
        monkeypatch.setattr(sys, "argv", ["pretrain", *arguments])
        with pytest.raises(SystemExit) as caught:
            exit_cleanly(main)
        error = capsys.readouterr().err
        assert caught.value.code == 2 and error.startswith("error: ") and said in error
        assert error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_settings_of_the_command_line_are_numbers_texts_and_truths() -> None:
    assert presets.parse_setting("train.lr=1e-3") == ("train.lr", 0.001)
    assert presets.parse_setting("loss.negatives=own_flip") == ("loss.negatives", "own_flip")
    assert presets.parse_setting("loss.dynamic=False") == ("loss.dynamic", False)
    assert presets.parse_setting("face_view.blur_sigma=(0.1, 2)") == ("face_view.blur_sigma", (0.1, 2))


def test_a_joint_update_is_one_adam_step_along_the_sum_of_the_gradients(
    blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    """One iteration without weight decay: Adam's first step is lr * g / (|g| + eps), whatever the size of g."""
    settings = {"train__update": "joint", "train__epochs": 1, "train__iterations_per_epoch": 1}
    preset = tiny(**settings, train__weight_decay=0.0, train__lr=1e-3)
    method, model = methods.build("pcl", preset), PCL(preset.model, 3).train()
    drawn = torch.Generator().manual_seed(3 * 1_000_003 * 1009)
    rows = blobs.split("train")
    index = data.identity_index(blobs.table, rows)
    total: Tensor | float = 0.0
    for number, task in enumerate(method.tasks):
        batch = index.epoch_rows(np.random.default_rng([3, 0, number]))[: task.batch]
        total = total + task.loss(model, blobs.images(batch), drawn)[task.name]
    assert isinstance(total, Tensor)
    total.backward()
    run = pretrain.fit("pcl", preset=preset, faces=blobs, out=tmp_path, seed=3, progress=False)
    for (name, ours), theirs in zip(model.named_parameters(), run.model.parameters(), strict=True):
        assert ours.grad is not None
        step = 1e-3 * ours.grad / (ours.grad.abs() + 1e-8)
        sure = ours.grad.abs() > 1e-2  # the sign of a gradient near zero is rounding's
        torch.testing.assert_close(
            theirs.detach()[sure], (ours - step).detach()[sure], rtol=1e-4, atol=2e-5, msg=name
        )


def test_an_unknown_update_is_refused(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unknown train.update 'both': choose one of sequential, joint"):
        fit(blobs, tmp_path, train__update="both")


def test_memory_that_runs_out_names_task_batch_and_what_to_do(
    blobs: data.PreparedFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: Any) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(methods.PCLMethod, "face", hungry)
    said = r"out of memory in task 'face' with a batch of 16 on cpu, epoch 1: lower train.\*_batch or model.width"
    with pytest.raises(BadInput, match=said) as caught:
        fit(blobs, tmp_path)
    assert str(caught.value).endswith("kept: nothing")


def test_a_full_main_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_full(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not is_full(caught.value)
