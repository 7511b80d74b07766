"""Rendered faces with true factors: the data that come with the kit.

factors       the table of true factors, and how it is drawn
clips         frames of one person whose head moves, as tables of factors
mesh          the grid of the head: rows and columns, materials, landmarks
accessories   ears and spectacles
hair          shells of hair by style
head          the head: one mesh with bases for identity and expression
paint         albedo: skin, brows, lips, beard, as layers over a texture
scene         what every image shares, laid out for the kernels
camera        where a point of the head lands in the image
shade         light, background, grain: the kernels that colour samples
raster        which triangle each sample sees, on the CPU (numba)
render_torch  the same renderer in PyTorch, for GPUs
render        `render`: from a table of factors to images
depth         how near each pixel's surface is
landmarks     named points of rendered heads
pnp           head pose from landmarks
"""

from pcl_lib.faces.depth import render_depth
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
    "render_depth",
    "sample_factors",
]
