"""What README, figures/RESULTS.md and the notebooks' headers show of runs, written by one command instead of by hand.

`python -m pcl_lib.reproduce.readme runs/cpu runs/smoke` reads the minutes that these runs measured (summary.json),
keeps them in figures/tables/minutes.csv, and writes them into the metadata of each notebook (`COURSE`), where its
question and its section of the paper stand. From this metadata it writes the text between the markers of each
notebook's first cell, README's table of the notebooks, and that of the course's page. It also fills README's small
table of results and all generated tables of figures/RESULTS.md from figures/tables. Where pyproject.toml has the
repository's address, notebooks get badges for Colab and Binder and a set-up cell (`hosted`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pcl_lib.presets import PRESETS
from pcl_lib.reproduce import hosted
from pcl_lib.utils import REPOSITORY, BadInput, exit_cleanly, replace_atomically

TABLES = Path("figures", "tables")
MINUTES = TABLES / "minutes.csv"
RESULTS = Path("figures", "RESULTS.md")
COURSE_PAGE = Path("notebooks", "README.md")
SHOWN = (
    "main",
    "components",
    "disentanglement",
    "swap_table",
    "ablation_questions_table",
    "turn_questions_table",
    "fairness",
    "people",
    "shipped_main",
    "shipped_features",
    "shipped_swaps",
    "other_ways",
    "attributes_features",
    "attributes_swaps",
    "longer_ways",
    "detectors",
    "oracles_features",
    "oracles_swaps",
    "depth_input",
    "depth_target",
    "scaling_law",
    "scaling_gain",
    "scaling_video",
)  # tables of RESULTS
# README's small table: rows and columns of main.csv, and how it calls them.
ROWS = {
    "chance baseline": "chance baseline",
    "HoG": "HoG, not trained",
    "random": "untrained encoder",
    "masked": "masked autoencoder",
    "simclr": "SimCLR",
    "simclr_noflip": "SimCLR without flips",
    "pcl": "PCL",
    "pcl_plus": "`pcl_plus`",
}
MEASURES = {
    "expression accuracy": ("expression accuracy", 3),
    "verification accuracy": ("verification accuracy", 3),
    "AU mean F1": ("action units, mean F1", 3),
    "yaw MAE": ("yaw error in degrees", 1),
}
MACHINE = ("processor", "instructions", "step_ms")  # that the minutes were measured on: `doctor.speed`
KEY = ["notebook", "preset", "instructions"]  # of a row of minutes.csv
COLUMNS = ["notebook", "preset", "minutes", "device", "commit", *MACHINE]
COURSE = "pcl_kit_course"  # metadata of a notebook: question, section, minutes by preset and processor


def measured(run: Path) -> pd.DataFrame:
    """Minutes of each notebook of a run folder, a row each, with `COLUMNS`. Raises BadInput without summary.json."""
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        minutes = {name: round(seconds / 60, 1) for name, seconds in summary["seconds_by_notebook"].items()}
        rows = [
            {"notebook": name, "minutes": value}
            | {key: summary[key] for key in ("preset", "device", "commit")}
            | {key: summary["machine"][key] for key in MACHINE}
            for name, value in sorted(minutes.items())
        ]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} is not the summary of a run ({error!r}): make reproduce writes it") from None
    return pd.DataFrame(rows, columns=COLUMNS)


def merged(before: pd.DataFrame, runs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The table of minutes with the rows of these runs in the place of what they had measured before by `KEY`."""
    both = pd.concat([before, *runs], ignore_index=True)
    return both.drop_duplicates(KEY, keep="last").sort_values(KEY, ignore_index=True)


def sentence(minutes: Mapping[str, Mapping[str, float]]) -> str:
    """How long a notebook takes at each preset, in words; minutes: by preset and kind, of those that were timed."""
    timed = [f"{_minutes(minutes[name].values())} at `{name}`" for name in PRESETS if name in minutes]
    untimed = [f"`{name}`" for name in PRESETS if name not in minutes]
    said = [f"{', '.join(timed)} (in a run of the whole course)"] if timed else []
    return "; ".join(said + ([f"not timed yet: {', '.join(untimed)}"] if untimed else []))


def _minutes(values: Collection[float]) -> str:
    return f"{_range(values)} minutes" if max(values) >= 0.1 else "seconds"


def _range(values: Collection[float]) -> str:
    """Such as "1.5", or "1.5 to 2.9" where kinds of processor differ."""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def between(text: str, name: str, new: str) -> str:
    """Text with `new` between its markers <!-- name --> and <!-- /name -->. BadInput unless each is there once."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if not (text.count(start) == text.count(end) == 1 and text.index(start) < text.index(end)):
        raise BadInput(
            f"the text lacks the markers {start} and {end} (once each, in this order): put them back"
        )
    return text[: text.index(start) + len(start)] + new + text[text.index(end) :]


def course(notebook: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a notebook (as JSON has it) says of itself in its metadata: question, section, minutes by preset and kind.

    Raises BadInput, naming the notebook and the key, where question or section is missing or is no text.
    """
    found = dict(notebook.get("metadata", {}).get(COURSE, {}))
    for key in ("question", "section"):
        if not isinstance(found.get(key), str):
            raise BadInput(f"{name}: its metadata lack {COURSE}.{key}, a text that every notebook states")
    return {"minutes": {}} | found


def with_minutes(
    notebook: Mapping[str, Any], minutes: pd.DataFrame, name: str, where: str = ""
) -> dict[str, Any]:
    """A copy of a notebook (as JSON has it) with these minutes in its metadata and in its first cell.

    where: the repository's address, for badges there and a set-up cell (`hosted`); "" for neither.
    """
    own = minutes[minutes["notebook"] == name]
    stated = course(notebook, name) | {
        "minutes": {preset: _of(own, preset) for preset in sorted(set(own["preset"]))}  # as ruff sorts them
    }
    shown = f"{hosted.badges(where, name)}\n\n{header(stated)}" if where else header(stated)
    text = between("".join(notebook["cells"][0]["source"]), "course", f"\n\n{shown}\n\n")
    first = notebook["cells"][0] | {"source": text.splitlines(keepends=True)}
    metadata = notebook["metadata"] | {
        COURSE: {key: stated[key] for key in ("minutes", "question", "section")}
    }
    made = {**notebook, "cells": [first, *notebook["cells"][1:]], "metadata": metadata}
    return hosted.with_setup(made, where)


def _of(minutes: pd.DataFrame, preset: str) -> dict[str, float]:
    """The minutes of one notebook at a preset, by kind of processor."""
    own = minutes[minutes["preset"] == preset]
    return dict(zip(own["instructions"], own["minutes"].astype(float), strict=True))


def header(stated: Mapping[str, Any]) -> str:
    """What the first cell of a notebook shows of `course`: its question, how long it takes, the paper's sections."""
    section = stated["section"]
    return (
        f"**Question.** {stated['question']}\n\n"
        f"**It takes** {sentence(stated['minutes'])}. "
        f"**Paper:** section{'s' if ' and ' in section else ''} {section}."
    )


def table(courses: Mapping[str, Mapping[str, Any]], minutes: pd.DataFrame) -> str:
    """README's table of the notebooks; courses: `course` of each by name, in order."""
    presets = [name for name in PRESETS if (minutes["preset"] == name).any()]
    heads = ["question", "notebook", *(f"minutes, `{name}`" for name in presets), "paper section"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for name, stated in courses.items():
        own = minutes[minutes["notebook"] == name]
        found = [list(_of(own, preset).values()) for preset in presets]
        times = [_range(values) if values else "not timed" for values in found]
        lines.append(
            _row([stated["question"], f"[{name}](notebooks/{name}.ipynb)", *times, stated["section"]])
        )
    return "\n".join(lines)


def minutes_table(minutes: pd.DataFrame) -> str:
    """The table of minutes of notebooks/README.md: a row per notebook, a column per preset and kind that was timed."""
    wide = minutes.pivot(index="notebook", columns=["preset", "instructions"], values="minutes")
    kinds = sorted(set(minutes["instructions"]))
    columns = [key for preset in PRESETS for kind in kinds if (key := (preset, kind)) in wide.columns]
    titles = [f"`{preset}`, {kind}" for preset, kind in columns]
    lines = [_row(["notebook", *titles]), _row(["---"] * (len(columns) + 1))]
    lines += [
        _row([f"[{name}]({name}.ipynb)", *("not timed" if pd.isna(t) else f"{t:.1f}" for t in row[columns])])
        for name, row in wide.iterrows()
    ]
    return "\n".join([*lines, _row(["all", *(_total(wide[column]) for column in columns)])])


def _total(minutes: pd.Series) -> str:
    """The sum, and of how many notebooks where some were not timed."""
    timed = minutes.notna().sum()
    return f"{minutes.sum():.1f}" + ("" if timed == len(minutes) else f" (of {timed})")


def results(main: pd.DataFrame) -> str:
    """README's small table of results; main: main.csv, one row per method. Raises BadInput where a row is missing."""
    found = main.set_index("method")
    if missing := [name for name in ROWS if name not in found.index]:
        raise BadInput(f"{TABLES / 'main.csv'} has no row {missing[0]}: make figures copies it from a run")
    lines = [
        _row(["method", *(title for title, _ in MEASURES.values())]),
        _row(["---"] * (len(MEASURES) + 1)),
    ]
    for name, said in ROWS.items():
        row = found.loc[name, list(MEASURES)].astype(float)
        values = [f"{row[key]:.{digits}f}" for key, (_, digits) in MEASURES.items()]
        lines.append(_row([said, *values]))
    return "\n".join(lines)


def with_tables(text: str, folder: Path) -> str:
    """Text whose markers "table NAME" hold the tables `SHOWN`, as figures/tables/NAME.md in `folder` has them."""
    for name in SHOWN:
        lines = (folder / f"{name}.md").read_text(encoding="utf-8").splitlines()
        shown = "\n".join(line for line in lines if line.startswith("|"))
        text = between(text, f"table {name}", f"\n{shown}\n")
    return text


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def update(root: Path, runs: Sequence[Path]) -> None:
    """Write minutes.csv, the notebooks' first cells, README's two tables, those of RESULTS.md and of COURSE_PAGE.

    runs: run folders; what other notebooks and presets took before stays, and without runs everything does. Raises
    BadInput where a run has no summary, a notebook does not state its question, a text lacks its markers, or as
    `hosted.address`.
    """
    path = root / MINUTES
    minutes = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    if runs:
        minutes = merged(minutes, [measured(run) for run in runs])
        with replace_atomically(path) as temporary:
            minutes.to_csv(temporary, index=False)
    courses, where = {}, hosted.address(root)
    for notebook in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        new = with_minutes(json.loads(notebook.read_text(encoding="utf-8")), minutes, notebook.stem, where)
        courses[notebook.stem] = course(new, notebook.stem)
        _write(notebook, json.dumps(new, indent=1, ensure_ascii=False) + "\n")
    readme = root / "README.md"
    text = between(readme.read_text(encoding="utf-8"), "notebooks", f"\n{table(courses, minutes)}\n")
    _write(readme, between(text, "results", f"\n{results(pd.read_csv(root / TABLES / 'main.csv'))}\n"))
    map_of_course = root / COURSE_PAGE
    text = map_of_course.read_text(encoding="utf-8")
    _write(map_of_course, between(text, "minutes", f"\n{minutes_table(minutes)}\n"))
    page = root / RESULTS
    _write(page, with_tables(page.read_text(encoding="utf-8"), root / TABLES))


def _write(path: Path, text: str) -> None:
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce.readme."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce.readme",
        description="Write measured minutes and tables into the notebooks' headers, README and figures/RESULTS.md.",
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, help="run folders, one a preset; none: as measured before"
    )
    update(REPOSITORY, parser.parse_args(argv).runs)


if __name__ == "__main__":
    exit_cleanly(main)
