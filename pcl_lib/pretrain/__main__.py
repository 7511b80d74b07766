"""Pre-train one method: `python -m pcl_lib.pretrain`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pcl_lib import data, methods, presets
from pcl_lib.pretrain.fabric import check_devices
from pcl_lib.pretrain.training import fit
from pcl_lib.utils import exit_cleanly


def main() -> None:
    """Command line: python -m pcl_lib.pretrain."""
    parser = argparse.ArgumentParser(prog="python -m pcl_lib.pretrain", description="Pre-train one method.")
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument("--method", default="pcl", help=", ".join(methods.METHODS))
    parser.add_argument("--data", type=Path, help="prepared folder; without it faces are rendered")
    parser.add_argument("--out", type=Path, help="run folder (default runs/PRESET)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=1, help="processes or GPUs on this machine")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. train.lr=1e-3")
    parser.add_argument(
        "--start", type=Path, metavar="FILE", help="checkpoint whose weights training begins with"
    )
    arguments = parser.parse_args()
    preset = presets.override(presets.get(arguments.preset), dict(map(presets.parse_setting, arguments.set)))
    presets.check_seed(arguments.seed)
    check_devices(preset, arguments.devices)
    out = arguments.out or Path("runs") / preset.name
    faces = data.open_faces(arguments.data, preset, out.parent)
    print(f"{arguments.method} on {faces.name}: {len(faces.split('train'))} training images")
    found = fit(
        arguments.method, preset=preset, faces=faces, out=out, seed=arguments.seed, devices=arguments.devices,
        start=arguments.start,
    )  # fmt: skip
    weights = f"{out}/checkpoints/{arguments.method}.safetensors"
    print(f"{found.seconds:.0f} s in {found.precision}; weights in {weights}")


if __name__ == "__main__":
    exit_cleanly(main)
