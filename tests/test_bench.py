"""pcl_lib.bench: its baselines compute the same things, its measures measure, its command line refuses cleanly."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import oracles
import pandas as pd
import pytest
import torch
import torchvision.transforms.functional as TF

from pcl_lib import augment, losses, methods, presets
from pcl_lib.bench import __main__ as command
from pcl_lib.bench import choice, parts, plain, preparation, probing, report, scaling, start
from pcl_lib.bench import timing as bench_timing
from pcl_lib.bench import training as bench_training
from pcl_lib.data import PreparedFaces
from pcl_lib.faces import render, sample_factors
from pcl_lib.presets import PAPER_FACE_VIEW, PRESETS, SIMCLR_VIEW, ViewPreset
from pcl_lib.pretrain import formats
from pcl_lib.utils import BadInput, exit_cleanly


def test_tensor_form_is_the_oracle_and_the_gram_form() -> None:
    z = torch.randn(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mix = losses.draw_mix((10, 8), 1.6, "cpu", torch.Generator().manual_seed(1)).double()
    permutation = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    naive = plain.tensor_face_logits(z, 0.07, mix, permutation)
    torch.testing.assert_close(naive, oracles.face_logits(z, 0.07, mix, permutation))
    torch.testing.assert_close(naive, losses.face_logits(z, 0.07, mix, permutation))


def test_plain_pose_logits_and_orthogonality_are_the_oracles() -> None:
    g = torch.Generator().manual_seed(0)
    z, negatives = torch.randn(6, 5, generator=g).double(), torch.randn(3, 4, 5, generator=g).double()
    mix, permutation = torch.rand(3, 4, generator=g).double(), torch.randperm(4, generator=g)
    ours = plain.tensor_pose_logits(z, negatives, 0.1, mix, permutation)
    torch.testing.assert_close(ours, oracles.pose_logits(z, negatives, 0.1, mix, permutation))
    face, pose = torch.randn(2, 6, 5, generator=g).double()
    torch.testing.assert_close(plain.tensor_orthogonality(face, pose), oracles.orthogonality(face, pose))


def test_straightforward_decoder_task_is_that_of_the_method() -> None:
    preset = presets.override(PRESETS["smoke"], {"loss.noise": 0.0})
    plain = bench_training.Straightforward(preset, torch.device("cpu"))
    plain.model.eval()  # with batch statistics, one decoder pass over all four is not four
    images = bench_training.random_images(6, 32, torch.device("cpu"))
    with torch.no_grad():
        ours = methods.build("pcl", preset).tasks[0].loss(plain.model, images, torch.Generator())
        assert plain.pdd(images).item() == pytest.approx(ours["pdd"].item(), rel=1e-4)
    plain.model.train()
    before = plain.model.decoder.fc.weight.clone()
    plain({"pdd": images, "face": images, "pose": images[:2]})
    assert not torch.equal(before, plain.model.decoder.fc.weight)


def test_hottest_operators_come_first_and_nothing_is_lost() -> None:
    x = torch.randn(300, 300)
    rows = bench_training.hottest(lambda: [*[x @ x for _ in range(30)], x + 1], torch.device("cpu"), many=1)
    assert [name for name, *_ in rows] == ["aten::mm", "all others"]
    assert rows[0][2] == 30 and rows[0][1] > rows[1][1] > 0


def test_processes_of_the_scaling_bench_agree() -> None:
    (spent, alone), (_, both) = scaling.run(1, 8), scaling.run(2, 8)
    assert len(spent) == scaling.STEPS and (spent > 0).all()
    assert np.linalg.norm(both - alone) < 1e-4 * np.linalg.norm(alone)


def test_jpeg_folder_holds_the_set(blobs: PreparedFaces, tmp_path: Path) -> None:
    folder = bench_training.jpeg_folder(blobs, tmp_path / "jpegs")
    assert len(folder) == len(blobs)
    error = (folder[5][0].float() - blobs.images([5])[0].float()).abs().mean()
    assert error < 12  # JPEG's, of 255
    assert next(bench_training.loaded(folder, 7, 0)).shape == (7, 3, 16, 16)


def test_targets_are_met_or_missed_with_a_reason_by_what_was_measured() -> None:
    rows = []
    for part, case, forms in (
        ("losses", "B = 256", {"tensor": (1000.0, 3000.0), "Gram": (5.0, 40.0)}),
        ("augment", "face", {"torchvision on PIL": (200.0, None), "batched": (50.0, None)}),
    ):
        measured = bench_timing.Bench(part, 1, "cpu")
        for form, (ms, peak) in forms.items():
            measured.keep(case, form, np.array([ms]), peak=peak)
        rows += measured.rows
    lines = "\n".join(report.targets({"avx2": rows, "avx512": []}))
    assert "| mixed negatives, forward and backward, B = 256 | >= 100x | 200.00x, met |  |" in lines
    assert "| face views against PIL | >= 5x | 4.00x, missed: one PIL image" in lines
    assert lines.count("missed") == 1 and report.targets({"avx2": []}) == []


def test_shares_of_a_matrix_product_are_judged_by_the_slowest_step() -> None:
    measured = bench_timing.Bench("limit", 1, "cpu")
    for task, share in (("pdd", 61), ("face", 48)):
        case, note = f"paper network, {task} of 16", f"{share}% of the matrix product's rate"
        measured.keep(case, "float32", np.array([1.0]), note=note)
    (line,) = [line for line in report.targets({"avx2": measured.rows}) if line.startswith("| float32")]
    assert line.endswith("| >= 50% | 48% to 61%, missed |")


def test_plot_of_sizes_is_written(tmp_path: Path) -> None:
    measured = bench_timing.Bench("sizes", 1, "cpu")
    for width, batch in ((0.25, 8), (0.25, 16), (0.5, 16)):
        measured.keep(f"width {width:g}, batch {batch}", "the kit", np.array([batch * width]))
    report.plot_sizes({"avx2": measured.rows}, tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("own_blur", [False, True])
@pytest.mark.parametrize("view", [PAPER_FACE_VIEW, SIMCLR_VIEW])
def test_pil_chain_makes_nearly_the_same_views(view: ViewPreset, own_blur: bool) -> None:
    """PIL rounds to whole grey levels after every step, mirrors no edges in its blur and cuts hue into 256 parts:
    small differences everywhere, yet the same pictures."""
    images = render(sample_factors(24, seed=0), size=64)
    drawn = augment.draw(24, 64, view, torch.Generator().manual_seed(0))
    batched = augment.apply_views(images / 255, drawn)
    for row in range(24):
        one = plain.pil_view(TF.to_pil_image(images[row]), drawn, row, 64, own_blur)
        assert (one - batched[row]).abs().mean() < 0.02


def test_peak_counts_what_is_held_at_one_time() -> None:
    def call() -> None:
        one = torch.empty(1 << 20, dtype=torch.uint8)
        two = torch.empty(3 << 20, dtype=torch.uint8)
        del one
        three = torch.empty(2 << 20, dtype=torch.uint8)
        del two, three

    assert bench_timing.peak_bytes(call, torch.device("cpu")) == 5 << 20


def test_times_are_medians_and_ratios_are_against_the_first_form(capsys: pytest.CaptureFixture[str]) -> None:
    measured = bench_timing.Bench("faces", 3, "cpu")
    pauses = iter([0, 0.02, 0.2, 0.02])  # the first call warms up
    measured.time("case", "slow", lambda: time.sleep(next(pauses)), count=10)
    measured.time("case", "fast", lambda: time.sleep(0.005), count=10, calls=2)
    slow, fast = measured.rows
    assert 20 <= slow.ms < 100 <= slow.ms_high and slow.repeats == 3 and slow.ratio == 1
    assert fast.ms >= 10  # a call stands for two
    assert fast.ratio == pytest.approx(slow.ms / fast.ms) and slow.per_second == pytest.approx(1e4 / slow.ms)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with bench_timing.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("plain", [True, False])
def test_a_timed_step_trains(plain: bool) -> None:
    preset = PRESETS["smoke"]
    for task in methods.build("pcl", preset).tasks:
        step = bench_training.stepper(preset, task, torch.device("cpu"), plain, torch.float32)
        step()
        assert step() is None


def test_small_batches_of_the_papers_network_are_allowed() -> None:
    small = presets.override(PRESETS["paper"], bench_training.SMALL)
    assert [task.batch for task in methods.build("pcl", small).tasks] == list(bench_training.SMALL.values())
    assert small.model == PRESETS["paper"].model


def test_choice_marks_the_form_that_a_training_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    took = {"contiguous": 0.2, "channels last": 0.1}
    monkeypatch.setattr(formats, "step_seconds", lambda _, name, *more: took[name])  # noqa: ARG005
    monkeypatch.setattr(formats, "fastest", lambda _, seconds: min(formats.FORMATS, key=seconds))
    measured = bench_timing.Bench("choice", 2, "cpu")
    choice.bench_network(measured, "small", PRESETS["smoke"].model)
    (taken,) = [row for row in measured.rows if row.note == "taken"]
    assert taken.form.startswith("channels last") and taken.ms == pytest.approx(100)
    first, last = measured.rows[0], measured.rows[-1]
    assert first.ratio == 1 and first.form.endswith("float32")
    assert last.form.endswith("one thread") and last.threads == 1
    named = {row.form.split(",")[0] for row in measured.rows}
    assert named == set(formats.FORMATS)


def test_first_cells_are_those_up_to_the_first_with_the_word(tmp_path: Path) -> None:
    cells = [("markdown", "show("), ("code", "a = 1"), ("code", "show(a)"), ("code", "show(b)")]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]}))
    assert start.first_cells(path, "show(") == ["a = 1", "show(a)"]
    with pytest.raises(BadInput, match=r"no cell of .*a\.ipynb holds draw"):
        start.first_cells(path, "draw(")


def test_a_server_that_ends_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    begin = time.monotonic()
    with pytest.raises(BadInput, match="JupyterLab did not answer"):
        start.lab_answers()
    assert time.monotonic() - begin < start.PATIENCE / 2


def test_targets_at_most_look_at_the_slowest_case() -> None:
    measured = bench_timing.Bench("widgets", 1, "cpu")
    for case, ms in (("one", 40.0), ("other", 130.0)):
        measured.keep(case, "slider to PNG", np.array([ms]))
    (line,) = [
        line
        for line in report.targets({"here": measured.rows, "there": measured.rows[:1]})
        if "slider" in line
    ]
    assert line.endswith("| <= 0.1 s | 0.13 s, missed | 0.04 s, met |")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    exit_cleanly(command.main)


def test_command_writes_rows_and_a_page_of_all_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(measured: bench_timing.Bench) -> None:
        """A part that does nothing."""
        measured.time("case", "slow", lambda: time.sleep(0.002), memory=True)
        measured.time("case", "fast", lambda: None, note="nothing to do")

    monkeypatch.setattr(command, "PARTS", {"faces": part})
    out, page = tmp_path / "a", tmp_path / "b" / "page.md"
    run(monkeypatch, "all", "--repeats", "2", "--out", str(out), "--markdown", str(page))
    kind = torch.backends.cpu.get_cpu_capability().lower()
    rows = pd.read_csv(out / f"bench-{kind}.csv")
    assert rows["form"].tolist() == ["slow", "fast"] and (rows["repeats"] == 2).all()
    assert rows["ratio"][0] == 1 and rows["ratio"][1] > 10
    assert {"processor", "instructions", "threads", "torch", "precision", "device"} <= set(rows.columns)
    text = page.read_text()
    assert "- **faces**: A part that does nothing.\n" in text and torch.__version__ in text
    assert "Not run on a GPU yet: the command is" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| faces: case | slow ")]
    assert "; fast 0.0 (" in line and line.endswith("[nothing to do] |")
    # Another machine's rows beside: a column more, and a case that one of them lacks stays empty.
    rows.assign(case="another", peak_mib=np.nan).to_csv(out / "bench-other.csv", index=False)
    run(monkeypatch, "all", "--repeats", "2", "--out", str(out), "--markdown", str(page))
    lines = page.read_text().splitlines()
    assert f"| part: case | {kind} | other |" in lines
    # A part that is run again replaces its own rows alone.
    rows.assign(part="losses", commit="older").to_csv(out / f"bench-{kind}.csv", index=False)
    run(monkeypatch, "faces", "--repeats", "3", "--out", str(out))
    kept = pd.read_csv(out / f"bench-{kind}.csv")
    assert kept.groupby("part")["repeats"].unique().map(list).to_dict() == {"faces": [3], "losses": [2]}
    about, _ = report.read_kinds(out)[kind]
    assert about["commit"].startswith("older and ")
    assert any(line.startswith("| faces: another |  | slow ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["speed"],
            "unknown part 'speed': choose one of faces, augment, losses, step, choice, limit, probes, iteration, "
            "simclr, data, operators, sizes, scaling, prepare, index, start, widgets, gpu-check or all",
        ),
        (["faces", "--repeats", "0"], "must be at least 1"),
        (["faces", "--device", "abacus"], "device 'abacus' is not here"),
        (["faces", "--markdown", "page.md"], "--markdown needs --out FOLDER"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and said in error and error.count("\n") == 1


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setitem(parts.PARTS, "faces", lambda _: pytest.fail("timed"))
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "all", "--out", str(tmp_path), "--markdown", str(tmp_path / "file" / "page.md"))
    assert caught.value.code == 2 and "cannot write" in capsys.readouterr().err


def test_an_epoch_by_a_loop_draws_from_the_same_rows() -> None:
    """The straightforward form and the index draw one row of each person, in both cases by the same chances."""
    table = pd.DataFrame({"identity": ["a", "b", "a", "c", "a"]})
    rng = np.random.default_rng(0)
    forms = (preparation.rows_one_by_one, preparation.by_index)
    drawn = [np.sort([form(table, rng) for _ in range(3000)], axis=1) for form in forms]
    for rows in drawn:
        assert all(sorted(table["identity"][list(epoch)]) == ["a", "b", "c"] for epoch in rows[:50])
    shares = [np.bincount(rows.ravel(), minlength=5) / 3000 for rows in drawn]
    np.testing.assert_allclose(shares, [[1 / 3, 1, 1 / 3, 1, 1 / 3]] * 2, atol=0.04)


def test_preparing_is_timed_on_what_is_really_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "SIDE", 32)
    monkeypatch.setattr(preparation, "SIZE", 16)
    (tmp_path / "in").mkdir()
    names = preparation.write_jpegs(tmp_path / "in", 70)
    assert len(names) == 70 and preparation.decode_alone(tmp_path / "in", names) == 70
    made = []
    monkeypatch.setattr(preparation.shutil, "rmtree", made.append)
    preparation.prepare_them(tmp_path / "in", names, 2, "threading")
    faces = PreparedFaces(made[0] / "out")
    assert len(faces) == 70 and faces.image_size == 16 and faces.images(0).equal(faces.images(64))


def test_probes_of_scikit_learn_answer_as_the_kit_does() -> None:
    """What stands next to the kit's probes in the bench computes the same: it is timed on equal terms."""
    bench = bench_timing.Bench("probes", 1, "cpu")
    probing.bench_library(bench, images=400, width=24, pictures=100)
    assert [row.form for row in bench.rows] == [
        "LogisticRegressionCV", "pcl_lib", "RidgeCV", "pcl_lib", "KernelRidge in GridSearchCV", "pcl_lib",
    ]  # fmt: skip
    classes, values, pictures = (row.note for row in bench.rows[1::2])
    first, second = re.findall(r"penalty (\S+) and (\S+);", classes)[0]
    assert float(first) == pytest.approx(float(second), rel=1e-3)
    assert float(re.findall(r"([\d.]+)% of the answers", classes)[0]) >= 98
    for note in (values, pictures):  # degrees, of a spread of 25
        assert float(re.findall(r"by (\S+) at most", note)[0]) < 0.05
