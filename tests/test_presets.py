"""pcl_lib.presets: the values notebooks/method.md gives, and strictness about everything else."""

from __future__ import annotations

import copy
import dataclasses
import json
import re

import pytest

from pcl_lib import presets
from pcl_lib.presets import PRESETS, Preset
from pcl_lib.utils import BadInput


def test_the_four_presets_are_there_under_their_names() -> None:
    assert list(PRESETS) == ["smoke", "cpu", "gpu", "paper"]
    assert all(preset.name == name and presets.get(name) is preset for name, preset in PRESETS.items())
    with pytest.raises(BadInput, match="unknown preset 'laptop': choose one of smoke, cpu, gpu, paper"):
        presets.get("laptop")


def test_paper_preset_is_the_method() -> None:
    """notebooks/method.md, sections 1 to 6, number by number."""
    paper = PRESETS["paper"]
    model, loss, train = paper.model, paper.loss, paper.train
    assert (model.width, model.image_size, model.projector_hidden, model.projector_out) == (1, 64, 2048, 512)
    assert (model.norm, model.pose_dim) == ("none", 0)
    assert (loss.temperature, loss.mixing, loss.orthogonality, loss.noise) == (0.07, 1.6, 1, 0.4)
    assert (loss.pdd, loss.face, loss.pose, loss.dynamic, loss.negatives) == (1, 1, 1, True, "own_flip")
    assert (train.pdd_batch, train.face_batch, train.pose_batch, train.pose_negatives) == (256, 256, 10, 100)
    assert (train.lr, train.weight_decay, train.frames_per_identity) == (1e-4, 1e-3, 1)
    face, pose = paper.face_view, paper.pose_view
    assert (face.crop, pose.crop) == ("quadrant", "none")
    for view in (face, pose):
        assert (view.brightness, view.contrast, view.saturation, view.hue) == (0.8, 0.8, 0.8, 0.2)
        assert (view.jitter, view.grey, view.blur, view.gradient, view.flip) == (0.8, 0.2, 0.8, 0.6, 0)
        assert view.blur_sigma == (0.1, 2.0)


def test_presets_cannot_be_changed_but_copied() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["cpu"].train.lr = 1  # type: ignore[misc]
    changed = presets.override(
        PRESETS["cpu"], {"train.lr": 1e-3, "loss.negatives": "released_code", "name": "x"}
    )
    assert (changed.train.lr, changed.loss.negatives, changed.name) == (1e-3, "released_code", "x")
    assert PRESETS["cpu"].name == "cpu" and PRESETS["cpu"].loss.negatives == "own_flip"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    text = json.dumps(presets.to_dict(PRESETS[name]))
    assert presets.from_dict(Preset, json.loads(text)) == PRESETS[name]


def test_settings_of_an_older_version_are_completed_and_nothing_else_changes() -> None:
    written = presets.to_dict(presets.override(PRESETS["cpu"], {"model.pose_dim": 3}))
    older = copy.deepcopy(written)
    del older["model"]["backbone"], older["simclr_view"]
    assert presets.completed(older) == {**written, "simclr_view": presets.to_dict(presets.SIMCLR_VIEW)}
    assert presets.completed({**written, "later": 1})["later"] == 1 and presets.completed(None) is None


def test_a_whole_number_serves_as_float_and_a_list_as_tuple() -> None:
    changed = presets.override(PRESETS["cpu"], {"train.lr": 1, "face_view.blur_sigma": [1, 2.5]})
    assert changed.train.lr == 1.0 and isinstance(changed.train.lr, float)
    assert changed.face_view.blur_sigma == (1.0, 2.5)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.learning_rate", 1e-3, "unknown key 'train.learning_rate'"),
        ("training.lr", 1e-3, "unknown key 'training.lr'"),
        ("train.lr.max", 1e-3, "unknown key 'train.lr.max'"),
        ("lr", 1e-3, "unknown key 'lr'"),
        ("train.lr", "fast", "'train.lr' holds 'fast': a value of type float"),
        ("train.lr", True, "'train.lr' holds True: a value of type float"),
        ("train.epochs", 1.5, "'train.epochs' holds 1.5: a value of type int"),
        ("train.epochs", True, "'train.epochs' holds True: a value of type int"),
        ("loss.dynamic", 1, "'loss.dynamic' holds 1: a value of type bool"),
        ("name", 3, "'name' holds 3: a value of type str"),
        ("train", 3, "'train' holds 3: a table of settings"),
        ("train", {"speed": 3}, "unknown key 'train.speed'"),
        ("face_view.blur_sigma", (1.0,), "'face_view.blur_sigma' holds .*: 2 numbers"),
        ("face_view.blur_sigma", 1.0, "'face_view.blur_sigma' holds 1.0: 2 numbers"),
        ("faces.identities", (1, 2, 0.5), "'faces.identities' holds 0.5: a value of type int"),
    ],
)
def test_unknown_keys_and_other_types_are_refused_by_name(key: str, value: object, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        presets.override(PRESETS["cpu"], {key: value})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.checkpoint_every", 0, "train.checkpoint_every is 0: it must be 1 or more"),
        ("train.lr", -1, "train.lr is -1.0: it must be above 0"),
        ("train.lr", float("nan"), "train.lr is nan: it must be above 0"),
        ("train.lr", float("inf"), "train.lr is inf: it must be above 0"),
        ("train.frames_per_identity", 0, "train.frames_per_identity is 0: it must be 1 or more"),
        ("train.face_batch", 1, "train.face_batch is 1: it must be 2 or more"),
        ("train.pose_negatives", 0, "train.pose_negatives is 0: it must be 1 or more"),
        ("train.epochs", -1, "train.epochs is -1: it must be 0 or more"),
        (
            "train.precision",
            "16-true",
            "unknown train.precision '16-true': choose one of auto, 32-true, bf16-mixed",
        ),
        ("train.update", "both", "unknown train.update 'both': choose one of sequential, joint"),
        ("loss.temperature", 0, "loss.temperature is 0.0: it must be above 0"),
        ("loss.noise", -0.1, "loss.noise is -0.1: it must be 0 or more"),
        ("loss.mixing", float("inf"), "loss.mixing is inf: it must be 0 or more"),
        ("model.width", 0, "model.width is 0.0: it must be above 0, and 16 at most"),
        ("model.image_size", 8, "model.image_size is 8: it must be 16 or more, and 1,024 at most"),
        ("face_view.crop_scale", (0.0, 1.0), "view.crop_scale is 0.0: it must be above 0, and 1 at most"),
        ("pose_view.jitter", 1.5, "view.jitter is 1.5: it must be 0 or more, and 1 at most"),
        ("simclr_view.crop", "square", "unknown view.crop 'square': choose one of quadrant, resized, none"),
        ("faces.identities", (3, 0, 1), "faces.identities is 0: it must be 1 or more"),
        ("faces.size", 1024, "faces.size is 1024: it must be 16 or more, and 512 at most"),
    ],
)
def test_values_out_of_range_are_refused_in_one_sentence(key: str, value: object, said: str) -> None:
    with pytest.raises(BadInput, match=f"^{re.escape(said)}"):
        presets.override(PRESETS["cpu"], {key: value})
    section, name = key.split(".")
    with pytest.raises(BadInput, match=re.escape(said.split(" is ")[0])):
        dataclasses.replace(getattr(PRESETS["cpu"], section), **{name: value})


def test_every_number_and_choice_has_a_range() -> None:
    """Switches, and the backbone's name, which timm knows, are all that goes unchecked."""
    free = {"dynamic", "even_odd", "pose_basis", "backbone"}
    kinds = {
        type(value) for preset in PRESETS.values() for value in vars(preset).values() if value != preset.name
    }
    assert {kind.__name__ for kind in kinds} == presets.RANGES.keys()
    for kind in kinds:
        names = {field.name for field in dataclasses.fields(kind)}
        assert presets.RANGES[kind.__name__].keys() == names - free


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "0", None])
def test_seeds_are_whole_numbers_that_every_library_takes(seed: object) -> None:
    with pytest.raises(BadInput, match=r"a whole number from 0 to 2\*\*32 - 1 is needed"):
        presets.check_seed(seed)


def test_smaller_presets_have_smaller_batches_and_no_larger_network() -> None:
    paper, cpu, smoke = (presets.PRESETS[name] for name in ("paper", "cpu", "smoke"))
    assert presets.smaller(paper) == ["smoke", "cpu"]
    assert presets.smaller(cpu) == ["smoke"] and presets.smaller(smoke) == []
    wide = presets.override(cpu, {"model.width": 0.0625})
    assert presets.smaller(wide) == []  # smoke's network is wider
