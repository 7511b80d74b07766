"""VoxCeleb 1 and 2, face crops or face-track videos -> frames to pre-train on. Layouts, and where to ask: --help."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_scripts import official
from data_scripts.catalogue import VOXCELEB
from data_scripts.images import split_part
from data_scripts.listing import LeftOut, Listing, Recipe
from data_scripts.names import alike
from data_scripts.people import VOX_ID, People, split_word
from data_scripts.people_of_voxceleb import in_voxceleb
from data_scripts.sources import VIDEO_SUFFIXES, find_files, other_files
from data_scripts.tables import read_lines
from pcl_lib.utils import BadInput, exit_cleanly

META = re.compile(r"vox(celeb)?[12][-_ ]?meta.*\.(csv|txt)", re.IGNORECASE)
INNER = re.compile(r"mp4|frames?|faces?|crops?|images?|data|unzipped\w*", re.IGNORECASE)


def split_above(root: Path) -> str | None:
    """The split that `root`, or what holds it where `root` is a folder such as mp4, is called after; else None."""
    for folder in root.resolve().parts[:0:-1]:
        if (word := split_word(folder)) or not INNER.fullmatch(folder):
            return word
    return None


def sounds(root: Path) -> str:
    """A clause where sound is all there is: half of VoxCeleb's downloads hold no pictures. Else nothing."""
    heard = [suffix for suffix in (".wav", ".m4a", ".aac", ".flac") if suffix in other_files(root)]
    return f"; there is sound ({', '.join(heard)}), and the videos or face crops are wanted" if heard else ""


def numbers(root: Path, given: Path) -> dict[str, str]:
    """VoxCeleb's number by every other name (`names.alike`) that vox1_meta.csv or vox2_meta.csv gives somebody.

    Looked for below `root`, beside it, and in `given`, what the command line named. Raises BadInput where the files
    give one name two numbers.
    """
    found = {
        path for folder in (root.parent, given, given.parent) for path in folder.glob("*") if path.is_file()
    }
    found |= {root / file for file in find_files(root, (".csv", ".txt"))[0]}
    by_name: dict[str, str] = {}
    for path in sorted(path for path in found if META.fullmatch(path.name)):
        for line, _, words in read_lines(path, "the list of VoxCeleb's people"):
            if len(words) < 2 or not VOX_ID.fullmatch(words[0]):
                continue
            if by_name.setdefault(alike(words[1]), words[0]) != words[0]:
                raise BadInput(
                    f"{path}, line {line}: {words[1]} is {words[0]}, and {by_name[alike(words[1])]} before; take the"
                    " set's own file"
                )
    return by_name


def list_images(root: Path, options: argparse.Namespace, left: LeftOut) -> list[str]:
    """Crops as they are; of videos a frame every `options.every` seconds, unless crops are all that is asked for."""
    files = official.images(root, left)
    videos, _ = find_files(root, VIDEO_SUFFIXES)
    if videos:
        from data_scripts.video import list_frames  # PyAV: only where there are videos

        files += list_frames(root, videos, left, every=options.every, workers=options.workers)
    return sorted(files, key=split_part)  # frames of a video by their times, as numbers


def clips(found: People) -> list[str | None]:
    """The track that each image is a frame of, such as "id00012/21Uxsk56VDQ/00001.mp4", for `pcl_video`.

    Where tracks are not told apart, it is the video.
    """
    parts = zip(found.identity, found.video, found.track, strict=True)
    return ["/".join(filter(None, three)) if three[1] else None for three in parts]


def frame_numbers(files: Sequence[str]) -> list[float]:
    """The second of a video, or the number that a picture has for its name; nan where it has none."""
    told = [split_part(file) for file in files]
    ends = [re.search(r"\d+$", Path(file).stem) for file, _, _ in told]
    return [
        time if kind else float(end[0]) if end else math.nan
        for (_, kind, time), end in zip(told, ends, strict=True)
    ]


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Every crop or frame with its person and video; train, but for those below a folder of another split."""
    left = LeftOut()
    files = list_images(root, options, left)
    found = in_voxceleb([split_part(file)[0] for file in files], numbers(root, options.root))
    columns = {"identity": found.identity, "video": found.video, "clip": clips(found), "split": found.split}
    table = pd.DataFrame({"file": files, **columns}, dtype=object).assign(frame=frame_numbers(files))
    known = table["identity"].notna()
    left.extend(table["file"][~known], "lies in no PERSON/VIDEO")
    if not known.any():
        raise BadInput(
            f"{root} has no crop or video in PERSON/VIDEO/, such as id00012/21Uxsk56VDQ/00001.mp4 or"
            f" A.J._Buckley/1.6/21Uxsk56VDQ/1/0000125.jpg{sounds(root)}{official.still_packed(root)}"
        )
    table = table[known].reset_index(drop=True)
    whole = split_above(root)
    table["split"] = table["split"].fillna(whole or "train")
    if table["video"].isna().all():
        table = table.drop(columns=["video", "clip", "frame"])
    return Listing(
        name="VoxCeleb",
        source="VoxCeleb 1 and 2, released face tracks",
        licence=VOXCELEB.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("as_is"),
        notes=[
            found.sentence,
            *found.notes,
            *([f"all lie below a folder of the split {whole}"] if whole else []),
            "the face tracks are crops already: the central square is taken, nothing is detected",
        ],
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this script takes besides the common options."""
    parser.add_argument(
        "--every", type=official.seconds, default=1.0, help="seconds between frames of a video (1)"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(VOXCELEB, read, arguments, add_options)


if __name__ == "__main__":
    exit_cleanly(main)
