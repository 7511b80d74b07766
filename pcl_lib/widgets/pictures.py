"""The pictures that widgets show, as pure functions: models, images and numbers in, RGB arrays out; no Jupyter."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pcl_lib import augment
from pcl_lib.faces import render
from pcl_lib.faces.factors import NUMERIC, POSE
from pcl_lib.models import PCL
from pcl_lib.presets import ViewPreset
from pcl_lib.probes.directions import DirectionProbe
from pcl_lib.probes.features import evaluating
from pcl_lib.utils import BadInput

RGB = NDArray[np.uint8]  # [H, W, 3]
INK, FACE_INK, POSE_INK = (34, 34, 34), (0, 114, 178), (213, 94, 0)  # two of Okabe and Ito's, as in plots


def to_rgb(image: Tensor) -> RGB:
    """[3, H, W], uint8 or float in [0, 1] (clipped) -> uint8 [H, W, 3]."""
    if image.dtype != torch.uint8:
        image = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def png(picture: RGB) -> bytes:
    """uint8 [H, W, 3] as a PNG file; weak compression, because it is made anew at every move of a slider."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def gif(frames: Sequence[RGB], milliseconds: int = 120) -> bytes:
    """Pictures of one size, uint8 [H, W, 3], as a GIF that runs there and back without end."""
    first, *rest = (Image.fromarray(frame) for frame in [*frames, *frames[-2:0:-1]])
    buffer = io.BytesIO()
    first.save(buffer, "gif", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return buffer.getvalue()


def sheet(images: Tensor, captions: Sequence[Sequence[str]] = (), side: int = 96, letters: int = 15) -> RGB:
    """Images [R, C, 3, S, S] in a grid of tiles of `side` pixels, each over its caption (one line; none where empty).

    letters: size of the captions in pixels; 15 can still be read at half the width.

    Raises BadInput on another shape or a wrong number of captions.
    """
    if images.ndim != 5 or images.shape[2] != 3 or not images.numel():
        raise BadInput(f"a sheet needs images [rows, columns, 3, S, S], not {tuple(images.shape)}")
    down, across = images.shape[:2]
    if captions and [len(row) for row in captions] != [across] * down:
        raise BadInput(f"a sheet of {down} x {across} images needs as many captions")
    gap, text = 4, letters + 6 if captions else 0
    page = Image.new("RGB", (across * (side + gap), down * (side + gap + text)), "white")
    pen, font = ImageDraw.Draw(page), _font(letters)
    for place in range(down * across):
        r, c = divmod(place, across)
        tile = Image.fromarray(to_rgb(images[r, c])).resize((side, side), Image.Resampling.BICUBIC)
        x, y = c * (side + gap), r * (side + gap + text)
        page.paste(tile, (x, y))
        if captions:
            pen.text((x + side / 2, y + side + 2), captions[r][c], INK, font, anchor="ma")
    return np.asarray(page)


@cache
def _font(letters: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(letters)  # unpacked anew at each call, for milliseconds


# Swaps ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Donor:
    """One face: image uint8 [3, S, S], its features face [D] and pose [P], its true factors (one row) where known."""

    image: Tensor
    face: Tensor
    pose: Tensor
    factors: pd.DataFrame | None = None


def encode_donor(model: PCL, image: Tensor, factors: pd.DataFrame | None = None) -> Donor:
    """`PCL.decoder_features` of one image uint8 [3, S, S].

    factors: one row; kept where it holds all that the renderer reads.
    """
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode():
        _, face, pose = model.decoder_features(image[None].to(device))
    if factors is not None:
        known = set(NUMERIC) <= set(factors) and factors[list(NUMERIC)].notna().all(axis=None)
        factors = factors[list(NUMERIC)] if known else None
    return Donor(image, face[0], pose[0], factors)


def blends(
    model: PCL,
    a: Donor,
    b: Donor,
    face: Sequence[float],
    pose: Sequence[float],
    turn: float = 0.0,
    probe: DirectionProbe | None = None,
) -> Tensor:
    """Decoded blends of two faces: float [N, 3, S, S].

    face, pose: N shares each, 0 for a's feature, 1 for b's, straight lines between. turn: degrees of yaw by which the
    pose-related feature is moved on (`DirectionProbe.turn` of `probe`, one of that feature). face 0 and pose 1 is the
    swap: a's face in b's pose.
    """
    shares = torch.tensor([face, pose], dtype=torch.float32, device=a.face.device)[..., None]
    faces, poses = torch.lerp(a.face, b.face, shares[0]), torch.lerp(a.pose, b.pose, shares[1])
    if turn and probe is not None:
        poses = probe.turn(poses, "yaw", turn)
    with evaluating(model), torch.inference_mode():
        decoded: Tensor = model.decode(faces, poses)
    return decoded


def blend_truth(a: Donor, b: Donor, face: float, pose: float, turn: float, size: int) -> Tensor | None:
    """What a perfect model would draw, rendered: uint8 [3, size, size]; None where the factors are not known.

    The nearer face donor with yaw, pitch and roll between the donors' (`pose`), yaw turned on by `turn` degrees.
    """
    if a.factors is None or b.factors is None:
        return None
    shown = (b if face > 0.5 else a).factors
    assert shown is not None
    angles = {name: (1 - pose) * a.factors[name].iloc[0] + pose * b.factors[name].iloc[0] for name in POSE}
    angles["yaw"] += turn
    return render(shown.assign(**angles), size=size)[0]


STEPS = 7  # pictures in a line of the film strip


def film_strip(
    model: PCL,
    a: Donor,
    b: Donor,
    face: float,
    pose: float,
    turn: float = 0.0,
    probe: DirectionProbe | None = None,
) -> RGB:
    """The whole blend in two lines: pose from a to b with the face share held, face from a to b with the pose held.

    The captions are shares of b.
    """
    way = np.linspace(0, 1, STEPS).tolist()
    faces, poses = [face] * STEPS + way, way + [pose] * STEPS
    pictures = blends(model, a, b, faces, poses, turn, probe).unflatten(0, (2, STEPS))
    return sheet(pictures, [[f"{share:.0%}" for share in way]] * 2, side=88)


def swap_matrix(
    faces: Sequence[Donor], poses: Sequence[Donor], cells: Mapping[tuple[int, int], Tensor]
) -> Tensor:
    """Donors and the swaps made of them so far: float [1 + F, 1 + P, 3, S, S], white where there is none yet.

    Faces stand in the first column, poses in the first row. cells: (number of the face, of the pose) -> [3, S, S],
    float in [0, 1].
    """
    grid = torch.ones(1 + len(faces), 1 + len(poses), *faces[0].image.shape)
    grid[1:, 0] = torch.stack([donor.image for donor in faces]).cpu() / 255
    grid[0, 1:] = torch.stack([donor.image for donor in poses]).cpu() / 255
    for (face, pose), picture in cells.items():
        grid[1 + face, 1 + pose] = picture.cpu()
    return grid


# Views, neighbours, readings --------------------------------------------------------------------------------


def view_rows(
    image: Tensor, face_view: ViewPreset, pose_view: ViewPreset, count: int = 6, seed: int = 0
) -> Tensor:
    """Face views, pose views and pose negatives of one image uint8 [3, S, S]: float [3, count, 3, S, S].

    count: even, because quadrant crops come in pairs. Each line has its own draw, fixed by `seed`: a change of one
    line's settings leaves the other lines as they are.
    """
    lines = ((image, face_view), (image, pose_view), (image.flip(2), pose_view))
    drawn = []
    for number, (source, view) in enumerate(lines):
        generator = torch.Generator().manual_seed(seed * len(lines) + number)
        drawn.append(augment.views(source[None], view, generator, count))
    return torch.stack(drawn)


def nearest(features: Tensor, query: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the `count` rows of features [n, D] nearest to row `query` by cosine, itself left out; and cosines.

    The cosine is of deviations from the mean of all rows: what they share makes all faces look alike.
    """
    x = features.float()
    unit = F.normalize(x - x.mean(0), dim=1)
    cosine = unit @ unit[query]
    cosine[query] = -torch.inf
    found = cosine.topk(min(count, len(unit) - 1))
    return found.indices.cpu().numpy(), found.values.cpu().numpy()


@dataclass(frozen=True)
class Scale:
    """A line of `readings_chart`: a factor with its range, and its unit."""

    name: str
    low: float
    high: float
    unit: str = ""


def readings_chart(
    scales: Sequence[Scale], truth: Mapping[str, float], read: Mapping[str, Mapping[str, float]]
) -> RGB:
    """One line per factor: the true value as a bar across it, what is predicted from each branch as a dot (clipped).

    truth: by factor; read: branch ("face", "pose") -> by factor; factors that a branch lacks have no dot.
    """
    height, left, right, width = 26, 130, 150, 560
    page = Image.new("RGB", (width, height * (len(scales) + 1)), "white")
    pen, font = ImageDraw.Draw(page), _font(13)
    inks = {"face": FACE_INK, "pose": POSE_INK}
    pen.text((left, height / 2), "| true value", INK, font, anchor="lm")
    for start, branch in ((left + 80, "face"), (left + 210, "pose")):
        pen.ellipse((start - 12, height / 2 - 5, start - 2, height / 2 + 5), inks[branch])
        pen.text((start + 4, height / 2), f"from {branch}", inks[branch], font, anchor="lm")
    for number, scale in enumerate(scales, 1):
        y = height * number + height / 2

        def place(value: float, scale: Scale = scale) -> float:
            share = min(max((value - scale.low) / (scale.high - scale.low), 0.0), 1.0)
            return left + share * (width - left - right)

        pen.text((left - 10, y), scale.name.replace("_", " "), INK, font, anchor="rm")
        pen.line((left, y, width - right, y), (205, 205, 205), 2)
        numbers = [(truth[scale.name], INK)]
        pen.line((place(truth[scale.name]), y - 9, place(truth[scale.name]), y + 9), INK, 4)
        for branch, own in read.items():
            if scale.name in own:
                x = place(own[scale.name])
                pen.ellipse((x - 5, y - 5, x + 5, y + 5), inks[branch], "white")
                numbers.append((own[scale.name], inks[branch]))
        for column, (value, ink) in enumerate(numbers):
            value = round(value, 0 if scale.unit else 1) or 0.0  # not "-0"
            text = f"{value:.0f}{scale.unit}" if scale.unit else f"{value:.1f}"
            pen.text((width - right + 50 + 45 * column, y), text, ink, font, anchor="rm")
    return np.asarray(page)
