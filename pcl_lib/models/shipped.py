"""Weights that come with the kit, each with a card of where it is from; `python -m pcl_lib.models.shipped RUN` ships.

They are kept in float16, half the size; pictures and readings made with them differ from the run's in rounding.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pcl_lib.errors import BadInput, exit_cleanly
from pcl_lib.files import replace_atomically
from pcl_lib.models.checkpoint import checkpoint_notes, load_checkpoint, save_checkpoint
from pcl_lib.models.pcl import PCL

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
SHIPPED = ("pcl", "pcl_plus")  # the methods whose decoder swaps
LIMIT = 10_000_000  # bytes of all shipped weights


def shipped(method: str = "pcl", device: str = "cpu") -> PCL:
    """The shipped model of a method, in eval mode and float32. Raises BadInput where there is none."""
    return load_checkpoint(_weights(method), device)


def card(method: str = "pcl") -> dict[str, Any]:
    """Where the shipped weights of a method come from. Raises BadInput where there are none.

    Keys: method, preset, seed, epochs, seconds, command, hardware, data, versions, commit, metrics (of the run that
    trained them, on its own test people), exported (date).
    """
    path = _weights(method).with_suffix(".json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): export the weights again (make weights)") from None


def _weights(method: str) -> Path:
    path = WEIGHTS / f"{method}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
        raise BadInput(f"no weights of {method} come with the kit (there are: {there}): train them")
    return path


def export(
    run: Path, methods: Sequence[str] = SHIPPED, folder: Path = WEIGHTS, hardware: str = ""
) -> list[Path]:
    """Copy the finished weights of a run folder to `folder`, in float16, with a card each; returns their paths.

    hardware: what trained them, in words; the run's device where empty. Raises BadInput where the run has no
    summary.json, config.json, probe rows or checkpoint of a method, or has not finished training it, where weights
    leave float16, and where all together are larger than `LIMIT`.
    """
    config, summary = (_read_json(run / name) for name in ("config.json", "summary.json"))
    written = []
    for method in methods:
        source = run / "checkpoints" / f"{method}.safetensors"
        notes, model = checkpoint_notes(source), load_checkpoint(source)
        epochs = config["preset"]["train"]["epochs"]
        if notes["epoch"] != epochs:
            raise BadInput(
                f"{source} stopped after epoch {notes['epoch']} of {epochs}: finish the training first"
            )
        model.half()
        if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
            raise BadInput(f"{source} holds values beyond float16: it cannot be shipped")
        path = folder / f"{method}.safetensors"
        save_checkpoint(model, path, notes)
        about = _card(notes, config, summary, _metrics(run, method)) | (
            {"hardware": hardware} if hardware else {}
        )
        with replace_atomically(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        written.append(path)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if size > LIMIT:
        raise BadInput(f"{folder} holds {size / 1e6:.1f} MB of weights, {LIMIT / 1e6:.0f} may be shipped")
    return written


def _card(
    notes: dict[str, Any], config: dict[str, Any], summary: dict[str, Any], metrics: dict[str, float]
) -> dict[str, Any]:
    return {
        "method": notes["method"],
        "preset": notes["preset"],
        "seed": notes["seed"],
        "epochs": notes["epoch"],
        "seconds": notes["seconds"],
        "command": f"make reproduce PRESET={notes['preset']} SEED={notes['seed']}",
        "hardware": summary["device"],
        "data": {"name": config["data"]["name"], "hash": config["data"]["content_hash"]},
        "settings": config["preset"],
        "versions": config["versions"],
        "commit": summary["commit"],
        "metrics": metrics,
        "weights": "float16",
        "exported": datetime.date.today().isoformat(),
    }


def _metrics(run: Path, method: str) -> dict[str, float]:
    """The run's probe results of a method, such as {"general: expression accuracy": 0.32}, without single units."""
    path = run / "tables" / "probes.csv"
    try:
        rows = pd.read_csv(path)
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error}): run notebook 05 with that run folder first"
        ) from None
    rows = rows[(rows["method"] == method) & ~rows["metric"].str.contains(r" au\d")]
    names = rows["feature"] + ": " + rows["task"] + " " + rows["metric"]
    return dict(zip(names, rows["value"].round(4).tolist(), strict=True))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): give the folder of a finished run") from None


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.models.shipped."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.models.shipped",
        description="Ship the weights of a finished run with the kit: float16 safetensors and a card each.",
    )
    parser.add_argument("run", type=Path, help="run folder of a finished make reproduce, e.g. runs/cpu")
    parser.add_argument(
        "--hardware", default="", help="what trained them, in words (default: the run's device)"
    )
    given = parser.parse_args(argv)
    for path in export(given.run, hardware=given.hardware):
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB) and {path.with_suffix('.json').name}")


if __name__ == "__main__":
    exit_cleanly(main)
