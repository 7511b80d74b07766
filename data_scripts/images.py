"""One picture from whatever a data set stores it in: upright RGB, or a reason why not."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_scripts.sources import MAX_PIXELS, MIN_SIDE, inside
from data_scripts.tables import Table, open_table
from pcl_lib.utils import BadInput

DEEP = ("PNG", "TIFF", "PPM", "JPEG2000")  # forms of 16 bits a colour, of which Pillow gives the upper 8
TWELVE_BITS = 4096  # cameras store 10 or 12 bits in files of 16, which would come out nearly black
ORIENTATION = 0x0112  # the EXIF tag; values from 5 on swap width and height
PART = re.compile(r"(.+)#(t|n|row)=([0-9.]+)", re.DOTALL)  # a second, or a number of a frame or row

Side = Callable[
    [int, int], float
]  # upright width and height -> side of the square to be cut out; nan: unknown


def split_part(file: str) -> tuple[str, str, float]:
    """Take "clip.mp4#t=3" apart: ("clip.mp4", "t", 3.0); a plain file is (file, "", nan)."""
    found = PART.fullmatch(file)
    return (found[1], found[2], float(found[3])) if found else (file, "", math.nan)


def open_image(path: Path, side: Side, size: int) -> tuple[Image.Image, float]:
    """Decode one file: an upright RGB image, and its pixels per pixel of the file (1, or 1/2, 1/4, 1/8).

    A JPEG is decoded at a fraction where the square to be cut, of side(width, height), keeps at least twice `size`
    pixels: the fraction averages whole blocks, and the rest of the way is antialiased, so that only rounding differs.
    Transparency is laid over white; 16-bit grey keeps its upper 8 bits, and is refused where it uses
    12 or fewer of its 16; of several frames the first counts.
    Raises BadInput with the reason where the file is absent, empty, no image, damaged, truncated, tiny or huge.
    """
    try:
        with Image.open(path) as image:
            width, height = _checked(image.size)
            plain = image.format == "JPEG" and not image.info.keys() & {"exif", "xmp"}  # looking costs time
            swapped = not plain and image.format == "JPEG" and image.getexif().get(ORIENTATION, 1) >= 5
            enough = side(height, width) if swapped else side(width, height)
            # a block that the edge cuts would shift everything where EXIF turns the image
            exact = (n for n in (8, 4, 2) if width % n == 0 == height % n)
            fraction = next((n for n in exact if enough >= 2 * n * size), 1)
            if image.format == "JPEG" and fraction > 1:
                image.draft(None, (width // fraction, height // fraction))
            scale = 1 / round(width / image.width)  # what draft chose, or 1
            if image.format in DEEP and image.mode == "RGB":
                _check_depth(image)
            return as_rgb(image if plain else ImageOps.exif_transpose(image)), scale
    except UnidentifiedImageError:
        raise BadInput("not an image" if path.stat().st_size else "empty file") from None
    except BadInput:
        raise
    except Image.DecompressionBombError:
        raise BadInput("so many pixels that it is taken for a decompression bomb") from None
    except Exception as error:  # on corrupt bytes the decoders raise almost anything
        if isinstance(error, OSError) and error.strerror:
            raise BadInput(error.strerror) from None
        raise BadInput(f"damaged ({type(error).__name__}: {error})") from error


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    if width * height > MAX_PIXELS:
        raise BadInput(f"{width}x{height} pixels: taken for a decompression bomb")
    if min(width, height) < MIN_SIDE:
        raise BadInput(f"only {width}x{height} pixels")
    return size


def _check_depth(image: Image.Image) -> None:
    grey = np.asarray(image.convert("L"))
    brightest = grey.max()
    if grey.min() != brightest < TWELVE_BITS >> 8:
        raise BadInput(
            f"colours up to {brightest} of 255 only: of 12 bits stored in 16, or black; stretch them"
        )


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB. Raises BadInput where white is not known."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        if 0 < grey.max() < TWELVE_BITS:
            raise BadInput(
                f"16-bit pixels up to {grey.max()} only: of 12 bits or fewer, or black; stretch them to 65535"
            )
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadInput(f"pixels of mode {image.mode}, whose white is unknown; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image.convert("RGB")


def open_all(
    root: Path, files: Sequence[str], sides: Sequence[Side], size: int
) -> Iterator[tuple[Image.Image, float] | BadInput]:
    """`open_image` of each of `files` (below `root`; parts of videos and tables too), or why there is none.

    Frames of one video that follow each other are decoded in one go. Raises nothing itself.
    """
    parts = [(place, *split_part(file)) for place, file in enumerate(files)]
    for (file, kind), group in itertools.groupby(parts, key=lambda part: part[1:3]):
        run = list(group)
        try:
            path = inside(root, file)
        except BadInput as error:
            yield from [error] * len(run)
            continue
        if kind in ("t", "n"):
            from data_scripts import video  # PyAV: only where there are videos

            read = video.frames if kind == "t" else video.numbered_frames
            shown = read(path, [part[3] for part in run])
            yield from ((frame, 1.0) if isinstance(frame, Image.Image) else frame for frame in shown)
            continue
        for place, _, _, number in run:
            try:
                yield (csv_image(path, int(number)), 1.0) if kind else open_image(path, sides[place], size)
            except BadInput as error:
                yield error


def pixel_table(path: Path) -> Table:
    """A CSV whose rows are pictures, indexed as `csv_image` counts its rows. Raises BadInput as `open_table` does."""
    return open_table(path, ("pixels", "emotion", "usage"))


def csv_image(path: Path, row: int) -> Image.Image:
    """The square grey image whose values, separated by spaces, data row `row` (from 0) has in its column pixels.

    Raises BadInput with the reason where there is no such row, or its values are not those of a square.
    """
    if not path.is_file():
        raise BadInput("No such file or directory")
    table = pixel_table(path)
    names = [name.lower() for name in table.header]
    if "pixels" not in names:
        raise BadInput(f"{path.name} has no column pixels")
    try:
        values = np.array(table.row(row)[names.index("pixels")].split(), dtype=np.int64)
    except (ValueError, IndexError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput("its pixels are not whole numbers") from None
    side = math.isqrt(len(values))
    if side * side != len(values) or side < MIN_SIDE:
        raise BadInput(f"{len(values)} pixels, which are not those of a square of at least {MIN_SIDE}")
    if values.min() < 0 or values.max() > 255:
        raise BadInput(f"a pixel of {values.max() if values.min() >= 0 else values.min()}, not 0 to 255")
    return Image.fromarray(values.astype(np.uint8).reshape(side, side)).convert("RGB")
