"""Random views of images in batches, with one draw per image.

batched     draws, views, and each operation on a whole batch, as a GPU takes it
compiled    the same views on a CPU, one image after the other
"""

from pcl_lib.augment.batched import (
    Draw,
    apply_views,
    blur_radius,
    brightness,
    contrast,
    draw,
    gaussian_blur,
    gradient_magnitude,
    hue,
    join,
    luma,
    rotate,
    saturation,
    views,
)

__all__ = [
    "Draw",
    "apply_views",
    "blur_radius",
    "brightness",
    "contrast",
    "draw",
    "gaussian_blur",
    "gradient_magnitude",
    "hue",
    "join",
    "luma",
    "rotate",
    "saturation",
    "views",
]
