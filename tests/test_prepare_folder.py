"""data_scripts/prepare_folder.py on folders of drawn images, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_scripts import prepare_folder
from data_scripts.align import cut, side_of
from data_scripts.images import open_image
from data_scripts.listing import Recipe
from pcl_lib.data import PreparedFaces
from pcl_lib.utils import BadInput, exit_cleanly

PEOPLE = {
    "Ann_Lee": 4,
    "Bo_Ek": 3,
    "Cy_Du": 2,
    "Di_Ro": 3,
    "Ed_Wu": 2,
    "Flo_Ng": 1,
    "Gus_Ott": 2,
    "Hal_Yi": 1,
}
PAIRS = """2\t2
Ann_Lee\t1\t4
Bo_Ek\t1\t3
Ann_Lee\t2\tBo_Ek\t2
Cy_Du\t1\t2
Di_Ro\t1\t9
Cy_Du\t1\tDi_Ro\t2
Di_Ro\t3\tCy_Du\t2
"""


def level(name: str, number: int) -> int:
    return 20 * list(PEOPLE).index(name) + number


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """20 plain grey images whose level tells who is on them."""
    for name, count in PEOPLE.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(1, count + 1):
            Image.new("L", (12, 10), level(name, i)).save(tmp_path / "in" / name / f"{name}_{i:04d}.png")
    return tmp_path / "in"


def prepare(source: Path, *options: str) -> PreparedFaces:
    out = source.parent / "out"
    prepare_folder.main([str(source), str(out), "--size", "8", "--workers", "2", *options])
    return PreparedFaces(out)


def test_images_identities_and_order(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = prepare(source, "--name", "toy", "--licence", "mine")
    wanted = [
        (name, f"{name}/{name}_{i:04d}.png", level(name, i))
        for name in PEOPLE
        for i in range(1, PEOPLE[name] + 1)
    ]
    assert faces.table["identity"].tolist() == [row[0] for row in wanted]
    assert faces.table["file"].tolist() == [row[1] for row in wanted]
    levels = np.array([row[2] for row in wanted])
    assert (faces.images(slice(None)).numpy() == levels[:, None, None, None]).all()
    assert (faces.name, faces.info["licence"], faces.info["skipped"], faces.pairs) == ("toy", "mine", 0, None)
    assert "18 images, 8 identities" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["1", "3"])
def test_any_number_of_workers_makes_the_same(
    source: Path, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_scripts.prepare.SHARD_ROWS", (5, 5))
    (source / "Bo_Ek" / "Bo_Ek_0002.png").write_bytes(b"")
    faces = prepare(source, "--workers", workers)
    assert faces.images(slice(None))[:, 0, 0, 0].tolist() == [
        level(name, i) for name in PEOPLE for i in range(1, PEOPLE[name] + 1) if (name, i) != ("Bo_Ek", 2)
    ]


def read_image(path: Path, size: int, crop: float) -> np.ndarray:
    recipe = Recipe("as_is", -crop)
    image, scale = open_image(path, side_of(recipe, ()), size)
    return cut(image, scale, recipe, (), size)


def halves(width: int, height: int) -> Image.Image:
    """Left red, right blue."""
    image = Image.new("RGB", (width, height), "blue")
    image.paste("red", (0, 0, width // 2, height))
    return image


def test_cut_to_the_central_square_and_trimmed(tmp_path: Path) -> None:
    wide = Image.new("RGB", (64, 16), "white")
    wide.paste("red", (24, 0, 32, 16))
    wide.paste("blue", (32, 0, 40, 16))
    wide.save(tmp_path / "a.png")
    got = read_image(tmp_path / "a.png", 8, 0.0)
    assert got[:, 4, 1:3].T.tolist() == [[255, 0, 0]] * 2  # at its edges the filter sees what lies beyond
    assert got[:, 4, 5:7].T.tolist() == [[0, 0, 255]] * 2
    framed = Image.new("RGB", (40, 40), "white")
    framed.paste("green", (10, 10, 30, 30))
    framed.save(tmp_path / "b.png")
    trimmed = read_image(tmp_path / "b.png", 8, 0.25)
    assert (trimmed[:, 1:-1, 1:-1] == np.array([0, 128, 0])[:, None, None]).all() and trimmed[0].max() < 128
    assert (read_image(tmp_path / "b.png", 8, 0.0)[:, 0, 0] == 255).all()


def test_turned_upright_by_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
    halves(16, 16).save(tmp_path / "a.png", exif=exif)
    got = read_image(tmp_path / "a.png", 8, 0.0)
    assert got[:, 1, 4].tolist() == [255, 0, 0] and got[:, 6, 4].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("image", "suffix", "wanted"),
    [
        (Image.new("L", (9, 9), 77), "png", (77, 77, 77)),
        (Image.new("1", (9, 9), 1), "png", (255, 255, 255)),
        (Image.new("P", (9, 9), 0), "bmp", (0, 0, 0)),
        (Image.new("CMYK", (9, 9), (255, 0, 0, 0)), "tif", (0, 255, 255)),
        (Image.new("RGBA", (9, 9), (10, 20, 30, 0)), "png", (255, 255, 255)),
        (Image.new("RGBA", (9, 9), (10, 20, 30, 255)), "webp", (10, 20, 30)),
        (Image.new("LA", (9, 9), (40, 255)), "png", (40, 40, 40)),
        (Image.fromarray(np.full((9, 9), 0x4D80, np.uint16)), "png", (77, 77, 77)),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_every_mode_becomes_rgb(
    tmp_path: Path, image: Image.Image, suffix: str, wanted: tuple[int, int, int]
) -> None:
    path = tmp_path / f"a.{suffix}"
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert (read_image(path, 8, 0.0) == np.array(wanted)[:, None, None]).all()


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    got = read_image(tmp_path / "a.png", 8, 0.0)
    assert (got[..., 1:-1] == 100).all()


def test_what_cannot_be_read_is_listed_and_skipped(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halves(64, 64).save(source / "whole.jpg")
    person = source / "Ann_Lee"
    whole = (source / "whole.jpg").read_bytes()
    bad = {
        "a_empty.jpg": b"",
        "b_text.png": b"not an image",
        "c_truncated.jpg": whole[: len(whole) // 2],
    }
    for name, content in bad.items():
        (person / name).write_bytes(content)
    Image.new("L", (5, 90)).save(person / "d_tiny.png")
    Image.new("1", (9000, 9000)).save(person / "e_bomb.png")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(person / "f_float.tif")
    (person / "g_gone.png").symlink_to(source / "nowhere.png")
    Image.fromarray(np.full((9, 9), 4095, np.uint16)).save(person / "h_12_bits.png")
    (source / "notes.txt").write_text("no image, not listed")
    faces = prepare(source)
    assert len(faces) == 18 and faces.info["skipped"] == 9
    listed = pd.read_csv(faces.folder / "skipped.csv").set_index("file")["reason"]
    reasons = (
        "empty file",
        "not an image",
        "runcated",
        "only 5x90",
        "bomb",
        "mode F",
        "No such",
        "up to 4095",
    )
    assert "who is on it is not known" in listed.pop("whole.jpg")  # it has no folder of its own
    assert [name.removeprefix("Ann_Lee/")[0] for name in listed.index] == list("abcdefgh")
    for told, reason in zip(listed, reasons, strict=True):
        assert reason in told
    said = capsys.readouterr().out
    assert "Skipped 9 files" in said and "not looked at: 1 .txt" in said


@pytest.mark.parametrize(
    ("how", "people"),
    [
        ("name", ["Ann_Lee", "Bo_Ek"]),
        ("parent", ["x", "x"]),
        ("none", None),
        ("image", ["x/Ann_Lee_0003.png", "x/Bo_Ek-12.png"]),
    ],
)
def test_identity_from(tmp_path: Path, how: str, people: list[str] | None) -> None:
    (tmp_path / "in" / "x").mkdir(parents=True)
    for name in ("Ann_Lee_0003", "Bo_Ek-12"):
        halves(9, 9).save(tmp_path / "in" / "x" / f"{name}.png")
    faces = prepare(tmp_path / "in", "--identity-from", how, "--split", "all-train")
    assert (faces.table["identity"].tolist() if people else None) == people
    assert ("identity" in faces.table) == (people is not None)


def test_labels_by_path_and_by_name(source: Path) -> None:
    rows = [
        ("Ann_Lee/Ann_Lee_0002.png", 10.0, "happy"),
        ("Cy_Du_0001.png", -20.0, "sad"),
        ("Nobody.png", 0.0, "sad"),
    ]
    pd.DataFrame(rows, columns=["file", "yaw", "expression"]).to_csv(source.parent / "l.csv", index=False)
    faces = prepare(source, "--labels", str(source.parent / "l.csv"), "--pseudo", "yaw")
    given = faces.table.dropna(subset=["yaw"]).set_index("file")
    assert given["yaw"].to_dict() == {"Ann_Lee/Ann_Lee_0002.png": 10.0, "Cy_Du/Cy_Du_0001.png": -20.0}
    assert given["expression"].tolist() == ["happy", "sad"]
    assert faces.info["labels"] == {"images_without_labels": 16, "labels_without_image": 1}
    assert faces.info["pseudo"] == ["yaw"]


def test_a_name_in_two_folders_needs_its_path(source: Path) -> None:
    halves(9, 9).save(source / "Bo_Ek" / "Cy_Du_0001.png")
    (source.parent / "l.csv").write_text("file,yaw\nCy_Du_0001.png,5\nDi_Ro_0001.png,6\n")
    faces = prepare(source, "--labels", str(source.parent / "l.csv"))
    assert faces.table.dropna(subset=["yaw"])["file"].tolist() == ["Di_Ro/Di_Ro_0001.png"]


def test_pairs_and_their_people_held_out(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "Bo_Ek" / "Bo_Ek_0002.png").write_bytes(b"corrupt")
    (source.parent / "pairs.txt").write_text(PAIRS)
    faces = prepare(source, "--pairs", str(source.parent / "pairs.txt"))
    stems = faces.table["file"].str[-8:-4].astype(int)
    people = faces.table["identity"]
    assert faces.pairs is not None
    told = [
        (people[p.first], stems[p.first], people[p.second], stems[p.second], p.same, p.fold)
        for p in faces.pairs.itertuples()
    ]
    assert told == [
        ("Ann_Lee", 1, "Ann_Lee", 4, True, 0),
        ("Bo_Ek", 1, "Bo_Ek", 3, True, 0),
        ("Cy_Du", 1, "Cy_Du", 2, True, 1),
        ("Cy_Du", 1, "Di_Ro", 2, False, 1),
        ("Di_Ro", 3, "Cy_Du", 2, False, 1),
    ]
    output = capsys.readouterr().out
    assert "Pairs: 5 of the 8 announced: 1 are not in the file, 2 lack an image" in output
    assert "--test-folds" in output
    assert set(people[faces.split("test")]) == {"Ann_Lee", "Bo_Ek", "Cy_Du", "Di_Ro"}
    assert set(people[faces.split("train")]) | set(people[faces.split("validation")]) == set(list(PEOPLE)[4:])


@pytest.mark.parametrize(
    ("options", "test_people"),
    [
        (["--test-folds", "1"], {"Ann_Lee", "Bo_Ek"}),
        (["--split", "all-train"], set()),
        (["--split", "identity"], None),
    ],
)
def test_choice_of_split(source: Path, options: list[str], test_people: set[str] | None) -> None:
    (source.parent / "pairs.txt").write_text(PAIRS)
    faces = prepare(source, "--pairs", str(source.parent / "pairs.txt"), *options)
    people = faces.table["identity"]
    splits = [set(people[faces.split(name)]) for name in ("train", "validation", "test")]
    assert sum(map(len, splits)) == 8 and set.union(*splits) == set(PEOPLE)  # nobody in two of them
    assert splits[2] == test_people if test_people is not None else list(map(len, splits)) == [6, 1, 1]


def test_a_split_of_ones_own(source: Path) -> None:
    files = [f"{name}_{i:04d}.png" for name in PEOPLE for i in range(1, PEOPLE[name] + 1)]
    table = pd.DataFrame({"file": files, "split": ["test"] * 4 + ["train"] * 14})
    table.to_csv(source.parent / "l.csv", index=False)
    assert prepare(source, "--labels", str(source.parent / "l.csv")).split("test").tolist() == [0, 1, 2, 3]


FAULTS = {
    "angle": ("file,yaw\nAnn_Lee_0001.png,999\n", [], r"l\.csv, line 2: yaw is 999"),
    "word": ("file,expression\nAnn_Lee_0001.png,hungry\n", [], r"expression is hungry, not one of neutral"),
    "no file": ("image,yaw\nAnn_Lee_0001.png,9\n", [], "no column file"),
    "no label": ("file,age\nAnn_Lee_0001.png,9\n", [], "none of the columns identity"),
    "twice": (
        "file,yaw\nAnn_Lee_0001.png,9\nAnn_Lee_0001.png,8\n",
        [],
        "line 3: .* labelled before, in line 2",
    ),
    "elsewhere": ("file,yaw\nZoe.png,9\n", [], "no row names an image"),
    "half a split": ("file,split\nAnn_Lee_0001.png,test\n", [], "column split names no split for 17 images"),
    "reserved": ("file,yaw,row\nAnn_Lee_0001.png,1,1\n", [], "column row is a name"),
    "pseudo": ("file,yaw\nAnn_Lee_0001.png,9\n", ["--pseudo", "yaw,pitch"], "--pseudo names pitch"),
    "no split": ("file,yaw\nAnn_Lee_0001.png,9\n", ["--split", "labels"], "needs a column split"),
    "no pairs": ("file,yaw\nAnn_Lee_0001.png,9\n", ["--split", "official"], "needs --pairs"),
    "size": ("file,yaw\nAnn_Lee_0001.png,9\n", ["--size", "0"], "--size is 0; it must be"),
    "crop": ("file,yaw\nAnn_Lee_0001.png,9\n", ["--crop", "0.5"], "--crop is 0.5"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_labels_and_options(source: Path, fault: str) -> None:
    text, options, sentence = FAULTS[fault]
    (source.parent / "l.csv").write_text(text)
    with pytest.raises(BadInput, match=sentence):
        prepare(source, "--labels", str(source.parent / "l.csv"), *options)
    assert not (source.parent / "out").exists()  # refused before anything was decoded


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "list of LFW pairs"),
        ("1100\nAnn_Lee\t1\t2\n", "list of LFW pairs"),
        ("2 2\nAnn_Lee one 2\n", "list of LFW pairs"),
        ("2 2\nAnn_Lee 1\n", "list of LFW pairs"),
        ("3 2\n" + PAIRS[4:], "announces 3 folds"),
        ("1 2\nAnn_Lee 1 2\n", "announces 1 folds"),
        ("1 2\nAnn_Lee 1 Bo_Ek 2\n", "announces 1 folds"),
    ],
)
def test_bad_pairs(source: Path, text: str, sentence: str) -> None:
    (source.parent / "pairs.txt").write_text(text)
    with pytest.raises(BadInput, match=sentence):
        prepare(source, "--pairs", str(source.parent / "pairs.txt"))


def test_no_images_and_only_bad_ones(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no folder"):
        prepare(tmp_path / "none")
    (tmp_path / "in").mkdir()
    with pytest.raises(BadInput, match="there are no images"):
        prepare(tmp_path / "in")
    for i in range(3):
        (tmp_path / "in" / f"{i}.png").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"none of the 3 images .*not an image"):
        prepare(tmp_path / "in")


def test_the_command_says_one_sentence_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["prepare_folder.py", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        exit_cleanly(prepare_folder.main)
    said = capsys.readouterr().err
    assert (
        ended.value.code == 2 and said.startswith("error: there are no images in") and said.count("\n") == 1
    )
