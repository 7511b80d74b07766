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

import pandas as pd

from pcl_lib import presets, pretrain, probes
from pcl_lib.data import PreparedFaces, prepare_rendered
from pcl_lib.disentangle import swap_truth
from pcl_lib.reproduce import judge
from pcl_lib.reproduce.shipped_weights import CLIPS, CLIPS_FOLDER
from pcl_lib.utils import BadInput, exit_cleanly, replace_atomically

STILLS: dict[str, Any] = {
    "identities": (340, 60, 60),
    "images_per_identity": 30,
    "seed": 1,
}  # tested on the validation people
CLUTTER = 0.2  # of the stills
# All tries: an encoder that is fast on processors, and no more iterations than some minutes allow.
COMMON = {
    "model.backbone": "patches", "model.width": 1.0, "train.iterations_per_epoch": 100, "train.epochs": 12,
    "train.frames_per_identity": 8, "train.checkpoint_every": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Try:
    """One recipe: a method of `methods.METHODS` and the settings in which it differs from `COMMON`.

    motion: how far the expression moves in the clips (`faces.clips.sample_clips`), 0 for a fixed one.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    method: str = "pcl_video"
    motion: float = 0.0

    def clips(self, folder: Path) -> PreparedFaces:
        """The clips that it learns from, rendered below `folder` where they are not there."""
        if not self.motion:
            return prepare_rendered(folder / CLIPS_FOLDER, **CLIPS)
        place = folder / f"{CLIPS_FOLDER}-moving-{self.motion:g}"
        return prepare_rendered(place, **CLIPS, expression="moving", motion=self.motion)


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
    "independence (HSIC)": Try({"video.independence": 3.0}),
    "orthogonal basis": Try({"model.pose_basis": True}),
    "no mirror": Try({"video.mirror": 0.0}),
    "no jitter": Try({"video.jitter": 0.0}),
    "expression moves by half": Try(motion=0.5),
    "expression moves": Try(motion=1.0),
    "pcl": Try({"model.norm": "batch", "train.lr": 2e-3}, "pcl"),
    "pcl_plus": Try({"model.norm": "batch", "train.lr": 2e-3, "loss.pdd": 16.0}, "pcl_plus"),
}


def run(name: str, faces: Path, stills: PreparedFaces, out: Path, readers: Any = None) -> pd.DataFrame:
    """Train and measure one try; returns its row and keeps its weights and its picture of swaps in `out`."""
    tried = TRIES[name]
    preset = presets.override(presets.get("cpu"), COMMON | dict(tried.changes))
    folder = out / "".join(c if c.isalnum() else "_" for c in name)
    done = pretrain.fit(tried.method, preset=preset, faces=tried.clips(faces), out=folder, progress=False)
    row: dict[str, Any] = {"try": name, "method": tried.method, "settings": str(dict(tried.changes))}
    row |= {"seconds": round(done.seconds), "images": int(done.history["images"].iloc[-1])}
    row |= judge.features_tell(probes.extract(probes.EvenOdd(done.model), stills), stills)
    if hasattr(done.model, "decode"):
        row |= swap_measures(swap_truth.report(done.model, stills, readers))
        judge.draw_swaps(done.model, stills, folder / "swaps.png")
    return pd.DataFrame([row])


def swap_measures(report: pd.DataFrame) -> dict[str, float]:
    """The values of `swap_truth.report`, by measure."""
    return {
        f"swap {measure}": value for measure, value in zip(report["measure"], report["value"], strict=True)
    }


def rows(out: Path) -> pd.DataFrame:
    """The rows of the tries that are done; an empty table where there are none."""
    path = out / "clip_search.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["try"])


def search(names: Sequence[str], faces: Path, stills: PreparedFaces, out: Path) -> pd.DataFrame:
    """Run the tries that have no row yet, and keep each row at once; returns all rows. faces: where clips are kept."""
    left = [name for name in names if name not in set(rows(out)["try"])]
    print(f"{len(names)} tries, {len(names) - len(left)} of them done before.", flush=True)
    readers = swap_truth.fit_probes(stills, presets.get("cpu").model.image_size) if left else None
    for name in left:
        row = run(name, faces, stills, out, readers)
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
        "--faces", type=Path, default=Path("runs/faces"), help="where the sets are rendered to"
    )
    parser.add_argument("--only", nargs="+", default=list(TRIES), metavar="TRY", help=", ".join(TRIES))
    given = parser.parse_args(argv)
    if unknown := set(given.only) - set(TRIES):
        raise BadInput(f"--only: there is no try '{min(unknown)}', choose some of {', '.join(TRIES)}")
    stills = prepare_rendered(given.faces / "search", clutter=CLUTTER, **STILLS)
    search(given.only, given.faces, stills, given.out)


if __name__ == "__main__":
    exit_cleanly(main)
