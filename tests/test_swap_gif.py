"""The README's animation: it turns, and only its moving parts move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from figures import swap_gif
from pcl_lib import presets
from pcl_lib.data import rendered
from pcl_lib.models import PCL

ROOT = Path(__file__).resolve().parent.parent


def test_the_donor_turns_and_the_faces_stay() -> None:
    model = PCL(presets.get("smoke").model, seed=1).eval()
    frames = swap_gif.swap_frames(model, rendered.Gallery(32, people=10, images_per_person=4))
    assert len(frames) == swap_gif.FRAMES
    first, later = (np.asarray(frames[i].convert("RGB")).astype(int)[:112] for i in (0, 6))
    assert np.abs(first[:, :112] - later[:, :112]).mean() > 5
    assert np.abs(first[:, 116:] - later[:, 116:]).mean() < 4  # their palettes differ, no more


def test_the_committed_animation_is_small_and_moves() -> None:
    path = ROOT / "figures" / "swap.gif"
    assert path.stat().st_size <= 1_500_000
    with Image.open(path) as picture:
        assert picture.n_frames == swap_gif.FRAMES and picture.info["loop"] == 0  # type: ignore[attr-defined]
