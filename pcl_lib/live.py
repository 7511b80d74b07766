"""Which model and faces a notebook plays with: trained here if there is one, else those that come with the kit.

Runs without a reader (`make reproduce`) use their own model, trained then and there: what ships never passes for a
run's result.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl_lib import plots, presets, reproduce, studies
from pcl_lib.errors import BadInput
from pcl_lib.faces import render, sample_factors
from pcl_lib.models import PCL, checkpoint_notes, load_checkpoint
from pcl_lib.models.shipped import card, shipped

HEADLESS = "PCL_KIT_HEADLESS"  # set for the kernels of `make reproduce`
STRANGERS = 1_000_000  # the first identity of a gallery: no preset trains on people of such numbers


def headless() -> str:
    """Why nobody can move a slider here, as a sentence; "" in a notebook that somebody looks at."""
    if os.environ.get(HEADLESS):
        return "This notebook runs without a reader (make reproduce), so here is the figure instead of the widget."
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return "There is no Jupyter kernel to move sliders in, so here is the figure instead of the widget."
    return ""


class Gallery:
    """Rendered strangers in memory, with the parts of `PreparedFaces` that widgets use; made in a few seconds."""

    name = "rendered strangers"

    def __init__(
        self, size: int, people: int = 100, images_per_person: int = 10, clutter: float = 0.2
    ) -> None:
        """people: three in five to fit readers on, one in five to choose them by, one in five to look at."""
        factors = sample_factors(
            people * images_per_person,
            seed=STRANGERS,
            identities=people,
            first_identity=STRANGERS,
            clutter=clutter,
        )
        place = (factors["identity"] - STRANGERS) * 5 // people
        split = np.array(["train", "train", "train", "validation", "test"], dtype=object)[place]
        self.table, self.image_size = factors.assign(split=split), size
        self._images = render(factors, size=size)

    def __len__(self) -> int:
        return len(self.table)

    def split(self, name: str) -> np.ndarray:
        """Row numbers of "train", "validation" or "test"."""
        return np.flatnonzero(self.table["split"] == name)

    def images(self, rows: Any) -> Tensor:
        """uint8 [len(rows), 3, size, size]."""
        return self._images[torch.from_numpy(np.array(rows))]


@cache
def gallery(size: int) -> Gallery:
    """A `Gallery` of the usual length, a short one in the kernels of `make reproduce`; rendered once a process."""
    return Gallery(size, people=30, images_per_person=4) if os.environ.get(HEADLESS) else Gallery(size)


@dataclass(frozen=True)
class Live:
    """A model in eval mode, faces at its size, a sentence on where they are from; the run's folder if it is its own."""

    model: PCL
    faces: Any
    source: str
    out: Path | None = None

    def save(self, figure: Figure, name: str) -> Figure:
        """Keep a figure as out/figures/<name>.png where the model is the run's own; returns the figure."""
        if self.out:
            plots.save(figure, self.out / "figures" / f"{name}.png")
        return figure


def choose(setup: reproduce.Setup, method: str = "pcl", *, now: bool = False) -> Live:
    """The model that a notebook plays with, and says which it is.

    Without a reader: the run's own, trained if need be. With one: what was trained here, in the run's folder or in
    those of larger presets beside it; else the shipped weights; else the run's own. A smoke run counts only without a
    reader: it is too short to have learnt anything. Only a model of the run's own folder comes with the run's faces,
    others with a `Gallery`. now: choose as if there were a reader, so that nothing is trained first: for a picture to
    begin with, not for a result. Raises as `reproduce.trained`.
    """
    live = (_trained_here(setup, method) or _shipped(method)) if now or not headless() else None
    if live is None:
        model = reproduce.trained(setup, method).model
        live = Live(model, studies.sized(setup), f"the {method} of this run", setup.out)
    print(f"In use: {live.source}.")
    return live


def _trained_here(setup: reproduce.Setup, method: str) -> Live | None:
    own = [setup.out] if setup.preset.name != "smoke" else []
    for folder in [*own, *(setup.out.parent / name for name in presets.PRESETS if name != "smoke")]:
        path = folder / "checkpoints" / f"{method}.safetensors"
        if not path.is_file():
            continue
        try:
            model, notes = load_checkpoint(path), checkpoint_notes(path)
        except BadInput as error:  # of an older kit, say: there is more to try
            print(f"Passed over: {error}.")
            continue
        source = f"{path}, trained here ({notes['epoch']} epochs of preset {notes['preset']})"
        if folder not in own:
            return Live(model, gallery(model.image_size), source)
        whole = notes["epoch"] == setup.preset.train.epochs
        return Live(model, studies.sized(setup), source, folder if whole else None)
    return None


def _shipped(method: str) -> Live | None:
    try:
        model, about = shipped(method), card(method)
    except BadInput as error:
        print(f"Passed over: {error}.")
        return None
    source = (
        f"the weights of {method} that come with the kit ({about['epochs']} epochs of preset {about['preset']}, seed "
        f"{about['seed']}, {about['seconds'] / 60:.0f} min on {about['hardware']})"
    )
    return Live(model, gallery(model.image_size), source)
