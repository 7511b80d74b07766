"""Every setting of a run, in frozen dataclasses; `PRESETS` holds the four that ship.

`dataclasses.replace` changes a copy; `override` does it by dotted key and `from_dict` reads a
config.json back. An unknown key or a value of another type is an error that names the key.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pcl_lib.utils import BadInput

# What each setting may be, by class and field: (lowest, highest), both allowed, or the texts to choose from. Every
# number must be finite besides. Built with anything else, a preset raises BadInput that names the setting.
MANY = 10**9
TINY = 1e-12  # above 0
RANGES: dict[str, dict[str, tuple[float, float] | tuple[str, ...]]] = {
    "FacesPreset": {
        "identities": (1, 10**8),
        "images_per_identity": (1, 10**6),
        "size": (16, 512),
        "clutter": (0, 1),
    },
    "ModelPreset": {
        "width": (TINY, 16),
        "image_size": (16, 1024),
        "projector_hidden": (1, 2**16),
        "projector_out": (1, 2**16),
        "norm": ("none", "group", "batch"),
        **dict.fromkeys(("pose_dim", "face_dim"), (0, 2**16)),
        "decoder": ("paper", "painter"),
        "decoder_width": (TINY, 16),
    },
    "ViewPreset": {
        "crop": ("quadrant", "resized", "none"),
        "crop_scale": (TINY, 1),
        **dict.fromkeys(("flip", "jitter", "grey", "blur", "gradient"), (0, 1)),
        **dict.fromkeys(("brightness", "contrast", "saturation"), (0, 100)),
        "hue": (0, 0.5),
        "blur_sigma": (TINY, 1000),
    },
    "LossPreset": {
        "temperature": (TINY, MANY),
        **dict.fromkeys(("mixing", "orthogonality", "noise", "pdd", "face", "pose"), (0, MANY)),
        "pose_change": ("flip", "rotate", "flip_rotate", "turn"),
        "attribute": ("flip", "rotation", "light", "colour", "occluder", "ageing", "make-up"),
        "negatives": ("own_flip", "released_code", "batch"),
    },
    "VideoPreset": {
        **dict.fromkeys(("contrast", "swap", "person", "incoherence", "independence"), (0, MANY)),
        "temperature": (TINY, MANY),
        **dict.fromkeys(("restage", "jitter", "mirror"), (0, 1)),
    },
    "TrainPreset": {
        "epochs": (0, MANY),
        "frames_per_identity": (1, 10**6),
        "iterations_per_epoch": (0, MANY),
        **dict.fromkeys(("pdd_batch", "face_batch", "pose_batch"), (2, 2**24)),
        "pose_negatives": (1, 2**16),
        "lr": (TINY, math.inf),
        "weight_decay": (0, MANY),
        "update": ("sequential", "joint"),
        "precision": ("auto", "32-true", "bf16-mixed"),
        "checkpoint_every": (1, MANY),
        "probe_every": (0, MANY),
    },
}


class _Checked:
    """Base of the sections of a preset: refuses values that `RANGES` does not allow."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for name, allowed in RANGES[kind].items():
            value, key = getattr(self, name), f"{kind.removesuffix('Preset').lower()}.{name}"
            if isinstance(allowed[0], str):
                if value not in allowed:
                    raise BadInput(f"unknown {key} {value!r}: choose one of {', '.join(map(str, allowed))}")
                continue
            low, high = allowed
            for number in value if isinstance(value, tuple) else (value,):
                if not low <= number <= high or not math.isfinite(number):
                    raise BadInput(f"{key} is {number}: it must be {_words(low, high)}")


def _words(low: float, high: float) -> str:
    least = "above 0" if low == TINY else f"{low:,g} or more"
    return least if high in (MANY, math.inf) else f"{least}, and {high:,g} at most"


def check_seed(seed: Any) -> None:
    """Raise BadInput where a seed is not a whole number from 0 to 2**32 - 1."""
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise BadInput(f"seed {seed!r}: a whole number from 0 to 2**32 - 1 is needed")


@dataclass(frozen=True)
class FacesPreset(_Checked):
    """The rendered faces that serve where no data is given."""

    identities: tuple[int, int, int] = (400, 60, 100)  # train, validation, test: disjoint
    images_per_identity: int = 30
    size: int = 64  # pixels
    clutter: float = 0.2  # 0 plain background .. 1 busy


@dataclass(frozen=True)
class ModelPreset(_Checked):
    """Sizes of the encoder, branches, decoder and projectors (notebooks/method.md, sections 1, 2, 4)."""

    width: float = 1.0  # scales every channel count of the paper
    image_size: int = 64  # pixels, of training and of the decoder's output
    projector_hidden: int = 2048
    projector_out: int = 512
    norm: str = "none"  # "none" as in the paper; "group" or "batch" after every encoder convolution
    pose_dim: int = 0  # 0: the whole branch as in the paper; else a linear bottleneck of that size
    face_dim: int = 0  # as pose_dim, for the face-aware feature
    decoder: str = "paper"  # or "painter" (`models.painter`), which needs face_dim and pose_dim
    decoder_width: float = 1.0  # scales the channels of "painter"; "paper" follows `width`
    pose_basis: bool = False  # "painter" gets the face moved along orthonormal directions, one a pose number
    backbone: str = "paper"  # the trunk: the paper's, "patches" (`models.patches`) or a timm model by name
    even_odd: bool = False  # face-aware feature: even component of its branch under a flip; pose-related: odd


@dataclass(frozen=True)
class ViewPreset(_Checked):
    """One chain of random views (notebooks/method.md, section 4). Probabilities are per image."""

    crop: str = "quadrant"  # "quadrant" (40% squares in two quadrants), "resized" or "none"
    crop_scale: tuple[float, float] = (0.2, 1.0)  # area range of "resized"
    flip: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    grey: float = 0.2
    blur: float = 0.8
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels
    gradient: float = 0.6


PAPER_FACE_VIEW = ViewPreset()
PAPER_POSE_VIEW = ViewPreset(crop="none")
SIMCLR_VIEW = ViewPreset(crop="resized", flip=0.5, blur=0.5, gradient=0.0)
# For runs of minutes on some thousand images (notebooks/method.md, section 6): easier crops, less blur and gradient.
FEW_IMAGES_FACE_VIEW = ViewPreset(crop="resized", crop_scale=(0.3, 1.0), blur=0.5, gradient=0.2)
FEW_IMAGES_POSE_VIEW = ViewPreset(crop="none", blur=0.5, gradient=0.2)


@dataclass(frozen=True)
class LossPreset(_Checked):
    """Weights and temperatures of the losses (notebooks/method.md, sections 3 to 6)."""

    temperature: float = 0.07
    mixing: float = 1.6  # Beta(mixing, mixing) of the negatives; 0 mixes nothing
    orthogonality: float = 1.0
    noise: float = 0.4  # std of the Gaussian noise on the encoder's input in the PDD step
    pdd: float = 1.0
    face: float = 1.0  # times the dynamic weight
    pose: float = 1.0  # times the dynamic weight
    dynamic: bool = True  # False: both contrastive weights stay 1
    # "flip", "rotate" in the plane, "flip_rotate", or "turn" (rendered faces: the head itself)
    pose_change: str = "flip"
    attribute: str = "flip"  # what pcl_change (and pcl_change_freed) change: `methods.changes`
    negatives: str = (
        "own_flip"  # or "released_code" (notebooks/method.md, section 5), or "batch" (`losses.mirror_logits`)
    )


@dataclass(frozen=True)
class VideoPreset(_Checked):
    """Weights and noise of method pcl_video (`methods.video`)."""

    contrast: float = (
        0.3  # InfoNCE between the face-aware features of frames, on the numbers that are decoded
    )
    temperature: float = 0.2  # of it, and of the next two
    swap: float = 0.0  # price of a swapped picture in which the encoder does not recognise the face donor
    person: float = 0.0  # the same between clips of a person, on half of the numbers; 0 needs no identities
    incoherence: float = 0.0  # price of what pose-related features of two frames of a clip have in common
    independence: float = 0.0  # price of what the pose-related feature tells of the face-aware one (HSIC)
    restage: float = (
        0.5  # share of pose images that are the model's own pictures of other people in that pose
    )
    jitter: float = 0.4  # how far gain and offset of the pose image's colours move
    mirror: float = 0.5  # share of clips that are seen mirrored


@dataclass(frozen=True)
class TrainPreset(_Checked):
    """Batches, optimiser and length (notebooks/method.md, section 6)."""

    epochs: int = 1000
    frames_per_identity: int = 1  # random frames an identity gives to each epoch
    iterations_per_epoch: int = 0  # at most so many, whatever the data hold; 0 for no limit
    pdd_batch: int = 256
    face_batch: int = 256
    pose_batch: int = 10
    pose_negatives: int = 100  # K
    lr: float = 1e-4
    weight_decay: float = 1e-3
    update: str = "sequential"  # an optimiser step for each task; or "joint", one for the sum of their losses
    precision: str = "auto"  # bf16-mixed where the processor has it, else 32-true
    checkpoint_every: int = 10  # epochs
    probe_every: int = 0  # epochs between readings of validation people (`probes.progress`); 0 for none


@dataclass(frozen=True)
class Preset:
    """All settings of one run but seed, data and place."""

    name: str
    faces: FacesPreset = field(default_factory=FacesPreset)
    model: ModelPreset = field(default_factory=ModelPreset)
    face_view: ViewPreset = PAPER_FACE_VIEW
    pose_view: ViewPreset = PAPER_POSE_VIEW
    simclr_view: ViewPreset = SIMCLR_VIEW
    loss: LossPreset = field(default_factory=LossPreset)
    video: VideoPreset = field(default_factory=VideoPreset)
    train: TrainPreset = field(default_factory=TrainPreset)


PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        name="smoke",
        faces=FacesPreset(identities=(12, 6, 10), images_per_identity=8, size=32),
        model=ModelPreset(width=0.125, image_size=32, projector_hidden=64, projector_out=32),
        train=TrainPreset(
            epochs=4,
            frames_per_identity=4,
            iterations_per_epoch=3,  # what the rendered faces give: other data take the same time
            pdd_batch=16,
            face_batch=16,
            pose_batch=4,
            pose_negatives=4,
            lr=2e-3,
            precision="32-true",
            checkpoint_every=2,
        ),
    ),
    "cpu": Preset(
        name="cpu",
        model=ModelPreset(width=0.25, projector_hidden=256, projector_out=128, norm="group"),
        face_view=FEW_IMAGES_FACE_VIEW,
        pose_view=FEW_IMAGES_POSE_VIEW,
        simclr_view=replace(SIMCLR_VIEW, crop_scale=(0.3, 1.0)),
        loss=LossPreset(temperature=0.1, noise=0.1),
        train=TrainPreset(
            epochs=10,
            frames_per_identity=6,
            iterations_per_epoch=50,  # what the rendered faces give: other data take the same time
            pdd_batch=24,
            face_batch=48,
            pose_batch=24,
            pose_negatives=4,
            lr=5e-4,
            weight_decay=1e-6,
            checkpoint_every=1,
        ),
    ),
    "gpu": Preset(
        name="gpu",
        faces=FacesPreset(identities=(2000, 150, 250), images_per_identity=30),
        train=TrainPreset(epochs=400, frames_per_identity=5, lr=1e-3),
    ),
    "paper": Preset(name="paper", train=TrainPreset(epochs=3000)),
}


def get(name: str) -> Preset:
    """The preset of that name. Raises BadInput naming those there are."""
    if name not in PRESETS:
        raise BadInput(f"unknown preset '{name}': choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


T = TypeVar("T")
RENAMED = {"parity": "even_odd"}  # settings as checkpoints and run folders of older versions call them


def to_dict(preset: Any) -> dict[str, Any]:
    """A preset as plain dicts, numbers and strings, ready for JSON."""
    return dataclasses.asdict(preset)


@functools.cache  # evaluated from text; the table of cells asks a thousand times
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a preset dataclass from plain values, strictly.

    Raises BadInput naming the key that is unknown or holds another type.
    """
    hints = _hints(typing.cast(type, kind))
    values = {RENAMED.get(key, key): value for key, value in values.items()}
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise BadInput(f"unknown key '{where}{unknown[0]}': {kind.__name__} has {', '.join(hints)}")
    return kind(**{key: _checked(hints[key], value, where + key) for key, value in values.items()})


def completed(values: Any) -> Any:
    """Plain values of a preset with settings they lack at their defaults; as they are where they are no preset's."""
    if not isinstance(values, Mapping):
        return values
    try:
        return to_dict(from_dict(Preset, values))
    except (BadInput, TypeError):
        return values


def _checked(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise BadInput(f"'{key}' holds {value!r}: a table of settings is needed")
        return from_dict(typing.cast(type, hint), value, key + ".")
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            raise BadInput(f"'{key}' holds {value!r}: {len(parts)} numbers are needed")
        return tuple(_checked(part, item, key) for part, item in zip(parts, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise BadInput(f"'{key}' holds {value!r}: a value of type {hint.__name__} is needed")
    return value


def override(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """A copy with dotted keys changed, e.g. {"train.lr": 1e-3}. Strict as `from_dict`."""
    values = to_dict(preset)
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        table: Any = values
        for part in path:
            table = table.get(part) if isinstance(table, dict) else None
        if not isinstance(table, dict) or last not in table:
            raise BadInput(f"unknown key '{dotted}': it names no setting of preset '{preset.name}'")
        table[last] = value
    return from_dict(Preset, values)


def smaller(preset: Preset) -> list[str]:
    """Names of the presets with smaller batches, no wider network and no larger images."""

    def largest_batch(each: Preset) -> int:
        return max(each.train.pdd_batch, each.train.face_batch, each.train.pose_batch)

    return [
        name
        for name, other in PRESETS.items()
        if largest_batch(other) < largest_batch(preset)
        and other.model.width <= preset.model.width
        and other.model.image_size <= preset.model.image_size
    ]


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """A phrase for each leaf in which two tables of settings differ: "preset.train.lr was 0.1, now 0.2".

    A setting that the kit did not have yet when the old table was written counts as at its default there.
    """
    if key == "preset":
        old = completed(old)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif json.dumps(old) != json.dumps(new):
        yield f"{key} was {old}, now {new}"


def parse_setting(text: str) -> tuple[str, Any]:
    """'train.lr=1e-3' -> ("train.lr", 0.001). Raises BadInput on anything else than KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"--set {text}: KEY=VALUE is needed, e.g. train.lr=1e-3")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
