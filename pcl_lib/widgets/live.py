"""Which model and faces a notebook plays with: trained here if there is one, else those that come with the kit.

Runs that nobody watches (`make reproduce`) use their own model, trained then and there: what ships never passes for a
run's result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pcl_lib import plots, presets
from pcl_lib.data import FaceSet
from pcl_lib.data.rendered import gallery
from pcl_lib.models import PCL, checkpoint_notes, load_checkpoint
from pcl_lib.models.shipped import card, shipped
from pcl_lib.reproduce import Run
from pcl_lib.utils import BadInput, headless


@dataclass(frozen=True)
class Live:
    """A model in eval mode, faces at its size, a sentence on where they are from; the run's folder if it is its own."""

    model: PCL
    faces: FaceSet
    source: str
    out: Path | None = None

    def save(self, figure: Figure, name: str) -> Figure:
        """Keep a figure as out/figures/<name>.png where the model is the run's own; returns the figure."""
        if self.out:
            plots.save(figure, self.out / "figures" / f"{name}.png")
        return figure


def load_model(run: Run, method: str = "pcl") -> Live:
    """The model that a notebook plays with, and says which it is.

    Where nobody watches: the run's own, trained if need be. Else: what was trained here, in the run's folder or in
    those of larger presets next to it; else the shipped weights; else the run's own. A smoke run counts only where
    nobody watches: it is too short to have learnt anything. Only a model of the run's own folder comes with the run's
    faces, others with a `Gallery`. Raises as `Run.trained`.
    """
    live = (_trained_here(run, method) or _shipped(method)) if not headless() else None
    if live is None:
        model = run.trained(method).model
        live = Live(model, run.sized(), f"the {method} of this run", run.out)
    print(f"In use: {live.source}.")
    return live


def _trained_here(run: Run, method: str) -> Live | None:
    own = [run.out] if run.preset.name != "smoke" else []
    for folder in [*own, *(run.out.parent / name for name in presets.PRESETS if name != "smoke")]:
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
        whole = notes["epoch"] == run.preset.train.epochs
        return Live(model, run.sized(), source, folder if whole else None)
    return None


def load_shipped(method: str) -> Live:
    """The weights that come with the kit, whatever the run has trained, and says so. Raises BadInput without any."""
    live = _with_gallery(method)
    print(f"In use: {live.source}.")
    return live


def _shipped(method: str) -> Live | None:
    try:
        return _with_gallery(method)
    except BadInput as error:
        print(f"Passed over: {error}.")
        return None


def _with_gallery(method: str) -> Live:
    model, about = shipped(method), card(method)
    steps = [step for step in (about.get("begins with"), about) if step]
    epochs = [str(step.get("epochs", step.get("epoch"))) for step in steps]  # a checkpoint's notes say epoch
    where = dict.fromkeys(step["hardware"] for step in steps if "hardware" in step)
    source = (
        f"the weights of {method} that come with the kit ({' + '.join(epochs)} epochs of preset {about['preset']}, "
        f"seed {about['seed']}, {about['seconds'] / 60:.0f} min on {', then '.join(where)})"
    )
    return Live(model, gallery(model.image_size), source)
