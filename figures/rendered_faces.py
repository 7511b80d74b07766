"""`python figures/rendered_faces.py FOLDER`: draw rendered_faces.png (identities by yaw) and expressions.png there."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pcl_lib.faces import EXPRESSIONS, render, sample_factors
from pcl_lib.faces.factors import AUS, PROTOTYPES
from pcl_lib.utils import BadInput, exit_cleanly

FACE, LABEL = 140, 22  # pixels of a face's side and of a label's line
YAWS = (-70, -45, -22, 0, 22, 45, 70)
TURNED, ACTED = (0, 9, 14, 37, 51, 30), (13, 46, 82, 75, 86, 6)  # identities shown, chosen for variety


def _grid(images: NDArray[np.uint8], titles: list[str]) -> Image.Image:
    """Images [n, 3, side, side], row by row under a line of column titles."""
    side, columns = images.shape[-1], len(titles)
    sheet = Image.new("RGB", (columns * side, LABEL + len(images) // columns * side), "white")
    write, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for k, title in enumerate(titles):
        write.text(((k + 0.5) * side, LABEL / 2), title, fill="black", font=font, anchor="mm")
    for k, image in enumerate(images):
        x, y = k % columns * side, LABEL + k // columns * side
        sheet.paste(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))), (x, y))
    return sheet


def _people(columns: int, identities: tuple[int, ...]) -> pd.DataFrame:
    """These identities, each `columns` times: level, calm and lit alike within a row."""
    f = sample_factors(max(identities) + 1, seed=4).iloc[list(identities)].copy()
    f[["pitch", "roll", "shift_x", "gaze_x", "gaze_y", "blur", "noise"]] = 0.0
    return f.loc[f.index.repeat(columns)].reset_index(drop=True)


def draw_turning() -> Image.Image:
    """Identities by yaw, with the mild expressions of their rows."""
    f = _people(len(YAWS), TURNED)
    f["yaw"] = np.tile(np.array(YAWS, float), len(TURNED))
    f[list(AUS)] *= 0.5
    return _grid(render(f, FACE).numpy(), [f"yaw {y:+d}°" if y else "yaw 0°" for y in YAWS])


def draw_expressions() -> Image.Image:
    """Identities by basic expression, at the prototypes' intensities."""
    f = _people(len(EXPRESSIONS), ACTED)
    f["yaw"] = np.tile(np.array([0, 18, -12, 10, -18, 12, -10], float), len(ACTED))
    f[list(AUS)] = np.tile([[PROTOTYPES[e].get(au, 0.0) for au in AUS] for e in EXPRESSIONS], (len(ACTED), 1))
    return _grid(render(f, FACE).numpy(), list(EXPRESSIONS))


FIGURES: dict[str, Callable[[], Image.Image]] = {
    "rendered_faces.png": draw_turning,
    "expressions.png": draw_expressions,
}


def main() -> None:
    """Command line: python figures/rendered_faces.py."""
    parser = argparse.ArgumentParser(prog="python figures/rendered_faces.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write the two figures")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}: make it, or name another.")
    for name, draw in FIGURES.items():
        draw().save(folder / name, optimize=True)
        print(folder / name)


if __name__ == "__main__":
    exit_cleanly(main)
