"""One pre-training loop for all methods, on Lightning Fabric; also `python -m pcl_lib.pretrain`.

Random numbers of an epoch come from (seed, epoch), so a run that is resumed at an epoch's end goes on bit for bit as
the uninterrupted one on the same machine, and any number of processes draws the same (`pcl_lib.ranks`). Every file is
replaced atomically.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from tqdm.auto import tqdm

from pcl_lib import data, memory, methods, presets, ranks
from pcl_lib.errors import BadInput, exit_cleanly
from pcl_lib.files import check_writable, replace_atomically
from pcl_lib.models import PCL, save_checkpoint
from pcl_lib.presets import Preset

UPDATES = ("sequential", "joint")


@dataclass
class Run:
    """A finished (or resumed) run: the model in eval mode, a row an epoch, where it lies, seconds spent."""

    model: PCL
    method: methods.Method
    history: pd.DataFrame
    folder: Path
    seconds: float
    precision: str


def fit(
    method: str = "pcl",
    *,
    preset: Preset | str,
    faces: data.PreparedFaces,
    out: Path | str,
    seed: int = 0,
    devices: int = 1,
    progress: bool = True,
    watch: Callable[[PCL, pd.DataFrame], bool] | None = None,
) -> Run:
    """Pre-train on the training split of `faces`; resumes where `out` holds a checkpoint of the same settings.

    Writes out/checkpoints/<method>.safetensors and .state, and out/logs/<method>.csv.
    devices: processes or GPUs that share the batches of the preset, with the results of one (`pcl_lib.ranks`); where
    torchrun started this process, its numbers hold. watch: called after each epoch with the model and the history;
    where it returns True, training stops there with a checkpoint to go on from. Raises BadInput on bad settings or
    data, on a checkpoint of other settings, on NaN or inf losses and where memory runs out (the last checkpoint stays).
    """
    preset = presets.get(preset) if isinstance(preset, str) else preset
    fabric = start_fabric(preset, devices)
    trainer = _Trainer(method, preset, faces, Path(out), seed, fabric)
    trainer.resume()
    with tqdm(
        total=trainer.epochs,
        initial=trainer.epoch,
        desc=f"{method} ({fabric.device.type}, {trainer.precision})",
        unit="epoch",
        disable=not progress or ranks.rank() > 0 or trainer.epoch >= trainer.epochs,
    ) as bar:
        while trainer.epoch < trainer.epochs:
            means = trainer.next_epoch()
            bar.set_postfix({task: f"{means[task]:.3f}" for task in trainer.method.weights})
            bar.update()
            if watch is not None and watch(trainer.model, pd.DataFrame(trainer.history)):
                trainer.save()
                break
    if not trainer.epochs:
        trainer.save()
    history = pd.DataFrame(trainer.history)
    return Run(trainer.model.eval(), trainer.method, history, trainer.out, trainer.seconds, trainer.precision)


class _Trainer:
    """State of one run between epochs."""

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
            self.beside = self.method.attach(self.model, faces).to(fabric.device)
        if ranks.world() > 1:
            ranks.share_batch_norms(self.model)
            ranks.share_batch_norms(self.beside)
        self.parameters = [*self.model.parameters(), *filter(_is_trained, self.beside.parameters())]
        train = preset.train
        if train.update not in UPDATES:
            raise BadInput(f"unknown train.update '{train.update}': choose {' or '.join(UPDATES)}")
        self.optimizer = torch.optim.Adam(self.parameters, lr=train.lr, weight_decay=train.weight_decay)
        self.epochs = train.epochs if self.method.tasks else 0
        self.epoch, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        if self.method.tasks:
            self._open_data(faces)

    def _open_data(self, faces: data.PreparedFaces) -> None:
        rows = faces.split("train")
        train = self.preset.train  # the same number of iterations for every method
        batch = max(train.pdd_batch, train.face_batch, train.pose_batch)
        if uneven := [task for task in self.method.tasks if task.batch % ranks.world()]:
            raise BadInput(
                f"the batch of {uneven[0].batch} of task '{uneven[0].name}' cannot be shared evenly by {ranks.world()} "
                "processes: change train.*_batch, or use another number of processes"
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
            size = task.batch // ranks.world()
            start = step * task.batch + ranks.rank() * size
            yield task.take(self.source, rows[start : start + size], rng)

    def next_epoch(self) -> dict[str, float]:
        """`run_epoch`, with a plain sentence where another process has gone."""
        try:
            return self.run_epoch()
        except RuntimeError as error:
            if not ranks.has_lost_another(error):
                raise
        raise BadInput(f"another process ended: its own message says why; kept: {self._kept}")

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch, log it, save where it is due; returns its mean losses."""
        start = time.perf_counter()
        generator = torch.Generator(self.fabric.device)
        generator.manual_seed((self.seed * 1_000_003 + self.epoch) * 1009)
        self.model.train()
        self.beside.train()
        batches = [self._batches(task, number) for number, task in enumerate(self.method.tasks)]
        logged = []
        for step in range(self.steps):
            self._set_lr((self.epoch * self.steps + step) / (self.epochs * self.steps))
            values = self._iteration([next(images) for images in batches], generator)
            logged.append(torch.stack([value.float() for value in values.values()]))
        means = self._close_epoch(list(values), torch.stack(logged), time.perf_counter() - start)
        if self.epoch % self.preset.train.checkpoint_every == 0 or self.epoch == self.epochs:
            self.save()
        return means

    def _iteration(self, batches: list[Any], generator: torch.Generator) -> dict[str, torch.Tensor]:
        """One optimiser step for each task, or one for the sum of their weighted losses; the losses by name."""
        joint = self.preset.train.update == "joint"
        values: dict[str, torch.Tensor] = {}
        for task, images in zip(self.method.tasks, batches, strict=True):
            if not (joint and values):
                self.optimizer.zero_grad(set_to_none=True)
            parts = self._backward(task, images, generator)
            if not joint:
                self._update()
            values |= {name: value.detach() for name, value in parts.items()}
        if joint:
            self._update()
        return values

    def _backward(
        self, task: methods.Task, images: Any, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        try:
            return self._gradients(task, images, generator)
        except RuntimeError as error:
            if not memory.is_full(error):
                raise
        raise BadInput(self._too_large(task, images))  # out here nothing holds the failed attempt's tensors

    def _gradients(
        self, task: methods.Task, images: Any, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        with self.fabric.autocast():
            parts = task.loss(self.model, images, generator)
        self.fabric.backward(self.method.weights[task.name] * parts[task.name])
        return parts

    def _too_large(self, task: methods.Task, images: Any) -> str:
        """The sentence for a batch that does not fit, with one that was tried and does."""
        advice = "not even a batch of 2 fits: lower model.width"
        if ranks.world() > 1:  # the other processes would not join in a trial
            advice = "lower the batches or use more processes"
        elif fits := memory.largest(images, partial(self._trial, task)):
            small = memory.smaller(self.preset, fits)
            advice = f"a batch of {fits} fits: lower train.*_batch so far"
            advice += f", or take preset {' or '.join(small)}" if small else ""
        return (
            f"out of memory in task '{task.name}' with a batch of {task.batch} on {self.fabric.device}, epoch "
            f"{self.epoch + 1}: {advice}; kept: {self._kept}"
        )

    def _trial(self, task: methods.Task, images: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._gradients(task, images, torch.Generator(self.fabric.device))

    @property
    def _kept(self) -> str:
        return (
            f"the checkpoint of an earlier epoch is in {self._state}" if self._state.is_file() else "nothing"
        )

    def _update(self) -> None:
        ranks.average_gradients(self.parameters)
        self.optimizer.step()
        self.method.after_step(self.model)

    def _close_epoch(self, names: list[str], logged: torch.Tensor, seconds: float) -> dict[str, float]:
        """Read the losses back (the epoch's only wait for the device), refuse NaN, move the weights."""
        losses = ranks.mean(logged.double()).cpu().numpy()
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
        self.history.append({**row, "images": self.epoch * images, "lr": self._lr, **means, **weights})
        self.method.end_epoch(self.history)
        return means

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
            state = {name: getattr(self, name) for name in ("settings", "epoch", "seconds", "history")}
            state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            state |= {"beside": self.beside.state_dict()}
            with replace_atomically(self._state) as path:
                torch.save(state, path)
        self.fabric.barrier()

    def resume(self) -> None:
        """Go on from the training state in `out`, if there is one of these very settings."""
        if not self._state.is_file():
            check_writable(self._state.parent)
            return
        try:
            state: Any = torch.load(self._state, map_location=self.fabric.device, weights_only=True)
        except Exception as error:
            raise BadInput(
                f"{self._state} cannot be read ({type(error).__name__}): delete it to train from the start"
            ) from error
        if not isinstance(state, dict) or "settings" not in state:
            raise BadInput(
                f"{self._state} is not a training state of this kit: choose another --out, or delete it"
            )
        differ = list(differences(state["settings"], self.settings))
        if differ:
            raise BadInput(
                f"{self._state} is of a run with other settings ({'; '.join(differ[:4])}): choose another --out, or "
                "delete it"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.beside.load_state_dict(state.get("beside", {}))  # absent in states of older versions
        self.epoch, self.seconds, self.history = state["epoch"], state["seconds"], state["history"]
        self.method.end_epoch(self.history)


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """A phrase for each leaf in which two tables of settings differ: "preset.train.lr was 0.1, now 0.2".

    A setting that the kit did not have yet when the old table was written counts as at its default there.
    """
    if key == "preset":
        old = presets.completed(old)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif json.dumps(old) != json.dumps(new):
        yield f"{key} was {old}, now {new}"


def _is_trained(parameter: torch.nn.Parameter) -> bool:
    return parameter.requires_grad


def start_fabric(preset: Preset, devices: int = 1) -> Fabric:
    """A Fabric on the best device there is, with the preset's precision; the progress bar of `fit` names both."""
    # Its notes look like errors in a notebook.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision = preset.train.precision
    if precision == "auto":
        precision = "bf16-mixed" if has_fast_bf16() else "32-true"
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun, which knows how many
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = Fabric(
        accelerator="auto",
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def has_fast_bf16() -> bool:
    """Whether the GPU, or where there is none the processor, computes bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
    preset = presets.override(presets.get(arguments.preset), dict(map(parse_setting, arguments.set)))
    out = arguments.out or Path("runs") / preset.name
    faces = open_faces(arguments.data, preset, out.parent)
    print(f"{arguments.method} on {faces.name}: {len(faces.split('train'))} training images")
    run = fit(
        arguments.method, preset=preset, faces=faces, out=out, seed=arguments.seed, devices=arguments.devices
    )
    print(
        f"{run.seconds:.0f} s in {run.precision}; weights in {out}/checkpoints/{arguments.method}.safetensors"
    )


def open_faces(folder: Path | str | None, preset: Preset, runs: Path | str) -> data.PreparedFaces:
    """The prepared set in `folder`; where None, the preset's rendered faces, kept under `runs`/faces."""
    if folder:
        return data.PreparedFaces(folder)
    wanted = preset.faces
    people = "-".join(map(str, wanted.identities))
    name = f"rendered-{people}x{wanted.images_per_identity}-{wanted.size}px-clutter{wanted.clutter:g}"
    return data.prepare_rendered(
        Path(runs) / "faces" / name,
        identities=wanted.identities,
        images_per_identity=wanted.images_per_identity,
        size=wanted.size,
        clutter=wanted.clutter,
    )


def parse_setting(text: str) -> tuple[str, Any]:
    """'train.lr=1e-3' -> ("train.lr", 0.001). Raises BadInput on anything else than KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"--set {text}: KEY=VALUE is needed, e.g. train.lr=1e-3")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


if __name__ == "__main__":
    exit_cleanly(main)
