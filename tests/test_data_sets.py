"""The scripts of the data sets, each on a miniature of its official layout, whole and damaged."""

from __future__ import annotations

import importlib
import os
import re
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import miniatures
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from data_scripts import __main__ as all_sets
from data_scripts import catalogue, prepare_biwi, prepare_disfa
from pcl_lib.data import PreparedFaces
from pcl_lib.faces import camera
from pcl_lib.methods.video import ClipIndex
from pcl_lib.probes import tasks
from pcl_lib.utils import BadInput, exit_cleanly

SIZE = 32


def prepare(key: str, root: Path, *options: str, out: Path | None = None) -> PreparedFaces:
    """Run the script's command as a user would, and open what it made."""
    out = out or root.parent / "out"
    script = importlib.import_module(f"data_scripts.prepare_{key}")
    script.main([str(root), str(out), "--size", str(SIZE), "--workers", "1", *options])
    return PreparedFaces(out)


def make(key: str, tmp_path: Path) -> Path:
    root = tmp_path / "in"
    miniatures.BUILD[key](root)
    return root


def left_out(faces: PreparedFaces) -> dict[str, str]:
    """Reason by file and line of skipped.csv."""
    table = pd.read_csv(faces.folder / "skipped.csv", dtype=str, keep_default_na=False)
    return {
        f"{file}:{line}" if line else file: reason
        for file, line, reason in table.itertuples(index=False, name=None)
    }


def shows(faces: PreparedFaces, row: int, number: int) -> bool:
    """Whether image `row` is nearer to face `number` than to any other."""
    small = np.stack(
        [np.asarray(Image.fromarray(p).resize((SIZE, SIZE))) for p in miniatures.pictures()]
    ).astype(float)
    image = faces.images(row)[0].numpy().transpose(1, 2, 0).astype(float)
    return int(np.abs(small - image).mean(axis=(1, 2, 3)).argmin()) == number


def paths(faces: PreparedFaces) -> dict[str, int]:
    return {file: row for row, file in enumerate(faces.table["file"])}


# VoxCeleb ----------------------------------------------------------------------------------------------------


def test_voxceleb_crops_and_videos(tmp_path: Path) -> None:
    faces = prepare("voxceleb", make("voxceleb", tmp_path))
    table = faces.table
    people = table.groupby("identity")["video"].agg(["count", "first"])
    assert people["count"].to_dict() == {"A.J._Buckley": 3, "Zoë_Saldana": 1, "id00012": 3, "id00017": 1}
    assert people["first"].to_dict()["id00012"] == "21Uxsk56VDQ"
    assert table[table["identity"] == "id00017"]["split"].tolist() == ["test"]
    assert (table[table["identity"] != "id00017"]["split"] == "train").all()
    at = paths(faces)
    for second in range(3):  # frame 25 n has level 20 + 75 n
        image = faces.images(at[f"vox2/dev/mp4/id00012/21Uxsk56VDQ/00001.mp4#t={second}"])
        assert abs(image.float().mean().item() - (20 + 75 * second)) < 4
    crop = at["vox1/A.J._Buckley/1.6/1zcIwhmdeo4/0000075.jpg"]
    assert shows(faces, crop, 2)
    of_video = table[table["identity"] == "id00012"]
    assert of_video["clip"].tolist() == ["id00012/21Uxsk56VDQ/00001.mp4"] * 3
    assert of_video["frame"].tolist() == [0, 1, 2]
    assert table.loc[crop, ["clip", "frame"]].tolist() == ["A.J._Buckley/1zcIwhmdeo4", 75]
    assert ClipIndex(faces, 3).count.tolist() == [3, 1, 3]  # of the training videos


@pytest.mark.parametrize("every", ["1", "0.5"])
def test_voxceleb_every_second_of_a_long_video_is_that_second(tmp_path: Path, every: str) -> None:
    levels = [20 + number for number in range(16 * 10)]
    miniatures.film(tmp_path / "in/id00012/21Uxsk56VDQ/00001.mp4", levels, 10)
    miniatures.film(tmp_path / "in/id00013/11Uxsk56VDQ/00001.mp4", levels, 10)
    faces = prepare("voxceleb", tmp_path / "in", "--every", every)
    assert len(faces) == 2 * 16 / float(every)
    for row, file in enumerate(faces.table["file"]):
        second = float(file.split("#t=")[1])
        assert abs(faces.images(row).float().mean().item() - levels[round(10 * second)]) < 5


def test_voxceleb_other_rates_and_damage(tmp_path: Path) -> None:
    root = make("voxceleb", tmp_path)
    (root / "vox2/dev/mp4/id00012/21Uxsk56VDQ/00002.mp4").write_bytes(b"not a film")
    miniatures.put(root / "stray.jpg", miniatures.face(0))
    faces = prepare("voxceleb", root, "--every", "0.4")
    assert faces.table["file"].str.contains("21Uxsk56VDQ/00001").sum() == 6
    told = left_out(faces)
    assert set(told) == {"vox2/dev/mp4/id00012/21Uxsk56VDQ/00002.mp4", "stray.jpg"}
    assert told["stray.jpg"] == "lies in no PERSON/VIDEO"


def test_voxceleb_refuses_a_person_in_both_splits(tmp_path: Path) -> None:
    root = make("voxceleb", tmp_path)
    miniatures.put(root / "vox2/test/id00012/abc/0001.jpg", miniatures.face(0))
    with pytest.raises(BadInput, match="id00012 lies in test and in train"):
        prepare("voxceleb", root)


@pytest.mark.skipif(os.name == "nt", reason="Windows names are Unicode")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = tmp_path / "in"
    odd = os.fsdecode(b"Ren\xe9e")
    miniatures.put(root / odd / "vid" / "0001.png", miniatures.face(1))
    miniatures.put(root / "id00012" / "vid" / "0001.png", miniatures.face(2))
    faces = prepare("voxceleb", root)
    assert faces.table["identity"].tolist() == ["id00012"] and shows(faces, 0, 2)
    assert "is not UTF-8; rename it" in left_out(faces)["Ren\\xe9e/vid/0001.png"]


# RAF-DB ------------------------------------------------------------------------------------------------------

RAF = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")


def test_rafdb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    number_of = miniatures.rafdb(root)
    faces = prepare("rafdb", root)
    assert faces.table.set_index("file")["expression"].to_dict() == {
        file: RAF[number % 7] for file, number in number_of.items()
    }
    assert all(shows(faces, row, number_of[file]) for file, row in paths(faces).items())
    official = faces.table["file"].str.contains("/train_").to_numpy()
    assert (faces.table["split"][~official] == "test").all()
    assert faces.table["split"][official].value_counts().to_dict() == {"train": 12, "validation": 2}
    assert left_out(faces) == {}
    assert "Of the whole RAF-DB, basic emotions: 21 of 15,339 images." in capsys.readouterr().out


def test_rafdb_rows_and_images_that_do_not_match(tmp_path: Path) -> None:
    root = make("rafdb", tmp_path)
    label_file = "EmoLabel/list_patition_label.txt"
    (root / "Image/aligned/train_00001_aligned.jpg").unlink()
    (root / "Image/aligned/train_00002_aligned.jpg").write_bytes(b"")
    miniatures.put(root / "Image/aligned/train_00099_aligned.jpg", miniatures.face(0))
    with open(root / label_file, "a") as file:
        file.write(
            "train_00003.jpg 1\nonly_a_name.jpg\ntrain_00100.jpg 99\nvalid_00001.jpg 1\ntrain_00200.jpg 2\n"
        )
    faces = prepare("rafdb", root)
    assert len(faces) == 19
    assert left_out(faces) == {
        f"{label_file}:22": "train_00003.jpg is listed in line 3 already",
        f"{label_file}:23": '"only_a_name.jpg" is not a name and a value',
        f"{label_file}:24": "label 99 is not 1 to 7",
        f"{label_file}:25": "valid_00001.jpg is neither train nor test",
        f"{label_file}:1": "train_00001_aligned.jpg is not among the images",
        f"{label_file}:26": "train_00200_aligned.jpg is not among the images",
        "Image/aligned/train_00099_aligned.jpg": f"no row of {label_file} names it",
        "Image/aligned/train_00002_aligned.jpg": "empty file",
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("train_00001.jpg 9\n", r"list_patition_label\.txt, line 1: label 9 is one of the compound set"),
        ("000001.jpg 2\n", r"none of its 0 rows names one of the 21 images"),
        ("train_09001.jpg 1\n", r"none of its 1 rows names one of the 21 images found"),
        ("202599\n" + " Bald" * 40 + "\n000001.jpg" + " -1" * 40 + "\n", "is not the label file of RAF-DB"),
        (None, "has no EmoLabel/list_patition_label.txt .*give the folder basic of the official download"),
        (
            b"train_1.jpg 1\ntrain_\xff.jpg 1\n",
            "cannot read .* as the label file of RAF-DB .*line 2: byte 0xff",
        ),
    ],
)
def test_rafdb_label_files_of_other_sets(tmp_path: Path, content: str | bytes | None, sentence: str) -> None:
    root = make("rafdb", tmp_path)
    path = root / "EmoLabel/list_patition_label.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=sentence):
        prepare("rafdb", root)
    assert not (tmp_path / "out").exists()


# FER-2013 ----------------------------------------------------------------------------------------------------

FER = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.mark.parametrize("name", ["fer2013.csv", "icml_face_data.csv"])
def test_fer2013_tables(tmp_path: Path, name: str) -> None:
    miniatures.fer2013_table(tmp_path / "in", name)
    faces = prepare("fer2013", tmp_path / "in", "--size", "48")
    assert faces.table["expression"].tolist() == [FER[i % 7] for i in range(21)]
    assert faces.table["split"].tolist() == ["train"] * 15 + ["validation"] * 3 + ["test"] * 3
    wanted = np.stack([miniatures.grey(i) for i in range(21)])
    assert (faces.images(slice(None)).numpy() == wanted[:, None]).all()  # same size: same pixels


def test_fer2013_bad_rows(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.fer2013_table(root)
    lines = (root / "fer2013.csv").read_text().splitlines()
    lines[2] = "9," + lines[2].split(",", 1)[1]
    lines[3] = lines[3].replace("Training", "Extra")
    lines[4] = "3,1 2 3,Training"
    miniatures.write(root / "fer2013.csv", lines)
    faces = prepare("fer2013", root)
    told = left_out(faces)
    assert len(faces) == 18 and told["fer2013.csv:3"] == "emotion 9 is not 0 to 6"
    assert "Usage Extra is not one of Training" in told["fer2013.csv:4"]
    assert "3 pixels" in told["fer2013.csv#row=3"]


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        (("train", "validation", "test"), {"train": 28, "validation": 7, "test": 7}),
        (("train", "test"), {"train": 24, "validation": 4, "test": 7}),
        (("train", "validation"), {"train": 24, "validation": 4, "test": 7}),
    ],
)
def test_fer2013_folders(tmp_path: Path, splits: tuple[str, ...], sizes: dict[str, int]) -> None:
    miniatures.fer2013_folders(tmp_path / "in", splits)
    faces = prepare("fer2013", tmp_path / "in")
    assert faces.table["split"].value_counts().to_dict() == sizes
    folder = faces.table["file"].str.split("/").str[1]
    assert faces.table["expression"].tolist() == [FER[miniatures.FER_CLASSES.index(name)] for name in folder]
    official = faces.table["file"].str.split("/").str[0]
    scored = splits[-1]  # never chosen on
    assert (faces.table["split"][official == scored] == "test").all()


def test_fer2013_folders_of_something_else(tmp_path: Path) -> None:
    root = tmp_path / "in"
    miniatures.fer2013_folders(root, ("train", "test"))
    miniatures.put(root / "train" / "contempt" / "1.jpg", miniatures.face(0))
    miniatures.put(root / "loose.jpg", miniatures.face(0))
    told = left_out(prepare("fer2013", root))
    assert told["train/contempt/1.jpg"] == "the folder contempt is not one of the seven classes"
    assert told["loose.jpg"] == "does not lie in {train,validation,test}/CLASS"
    miniatures.fer2013_folders(tmp_path / "half", ("train",))
    with pytest.raises(BadInput, match=r"needs train and validation or test.* found: train"):
        prepare("fer2013", tmp_path / "half", out=tmp_path / "out2")
    miniatures.write(tmp_path / "csv" / "fer2013.csv", ["file,yaw", "a.jpg,3"])
    with pytest.raises(BadInput, match=r"fer2013\.csv has no column emotion"):
        prepare("fer2013", tmp_path / "csv", out=tmp_path / "out3")


# LFW and CPLFW -----------------------------------------------------------------------------------------------


def named_pairs(faces: PreparedFaces) -> list[tuple[str, str, bool, int]]:
    stem = faces.table["file"].str.rsplit("/", n=1).str[-1].str.removesuffix(".jpg").tolist()
    assert faces.pairs is not None
    return [(stem[p.first], stem[p.second], p.same, p.fold) for p in faces.pairs.itertuples()]


def test_lfw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make("lfw", tmp_path)
    faces = prepare("lfw", root)
    assert named_pairs(faces) == [
        ("Ann_Lee_0001", "Ann_Lee_0004", True, 0),
        ("Bo_Ek_0001", "Bo_Ek_0003", True, 0),
        ("Ann_Lee_0002", "Bo_Ek_0002", False, 0),
        ("Ann_Lee_0003", "Bo_Ek_0001", False, 0),
        ("Cy_Du_0001", "Cy_Du_0002", True, 1),
        ("Cy_Du_0001", "Di_Ro_0002", False, 1),
        ("Di_Ro_0003", "Cy_Du_0002", False, 1),
    ]
    assert faces.table["identity"].value_counts().to_dict() == miniatures.LFW_PEOPLE
    assert all(shows(faces, row, row) for row in range(len(faces)))
    assert set(faces.table["identity"][faces.split("test")]) == {"Ann_Lee", "Bo_Ek", "Cy_Du", "Di_Ro"}
    assert len(faces.split("train")) and len(faces.split("validation"))
    assert left_out(faces) == {"Di_Ro_0009": "pairs.txt names it, but it is not there"}
    assert "Pairs: 7 of the 8 announced: 0 are not in the file, 1 lack an image" in capsys.readouterr().out
    assert faces.info["settings"]["margin"] == 0.0


def test_lfw_whole_images_are_cut_to_the_face(tmp_path: Path) -> None:
    root = tmp_path / "lfw-deepfunneled"
    miniatures.lfw(root, side=250)
    frame = Image.new("RGB", (250, 250), "red")
    frame.paste(miniatures.face(3).resize((160, 160)), (45, 45))
    frame.save(root / "Ann_Lee" / "Ann_Lee_0001.jpg", quality=95)
    (root / "pairs.txt").rename(tmp_path / "pairs.txt")  # beside the folder, as downloaded
    faces = prepare("lfw", root)
    assert faces.info["settings"]["margin"] == -0.2 and len(named_pairs(faces)) == 7
    red = faces.images(0)[0].numpy().astype(int)
    assert not ((red[0] > 200) & (red[1] < 60) & (red[2] < 60)).any()  # the frame is gone


def test_lfw_pseudo_labels_are_named_so(tmp_path: Path) -> None:
    root = make("lfw", tmp_path)
    labels = miniatures.write(
        tmp_path / "pose.csv", ["file,yaw,pitch,roll", "Bo_Ek_0002.jpg,10,-3,2.5", "Zoe_0001.jpg,1,1,1"]
    )
    faces = prepare("lfw", root, "--labels", str(labels))
    assert faces.info["pseudo"] == ["yaw", "pitch", "roll"]
    assert faces.table.set_index("file")["yaw"].dropna().to_dict() == {"Bo_Ek/Bo_Ek_0002.jpg": 10.0}
    assert left_out(faces)["pose.csv:3"] == "there is no image Zoe_0001.jpg"
    assert any("pseudo labels, estimated" in note for note in faces.info["notes"])


def test_lfw_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    root = make("lfw", tmp_path)
    name = "Zoë_Ek"
    apart = unicodedata.normalize("NFD", name)
    assert apart != name
    for i in (1, 2):
        miniatures.put(root / apart / f"{apart}_{i:04d}.jpg", miniatures.face(i))
    miniatures.write(
        root / "pairs.txt", [*miniatures.LFW_PAIRS[:-3], f"{name}\t1\t2", *miniatures.LFW_PAIRS[-2:]]
    )
    assert (f"{apart}_0001", f"{apart}_0002", True, 1) in named_pairs(prepare("lfw", root))


def test_lfw_without_pairs_twice_the_same_and_of_another_set(tmp_path: Path) -> None:
    root = make("lfw", tmp_path)
    (root / "pairs.txt").unlink()
    miniatures.put(root / "logo.jpg", miniatures.face(0))
    faces = prepare("lfw", root)
    assert faces.pairs is None and any("no pairs.txt" in note for note in faces.info["notes"])
    assert left_out(faces) == {"logo.jpg": "its name is not NAME_0001, as LFW's are"}
    miniatures.write(root / "pairs.txt", ["1 1", "Zed_Ya 1 2", "Zed_Ya 1 Yo_Da 1"])
    with pytest.raises(BadInput, match=r"pairs\.txt: none of its 2 pairs has both images"):
        prepare("lfw", root, out=tmp_path / "out2")
    miniatures.write(root / "pairs.txt", miniatures.LFW_PAIRS)
    miniatures.put(root / "copy" / "Ann_Lee_0001.jpg", miniatures.face(0))
    with pytest.raises(BadInput, match=r"the pairs name Ann_Lee_0001, but .* is not the only such file"):
        prepare("lfw", root, out=tmp_path / "out3")
    with pytest.raises(BadInput, match=r"there is no file .*nowhere\.txt"):
        prepare("lfw", root, "--pairs", str(tmp_path / "nowhere.txt"), out=tmp_path / "out4")


def test_cplfw(tmp_path: Path) -> None:
    faces = prepare("cplfw", make("cplfw", tmp_path))
    assert len(faces) == 40 and faces.table["identity"].nunique() == 20
    assert (faces.table["split"] == "test").all()
    wanted = []
    for fold in range(10):
        a, b = (f"Person_{chr(65 + 2 * fold + i)}" for i in (0, 1))
        wanted += [(f"{a}_1", f"{a}_2", True, fold), (f"{a}_1", f"{b}_2", False, fold)]
    assert named_pairs(faces) == wanted
    assert left_out(faces) == {
        "aligned images/Landon_Donovan_3jpg.jpg": "its name is not NAME_1, as CPLFW's are"
    }
    assert tasks.plan(faces).pairs is not None  # verification can be probed


def test_cplfw_in_the_order_of_kinds_has_the_same_folds(tmp_path: Path) -> None:
    root = make("cplfw", tmp_path)
    lines = (root / "pairs_CPLFW.txt").read_text().split("\n")[:-1]
    blocks = [lines[i : i + 2] for i in range(0, len(lines), 2)]
    miniatures.write(
        root / "pairs_CPLFW.txt", [line for block in blocks[::2] + blocks[1::2] for line in block]
    )
    pairs = prepare("cplfw", root).pairs
    assert pairs is not None and pairs.groupby("fold")["same"].agg(["sum", "size"]).eq([1, 2]).all().all()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["A_1.jpg 1", "A_2.jpg 0"], "line 2: the two lines of a pair disagree"),
        (["A_1.jpg 1", "A_2.jpg 1", "B_1.jpg 0"], "has 3 lines; two lines a pair"),
        (["A_1.jpg 2", "A_2.jpg 2"], 'line 1: "A_1.jpg 2" is not a file name and 0 or 1'),
        (["10 300", "Ann 1 2"], 'line 1: "10 300" is not'),
        (["Zed_1.jpg 1", "Zed_2.jpg 1"], "none of its 1 pairs has both images"),
        ([], "has 0 lines"),
    ],
)
def test_cplfw_bad_pairs(tmp_path: Path, lines: list[str], sentence: str) -> None:
    root = make("cplfw", tmp_path)
    miniatures.write(root / "pairs_CPLFW.txt", lines)
    with pytest.raises(BadInput, match=sentence):
        prepare("cplfw", root)


# DISFA -------------------------------------------------------------------------------------------------------


def check_disfa(faces: PreparedFaces) -> None:
    table = faces.table
    assert len(table) == 30 and table["identity"].nunique() == 6
    assert table.groupby("identity")["fold"].first().to_dict() == {
        "SN001": 0, "SN002": 0, "SN006": 1, "SN011": 1, "SN003": 2, "SN004": 2
    }  # fmt: skip
    for person, name in enumerate(miniatures.DISFA_PEOPLE):
        rows = table[table["identity"] == name]
        for unit in miniatures.DISFA_UNITS:
            wanted = [miniatures.intensity(person, n, unit) for n in range(1, 6)]
            assert rows[f"au{unit:02d}"].tolist() == wanted
    people = [set(table["identity"][faces.split(split)]) for split in ("train", "validation", "test")]
    assert [len(names) for names in people] == [3, 1, 2] and len(set.union(*people)) == 6
    assert set(table["fold"][faces.split("test")]) == {2}
    assert faces.info["paper_units"] == [f"au{unit:02d}" for unit in (1, 2, 4, 6, 9, 12, 25, 26)]


def test_disfa_videos_give_the_frame_of_each_label(tmp_path: Path) -> None:
    miniatures.disfa(tmp_path / "in", videos=True)
    faces = prepare("disfa", tmp_path / "in", "--align", "none")
    check_disfa(faces)
    levels = faces.images(slice(None)).float().mean(dim=(1, 2, 3)).numpy()
    assert np.abs(levels - np.tile([40, 80, 120, 160, 200], 6)).max() < 5


def test_disfa_frames_and_folds(tmp_path: Path) -> None:
    root = make("disfa", tmp_path)
    faces = prepare("disfa", root, "--align", "none")
    check_disfa(faces)
    assert all(shows(faces, row, row % 5 + 1) for row in range(30))
    other = prepare(
        "disfa", root, "--align", "none", "--test-fold", "0", "--every", "2", out=tmp_path / "out2"
    )
    assert set(other.table["identity"][other.split("test")]) == {"SN001", "SN002"} and len(other) == 18


def test_disfa_by_default_looks_for_the_face(tmp_path: Path) -> None:
    root = make("disfa", tmp_path)
    miniatures.put(root / "LeftVideoSN001_comp/LeftVideoSN001_comp_0001.png", Image.new("RGB", (64, 64)))
    faces = prepare(
        "disfa", root
    )  # the detector was made for photographs; it does not see every rendered face
    told = {file: reason for file, reason in left_out(faces).items() if file.endswith(".png")}
    assert told["LeftVideoSN001_comp/LeftVideoSN001_comp_0001.png"] == "no face found"
    assert len(told) + len(faces) == 30 and len(faces) >= 10


def test_disfa_damage(tmp_path: Path) -> None:
    root = make("disfa", tmp_path)
    labels = root / "ActionUnit_Labels"
    (labels / "SN001/SN001_au4.txt").unlink()
    miniatures.write(labels / "SN002/SN002_au1.txt", ["1,3", "2,9", "x,1", "3,0", "3,1", "4,5", "5,2"])
    (root / "LeftVideoSN006_comp/LeftVideoSN006_comp_0003.png").unlink()
    (labels / "SN099").mkdir()
    for path in (root / "LeftVideoSN011_comp").iterdir():
        path.unlink()
    faces = prepare("disfa", root, "--align", "none")
    told = left_out(faces)
    assert told["ActionUnit_Labels/SN001/SN001_au4.txt"] == "is missing: SN001 is without au04"
    assert '"2,9" is not a frame and an intensity' in told["ActionUnit_Labels/SN002/SN002_au1.txt:2"]
    assert '"x,1" is not' in told["ActionUnit_Labels/SN002/SN002_au1.txt:3"]
    assert told["ActionUnit_Labels/SN002/SN002_au1.txt:5"] == "frame 3 is listed before; the first counts"
    assert told["SN006"] == "1 labelled frames are not there (the first is frame 3)"
    assert told["SN011"] == "has labels, but neither a left video nor frames"
    assert told["ActionUnit_Labels/SN099"] == "is not one of DISFA's 27 subjects"
    assert told["SN032"] == "has no folder of labels"
    rows = faces.table.set_index("file")
    assert rows["au01"][[name for name in rows.index if "SN002" in name]].isna().tolist() == [
        False, True, False, False, False
    ]  # fmt: skip
    assert rows["au04"][[name for name in rows.index if "SN001" in name]].isna().all()


def test_disfa_refuses_what_is_not_disfa(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no folder ActionUnit_Labels"):
        prepare("disfa", make("lfw", tmp_path))
    root = tmp_path / "other"
    miniatures.disfa(root, videos=False)
    miniatures.write(root / "ActionUnit_Labels/SN001/SN001_au1.txt", ["frame;value", "one;two"])
    with pytest.raises(BadInput, match=r"SN001_au1\.txt has no line"):
        prepare("disfa", root)


def test_disfa_folds_are_the_27_people_once_each() -> None:
    people = [name for fold in prepare_disfa.FOLDS for name in fold]
    missing = {14, 15, 19, 20, 22}
    assert sorted(people) == [f"SN{i:03d}" for i in range(1, 33) if i not in missing] and len(people) == 27


# Head pose ---------------------------------------------------------------------------------------------------

MARKS = (70, 50, 110, 100)  # of the miniatures' landmarks: left, top, right, bottom
LANDMARK_BOX = (70 - 0.12 * 40, 50 - 0.4 * 50, 110 + 0.12 * 40, 100 + 0.12 * 50)  # Hopenet's margin, k = 0.2


def test_aflw2000_angles_box_and_the_99_degree_rule(tmp_path: Path) -> None:
    faces = prepare("aflw2000", make("aflw2000", tmp_path))
    assert faces.table["file"].tolist() == [f"image{i:05d}.jpg" for i in range(2, 7)]
    wanted = [miniatures.pose_of(i) for i in range(5)]
    np.testing.assert_allclose(faces.table[["yaw", "pitch", "roll"]], wanted, atol=1e-4)
    boxes = faces.table[["box_left", "box_top", "box_right", "box_bottom"]]
    # the points stand on an ellipse: its rightmost, lowest, leftmost and topmost are all among the 68
    np.testing.assert_allclose(boxes, [LANDMARK_BOX] * 5, atol=1e-6)
    assert (faces.table["split"] == "test").all()
    assert left_out(faces) == {"image00007.jpg": "yaw is 120 degrees, beyond the protocol's 99"}
    left, top, right, bottom = LANDMARK_BOX
    side, cx, cy = max(right - left, bottom - top), (left + right) / 2, (top + bottom) / 2
    with Image.open(tmp_path / "in" / "image00002.jpg") as image:
        box = (cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2)
        cut = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)).transpose(2, 0, 1)
    assert np.abs(faces.images(0)[0].numpy().astype(int) - cut).mean() < 2


def test_aflw2000_damage(tmp_path: Path) -> None:
    root = make("aflw2000", tmp_path)
    (root / "image00002.mat").unlink()
    (root / "image00003.mat").write_bytes(b"not matlab")
    savemat(root / "image00004.mat", {"pt3d_68": np.zeros((3, 68))})
    savemat(root / "image00005.mat", {"Pose_Para": np.zeros((1, 7)), "pt2d": np.zeros((2, 21))})
    faces = prepare("aflw2000", root)
    assert faces.table["file"].tolist() == ["image00006.jpg"]
    told = left_out(faces)
    assert told["image00002.jpg"] == "its .mat file is missing"
    assert told["image00003.jpg"].startswith("its .mat file cannot be read")
    assert told["image00004.jpg"] == "its .mat file has no Pose_Para; it holds landmarks only"
    assert told["image00005.jpg"] == "its .mat file has neither pt3d_68 nor pt2d with 68 landmarks"
    with pytest.raises(BadInput, match=r"no image of .* can be used"):
        prepare("aflw2000", make("rafdb", tmp_path / "other"), out=tmp_path / "out2")


def test_300wlp_leaves_flips_and_landmark_files_out(tmp_path: Path) -> None:
    root = make("300wlp", tmp_path)
    faces = prepare("300wlp", root)
    assert len(faces) == 8 and faces.table["identity"].nunique() == 4
    assert faces.table["file"].iloc[0] == "AFW/AFW_134212_1_0.jpg"
    assert faces.table["identity"].iloc[0] == faces.table["identity"].iloc[1] == "AFW/AFW_134212_1"
    np.testing.assert_allclose(
        faces.table[["yaw", "pitch", "roll"]], [miniatures.pose_of(i) for i in range(8)], atol=1e-4
    )
    assert faces.table["split"].value_counts().to_dict() == {"train": 6, "validation": 2}
    assert faces.table.groupby("identity")["split"].nunique().eq(1).all()
    assert left_out(faces) == {
        "*_Flip": "8 mirror images; --flips takes them too",
        "other folders": "1 images outside AFW, HELEN, IBUG, LFPW",
    }
    both = prepare("300wlp", root, "--flips", out=tmp_path / "out2")
    assert len(both) == 16 and both.table["identity"].nunique() == 4


def test_300wlp_with_aflw2000_is_the_pose_protocol_in_one_folder(tmp_path: Path) -> None:
    root, other = make("300wlp", tmp_path), tmp_path / "AFLW2000"
    miniatures.aflw2000(other)
    faces = prepare("300wlp", root, "--aflw2000", str(other))
    test = faces.table.iloc[faces.split("test")]
    assert test["file"].tolist() == [f"AFLW2000/image{i:05d}.jpg" for i in range(2, 7)]
    assert "AFLW2000/image00007.jpg" in left_out(faces)
    made = tasks.plan(faces)
    assert made.pose is not None and [len(part) for part in made.pose] == [6, 2, 5]
    with pytest.raises(BadInput, match=r"has no image with a \.mat file of AFLW2000"):
        prepare("300wlp", root, "--aflw2000", str(make("lfw", tmp_path / "x")), out=tmp_path / "out2")


def turned(axis: str, degrees: float) -> np.ndarray:
    """By hand, in a camera's frame (x right, y down, z away): nose to the image's left, nose up, crown to the right."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "yaw": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "pitch": np.array([[1, 0, 0], [0, c, s], [0, -s, c]]),
        "roll": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def test_biwi_signs() -> None:
    nose, crown = np.array([0, 0, -1.0]), np.array([0, -1.0, 0])
    assert (turned("yaw", 30) @ nose)[0] < 0 and (turned("pitch", 30) @ nose)[1] < 0
    assert (turned("roll", 30) @ crown)[0] > 0
    for place, axis in enumerate(("yaw", "pitch", "roll")):
        for degrees in (-50.0, 0.0, 30.0):
            wanted = np.zeros(3)
            wanted[place] = degrees
            np.testing.assert_allclose(prepare_biwi.euler(turned(axis, degrees)), wanted, atol=1e-9)


def test_biwi_euler_is_the_inverse_of_the_kits_own_rotation_and_of_the_literature() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform([-85, -80, -80], [85, 80, 80], (50, 3))
    flip = np.diag([1.0, -1.0, -1.0])
    for angle, r in zip(angles, flip @ camera.rotation(*angles.T) @ flip, strict=True):
        np.testing.assert_allclose(prepare_biwi.euler(r), angle, atol=1e-9)
        t = r.T  # as deep-head-pose (Ruiz et al. 2018) reads BIWI
        theirs = [-np.arctan2(-t[2, 0], np.hypot(t[2, 1], t[2, 2])), np.arctan2(t[2, 1], t[2, 2])]
        theirs.append(-np.arctan2(t[1, 0], t[0, 0]))
        np.testing.assert_allclose(np.degrees(theirs), angle, atol=1e-9)


def test_biwi(tmp_path: Path) -> None:
    faces = prepare("biwi", make("biwi", tmp_path), "--all-test")
    assert faces.table["identity"].tolist() == ["01"] * 3 + ["02"] * 3
    assert faces.table["file"].iloc[0] == "01/frame_00003_rgb.png" and len(faces.split("test")) == 6
    wanted = [miniatures.pose_of(i) for i in range(6)]
    np.testing.assert_allclose(faces.table[["yaw", "pitch", "roll"]], wanted, atol=1e-5)
    u, v, half = 320 + 517.679 * 0.030, 240.5 - 517.679 * 0.020, 517.679 * 0.120
    box = faces.table[["box_left", "box_top", "box_right", "box_bottom"]]
    np.testing.assert_allclose(box, [[u - half, v - half, u + half, v + half]] * 6, atol=1e-3)


def test_biwi_damage(tmp_path: Path) -> None:
    root = make("biwi", tmp_path)
    (root / "01/frame_00003_pose.txt").unlink()
    miniatures.write(root / "01/frame_00004_pose.txt", ["1 0 0", "0 1 0"])
    miniatures.write(root / "01/frame_00005_pose.txt", ["2 0 0", "0 1 0", "0 0 1", "", "0 0 900"])
    told = left_out(prepare("biwi", root, "--all-test"))
    assert told["01/frame_00003_rgb.png"] == "its pose frame_00003_pose.txt is missing"
    assert "holds 6 numbers, not 12" in told["01/frame_00004_rgb.png"]
    assert told["01/frame_00005_rgb.png"] == "its pose does not begin with a rotation matrix"
    for sequence in ("01", "02"):
        (root / sequence / "rgb.cal").unlink()
    with pytest.raises(BadInput, match=r"no image of .* can be used .*its calibration rgb.cal is missing"):
        prepare("biwi", root, out=tmp_path / "out2")


# CelebA ------------------------------------------------------------------------------------------------------


def test_celeba(tmp_path: Path) -> None:
    faces = prepare("celeba", make("celeba", tmp_path))
    table = faces.table
    assert table["split"].tolist() == ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    assert table["identity"].tolist() == [f"{2880 + i:05d}" for i in miniatures.CELEBA_PEOPLE]
    attributes = [name for name in table if name.startswith("attr_")]
    assert len(attributes) == 40 and table["attr_smiling"].tolist() == [0, 1] * 6
    assert (table[attributes[:-1]] == 0).all().all()
    assert faces.info["settings"]["margin"] == -0.1
    red = faces.images(0)[0].numpy().astype(int)
    assert not ((red[0] > 180) & (red[1] < 40)).any()  # the canvas above and below is cut away


def test_celeba_without_label_files(tmp_path: Path) -> None:
    root = make("celeba", tmp_path)
    for name in ("Anno/identity_CelebA.txt", "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"):
        (root / name).unlink()
    faces = prepare("celeba", root)
    assert "identity" not in faces.table  # anybody could be on two images: nobody is held out
    assert [len(faces.split(name)) for name in ("train", "validation", "test")] == [12, 0, 0]
    assert sum("is not there" in note for note in faces.info["notes"]) == 3


def test_celeba_damage(tmp_path: Path) -> None:
    root = make("celeba", tmp_path)
    with open(root / "Eval/list_eval_partition.txt", "a") as file:
        file.write("000013.jpg 0\n000014.jpg 3\n")
    with open(root / "Anno/list_attr_celeba.txt", "a") as file:
        file.write("000013.jpg 1 1\n" + "000001.jpg" + " 1" * 40 + "\n")
    miniatures.put(root / "Img/img_align_celeba/000099.jpg", miniatures.face(0))
    faces = prepare("celeba", root)
    told = left_out(faces)
    assert len(faces) == 12 and faces.table["attr_smiling"].iloc[0] == 0  # the first row of a name counts
    assert told["list_eval_partition.txt"] == "1 rows name images that are not there"
    assert told["Eval/list_eval_partition.txt:14"] == "3 of 000014.jpg is not 0 or 1 or 2"
    assert told["Anno/list_attr_celeba.txt:15"] == "is not a name and 40 values of -1 or 1"
    assert told["Anno/list_attr_celeba.txt:16"] == "000001.jpg is listed in line 3 already"
    assert told["Img/img_align_celeba/000099.jpg"] == "list_eval_partition does not name it"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "Anno/list_attr_celeba.txt",
            "000001.jpg 2880\n",
            r"is not list_attr_celeba.txt \(a count, then 40 names",
        ),
        ("Anno/identity_CelebA.txt", "train_00001.jpg 5\n", "none of its 1 rows names one of the 12 images"),
        ("Anno/identity_CelebA.txt", "000001.jpg Ann\n", "none of its lines can be used"),
        ("Eval/list_eval_partition.txt", "a b c\n", "none of its lines can be used"),
    ],
)
def test_celeba_label_files_of_other_sets(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    root = make("celeba", tmp_path)
    (root / name).write_text(content)
    with pytest.raises(BadInput, match=sentence):
        prepare("celeba", root)


# All of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", catalogue.DATA_SETS)
def test_each_set_is_recognised_and_no_other_in_it(key: str, tmp_path: Path) -> None:
    root = tmp_path / "downloads" / "deep" / "set"
    miniatures.BUILD[key](root)
    found = catalogue.find(tmp_path / "downloads")
    assert {entry.key for entry, _ in found} == {key}
    places = [place.relative_to(root).as_posix() for _, place in found]
    assert places == (["vox1", "vox2"] if key == "voxceleb" else ["."])


@pytest.mark.parametrize("key", catalogue.DATA_SETS)
def test_help_says_what_a_reader_needs(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = catalogue.DATA_SETS[key]
    with pytest.raises(SystemExit) as ended:
        entry.script.main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for part in (entry.ask, entry.layout, entry.counts(), entry.command, entry.purpose):
        assert part in said


def test_the_page_of_the_sets_is_the_catalogues(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(catalogue.README.read_text(encoding="utf-8"), encoding="utf-8")
    catalogue.write_readme(page)
    assert page.read_text(encoding="utf-8") == catalogue.README.read_text(encoding="utf-8"), (
        "python -m data_scripts.catalogue writes it"
    )
    text = " ".join(page.read_text(encoding="utf-8").split())  # its lines are wrapped
    for entry in catalogue.DATA_SETS.values():
        for part in (entry.command, entry.licence, entry.labels, entry.decides, entry.ask):
            assert part in text
    commands = re.findall(r"python (data_scripts/\w+\.py)", text)
    assert len(set(commands)) == len(catalogue.DATA_SETS) + 2
    assert all((catalogue.README.parent.parent / command).is_file() for command in commands)


def test_every_script_is_in_the_catalogue() -> None:
    scripts = {path.stem for path in Path(catalogue.__file__).parent.glob("prepare_*.py")} - {
        "prepare_folder"
    }
    assert scripts == {f"prepare_{key}" for key in catalogue.DATA_SETS}
    table = catalogue.as_table()
    assert len(table) == len(catalogue.DATA_SETS) and table.notna().all().all()
    lines = catalogue.as_markdown().splitlines()
    assert len(lines) == len(table) + 2 and {line.count("|") for line in lines} == {6}


def test_one_command_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "downloads", tmp_path / "out"
    miniatures.lfw(tmp_path / "lfw")
    root.mkdir()
    with tarfile.open(root / "lfw.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "lfw", "lfw")
    miniatures.rafdb(root / "basic")
    miniatures.celeba(root / "CelebA")
    for path in (root / "CelebA/Img/img_align_celeba").iterdir():
        path.unlink()
    argv = [str(root), "--out", str(out), "--size", "16", "--workers", "1"]
    all_sets.main(argv)
    said = capsys.readouterr().out
    assert len(PreparedFaces(out / "lfw")) == 17 and PreparedFaces(out / "lfw").pairs is not None
    assert len(PreparedFaces(out / "rafdb")) == 21 and not (out / "celeba").exists()
    assert "Found 3 sets below" in said and "CelebA failed: " in said and "holds no images" in said
    assert "Not found:" in said and catalogue.DISFA.ask in said and catalogue.LFW.ask not in said
    summary = said[said.rindex("\n\n") :]
    assert summary.count("prepared") == 2 and summary.count("failed") == 1
    all_sets.main([*argv, "--only", "rafdb"])
    assert "nothing to do" in capsys.readouterr().out


def test_two_folders_of_one_set_do_not_meet(tmp_path: Path) -> None:
    miniatures.voxceleb(tmp_path / "in")
    all_sets.main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "16", "--workers", "1"])
    assert len(PreparedFaces(tmp_path / "out/voxceleb-vox1")) == 4
    assert len(PreparedFaces(tmp_path / "out/voxceleb-vox2")) == 4


def test_300wlp_and_aflw2000_are_joined_where_both_are_there(tmp_path: Path) -> None:
    miniatures.wlp(tmp_path / "in/300W_LP")
    miniatures.aflw2000(tmp_path / "in/AFLW2000")
    all_sets.main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "16", "--workers", "1"])
    assert len(PreparedFaces(tmp_path / "out/aflw2000")) == 5
    joined = PreparedFaces(tmp_path / "out/300wlp")
    assert [len(joined.split(split)) for split in ("train", "validation", "test")] == [6, 2, 5]


def test_nothing_useful_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for argv, sentence in (
        ([str(tmp_path / "empty"), "--out", str(tmp_path / "out")], "could be prepared"),
        ([str(tmp_path / "none")], "there is no folder"),
        ([str(tmp_path), "--only", "lfw,imagenet"], "--only names imagenet"),
    ):
        with pytest.raises(SystemExit) as ended:
            exit_cleanly(lambda argv=argv: all_sets.main(argv))  # type: ignore[misc]
        said = capsys.readouterr().err
        assert (
            ended.value.code == 2
            and sentence in said
            and said.startswith("error: ")
            and said.count("\n") == 1
        )


def renamed(root: Path, change: Callable[[str], str]) -> Path:
    """A copy of a tree below another folder, the name of each folder and file changed."""
    for path in sorted(root.rglob("*")):
        place = root.parent / "renamed" / Path(*map(change, path.relative_to(root).parts))
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return root.parent / "renamed"


@pytest.mark.parametrize("change", [str.lower, str.upper], ids=["small", "capitals"])
@pytest.mark.parametrize("key", ["celeba", "rafdb", "disfa", "aflw2000", "300wlp", "biwi", "fer2013"])
def test_capitals_play_no_part(tmp_path: Path, key: str, change: Callable[[str], str]) -> None:
    root = make(key, tmp_path)
    options = {"disfa": ("--align", "none")}.get(key, ())
    wanted = prepare(key, root, *options).table
    found = prepare(key, renamed(root, change), *options, out=tmp_path / "other").table
    by_file = [
        table.assign(file=table["file"].str.lower()).sort_values("file").reset_index(drop=True)
        for table in (wanted, found)
    ]
    of_names = {"rafdb": ["split"], "300wlp": ["identity", "split"]}.get(key, [])  # made of files' names
    labels = [name for name in wanted if name not in ("shard", "row", *of_names)]
    pd.testing.assert_frame_equal(by_file[0][labels], by_file[1][labels])


def test_celeba_in_two_folders_is_all_read(tmp_path: Path) -> None:
    root = make("celeba", tmp_path)
    whole = prepare("celeba", root).table
    (first, *_) = sorted(path for path in root.rglob("*.jpg"))
    other = root / "img_align_celeba_png" / f"{first.stem}.png"
    other.parent.mkdir()
    Image.open(first).save(other)
    first.unlink()
    found = prepare("celeba", root, out=tmp_path / "other").table
    assert len(found) == len(whole)
    assert other.relative_to(root).as_posix() in set(found["file"])
    labels = [name for name in whole if name not in ("shard", "row", "file")]
    by_stem = [table.set_index(table["file"].map(lambda name: Path(name).stem)) for table in (whole, found)]
    pd.testing.assert_frame_equal(by_stem[0][labels].sort_index(), by_stem[1][labels].sort_index())
