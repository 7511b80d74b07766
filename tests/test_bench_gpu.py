"""gpu-check rehearsed on the CPU, the share of a matrix product's rate, and a machine that lacks packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pcl_lib.bench import gpu, limit
from pcl_lib.bench.timing import Bench
from pcl_lib.presets import PRESETS
from pcl_lib.utils import BadInput

# What a cluster's image may lack: lightning-fabric comes there as lightning.fabric.
ABSENT = (
    "lightly", "lightning_fabric", "IPython", "ipywidgets", "papermill", "nbformat", "nbclient", "nbconvert",
    "jupyter_client", "umap", "distributed", "dask", "av",
)  # fmt: skip


def test_flops_are_those_of_the_products() -> None:
    a, b = torch.randn(6, 7), torch.randn(7, 5)
    assert limit.step_flops(lambda: torch.mm(a, b)) == 2 * 6 * 7 * 5


def test_a_share_is_the_rate_over_that_of_the_product(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench("limit", 1, "cpu")
    limit.bench_share(bench, "smoke", PRESETS["smoke"], torch.float32, 1000.0)
    assert [row.case.split(",")[1].split()[0] for row in bench.rows] == ["pdd", "face", "pose"]
    for row in bench.rows:
        assert row.note == f"{row.per_second / 1000:.0%} of the matrix product's rate" and row.peak_mib
    assert "images/s" in capsys.readouterr().out


def test_the_rehearsal_agrees_with_the_cpu() -> None:
    found = gpu.differences(torch.device("cpu"))
    assert found.keys() == gpu.TOLERANCES.keys()
    assert all(0 <= value <= gpu.TOLERANCES[name] for name, value in found.items())
    assert found["views"] > 0 and found["rendered pixels"] < 0.01  # two forms of each were compared


def test_a_device_with_other_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dict.fromkeys(gpu.TOLERANCES, 0.0) | {"views": 0.5, "losses": float("nan")}
    monkeypatch.setattr(gpu, "differences", lambda _: wrong)
    monkeypatch.setattr(gpu, "bench_forms", lambda *_: None)
    monkeypatch.setattr(gpu, "product_rate", lambda *_: 1.0)
    monkeypatch.setattr(gpu, "bench_share", lambda *_: None)
    with pytest.raises(BadInput, match="losses, views on cpu differ"):
        gpu.bench_gpu(Bench("gpu-check", 1, "cpu"))


def test_a_form_that_fails_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(gpu, "forms", lambda *_: {"broken": broken})
    bench = Bench("gpu-check", 1, "cpu")
    gpu.bench_forms(bench, PRESETS["smoke"])
    assert not bench.rows and "broken left out (RuntimeError: no compiler here)" in capsys.readouterr().out


CODE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ABSENT = set(sys.argv[2].split())
sys.meta_path.insert(0, Absent())
import lightning_fabric_stand_in
import pathlib
from pcl_lib import data, pretrain, presets
from pcl_lib.ablations import __main__ as command, cells
from pcl_lib.bench import __main__ as bench
out = pathlib.Path(sys.argv[1])
preset = presets.override(presets.PRESETS["smoke"], {"faces.identities": [12, 4, 4], "train.epochs": 1})
faces = data.open_faces(None, preset, out)
rows = cells.run_cell(cells.Cell("pcl", 0), preset, faces, out / "cell")
assert {"MAE yaw", "accuracy"} <= set(rows["probes"]["metric"]) and len(rows["leakage"])
print("all done")
"""
# The package lightning holds Fabric as lightning.fabric: here it is lightning-fabric under that name.
STAND_IN = """
import importlib, sys, types
finder = sys.meta_path.pop(0)
import lightning_fabric
sys.modules["lightning"] = types.ModuleType("lightning")
sys.modules["lightning.fabric"] = sys.modules["lightning"].fabric = lightning_fabric
del sys.modules["lightning_fabric"]
sys.meta_path.insert(0, finder)
"""


def test_a_machine_without_jupyter_and_others_renders_trains_probes_and_runs_cells(tmp_path: Path) -> None:
    (tmp_path / "lightning_fabric_stand_in.py").write_text(STAND_IN)
    program = tmp_path / "program.py"
    program.write_text(CODE)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    }
    run = subprocess.run(
        [sys.executable, program, tmp_path, " ".join(ABSENT)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )
    assert run.returncode == 0 and "all done" in run.stdout, run.stderr[-2000:]


def test_without_any_fabric_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from pcl_lib.pretrain import fabric

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

    monkeypatch.setattr(fabric.importlib, "import_module", absent)
    with pytest.raises(BadInput, match="install lightning-fabric, or lightning"):
        fabric.fabric_class()
