"""What scripts read: pictures of every kind, tables of pixels, videos, folders with links, archives with traps."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_scripts import sources, video
from data_scripts.images import csv_image, open_all, open_image
from data_scripts.listing import LeftOut
from data_scripts.sources import find_files, inside, packed, printable, unpacked
from pcl_lib.utils import BadInput


def picture(level: int = 90, size: tuple[int, int] = (20, 16)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def png(level: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture(level).save(buffer, "png")
    return buffer.getvalue()


def whole(*_: int) -> float:
    return 16.0


def reasons(left: LeftOut) -> dict[str, str]:
    return left.frame().set_index("file")["reason"].to_dict()


# Pictures ---------------------------------------------------------------------------------------------------


def test_cmyk_and_grey_jpegs(tmp_path: Path) -> None:
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    Image.new("L", (64, 64), 200).save(tmp_path / "g.jpg")
    for side in (8.0, 64.0):  # whole, and at a fraction
        red, _ = open_image(tmp_path / "c.jpg", lambda *_, s=side: s, 8)
        assert np.abs(np.asarray(red).mean((0, 1)) - (255, 0, 0)).max() < 6
        grey, _ = open_image(tmp_path / "g.jpg", lambda *_, s=side: s, 8)
        assert grey.mode == "RGB" and np.abs(np.asarray(grey).astype(int) - 200).max() < 3


@pytest.mark.parametrize("side", [8.0, 512.0])
def test_a_truncated_jpeg_is_told_at_any_fraction(tmp_path: Path, side: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(BadInput, match="truncated"):
        open_image(tmp_path / "a.jpg", lambda *_: side, 16)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20000, 20000)).save(tmp_path / "a.png")  # 50 kB that would be 1.2 GB
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with pytest.raises(BadInput, match="bomb"):
        open_image(tmp_path / "a.png", whole, 8)


def test_tables_of_pixels(tmp_path: Path) -> None:
    pixels = [np.random.default_rng(row).integers(0, 256, 144) for row in range(3)]
    texts = [" ".join(map(str, values)) for values in pixels] + ["1 2 3", "1 x", " ".join(["999"] * 144)]
    lines = [f"{i},{text},Training" for i, text in enumerate(texts)]
    (tmp_path / "f.csv").write_text("emotion, pixels,Usage\n" + "\n".join(lines))  # no newline at the end
    for row in (2, 0, 1):
        got = np.asarray(csv_image(tmp_path / "f.csv", row))
        assert (got == pixels[row].reshape(12, 12, 1)).all() and got.shape == (12, 12, 3)
    for row, reason in ((3, "3 pixels"), (4, "not whole numbers"), (5, "a pixel of 999"), (6, "no row 6")):
        with pytest.raises(BadInput, match=reason):
            csv_image(tmp_path / "f.csv", row)
    (tmp_path / "g.csv").write_text("emotion,Usage\n1,2\n")
    with pytest.raises(BadInput, match="no column pixels"):
        csv_image(tmp_path / "g.csv", 0)
    with pytest.raises(BadInput, match="No such file"):
        csv_image(tmp_path / "h.csv", 0)


def test_all_kinds_in_one_listing_and_in_order(tmp_path: Path) -> None:
    picture(10).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("pixels\n" + " ".join(["7"] * 64) + "\n" + " ".join(["8"] * 64) + "\n")
    files = ["a.png", "t.csv#row=1", "t.csv#row=0", "b.png", "../a.png", "v.mp4#t=0", "v.mp4#t=1", "a.png#1"]
    got = list(open_all(tmp_path, files, [whole] * len(files), 8))
    assert len(got) == len(files)
    levels = [np.asarray(g[0])[0, 0, 0] if not isinstance(g, BadInput) else str(g) for g in got]
    assert levels[:3] == [10, 8, 7] and levels[3] == levels[7] == "No such file or directory"
    assert "leads out of the folder" in levels[4] and all("video" in level for level in levels[5:7])


# Videos -----------------------------------------------------------------------------------------------------


def film(path: Path, levels: list[int], rate: int = 10, start: int = 0) -> None:
    """A grey film, one level a frame, with a key frame every 8 frames."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate, options={"g": "8"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 4_000_000
        for number, level in enumerate(levels):
            frame = av.VideoFrame.from_image(picture(level, (64, 48)))
            frame.pts = number + start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


LEVELS = [20 + 2 * i for i in range(95)]  # 9.5 seconds


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_one_frame_a_second_is_the_right_one(tmp_path: Path, suffix: str) -> None:
    film(tmp_path / f"v.{suffix}", LEVELS)
    left = LeftOut()
    names = video.list_frames(tmp_path, [f"v.{suffix}"], left)
    assert names == [f"v.{suffix}#t={t}" for t in range(10)] and not len(left)
    for wanted in (names, names[7:], names[9:], names[2:3]):  # from the beginning, or sought
        got = list(open_all(tmp_path, wanted, [whole] * len(wanted), 8))
        seconds = [int(name[-1]) for name in wanted]
        means = [np.asarray(g[0]).mean() if not isinstance(g, BadInput) else g for g in got]
        assert np.abs(np.array(means) - [LEVELS[10 * s] for s in seconds]).max() <= 1  # a frame off: 2 levels


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.avi", "mpeg4", {"bf": "2"}),
        ("v.avi", "libx264", {}),
        ("v.mp4", "libx264", {}),
        ("v.avi", "mpeg4", {}),
    ],
)
def test_a_numbered_frame_is_that_frame_whatever_the_times_say(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    import av

    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=20, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for number in range(40):
            frame = av.VideoFrame.from_image(picture(20 + 5 * number, (64, 48)))
            frame.pts = number + (20 if number > 19 and name.endswith("mp4") else 0)  # a pause in the middle
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    names = [f"{name}#n={number}" for number in (*range(40), 3, 40)]
    *got, again, gone = open_all(tmp_path, names, [whole] * len(names), 8)
    means = np.array([np.asarray(one[0]).mean() for one in (*got, again)])  # type: ignore[index]
    assert np.abs(means - [20 + 5 * number for number in (*range(40), 3)]).max() < 2.5
    assert "no frame 40 (from 0)" in str(gone)


def test_times_may_come_in_any_order(tmp_path: Path) -> None:
    film(tmp_path / "v.mp4", LEVELS)
    times = [0, 1, 8, 2, 3, 7, 7, 4]
    means = [np.asarray(got).mean() for got in video.frames(tmp_path / "v.mp4", times)]
    assert np.abs(np.array(means) - [LEVELS[10 * t] for t in times]).max() <= 1


def test_other_rates_and_what_is_not_there(tmp_path: Path) -> None:
    film(tmp_path / "v.mp4", LEVELS[:25])
    assert video.frame_times(tmp_path / "v.mp4", 0.4) == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4])
    first, second = video.frames(tmp_path / "v.mp4", [1.55, 8.0])
    assert isinstance(first, Image.Image) and abs(np.asarray(first).mean() - LEVELS[16]) < 1
    assert isinstance(second, BadInput) and "no frame at 8 s" in str(second)
    (tmp_path / "x.mp4").write_bytes(b"not a film" * 99)
    whole = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "y.mp4").write_bytes(whole[: len(whole) // 2])
    left = LeftOut()
    assert video.list_frames(tmp_path, ["x.mp4", "y.mp4", "z.mp4", "../v.mp4"], left, workers=2) == []
    told = reasons(left)
    assert (
        "not a video" in told["x.mp4"] and "not a video" in told["y.mp4"] and "not a video" in told["z.mp4"]
    )
    assert "leads out" in told["../v.mp4"]


# Folders ----------------------------------------------------------------------------------------------------


def test_links_names_and_hidden_files(tmp_path: Path) -> None:
    root, other = tmp_path / "in", tmp_path / "other"
    for folder in (root / "b", root / ".hidden", root / "__MACOSX", other):
        folder.mkdir(parents=True)
    for path in (
        root / "b/1.png",
        root / "a.JPG",
        root / ".x.png",
        root / ".hidden/2.png",
        root / "__MACOSX/1.png",
    ):
        picture().save(path, "png")
    picture().save(other / "secret.png")
    (root / "in.png").symlink_to("b/1.png")
    (root / "out.png").symlink_to(other / "secret.png")
    (root / "link").symlink_to(other)
    odd = os.fsdecode(b"caf\xe9.png")
    picture().save(root / "o.png")
    os.rename(root / "o.png", root / odd)
    found, left = find_files(root)
    assert found == ["a.JPG", "b/1.png", "in.png", "out.png"]
    told = reasons(left)
    assert set(told) == {"link", odd} and "not followed" in told["link"] and "not UTF-8" in told[odd]
    assert inside(root, "in.png").exists()
    for file in (
        "out.png",
        "link/secret.png",
        "../other/secret.png",
        "b/../../other/secret.png",
        "/etc/passwd",
        "..",
    ):
        with pytest.raises(BadInput, match="leads out"):
            inside(root, file)
    assert printable(odd) == "caf\\xe9.png" and printable("Zoë.png") == "Zoë.png"
    (tmp_path / "in2").symlink_to(root)  # the root itself may be a link
    assert find_files(tmp_path / "in2")[0] == found and inside(tmp_path / "in2", "b/1.png").exists()


# Archives ---------------------------------------------------------------------------------------------------


def tar(path: Path, members: list[tarfile.TarInfo | str], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
                member.size = len(png())
            archive.addfile(member, io.BytesIO(png()) if member.isreg() else None)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_a_tar_with_traps(tmp_path: Path) -> None:
    device = tarfile.TarInfo("set/tty")
    device.type = tarfile.CHRTYPE
    members = [
        "set/a/1.png", "set/a/2.png", "../evil.png", "/tmp/evil.png", "set/../../evil.png", "set/a/1.png",
        link("set/door", "/etc"), "set/door/passwd.png", link("set/hard", "set/a/1.png", tarfile.LNKTYPE), device,
    ]  # fmt: skip
    archive = tar(tmp_path / "x.tar.gz", members)
    with unpacked(archive, tmp_path / "out") as (root, left):
        files = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
        assert root.name == "set" and files == ["a/1.png", "a/2.png", "door/passwd.png"]
        assert (root / "a/1.png").read_bytes() == png() and not (root / "door").is_symlink()
        told = reasons(left)
    assert {name for name, why in told.items() if "leads out" in why} == {
        "../evil.png", "/tmp/evil.png", "set/../../evil.png"
    }  # fmt: skip
    assert {name for name, why in told.items() if "link or a device" in why} == {
        "set/door",
        "set/hard",
        "set/tty",
    }
    assert "second member" in told["set/a/1.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar.gz"]  # nothing outside, nothing left


def test_a_zip_with_traps(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("a/1.png", "b/1.png", "../evil.png", "C:\\evil.png", "a\\..\\..\\evil.png"):
            archive.writestr(name, png())
        door = zipfile.ZipInfo("door")
        door.external_attr = 0o120777 << 16
        archive.writestr(door, "/etc")
    with unpacked(tmp_path / "x.zip", tmp_path / "out") as (root, left):
        assert find_files(root)[0] == ["a/1.png", "b/1.png"] and root.name == "out.unpacked"
        assert sorted(reasons(left)) == ["../evil.png", "C:\\evil.png", "a\\..\\..\\evil.png", "door"]
    assert not (tmp_path / "out.unpacked").exists() and not (tmp_path.parent / "evil.png").exists()


def test_after_a_failure_the_copy_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar(tmp_path / "x.tar", ["s/1.png", "s/2.png"], "w")
    with pytest.raises(BadInput, match="later"), unpacked(archive, tmp_path / "out"):
        raise BadInput("later")
    assert (tmp_path / "out.unpacked/s/1.png").exists()
    with monkeypatch.context() as patch:
        patch.setattr(sources, "unpack", lambda *_: pytest.fail("unpacked again"))
        with pytest.raises(BadInput, match="later"), unpacked(archive, tmp_path / "out"):
            raise BadInput("later")
    (tmp_path / "out.unpacked" / sources.MARKER).unlink()  # as if killed on the way
    (tmp_path / "out.unpacked" / f"{sources.MARKER}.part").touch()
    (tmp_path / "out.unpacked/s/1.png").write_bytes(b"half")
    with unpacked(archive, tmp_path / "out") as (root, _):
        assert (root / "1.png").read_bytes() == png()
    (tmp_path / "out.unpacked").mkdir()
    (tmp_path / "out.unpacked/thesis.tex").touch()
    with pytest.raises(BadInput, match="in the way"), unpacked(archive, tmp_path / "out"):
        pass
    assert (tmp_path / "out.unpacked/thesis.tex").exists()


@pytest.mark.parametrize("name", ["x.7z", "X.RAR", "x.tar.zst", "x.zip.001", "x.z01"])
def test_an_archive_of_another_form_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"7z")
    told = pytest.raises(BadInput, match=r"not opened here .*unpack it, and give the folder")
    with told, unpacked(tmp_path / name, tmp_path / "o"):
        pass


def test_archives_in_a_folder_or_in_archives_are_never_passed_over_silently(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("more/a.7z", "b.rar", "c.tar.gz", "d.zip.001", "labels.csv.gz", "1.png", "note.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    left, (told,) = packed(root, LeftOut())
    assert sorted(reasons(left)) == ["b.rar", "c.tar.gz", "d.zip.001", "labels.csv.gz", "more/a.7z"]
    assert "still packed, and not looked into: b.rar, c.tar.gz, d.zip.001, ..." in told
    assert sources.other_files(root) == {".txt": 1}
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        for name in ("x/1.png", "x/a.7z", "x/deep.zip"):
            archive.writestr(name, png())
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "s/inner.zip")
        archive.writestr("s/broken.zip", b"none")
    with unpacked(tmp_path / "outer.zip", tmp_path / "out") as (folder, refused):
        assert [name for name in reasons(refused) if "broken" in name] and find_files(folder)[0]
        assert sorted(name.split("/")[-1] for name in reasons(packed(folder, refused)[0])) == [
            "a.7z",
            "deep.zip",
        ]


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar", "y.tgz"])
def test_damaged_archives(tmp_path: Path, name: str) -> None:
    if name == "y.tgz":
        content = tar(tmp_path / "w.tgz", [f"{i}.png" for i in range(99)]).read_bytes()
        content = content[: len(content) // 2]
    else:
        content = b"no archive at all" * 99
    (tmp_path / name).write_bytes(content)
    with (
        pytest.raises(BadInput, match=r"is damaged .*download it again"),
        unpacked(tmp_path / name, tmp_path / "o"),
    ):
        pass


def test_an_archive_larger_than_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar(tmp_path / "x.tar", ["1.png", "2.png"], "w")
    room = sources.shutil.disk_usage(tmp_path)._replace(free=len(png()) + 10)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: room)
    with pytest.raises(BadInput, match="does not fit"), unpacked(archive, tmp_path / "o"):
        pass


@pytest.mark.parametrize("step", range(12))
def test_a_kill_while_unpacking_or_removing_never_stands_in_the_way(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends at each of the changes to the file system in turn; the next try gets the whole content."""
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for number in range(3):
            made.writestr(f"a/{number}.txt", str(number))
    done = []

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            if len(done) == step:
                raise KeyboardInterrupt
            done.append(real)
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "mkdir"), (Path, "touch"), (Path, "unlink"), (Path, "rmdir"), (Path, "replace"),
                            (os, "replace"), (shutil, "copyfileobj"), (shutil, "rmtree")):  # fmt: skip
            patch.setattr(owner, name, counted(getattr(owner, name)))
        with suppress(KeyboardInterrupt), unpacked(archive, tmp_path / "out"):
            pass
    with unpacked(archive, tmp_path / "out") as (root, _):
        assert sorted(path.name for path in root.iterdir()) == ["0.txt", "1.txt", "2.txt"]
    assert not (tmp_path / "out.unpacked").exists()


def test_names_of_a_zip_that_are_utf8_without_saying_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("faces/Zoë/1.jpg", b"x")
        archive.writestr("faces/ann/1.jpg", b"y")
    flagged = (tmp_path / "a.zip").read_bytes()
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of each local and central header
        at = flagged.find(mark)
        while at >= 0:
            flags = int.from_bytes(flagged[at + place : at + place + 2], "little") & ~0x800
            flagged = flagged[: at + place] + flags.to_bytes(2, "little") + flagged[at + place + 2 :]
            at = flagged.find(mark, at + 4)
    (tmp_path / "b.zip").write_bytes(flagged)
    with unpacked(tmp_path / "b.zip", tmp_path / "out") as (root, _):
        assert sorted(path.name for path in root.iterdir()) == ["Zoë", "ann"]


def test_archives_in_an_archive_keep_the_dots_of_their_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("J.Smith", "J.Doe", "Ann.Lee"):
            with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
                inner.writestr("1.jpg", name)
            archive.write(tmp_path / "inner.zip", f"faces/{name}.zip")
    with unpacked(tmp_path / "a.zip", tmp_path / "out") as (root, _):
        assert {path.parent.name: path.read_text() for path in root.rglob("*.jpg")} == {
            name: name for name in ("J.Smith", "J.Doe", "Ann.Lee")
        }


def test_frames_are_turned_as_the_container_says(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        left = np.zeros((48, 64, 3), np.uint8)
        left[:, :32] = 220
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(left, format="rgb24")))
        container.mux(stream.encode())
    whole = (tmp_path / "v.mp4").read_bytes()
    one, zero, minus = b"\0\1\0\0", bytes(4), b"\xff\xff\0\0"
    plain, quarter = one + zero * 3 + one, zero + one + zero + minus + zero  # the x and y of a track's matrix
    at = whole.index(plain, whole.index(b"tkhd"))
    (tmp_path / "v.mp4").write_bytes(whole[:at] + quarter + whole[at + 20 :])
    (frame,) = video.frames(tmp_path / "v.mp4", [0.0])
    assert isinstance(frame, Image.Image) and frame.size == (48, 64)
    grey = np.asarray(frame.convert("L"))
    assert grey[:24].min() > 180 and grey[40:].max() < 60  # a turn to the right: what was left is above
