"""From a moved slider to the new pictures, for `pcl_lib.bench`: what a widget computes, PNGs included."""

from __future__ import annotations

import itertools
from typing import Any

from pcl_lib.bench.timing import Bench
from pcl_lib.models.shipped import shipped
from pcl_lib.presets import PRESETS


def bench_widgets(bench: Bench) -> None:
    """A slider of each widget to its new pictures, with the shipped pcl_video; 100 ms is the most that feels live."""
    from pcl_lib import widgets  # they need Jupyter, the other parts do not
    from pcl_lib.data import rendered

    model = shipped("pcl_video", str(bench.device))
    faces = rendered.gallery(model.image_size)
    swap, studio = widgets.SwapExplorer(model, faces), widgets.FaceStudio(model, faces)
    lab, browser = widgets.AugmentationLab(faces, PRESETS["cpu"]), widgets.NeighbourBrowser(model, faces)
    cases: list[tuple[str, Any, tuple[float, float]]] = [
        ("SwapExplorer, pose", swap.pose, (0.3, 0.7)),
        ("SwapExplorer, face", swap.face, (0.3, 0.7)),
        ("SwapExplorer, turn", swap.turn, (-20.0, 20.0)),
        ("FaceStudio, yaw", studio.sliders["yaw"], (-20.0, 20.0)),
        ("FaceStudio, au12", studio.sliders["au12"], (1.0, 4.0)),
        ("AugmentationLab, hue", lab.controls["hue"], (0.1, 0.3)),
        ("NeighbourBrowser, query", browser.query, (3.0, 7.0)),
    ]
    for case, slider, places in cases:
        turns = itertools.cycle(places)

        def move(slider: Any = slider, turns: itertools.cycle[float] = turns) -> None:
            slider.value = next(turns)

        bench.time(case, "slider to PNG", move, unit="moves", repeats=max(9, bench.repeats))
