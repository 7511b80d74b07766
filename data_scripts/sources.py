"""What lies below ROOT: image files in order, links that stay inside, archives unpacked with care."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from data_scripts.listing import LeftOut
from pcl_lib.utils import BadInput, make_folder, readable_errors, write_json

MAX_PIXELS = 80_000_000  # more is taken for a decompression bomb
MIN_SIDE = 8  # pixels; less cannot show a face
SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif", ".jp2"
)  # fmt: skip
UNREAD = {
    suffix: f"pictures of the form {suffix[1:].upper()} are not read; convert it to JPEG or PNG"
    for suffix in (
        ".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".xcf", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng",
        ".orf", ".rw2", ".raf", ".exr", ".dcm", ".tga", ".pcx"
    )
}  # fmt: skip
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")
# Beside the one folder of an archive these are no content.
LITTER = re.compile(
    r"thumbs\.db|desktop\.ini|(read.?me|licen[cs]e|copying|citation|changelog|about|terms)[^/]*"
    r"|.*\.(md|html?|pdf|docx?|rtf|url|nfo|md5|sha1|sha256|bib|lnk)",
    re.IGNORECASE,
)
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
CLOSED = re.compile(  # archives that are not opened here, parts of one, and single packed files
    r".+\.(7z|rar|gz|bz2|xz|zst|tzst|lz4|lzma|cab|ace|arj|iso|dmg|z\d\d|(zip|7z|rar|tar|gz|tgz)\.(\d{3}|part\w*))|.+_part[a-z]{2}",
    re.IGNORECASE,
)
MARKER = ".unpacked.json"  # written last, says of which archive the folder is a whole copy
COPY = 1 << 20  # bytes at a time


def printable(name: str) -> str:
    """A file's name as text that every file and terminal takes: bytes that are not UTF-8 become \\xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def inside(root: Path, file: str) -> Path:
    """The path of `file` below `root`. Raises BadInput where it, or what it links to, lies elsewhere."""
    path = os.path.join(root, file)  # strings: this is done for every image
    folder, name = os.path.split(path)
    real = os.path.realpath(path) if os.path.islink(path) else os.path.join(_real(folder), name)
    if name in ("", ".", "..") or not real.startswith(_real(str(root)).rstrip(os.sep) + os.sep):
        raise BadInput("leads out of the folder; refused")
    return Path(path)


def next_to(root: Path, file: str) -> Path:
    """`file` below `root`; what is not there of it, folders or file, by its name in other capitals."""
    path = inside(root, file)
    if path.exists():
        return path
    place = root
    for part in file.split("/"):
        there = (place / part).exists() or not place.is_dir()
        others = () if there else _in_small_letters(str(place)).get(part.lower(), ())
        place = Path(next(iter(others), place / part))
    return place


@lru_cache(maxsize=64)
def _in_small_letters(folder: str) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        names.setdefault(name.lower(), []).append(os.path.join(folder, name))
    return names


def find_files(root: Path, suffixes: Sequence[str] = SUFFIXES) -> tuple[list[str], LeftOut]:
    """Paths of all files below `root` with one of `suffixes`, "/" between folders, sorted; and what was left out.

    Left out are links, names that no table can hold and, where pictures are asked for, pictures of a form that is not
    read. Hidden files and folders (a leading dot, __MACOSX) are not looked at.
    Raises BadInput where there is no folder.
    """
    if not root.is_dir():
        raise BadInput(f"there is no folder {printable(str(root))}; give the folder that holds the images")
    found, left_out = [], LeftOut()
    for folder, folders, files in os.walk(root):
        here = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if here == "." else f"{here}/"
        for name in sorted(folders):
            if os.path.islink(os.path.join(folder, name)):
                left_out.add(prefix + name, "a link to a folder; links are not followed")
        folders[:] = [name for name in folders if not _hidden(name)]
        found += [
            prefix + file
            for file in files
            if file.lower().endswith(tuple(suffixes)) and not file.startswith(".")
        ]
        for file in sorted(files) if suffixes is SUFFIXES else ():
            if (told := UNREAD.get(os.path.splitext(file)[1].lower())) and not file.startswith("."):
                left_out.add(prefix + file, told)
    for file in found:
        if printable(file) != file:
            left_out.add(
                file, "its name, or a folder's, is not UTF-8; rename it (convmv renames whole trees)"
            )
    return sorted(file for file in found if printable(file) == file), left_out


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def other_files(root: Path) -> dict[str, int]:
    """How many files of each other suffix (small letters; "" for none) lie below `root`, archives left aside."""
    known = (*SUFFIXES, *UNREAD, *ARCHIVE_SUFFIXES)
    counts: Counter[str] = Counter()
    for _, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _hidden(name)]
        low = [file.lower() for file in files if not _hidden(file)]
        counts.update(
            os.path.splitext(file)[1]
            for file in low
            if not file.endswith(known) and not LITTER.fullmatch(file) and not CLOSED.fullmatch(file)
        )
    return dict(sorted(counts.items()))


def archives_below(root: Path) -> list[Path]:
    """The archives below `root`, of forms that are not opened too, sorted; hidden ones left aside."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _hidden(name)]
        found += [
            Path(folder, file)
            for file in files
            if not _hidden(file) and (is_archive(Path(folder, file)) or is_closed(Path(folder, file)))
        ]
    return sorted(found)


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its name there, its size, when it was changed (seconds), and what to open it by."""

    name: str
    size: int
    handle: zipfile.ZipInfo | tarfile.TarInfo
    changed: float
    fault: str = ""


def is_archive(path: Path) -> bool:
    """Whether `path` is a file that `unpacked` can open, by its suffix."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def is_closed(path: Path) -> bool:
    """Whether `path` is, by its suffix, an archive or packed file of a form that `unpacked` cannot open."""
    return (
        bool(CLOSED.fullmatch(path.name))
        and not path.name.lower().endswith(ARCHIVE_SUFFIXES)
        and path.is_file()
    )


def packed(root: Path, known: LeftOut) -> tuple[LeftOut, list[str]]:
    """The archives below `root`, which nobody has looked into, but for those in `known`; and a sentence on them."""
    told, left = known.frame()["file"].tolist(), LeftOut()
    below = [path.relative_to(root).as_posix() for path in archives_below(root)]
    names = [name for name in below if not any(f"/{other}".endswith(f"/{name}") for other in told)]
    left.extend(names, "an archive, not looked into; if it belongs to the set, unpack it there and run again")
    shown = ", ".join(names[:3]) + (", ..." if names[3:] else "")
    return left, [
        f"still packed, and not looked into: {shown}; unpack there what belongs to the set"
    ] if names else []


def unpack_folder(out: Path) -> Path:
    """Where the content of an archive lies while `out` is made of it."""
    return Path(f"{out.absolute()}.unpacked")


@contextlib.contextmanager
def unpacked(root: Path, out: Path) -> Iterator[tuple[Path, LeftOut]]:
    """`root` itself where it is a folder; a folder of its content where it is an archive; and members refused.

    The copy lies next to `out`, as OUT.unpacked. It is removed once the block ends well; after a failure it stays, and
    the next try uses it if it is whole. Archives within it are unpacked where they lie, once. Where all of an archive
    lies in one folder, litter left aside, that one is given.
    Raises BadInput where the archive is of another form, cannot be read, or does not fit on the disk.
    """
    if is_closed(root):
        raise BadInput(
            f"{root} is an archive of a form that is not opened here (only {' '.join(ARCHIVE_SUFFIXES)});"
            " unpack it, and give the folder"
        )
    if not is_archive(root):
        yield root, LeftOut()
        return
    into = unpack_folder(out)
    about = root.stat()
    identity = {"archive": printable(root.name), "bytes": about.st_size, "changed": about.st_mtime_ns}
    marker, begun = into / MARKER, into / (MARKER + ".part")
    if marker.exists() and json.loads(marker.read_text())["of"] == identity:
        refused = json.loads(marker.read_text())["refused"]
    else:
        # An empty folder is what a kill leaves between making it and marking it.
        if into.exists() and not (marker.exists() or begun.exists()) and any(into.iterdir()):
            raise BadInput(f"{into} is in the way, and not of this kit; move it, or choose another OUT")
        _remove_copy(into)
        make_folder(into)
        with readable_errors(into):
            begun.touch()
            refused = unpack(root, into) + unpack_inner(into)
            write_json(marker, {"of": identity, "refused": refused})
            begun.unlink()
    left_out = LeftOut()
    for name, reason in refused:
        left_out.add(name, reason)
    yield single_folder(into), left_out
    _remove_copy(into)


def _remove_copy(folder: Path) -> None:
    """Remove an unpacked copy; wherever a kill stops it, what is left is known to be ours, and no whole copy."""
    with contextlib.suppress(OSError):
        if (folder / MARKER).exists():
            (folder / MARKER).replace(folder / (MARKER + ".part"))
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != MARKER + ".part":
                path.unlink()
        (folder / (MARKER + ".part")).unlink(missing_ok=True)
        folder.rmdir()


def single_folder(folder: Path) -> Path:
    """The innermost folder that holds all there is below `folder`, hidden files and `LITTER` left aside."""
    while True:
        inner = [
            path for path in folder.iterdir() if not _hidden(path.name) and not LITTER.fullmatch(path.name)
        ]
        if len(inner) != 1 or not inner[0].is_dir() or inner[0].is_symlink():
            return folder
        folder = inner[0]


def unpack_inner(folder: Path) -> list[tuple[str, str]]:
    """Unpack the archives below `folder` where they lie, each into a folder of its name, and remove them.

    aligned.zip becomes aligned/; where all it holds is a folder of that name already, that one. Archives in archives
    in archives stay as they are. Returns what was refused, as `unpack` does; an archive that is damaged is left out.
    """
    refused = []
    for archive in filter(is_archive, archives_below(folder)):
        suffix = max((s for s in ARCHIVE_SUFFIXES if archive.name.lower().endswith(s)), key=len)
        place = archive.with_name(archive.name[: -len(suffix)] or archive.name)
        told = archive.relative_to(folder).as_posix()
        into = archive.with_name(f"{archive.name}.content")
        into.mkdir()
        try:
            refused += [(f"{told}/{name}", reason) for name, reason in unpack(archive, into)]
        except BadInput as error:
            refused.append((told, f"an archive in the archive that cannot be unpacked: {error}"))
            shutil.rmtree(into)
            continue
        archive.unlink()
        content = into / place.name
        whole = (
            content
            if content.is_dir() and [p for p in into.iterdir() if not _hidden(p.name)] == [content]
            else into
        )
        if place.exists():
            place = archive.with_name(f"{archive.name} content")
        whole.rename(place)
        shutil.rmtree(into, ignore_errors=True)
    return refused


def unpack(archive: Path, into: Path) -> list[tuple[str, str]]:
    """Copy the plain files of a .zip or .tar (gz, bz2, xz) below `into`; return the members refused, with reasons.

    Refused: names that leave the folder, absolute names, links, devices, encrypted members and second members of
    one name. Only contents are copied: no owners, no permissions. Raises BadInput where the archive is damaged or is
    larger, unpacked, than the disk has room for.
    """
    refused: list[tuple[str, str]] = []
    room = shutil.disk_usage(into).free
    seen: set[str] = set()
    try:
        with _opened(archive) as source:
            for member in _members(source):
                name, fault = printable(member.name), member.fault or _fault(member.name)
                if not fault and (key := str(_target(member.name))) in seen:
                    fault = "a second member of that name; the first counts"
                if fault:
                    refused.append((name, fault))
                    continue
                seen.add(key)
                room -= member.size
                if room < 0:
                    raise BadInput(
                        f"{archive}, unpacked, does not fit on the disk of {into}: free some space"
                    )
                _copy(source, member, into)
    except BadInput:
        raise
    except OSError as error:
        # The decompressors raise OSError without a number, and a damaged directory points to places that no file has.
        if error.errno in (None, errno.EINVAL) or "gzip" in str(error):
            raise BadInput(f"{archive} is damaged ({error}); download it again") from error
        raise
    except Exception as error:  # on damaged bytes the decompressors raise almost anything
        why = str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__
        raise BadInput(f"{archive} is damaged ({why}); download it again") from error
    return refused


def _opened(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if archive.name.lower().endswith(".zip"):
        return zipfile.ZipFile(archive)
    return tarfile.open(archive, mode="r:*", errors="surrogateescape")


def _members(source: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    if isinstance(source, zipfile.ZipFile):
        for info in source.infolist():
            if not info.is_dir():
                link = stat.S_ISLNK(info.external_attr >> 16)
                fault = "a link; refused" if link else "encrypted" if info.flag_bits & 1 else ""
                yield _Member(_name_of(info), info.file_size, info, _seconds(info), fault)
        return
    for entry in source:
        if not entry.isdir():
            fault = "" if entry.isreg() else "a link or a device; refused"
            yield _Member(entry.name, entry.size, entry, entry.mtime, fault)


def _name_of(info: zipfile.ZipInfo) -> str:
    """The name; where nothing says that it is UTF-8 and it is nevertheless, as Macs write it, read as that."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _seconds(info: zipfile.ZipInfo) -> float:
    try:
        return datetime.datetime(*info.date_time, tzinfo=datetime.UTC).timestamp()
    except ValueError:  # a zip may hold a month 0
        return 0.0


def _target(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def _fault(name: str) -> str:
    path = _target(name)
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        return "leads out of the archive; refused"
    if "\0" in name or not path.parts or any(len(os.fsencode(part)) > 255 for part in path.parts):
        return "no file can have that name; refused"
    return ""


def _copy(source: zipfile.ZipFile | tarfile.TarFile, member: _Member, into: Path) -> None:
    target = into / _target(member.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, zipfile.ZipFile):
        content: IO[bytes] | None = source.open(member.handle)  # type: ignore[arg-type]
    else:
        content = source.extractfile(member.handle)  # type: ignore[arg-type]
    assert content is not None  # a plain file
    with content, open(target, "xb") as file:
        shutil.copyfileobj(content, file, COPY)
    with contextlib.suppress(
        OSError, OverflowError, ValueError
    ):  # so that the same archive gives the same dates
        os.utime(target, (member.changed, member.changed))
