"""The same renderer in PyTorch, for any device: raster.py and shade.py line by line, on batches.

The z-buffer is one scatter: every triangle lists the samples of its bounding box, and each sample keeps the greatest
of (1 / distance, triangle) packed into an integer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pcl_lib.faces.camera import DISTANCE, HALF_VIEW, PIVOT, rotation
from pcl_lib.faces.mesh import EAR, EYE, EYE_RADIUS, FRAME, HAIR, LENS, MOUTH
from pcl_lib.faces.paint import ABOVE_ONLY, BELOW_ONLY, LAYERS, NUMBERS, SPLIT_V, STRANDS, TINTS, Packed
from pcl_lib.faces.scene import Scene, prepare
from pcl_lib.faces.shade import EYE_V0, EYE_V1, SAMPLES

Numbers = dict[str, Tensor]


def draw(s: Scene, p: Packed, size: int, device: torch.device) -> Tensor:
    """Images uint8 [n, 3, size, size] of packed factors, on `device`."""

    def to(a: object) -> Tensor:
        return torch.as_tensor(a, device=device)

    v, mask, anchors = (to(a) for a in prepare(p))
    number: Numbers = dict(zip(NUMBERS, to(p.numbers).T, strict=True))
    colour: Numbers = dict(zip(TINTS, to(p.colours).unbind(1), strict=True))
    triangles, material = to(s.head.triangles).long(), to(s.head.material).long()
    v = v + (to(p.coefficients) @ to(s.basis)).view(v.shape)
    normals = _normals(v, triangles)
    r = to(
        rotation(*(p.numbers[:, NUMBERS.index(k)].astype(float) for k in ("yaw", "pitch", "roll")))
    ).float()
    side = SAMPLES * size
    screen = _project(v, r, number, side)
    owner = _rasterise(screen, triangles, material, mask, number, side)

    sample = torch.nonzero(owner >= 0).squeeze(1)  # covered samples of the whole batch
    image, corner = sample // side**2, triangles[owner[sample]]
    weight = _barycentric(screen[image[:, None], corner], sample % side**2, side)

    def mix(values: Tensor) -> Tensor:
        """Interpolate [M, 3 corners, C] over the triangle."""
        return (weight[:, :, None] * values).sum(1)

    kind = material[owner[sample]]
    n = torch.einsum("mij,mj->mi", r[image], mix(normals[image[:, None], corner]))
    n = n / n.norm(dim=1, keepdim=True).clamp_min(1e-6)
    n = torch.where(((kind > MOUTH) & (n[:, 2] < 0))[:, None], -n, n)
    place, point = mix(to(s.head.uv)[corner]), mix(v[image[:, None], corner])
    here = {k: a[image] for k, a in number.items()}
    tint = {k: a[image] for k, a in colour.items()}
    albedo = _paint(kind, place, to(p.layers)[image], tint, to(s.atlas))
    albedo = torch.where((kind == EYE)[:, None], _eye(point, anchors[image], place[:, 1], here, tint), albedo)
    inside = _mouth(point[:, 0], point[:, 1] - anchors[image, 2, 1], here["jaw_drop"])
    albedo = torch.where((kind == MOUTH)[:, None], inside, albedo)

    canvas = _background(number, colour, to(p.waves), side)
    canvas.view(-1, 3)[sample] = _lit(albedo, n, here, tint, kind)
    _occlude(canvas, number, colour, side)
    linear = canvas.view(-1, size, SAMPLES, size, SAMPLES, 3).mean(dim=(2, 4)).permute(0, 3, 1, 2)
    return _develop(linear, number)


def _normals(v: Tensor, triangles: Tensor) -> Tensor:
    a, b, c = (v[:, triangles[:, k]] for k in range(3))
    cross = torch.linalg.cross(b - a, c - a)
    n = torch.zeros_like(v)
    for k in range(3):
        n.index_add_(1, triangles[:, k], cross)
    return n / (n.square().sum(2, keepdim=True) + 1e-20).sqrt()


def _project(v: Tensor, r: Tensor, number: Numbers, side: int) -> Tensor:
    """[n, V, 3]: x and y in samples (y down), 1 / distance."""
    q = torch.einsum("nij,nvj->nvi", r, v - v.new_tensor(PIVOT))
    w = 1.0 / (DISTANCE - q[..., 2])
    half = 0.5 * side
    scale = half * number["zoom"][:, None] * (DISTANCE / HALF_VIEW) * w
    x = half + half * number["shift_x"][:, None] + scale * q[..., 0]
    y = half + half * number["shift_y"][:, None] - scale * q[..., 1]
    return torch.stack([x, y, w], dim=-1)


def _barycentric(corners: Tensor, sample: Tensor, side: int) -> Tensor:
    """Weights [M, 3] of the corners [M, 3, 3] at samples of an image."""
    x, y = (sample % side).float() + 0.5, (sample // side).float() + 0.5
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    u = ((c[:, 0] - b[:, 0]) * (y - b[:, 1]) - (c[:, 1] - b[:, 1]) * (x - b[:, 0])) / area
    w = ((a[:, 0] - c[:, 0]) * (y - c[:, 1]) - (a[:, 1] - c[:, 1]) * (x - c[:, 0])) / area
    return torch.stack([u, w, 1.0 - u - w], dim=1)


def _rasterise(
    screen: Tensor, triangles: Tensor, material: Tensor, mask: Tensor, number: Numbers, side: int
) -> Tensor:
    """Number of the nearest triangle at each sample [n * side * side], -1 for none."""
    a, b, c = (screen[:, triangles[:, k]] for k in range(3))
    area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
        c[..., 0] - a[..., 0]
    )
    low, high = torch.minimum(torch.minimum(a, b), c)[..., :2], torch.maximum(torch.maximum(a, b), c)[..., :2]
    first = (low - 0.5).ceil().clamp(min=0).long()
    extent = (high - 0.5).floor().clamp(max=side - 1).long() - first + 1
    glasses, style = number["glasses"][:, None], number["style"][:, None]
    hidden = ((material == FRAME) & (glasses < 1)) | ((material == LENS) & (glasses < 2))
    hidden |= ((material == HAIR) & (style < 2)) | ((material <= MOUTH) & (area > 0)) | (area == 0)
    image, t = torch.nonzero(~hidden & (extent > 0).all(-1), as_tuple=True)
    width, count = extent[image, t, 0], extent[image, t].prod(-1)
    which = torch.repeat_interleave(torch.arange(len(t), device=t.device), count)
    offset = torch.arange(len(which), device=t.device) - torch.repeat_interleave(
        count.cumsum(0) - count, count
    )
    image, t, width = image[which], t[which], width[which]
    cell = (first[image, t, 1] + offset // width) * side + first[image, t, 0] + offset % width
    corner = triangles[t]
    weight = _barycentric(screen[image[:, None], corner], cell, side)
    near = (weight * screen[image[:, None], corner, 2]).sum(1)
    start = screen.shape[1] - mask.shape[1]
    grown = (weight * mask[image[:, None], (corner - start).clamp(min=0)]).sum(1) >= 0
    covers = (weight >= 0).all(1) & (grown | (material[t] != HAIR))
    # Nearest wins, then the triangle drawn first; positive floats order like their bits.
    key = (near[covers].contiguous().view(torch.int32).long() << 32) | (2**31 - 1 - t[covers])
    best = torch.full((len(screen) * side * side,), -1, dtype=torch.long, device=t.device)
    best.scatter_reduce_(0, image[covers] * side * side + cell[covers], key, "amax")
    return torch.where(best < 0, -1, 2**31 - 1 - (best & 0xFFFFFFFF))


def _paint(kind: Tensor, place: Tensor, layers: Tensor, tint: Numbers, atlas: Tensor) -> Tensor:
    h, w = atlas.shape[:2]
    fx, fy = place[:, 0] * (w - 1), place[:, 1] * (h - 1)
    ix, iy = fx.long().clamp(max=w - 2), fy.long().clamp(max=h - 2)
    tx, ty = (fx - ix)[:, None], (fy - iy)[:, None]
    masks = (1 - tx) * (1 - ty) * atlas[iy, ix] + tx * (1 - ty) * atlas[iy, ix + 1]
    masks += (1 - tx) * ty * atlas[iy + 1, ix] + tx * ty * atlas[iy + 1, ix + 1]
    upper = place[:, 1] < SPLIT_V
    albedo = tint["skin"]
    for k in range(len(LAYERS)):
        gain, bias, weight, paint = layers[:, k, 0], layers[:, k, 1], layers[:, k, 2], layers[:, k, 3:]
        m = weight * (gain * (masks[:, k] + bias)).clamp(0, 1)
        if k < BELOW_ONLY or k >= ABOVE_ONLY:
            m = m * (upper if k >= ABOVE_ONLY else ~upper)
        albedo = albedo + m[:, None] * (paint - albedo)
    hair = tint["hair"] * (0.45 + 1.1 * masks[:, STRANDS : STRANDS + 1])
    albedo = torch.where((kind == HAIR)[:, None], hair, albedo)
    albedo = torch.where((kind == FRAME)[:, None], tint["frame"], albedo)
    return torch.where((kind == LENS)[:, None], torch.full_like(albedo, 0.012), albedo)


def _eye(point: Tensor, anchors: Tensor, v: Tensor, here: Numbers, tint: Numbers) -> Tensor:
    centre = torch.where(point[:, :1] < 0, anchors[:, 0], anchors[:, 1])
    d = point - centre
    tx = d[:, 0] + EYE_RADIUS * torch.sin(torch.deg2rad(here["gaze_x"]))
    ty = d[:, 1] - EYE_RADIUS * torch.sin(torch.deg2rad(here["gaze_y"]))
    tz = (d[:, 2] - EYE_RADIUS).clamp(min=0)
    r = (tx * tx + ty * ty + 0.3 * tz * tz).sqrt()[:, None]
    shade = 0.55 + 0.45 * ((v - EYE_V0) / (0.45 * (EYE_V1 - EYE_V0))).clamp(0, 1)[:, None]
    inside, pupil = ((0.74 - r) * 14).clamp(0, 1), ((0.29 - r) * 14).clamp(0, 1)
    iris = tint["iris"] * (1 - 0.75 * ((r - 0.53) * 6).clamp(0, 1))
    iris = iris + pupil * (0.004 - iris)
    white = r.new_tensor((0.58, 0.53, 0.50))
    return (white + inside * (iris - white)) * shade


def _mouth(x: Tensor, t: Tensor, drop: Tensor) -> Tensor:
    cx = ((2.25 - x.abs()) * 2).clamp(0, 1)
    upper = ((t + 0.62) * 8).clamp(0, 1) * cx
    lower = ((-0.45 - 2.0 * drop - t) * 8).clamp(0, 1) * cx
    tongue = (0.7 * drop * (-t - 0.9) * (1 - 0.2 * x * x)).clamp(0, 1)[:, None]
    albedo = x.new_tensor((0.05, 0.015, 0.015)) + tongue * x.new_tensor((0.25, 0.07, 0.07))
    tooth = (torch.maximum(upper, 0.75 * lower) * (1 - 0.08 * x * x))[:, None]
    return albedo + tooth * (x.new_tensor((0.56, 0.56, 0.49)) - albedo)


def _lit(albedo: Tensor, n: Tensor, here: Numbers, tint: Numbers, kind: Tensor) -> Tensor:
    light = torch.stack([here["light_x"], here["light_y"], here["light_z"]], 1)
    cosine = (n * light).sum(1)
    h16 = ((cosine + n[:, 2]).clamp(min=0) * here["halfway"]) ** 16
    shine = here["shine"] * h16 * (0.6 + h16)
    factor = albedo[:, 0] / (albedo[:, 0] + 0.06)
    for material, gloss in ((HAIR, 0.35), (MOUTH, 0.2), (LENS, 3.0)):
        factor = torch.where(kind == material, torch.full_like(factor, gloss), factor)
    shine = torch.where(kind == EYE, 0.8 * h16**12, shine * factor)[:, None]
    ambient = here["ambient"] * (0.68 + 0.32 * n[:, 1])
    ambient = ambient + 0.22 * (0.3 + 0.5 * n[:, 2] - here["light_x"] * n[:, 0]).clamp(0, 1)
    soft = torch.where(kind <= EAR, 1.0, 0.5)[:, None]
    wrap = soft * albedo.new_tensor((0.3, 0.14, 0.1))
    diffuse = ((cosine[:, None] + wrap) / (1 + wrap)).clamp(0, 1)
    return albedo * (tint["key"] * diffuse + tint["sky"] * ambient[:, None]) + shine * tint["key"]


def _background(number: Numbers, colour: Numbers, waves: Tensor, side: int) -> Tensor:
    at = (2.0 * torch.arange(side, device=waves.device) + 1) / side - 1
    x, y = at[None, None, :], at[None, :, None]
    g = 1 + number["gradient_x"][:, None, None] * x + number["gradient_y"][:, None, None] * y
    for kx, ky, phase, height in (w.T[:, :, None, None] for w in waves.unbind(1)):
        g = g + height * torch.sin(kx * x + ky * y + phase)
    return (g.clamp(min=0.05)[..., None] * colour["background"][:, None, None]).contiguous()


def _occlude(canvas: Tensor, number: Numbers, colour: Numbers, side: int) -> None:
    for i in torch.nonzero(number["occluder"] > 0.5).flatten().tolist():
        q = {k: float(number[k][i]) for k in NUMBERS if k.startswith("occluder")}
        at = (2.0 * torch.arange(side, device=canvas.device) + 1) / side - 1
        y, x = at[:, None], at[None, :]
        angle = math.radians(q["occluder_angle"])
        dx, dy = x - q["occluder_x"], y - q["occluder_y"]
        u = (math.cos(angle) * dx + math.sin(angle) * dy) / q["occluder_size"]
        v = (math.cos(angle) * dy - math.sin(angle) * dx) / (0.55 * q["occluder_size"])
        slab = colour["occluder"][i] * (0.75 - 0.2 * y)[..., None].expand(side, side, 1)
        canvas[i] = torch.where((u**4 + v**4 > 1)[..., None], canvas[i], slab)


def _develop(linear: Tensor, number: Numbers) -> Tensor:
    size = linear.shape[-1]
    a = 1.6 * _blur(linear, number["blur"] * size / 64.0)
    value = (a * (1 + 0.3 * a) / (1 + a)).clamp(min=0) ** (1 / 2.2)
    x = torch.arange(size, device=a.device)
    x = torch.where(number["mirrored"][:, None] > 0.5, size - 1 - x, x)[:, None, None, :]
    y, j = torch.arange(size, device=a.device)[:, None], torch.arange(3, device=a.device)[:, None, None]
    seed = number["noise_seed"].long()[:, None, None, None]
    h = (seed * 2654435761 + x * 1640531513 + y * 97531 + j * 7919) & 0xFFFFFFFF
    for _ in range(2):
        h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    h = h ^ (h >> 16)
    total = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)
    value = value + number["noise"][:, None, None, None] * (total - 510.0) / 147.8
    return (value.clamp(0, 1) * 255.0 + 0.5).to(torch.uint8)


def _blur(linear: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, each image by its own sigma (pixels), edges repeated; none up to 0.15 pixels."""
    reach = (3.0 * sigma).long() + 1
    most = int(reach.max())
    k = torch.arange(-most, most + 1, device=sigma.device)
    taps = torch.exp(-0.5 * (k / sigma.clamp(min=1e-3)[:, None]) ** 2) * (k.abs() <= reach[:, None])
    taps = torch.where((sigma > 0.15)[:, None], taps, (k == 0).float())
    taps = taps / taps.sum(1, keepdim=True)
    for axis in (3, 2):
        index = torch.arange(linear.shape[axis], device=sigma.device)
        out = torch.zeros_like(linear)
        for i, offset in enumerate(k.tolist()):
            moved = linear.index_select(axis, (index + offset).clamp(0, linear.shape[axis] - 1))
            out += taps[:, i, None, None, None] * moved
        linear = out
    return linear
