"""data_scripts/prepare.py: the same set whoever makes it, whatever stops it, and a true account of what is missing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_scripts import prepare as module
from data_scripts import prepare_folder
from data_scripts.listing import BOX_COLUMNS, LeftOut, Listing, Recipe
from data_scripts.prepare import prepare, shard_rows
from data_scripts.report import reasons
from pcl_lib import utils
from pcl_lib.data import PreparedFaces
from pcl_lib.faces import render, sample_factors
from pcl_lib.utils import BadInput

N = 60
BAD = (7, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 59)  # with shards of ten, the third holds nothing


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """60 plain images whose level is their number, a dozen damaged; pairs of neighbours."""
    (tmp_path / "in").mkdir()
    for number in range(N):
        path = tmp_path / "in" / f"{number:02d}.png"
        Image.new("L", (20, 16), number).save(path)
        if number in BAD:
            path.write_bytes(path.read_bytes()[:40])
    table = pd.DataFrame({"file": [f"{i:02d}.png" for i in range(N)], "identity": np.arange(N) // 2})
    pairs = pd.DataFrame({"first": np.arange(N - 1), "second": np.arange(1, N), "same": True, "fold": 0})
    left = LeftOut()
    left.add("labels.txt", "there is no image 99.png", 12)
    return Listing(
        "toy", "drawn", "mine", tmp_path / "in", table, pairs, left.frame(), notes=["Zoë says hello"]
    )


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", (10, 10))


def test_what_failed_is_left_out_everywhere(
    listing: Listing, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    record = prepare(listing, tmp_path / "out", size=8)
    faces = PreparedFaces(tmp_path / "out")
    kept = [i for i in range(N) if i not in BAD]
    assert faces.images(slice(None))[:, 0, 0, 0].tolist() == kept
    assert faces.table["file"].tolist() == [f"{i:02d}.png" for i in kept]
    assert faces.table["identity"].tolist() == [i // 2 for i in kept]
    assert faces.pairs is not None
    told = [(kept[a], kept[b]) for a, b in faces.pairs[["first", "second"]].to_numpy()]
    assert told == [(i, i + 1) for i in range(N - 1) if i not in BAD and i + 1 not in BAD]
    skipped = pd.read_csv(tmp_path / "out" / "skipped.csv")
    assert skipped["file"].tolist() == ["labels.txt", *(f"{i:02d}.png" for i in BAD)]
    assert skipped["line"].tolist()[0] == 12 and skipped["line"].isna().sum() == len(BAD)
    output = capsys.readouterr().out
    assert "48 images" in output and "Skipped 13 files or lines" in output and "labels.txt, line 12" in output
    assert "     12 " in output and "(first: 07.png)" in output and "Zoë says hello" in output
    assert f"Pairs: {N - 1 - len(told)} were left out" in output
    assert record["skipped"] == 13 and record["settings"]["how"] == "as_is" and record["notes"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".npy") == [
        "dataset.json", "faces.parquet", "pairs.parquet", "skipped.csv"
    ]  # fmt: skip
    assert faces.verify() == record["content_hash"]


def test_any_number_and_kind_of_workers(listing: Listing, tmp_path: Path) -> None:
    made = [
        prepare(listing, tmp_path / f"{backend}-{workers}", size=8, workers=workers, backend=backend)[
            "content_hash"
        ]
        for workers, backend in ((1, "threading"), (3, "threading"), (2, "loky"))
    ]
    assert len(set(made)) == 1


def test_a_dask_cluster_of_two_processes(
    listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images are cut by workers that are other processes; the set is the one made here."""
    from distributed import LocalCluster

    wanted = prepare(listing, tmp_path / "here", size=8)["content_hash"]
    monkeypatch.setattr(module, "cut", lambda *_: pytest.fail("cut in this process"))
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        memory_limit="1GiB",
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        record = prepare(listing, tmp_path / "there", size=8, scheduler=cluster.scheduler_address)
    assert record["content_hash"] == wanted == PreparedFaces(tmp_path / "there").verify()


def test_no_scheduler_answers(listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1)
    with pytest.raises(BadInput, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 "):
        prepare(listing, tmp_path / "out", size=8, scheduler="tcp://127.0.0.1:9")


SLOW = """
import sys, time, pickle
from data_scripts import prepare
quick = prepare.make_part
def slow(job):
    part = quick(job)
    time.sleep(0.3)
    return part
prepare.make_part, prepare.SHARD_ROWS = slow, (10, 10)
with open(sys.argv[1], "rb") as file:
    prepare.prepare(pickle.load(file), sys.argv[2], size=8, progress=False)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_and_repeated(listing: Listing, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    wanted, out = prepare(listing, tmp_path / "whole", size=8)["content_hash"], tmp_path / "out"
    pd.to_pickle(listing, tmp_path / "listing.pkl")
    command = [sys.executable, "-c", SLOW, str(tmp_path / "listing.pkl"), str(out)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent)
    until = time.monotonic() + 120
    while len(list(out.glob("part-*.json"))) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in out.glob("part-*.json")}
    assert 2 <= len(finished) < 6 and not (out / "dataset.json").exists()
    with pytest.raises(BadInput, match="half written"):
        PreparedFaces(out)
    (out / ".shard-00005.npy.1.tmp").write_bytes(b"half")  # what a kill in the midst of writing leaves
    (out / "part-00000.json").unlink()  # as if killed after the shard and before its part file
    shards = {p: p.stat().st_mtime_ns for p in out.glob("shard-*.npy") if p.name != "shard-00000.npy"}
    capsys.readouterr()
    assert prepare(listing, out, size=8)["content_hash"] == wanted == PreparedFaces(out).verify()
    assert f"Going on after {len(finished) - 1} shards" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in shards.items())  # not made again
    assert not list(out.glob("part-*")) and not list(out.glob(".*"))


def test_what_is_finished_under_other_settings_is_not_used(listing: Listing, tmp_path: Path) -> None:
    jobs = list(module.cut_jobs(listing, tmp_path / "out", 8, 10))
    with module.FolderWriter(tmp_path / "out", {"other": 1}, in_parts=True):
        module.make_part(replace(jobs[0], files=jobs[3].files))
    prepare(listing, tmp_path / "out", size=8)
    assert PreparedFaces(tmp_path / "out").images(0)[0, 0, 0, 0] == 0


def test_a_full_disk_and_going_on_after_it(
    listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def refuse_sixth(_: int) -> None:
        if next(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(utils.os, "fsync", refuse_sixth)
        with pytest.raises(BadInput, match=r"cannot write .*: the disk is full: free some space"):
            prepare(listing, tmp_path / "out", size=8)
    with pytest.raises(BadInput, match="half written"):
        PreparedFaces(tmp_path / "out")
    again, whole = prepare(listing, tmp_path / "out", size=8), prepare(listing, tmp_path / "whole", size=8)
    assert again["content_hash"] == whole["content_hash"]


def test_too_little_room_is_told_before_the_work(
    listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = module.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: room)
    with pytest.raises(BadInput, match=r"needs .* MiB, and its disk has 0\.0 MiB free"):
        prepare(listing, tmp_path / "out", size=8)
    assert not list((tmp_path / "out").glob("shard-*"))


def test_a_set_that_is_there_stays(listing: Listing, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = prepare(listing, tmp_path / "out", size=8)
    stamp = (tmp_path / "out" / "dataset.json").stat().st_mtime_ns
    assert prepare(listing, tmp_path / "out", size=8, workers=2) == first
    assert "nothing to do" in capsys.readouterr().out
    relabelled = replace(listing, table=listing.table.assign(identity=0))
    unpaired = replace(listing, pairs=None)
    for other, size in (
        (listing, 9),
        (relabelled, 8),
        (unpaired, 8),
        (replace(listing, recipe=Recipe(margin=0.1)), 8),
    ):
        with pytest.raises(BadInput, match="already holds a prepared set"):
            prepare(other, tmp_path / "out", size=size)
    assert (tmp_path / "out" / "dataset.json").stat().st_mtime_ns == stamp


def test_faces_not_found_are_listed_and_boxes_kept(tmp_path: Path) -> None:
    factors = sample_factors(3, seed=1).assign(yaw=0.0, pitch=0.0, roll=0.0, occluder=0)
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    pictures = [p.permute(1, 2, 0).numpy() for p in render(factors, size=128)]
    for number, pixels in enumerate([pictures[0], noise, *pictures[1:]]):
        canvas = Image.new("RGB", (300, 260), (128, 128, 128))
        canvas.paste(Image.fromarray(pixels), (100, 70))
        canvas.save(tmp_path / f"{number}.png")
    table = pd.DataFrame({"file": [f"{i}.png" for i in range(4)], "split": "train"})
    prepare(Listing("t", "s", "", tmp_path, table, recipe=Recipe("detect", 0.1)), tmp_path / "out", size=32)
    faces = PreparedFaces(tmp_path / "out")
    assert (
        faces.table["file"].tolist() == ["0.png", "2.png", "3.png"]
        and faces.info["settings"]["how"] == "detect"
    )
    skipped = pd.read_csv(tmp_path / "out" / "skipped.csv")
    assert skipped["file"].tolist() == ["1.png"] and skipped["reason"].tolist() == ["no face found"]
    for row, box in enumerate(faces.table[list(BOX_COLUMNS)].to_numpy()):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        assert 140 < x < 190 and 100 < y < 170  # in the pasted picture, row by row
        with Image.open(tmp_path / faces.table["file"][row]) as image:
            half = 0.6 * max(box[2] - box[0], box[3] - box[1])
            crop = image.resize(
                (32, 32), Image.Resampling.BILINEAR, box=(x - half, y - half, x + half, y + half)
            )
        assert (
            np.abs(np.asarray(crop).transpose(2, 0, 1).astype(int) - faces.images(row)[0].numpy()).max() <= 2
        )


def test_nothing_useful_remains(listing: Listing, tmp_path: Path) -> None:
    rows = listing.table.iloc[list(BAD)].reset_index(drop=True)
    with pytest.raises(BadInput, match=r"none of the 12 images in .* can be used \(07.png: not an image"):
        prepare(replace(listing, table=rows, pairs=None), tmp_path / "out", size=8)
    with pytest.raises(BadInput, match=r"no image .* can be used \(labels.txt, line 12: there is no image"):
        prepare(replace(listing, table=rows[:0], pairs=None), tmp_path / "out", size=8)
    assert not (tmp_path / "out" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"table": pd.DataFrame({"image": ["a"]})}, "no column file"),
        ({"table": pd.DataFrame({"file": ["a", "b", "a"]})}, "row 2: a is listed before"),
        ({"recipe": Recipe("box")}, "to crop by box, column box_bottom is needed"),
        ({"pseudo": ["yaw"]}, "pseudo names yaw"),
        ({"table": pd.DataFrame({"file": ["a"], "attr_young": [-1]})}, "attr_young is -1, not 0..1"),
        ({"table": pd.DataFrame({"file": ["a"], "fold": [10]})}, "fold is 10"),
        ({"pairs": pd.DataFrame({"first": [0], "second": [N], "same": True, "fold": 0})}, "second is 60"),
    ],
)
def test_listings_that_contradict_themselves(
    listing: Listing, tmp_path: Path, changes: dict, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        prepare(replace(listing, **({"pairs": None} | changes)), tmp_path / "out", size=8)
    assert not (tmp_path / "out").exists()


def test_shards_hang_on_the_set_alone_and_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [shard_rows(n, 64) for n in (50, 6756, 40_000, 10_000_000)] == [128, 128, 625, 1024]
    assert all(3 * size**2 * shard_rows(10**7, size) <= 64 << 20 for size in (64, 224, 512, 4096))
    assert shard_rows(10, 9000) == 1


def test_reasons_are_grouped_whatever_their_numbers() -> None:
    left = LeftOut()
    left.add("a.jpg", "only 3x4 pixels")
    left.add("b.txt", "no such image", 4)
    left.add("c.jpg", "only 13x2 pixels")
    assert reasons(left.frame()).to_numpy().tolist() == [
        [2, "only 3x4 pixels", "a.jpg"], [1, "no such image", "b.txt, line 4"]
    ]  # fmt: skip


def test_marks_that_a_kill_left_beside_a_whole_set_go(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "in" / f"person{number}").mkdir(parents=True)
        Image.new("RGB", (32, 32), (90 * number, 0, 0)).save(tmp_path / "in" / f"person{number}" / "1.png")
    line = [str(tmp_path / "in"), str(tmp_path / "out"), "--size", "16", "--workers", "1"]
    prepare_folder.main(line)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for name in ("part-00000.json", "unfinished.json"):  # it was killed when all but their removal was done
        (tmp_path / "out" / name).write_text("{}")
    prepare_folder.main(line)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole
