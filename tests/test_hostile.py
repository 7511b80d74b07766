"""Hostile input: a result or one sentence, no code run, no file outside, no network (more: reliability/mutate.py)."""

from __future__ import annotations

import ast
import faulthandler
import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "reliability"))

import mutate
import readers
from browser import free_port, lab_options

from data_scripts import images, sources
from data_scripts.mat_pose import read_mat
from pcl_lib import presets
from pcl_lib.data import PreparedFaces
from pcl_lib.models import load_checkpoint, load_released
from pcl_lib.pretrain.fabric import start_fabric
from pcl_lib.pretrain.trainer import Trainer
from pcl_lib.reproduce import notebooks
from pcl_lib.utils import REPOSITORY, BadInput
from pcl_lib.widgets.photographs import read_photograph

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
KINDS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    KINDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="inputs are tried in processes of their own")
@pytest.mark.parametrize("name", readers.READERS)
def test_damaged_inputs_end_in_a_result_or_a_sentence(name: str) -> None:
    ends, finds = mutate.run(name, seed=0, first=0, count=60)
    assert not finds and ends["result"] + ends["BadInput"] == 60


def test_the_tester_finds_what_it_should() -> None:
    """A reader that raises, one that dies, one that writes elsewhere, one that takes 1.5 GiB."""

    def stray(folder: Path) -> None:
        (folder.parent / "stray").write_text("")

    def die(_: Path) -> None:
        faulthandler.disable()  # this death is meant
        os.abort()

    def eat(_: Path) -> None:
        np.ones(3 << 29, dtype=np.uint8)

    for read, said in (
        (lambda _: 1 // 0, "ZeroDivisionError"),
        (die, "died"),
        (stray, "outside"),
        (eat, "MiB"),
    ):
        reader = readers.Reader(readers.make_settings, read, {"*": lambda content, *_: content})
        readers.READERS["tried"] = reader
        try:
            ends, finds = mutate.run("tried", seed=0, first=0, count=2)
        finally:
            del readers.READERS["tried"]
        assert ends["find"] == 2 and said in str(finds), (ends, finds)


# Structured inputs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return readers.prepared(tmp_path_factory.mktemp("hostile") / "set")


@FEW
@given(
    key=st.sampled_from(["name", "image_size", "counts", "shards", "sha256", "content_hash", "version"]),
    value=JSON,
)
@example(key="shards", value=[{"file": "../other/shard-00000.npy", "rows": 8}])
@example(key="image_size", value=10**12)
def test_dataset_json_with_any_entry(whole: Path, key: str, value: Any) -> None:
    path = whole / "dataset.json"
    before = path.read_bytes()
    try:
        path.write_text(json.dumps(json.loads(before) | {key: value}))
        readers.read_prepared(whole)
    except BadInput as error:
        assert str(error) and "\n" not in str(error)
    finally:
        path.write_bytes(before)


@FEW
@given(
    text=st.text(max_size=200) | st.builds("seed = {!r}\npreset = 'smoke'\ndata = ''\nout = ''".format, JSON)
)
@example(text="seed = __import__('os').system('true')\npreset = data = out = ''")
@example(text="(" * 3000 + ")" * 3000)
@example(text="seed = " + "-" * 5000 + "1")
def test_parameters_of_any_text(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("notebook")
    readers.make_notebook(folder)
    path = folder / "00_a.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][1]["source"] = text
    path.write_text(json.dumps(notebook))
    try:
        notebooks.check_parameters(path)
    except BadInput as error:
        assert str(error) and "\n" not in str(error)


@FEW
@given(
    text=st.text(max_size=40)
    | st.builds("{}={!r}".format, st.sampled_from(sorted(presets.RANGES["TrainPreset"])), JSON)
)
@example(text="train.lr=" + "[" * 5000)
@example(text="loss.temperature=1e999")
def test_settings_of_any_text(text: str) -> None:
    try:
        presets.override(presets.get("smoke"), dict([presets.parse_setting(text)]))
        presets.override(presets.get("smoke"), dict([presets.parse_setting(f"train.{text}")]))
    except BadInput as error:
        assert str(error) and "\n" not in str(error)


@FEW
@given(content=st.binary(max_size=300))
def test_uploads_of_any_bytes(content: bytes) -> None:
    with pytest.raises(BadInput):
        read_photograph(content, 16)


def test_uploads_are_limited_in_bytes_and_pixels_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decoded(*_: object) -> None:
        pytest.fail("it was decoded")

    bomb = io.BytesIO()
    Image.new("L", (9000, 9000)).save(bomb, "png")  # 80 kB that become 81 million pixels
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decoded)
    with pytest.raises(BadInput, match="81 megapixels: crop the face"):
        read_photograph(bomb.getvalue(), 16)
    monkeypatch.setattr(Image, "open", decoded)
    with pytest.raises(BadInput, match="upload is a file of 9 MB: choose a picture of at most 8 MB"):
        read_photograph(bytes(9_000_000), 16)


# Code in files ----------------------------------------------------------------------------------------------


class Marker:
    """Its pickle writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.path, "code ran")


def hostile(place: Path, marker: Path) -> dict[str, Callable[[], object]]:
    """Every loader, on a file of its kind that holds the pickle."""
    code = pickle.dumps(Marker(marker))
    plain, torched = place / "plain", place / "torch"
    plain.write_bytes(code)
    torch.save({"epoch": 1, "state_dict": {"a": Marker(marker)}, "settings": Marker(marker)}, torched)
    readers.make_state(place / "state")
    state = place / "state" / "run" / "checkpoints" / "pcl.state"
    folders = {}
    for name in ("shard", "table", "pairs"):
        folders[name] = readers.prepared(place / name)
    np.save(folders["shard"] / "shard-00000.npy", np.array([Marker(marker)], dtype=object), allow_pickle=True)
    (folders["table"] / "faces.parquet").write_bytes(code)
    kind = pyarrow.field("x", pyarrow.int64(), metadata={
        b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": code})  # fmt: skip
    rows = pyarrow.table([pyarrow.array([1])], schema=pyarrow.schema([kind]))
    pyarrow.parquet.write_table(rows, folders["pairs"] / "pairs.parquet")

    def as_state(source: Path) -> Callable[[], object]:
        def load() -> None:
            state.write_bytes(source.read_bytes())
            readers.read_state(place / "state")

        return load

    found: dict[str, Callable[[], object]] = {
        f"folder, {name}": lambda f=folder: readers.read_prepared(f) for name, folder in folders.items()
    }  # type: ignore[misc]
    for file in (plain, torched):
        found |= {
            f"released, {file.name}": lambda f=file: load_released(f),
            f"checkpoint, {file.name}": lambda f=file: load_checkpoint(f),
            f"state, {file.name}": as_state(file),
            f".mat, {file.name}": lambda f=file: read_mat(f),
            f"image, {file.name}": lambda f=file: images.open_image(f, lambda *_: 9.0, 9),
            f"archive, {file.name}": lambda f=file: sources.unpack(f.rename(f.with_suffix(".tar")), place),
        }
    return found


def test_no_loader_runs_what_a_pickle_holds(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Marker(marker)))
    assert marker.exists()  # it would work
    marker.unlink()
    for name, load in hostile(tmp_path, marker).items():
        with pytest.raises(BadInput) as caught:
            load()
        assert not marker.exists(), f"{name}: {caught.value}"


def test_nothing_in_the_sources_unpickles_or_evaluates() -> None:
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "yaml"}
    for path in [*(REPOSITORY / "pcl_lib").rglob("*.py"), *(REPOSITORY / "data_scripts").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(REPOSITORY)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(name.name for name in node.names)]
                assert not {name.split(".")[0] for name in names} & forbidden, where
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in ("eval", "exec", "pd.read_pickle", "joblib.load"), where
            assert given.get("allow_pickle", "False") == "False", where
            assert called != "torch.load" or given.get("weights_only") == "True", where


# The network ------------------------------------------------------------------------------------------------


def test_widgets_work_with_the_network_cut(tmp_path: Path) -> None:
    """Rendering, a model, an upload, every widget: no socket is opened to another machine, no name looked up."""
    code = """
import io, os, socket, sys
os.environ["PCL_KIT_HEADLESS"] = ""
def cut(*arguments, **_):
    raise SystemExit(f"network: {arguments}")
socket.getaddrinfo = socket.create_connection = cut
socket.socket.connect = socket.socket.connect_ex = cut
from PIL import Image
from pcl_lib import presets
from pcl_lib.data.rendered import Gallery
from pcl_lib.models.shipped import shipped
from pcl_lib.widgets import AugmentationLab, FaceStudio, NeighbourBrowser, SwapExplorer
from pcl_lib.widgets.photographs import read_photograph
model = shipped("pcl")
faces = Gallery(model.image_size, people=10, images_per_person=2)
content = io.BytesIO()
Image.new("RGB", (64, 64), "red").save(content, "png")
read_photograph(content.getvalue(), 32)
AugmentationLab(faces, presets.get("smoke")), FaceStudio(model, faces), NeighbourBrowser(model, faces)
SwapExplorer(model, faces)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().endswith("done"), done.stderr[-2000:]


def listening(port: int) -> set[str]:
    """The addresses on which this machine listens at a port, as /proc shows them."""
    found = set()
    for name in ("tcp", "tcp6"):
        if (table := Path("/proc/net") / name).exists():
            for line in table.read_text().splitlines()[1:]:
                address, at = line.split()[1].split(":")
                if line.split()[3] == "0A" and int(at, 16) == port:
                    found.add(address)
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no list of sockets")
def test_make_lab_listens_on_this_machine_alone_and_asks_for_a_token(tmp_path: Path) -> None:
    port = free_port()
    line = [sys.executable, "-m", "jupyter", "lab", *lab_options(), "--no-browser", f"--port={port}"]
    line += ["--allow-root", "--ServerApp.port_retries=0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environment |= {"JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run")}
    server = subprocess.Popen(line, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        status, until = 0, time.monotonic() + 120
        while not status and server.poll() is None and time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/contents", timeout=5)
                status = 200
            except urllib.error.HTTPError as error:
                status = error.code
            except OSError:
                time.sleep(0.2)
        assert status == 403
        assert listening(port) == {"0100007F"}  # 127.0.0.1
    finally:
        server.terminate()
        said = server.communicate(timeout=30)[1]
    assert re.search(r"127\.0\.0\.1:\d+/lab\S*\?token=[0-9a-f]{32,}", said)


def test_training_states_go_through_the_weights_only_loader(whole: Path, tmp_path: Path) -> None:
    preset = readers.tiny()
    trainer = Trainer("pcl", preset, PreparedFaces(whole), tmp_path, 0, start_fabric(preset))
    (tmp_path / "checkpoints").mkdir()
    table = pd.DataFrame({"a": [1]})
    torch.save({"settings": {}, "table": table}, tmp_path / "checkpoints" / "pcl.state")
    with pytest.raises(BadInput, match="cannot be read"):
        trainer.resume()
