"""Rendered faces with true factors: the embedded default data."""

from pcl_lib.faces.factors import AUS, EXPRESSIONS, mirror_factors, sample_factors
from pcl_lib.faces.landmarks import head_landmarks, project_landmarks
from pcl_lib.faces.mesh import LANDMARKS
from pcl_lib.faces.render import render

__all__ = [
    "AUS",
    "EXPRESSIONS",
    "LANDMARKS",
    "head_landmarks",
    "mirror_factors",
    "project_landmarks",
    "render",
    "sample_factors",
]
