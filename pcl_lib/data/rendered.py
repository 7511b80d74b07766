"""Rendered faces as prepared sets: on disk for training, in memory for the widgets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pcl_lib.data.face_set import Rows
from pcl_lib.data.folder import PreparedFaces
from pcl_lib.data.labels import SPLITS
from pcl_lib.data.pairs import make_pairs
from pcl_lib.data.writer import INFO, FolderWriter
from pcl_lib.presets import Preset
from pcl_lib.utils import HEADLESS, BadInput, spent

RENDER_ROWS = 1024  # images in a shard of rendered faces: what an interruption can cost at most
RENDER_BATCH = 128
FIRST_OF_CLIPS = 100_000  # clips show people from this number on: no set of still images knows any of them
# Names the pictures that the renderer draws. Change it whenever a pixel changes (tests/test_faces.py holds it to a hash
# of pixels): sets rendered before are then said to be of another renderer.
RENDERER_VERSION = "bd8c2986652b"


def prepare_rendered(
    folder: str | Path,
    *,
    identities: tuple[int, int, int],
    images_per_identity: int,
    size: int = 64,
    seed: int = 0,
    clutter: float | None = None,
    frames_per_clip: int = 1,
    expression: str = "fixed",
    motion: float = 1.0,
    first_identity: int = 0,
    progress: bool = True,
) -> PreparedFaces:
    """Render the default data into `folder`, or open it where the same was rendered before (and say so).

    identities: how many for train, validation and test; they are different people. size: pixels.
    clutter: 0 plain background .. 1 busy, None for the renderer's default. The test split gets pairs.
    frames_per_clip: from 2 on, the images of an identity are clips of so many frames (`faces.clips.sample_clips`,
    which says what `expression` and `motion` mean) of other people than any set of still images has, and the table
    has the columns clip and frame.
    first_identity: the number of the first person, from which who they are follows.
    An interrupted rendering goes on after its last whole shard; the result is the same.
    Raises BadInput where the folder holds a set of other settings, and as `FolderWriter` does.
    """
    settings = {
        "identities": list(identities),
        "images_per_identity": images_per_identity,
        "size": size,
        "seed": seed,
        "clutter": clutter,
        "renderer": RENDERER_VERSION,
    }
    if frames_per_clip != 1:  # sets of still images keep the settings that they always had
        settings |= {"frames_per_clip": frames_per_clip, "expression": expression}
        settings |= {"motion": motion} if motion != 1 else {}
    if first_identity:
        settings["first_identity"] = first_identity
    _check(settings, frames_per_clip)
    folder = Path(folder)
    if (folder / INFO).exists():
        return _same(folder, settings)
    _render_into(folder, settings, progress)
    return PreparedFaces(folder)


def _check(settings: dict[str, Any], frames_per_clip: int) -> None:
    images = settings["images_per_identity"]
    if min(*settings["identities"], images, settings["size"], frames_per_clip) < 1:
        raise BadInput(
            f"rendered faces need at least one identity a split, one image, one pixel; got {settings}"
        )
    if images % frames_per_clip:
        raise BadInput(
            f"{images} images per identity are not whole clips of {frames_per_clip} frames: choose a multiple"
        )


def _same(folder: Path, settings: dict[str, Any]) -> PreparedFaces:
    """Open what was rendered before. Raises BadInput where it was rendered with other settings."""
    faces = PreparedFaces(folder)
    made_with = faces.info.get("settings", {})
    keys = settings | made_with  # clips and later people have settings of their own
    if differ := [key for key in keys if made_with.get(key) != settings.get(key)]:
        held = ", ".join(f"{key} {made_with.get(key)}" for key in differ)
        wanted = ", ".join(f"{key} {settings.get(key)}" for key in differ)
        raise BadInput(
            f"{folder} holds {faces.name} with {held}, where {wanted} is wanted;"
            " remove it or choose another folder"
        )
    print(f"Using the {len(faces)} rendered faces in {folder}.")
    return faces


def _factors(settings: dict[str, Any]) -> pd.DataFrame:
    """The factors of a rendered set: of still images or, where the settings ask for them, of clips."""
    from pcl_lib.faces import sample_factors
    from pcl_lib.faces.clips import sample_clips

    total, frames = sum(settings["identities"]), settings.get("frames_per_clip", 1)
    first = settings.get("first_identity", 0)
    options: dict[str, Any] = {"seed": settings["seed"], "identities": total, "first_identity": first}
    if settings["clutter"] is not None:
        options["clutter"] = settings["clutter"]
    count = total * settings["images_per_identity"]
    if frames == 1:
        return sample_factors(count, **options)
    options |= {"expression": settings["expression"], "motion": settings.get("motion", 1.0)}
    options["first_identity"] = FIRST_OF_CLIPS + first
    return sample_clips(count // frames, frames, **options)


@spent("render")
def _render_into(folder: Path, settings: dict[str, Any], progress: bool) -> None:
    from pcl_lib.faces import render  # compiles code: only where it is needed

    seed, factors = settings["seed"], _factors(settings)
    ends = np.cumsum(settings["identities"])[:2]
    place = factors["identity"] - factors["identity"].iloc[0]  # the first row shows the first person
    split = np.array(SPLITS, dtype=object)[np.searchsorted(ends, place, side="right")]
    with FolderWriter(folder, settings) as writer:
        done = sum(writer.rows)
        if done:
            print(f"Going on after the {done} faces already rendered in {folder}.")
        bar = tqdm(total=len(factors), initial=done, unit="image", desc="rendering", disable=not progress)
        with bar:
            for first in range(done, len(factors), RENDER_ROWS):
                shard = factors.iloc[first : first + RENDER_ROWS]
                parts = []
                for start in range(0, len(shard), RENDER_BATCH):
                    parts.append(render(shard.iloc[start : start + RENDER_BATCH], size=settings["size"]))
                    bar.update(len(parts[-1]))
                writer.add_shard(torch.cat(parts))
        pairs = make_pairs(factors, np.flatnonzero(split == "test"), seed=seed)
        info = {"name": "rendered faces", "source": "pcl_lib.faces", "licence": "MIT", "settings": settings}
        writer.finish(factors.assign(split=split), info, pairs)


def open_faces(folder: Path | str | None, preset: Preset, runs: Path | str) -> PreparedFaces:
    """The prepared set in `folder`; where None, the preset's rendered faces, kept under `runs`/faces."""
    if folder:
        return PreparedFaces(folder)
    wanted = preset.faces
    people = "-".join(map(str, wanted.identities))
    name = f"rendered-{people}x{wanted.images_per_identity}-{wanted.size}px-clutter{wanted.clutter:g}"
    return prepare_rendered(
        Path(runs) / "faces" / name,
        identities=wanted.identities,
        images_per_identity=wanted.images_per_identity,
        size=wanted.size,
        clutter=wanted.clutter,
    )


STRANGERS = 1_000_000  # the first identity of a gallery: no preset trains on people of such numbers


class RenderedFaces:
    """A table of factors as a `FaceSet` in memory."""

    name = "rendered faces"
    info: Mapping[str, Any] = MappingProxyType({})
    pairs: pd.DataFrame | None = None

    @spent("render")
    def __init__(self, table: pd.DataFrame, size: int) -> None:
        """table: what `render` needs and a column split, whatever its names; size: pixels."""
        from pcl_lib.faces import render
        from pcl_lib.faces.factors import NUMERIC

        self.table, self.image_size = table, size
        self._images = render(table[list(NUMERIC)], size=size)

    def __len__(self) -> int:
        return len(self.table)

    def split(self, name: str) -> np.ndarray:
        """Row numbers of "train", "validation" or "test", or of another name in the table's column split."""
        return np.flatnonzero(self.table["split"] == name)

    def images(self, rows: Rows) -> Tensor:
        """uint8 [len(rows), 3, size, size]."""
        return self._images[torch.from_numpy(np.array(rows))]


def gallery_table(people: int, images_per_person: int) -> pd.DataFrame:
    """Factors of strangers with a column split: of five people three train, one is for validation, one for test."""
    from pcl_lib.faces import sample_factors

    factors = sample_factors(
        people * images_per_person,
        seed=STRANGERS,
        identities=people,
        first_identity=STRANGERS,
        clutter=0.2,
    )
    place = (factors["identity"] - STRANGERS) * 5 // people
    split = np.array(["train", "train", "train", "validation", "test"], dtype=object)[place]
    return factors.assign(split=split)


class Gallery(RenderedFaces):
    """Rendered strangers in memory, for the widgets; made in a few seconds."""

    name = "rendered strangers"

    def __init__(self, size: int, people: int = 100, images_per_person: int = 10) -> None:
        """people: three in five to fit linear probes on, one in five to choose them by, one in five to look at."""
        super().__init__(gallery_table(people, images_per_person), size)


@cache
def gallery(size: int) -> Gallery:
    """A `Gallery` of the usual length, a short one in the kernels of `make reproduce`; rendered once a process."""
    return Gallery(size, people=30, images_per_person=4) if os.environ.get(HEADLESS) else Gallery(size)
