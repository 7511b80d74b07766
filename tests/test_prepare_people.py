"""Who is on a picture by its path, and that nobody lies in two splits: the people rules and splits.py."""

from __future__ import annotations

from pathlib import Path

import miniatures
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_scripts import catalogue, prepare_folder, prepare_voxceleb
from data_scripts.listing import LeftOut, Listing
from data_scripts.people_in_folders import in_folders
from data_scripts.people_of_voxceleb import in_voxceleb
from data_scripts.prepare_voxceleb import frame_numbers
from data_scripts.splits import keep_apart, settle
from pcl_lib.data import PreparedFaces, write_prepared
from pcl_lib.utils import BadInput

VIDEOS = ("21Uxsk56VDQ", "J9lHsKG98U8")
NAMES = ("A.J._Buckley", "Zoë_Saldana", "Abigail_Doe")  # the last has 11 characters, as videos have
IDS = ("id00012", "id00015", "id10283")
LAYOUTS = {
    "{p}/1.6/{v}/{t}/0000025.jpg": NAMES,
    "{p}/1.6/{v}/0000025.jpg": NAMES,
    "unzippedIntervalFaces/data/{p}/1.6/{v}/{t}/0000025.jpg": NAMES,
    "vox1/unzippedFaces/{p}/1.6/{v}/0000025.jpg": NAMES,
    "{p}/{v}/{t}/0000025.jpg": NAMES,
    "{p}/{v}/0000025.jpg": NAMES,
    "vox1/dev/{p}/{v}/{t}/0000025.jpg": NAMES,
    "{p}/0000025{v}.jpg": NAMES,
    "dev/mp4/{p}/{v}/0000{t}/1.jpg": IDS,
    "vox2/dev/mp4/{p}/{v}/0000{t}.mp4": IDS,
    "{p}/{v}/0000{t}.mp4": IDS,
    "{p}/{v}/{t}/1.jpg": IDS,
    "{p}/1.6/{v}/{t}/1.jpg": IDS,
    "{p}/1{v}.jpg": IDS,
    "train/{p}#{v}#00483{t}#004981.mp4": IDS,
    "{p}#{v}#00483{t}#004981.mp4/0000001.png": IDS,
    "faces/{p}_{v}_0000{t}.jpg": IDS,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_people_and_videos_of_every_layout(layout: str) -> None:
    people = LAYOUTS[layout]
    cases = [(p, f"{n}{v}"[:11], t) for n, p in enumerate(people) for v in VIDEOS for t in "12"]
    files = [layout.format(p=p, v=v, t=t) for p, v, t in cases]
    found = in_voxceleb(files)
    assert found.identity == [p for p, _, _ in cases]
    known = "/{v}" in layout or "#{v}" in layout or "_{v}" in layout
    assert found.video == [v if known else None for _, v, _ in cases]
    assert found.sentence.startswith("3 people (folder level ")
    assert ("6 videos" in found.sentence) == known
    assert ("12 tracks" in found.sentence) == (known and "{t}" in layout and not layout.startswith("faces"))
    assert not found.notes


@pytest.mark.parametrize(
    "front", ["my_faces", "Google Photos", "lfw_home/lfw_funneled", "faces of us/all of them"]
)
def test_one_folder_around_everything_is_nobody(front: str) -> None:
    files = [f"{front}/{who}/{i}.jpg" for who in ("ann", "bob", "cyd") for i in range(2)]
    assert in_folders(files).identity == [file.split("/")[-2] for file in files]
    alone = in_folders([f"{front}/{i}.jpg" for i in range(3)])
    assert alone.identity == [None] * 3 and "no folder is one person's" in alone.sentence


def test_albums_and_groups_are_asked_about() -> None:
    albums = ["ann/summer trip/1.jpg", "ann/birthday party/2.jpg", "bob/at work/2.jpg", "cyd/new year/1.jpg"]
    groups = ["team red/ann/1.jpg", "team red/bob/1.jpg", "new york/dan/1.jpg", "new york/eve/1.jpg"]
    for files in (albums, groups):
        with pytest.raises(BadInput, match=r"two folder levels could be people: level 1 .*, or level 2"):
            in_folders(files)
    proper = [
        f"{place}/{who}/1.jpg"
        for place, who in zip("abab", ("Ann_Lee", "Bo_Ek", "Cy_Du", "A. Di Fa"), strict=True)
    ]
    assert in_folders(proper).identity == ["Ann_Lee", "Bo_Ek", "Cy_Du", "A. Di Fa"]


def test_a_name_of_many_words_is_read_at_once() -> None:  # a careless pattern would try for years
    names = [f"{'A_' * 60}{number}" for number in range(4)]
    found = in_folders([f"{place}/{name}/1.jpg" for place in "xy" for name in names], 2)
    assert set(found.identity) == set(names)
    with pytest.raises(BadInput, match="two folder levels could be people"):
        in_folders([f"{place}{name}/{name}/1.jpg" for place in "xy" for name in names])


def test_expressions_beside_one_more_word_are_nobody() -> None:
    words = ["anger", "contempt", "disgust", "fear", "happiness", "neutrality", "sadness", "surprise"]
    assert set(in_folders([f"{word}/{i}.jpg" for word in words for i in range(2)]).identity) == {None}


def test_folders_that_portion_a_set_are_nobody() -> None:
    ffhq = [f"thumbnails/{number // 1000 * 1000:05d}/{number:05d}.png" for number in range(0, 3000, 100)]
    assert set(in_folders(ffhq).identity) == {None}
    people = [
        f"{who:07d}/{image:03d}.jpg" for who in (45, 99, 102) for image in (1, 2)
    ]  # as CASIA-WebFace has them
    found = in_folders(people)
    assert found.identity == [file.split("/")[0] for file in people]
    assert found.notes == ["people are called 0000045, 0000099, 0000102: if those only number parts of the set, say"
                           " --identity-from image or none"]  # fmt: skip


def test_backslashes_in_names_are_folders() -> None:
    files = [f"wrap/inner/{split}\\mp4\\{who}\\21Uxsk56VDQ\\0000001.jpg"
             for split, who in (("dev", "id00012"), ("test", "id00017"))]  # fmt: skip
    found = in_voxceleb(files)
    assert found.identity == ["id00012", "id00017"] and found.video == ["21Uxsk56VDQ"] * 2
    assert found.split == ["train", "test"]
    assert in_folders(["x\\ann\\1.jpg", "x\\bob\\1.jpg"]).identity == ["ann", "bob"]


@pytest.mark.parametrize("apart", ["-", "_", "__", "#"])
def test_the_last_number_of_a_flattened_crop_is_its_frame(apart: str) -> None:
    files = [
        f"vox/crops64/{apart.join((who, '21Uxsk56VDQ', f'{i:07d}'))}.jpg"
        for who in ("id00012", "id00013")
        for i in (1, 2)
    ]
    found = in_voxceleb(files)
    assert found.identity == ["id00012"] * 2 + ["id00013"] * 2
    assert found.video == ["21Uxsk56VDQ"] * 4 and found.track == [None] * 4
    assert frame_numbers(files) == [1, 2, 1, 2]
    tracked = in_voxceleb([f"id10283#tXmKFJIMVXo#004832#004981#{i:03d}.png" for i in (1, 2)])
    assert tracked.track == ["004832#004981"] * 2


def test_the_sentence_of_voxceleb1() -> None:
    files = [
        f"{p}/1.6/{p[:3]}vid{v}/{t}/1.jpg"
        for p in ("Ann_Lee", "Bob_Ray", "Cy_Dee")
        for v in "12"
        for t in "12"
    ]
    assert in_voxceleb(files).sentence == "3 people (folder level 1), 6 videos (level 3), 12 tracks"


def test_both_sets_below_one_folder() -> None:
    found = in_voxceleb(
        ["vox1/A.J._Buckley/1.6/1zcIwhmdeo4/1.jpg", "vox2/test/mp4/id00017/01dfn2spqyE/00001.mp4"]
    )
    assert found.identity == ["A.J._Buckley", "id00017"] and found.split == [None, "test"]
    assert found.sentence == "2 people (folder levels 2 and 4), 2 videos (levels 4 and 5), 1 track"
    assert found.notes == ["as many people as videos (2): is that folder level really one of people?"]


@pytest.mark.parametrize("name", ["test", "Test", "TEST", "vox1_test_wav", "testing", "Test-Set", "testset"])
def test_folders_of_the_test_split(name: str) -> None:
    assert in_voxceleb([f"{name}/id00017/01dfn2spqyE/1.jpg"]).split == ["test"]
    assert in_voxceleb([f"{name}/Ann_Lee/01dfn2spqyE/1.jpg"]).identity == ["Ann_Lee"]


def test_splits_videos_and_numbers_are_never_people() -> None:
    for files in (
        ["train/1.jpg", "test/1.jpg"],
        ["training_set/1.jpg", "test_set/1.jpg"],
        ["21Uxsk56VDQ/1.jpg", "J9lHsKG98U8/1.jpg"],
        ["1.jpg"],
    ):
        assert in_voxceleb(files).identity == [None] * len(files)
        assert in_folders(files).identity == [None] * len(files)


def test_what_makes_one_doubt_is_said() -> None:
    told = in_voxceleb(
        [f"{p}/1.6/{VIDEOS[0]}/1.jpg" for p in ("Ann_Lee", "ann lee")] + [f"id00012/{VIDEOS[1]}/1.jpg"]
    ).notes
    assert "1 name is spelt in two ways, such as Ann_Lee and ann lee" in told[0]
    assert "1 video lies with two people or more, such as 21Uxsk56VDQ with Ann_Lee and ann lee" in told[-1]


def test_a_root_that_is_called_after_a_split(tmp_path: Path) -> None:
    miniatures.put(tmp_path / "vox1/test/mp4/id00017/01dfn2spqyE/1.jpg", miniatures.face(0))
    for place in ("vox1/test/mp4", "vox1/test", "vox1"):
        out = tmp_path / "out" / place.replace("/", "-")
        prepare_voxceleb.main([str(tmp_path / place), str(out), "--size", "16", "--workers", "1"])
        assert PreparedFaces(out).table["split"].tolist() == ["test"]


def test_voxceleb1_is_found_in_the_folders_of_its_archives(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        path = tmp_path / f"in/a/vox1/unzippedIntervalFaces/data/{name}/1.6/{VIDEOS[0]}/1/0000025.jpg"
        miniatures.put(path, miniatures.face(number))
    ((entry, place),) = catalogue.find(tmp_path / "in")
    assert entry is catalogue.VOXCELEB and place == tmp_path / "in/a/vox1"
    prepare_voxceleb.main([str(place), str(tmp_path / "out"), "--size", "16", "--workers", "1"])
    assert sorted(PreparedFaces(tmp_path / "out").table["identity"]) == sorted(NAMES)


def test_sound_alone_is_told(tmp_path: Path) -> None:
    miniatures.write(tmp_path / "vox1/id00017/01dfn2spqyE/00001.wav", ["RIFF"])
    with pytest.raises(BadInput, match=r"has no crop or video in PERSON/VIDEO/.*there is sound \(\.wav\)"):
        prepare_voxceleb.main([str(tmp_path / "vox1"), str(tmp_path / "out"), "--workers", "1"])


def mixed(root: Path) -> None:
    """Ann Lee by her name and by her number, Bob Ray by his name, id10003 by number, and id00017 of VoxCeleb2."""
    for number, place in enumerate(
        (
            f"vox1/dev/Ann_Lee/1.6/{VIDEOS[0]}/1.jpg",
            f"vox1/dev/Bob_Ray/1.6/{VIDEOS[1]}/1.jpg",
            "vox1/test/id10001/01dfn2spqyE/1.jpg",
            "vox1/dev/id10003/11dfn2spqyE/1.jpg",
            "vox2/dev/mp4/id00017/21dfn2spqyE/1.jpg",
        )
    ):
        miniatures.put(root / place, miniatures.face(number))


HEAD = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"


def test_a_name_and_a_number_are_one_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(tmp_path / "in")
    meta = tmp_path / "in/vox1/vox1_meta.csv"
    meta.write_text(HEAD + "id10001\tAnn_Lee\tf\tUK\tdev\nid10002\tBob_Ray\tm\tUSA\tdev\n")
    with pytest.raises(BadInput, match="id10001"):  # now known to lie in train and test
        prepare_voxceleb.main([str(tmp_path / "in"), str(tmp_path / "a"), "--size", "16", "--workers", "1"])
    (tmp_path / "in/vox1/test").rename(tmp_path / "in/vox1/more")
    prepare_voxceleb.main([str(tmp_path / "in"), str(tmp_path / "b"), "--size", "16", "--workers", "1"])
    people = PreparedFaces(tmp_path / "b").table["identity"].tolist()
    assert sorted(people) == ["id00017", "id10001", "id10001", "id10002", "id10003"]
    told = capsys.readouterr().out
    assert "4 people" in told and "2 names stand for a number of vox1_meta.csv" in told
    assert "counts as two people" not in told


def test_names_beside_numbers_are_said_where_the_list_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed(tmp_path / "in")
    prepare_voxceleb.main([str(tmp_path / "in"), str(tmp_path / "out"), "--size", "16", "--workers", "1"])
    assert (
        "names without one (Ann_Lee, Bob_Ray): whoever is both counts as two people; put vox1_meta.csv"
        in (capsys.readouterr().out)
    )
    assert not any(
        "two people" in note for note in in_voxceleb(["Ann_Lee/1.6/v/1.jpg", "id00017/v/1.jpg"]).notes
    )


def test_a_list_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    mixed(tmp_path / "in")
    (tmp_path / "in/vox1_meta.csv").write_text(HEAD + "id10001\tAnn_Lee\nid10009\tANN_LEE\n")
    (tmp_path / "in/vox2_meta.csv").write_text(
        "VoxCeleb2 ID ,VGGFace2 ID ,Gender,Set\nid00012 ,n000012 ,m,dev \n"
    )
    with pytest.raises(BadInput, match=r"vox1_meta\.csv, line 3: ANN_LEE is id10009, and id10001 before"):
        prepare_voxceleb.main([str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"])


# Any folder -------------------------------------------------------------------------------------------------


def crossed(*levels: list[str]) -> list[str]:
    """All combinations of names, a file below each."""
    paths = [""]
    for names in levels:
        paths = [f"{path}{name}/" for path in paths for name in names]
    return [f"{path}{i}.jpg" for path in paths for i in range(2)]


PEOPLE = ["ann", "bob", "cyd"]
NUMBERS = ["0001", "0002", "0003"]
FOLDERS = [
    (crossed(PEOPLE), 1),
    (crossed(NUMBERS), 1),
    (crossed(["NA", "None", "True"]), 1),
    (crossed(["s1", "s2", "s10"]), 1),
    (crossed(["orl"], ["s1", "s2", "s10"]), 2),
    (crossed(PEOPLE, ["day1", "day2"]), 1),
    (crossed(PEOPLE, ["2019-01-02", "2020-05-06"]), 1),
    (crossed(PEOPLE, ["session 1", "session 2"]), 1),
    (crossed(PEOPLE, ["happy", "sad"]), 1),
    (crossed(["happy", "sad"], PEOPLE), 2),
    (crossed(["2019", "2020"], PEOPLE), 2),
    (crossed(["train", "test"], PEOPLE), 2),
    (crossed(["Train", "Val", "Test"], NUMBERS), 2),
    (crossed(["images"], NUMBERS), 2),
    (crossed(PEOPLE, ["images"]), 1),
    (crossed(PEOPLE, ["01", "02"]), 1),
    (crossed(NUMBERS, ["1", "2"]), 1),
    (crossed(["subject01", "subject02"], ["home", "work"]), 1),
    (crossed(["home", "work"], ["id001", "id002"]), None),
    (["men/Ann_Lee/1.jpg", "men/Bob_Ray/1.jpg", "women/Cy_Dee/1.jpg"], 2),
    (["train/n000001/1.jpg", "test/n000002/1.jpg"], 2),
    (["a/person_0001/1.jpg", "b/person_0002/1.jpg"], 2),
    (["person_0001/1.jpg", "person_0002/1.jpg"], 1),  # 11 characters, as of videos
    (crossed(["anna_1", "anna_2", "bert_1"]), 1),
    (["ann/day1/1.jpg", "ann/2.jpg", "bob/3.jpg", "bob/day2/4.jpg"], 1),
]


@pytest.mark.parametrize(("files", "level"), FOLDERS)
def test_the_level_of_people(files: list[str], level: int | None) -> None:
    if level is None:
        with pytest.raises(BadInput, match=r"two folder levels could be people.*--identity-level 1 or 2"):
            in_folders(files)
        return
    found = in_folders(files)
    assert found.identity == [file.split("/")[level - 1] for file in files]
    assert f"folder level {level}" in found.sentence


@pytest.mark.parametrize(
    "levels",
    [
        (PEOPLE, ["home", "work"]),
        (["home", "work"], PEOPLE),
        (NUMBERS, ["home", "work"]),
        (["men", "women"], NUMBERS),
        (["men", "women"], ["01", "02"]),
        (["here", "there"], NUMBERS),
    ],
)
def test_two_levels_that_could_be_people_are_asked_about(levels: tuple[list[str], ...]) -> None:
    files = crossed(*levels)
    with pytest.raises(
        BadInput, match=r"could be people: level 1 \(.*\), or level 2 \(.*--identity-from none"
    ):
        in_folders(files)
    for level in (1, 2):
        assert in_folders(files, level).identity == [file.split("/")[level - 1] for file in files]
    with pytest.raises(BadInput, match="--identity-level is 3, but folders are nested 2 deep"):
        in_folders(files, 3)


def test_names_that_hold_the_video_too() -> None:
    found = in_folders(
        [
            "train/id00012#21Uxsk56VDQ#1#2.mp4/1.png",
            "train/id00012#J9lHsKG98U8#1#2.mp4/1.png",
            "test/ann#x/1.png",
        ]
    )
    assert found.identity == ["id00012", "id00012", "ann"] and "2 people (folder level 2" in found.sentence


def test_what_looks_odd_is_said() -> None:
    assert "such as anna_1 and anna_2" in in_folders(crossed(["anna_1", "anna_2", "bert_1"])).notes[0]
    assert not in_folders(crossed(["person_1", "person_2"])).notes + in_folders(crossed(["s1", "s2"])).notes
    assert "such as 0001 in men, women" in in_folders(crossed(["men", "women"], NUMBERS), 2).notes[0]
    assert not in_folders(crossed(["train", "test"], NUMBERS), 2).notes


def test_a_copied_folder_is_the_same_persons() -> None:
    """What Windows, macOS and download programs call a second folder of one name."""
    vox = ["id00012", "id00012 (1)", "id00012 - Copy", "id00012(2)", "id00017 copy 2"]
    found = in_voxceleb([f"{folder}/21Uxsk56VDQ/{i}.jpg" for i, folder in enumerate(vox)])
    assert found.identity == ["id00012"] * 4 + ["id00017"] and "2 people" in found.sentence
    assert (
        "4 folders have the name of a copy, such as id00012 (1): taken for the person id00012" in found.notes
    )
    named = ["Ann Lee", "Ann Lee (1)", "Bob Ray", "Cyd Roe (1)", "Cyd Roe (2)"]
    found = in_folders([f"{folder}/1.jpg" for folder in named])
    assert found.identity == ["Ann Lee", "Ann Lee", *named[2:]]  # which Cyd is meant is not known
    assert "1 folder has the name of a copy, such as Ann Lee (1): taken for the person Ann Lee" in found.notes
    numbered = ["person", "person (1)", "person (2)"]  # as a system numbers files of many people
    assert in_folders([f"{folder}/1.jpg" for folder in numbered]).identity == numbered


def test_folders_that_only_order_files() -> None:
    for files in (
        crossed(["happy", "sad"]),
        crossed(["train", "test"], ["happy", "sad"]),
        crossed(["day1", "day2"]),
        crossed(["images"], ["train", "val"]),
    ):
        found = in_folders(files)
        assert set(found.identity) == {None} and "who is on a picture is not known" in found.sentence
    assert "level 2 (happy, sad) is not people" in in_folders(crossed(["train"], ["happy", "sad"])).sentence


@pytest.mark.parametrize(
    "sorts",
    [["male", "female"], ["real", "fake"], ["with_mask", "without_mask"], ["class_1", "class_2"], ["Man", "Woman"],
     ["No Glasses", "Glasses"], ["Asian", "Black", "White"]],
)  # fmt: skip
def test_sorts_of_people_are_nobody(sorts: list[str]) -> None:
    for files in (crossed(sorts), crossed(["Train", "Test"], sorts), crossed(["data"], sorts)):
        assert set(in_folders(files).identity) == {None}
    below = [f"{sort}/{name}{i}/1.jpg" for i, sort in enumerate(sorts) for name in PEOPLE]
    assert in_folders(below).identity == [file.split("/")[1] for file in below]
    with pytest.raises(BadInput, match="could be people"):  # is ann one person, or one in each sort?
        in_folders(crossed(sorts, NUMBERS))


@pytest.mark.parametrize("classes", [list("01234567"), list("1234567"), ["00", "01", "10"]])
def test_numbers_below_splits_may_be_classes(classes: list[str]) -> None:
    """AffectNet and RAF-DB as they are passed on: train/0 to train/7, val/0 to val/7."""
    files = crossed(["train", "val"], classes)
    with pytest.raises(
        BadInput, match=r"lie in each of train, val: .* --identity-level 2 .* --identity-from none"
    ):
        in_folders(files)
    assert in_folders(files, 2).identity == [file.split("/")[1] for file in files]
    told = in_folders(crossed(classes))
    assert told.identity == [file.split("/")[0] for file in crossed(classes)]
    assert "if those are classes, such as expressions, say --identity-from none" in told.notes[0]
    apart = [f"train/{name}/1.jpg" for name in "123"] + [f"test/{name}/1.jpg" for name in "45"]
    assert in_folders(apart).identity == list("12345")


def test_sessions_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, file in enumerate(crossed(PEOPLE, ["day1", "day2"])):
        miniatures.put(tmp_path / "in" / file, miniatures.face(number))
    faces = prepare(tmp_path)
    assert faces.table["identity"].tolist() == [file.split("/")[0] for file in faces.table["file"]]
    assert apart(faces)
    said = capsys.readouterr().out
    assert "3 people (folder level 1: ann, bob, cyd); level 2 (day1, day2) is not people" in said
    assert (
        faces.info["notes"][0]
        == "3 people (folder level 1: ann, bob, cyd); level 2 (day1, day2) is not people"
    )


# Nobody in two splits ---------------------------------------------------------------------------------------


def prepare(tmp_path: Path, *options: str) -> PreparedFaces:
    prepare_folder.main(
        [str(tmp_path / "in"), str(tmp_path / "out"), "--size", "8", "--workers", "1", *options]
    )
    return PreparedFaces(tmp_path / "out")


def apart(faces: PreparedFaces, true: pd.Series | None = None) -> bool:
    """Whether every person (of column identity, or of `true`) lies in one split, and all three splits have people."""
    who = faces.table["identity"] if true is None else true
    splits = faces.table["split"].groupby(who.to_numpy()).nunique()
    return bool((splits == 1).all()) and set(faces.table["split"]) == {"train", "validation", "test"}


def twelve(tmp_path: Path, flat: bool = False) -> None:
    """Twelve people with four images each, in folders of their own or all in one."""
    for person in range(12):
        for i in range(4):
            path = tmp_path / "in" / ("all" if flat else f"{person:04d}") / f"{person:04d}_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (9, 9), 4 * person + i).save(path)


@pytest.mark.parametrize("flat", [False, True])
@settings(derandomize=True, database=None, deadline=None, max_examples=25,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.sets(st.integers(0, 47), min_size=1), st.booleans())
def test_whatever_the_table_lacks(
    tmp_path_factory: pytest.TempPathFactory, flat: bool, named: set[int], numbers: bool
) -> None:
    tmp_path = tmp_path_factory.mktemp("half")
    twelve(tmp_path, flat)
    rows = [f"{n // 4:04d}_{n % 4}.png,{n // 4 if numbers else f'p{n // 4}'}" for n in sorted(named)]
    miniatures.write(tmp_path / "l.csv", ["file,identity", *rows])
    faces = prepare(tmp_path, "--labels", str(tmp_path / "l.csv"))
    true = faces.table["file"].str.extract(r"(\d{4})_\d")[0]
    assert (faces.images(slice(None))[:, 0, 0, 0].numpy() // 4 == true.astype(int)).all()
    assert (faces.table["split"].groupby(true.to_numpy()).nunique() == 1).all()
    names = faces.table["identity"].groupby(true.to_numpy()).nunique()
    if not flat:
        assert len(faces) == 48 and (names == 1).all() and faces.table["identity"].nunique() == 12
    elif len({n // 4 for n in named}) > 1:
        assert len(faces) == len(named)  # on the others, nobody knows who is


def test_an_identity_for_half_of_the_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twelve(tmp_path)
    rows = [f"{n // 4:04d}/{n // 4:04d}_{n % 4}.png,{n // 4}" for n in range(24)]
    miniatures.write(tmp_path / "l.csv", ["file,identity", *rows])
    faces = prepare(tmp_path, "--labels", str(tmp_path / "l.csv"))
    wanted = [str(n // 4) if n < 24 else f"{n // 4:04d}" for n in range(48)]
    assert faces.table["identity"].tolist() == wanted and apart(faces)
    assert (
        "column identity is silent on 24 images: 24 keep the person of their folder"
        in capsys.readouterr().out
    )


def test_people_called_na_and_none(tmp_path: Path) -> None:
    twelve(tmp_path)
    names = [
        "NA",
        "None",
        "True",
        "007",
        "123456789012345678",
        "123456789012345679",
        "nan",
        "1e3",
        "null",
        "7",
        "7.0",
        "",
    ]
    rows = [f"{n // 4:04d}_{n % 4}.png,{names[n // 4]}" for n in range(48)]
    miniatures.write(tmp_path / "l.csv", ["file,identity", *rows])
    faces = prepare(tmp_path, "--labels", str(tmp_path / "l.csv"))
    assert faces.table["identity"].tolist() == [names[n // 4] or "0011" for n in range(48)] and apart(faces)


def test_a_split_of_ones_own_that_parts_a_person(tmp_path: Path) -> None:
    twelve(tmp_path)
    rows = [f"{n // 4:04d}_{n % 4}.png,{'test' if n < 5 else 'train'}" for n in range(48)]
    miniatures.write(tmp_path / "l.csv", ["file,split", *rows])
    with pytest.raises(
        BadInput, match=r"0001 lies in test and in train \(1 in all do so\); nobody may be in two splits"
    ):
        prepare(tmp_path, "--labels", str(tmp_path / "l.csv"))
    faces = prepare(tmp_path, "--labels", str(tmp_path / "l.csv"), "--identity-from", "none")
    assert faces.split("test").tolist() == [0, 1, 2, 3, 4] and "identity" not in faces.table


def test_one_person_or_none_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twelve(tmp_path, flat=True)
    faces = prepare(tmp_path)
    assert set(faces.table["split"]) == {"train"} and "identity" not in faces.table
    assert "no folder is one person's" in capsys.readouterr().out
    main = [str(tmp_path / "in"), str(tmp_path / "one"), "--workers", "1", "--identity-level", "1"]
    prepare_folder.main(main)
    assert "1 person is too few for three splits: all images are in train" in capsys.readouterr().out
    for how, splits in (("none", {"train": 48}), ("image", {"train": 34, "validation": 7, "test": 7})):
        prepare_folder.main(
            [str(tmp_path / "in"), str(tmp_path / how), "--workers", "1", "--identity-from", how]
        )
        assert PreparedFaces(tmp_path / how).table["split"].value_counts().to_dict() == splits
    told = capsys.readouterr().out
    assert "who is on the images is not known" in told and "48 people (by --identity-from image)" in told


def test_identities_stay_text_in_a_prepared_folder(tmp_path: Path) -> None:
    names = ["NA", "None", "True", "007", "7", "123456789012345678", "123456789012345679", None]
    images = np.zeros((len(names), 3, 8, 8), dtype=np.uint8)
    table = pd.DataFrame({"identity": names}, dtype=object)
    write_prepared(tmp_path / "set", images, table, name="t", source="drawn")
    faces = PreparedFaces(tmp_path / "set")
    assert [None if pd.isna(name) else name for name in faces.table["identity"]] == names
    assert faces.info["counts"]["identities"] == len(names)
    numbers = pd.DataFrame({"identity": [123456789012345678.0, float("nan")] * 4})
    with pytest.raises(BadInput, match=r"can no longer be told apart; read it as text"):
        write_prepared(tmp_path / "other", images, numbers, name="t", source="drawn")


def test_official_splits_that_part_a_person_lose_the_earlier_images() -> None:
    table = pd.DataFrame({"file": list("abcde"), "identity": ["x", "x", "y", None, "y"],
                          "split": ["train", "test", "train", "train", "validation"]})  # fmt: skip
    left = LeftOut()
    assert keep_apart(table, left)["file"].tolist() == ["b", "d", "e"]
    assert left.frame()["reason"].tolist() == [
        "x is in test too; nobody may be in two splits",
        "y is in validation too; nobody may be in two splits",
    ]


def test_images_of_nobody_known_are_left_out_where_others_are_known(tmp_path: Path) -> None:
    table = pd.DataFrame({"file": list("abcdef"), "identity": ["x", None, "y", "z", "x", None]})
    listing = settle(Listing("t", "s", "", tmp_path, table))
    assert listing.table["file"].tolist() == ["a", "c", "d", "e"] and "split" in listing.table
    assert listing.left_out["file"].tolist() == ["b", "f"]
