"""The forms in which people really have the sets, and what a careless hand does to them: read rightly, or refused."""

from __future__ import annotations

import importlib
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import miniatures
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from data_scripts import __main__ as all_sets
from data_scripts import official
from data_scripts.sources import single_folder, unpacked
from pcl_lib.data import PreparedFaces
from pcl_lib.utils import BadInput

SIZE = 32


def prepare(key: str, root: Path, *options: str, out: Path | None = None) -> PreparedFaces:
    """Run the script's command as a user would, and open what it made."""
    out = out or root.parent / "out"
    script = importlib.import_module(f"data_scripts.prepare_{key}")
    script.main([str(root), str(out), "--size", str(SIZE), "--workers", "1", *options])
    return PreparedFaces(out)


def left_out(faces: PreparedFaces) -> dict[str, str]:
    table = pd.read_csv(faces.folder / "skipped.csv", dtype=str, keep_default_na=False)
    return {f"{file}:{line}" if line else file: reason for file, line, reason in table.to_numpy()}


def number_of(faces: PreparedFaces, row: int) -> int:
    """The face that image `row` is nearest to."""
    small = np.stack([np.asarray(Image.fromarray(p).resize((SIZE, SIZE))) for p in miniatures.pictures()])
    image = faces.images(row)[0].numpy().transpose(1, 2, 0).astype(float)
    return int(np.abs(small.astype(float) - image).mean(axis=(1, 2, 3)).argmin())


# RAF-DB ------------------------------------------------------------------------------------------------------

RAF = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")


def check_raf(faces: PreparedFaces) -> None:
    """Each image with the label of the face on it, as `miniatures.rafdb` gives them; the official split."""
    numbers = [number_of(faces, row) for row in range(len(faces))]
    assert sorted(numbers) == list(range(21))
    assert faces.table["expression"].tolist() == [RAF[number % 7] for number in numbers]
    assert (faces.table["split"] == "test").tolist() == [number >= 14 for number in numbers]


@pytest.mark.parametrize("suffix", [".JPG", ".png", ".PNG", ".jfif", ".jpeg", ".webp"])
def test_rafdb_pictures_with_another_suffix(tmp_path: Path, suffix: str) -> None:
    miniatures.rafdb(tmp_path / "in")
    for path in sorted((tmp_path / "in/Image/aligned").iterdir()):
        with Image.open(path) as image:
            options = {"lossless": True} if suffix == ".webp" else {}
            image.save(path.with_suffix(".tmp"), Image.registered_extensions()[suffix.lower()], **options)
        path.with_suffix(".tmp").rename(path.with_suffix(suffix))
        path.unlink()
    check_raf(prepare("rafdb", tmp_path / "in"))


def edit(path: Path, change: dict[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for pattern, new in change.items():
        text = re.sub(pattern, new, text, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8", newline="")


@pytest.mark.parametrize(
    "change",
    [
        {r"$": " 1"},
        {r" (\d)$": r",\1"},
        {r" (\d)$": r"\t\1"},
        {r"\n": r"\r\n"},
        {r"\n": r"\r"},
        {r"\n": r"\n\n"},
        {r"\A": "\ufeff"},
    ],
    ids=["third column", "commas", "tabs", "CR LF", "CR", "blank lines", "BOM"],
)  # fmt: skip
def test_rafdb_label_files_in_other_forms(tmp_path: Path, change: dict[str, str]) -> None:
    miniatures.rafdb(tmp_path / "in")
    edit(tmp_path / "in/EmoLabel/list_patition_label.txt", change)
    faces = prepare("rafdb", tmp_path / "in")
    check_raf(faces)
    if r"$" in change:
        assert "third column" in left_out(faces)["EmoLabel/list_patition_label.txt"]


def test_rafdb_labels_from_zero_are_refused(tmp_path: Path) -> None:
    miniatures.rafdb(tmp_path / "in")
    lines = [f"train_{i + 1:05d}.jpg {i % 7}" for i in range(14)]
    miniatures.write(tmp_path / "in/EmoLabel/list_patition_label.txt", lines)
    with pytest.raises(
        BadInput, match=r"line 1: labels from 0 to 6, where RAF-DB's are 1 to 7: .*official download"
    ):
        prepare("rafdb", tmp_path / "in")


def passed_on(root: Path, first: int = 1, names: tuple[str, ...] = ()) -> None:
    """DATASET/{train,test}/LABEL/ with the label tables beside, as the set is found on Kaggle."""
    for split, count, start in (("train", 14, 0), ("test", 7, 14)):
        lines = ["image,label"]
        for i in range(count):
            name, label = f"{split}_{i + 1:05d}_aligned.jpg", (start + i) % 7
            folder = names[label] if names else str(label + first)
            miniatures.put(root / "DATASET" / split / folder / name, miniatures.face(start + i))
            lines.append(f"{name},{label + first}")
        if not names:
            miniatures.write(root / f"{split}_labels.csv", lines)


def test_rafdb_as_folders_of_labels(tmp_path: Path) -> None:
    passed_on(tmp_path / "in")
    faces = prepare("rafdb", tmp_path / "in")
    check_raf(faces)
    assert "compared with train_labels.csv and test_labels.csv" in faces.info["notes"][0]
    edit(tmp_path / "in/train_labels.csv", {r"train_00003_aligned.jpg,3": "train_00003_aligned.jpg,4"})
    told = left_out(prepare("rafdb", tmp_path / "in", out=tmp_path / "out2"))
    assert "disagree on its label" in told["DATASET/train/3/train_00003_aligned.jpg"] and len(told) == 1
    for table in (tmp_path / "in").glob("*.csv"):
        table.unlink()
    check_raf(prepare("rafdb", tmp_path / "in/DATASET", out=tmp_path / "out3"))


def test_rafdb_as_folders_of_words_or_from_zero(tmp_path: Path) -> None:
    passed_on(tmp_path / "words", names=tuple(name.capitalize() for name in RAF))
    check_raf(prepare("rafdb", tmp_path / "words"))
    passed_on(tmp_path / "zero", first=0)
    with pytest.raises(
        BadInput, match=r"the folders of labels: labels from 0 to 6, where RAF-DB's are 1 to 7"
    ):
        prepare("rafdb", tmp_path / "zero", out=tmp_path / "out2")


def raf_folders(root: Path, split: str, name: str, labels: Sequence[int], first: int = 1) -> None:
    """DATASET/SPLIT/LABEL/NAME_00001_aligned.jpg, ..., each of one grey, 10 + 30 x label."""
    for place, label in enumerate(labels, first):
        image = Image.new("L", (40, 40), 10 + 30 * label)
        miniatures.put(root / f"DATASET/{split}/{label}/{name}_{place:05d}_aligned.jpg", image)


def check_greys(faces: PreparedFaces, names: Sequence[str]) -> None:
    greys = np.round((faces.images(slice(None)).float().mean(dim=(1, 2, 3)).numpy() - 10) / 30).astype(int)
    assert faces.table["expression"].tolist() == [names[grey] for grey in greys]


@pytest.mark.parametrize("folder", ["validation", "train", "valid", "test"])
def test_rafdb_test_pictures_are_test_in_whatever_folder(tmp_path: Path, folder: str) -> None:
    raf_folders(tmp_path / "in", "train", "train", [*range(1, 8)] * 2)
    raf_folders(tmp_path / "in", folder, "test", range(1, 8))
    faces = prepare("rafdb", tmp_path / "in")
    check_greys(faces, ("", *RAF))
    official = faces.table["file"].str.contains("/test_")
    assert (faces.table["split"][official] == "test").all() and official.sum() == 7
    assert not (faces.table["split"][~official] == "test").any() and len(faces) == 21
    told = "7 images lie in a folder of another split than their name, official, says: it counts"
    assert (told in faces.info["notes"]) == (folder != "test")


def test_rafdb_a_picture_in_two_folders(tmp_path: Path) -> None:
    root = tmp_path / "in/DATASET"
    raf_folders(tmp_path / "in", "train", "train", range(1, 8))
    raf_folders(tmp_path / "in", "test", "test", range(1, 8))
    shutil.copy(root / "train/3/train_00003_aligned.jpg", root / "train/5/train_00003_aligned.jpg")
    shutil.copytree(root / "train/6", root / "test/6", dirs_exist_ok=True)
    shutil.copytree(root / "train/7", root / "train/12")
    shutil.move(root / "train/12/train_00007_aligned.jpg", root / "train/12/train_00099_aligned.jpg")
    faces = prepare("rafdb", tmp_path / "in")
    check_greys(faces, ("", *RAF))
    told = left_out(faces)
    assert len(faces) == 13 and len(told) == 4
    for label in (3, 5):
        reason = told[f"DATASET/train/{label}/train_00003_aligned.jpg"]
        assert reason == "lies in the folders of two classes: which is right is not known"
    assert told["DATASET/test/6/train_00006_aligned.jpg"] == "lies in another folder too, which counts"
    assert told["DATASET/train/12/train_00099_aligned.jpg"] == "its folder is not one of the labels 1 to 7"


def test_eight_classes_are_refused(tmp_path: Path) -> None:
    raf_folders(tmp_path / "raf", "train", "train", range(8))
    raf_folders(tmp_path / "raf", "test", "test", range(8))
    with pytest.raises(BadInput, match="labels from 0 to 7, where RAF-DB's are 1 to 7"):
        prepare("rafdb", tmp_path / "raf")
    miniatures.rafdb(tmp_path / "list")
    with open(tmp_path / "list/EmoLabel/list_patition_label.txt", "a") as file:
        file.write("train_00100.jpg 0\n")
    with pytest.raises(BadInput, match="line 22: labels from 0 to 7, where RAF-DB's are 1 to 7"):
        prepare("rafdb", tmp_path / "list")
    for root in ("fer", "fer2"):
        miniatures.fer2013_table(tmp_path / root)
    edit(tmp_path / "fer/fer2013.csv", {r"\A(.*\n)\d,": r"\g<1>7,"})
    (tmp_path / "fer2/fer2013.csv").unlink()
    for split in ("train", "test"):
        for code in range(8):
            miniatures.put(tmp_path / f"fer2/{split}/{code}/1.png", miniatures.face(code))
    for root in ("fer", "fer2"):
        with pytest.raises(BadInput, match="labels from 0 to 7, where FER-2013's are 0 to 6"):
            prepare("fer2013", tmp_path / root)


def test_label_tables_that_name_other_pictures_compare_nothing(tmp_path: Path) -> None:
    passed_on(tmp_path / "in")
    edit(tmp_path / "in/train_labels.csv", {r"^train": "0,train"})
    faces = prepare("rafdb", tmp_path / "in")
    check_raf(faces)
    assert "for 7 of 21 images; the tables do not name the others" in faces.info["notes"][0]


@pytest.mark.parametrize(("key", "whole"), [("rafdb", 15339), ("fer2013", 35887)])
def test_classes_in_another_order_show_by_their_counts(key: str, whole: int) -> None:
    script = importlib.import_module(f"data_scripts.prepare_{key}")
    published = dict(script.PUBLISHED)
    assert sum(published.values()) == whole and min(published, key=published.__getitem__) in (
        "fear",
        "disgust",
    )

    def check(counts: dict[str, int]) -> None:
        official.check_counts(counts, published, "x", "give another")

    check(published)
    check({name: count - count // 50 for name, count in published.items()})  # some are damaged
    check({**published, min(published, key=published.__getitem__): 0})  # a class is lost
    check(
        {name: published[other] // 2 for name, other in zip(published, sorted(published), strict=True)}
    )  # a part
    by_alphabet = {name: published[other] for name, other in zip(published, sorted(published), strict=True)}
    with pytest.raises(
        BadInput, match=r"x: the whole set is here, but with .* in another order; give another"
    ):
        check(by_alphabet)


def test_fer2013_numbered_by_the_alphabet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module("data_scripts.prepare_fer2013")
    counts = dict(zip(FER, (5, 1, 5, 9, 6, 4, 7), strict=True))
    monkeypatch.setattr(script, "PUBLISHED", counts)
    for root, order in (("right", FER), ("wrong", sorted(FER))):
        for split in ("train", "test"):
            for name in FER:
                for i in range(counts[name] if split == "train" else 0):
                    image = Image.new("L", (48, 48), 10 + 30 * FER.index(name))
                    miniatures.put(tmp_path / root / split / str(order.index(name)) / f"{i}.png", image)
        (tmp_path / root / "test/0").mkdir(parents=True)
        shutil.move(tmp_path / root / "train/0/0.png", tmp_path / root / "test/0/0.png")
    faces = prepare("fer2013", tmp_path / "right")
    check_greys(faces, FER)
    assert "folders are numbers, read as 0 anger, 1 disgust, 2 fear" in faces.info["notes"][0]
    with pytest.raises(BadInput, match=r"\d of surprise for 4"):
        prepare("fer2013", tmp_path / "wrong", out=tmp_path / "out2")


def test_fer2013_says_where_pictures_are_of_another_size(tmp_path: Path) -> None:
    miniatures.fer2013_folders(tmp_path / "in", ("train", "test"))
    assert not any("48 x 48" in note for note in prepare("fer2013", tmp_path / "in").info["notes"])
    for path in sorted((tmp_path / "in").rglob("*.jpg"))[:5]:
        Image.open(path).resize((100, 90)).save(path)
    (note,) = (
        note
        for note in prepare("fer2013", tmp_path / "in", out=tmp_path / "out2").info["notes"]
        if "48 x 48" in note
    )
    assert note.startswith("5 of 35 images") and "100 x 90" in note and "another set (RAF-DB" in note


def test_fer2013_names_that_say_another_split(tmp_path: Path) -> None:
    for split, name in (("train", "Training"), ("test", "PrivateTest"), ("public_test", "PublicTest")):
        for code, word in enumerate(miniatures.FER_CLASSES[:6]):
            miniatures.put(
                tmp_path / f"in/{split}/{word}/{name}_{code}.png", Image.new("L", (48, 48), 10 + 30 * code)
            )
    shutil.copy(tmp_path / "in/train/sad/Training_4.png", tmp_path / "in/test/sad/Training_4.png")
    faces = prepare("fer2013", tmp_path / "in")
    check_greys(faces, FER)
    assert faces.table["split"].value_counts().to_dict() == {"train": 6, "validation": 6, "test": 6}
    assert left_out(faces) == {
        "test/sad/Training_4.png": "lies in test, and its name says that it is of train"
    }
    assert "no image of neutral" in faces.info["notes"]


# Archives ----------------------------------------------------------------------------------------------------

LITTER = {
    "a Mac's": {"__MACOSX/._basic": b"\0", "__MACOSX/basic/._x.jpg": b"\0", ".DS_Store": b"x"},
    "Windows'": {"Thumbs.db": b"x", "desktop.ini": b"x"},
    "texts": {"README.txt": b"x", "LICENSE": b"x", "License.pdf": b"x", "read me.html": b"x"},
}


def pack(folder: Path, archive: Path, prefix: str, extra: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(archive, "w") as content:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                content.write(path, f"{prefix}{path.relative_to(folder).as_posix()}")
        for name, data in (extra or {}).items():
            content.writestr(name, data)
    return archive


@pytest.mark.parametrize("litter", LITTER)
@pytest.mark.parametrize("prefix", ["", "basic/", "download/RAF-DB/basic/"])
def test_archives_with_litter_and_wrappers(tmp_path: Path, litter: str, prefix: str) -> None:
    miniatures.rafdb(tmp_path / "in")
    archive = pack(tmp_path / "in", tmp_path / "x.zip", prefix, LITTER[litter])
    check_raf(prepare("rafdb", archive))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "x.zip"]


@pytest.mark.parametrize("inner", ["", "aligned/"])
def test_an_archive_in_the_archive(tmp_path: Path, inner: str) -> None:
    root = tmp_path / "in"
    miniatures.rafdb(root)
    pack(root / "Image/aligned", root / "Image/aligned.zip", inner)
    shutil.rmtree(root / "Image/aligned")
    with pytest.raises(BadInput, match=r"still packed: Image/aligned\.zip. Unpack there"):
        prepare("rafdb", root)
    check_raf(prepare("rafdb", pack(root, tmp_path / "basic.zip", "basic/"), out=tmp_path / "out2"))


def test_archives_in_archives_that_are_damaged_or_in_the_way(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("a.png", "b.zip"):
        miniatures.write(root / name, ["no archive"])
    miniatures.put(root / "c" / "1.png", miniatures.face(1))
    pack(root / "c", root / "c.zip", "../")
    pack(root / "c", root / "d.zip", "")
    archive = pack(root, tmp_path / "x.zip", "x/")
    with unpacked(archive, tmp_path / "out") as (folder, left):
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        told = left.frame().set_index("file")["reason"].to_dict()
    assert files == ["a.png", "b.zip", "c/1.png", "d/1.png"]
    assert "cannot be unpacked" in told["x/b.zip"] and "leads out" in told["x/c.zip/../1.png"]


def test_what_is_litter_beside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "lfw" / "Ann").mkdir(parents=True)
    (tmp_path / "lfw" / "Bob").mkdir()
    assert single_folder(tmp_path) == tmp_path / "lfw"
    (tmp_path / "readme.md").touch()
    assert single_folder(tmp_path) == tmp_path / "lfw"
    (tmp_path / "pairs.txt").touch()  # labels are no litter
    assert single_folder(tmp_path) == tmp_path


def test_one_command_looks_into_zips_and_names_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniatures.rafdb(tmp_path / "raf")
    pack(tmp_path / "raf", tmp_path / "in.zip", "whatever/")
    root = tmp_path / "downloads"
    root.mkdir()
    (tmp_path / "in.zip").rename(root / "faces of the web.zip")
    shutil.make_archive(str(root / "other"), "gztar", tmp_path / "raf")
    (root / "more.7z").touch()
    all_sets.main([str(root), "--out", str(tmp_path / "out"), "--size", "32", "--workers", "1"])
    check_raf(PreparedFaces(tmp_path / "out/rafdb"))
    told = capsys.readouterr().out
    assert "Archives that look like no set (give each to the script of its set): other.tar.gz\n" in told
    assert "Archives of forms that are not opened here (unpack each): more.7z\n" in told


def test_the_folder_above_a_set_will_do(tmp_path: Path) -> None:
    miniatures.rafdb(tmp_path / "in/raf/basic")
    faces = prepare("rafdb", tmp_path / "in")
    check_raf(faces)
    assert faces.info["notes"][0] == "the set lies in raf/basic of what was given"
    miniatures.rafdb(tmp_path / "in/again")
    with pytest.raises(
        BadInput, match=r"holds RAF-DB, basic emotions 2 times, in again, raf/basic; give one"
    ):
        prepare("rafdb", tmp_path / "in", out=tmp_path / "out2")


# FER-2013 ----------------------------------------------------------------------------------------------------

FER = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def grey_table(path: Path, end: str = "\n", blank: tuple[int, ...] = (), first: int = 0) -> None:
    """22 rows; every picture is of one grey, 10 + 30 x label, so that picture and label can be compared."""
    usage = ["Training"] * 14 + ["PublicTest"] * 4 + ["PrivateTest"] * 4
    lines = ["emotion,pixels,Usage"]
    for i in range(22):
        lines += [""] * (i in blank) + [
            f"{i % 7 + first},{' '.join([str(10 + 30 * (i % 7))] * 48 * 48)},{usage[i]}"
        ]
    miniatures.write(path, lines, end)


@pytest.mark.parametrize(("end", "blank"), [("\n", (5,)), ("\n", (0, 3, 21)), ("\r", ()), ("\r\n", (7,))])
def test_fer2013_labels_stay_with_their_pictures(tmp_path: Path, end: str, blank: tuple[int, ...]) -> None:
    grey_table(tmp_path / "in/fer2013.csv", end, blank)
    faces = prepare("fer2013", tmp_path / "in")
    greys = (faces.images(slice(None))[:, 0, 0, 0].numpy().astype(int) - 10) // 30
    assert faces.table["expression"].tolist() == [FER[grey] for grey in greys] and len(faces) == 22


def test_fer2013_cut_short_or_numbered_anew(tmp_path: Path) -> None:
    grey_table(tmp_path / "in/fer2013.csv", first=1)
    with pytest.raises(BadInput, match=r"labels from 1 to 7, where FER-2013's are 0 to 6"):
        prepare("fer2013", tmp_path / "in")
    grey_table(tmp_path / "cut/fer2013.csv")
    whole = (tmp_path / "cut/fer2013.csv").read_bytes()
    (tmp_path / "cut/fer2013.csv").write_bytes(whole[:-3000])
    with pytest.raises(
        BadInput, match=r"line 23: 2 values where the header has 3; the table is damaged or half copied"
    ):
        prepare("fer2013", tmp_path / "cut")


def test_fer2013_folders_under_other_names(tmp_path: Path) -> None:
    for split, count in (("Training", 4), ("PublicTest", 1), ("PrivateTest", 1)):
        for code in range(7):
            for i in range(count):
                image = Image.new("L", (48, 48), 10 + 30 * code)
                miniatures.put(
                    tmp_path / f"in/fer/{split}/{code if split != 'Training' else FER[code].title()}/{i}.png",
                    image,
                )
    faces = prepare("fer2013", tmp_path / "in")
    greys = (faces.images(slice(None))[:, 0, 0, 0].numpy().astype(int) - 10) // 30
    assert faces.table["expression"].tolist() == [FER[grey] for grey in greys]
    assert faces.table["split"].value_counts().to_dict() == {"train": 28, "validation": 7, "test": 7}


def test_fer2013_without_usage_names_the_wanted_file(tmp_path: Path) -> None:
    miniatures.write(tmp_path / "in/train.csv", ["emotion,pixels", "0," + " ".join(["1"] * 2304)])
    with pytest.raises(BadInput, match=r"icml_face_data\.csv \(train\.csv of the competition lacks Usage\)"):
        prepare("fer2013", tmp_path / "in")


# BIWI and the .mat sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".JPG"])
def test_biwi_pictures_with_another_suffix(tmp_path: Path, suffix: str) -> None:
    miniatures.biwi(tmp_path / "in")
    for path in sorted((tmp_path / "in").rglob("*_rgb.png")):
        with Image.open(path) as image:
            image.save(
                path.with_suffix(".tmp"),
                "PNG" if "P" in suffix and "G" in suffix and "J" not in suffix else "JPEG",
            )
        path.with_suffix(".tmp").rename(path.with_suffix(suffix))
        path.unlink()
    faces = prepare("biwi", tmp_path / "in", "--all-test")
    np.testing.assert_allclose(
        faces.table[["yaw", "pitch", "roll"]], [miniatures.pose_of(i) for i in range(6)], atol=1e-5
    )


def test_biwi_in_capitals_and_twice(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.biwi(root)
    for path in sorted((root / "01").iterdir()):
        path.rename(path.with_name(path.name.upper()))
    shutil.copy(root / "02/frame_00003_rgb.png", root / "02/frame_00003_rgb.bmp")
    faces = prepare("biwi", root, "--all-test")
    assert len(faces) == 6
    assert left_out(faces) == {"02/frame_00003_rgb.png": "is the frame that 02/frame_00003_rgb.bmp is"}


def test_biwi_people_recorded_twice_are_one_person(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.biwi(root)
    for other in ("03", "05", "15", "18", "21", "22"):
        shutil.copytree(root / "01", root / other)
    (root / "01").rename(root / "07")
    faces = prepare("biwi", root)
    who = faces.table.groupby("video")["identity"].first().to_dict()
    assert who == {
        "02": "02",
        "03": "03",
        "05": "05",
        "07": "07",
        "15": "03",
        "18": "05",
        "21": "02",
        "22": "07",
    }
    assert (faces.table.groupby("identity")["split"].nunique() == 1).all() and faces.table[
        "identity"
    ].nunique() == 4


def test_biwi_without_frames_says_what_is_wanted(tmp_path: Path) -> None:
    miniatures.put(tmp_path / "in/01/picture.png", miniatures.face(1))
    with pytest.raises(
        BadInput, match=r"no pictures such as 01/frame_00003_rgb\.png \(1 others\); give the folder hpdb"
    ):
        prepare("biwi", tmp_path / "in")


def test_biwi_pictures_that_were_resized_and_files_with_marks(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.biwi(root)
    for path in sorted(root.rglob("*_pose.txt")):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    for path in sorted((root / "01").glob("*_rgb.png")):
        with Image.open(path) as image:
            image.resize((320, 240)).save(path)
    faces = prepare("biwi", root, "--all-test")
    np.testing.assert_allclose(
        faces.table[["yaw", "pitch", "roll"]], [miniatures.pose_of(i) for i in (3, 4, 5)], atol=1e-5
    )
    told = left_out(faces)["01/frame_00003_rgb.png"]
    assert told == "is 320 x 240, where its calibration is for 640 x 480: resized or cropped"
    edit(root / "02/rgb.cal", {r"^25\.0": "nan"})
    with pytest.raises(BadInput, match=r"no image .* can be used"):
        prepare("biwi", root, "--all-test", out=tmp_path / "out2")


@pytest.mark.parametrize("key", ["aflw2000", "300wlp"])
@pytest.mark.parametrize("unit", ["degrees", "from 0 to 2 pi"])
def test_angles_in_another_unit_are_refused(tmp_path: Path, key: str, unit: str) -> None:
    miniatures.BUILD[key](tmp_path / "in")
    for path in sorted((tmp_path / "in").rglob("*.mat")):
        content = {name: value for name, value in loadmat(path).items() if name[0] != "_"}
        if "Pose_Para" in content:
            pose = content["Pose_Para"].astype(float)
            pose[0, :3] = np.degrees(pose[0, :3]) if unit == "degrees" else pose[0, :3] % (2 * np.pi)
            savemat(path, content | {"Pose_Para": pose})
    with pytest.raises(
        BadInput, match=r"\d of \d faces are turned beyond all measure, such as .* hold radians"
    ):
        prepare(key, tmp_path / "in")


def test_pictures_that_the_landmarks_do_not_fit(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.aflw2000(root)
    shutil.copy(root / "image00002.jpg", root / "image00002.png")
    faces = prepare("aflw2000", root)
    assert len(faces) == 5 and any(
        "5 of 5 images looked at are 200 x 160, where 450 x 450" in note for note in faces.info["notes"]
    )
    assert left_out(faces)["image00002.png"] == "is the picture that image00002.jpg is"
    for path in sorted(root.glob("*.jpg")):
        with Image.open(path) as image:
            image.resize((100, 80)).save(path)
    with pytest.raises(BadInput, match=r"most faces lie outside their images: 5 of 5 .* 100 x 80"):
        prepare("aflw2000", root, out=tmp_path / "out2")


def test_300wlp_in_small_letters_and_with_flips_beside(tmp_path: Path) -> None:
    root = tmp_path / "in/300W_LP"
    miniatures.wlp(root)
    for path in sorted((root / "AFW_Flip").iterdir()):
        path.rename(root / "AFW" / f"{path.stem}_flip{path.suffix}")
    for name in ("AFW", "HELEN", "HELEN_Flip"):
        (root / name).rename(root / name.lower())
    faces = prepare("300wlp", tmp_path / "in")
    assert len(faces) == 12 and faces.table["identity"].nunique() == 4
    assert faces.table.groupby("identity")["split"].nunique().eq(1).all()
    assert left_out(faces)["*_Flip"] == "4 mirror images; --flips takes them too"


def test_poses_whose_files_are_in_capitals(tmp_path: Path) -> None:
    miniatures.aflw2000(tmp_path / "in")
    for path in sorted((tmp_path / "in").glob("image*")):
        path.rename(path.with_name(path.stem + path.suffix.upper()))
    assert len(prepare("aflw2000", tmp_path / "in")) == 5
    assert "Pose_Para" in loadmat(tmp_path / "in/image00002.MAT")


# CelebA ------------------------------------------------------------------------------------------------------


def celeba_csv(root: Path, low: str = "-1") -> None:
    """The official miniature in the form of Kaggle: CSVs in ROOT, a folder in a folder of images."""
    miniatures.celeba(root / "official")
    (root / "img_align_celeba").mkdir()
    (root / "official/Img/img_align_celeba").rename(root / "img_align_celeba/img_align_celeba")
    count, names, *rows = (root / "official/Anno/list_attr_celeba.txt").read_text().splitlines()
    rows = [",".join(row.replace("-1", low).split()) for row in rows]
    miniatures.write(root / "list_attr_celeba.csv", [",".join(["image_id", *names.split()]), *rows])
    for folder, name, head in (
        ("Eval", "list_eval_partition", "partition"),
        ("Anno", "identity_CelebA", "identity"),
    ):
        lines = (root / "official" / folder / f"{name}.txt").read_text().splitlines()
        miniatures.write(
            root / f"{name}.csv", [f"image_id,{head}", *(",".join(line.split()) for line in lines)]
        )
    shutil.rmtree(root / "official")
    assert count == "12"


@pytest.mark.parametrize("low", ["-1", "0"])
def test_celeba_as_csv_files(tmp_path: Path, low: str) -> None:
    celeba_csv(tmp_path / "in", low)
    faces = prepare("celeba", tmp_path / "in")
    assert faces.table["split"].tolist() == ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    assert faces.table["identity"].tolist() == [f"{2880 + i:05d}" for i in miniatures.CELEBA_PEOPLE]
    assert faces.table["attr_smiling"].tolist() == [0, 1] * 6 and not left_out(faces)
    assert any("0 is taken for no" in note for note in faces.info["notes"]) == (low == "0")


def test_celeba_whose_images_are_still_packed(tmp_path: Path) -> None:
    root = tmp_path / "in/CelebA"
    miniatures.celeba(root)
    pack(root / "Img/img_align_celeba", root / "Img/img_align_celeba.zip", "img_align_celeba/")
    shutil.rmtree(root / "Img/img_align_celeba")
    for argv in ([str(tmp_path / "in"), "--out", str(tmp_path / "out")],):
        with pytest.raises(BadInput, match="could be prepared"):
            all_sets.main(argv)
    with pytest.raises(BadInput, match=r"still packed: Img/img_align_celeba\.zip"):
        prepare("celeba", root)
    faces = prepare("celeba", pack(tmp_path / "in", tmp_path / "x.zip", ""), out=tmp_path / "out2")
    assert len(faces) == 12 and faces.table["attr_smiling"].tolist() == [0, 1] * 6
    shutil.rmtree(root / "Anno")
    shutil.rmtree(root / "Eval")
    assert len(prepare("celeba", pack(tmp_path / "in", tmp_path / "y.zip", ""), out=tmp_path / "out3")) == 12


def test_celeba_as_png_and_cropped(tmp_path: Path) -> None:
    miniatures.celeba(tmp_path / "in")
    (tmp_path / "in/Img/img_align_celeba").rename(tmp_path / "in/Img/img_align_celeba_png")
    for path in sorted((tmp_path / "in/Img/img_align_celeba_png").iterdir()):
        with Image.open(path) as image:
            image.resize((64, 64)).save(path.with_suffix(".png"))
        path.unlink()
    faces = prepare("celeba", tmp_path / "in")
    assert faces.table["split"].tolist() == ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    assert faces.info["settings"]["margin"] == 0 and any(
        "cropped already" in note for note in faces.info["notes"]
    )


def test_celeba_partitions_from_one_and_people_in_two(tmp_path: Path) -> None:
    miniatures.celeba(tmp_path / "in")
    edit(tmp_path / "in/Eval/list_eval_partition.txt", {r" 2$": " 3", r" 1$": " 2", r" 0$": " 1"})
    with pytest.raises(BadInput, match=r"values 1, 2, 3, where 0, 1, 2 are CelebA's"):
        prepare("celeba", tmp_path / "in")
    miniatures.celeba(tmp_path / "two")
    edit(tmp_path / "two/Anno/identity_CelebA.txt", {r"000009.jpg \d+": "000009.jpg 2885"})
    faces = prepare("celeba", tmp_path / "two", out=tmp_path / "out2")
    assert len(faces) == 11 and faces.table.groupby("identity")["split"].nunique().eq(1).all()
    assert (
        left_out(faces)["Img/img_align_celeba/000009.jpg"]
        == "02885 is in test too; nobody may be in two splits"
    )


def test_celeba_with_more_or_fewer_columns_and_rows(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.celeba(root)
    path = root / "Anno/identity_CelebA.txt"
    lines = path.read_text().splitlines()
    miniatures.write(path, [line.replace(".jpg", "") for line in lines[:8]])
    faces = prepare("celeba", root)
    known = [f"{2880 + i:05d}" for i in miniatures.CELEBA_PEOPLE[:8]]
    assert faces.table["identity"][:8].tolist() == known and faces.table["identity"][8:].isna().all()
    assert left_out(faces) == {"identity_CelebA.txt": "4 images have no row"}
    path.unlink()
    rows = [line.replace(" ", ",1,") for line in lines]
    miniatures.write(root / "identity_CelebA.csv", ["image_id,gender,identity", *rows])
    with pytest.raises(BadInput, match="line 1: the second column is gender, where identity is wanted"):
        prepare("celeba", root, out=tmp_path / "out2")


# LFW ---------------------------------------------------------------------------------------------------------


def test_lfw_is_cropped_by_the_set_not_by_its_first_file(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.lfw(root, side=250)
    miniatures.write(root / "Aaa_First/Aaa_First_0001.jpg", [])
    miniatures.put(root / "Aab_Next/Aab_Next_0001.jpg", miniatures.face(0))
    faces = prepare("lfw", root)
    assert faces.info["settings"]["margin"] == -0.2
    told = left_out(faces)
    assert told["Aaa_First/Aaa_First_0001.jpg"] == "empty file"
    assert "is not 250 x 250 as the set is" in told["Aab_Next/Aab_Next_0001.jpg"]
    assert any("17 of 18 images are 250 x 250" in note for note in faces.info["notes"])


def test_lfw_as_kaggle_has_it(tmp_path: Path) -> None:
    miniatures.lfw(tmp_path / "in/lfw-deepfunneled/lfw-deepfunneled")
    (tmp_path / "in/lfw-deepfunneled/lfw-deepfunneled/pairs.txt").unlink()
    lines = [
        ",".join(line.split()) + ("," if len(line.split()) == 3 else "") for line in miniatures.LFW_PAIRS[1:]
    ]
    miniatures.write(tmp_path / "in/pairs.csv", ["name,imagenum1,imagenum2,", *lines])
    faces = prepare("lfw", tmp_path / "in")
    assert faces.pairs is not None and faces.pairs["same"].tolist() == [
        True,
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    assert faces.pairs["fold"].tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_pairs_that_their_names_contradict(tmp_path: Path) -> None:
    miniatures.cplfw(tmp_path / "cplfw")
    path = tmp_path / "cplfw/pairs_CPLFW.txt"
    lines = path.read_text().splitlines()
    positive, negative = ([line for line in lines if line.endswith(kind)] for kind in "10")
    miniatures.write(path, [*positive[:1], *positive[2:9], *positive[10:], *negative])  # two lines are lost
    with pytest.raises(
        BadInput, match=r"4 of 19 pairs contradict their names, such as Person_A_1\.jpg and Person_C_1"
    ):
        prepare("cplfw", tmp_path / "cplfw")
    miniatures.write(path, [*lines, "Person_A_1.jpg 1", "Person_B_1.jpg 1"])
    faces = prepare("cplfw", tmp_path / "cplfw")
    assert faces.pairs is not None and len(faces.pairs) == 20
    told = left_out(faces)["pairs_CPLFW.txt"]
    assert told == "Person_A_1.jpg and Person_B_1.jpg are called one person, which their names contradict"
    miniatures.lfw(tmp_path / "lfw")
    edit(tmp_path / "lfw/pairs.txt", {r"^Ann_Lee\t2\tBo_Ek\t2": "Ann_Lee\t2\tAnn_Lee\t3"})
    with pytest.raises(
        BadInput, match=r"1 of 7 pairs contradict their names, such as Ann_Lee_0002\.jpg and Ann_Lee_0003"
    ):
        prepare("lfw", tmp_path / "lfw")


def test_lfw_pictures_that_were_made_of_others_or_moved(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.lfw(root)
    (root / "pairs.txt").rename(root / "Pairs.TXT")
    for name in ("Bo_Ek_0009", "Ann_Lee_0001_0002"):
        miniatures.put(root / f"Ann_Lee/{name}.jpg", miniatures.face(1))
    faces = prepare("lfw", root)
    assert faces.table["identity"].value_counts().to_dict() == miniatures.LFW_PEOPLE
    assert faces.pairs is not None and len(faces.pairs) == 7
    told = left_out(faces)
    assert told["Ann_Lee/Bo_Ek_0009.jpg"] == "lies in the folder of another person than its name says"
    assert told["Ann_Lee/Ann_Lee_0001_0002.jpg"] == "its name is not NAME_0001, as LFW's are"
    (root / "Pairs.TXT").unlink()
    shutil.copytree(root, tmp_path / "two/lfw")
    shutil.copytree(root, tmp_path / "two/lfw-deepfunneled")
    notes = prepare("lfw", tmp_path / "two", out=tmp_path / "out2").info["notes"]
    assert any("34 images bear a name that another bears" in note for note in notes)
