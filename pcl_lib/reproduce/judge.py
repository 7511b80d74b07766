"""What a model's features tell, and what its swaps look like beside the rendered truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import r2_score
from torch import Tensor

from pcl_lib.data import PreparedFaces
from pcl_lib.data.labels import expression_codes
from pcl_lib.disentangle import swap_truth
from pcl_lib.faces import render
from pcl_lib.models import PCL
from pcl_lib.probes import FEATURES, FrozenFeatures, linear
from pcl_lib.probes.tasks import Split, plan
from pcl_lib.reproduce import measure
from pcl_lib.utils import replace_atomically

READ = 6000  # training images that a linear reader learns from, at most
DRAWN = (5, 7)  # face donors and pose donors in the picture of swaps


def features_tell(features: FrozenFeatures, stills: PreparedFaces) -> dict[str, float]:
    """What each feature tells about test people of `stills`: "FEATURE MEASURE" -> value.

    features: of all images, those of `FEATURES` that there are. R2 of ridge regression for yaw, |yaw|, pitch, roll,
    skin and light; accuracy of expression; verification by cosine, and of pairs whose yaws differ by more than 25
    degrees.
    """
    made, table = plan(stills), stills.table
    rows = np.random.default_rng(0).permutation(stills.split("train"))[:READ]
    split = Split(np.sort(rows), stills.split("validation"), stills.split("test"))
    truth = table[["yaw", "pitch", "roll", "skin_tone", "light_azimuth"]].assign(
        **{"|yaw|": table["yaw"].abs()}
    )
    y, classes, found = truth.to_numpy(float), expression_codes(table["expression"]), {}
    for name in FEATURES:
        if (x := getattr(features, name)) is None:
            continue
        frozen = linear.CachedFeatures(x, np.arange(len(stills)), len(stills))
        values, _ = linear.predict_values(frozen, split, y)
        for i, factor in enumerate(truth):
            found[f"{name} {factor}"] = r2_score(y[split.test, i], values[:, i])
        read, _ = linear.predict_classes(frozen, split, classes)
        found[f"{name} expression"] = float((read == classes[split.test]).mean())
        for what, pairs in (("verification", made.pairs), ("cross-pose", made.cross_pose)):
            if pairs is not None:
                found[f"{name} {what}"] = verification(x, pairs)
    return found


def verification(x: Tensor, pairs: pd.DataFrame) -> float:
    """Accuracy of "same person" by the cosine of features [rows of the table, D], as in `probes.evaluate`."""
    first, second, same, fold = (
        pairs[name].to_numpy(copy=True) for name in ("first", "second", "same", "fold")
    )
    return float(linear.verify(F.cosine_similarity(x[first], x[second]).cpu().numpy(), same, fold)[0].mean())


def draw_swaps(model: PCL, stills: PreparedFaces, path: Path) -> None:
    """Face donors in rows (their own plain reconstruction next to them), pose donors in columns, the truth below."""
    face, pose = measure.donors(stills, DRAWN)
    shown = measure.swap(model, stills, face, pose)
    size = model.image_size
    with torch.inference_mode():
        x = model.decoder_features(shown.faces)
        own = model.decode(x.face, x.pose)
    blank = torch.ones(2, 3, size, size)
    lines = [torch.cat([blank, shown.poses.cpu() / 255])]
    for i, row in enumerate(face):
        line = [shown.faces[i : i + 1] / 255, own[i : i + 1], shown.pictures[i]]
        lines.append(torch.cat(line).cpu())
        true = render(swap_truth.turn(stills.table, np.full(len(pose), row), pose), size)
        lines.append(torch.cat([blank, true / 255]))
    grid = torch.cat([torch.cat(list(line), 2) for line in lines], 1).clamp(0, 1)
    image = Image.fromarray((grid.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    with replace_atomically(path) as temporary:
        image.resize((2 * image.width, 2 * image.height)).save(temporary, format="PNG")
