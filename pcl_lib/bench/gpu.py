"""`python -m pcl_lib.bench gpu-check`: whether a GPU gives the CPU's numbers, and how fast, in about three minutes.

On a machine without a GPU it is a rehearsal: the same calls on the CPU, at the smallest size.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from pcl_lib import augment, losses, methods
from pcl_lib.augment import batched
from pcl_lib.bench.limit import bench_share, product_rate
from pcl_lib.bench.timing import Bench
from pcl_lib.bench.training import random_images, trainer
from pcl_lib.faces import render, sample_factors
from pcl_lib.models import PCL
from pcl_lib.presets import PRESETS, Preset
from pcl_lib.utils import BadInput, has_fast_bf16

# Largest differences from the CPU's numbers, and why they are not zero.
TOLERANCES = {
    "losses": 1e-4,  # float32 sums in another order
    "views": 2e-5,  # as against torchvision in the tests
    "rendered pixels": 0.01,  # share of values that differ by more than one of 256 levels: edges of triangles
    "features": 1e-3,  # relative, a deep float32 network
    "gradients": 5e-3,  # relative, of one step
}


def bench_gpu(bench: Bench) -> None:
    """A GPU against the CPU: the same numbers, no waits inside a step, what pays, rates, utilisation, memory."""
    start, cuda = time.perf_counter(), bench.device.type == "cuda"
    print(f"gpu-check on {bench.device}" + ("" if cuda else ": a rehearsal, there is no GPU"), flush=True)
    with exact_products():
        found = differences(bench.device)
    for name, value in found.items():
        verdict = "ok" if value <= TOLERANCES[name] else "TOO LARGE"
        print(f"{name:16} differ from the CPU's by {value:.2g}, allowed {TOLERANCES[name]:g}: {verdict}")
    for preset in (PRESETS["cpu"], PRESETS["paper"]) if cuda else (PRESETS["smoke"],):
        if cuda:
            print(
                f"{preset.name}: waits for the device inside a step: {waits(preset, bench.device) or 'none'}"
            )
        bench_forms(bench, preset)
    half = torch.bfloat16 if has_fast_bf16() and cuda else torch.float32
    rate = product_rate(bench, half)
    for preset in (PRESETS["cpu"], PRESETS["paper"]) if cuda else (PRESETS["smoke"],):
        bench_share(bench, f"{preset.name} preset", preset, half, rate)
    print(f"gpu-check took {time.perf_counter() - start:.0f} s", flush=True)
    if wrong := [name for name, value in found.items() if not value <= TOLERANCES[name]]:
        raise BadInput(f"{', '.join(wrong)} on {bench.device} differ from the CPU's by more than is allowed")


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products without TF32, then as before."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def differences(device: torch.device) -> dict[str, float]:
    """Largest differences of the device's numbers from the CPU's, by the names of `TOLERANCES`."""
    factors = sample_factors(64, seed=0)
    drawn = render(factors, 64).float()
    there = render(factors, 64, device, backend="torch").cpu().float()
    images = drawn / 255
    view = augment.draw(64, 64, PRESETS["paper"].simclr_view, torch.Generator().manual_seed(0))
    on_device = augment.Draw(**{name: value.to(device) for name, value in vars(view).items()})
    there_too = batched.apply(images.to(device), on_device, 64).cpu()  # a GPU's form, also in a rehearsal
    found = {
        "losses": max(abs(a - b) for a, b in zip(loss_values("cpu"), loss_values(device), strict=True)),
        "views": float((augment.apply_views(images, view) - there_too).abs().max()),
        "rendered pixels": float(((drawn - there).abs() > 1).float().mean()),
    }
    (ours, slope), (theirs, other) = one_step(images, torch.device("cpu")), one_step(images, device)
    return found | {"features": relative(ours, theirs), "gradients": relative(slope, other)}


def relative(a: Tensor, b: Tensor) -> float:
    """Length of the difference over the length of a."""
    return float((a - b).norm() / a.norm())


def loss_values(device: torch.device | str) -> list[float]:
    """The contrastive losses and orthogonality of fixed random features."""
    g = torch.Generator().manual_seed(0)
    z, negatives = torch.randn(64, 128, generator=g), torch.randn(32, 8, 128, generator=g)
    mix, few = torch.rand(64, 62, generator=g), torch.rand(32, 8, generator=g)
    order, short = torch.randperm(62, generator=g), torch.randperm(8, generator=g)
    z, negatives, mix, few, order, short = (x.to(device) for x in (z, negatives, mix, few, order, short))
    face, pose = losses.face_logits(z, 0.1, mix, order), losses.pose_logits(z, negatives, 0.1, few, short)
    return [
        float(losses.info_nce(face)),
        float(losses.info_nce(pose)),
        float(losses.orthogonality(z, z.roll(1, 0))),
    ]


def one_step(images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features of images by a fixed model of the cpu preset, and the gradient of a reconstruction, on the CPU."""
    model = PCL(PRESETS["cpu"].model, seed=0).to(device).train()
    x = model.features(images.to(device))
    losses.reconstruction(model.decode(x.face, x.pose), images.to(device)).backward()
    slope = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return torch.cat(list(x), 1).detach().cpu(), slope.cpu()


def waits(preset: Preset, device: torch.device) -> str:
    """The first thing inside a warm step that waits for the GPU, as PyTorch names it; "" where nothing does."""
    for task in methods.build("pcl", preset).tasks:
        step = trainer(preset, task, device, False, torch.bfloat16)
        images = random_images(task.batch, preset.model.image_size, device)
        for _ in range(3):
            step(images)
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(images)
        except RuntimeError as error:
            return f"{task.name}: {str(error).splitlines()[0]}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return ""


def bench_forms(bench: Bench, preset: Preset) -> None:
    """Every task's step in the forms that a GPU has; one that fails is named with its reason and left out."""
    method = methods.build("pcl", preset)
    for task in method.tasks:
        images = random_images(task.batch, preset.model.image_size, bench.device)
        for name, make in forms(preset, task, bench.device).items():
            case = f"{preset.name} preset, {task.name} of {task.batch}"
            try:
                with exact_products():  # a form may change them
                    bench.time(case, name, partial(make(), images), count=task.batch, repeats=5, memory=True)
            except Exception as error:  # a compiler that is not there, an operation that no graph can hold
                print(f"{case}: {name} left out ({type(error).__name__}: {str(error).splitlines()[0][:100]})")


def forms(
    preset: Preset, task: methods.Task, device: torch.device
) -> dict[str, Callable[[], Callable[[Tensor], None]]]:
    """The ways to compute a step, by name, each made when it is timed; on a CPU those that it shares with a GPU."""
    single, half = torch.float32, torch.bfloat16

    def tf32() -> Callable[[Tensor], None]:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        return trainer(preset, task, device, False, single)

    made: dict[str, Callable[[], Callable[[Tensor], None]]] = {
        "float32": lambda: trainer(preset, task, device, False, single),
        "bfloat16, contiguous": lambda: trainer(preset, task, device, True, half),
        "bfloat16": lambda: trainer(preset, task, device, False, half),
    }
    if device.type == "cuda":
        made["CUDA graph, bfloat16"] = lambda: graphed(preset, task, device)
        made["torch.compile, bfloat16"] = lambda: trainer(preset, task, device, False, half, compiled=True)
        made["TF32"] = tf32
    return made


def graphed(preset: Preset, task: methods.Task, device: torch.device) -> Callable[[Tensor], None]:
    """A step as one CUDA graph: the host launches it once instead of some thousand kernels."""
    model = PCL(preset.model).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.train.lr, capturable=True)
    generator = torch.Generator(device).manual_seed(0)
    fixed = random_images(task.batch, preset.model.image_size, device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = task.loss(model, fixed, generator)[task.name]
        loss.backward()
        optimizer.step()

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        step()

    def replay(images: Tensor) -> None:
        fixed.copy_(images)
        graph.replay()

    return replay
