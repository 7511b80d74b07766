"""The files around the code agree with each other, and nothing lies in git that should not."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pcl_lib.models.shipped import LIMIT

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "seaborn-base": "seaborn"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {
    requirement.name: requirement.specifier
    for line in sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    for requirement in [Requirement(line)]
}


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


def noise(notebook: dict[str, Any]) -> list[str]:
    """What a notebook carries that only an execution can have left in it."""
    found = []
    for number, cell in enumerate(notebook["cells"]):
        if cell.get("outputs"):
            found.append(f"cell {number} has outputs")
        if cell.get("execution_count") is not None:
            found.append(f"cell {number} has an execution count")
    return found


def test_conda_environment_asks_for_what_pyproject_asks_for() -> None:
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    lines = conda + [line for line in pip["pip"] if not line.startswith("-")]
    asked = {CONDA_NAMES.get(r.name, r.name): r.specifier for r in map(Requirement, lines)}
    assert asked.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert not asked.pop("pip")
    assert asked == REQUIREMENTS


def test_every_pin_of_the_lock_lies_in_its_range() -> None:
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", "")  # a pin and its hashes on one line
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", line) for line in lines)
    pins = [Requirement(line.split(" --hash")[0].strip()) for line in lines]
    for name, allowed in REQUIREMENTS.items():
        versions = [next(iter(pin.specifier)).version for pin in pins if pin.name == name]
        assert versions, f"{name} is not pinned: make lock"
        assert all(version in allowed for version in versions), (
            f"{name} {versions} against {allowed}: make lock"
        )
    assert all(re.fullmatch(r"==[^,*]+", str(pin.specifier)) for pin in pins)


def planned(*settings: str) -> str:
    """What make env would run to build a new .venv."""
    command = ["make", "--dry-run", "--always-make", "env", *settings]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def pinned(lines: list[str]) -> set[str]:
    return {re.split("[=; ]", line)[0] for line in lines if re.match("[a-z]", line)}


def test_another_build_of_torch_comes_without_cuda_and_hashes() -> None:
    said = planned()
    assert "cat requirements.lock |" in said and "--require-hashes" in said and "torch-backend" not in said
    said = planned("TORCH=cpu")
    assert "--torch-backend cpu -r -" in said and "--require-hashes" not in said
    program = said.split("sed -nE '")[1].split("'")[0]
    lock = ROOT / "requirements.lock"
    kept = subprocess.run(["sed", "-nE", program, lock], capture_output=True, text=True, check=True).stdout
    assert "--hash" not in kept and "\\" not in kept
    left_out = pinned(lock.read_text().splitlines()) - pinned(kept.splitlines())
    assert len(left_out) > 10 and all(name.startswith(("cuda-", "nvidia-", "triton")) for name in left_out)
    assert {str(Requirement(line)) for line in kept.splitlines()} >= {"tqdm==" + metadata.version("tqdm")}


def test_citation_names_the_paper_and_the_kit() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Liu",
        "Wang",
        "Zhan",
        "Feng",
        "Liu",
        "Chen",
    ]
    assert paper["year"] == 2023 and "2211.13490" in str(paper["identifiers"])
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) The PCL kit authors")


def test_hooks_run_tools_of_the_environment() -> None:
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
        if repo["repo"] == "local" and hook["language"] == "system"
    ]
    tools = {Path(hook["entry"].split()[0]).name for hook in hooks}
    assert tools == {"ruff", "mypy", "nbstripout"} <= REQUIREMENTS.keys()
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)


def test_noise_is_seen() -> None:
    cell = {"cell_type": "code", "source": "1 + 1", "outputs": [], "execution_count": None}
    assert not noise({"cells": [cell, {"cell_type": "markdown", "source": "text"}]})
    assert noise({"cells": [cell | {"execution_count": 3}]}) == ["cell 0 has an execution count"]
    assert noise({"cells": [cell, cell | {"outputs": [{"text": "2"}]}]}) == ["cell 1 has outputs"]


def test_notebooks_are_committed_without_outputs() -> None:
    for name in tracked():
        if name.endswith(".ipynb"):
            assert not noise(json.loads((ROOT / name).read_text(encoding="utf-8"))), name


def test_no_runs_no_data_and_no_photos_in_git() -> None:
    files = tracked()
    assert "pyproject.toml" in files
    assert not [name for name in files if name.startswith(("runs/", "data/"))]
    kinds = (".npy", ".parquet", ".safetensors", ".pth", ".jpg", ".jpeg")
    shipped = [name for name in files if name.startswith("pcl_lib/weights/")]
    assert not [name for name in files if name.endswith(kinds) and name not in shipped]
    assert sum((ROOT / name).stat().st_size for name in shipped) <= LIMIT
    pictures = [name for name in files if name.endswith((".png", ".gif", ".webp", ".svg"))]
    assert not [name for name in pictures if not name.startswith("figures/")]
    others = [name for name in files if name not in shipped]
    assert not [name for name in others if (ROOT / name).stat().st_size > 5_000_000]


LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """A page of Markdown without its blocks of code and its code within lines."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text: str) -> set[str]:
    """The anchors of a page: those of its headings, as GitHub names them, and those it sets itself."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    own = set(re.findall(r'<a id="([^"]+)"></a>', text))
    return own | {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_anchors_are_made_as_github_makes_them() -> None:
    assert anchors("# A `b`: c, d\ntext\n## 7 On *x*\n") == {"a-b-c-d", "7-on-x"}
    assert anchors('<a id="auc"></a>\n**AUC.** An area.') == {"auc"}


def test_links_of_the_pages_lead_somewhere() -> None:
    broken = []
    pages = [
        ROOT / name for name in tracked() if name.endswith(".md") and not name.startswith("figures/tables/")
    ]
    assert len(pages) >= 8
    for page in pages:
        for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, place = target.partition("#")
            there = (page.parent / file).resolve() if file else page
            if not there.exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
            elif place and place not in anchors(there.read_text(encoding="utf-8")):
                broken.append(f"{page.relative_to(ROOT)}: {target} (no such heading)")
    assert not broken


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert not [line for line in lines if len(line) > 110 and not line.startswith("|")]


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize(
    "name", ["main", "components", "disentanglement", "swap_table", "ablation_questions_table"]
)
def test_results_show_the_committed_tables(name: str) -> None:
    shown = table_lines((ROOT / "figures" / "RESULTS.md").read_text(encoding="utf-8"))
    lines = table_lines((ROOT / "figures" / "tables" / f"{name}.md").read_text(encoding="utf-8"))
    assert len(lines) > 3
    assert "\n".join(lines) in "\n".join(shown)


def test_the_colab_cell_works_on_a_clone(tmp_path: Path) -> None:
    tracked()  # skips where there is no checkout to clone
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    cell = text.split("<!-- colab -->\n```text\n")[1].split("```\n<!-- /colab -->")[0]
    clone, install, enter = cell.splitlines()
    assert clone.startswith("!git clone") and install == "%pip install --quiet --editable pcl_kit"
    command = shlex.split(clone.removeprefix("!").replace("REPOSITORY", ROOT.as_uri()))
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    inside = tmp_path / enter.removeprefix("%cd ")
    assert (inside / "pyproject.toml").is_file() and (inside / "environment.yml").is_file()
    code = "import pcl_lib.utils; print(pcl_lib.utils.__file__)"
    environment = os.environ | {"PYTHONPATH": str(inside)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=inside, env=environment, check=True, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()) == inside / "pcl_lib" / "utils.py"
    labpath = re.findall(r"labpath=([^`\s]+)", text)
    assert labpath and all((inside / path).is_file() for path in labpath)
