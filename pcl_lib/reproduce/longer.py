"""What notebooks 09 and 10 show and cannot wait for: `python -m pcl_lib.reproduce.longer`.

The recipe for other attributes than pose trained longer, and for ageing and make-up; a conditional GAN; alignment by
detectors; experiments with depth. Each part leaves its tables in the run folder at once; the same command goes on
with what is not there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pcl_lib import disentangle, methods, presets, pretrain, tables
from pcl_lib.data import SizedFaces
from pcl_lib.data.rendered import RenderedFaces
from pcl_lib.faces.factors import POSE
from pcl_lib.models import PCL
from pcl_lib.reproduce import alignment, beyond, depth, judge
from pcl_lib.reproduce.run import Run, open_run
from pcl_lib.utils import BadInput, exit_cleanly, only_one

SIZE = 64  # pixels of the strangers, as in notebook 10
# How long the GAN is trained. Small batches: pictures need many steps more than they need many images a step.
GAN: Mapping[str, dict[str, Any]] = {
    "cpu": {
        "model.width": 1.0, "train.epochs": 16, "train.iterations_per_epoch": 100, "train.frames_per_identity": 6,
        "train.pdd_batch": 12, "train.face_batch": 24, "train.pose_batch": 12, "train.checkpoint_every": 4,
    },
}  # fmt: skip
# How long the recipe is trained for each attribute, with the settings of notebook 09.
ATTRIBUTES: Mapping[str, dict[str, Any]] = {
    "cpu": beyond.LIGHT["cpu"]
    | {
        "train.epochs": 6,
        "train.iterations_per_epoch": 100,
        "train.frames_per_identity": 6,
        "train.checkpoint_every": 5,
    },
}
# Of each preset: steps of a network of the experiments with depth, and seeds; people and images of the strangers.
DEPTH_STEPS = {"smoke": 2, "cpu": 400}
LONG = 2000  # steps of the other presets
SEEDS = 3


def strangers(preset: str, cases: bool = False) -> RenderedFaces:
    """The strangers of notebook 10; without its cases more of them, to learn from as well."""
    if preset == "smoke":
        return beyond.strangers(SIZE, 20, 6, cases)
    return beyond.strangers(SIZE, *((120, 10) if cases else (300, 15)), cases)


def attributes(run: Run) -> None:
    """Notebook 09's trainings and tables, longer: attributes_features, attributes_swaps and attributes_tasks."""
    _separate(run, "attributes", beyond.ATTRIBUTES)


def oracles(run: Run) -> None:
    """The same for ageing and make-up, which only the renderer can change: oracles_features and so on."""
    _separate(run, "oracles", beyond.ORACLES)


def _separate(run: Run, part: str, trainings: Mapping[str, tuple[str, str]]) -> None:
    settings = presets.override(run.preset, ATTRIBUTES.get(run.preset.name, {}) | {"model.image_size": 32})
    faces = beyond.strangers(32, *((20, 6) if run.preset.name == "smoke" else (120, 10)))
    models = {"untrained": PCL(methods.build("pcl_change", settings).preset.model, run.seed).eval()}
    for title, (method, name) in trainings.items():
        own = presets.override(settings, {"loss.attribute": name})
        place = run.out / part / title.replace(", ", "-")
        models[title] = pretrain.fit(method, preset=own, faces=run.faces, out=place, seed=run.seed).model
    for kind, table in beyond.attribute_tables(models, faces, run.seed, trainings).items():
        context = {
            "data": faces.name,
            "iterations": str(settings.train.epochs * settings.train.iterations_per_epoch),
        }
        run.save_table(tables.Table(table.round(3), context), f"{part}_{kind}", ATTRIBUTE_CAPTIONS[kind])


ATTRIBUTE_CAPTIONS = {
    "features": "What linear probes find in either feature: R2, and AUC for occluders",
    "swaps": "Shares of swaps: 1 and 0 would be perfect; plain is the model's own picture of the truth",
    "tasks": "The price in the tasks, from the general feature",
}


def gan(run: Run) -> None:
    """Train `drgan` on the run's faces and judge it as notebook 10 judges: longer_ways, longer_swaps, gan_swaps.png."""
    settings = presets.override(run.preset, GAN.get(run.preset.name, {}))
    trained = pretrain.fit("drgan", preset=settings, faces=run.faces, out=run.out / "gan", seed=run.seed)
    faces = strangers(run.preset.name, cases=True)
    seen = SizedFaces(faces, trained.model.image_size)
    labels = "identity and angles of training images"
    way = beyond.by_pair("conditional GAN", labels, trained.model, seen, trained.seconds)
    _add_ways(run, beyond.judge([way], seen))
    shares = disentangle.swap_shares(trained.model, seen, POSE, 200, run.seed)
    run.save_rows(shares.assign(method="drgan"), "longer_swaps", precision=trained.precision, data=faces.name)
    judge.draw_swaps(trained.model, run.faces, run.out / "figures" / "gan_swaps.png")


def detectors(run: Run) -> None:
    """Alignment by detectors that others trained, judged as notebook 10 judges: longer_ways, and detectors."""
    faces = strangers(run.preset.name, cases=True)
    ways, found = alignment.compare(run, faces)
    if not ways:  # `compare` has said why
        return
    _add_ways(run, beyond.judge(ways, faces))
    run.save_table(found.round(3), "detectors", "Shares of images in which detectors find a face's landmarks")


def _add_ways(run: Run, judged: pd.DataFrame) -> None:
    path = run.out / "tables" / "longer_ways.csv"
    if path.is_file():
        before = pd.read_csv(path)
        judged = pd.concat([before[~before["way"].isin(judged["way"])], judged], ignore_index=True)
    run.save_table(
        judged.round(3), path.stem, "Ways to a head pose that take longer, judged as in notebook 10"
    )


def depths(run: Run) -> None:
    """The two experiments of `depth` with `SEEDS` seeds: depth_input and depth_target, and their rows by seed."""
    faces = strangers(run.preset.name)
    pictures = depth.with_depth(faces)
    steps = DEPTH_STEPS.get(run.preset.name, LONG)
    for kind, (experiment, caption) in EXPERIMENTS.items():
        path = run.out / "tables" / f"depth_{kind}_rows.csv"
        parts = [pd.read_csv(path)] if path.is_file() else []
        done = {seed for part in parts for seed in part["seed"]}
        for seed in sorted(set(range(SEEDS)) - done):
            found = experiment(faces, pictures, steps, seed)
            parts.append(found.assign(method=found[kind], seed=seed))
            rows = pd.concat(parts, ignore_index=True)
            run.save_rows(rows, path.stem, precision="32-true", data=faces.name)
            print(f"depth as {kind}: seed {seed} is done, of {SEEDS} seeds", flush=True)
        summary = depth.summary(pd.concat(parts, ignore_index=True), kind)
        table = tables.Table(summary, {"data": faces.name, "steps": str(steps)})
        run.save_table(table, f"depth_{kind}", caption)


EXPERIMENTS: Mapping[str, tuple[Callable[..., pd.DataFrame], str]] = {
    "input": (
        depth.depth_input,
        "Colour or depth as input: networks that were told angles, or who is who; test people",
    ),
    "target": (
        depth.depth_target,
        "Colour or depth as target, without labels: probes of the frozen feature; test people",
    ),
}
PARTS: Mapping[str, Callable[[Run], None]] = {
    "attributes": attributes,
    "oracles": oracles,
    "gan": gan,
    "detectors": detectors,
    "depth": depths,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce.longer."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce.longer",
        description="Train what notebooks 09 and 10 show and cannot wait for; goes on where it was.",
    )
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument("--out", type=Path, help="run folder (default runs/PRESET-beyond)")
    parser.add_argument("--only", nargs="+", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    given = parser.parse_args(argv)
    if unknown := [name for name in given.only if name not in PARTS]:
        raise BadInput(f"--only: there is no part '{unknown[0]}', choose some of {', '.join(PARTS)}")
    out = given.out or Path("runs") / f"{given.preset}-beyond"
    run = open_run(given.preset, "", out.resolve(), 0)
    with only_one(run.out / ".longer.lock", f"the longer parts in {run.out}"):
        for name in given.only:
            PARTS[name](run)
    print(f"Tables in {run.out / 'tables'}, on {run.device} with {torch.get_num_threads()} threads.")


if __name__ == "__main__":
    exit_cleanly(main)
