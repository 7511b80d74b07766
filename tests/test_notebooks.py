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
import pandas as pd
import pytest
from conftest import blob_images
from PIL import Image

from pcl_lib import data
from pcl_lib.notebooks import PARAMETERS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
WANTED = {
    "00_tour",
    "01_data_preparation",
    "02_pose_disentangled_decoder",
    "03_contrastive_pretraining",
    "05_downstream_probes",
    "06_pose_face_swap",
    "07_paper_tables",
}
ABSOLUTE = re.compile(
    r"""(?:["'(\s]|^)(?:/(?:home|work|tmp|root|Users|mnt|content)/|[A-Z]:\\)""", re.MULTILINE
)
TABLES = ("probes.csv", "readability.csv", "swaps.csv", "pdd.csv", "training.csv", "splits.md", "tour.csv")
WRITTEN = ("main", "disentanglement", "swap_table", "published")
FIGURES = [
    "labels",
    "training_curves",
    "probes",
    "confusion",
    "pose_error",
    "readability",
    "swaps",
    "turn_the_head",
    "embedding",
]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: Any) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_all_notebooks_are_there() -> None:
    assert set(NAMES) >= WANTED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_form(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert max(lengths) <= 25 and sum(lengths) <= 150
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
    assert values == {"preset": "smoke", "data": "", "out": "../runs/smoke", "seed": 0}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_course_parts_are_there(path: Path) -> None:
    text = prose(read(path))
    for part in ("**Question.**", "**You will learn**", "**It needs**", "**It takes**", "**Paper:**"):
        assert part in text, part
    assert all(f"`{preset}`" in text for preset in ("smoke", "cpu", "gpu", "paper"))
    assert text.count("<details>") == text.count("</details>") == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_links_resolve_and_no_path_is_absolute(path: Path) -> None:
    notebook = read(path)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(notebook)):
        if not target.startswith(("http://", "https://", "#")):
            assert (path.parent / target.split("#")[0]).exists(), target
    for cell in notebook.cells:
        assert not ABSOLUTE.search(cell.source), cell.source


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
    for method in ("pcl", "simclr"):
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


def test_summary_has_headlines_and_times(whole_run: Path) -> None:
    summary = json.loads((whole_run / "summary.json").read_text(encoding="utf-8"))
    assert summary["preset"] == "smoke" and summary["seed"] == 0 and not summary["absent"]
    assert set(summary["seconds_by_notebook"]) == set(NAMES)
    assert {"pcl", "simclr", "random", "raw pixels"} <= set(summary["headline"]["main"])
    assert {"pcl, face", "pcl, pose"} <= set(summary["headline"]["disentanglement"])


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


def test_a_set_that_knows_only_identities_is_told_what_is_left_out(tmp_path: Path) -> None:
    people = pd.DataFrame({"identity": [f"person {i}" for i in np.arange(160) // 4]})
    data.write_prepared(
        tmp_path / "set", blob_images(160, 32), people, name="people", source="drawn by the tests"
    )
    done = reproduce(tmp_path / "run", "--data", str(tmp_path / "set"), "--only", "01,05,07")
    assert "There is no tables/main.csv" in done.stdout
    leaks = pd.read_csv(tmp_path / "run" / "tables" / "readability.csv")
    assert set(leaks["factor"]) == {"identity"}
    copy = json.dumps(read(tmp_path / "run" / "notebooks" / "05_downstream_probes.ipynb"))
    assert "people has no labels for expression" in copy and "people has no list of pairs" in copy
