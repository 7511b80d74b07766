"""Damaged and hostile inputs through every reader: each must end in a result or in BadInput.

    python tests/reliability/mutate.py --count 100000

A find is any other error, a crash, more than SECONDS or MEMORY for one input, or a file outside the reader's folder.
Inputs follow from (reader, seed, number), so a find is repeated by --only READER --seed S --first NUMBER --count 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import torch
from readers import READERS, Reader

from pcl_lib.utils import BadInput

SECONDS, MEMORY = 20, 1 << 30
FORK = multiprocessing.get_context("fork")


def damaged(reader: Reader, name: str, seed: int, number: int, whole: Path, folder: Path) -> str:
    """Fill `folder` with the reader's input of that number: one file is damaged. Returns its name."""
    rng = random.Random(f"{name} {seed} {number}")
    shutil.rmtree(folder, ignore_errors=True)
    files = [
        (path, mutate) for pattern, mutate in reader.files.items() for path in sorted(whole.glob(pattern))
    ]
    files = [(path, mutate) for path, mutate in files if path.is_file()]
    path, mutate = rng.choice(files)
    other = rng.choice(files)[0].read_bytes()
    if set(reader.files) == {"*"}:  # single files: only the damaged one is needed
        folder.mkdir()
    else:
        shutil.copytree(whole, folder)
    where = folder / path.relative_to(whole)
    where.write_bytes(mutate(path.read_bytes(), rng, other))
    return str(path.relative_to(whole))


def attempt(reader: Reader, folder: Path) -> str:
    """Read a folder; returns "result", "BadInput", or what else happened."""
    try:
        reader.read(folder)
    except BadInput as error:
        return (
            "BadInput"
            if str(error).strip() and "\n" not in str(error)
            else f"BadInput of several lines: {error}"
        )
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        own = next((f for f in reversed(last) if "site-packages" not in f.filename), last[-1])
        return f"{type(error).__name__}: {str(error)[:160]!r} at {Path(own.filename).name}:{own.lineno}"
    return "result"


def peak() -> int:
    """The most memory that this process held since the last call, in bytes; 0 where the system does not say."""
    try:
        text = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def work(name: str, seed: int, numbers: range, top: Path, tell: Connection) -> None:
    """Try inputs one by one; `tell` gets (number, None) before each and (number, what, file) after it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for stream in (1, 2):  # decoders write to them
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    soft = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 4 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    reader, whole, folder = READERS[name], top / "whole", top / "work" / "input"
    folder.parent.mkdir(exist_ok=True)
    peak()
    for number in numbers:
        file = damaged(reader, name, seed, number, whole, folder)
        tell.send((number, None, file))
        before = peak()
        what = attempt(reader, folder)
        if (more := peak() - before) > MEMORY:
            what = f"{more >> 20} MiB for one input ({what})"
        if stray := [
            path.name
            for path in (*top.iterdir(), *folder.parent.iterdir())
            if path.name not in ("whole", "work", "input")
        ]:
            what = f"wrote {stray[0]} outside the folder"
            for entry in stray:
                shutil.rmtree(top / entry, ignore_errors=True)
        tell.send((number, what, file))
    tell.send((numbers.stop, "end", ""))


def run(name: str, seed: int, first: int, count: int) -> tuple[Counter[str], dict[str, str]]:
    """`count` inputs of a reader; returns how they ended, and one example of each kind of find."""
    ends: Counter[str] = Counter()
    finds: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        (top / "whole").mkdir()
        READERS[name].make(top / "whole")
        number, stop = first, first + count
        while number < stop:
            ours, theirs = FORK.Pipe()
            process = FORK.Process(target=work, args=(name, seed, range(number, stop), top, theirs))
            process.start()
            theirs.close()
            number = _listen(ours, process, number, ends, finds, f"--only {name!r} --seed {seed} --first")
    return ends, finds


def _listen(
    ours: Connection, process: Any, number: int, ends: Counter[str], finds: dict[str, str], how: str
) -> int:
    """Take what a worker tells until it ends, dies or hangs; returns the number to go on with."""

    def find(what: str, file: str) -> None:
        ends["find"] += 1
        kind = what.split(" at ")[-1] if " at " in what else what
        finds.setdefault(kind, f"{what} [{file}; {how} {number}]")

    file = ""
    while True:
        try:
            if not ours.poll(SECONDS):
                process.kill()
                find(f"longer than {SECONDS} s", file)
                number += 1
                break
            number, what, file = ours.recv()
        except EOFError:
            process.join()
            died = (
                signal.Signals(-process.exitcode).name
                if (process.exitcode or 0) < 0
                else f"exit {process.exitcode}"
            )
            find(f"the process died ({died})", file)
            number += 1
            break
        if what == "end":
            break
        if what in ("result", "BadInput"):
            ends[what] += 1
        elif what is not None:
            find(what, file)
    process.join()
    ours.close()
    return number


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count", type=int, default=1500, help="inputs in all, shared evenly among the readers (1500)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=READERS, default=list(READERS), help="some of the readers"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    given = parser.parse_args()
    total: Counter[str] = Counter()
    for name in given.only:
        start = time.monotonic()
        ends, finds = run(name, given.seed, given.first, max(1, given.count // len(given.only)))
        total += ends
        print(f"{name:20} {dict(sorted(ends.items()))} in {time.monotonic() - start:.0f} s", flush=True)
        print(
            *(f"    {example}" for example in finds.values()), sep="\n", end="\n" if finds else "", flush=True
        )
    print(
        f"{total.total()} inputs: {total['result']} results, {total['BadInput']} refused, {total['find']} finds"
    )
    sys.exit(1 if total["find"] else 0)


if __name__ == "__main__":
    main()
