"""pcl_lib.utils and pcl_lib.utils: a file is whole or not there, and a refusal is one sentence."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

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


def test_a_cell_of_a_notebook_shows_the_sentence_alone(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()
    shell.user_ns["refuse"] = utils.BadInput
    assert not shell.run_cell('raise refuse("two\\nlines")').success
    assert capsys.readouterr().out.strip() == "BadInput: two lines"


def test_a_kernel_older_than_the_sources_is_told_to_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = max(path.stat().st_mtime for path in utils.PACKAGE.rglob("*.py"))
    monkeypatch.setattr(utils, "LOADED", newest + 1)
    assert utils.stale() == ""
    monkeypatch.setattr(utils, "LOADED", newest - 1)
    assert "Restart Kernel" in utils.stale()


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


def test_a_handle_that_is_flushed_is_open_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to flush a handle opened for reading (EBADF), as this fsync does."""
    fcntl = pytest.importorskip("fcntl")

    def flush(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(os, "fsync", flush)
    with replace_atomically(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


def test_whole_files_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        utils.write_whole(tmp_path / "weights", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_keeps_the_old_file(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("200k")
    utils.write_whole(disk / "state", b"old")
    with pytest.raises(BadInput, match="state: the disk is full: free some space"):
        utils.write_whole(disk / "state", bytes(400_000))
    assert listing(disk) == ["state"] and (disk / "state").read_bytes() == b"old"


WAIT = (
    "import sys, time; from pathlib import Path; from pcl_lib.utils import exit_cleanly, only_one\n"
    "def main():\n"
    "    with only_one(Path(sys.argv[1]), 'the folder'):\n"
    "        print('held', flush=True); time.sleep(60)\n"
    "exit_cleanly(main)"
)


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock."""
    command = [sys.executable, "-c", WAIT, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_process_is_refused_by_name_and_an_interrupt_gives_the_lock_back(
    tmp_path: Path, number: int
) -> None:
    path = tmp_path / ".lock"
    first = hold(path)
    with pytest.raises(BadInput, match=rf"the folder is in use by process {first.pid} on .*: wait"):  # noqa: SIM117
        with utils.only_one(path, "the folder"):
            pytest.fail("two at a time")
    first.send_signal(number)
    said = first.communicate(timeout=30)[1]
    assert first.returncode == 130 and "Traceback" not in said
    assert said == "\ninterrupted: the same command goes on from what is finished\n"
    assert not path.exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first = hold(path)
    first.kill()
    first.communicate()
    assert path.exists()
    with utils.only_one(path, "the folder"):
        assert f"process {os.getpid()} on" in path.read_text()
        with pytest.raises(BadInput, match="in use"), utils.only_one(path, "the folder"):
            pytest.fail("two at a time")
    assert not path.exists()


@pytest.mark.parametrize("missing", ["flock", "fcntl"])
def test_without_locks_work_goes_on_with_a_warning(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_locks(missing, monkeypatch)
    warned = pytest.warns(
        UserWarning, match=r"the folder cannot be locked here \(Function not implemented\): see to"
    )
    with warned, utils.only_one(tmp_path / ".lock", "the folder"):
        assert (tmp_path / ".lock").exists()


def lose_locks(what: str, patch: pytest.MonkeyPatch) -> None:
    """No fcntl, as on Windows; or a file system without flock, as some of Lustre, NFS and FUSE."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if what == "fcntl":
        patch.setattr(utils, "fcntl", None)
    else:
        patch.setattr(utils.fcntl, "flock", refuse)


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    for name in (".pcl.state.12.tmp", ".pcl.safetensors.7.tmp", ".moco.state.12.tmp", "pcl.state", ".hidden"):
        (tmp_path / name).write_text("")
    utils.remove_leftovers(tmp_path, "pcl.*")
    assert listing(tmp_path) == [".hidden", ".moco.state.12.tmp", "pcl.state"]
    utils.remove_leftovers(tmp_path)
    assert listing(tmp_path) == [".hidden", "pcl.state"]


def test_a_reason_of_several_lines_becomes_one() -> None:
    assert str(BadInput("first\n  second\r\nthird\n")) == "first second third"


def test_versions_and_commit_say_what_ran() -> None:
    assert "torch 2" in utils.versions()
    head = subprocess.run(
        ["git", "-C", utils.REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    if head.returncode == 0:
        assert head.stdout.startswith(utils.commit().removesuffix("-dirty"))


def test_seconds_count_once_and_for_the_innermost_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 10.0, 13.0, 20.0, 100.0, 101.0])
    monkeypatch.setattr(utils.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(utils, "_spent", {})
    monkeypatch.setenv(utils.TIMES, str(tmp_path / "times.json"))

    @utils.spent("encode")
    def encode() -> int:
        return 7

    with utils.spent("probe"):  # 0 to 20
        assert encode() == 7  # 10 to 13
    with pytest.raises(KeyError), utils.spent("encode"):  # 100 to 101
        raise KeyError
    assert utils.seconds_spent() == {"probe": 17.0, "encode": 4.0}
    assert json.loads((tmp_path / "times.json").read_text()) == {"probe": 17.0, "encode": 4.0}


def test_work_in_other_threads_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "_spent", {})

    def work() -> None:
        with utils.spent("train"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert utils.seconds_spent() == {}


def test_a_cache_that_cannot_be_written_in_the_end_is_a_warning() -> None:
    calls = []

    def kernel(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 1:  # numba saves after it has compiled, and computes after that
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.warns(UserWarning, match=r"cannot be kept \(No space left on device\)"):
        utils.kept_if_possible(lambda _: (kernel,))[0](1, 2)
    assert calls == [(1, 2)] * 2


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "pcl_lib.pretrain"],
        ["-m", "data_scripts"],
        ["data_scripts/prepare_folder.py"],
        ["-m", "pcl_lib.bench"],
    ],
)
def test_an_interrupt_while_a_command_is_imported_shows_no_traceback(
    command: list[str], tmp_path: Path
) -> None:
    """The signal comes as soon as torch, which every command needs, begins to be imported."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(20)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(utils.REPOSITORY)])
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=utils.REPOSITORY,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell ignores it
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr
