"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcl_lib.errors import BadInput

_REASONS = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EACCES: "no permission to write there: choose another folder",
    errno.EPERM: "no permission to write there: choose another folder",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "a file of that name is in the way: choose another folder",
}


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of writing `path` into BadInput with the remedy."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
        raise BadInput(f"cannot write {path}: {reason}") from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents. Raises BadInput where that cannot be done."""
    with readable_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_writable(folder: Path) -> None:
    """Make `folder` and try a file in it, so that hours of work do not end at a closed door. Raises BadInput."""
    make_folder(folder)
    with readable_errors(folder):
        tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` once the block ends well.

    Raises BadInput on a full disk or a folder that cannot be written; what was at `path` stays.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with readable_errors(path):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
