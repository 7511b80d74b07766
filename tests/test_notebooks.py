"""The notebooks as they are committed, and the whole job at the smoke preset."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import offline
import pandas as pd
import pytest
from browser import browser_missing
from conftest import blob_images
from PIL import Image

from pcl_lib import data
from pcl_lib.data.labels import PAPER_UNITS
from pcl_lib.reproduce import hosted, paper_table, readme
from pcl_lib.reproduce.notebooks import PARAMETERS
from pcl_lib.site import pages
from pcl_lib.tables import HERE

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
WITH_SOLUTIONS = [*NOTEBOOKS, *sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))]
IDS = [str(path.relative_to(ROOT / "notebooks")) for path in WITH_SOLUTIONS]
WANTED = {
    "00_tour",
    "01_data_preparation",
    "02_pose_disentangled_decoder",
    "03_contrastive_pretraining",
    "04_ablations",
    "05_downstream_probes",
    "06_pose_face_swap",
    "07_paper_tables",
    "08_paper_and_released_code",
    "09_beyond_pose",
    "10_other_ways_to_pose",
}
ABSOLUTE = re.compile(
    r"""(?:["'(\s]|^)(?:/(?:home|work|tmp|root|Users|mnt|content)/|[A-Z]:\\)""", re.MULTILINE
)
WORDS, LINES = 200, 10  # that are read in a minute, of prose and of code
FIGURE = re.compile(r"\bplots\.\w+\(|\bsave_figure\(|\.figure\(\)|\.still\(\)|\bwidgets\.[A-Z]\w+\(")
ANNOUNCED = "figure|panel|picture|map|curve|sheet|chart|matrix|row"
# Cells that took about a minute or longer in a run of `cpu` on two cores with other work beside it.
LONG_CELLS = {
    "00_tour": 2,
    "02_pose_disentangled_decoder": 1,
    "03_contrastive_pretraining": 1,
    "05_downstream_probes": 2,
    "08_paper_and_released_code": 2,
    "09_beyond_pose": 1,
}
TABLES = (
    "probes.csv",
    "leakage.csv",
    "swaps.csv",
    "pdd.csv",
    "training.csv",
    "splits.md",
    "tour.csv",
    "beyond_features.csv",
    "beyond_swaps.csv",
    "beyond_tasks.csv",
    "other_ways_swaps.csv",
)
WRITTEN = (
    "main",
    "disentanglement",
    "swap_table",
    "published",
    "paper",
    "ablation_main_table",
    "ablation_lead_table",
    "other_ways",
)
FIGURES = [
    "ablation_dots",
    "labels",
    "sheet_rendered_faces",
    "build_up",
    "training_curves",
    "flip_likeness",
    "probes",
    "confusion",
    "confusion_lbp",
    "pose_error",
    "leakage",
    "swaps",
    "swaps_plus",
    "turn_the_head",
    "embedding",
    "changes",
    "beyond_light",
    "tracking",
    "aligned",
    "other_ways",
]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: Any) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_all_notebooks_are_there() -> None:
    assert set(NAMES) >= WANTED


@pytest.mark.parametrize("path", WITH_SOLUTIONS, ids=IDS)
def test_form(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    lengths = {cell.id: len(cell.source.splitlines()) for cell in code_cells(notebook)}
    exercises = [
        cell.id
        for cell in code_cells(notebook)
        if {"exercise", "check", hosted.TAG} & set(cell.metadata.get("tags", []))
    ]
    assert max(lengths.values()) <= 25
    assert sum(lengths.values()) - sum(lengths[name] for name in exercises) <= 150
    for cell in code_cells(notebook):
        assert not cell.outputs and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_parameters_are_four_literals(path: Path) -> None:
    tagged = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {}
    for line in ast.parse(tagged[0].source).body:
        assert isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
        values[line.targets[0].id] = ast.literal_eval(line.value)
    assert tuple(values) == PARAMETERS
    assert values == {"preset": "cpu", "data": "", "out": "../runs/cpu", "seed": 0}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_course_parts_are_there(path: Path) -> None:
    notebook = read(path)
    stated, text = readme.course(notebook, path.stem), prose(notebook)
    assert stated["question"].endswith("?") and re.fullmatch(
        r"\d(\.\d)?((, | and )\d(\.\d)?)*", stated["section"]
    )
    assert set(stated["minutes"]) <= {"smoke", "cpu"}
    for part in ("**Question.**", "**You will learn**", "**It needs**", "**It takes**", "**Paper:**"):
        assert part in text, part
    assert all(f"`{preset}`" in text for preset in ("smoke", "cpu", "gpu", "paper"))
    assert text.count("<details>") == text.count("</details>") == 3


@pytest.mark.parametrize("path", WITH_SOLUTIONS, ids=IDS)
def test_links_resolve_and_no_path_is_absolute(path: Path) -> None:
    notebook = read(path)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(notebook)):
        if not target.startswith(("http://", "https://", "#")):
            file, _, place = target.partition("#")
            there = (path.parent / file).resolve()
            # the site has no other pages
            assert there.exists() and there.is_relative_to(ROOT / "notebooks"), target
            # JupyterLab shows a page of Markdown as text, not in its editor, where the link names a place in it
            assert there.suffix != ".md" or f'<a id="{place}"></a>' in there.read_text(encoding="utf-8"), (
                target
            )
    for cell in notebook.cells:
        assert not ABSOLUTE.search(cell.source), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_terms_and_parameters_are_explained_by_a_link(path: Path) -> None:
    text = prose(read(path))
    assert text.count("](glossary.md#") >= 5
    assert path.stem == "00_tour" or "(README.md#parameters)" in text
    places = re.findall(r"\]\(glossary\.md#([^)]+)\)", text)
    assert len(places) == len(set(places)), f"a term is linked at its first use only: {sorted(places)}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_the_next_notebook_is_linked(path: Path) -> None:
    later = NAMES[NAMES.index(path.stem) + 1 :]
    assert not later or any(f"({name}.ipynb)" in read(path).cells[-1].source for name in later)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_long_cells_say_how_long_and_what_is_there_without_waiting(path: Path) -> None:
    notebook = read(path)
    said = [
        " ".join(text.split())
        for text in re.findall(r"\*\*How long\.\*\*.+?(?=\n\n|\Z)", prose(notebook), re.DOTALL)
    ]
    assert len(said) >= LONG_CELLS.get(path.stem, 0)
    for text in said:
        assert "At `cpu`" in text and "progress" in text, text
        assert re.search(r"\bstored\b|\bloaded\b", text), text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_is_read_in_one_sitting(path: Path) -> None:
    notebook = read(path)
    words = len(prose(notebook).split())
    lines = sum(len(cell.source.splitlines()) for cell in code_cells(notebook))
    assert words / WORDS + lines / LINES <= 30, f"{words} words and {lines} lines of code"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_every_figure_is_announced_by_the_text_before_it(path: Path) -> None:
    text = ""
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            text = cell.source
        elif FIGURE.search(cell.source):
            assert re.search(rf"\b({ANNOUNCED})s?\b", text, re.IGNORECASE), f"{cell.source}\n\nafter: {text}"


def test_an_absolute_path_would_be_seen() -> None:
    assert ABSOLUTE.search('open("/home/me/x")') and ABSOLUTE.search("data = 'C:\\x'")
    assert not ABSOLUTE.search('out = "../runs/smoke"  # [a/b](https://x.org/home/y)')


def reproduce(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pcl_lib.reproduce", "--preset", "smoke", "--out", str(out), *more]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # models this small only wait for a second one
    done = subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run of all notebooks at the smoke preset."""
    out = tmp_path_factory.mktemp("runs") / "smoke"
    reproduce(out)
    return out


def test_the_whole_run_leaves_what_design_says(whole_run: Path) -> None:
    for name in TABLES:
        assert (whole_run / "tables" / name).stat().st_size, name
    for name in WRITTEN:
        assert all(
            (whole_run / "tables" / f"{name}{end}").stat().st_size for end in (".csv", ".md", ".tex")
        ), name
    for name in FIGURES:
        with Image.open(whole_run / "figures" / f"{name}.png") as picture:
            assert picture.width >= 600 and len(picture.convert("L").getcolors() or [0]) > 4, name
    for method in ("pcl", "pcl_plus", "simclr", "simclr_noflip", "masked"):
        assert (whole_run / "checkpoints" / f"{method}.safetensors").is_file()
        assert (whole_run / "logs" / f"{method}.csv").is_file()


def test_executed_copies_ran_to_their_end_without_warnings(whole_run: Path) -> None:
    for path in NOTEBOOKS:
        copy = read(whole_run / "notebooks" / path.name)
        for cell in code_cells(copy):
            assert cell.execution_count, f"{path.name}: {cell.source}"
            for output in cell.outputs:
                text = output.get("text", "")
                assert output.output_type != "error" and "Warning" not in text, f"{path.name}: {text}"


def test_the_site_of_the_whole_run_is_whole_offline_and_accessible(
    whole_run: Path, request: pytest.FixtureRequest
) -> None:
    made = pages.build(whole_run, whole_run / "site")
    assert (
        len(made) == 1 + 2 * len(NAMES) + len(pages.PAGES) + 1
    )  # first, notebooks, solutions, texts, sliders
    strips = [path.stat().st_size for path in (whole_run / "site" / "_static").glob("*.webp")]
    assert len(strips) == 3 and sum(strips) + max(page.stat().st_size for page in made) < 5_000_000
    if why := browser_missing():
        pytest.skip(f"built, but not looked at: {why}")
    window = request.getfixturevalue("offline_window")
    for path in made:
        with offline.page(window, path) as (opened, wrong):
            assert not wrong, path.name
            assert offline.serious(opened) == [], path.name
            assert offline.width_needed(opened) <= offline.NARROW, path.name


def test_summary_has_headlines_and_times(whole_run: Path) -> None:
    summary = json.loads((whole_run / "summary.json").read_text(encoding="utf-8"))
    assert summary["preset"] == "smoke" and summary["seed"] == 0 and not summary["absent"]
    assert set(summary["seconds_by_notebook"]) == set(NAMES)
    assert {"pcl", "simclr", "random", "raw pixels"} <= set(summary["headline"]["main"])
    assert {"pcl, face", "pcl, pose", "pcl_plus, face", "pcl_plus, pose"} <= set(
        summary["headline"]["disentanglement"]
    )


def test_rows_say_where_they_come_from(whole_run: Path) -> None:
    rows = pd.read_csv(whole_run / "tables" / "probes.csv")
    for name in (
        "method",
        "preset",
        "seed",
        "data",
        "protocol",
        "device",
        "precision",
        "versions",
        "commit",
        "n",
    ):
        assert rows[name].notna().all(), name
    assert rows["value"].notna().all()


def test_one_notebook_runs_alone_in_an_empty_folder(whole_run: Path) -> None:
    out = whole_run.parent / "alone"  # beside it: the rendered faces are shared
    reproduce(out, "--only", "06")
    assert [path.name for path in (out / "notebooks").iterdir()] == ["06_pose_face_swap.ipynb"]
    assert (out / "figures" / "swaps.png").is_file() and (out / "checkpoints" / "pcl.safetensors").is_file()


def small_sets(folder: Path) -> list[str]:
    """Folders of a set to train on that knows only identities, and of four of the paper's sets in miniature."""
    people = np.arange(160) // 4
    train_only, test_only = np.repeat(["train", "validation"], [60, 20]), np.repeat("test", 24)
    first = np.arange(0, 40, 2)
    same = pd.DataFrame({"first": first, "second": first + 1, "same": True, "fold": np.arange(20) % 4})
    pairs = pd.concat([same, same.assign(second=np.roll(first, 1), same=False)], ignore_index=True)
    frame = np.arange(108)
    units = dict.fromkeys(PAPER_UNITS, np.where(frame % 2, 3.0, 0.0))
    yaw = np.linspace(-60, 60, 80)
    rows = {
        "people": {"identity": [f"person {i}" for i in people]},
        "LFW": {"identity": np.arange(40) // 2, "split": np.repeat("test", 40)},
        "300W-LP": {"yaw": yaw, "pitch": yaw[::-1] / 2, "roll": yaw / 3, "split": train_only},
        "AFLW2000": {"yaw": yaw[:24], "pitch": yaw[:24], "roll": yaw[:24], "split": test_only},
        "DISFA": {"identity": frame // 4, "fold": frame // 4 % 3, **units},
    }
    for seed, (name, labels) in enumerate(rows.items()):
        table, size = pd.DataFrame(labels), 32 if name == "people" else 24
        own = pairs if name == "LFW" else None
        source = "drawn by the tests"
        images = blob_images(len(table), size, seed)
        data.write_prepared(folder / name, images, table, pairs=own, name=name, source=source)
    return [str(folder / name) for name in rows]


@pytest.fixture(scope="module")
def several_sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run folder of notebooks 01, 05 and 07 on `small_sets`, and what was printed."""
    folder = tmp_path_factory.mktemp("several")
    done = reproduce(folder / "run", "--data", *small_sets(folder), "--only", "01,05,07")
    return folder / "run", done.stdout


def test_a_set_that_knows_only_identities_is_told_what_is_left_out(several_sets: tuple[Path, str]) -> None:
    out, said = several_sets
    assert "There is no tables/main.csv" in said
    leaks = pd.read_csv(out / "tables" / "leakage.csv")
    assert set(leaks["factor"]) == {"identity"} and set(leaks["data"]) == {"people"}
    copy = json.dumps(read(out / "notebooks" / "05_downstream_probes.ipynb"))
    assert "people has no labels for expression" in copy and "people has no list of pairs" in copy
    assert "people is not probed" in copy


def test_several_sets_fill_the_columns_they_allow(several_sets: tuple[Path, str]) -> None:
    out, said = several_sets
    rows = pd.read_csv(out / "tables" / "probes.csv")
    assert set(rows["data"]) == {"LFW", "train 300W-LP, test AFLW2000", "DISFA"}
    assert {"pcl", "simclr", "random", "raw pixels"} <= set(rows["method"])
    table = pd.read_csv(out / "tables" / "paper.csv")
    here = table[table["source"] == HERE].set_index("method")
    filled = [
        "LFW verification accuracy",
        "AFLW2000 yaw MAE",
        "AFLW2000 mean MAE",
        "DISFA F1 au26",
        "DISFA F1 mean of 8",
    ]
    assert here[filled].notna().all(axis=None)
    assert here.loc["pcl", "missing"].count("n/a: not given") == 3  # RAF-DB, FER-2013, CPLFW
    own = rows[(rows["method"] == "pcl") & (rows["feature"] == "general")].set_index(["data", "metric"])[
        "value"
    ]
    assert here.loc["pcl", "DISFA F1 au26"] == pytest.approx(own["DISFA", "F1 au26"])
    cited = table[table["source"] != HERE].set_index("method")
    assert cited.loc["LBP", "LFW verification accuracy"] == pytest.approx(0.569)
    assert "| LFW verification accuracy |" in said and paper_table.PUBLISHED in said
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["headline"]["paper"]["pcl"]["LFW verification accuracy"] == pytest.approx(
        own["LFW", "accuracy"]
    )
    assert sorted(path.name for path in (out / "figures").glob("probes_*.png")) == [
        "probes_DISFA.png", "probes_LFW.png", "probes_train_300W_LP__test_AFLW2000.png"
    ]  # fmt: skip


# What notebooks say of the kit's own run, as they say it, and where it stands in figures/tables.
QUOTED = [
    ("02", "pdd", ("two branches", "face", "yaw"), ".73"),
    ("02", "pdd", ("swaps", "face", "yaw"), ".67"),
    ("02", "pdd", ("orthogonality", "face", "yaw"), ".42"),
    ("02", "pdd", ("swaps", "pose", "yaw"), ".63"),
    ("02", "pdd", ("orthogonality", "pose", "yaw"), ".38"),
    ("02", "pdd", ("swaps", "face", "skin_tone"), ".82"),
    ("02", "pdd", ("swaps", "pose", "skin_tone"), ".80"),
    ("02", "pdd", ("orthogonality", "face", "skin_tone"), ".43"),
    ("02", "pdd", ("orthogonality", "pose", "skin_tone"), ".42"),
    ("02", "pdd", ("even and odd", "face", "yaw"), "-0.01"),
    ("02", "pdd", ("even and odd", "pose", "yaw"), ".73"),
    ("02", "pdd", ("even and odd", "face", "|yaw|"), ".52"),
    ("02", "pdd", ("even and odd", "face", "pitch"), ".41"),
    ("03", "main", ("simclr", "yaw MAE"), "8.7"),
    ("03", "main", ("simclr_noflip", "yaw MAE"), "8.0"),
    ("05", "main", ("random", "expression accuracy"), ".27"),
    ("05", "components", ("random, components", "expression accuracy"), ".32"),
    ("05", "main", ("random", "yaw MAE"), "10.8"),
    ("05", "components", ("random, components", "yaw MAE"), "8.8"),
    ("05", "components", ("pcl, components", "expression accuracy"), ".33"),
    ("05", "components", ("pcl, branches", "expression accuracy"), ".27"),
    ("05", "components", ("pcl, components", "verification accuracy"), ".66"),
    ("05", "components", ("pcl, branches", "verification accuracy"), ".61"),
    ("05", "components", ("pcl, components", "yaw MAE"), "5.5"),
    ("05", "components", ("pcl, branches", "yaw MAE"), "6.6"),
    ("05", "components", ("pcl_plus, components", "yaw MAE"), "5.0"),
    ("05", "components", ("simclr, components", "yaw MAE"), "7.1"),
    ("05", "components", ("simclr_noflip, components", "yaw MAE"), "6.4"),
    ("05", "components", ("simclr, components", "expression accuracy"), ".37"),
    ("05", "components", ("simclr_noflip, components", "expression accuracy"), ".38"),
    ("05", "components", ("masked, components", "yaw MAE"), "6.7"),
    ("05", "components", ("masked, components", "expression accuracy"), ".21"),
]


@pytest.mark.parametrize(("number", "name", "cell", "said"), QUOTED)
def test_numbers_in_the_text_are_those_of_the_tables(
    number: str, name: str, cell: tuple[str, ...], said: str
) -> None:
    table = pd.read_csv(ROOT / "figures" / "tables" / f"{name}.csv")
    if name == "pdd":
        value = table.set_index(["method", "feature", "factor"]).loc[cell, "value"]
    else:
        value = table.set_index("method").loc[cell[0], cell[1]]
    digits = len(said.split(".")[1])
    assert f"{round(value, digits) + 0.0:.{digits}f}".lstrip("0") == said  # 0 has no sign
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(number))
    own = [
        c.source for c in read(path).cells if c.cell_type == "markdown" and "the kit's own run" in c.source
    ]
    assert re.search(rf"(?<![\d.]){re.escape(said)}(?!\d)", "\n".join(own).replace("\n", " "))
