"""What everything else may use: bad input as one sentence, whole files, provenance, and this machine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent  # the folder that holds notebooks/ and figures/, in a clone


class BadInput(ValueError):
    """Bad arguments, data or checkpoint: the message says what, where and what to do.

    It is one line: other libraries' reasons, which it may quote, can have several. In a notebook that line is all that
    a cell shows, not how the library came to it.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(" ".join(line.strip() for line in str(message).splitlines()))

    def _render_traceback_(self) -> list[str]:  # IPython's name
        return [f"BadInput: {self}"]


def exit_cleanly(main: Callable[[], None]) -> None:
    """Run a command line's `main`; BadInput becomes one sentence on stderr and exit code 2.

    Ctrl-C and SIGTERM (a batch system's) become a sentence and exit code 130. Among several processes the sentence
    says whose it is: the launcher ends the others.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # raises KeyboardInterrupt
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # nohup's and a background shell's stay
            signal.signal(
                signal.SIGINT, signal.default_int_handler
            )  # pcl_lib ends silently while it is imported
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from what is finished", file=sys.stderr)
        raise SystemExit(130) from None
    except BadInput as error:
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK"))
        print("error:", *([f"rank {rank}:"] if rank else []), error, file=sys.stderr)
        raise SystemExit(2) from None


_REASONS = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "your quota of this disk is used up: free some space and run the same command again",
    errno.EFBIG: "files of that size are not allowed there: raise the limit (ulimit -f) or choose another folder",
    errno.EIO: "the disk reports an input/output error: check it, or choose another folder",
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
            with open(temporary, "r+b") as file:  # for writing: Windows flushes no other handle
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # a disk that has just failed must not hide why
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write bytes to `path` atomically. Raises BadInput as `replace_atomically`.

    For what torch and safetensors save: on a full disk their own writers raise errors that do not say so, and
    safetensors makes files that nobody else may read.
    """
    with replace_atomically(path) as temporary:
        temporary.write_bytes(content)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Delete what killed processes were about to write to `folder`; call it where no other process writes there."""
    with readable_errors(folder):
        for path in folder.glob(f".{name}.*.tmp"):
            path.unlink(missing_ok=True)


def lock_file(file: IO[Any], what: str) -> bool:
    """Lock an open file until it is closed; False where another process, or other code of this one, holds it.

    Where the system or the file system has no such locks it warns that `what` is not protected, and returns True.
    """
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        warnings.warn(
            f"{what} cannot be locked here ({error.strerror}): see to it yourself that no second process writes there",
            stacklevel=2,
        )
    return True


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` for a block that no second process may run at the same time.

    The file says who holds it and is removed at the end; one that a killed process left is taken over. Raises
    BadInput, with `what` and who that is, where another holds it. See `lock_file` for systems without locks.
    """
    file = _locked(path, what)
    with file:
        with readable_errors(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file; one that stays is taken over
                path.unlink(missing_ok=True)


def _locked(path: Path, what: str) -> IO[str]:
    make_folder(path.parent)
    while True:
        with readable_errors(path):
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - locked until it is closed
        if not lock_file(file, what):
            with file:
                file.seek(0)
                holder = file.read() or "another process"
            raise BadInput(f"{what} is in use by {holder}: wait for it to end, or choose another folder")
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # its holder removed it between our opening and our locking it


UNCACHED = (
    "compiled code cannot be kept ({}), so every start compiles it again, half a minute or so: "
    "set NUMBA_CACHE_DIR to a folder that can be written"
)


def kept_if_possible(
    compiled: Callable[[bool], tuple[Callable[..., None], ...]],
) -> tuple[Callable[..., None], ...]:
    """The functions that `compiled(True)` makes, whose code numba keeps on the disk; a warning where it cannot.

    It cannot where it finds no folder that it may write, which it says at once, and on a full disk, in the first call.
    """
    try:
        return tuple(map(_forgiving, compiled(True)))
    except RuntimeError as error:
        warnings.warn(UNCACHED.format(error), stacklevel=2)
        return compiled(False)


def _forgiving(kernel: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        try:
            kernel(*arguments)
        except (
            OSError
        ) as error:  # from saving, before anything is computed; what was compiled stays in memory
            warnings.warn(UNCACHED.format(error.strerror), stacklevel=2)
            kernel(*arguments)

    return call


PACKAGES = ("torch", "numpy", "pandas", "scikit-learn")


@cache
def versions() -> str:
    """The versions of Python and the packages that numbers depend on, as one line."""
    return ", ".join(
        [f"python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in PACKAGES)]
    )


@cache
def commit() -> str:
    """The git commit of this library, with "-dirty" where files have changed since; "unknown" outside git."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "utils.py"], check=True, capture_output=True)
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=10"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


@cache
def library_hash() -> str:
    """A hash of the sources of pcl_lib."""
    files = sorted(PACKAGE.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


LOADED = time.time()  # when this process imported the library


def stale() -> str:
    """What to say where sources of pcl_lib have changed since this process imported them; "" where none has."""
    if all(path.stat().st_mtime <= LOADED for path in PACKAGE.rglob("*.py")):
        return ""
    return "The kit has changed since this kernel started, which still runs the old code: Kernel > Restart Kernel."


def device_name() -> str:
    """The accelerator of this machine, or "cpu"."""
    if torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write readable JSON atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def machine(device: str) -> dict[str, str]:
    """What the numbers hang on: processor, accelerator, cores, threads and versions."""
    processor = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "precision": "float32 unless said; bfloat16 in hardware: " + ("yes" if has_fast_bf16() else "no"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in ("torchvision", "pillow", "numba")},
    }


def has_fast_bf16() -> bool:
    """Whether the GPU, or where there is none the processor, computes bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not where PyTorch is told to do without, as when another kind of processor is imitated.
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


TIMES = "PCL_KIT_TIMES"  # names a file that the kernels of `make reproduce` keep `seconds_spent` in
KINDS = ("render", "train", "encode", "probe", "draw")
_spent: dict[str, float] = {}
_open: list[str] = []  # the kinds of work that are under way, the innermost last
_since = 0.0


@contextmanager
def spent(kind: str) -> Iterator[None]:
    """Count the seconds of this block as one of `KINDS`; also a decorator.

    A block inside another interrupts it, so that no second counts twice. Other threads than the main one do not count.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _count_until_now()
    _open.append(kind)
    try:
        yield
    finally:
        _count_until_now()
        _open.pop()
        if not _open and (path := os.environ.get(TIMES)):
            write_json(Path(path), seconds_spent())


def _count_until_now() -> None:
    global _since
    now = time.perf_counter()
    if _open:
        _spent[_open[-1]] = _spent.get(_open[-1], 0.0) + now - _since
    _since = now


def seconds_spent() -> dict[str, float]:
    """The seconds of this process by kind of work (`spent`)."""
    return dict(_spent)


HEADLESS = "PCL_KIT_HEADLESS"  # set for the kernels of `make reproduce`


def headless() -> str:
    """Why nobody can move a slider here, as a sentence; "" in a notebook that somebody looks at."""
    if os.environ.get(HEADLESS):
        return "Nobody watches this run (make reproduce), so here is the figure instead of the widget."
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return "There is no Jupyter kernel to move sliders in, so here is the figure instead of the widget."
    return ""
