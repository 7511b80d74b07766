"""DISFA as people have it: frames numbered by one decision, labels that are none, other frame rates."""

from __future__ import annotations

import shutil
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image
from test_prepare_forms import left_out, prepare

from pcl_lib.data import PreparedFaces
from pcl_lib.utils import BadInput

UNITS = [f"au{unit:02d}" for unit in miniatures.DISFA_UNITS]


def disfa_pictures(
    root: Path, starts: dict[str, int], lost: dict[str, list[int]], frames: int = 12, label_start: int = 1
) -> None:
    """Labels of frames label_start..; pictures img/SUBJECT/K.png of grey 10 x frame (from 1), K from `starts`."""
    for person, name in enumerate(miniatures.DISFA_PEOPLE):
        for unit in miniatures.DISFA_UNITS:
            lines = [
                f"{n + label_start - 1},{miniatures.intensity(person, n, unit)}" for n in range(1, frames + 1)
            ]
            miniatures.write(root / f"ActionUnit_Labels/{name}/{name}_au{unit}.txt", lines)
        for n in range(1, frames + 1):
            if n not in lost.get(name, []):
                image = Image.new("L", (64, 64), 10 * n)
                miniatures.put(root / f"img/{name}/{n - 1 + starts.get(name, starts['all'])}.png", image)


def check_disfa(faces: PreparedFaces) -> None:
    """Every picture has the intensities of the frame that it shows."""
    frames = np.round(faces.images(slice(None)).float().mean(dim=(1, 2, 3)).numpy() / 10).astype(int)
    people = [miniatures.DISFA_PEOPLE.index(name) for name in faces.table["identity"]]
    for unit, name in zip(miniatures.DISFA_UNITS, UNITS, strict=True):
        wanted = [
            miniatures.intensity(person, frame, unit) for person, frame in zip(people, frames, strict=True)
        ]
        assert faces.table[name].tolist() == wanted


@pytest.mark.parametrize(
    ("starts", "lost", "label_start", "rows", "told"),
    [
        ({"all": 0}, {"SN002": [1], "SN006": [1]}, 1, 70, "numbered from 0 in all subjects, as 4 of 6 show"),
        ({"all": 0}, {name: [1] for name in miniatures.DISFA_PEOPLE[1:]}, 1, 67, "from 0 in all subjects, as 1 of 6"),
        ({"all": 1}, {"SN002": [1], "SN006": [12]}, 1, 70, "numbered from 1 in all subjects, as 5 of 6 show"),
        ({"all": 0, "SN001": 1}, {}, 1, 72, "from 0 in SN002, SN003, SN004, SN006, SN011 and from 1 in SN001"),
        ({"all": 1}, {}, 0, 72, "the label files count frames from 0"),
        ({"all": 0}, {}, 0, 72, "the label files count frames from 0"),
    ],
)  # fmt: skip
def test_disfa_frames_are_numbered_by_one_decision(
    tmp_path: Path, starts: dict[str, int], lost: dict[str, list[int]], label_start: int, rows: int, told: str
) -> None:
    disfa_pictures(tmp_path / "in", starts, lost, label_start=label_start)
    faces = prepare("disfa", tmp_path / "in", "--align", "none")
    check_disfa(faces)
    assert len(faces) == rows and any(told in note for note in faces.info["notes"])


def test_disfa_subjects_that_cannot_be_told(tmp_path: Path) -> None:
    disfa_pictures(tmp_path / "in", {"all": 0, "SN001": 1}, {"SN002": [1, 12]})
    faces = prepare("disfa", tmp_path / "in", "--align", "none")
    check_disfa(faces)
    assert (
        "SN002" not in set(faces.table["identity"])
        and "nothing shows which holds here" in left_out(faces)["SN002"]
    )
    miniatures.put(tmp_path / "in/img/SN003/12.png", miniatures.face(0))
    with pytest.raises(BadInput, match="SN003 has pictures 0 to 12 for labels of frames 1 to 12"):
        prepare("disfa", tmp_path / "in", out=tmp_path / "out2")


def test_disfa_labels_that_count_in_two_ways(tmp_path: Path) -> None:
    disfa_pictures(tmp_path / "in", {"all": 1}, {})
    path = tmp_path / "in/ActionUnit_Labels/SN001/SN001_au4.txt"
    miniatures.write(path, [f"{n},1" for n in range(12)])
    with pytest.raises(
        BadInput, match="the labels of SN001 count frames from 0 in some files and from 1 in others"
    ):
        prepare("disfa", tmp_path / "in")


def test_disfa_a_single_frame_0_moves_nobody(tmp_path: Path) -> None:
    disfa_pictures(tmp_path / "in", {"all": 1}, {})
    path = tmp_path / "in/ActionUnit_Labels/SN001/SN001_au1.txt"
    miniatures.write(path, ["0,0", *path.read_text().splitlines()])
    with pytest.raises(
        BadInput, match="SN001 count frames from 0 in some files and from 1 in others, such as au01"
    ):
        prepare("disfa", tmp_path / "in")
    disfa_pictures(tmp_path / "two", {"all": 1}, {})
    for unit in miniatures.DISFA_UNITS:
        lines = [f"{n - 1},{miniatures.intensity(0, n, unit)}" for n in range(1, 13)]
        miniatures.write(tmp_path / f"two/ActionUnit_Labels/SN001/SN001_au{unit}.txt", lines)
    with pytest.raises(BadInput, match="the labels of SN001 count frames from 0, those of SN002 do not"):
        prepare("disfa", tmp_path / "two")


def test_disfa_pictures_at_another_rate(tmp_path: Path) -> None:
    for root, count in (("few", 4), ("many", 18)):
        disfa_pictures(tmp_path / root, {"all": 1}, {})
        for name in miniatures.DISFA_PEOPLE:
            for n in range(1, 19):
                image = Image.new("L", (64, 64), 10 * n)
                miniatures.put(tmp_path / root / f"img/{name}/{n}.png", image)
                if n > count:
                    (tmp_path / root / f"img/{name}/{n}.png").unlink()
        with pytest.raises(
            BadInput, match=f"numbered to {count}, labels to 12 in 6 of 6 subjects: .* another rate"
        ):
            prepare("disfa", tmp_path / root)
    disfa_pictures(
        tmp_path / "one", {"all": 1}, {"SN001": list(range(5, 13)), "SN002": [1, 2, 3, 5, 6, 7, 9, 10, 11]}
    )
    faces = prepare("disfa", tmp_path / "one", "--align", "none")
    check_disfa(faces)
    assert "SN001" not in set(faces.table["identity"]) and (faces.table["identity"] == "SN002").sum() == 3
    assert left_out(faces)["SN001"].startswith("pictures are numbered to 4, labels to 12: not every frame")


def test_disfa_videos_encoded_anew(tmp_path: Path) -> None:
    root = tmp_path / "in"
    disfa_pictures(root, {"all": 1}, {}, frames=10)
    shutil.rmtree(root / "img")
    video = "Video_LeftCamera/LeftVideo{}_comp.avi"
    miniatures.film(
        root / video.format("SN001"), [20 * n for n in range(1, 11) for _ in "ab"], 40
    )  # frames doubled
    miniatures.film(
        root / video.format("SN002"), [20 * n for n in range(1, 11)], 40
    )  # the same frames, faster
    miniatures.film(root / video.format("SN003"), [20 * n for n in range(1, 6)], 20)  # cut short
    for person, level in (("SN004", 20), ("SN006", 20), ("SN011", 20)):
        miniatures.film(root / video.format(person), [level * n for n in range(1, 11)], 20)
    faces = prepare("disfa", root, "--align", "none")
    told = left_out(faces)[video.format("SN001")]
    assert told.startswith("has 20 frames, 40 a second, for labels of frames 1 to 10: encoded anew")
    frames = np.round(faces.images(slice(None)).float().mean(dim=(1, 2, 3)).numpy() / 20).astype(int)
    people = faces.table["identity"].value_counts().to_dict()
    assert people == {"SN002": 10, "SN003": 5, "SN004": 10, "SN006": 10, "SN011": 10}
    for (_, row), frame in zip(faces.table.iterrows(), frames, strict=True):
        person = miniatures.DISFA_PEOPLE.index(row["identity"])
        assert [row[name] for name in UNITS] == [
            miniatures.intensity(person, frame, unit) for unit in miniatures.DISFA_UNITS
        ]


def test_disfa_pictures_that_are_no_frames_of_the_left_camera(tmp_path: Path) -> None:
    root = tmp_path / "in"
    disfa_pictures(root, {"all": 1}, {"SN001": [3]})
    (root / "img").rename(root / "Left")
    for name in miniatures.DISFA_PEOPLE:
        for n in range(1, 13):
            miniatures.put(root / f"Right/{name}/{n}.png", Image.new("L", (64, 64), 250))
    for name in ("Left/SN001.png", "Left/SN002/2_aligned.png", "Left/SN099/1.png"):
        miniatures.put(root / name, Image.new("L", (64, 64), 250))
    faces = prepare("disfa", root, "--align", "none")
    check_disfa(faces)
    told = left_out(faces)
    assert len(faces) == 71 and told["right camera"].startswith("72 images")
    assert "does not end in a frame's number" in told["Left/SN001.png"] == told["Left/SN002/2_aligned.png"]
    assert told["SN099"] == "has pictures, but no labels"


def test_disfa_labels_that_are_no_intensities(tmp_path: Path) -> None:
    root = tmp_path / "in"
    disfa_pictures(root, {"all": 1}, {})
    path = root / "ActionUnit_Labels/SN002/SN002_au1.txt"
    miniatures.write(path, [f"{n % 6},{n}" for n in range(1, 13)])
    with pytest.raises(BadInput, match=r'SN002_au1\.txt: 7 lines are not "frame,intensity", .* and 5 are'):
        prepare("disfa", root)
    for path in sorted((root / "ActionUnit_Labels").rglob("*.txt")):
        miniatures.write(path, [f"{n},{n % 2}" for n in range(1, 13)])
    with pytest.raises(BadInput, match="no intensity is above 1, where DISFA's go from 0 to 5"):
        prepare("disfa", root)
