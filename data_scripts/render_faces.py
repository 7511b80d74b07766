"""Render the default data: 3D heads with true labels -> a prepared folder.

    python data_scripts/render_faces.py --preset cpu --out data/rendered-cpu

What a preset leaves open can be set one by one. Rendering that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

from pcl_lib import presets
from pcl_lib.data import prepare_rendered
from pcl_lib.utils import BadInput, exit_cleanly


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the prepared folder to make")
    add("--preset", default="cpu", help=f"where the numbers come from: {', '.join(presets.PRESETS)} (cpu)")
    add(
        "--identities",
        type=int,
        nargs=3,
        metavar=("TRAIN", "VALIDATION", "TEST"),
        help="people in each split",
    )
    add("--images-per-identity", type=int, help="images of each of them")
    add("--size", type=int, help="side of the images in pixels")
    add("--clutter", type=float, help="0 plain background .. 1 busy")
    add(
        "--frames-per-clip",
        type=int,
        default=1,
        help="from 2 on: clips in which the head moves (1: still images)",
    )
    add("--expression", default="fixed", help="within a clip: fixed or moving (fixed)")
    add("--seed", type=int, default=0, help="draws poses, expressions, light (0)")
    options = parser.parse_args()
    if options.preset not in presets.PRESETS:
        raise BadInput(f"unknown preset {options.preset!r}: choose one of {', '.join(presets.PRESETS)}")
    settings = dataclasses.asdict(presets.PRESETS[options.preset].faces)
    for name in settings:
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    settings |= {"frames_per_clip": options.frames_per_clip, "expression": options.expression}
    started = time.perf_counter()
    faces = prepare_rendered(options.out, seed=options.seed, **settings)
    print(f"{faces.folder}: {faces.info['counts']} in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    exit_cleanly(main)
