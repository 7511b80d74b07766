"""The exercises: untouched they are not done, the solutions are right, and typical mistakes are told from them."""

from __future__ import annotations

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
        "components": [halves_without_sign, lambda h, images: (h(images), h(images.flip(3)))],
        "cheat": [(zeros, zeros, lambda _face, pose: pose), (lambda x: x, zeros, lambda face, _pose: face)],
    },
    "03_contrastive_pretraining": {
        "mixed_cosine": [unnormalised, mixed_after_normalisation],
        "simclr_loss": [row_among_its_negatives],
    },
    "05_downstream_probes": {
        "f1": [lambda present, said: (present & said).mean(), lambda present, said: (present == said).mean()],
        "interval": [over_images, lambda _right, _people: (0.0, 1.0)],
    },
    "04_ablations": {
        "paired_interval": [unpaired],
        "chance_of_one": [lambda m, level: m * (1 - level), lambda m, level: (1 - level) ** m],
    },
    "06_pose_face_swap": {
        "blend": [
            lambda model, a, b, _t: model.decode(model.features(b).face, model.features(a).pose),
            lambda _model, a, b, t: (1 - t) * a + t * b,
        ],
        "donors": [
            lambda shown, pose, face: (np.corrcoef(shown, face)[0, 1], np.corrcoef(shown, pose)[0, 1])
        ],
    },
    "07_paper_tables": {
        "cell": [lambda values: f"{np.mean(values):.3f} ± {np.std(values):.3f}"],
        "alike": [
            lambda rows: len({row["data"] for row in rows}) == 1,
            lambda rows: len(set(map(str, rows))) == 1,
        ],
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


@pytest.mark.parametrize("name", SOLVED)
def test_two_exercises_with_the_checks_of_their_solutions(name: str) -> None:
    notebook, solution = read(ROOT / "notebooks" / f"{name}.ipynb"), read(SOLUTIONS / f"{name}.ipynb")
    assert len(tagged(notebook, "check")) == len(tagged(notebook, "exercise")) == 2
    assert tagged(notebook, "check") == tagged(solution, "check")
    assert f"(solutions/{name}.ipynb)" in prose(notebook) and f"(../{name}.ipynb)" in prose(solution)


@pytest.mark.parametrize("name", SOLVED)
def test_untouched_exercises_are_not_done(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers: dict[str, Any] = {}
    for cell in tagged(read(ROOT / "notebooks" / f"{name}.ipynb"), "exercise"):
        exec(cell, answers)
    assert set(MISTAKES[name]) == set(answers) - {"__builtins__"}
    for verdict in verdicts(name, answers, lambda: capsys.readouterr().out):
        assert verdict.startswith(NOT_DONE)


@pytest.mark.parametrize(("name", "asked"), [(name, asked) for name in MISTAKES for asked in MISTAKES[name]])
def test_mistakes_are_told(name: str, asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = list(MISTAKES[name]).index(asked)
    untouched = dict.fromkeys(MISTAKES[name])
    for mistake in MISTAKES[name][asked]:
        verdict = verdicts(name, untouched | {asked: mistake}, lambda: capsys.readouterr().out)[place]
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
    assert said == [f"{RIGHT}.\n"] * 2
