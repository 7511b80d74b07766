"""Kills and failing disks, the short form; the long form is `make reliability`."""

from __future__ import annotations

import ast
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "reliability"))

import audit
import disks
import kills
import mutations
import soak
import unprobed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and disks as on Linux and macOS")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("sources")
    kills.make_sources(folder)
    return folder


@pytest.mark.parametrize("name", ["prepare", "pretrain"])
def test_killed_commands_end_as_if_nothing_had_been(name: str, sources: Path, tmp_path: Path) -> None:
    killed, folders = kills.disturb(name, 2, 0, sources, tmp_path)
    assert killed == 2 and folders >= 1


def test_a_disk_that_fails_is_a_sentence_and_the_training_goes_on(sources: Path, tmp_path: Path) -> None:
    """write() answers EIO somewhere in the first 400 kB."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("needs a C compiler, and a linker that preloads")
    (tmp_path / "shim.c").write_text(disks.SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    out = tmp_path / "undisturbed"
    kills.finish(kills.STAGES["pretrain"].command(sources, out), out)
    said = disks.faults("pretrain", sources, tmp_path, shim, random.Random(0), ["EIO"])
    assert "input/output error" in said["EIO"]


def test_half_and_repeated_work_is_noticed(sources: Path, tmp_path: Path) -> None:
    """The judge of the kills: content that differs, and finished work that was done again."""
    with pytest.raises(kills.Broken, match="b differs"):
        kills._compare({"a": "1"}, {"a": "1", "b": "2"}, "x", "differs")
    kills._compare({"a": "1"}, {"a": "1", "b": "2"}, "x", "was done again", subset=True)
    with pytest.raises(kills.Broken, match="a was done again"):
        kills._compare({"a": "1"}, {"a": "2"}, "x", "was done again", subset=True)
    torn = tmp_path / "checkpoints" / "pcl.state"
    torn.parent.mkdir()
    torn.write_bytes(b"PK")
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        kills.checkpoints_are_whole(tmp_path)
    whole = kills.files_of(sources / "set")
    assert len(whole) > 3 and whole == kills.files_of(sources / "set")


def test_a_set_with_nothing_to_probe_runs_to_its_summary(tmp_path: Path) -> None:
    """Notebook 08, which once refused such a set; `unprobed.py` runs all notebooks on three such sets."""
    found = unprobed.run("one class", unprobed.tables()["one class"], tmp_path, ["--only", "08"])
    (copy,) = (tmp_path / "one class run/notebooks").glob("08_*.ipynb")
    assert found["preset"] == "smoke" and "Expression left out" in copy.read_text(encoding="utf-8")


def test_the_soak_knows_a_leak_from_noise() -> None:
    hours = np.linspace(0, 2, 200)
    noise = np.random.default_rng(0).normal(0, 1e6, 200)
    assert not soak.judge(hours, 1e9 + noise, (10, 2), (10, 2))
    (wrong,) = soak.judge(hours, 1e9 + noise + 5e7 * hours, (10, 2), (10, 2))
    assert "memory grows by 5" in wrong
    (wrong,) = soak.judge(hours, 1e9 + noise, (10, 2), (11, 2))
    assert "(10, 2) to (11, 2)" in wrong


def test_an_audit_that_asked_nobody_is_not_a_clean_one() -> None:
    clean = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    skipped = {"name": "c", "skip_reason": "not found"}
    assert audit.found_in(json.dumps({"dependencies": [clean, bad]}), "") == ["b 2: PYSEC-1, fixed in 3"]
    assert audit.found_in(json.dumps({"dependencies": [clean]}), "") == []
    with pytest.raises(RuntimeError, match="1 of 2 packages are not known there"):
        audit.found_in(json.dumps({"dependencies": [clean, skipped]}), "")
    with pytest.raises(RuntimeError, match="cannot connect"):
        audit.found_in("", "Traceback\ncannot connect")


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_known_line_is_there_to_be_changed(mutation: mutations.Mutation) -> None:
    assert ast.parse(mutations.changed(mutation, mutations.ROOT))
    assert all((mutations.ROOT / "tests" / f"{name}.py").is_file() for name in mutation.tests.split())


def test_a_copy_holds_every_file_that_is_changed() -> None:
    for mutation in mutations.MUTATIONS:
        folder = mutations.ROOT
        for part in Path(mutation.file).parts:
            assert part not in mutations.left_behind(str(folder), [path.name for path in folder.iterdir()])
            folder = folder / part
