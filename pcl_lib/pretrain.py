"""One pre-training loop for all methods, on Lightning Fabric; also `python -m pcl_lib.pretrain`.

Random numbers of an epoch come from (seed, epoch), so a run that is resumed at an epoch's end goes on bit for bit as
the uninterrupted one on the same machine, and any number of processes draws the same (`pcl_lib.distributed`). Every
file is replaced atomically.
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pcl_lib import data, distributed, methods, presets, tuning
from pcl_lib.models import PCL, save_checkpoint
from pcl_lib.presets import Preset
from pcl_lib.probes.progress import ValidationProbe
from pcl_lib.utils import (
    BadInput,
    check_writable,
    exit_cleanly,
    has_fast_bf16,
    only_one,
    remove_leftovers,
    replace_atomically,
    spent,
    write_whole,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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
) -> Trained:
    """Pre-train on the training split of `faces`; resumes where `out` holds a checkpoint of the same settings.

    Writes out/checkpoints/<method>.safetensors and .state, and out/logs/<method>.csv.
    devices: processes or GPUs that share the batches of the preset, with the results of one (`pcl_lib.distributed`);
    where torchrun started this process, its numbers hold. callback: called after each epoch with the model and the
    history; where it returns True, training stops there with a checkpoint to go on from. Raises BadInput on bad
    settings or data, on a checkpoint of other settings, where another process trains the same method into `out`, on
    NaN or inf losses and where memory runs out (the last checkpoint stays).
    """
    preset = presets.get(preset) if isinstance(preset, str) else preset
    presets.check_seed(seed)
    fabric = start_fabric(preset, devices)
    trainer = _Trainer(method, preset, faces, Path(out), seed, fabric)
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
    trainer: _Trainer, method: str, progress: bool, callback: Callable[[PCL, pd.DataFrame], bool] | None
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


class _Trainer:
    """State of one training between epochs."""

    def __init__(
        self, method: str, preset: Preset, faces: data.PreparedFaces, out: Path, seed: int, fabric: Fabric
    ) -> None:
        self.name, self.preset, self.out, self.seed, self.fabric = method, preset, out, seed, fabric
        self.method = methods.build(method, preset)
        self.precision = str(fabric._precision.precision)
        self.settings = {
            "method": method,
            "seed": seed,
            "preset": presets.to_dict(preset),
            "data": faces.content_hash,
            "precision": self.precision,
        }
        self.model = PCL(self.method.preset.model, seed).to(fabric.device)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.auxiliary = self.method.auxiliary(self.model, faces).to(fabric.device)
        if distributed.world() > 1:
            distributed.share_batch_norms(self.model)
            distributed.share_batch_norms(self.auxiliary)
        trained = [p for p in self.auxiliary.parameters() if p.requires_grad]
        self.parameters = [*self.model.parameters(), *trained]
        train = preset.train
        self.optimizer = torch.optim.Adam(self.parameters, lr=train.lr, weight_decay=train.weight_decay)
        self.epochs = train.epochs if self.method.tasks else 0
        self.epoch, self.seconds, self.memory_format = 0, 0.0, ""
        self.history: list[dict[str, float]] = []
        self.probe: ValidationProbe | None = None
        if self.method.tasks:
            self._open_data(faces)
            if train.probe_every:
                self.probe = ValidationProbe(faces, self.method.preset.model.image_size)

    def _open_data(self, faces: data.PreparedFaces) -> None:
        rows = faces.split("train")
        train = self.preset.train  # the same number of iterations for every method
        batch = max(train.pdd_batch, train.face_batch, train.pose_batch)
        if uneven := [task for task in self.method.tasks if task.batch % distributed.world()]:
            raise BadInput(
                f"the batch of {uneven[0].batch} of task '{uneven[0].name}' cannot be shared evenly by "
                f"{distributed.world()} processes: change train.*_batch, or use another number of processes"
            )
        self.index = data.identity_index(faces.table, rows)
        self.steps = len(self._epoch_rows(np.random.default_rng(0))) // batch
        if train.iterations_per_epoch:
            self.steps = min(self.steps, train.iterations_per_epoch)
        if self.steps == 0:
            raise BadInput(
                f"{faces.folder} gives {len(rows)} training images of {len(self.index)} identities to an epoch "
                f"and a batch takes {batch}: use more faces, or raise train.frames_per_identity or lower the batches"
            )
        self.source = data.ImageSource(faces, rows, self.fabric.device, size=self.preset.model.image_size)

    def _epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        repeats = self.preset.train.frames_per_identity
        return np.concatenate([self.index.epoch_rows(rng) for _ in range(repeats)])

    def _batches(self, task: methods.Task, number: int) -> Iterator[Any]:
        """This process's share of each of the epoch's batches of one task."""
        rng = np.random.default_rng([self.seed, self.epoch, number])
        rows = self._epoch_rows(rng)
        while len(rows) < self.steps * task.batch:
            rows = np.concatenate([rows, self._epoch_rows(rng)])
        for step in range(self.steps):
            size = task.batch // distributed.world()
            start = step * task.batch + distributed.rank() * size
            yield task.take(self.source, rows[start : start + size], rng)

    def train_epoch(self) -> dict[str, float]:
        """Train one epoch, log it, save where it is due; returns its mean losses."""
        start = time.perf_counter()
        joint = self.preset.train.update == "joint"
        generator = torch.Generator(self.fabric.device)
        generator.manual_seed((self.seed * 1_000_003 + self.epoch) * 1009)
        self.model.train()
        self.auxiliary.train()
        batches = [
            data.read_ahead(self._batches(task, number), self.source)
            for number, task in enumerate(self.method.tasks)
        ]
        logged: list[Tensor] = []  # read back once an epoch: reading a loss waits for the device
        with self._plain_errors():
            for step in range(self.steps):
                self._set_lr((self.epoch * self.steps + step) / (self.epochs * self.steps))
                losses: dict[str, Tensor] = {}
                for task, images in zip(self.method.tasks, batches, strict=True):
                    self.task = task
                    if not joint or not losses:
                        self.optimizer.zero_grad(set_to_none=True)
                    batch = next(images)
                    with self.fabric.autocast():
                        found = task.loss(self.model, batch, generator)
                    self.fabric.backward(self.method.weights[task.name] * found[task.name])
                    losses |= {name: loss.detach() for name, loss in found.items()}
                    if not joint or task is self.method.tasks[-1]:
                        distributed.average_gradients(self.parameters)
                        self.optimizer.step()
                        self.method.on_step_end(self.model)
                logged.append(torch.stack([loss.float() for loss in losses.values()]))
        means = self._close_epoch(list(losses), torch.stack(logged), time.perf_counter() - start)
        if self.epoch % self.preset.train.checkpoint_every == 0 or self.epoch == self.epochs:
            self.save()
        return means

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """A full memory, and another process that has gone, as one sentence each."""
        try:
            yield
        except RuntimeError as error:
            if is_full(error):
                raise BadInput(self._too_large()) from None
            if distributed.has_lost_another(error):
                raise BadInput(
                    f"another process ended: its own message says why; kept: {self._kept}"
                ) from None
            raise

    def _too_large(self) -> str:
        """The sentence for a batch that does not fit."""
        small = presets.smaller(self.preset)
        advice = "lower train.*_batch or model.width" + (
            ", or use more processes" * (distributed.world() > 1)
        )
        advice += f", or take preset {' or '.join(small)}" if small else ""
        return (
            f"out of memory in task '{self.task.name}' with a batch of {self.task.batch} on {self.fabric.device}, "
            f"epoch {self.epoch + 1}: {advice}; kept: {self._kept}"
        )

    @property
    def _kept(self) -> str:
        return (
            f"the checkpoint of an earlier epoch is in {self._state}" if self._state.is_file() else "nothing"
        )

    def _close_epoch(self, names: list[str], logged: torch.Tensor, seconds: float) -> dict[str, float]:
        """Read the losses back (the epoch's only wait for the device), refuse NaN, move the weights."""
        losses = distributed.mean(logged.double()).cpu().numpy()
        if not np.isfinite(losses).all():
            step, column = np.argwhere(~np.isfinite(losses))[0]
            raise BadInput(
                f"loss '{names[column]}' of {self.name} became {losses[step, column]} in epoch {self.epoch + 1}, "
                f"iteration {step + 1}: lower train.lr or set train.precision to 32-true; kept: {self._kept}"
            )
        means = dict(zip(names, losses.mean(0).tolist(), strict=True))
        weights = {f"{name}_weight": value for name, value in self.method.weights.items()}
        self.epoch, self.seconds = self.epoch + 1, self.seconds + seconds
        images = self.steps * sum(task.batch * task.frames for task in self.method.tasks)
        row = {"epoch": self.epoch, "iterations": self.epoch * self.steps, "seconds": self.seconds}
        row |= {"images": self.epoch * images, "lr": self._lr, **means, **weights}
        self.history.append(row | self._read())
        self.method.on_epoch_end(self.history)
        return means

    def settle_format(self) -> None:
        """Train in the memory format of the state that was resumed, else the fastest (`tuning`): never in two.

        Short trainings, and several processes, which have to agree, keep the default.
        """
        if not self.memory_format:
            self.memory_format = tuning.default_format(self.model)
            iterations = self.epochs * self.steps if self.method.tasks else 0
            if self.epoch == 0 and iterations >= tuning.WORTH and distributed.world() == 1:
                dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float32
                self.memory_format = tuning.choose_format(self.model.config, self.fabric.device, dtype)
        self.model.use_format(tuning.FORMATS[self.memory_format])

    def _read(self) -> dict[str, float]:
        """What validation people tell after this epoch, where it is due; the training is none the wiser."""
        due = self.epoch % max(1, self.preset.train.probe_every) == 0 or self.epoch == self.epochs
        return self.probe(self.model) if self.probe and due and self.fabric.is_global_zero else {}

    def _set_lr(self, share: float) -> None:
        self._lr = self.preset.train.lr * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr

    @property
    def _state(self) -> Path:
        return self.out / "checkpoints" / f"{self.name}.state"

    def save(self) -> None:
        """Write log, weights and training state; each replaces the one before atomically."""
        if self.fabric.is_global_zero:
            with replace_atomically(self.out / "logs" / f"{self.name}.csv") as path:
                pd.DataFrame(self.history).to_csv(path, index=False)
            notes = {"method": self.name, "preset": self.preset.name, "seed": self.seed}
            notes |= {"epoch": self.epoch, "seconds": round(self.seconds, 1)}
            save_checkpoint(self.model, self._state.with_suffix(".safetensors"), notes)
            state = {
                name: getattr(self, name)
                for name in ("settings", "epoch", "seconds", "history", "memory_format")
            }
            state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            state |= {"auxiliary": self.auxiliary.state_dict()}
            content = io.BytesIO()
            torch.save(state, content)
            write_whole(self._state, content.getbuffer())
        self.fabric.barrier()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train or to write."""
        return self.epoch >= self.epochs and self._state.is_file()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training the same method into the same folder, and remove what killed ones left."""
        folder, what = self._state.parent, f"the training of {self.name} in {self.out}"
        with only_one(folder / f".{self.name}.lock", what) if self.fabric.is_global_zero else nullcontext():
            if self.fabric.is_global_zero:
                check_writable(folder)
                remove_leftovers(folder, f"{self.name}.*")
                remove_leftovers(self.out / "logs", f"{self.name}.csv")
            yield

    def resume(self) -> None:
        """Go on from the training state in `out`, if there is one of these very settings."""
        if not self._state.is_file():
            return
        try:
            state: Any = torch.load(self._state, map_location=self.fabric.device, weights_only=True)
        except Exception as error:
            raise BadInput(
                f"{self._state} cannot be read ({type(error).__name__}): delete it to train from the start"
            ) from error
        if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
            raise BadInput(
                f"{self._state} is not a training state of this kit: choose another --out, or delete it"
            )
        try:
            differ = list(presets.differences(state["settings"], self.settings))
        except TypeError:  # of settings that are no plain values
            differ = ["settings of another kind"]
        if differ:
            raise BadInput(
                f"{self._state} is of a run with other settings ({'; '.join(differ[:4])}): choose another --out, or "
                "delete it"
            )
        try:
            self._take_over(state)
        except Exception as error:  # as many kinds as there are ways to be damaged
            raise BadInput(
                f"{self._state} is damaged ({type(error).__name__}): delete it to train from the start"
            ) from error

    def _take_over(self, state: dict[str, Any]) -> None:
        """Raises errors of many kinds where the state is not one that `save` wrote."""
        epoch, history = state["epoch"], [dict(row) for row in state["history"]]
        if type(epoch) is not int or not epoch == len(history) <= self.epochs:
            raise ValueError("epoch")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        # Older versions of the kit called it "beside", or had none.
        self.auxiliary.load_state_dict(state.get("auxiliary") or state.get("beside") or {})
        self.epoch, self.seconds, self.history = epoch, float(state["seconds"]), history
        if self.epoch and (name := state.get("memory_format")):  # older versions had the default alone
            self.memory_format = name
            self.model.use_format(tuning.FORMATS[name])
        self.method.on_epoch_end(self.history)


def fabric_class() -> type[Fabric]:
    """Lightning Fabric, from the package lightning-fabric or from lightning, which holds it too.

    Imported only where something is trained: it takes a second or two. Raises BadInput where neither is installed.
    """
    for package in ("lightning_fabric", "lightning.fabric"):
        try:
            found: type[Fabric] = importlib.import_module(package).Fabric
            return found
        except ModuleNotFoundError as error:
            if error.name not in (package, package.partition(".")[0]):
                raise
    raise BadInput("training needs Lightning Fabric: install lightning-fabric, or lightning, which holds it")


def start_fabric(preset: Preset, devices: int = 1) -> Fabric:
    """A Fabric on the best device there is, with the preset's precision; the progress bar of `fit` names both."""
    kind = fabric_class()
    # Its notes look like errors in a notebook.
    logging.getLogger(kind.__module__.removesuffix(".fabric")).setLevel(logging.WARNING)
    _check_devices(preset, devices)
    precision = preset.train.precision
    if precision == "auto":
        precision = "bf16-mixed" if has_fast_bf16() else "32-true"
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun, which knows how many
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = kind(
        accelerator="auto",
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def _check_devices(preset: Preset, devices: int) -> None:
    train = preset.train
    most = min(train.pdd_batch, train.face_batch, train.pose_batch)
    if not 1 <= devices <= most:
        raise BadInput(
            f"--devices is {devices}: it must be from 1 to {most}, the smallest batch of the preset"
        )
    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        raise BadInput(f"--devices is {devices}, and this machine has {torch.cuda.device_count()} GPUs")


def main() -> None:
    """Command line: python -m pcl_lib.pretrain."""
    parser = argparse.ArgumentParser(prog="python -m pcl_lib.pretrain", description="Pre-train one method.")
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument("--method", default="pcl", help=", ".join(methods.METHODS))
    parser.add_argument("--data", type=Path, help="prepared folder; without it faces are rendered")
    parser.add_argument("--out", type=Path, help="run folder (default runs/PRESET)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=1, help="processes or GPUs on this machine")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. train.lr=1e-3")
    arguments = parser.parse_args()
    preset = presets.override(presets.get(arguments.preset), dict(map(presets.parse_setting, arguments.set)))
    presets.check_seed(arguments.seed)
    _check_devices(preset, arguments.devices)
    out = arguments.out or Path("runs") / preset.name
    faces = data.open_faces(arguments.data, preset, out.parent)
    print(f"{arguments.method} on {faces.name}: {len(faces.split('train'))} training images")
    found = fit(
        arguments.method, preset=preset, faces=faces, out=out, seed=arguments.seed, devices=arguments.devices
    )
    weights = f"{out}/checkpoints/{arguments.method}.safetensors"
    print(f"{found.seconds:.0f} s in {found.precision}; weights in {weights}")


def is_full(error: RuntimeError) -> bool:
    """Whether an error of PyTorch means that a GPU or the main memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


if __name__ == "__main__":
    exit_cleanly(main)
