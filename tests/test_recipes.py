"""The recipes of pcl_lib/README.md ("Extending"), each carried out in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F

from pcl_lib import data, probes
from pcl_lib.data import rendered

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"\*\*(A[n]? [a-z ]+)\.\*\*.*?```python[^\n]*\n(.*?)```", re.DOTALL)
RECIPES = dict(
    BLOCK.findall((ROOT / "pcl_lib" / "README.md").read_text(encoding="utf-8").split("## Extending")[1])
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code, that may be changed."""
    for name in ("pcl_lib", "data_scripts"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def add(file: Path, *lines: str) -> None:
    file.write_text(
        (file.read_text(encoding="utf-8") if file.exists() else "") + "\n".join(lines) + "\n", "utf-8"
    )


def python(copy: Path, *arguments: str) -> str:
    """What Python prints in the copy, whose modules it imports."""
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_recipe_is_here_and_short() -> None:
    assert set(RECIPES) == {"A method", "A data set", "A probe", "A figure", "A widget", "An ablation"}
    assert all(len(code.strip().splitlines()) <= 10 for code in RECIPES.values())


def test_a_method_is_trained(copy: Path, blobs: data.PreparedFaces, tmp_path: Path) -> None:
    head = "import torch\nimport torch.nn.functional as F\nfrom pcl_lib.methods.base import SingleTaskMethod"
    add(copy / "pcl_lib/methods/rotnet.py", head, RECIPES["A method"])
    add(
        copy / "pcl_lib/methods/__init__.py",
        "from pcl_lib.methods.rotnet import RotNet",
        'METHODS["rotnet"] = RotNet',
    )
    out = tmp_path / "run"
    said = python(
        copy, "-m", "pcl_lib.pretrain", "--preset", "smoke", "--method", "rotnet", "--data", str(blobs.folder),
        "--out", str(out), "--set", "train.epochs=1",
    )  # fmt: skip
    assert "rotnet.safetensors" in said and (out / "checkpoints" / "rotnet.safetensors").is_file()


def test_a_data_set_is_prepared(copy: Path, tmp_path: Path) -> None:
    head = [
        "import argparse", "import sys", "from pathlib import Path", "import pandas as pd",
        "from data_scripts import official",
        "from data_scripts.catalogue import DataSet", "from data_scripts.listing import LeftOut, Listing",
        'MINE = DataSet("mine", "Mine", "tests", "nobody", "none", "ROOT/x/x.png", "people", "", {}, (("*/*.png",),))',
    ]  # fmt: skip
    tail = "official.run(MINE, read, sys.argv[1:])"
    add(copy / "data_scripts/prepare_mine.py", *head, RECIPES["A data set"], tail)
    draw = (
        "from pathlib import Path; from PIL import Image\n"
        "for n in range(12):\n"
        f"    path = Path({str(tmp_path / 'in')!r}, f'person{{n // 2}}', f'{{n}}.png')\n"
        "    path.parent.mkdir(parents=True, exist_ok=True)\n"
        "    Image.new('RGB', (64, 64), (20 * n, 10, 10)).save(path)"
    )
    python(copy, "-c", draw)
    python(copy, "-m", "data_scripts.prepare_mine", str(tmp_path / "in"), str(tmp_path / "out"))
    faces = data.PreparedFaces(tmp_path / "out")
    assert faces.name == "Mine" and len(faces) == 12 and faces.table["identity"].nunique() == 6


def test_a_probe_finds_what_thumbnails_hold() -> None:
    names: dict[str, Any] = {"F": F, "probes": probes}
    exec(RECIPES["A probe"], names)
    rows = probes.evaluate(names["Thumbnail"](), rendered.Gallery(32, people=10, images_per_person=4))
    assert {"head pose", "expression"} <= set(rows["task"]) and set(rows["feature"]) == {"general"}


def test_a_figure_is_drawn(copy: Path, tmp_path: Path) -> None:
    add(copy / "pcl_lib/plots.py", RECIPES["A figure"])
    code = f"from pcl_lib import plots; plots.save(plots.yaw_scatter([0, 10], [1, 9]), {str(tmp_path / 'x.png')!r})"
    python(copy, "-c", code)
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_widget_draws_when_its_slider_moves(copy: Path) -> None:
    head = [
        "import torch", "from pcl_lib import plots", "from pcl_lib.widgets.base import Panel, Tile, slider",
        "from pcl_lib.widgets.pictures import to_rgb",
    ]  # fmt: skip
    add(copy / "pcl_lib/widgets/brightness.py", *head, RECIPES["A widget"])
    code = (
        "import torch\nfrom pcl_lib.widgets.brightness import Brightness\n"
        "panel = Brightness(torch.full((3, 8, 8), 200, dtype=torch.uint8))\nbefore = panel.tile.image.value\n"
        "panel.level.value = 0.25\nprint(before != panel.tile.image.value, panel.message.value)"
    )
    assert python(copy, "-c", code).strip() == "True"


def test_an_ablation_is_a_variant(copy: Path) -> None:
    file = copy / "pcl_lib/ablations/variants.py"
    text = file.read_text(encoding="utf-8")
    mark = '        "no orthogonality": Variant('
    assert text.count(mark) == 1
    file.write_text(text.replace(mark, RECIPES["An ablation"] + mark), encoding="utf-8")
    code = (
        "from pcl_lib import presets; from pcl_lib.ablations.variants import GROUPS, VARIANTS\n"
        "print(VARIANTS['no blur'].of(presets.get('cpu')).face_view.blur, GROUPS['no blur'])"
    )
    assert python(copy, "-c", code).strip() == "0.0 losses of PCL"
