"""The rendered truth as the judge of a swap: what the face of A in the pose of B really looks like.

A photograph has no right answer to a swap; a rendered person has: the same factors with the other's yaw, pitch and
roll. Three questions are asked of the picture decoded from the face of A and the pose of B: how close it is to that
truth, whom a supervised reader recognises in it, and how far another reader finds its head turned. Both readers learn
from rendered pictures with labels and know nothing of the model; what they make of the true pictures stands beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from pcl_lib.data import resize_images
from pcl_lib.faces import render, sample_factors
from pcl_lib.faces.factors import NUMERIC, POSE
from pcl_lib.models.encoder import as_float
from pcl_lib.models.patches import PatchEncoder
from pcl_lib.presets import ModelPreset
from pcl_lib.probes.features import device_of, evaluating
from pcl_lib.utils import BadInput, spent

PEOPLE = 20  # whom the identity reader tells apart
PICTURES = 250  # rendered of each of them for that reader
STEPS, BATCH, LR = 500, 96, 2e-3  # of a reader
COARSEST = (
    28  # pixels a side to which a reader's training pictures are shrunk, at most: decoded pictures are soft
)
REPLICATES = 1000
PLAIN = {"background_gradient": 0.0, "background_contrast": 0.0, "noise": 0.0, "blur": 0.0, "occluder": 0}


@dataclass(frozen=True)
class Swaps:
    """Pairs of test images and the truth about their swaps.

    face, pose: row numbers [n] of A and B, of different people. shown_face, shown_pose, truth: uint8 [n, 3, S, S].
    head: bool [n, S, S], where the truth shows the head. person: [n], which of `numbers` A is. numbers: [PEOPLE] the
    people's numbers. angles: [n, 3], B's yaw, pitch and roll in degrees.
    """

    face: np.ndarray
    pose: np.ndarray
    shown_face: Tensor
    shown_pose: Tensor
    truth: Tensor
    head: Tensor
    person: np.ndarray
    numbers: np.ndarray
    angles: np.ndarray


def draw_swaps(faces: Any, size: int, n: int = 400, seed: int = 0) -> Swaps:
    """Draw n swaps among test images of a rendered set; every one of the PEOPLE gives a face equally often.

    faces: a prepared set with all factors of the renderer. size: side in pixels of the model's pictures.
    Raises BadInput where the set was not rendered or has fewer than PEOPLE test people.
    """
    if missing := [name for name in (*NUMERIC, "identity") if name not in faces.table]:
        raise BadInput(f"{faces.name} has no {missing[0]}: only swaps of rendered faces have a truth")
    rows = faces.split("test")
    identity = faces.table["identity"].to_numpy()
    numbers = np.unique(identity[rows])[:PEOPLE]
    if len(numbers) < PEOPLE:
        raise BadInput(f"{faces.name} has {len(numbers)} test people, and {PEOPLE} are needed to judge swaps")
    rng = np.random.default_rng([seed, 0x7207])
    person = np.resize(np.arange(PEOPLE), n)
    face = np.array([rng.choice(rows[identity[rows] == numbers[k]]) for k in person])
    pose = rng.choice(rows, n)
    while (alike := identity[face] == identity[pose]).any():
        pose[alike] = rng.choice(rows, int(alike.sum()))
    turned = turn(faces.table, face, pose)
    of_a, of_b = (resize_images(faces.images(r), size) for r in (face, pose))
    truth, head = _drawn_as(faces, turned, size), head_mask(turned, size)
    return Swaps(face, pose, of_a, of_b, truth, head, person, numbers, turned[list(POSE)].to_numpy(float))


def _drawn_as(faces: Any, factors: pd.DataFrame, size: int) -> Tensor:
    """Faces drawn and made smaller as the set's images are: drawn small at once, they would be sharper."""
    return resize_images(render(factors, faces.image_size), size)


def turn(
    table: pd.DataFrame, face: np.ndarray, pose: np.ndarray, swapped: Sequence[str] = POSE
) -> pd.DataFrame:
    """The factors of the rows `face` with those in `swapped` of the rows `pose`: what `render` needs, [n] rows."""
    factors = table[list(NUMERIC)].iloc[face].reset_index(drop=True)
    factors[list(swapped)] = table[list(swapped)].iloc[pose].to_numpy()
    return factors


def head_mask(factors: pd.DataFrame, size: int) -> Tensor:
    """Where these faces show the head, hair and glasses rather than the background: bool [n, size, size].

    Rendered twice, before black and before white, without occluder, noise and blur: the head is what stays.
    """
    shades = [
        factors.assign(**PLAIN, background_r=tone, background_g=tone, background_b=tone)
        for tone in (0.0, 1.0)
    ]
    black, white = (render(shade, size).int() for shade in shades)
    return (black - white).abs().amax(
        1
    ) < 64  # of 255: a pixel of the outline belongs to what fills most of it


def report(
    model: Any, faces: Any, readers: Readers | None = None, *, n: int = 400, seed: int = 0
) -> pd.DataFrame:
    """Judge a model's swaps by the rendered truth.

    model: with `image_size`, `features` (or `decoder_features`) and `decode`, as `PCL`. faces: see `draw_swaps`.
    readers: those of the same faces and seed (`fit_probes`) where several models are judged; None fits them here.
    Returns a row per measure, with value, low and high (95% bootstrap over the people who give faces), n and:
    - "score L1", "score L1 head", "score SSIM", "score SSIM head": 0 for showing A unturned, 1 for the model's own
      plain reconstruction of the true picture; NaN where that is no better than A unturned. unturned, plain and
      swapped: the mean L1 distances or SSIMs themselves;
    - "identity rank-1": share of swapped pictures in which the reader recognises A among PEOPLE;
    - "yaw MAE", "pitch MAE", "roll MAE": degrees between what the reader finds in the picture and B's angle;
      for both kinds `on_truth` is the same measure of the true pictures.
    Source: ours.
    """
    swaps = draw_swaps(faces, model.image_size, n, seed)
    readers = readers or fit_probes(faces, model.image_size, seed)
    swapped, plain = decoded(model, swaps)
    weights = resampled(swaps.person, seed)
    rows = _scores(swapped, plain, swaps, weights)
    right = [readers.identity(x) == swaps.person for x in (swapped, swaps.truth)]
    rows.append({"measure": "identity rank-1"} | _mean(right, weights))
    errors = [np.abs(readers.pose(x) - swaps.angles) for x in (swapped, swaps.truth)]
    for i, angle in enumerate(POSE):
        rows.append({"measure": f"{angle} MAE"} | _mean([x[:, i] for x in errors], weights))
    return pd.DataFrame(rows).assign(n=n)


def scores(model: Any, swaps: Swaps, seed: int = 0) -> pd.DataFrame:
    """The rows of `report` that need no readers: the four scores of a model's swaps."""
    found = _scores(*decoded(model, swaps), swaps, resampled(swaps.person, seed))
    return pd.DataFrame(found).assign(n=len(swaps.face))


def _scores(swapped: Tensor, plain: Tensor, swaps: Swaps, weights: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for measure, distance in MEASURES.items():
        for region in ("", " head"):
            found = [distance(picture, swaps, bool(region)) for picture in (swaps.shown_face, plain, swapped)]
            rows.append({"measure": f"score {measure}{region}"} | _score(found, weights))
    return rows


def decoded(model: Any, swaps: Swaps, batch: int = 128) -> tuple[Tensor, Tensor]:
    """The model's swaps and its plain reconstructions of the true pictures: float32 [n, 3, S, S] in 0..1 each."""
    read, device = getattr(model, "decoder_features", model.features), device_of(model)
    parts: list[tuple[Tensor, Tensor]] = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(swaps.face), batch):
            shown = (swaps.shown_face, swaps.shown_pose, swaps.truth)
            face, pose, true = (read(images[start : start + batch].to(device)) for images in shown)
            face, pose = face.face, pose.pose
            pictures = model.decode(face, pose), model.decode(true.face, true.pose)
            parts.append(tuple(x.float().cpu().clamp(0, 1) for x in pictures))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _l1(pictures: Tensor, swaps: Swaps, head: bool) -> np.ndarray:
    """Minus the mean absolute difference to the truth, of each picture: [n]."""
    return -_over((as_float(pictures) - as_float(swaps.truth)).abs().mean(1), swaps.head if head else None)


def _ssim(pictures: Tensor, swaps: Swaps, head: bool) -> np.ndarray:
    """Structural similarity to the truth, of each picture: [n] (windows of 7 pixels)."""
    maps = [
        structural_similarity(a, b, channel_axis=0, data_range=1.0, full=True)[1].mean(0)
        for a, b in zip(as_float(pictures).numpy(), as_float(swaps.truth).numpy(), strict=True)
    ]
    return _over(torch.from_numpy(np.stack(maps)), swaps.head if head else None)


def _over(values: Tensor, mask: Tensor | None) -> np.ndarray:
    """Mean of maps [n, S, S] over all their pixels, or over those of the mask: [n]."""
    if mask is None:
        return values.mean((1, 2)).double().numpy()
    return ((values * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1)).double().numpy()


MEASURES: dict[str, Callable[[Tensor, Swaps, bool], np.ndarray]] = {"L1": _l1, "SSIM": _ssim}


def resampled(groups: np.ndarray, seed: int) -> np.ndarray:
    """Weights [1 + REPLICATES, n] of a bootstrap over groups [n]: the first row is all ones."""
    count = int(groups.max()) + 1
    draws = np.random.default_rng([seed, 0xB007]).multinomial(count, np.full(count, 1 / count), REPLICATES)
    return np.concatenate([np.ones((1, len(groups))), draws[:, groups]])


def _score(found: Sequence[np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """A row of a normalised score; found [3][n]: how close A unturned, plain and swapped are to the truth."""
    zero, one, own = (weights @ x / weights.sum(1) for x in found)
    gap = one - zero
    value = np.divide(own - zero, gap, out=np.full(len(gap), np.nan), where=gap > 0)
    means = {"unturned": abs(zero[0]), "plain": abs(one[0]), "swapped": abs(own[0])}
    return _interval(value) | means


def _mean(found: Sequence[np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """A row of a mean: found [2][n] is what the reader makes of the swapped and of the true pictures."""
    swapped, true = found
    return _interval(weights @ swapped / weights.sum(1)) | {"on_truth": float(np.mean(true))}


def _interval(values: np.ndarray) -> dict[str, float]:
    """The value itself, and the middle 95% of its replicates (NaN where some have no value)."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


@dataclass(frozen=True)
class Readers:
    """What tells person and pose from pictures: float in 0..1 or uint8, [n, 3, S, S], each.

    identity: -> [n], the place of a person in `Swaps.numbers`. pose: -> degrees [n, 3].
    """

    identity: Callable[[Tensor], np.ndarray]
    pose: Callable[[Tensor], np.ndarray]


def fit_probes(faces: Any, size: int, seed: int = 0) -> Readers:
    """Train both readers: of pose on the set's training images, of identity on new pictures of its PEOPLE.

    About two minutes on one core. The new pictures show the people in other poses, expressions and scenes than the
    set does; some of both readers' pictures are blurred, because decoded pictures are.
    """
    train = faces.split("train")
    images = resize_images(faces.images(train), size)
    angles = torch.tensor(faces.table[list(POSE)].iloc[train].to_numpy(np.float32))
    spread = angles.std(0)
    pose = fit_probe(images, angles / spread, 3, F.l1_loss, seed)
    rows = faces.split("test")
    numbers = np.unique(faces.table["identity"].to_numpy()[rows])[:PEOPLE]
    clutter = faces.info.get("settings", {}).get("clutter") or 0.0
    tables = [
        sample_factors(PICTURES, 7_000 + seed, identities=1, first_identity=int(number), clutter=clutter)
        for number in numbers
    ]
    new = _drawn_as(faces, pd.concat(tables, ignore_index=True), size)
    people = torch.arange(PEOPLE).repeat_interleave(PICTURES)
    identity = fit_probe(new, people, PEOPLE, F.cross_entropy, seed)
    return Readers(
        lambda x: read(identity, x).argmax(1).numpy(), lambda x: (read(pose, x) * spread).double().numpy()
    )


@spent("train")
def fit_probe(
    images: Tensor,
    targets: Tensor,
    outputs: int,
    error: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    steps: int = STEPS,
) -> nn.Module:
    """A small convolutional network from pictures, uint8 [n, 3, S, S], to targets [n, ...]; `steps` of Adam."""
    config = ModelPreset(image_size=images.shape[-1], norm="batch", backbone="patches", width=0.5)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        encoder = PatchEncoder(config)
        size = encoder.trunk(as_float(images[:2])).flatten(1).shape[1]
        network = nn.Sequential(_Trunk(encoder), nn.Flatten(), nn.Linear(size, outputs))
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        loss = error(network(_softened(as_float(images[rows]), generator)), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


class _Trunk(nn.Module):
    def __init__(self, encoder: PatchEncoder) -> None:
        super().__init__()
        self.layers = encoder.layers

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return y


def _softened(x: Tensor, generator: torch.Generator) -> Tensor:
    """The pictures, half the time shrunk by a random factor and enlarged again."""
    if torch.rand((), generator=generator) < 0.5:
        return x
    size = (
        int(torch.randint(COARSEST, x.shape[-1], (), generator=generator))
        if x.shape[-1] > COARSEST
        else COARSEST
    )
    small = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return F.interpolate(small, size=x.shape[2:], mode="bilinear")


@torch.inference_mode()
def read(network: nn.Module, pictures: Tensor) -> Tensor:
    """What a network of `fit_probe` makes of pictures [n, 3, S, S], uint8 or float in 0..1: [n, outputs]."""
    return torch.cat([network(as_float(part)) for part in pictures.split(256)])
