"""The doctor: facts of machines that we do not have are made up, and it says what they lack; minutes scale."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from pcl_lib.reproduce import doctor
from pcl_lib.utils import REPOSITORY

GOOD = doctor.Facts(
    system="Linux 6", processor="A", cores=8, vector="AVX-512", bf16=True, memory=32.0, free_memory=20.0, disk=100.0,
    gpu="cuda B", gpu_memory=24.0, browser="firefox", versions="python 3.12", caches={"runs": ""}, busy=0.05,
)  # fmt: skip


def test_nothing_is_missing_where_all_is_there() -> None:
    assert doctor.missing(GOOD) == []
    said = "\n".join(doctor.lines(GOOD))
    assert "8 cores, AVX-512, bfloat16 in hardware" in said and "cuda B, 24 GiB" in said


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"memory": 3.7, "free_memory": 3.0}, "3.7 GiB of memory"),
        ({"free_memory": 0.8}, "0.8 of 32.0 GiB of memory are free"),
        ({"disk": 1.2}, "1.2 GiB left"),
        ({"gpu": "", "gpu_memory": 0.0}, "no GPU"),
        ({"browser": ""}, "No browser"),
        ({"caches": {"runs": "cannot write /runs: the disk is full", "fonts": ""}}, "for runs: cannot write /runs"),
    ],
)  # fmt: skip
def test_each_lack_is_one_sentence(change: dict[str, object], word: str) -> None:
    (sentence,) = doctor.missing(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]
    assert word in sentence and sentence.endswith(".") and "\n" not in sentence


def test_an_old_processor_is_told_of_bfloat16_only_where_it_trains() -> None:
    old = dataclasses.replace(GOOD, bf16=False, vector="AVX2")
    assert doctor.missing(old) == []  # the GPU trains
    said = doctor.missing(dataclasses.replace(old, gpu="", gpu_memory=0.0))
    assert len(said) == 2 and "float32" in said[1]


def test_minutes_scale_with_the_step() -> None:
    table = pd.DataFrame(
        {
            "notebook": ["00_a", "00_a", "01_b", "01_b"],
            "preset": ["cpu", "smoke"] * 2,
            "minutes": [10.0, 0.5, 2.0, 0.3],
            "processor": "A, 2 cores",
            "step_ms": [400.0, 200.0] * 2,  # the smoke run was measured on a machine twice as fast
        }
    )
    found = doctor.scaled(table, 800.0)
    assert found.loc["00_a"].to_dict() == {"cpu": 20.0, "smoke": 2.0}
    said = doctor.prognosis(table, 800.0)
    assert "800 ms here" in said[0] and "200 ms, 400 ms" in said[0] and "A, 2 cores (cpu)" in said[0]
    assert said[-1].split() == ["all", "3.2", "24.0"]  # smoke, cpu: in the order of the presets
    some = table.drop(
        table.index[(table["notebook"] == table["notebook"].iloc[-1]) & (table["preset"] == "smoke")]
    )
    assert any(line.split()[1] == "?" for line in doctor.prognosis(some, 800.0)[2:])


def test_minutes_of_the_own_kind_of_processor_come_first() -> None:
    table = pd.DataFrame(
        {
            "notebook": ["00_a", "00_a", "01_b"],
            "preset": "cpu",
            "instructions": ["AVX2", "AVX512", "AVX512"],
            "minutes": [3.0, 1.0, 2.0],
        }
    )
    assert doctor.of_kind(table, "AVX2")["minutes"].tolist() == [3.0, 2.0]
    assert doctor.of_kind(table, "AVX512")["minutes"].tolist() == [1.0, 2.0]
    assert len(doctor.of_kind(table, "GPU")) == 2  # a guess from another kind is better than none


def test_on_a_busy_machine_nothing_is_measured_and_the_recorded_minutes_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "look", lambda: dataclasses.replace(GOOD, busy=0.97))
    monkeypatch.setattr(doctor, "step_ms", lambda _device: pytest.fail("measured all the same"))
    doctor.main([])
    said = capsys.readouterr().out
    recorded = doctor.of_kind(pd.read_csv(REPOSITORY / doctor.MINUTES), "GPU")
    table = recorded.query("preset == 'cpu'")
    assert "97% of the processors" in said and "These minutes were measured on" in said
    assert said.split("  all ")[1].split()[1] == f"{table['minutes'].sum():.1f}"


def test_a_container_has_no_more_memory_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CGROUP", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text(f"{3 * 2**30}\n")
    assert doctor.look(tmp_path / "runs").memory == pytest.approx(3.0)
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.look(tmp_path / "runs").memory > 3.0


def test_a_file_in_the_place_of_runs_is_reported(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    (why,) = [why for why in doctor.look(tmp_path / "runs").caches.values() if why]
    assert "in the way" in why


def test_a_step_is_timed_and_gradients_reach_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    plain = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: steps.append(plain(self)))
    assert doctor.step_ms("cpu", seconds=0.0) > 0
    assert len(steps) == 2  # one that sets up, one that is timed whatever it takes
    steps.clear()
    clock = SimpleNamespace(monotonic=iter((0.0, 1.0, 2.0, 5.0)).__next__, perf_counter=time.perf_counter)
    monkeypatch.setattr(doctor, "time", clock)
    doctor.step_ms("cpu", seconds=4.0)  # until 4: begun at 1 and at 2, no more at 5
    assert len(steps) == 2 + 2


def test_what_compiling_takes_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new machine the first step compiles for many seconds; minutes are not scaled by that."""
    clock = iter((0.0, 20.0, 30.0, 30.5, 40.0, 40.25))  # start and end of each step
    monkeypatch.setattr(
        doctor, "time", SimpleNamespace(perf_counter=clock.__next__, monotonic=iter((0.0, 1.0, 9.0)).__next__)
    )
    assert doctor.step_ms("cpu", seconds=4.0) == pytest.approx(250.0)


def test_recorded_minutes_name_their_machine() -> None:
    table = pd.read_csv(REPOSITORY / doctor.MINUTES)
    assert table["processor"].str.len().min() > 3 and (table["step_ms"] > 0).all()


def test_the_command_prints_facts_and_minutes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "look", lambda: GOOD)
    monkeypatch.setattr(doctor, "step_ms", lambda _device: 300.0)
    doctor.main([])
    said = capsys.readouterr().out
    assert "cuda B" in said and "300 ms here" in said and "00_tour" in said and "Nothing is missing." in said
