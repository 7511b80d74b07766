"""From one command to tables and figures: `python -m pcl_lib.reproduce` runs the notebooks in order.

A run folder (DESIGN.md) holds the settings it was made with and never takes in results of others. Whatever finished is
kept: a notebook is run again only if it, the library or what ran before it changed, and training goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pcl_lib import notebooks, presets, pretrain, sets, tables
from pcl_lib.data import PreparedFaces
from pcl_lib.errors import BadInput, exit_cleanly
from pcl_lib.files import make_folder, replace_atomically
from pcl_lib.models.checkpoint import checkpoint_notes
from pcl_lib.presets import Preset
from pcl_lib.pretrain import differences
from pcl_lib.results import commit, versions

FOLDERS = ("checkpoints", "logs", "notebooks", "tables", "figures")


@dataclass(frozen=True)
class Setup:
    """What a notebook works with: settings, faces, the run folder and the seed.

    faces: the set that methods are pre-trained on, and probed on as far as it has labels. others: only probed.
    """

    preset: Preset
    faces: PreparedFaces
    out: Path
    seed: int
    others: tuple[PreparedFaces, ...] = ()

    @property
    def sets(self) -> tuple[PreparedFaces, ...]:
        """All sets of the run, the one to pre-train on first."""
        return (self.faces, *self.others)

    @property
    def device(self) -> str:
        """The device that training picks, in words: "cpu", "cuda NVIDIA H200", ..."""
        return device_name()


def device_name() -> str:
    """The accelerator of this machine, or "cpu"."""
    if torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def open_run(preset: str | Preset, data: str | Path, out: str | Path, seed: int) -> Setup:
    """Open a run folder for these settings, or make it; the first thing that every notebook does.

    preset: a name, or one of your own. data: a prepared folder, or several as `sets.join_folders` joins them, the
    first to pre-train on; "" for the rendered faces, which are kept beside the run folder. Writes out/config.json;
    where it is there with other settings, raises BadInput that names those that differ. Raises BadInput as well on an
    unknown preset, a negative seed, bad data, a set given twice, a folder that cannot be written.
    """
    preset = presets.get(preset) if isinstance(preset, str) else preset
    if type(seed) is not int or seed < 0:
        raise BadInput(f"seed {seed!r}: a whole number from 0 on is needed")
    out = Path(out)
    first, *more = sets.split_folders(data)
    others = tuple(PreparedFaces(folder) for folder in more)
    faces = pretrain.open_faces(first or None, preset, out.parent)
    sets.check_distinct((faces, *others))
    for name in FOLDERS:
        make_folder(out / name)
    config = {
        "preset": presets.to_dict(preset),
        "data": {"name": faces.name, "content_hash": faces.content_hash},
        "seed": seed,
        "versions": versions(),
    }
    if others:
        config["probed too"] = {other.name: other.content_hash for other in others}
    _keep_config(out / "config.json", config)
    return Setup(preset, faces, out, seed, others)


def _keep_config(path: Path, config: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, config)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): choose another --out, or delete it") from None
    if differ := list(differences(before, config)):
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise BadInput(
            f"{path.parent} is the folder of a run with other settings ({'; '.join(differ[:4])}{more}): "
            "choose another --out, or delete that folder"
        )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write readable JSON atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def trained(setup: Setup, method: str) -> pretrain.Run:
    """The method pre-trained on the run's faces: loaded where it is done, trained (saying so) where not.

    Raises as `pretrain.fit`.
    """
    weights = setup.out / "checkpoints" / f"{method}.safetensors"
    done = int(checkpoint_notes(weights)["epoch"]) if weights.is_file() else None
    epochs = setup.preset.train.epochs
    if method == "random":
        print("random: an untrained encoder, nothing to train.")
    elif done is None:
        print(f"{method}: training {epochs} epochs on {setup.faces.name}.")
    elif done < epochs:
        print(f"{method}: training goes on after epoch {done} of {epochs} on {setup.faces.name}.")
    else:
        print(f"{method}: loading the finished training from {weights}.")
    return pretrain.fit(method, preset=setup.preset, faces=setup.faces, out=setup.out, seed=setup.seed)


def reproduce(
    preset: str,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    seed: int,
    *,
    only: str | None = None,
    folder: Path = notebooks.NOTEBOOKS,
    limits: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Run the notebooks that have not finished yet with these settings; returns what summary.json holds.

    preset, out, seed: see `open_run`. data: a prepared folder or several, the first to pre-train on. only: "02,05" for
    those two. folder: where the notebooks are. limits: see `notebooks.run_if_needed`. A notebook that finished is run
    again where it, the library or an earlier notebook's run is newer. Raises BadInput on bad settings before anything
    runs, and where a cell fails; what was done stays.
    """
    presets.get(preset)
    found, wanted = notebooks.find_notebooks(folder, only)
    for path in wanted:
        notebooks.check_parameters(path)
    notebooks.check_kernel()
    joined = sets.join_folders([data] if isinstance(data, str | Path) else data)
    setup = open_run(preset, joined, Path(out).resolve(), seed)
    values = {"preset": preset, "data": joined, "out": str(setup.out), "seed": seed}
    latest = 0.0
    for number, path in enumerate(found, 1):
        stamp = notebooks.read_stamp(setup.out / "notebooks" / path.name)
        if path in wanted:
            print(f"[{number}/{len(found)}] {path.stem} ...", end=" ", flush=True)
            stamp = notebooks.run_if_needed(path, setup.out, values, latest, limits)
        latest = max(latest, stamp.get("finished", 0.0))
    summary = summarise_run(setup)
    write_json(setup.out / "summary.json", summary)
    return summary


def summarise_run(setup: Setup) -> dict[str, Any]:
    """Settings, times and headline numbers of a run folder, all read from its files."""
    copies = sorted((setup.out / "notebooks").glob("*.ipynb"))
    stamps = {copy.stem: notebooks.read_stamp(copy) for copy in copies}
    seconds = {name: stamp["seconds"] for name, stamp in stamps.items() if stamp}
    weights = sorted((setup.out / "checkpoints").glob("*.safetensors"))
    names = (*tables.HEADLINES, "paper") if setup.others else tables.HEADLINES
    headline = {name: tables.headline(setup.out / "tables" / f"{name}.csv") for name in names}
    return {
        "preset": setup.preset.name,
        "seed": setup.seed,
        "data": _describe(setup.faces),
        "probed_too": [_describe(other) for other in setup.others],
        "device": setup.device,
        "versions": versions(),
        "commit": commit(),
        "seconds": round(sum(seconds.values()), 1),
        "seconds_by_notebook": seconds,
        "training_seconds": {path.stem: checkpoint_notes(path)["seconds"] for path in weights},
        "headline": {name: values for name, values in headline.items() if values},
        "absent": [f"tables/{name}.csv" for name, values in headline.items() if not values],
    }


def _describe(faces: PreparedFaces) -> dict[str, Any]:
    return {"name": faces.name, "images": len(faces), "hash": faces.content_hash}


def report(out: Path, summary: dict[str, Any]) -> None:
    """Print where the results are, the main table, and that of the paper where several sets were probed."""
    print(
        f"\n{summary['seconds']:.0f} s in {len(summary['seconds_by_notebook'])} notebooks. Results in {out}:"
    )
    for folder in ("tables", "figures", "notebooks"):
        names = sorted(path.name for path in (out / folder).iterdir() if not path.name.startswith("."))
        print(f"  {folder}/ {', '.join(names) or 'nothing yet'}")
    print("  summary.json")
    for name in summary["absent"]:
        print(f"There is no {name} yet, so summary.json has no numbers of it: notebook 07 writes it.")
    for name in ("main", "paper") if summary["probed_too"] else ("main",):
        table = out / "tables" / f"{name}.md"
        if table.is_file():
            print(f"\n{table.read_text(encoding='utf-8')}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce",
        description="Run the notebooks in order, into a run folder with tables and figures.",
    )
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument(
        "--data",
        nargs="+",
        default=[""],
        metavar="FOLDER",
        help="prepared folders: pre-train on the first, probe it and the others; without it faces are rendered",
    )
    parser.add_argument("--out", type=Path, help="run folder (default runs/PRESET)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="numbers of the notebooks to run, e.g. 02,05")
    given = parser.parse_args(argv)
    out = given.out or Path("runs") / given.preset
    try:
        summary = reproduce(given.preset, given.data, out, given.seed, only=given.only)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    report(out, summary)


if __name__ == "__main__":
    exit_cleanly(main)
