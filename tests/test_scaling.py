"""Scaling: power laws against known exponents, cells with training sets of their own, the report of known rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import blob_images

from pcl_lib import data, presets
from pcl_lib.ablations import cells, power_law, scaling
from pcl_lib.ablations.cells import Cell
from pcl_lib.ablations.variants import (
    CLIPS,
    FIRST_OF_SCALE,
    POINTS,
    SCALE_LENGTH,
    VARIANTS,
    Point,
    settings,
)
from pcl_lib.presets import PRESETS
from pcl_lib.utils import BadInput

EXPONENTS, GAINS, FLOOR = np.array([0.5, 0.8]), np.array([3.0, 2.0]), 4.0
GRID = np.array([(a, b) for a in (100.0, 300, 1000, 3000, 10_000) for b in (50.0, 100, 200, 400, 800)])
REFERENCES = np.exp(np.log(GRID).mean(0))


def known_law(x: np.ndarray) -> np.ndarray:
    first, second = (x / REFERENCES).T
    return FLOOR + GAINS[0] / first ** EXPONENTS[0] + GAINS[1] / second ** EXPONENTS[1]


def test_exact_rows_give_back_the_law() -> None:
    fit = power_law.fit(GRID, known_law(GRID))
    assert fit.law.exponents == pytest.approx(EXPONENTS, rel=1e-3)
    assert fit.law.gains == pytest.approx(GAINS, rel=1e-3)
    assert fit.law.floor == pytest.approx(FLOOR, rel=1e-3) and fit.spread < 1e-4
    far = np.array([[1e6, 1e5]])
    assert fit.law(far) == pytest.approx(known_law(far), rel=1e-3)


def test_intervals_cover_the_exponents_of_noisy_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power_law, "REPLICATES", 100)
    covered = []
    start, end = np.array([1000.0, 200]), np.array([10_000.0, 2000])
    change = np.diff(known_law(np.stack([start, end])))[0]
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(0, 0.1, len(GRID))
        fit = power_law.fit(GRID, known_law(GRID) + noise, seed)
        low, high = np.quantile(fit.exponents(), (0.025, 0.975), axis=0)
        found, *interval = fit.change(start, end)
        assert low[0] < fit.law.exponents[0] < high[0] and interval[0] < found < interval[1]
        covered += [*((low <= EXPONENTS) & (high >= EXPONENTS)), interval[0] <= change <= interval[1]]
        assert np.all(high - low < 1.5)
    assert np.mean(covered) >= 0.8  # of 30, where 95% are meant


def test_an_axis_without_effect_changes_nothing_beyond_its_interval() -> None:
    y = FLOOR + GAINS[0] * (GRID[:, 0] / REFERENCES[0]) ** -0.5
    fit = power_law.fit(GRID, y + np.random.default_rng(0).normal(0, 0.05, len(GRID)))
    _, low, high = fit.change(np.array([1000.0, 200]), np.array([1000.0, 2000]))
    assert low < 0 < high and high - low < 0.5
    _, low, high = fit.change(np.array([1000.0, 200]), np.array([10_000.0, 200]))
    assert high < 0


def test_rows_that_allow_no_law_are_refused() -> None:
    y = known_law(GRID)
    with pytest.raises(BadInput, match="needs more than 5 trainings, not 5"):
        power_law.fit(GRID[:5], y[:5])
    with pytest.raises(BadInput, match="two sizes of each axis"):
        power_law.fit(GRID[GRID[:, 1] == 50].repeat(2, 0), np.ones(10))
    for x, wrong in ((GRID * 0, y), (GRID, np.where(y > 9, np.nan, y))):
        with pytest.raises(BadInput, match="finite values at sizes above 0"):
            power_law.fit(x, wrong)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_points_have_the_iterations_and_the_width_they_name(name: str) -> None:
    base = PRESETS[name]
    for label, point in (POINTS | CLIPS).items():
        preset = VARIANTS[label].of(base)
        train = preset.train
        assert train.epochs * train.iterations_per_epoch == np.prod(SCALE_LENGTH[name]) * point.iterations
        assert preset.model.width == point.width * base.model.width
        people, images = point.size(preset)
        batch = max(train.pdd_batch, train.face_batch, train.pose_batch)
        # each epoch draws `frames_per_identity` images of everybody
        assert people * train.frames_per_identity >= train.iterations_per_epoch * batch
        assert images % point.clip == 0
    fresh = VARIANTS["scale: fresh faces"]
    train = fresh.of(base).train
    seen = (train.pdd_batch + train.face_batch + train.pose_batch) * np.prod(SCALE_LENGTH[name])
    assert fresh.point is not None and fresh.point.size(fresh.of(base)) == (seen, 1)


def test_every_point_has_settings_of_its_own_and_no_older_hash_changes() -> None:
    hashes = [settings(name, PRESETS["cpu"]) for name in (*POINTS, *CLIPS)]
    assert len(set(hashes)) == len(hashes)


def test_a_point_is_rendered_with_people_whom_no_other_set_shows(tmp_path: Path) -> None:
    preset = presets.override(PRESETS["smoke"], {"faces.size": 16})
    folder = Point(people=3, images=10, clip=5).rendered(preset, tmp_path)
    faces = data.PreparedFaces(folder)
    assert folder.parent == tmp_path / "faces"
    train = faces.table.iloc[faces.split("train")]
    assert len(train) == 30 and train["identity"].nunique() == 3 and train["clip"].nunique() == 6
    stills = data.PreparedFaces(Point(people=3, images=2).rendered(preset, tmp_path))
    assert stills.table["identity"].min() == FIRST_OF_SCALE
    assert Point(people=3, images=2).rendered(preset, tmp_path) == stills.folder  # not rendered again


def blob_set(folder: Path, name: str, seed: int, n: int = 96) -> data.PreparedFaces:
    rng = np.random.default_rng(seed)
    split = np.repeat(["train", "validation", "test"], [n - 32, 16, 16])
    table = pd.DataFrame({"split": split, "identity": np.arange(n) // 4, "yaw": rng.normal(0, 25, n)})
    data.write_prepared(folder, blob_images(n, 16, seed), table, name=name, source="drawn by the tests")
    return data.PreparedFaces(folder)


def test_a_cell_learns_from_one_set_and_is_probed_on_another(tmp_path: Path) -> None:
    small = {"model.image_size": 16, "model.projector_hidden": 16, "model.projector_out": 8}
    preset = presets.override(PRESETS["smoke"], small)
    probed, learnt = (blob_set(tmp_path / name, name, seed) for seed, name in enumerate(("probed", "learnt")))
    rows = {
        name: cells.run_cell(Cell("scale: base", 0), preset, probed, tmp_path / f"cell {name}", faces)
        for name, faces in {"own": learnt, "probed": None}.items()
    }
    assert set(rows["own"]["probes"]["data"]) == {"probed"} == set(rows["probed"]["probes"]["data"])
    values = [part["probes"]["value"].to_numpy() for part in rows.values()]
    assert values[0].shape == values[1].shape and not np.allclose(values[0], values[1])


ROWS_LAW = np.array([0.4, 0.3, 0.6, 0.5])  # exponents of the synthetic cells


def synthetic_rows() -> dict[str, pd.DataFrame]:
    """Cells of `POINTS` and `CLIPS` with three seeds, whose quantities follow one law and a little noise."""
    preset, rng, parts = PRESETS["cpu"], np.random.default_rng(0), {"cells": [], "probes": [], "leakage": []}
    context = {"preset": "cpu", "data": "rendered faces", "protocol": "validation", "device": "cpu"}
    context |= {"precision": "32-true", "versions": "", "commit": ""}
    base = np.array([1000.0, 4, 200, 0.25])
    for name, point in (POINTS | CLIPS).items():
        own = VARIANTS[name].of(preset)
        iterations = own.train.epochs * own.train.iterations_per_epoch
        x = np.array([*point.size(own), iterations, own.model.width])
        value = 0.1 + 0.05 * np.sum((x / base) ** -ROWS_LAW)
        for seed in range(3):
            key = {"method": name, "seed": seed} | context
            cost = {"iterations": iterations, "training_GFLOP": 1.0, "training_seconds": 1.0}
            parts["cells"].append(key | cost)
            noisy = value + rng.normal(0, 1e-4)
            for task, metric, told in (
                ("expression", "accuracy", 1 - noisy),
                ("verification", "accuracy", 1 - noisy),
                ("action units", "AUC mean", 1 - noisy),
                ("head pose", "MAE yaw", noisy),
            ):
                row = {"feature": "general", "task": task, "metric": metric, "value": told, "n": 10}
                parts["probes"].append(key | row)
            leak = {"feature": "face", "factor": "yaw", "metric": "R2", "value": 1 - noisy}
            parts["leakage"].append(key | leak)
    return {name: pd.DataFrame(rows) for name, rows in parts.items()}


def test_the_report_tells_the_law_that_the_rows_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(power_law, "REPLICATES", 20)
    written = scaling.report(tmp_path, synthetic_rows(), PRESETS["cpu"], cost=1e12)
    names = {path.name for path in written}
    assert {"scaling_points.csv", "scaling_law.md", "scaling_gain.csv", "scaling_video.md"} <= names
    assert (tmp_path / "figures" / "scaling.png").stat().st_size > 1000
    law = pd.read_csv(tmp_path / "tables" / "scaling_law.csv").set_index("quantity")
    assert set(law.index) == set(scaling.QUANTITIES)
    for axis, wanted in zip(scaling.AXES[:1] + scaling.AXES[2:3], ROWS_LAW[[0, 2]], strict=True):
        low, high = law[f"exponent of {axis} low"], law[f"exponent of {axis} high"]
        assert ((low - 0.05 <= wanted) & (wanted <= high + 0.05)).all() and (high - low < 0.5).all()
    gain = pd.read_csv(tmp_path / "tables" / "scaling_gain.csv").set_index("training")
    assert gain.loc["10 x iterations", scaling.HOURS] == pytest.approx(
        10 * gain.loc["paper's size", scaling.HOURS]
    )
    assert (gain.loc["10 x iterations", list(scaling.QUANTITIES)].astype(float) < 0).all()


def test_without_cells_there_is_no_report(tmp_path: Path) -> None:
    nothing = {kind: rows[:0] for kind, rows in synthetic_rows().items()}
    assert scaling.report(tmp_path, nothing, PRESETS["cpu"], 1e12) == []


def test_hours_are_operations_over_the_rate() -> None:
    point = scaling.paper_point()
    assert point.tolist() == pytest.approx([7363, 172_976 / 7363, 3000 * 28, 1.0])
    assert scaling.hours(point, scaling.RATE) == pytest.approx(84_000 / 3600)
    assert scaling.hours(point * [1, 1, 1, 2], scaling.RATE) == pytest.approx(4 * 84_000 / 3600)


def test_operations_grow_nearly_with_the_square_of_the_width(tmp_path: Path) -> None:
    faces = blob_set(tmp_path / "set", "blobs", 0)
    preset = presets.override(PRESETS["smoke"], {"model.image_size": 16, "model.width": 0.5})
    wide = presets.override(preset, {"model.width": 1.0})
    assert 3.3 < cells.flops("pcl", wide, faces) / cells.flops("pcl", preset, faces) <= 4
    assert scaling.operations(preset, faces) == pytest.approx(cells.flops("pcl", preset, faces), rel=0.03)


def test_what_clips_are_worth_is_read_between_the_sizes_of_stills() -> None:
    stills = pd.DataFrame({"people": [100, 1000, 10_000], "images of each": 4})
    stills["yaw MAE (degrees)"] = [12.0, 10.0, 8.0]
    clips = pd.DataFrame({"people": [100, 1000, 3200, 4000], "images of each": 5})
    clips["yaw MAE (degrees)"] = [13.0, 11.0, 10.0, 7.0]
    table = scaling.video_table(stills, clips)
    assert table["images"].tolist() == [500, 5000, 16_000, 20_000]
    assert table["still images for this yaw"].tolist() == [
        "fewer than 400", f"{np.sqrt(400 * 4000):,.0f}", "4,000", "more than 40,000",
    ]  # fmt: skip
    assert "verification error" not in table
