"""Widgets of the notebooks: thin ipywidgets around the pure functions of `pcl_lib.pictures`.

Each is shown as a cell's last expression or with `.show()`; where it cannot run, its static figure is shown instead,
with the reason.
"""

from pcl_lib.widgets.augmentation_lab import AugmentationLab
from pcl_lib.widgets.face_studio import FaceStudio
from pcl_lib.widgets.neighbour_browser import NeighbourBrowser
from pcl_lib.widgets.swap_explorer import SwapExplorer
from pcl_lib.widgets.training_monitor import TrainingMonitor

__all__ = ["AugmentationLab", "FaceStudio", "NeighbourBrowser", "SwapExplorer", "TrainingMonitor"]
