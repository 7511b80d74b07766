"""Data sets in miniature: the official layout, names, headers and label files of each, with rendered faces in them.

Each function fills `root` and returns what a test needs to know of it. Face i is the same picture everywhere.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import savemat

from pcl_lib.faces import camera, render, sample_factors

FACES, SIDE = 24, 64
FER_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # the order of its codes
DISFA_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
# Two of each published third.
DISFA_PEOPLE = ("SN001", "SN002", "SN006", "SN011", "SN003", "SN004")
RATE = 20  # frames a second of DISFA's videos


@cache
def factors() -> pd.DataFrame:
    return sample_factors(FACES, seed=5, identities=FACES)


@cache
def pictures() -> np.ndarray:
    """uint8 [FACES, SIDE, SIDE, 3]."""
    return render(factors(), size=SIDE).numpy().transpose(0, 2, 3, 1)


def face(number: int) -> Image.Image:
    return Image.fromarray(pictures()[number % FACES])


def put(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))


def write(path: Path, lines: Iterable[str], end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + end for line in lines), encoding="utf-8", newline="")
    return path


def film(path: Path, levels: Sequence[int], rate: int) -> None:
    """A video whose frames are plain grey, of the levels given."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())


def voxceleb(root: Path) -> None:
    """VoxCeleb1's crops by name, VoxCeleb2's dev videos of 2.2 s, and a test person."""
    for number in range(3):
        put(root / f"vox1/A.J._Buckley/1.6/1zcIwhmdeo4/{25 * (number + 1):07d}.jpg", face(number))
    put(root / "vox1/Zoë_Saldana/1.6/J9lHsKG98U8/0000025.jpg", face(3))
    levels = [20 + 3 * i for i in range(55)]
    film(root / "vox2/dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", levels, 25)
    film(root / "vox2/test/mp4/id00017/01dfn2spqyE/00001.mp4", levels[:20], 25)


def rafdb(root: Path) -> dict[str, int]:
    """14 training and 7 test images: number % 7 + 1 is the label. Returns the face on each."""
    names = [f"train_{i + 1:05d}" for i in range(14)] + [f"test_{i + 1:04d}" for i in range(7)]
    for number, name in enumerate(names):
        put(root / f"Image/aligned/{name}_aligned.jpg", face(number))
        put(root / f"Image/original/{name}.jpg", face(0))
    write(
        root / "EmoLabel/list_patition_label.txt", [f"{name}.jpg {i % 7 + 1}" for i, name in enumerate(names)]
    )
    return {f"Image/aligned/{name}_aligned.jpg": number for number, name in enumerate(names)}


def grey(number: int) -> np.ndarray:
    return np.asarray(face(number).convert("L").resize((48, 48)))


def fer2013_table(root: Path, name: str = "fer2013.csv") -> None:
    """21 rows: emotion i % 7; 15 Training, 3 PublicTest, 3 PrivateTest. icml_face_data.csv has other headers."""
    root.mkdir(parents=True, exist_ok=True)
    icml = name.startswith("icml")
    with open(root / name, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", " Usage", " pixels"] if icml else ["emotion", "pixels", "Usage"])
        for i in range(21):
            usage = "Training" if i < 15 else "PublicTest" if i < 18 else "PrivateTest"
            pixels = " ".join(map(str, grey(i).ravel()))
            writer.writerow([i % 7, usage, pixels] if icml else [i % 7, pixels, usage])


def fer2013_folders(root: Path, splits: Sequence[str]) -> None:
    """Of each class 4 images in train, one in each other split."""
    for split in splits:
        for code, name in enumerate(FER_CLASSES):
            for i in range(4 if split == "train" else 1):
                put(root / split / name / f"{i:05d}.jpg", Image.fromarray(grey(code + 7 * i)))


LFW_PEOPLE = {"Ann_Lee": 4, "Bo_Ek": 3, "Cy_Du": 2, "Di_Ro": 3, "Ed_Wu": 2, "Flo_Ng": 1, "Gus_Ott": 2}
LFW_PAIRS = (
    "2\t2",
    "Ann_Lee\t1\t4",
    "Bo_Ek\t1\t3",
    "Ann_Lee\t2\tBo_Ek\t2",
    "Ann_Lee\t3\tBo_Ek\t1",
    "Cy_Du\t1\t2",
    "Di_Ro\t1\t9",
    "Cy_Du\t1\tDi_Ro\t2",
    "Di_Ro\t3\tCy_Du\t2",
)


def lfw(root: Path, side: int = SIDE) -> None:
    """17 images of 7 people; two folds of two pairs of each kind; the ninth image of Di_Ro is missing."""
    for number, (name, i) in enumerate((n, i) for n in LFW_PEOPLE for i in range(1, LFW_PEOPLE[n] + 1)):
        put(root / name / f"{name}_{i:04d}.jpg", face(number).resize((side, side)))
    write(root / "pairs.txt", LFW_PAIRS)


def cplfw(root: Path) -> None:
    """20 people with two images each, in ten folds of a pair of each kind: of one person, then of two."""
    people = [f"Person_{letter}" for letter in "ABCDEFGHIJKLMNOPQRST"]
    for number, name in enumerate(people):
        for i in (1, 2):
            put(root / "aligned images" / f"{name}_{i}.jpg", face(number))
    put(root / "aligned images" / "Landon_Donovan_3jpg.jpg", face(0))  # such names are in the download
    lines = []
    for fold in range(10):
        a, b = people[2 * fold], people[2 * fold + 1]
        lines += [f"{a}_1.jpg 1", f"{a}_2.jpg 1", f"{a}_1.jpg 0", f"{b}_2.jpg 0"]
    write(root / "pairs_CPLFW.txt", lines)


def intensity(person: int, frame: int, unit: int) -> int:
    return (person + frame + unit) % 6


def disfa(root: Path, *, videos: bool, frames: int = 5) -> None:
    """6 people, 5 frames each; frame n of a video has grey level 40 n, frames as images show face n."""
    for person, name in enumerate(DISFA_PEOPLE):
        for unit in DISFA_UNITS:
            lines = [f"{n},{intensity(person, n, unit)}" for n in range(1, frames + 1)]
            write(root / f"ActionUnit_Labels/{name}/{name}_au{unit}.txt", lines, end="\r\n")
        if videos:
            film(
                root / f"Video_LeftCamera/LeftVideo{name}_comp.avi",
                [40 * n for n in range(1, frames + 1)],
                RATE,
            )
            film(root / f"Video_RightCamera/RightVideo{name}_comp.avi", [5] * frames, RATE)
            continue
        for n in range(1, frames + 1):
            put(root / f"LeftVideo{name}_comp/LeftVideo{name}_comp_{n:04d}.png", face(n))
            put(root / f"RightVideo{name}_comp/RightVideo{name}_comp_{n:04d}.png", face(0))


def landmarks68(left: float, top: float, width: float, height: float) -> np.ndarray:
    """[2, 68] points on an ellipse that touches the box given."""
    turn = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack([left + width * (1 + np.cos(turn)) / 2, top + height * (1 + np.sin(turn)) / 2])
    return points


def posed(path: Path, number: int, points: dict[str, np.ndarray], angles: Sequence[float]) -> None:
    """An image of 200 x 160 with a face at (60, 40), and its .mat; angles: yaw, pitch, roll in degrees."""
    canvas = Image.new("RGB", (200, 160), (10, 20, 30))
    canvas.paste(face(number), (60, 40))
    put(path, canvas)
    yaw, pitch, roll = np.radians(angles)
    pose = np.array([[pitch, yaw, roll, 90.0, 80.0, 0.0, 0.0005]], dtype=np.float32)
    savemat(path.with_suffix(".mat"), {"Pose_Para": pose, "roi": np.array([[60, 40, 124, 104]]), **points})


def pose_of(number: int) -> tuple[float, float, float]:
    row = factors().iloc[number % FACES]
    return row["yaw"], row["pitch"], row["roll"]


def wlp(root: Path) -> None:
    """Four photographs in two subsets with two views each, their mirror images, and landmark files."""
    box = landmarks68(70, 50, 40, 50)
    number = 0
    for subset, names in (("AFW", ("AFW_134212_1", "AFW_134212_2")), ("HELEN", ("HELEN_1_1", "HELEN_2_1"))):
        for name in names:
            for view in (0, 1):
                posed(root / subset / f"{name}_{view}.jpg", number, {"pt2d": box}, pose_of(number))
                posed(root / f"{subset}_Flip" / f"{name}_{view}.jpg", number, {"pt2d": box}, pose_of(number))
                marks = root / "landmarks" / subset / f"{name}_{view}_pts.mat"
                marks.parent.mkdir(parents=True, exist_ok=True)
                savemat(marks, {"pts_2d": box.T, "pts_3d": box.T})
                number += 1
    put(root / "Code" / "ModelGeneration" / "example.jpg", face(0))


def aflw2000(root: Path) -> None:
    """Six images, the last beyond 99 degrees; pt2d has 21 points, some unseen, as in the download."""
    unseen = np.full((2, 21), -1.0)
    for i in range(6):
        box = np.vstack([landmarks68(70, 50, 40, 50), np.zeros((1, 68))])
        angles = pose_of(i) if i < 5 else (120.0, 4.0, 3.0)
        posed(root / f"image{i + 2:05d}.jpg", i, {"pt3d_68": box, "pt2d": unseen}, angles)
    put(root / "Code" / "figure.jpg", face(0))


BIWI_TURN = camera.rotation(*np.array([[1.0], [-2.0], [0.5]]))[
    0
]  # of the colour camera against the depth camera
FLIP = np.diag([1.0, -1.0, -1.0])


def biwi(root: Path) -> None:
    """Two sequences of three frames; poses are relative to the depth camera, which is turned a little."""
    turn = FLIP @ BIWI_TURN @ FLIP
    for s, sequence in enumerate(("01", "02")):
        for i in range(3):
            number = 3 * s + i
            stem = root / sequence / f"frame_{i + 3:05d}"
            canvas = Image.new("RGB", (640, 480))
            canvas.paste(face(number), (300, 200))
            put(Path(f"{stem}_rgb.png"), canvas)
            r = turn.T @ FLIP @ camera.rotation(*(np.array([a]) for a in pose_of(number)))[0] @ FLIP
            centre = turn.T @ (np.array([30.0, -20.0, 1000.0]) - [25.0, 0.0, 0.0])
            rows = [" ".join(f"{v:.9f}" for v in row) + " " for row in r]
            write(Path(f"{stem}_pose.txt"), [*rows, "", " ".join(f"{v:.6f}" for v in centre) + " ", ""])
        calibration = ["517.679 0 320 ", "0 517.679 240.5 ", "0 0 1 ", "", "0 0 0 0 ", ""]
        calibration += [" ".join(f"{v:.9f}" for v in row) + " " for row in turn]
        write(root / sequence / "rgb.cal", [*calibration, "", "25.0 0 0 ", "", "640 480 ", ""])
        write(root / sequence / "depth.cal", calibration[:5])


CELEBA_PEOPLE = (0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6)  # nobody in two splits
CELEBA_NAMES = (*(f"Attribute_{i}" for i in range(39)), "Smiling")


def celeba(root: Path) -> None:
    """12 images of 178 x 218 of 7 people; 6 train, 3 validation, 3 test; odd ones smile."""
    names = [f"{i + 1:06d}.jpg" for i in range(12)]
    for number, name in enumerate(names):
        canvas = Image.new("RGB", (178, 218), (200, 0, 0))
        canvas.paste(face(number).resize((178, 178)), (0, 20))
        put(root / "Img/img_align_celeba" / name, canvas)
    rows = [
        name + "".join(" -1" for _ in range(39)) + (" 1" if i % 2 else " -1") for i, name in enumerate(names)
    ]
    write(root / "Anno/list_attr_celeba.txt", ["12", " ".join(CELEBA_NAMES) + " ", *rows])
    write(
        root / "Anno/identity_CelebA.txt",
        [f"{name} {2880 + who}" for name, who in zip(names, CELEBA_PEOPLE, strict=True)],
    )
    parts = [0] * 6 + [1] * 3 + [2] * 3
    write(
        root / "Eval/list_eval_partition.txt",
        [f"{name} {part}" for name, part in zip(names, parts, strict=True)],
    )


BUILD: dict[str, Callable[[Path], object]] = {
    "voxceleb": voxceleb,
    "celeba": celeba,
    "rafdb": rafdb,
    "fer2013": fer2013_table,
    "lfw": lfw,
    "cplfw": cplfw,
    "disfa": lambda root: disfa(root, videos=False),
    "300wlp": wlp,
    "aflw2000": aflw2000,
    "biwi": biwi,
}
