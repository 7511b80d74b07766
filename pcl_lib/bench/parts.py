"""The parts of the benchmark about rendering, views, losses and training steps, and the list of all parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchvision.transforms.functional as TF  # type: ignore[import-untyped]
from torch import Tensor

from pcl_lib import augment, losses, methods, presets
from pcl_lib.bench import choice, gpu, limit, preparation, probing, scaling, start
from pcl_lib.bench import training as bench_training
from pcl_lib.bench import widgets as bench_widgets
from pcl_lib.bench.plain import pil_view, tensor_face_logits
from pcl_lib.bench.timing import Bench, threads
from pcl_lib.bench.training import stepper
from pcl_lib.faces import render, sample_factors
from pcl_lib.models.encoder import as_float
from pcl_lib.presets import PRESETS, ViewPreset
from pcl_lib.utils import has_fast_bf16

# Parts ------------------------------------------------------------------------------------------------------


def bench_faces(bench: Bench) -> None:
    """Rendered faces by size and threads; the first form is one thread, and twice the images take twice the time."""
    for size in (32, 48, 64, 128):
        for count in (1, 2):
            with threads(count):
                factors = sample_factors(256, seed=0)
                form = f"{count} thread{'s' * (count > 1)}"
                bench.time(f"{size} px", form, partial(render, factors, size), count=256)
            if bench.device.type == "cuda":
                on_gpu = partial(render, factors, size, bench.device)
                bench.time(f"{size} px", "GPU", on_gpu, count=256)
    factors = sample_factors(512, seed=0)
    bench.time("linear in images, 64 px", "256 images", partial(render, factors.iloc[:256]), count=256)
    bench.time("linear in images, 64 px", "512 images", partial(render, factors), count=512)


def bench_augment(bench: Bench) -> None:
    """The three chains of the paper preset on 256 images of 64 pixels, from uint8 to float views."""
    count, size, paper = 256, 64, PRESETS["paper"]
    images = render(sample_factors(count, seed=0), size=size)
    pictures = [TF.to_pil_image(image) for image in images]
    images = images.to(bench.device)

    def one_by_one(view: ViewPreset, own_blur: bool) -> Tensor:
        drawn = augment.draw(count, size, view, torch.Generator().manual_seed(0))
        return torch.stack(
            [pil_view(picture, drawn, row, size, own_blur) for row, picture in enumerate(pictures)]
        )

    def batched(view: ViewPreset) -> Tensor:
        drawn = augment.draw(count, size, view, torch.Generator(bench.device).manual_seed(0))
        return augment.apply_views(as_float(images), drawn)

    for case, view in (("face", paper.face_view), ("pose", paper.pose_view), ("simclr", paper.simclr_view)):
        for form, own_blur in (("torchvision on PIL", False), ("the same, PIL's own blur", True)):
            bench.time(case, form, partial(one_by_one, view, own_blur), count=count, unit="views")
        bench.time(case, "batched", partial(batched, view), count=count, unit="views")


def bench_losses(bench: Bench) -> None:
    """InfoNCE with mixed negatives, forward and backward, D = 512: the tensor form against the Gram form."""
    for batch in (64, 128, 256, 512, 1024, 2048, 4096):
        n, generator = 2 * batch, torch.Generator(bench.device).manual_seed(0)
        z = torch.randn(n, 512, device=bench.device, generator=generator).requires_grad_()
        mix = losses.draw_mix((n, n - 2), 1.6, bench.device, generator)
        permutation = torch.randperm(n - 2, device=bench.device, generator=generator)

        if batch <= 256:  # beyond, the tensors alone would take tens of gigabytes
            call = partial(_forward_backward, tensor_face_logits, z, mix, permutation)
            bench.time(f"B = {batch}", "tensor", call, unit="calls", memory=True, repeats=3)
        call = partial(_forward_backward, losses.face_logits, z, mix, permutation)
        repeats = bench.repeats if batch <= 1024 else 1
        bench.time(f"B = {batch}", "Gram", call, unit="calls", memory=True, repeats=repeats)


def _forward_backward(form: Callable[..., Tensor], z: Tensor, mix: Tensor, permutation: Tensor) -> None:
    z.grad = None
    losses.info_nce(form(z, 0.07, mix, permutation)).backward()


def bench_step(bench: Bench) -> None:
    """One optimiser step of each task: the cpu preset as it is, and the paper's network on smaller batches.

    Images are those of the data set that a step takes, however many views the encoder sees of each.
    """
    paper = presets.override(PRESETS["paper"], bench_training.SMALL)
    forms = [("float32", True, torch.float32), ("float32, layouts", False, torch.float32)]
    half = [("bfloat16", True, torch.bfloat16), ("bfloat16, layouts", False, torch.bfloat16)]
    cases = [("cpu preset", name, PRESETS["cpu"], bench.repeats) for name in ("pcl", "pcl_plus", "simclr")]
    for case, name, preset, repeats in [*cases, ("paper network", "pcl", paper, 3)]:
        method = methods.build(name, preset)
        for task in method.tasks:
            for form, plain, dtype in forms + (half if has_fast_bf16() else []):
                step = stepper(method.preset, task, bench.device, plain, dtype)
                where = f"{case}, {name}, {task.name} of {task.batch}"
                bench.time(where, form, step, count=task.batch, repeats=repeats)


PARTS: dict[str, Callable[[Bench], None]] = {
    "faces": bench_faces,
    "augment": bench_augment,
    "losses": bench_losses,
    "step": bench_step,
    "choice": choice.bench_choice,
    "limit": limit.bench_limit,
    "probes": probing.bench_probes,
    "iteration": bench_training.bench_iteration,
    "simclr": bench_training.bench_simclr,
    "data": bench_training.bench_data,
    "operators": bench_training.bench_operators,
    "sizes": bench_training.bench_sizes,
    "scaling": scaling.bench_scaling,
    "prepare": preparation.bench_prepare,
    "index": preparation.bench_index,
    "start": start.bench_start,
    "widgets": bench_widgets.bench_widgets,
    "gpu-check": gpu.bench_gpu,
}
