"""What leaks where: which factors each feature reveals, and which image a swapped reconstruction obeys.

Readability asks a linear reader; 1 (or 100%) for yaw from the pose feature and chance from the face feature would
be the disentanglement that PCL aims for. Swaps ask the decoder, by true factors instead of by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from pcl_lib import linear
from pcl_lib.errors import BadInput
from pcl_lib.labels import identity_codes
from pcl_lib.probes import FEATURES, expression_codes, hold
from pcl_lib.tasks import Split, labelled, plan


def readability(
    model: Any, faces: Any, seed: int = 0, *, features: Sequence[str] = FEATURES, batch_size: int = 256
) -> pd.DataFrame:
    """How well a linear reader tells each factor from each feature, for identities it has not seen.

    model: see `probes.evaluate`; the features of the whole set, extracted before, serve too. yaw, pitch, roll and
    skin_tone: R^2 of ridge regression, train to test. expression: accuracy of logistic regression, train to test.
    identity: accuracy among the test identities, fitted on half the images of each and tested on the other half;
    its penalty comes from the same game among the validation identities. seed: draws those halves.
    Returns feature, factor, metric ("R2" or "accuracy"), value, chance (of a constant answer), n; factors that the
    set has no labels for have no rows and a sentence each in the table's attrs["left_out"].
    Raises BadInput where no factor is labelled and where a feature is NaN or infinite.
    """
    made = plan(faces)
    splits: dict[str, Split | None] = dict.fromkeys(made.angles, made.pose)
    splits["skin_tone"] = labelled(faces, ["skin_tone"], "Skin tone", made.left_out)
    splits["expression"] = made.expression
    readers = {factor: split for factor, split in splits.items() if split is not None}
    games = _identity_games(faces, seed, made.left_out)
    parts = [*readers.values(), *games]
    if not parts:
        raise BadInput(f"nothing can be read from {faces.name}. " + " ".join(made.left_out))
    held, at = hold(model, faces, np.unique(np.concatenate([p for s in parts for p in s])), batch_size)
    rows: list[dict[str, Any]] = []
    for name in features:
        if (x := getattr(held, name)) is None:
            continue
        frozen = linear.Frozen(x, at, len(faces))
        for factor, split in readers.items():
            read = _read_expression if factor == "expression" else _read_value
            rows.append({"feature": name, "factor": factor} | read(frozen, split, faces.table[factor]))
        if games:
            rows.append({"feature": name, "factor": "identity"} | _read_identity(frozen, faces, games))
    table = pd.DataFrame(rows)
    table.attrs["left_out"] = made.left_out
    return table


def _read_value(frozen: linear.Frozen, split: Split, truth: pd.Series) -> dict[str, Any]:
    y = truth.to_numpy(float)[:, None]
    predicted, _ = linear.read_values(frozen, split, y)
    return {
        "metric": "R2",
        "value": r2(predicted[:, 0], y[split.test, 0]),
        "chance": 0.0,
        "n": len(split.test),
    }


def _read_expression(frozen: linear.Frozen, split: Split, truth: pd.Series) -> dict[str, Any]:
    y = expression_codes(truth)
    predicted, _ = linear.read_classes(frozen, split, y)
    common = np.bincount(y[split.train]).argmax()
    return _accuracy(predicted == y[split.test], y[split.test] == common)


def _accuracy(right: np.ndarray, constant: np.ndarray) -> dict[str, Any]:
    return {"metric": "accuracy", "value": right.mean(), "chance": constant.mean(), "n": len(right)}


def r2(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of the variance of truth that is explained; 0 for its mean, negative for worse. Both [n]."""
    return float(1 - np.square(truth - predicted).sum() / np.square(truth - truth.mean()).sum())


def _identity_games(faces: Any, seed: int, notes: list[str]) -> tuple[Split, ...]:
    """The game among validation and among test identities: fit on `train`, test on `test` (= `validation`)."""
    codes = identity_codes(faces.table)
    generator = np.random.default_rng(seed)
    games = []
    for name in ("validation", "test"):
        rows = generator.permutation(faces.split(name))
        turn = pd.Series(codes[rows]).groupby(codes[rows]).cumcount().to_numpy()
        images = pd.Series(codes[rows]).map(pd.Series(codes[rows]).value_counts()).to_numpy()
        fit, other = rows[(images > 1) & (turn < images // 2)], rows[(images > 1) & (turn >= images // 2)]
        if len(np.unique(codes[fit])) < 2:
            notes.append(f"Identity was left out: {name} has fewer than two identities with two images.")
            return ()
        games.append(Split(fit, other, other))
    return tuple(games)


def _read_identity(frozen: linear.Frozen, faces: Any, games: tuple[Split, ...]) -> dict[str, Any]:
    """Ridge regression onto one-hot identities, the largest output wins."""
    codes = identity_codes(faces.table)
    penalties: tuple[float, ...] = linear.RIDGE_PENALTIES
    for game in games:  # the first chooses the penalty of the second
        names, y = np.unique(codes[game.train], return_inverse=True)
        truth = np.searchsorted(names, codes[game.test])
        train, _, test, values = frozen.read(game)
        target = torch.eye(len(names), device=train.device)[torch.from_numpy(y).to(train.device)]
        path = linear.ridge_path(train, target, values, penalties)
        right = [w(test).argmax(1).cpu().numpy() == truth for w in path]
        penalties = (penalties[int(np.argmax([r.mean() for r in right]))],)
    return _accuracy(right[0], truth == np.bincount(truth).argmax())
