"""Cells run, are kept, are not run again and fail alone; the tables say what their rows say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import blob_images

from pcl_lib import ablations, data, methods, presets, reproduce
from pcl_lib.ablations import __main__ as command
from pcl_lib.ablations import cells as ablation_cells
from pcl_lib.ablations import plots as ablation_plots
from pcl_lib.ablations import scheduling, variants
from pcl_lib.ablations import tables as ablation_tables
from pcl_lib.ablations.cells import Cell
from pcl_lib.ablations.variants import GROUPS, VARIANTS, Variant
from pcl_lib.presets import PRESETS
from pcl_lib.probes import scores
from pcl_lib.tables import to_markdown
from pcl_lib.utils import exit_cleanly

SMALL = presets.override(
    PRESETS["smoke"],
    {"model.image_size": 16, "model.projector_hidden": 16, "model.projector_out": 8, "train.epochs": 1},
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"split": np.repeat(["train", "validation", "test"], [64, 16, 16])})
    table = table.assign(identity=np.arange(96) // 4, yaw=rng.normal(0, 25, 96), pitch=rng.normal(0, 9, 96))
    folder = tmp_path_factory.mktemp("ablations") / "set"
    data.write_prepared(folder, blob_images(96, 20), table, name="blobs", source="drawn by the tests")
    return data.PreparedFaces(folder)


@pytest.fixture(scope="module")
def done(faces: data.PreparedFaces, tmp_path_factory: pytest.TempPathFactory) -> reproduce.Run:
    """A run folder with two cells of three."""
    setup = reproduce.open_run(SMALL, faces.folder, tmp_path_factory.mktemp("runs") / "run", 0)
    for cell in (Cell("pcl", 0), Cell("simclr", 0)):
        ablation_cells.keep(
            setup.out, cell, ablation_cells.run_cell(cell, SMALL, faces, setup.out / "cells" / cell.stem)
        )
    return setup


def test_every_variant_is_a_method_with_settings_of_each_preset() -> None:
    for preset in PRESETS.values():
        hashes = {name: variants.settings(name, preset) for name in VARIANTS}
        for name, variant in VARIANTS.items():
            methods.build(variant.method, variant.of(preset))
            assert variant.method != "pcl" or name == "pcl" or hashes[name] != hashes["pcl"], name


def test_changes_and_factors_reach_the_preset() -> None:
    own = Variant("x", changes={"loss.mixing": 0.0}, times={"train.pose_negatives": 4, "model.width": 0.5})
    made = own.of(PRESETS["cpu"])
    assert made.loss.mixing == 0 and made.train.pose_negatives == 16 and made.model.width == 0.125
    assert made.model.image_size == 32 and made.train.iterations_per_epoch * made.train.epochs == 400
    assert Variant("x", times={"train.pose_negatives": 0.01}).of(PRESETS["cpu"]).train.pose_negatives == 1


def test_cells_are_kept_with_their_costs_and_context(done: reproduce.Run) -> None:
    cells = ablation_cells.read(done.out, "cells").set_index("method")
    assert list(cells.index) == ["pcl", "simclr"]
    assert cells.loc["pcl", "images"] == cells.loc["simclr", "images"] > 0
    assert cells.loc["pcl", "training_GFLOP"] > cells.loc["simclr", "training_GFLOP"] > 0
    rows = ablation_cells.read(done.out, "probes")
    assert {"value", "n", "commit", "versions", "precision", "settings"} <= set(rows)
    assert set(rows.loc[rows["method"] == "simclr", "feature"]) == {"general", "even", "odd"}
    assert not list((done.out / "cells").iterdir())  # checkpoints go once they are probed


def test_probes_of_a_cell_and_their_bootstrap_belong_together(done: reproduce.Run) -> None:
    rows, again = ablation_cells.read(done.out, "probes"), ablation_cells.read_bootstrap(done.out)
    keys = ["method", "seed", "feature", "task", "metric"]
    both = rows.merge(again, on=keys)
    assert len(both) == len(rows) == len(again)
    low = np.nanpercentile(both[[str(i) for i in range(scores.REPLICATES)]], 2.5, axis=1)
    np.testing.assert_allclose(low, both["low"])


def test_only_cells_of_these_settings_count_as_done(done: reproduce.Run) -> None:
    cells = ablation_cells.left(done.out, SMALL, ["pcl", "simclr"], [0, 1])
    assert cells == [Cell("pcl", 1), Cell("simclr", 1)]
    other = presets.override(SMALL, {"train.lr": 0.5})
    assert len(ablation_cells.left(done.out, other, ["pcl", "simclr"], [0])) == 2
    assert all(not len(found) for found in ablation_cells.current(done.out, other).values())
    assert len(ablation_cells.current(done.out, SMALL)["cells"]) == 2


class Pool:
    """A process pool that works here, so that a test can make it fail."""

    def __init__(self, *_: Any) -> None: ...

    def shutdown(self, **_: Any) -> None: ...

    def submit(self, work: Any, *arguments: Any) -> Any:
        job: Future[Any] = Future()
        try:
            job.set_result(work(*arguments))
        except Exception as error:
            job.set_exception(error)
        return job


def test_a_cell_that_fails_does_not_stop_the_others(
    faces: data.PreparedFaces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(scheduling, "ProcessPoolExecutor", Pool)
    setup = reproduce.open_run(SMALL, faces.folder, tmp_path / "run", 0)
    names = ["3D turn (oracle)", "random"]  # the set is not of rendered faces: nobody can turn them
    failed = ablation_cells.run_cells(setup, names, [0], 2)
    assert list(failed) == [Cell("3D turn (oracle)", 0)]
    assert "blobs has no" in failed[Cell("3D turn (oracle)", 0)]
    assert "failed: loss.pose_change 'turn' renders faces anew" in capsys.readouterr().out
    assert list(ablation_cells.read(setup.out, "cells")["method"]) == ["random"]
    assert not ablation_cells.run_cells(setup, ["random"], [0], 1)
    assert "1 cells, 1 of them done before" in capsys.readouterr().out


def test_processes_give_the_rows_of_a_cell_run_here(done: reproduce.Run, tmp_path: Path) -> None:
    out = reproduce.open_run(SMALL, done.faces.folder, tmp_path / "run", 0)
    assert not ablation_cells.run_cells(out, ["simclr"], [0], 1)
    here = ablation_cells.read(done.out, "probes").query("method == 'simclr'")["value"].to_numpy()
    np.testing.assert_allclose(ablation_cells.read(out.out, "probes")["value"], here, rtol=1e-5)


def test_tables_show_rows_costs_and_what_was_not_run(done: reproduce.Run) -> None:
    rows = ablation_cells.current(done.out, SMALL)
    written = ablation_tables.write_all(done.out, rows, ablation_cells.read_bootstrap(done.out), GROUPS)
    names = {path.name for path in written}
    assert {
        f"ablation_{n}_table{end}"
        for n in ("main", "pose", "dci", "components", "lead")
        for end in (".csv", ".tex")
    } <= (names)
    table = pd.read_csv(done.out / "tables" / "ablation_main_table.csv").set_index("method")
    assert list(table.index) == sorted(
        GROUPS, key=lambda n: list(dict.fromkeys(GROUPS.values())).index(GROUPS[n])
    )
    probed = rows["probes"].query("method == 'pcl' and feature == 'general' and metric == 'MAE yaw'")
    assert table.loc["pcl", "yaw MAE"] == pytest.approx(probed["value"].item())
    read = rows["leakage"].query("method == 'pcl' and feature == 'face' and factor == 'yaw'")
    assert table.loc["pcl", "yaw R2 from face"] == pytest.approx(read["value"].item())
    assert table.loc["pcl", "images"] == rows["cells"].set_index("method").loc["pcl", "images"]
    assert "yaw MAE n/a: not run" in table.loc["K = 1", "missing"]
    assert "yaw R2 from face n/a: no such feature" in table.loc["simclr", "missing"]
    text = (done.out / "tables" / "ablation_main_table.md").read_text()
    assert "| *parts of PCL* |" in text and "| K = 1 | 0 | n/a: not run |" in text
    lead = pd.read_csv(done.out / "tables" / "ablation_lead_table.csv").set_index("method")
    simclr = (
        rows["probes"]
        .query("method == 'simclr' and feature == 'general' and metric == 'MAE yaw'")["value"]
        .item()
    )
    assert lead.loc["simclr", "yaw MAE"] == pytest.approx(simclr - probed["value"].item())
    parts = pd.read_csv(done.out / "tables" / "ablation_components_table.csv").set_index("method")
    odd = rows["probes"].query("method == 'simclr' and feature == 'odd' and metric == 'MAE yaw'")
    assert parts.loc["simclr, components", "yaw MAE"] == pytest.approx(odd["value"].item())
    assert list(parts.index) == ["pcl, branches", "pcl, components", "simclr, components"]
    parting = pd.read_csv(done.out / "tables" / "ablation_dci_table.csv")
    assert list(parting["method"]) == list(parts.index)
    text = (done.out / "tables" / "ablation_lead_table.md").read_text()
    assert "over test identities and seeds, of the difference" in text and "a positive lead is better" in text


def test_bounds_and_longer_runs_are_never_the_best() -> None:
    """Each unranked row holds the best value of every column, and the ranked ones compete among themselves."""
    groups = {"a": "x", "b": "x", "long": ablation_tables.TIME, "labels": ablation_tables.BOUNDS}
    context = dict.fromkeys(("preset", "data", "protocol", "device", "precision", "versions", "commit"), "x")
    metrics = {("head pose", "MAE yaw"): -1.0, ("expression", "accuracy"): 0.1}  # the better way, a step
    rows = pd.DataFrame(
        [
            {"method": name, "task": task, "metric": metric, "value": 5 + step * place}
            for place, name in enumerate(groups)
            for (task, metric), step in metrics.items()
        ]
    ).assign(feature="general", seed=0, n=8, **context)
    cells = pd.DataFrame({"method": list(groups), "images": 10, "training_seconds": 7, "training_GFLOP": 1})
    table = ablation_tables.ablation_table(rows, pd.DataFrame(), cells, groups)
    text = to_markdown(table, "caption")
    assert text.count("**") == 4 and "**4.00**" in text and "**5.100**" in text
    assert "| *other methods in PCL's time (not ranked)* |" in text and "| *x* |" in text
    assert "**4.00**" in to_markdown(ablation_tables.pose_table(rows, groups), "caption")
    (line,) = (line for line in text.splitlines() if line.startswith("| long |"))
    assert line.endswith("| 10 | 7 | 1 |")


def test_figures_show_every_seed_and_series(done: reproduce.Run) -> None:
    rows = ablation_cells.current(done.out, SMALL)["probes"]
    rows = pd.concat([rows, rows.assign(seed=1, value=rows["value"] + 1), rows.assign(method="K = 1")])
    figure = ablation_plots.dots(rows, GROUPS, [("head pose", "MAE yaw")])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["pcl", "simclr", "K = 1"]
    own = rows.query("method == 'pcl' and feature == 'general' and metric == 'MAE yaw'")["value"]
    assert {x for line in axes.lines for x in np.atleast_1d(line.get_xdata())} >= {*own, own.mean()}
    series = ablation_plots.sensitivity(rows, variants.SERIES, ("head pose", "MAE yaw"))
    (axes,) = series.axes  # the other series have one point alone
    assert axes.get_title() == "negatives K"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "preset"]


def test_notebook_gets_the_cells_beside_the_run_or_tiny_ones(
    done: reproduce.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation_cells, "FEW", ("simclr",))
    setup = reproduce.open_run(SMALL, done.faces.folder, tmp_path / "run", 0)
    rows, bootstrap = ablations.shown(setup)
    assert "tiny ones are run now" in capsys.readouterr().out
    assert set(rows["cells"]["preset"]) == {"smoke, tiny cells"} and set(bootstrap["method"]) == {"simclr"}
    (tmp_path / "smoke-ablations").symlink_to(done.out)
    rows, bootstrap = ablations.shown(setup)
    assert "2 cells read from" in capsys.readouterr().out
    assert list(rows["cells"]["method"]) == ["pcl", "simclr"] and len(bootstrap)


def test_the_record_is_the_committed_table_and_says_that_it_is_none_of_this_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, table = ablations.record("questions").split("\n\n", 1)
    assert "not of this run" in said
    assert table == (ablation_cells.RECORD / "ablation_questions_table.md").read_text(encoding="utf-8")
    monkeypatch.setattr(ablation_cells, "RECORD", tmp_path)
    assert f"is not there ({tmp_path}" in ablations.record("main")


def test_swap_table_holds_the_mean_over_seeds_of_both_donors() -> None:
    context = dict.fromkeys(("preset", "data", "protocol", "device", "precision", "versions", "commit"), "x")
    swaps = pd.DataFrame(
        [("pcl", 0, 0.8, 0.1), ("pcl", 1, 0.6, 0.2), ("other", 0, -0.5, 0.0)],
        columns=["method", "seed", "pose_donor_r", "face_donor_r"],
    ).assign(factor="yaw", reader_r2=1.0, n=8, **context)
    table = ablation_tables.swap_table(swaps)
    assert list(table.frame["seeds"]) == [2, 1]
    assert list(table.frame["yaw: pose / face donor"]) == ["0.70 / 0.15", "-0.50 / 0.00"]


def test_questions_and_search_name_variants_that_there_are() -> None:
    for question in ablation_tables.QUESTIONS:
        for name in (question.first, question.second):
            assert name.removesuffix(", components").removesuffix(", branches") in GROUPS
    assert set(variants.SEARCH) | set(GROUPS) | set(variants.SCALING) == set(VARIANTS)
    assert len({Cell(name, 0).stem for name in VARIANTS}) == len(VARIANTS)


def test_a_hash_of_digits_alone_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = pd.DataFrame({"method": ["K x 4"], "seed": [0], "settings": ["0047773190"]})
    (tmp_path / "tables").mkdir()
    rows.to_csv(tmp_path / "tables" / "ablation_cells.csv", index=False)
    assert ablation_cells.read(tmp_path, "cells")["settings"].tolist() == ["0047773190"]


def test_cells_of_rendered_faces_measure_swaps(tmp_path: Path) -> None:
    setup = reproduce.open_run(SMALL, "", tmp_path / "run", 0)
    for name in ("pcl", "face + pose, no PDD"):
        cell = Cell(name, 0)
        ablation_cells.keep(
            setup.out, cell, ablation_cells.run_cell(cell, SMALL, setup.faces, tmp_path / cell.stem)
        )
    swaps = ablation_cells.read(setup.out, "swaps")
    assert set(swaps["method"]) == {"pcl"}  # without the PDD nothing was taught to decode
    assert {"yaw", "pitch", "roll"} <= set(swaps["factor"])
    names = ["pcl", "face + pose, no PDD"]
    ablation_cells.report(setup.out, SMALL, names, [0])
    table = pd.read_csv(setup.out / "tables" / "ablation_main_table.csv")
    assert list(table["method"]) == names  # a table of some variants has their rows alone
    answered = pd.read_csv(setup.out / "tables" / "ablation_questions_table.csv")
    assert list(answered["compared"]) == ["pcl - face + pose, no PDD", "pcl, components - pcl"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes there are")
def test_a_killed_command_leaves_no_cells_computing(tmp_path: Path) -> None:
    """The workers end with the command, however it ends."""
    code = (
        "import time, multiprocessing as m\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "from pcl_lib.ablations import scheduling\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, m.get_context('spawn'), scheduling._start)\n"
        "    pool.submit(time.sleep, 600)\n"
        "    while not pool._processes: time.sleep(0.1)\n"
        "    print(*pool._processes, flush=True)\n    time.sleep(600)\n"
    )
    (tmp_path / "command.py").write_text(code)
    command = subprocess.Popen(
        [sys.executable, tmp_path / "command.py"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert command.stdout
    worker = int(command.stdout.readline())
    time.sleep(3)  # until it has imported what it runs
    command.kill()
    command.wait()
    for _ in range(600):
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rsplit(")")[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # ended, and nobody has asked how
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("a worker outlived its command by a minute")


def test_action_unit_table_holds_f1_and_auc_of_each_unit() -> None:
    context = dict.fromkeys(("preset", "data", "protocol", "device", "precision", "versions", "commit"), "x")
    rows = pd.DataFrame(
        [
            {"method": method, "seed": seed, "metric": f"{metric} {unit}", "value": value + 0.1 * seed}
            for seed in (0, 1)
            for method, value in (("a", 0.3), ("b", 0.5))
            for metric in ("F1", "AUC")
            for unit in ("au01", "au12", "mean")
        ]
    ).assign(feature="general", task="action units", n=8, **context)
    table = ablation_tables.unit_table(rows)
    assert list(zip(table.frame["method"], table.frame["metric"], strict=True)) == [
        ("a", "F1"), ("b", "F1"), ("a", "AUC"), ("b", "AUC")
    ]  # fmt: skip
    assert list(table.frame.columns) == ["method", "metric", "au01", "au12", "mean"]
    assert str(table.frame["au12"][1]) == f"0.550 ± {np.std([0.5, 0.6], ddof=1):.3f}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "none"], "unknown preset 'none'"),
        (["--preset", "smoke", "--only", "pcl", "nonsense"], "there is no variant 'nonsense'"),
        (["--preset", "smoke", "--seeds", "0"], "--seeds and --workers must be 1 or more"),
    ],
)
def test_command_line_refuses_in_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ablations", *arguments])
    with pytest.raises(SystemExit) as stop:
        exit_cleanly(command.main)
    assert stop.value.code == 2 and sentence in capsys.readouterr().err
