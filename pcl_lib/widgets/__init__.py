"""Widgets of the notebooks: thin ipywidgets around pure functions.

Each is shown as a cell's last expression or with `.show()`; where it cannot run, its static figure is shown instead,
with the reason.

live               which model and faces a notebook plays with
pictures           the pictures that widgets show, as pure functions
base               tiles, sliders, messages, and the way a widget is shown
swap_explorer      blend face and pose of two images, and turn the head
face_studio        make a face by its factors, and see what is predicted from it
augmentation_lab   the views that the two contrastive losses see
neighbour_browser  the nearest faces by either feature
training_monitor   a training while it runs
"""

from pcl_lib.widgets.augmentation_lab import AugmentationLab
from pcl_lib.widgets.face_studio import FaceStudio
from pcl_lib.widgets.neighbour_browser import NeighbourBrowser
from pcl_lib.widgets.swap_explorer import SwapExplorer
from pcl_lib.widgets.training_monitor import TrainingMonitor

__all__ = ["AugmentationLab", "FaceStudio", "NeighbourBrowser", "SwapExplorer", "TrainingMonitor"]
