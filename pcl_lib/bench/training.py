"""The parts of `python -m pcl_lib.bench` about training: iterations, SimCLR by lightly, feeding, operators, sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF  # type: ignore[import-untyped]
from PIL import Image
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]
from torchvision.transforms import PILToTensor

from pcl_lib import augment, losses, methods, presets
from pcl_lib.bench.plain import (
    PlainPCL,
    pil_view,
    tensor_face_logits,
    tensor_orthogonality,
    tensor_pose_logits,
)
from pcl_lib.bench.timing import Bench
from pcl_lib.data import ImageSource, PreparedFaces, prepare_rendered, read_ahead
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float
from pcl_lib.presets import PRESETS, Preset, ViewPreset
from pcl_lib.utils import has_fast_bf16

SMALL = {
    "train.pdd_batch": 16,
    "train.face_batch": 16,
    "train.pose_batch": 2,
}  # of the paper's 256, 256 and 10
FEED_STEPS = 12


def best_dtype() -> torch.dtype:
    """What the kit trains in on this machine."""
    return torch.bfloat16 if has_fast_bf16() else torch.float32


def stepper(
    preset: Preset, task: methods.Task, device: torch.device, plain: bool, dtype: torch.dtype
) -> Callable[[], None]:
    """One optimiser step of a task on random images, of a model of its own."""
    step = trainer(preset, task, device, plain, dtype)
    return partial(step, random_images(task.batch, preset.model.image_size, device))


def trainer(
    preset: Preset,
    task: methods.Task,
    device: torch.device,
    plain: bool,
    dtype: torch.dtype,
    compiled: bool = False,
) -> Callable[[Tensor], None]:
    """One optimiser step of a task on the images it is given, of a model of its own."""
    model = (PlainPCL if plain else PCL)(preset.model).to(device).train()
    if compiled:
        model.encoder.trunk = torch.compile(model.encoder.trunk)  # type: ignore[method-assign]
        for part in (model.encoder.face_branch, model.encoder.pose_branch, model.decoder):
            part.compile()
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.train.lr)
    generator = torch.Generator(device).manual_seed(0)

    def step(images: Tensor) -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = task.loss(model, images, generator)[task.name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def random_images(count: int, size: int, device: torch.device) -> Tensor:
    """uint8 [count, 3, size, size]."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, device=device, generator=generator)


# One whole iteration ----------------------------------------------------------------------------------------


class Straightforward:
    """The three tasks as notebooks/method.md tells them, without a thought for speed."""

    def __init__(self, preset: Preset, device: torch.device) -> None:
        self.preset, self.device = preset, device
        self.model = PlainPCL(preset.model).to(device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=preset.train.lr)
        self.generator = torch.Generator().manual_seed(0)

    def pdd(self, images: Tensor) -> Tensor:
        """Two encoder passes, four decoder passes, orthogonality by the D x D matrix."""
        model, noise = self.model, self.preset.loss.noise
        s = as_float(images)
        f = s.flip(3)
        _, face_s, pose_s = model.features(s + noise * torch.randn_like(s))
        _, face_f, pose_f = model.features(f + noise * torch.randn_like(f))
        swaps = ((face_s, pose_s, s), (face_f, pose_f, f), (face_f, pose_s, s), (face_s, pose_f, f))
        loss = tensor_orthogonality(face_s, pose_s) + tensor_orthogonality(face_f, pose_f)
        for face, pose, target in swaps:
            loss = loss + F.l1_loss(model.decode(face, pose), target)
        return loss

    def face(self, images: Tensor) -> Tensor:
        """Views one by one; all mixed negatives in one tensor."""
        z = self.model.face_projector(self.model.features(self._views(images, self.preset.face_view, 2)).face)
        n = len(z)
        mix = losses.draw_mix((n, n - 2), self.preset.loss.mixing, self.device, None)
        permutation = torch.randperm(n - 2, device=self.device)
        return losses.info_nce(tensor_face_logits(z, self.preset.loss.temperature, mix, permutation))

    def pose(self, images: Tensor) -> Tensor:
        """Views one by one; every mixed negative once for each of the two views."""
        count, view = self.preset.train.pose_negatives, self.preset.pose_view
        x = torch.cat([self._views(images, view, 2), self._views(images.flip(3), view, count)])
        z = self.model.pose_projector(self.model.features(x).pose)
        negatives = z[2 * len(images) :].view(count, len(images), -1).transpose(0, 1)
        mix = losses.draw_mix((len(images), count), self.preset.loss.mixing, self.device, None)
        permutation = torch.randperm(count, device=self.device)
        temperature = self.preset.loss.temperature
        return losses.info_nce(
            tensor_pose_logits(z[: 2 * len(images)], negatives, temperature, mix, permutation)
        )

    def _views(self, images: Tensor, view: ViewPreset, copies: int) -> Tensor:
        size = images.shape[-1]
        pictures = [TF.to_pil_image(image) for image in images.cpu()] * copies
        drawn = augment.draw(len(pictures), size, view, self.generator)
        made = [pil_view(picture, drawn, row, size) for row, picture in enumerate(pictures)]
        return torch.stack(made).to(self.device)

    def __call__(self, batches: dict[str, Tensor]) -> None:
        """One optimiser step for each task."""
        for name, images in batches.items():
            loss = getattr(self, name)(images)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()


def ours(preset: Preset, device: torch.device, dtype: torch.dtype) -> Callable[[dict[str, Tensor]], None]:
    """One whole iteration as the kit computes it."""
    model = PCL(preset.model).to(device).train()
    method = methods.build("pcl", preset)
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.train.lr)
    generator = torch.Generator(device).manual_seed(0)

    def iteration(batches: dict[str, Tensor]) -> None:
        for task in method.tasks:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = task.loss(model, batches[task.name], generator)[task.name]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return iteration


def bench_iteration(bench: Bench) -> None:
    """One whole iteration of three tasks: the straightforward float32 version against the kit's."""
    paper = presets.override(PRESETS["paper"], SMALL)
    for case, preset in (("cpu preset", PRESETS["cpu"]), ("paper network", paper)):
        tasks = methods.build("pcl", preset).tasks
        batches = {t.name: random_images(t.batch, preset.model.image_size, bench.device) for t in tasks}
        where = f"{case}, batches {' + '.join(str(len(part)) for part in batches.values())}"
        time = partial(bench.time, where, count=sum(map(len, batches.values())), repeats=3)
        time("straightforward, float32", partial(Straightforward(preset, bench.device), batches))
        time("the kit, float32", partial(ours(preset, bench.device, torch.float32), batches))
        if has_fast_bf16():
            time("the kit, bfloat16", partial(ours(preset, bench.device, torch.bfloat16), batches))


# SimCLR by lightly ------------------------------------------------------------------------------------------


def bench_simclr(bench: Bench) -> None:
    """A SimCLR step of the cpu preset in float32: lightly's transforms and loss against the kit's."""
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform

    preset = PRESETS["cpu"]
    (task,) = methods.build("simclr", preset).tasks
    size, view = preset.model.image_size, preset.simclr_view
    images = random_images(task.batch, size, bench.device)
    pictures = [TF.to_pil_image(image) for image in images.cpu()]
    transform = SimCLRTransform(
        input_size=size,
        cj_strength=1.0,
        min_scale=view.crop_scale[0],
        gaussian_blur=view.blur,
        normalize=None,
    )
    model = PCL(preset.model).to(bench.device).train()
    optimizer, criterion = torch.optim.Adam(model.parameters()), NTXentLoss(preset.loss.temperature)

    def lightly_views() -> list[Tensor]:
        pairs: list[Any] = [transform(picture) for picture in pictures]
        return [torch.stack([pair[i] for pair in pairs]).to(bench.device) for i in (0, 1)]

    def lightly_step(two: list[Tensor] | None = None) -> None:
        one, other = (model.face_projector(model.general_feature(x)) for x in two or lightly_views())
        optimizer.zero_grad(set_to_none=True)
        criterion(one, other).backward()
        optimizer.step()

    step = stepper(preset, task, bench.device, False, torch.float32)
    generator = torch.Generator(bench.device).manual_seed(0)
    time = partial(bench.time, count=task.batch)
    time("whole step", "lightly", lightly_step)
    time("whole step", "the kit", step)
    time("views alone", "lightly", lightly_views)
    time("views alone", "the kit", lambda: augment.views(images, view, generator, 2))
    z = torch.randn(2 * task.batch, preset.model.projector_out, device=bench.device, requires_grad=True)
    time("loss alone, forward and backward", "lightly", lambda: criterion(*z.chunk(2)).backward())
    temperature = preset.loss.temperature
    time(
        "loss alone, forward and backward",
        "the kit",
        lambda: losses.info_nce(losses.plain_logits(z, temperature)).backward(),
    )


# Feeding ----------------------------------------------------------------------------------------------------


def jpeg_folder(faces: PreparedFaces, folder: Path) -> ImageFolder:
    """The images of a prepared set as JPEGs in one folder, as many data sets come."""
    (folder / "all").mkdir(parents=True)
    for row in range(len(faces)):
        image = faces.images(np.array([row]))[0].permute(1, 2, 0).numpy()
        Image.fromarray(image).save(folder / "all" / f"{row:05d}.jpg", quality=95)
    return ImageFolder(str(folder), transform=PILToTensor())


def loaded(images: ImageFolder, batch: int, workers: int) -> Iterator[Tensor]:
    """Endless batches by PyTorch's DataLoader."""
    loader: Any = torch.utils.data.DataLoader(
        images, batch, shuffle=True, num_workers=workers, drop_last=True
    )
    while True:
        for x, _ in loader:
            yield x


def bench_data(bench: Bench) -> None:
    """Training steps fed in several ways (cpu preset, face task): "faster" is relative to constant data."""
    preset = PRESETS["cpu"]
    task = next(t for t in methods.build("pcl", preset).tasks if t.name == "face")
    step = trainer(preset, task, bench.device, False, best_dtype())
    with tempfile.TemporaryDirectory() as temporary:
        faces = prepare_rendered(
            Path(temporary, "faces"), identities=(60, 2, 2), images_per_identity=12, size=preset.faces.size
        )
        rows, rng = faces.split("train"), np.random.default_rng(0)
        picks = cycle([rng.choice(rows, task.batch) for _ in range(50)])
        constant = ImageSource(faces, rows, bench.device).take(rows[: task.batch])
        jpegs = jpeg_folder(faces, Path(temporary, "jpegs"))
        mapped = ImageSource(faces, rows, bench.device, resident=False)
        feeds: dict[str, Iterator[Tensor]] = {
            "constant": cycle([constant]),
            "resident": map(ImageSource(faces, rows, bench.device, resident=True).take, picks),
            "memory-mapped": map(mapped.take, picks),
            "memory-mapped, read ahead": read_ahead(map(mapped.take, picks), mapped),
            "JPEG folder, no worker": loaded(jpegs, task.batch, 0),
            "JPEG folder, 2 workers": loaded(jpegs, task.batch, 2),
        }
        time = partial(bench.time, f"{FEED_STEPS} steps of {task.batch}", count=FEED_STEPS * task.batch)
        for name, feed in feeds.items():
            time(name, partial(_steps, step, feed))
        feeds.clear()  # ends the workers before their folder goes


def _steps(step: Callable[[Tensor], None], feed: Iterator[Tensor]) -> None:
    for images in islice(feed, FEED_STEPS):
        step(images)


# Where the time goes ----------------------------------------------------------------------------------------


def hottest(call: Callable[[], object], device: torch.device, many: int = 10) -> list[tuple[str, float, int]]:
    """The operators of a call that take most time themselves: name, milliseconds, calls; and last the rest."""
    activities = [ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        call()
    kind = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, kind))
    rows = [(event.key, getattr(event, kind) / 1e3, event.count) for event in events]
    return [
        *rows[:many],
        ("all others", sum(ms for _, ms, _ in rows[many:]), sum(n for *_, n in rows[many:])),
    ]


def bench_operators(bench: Bench) -> None:
    """The ten hottest operators of each step of the paper's network, in plain float32 and as the kit computes it."""
    preset = presets.override(PRESETS["paper"], SMALL)
    for task in methods.build("pcl", preset).tasks:
        for form, plain, dtype in (("before", True, torch.float32), ("after", False, best_dtype())):
            step = stepper(preset, task, bench.device, plain, dtype)
            step()
            rows = hottest(step, bench.device)
            total = sum(ms for _, ms, _ in rows)
            for name, ms, calls in rows:
                case, note = f"{task.name} of {task.batch}, {form}", f"{ms / total:.0%} of the step"
                bench.keep(case, name, np.array([ms]), count=calls, unit="calls", note=note, ratio=1.0)


def bench_sizes(bench: Bench) -> None:
    """A PDD step by batch and by width, in what the kit trains in: the cost that figures/benchmarks.png draws."""
    base = PRESETS["paper"]
    for width, batch in [(0.25, 8), (0.25, 16), (0.25, 32), (0.25, 64), (0.125, 16), (0.5, 16), (1.0, 16)]:
        preset = replace(
            base, model=replace(base.model, width=width), train=replace(base.train, pdd_batch=batch)
        )
        task = methods.build("pcl", preset).tasks[0]
        step = stepper(preset, task, bench.device, False, best_dtype())
        bench.time(f"width {width:g}, batch {batch}", "the kit", step, count=batch, repeats=3)
