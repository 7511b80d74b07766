"""Sets with nothing to probe run through every notebook to their summary, which says what was left out.

    python tests/reliability/unprobed.py                 (all notebooks, three sets; minutes)
    python tests/reliability/unprobed.py --only 08       (some notebooks)

nobody: no labels, and who is on the images is not known. alone: one test person of one expression at one angle, and no
labels for anybody else. one class: every label is there and has one value.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import blob_images

from pcl_lib import data

IMAGES, SIZE = 48, 32


def tables() -> dict[str, pd.DataFrame]:
    """The labels of each set by its name."""
    people = pd.DataFrame({"identity": np.arange(IMAGES) // 2})
    people["split"] = ["train"] * 40 + ["validation"] * 6 + ["test"] * 2
    alone = people.assign(expression=None, yaw=np.nan)
    alone.loc[alone["split"] == "test", ["expression", "yaw"]] = "happy", 0.0
    return {
        "nobody": pd.DataFrame({"file": [f"{i}.png" for i in range(IMAGES)]}),
        "alone": alone,
        "one class": people.assign(expression="happy", au12=3.0, yaw=0.0, pitch=0.0, roll=0.0),
    }


def run(name: str, table: pd.DataFrame, folder: Path, more: list[str]) -> dict[str, object]:
    """Have `make reproduce` go over the set, at the smallest preset; what summary.json holds.

    Raises AssertionError, with what was printed, where it does not end well.
    """
    place, out = folder / name, folder / f"{name} run"
    data.write_prepared(place, blob_images(IMAGES, SIZE), table, name=name, source="drawn by the tests")
    command = [sys.executable, "-m", "pcl_lib.reproduce", "--preset", "smoke", "--data", str(place)]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # kernels start elsewhere
    done = subprocess.run(
        [*command, "--out", str(out), *more], cwd=ROOT, env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    found: dict[str, object] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="numbers of notebooks, such as 05,08; all by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, table in tables().items():
            run(name, table, Path(folder), ["--only", given.only] if given.only else [])
            print(f"{name}: ran to its summary", flush=True)


if __name__ == "__main__":
    main()
