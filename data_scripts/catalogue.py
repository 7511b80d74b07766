"""The data sets that have a script here: what each is for, where to ask, its layout, and how many images to expect.

Said once: the scripts' --help, `python -m data_scripts`, data_scripts/README.md and notebook 01 all read it here;
`python -m data_scripts.catalogue` writes the sections of data_scripts/README.md.
"""

from __future__ import annotations

import importlib
import os
import re
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch, translate
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from data_scripts.sources import is_archive
from pcl_lib.utils import BadInput

README = Path(__file__).with_name("README.md")
DEPTH = 3  # folders below ROOT in which a set is looked for


@dataclass(frozen=True)
class DataSet:
    """What is known about a set before anybody has it.

    key: names the script (prepare_<key>.py) and the output. labels: what comes out. decides: what the script settles
    over the whole set, and prints. expected: counts of the whole download, as published.
    marks: alternatives; a folder holds the set where every glob of one alternative finds something. archives: how
    the names of archives that hold all of it look, in small letters, without their suffix. many: whether several
    such folders below one are one set. A .zip of another name is looked into, for the same marks.
    """

    key: str
    name: str
    purpose: str
    ask: str
    licence: str
    layout: str
    labels: str
    decides: str
    expected: Mapping[str, int]
    marks: tuple[tuple[str, ...], ...]
    archives: tuple[str, ...] = ()
    many: bool = False

    @property
    def command(self) -> str:
        """What to type, with the folder of the download in capitals."""
        return f"python data_scripts/prepare_{self.key}.py {self.key.upper()} data/{self.key}"

    @property
    def script(self) -> Any:
        """The module that reads it: has read(root, options), main(argv) and perhaps add_options(parser)."""
        return importlib.import_module(f"data_scripts.prepare_{self.key}")

    def counts(self) -> str:
        """The expected counts in words."""
        return ", ".join(f"{value:,} {name}" for name, value in self.expected.items())

    def help(self) -> str:
        """The text of the script's --help."""
        return (
            f"{self.name} -> a prepared folder, for {self.purpose}.\n\n"
            f"    {self.command}\n\n"
            f"Layout, as downloaded (ROOT is the folder of the first line):\n\n{self.layout}\n\n"
            f"Labels: {self.labels}.\nDecided over the whole set: {self.decides}.\n"
            f"Expected of the whole set: {self.counts()}.\n"
            f"Where to ask: {self.ask}\n"
        )

    def is_in(self, folder: Path) -> bool:
        """Whether `folder`, or archive, looks like what to give to the script."""
        if folder.is_file():
            stem = folder.name.lower().split(".")[0]
            named = is_archive(folder) and any(fnmatch(stem, glob) for glob in self.archives)
            return named or any(all(_listed(folder, glob) for glob in globs) for globs in self.marks)
        return any(all(_some(folder, glob) for glob in globs) for globs in self.marks)


@lru_cache(maxsize=8)
def _members(archive: Path) -> str:
    """The names of what a .zip holds, one a line; nothing of other archives, which would have to be read through."""
    try:
        with zipfile.ZipFile(archive) as content:
            return "\n".join(["", *content.namelist(), ""]).replace("\\", "/")
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return ""


def _listed(archive: Path, glob: str) -> bool:
    """Whether a .zip holds something that `glob` names, in whatever folder."""
    inner = "/".join(translate(part)[4:-3].replace(".*", "[^/\n]*") for part in glob.split("/"))
    return re.search(rf"(?<=[\n/]){inner}(?=[\n/])", _members(archive), re.IGNORECASE) is not None


def _any_case(glob: str) -> str:
    """The glob, each letter in capitals too; what stands in brackets says its own."""
    parts = re.split(r"(\[[^]]*\])", glob)
    return "".join(
        part
        if part.startswith("[")
        else re.sub(r"[a-zA-Z]", lambda m: f"[{m[0].lower()}{m[0].upper()}]", part)
        for part in parts
    )


def _some(folder: Path, glob: str) -> bool:
    try:
        return next(folder.glob(_any_case(glob)), None) is not None
    except OSError:  # a folder that may not be read holds nothing for us
        return False


VOXCELEB = DataSet(
    key="voxceleb",
    name="VoxCeleb1 and VoxCeleb2",
    purpose="pre-training (the paper's data)",
    ask="the VoxCeleb page of Oxford's Visual Geometry Group (robots.ox.ac.uk/~vgg/data/voxceleb): a request form, "
    "for research; the videos stay their owners'",
    licence="VoxCeleb: research use by request to VGG Oxford (annotations CC BY 4.0, videos are their owners')",
    layout="""    ROOT/
      id00012/21Uxsk56VDQ/00001.mp4         face-track videos: a frame a second (--every), or
      id00012/21Uxsk56VDQ/0000125.jpg       released face crops, or
      A.J._Buckley/1.6/21Uxsk56VDQ/1/0000125.jpg   VoxCeleb1's crops by name, with or without tracks
      id10283#21Uxsk56VDQ#004832#004981.mp4 as a video or a folder of frames
    Folders in front of the person (vox2/dev/mp4/...) are allowed; those below a folder `test` form the test split.
      vox1_meta.csv                         if at hand: people who lie under their name get their number
    Who the people are is read off the forms of the folders' names, once for all paths, and printed with its level.
    A frame a second of all 2,800 hours is 10 million images, 120 GB at 64 pixels; --every 10 takes a tenth.""",
    labels="identity (id00012, or the name), video, clip (the track) and frame, split (test below a folder of that "
    "name, else train)",
    decides="the folder level that is people, how many people, videos and tracks there are, names in two spellings, "
    "videos that lie with two people; nobody may be in both splits",
    expected={"identities": 7363, "videos": 172976},
    marks=(
        ("id[0-9][0-9][0-9][0-9][0-9]/*",),
        ("id[0-9][0-9][0-9][0-9][0-9]#*",),
        ("train/id[0-9][0-9][0-9][0-9][0-9]#*",),
        ("test/id[0-9][0-9][0-9][0-9][0-9]#*",),
        ("mp4/id[0-9][0-9][0-9][0-9][0-9]*",),
        ("dev/mp4/id[0-9][0-9][0-9][0-9][0-9]*",),
        ("test/mp4/id[0-9][0-9][0-9][0-9][0-9]*",),
        ("*/1.6/*/*",),
        ("unzipped*/*/1.6",),
        ("unzipped*/data/*/1.6",),
    ),
    many=True,
)
RAFDB = DataSet(
    key="rafdb",
    name="RAF-DB, basic emotions",
    purpose="the expression probe (7 classes)",
    ask="the RAF-DB page of Weihong Deng's group (whdeng.cn/RAF/model1.html): a signed request from a university "
    "address, for non-commercial research",
    licence="RAF-DB: non-commercial research, by request to its authors",
    layout="""    ROOT/                                   (the folder `basic` of the download)
      Image/aligned/train_00001_aligned.jpg   also as aligned.zip, unpacked
      EmoLabel/list_patition_label.txt        lines such as: train_00001.jpg 5
    or, as others pass it on, ROOT/DATASET/{train,test}/{1..7}/*.jpg, with train_labels.csv and test_labels.csv
    next to DATASET.
    Pictures may be .png or .JPG. Labels other than 1 to 7 as a whole are refused.""",
    labels="expression (7 classes), split (the official one; 15% of train, by a hash of the file name, is validation)",
    decides="whether the labels are 1 to 7 as a whole (0 to 6 are refused: which is which is not known), and in the "
    "published order, by the images of each class where the set is nearly whole; names train_ and test_ go before "
    "folders; folders of labels and tables next to them must agree",
    expected={"images": 15339, "train": 12271, "test": 3068},
    marks=(
        ("EmoLabel/list_patition_label.txt",),
        ("list_patition_label.txt",),
        ("list_partition_label.txt",),
        ("train_labels.csv", "test_labels.csv"),
        ("DATASET/train/1", "DATASET/test/1"),
    ),
    archives=("basic", "raf-db*", "rafdb*", "raf_db*"),
)
FER2013 = DataSet(
    key="fer2013",
    name="FER-2013",
    purpose="the expression probe (7 classes)",
    ask="Kaggle, the competition 'Challenges in Representation Learning: Facial Expression Recognition Challenge' "
    "(an account, its rules accepted); the image folders are there too",
    licence="FER-2013: research use under the rules of the Kaggle competition of 2013",
    layout="""    ROOT/fer2013.csv                       columns emotion (0..6), pixels, Usage; or
    ROOT/icml_face_data.csv                the same in another order; or
    ROOT/{train,validation,test}/CLASS/*.jpg    CLASS one of angry disgust fear happy sad surprise neutral; or
    ROOT/{train,test}/CLASS/*.jpg or ROOT/{train,validation}/CLASS/*.jpg
    Whatever lies next to `train` is scored, never chosen on: without a third split, 15% of train is validation.""",
    labels="expression (7 classes), split (Training, PublicTest, PrivateTest are train, validation, test)",
    decides="whether the labels are 0 to 6 as a whole, and in the published order, by the images of each class where "
    "the set is nearly whole; which folder is test where there are two splits alone",
    expected={"images": 35887, "train": 28709, "public test": 3589, "private test": 3589},
    marks=(
        ("fer2013.csv",),
        ("icml_face_data.csv",),
        ("[Tt]rain*/[Dd]isgust*", "[Tt]rain*/[Ss]urprise*"),
        ("[Tt]rain/0", "[Tt]rain/6"),
    ),
    archives=("fer2013*",),
)
LFW = DataSet(
    key="lfw",
    name="Labeled Faces in the Wild",
    purpose="the face recognition probe (View 2: 6,000 pairs in 10 folds)",
    ask="the LFW page of the University of Massachusetts (https://vis-www.cs.umass.edu/lfw); research use",
    licence="LFW: research use; photographs are their owners'",
    layout="""    ROOT/NAME/NAME_0001.jpg                lfw, lfw-deepfunneled, or any crop under its names
    ROOT/pairs.txt or pairs.csv            next to the people or one folder up; or --pairs FILE
    Pictures of 250 x 250 are whole photographs, cut to their middle: decided by most of the set.""",
    labels="identity (by the file's name), pairs with folds; the people of the pairs are test, 15% of the others "
    "validation; pseudo labels by --labels",
    decides="the crop, by the size of most images; whether the pairs' folds are as many as announced; whether pairs "
    "agree with the names in them",
    expected={"images": 13233, "identities": 5749, "pairs": 6000},
    marks=(
        ("*/*_0001.*", "pairs.txt"),
        ("pairs.txt", "lfw*/*/*_0001.*"),
        ("pairs.csv", "lfw*/*/*_0001.*"),
        ("pairs.csv", "lfw*/*/*/*_0001.*"),
    ),
    archives=("lfw", "lfw-*"),
)
CPLFW = DataSet(
    key="cplfw",
    name="Cross-Pose LFW",
    purpose="the face recognition probe across poses (6,000 pairs)",
    ask="the CPLFW page of Weihong Deng's group (whdeng.cn/CPLFW/index.html); research use",
    licence="CPLFW: research use, by its authors' page",
    layout="""    ROOT/aligned images/NAME_1.jpg         or images/, or any crop under these names
    ROOT/pairs_CPLFW.txt                   two lines a pair: "NAME_1.jpg 1" (one person) or 0""",
    labels="identity (by the file's name), pairs with ten folds; all of it is test",
    decides="whether pairs agree with the names in them (a few that do not are listed, many are refused); rows and "
    "images that do not match are listed",
    expected={"images": 11652, "identities": 3930, "pairs": 6000},
    marks=(("pairs_CPLFW.txt",),),
    archives=("cplfw*",),
)
DISFA = DataSet(
    key="disfa",
    name="DISFA",
    purpose="the action unit probe (12 AUs with intensities, the paper's 8 named; 3 subject-exclusive folds)",
    ask="the DISFA page of Mohammad Mahoor's group, University of Denver (mohammadmahoor.com/disfa): a signed "
    "agreement by a faculty member, for non-commercial research",
    licence="DISFA: non-commercial research under a signed agreement with the University of Denver",
    layout="""    ROOT/Video_LeftCamera/LeftVideoSN001_comp.avi   or frames: .../LeftVideoSN001_comp/*_0001.png
    ROOT/ActionUnit_Labels/SN001/SN001_au1.txt      lines "frame,intensity"; au 1 2 4 5 6 9 12 15 17 20 25 26
    Whether pictures are numbered from 1 or 0 is decided for the whole set, by what proves it, and printed.""",
    labels="au01 to au26 (intensities 0 to 5), identity, fold (people of a fold are in no other), split by --test-fold",
    decides="whether pictures, and labels, are numbered from 0 or from 1; whether labels are intensities, and pictures "
    "as many a second as labels",
    expected={"identities": 27, "images": 130815},
    marks=(("ActionUnit_Labels/SN[0-9]*",),),
)
LP = DataSet(
    key="300wlp",
    name="300W-LP",
    purpose="training the head pose probe",
    ask="the page of 3DDFA by Xiangyu Zhu (cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm); research use",
    licence="300W-LP: research use; photographs are their owners'",
    layout="""    ROOT/{AFW,HELEN,IBUG,LFPW}/NAME_0.jpg and .mat   Pose_Para (pitch, yaw, roll in radians), pt2d [2, 68]
    ROOT/{AFW,...}_Flip/                                mirror images: left out unless --flips
    ROOT/landmarks/                                     landmark files only: not read""",
    labels="yaw, pitch, roll, identity (the photograph), split (85 and 15% of the photographs); test is AFLW2000, by "
    "--aflw2000",
    decides="whether angles are radians, and faces lie in their pictures; images beyond 99 degrees and those without a "
    "usable .mat file are listed",
    expected={"images": 61225, "with flips": 122450},
    marks=tuple(
        (f"{name}/*.mat", f"{name}/*.[jJpP]*")  # landmarks/ has the same folders, without pictures
        for name in ("[Aa][Ff][Ww]", "[Hh][Ee][Ll][Ee][Nn]", "[Ll][Ff][Pp][Ww]", "[Ii][Bb][Uu][Gg]")
    ),
    archives=("300w_lp*", "300w-lp*"),
)
AFLW2000 = DataSet(
    key="aflw2000",
    name="AFLW2000-3D",
    purpose="testing the head pose probe",
    ask="the page of 3DDFA by Xiangyu Zhu (cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm); research use",
    licence="AFLW2000-3D: research use; photographs are their owners'",
    layout="""    ROOT/image00002.jpg and image00002.mat   Pose_Para (pitch, yaw, roll in radians), pt3d_68 [3, 68]
    ROOT/Code/                               not read""",
    labels="yaw, pitch, roll; all of it is test",
    decides="whether angles are radians, and faces lie in their pictures; images beyond 99 degrees and those without a "
    "usable .mat file are listed",
    expected={"images": 2000, "within 99 degrees": 1969},
    marks=(("image0*.mat", "image0*.jpg"), ("image0*.mat", "image0*.png")),
    archives=("aflw2000*",),
)
BIWI = DataSet(
    key="biwi",
    name="BIWI Kinect Head Pose",
    purpose="a second test of head pose",
    ask="the page of the Computer Vision Laboratory, ETH Zurich (data.vision.ee.ethz.ch/cvl/gfanelli, also "
    "icu.ee.ethz.ch); research use",
    licence="BIWI Kinect Head Pose Database: research use, ETH Zurich",
    layout="""    ROOT/01/ ... 24/                       (the folder hpdb of the download; a sequence a folder)
      frame_00003_rgb.png                  640 x 480
      frame_00003_pose.txt                 rotation matrix, then the head's centre in millimetres, depth camera
      rgb.cal                              colour camera: matrix, distortion, rotation, translation, size
    Pictures may be .jpg or .PNG. The four people recorded twice are one person each.""",
    labels="yaw, pitch, roll, identity (the person), video and clip (the sequence); split by people, or --all-test",
    decides="whether pictures have the size of their calibration; frames without a pose or a calibration are listed",
    expected={"images": 15678, "sequences": 24, "identities": 20},
    marks=(("[0-9][0-9]/frame_*_pose.txt",),),
    archives=("hpdb", "kinect_head_pose_db*", "biwi*"),
)
CELEBA = DataSet(
    key="celeba",
    name="CelebA",
    purpose="pre-training, and identities with 40 attributes",
    ask="the CelebA page of the Multimedia Laboratory, Chinese University of Hong Kong "
    "(mmlab.ie.cuhk.edu.hk/projects/CelebA.html); non-commercial research; identity_CelebA.txt comes on request",
    licence="CelebA: non-commercial research, MMLab CUHK; photographs are their owners'",
    layout="""    ROOT/Img/img_align_celeba/000001.jpg   or ROOT/img_align_celeba/
    ROOT/Anno/list_attr_celeba.txt         number of images, 40 names, lines "000001.jpg -1 1 ..."; optional
    ROOT/Anno/identity_CelebA.txt          lines "000001.jpg 2880"; optional
    ROOT/Eval/list_eval_partition.txt      lines "000001.jpg 0" (train 0, validation 1, test 2); optional
    The three may also be .csv, and lie in ROOT, as others pass the set on.""",
    labels="attr_* (40 attributes, 0 and 1), identity, split (the official partition), as far as their files are there",
    decides="the crop, by the size of most images; whether attributes are -1 and 1 or 0 and 1; images of people whom "
    "the partition puts into two splits lose the earlier ones",
    expected={"images": 202599, "identities": 10177, "train": 162770, "validation": 19867, "test": 19962},
    marks=(
        ("img_align_celeba",),
        ("Img/img_align_celeba",),
        ("Img/img_align_celeba_png",),
        ("img_align_celeba_png",),
        ("Img/img_align_celeba.zip",),
    ),
)
DATA_SETS = {
    entry.key: entry for entry in (VOXCELEB, CELEBA, RAFDB, FER2013, LFW, CPLFW, DISFA, LP, AFLW2000, BIWI)
}


def folders(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """`root`, and archives and folders below it, not deeper than `depth`, by name; links are not followed."""
    yield root
    if depth and root.is_dir():
        try:
            below = sorted(Path(entry.path) for entry in os.scandir(root) if _worth_a_look(entry))
        except OSError:  # may not be read
            return
        for path in below:
            yield from folders(path, depth - 1)


def _worth_a_look(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) or is_archive(Path(entry.path))


def find(root: Path) -> list[tuple[DataSet, Path]]:
    """Sets that lie below `root`, each with the folder or archive to give to its script, by the order of paths.

    Nothing is looked for inside a set. Raises BadInput where there is no folder `root`.
    """
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}; give the folder that holds the downloaded sets")
    found: list[tuple[DataSet, Path]] = []
    for folder in folders(root):
        if not any(folder.is_relative_to(place) for _, place in found):
            found += [(entry, folder) for entry in DATA_SETS.values() if entry.is_in(folder)]
    return found


def as_sections() -> str:
    """A section of Markdown a set, for data_scripts/README.md: layout, command, labels, decisions, licence."""
    parts = []
    for entry in DATA_SETS.values():
        parts += [
            f"### {entry.name}\n",
            _wrapped(f"For {entry.purpose}. Expected of the whole set: {entry.counts()}.") + "\n",
            f"```sh\n{entry.command}\n```\n",
            f"```text\n{textwrap.dedent(entry.layout)}\n```\n",
            _wrapped(f"- **Labels that come out:** {entry.labels}."),
            _wrapped(f"- **Decided over the whole set:** {entry.decides}."),
            _wrapped(f"- **Where to ask:** {entry.ask}."),
            _wrapped(f"- **Licence:** {entry.licence}.") + "\n",
        ]
    return "\n".join(parts)


def _wrapped(text: str) -> str:
    """A paragraph or an item of Markdown in lines of 110 characters at most."""
    indent = "  " if text.startswith("- ") else ""
    lines = textwrap.wrap(text, 110, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def write_readme(path: Path = README) -> None:
    """Write `as_sections` between the marks <!-- sets --> and <!-- /sets --> of a page."""
    before, rest = path.read_text(encoding="utf-8").split("<!-- sets -->\n")
    after = rest.split("<!-- /sets -->")[1]
    text = f"{before}<!-- sets -->\n{as_sections()}<!-- /sets -->{after}"
    path.write_text(text, encoding="utf-8")


def as_table() -> pd.DataFrame:
    """A row a set: data set, for, command, expected, where to ask; for the README and notebook 01."""
    return pd.DataFrame(
        [
            {
                "data set": entry.name,
                "for": entry.purpose,
                "command": entry.command,
                "expected": entry.counts(),
                "where to ask": entry.ask,
            }
            for entry in DATA_SETS.values()
        ]
    )


def as_markdown() -> str:
    """`as_table` as a table of Markdown, for the README."""
    table = as_table()
    table["command"] = "`" + table["command"] + "`"
    head = [table.columns.astype(str).tolist(), ["---"] * len(table.columns)]
    rows: list[list[str]] = [*head, *table.to_numpy().tolist()]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


if __name__ == "__main__":
    write_readme()
