"""One training: its loop over an epoch, and its state between epochs.

Random numbers of an epoch come from (seed, epoch), so a run that is resumed at an epoch's end goes on bit for bit as
the uninterrupted one on the same machine, and any number of processes draws the same (`pcl_lib.distributed`). Every
file is replaced atomically.
"""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pcl_lib import data, distributed, methods, presets
from pcl_lib.models import PCL, load_checkpoint, save_checkpoint
from pcl_lib.presets import Preset
from pcl_lib.pretrain import formats
from pcl_lib.pretrain.fabric import is_full
from pcl_lib.probes.progress import ValidationProbe
from pcl_lib.utils import (
    BadInput,
    check_writable,
    only_one,
    remove_leftovers,
    replace_atomically,
    write_whole,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Trainer:
    """State of one training between epochs."""

    def __init__(
        self,
        method: str,
        preset: Preset,
        faces: data.PreparedFaces,
        out: Path,
        seed: int,
        fabric: Fabric,
        start: Path | None = None,
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
        if self.method.one_process and distributed.world() > 1:
            raise BadInput(f"method {method} trains in one process: use --devices 1")
        self.model = PCL(self.method.preset.model, seed).to(fabric.device)
        if start is not None:  # before the method makes copies of the model
            self._begin_with(start)
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

    def _begin_with(self, start: Path) -> None:
        """Take the weights of a checkpoint; its content counts as a setting of this training."""
        model = load_checkpoint(start, str(self.fabric.device))
        if differ := list(presets.differences(asdict(model.config), asdict(self.model.config), "model")):
            raise BadInput(f"{start} cannot be the start: it is of another model ({'; '.join(differ[:4])})")
        self.model.load_state_dict(model.state_dict())
        self.settings["start"] = hashlib.sha256(start.read_bytes()).hexdigest()

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
        logged = logged.cpu() if logged.device.type == "mps" else logged  # which has no float64
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
        """Train in the memory format of the state that was resumed, else the fastest (`formats`): never in two.

        Short trainings, and several processes, which have to agree, keep the default.
        """
        if not self.memory_format:
            self.memory_format = formats.default_format(self.model)
            iterations = self.epochs * self.steps if self.method.tasks else 0
            if self.epoch == 0 and iterations >= formats.WORTH and distributed.world() == 1:
                dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float32
                self.memory_format = formats.choose_format(self.model.config, self.fabric.device, dtype)
        self.model.use_format(formats.FORMATS[self.memory_format])

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
            self.model.use_format(formats.FORMATS[name])
        self.method.on_epoch_end(self.history)
