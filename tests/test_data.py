"""Prepared folders, against the arrays they were written from and counts made by hand."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images
from test_utils import lose_locks

from pcl_lib import data, utils
from pcl_lib.data import batches, rendered, writer
from pcl_lib.data import folder as data_folder
from pcl_lib.data.labels import hashed_split
from pcl_lib.utils import BadInput

N, SIZE = 23, 6


def pictures(n: int = N, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def labels(n: int = N) -> pd.DataFrame:
    return pd.DataFrame({"identity": [f"p{i % 7}" for i in range(n)], "yaw": np.linspace(-60, 60, n)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pairs = pd.DataFrame({"first": [0, 1], "second": [7, 2], "same": [True, False], "fold": [0, 9]})
    return data.write_prepared(
        tmp_path / "set", pictures(), labels(), name="toy", source="noise", shard_rows=5, pairs=pairs
    )


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_written_is_read(folder: Path) -> None:
    faces = data.PreparedFaces(folder)
    assert (len(faces), faces.name, faces.image_size) == (N, "toy", SIZE)
    assert faces.table[["identity", "yaw"]].equals(labels())
    assert faces.pairs is not None and faces.pairs["same"].tolist() == [True, False]
    whole = np.concatenate([np.load(folder / f"shard-{i:05d}.npy") for i in range(5)])
    assert np.array_equal(whole, pictures())
    assert {path.name for path in folder.iterdir()} == {
        *(f"shard-{i:05d}.npy" for i in range(5)), "faces.parquet", "pairs.parquet", "dataset.json"
    }  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        [22, 0, 7, 7, 13],
        np.array([3, 21, 4], dtype=np.int32),
        torch.tensor([19, 2]),
        pd.Series([4, 9]).to_numpy(),
        slice(20, 3, -2),
        slice(None),
        8,
        [],
    ],
)
def test_images_come_in_the_order_asked(folder: Path, rows: data_folder.Rows) -> None:
    got = data.PreparedFaces(folder).images(rows)
    wanted = pictures()[rows if not isinstance(rows, list | int) else np.array(rows, dtype=int).reshape(-1)]
    assert got.dtype == torch.uint8 and np.array_equal(got.numpy(), wanted)


def test_images_are_the_callers_own(folder: Path) -> None:
    faces = data.PreparedFaces(folder)
    faces.images(slice(0, 3)).zero_()
    assert np.array_equal(faces.images(slice(0, 3)).numpy(), pictures()[:3])


@pytest.mark.parametrize("rows", [[0, N], [-1], torch.tensor([4, 99])])
def test_a_row_that_is_not_there_is_named(folder: Path, rows: data_folder.Rows) -> None:
    with pytest.raises(BadInput, match=r"no row (23|-1|99)"):
        data.PreparedFaces(folder).images(rows)


def test_rows_must_be_whole_numbers(folder: Path) -> None:
    with pytest.raises(BadInput, match="whole numbers"):
        data.PreparedFaces(folder).images(np.array([1.0]))
    with pytest.raises(BadInput, match="no split 'dev'"):
        data.PreparedFaces(folder).split("dev")


def test_batches_of_any_length_make_the_same_folder(folder: Path, tmp_path: Path) -> None:
    cut = np.split(pictures(), [1, 1, 9, 20])
    pairs = data.PreparedFaces(folder).pairs
    parts = itertools.chain(map(torch.from_numpy, cut[:2]), cut[2:])
    data.write_prepared(tmp_path / "b", parts, labels(), name="b", source="s", shard_rows=5, pairs=pairs)
    assert data.PreparedFaces(tmp_path / "b").content_hash == data.PreparedFaces(folder).content_hash


def test_hashes_are_those_of_the_files(folder: Path) -> None:
    faces = data.PreparedFaces(folder)
    lines = ""
    for name in [f"shard-{i:05d}.npy" for i in range(5)] + ["faces.parquet", "pairs.parquet"]:
        lines += f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n"
    assert faces.verify() == faces.content_hash == hashlib.sha256(lines.encode()).hexdigest()
    shard = bytearray((folder / "shard-00002.npy").read_bytes())
    shard[-1] ^= 1
    (folder / "shard-00002.npy").write_bytes(shard)
    with pytest.raises(BadInput, match=r"shard-00002\.npy has changed"):
        data.PreparedFaces(folder).verify()


def break_shard(folder: Path, keep: int) -> None:
    path = folder / "shard-00001.npy"
    path.write_bytes((path.read_bytes() + bytes(10))[:keep])


def point_nowhere(folder: Path) -> None:
    table = pd.read_parquet(folder / "faces.parquet")
    table.loc[6, "row"] = 5
    table.to_parquet(folder / "faces.parquet")


def relabel(folder: Path, column: str, value: object, others: object = 0.0) -> None:
    table = pd.read_parquet(folder / "faces.parquet")
    table[column] = [value if i == 9 else others for i in range(N)]
    table.to_parquet(folder / "faces.parquet")


FAULTS = {
    "no dataset.json": (lambda f: (f / "dataset.json").unlink(), "not a prepared folder"),
    "half-written": (
        lambda f: (f / "dataset.json").rename(f / "unfinished.json"),
        "half written; run the command",
    ),
    "foreign json": (lambda f: (f / "dataset.json").write_text("[1]"), "dataset.json does not describe"),
    "torn json": (lambda f: (f / "dataset.json").write_text('{"format'), "dataset.json cannot be read"),
    "newer": (lambda f: rewrite(f / "dataset.json", version=2), "of version 2"),
    "count": (lambda f: rewrite(f / "dataset.json", counts={"images": 24}), "faces.parquet has 23 rows"),
    "size": (lambda f: rewrite(f / "dataset.json", image_size=7), r"shard-00000\.npy holds uint8"),
    "shard missing": (lambda f: (f / "shard-00003.npy").unlink(), r"shard-00003\.npy is missing"),
    "shard short": (lambda f: break_shard(f, 300), r"shard-00001\.npy is incomplete"),
    "shard empty": (lambda f: break_shard(f, 0), r"shard-00001\.npy is incomplete"),
    "shard long": (lambda f: break_shard(f, 1000), r"shard-00001\.npy has a wrong size"),
    "shard type": (
        lambda f: np.save(f / "shard-00000.npy", np.zeros((5, 3, 6, 6), np.float32)),
        r"shard-00000\.npy holds float32",
    ),
    "table missing": (lambda f: (f / "faces.parquet").unlink(), r"faces\.parquet is missing"),
    "table torn": (lambda f: (f / "faces.parquet").write_bytes(b"PAR1"), r"faces\.parquet cannot be read"),
    "nowhere": (point_nowhere, r"faces\.parquet, row 6, points to image 5 of shard 1"),
    "angle": (lambda f: relabel(f, "yaw", 200.0), r"faces\.parquet, row 9: yaw is 200"),
    "infinite": (lambda f: relabel(f, "yaw", np.inf), "row 9: yaw is inf"),
    "unit": (lambda f: relabel(f, "au12", 5.5), r"row 9: au12 is 5\.5, not 0\.\.5"),
    "expression": (lambda f: relabel(f, "expression", "angry", None), "row 9: expression is angry"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_is_refused_and_the_fault_named(folder: Path, fault: str) -> None:
    spoil, sentence = FAULTS[fault]
    spoil(folder)
    with pytest.raises(BadInput, match=sentence) as caught:
        data.PreparedFaces(folder)
    assert str(folder) in str(caught.value)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder"):
        data.PreparedFaces(tmp_path / "none")
    with pytest.raises(BadInput, match="is empty"):
        data.PreparedFaces(tmp_path)


def test_pairs_that_point_nowhere(folder: Path) -> None:
    pairs = pd.read_parquet(folder / "pairs.parquet")
    pairs.assign(second=[7, N]).to_parquet(folder / "pairs.parquet")
    with pytest.raises(BadInput, match=r"pairs\.parquet, row 1: second is 23"):
        _ = data.PreparedFaces(folder).pairs


@pytest.mark.parametrize(
    ("images", "changes", "sentence"),
    [
        (pictures(22), {}, "22 images for 23 rows"),
        (pictures(0), {}, "0 images for 23 rows"),
        (pictures().astype(np.float32), {}, "must be uint8"),
        (pictures()[:, :1], {}, "must be uint8"),
        ([pictures(20), pictures(3, 8)], {}, "8 pixels follow images of 6"),
        (pictures(), {"table": labels().assign(identity=["a", 1] * 11 + ["b"])}, "give each column one type"),
        ([pictures(13), pictures(10, 8)], {}, "8 pixels follow images of 6"),
        (pictures(), {"image_size": 64}, "6 pixels where image_size is 64"),
        (pictures(), {"table": labels().assign(roll=181.0)}, "row 0: roll is 181"),
        (pictures(), {"table": labels().assign(split="dev")}, "split is dev"),
        (pictures(), {"table": labels().assign(au01="x")}, "au01 holds text"),
        (pictures(), {"extra": {"counts": 1}}, "counts itself"),
    ],
)
def test_bad_writing_leaves_nothing_that_passes_for_whole(
    tmp_path: Path, images: np.ndarray, changes: dict, sentence: str
) -> None:
    options = {"table": labels(), "name": "x", "source": "y", "shard_rows": 10} | changes
    with pytest.raises(BadInput, match=sentence):
        data.write_prepared(tmp_path / "set", images, **options)
    with pytest.raises(BadInput, match=r"no folder|empty|half written"):
        data.PreparedFaces(tmp_path / "set")
    data.write_prepared(
        tmp_path / "set", pictures(), labels(), name="x", source="y"
    )  # a second try goes through
    assert np.array_equal(data.PreparedFaces(tmp_path / "set").images(slice(None)).numpy(), pictures())


def test_what_is_there_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="already holds a prepared set"):
        data.write_prepared(folder, pictures(), labels(), name="x", source="y")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(BadInput, match=r"other files \(thesis\.tex"):
        data.write_prepared(tmp_path / "mine", pictures(), labels(), name="x", source="y")
    with pytest.raises(BadInput, match=r"cannot write .*thesis"):
        data.write_prepared(
            tmp_path / "mine" / "thesis.tex" / "x", pictures(), labels(), name="x", source="y"
        )


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    calls = iter(range(100))

    def refuse_third(_: int) -> None:
        if next(calls) == 2:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(utils.os, "fsync", refuse_third)
    with pytest.raises(BadInput, match=r"cannot write .*shard-00002"):
        data.write_prepared(tmp_path / "s", pictures(), labels(), name="x", source="y", shard_rows=5)
    kept = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert kept == ["shard-00000.npy", "shard-00001.npy", "unfinished.json"]
    assert np.array_equal(np.load(tmp_path / "s" / kept[1]), pictures()[5:10])


def test_split_keeps_identities_apart(tmp_path: Path) -> None:
    table = pd.DataFrame({"identity": np.repeat(np.arange(40), 3)})
    split = hashed_split(table)
    assert table.groupby(split)["identity"].nunique().to_dict() == {"train": 28, "validation": 6, "test": 6}
    assert (split.groupby(table["identity"]).nunique() == 1).all()
    turned = table.sample(frac=1, random_state=1)
    assert hashed_split(turned).sort_index().equals(split)
    data.write_prepared(tmp_path / "s", pictures(120), table, name="x", source="y")
    faces = data.PreparedFaces(tmp_path / "s")
    rows = [faces.split(name) for name in ("train", "validation", "test")]
    assert sorted(np.concatenate(rows)) == list(range(120)) and [len(r) for r in rows] == [84, 18, 18]
    with pytest.raises(BadInput, match="too few to split"):
        hashed_split(table[:4])


def test_somebody_unknown_is_in_no_split_and_nobody_in_two(tmp_path: Path) -> None:
    truth = np.repeat([f"person {i}" for i in range(12)], 4)
    told = pd.Series(truth, dtype=object).mask(
        np.arange(48) % 3 == 0
    )  # who is on each third image is not told
    data.write_prepared(
        tmp_path / "half", pictures(48), pd.DataFrame({"identity": told}), name="h", source="y"
    )
    faces = data.PreparedFaces(tmp_path / "half")
    with pytest.warns(UserWarning, match="16 images show somebody unknown, who may be one of the 12 people"):
        people = [set(truth[faces.split(name)]) for name in ("train", "validation", "test")]
    assert [len(p) for p in people] == [8, 2, 2] and len(set.union(*people)) == 12
    assert sum(len(faces.split(name)) for name in ("train", "validation", "test")) == 32


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (pd.DataFrame({"yaw": np.zeros(20)}), "who is on the images is not known"),
        (pd.DataFrame({"identity": [None] * 20}), "give a column split, or a column identity"),
        (pd.DataFrame({"identity": ["ann", "bo"] * 10}), "2 people are too few"),
        (pd.DataFrame({"identity": ["ann"] * 19 + [None]}), "1 person is too few"),
    ],
)
def test_where_people_cannot_be_kept_apart_all_is_train(
    tmp_path: Path, table: pd.DataFrame, told: str
) -> None:
    data.write_prepared(tmp_path / "s", pictures(20), table, name="x", source="y")
    faces = data.PreparedFaces(tmp_path / "s")
    with pytest.warns(UserWarning, match=told):
        assert len(faces.split("train")) == 20
    assert not len(faces.split("validation")) and not len(faces.split("test"))


def test_one_row_of_each_identity_an_epoch() -> None:
    table = pd.DataFrame({"identity": ["a", "b", "a", None, "c", "a", None, "b", "a"]})
    index = data.identity_index(table, np.array([8, 0, 1, 2, 3, 5, 6, 7]))
    owners = {0: "a", 2: "a", 5: "a", 8: "a", 1: "b", 7: "b", 3: "none 3", 6: "none 6"}
    rng = np.random.default_rng(0)
    drawn = np.stack([index.epoch_rows(rng) for _ in range(4000)])
    assert drawn.shape == (4000, len(index)) == (4000, 4) and drawn.dtype == np.int64
    assert all(
        sorted(owners[row] for row in epoch) == ["a", "b", "none 3", "none 6"] for epoch in drawn[:200]
    )
    share = {row: (drawn == row).mean() * 4 for row in owners}
    wanted = {"a": 1 / 4, "b": 1 / 2, "none 3": 1.0, "none 6": 1.0}
    assert all(
        abs(share[row] - wanted[who]) < 0.05 for row, who in owners.items()
    )  # 5 standard errors or more
    assert abs((drawn[:, 0] == 3).mean() - 1 / 4) < 0.04  # the order is random, too
    again = index.epoch_rows(np.random.default_rng(3)), index.epoch_rows(np.random.default_rng(3))
    assert np.array_equal(*again)
    with pytest.raises(BadInput, match="split is empty"):
        data.identity_index(table, np.array([], dtype=int))


def fed(source: data.ImageSource, order: list[np.ndarray]) -> Iterator[torch.Tensor]:
    """Batches as training gets them."""
    return data.read_ahead(map(source.take, order), source)


@pytest.mark.parametrize("size", [None, 4])
def test_resident_and_streamed_batches_are_the_same(
    folder: Path, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CHUNK", 4)
    faces = data.PreparedFaces(folder)
    rows = np.array([20, 3, 4, 11, 0, 16, 7])
    order = [np.array([3, 20, 0]), np.array([7]), np.array([16, 11, 11, 4])]
    streamed = data.ImageSource(faces, rows, size=size, budget_bytes=7 * 3 * (size or SIZE) ** 2 - 1)
    resident = data.ImageSource(faces, rows, size=size, budget_bytes=7 * 3 * (size or SIZE) ** 2)
    assert resident.resident and not streamed.resident
    for a, b, asked in zip(fed(resident, order), fed(streamed, order), order, strict=True):
        wanted = data.resize_images(torch.from_numpy(pictures()[asked]), size or SIZE)
        assert torch.equal(a, wanted) and torch.equal(b, wanted)
    for source in (streamed, resident):
        with pytest.raises(BadInput, match=r"row 5 .*not among"):
            source.take(np.array([3, 5]))
        with pytest.raises(BadInput, match="outside"):
            source.take(np.array([N]))


@pytest.mark.parametrize(("cores", "elsewhere"), [(1, False), (64, True)])
def test_the_next_batch_is_read_beside_where_a_core_is_idle(
    folder: Path, cores: int, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches.os, "cpu_count", lambda: cores)
    source = data.ImageSource(data.PreparedFaces(folder), np.arange(4), resident=False)
    readers = []

    def take(row: int) -> torch.Tensor:
        readers.append(threading.get_ident())
        return source.take(np.array([row]))

    found = [int(batch[0, 0, 0, 0]) for batch in data.read_ahead(map(take, range(4)), source)]
    assert found == [int(pictures()[row][0, 0, 0]) for row in range(4)]
    assert ({*readers} != {threading.get_ident()}) == elsewhere


def test_streaming_passes_errors_on(folder: Path) -> None:
    source = data.ImageSource(data.PreparedFaces(folder), np.arange(4), resident=False)
    with pytest.raises(BadInput, match="not among"):
        list(fed(source, [np.array([0]), np.array([4]), np.array([1])]))


def test_shrinking_averages_with_a_tent() -> None:
    ramp = torch.arange(0, 160, 10, dtype=torch.uint8).expand(1, 3, 16, 16)
    got = data.resize_images(ramp, 8)
    assert torch.equal(
        got[0, 0, 3, 1:-1], torch.arange(25, 145, 20, dtype=torch.uint8)
    )  # a tent keeps a ramp
    stripes = torch.tensor([200, 0, 0, 0] * 4, dtype=torch.uint8).expand(1, 3, 16, 16)
    assert (data.resize_images(stripes, 4)[..., 1:-1] == 50).all()  # every stripe counts: no aliasing
    assert data.resize_images(ramp, 16) is ramp


def test_pairs_are_balanced_distinct_and_folds_disjoint() -> None:
    table = pd.DataFrame({"identity": np.tile(np.arange(45), 6)})
    rows = np.flatnonzero(table["identity"] >= 5)
    pairs = data.make_pairs(table, rows, seed=2)
    assert pairs is not None and set(pairs["first"]) | set(pairs["second"]) <= set(rows)
    left, right = (table["identity"].to_numpy()[pairs[side]] for side in ("first", "second"))
    assert np.array_equal(left == right, pairs["same"])
    assert not pd.DataFrame(np.sort(pairs[["first", "second"]], axis=1)).duplicated().any()
    assert (
        set(pairs.groupby(["fold", "same"]).size()) == {60} and pairs["fold"].nunique() == 10
    )  # 4 people x 15
    folds = pd.concat([pairs["fold"]] * 2).groupby(np.concatenate([left, right])).nunique()
    assert (folds == 1).all() and len(folds) == 40
    again = data.make_pairs(table, rows, seed=2)
    assert (
        again is not None and again.equals(pairs) and not pairs.equals(data.make_pairs(table, rows, seed=3))
    )


def test_many_and_few_pairs() -> None:
    table = pd.DataFrame({"identity": np.tile(np.arange(20), 300)})  # folds of 600 images: drawn, not listed
    pairs = data.make_pairs(table, np.arange(6000))
    assert pairs is not None and len(pairs) == 6000 and pairs["same"].sum() == 3000
    left, right = (table["identity"].to_numpy()[pairs[side]] for side in ("first", "second"))
    assert np.array_equal(left == right, pairs["same"]) and (pairs["first"] != pairs["second"]).all()
    assert not pairs.duplicated(["first", "second"]).any()
    few = data.make_pairs(table, np.flatnonzero(table["identity"] < 7)[:14])
    assert few is not None and few["fold"].nunique() == 3
    assert data.make_pairs(table, np.arange(20)) is None  # one image each: no pair is of one person
    assert data.make_pairs(table, np.array([0, 20])) is None  # one person


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """In place of pcl_lib.faces: images that tell who is on them, and a count of those drawn."""
    state = types.SimpleNamespace(drawn=0, stop_at=10**9, clutter=None)

    def sample_factors(
        n: int, seed: int, *, identities: int, first_identity: int = 0, clutter: float = 0.5
    ) -> pd.DataFrame:
        state.clutter = clutter
        people = first_identity + np.arange(n) % identities
        return pd.DataFrame({"identity": people, "yaw": np.arange(n) % 90.0 + seed})

    def render(f: pd.DataFrame, size: int) -> torch.Tensor:
        assert list(f.columns) == ["identity", "yaw"]
        if state.drawn >= state.stop_at:
            raise KeyboardInterrupt
        state.drawn += len(f)
        level = torch.tensor((f["identity"] + f["yaw"]).to_numpy()).byte()
        return level[:, None, None, None].expand(-1, 3, size, size)

    module = types.ModuleType("pcl_lib.faces")
    module.sample_factors, module.render = sample_factors, render  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pcl_lib.faces", module)
    clips = types.ModuleType("pcl_lib.faces.clips")  # imported with it, whoever has imported it before
    clips.sample_clips = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pcl_lib.faces.clips", clips)
    monkeypatch.setattr(rendered, "RENDER_ROWS", 30)
    monkeypatch.setattr(rendered, "RENDER_BATCH", 8)
    return state


def test_rendered_faces_and_their_splits(tmp_path: Path, painter: types.SimpleNamespace) -> None:
    options = {"identities": (12, 4, 9), "images_per_identity": 5, "size": 4, "progress": False}
    faces = data.prepare_rendered(tmp_path / "r", **options)
    who = faces.table["identity"].to_numpy()
    assert [set(who[faces.split(name)]) for name in ("train", "validation", "test")] == [
        set(range(12)), set(range(12, 16)), set(range(16, 25))
    ]  # fmt: skip
    assert np.array_equal(faces.images(slice(None))[:, 0, 0, 0], who + np.arange(125) % 90)
    assert painter.drawn == 125 and painter.clutter == 0.5
    assert faces.pairs is not None and set(who[faces.pairs["first"]]) <= set(range(16, 25))
    with pytest.raises(BadInput, match="seed 0, where seed 1"):
        data.prepare_rendered(tmp_path / "r", seed=1, **options)
    with pytest.raises(BadInput, match="at least one identity"):
        data.prepare_rendered(tmp_path / "q", **options | {"identities": (3, 0, 1)})


@pytest.mark.parametrize("first", [{"frames_per_clip": 5}, {"first_identity": 1000}])
def test_a_folder_of_clips_or_other_people_is_not_taken_for_stills(
    tmp_path: Path, painter: types.SimpleNamespace, first: dict[str, int]
) -> None:
    options = {"identities": (12, 4, 9), "images_per_identity": 5, "size": 4, "progress": False}
    faces = data.prepare_rendered(tmp_path / "r", **options)
    record = json.loads((tmp_path / "r" / "dataset.json").read_text())
    record["settings"] |= first
    (tmp_path / "r" / "dataset.json").write_text(json.dumps(record))
    with pytest.raises(
        BadInput, match=f"with {next(iter(first))} .*, where {next(iter(first))} None is wanted"
    ):
        data.prepare_rendered(tmp_path / "r", **options)
    assert len(faces) == painter.drawn == 125


def test_rendering_goes_on_where_it_was_stopped(
    tmp_path: Path, painter: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {
        "identities": (12, 4, 9),
        "images_per_identity": 5,
        "size": 4,
        "clutter": 0.1,
        "progress": False,
    }
    painter.stop_at = 70
    with pytest.raises(KeyboardInterrupt):
        data.prepare_rendered(tmp_path / "r", **options)
    with pytest.raises(BadInput, match="half written"):
        data.PreparedFaces(tmp_path / "r")
    painter.drawn, painter.stop_at = 0, 10**9
    faces = data.prepare_rendered(tmp_path / "r", **options)
    assert painter.drawn == 125 - 60 and "after the 60 faces" in capsys.readouterr().out
    whole = data.prepare_rendered(tmp_path / "s", **options)
    assert faces.verify() == whole.verify() and painter.clutter == 0.1
    painter.drawn = 0
    data.prepare_rendered(tmp_path / "r", **options)
    assert painter.drawn == 0 and "Using the 125 rendered faces" in capsys.readouterr().out


def test_other_settings_do_not_go_on(tmp_path: Path, painter: types.SimpleNamespace) -> None:
    options = {"identities": (12, 4, 9), "images_per_identity": 5, "size": 4, "progress": False}
    painter.stop_at = 70
    with pytest.raises(KeyboardInterrupt):
        data.prepare_rendered(tmp_path / "r", seed=1, **options)
    painter.drawn, painter.stop_at = 0, 10**9
    faces = data.prepare_rendered(tmp_path / "r", **options)
    assert painter.drawn == 125 and faces.images(0)[0, 0, 0, 0] == 0  # with seed 1 it would be 1


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_more_shards_than_files_that_may_be_open(tmp_path: Path) -> None:
    import resource

    table = pd.DataFrame({"identity": np.arange(200)})
    data.write_prepared(tmp_path / "s", pictures(200), table, name="x", source="y", shard_rows=1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, limits[1]))
    try:
        faces = data.PreparedFaces(tmp_path / "s")
        assert np.array_equal(faces.images(slice(None)).numpy(), pictures(200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    faces.images([3])[:] = 0  # a copy: neither the map nor the file changes
    assert np.array_equal(faces.images([3]).numpy(), pictures(200)[3:4])


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")
def test_two_writers_of_one_folder(tmp_path: Path) -> None:
    with (
        writer.FolderWriter(tmp_path / "s"),
        pytest.raises(BadInput, match="another process is writing"),
    ):
        writer.FolderWriter(tmp_path / "s")


@pytest.mark.parametrize("missing", ["flock", "fcntl"])
def test_sets_are_written_where_nothing_can_be_locked(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_locks(missing, monkeypatch)
    with pytest.warns(UserWarning, match=r"set cannot be locked here \(Function not implemented\)"):
        folder = data.write_prepared(
            tmp_path / "set",
            blob_images(4, 16),
            pd.DataFrame({"identity": [0, 0, 1, 1]}),
            name="x",
            source="y",
        )
    assert len(data.PreparedFaces(folder)) == 4


def test_a_full_disk_keeps_the_shards_that_are_whole(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("40k")
    images, table = blob_images(64, 16), pd.DataFrame({"identity": range(64)})
    with pytest.raises(BadInput, match=r"shard-0000\d.npy: the disk is full: free some space"):
        data.write_prepared(disk / "set", images, table, name="x", source="y", shard_rows=16)
    with pytest.raises(BadInput, match="half written"):
        data.PreparedFaces(disk / "set")
    assert [path.name for path in (disk / "set").glob("*.npy")] and not list((disk / "set").glob(".*"))
