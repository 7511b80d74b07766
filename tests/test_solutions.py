"""The exercises: untouched they are not done, the solutions are right, and typical mistakes are told from them.

Each says its size (`SIZES`) after its title, small ones come first, and every notebook has the first two sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import papermill
import pytest
import torch
import torch.nn.functional as F
from test_notebooks import NAMES, ROOT, code_cells, prose, read

from pcl_lib.reproduce.exercises import NOT_DONE, RIGHT, WRONG

SOLUTIONS = ROOT / "notebooks" / "solutions"
SOLVED = sorted(path.stem for path in SOLUTIONS.glob("*.ipynb"))
SIZES = ("Two minutes.", "Twenty minutes.", "An evening.")
TITLE = re.compile(r"\*\*([A-Z])\. (.+?)\*\* (?:\*(.+?)\* )?")


def tagged(notebook: Any, tag: str) -> list[str]:
    return [cell.source for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def left(factors: Any) -> int:
    return int(factors["yaw"].abs().to_numpy().argmax())


def pose_of_both(model: Any, face_donor: torch.Tensor, pose_donor: torch.Tensor) -> torch.Tensor:
    del face_donor
    return model.decode(*model.features(pose_donor)[1:])


def by_image(identity: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return rng.random(len(identity)) < share


def halves_without_sign(h: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    even = (h(images) + h(images.flip(3))) / 2
    return even, even


def unnormalised(G: torch.Tensor, q: int, j: int, k: int, a: float) -> torch.Tensor:
    return a * G[q, j] + (1 - a) * G[q, k]


def mixed_after_normalisation(G: torch.Tensor, q: int, j: int, k: int, a: float) -> torch.Tensor:
    unit = G / (G.diagonal()[:, None] * G.diagonal()).sqrt()
    return a * unit[q, j] + (1 - a) * unit[q, k]


def row_among_its_negatives(z: torch.Tensor, temperature: float) -> torch.Tensor:
    unit = F.normalize(z, dim=1)
    return F.cross_entropy(unit @ unit.T / temperature, torch.arange(len(z)).roll(len(z) // 2))


def over_images(right: np.ndarray, people: np.ndarray) -> tuple[float, float]:
    del people
    drawn = np.random.default_rng(0).integers(0, len(right), (500, len(right)))
    low, high = np.quantile(right[drawn].mean(1), [0.025, 0.975])
    return low, high


def zeros(images: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(images)


def barlow_of_all_views(z: torch.Tensor, weight: float) -> torch.Tensor:
    unit = (z - z.mean(0)) / z.std(0, correction=0)
    first, second = unit.chunk(2)
    off = (first.T @ second / len(first) - torch.eye(z.shape[1])).square()
    return off.trace() + weight * (off.sum() - off.trace())


def barlow_without_standardising(z: torch.Tensor, weight: float) -> torch.Tensor:
    first, second = z.chunk(2)
    off = (first.T @ second / len(first) - torch.eye(z.shape[1])).square()
    return off.trace() + weight * (off.sum() - off.trace())


def least_squares(
    x: np.ndarray, y: np.ndarray, _xv: np.ndarray, _yv: np.ndarray, t: np.ndarray
) -> np.ndarray:
    return (t - x.mean(0)) @ np.linalg.lstsq(x - x.mean(0), y - y.mean())[0] + y.mean()


def ridge(z: np.ndarray, y: np.ndarray, held: np.ndarray, truth: np.ndarray) -> np.ndarray:
    fits = [np.linalg.solve(z.T @ z + 10.0**p * np.eye(z.shape[1]), z.T @ y) for p in range(-3, 6)]
    return min(fits, key=lambda w: ((held @ w - truth) ** 2).mean())


def ridge_without_standardising(
    x: np.ndarray, y: np.ndarray, xv: np.ndarray, yv: np.ndarray, t: np.ndarray
) -> np.ndarray:
    return (t - x.mean(0)) @ ridge(x - x.mean(0), y - y.mean(), xv - x.mean(0), yv - y.mean()) + y.mean()


def ridge_through_zero(
    x: np.ndarray, y: np.ndarray, xv: np.ndarray, yv: np.ndarray, t: np.ndarray
) -> np.ndarray:
    z, held, test = ((part - x.mean(0)) / x.std(0) for part in (x, xv, t))
    return test @ ridge(z, y, held, yv)


def weights_of_the_probe(z: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    weight = np.linalg.lstsq(z - z.mean(0), yaw - yaw.mean())[0]
    return weight / (weight @ weight)


def overlapping(right: dict[str, np.ndarray]) -> set[str]:
    half = {name: 1.96 * own.std() / len(own) ** 0.5 for name, own in right.items()}
    best = max(right, key=lambda name: right[name].mean())
    top = right[best].mean() - half[best]
    return {name for name, own in right.items() if own.mean() + half[name] >= top}


def unpaired(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = [x[rng.integers(0, len(x), (2000, len(x)))].mean(1) for x in (one, other)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return low, high


def from_above(image: torch.Tensor, degrees: float, strength: float) -> torch.Tensor:
    place, angle = torch.linspace(-1, 1, image.shape[-1]), np.radians(degrees)
    return (image * (1 + strength * (np.cos(angle) * place[:, None] + np.sin(angle) * place))).clamp(0, 1)


def projected_apart(swap: np.ndarray, a: np.ndarray, truth: np.ndarray, b: np.ndarray) -> list[float]:
    return [float((swap - a) @ d / (d @ d)) for d in (truth - a, b - truth)]


def without_conjugate(points: np.ndarray, target: np.ndarray) -> tuple[complex, complex]:
    z, goal = points @ (1, 1j), target @ (1, 1j)
    a = (z - z.mean()) @ (goal - goal.mean()) / ((z - z.mean()) @ (z - z.mean()))
    return a, goal.mean() - a * z.mean()


# Mistakes that readers make, by notebook and the name that the exercise asks for.
MISTAKES: dict[str, dict[str, list[Any]]] = {
    "00_tour": {"looks_left": [left], "swap_one": [pose_of_both]},
    "01_data_preparation": {
        "mirrored_angles": [lambda angles: -angles, lambda angles: angles * [-1, 1, 1]],
        "test_rows": [by_image, lambda identity, _share, _rng: np.zeros(len(identity), bool)],
    },
    "02_pose_disentangled_decoder": {
        "target": [lambda face_of, _pose_of: face_of, lambda _face_of, _pose_of: "s"],
        "components": [halves_without_sign, lambda h, images: (h(images), h(images.flip(3)))],
        "cheat": [(zeros, zeros, lambda _face, pose: pose), (lambda x: x, zeros, lambda face, _pose: face)],
    },
    "03_contrastive_pretraining": {
        "first_loss": [np.log, lambda images: np.log(2 * images), lambda images: np.log(2 * images - 2)],
        "mixed_cosine": [unnormalised, mixed_after_normalisation],
        "simclr_loss": [row_among_its_negatives],
        "barlow_loss": [barlow_of_all_views, barlow_without_standardising],
    },
    "05_downstream_probes": {
        "always_present": [lambda share: share, lambda share: (1 + share) / 2],
        "f1": [lambda present, said: (present & said).mean(), lambda present, said: (present == said).mean()],
        "interval": [over_images, lambda _right, _people: (0.0, 1.0)],
        "ridge_probe": [least_squares, ridge_without_standardising, ridge_through_zero],
    },
    "04_ablations": {
        "chance_of_one": [lambda m, level: m * (1 - level), lambda m, level: (1 - level) ** m],
        "paired_interval": [unpaired],
    },
    "06_pose_face_swap": {
        "donors": [
            lambda shown, pose, face: (np.corrcoef(shown, face)[0, 1], np.corrcoef(shown, pose)[0, 1])
        ],
        "blend": [
            lambda model, a, b, _t: model.decode(model.features(b).face, model.features(a).pose),
            lambda _model, a, b, t: (1 - t) * a + t * b,
        ],
        "direction": [weights_of_the_probe, lambda z, yaw: (z - z.mean(0)).T @ (yaw - yaw.mean()) / len(z)],
    },
    "07_paper_tables": {
        "cell": [lambda values: f"{np.mean(values):.3f} ± {np.std(values):.3f}"],
        "alike": [
            lambda rows: len({row["data"] for row in rows}) == 1,
            lambda rows: len(set(map(str, rows))) == 1,
        ],
        "level_with_best": [lambda right: {max(right, key=lambda name: right[name].mean())}, overlapping],
    },
    "08_paper_and_released_code": {
        "as_released": [
            lambda n, k: [[sample] * k for sample in range(n)],
            lambda n, k: [[view % n for view in range(k)]] * n,
        ],
        "optimism": [lambda _epochs, n, p: (p * (1 - p) / n) ** 0.5, lambda _epochs, _n, _p: 0.0],
    },
    "09_beyond_pose": {
        "relight": [from_above, lambda image, _degrees, strength: ((1 + strength) * image).clamp(0, 1)],
        "shares": [projected_apart, lambda swap, a, truth, _b: (np.vdot(swap - a, truth - a), 0.0)],
    },
    "10_other_ways_to_pose": {
        "angles_from": [
            lambda R: np.degrees([np.arcsin(R[0, 2]), np.arcsin(R[1, 2]), np.arcsin(R[0, 1])]),
            lambda R: np.degrees([-np.arcsin(R[0, 2]), np.arcsin(R[1, 2]), np.arcsin(R[0, 1])]),
        ],
        "fit": [without_conjugate, lambda points, target: (1.0, ((target - points) @ (1, 1j)).mean())],
    },
}


def verdicts(name: str, answers: dict[str, Any], said: Callable[[], str]) -> list[str]:
    """What the check cells of a notebook print, run without the rest of it, with these answers."""
    found, names = [], dict(answers)
    for cell in tagged(read(ROOT / "notebooks" / f"{name}.ipynb"), "check"):
        exec(compile(cell, name, "exec"), names)
        found.append(said())
    return found


def test_every_exercise_has_its_solution_and_its_mistakes() -> None:
    assert SOLVED == NAMES
    assert set(MISTAKES) == set(SOLVED)


def asked(notebook: Any) -> list[str]:
    """The texts of the exercises in a notebook, or in its solutions."""
    return [
        cell.source for cell in notebook.cells if cell.cell_type == "markdown" and TITLE.match(cell.source)
    ]


def sizes(name: str) -> list[str]:
    """The size of each exercise of a notebook, as it says it; "" where it does not."""
    found = [TITLE.match(text) for text in asked(read(ROOT / "notebooks" / f"{name}.ipynb"))]
    return [match[3] or "" for match in found if match]


@pytest.mark.parametrize("name", SOLVED)
def test_each_exercise_says_its_size_and_small_ones_come_first(name: str) -> None:
    said = sizes(name)
    assert [SIZES.index(size) for size in said] == sorted(SIZES.index(size) for size in said)
    assert set(SIZES[:2]) <= set(said)
    letters = [text[2] for text in asked(read(ROOT / "notebooks" / f"{name}.ipynb"))]
    assert letters == list("ABCDE"[: len(said)])


def test_the_course_has_exercises_for_three_evenings() -> None:
    assert sum(sizes(name).count(SIZES[2]) for name in SOLVED) >= 3


@pytest.mark.parametrize("name", SOLVED)
def test_exercises_have_the_texts_and_checks_of_their_solutions(name: str) -> None:
    notebook, solution = read(ROOT / "notebooks" / f"{name}.ipynb"), read(SOLUTIONS / f"{name}.ipynb")
    checks = tagged(notebook, "check")
    assert len(checks) == len(tagged(notebook, "exercise")) == len(sizes(name))
    assert checks == tagged(solution, "check") and asked(notebook) == asked(solution)
    assert f"(solutions/{name}.ipynb)" in prose(notebook) and f"(../{name}.ipynb)" in prose(solution)


@pytest.mark.parametrize("name", SOLVED)
def test_untouched_exercises_are_not_done(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers: dict[str, Any] = {}
    for cell in tagged(read(ROOT / "notebooks" / f"{name}.ipynb"), "exercise"):
        exec(cell, answers)
    assert set(MISTAKES[name]) == set(answers) - {"__builtins__"}
    for verdict in verdicts(name, answers, lambda: capsys.readouterr().out):
        assert verdict.startswith(NOT_DONE)


@pytest.mark.parametrize(("name", "exercise"), [(name, one) for name in MISTAKES for one in MISTAKES[name]])
def test_mistakes_are_told(name: str, exercise: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = list(MISTAKES[name]).index(exercise)
    untouched = dict.fromkeys(MISTAKES[name])
    for mistake in MISTAKES[name][exercise]:
        verdict = verdicts(name, untouched | {exercise: mistake}, lambda: capsys.readouterr().out)[place]
        assert verdict.startswith(f"{WRONG}. "), verdict  # the hint, not an error


@pytest.mark.parametrize("name", SOLVED)
def test_solutions_run_and_are_right(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "solved.ipynb"
    papermill.execute_notebook(
        SOLUTIONS / f"{name}.ipynb", copy, kernel_name="python3", progress_bar=False, cwd=SOLUTIONS
    )
    said = [
        "".join(output.text for output in cell.outputs)
        for cell in code_cells(read(copy))
        if "check" in cell.metadata.get("tags", [])
    ]
    assert said == [f"{RIGHT}.\n"] * len(MISTAKES[name])
