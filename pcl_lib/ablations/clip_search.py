"""The search for the recipe of pcl_video: `python -m pcl_lib.ablations.clip_search` trains and measures each try.

Tries are trained on clips and judged on still images of other people: a set whose test people are the validation
people of the default set, so that the default's test people stay unseen. A try leaves a row in clip_search.csv, its
weights and a picture of swaps in the output folder; one that has its row is not run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import r2_score
from torch import Tensor

from pcl_lib import presets, pretrain, probes
from pcl_lib.data import PreparedFaces, prepare_rendered
from pcl_lib.data.labels import expression_codes
from pcl_lib.disentangle import swap_truth
from pcl_lib.faces import render
from pcl_lib.models import PCL
from pcl_lib.probes import FEATURES, linear
from pcl_lib.probes.tasks import Split, plan
from pcl_lib.reproduce import measure as measures
from pcl_lib.utils import BadInput, exit_cleanly, replace_atomically

STILLS: dict[str, Any] = {
    "identities": (340, 60, 60),
    "images_per_identity": 30,
    "seed": 1,
}  # tested on the validation people
CLIPS: dict[str, Any] = {"identities": (2400, 60, 60), "images_per_identity": 15, "frames_per_clip": 5}
CLUTTER = 0.2  # of both
READ = 6000  # training images that a linear reader learns from, at most
DRAWN = (5, 7)  # face donors and pose donors in the picture of swaps
# All tries: an encoder that is fast on processors, and no more iterations than some minutes allow.
COMMON = {
    "model.backbone": "patches", "model.width": 1.0, "train.iterations_per_epoch": 100, "train.epochs": 12,
    "train.frames_per_identity": 8, "train.checkpoint_every": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Try:
    """One recipe: a method of `methods.METHODS` and the settings in which it differs from `COMMON`."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    method: str = "pcl_video"


TRIES: Mapping[str, Try] = {
    "pcl_video": Try(),
    "no contrast": Try({"video.contrast": 0.0}),
    "contrast x 0.3": Try({"video.contrast": 0.1}),
    "contrast x 3": Try({"video.contrast": 1.0}),
    "temperature 0.1": Try({"video.temperature": 0.1}),
    "no restaging": Try({"video.restage": 0.0}),
    "restaging 0.6": Try({"video.restage": 0.6}),
    "person": Try({"video.person": 0.1}),
    "incoherence": Try({"video.restage": 0.0, "video.incoherence": 1.0}),
    "no mirror": Try({"video.mirror": 0.0}),
    "no jitter": Try({"video.jitter": 0.0}),
    "pcl": Try({"model.norm": "batch", "train.lr": 2e-3}, "pcl"),
    "pcl_plus": Try({"model.norm": "batch", "train.lr": 2e-3, "loss.pdd": 16.0}, "pcl_plus"),
}


def run(
    name: str, clips: PreparedFaces, stills: PreparedFaces, out: Path, readers: Any = None
) -> pd.DataFrame:
    """Train and measure one try; returns its row and keeps its weights and its picture of swaps in `out`."""
    tried = TRIES[name]
    preset = presets.override(presets.get("cpu"), COMMON | dict(tried.changes))
    folder = out / "".join(c if c.isalnum() else "_" for c in name)
    done = pretrain.fit(tried.method, preset=preset, faces=clips, out=folder, progress=False)
    row: dict[str, Any] = {"try": name, "method": tried.method, "settings": str(dict(tried.changes))}
    row |= {"seconds": round(done.seconds), "images": int(done.history["images"].iloc[-1])}
    row |= measure(done.model, stills)
    if hasattr(done.model, "decode"):
        row |= swap_measures(swap_truth.report(done.model, stills, readers))
        swap_picture(done.model, stills, folder / "swaps.png")
    return pd.DataFrame([row])


def measure(model: PCL, stills: PreparedFaces) -> dict[str, float]:
    """What each feature tells about test people of `stills`: "FEATURE MEASURE" -> value.

    R2 of ridge regression for yaw, |yaw|, pitch, roll, skin and light; accuracy of expression; verification by cosine,
    and of pairs whose yaws differ by more than 25 degrees.
    """
    features = probes.extract(probes.EvenOdd(model), stills)
    made, table = plan(stills), stills.table
    rows = np.random.default_rng(0).permutation(stills.split("train"))[:READ]
    split = Split(np.sort(rows), stills.split("validation"), stills.split("test"))
    truth = table[["yaw", "pitch", "roll", "skin_tone", "light_azimuth"]].assign(
        **{"|yaw|": table["yaw"].abs()}
    )
    y, classes, found = truth.to_numpy(float), expression_codes(table["expression"]), {}
    for name in FEATURES:
        x = getattr(features, name)
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
    return float(linear.verify(F.cosine_similarity(x[first], x[second]).numpy(), same, fold)[0].mean())


def swap_measures(report: pd.DataFrame) -> dict[str, float]:
    """The values of `swap_truth.report`, by measure."""
    return {
        f"swap {measure}": value for measure, value in zip(report["measure"], report["value"], strict=True)
    }


def swap_picture(model: PCL, stills: PreparedFaces, path: Path) -> None:
    """Face donors in rows (their own plain reconstruction next to them), pose donors in columns, the truth below."""
    face, pose = measures.donors(stills, DRAWN)
    shown = measures.swap(model, stills, face, pose)
    size = model.image_size
    with torch.inference_mode():
        x = model.decoder_features(shown.faces)
        own = model.decode(x.face, x.pose)
    blank = torch.ones(2, 3, size, size)
    lines = [torch.cat([blank, shown.poses / 255])]
    for i, row in enumerate(face):
        lines.append(torch.cat([shown.faces[i : i + 1] / 255, own[i : i + 1], shown.pictures[i]]))
        true = render(swap_truth.turn(stills.table, np.full(len(pose), row), pose), size)
        lines.append(torch.cat([blank, true / 255]))
    grid = torch.cat([torch.cat(list(line), 2) for line in lines], 1).clamp(0, 1)
    image = Image.fromarray((grid.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    with replace_atomically(path) as temporary:
        image.resize((2 * image.width, 2 * image.height)).save(temporary, format="PNG")


def rows(out: Path) -> pd.DataFrame:
    """The rows of the tries that are done; an empty table where there are none."""
    path = out / "clip_search.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["try"])


def search(names: Sequence[str], clips: PreparedFaces, stills: PreparedFaces, out: Path) -> pd.DataFrame:
    """Run the tries that have no row yet, and keep each row at once; returns all rows."""
    left = [name for name in names if name not in set(rows(out)["try"])]
    print(f"{len(names)} tries, {len(names) - len(left)} of them done before.", flush=True)
    readers = swap_truth.fit_probes(stills, presets.get("cpu").model.image_size) if left else None
    for name in left:
        row = run(name, clips, stills, out, readers)
        with replace_atomically(out / "clip_search.csv") as path:
            pd.concat([rows(out), row], ignore_index=True).to_csv(path, index=False)
        print(row.T.to_string(header=False), flush=True)
    return rows(out)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.ablations.clip_search."""
    parser = argparse.ArgumentParser(prog="python -m pcl_lib.ablations.clip_search", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/clip-search"), help="rows, weights and pictures"
    )
    parser.add_argument(
        "--faces", type=Path, default=Path("runs/faces"), help="where both sets are rendered to"
    )
    parser.add_argument("--only", nargs="+", default=list(TRIES), metavar="TRY", help=", ".join(TRIES))
    given = parser.parse_args(argv)
    if unknown := set(given.only) - set(TRIES):
        raise BadInput(f"--only: there is no try '{min(unknown)}', choose some of {', '.join(TRIES)}")
    clips = prepare_rendered(given.faces / "clips-2400", clutter=CLUTTER, **CLIPS)
    stills = prepare_rendered(given.faces / "search", clutter=CLUTTER, **STILLS)
    search(given.only, clips, stills, given.out)


if __name__ == "__main__":
    exit_cleanly(main)
