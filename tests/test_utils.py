"""pcl_lib.utils and pcl_lib.utils: a file is whole or not there, and a refusal is one sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pcl_lib import utils
from pcl_lib.utils import (
    BadInput,
    check_writable,
    exit_cleanly,
    make_folder,
    readable_errors,
    replace_atomically,
)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "log.csv"
    for text in ("one", "two"):
        with replace_atomically(path) as temporary:
            assert temporary.parent == path.parent  # same file system: the rename is atomic
            temporary.write_text(text)
        assert path.read_text() == text
    assert listing(path.parent) == ["log.csv"]


def test_a_block_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replace_atomically(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and listing(tmp_path) == ["log.csv"]


def test_a_full_disk_is_a_sentence_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("old")
    with pytest.raises(BadInput, match=r"cannot write .*log.csv: the disk is full: free") as caught:  # noqa: SIM117
        with replace_atomically(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and listing(tmp_path) == ["log.csv"]


def test_a_rename_that_fails_is_a_sentence_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises(BadInput, match="the file system is read-only: choose"),
        replace_atomically(tmp_path / "a") as temporary,
    ):
        temporary.write_text("new")
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EPERM, "no permission"),
        (errno.EIO, "the disk reports an input/output error"),
        (errno.EDQUOT, "your quota of this disk is used up"),
        (errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)),
    ],
)
def test_reasons_are_named(code: int, said: str) -> None:
    with pytest.raises(BadInput, match=f"cannot write here: {said}"), readable_errors(Path("here")):
        raise OSError(code, "?")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="a part of the path is a file: choose another folder"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(BadInput, match="a file of that name is in the way"):
        make_folder(tmp_path / "file")


def test_a_closed_door_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "new" / "er")
    assert listing(tmp_path / "new" / "er") == []

    def refuse(**_: object) -> None:  # root may write anywhere, so the refusal is acted
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(BadInput, match="no permission to write there: choose another folder"):
        check_writable(tmp_path)


def test_bad_input_is_a_sentence_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise BadInput("no such thing: try another")

    with pytest.raises(SystemExit) as caught:
        exit_cleanly(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: no such thing: try another\n"


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_cleanly(lambda: 1 // 0 and None)


def test_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from pcl_lib.utils import replace_atomically\n"
        f"with replace_atomically(Path({str(path)!r})) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9 and path.read_text() == "old"


def test_versions_and_commit_say_what_ran() -> None:
    assert "torch 2" in utils.versions()
    head = subprocess.run(
        ["git", "-C", utils.REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    if head.returncode == 0:
        assert head.stdout.startswith(utils.commit().removesuffix("-dirty"))
