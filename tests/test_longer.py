"""`python -m pcl_lib.reproduce.longer` at smoke: every part leaves its tables, and the same command does none twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pcl_lib.reproduce import depth, longer

# "attributes" is "oracles" with other changes, and notebook 09 trains these
PARTS = ["oracles", "gan", "depth"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "smoke-beyond"
    longer.main(["--preset", "smoke", "--only", *PARTS, "--out", str(folder)])
    return folder


def table(out: Path, name: str) -> pd.DataFrame:
    assert (out / "tables" / f"{name}.md").is_file()
    return pd.read_csv(out / "tables" / f"{name}.csv")


def test_oracles_are_asked_what_notebook_09_asks_of_its_models(out: Path) -> None:
    features = table(out, "oracles_features")
    names = ["ageing", "ageing, untrained", "make-up", "make-up, untrained"]
    assert features["model"].tolist() == names and set(features["question"]) == {"factor"}
    assert np.isfinite(features[["all else", "attribute"]].to_numpy()).all()
    assert table(out, "oracles_swaps")["model"].tolist() == ["ageing", "make-up"]
    assert table(out, "oracles_tasks")["model"].tolist() == ["untrained", "ageing", "make-up"]


def test_the_gan_is_judged_as_the_other_ways_and_its_swaps_are_drawn(out: Path) -> None:
    (way,) = table(out, "longer_ways").to_dict("records")
    assert way["way"] == "conditional GAN" and way["labels used"].startswith("identity and angles")
    assert 0 < way["yaw MAE"] < 90 and 0.2 < way["cross-pose verification"] < 0.8 and way["seconds"] > 0
    shares = pd.read_csv(out / "tables" / "longer_swaps.csv")
    assert shares["picture"].tolist() == ["swap", "plain"] and set(shares["method"]) == {"drgan"}
    assert len(np.unique(np.asarray(Image.open(out / "figures" / "gan_swaps.png").convert("L")))) > 50


def test_depth_has_a_row_for_each_seed_and_their_mean(out: Path) -> None:
    rows = pd.read_csv(out / "tables" / "depth_input_rows.csv")
    assert rows.groupby("input")["seed"].apply(list).to_dict() == {
        name: list(range(longer.SEEDS)) for name in depth.PARTS
    }
    assert set(table(out, "depth_input")["input"]) == set(depth.PARTS)
    assert set(table(out, "depth_target")["target"]) == {"nothing", *depth.PARTS}


def test_the_same_command_again_trains_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (out / "tables").glob("*.csv")}
    trained = {path: path.stat().st_mtime_ns for path in (out / "oracles").rglob("*.safetensors")}
    assert len(trained) >= 2
    capsys.readouterr()
    longer.main(["--preset", "smoke", "--only", "oracles", "depth", "--out", str(out)])
    assert "seed 0 is done" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (out / "tables").glob("*.csv")} == before
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
