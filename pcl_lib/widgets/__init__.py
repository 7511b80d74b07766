"""Widgets of the notebooks: thin ipywidgets around pure functions.

Each is shown as a cell's last expression or with `.show()`; where it cannot run, its static figure is shown instead,
with the reason.

live               which model and faces a notebook plays with
pictures           the pictures that widgets show, as pure functions
photographs        a face cut out of a photograph, as a pure function
base               tiles, sliders, messages, and the way a widget is shown
script             the scripts of static/, for what ipywidgets cannot do: drag, use a camera, name
portraits          photographs for two faces: uploads, the camera, and what was cut out
swap_matrix        drag a face onto a pose
swap_explorer      blend face and pose of two images, turn the head, and the matrix
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
