"""Train a method, from the start or from where a run folder's checkpoint left it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from pcl_lib import data, distributed, methods, presets
from pcl_lib.models import PCL
from pcl_lib.presets import Preset
from pcl_lib.pretrain.fabric import start_fabric
from pcl_lib.pretrain.trainer import Trainer
from pcl_lib.utils import spent


@dataclass
class Trained:
    """What `fit` returns: the model in eval mode, one row of history per epoch, its folder, the seconds it took."""

    model: PCL
    method: methods.Method
    history: pd.DataFrame
    folder: Path
    seconds: float
    precision: str


@spent("train")
def fit(
    method: str = "pcl",
    *,
    preset: Preset | str,
    faces: data.PreparedFaces,
    out: Path | str,
    seed: int = 0,
    devices: int = 1,
    progress: bool = True,
    callback: Callable[[PCL, pd.DataFrame], bool] | None = None,
    start: Path | str | None = None,
) -> Trained:
    """Pre-train on the training split of `faces`; resumes where `out` holds a checkpoint of the same settings.

    Writes out/checkpoints/<method>.safetensors and .state, and out/logs/<method>.csv.
    devices: processes or GPUs that share the batches of the preset, with the results of one (`pcl_lib.distributed`);
    where torchrun started this process, its numbers hold. callback: called after each epoch with the model and the
    history; where it returns True, training stops there with a checkpoint to go on from. start: a checkpoint of a
    model of these very settings whose weights the training begins with, in place of random ones. Raises BadInput on
    bad settings or data, on a `start` of another model, on a checkpoint of other settings, where another process
    trains the same method into `out`, on NaN or inf losses and where memory runs out (the last checkpoint stays).
    """
    preset = presets.get(preset) if isinstance(preset, str) else preset
    presets.check_seed(seed)
    fabric = start_fabric(preset, devices)
    begin = None if start is None else Path(start)
    trainer = Trainer(method, preset, faces, Path(out), seed, fabric, begin)
    trainer.resume()
    if not trainer.finished:  # what is finished can be read where nothing can be written
        with trainer.alone():
            trainer.resume()  # another process may just have ended
            _train(trainer, method, progress, callback)
    history = pd.DataFrame(trainer.history)
    return Trained(
        trainer.model.eval(), trainer.method, history, trainer.out, trainer.seconds, trainer.precision
    )


def _train(
    trainer: Trainer, method: str, progress: bool, callback: Callable[[PCL, pd.DataFrame], bool] | None
) -> None:
    """Train the epochs that are left, or until `callback` says so."""
    trainer.settle_format()
    with tqdm(
        total=trainer.epochs,
        initial=trainer.epoch,
        desc=f"{method} ({trainer.fabric.device.type}, {trainer.precision}, {trainer.memory_format})",
        unit="epoch",
        disable=not progress or distributed.rank() > 0 or trainer.epoch >= trainer.epochs,
    ) as bar:
        while trainer.epoch < trainer.epochs:
            means = trainer.train_epoch()
            bar.set_postfix({task: f"{means[task]:.3f}" for task in trainer.method.weights})
            bar.update()
            if callback is not None and callback(trainer.model, pd.DataFrame(trainer.history)):
                trainer.save()
                break
    if not trainer.epochs:
        trainer.save()
