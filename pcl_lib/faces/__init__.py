"""Rendered faces with true factors: the embedded default data."""

from pcl_lib.faces.factors import AUS, EXPRESSIONS, mirror_factors, sample_factors
from pcl_lib.faces.render import render

__all__ = ["AUS", "EXPRESSIONS", "mirror_factors", "render", "sample_factors"]
