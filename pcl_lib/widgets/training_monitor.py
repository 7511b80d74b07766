"""TrainingMonitor: watch a training while it runs, and stop it with a checkpoint left."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from pcl_lib import plots
from pcl_lib.data import PreparedFaces, resize_images
from pcl_lib.models import PCL
from pcl_lib.presets import Preset
from pcl_lib.pretrain import fit
from pcl_lib.reproduce import measure
from pcl_lib.utils import BadInput
from pcl_lib.widgets.base import Panel, Tile, as_png, wrapped
from pcl_lib.widgets.pictures import RGB

MOST_FRAMES = 48  # of the GIF: a training may have thousands of epochs


class TrainingMonitor(Panel):
    """Loss curves, weights and swap pictures after each epoch of a training in a thread, with start and stop.

    method, preset, faces, out, seed: as of `pretrain.fit`. Stop ends the training after
    the running epoch and leaves a checkpoint, from which start goes on. What was trained in `out` before is shown
    from the start.
    """

    tries = (
        "Predict which loss falls first, then press train.",
        "Stop after three epochs and look at the swaps. What can be seen of a face already, what of its pose?",
        "Go on. What do the swaps still gain when the pose accuracy no longer rises?",
    )

    def __init__(
        self, method: str, *, preset: Preset, faces: PreparedFaces, out: Path | str, seed: int = 0
    ) -> None:
        super().__init__()
        self.method, self.preset, self.faces, self.out, self.seed = method, preset, faces, Path(out), seed
        self.history = self._before()
        self.seen: list[tuple[int, bytes]] = []  # epochs and their swaps as PNG
        self.stride = 1
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()
        self.start = ipywidgets.Button(description="train", icon="play")
        self.stop = ipywidgets.Button(description="stop", icon="stop", disabled=True)
        self.progress = ipywidgets.IntProgress(
            value=len(self.history),
            max=preset.train.epochs,
            description="epochs",
            layout=ipywidgets.Layout(flex="1 1 200px", max_width="480px"),
        )
        self.curves, self.swaps = (Tile(name, width="1000px") for name in ("Curves", "Swaps"))
        self._draw_curves()
        self.swaps.show(None)
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.end())
        self.put(
            wrapped([self.start, self.stop, self.progress]),
            self.message,
            self.curves.box,
            self.swaps.box,
        )
        if len(self.history):
            self.say(f"{len(self.history)} of {preset.train.epochs} epochs were trained before.")

    def _before(self) -> pd.DataFrame:
        """The log of what was trained in `out` so far; empty where nothing was."""
        log = self.out / "logs" / f"{self.method}.csv"
        return pd.read_csv(log) if log.is_file() else pd.DataFrame()

    def _draw_curves(self) -> None:
        curves = as_png(self.figure(), plots.DPI) if len(self.history) else None
        self.curves.show(curves, "losses and weights, epoch by epoch")

    def begin(self) -> None:
        """Train in a thread, from the checkpoint on where there is one."""
        self.stopping.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.say("Training: the first pictures come after an epoch.")
        self.thread = threading.Thread(target=self._train, daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Ask the training to stop after the running epoch."""
        self.stopping.set()
        self.stop.disabled = True
        self.say("Stopping after this epoch, so that the checkpoint is that of a whole one.")

    def _train(self) -> None:
        try:
            training = fit(
                self.method, preset=self.preset, faces=self.faces, out=self.out, seed=self.seed, progress=False,
                callback=self.callback,
            )  # fmt: skip
        except BadInput as error:
            self.say(str(error))
        else:
            self.history = training.history
            done, of = len(training.history), self.preset.train.epochs
            self.progress.value = done
            weights = training.folder / "checkpoints" / f"{self.method}.safetensors"
            end = "Finished" if done == of else "Stopped"
            self.say(f"{end} after {done} of {of} epochs; the checkpoint is {weights}.")
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def callback(self, model: PCL, history: pd.DataFrame) -> bool:
        """Show an epoch's end (`pretrain.fit` calls it); returns whether to stop."""
        self.history = history
        self.progress.value = len(history)
        self._draw_curves()
        some = resize_images(self.faces.images(self.faces.split("train")[:256]), model.image_size)
        shown = model.recalibrated(some.to(next(model.parameters()).device))
        swaps = measure.swap(shown, self.faces, *measure.donors(self.faces, (2, 6)))
        grid = as_png(plots.swap_grid(swaps.faces, swaps.poses, swaps.pictures, swaps.labels), plots.DPI)
        self.remember(len(history), grid)
        self.swaps.show(grid, "swaps by the model as it is now, of people it does not train on")
        return self.stopping.is_set()

    def remember(self, epoch: int, swaps: bytes) -> None:
        """Keep the swaps after an epoch, a PNG. Of long trainings the newest and every 2nd, 4th, ... epoch stay."""
        self.seen = [kept for kept in self.seen if kept[0] % self.stride == 0] + [(epoch, swaps)]
        if len(self.seen) >= MOST_FRAMES:
            self.stride *= 2

    def frames(self) -> list[RGB]:
        """The swaps after the epochs that this monitor has watched, evenly thinned to `MOST_FRAMES` or fewer."""
        pictures = (Image.open(io.BytesIO(swaps)) for _, swaps in self.seen)
        return [np.asarray(picture.convert("RGB")) for picture in pictures]

    def figure(self) -> Figure:
        """Curves of what was trained so far, by this monitor or before it; an empty figure where nothing was."""
        if not len(self.history):
            empty = plots.Picture(figsize=(6, 0.6))
            empty.text(0.02, 0.4, f"No training of {self.method} in {self.out} yet.")
            return empty
        return plots.training_curves({self.method: self.history})
