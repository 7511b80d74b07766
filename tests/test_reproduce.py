"""The runner: run folders that hold one run, strict parameters, failures that name their cell, resuming."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import blob_images

from pcl_lib import data, presets, reproduce, tables, utils
from pcl_lib.reproduce import notebooks, run, runner
from pcl_lib.utils import BadInput, exit_cleanly

PARAMETERS = 'preset = "smoke"\ndata = ""\nout = "../runs/smoke"\nseed = 0'
# Says what it was given and where it ran, and counts how often.
RECORD = """
import json, os, sys
from pathlib import Path
path = Path(out) / "tables" / NAME
before = json.loads(path.read_text())["runs"] if path.exists() else 0
said = {"values": [preset, data, out, seed], "folder": os.getcwd(), "python": sys.executable, "runs": before + 1}
path.write_text(json.dumps(said))
"""


def write_notebook(folder: Path, name: str, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A notebook of a heading, a parameters cell and these cells."""
    head = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), head, *code]), path
    )
    return path


def test_open_run_makes_the_folder_and_names_what_differs(blobs, tmp_path):
    out = tmp_path / "runs" / "x"
    setup = reproduce.open_run("smoke", blobs.folder, out, 3)
    assert (setup.preset, setup.faces.name, setup.out, setup.seed) == (presets.get("smoke"), "blobs", out, 3)
    assert {path.name for path in out.iterdir()} == {*run.FOLDERS, "config.json"}
    config = json.loads((out / "config.json").read_text())
    assert presets.from_dict(presets.Preset, config["preset"]) == presets.get("smoke")
    assert config["data"] == {"name": "blobs", "content_hash": blobs.content_hash} and config["seed"] == 3
    assert "torch 2" in config["versions"]
    reproduce.open_run("smoke", str(blobs.folder), str(out), 3)
    other = presets.override(presets.get("smoke"), {"train.lr": 0.5})
    with pytest.raises(
        BadInput, match=r"preset\.train\.lr was 0\.002, now 0\.5; seed was 3, now 4.*another --out"
    ):
        reproduce.open_run(other, blobs.folder, out, 4)
    (out / "config.json").write_text("{torn")
    with pytest.raises(BadInput, match=r"config\.json cannot be read"):
        reproduce.open_run("smoke", blobs.folder, out, 3)


@pytest.mark.parametrize(
    ("preset", "folder", "seed", "said"),
    [("smoky", "", 0, "unknown preset"), ("smoke", "nowhere", 0, "no folder"), ("smoke", "", -1, "seed -1")],
)
def test_open_run_refuses_bad_settings(preset, folder, seed, said, tmp_path):
    with pytest.raises(BadInput, match=said):
        reproduce.open_run(preset, folder and tmp_path / folder, tmp_path / "out", seed)
    assert not (tmp_path / "out").exists()


def test_a_run_of_an_older_kit_goes_on_where_only_new_settings_stand_at_their_defaults(blobs, tmp_path):
    out = tmp_path / "run"
    reproduce.open_run("smoke", blobs.folder, out, 0)
    config = json.loads((out / "config.json").read_text())
    del config["preset"]["model"]["even_odd"]  # as if it had come later
    (out / "config.json").write_text(json.dumps(config))
    reproduce.open_run("smoke", blobs.folder, out, 0)
    other = presets.override(presets.PRESETS["smoke"], {"model.even_odd": True})
    with pytest.raises(BadInput, match=r"preset.model.even_odd was False, now True"):
        reproduce.open_run(other, blobs.folder, out, 0)
    config["preset"]["model"]["unheard"] = 1
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"preset.model.unheard was 1, now None"):
        reproduce.open_run("smoke", blobs.folder, out, 0)


def labelled(folder: Path, name: str, seed: int) -> data.PreparedFaces:
    table = pd.DataFrame(
        {"yaw": np.linspace(-40, 40, 20), "split": ["train"] * 12 + ["validation"] * 4 + ["test"] * 4}
    )
    data.write_prepared(folder, blob_images(20, 16, seed), table, name=name, source="drawn by the tests")
    return data.PreparedFaces(folder)


def test_a_run_of_several_sets_holds_them_all(blobs, tmp_path):
    other, same_name = labelled(tmp_path / "b", "other", 1), labelled(tmp_path / "c", "other", 2)
    out, both = tmp_path / "run", run.join_folders([blobs.folder, other.folder])
    setup = reproduce.open_run("smoke", both, out, 0)
    assert [faces.name for faces in setup.sets] == ["blobs", "other"] and setup.faces.name == "blobs"
    config = json.loads((out / "config.json").read_text())
    assert config["probed too"] == {"other": other.content_hash}
    assert [d["name"] for d in runner.summarise_run(setup)["probed_too"]] == ["other"]
    reproduce.open_run("smoke", both, out, 0)
    third = labelled(tmp_path / "d", "third", 3)
    for wrong in (
        [blobs.folder],
        [blobs.folder, same_name.folder],
        [blobs.folder, other.folder, third.folder],
    ):
        with pytest.raises(BadInput, match=r"other settings \(probed too.* was .*choose another --out"):
            reproduce.open_run("smoke", run.join_folders(wrong), out, 0)
    for wrong, said in (
        ([other, other], "give each set once"),
        ([blobs, other, same_name], "both called 'other'"),
    ):
        with pytest.raises(BadInput, match=said):
            reproduce.open_run("smoke", run.join_folders([faces.folder for faces in wrong]), out, 0)


@pytest.mark.usefixtures("still")
def test_notebooks_get_all_folders_in_one_string(blobs, tmp_path):
    other = labelled(tmp_path / "b", "other", 1)
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    write_notebook(folder, "00_a", "NAME = 'a.json'", RECORD)
    summary = runner.reproduce("smoke", [blobs.folder, other.folder], out, 0, folder=folder)
    given = json.loads((out / "tables" / "a.json").read_text())["values"][1]
    assert run.split_folders(given) == [str(blobs.folder.resolve()), str(other.folder.resolve())]
    assert [d["name"] for d in (summary["data"], *summary["probed_too"])] == ["blobs", "other"]
    assert "tables/paper.csv" in summary["absent"]


def test_trained_says_whether_it_trains_or_loads(blobs, tmp_path, capsys):
    smoke = presets.get("smoke")
    short = dataclasses.replace(smoke, train=dataclasses.replace(smoke.train, epochs=1))
    setup = reproduce.open_run(short, blobs.folder, tmp_path, 0)
    first = setup.trained("pcl")
    assert "pcl: training 1 epochs on blobs" in capsys.readouterr().out
    again = setup.trained("pcl")
    assert "pcl: loading the finished training" in capsys.readouterr().out
    assert again.seconds == first.seconds and len(again.history) == 1
    setup.trained("random")
    assert "nothing to train" in capsys.readouterr().out
    summary = runner.summarise_run(setup)
    assert summary["training_seconds"] == {"pcl": pytest.approx(first.seconds, abs=0.06), "random": 0.0}


@pytest.fixture
def still(monkeypatch):
    """The library does not change while a test runs, whoever works on it."""
    monkeypatch.setattr(notebooks, "library_hash", lambda: "same")


@pytest.mark.usefixtures("still")
def test_runs_resumes_and_names_the_cell_that_fails(blobs, tmp_path, capsys):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    for name in ("00_a", "05_b"):
        write_notebook(folder, name, f"NAME = '{name}.json'", RECORD)

    def run() -> list[int]:
        runner.reproduce("smoke", blobs.folder, out, 7, folder=folder)
        return runs()

    def runs() -> list[int]:
        read = [json.loads((out / "tables" / f"{name}.json").read_text()) for name in ("00_a", "05_b")]
        assert all(r["values"] == ["smoke", str(blobs.folder.resolve()), str(out), 7] for r in read)
        assert all(Path(r["folder"]) == folder and r["python"] == sys.executable for r in read)
        return [r["runs"] for r in read]

    assert run() == [1, 1]
    assert "finished before" not in capsys.readouterr().out
    assert run() == [1, 1]
    assert capsys.readouterr().out.count("finished before") == 2
    with pytest.raises(BadInput, match="seed was 7, now 8"):
        runner.reproduce("smoke", blobs.folder, out, 8, folder=folder)

    failing = ["raise ValueError('first line\\nthe reason')", "never = 1"]
    write_notebook(folder, "05_b", "NAME = '05_b.json'", RECORD, *failing)
    with pytest.raises(SystemExit) as stop:
        exit_cleanly(lambda: run() and None)
    said = capsys.readouterr()
    assert stop.value.code == 2 and "finished before" in said.out  # 00_a
    assert (
        said.err.startswith("error: 05_b.ipynb, cell 5: ValueError: the reason (")
        and said.err.count("\n") == 1
    )
    copy = (out / "notebooks" / "05_b.ipynb").read_text()
    assert "first line" in copy and "never = 1" in copy and runs() == [1, 2]
    assert not notebooks.read_stamp(out / "notebooks" / "05_b.ipynb")
    assert notebooks.read_stamp(out / "notebooks" / "00_a.ipynb")["seconds"] > 0


@pytest.mark.usefixtures("still")
def test_an_earlier_notebook_that_ran_again_takes_the_later_ones_along(blobs, tmp_path, monkeypatch):
    folder, out, ran = tmp_path / "notebooks", tmp_path / "out", []
    paths = [write_notebook(folder, name) for name in ("00_a", "02_b", "05_c")]

    def fake(path: Path, run_folder: Path, *_: object) -> float:
        ran.append(path.stem[:2])
        (run_folder / "notebooks" / path.name).write_bytes(path.read_bytes())
        return 1.0

    def run(only: str | None = None) -> list[str]:
        ran.clear()
        runner.reproduce("smoke", blobs.folder, out, 0, only=only, folder=folder)
        return list(ran)

    monkeypatch.setattr(notebooks, "run_notebook", fake)
    assert run() == ["00", "02", "05"]
    assert run() == []
    write_notebook(folder, paths[1].stem, "changed = 1")
    assert run("00") == [] and run("02") == ["02"] and run() == ["05"] and run() == []
    monkeypatch.setattr(notebooks, "library_hash", lambda: "newer")
    assert run("05") == ["05"] and run() == ["00", "02", "05"]


@pytest.mark.usefixtures("still")
def test_a_clock_that_is_set_back_changes_nothing(blobs, tmp_path, monkeypatch):
    """An hour earlier at every look: what ran last still counts as last."""
    hours = iter(range(1000, 0, -1))
    monkeypatch.setattr("time.time", lambda: 3600.0 * next(hours))
    test_an_earlier_notebook_that_ran_again_takes_the_later_ones_along(blobs, tmp_path, monkeypatch)


def test_a_second_run_in_a_folder_is_refused_by_name(blobs, tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    write_notebook(folder, "00_a")
    with (
        utils.only_one(out.resolve() / ".reproduce.lock", "it"),
        pytest.raises(BadInput, match=r"the run folder .*out is in use by process \d+ on"),
    ):
        runner.reproduce("smoke", blobs.folder, out, 0, folder=folder)


def test_summary_holds_the_headline_numbers(blobs, tmp_path, capsys):
    setup = reproduce.open_run("smoke", blobs.folder, tmp_path, 7)
    row = {"feature": "general", "task": "head pose", "metric": "MAE yaw", "value": [4.5], "n": 8}
    rows = setup.save_rows(pd.DataFrame(row), "probes", method="pcl", precision="32-true")
    assert rows[["preset", "seed", "data", "device"]].iloc[0].tolist() == ["smoke", 7, "blobs", setup.device]
    tables.write_table(tables.main_table(rows), tmp_path / "tables" / "main", "Main")
    summary = runner.summarise_run(setup)
    runner.report(tmp_path, summary)
    said = capsys.readouterr().out
    assert summary["headline"] == {"main": {"pcl": {"yaw MAE": 4.5}}}
    assert summary["absent"] == ["tables/disentanglement.csv"]
    assert (summary["preset"], summary["seed"], summary["data"]["name"]) == ("smoke", 7, "blobs")
    assert "no tables/disentanglement.csv yet" in said and "| pcl |" in said and "main.tex" in said


def test_a_cell_that_takes_too_long_is_named(blobs, tmp_path):
    folder = tmp_path / "notebooks"
    write_notebook(folder, "00_slow", "import time", "time.sleep(600)")
    with pytest.raises(BadInput, match=r"00_slow\.ipynb, cell 4: took longer than the 4 s for a cell"):
        runner.reproduce("smoke", blobs.folder, tmp_path / "out", 0, folder=folder, limits=(4, 500))
    assert "time.sleep" in (tmp_path / "out" / "notebooks" / "00_slow.ipynb").read_text()
    clock = notebooks.Clock((5.0, 0.0))
    assert clock(nbformat.v4.new_code_cell("")) == 1.0 and clock.limit == "0 s for a notebook"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (PARAMETERS.replace("seed = 0", ""), "lacks seed"),
        (PARAMETERS + "\nepochs = 3", "sets epochs"),
        (PARAMETERS.replace("seed = 0", "seed = int(0)"), "alone, not"),
        (PARAMETERS + "\nprint(seed)", r"not: print\(seed\)"),
        (PARAMETERS + "\n(", "alone, not"),
    ],
)
def test_parameters_are_strict(parameters, said, tmp_path):
    write_notebook(tmp_path / "n", "00_a", parameters=parameters)
    with pytest.raises(BadInput, match=f"00_a.ipynb.*{said}"):
        runner.reproduce("smoke", "", tmp_path / "out", 0, folder=tmp_path / "n")
    assert not (tmp_path / "out").exists()  # nothing ran


def test_parameters_cell_must_be_there_and_the_file_a_notebook(tmp_path):
    path = write_notebook(tmp_path, "00_a")
    path.write_text(path.read_text().replace("parameters", "other"))
    with pytest.raises(BadInput, match="0 cells tagged 'parameters'"):
        notebooks.check_parameters(path)
    path.write_text("{}")
    with pytest.raises(BadInput, match="not a readable notebook"):
        notebooks.check_parameters(path)


def test_only_picks_by_number(tmp_path):
    for name in ("02_b", "00_a", "05_c"):
        write_notebook(tmp_path, name)
    found, wanted = notebooks.find_notebooks(tmp_path, "05, 00")
    assert [p.stem for p in found] == ["00_a", "02_b", "05_c"] and [p.stem for p in wanted] == [
        "00_a",
        "05_c",
    ]
    with pytest.raises(BadInput, match="no notebook '5', there are 00, 02, 05"):
        notebooks.find_notebooks(tmp_path, "02,5")
    with pytest.raises(BadInput, match="no notebooks in"):
        notebooks.find_notebooks(tmp_path / "empty")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--data", "a:b"], "rename that folder"),
        (["--data", "a", ""], "set to probe is empty"),
        (["--data", "nowhere"], "no folder"),
        (["--only", "99"], "no notebook"),
        (["--preset", "x"], "unknown preset 'x'"),
    ],
)
def test_command_line_says_one_sentence(argv, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        exit_cleanly(lambda: runner.main([*argv, "--out", str(tmp_path / "out")]))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and said in error and error.count("\n") == 1
