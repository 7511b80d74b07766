"""The rows of the ablation table: variants, each a method and a few changed settings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pcl_lib import presets
from pcl_lib.ablations.tables import BOUNDS, TIME
from pcl_lib.data import prepare_rendered
from pcl_lib.presets import Preset

# What a cell of each preset changes for all its variants alike; a whole table at cpu is to take two hours on 2 cores.
CELLS: dict[str, dict[str, Any]] = {
    "cpu": {"model.image_size": 32, "train.epochs": 8, "train.checkpoint_every": 8}
}


# The length of a training at the base of `--scaling`: epochs, over which the dynamic weights move, and iterations in
# each; a preset that is not named is for trying things out.
SCALE_LENGTH = {"cpu": (5, 40), "gpu": (20, 200), "paper": (100, 400)}
FIRST_OF_SCALE = 2_000_000  # the first person of its training sets: no other set of the kit knows them


@dataclass(frozen=True)
class Point:
    """A point of the grid of `--scaling`: what a method is trained on, for how long, how wide.

    people: rendered people to train on, 0 for as many as it sees images ("fresh faces"); images: of each of them;
    iterations, width: times those at the base of the preset; clip: frames of a clip, 1 for still images.
    """

    people: int = 1000
    images: int = 4
    iterations: float = 1.0
    width: float = 1.0
    clip: int = 1

    def of(self, preset: Preset) -> Preset:
        """The preset with this width and this many iterations, whatever the number of people."""
        epochs, steps = SCALE_LENGTH.get(preset.name, (1, 4))
        steps = max(1, round(self.iterations * steps))
        people = self.people or epochs * steps * images_seen(preset)
        rows = steps * max(preset.train.pdd_batch, preset.train.face_batch, preset.train.pose_batch)
        return presets.override(preset, {
            "model.width": self.width * preset.model.width, "train.epochs": epochs,
            "train.iterations_per_epoch": steps, "train.frames_per_identity": math.ceil(rows / people),
            "train.checkpoint_every": epochs,
        })  # fmt: skip

    def size(self, preset: Preset) -> tuple[int, int]:
        """People and images of each; preset: that of `of`."""
        train = preset.train
        return self.people or train.epochs * train.iterations_per_epoch * images_seen(preset), self.images

    def rendered(self, preset: Preset, runs: Path) -> Path:
        """The folder of its training set below `runs`/faces, rendered where it is not there; preset: that of `of`.

        One more person each is for validation and for test, as a prepared set must have them; nobody looks at them.
        """
        people, images = self.size(preset)
        name = f"scale-{people}x{images}-{preset.faces.size}px" + f"-clips{self.clip}" * (self.clip > 1)
        faces = prepare_rendered(
            runs / "faces" / name, identities=(people, 1, 1), images_per_identity=images, size=preset.faces.size,
            seed=FIRST_OF_SCALE, clutter=preset.faces.clutter, frames_per_clip=self.clip, first_identity=FIRST_OF_SCALE,
            progress=False,
        )  # fmt: skip
        return faces.folder


def images_seen(preset: Preset) -> int:
    """How many images the tasks of an iteration take."""
    return preset.train.pdd_batch + preset.train.face_batch + preset.train.pose_batch


@dataclass(frozen=True)
class Variant:
    """A row of the ablation table.

    group: the heading it stands under; method: of `methods.METHODS`; changes: settings by dotted key; times: settings
    that are multiplied instead (rounded where they are whole numbers, at least 1); point: a training set, a length
    and a width of its own.
    """

    group: str
    method: str = "pcl"
    changes: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)
    point: Point | None = None

    def of(self, preset: Preset) -> Preset:
        """The preset of a cell of this variant."""
        preset = presets.override(preset, CELLS.get(preset.name, {}) | dict(self.changes))
        for key, factor in self.times.items():
            value: Any = preset
            for name in key.split("."):
                value = getattr(value, name)
            scaled = max(1, round(value * factor)) if isinstance(value, int) else value * factor
            preset = presets.override(preset, {key: scaled})
        return preset if self.point is None else self.point.of(preset)


SLOWER = 2.2  # times as long as SimCLR's: an iteration of PCL at the cpu preset
# Trained no longer than the others, expression is still at chance: no bound for anything.
BOUND = {"train.epochs": 4.0, "train.lr": 2.0}
OTHERS = "other methods"
BACKBONES = "backbones of PCL"
TRIES = "tries for a better pcl_plus (make search)"
PARTS, LOSSES, POSE, SIZES = "parts of PCL", "losses of PCL", "pose change of PCL", "settings of PCL"
SCALE = "people, images, iterations, width (--scaling)"
# One axis at a time, and corners where several are large: those say whether the effects of the axes add up.
POINTS: Mapping[str, Point] = {
    "scale: base": Point(),
    **{f"scale: {n:,} people": Point(people=n) for n in (100, 320, 3200, 10_000)},
    "scale: fresh faces": Point(people=0, images=1),
    "scale: one image of each": Point(images=1),
    "scale: 16 images of each": Point(images=16),
    **{f"scale: iterations x {k:g}": Point(iterations=k) for k in (0.25, 0.5, 2.0, 4.0)},
    **{f"scale: width x {k:g}": Point(width=k) for k in (0.5, 2.0)},
    "scale: 100 people, iterations x 4": Point(people=100, iterations=4.0),
    "scale: 10,000 people, iterations x 4": Point(people=10_000, iterations=4.0),
    "scale: 3,200 people, iterations x 2, width x 2": Point(people=3200, iterations=2.0, width=2.0),
}
# A clip of five frames of each person: what are they worth in still images?
CLIPS: Mapping[str, Point] = {
    f"scale: {n:,} clips, iterations x 4": Point(n, 5, 4.0, clip=5) for n in (100, 1000, 3200)
}
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "pcl": Variant(PARTS),
        "simclr": Variant(OTHERS, "simclr"),
        "simclr_noflip": Variant(OTHERS, "simclr_noflip"),
        "random": Variant(OTHERS, "random"),
        "PDD alone": Variant(PARTS, changes={"loss.face": 0.0, "loss.pose": 0.0}),
        "face contrast alone": Variant(PARTS, changes={"loss.pdd": 0.0, "loss.pose": 0.0}),
        "PDD + face": Variant(PARTS, changes={"loss.pose": 0.0}),
        "face + pose, no PDD": Variant(PARTS, changes={"loss.pdd": 0.0}),
        "no orthogonality": Variant(LOSSES, changes={"loss.orthogonality": 0.0}),
        "orthogonality x 100": Variant(LOSSES, times={"loss.orthogonality": 100.0}),
        "joint update": Variant(LOSSES, changes={"train.update": "joint"}),
        "fixed weights": Variant(LOSSES, changes={"loss.dynamic": False}),
        "negatives as released": Variant(LOSSES, changes={"loss.negatives": "released_code"}),
        "negatives: batch": Variant(LOSSES, changes={"loss.negatives": "batch"}),
        "negatives not mixed": Variant(LOSSES, changes={"loss.mixing": 0.0}),
        "in-plane rotation": Variant(POSE, changes={"loss.pose_change": "rotate"}),
        "flip + rotation": Variant(POSE, changes={"loss.pose_change": "flip_rotate"}),
        "3D turn (oracle)": Variant(POSE, changes={"loss.pose_change": "turn"}),
        "pcl_plus": Variant(PARTS, "pcl_plus"),
        "K = 1": Variant(SIZES, changes={"train.pose_negatives": 1}),
        "K x 4": Variant(SIZES, times={"train.pose_negatives": 4.0}),
        "width x 0.5": Variant(SIZES, times={"model.width": 0.5}),
        "width x 2": Variant(SIZES, times={"model.width": 2.0}),
        "temperature x 0.5": Variant(SIZES, times={"loss.temperature": 0.5}),
        "temperature x 2": Variant(SIZES, times={"loss.temperature": 2.0}),
        "pose feature of 16": Variant(SIZES, changes={"model.pose_dim": 16}),
        "ResNet-18": Variant(BACKBONES, changes={"model.backbone": "resnet18"}),
        "ViT, small patches": Variant(BACKBONES, changes={"model.backbone": "test_vit"}),
        "simclr, equal time": Variant(TIME, "simclr", times={"train.epochs": SLOWER}),
        "simclr_noflip, equal time": Variant(TIME, "simclr_noflip", times={"train.epochs": SLOWER}),
        "moco": Variant(OTHERS, "moco"),
        "byol": Variant(OTHERS, "byol"),
        "simsiam": Variant(OTHERS, "simsiam"),
        "masked": Variant(OTHERS, "masked"),
        "fabnet": Variant(OTHERS, "fabnet"),
        "tcae": Variant(OTHERS, "tcae"),
        "facecycle": Variant(OTHERS, "facecycle"),
        "supervised: expression": Variant(BOUNDS, "supervised_expression", times=BOUND),
        "supervised: identity": Variant(BOUNDS, "supervised_identity", times=BOUND),
        "supervised: pose": Variant(BOUNDS, "supervised_pose", times=BOUND),
        "supervised: action units": Variant(BOUNDS, "supervised_units", times=BOUND),
        "plus, more face": Variant(
            TRIES,
            "pcl_plus",
            times={"train.pdd_batch": 0.5, "train.face_batch": 1.5, "train.pose_batch": 0.5},
        ),
        "plus, face views without gradient": Variant(TRIES, "pcl_plus", {"face_view.gradient": 0.0}),
        "plus, face negatives not mixed": Variant(TRIES, "pcl_plus", {"loss.mixing": 0.0}),
        "plus, temperature x 2": Variant(TRIES, "pcl_plus", times={"loss.temperature": 2.0}),
        "plus, PDD x 0.25": Variant(TRIES, "pcl_plus", times={"loss.pdd": 0.25}),
        "plus, PDD x 4": Variant(TRIES, "pcl_plus", times={"loss.pdd": 4.0}),
        "plus, PDD x 16": Variant(TRIES, "pcl_plus", times={"loss.pdd": 16.0}),
        "PDD x 16": Variant(TRIES, "pcl", times={"loss.pdd": 16.0}),
        "plus, pose feature of 16": Variant(TRIES, "pcl_plus", {"model.pose_dim": 16}),
        **{name: Variant(SCALE, point=point) for name, point in POINTS.items()},
        **{name: Variant(SCALE, "pcl_video", point=point) for name, point in CLIPS.items()},
    }
)
GROUPS = {name: variant.group for name, variant in VARIANTS.items() if variant.group not in (TRIES, SCALE)}
SCALING = tuple(name for name, variant in VARIANTS.items() if variant.group == SCALE)
METHOD_ROWS = {  # the rows of a table of methods
    name: group
    for name, group in GROUPS.items()
    if group in (OTHERS, TIME, BOUNDS) or name in ("pcl", "pcl_plus")
}
SEARCH = (  # the tries, and what they are measured by
    "pcl_plus", "pcl", "simclr", "simclr_noflip", "simclr, equal time", "simclr_noflip, equal time",
    *(name for name in VARIANTS if name not in GROUPS),
)  # fmt: skip
# Series of the sensitivity figure: what changes, and the variant at each value of it.
SERIES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "negatives K": {"1": "K = 1", "preset": "pcl", "x 4": "K x 4"},
        "temperature": {"x 0.5": "temperature x 0.5", "preset": "pcl", "x 2": "temperature x 2"},
        "width": {"x 0.5": "width x 0.5", "preset": "pcl", "x 2": "width x 2"},
        "orthogonality": {"0": "no orthogonality", "preset": "pcl", "x 100": "orthogonality x 100"},
    }
)


def settings(variant: str, preset: Preset) -> str:
    """A short hash of all settings of a variant but seed and data.

    Settings at their defaults are left out, so that cells outlive settings that the kit gains.
    """
    own = VARIANTS[variant]
    made = own.of(preset)
    kept: list[Any] = [own.method, _changed(presets.to_dict(made), presets.to_dict(Preset("")))]
    if own.point is not None:
        kept.append([*own.point.size(made), own.point.clip])
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:10]


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _changed(value, defaults[key]) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value != defaults[key]
    }
