"""PCL's recipe for any attribute: what its two features know of it, and what a swap moves.

A change of `methods.changes` (a shading ramp, say) stands for factors of the renderer (the direction of the light).
Two questions are asked of the feature that is to hold the attribute, and of the one that is to hold all else: is the
change itself found in it, whose draws are known, and is the true factor? And of swaps, whether they move the attribute
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pcl_lib.data import FaceSet
from pcl_lib.data.labels import identity_codes
from pcl_lib.disentangle.swap_truth import REPLICATES, resampled, turn
from pcl_lib.disentangle.swaps import r_squared
from pcl_lib.faces.factors import NUMERIC, POSE
from pcl_lib.methods.changes import CHANGES, TURNS
from pcl_lib.models.encoder import as_float
from pcl_lib.probes import extract, linear
from pcl_lib.probes.features import AsDecoded, FrozenFeatures, device_of, evaluating
from pcl_lib.probes.tasks import Split
from pcl_lib.utils import BadInput, spent

# What a change stands for in rendered faces: the first is probed, all of them are swapped.
FACTORS: dict[str, tuple[str, ...]] = {
    "flip": POSE,
    "rotation": ("roll",),
    "light": ("light_azimuth", "light_elevation", "light_strength", "ambient"),
    "colour": ("light_warmth",),
    "occluder": (
        "occluder", "occluder_x", "occluder_y", "occluder_size", "occluder_angle", "occluder_tone",
    ),
    "ageing": ("age", "hair_grey"),
    "make-up": ("lip_redness",),
}  # fmt: skip
NAMES = {"pose": "attribute", "face": "all else"}  # the two features, as this recipe calls them


class Changed:
    """A set whose every image went through a change with draws of its own; half of them where it is an occluder.

    marks: float [n, C], what was drawn: cosine and sine of the light's direction or of the hue, whether there is an
    occluder, the degrees of a rotation. Empty [n, 0] for a flip: a mirror image does not show that it is one.
    """

    def __init__(self, faces: FaceSet, name: str, seed: int = 0) -> None:
        self._faces, self.change, count = faces, CHANGES[name], len(faces)
        generator = torch.Generator().manual_seed(seed)
        self.draws = torch.rand(count, self.change.draws, generator=generator)
        self.touched = torch.ones(count, dtype=torch.bool)
        if name == "occluder":
            self.touched = torch.rand(count, generator=generator) < 0.5
        self.marks = _marks(name, self.draws, self.touched)

    def __len__(self) -> int:
        return len(self._faces)

    def images(self, rows: Any) -> Tensor:
        """uint8 [len(rows), 3, S, S]."""
        places = torch.as_tensor(np.asarray(rows))
        images = as_float(self._faces.images(rows))
        changed = self.change.apply(images, self.draws[places])
        chosen = torch.where(self.touched[places, None, None, None], changed, images)
        return (255 * chosen).round().to(torch.uint8)


def _marks(name: str, draws: Tensor, touched: Tensor) -> np.ndarray:
    if name in ("light", "colour"):
        angle = 2 * torch.pi * draws[:, 0]
        marks = torch.stack([angle.cos(), angle.sin()], 1)
    elif name == "occluder":
        marks = touched[:, None]
    elif name == "rotation":
        degrees = TURNS[0] + (TURNS[1] - TURNS[0]) * draws[:, 0]
        marks = (degrees * torch.where(draws[:, 1] < 0.5, -1.0, 1.0))[:, None]
    else:
        marks = draws[:, :0]
    return marks.double().numpy()


@spent("probe")
def attribute_rows(model: Any, faces: FaceSet, name: str, seed: int = 0) -> pd.DataFrame:
    """How well linear probes find an attribute in the two features of a model, on people they have not seen.

    faces: with the true factor in their table. name: one of `FACTORS`. seed: of the change's draws.
    Returns a row per feature ("attribute", "all else") and question ("change": what was drawn for `Changed` images;
    "factor": the true factor of the images as they are), with metric (R2, mean over columns; AUC for an occluder),
    value, chance, n. Raises BadInput where the set lacks the factor.
    """
    factor = FACTORS[name][0]
    if factor not in faces.table:
        raise BadInput(
            f"{faces.name} has no {factor}, which the change {name!r} stands for: rendered faces have it"
        )
    truth = faces.table[[factor]].to_numpy(float)
    asked: list[tuple[str, Any, np.ndarray]] = [("factor", faces, truth)]
    if name in CHANGES and (changed := Changed(faces, name, seed)).marks.shape[1]:
        asked.insert(0, ("change", changed, changed.marks))
    rows = []
    for question, images, y in asked:
        features: FrozenFeatures = extract(model, images)
        for feature, said in NAMES.items():
            found = _probe(getattr(features, feature), faces, y, binary=name == "occluder")
            rows.append({"feature": said, "question": question} | found)
    return pd.DataFrame(rows).assign(change=name)


def _probe(x: Tensor, faces: FaceSet, y: np.ndarray, binary: bool) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    cached = linear.CachedFeatures(x, np.arange(len(faces)), len(faces))
    split = Split(*(faces.split(part) for part in Split._fields))
    truth = y[split.test]
    if binary:
        _, logits, _ = linear.predict_presence(cached, split, y > 0)
        both = 0 < truth.mean() < 1
        value = roc_auc_score(truth[:, 0], logits[:, 0]) if both else float("nan")
        return {"metric": "AUC", "value": float(value), "chance": 0.5, "n": len(truth)}
    predicted, _ = linear.predict_values(cached, split, y)
    value = r_squared(truth, predicted)
    return {"metric": "R2", "value": value, "chance": 0.0, "n": len(truth)}


@spent("probe")
def swap_shares(
    model: Any, faces: FaceSet, factors: Sequence[str], n: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How much of the true change a swap makes, and how much of all else it takes over.

    Draws n pairs (A, B) of test images of different people whose first factor differs. The truth T shows A with the
    `factors` of B, rendered. decode(all else of A, attribute of B) - decode(A) is explained, in least squares over
    all pairs and pixels, as follows * (T - A) + takes * (B - T): (1, 0) for a perfect swap, (0, 0) for A as it was,
    (1, 1) for B itself. The row "plain" is the model's own picture of T in the place of the swap: what its decoder
    could show at best. Pictures are those of the features that the decoder was trained on.
    Returns the rows "swap" and "plain" with follows, follows_low, follows_high, takes, takes_low, takes_high (95%
    bootstrap over the people A), n. Raises BadInput where a factor is missing or no pair differs in it. Source: ours.
    """
    from pcl_lib.faces import render

    if missing := [name for name in (*NUMERIC, *factors) if name not in faces.table]:
        raise BadInput(f"{faces.name} has no {missing[0]}: only swaps of rendered faces have a truth")
    codes = identity_codes(faces.table)
    values = faces.table[factors[0]].to_numpy()
    a, b = _partners(faces, codes, values, n, np.random.default_rng([seed, 0xA771]))
    shown, truth = (
        [faces.images(rows) for rows in (a, b)],
        render(turn(faces.table, a, b, factors), faces.image_size),
    )
    plain, swap, best = _pictures(model, shown[0], shown[1], truth)
    at, bt, tt = (as_float(x).double().flatten(1) for x in (*shown, truth))
    weights = resampled(np.unique(codes[a], return_inverse=True)[1], seed)
    found = []
    for name, picture in (("swap", swap), ("plain", best)):
        shares = _shares(picture - plain, tt - at, bt - tt, weights)
        low, high = np.nanquantile(shares[1:], (0.025, 0.975), axis=0)
        row: dict[str, Any] = {"picture": name}
        for i, share in enumerate(("follows", "takes")):
            row |= {share: shares[0, i], f"{share}_low": low[i], f"{share}_high": high[i]}
        found.append(row)
    return pd.DataFrame(found).assign(n=n)


def _partners(
    faces: FaceSet, codes: np.ndarray, values: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """n pairs of test rows of different people and values, each first one at random among those with a partner."""
    rows = faces.split("test")
    able = (codes[rows][:, None] != codes[rows]) & (values[rows][:, None] != values[rows])
    first = np.flatnonzero(able.any(1))
    if not len(first):
        raise BadInput(f"{faces.name} has no two test images of different people that differ in the factor")
    chosen = rng.choice(first, n)
    return rows[chosen], rows[[rng.choice(np.flatnonzero(able[i])) for i in chosen]]


def _pictures(model: Any, a: Tensor, b: Tensor, truth: Tensor) -> list[Tensor]:
    """Decoded A, swap and T: float64 [n, 3 * S * S] each."""
    read, device = AsDecoded(model).features, device_of(model)
    parts: list[list[Tensor]] = []
    with evaluating(model), torch.inference_mode():
        for of_a, of_b, of_t in zip(*(x.split(128) for x in (a, b, truth)), strict=True):
            x, y, t = (read(images.to(device)) for images in (of_a, of_b, of_t))
            decoded = model.decode(x.face, x.pose), model.decode(x.face, y.pose), model.decode(t.face, t.pose)
            parts.append([picture.float().clamp(0, 1).flatten(1).cpu().double() for picture in decoded])
    return [torch.cat(part) for part in zip(*parts, strict=True)]


def _shares(made: Tensor, wanted: Tensor, rest: Tensor, weights: np.ndarray) -> np.ndarray:
    """Coefficients of made on (wanted, rest) by weighted least squares: [1 + REPLICATES, 2]."""
    directions = torch.stack([wanted, rest], 1)  # [n, 2, P]
    gram = (directions @ directions.transpose(1, 2)).numpy()
    target = (directions @ made[:, :, None])[:, :, 0].numpy()
    left, right = np.einsum("rn,nij->rij", weights, gram), weights @ target
    assert left.shape == (1 + REPLICATES, 2, 2)
    return (np.linalg.pinv(left) @ right[:, :, None])[:, :, 0]
