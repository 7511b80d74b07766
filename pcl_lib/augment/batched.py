"""Batched views: every image gets its own draw, on the batch's device (notebooks/method.md, sections 4 and 5).

A GPU takes the operations below, each on the whole batch; a CPU the same in compiled code (`augment.compiled`).

`draw` takes the random numbers of a whole batch from one Generator; `apply_views` is then a pure
function of images and draw. Colour operations equal torchvision's functional ones on float images,
crops its antialiased bilinear `resized_crop`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib.presets import ViewPreset
from pcl_lib.utils import BadInput

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision
QUADRANT_CROP = 0.4  # side of a quadrant crop, of the image's


@dataclass(frozen=True)
class Draw:
    """The random numbers of a batch of N views; NaN-free, one row an image.

    top, left, height, width: crop box in whole pixels, LongTensor [N]. flip, grey, jitter, blur,
    gradient: bool [N]. order: [N, 4] the order of brightness 0, contrast 1, saturation 2, hue 3.
    factors: [N, 4] their factors (hue in turns). sigma: [N] pixels.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor
    factors: Tensor
    grey: Tensor
    blur: Tensor
    sigma: Tensor
    gradient: Tensor

    def rows(self, index: Tensor) -> Draw:
        """The draw of some of the views; index: LongTensor."""
        return Draw(**{field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)})


def draw(n: int, image_size: int, view: ViewPreset, generator: torch.Generator) -> Draw:
    """Draw the parameters of n views of square images, on the generator's device."""
    device = generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, device=device, generator=generator) * (high - low) + low

    ranges = [_range(view.brightness), _range(view.contrast), _range(view.saturation), (-view.hue, view.hue)]
    return Draw(
        **_boxes(n, image_size, view, generator),
        flip=uniform(0, 1) < view.flip,
        jitter=uniform(0, 1) < view.jitter,
        order=uniform(0, 1, 4).argsort(1),
        factors=torch.stack([uniform(low, high) for low, high in ranges], 1),
        grey=uniform(0, 1) < view.grey,
        blur=uniform(0, 1) < view.blur,
        sigma=uniform(*view.blur_sigma),
        gradient=uniform(0, 1) < view.gradient,
    )


def _range(strength: float) -> tuple[float, float]:
    return max(0.0, 1 - strength), 1 + strength


def _boxes(n: int, size: int, view: ViewPreset, generator: torch.Generator) -> dict[str, Tensor]:
    rand = torch.rand(4, n, device=generator.device, generator=generator)
    if view.crop == "none":
        zero = torch.zeros(n, dtype=torch.long, device=generator.device)
        return {"top": zero, "left": zero, "height": zero + size, "width": zero + size}
    if view.crop == "resized":
        low, high = view.crop_scale
        area = (rand[0] * (high - low) + low) * size * size
        ratio = torch.exp((rand[1] * 2 - 1) * math.log(4 / 3))
        height, width = ((area * r).sqrt().round().clamp(1, size).long() for r in (1 / ratio, ratio))
    else:
        return _quadrant_boxes(rand, size, generator)
    top, left = ((r * (size - side + 1)).long() for r, side in ((rand[2], height), (rand[3], width)))
    return {"top": top, "left": left, "height": height, "width": width}


def _quadrant_boxes(rand: Tensor, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Rows n/2 apart belong to one image: their centres lie in two different quadrants of it."""
    side = round(QUADRANT_CROP * size)
    half = rand.shape[1] // 2
    first = torch.randint(4, (half,), device=rand.device, generator=generator)
    other = (first + torch.randint(1, 4, (half,), device=rand.device, generator=generator)) % 4
    quadrant = torch.cat([first, other])
    lower, right = quadrant // 2, quadrant % 2
    # Corner c of the box, so that its centre c + side/2 falls in the quadrant and the box in the image.
    room, middle = size - side, (size - side) / 2
    top = torch.where(lower == 1, middle + rand[2] * (room - middle), rand[2] * middle).round().long()
    left = torch.where(right == 1, middle + rand[3] * (room - middle), rand[3] * middle).round().long()
    box = torch.full_like(top, side)
    return {"top": top, "left": left, "height": box, "width": box}


def apply_views(images: Tensor, view: Draw, out_size: int | None = None) -> Tensor:
    """The views of images [N, 3, S, S] (float in [0, 1]) under draws for N images.

    Returns float32 [N, 3, out_size, out_size] (S where None) in [0, 1]; the input is not changed.
    Order: crop and flip, colour jitter, grey, blur, gradient magnitude.
    """
    out_size = out_size or images.shape[-1]
    if images.device.type == "cpu":
        from pcl_lib.augment import compiled  # numba takes a second to import

        return compiled.apply(images, view, out_size, blur_radius(out_size))
    with torch.autocast(images.device.type, enabled=False):
        return apply(images, view, out_size)


def apply(images: Tensor, view: Draw, out_size: int) -> Tensor:
    """As `apply_views`, operation by operation on the whole batch: what a GPU does."""
    x = _crop(images, view, out_size)
    for place in range(4):
        for kind, operation in enumerate((brightness, contrast, saturation, hue)):
            x = _where(x, view.jitter & (view.order[:, place] == kind), operation, view.factors[:, kind])
    x = _where(x, view.grey, saturation, torch.zeros_like(view.sigma))
    x = _where(x, view.blur, gaussian_blur, view.sigma)
    x = _where(x, view.gradient, lambda y, _: gradient_magnitude(y), view.sigma)
    return x.clamp_(0, 1)  # weights of crop and blur may sum to a little more than 1


def views(
    images: Tensor,
    preset: ViewPreset,
    generator: torch.Generator,
    copies: int = 1,
    block: tuple[int, int] = (0, 1),
) -> Tensor:
    """`copies` random views of uint8 or float images [B, 3, S, S], stacked: [copies * B, 3, S, S].

    With quadrant crops, copies 1 and 2 of an image (3 and 4, ...) lie in different quadrants.
    block (i, n): the images are the i-th of n equal blocks of a batch; they get the views they would get in the whole.
    """
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    if preset.crop == "quadrant" and copies % 2:
        raise BadInput(f"quadrant crops come in pairs: {copies} copies were asked for")
    size, (place, blocks) = len(images), block
    parts = []
    for pair in range(0, copies, 2):
        many = min(2, copies - pair)
        drawn = draw(many * size * blocks, images.shape[-1], preset, generator)
        own = torch.arange(many * size * blocks, device=generator.device)
        parts.append(drawn if blocks == 1 else drawn.rows(own.view(many, blocks, size)[:, place].flatten()))
    return apply_views(images.repeat(copies, 1, 1, 1), join(parts))


def join(parts: list[Draw]) -> Draw:
    """The draws of several batches as the draw of their concatenation."""
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in dataclasses.fields(Draw)]
    return Draw(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def luma(x: Tensor) -> Tensor:
    """Grey value [N, 1, H, W] of RGB [N, 3, H, W]."""
    return LUMA[0] * x[:, 0:1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:3]


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(x), x, factor[:, None, None, None]).clamp_(0, 1)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """x [N, 3, H, W] times factor [N] >= 0, clamped to [0, 1]."""
    return (x * factor[:, None, None, None]).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend of x with its mean grey value; factor [N], 1 changes nothing."""
    return _blend(x, luma(x).mean((1, 2, 3), keepdim=True), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend of x with its grey image; factor [N], 0 is grey, 1 changes nothing."""
    return _blend(x, luma(x), factor)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate the HSV hue of x by turn [N] in [-0.5, 0.5]; value and saturation stay."""
    r, g, b = x.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    safe = torch.where(chroma == 0, 1.0, chroma)
    sector = torch.where(
        value == r, (g - b) / safe, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )
    sector = (sector + 6 * turn[:, None, None]).remainder_(6)
    # By how much of the chroma each channel falls short of the value: red is full within one sector of 0, and so on.
    short = (2 - (sector - 3).abs(), (sector - 2).abs() - 1, (sector - 4).abs() - 1)
    return torch.stack([value - chroma * part.clamp_(0, 1) for part in short], 1)


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with sigma [N] pixels; kernel 7 at 64 pixels, in proportion else; edges reflected.

    Both directions are products with a banded matrix an image: on CPU three times faster than shifted sums.
    """
    radius = blur_radius(x.shape[-1])
    taps = torch.arange(-radius, radius + 1, device=x.device)
    weight = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weight = weight / weight.sum(1, keepdim=True)
    rows, columns = (
        (weight @ _reflected_shifts(size, taps).flatten(1)).view(-1, size, size) for size in x.shape[2:]
    )
    return _product(rows, x, columns)


def blur_radius(size: int) -> int:
    """Radius of the blur's kernel at that image size, in pixels."""
    return max(1, round(3 * size / 64))


def _reflected_shifts(size: int, taps: Tensor) -> Tensor:
    """Matrices [taps, size, size] that shift by a tap, reflecting at the edges (which are not repeated)."""
    place = torch.arange(size, device=taps.device)
    source = (place + taps[:, None]).abs()
    source = torch.where(source >= size, 2 * size - 2 - source, source)
    return (source[..., None] == place).float()


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn images in their plane about the centre: bilinear, edges repeated outwards.

    images: float [N, 3, S, S]; degrees: [N], positive against the clock as seen. Returns [N, 3, S, S].
    """
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Where each place of the result comes from; y points down, so this turns the picture against the clock.
    source = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(source, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def gradient_magnitude(x: Tensor) -> Tensor:
    """Length of the central-difference gradient of luma (edges repeated), at most 1, 3 equal channels."""
    padded = F.pad(luma(x), (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return torch.hypot(dx, dy).clamp_(max=1).expand(-1, 3, -1, -1)


def _where(
    x: Tensor, mask: Tensor, operation: Callable[[Tensor, Tensor], Tensor], parameter: Tensor
) -> Tensor:
    """operation(x, parameter) on the rows of `mask`: on all, since to pick rows the host would wait for the GPU."""
    return torch.where(mask[:, None, None, None], operation(x, parameter), x)


def _crop(x: Tensor, view: Draw, out_size: int) -> Tensor:
    """Crop, resize (antialiased bilinear) and flip as two small matrix products an image."""
    rows = _resampling(view.top, view.height, x.shape[-2], out_size)
    columns = _resampling(view.left, view.width, x.shape[-1], out_size)
    columns = torch.where(view.flip[:, None, None], columns.flip(1), columns)
    return _product(rows, x, columns)


def _product(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    """rows @ x @ columns^T: [N, A, H], [N, C, H, W], [N, B, W] -> [N, C, A, B]."""
    # All channels of an image share one product with its columns.
    x = torch.bmm(x.flatten(1, 2), columns.transpose(1, 2)).unflatten(1, x.shape[1:3])
    return rows[:, None] @ x


def _resampling(start: Tensor, length: Tensor, size: int, out_size: int) -> Tensor:
    """Weights [N, out_size, size] of an antialiased bilinear resize of [start, start + length)."""
    scale = length / out_size
    support = scale.clamp_min(1)[:, None, None]
    centre = (torch.arange(out_size, device=start.device) + 0.5) * scale[:, None] + start[:, None]
    pixel = torch.arange(size, device=start.device)
    weight = (1 - (pixel + 0.5 - centre[..., None]).abs() / support).clamp_min_(0)
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weight = weight * inside[:, None]
    return weight / weight.sum(2, keepdim=True)
