"""data_scripts/tables.py, label_csv.py: in whatever table, a label stays with its picture or the file is refused."""

from __future__ import annotations

import codecs
import itertools
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_scripts import label_csv, tables
from data_scripts.images import csv_image
from data_scripts.label_csv import canonical, locate, read_labels
from data_scripts.listing import LeftOut
from data_scripts.prepare_fer2013 import CODES, read_table
from pcl_lib.data.labels import EXPRESSION_NAMES
from pcl_lib.utils import BadInput

SIDE = 8  # of the pictures here: the least that is taken for one
FIXED = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ENCODINGS = {
    "utf-8": b"",
    "utf-8 with a mark": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
PLACES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.sampled_from('",;\t\n\r'), max_size=8
)


NUMBERS = itertools.count()


def fresh(folder: Path) -> Path:
    """A file name of its own for each example: a file may be written again before its date has changed."""
    return folder / f"{next(NUMBERS)}.csv"


def quoted(value: str, delimiter: str, always: bool) -> str:
    """As RFC 4180 has it, by hand: what spreadsheets write."""
    needs = always or any(sign in value for sign in (delimiter, '"', "\n", "\r")) or value != value.strip()
    return '"' + value.replace('"', '""') + '"' if needs else value


@st.composite
def dialects(draw: st.DrawFn) -> tuple[str, str, str, bool, random.Random]:
    """Delimiter, line end, encoding, whether every value is quoted, and what draws blank lines and the order."""
    return (
        draw(st.sampled_from(",;\t")),
        draw(st.sampled_from(["\n", "\r\n", "\r"])),
        draw(st.sampled_from(sorted(ENCODINGS))),
        draw(st.booleans()),
        draw(st.randoms(use_true_random=False)),
    )


def write_table(
    path: Path, rows: list[list[str]], dialect: tuple[str, str, str, bool, random.Random]
) -> None:
    """rows: the header first; the others are shuffled, and blank lines strewn in between."""
    delimiter, end, encoding, always, rng = dialect
    head, body = rows[0], rows[1:]
    rng.shuffle(body)
    text = ""
    for row in [head, *body]:
        text += rng.choice(["", "", end, "  " + end, delimiter * (len(head) - 1) + end])
        text += delimiter.join(quoted(value, delimiter, always) for value in row) + end
    if rng.random() < 0.5:
        text = text.removesuffix(end)
    path.write_bytes(ENCODINGS[encoding] + text.encode(encoding.split(" ")[0]))


@FIXED
@given(dialects(), st.lists(PLACES, min_size=1, max_size=12))
def test_a_label_stays_with_its_file(
    tmp_path: Path, dialect: tuple[str, str, str, bool, random.Random], notes: list[str]
) -> None:
    rows = [["note", "File", "EXPRESSION", "identity"]]
    rows += [[note, f"{i}/é {i}, a.png", EXPRESSION_NAMES[i % 7], f"{i:03d}"] for i, note in enumerate(notes)]
    path = fresh(tmp_path)
    write_table(path, rows, dialect)
    labels = read_labels(path)
    wanted = {file: (expression, who) for _, file, expression, who in rows[1:]}
    found = labels.table.set_index("file")[["expression", "identity"]]
    assert {file: tuple(row) for file, row in zip(found.index, found.to_numpy(), strict=True)} == wanted
    assert labels.others == ["note"] and "no label of this kit" in labels.notes[0]


def pixels(label: int) -> str:
    """A picture that tells its label: all of one grey."""
    return " ".join([str(10 + 30 * label)] * SIDE**2)


def check_pictures(path: Path) -> int:
    """Every label that is read belongs to the picture of its row, or that is refused; how many were read."""
    seen = 0
    for file, expression in read_table(path, LeftOut())[["file", "expression"]].itertuples(index=False):
        try:
            grey = np.asarray(csv_image(path, int(file.split("=")[1])))
        except BadInput:
            continue
        assert CODES[(int(grey[0, 0, 0]) - 10) // 30] == expression and (grey == grey[0, 0, 0]).all()
        seen += 1
    return seen


@FIXED
@given(dialects(), st.lists(st.integers(0, 6), min_size=1, max_size=9))
def test_a_label_stays_with_its_picture(
    tmp_path: Path, dialect: tuple[str, str, str, bool, random.Random], codes: list[int]
) -> None:
    rows = [["emotion", " pixels", "Usage"], *([str(code), pixels(code), "Training"] for code in codes)]
    path = fresh(tmp_path)
    write_table(path, rows, dialect)
    assert check_pictures(path) == len(codes)


@FIXED
@given(
    dialects(),
    st.lists(st.integers(0, 6), min_size=1, max_size=6),
    st.sampled_from(
        ["\n", "\r", "\r\n", '"', ",", ";", "\t", " ", "\n\n", '""', '"\n', "\0", "\xff", "\u2028", "\x0c"]
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_a_slip_in_a_table_never_moves_a_label(
    tmp_path: Path,
    dialect: tuple[str, str, str, bool, random.Random],
    codes: list[int],
    slip: str,
    where: float,
) -> None:
    rows = [["emotion", "pixels", "Usage"], *([str(code), pixels(code), "Training"] for code in codes)]
    path = fresh(tmp_path)
    write_table(path, rows, dialect)
    mark, encoding = ENCODINGS[dialect[2]], dialect[2].split(" ")[0]
    text = path.read_bytes()[len(mark) :].decode(encoding)
    at = int(where * len(text))
    path.write_bytes(mark + (text[:at] + slip + text[at:]).encode(encoding))
    try:
        check_pictures(path)
    except BadInput as error:
        assert "\n" not in str(error).strip()


@FIXED
@given(st.binary(max_size=300), st.integers(0, 9))
def test_any_bytes_are_a_table_or_refused(tmp_path: Path, content: bytes, row: int) -> None:
    path = fresh(tmp_path)
    path.write_bytes(b"file,yaw\n" + content)
    for read in (
        read_labels,
        lambda path: csv_image(path, row),
        lambda path: tables.read_lines(path, "anything"),
    ):
        try:
            read(path)
        except BadInput as error:
            assert str(error)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n \r\n", "is empty"),
        (b"file,expression\n", "has a header and no rows"),
        (b"file,yaw\na.png,1\nb.png\n", r"line 3: 1 values where the header has 2"),
        (b"file,yaw\na.png,1\n\nb.png,2,3\n", r"line 4: 3 values where the header has 2"),
        (b'file,yaw\na.png,1\n"b.png,2\nc.png,3\n', r"line 3: .*quotes"),
        (b'file,yaw\n"a.png"x,1\n', r"line 2: "),
        ("file,yaw\na.png,1\nRené.png,2\n".encode("cp1252"), r"line 3: byte 0xe9 is not UTF-8; save it as"),
        ("file,yaw\na.png,1\n".encode("utf-16-le"), r"line 1: zero bytes, as of UTF-16"),
        (codecs.BOM_UTF32_LE + "file,yaw\na.png,1\n".encode("utf-32-le"), "is stored as UTF-32"),
        (codecs.BOM_UTF16_LE + b"abc", "begins as UTF-16 and goes on as something else"),
        (b"file,yaw,YAW\na.png,1,2\n", "two columns are called YAW"),
        (b"file,au1,AU01\na.png,1,2\n", "columns au1 and AU01 are both au01"),
        (b"file,Row,yaw\na.png,1,2\n", "column Row is a name of the prepared folder"),
        (b"image,yaw\na.png,1\n", "has no column file"),
        (b"file,yaw\na.png,ten\n", "line 2: yaw is ten, not a number"),
        (b"file;yaw\na.png;10,5\n", r"line 2: yaw is 10,5, not a number; write 10\.5"),
        (b"file,yaw\na.png,1_0\n", "line 2: yaw is 1_0"),
        (b"file,yaw\n\n\na.png,999\n", r"line 4: yaw is 999"),
        (b"file,yaw\na.png,nan\nb.png,inf\n", "line 3: yaw is inf"),
        (b"file,expression\n\na.png,happy\nb.png,smug\n", "line 4: expression is smug, not one of"),
        (b"file,split\na.png,train\nb.png,dev\n", "line 3: split is dev"),
        (b"file,yaw\na.png,1\na.png,2\n", "line 3: a.png has been labelled before, in line 2"),
        (b"file,yaw\n,1\n", "line 2: no file is named"),
        (b"sep=|\nfile|yaw\na.png|1\n", "fields apart by '|'"),
    ],
)
def test_tables_that_are_refused_name_the_line(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(BadInput, match=sentence):
        read_labels(tmp_path / "l.csv")


def test_identities_are_text(tmp_path: Path) -> None:
    names = [
        "NA",
        "None",
        "True",
        "007",
        "123456789012345678",
        "123456789012345679",
        "1e5",
        "nan",
        "7.0",
        "-",
        "null",
    ]
    lines = [f"{i}.png,{name},x" for i, name in enumerate(names)] + ["98.png,,", "99.png,  ,"]
    (tmp_path / "l.csv").write_text("\n".join(["file,identity,video", *lines]))
    table = read_labels(tmp_path / "l.csv").table
    assert table["identity"].tolist() == [*names, None, None]


def test_what_is_not_given_in_numbers_and_words(tmp_path: Path) -> None:
    lines = ["a,,NA", "b,nan,Happy", "c,3.5,None", "d,-4,", "e, .5 , SAD"]
    (tmp_path / "l.csv").write_text("\n".join(["file,yaw,expression", *lines]))
    table = read_labels(tmp_path / "l.csv").table
    assert table["yaw"].tolist()[2:] == [3.5, -4, 0.5] and table["yaw"].isna().tolist()[:2] == [True, True]
    assert table["expression"].tolist() == [None, "happy", None, None, "sad"]


@pytest.mark.parametrize(
    ("written", "name"),
    [("AU1", "au01"), ("au 12", "au12"), ("AU_4", "au04"), ("au01", "au01"), (" Yaw ", "yaw"), ("AU10", "au10"),
     ("attr_Smiling", "attr_smiling"), ("AU01_c", "au01_c"), ("Action Unit 6", "au06")],
)  # fmt: skip
def test_columns_under_the_kits_names(written: str, name: str) -> None:
    assert canonical(written) == name


def test_unknown_columns_are_named_and_kept_as_text(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,AU1,au10,yaws,,attr_x\na.png,2,3,007,0,1\n")
    labels = read_labels(tmp_path / "l.csv")
    assert labels.others == ["au10", "yaws", "column_5"] and labels.given == ["au01", "attr_x"]
    told = "\n".join(labels.notes)
    assert "column au10 is no label" in told and "is it yaw?" in told and "AU1 is au01" in told
    assert labels.table["yaws"].tolist() == ["007"] and labels.table["au01"].tolist() == [2.0]


def test_values_that_look_like_another_unit(tmp_path: Path) -> None:
    rows = [f"{i}.png,{i / 10},{i % 2}" for i in range(24)]
    (tmp_path / "l.csv").write_text("\n".join(["file,yaw,au12", *rows]))
    told = "\n".join(read_labels(tmp_path / "l.csv").notes)
    assert "are these radians?" in told and "is this presence?" in told
    turned = [f"{i}.png,{i - 90},{10 * i}" for i in range(10, 19)]
    (tmp_path / "l.csv").write_text("\n".join(["file,yaw,roll", *turned]))
    (told,) = read_labels(tmp_path / "l.csv").notes
    assert "roll runs from 100 to 180 and is never negative" in told


def test_expressions_by_other_words(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,expression\na.png,Happiness\nb.png,ANGRY\nc.png,sad\nd.png,\n")
    labels = read_labels(tmp_path / "l.csv")
    assert labels.table["expression"].tolist() == ["happy", "anger", "sad", None]
    assert labels.notes == ["l.csv: expression angry is anger, happiness is happy"]


# Which image a row is of ------------------------------------------------------------------------------------


def located(
    tmp_path: Path, rows: list[str], files: list[str]
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """file -> row that was found for it; row -> why it was left out; notes."""
    pd.DataFrame({"file": rows, "yaw": range(len(rows))}).to_csv(tmp_path / "l.csv", index=False)
    left = LeftOut()
    labels = read_labels(tmp_path / "l.csv")
    row_of, notes = locate(labels, files, left)
    found = {file: rows[row] for file, row in zip(files, row_of, strict=True) if row >= 0}
    return found, {rows[line - 2]: why for line, why in left.frame()[["line", "reason"]].to_numpy()}, notes


@pytest.mark.parametrize(
    ("rows", "files", "wanted"),
    [
        (["ann/1.png", "2.png"], ["ann/1.png", "bob/2.png"], {"ann/1.png": "ann/1.png", "bob/2.png": "2.png"}),
        (["ann\\1.png", "./bob/2.png"], ["ann/1.png", "bob/2.png"],
         {"ann/1.png": "ann\\1.png", "bob/2.png": "./bob/2.png"}),
        (["/home/x/set/ann/1.png"], ["ann/1.png", "ann/2.png"], {"ann/1.png": "/home/x/set/ann/1.png"}),
        (["set/ann/1.png", "set/bob/1.png"], ["ann/1.png", "bob/1.png"],
         {"ann/1.png": "set/ann/1.png", "bob/1.png": "set/bob/1.png"}),
        (["ann/1.png", "bob/1.png"], ["faces/ann/1.png", "faces/bob/1.png"],
         {"faces/ann/1.png": "ann/1.png", "faces/bob/1.png": "bob/1.png"}),
        (["1.jpg", "2"], ["a/1.PNG", "a/2.png"], {"a/1.PNG": "1.jpg", "a/2.png": "2"}),
        (["A/1.png"], ["a/1.PNG"], {"a/1.PNG": "A/1.png"}),
        (["1.png", "1.jpg"], ["1.png"], {"1.png": "1.png"}),
        (["Zoe\u0308.png"], ["Zo\xeb.png"], {"Zo\xeb.png": "Zoe\u0308.png"}),
        (["test/1.png", "2.png"], ["train/1.png", "train/2.png"], {"train/2.png": "2.png"}),
    ],
)  # fmt: skip
def test_names_of_files_in_the_forms_that_people_write(
    tmp_path: Path, rows: list[str], files: list[str], wanted: dict[str, str]
) -> None:
    found, left, _ = located(tmp_path, rows, files)
    assert found == wanted
    assert set(left) == set(rows) - set(wanted.values())


def test_names_that_could_mean_several_images(tmp_path: Path) -> None:
    found, left, _ = located(
        tmp_path, ["1.png", "2.png", "3"], ["a/1.png", "b/1.png", "a/2.png", "a/3.png", "a/3.jpg"]
    )
    assert found == {"a/2.png": "2.png"}
    assert "2 images may be meant by 1.png" in left["1.png"] and "2 images may be meant" in left["3"]
    with pytest.raises(BadInput, match=r"lines 2 and 3, both name a/1\.png"):
        located(tmp_path, ["a/1.png", "1.png"], ["a/1.png"])
    with pytest.raises(BadInput, match=r"no row names an image of the folder \(line 2 names 'x\.png'\)"):
        located(tmp_path, ["x.png"], ["a/1.png"])


def test_folders_in_front_are_told(tmp_path: Path) -> None:
    assert located(tmp_path, ["set/a/1.png"], ["a/1.png"])[2] == [
        "l.csv: set/ in front of every row's name was left aside"
    ]


def test_a_line_that_never_ends_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST", 1000)
    monkeypatch.setattr(tables, "BLOCK", 100)
    (tmp_path / "l.csv").write_bytes(b"file,yaw\n" + b"a" * 5000)
    with pytest.raises(BadInput, match="it is no table"):
        read_labels(tmp_path / "l.csv")
    (tmp_path / "m.csv").write_bytes(
        b"file,yaw\r\n" * 1 + b"".join(b"%d.png,%d\r\n" % (i, i % 90) for i in range(400))
    )
    assert label_csv.read_labels(tmp_path / "m.csv").lines.tolist() == list(
        range(2, 402)
    )  # blocks cut CR from LF


def test_rows_are_not_fitted_to_other_pictures(tmp_path: Path) -> None:
    cases = [
        (["test/1.jpg", "test/2.jpg"], ["train/1.jpg", "train/2.jpg"]),
        (["ann_lee/7.jpg", "bob_ray/1.jpg", "bob_ray/2.jpg"], ["ann/1.jpg", "ann/2.jpg"]),
    ]
    for files, rows in cases:
        path = tmp_path / "l.csv"
        path.write_text("file,yaw\n" + "".join(f"{row},20\n" for row in rows))
        with pytest.raises(BadInput, match="no row names an image of the folder"):
            locate(read_labels(path), files, LeftOut())


@pytest.mark.parametrize(
    ("files", "rows", "wanted"),
    [
        (["a/img_0.png", "a/img_0.5.png", "a/img_1.png"], ["img_0.5", "img_1"], [-1, 0, 1]),
        (["A.J._Cook/A.J._Cook_0001.jpg"], ["A.J._Cook_0001"], [0]),
        (["a/1.jpg", "b/1.jpg"], ["a/1.jpg", "1.jpg"], [0, -1]),  # whose the second is, nobody knows
        (["1.jpg", "1.png"], ["1.jpg", "1.bmp"], [0, -1]),
        (["1.jpg", "2.JPG"], ["1.png", "2.jpg"], [0, 1]),
    ],
)
def test_a_row_gets_the_picture_it_names_or_none(
    tmp_path: Path, files: list[str], rows: list[str], wanted: list[int]
) -> None:
    path, left = tmp_path / "l.csv", LeftOut()
    path.write_text("file,yaw\n" + "".join(f"{row},{20 + i}\n" for i, row in enumerate(rows)))
    found, _ = locate(read_labels(path), files, left)
    assert found.tolist() == wanted
    assert len(left) == len(rows) - sum(row >= 0 for row in wanted)
