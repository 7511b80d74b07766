"""What is not read is named: pictures, columns, pairs and files that a preparation leaves aside."""

from __future__ import annotations

import os
from pathlib import Path

import miniatures
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat
from test_prepare_forms import left_out, pack, prepare

from data_scripts.sources import find_files, other_files
from pcl_lib.utils import BadInput


def toy(tmp_path: Path) -> Path:
    for person in range(6):
        for i in range(2):
            miniatures.put(
                tmp_path / f"in/p{person}/{person}_{i}.png", Image.new("L", (40, 40), 20 * person + i)
            )
    return tmp_path / "in"


def test_pictures_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = toy(tmp_path)
    with Image.open(root / "p0/0_0.png") as image:
        image.save(root / "p0/x.JFIF", "JPEG")
        image.save(root / "p0/y.jpe", "JPEG")
    for name in (
        "p1/a.HEIC",
        "p1/b.heif",
        "p2/c.dng",
        "p2/d.mp4",
        "p2/notes.docx",
        "p2/nosuffix",
        "p2/.hidden.heic",
    ):
        (root / name).write_bytes(b"x")
    faces = prepare("folder", root)
    assert {"p0/x.JFIF", "p0/y.jpe"} <= set(faces.table["file"])
    told = left_out(faces)
    assert set(told) == {"p1/a.HEIC", "p1/b.heif", "p2/c.dng", "p2/d.mp4"}
    assert told["p1/a.HEIC"] == "pictures of the form HEIC are not read; convert it to JPEG or PNG"
    assert "a video; only pictures are read" in told["p2/d.mp4"]
    assert "Files that are no pictures, not looked at: 1 without a suffix" in capsys.readouterr().out
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone/1.heic").touch()
    with pytest.raises(
        BadInput, match=r"there are no images in .*1\.heic: pictures of the form HEIC are not read"
    ):
        prepare("folder", tmp_path / "phone", out=tmp_path / "out2")


def test_unread_forms_are_named_in_official_sets_too(tmp_path: Path) -> None:
    miniatures.rafdb(tmp_path / "in")
    (tmp_path / "in/Image/aligned/train_00099_aligned.heic").write_bytes(b"x")
    assert (
        "HEIC are not read"
        in left_out(prepare("rafdb", tmp_path / "in"))["Image/aligned/train_00099_aligned.heic"]
    )
    assert find_files(tmp_path / "in", (".mp4",))[1].frame().empty
    assert other_files(tmp_path / "in") == {".txt": 1}


def test_replaced_pictures_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = toy(tmp_path)
    prepare("folder", root)
    prepare("folder", root)
    assert "nothing to do" in capsys.readouterr().out
    before = (root / "p3/3_1.png").stat()
    Image.new("L", (40, 40), 200).save(root / "p3/3_1.png")
    os.utime(root / "p3/3_1.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    with pytest.raises(
        BadInput, match=r"already holds a prepared set, made of pictures that have been replaced since"
    ):
        prepare("folder", root)
    again = prepare("folder", root, out=tmp_path / "out2")
    at = again.table["file"].tolist().index("p3/3_1.png")
    assert again.images(at).float().mean() == 200


def test_replaced_pictures_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = toy(tmp_path)
    monkeypatch.setattr("data_scripts.prepare.SHARD_ROWS", (4, 4))
    with monkeypatch.context() as patch:
        patch.setattr("data_scripts.prepare.join", lambda *_: (_ for _ in ()).throw(BadInput("stopped")))
        with pytest.raises(BadInput, match="stopped"):
            prepare("folder", root)
    Image.new("L", (44, 44), 200).save(root / "p0/0_0.png")
    faces = prepare("folder", root)
    assert faces.images(faces.table["file"].tolist().index("p0/0_0.png")).float().mean() == 200


def test_the_same_archive_is_the_same_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = pack(toy(tmp_path), tmp_path / "x.zip", "x/")
    prepare("folder", archive)
    prepare("folder", archive)
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["folder", "lfw"])
def test_pairs_that_all_miss_are_refused(tmp_path: Path, key: str) -> None:
    miniatures.lfw(tmp_path / "in")
    miniatures.write(tmp_path / "pairs.txt", ["1 1", "Zed_Ya 1 2", "Zed_Ya 1 Yo_Da 1"])
    with pytest.raises(BadInput, match=r"pairs\.txt: none of its 2 pairs has both images"):
        prepare(key, tmp_path / "in", "--pairs", str(tmp_path / "pairs.txt"))
    assert not (tmp_path / "out").exists()


def test_pairs_whose_images_are_all_damaged_are_refused(tmp_path: Path) -> None:
    miniatures.lfw(tmp_path / "in")
    for name in ("Ann_Lee", "Bo_Ek"):
        for path in (tmp_path / "in" / name).iterdir():
            path.write_bytes(b"x")
    miniatures.write(tmp_path / "in/pairs.txt", ["1 1", "Ann_Lee 1 2", "Ann_Lee 1 Bo_Ek 1"])
    with pytest.raises(BadInput, match="none of the 2 pairs has both images"):
        prepare("lfw", tmp_path / "in")


def test_pairs_name_what_is_missing(tmp_path: Path) -> None:
    miniatures.lfw(tmp_path / "in")
    faces = prepare("folder", tmp_path / "in", "--pairs", str(tmp_path / "in/pairs.txt"))
    assert left_out(faces)["Di_Ro_0009"] == "pairs.txt names it, but it is not there"


def test_columns_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = toy(tmp_path)
    rows = [f"p{n // 2}/{n // 2}_{n % 2}.png,1,3,{20 + n},007" for n in range(12)]
    miniatures.write(tmp_path / "l.csv", ["file,au1,au12,age,expresion", *rows])
    faces = prepare("folder", root, "--labels", str(tmp_path / "l.csv"))
    assert faces.table["au01"].tolist() == [1.0] * 12 and faces.table["au12"].tolist() == [3.0] * 12
    assert faces.table["age"].tolist() == [str(20 + n) for n in range(12)]
    said, told = capsys.readouterr().out, pd.read_csv(faces.folder / "skipped.csv")
    assert "au1 is au01" in said and "column expresion is no label of this kit (is it expression?)" in said
    assert told["file"].tolist() == ["l.csv", "l.csv"] and told["reason"].str.contains("age|expresion").all()


def test_a_label_table_with_a_header_alone(tmp_path: Path) -> None:
    miniatures.write(tmp_path / "l.csv", ["file,expression"])
    with pytest.raises(BadInput, match=r"l\.csv has a header and no rows"):
        prepare("folder", toy(tmp_path), "--labels", str(tmp_path / "l.csv"))


def test_mat_files_without_a_picture_are_no_set(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    savemat(tmp_path / "in/image00002.mat", {"Pose_Para": np.zeros((1, 7))})
    with pytest.raises(BadInput, match="no image"):
        prepare("aflw2000", tmp_path / "in")
