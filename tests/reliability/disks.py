"""Disks that are full, fail, or turn read-only under every command: one sentence, nothing lost, and the run goes on.

    python tests/reliability/disks.py            (as root on Linux: it mounts small file systems)

Each command runs in a file system that is too small, behind a library that answers write() with EIO or EDQUOT, and in
one that is remounted read-only at a random moment. It must end with exit code 2 and one line that starts "error:".
Then the disk is repaired, and the same command must end as one that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kills import PATIENCE, ROOT, STAGES, Broken, Signs, _compare, finish, make_sources

SIZES = ("40k", "300k", "1M", "3M", "10M", "30M")
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* write() to files below $FAIL_BELOW fails with $FAIL_WITH once $FAIL_AFTER bytes were written there. */
static long written = 0;
ssize_t write(int file, const void *content, size_t size) {
  static ssize_t (*real)(int, const void *, size_t) = 0;
  if (!real) real = dlsym(RTLD_NEXT, "write");
  const char *below = getenv("FAIL_BELOW");
  if (below) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0 && !strncmp(path, below, strlen(below))) {
      written += size;
      if (written > atol(getenv("FAIL_AFTER"))) { errno = atoi(getenv("FAIL_WITH")); return -1; }
    }
  }
  return real(file, content, size);
}
"""
FAULTS = {"EIO": 5, "EDQUOT": 122}


def mount(folder: Path, options: str) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    return done.returncode == 0


@contextmanager
def mounts_removed(place: Path) -> Iterator[None]:
    """Whatever happens in the block, no file system stays mounted below `place`."""
    try:
        yield
    finally:
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (where := line.split()[1]).startswith(f"{place}/"):
                subprocess.run(["umount", "--lazy", where], check=True)


def run(line: list[str], **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, *line]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def refused(process: subprocess.Popen[str], name: str) -> str:
    """The one sentence of a command that failed; "" where it was done. Raises Broken at anything else."""
    said = process.communicate(timeout=PATIENCE)[1]
    if not process.returncode:
        return ""
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if process.returncode != 2 or len(errors) != 1 or "Traceback" in said:
        raise Broken(f"{name}: exit {process.returncode}: {said[-600:]}")
    return errors[0]


def small(name: str, sources: Path, folder: Path) -> dict[str, str]:
    """Every size that is too small; returns what was said at each."""
    said = {}
    for size in SIZES:
        disk = folder / f"disk-{size}"
        disk.mkdir()
        mount(disk, f"size={size}")
        line = STAGES[name].command(sources, disk / "out")
        sentence = refused(run(line), f"{name} on {size}")
        if sentence:
            if "full" not in sentence and "free some space" not in sentence:
                raise Broken(f"{name} on {size}: {sentence}")
            STAGES[name].check(disk / "out")
        subprocess.run(["mount", "-o", "remount,size=500M", str(disk)], check=True)
        finish(line, disk / "out")
        said[size] = sentence or "done"
        _judge(name, folder, disk / "out")
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    return said


def faults(
    name: str,
    sources: Path,
    folder: Path,
    shim: Path,
    rng: random.Random,
    kinds: Sequence[str] = tuple(FAULTS),
) -> dict[str, str]:
    """write() that fails after a random number of bytes, with each of `kinds`."""
    said = {}
    for kind in kinds:
        out = folder / f"out-{kind}"
        line = STAGES[name].command(sources, out)
        after = rng.randrange(100, 400_000)
        where = {"FAIL_BELOW": str(out), "FAIL_WITH": str(FAULTS[kind]), "FAIL_AFTER": str(after)}
        said[kind] = refused(run(line, LD_PRELOAD=str(shim), **where), f"{name} with {kind}") or "done"
        if out.exists():
            STAGES[name].check(out)
        finish(line, out)
        _judge(name, folder, out)
    return said


def read_only(name: str, sources: Path, folder: Path, rng: random.Random) -> dict[str, str]:
    """The disk turns read-only soon after the command's first sign."""
    disk = folder / "disk-ro"
    disk.mkdir()
    mount(disk, "size=500M")
    out = disk / "out"
    line = STAGES[name].command(sources, out)
    signs, process = Signs(out), run(line)
    while process.poll() is None and not signs.new():
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 1))
    while process.poll() is None:  # the kernel refuses while a file is being written
        if not subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
            break
        time.sleep(0.002)
    sentence = refused(process, f"{name}, read-only") or "done"
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    finish(line, out)
    _judge(name, folder, out)
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
    return {"read-only": sentence}


def _judge(name: str, folder: Path, out: Path) -> None:
    stage = STAGES[name]
    _compare(
        stage.content(folder / "undisturbed"), stage.content(out), name, "differs from the undisturbed run"
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=STAGES, default=[name for name in STAGES if name != "reproduce"]
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, mounts_removed(Path(place)):
        sources = Path(place)
        (sources / "shim.c").write_text(SHIM)
        shim = sources / "shim.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, sources / "shim.c", "-ldl"], check=True)
        make_sources(sources)
        for name in given.only:
            (folder := sources / name).mkdir()
            rng = random.Random(f"{name} {given.seed}")
            finish(STAGES[name].command(sources, folder / "undisturbed"), folder / "undisturbed")
            tries: tuple[Callable[[], dict[str, str]], ...] = (
                lambda name=name, folder=folder: small(name, sources, folder),
                lambda name=name, folder=folder, rng=rng: faults(name, sources, folder, shim, rng),
                lambda name=name, folder=folder, rng=rng: read_only(name, sources, folder, rng),
            )
            for attempt in tries:
                try:
                    said = attempt()
                except Broken as error:
                    failed, said = failed + 1, {"BROKEN": str(error)}
                print(json.dumps({"stage": name} | said), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
