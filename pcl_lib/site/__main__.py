"""Command line: python -m pcl_lib.site."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pcl_lib.site.pages import build
from pcl_lib.utils import exit_cleanly


def main(argv: Sequence[str] | None = None) -> None:
    """Build the site of a run folder."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.site",
        description="Render the executed notebooks of a run as a web site that needs no network.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/cpu")
    parser.add_argument("out", type=Path, help="folder of the site")
    given = parser.parse_args(argv)
    pages = build(given.run, given.out)
    print(f"{len(pages)} pages, no broken link: open {pages[0]}")


if __name__ == "__main__":
    exit_cleanly(main)
