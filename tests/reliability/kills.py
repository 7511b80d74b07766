"""SIGKILL at random moments; the same command again must end bit for bit as one that nobody disturbed.

    python tests/reliability/kills.py --kills 50

After each kill, what is in the folder must be whole or known to be unfinished, and what was finished before must
stay as it is. Times are left out of the comparison, nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

import numpy as np
import pandas as pd
import torch
from PIL import Image

from pcl_lib import data
from pcl_lib.models import load_checkpoint
from pcl_lib.reproduce.notebooks import read_stamp
from pcl_lib.utils import BadInput

TIMES = {"seconds", "training_seconds", "training (s)", "images per second", "minutes", "seconds_by_notebook",
         "commit"}  # fmt: skip
EARLY = 0.4  # of an undisturbed run: each kill comes by then, so that several fall into one folder
PATIENCE = 1800  # seconds for a command that nobody kills


class Broken(AssertionError):
    """What a kill must not do."""


@dataclass(frozen=True)
class Stage:
    """A command and how it is judged.

    command: (sources, folder) -> arguments of python. content: what a finished folder holds, by name. kept: what is
    finished by now and may not be done again, by name. check: raises Broken where half passes for whole.
    """

    command: Callable[[Path, Path], list[str]]
    content: Callable[[Path], dict[str, str]]
    kept: Callable[[Path], dict[str, str]]
    check: Callable[[Path], None]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


# Prepared folders -------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: digest(path.read_bytes()) for path in folder.iterdir()}


def shards_of(folder: Path) -> dict[str, str]:
    """Whole shards by the time they were written: a resumed command leaves them alone."""
    found = {}
    for shard in folder.glob("shard-*.npy"):
        part = folder / shard.name.replace("shard", "part").replace(".npy", ".json")
        if part.exists() or not (folder / "part-00000.json").exists():
            found[shard.name] = str(shard.stat().st_mtime_ns)
    return found


def prepared_is_whole(folder: Path) -> None:
    if (folder / "dataset.json").exists():
        data.PreparedFaces(folder).verify()
    else:
        try:
            data.PreparedFaces(folder)
        except BadInput:
            return
        raise Broken(f"{folder} has no dataset.json and was taken for whole")


def prepare(sources: Path, folder: Path) -> list[str]:
    return [
        "-m",
        "data_scripts.prepare_folder",
        str(sources / "pictures"),
        str(folder),
        "--size",
        "32",
        "--workers",
        "2",
    ]


def render(_: Path, folder: Path) -> list[str]:
    people = ["--identities", "60", "10", "10", "--images-per-identity", "60"]
    return ["data_scripts/render_faces.py", "--preset", "smoke", "--out", str(folder), *people]


# Training ---------------------------------------------------------------------------------------------------


def pretrain(devices: int) -> Callable[[Path, Path], list[str]]:
    settings = ("train.epochs=12", "train.checkpoint_every=1", "train.iterations_per_epoch=6")

    def command(sources: Path, folder: Path) -> list[str]:
        line = [
            "-m",
            "pcl_lib.pretrain",
            "--preset",
            "smoke",
            "--data",
            str(sources / "set"),
            "--out",
            str(folder),
        ]
        return [
            *line,
            "--devices",
            str(devices),
            *(part for setting in settings for part in ("--set", setting)),
        ]

    return command


def tensors(state: object, name: str = "") -> dict[str, str]:
    """A digest of every leaf of a training state but times."""
    if isinstance(state, dict):
        parts = [tensors(value, f"{name}.{key}") for key, value in state.items() if key not in TIMES]
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(state, list):
        return {
            key: value for i, item in enumerate(state) for key, value in tensors(item, f"{name}.{i}").items()
        }
    return {
        name: digest(state.numpy().tobytes() if isinstance(state, torch.Tensor) else repr(state).encode())
    }


def training_of(folder: Path) -> dict[str, str]:
    state = torch.load(folder / "checkpoints" / "pcl.state", weights_only=True)
    found = tensors(state) | {
        f"weights.{name}": digest(value.numpy().tobytes())
        for name, value in load_checkpoint(folder / "checkpoints" / "pcl.safetensors").state_dict().items()
    }
    found["log"] = csv_of(folder / "logs" / "pcl.csv")
    hidden = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    return found | {
        "files": str(sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))),
        "hidden": str(hidden),
    }


def csv_of(path: Path) -> str:
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    return digest(rows.drop(columns=[name for name in rows if name in TIMES]).to_csv(index=False).encode())


def epochs_of(folder: Path) -> dict[str, str]:
    """Each epoch that a checkpoint holds by the seconds it took: trained again it would take others."""
    path = folder / "checkpoints" / "pcl.state"
    if not path.exists():
        return {}
    history = torch.load(path, weights_only=True)["history"]
    return {f"epoch {row['epoch']}": str(row["seconds"]) for row in history}


def checkpoints_are_whole(folder: Path) -> None:
    for path in folder.glob("checkpoints/[!.]*.safetensors"):
        load_checkpoint(path)
    for path in folder.glob("checkpoints/[!.]*.state"):
        torch.load(path, weights_only=True)
    for path in folder.glob("*/[!.]*.csv"):
        pd.read_csv(path)


# Whole runs -------------------------------------------------------------------------------------------------


def ablations(sources: Path, folder: Path) -> list[str]:
    line = [
        "-m",
        "pcl_lib.ablations",
        "--preset",
        "smoke",
        "--data",
        str(sources / "set"),
        "--out",
        str(folder),
    ]
    return [*line, "--only", "random", "simclr", "pcl", "--seeds", "1", "--workers", "2"]


def reproduce(sources: Path, folder: Path) -> list[str]:
    line = [
        "-m",
        "pcl_lib.reproduce",
        "--preset",
        "smoke",
        "--data",
        str(sources / "set"),
        "--out",
        str(folder),
    ]
    return [*line, "--only", "01,02,03"]


def tables_of(folder: Path) -> dict[str, str]:
    """Every table of a run but for times and the order of its rows."""
    found = {}
    for path in sorted(folder.glob("tables/*.csv")):
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = rows.drop(columns=[name for name in rows if name in TIMES])
        found[path.name] = digest("\n".join(sorted(rows.to_csv(index=False).splitlines())).encode())
    for path in sorted(folder.glob("checkpoints/*.safetensors")):
        weights = load_checkpoint(path).state_dict().values()
        found[path.name] = digest(b"".join(value.numpy().tobytes() for value in weights))
    return found | {"hidden": str([str(path.relative_to(folder)) for path in folder.rglob(".*")])}


def cells_of(folder: Path) -> dict[str, str]:
    path = folder / "tables" / "ablation_cells.csv"
    rows = (
        pd.read_csv(path, dtype=str)
        if path.exists()
        else pd.DataFrame(columns=["method", "training_seconds"])
    )
    return dict(zip(rows["method"], rows["training_seconds"], strict=True))


def notebooks_of(folder: Path) -> dict[str, str]:
    stamps = {path.name: read_stamp(path) for path in folder.glob("notebooks/*.ipynb")}
    return {name: stamp["run"] for name, stamp in stamps.items() if stamp}


STAGES = {
    "prepare": Stage(prepare, files_of, shards_of, prepared_is_whole),
    "render": Stage(render, files_of, shards_of, prepared_is_whole),
    "pretrain": Stage(pretrain(1), training_of, epochs_of, checkpoints_are_whole),
    "pretrain-2": Stage(pretrain(2), training_of, epochs_of, checkpoints_are_whole),
    "ablations": Stage(ablations, tables_of, cells_of, checkpoints_are_whole),
    "reproduce": Stage(reproduce, tables_of, notebooks_of, checkpoints_are_whole),
}


# Killing ----------------------------------------------------------------------------------------------------


def make_sources(folder: Path) -> None:
    """Pictures to prepare (two of them damaged), and rendered faces to train on."""
    rng = np.random.default_rng(0)
    for number in range(900):
        place = folder / "pictures" / f"person{number // 10:03d}"
        place.mkdir(parents=True, exist_ok=True)
        grey = np.kron(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
        Image.fromarray(grey).save(place / f"{number % 10}.png")
    (folder / "pictures" / "person003" / "1.png").write_bytes(b"")
    subprocess.run(
        [sys.executable, "data_scripts/render_faces.py", "--preset", "smoke", "--out", str(folder / "set")],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip


def start(line: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *line], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(line: list[str], folder: Path) -> float:
    """Run a command to its end; returns the seconds from its first sign in `folder` on."""
    signs, process = Signs(folder), start(line)
    while process.poll() is None and not signs.new():
        time.sleep(0.005)
    begun = time.monotonic()
    said, _ = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise Broken(f"exit {process.returncode}: {said.decode(errors='replace')[-500:]}")
    return time.monotonic() - begun


class Signs:
    """Whether anything in a folder has changed since now."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.before = folder, {}
        self.before = self._times()

    def _times(self) -> dict[Path, int]:
        return {path: _changed(path) for path in self.folder.rglob("*")} if self.folder.exists() else {}

    def new(self) -> bool:
        return self._times() != self.before


def kill_once(line: list[str], folder: Path, most: float, rng: random.Random) -> bool:
    """Kill a command within `most` seconds of its first sign in `folder`; False where it was done before."""
    signs, process = Signs(folder), start(line)
    while process.poll() is None and not signs.new():
        time.sleep(0.005)
    until = time.monotonic() + rng.uniform(0, most)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def disturb(name: str, kills: int, seed: int, sources: Path, top: Path) -> tuple[int, int]:
    """Kill a stage so often, five times a folder at most; returns kills, and folders that were compared.

    Raises Broken where an end differs, half is taken for whole, or finished work is done again.
    """
    stage, rng, done, lives = STAGES[name], random.Random(f"{name} {seed}"), 0, 0
    most = EARLY * finish(stage.command(sources, top / "undisturbed"), top / "undisturbed")
    wanted = stage.content(top / "undisturbed")
    while done < kills:
        folder = top / f"killed{lives}"
        for _ in range(min(5, kills - done)):
            kept = stage.kept(folder) if folder.exists() else {}
            if not kill_once(stage.command(sources, folder), folder, most, rng):
                break
            done += 1
            stage.check(folder)
            _compare(kept, stage.kept(folder), name, "was done again", subset=True)
        kept = stage.kept(folder)
        finish(stage.command(sources, folder), folder)
        if name not in ("prepare", "render"):  # their marks of finished shards go with the end
            _compare(kept, stage.kept(folder), name, "was done again", subset=True)
        _compare(wanted, stage.content(folder), name, "differs from the undisturbed run")
        lives += 1
    return done, lives


def _compare(one: dict[str, str], other: dict[str, str], name: str, what: str, subset: bool = False) -> None:
    keys = one if subset else one.keys() | other.keys()
    if different := sorted(key for key in keys if one.get(key) != other.get(key)):
        raise Broken(f"{name}: {different[0]} {what} ({one.get(different[0])}, {other.get(different[0])})")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="of each stage (50)")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        make_sources(Path(place))
        for name in given.only:
            begun = time.monotonic()
            (top := Path(place) / name).mkdir()
            try:
                done, lives = disturb(name, given.kills, given.seed, Path(place), top)
                said = f"{done} kills in {lives} folders, each ended as the undisturbed one"
            except Broken as error:
                failed, said = failed + 1, f"BROKEN: {error}"
            print(
                json.dumps({"stage": name, "found": said, "seconds": round(time.monotonic() - begun)}),
                flush=True,
            )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
