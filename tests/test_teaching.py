"""The lecturer's page: its links lead somewhere, and what it names is in the kit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_notebooks import ROOT

from pcl_lib import presets, widgets

PAGE = ROOT / "notebooks" / "teaching.md"
TEXT = PAGE.read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_files_and_headings() -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT):
        file, _, place = target.partition("#")
        if file:
            assert (PAGE.parent / file).resolve().is_file(), target
        else:
            assert place in anchors(TEXT), target


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
