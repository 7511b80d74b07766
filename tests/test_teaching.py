"""The lecturer's page and the project's: their links lead somewhere, and what they name is in the kit."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from test_notebooks import ROOT, prose, read

from pcl_lib import methods, presets, widgets
from pcl_lib.methods.changes import CHANGES

PAGE = ROOT / "notebooks" / "teaching.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROJECT = PAGE.with_name("project.md").read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("text", [TEXT, PROJECT], ids=["teaching", "project"])
def test_links_lead_to_files_and_headings(text: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, place = target.partition("#")
        if file:
            assert (PAGE.parent / file).resolve().is_file(), target
        else:
            assert place in anchors(text), target


def test_widgets_commands_and_settings_are_those_of_the_kit() -> None:
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", TEXT))
    assert named == set(widgets.__all__)
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make (\w+)", TEXT)) <= targets
    for setting in re.findall(r"--set (\S+)=(\S+) ", TEXT):
        presets.override(presets.get("cpu"), {setting[0]: int(setting[1])})


@pytest.mark.parametrize("number", range(1, 5))
def test_each_lecture_has_ninety_minutes_a_widget_and_exercises_in_three_sizes(number: int) -> None:
    lecture = TEXT.split(f"## Lecture {number}:")[1].split("\n## ")[0]
    minutes = [int(row) for row in re.findall(r"^\| (\d+) \|", lecture, re.MULTILINE)]
    assert sum(minutes) == 90
    for part in ("**Question.**", "**Widget.**", "**Misconceptions**", "*Two minutes.*", "*Twenty minutes.*"):
        assert part in lecture, part
    assert "*An evening.*" in lecture
    for name in re.findall(r"\]\((\w+\.ipynb)\)", lecture):
        assert Path(PAGE.parent / name).is_file()


def test_the_exercises_that_lectures_name_are_those_of_the_notebooks() -> None:
    named = re.findall(r"notebooks? (\d\d) \(([^)]+)\)|(?:,|and) (\d\d) \(([^)]+)\)", " ".join(TEXT.split()))
    assert len(named) > 8
    for first, titles, other, more in named:
        (path,) = (ROOT / "notebooks").glob(f"{first or other}_*.ipynb")
        heads = re.findall(r"\*\*[A-E]\. (.+?)\.?\*\*", prose(read(path)))
        for title in (titles or more).split("; "):
            assert any(distinctive(title) <= distinctive(head) for head in heads), (path.stem, title, heads)


def distinctive(title: str) -> set[str]:
    """The words of a title but for small ones."""
    return {
        word
        for word in re.findall(r"\w+", title.lower())
        if word not in ("a", "the", "how", "to", "by", "your")
    }


def test_the_commands_of_the_project_are_those_of_the_kit() -> None:
    trained = []
    for line in re.findall(r"^ *python -m pcl_lib\.pretrain (.+)$", PROJECT, re.MULTILINE):
        parts = shlex.split(line.replace("NAME", "light"))
        given = dict(zip(parts[::2], parts[1::2], strict=True))
        setting = [presets.parse_setting(given["--set"])] if "--set" in given else []
        preset = presets.override(presets.get(given["--preset"]), dict(setting))
        methods.build(given["--method"], preset)
        trained.append((given["--method"], preset.loss.attribute))
    assert trained == [("pcl_change", "light"), ("pcl_change", "flip"), ("simclr_noflip", "flip")]
    assert set(CHANGES) < set(presets.RANGES["LossPreset"]["attribute"])  # the two places that the page names
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make (\w+)", PROJECT)) == {"reproduce"} <= targets


def test_the_rubric_adds_up() -> None:
    rows = re.findall(r"^\| \w+ (?:\|[^|]+){4}\|$", PROJECT.split("## Rubric")[1], re.MULTILINE)
    best = 3 * (len(rows) - 1)  # the first row holds the points themselves
    assert f"Of {best} points" in PROJECT
