"""What everything else may use: bad input as one sentence, whole files, provenance, and this machine."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent  # the folder that holds notebooks/ and figures/, in a clone


class BadInput(ValueError):
    """Bad arguments, data or checkpoint: the message says what, where and what to do."""


def exit_cleanly(main: Callable[[], None]) -> None:
    """Run a command line's `main`; BadInput becomes one sentence on stderr and exit code 2.

    Among several processes the sentence says whose it is: the launcher ends the others.
    """
    try:
        main()
    except BadInput as error:
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK"))
        print("error:", *([f"rank {rank}:"] if rank else []), error, file=sys.stderr)
        raise SystemExit(2) from None


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
        "precision": "float32 unless said; bfloat16 in hardware: " + ("yes" if has_fast_bf16() else "no"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: metadata.version(name) for name in ("torchvision", "pillow", "numba")},
    }


def has_fast_bf16() -> bool:
    """Whether the GPU, or where there is none the processor, computes bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


HEADLESS = "PCL_KIT_HEADLESS"  # set for the kernels of `make reproduce`


def headless() -> str:
    """Why nobody can move a slider here, as a sentence; "" in a notebook that somebody looks at."""
    if os.environ.get(HEADLESS):
        return "Nobody watches this run (make reproduce), so here is the figure instead of the widget."
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return "There is no Jupyter kernel to move sliders in, so here is the figure instead of the widget."
    return ""
