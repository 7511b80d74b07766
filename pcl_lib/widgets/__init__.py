"""Widgets of the notebooks: thin ipywidgets around the pure functions of `pcl_lib.pictures`.

Each is shown as a cell's last expression or with `.show()`; where it cannot run, its static figure is shown instead,
with the reason.
"""

from pcl_lib.widgets.lab import AugmentationLab
from pcl_lib.widgets.monitor import TrainingMonitor
from pcl_lib.widgets.neighbours import NeighbourBrowser
from pcl_lib.widgets.studio import FaceStudio
from pcl_lib.widgets.swap import SwapExplorer

__all__ = ["AugmentationLab", "FaceStudio", "NeighbourBrowser", "SwapExplorer", "TrainingMonitor"]
