"""Tables and a picture of the shipped weights: `python -m pcl_lib.reproduce.shipped_report`.

All are judged on the test people of the preset's rendered faces, beside features without a network. Swaps are judged
by the rendered truth (`disentangle.swap_truth`). With --data, prepared sets are probed instead, a table each: the
features as they are, trained on rendered faces alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pcl_lib import presets, probes, tables
from pcl_lib.data import FaceSet, PreparedFaces, SizedFaces, rendered
from pcl_lib.disentangle import swap_truth
from pcl_lib.models import PCL
from pcl_lib.models.shipped import SHIPPED, shipped
from pcl_lib.probes import FrozenFeatures
from pcl_lib.probes.handcrafted import Eigenfaces
from pcl_lib.probes.tasks import mark_labels
from pcl_lib.reproduce import judge
from pcl_lib.reproduce.measure import CONTROLS
from pcl_lib.tables import Estimate, Table
from pcl_lib.utils import BadInput, device_name, exit_cleanly

UNTRAINED = ("HoG", "LBP")  # of `measure.CONTROLS`
EIGENFACES = "PCA"
TOLD = (
    "yaw",
    "|yaw|",
    "pitch",
    "roll",
    "skin_tone",
    "light_azimuth",
    "expression",
    "verification",
    "cross-pose",
)
# Measures of `swap_truth.report`: how the table calls them, digits, and whether more or less is better.
SWAP_COLUMNS = {
    "score SSIM": ("SSIM score", 2, "higher"),
    "score SSIM head": ("SSIM score, head", 2, "higher"),
    "score L1": ("L1 score", 2, "higher"),
    "score L1 head": ("L1 score, head", 2, "higher"),
    "identity rank-1": ("identity rank-1", 2, "higher"),
    "yaw MAE": ("yaw MAE", 1, "lower"),
    "pitch MAE": ("pitch MAE", 1, "lower"),
    "roll MAE": ("roll MAE", 1, "lower"),
}
TRUTH = "the true pictures"


def probe_table(found: Mapping[str, FrozenFeatures], faces: FaceSet, **context: Any) -> Table:
    """`tables.main_table` of `UNTRAINED`, eigenfaces and features by method, read from one and from pairs of them."""
    controls: dict[str, Any] = {name: CONTROLS[name]() for name in UNTRAINED}
    if "fold" not in faces.table:  # people of one fold are test people of another
        controls = {EIGENFACES: Eigenfaces(faces)} | controls
    parts = [
        probes.evaluate(control, faces, features=["general"]).assign(method=name)
        for name, control in controls.items()
    ]
    parts += [probes.evaluate(own, faces).assign(method=method) for method, own in found.items()]
    rows = tables.readings(mark_labels(pd.concat(parts, ignore_index=True), faces))
    rows = rows.assign(feature="general", **context)
    return tables.main_table(rows)


def feature_table(found: Mapping[str, FrozenFeatures], faces: PreparedFaces) -> Table:
    """What the general, the face-aware and the pose-related feature of each method tell (`judge.features_tell`)."""
    lines = []
    for method, own in found.items():
        tells = judge.features_tell(own, faces)
        for feature in ("general", "face", "pose"):
            told = {name.replace("_", " "): tells[f"{feature} {name}"] for name in TOLD}
            lines.append({"method": method, "feature": feature} | {k: Estimate(v) for k, v in told.items()})
    return Table(pd.DataFrame(lines))


def swap_table(models: Mapping[str, PCL], faces: PreparedFaces, n: int = 400) -> Table:
    """n swaps of each model against the truth (`swap_truth.report`), and what the readers make of the true pictures.

    Raises as `swap_truth.draw_swaps`.
    """
    readers = swap_truth.fit_probes(faces, next(iter(models.values())).image_size)
    lines: list[dict[str, Any]] = []
    last: dict[str, Any] = {"method": TRUTH}
    for method, model in models.items():
        rows = swap_truth.report(model, faces, readers, n=n).set_index("measure").to_dict("index")
        line: dict[str, Any] = {"method": method}
        for name, (column, digits, better) in SWAP_COLUMNS.items():
            row = rows[name]
            line[column] = Estimate(row["value"], row["low"], row["high"], better=better, digits=digits)
            last[column] = Estimate(
                row["on_truth"], digits=digits, missing="" if "score" not in name else "not asked"
            )
        lines.append(line)
    return Table(pd.DataFrame([*lines, last]))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce.shipped_report."""
    parser = argparse.ArgumentParser(prog="python -m pcl_lib.reproduce.shipped_report", description=__doc__)
    parser.add_argument("--preset", default="cpu", help="whose rendered faces: " + ", ".join(presets.PRESETS))
    parser.add_argument("--faces", type=Path, default=Path("runs"), help="the folder with faces/ of runs")
    parser.add_argument(
        "--out", type=Path, default=Path("figures"), help="the folder to write tables/ and pictures to"
    )
    parser.add_argument(
        "--data", nargs="+", type=Path, default=[], metavar="FOLDER", help="prepared sets to probe instead"
    )
    given = parser.parse_args(argv)
    models = {method: shipped(method) for method in SHIPPED}
    for folder in given.data:
        faces = SizedFaces(PreparedFaces(folder), next(iter(models.values())).image_size)
        context = _context(faces, given.preset)
        _write({f"shipped_{folder.name}": photographs(models, faces, context)}, given.out, context)
    if not given.data:
        _of_rendered(models, given.preset, given.faces, given.out)


def photographs(models: Mapping[str, PCL], faces: FaceSet, context: Mapping[str, Any]) -> tuple[Table, str]:
    """`probe_table` of a set that is not rendered, which has no truth of swaps, and its caption."""
    found = {method: probes.extract(probes.EvenOdd(model), faces) for method, model in models.items()}
    caption = f"The shipped weights as they are, by linear probes on {faces.name}"
    return probe_table(found, faces, **context), caption


def _of_rendered(models: Mapping[str, PCL], name: str, folder: Path, out: Path) -> None:
    preset = presets.get(name)
    faces = rendered.open_faces(None, preset, folder)
    if unlike := [method for method, model in models.items() if model.image_size != faces.image_size]:
        raise BadInput(
            f"{unlike[0]} has pictures of another size than preset {preset.name}: choose that of its card"
        )
    context = _context(faces, preset.name)
    found = {method: probes.extract(probes.EvenOdd(model), faces) for method, model in models.items()}
    made = {
        "shipped_main": (probe_table(found, faces, **context), "The shipped weights, by linear probes"),
        "shipped_features": (feature_table(found, faces), "What each feature of the shipped weights tells"),
        "shipped_swaps": (
            swap_table(models, faces),
            "Swaps of the shipped weights, judged by the rendered truth",
        ),
    }
    _write(made, out, context)
    judge.draw_swaps(models["pcl_video"], faces, out / "swaps_video.png")


def _context(faces: FaceSet, preset: str) -> dict[str, Any]:
    context = {"preset": preset, "seed": 0, "data": faces.name, "protocol": "validation"}
    context |= {"precision": "32-true"}
    return context | {"device": device_name(), "versions": tables.versions(), "commit": tables.commit()}


def _write(made: Mapping[str, tuple[Table, str]], out: Path, context: Mapping[str, Any]) -> None:
    about = {name: str(context[name]) for name in ("preset", "data", "device", "versions", "commit")}
    for name, (table, caption) in made.items():
        table = Table(table.frame, table.context or about)
        tables.write_table(table, out / "tables" / name, caption, latex=False)
        print(tables.to_markdown(table, caption))


if __name__ == "__main__":
    exit_cleanly(main)
