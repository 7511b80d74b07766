"""The notebooks on Colab and Binder: badges and a set-up cell, from the one place that has the repository's address.

That place is `Repository` under [project.urls] of pyproject.toml. Where it is missing, the notebooks have neither
badges nor set-up cell; `python -m pcl_lib.reproduce.readme` writes both, or takes them out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcl_lib.utils import BadInput

PROJECT = "pyproject.toml"
GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
BRANCH = "main"  # that Colab opens
TAG = "setup"  # of the set-up cell
SETUP = """\
import importlib.util
import os
import sys

if importlib.util.find_spec("pcl_lib") is None:  # on Colab; where the kit is there already, nothing happens
    !git clone --quiet --depth 1 {address} pcl_kit
    %pip install --quiet --editable pcl_kit
    sys.path.insert(0, os.path.abspath("pcl_kit"))
    %cd -q pcl_kit/notebooks"""


def address(root: Path) -> str:
    """The repository's public address, https://github.com/OWNER/NAME; "" where pyproject.toml in `root` has none.

    Raises BadInput on another form of address: Colab and Binder open what lies on GitHub.
    """
    path = root / PROJECT
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    given = str(project.get("urls", {}).get("Repository", ""))
    found = GITHUB.fullmatch(given)
    if given and not found:
        raise BadInput(f"{path} says that the repository is {given!r}: give https://github.com/OWNER/NAME")
    return f"https://github.com/{found[1]}/{found[2]}" if found else ""


def badges(where: str, name: str) -> str:
    """Two badges in Markdown that open the notebook `name` on Colab and on Binder. where: of `address`."""
    own = where.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{own}/blob/{BRANCH}/notebooks/{name}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{own}/HEAD?labpath=notebooks/{name}.ipynb"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n"
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def with_setup(notebook: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A notebook (as JSON has it) whose second cell is the set-up cell; without one where there is no address."""
    first, *rest = [c for c in notebook["cells"] if TAG not in c["metadata"].get("tags", [])]
    if not where:
        return {**notebook, "cells": [first, *rest]}
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "set-up",
        "metadata": {"tags": [TAG]},
        "outputs": [],
        "source": SETUP.format(address=where).splitlines(keepends=True),
    }
    return {**notebook, "cells": [first, cell, *rest]}
