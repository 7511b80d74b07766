"""Probes against scikit-learn, SciPy and naive searches, on features whose content is known."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn

from pcl_lib import presets, probes
from pcl_lib.data.labels import EXPRESSION_NAMES
from pcl_lib.models import PCL
from pcl_lib.probes import features as features_module
from pcl_lib.probes import left_out, linear, scores
from pcl_lib.probes.tasks import Split, plan
from pcl_lib.utils import BadInput

UNITS = ["au01", "au12"]


class FakeFaces:
    """A set in memory whose images hold their row number in the first two pixels."""

    def __init__(self, table: pd.DataFrame, pairs: pd.DataFrame | None = None) -> None:
        self.table, self.pairs, self.name = table, pairs, "fake"

    def __len__(self) -> int:
        return len(self.table)

    def split(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.table["split"] == name)

    def images(self, rows: np.ndarray) -> torch.Tensor:
        images = torch.zeros(len(rows), 3, 4, 4, dtype=torch.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.as_tensor(rows % 256), torch.as_tensor(rows // 256)
        return images


class Lookup(nn.Module):
    """A model whose features of an image are rows of given tables; counts the images it has seen."""

    def __init__(self, **tables: np.ndarray) -> None:
        super().__init__()
        self.tables = {name: torch.tensor(x, dtype=torch.float32) for name, x in tables.items()}
        self.norm = nn.BatchNorm1d(1)
        self.seen: list[int] = []
        self.modes: set[bool] = set()

    def features(self, x: torch.Tensor) -> SimpleNamespace:
        rows = x[:, 0, 0, 0].long() + 256 * x[:, 0, 0, 1].long()
        self.seen += rows.tolist()
        self.modes.add(self.norm.training)
        return SimpleNamespace(
            **{k: self.tables[k][rows] if k in self.tables else None for k in probes.FEATURES}
        )


def make_faces(n: int = 1200, identities: int = 60, seed: int = 0) -> FakeFaces:
    """Labels drawn at random; identities 0..59 lie in one split each; pairs among the test images."""
    g = np.random.default_rng(seed)
    identity = g.integers(0, identities, n)
    table = pd.DataFrame({"identity": identity, "expression": g.choice(EXPRESSION_NAMES, n)})
    table["split"] = np.select([identity % 3 == 1, identity % 3 == 2], ["validation", "test"], "train")
    for unit in UNITS:
        table[unit] = g.uniform(0, 4, n)
    for angle, spread in (("yaw", 28), ("pitch", 11), ("roll", 8)):
        table[angle] = g.normal(0, spread, n).clip(-90, 90)
    table["skin_tone"] = g.uniform(0, 1, identities)[identity]
    test = np.flatnonzero(table["split"] == "test")
    first, second = g.choice(test, 600), g.choice(test, 600)
    for i in range(0, 600, 2):  # every other pair is of one identity
        second[i] = g.choice(test[identity[test] == identity[first[i]]])
    pairs = pd.DataFrame({"first": first, "second": second, "same": identity[first] == identity[second]})
    return FakeFaces(table, pairs.assign(fold=np.arange(600) % 10))


def known_features(faces: FakeFaces, noise: float = 0.3, seed: int = 1) -> dict[str, np.ndarray]:
    """general holds all labels, pose the angles, face identity and expression, each mixed linearly with noise."""
    g = np.random.default_rng(seed)
    table = faces.table
    angles = table[["yaw", "pitch", "roll"]].to_numpy() / [28, 11, 8]
    looks = pd.get_dummies(table["identity"]).to_numpy(float)
    moods = 2 * pd.get_dummies(table["expression"]).to_numpy(float)
    parts = {
        "general": np.hstack([angles, table[UNITS].to_numpy(), moods, 3 * looks]),
        "face": np.hstack([moods, 3 * looks]),
        "pose": angles,
    }
    return {
        name: x @ g.normal(size=(x.shape[1], 80)) / 4 + noise * g.normal(size=(len(x), 80)) + 1.0
        for name, x in parts.items()
    }


def values(table: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    return {(r.feature, r.task, r.metric): r.value for r in table.itertuples()}


def test_extract_runs_each_image_once_in_eval_mode_and_keeps_order(monkeypatch):
    faces = make_faces(300)
    features = known_features(faces)
    model = Lookup(**features).train()
    rows = np.array([7, 3, 299, 0, 12])
    monkeypatch.setattr(features_module, "BATCH", 2)
    out = probes.extract(model, faces, rows)
    assert model.seen == rows.tolist() and model.modes == {False} and model.norm.training
    for name in features:
        np.testing.assert_array_equal(getattr(out, name).numpy(), features[name][rows].astype(np.float32))
        assert getattr(out, name).dtype == torch.float32 and not getattr(out, name).is_inference()


def test_evaluate_finds_what_each_feature_holds_and_nothing_else():
    faces = make_faces()
    model = Lookup(**known_features(faces))
    found = values(probes.evaluate(model, faces))
    assert len(model.seen) == len(set(model.seen))
    base = values(probes.baseline_rows(faces))
    mean_yaw = base["mean predictor", "head pose", "MAE yaw"]
    assert mean_yaw == pytest.approx(28 * np.sqrt(2 / np.pi), rel=0.1)
    for name in ("general", "pose"):
        assert found[name, "head pose", "MAE yaw"] < 0.4 * mean_yaw
    assert found["face", "head pose", "MAE yaw"] > 0.9 * mean_yaw
    for name in ("general", "face"):
        assert found[name, "expression", "accuracy"] > 0.6
        assert found[name, "verification", "accuracy"] > 0.75
    assert found["pose", "expression", "accuracy"] < 0.25
    assert found["pose", "verification", "accuracy"] < 0.62
    assert found["general", "action units", "AUC mean"] > 0.85
    assert found["pose", "action units", "AUC mean"] == pytest.approx(0.5, abs=0.1)
    assert found["general", "action units", "F1 mean"] > base["all positive", "action units", "F1 mean"] + 0.1


def test_rows_carry_intervals_counts_and_choices():
    faces = make_faces()
    table = probes.evaluate(Lookup(**known_features(faces)), faces, features=("general",))
    assert list(table.columns)[:4] == ["feature", "task", "metric", "value"]
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    n = table.set_index("metric")["n"]
    assert n["MAE yaw"] == len(faces.split("test"))
    assert table.loc[table["task"] == "verification", "n"].item() == 600
    yaw = faces.table["yaw"].to_numpy()
    apart = np.abs(yaw[faces.pairs["first"]] - yaw[faces.pairs["second"]]) >= 25
    assert table.loc[table["task"] == "cross-pose verification", "n"].item() == apart.sum()
    pd.testing.assert_frame_equal(
        table, probes.evaluate(Lookup(**known_features(faces)), faces, features=("general",))
    )


def test_given_features_give_the_same_table_without_a_second_run():
    faces = make_faces(600)
    model = Lookup(**known_features(faces))
    direct = probes.evaluate(model, faces)
    pd.testing.assert_frame_equal(probes.evaluate(probes.extract(model, faces), faces), direct)
    with pytest.raises(BadInput, match="599 general features for 600 images"):
        probes.evaluate(probes.extract(model, faces, np.arange(599)), faces)


def test_the_test_split_chooses_nothing():
    """Other labels on the test images must leave every penalty and threshold as it was."""
    faces, other = make_faces(600), make_faces(600)
    g = np.random.default_rng(5)
    test = faces.split("test")
    for column in ["expression", *UNITS, "yaw", "pitch", "roll"]:
        other.table.loc[test, column] = g.permutation(other.table.loc[test, column].to_numpy())
    model = Lookup(**known_features(faces))
    tasks = ["expression", "action units", "head pose"]
    chosen = [
        t.loc[t["task"].isin(tasks), ["penalty", "threshold"]].to_numpy()
        for t in (probes.evaluate(model, f) for f in (faces, other))
    ]
    np.testing.assert_array_equal(*chosen)
    best = probes.evaluate(model, faces, protocol="released_code")
    assert set(best["protocol"]) == {"released_code"} and plan(faces, "released_code").pose is not None
    with pytest.raises(BadInput, match="unknown protocol"):
        probes.evaluate(model, faces, protocol="test")


CHOICES = ["feature", "task", "metric", "penalty", "threshold"]
FITTED = ["expression", "action units", "head pose"]


def choices(model: Lookup, faces: FakeFaces) -> pd.DataFrame:
    table = probes.evaluate(model, faces)
    return table.loc[table["task"].isin(FITTED), CHOICES].reset_index(drop=True)


def test_features_of_test_people_choose_nothing():
    """Noise in place of the test people's features moves no penalty and no threshold: whitening is of train alone."""
    faces = make_faces(600)
    features = known_features(faces)
    before = choices(Lookup(**features), faces)
    g, test = np.random.default_rng(6), faces.split("test")
    for x in features.values():
        x[test] = 50 * g.normal(size=(len(test), x.shape[1]))
    pd.testing.assert_frame_equal(choices(Lookup(**features), faces), before)


def test_a_class_that_only_test_people_show_changes_no_fit():
    """It can only be told wrong: the classes are those of train and validation."""
    faces = make_faces(600)
    last, others = EXPRESSION_NAMES[-1], list(EXPRESSION_NAMES[:-1])
    seen = faces.table["split"] != "test"
    g = np.random.default_rng(7)
    faces.table.loc[seen, "expression"] = g.choice(others, int(seen.sum()))
    faces.table.loc[~seen, "expression"] = g.choice(others, int((~seen).sum()))
    model = Lookup(**known_features(faces))
    cached = linear.CachedFeatures(probes.extract(model, faces).general, np.arange(600), 600)
    split = Split(*(faces.split(name) for name in ("train", "validation", "test")))
    codes = pd.Categorical(faces.table["expression"], categories=EXPRESSION_NAMES).codes.astype(np.int64)
    before = linear.predict_classes(cached, split, codes)
    codes[split.test[::2]] = EXPRESSION_NAMES.index(last)
    after = linear.predict_classes(cached, split, codes)
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_probes_on_a_gpu_find_the_same():
    faces = make_faces()
    cpu = probes.extract(Lookup(**known_features(faces)), faces)
    gpu = probes.FrozenFeatures(*(x.cuda() for x in cpu if x is not None))
    tables = [probes.evaluate(features, faces) for features in (cpu, gpu)]
    np.testing.assert_allclose(tables[0]["value"], tables[1]["value"], rtol=0.03, atol=0.01)


def test_what_has_no_labels_is_left_out_and_said():
    faces = make_faces(300)
    bare = FakeFaces(faces.table[["identity", "split"]], faces.pairs)
    table = probes.evaluate(Lookup(**known_features(faces)), bare)
    assert set(table["task"]) == {"verification"}
    said = " ".join(map(str, left_out(bare)))
    assert all(word in said for word in ("Expression", "Action units", "Head pose", "Cross-pose"))
    faces.table.loc[3, "yaw"] = 120.0
    faces.table.loc[5, "expression"] = np.nan
    assert any(one.reason == "turned too far" and one.rows == 1 for one in left_out(faces))
    assert any(one.task == "expression" and one.rows == 1 for one in left_out(faces))
    faces.pairs.loc[0, "first"] = faces.split("train")[0]
    assert any(one.reason == "outside test" and one.rows == 1 for one in left_out(faces))
    with pytest.raises(BadInput, match="cannot be probed"):
        probes.evaluate(Lookup(), FakeFaces(faces.table[["identity", "split"]]))


def test_nan_features_are_named_with_their_rows():
    faces = make_faces(300)
    features = known_features(faces)
    features["pose"][[17, 40], 3] = [np.nan, np.inf]
    with pytest.raises(
        BadInput, match=r"pose feature is NaN or infinite for 2 of 300 images \(rows 17, 40\)"
    ):
        probes.extract(Lookup(**features), faces)


def test_parts_of_raw_pixels_are_those_of_the_picture():
    images = torch.rand(5, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    found = probes.EvenOdd(probes.RawPixels(24)).features(images)
    even, odd = (images + images.flip(3)) / 2, (images - images.flip(3)) / 2
    centre, spread = images.flatten(1).mean(1, keepdim=True), images.flatten(1).std(1, keepdim=True)
    torch.testing.assert_close(
        found.even, (even.flatten(1) - centre) / spread
    )  # a flip moves neither of them
    torch.testing.assert_close(found.odd, odd.flatten(1) / spread)
    assert found.face is None


@pytest.mark.parametrize("even_odd", [False, True])
def test_parts_of_an_encoder_keep_or_turn_their_sign_under_the_flip(even_odd):
    model = PCL(presets.override(presets.get("smoke"), {"model.even_odd": even_odd}).model)
    images = torch.rand(6, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))
    faces = SimpleNamespace(images=lambda rows: torch.cat([images, images.flip(3)])[rows])
    found = probes.extract(probes.EvenOdd(model), faces, np.arange(12))
    torch.testing.assert_close(found.even[:6], found.even[6:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.odd[:6], -found.odd[6:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.even + found.odd, found.general)
    own = probes.extract(model, faces, np.arange(12))
    assert all(torch.equal(a, b) for a, b in zip(found[:3], own[:3], strict=True))
    assert found.odd.abs().max() > 0.01 and own.even is None


def test_raw_pixels_have_only_a_general_feature():
    x = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    out = probes.RawPixels(8).features(x)
    assert out.general.shape == (5, 3 * 8 * 8) and out.face is None and out.pose is None
    torch.testing.assert_close(out.general.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    blocks = x.float().mean((2, 3))  # contrast and brightness do not matter, colours do
    assert torch.corrcoef(torch.stack([out.general.view(5, 3, -1).mean(2)[0], blocks[0]]))[0, 1] > 0.99
    torch.testing.assert_close(probes.RawPixels(8).features(x / 255).general, out.general, atol=1e-4, rtol=0)


# ---- solvers and scores against independent ones


def toy(n: int = 400, d: int = 12, seed: int = 0) -> tuple[torch.Tensor, np.ndarray, Any]:
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, d)) @ g.normal(size=(d, d)) + 3
    return torch.tensor(x, dtype=torch.float32), x, g


def standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / x.std(0)


def test_ridge_path_is_ridge_also_with_more_features_than_images():
    for n, d in ((400, 12), (30, 50)):
        x32, x, g = toy(n, d)
        y = g.normal(size=(n, 2)) + x[:, :2]
        axes = linear.whitening(x32)
        z = axes.coordinates(x32)
        for w in linear.ridge_path(z, torch.tensor(y), axes.values, (1.0, 0.01)):
            want = Ridge(alpha=n * float(w.penalty[0])).fit(standardised(x), y).predict(standardised(x))
            np.testing.assert_allclose(w(z).numpy(), want, atol=2e-3)


def test_softmax_path_is_logistic_regression():
    x32, x, g = toy()
    y = (x[:, :3] + g.normal(size=(400, 3))).argmax(1)
    axes = linear.whitening(x32)
    z = axes.coordinates(x32)
    loss, start = linear.softmax_loss(torch.tensor(y)), linear.zeros(z, 3)
    path = linear.descent_path(z, loss, axes.values, start, (0.1, 0.001), jointly=True)
    assert [float(w.penalty[0]) for w in path] == pytest.approx([0.1, 0.001])
    for w in path:
        skl = LogisticRegression(C=1 / (400 * float(w.penalty[0])), tol=1e-8, max_iter=5000)
        want = skl.fit(standardised(x), y).predict_proba(standardised(x))
        np.testing.assert_allclose(w(z).softmax(1).numpy(), want, atol=2e-3)


def test_presence_is_one_logistic_regression_a_column():
    x32, x, g = toy(600)
    y = x[:, :2] - x[:, :2].mean(0) + g.normal(size=(600, 2)) > 1
    split = Split(np.arange(400), np.arange(400, 500), np.arange(500, 600))
    frozen = linear.CachedFeatures(x32, np.arange(600), 600)
    _, test, penalties = linear.predict_presence(frozen, split, y)
    scaled = (x - x[:400].mean(0)) / x[:400].std(0)
    for i, penalty in enumerate(penalties):
        losses = {}
        for p in linear.PENALTIES:
            skl = LogisticRegression(C=1 / (400 * p), tol=1e-8, max_iter=5000).fit(scaled[:400], y[:400, i])
            losses[p] = -skl.predict_log_proba(scaled[400:500])[
                np.arange(100), y[400:500, i].astype(int)
            ].mean()
            if p == pytest.approx(penalty):
                np.testing.assert_allclose(test[:, i], skl.decision_function(scaled[500:]), atol=0.03)
        assert losses[min(losses, key=lambda p: abs(p - penalty))] <= min(losses.values()) + 1e-3


def test_robust_values_are_least_absolute_deviations():
    x32, x, g = toy(300, 4)
    y = (x @ [1.0, -2.0, 0.5, 0.0] + g.standard_t(1.5, size=300))[:, None]
    split = Split(np.arange(200), np.arange(200, 250), np.arange(250, 300))
    predicted, (penalty,) = linear.predict_values(
        linear.CachedFeatures(x32, np.arange(300), 300), split, y, robust=True
    )
    scaled = (x - x[:200].mean(0)) / x[:200].std(0)
    spread = y[:200].std()

    def objective(p: np.ndarray) -> float:
        error = np.abs(scaled[:200] @ p[:4] + p[4] - y[:200, 0] / spread).mean()
        return error + penalty / 2 * np.square(p[:4]).sum()

    best = minimize(
        objective, np.zeros(5), method="Powell", options={"xtol": 1e-6, "ftol": 1e-9, "maxiter": 20000}
    )
    want = (scaled[250:] @ best.x[:4] + best.x[4]) * spread
    np.testing.assert_allclose(predicted[:, 0], want, atol=0.05 * spread)


def test_a_path_is_left_after_its_minimum_and_chosen_per_output():
    made = []

    def path():
        for p in (16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25):
            made.append(p)
            yield linear.Weights(torch.full((1, 2), p), torch.zeros(2), torch.full((2,), p))

    best = linear.select_penalty(path(), lambda w: np.abs(w.weight[0].numpy() - [8.0, 4.0]), patience=2)
    assert best.penalty.tolist() == [8.0, 4.0] and best.weight.tolist() == [[8.0, 4.0]]
    assert made[-1] == 1.0


@pytest.mark.parametrize("criterion", ["accuracy", "f1"])
def test_threshold_search_matches_a_naive_one(criterion):
    g = np.random.default_rng(0)
    for _ in range(40):
        n = int(g.integers(2, 30))
        scores, truth = g.integers(0, 8, n) / 4, g.random(n) < 0.4

        def merit(t: float, scores: np.ndarray = scores, truth: np.ndarray = truth) -> float:
            called = scores >= t
            return f1_score(truth, called, zero_division=0) if criterion == "f1" else (called == truth).mean()

        found = linear.best_threshold(scores, truth, criterion)
        assert merit(found) == pytest.approx(max(merit(t) for t in [*scores, scores.max() + 1]))
        assert np.abs(scores - found).min() > 0.05  # between scores, not on one


def test_scores_match_sklearn_with_weights():
    g = np.random.default_rng(1)
    scores, truth = g.integers(0, 20, 200) / 10, g.random(200) < 0.3
    weights = g.integers(0, 4, (5, 200)).astype(float)
    f1, auc = linear.weighted_f1(scores > 1, truth, weights), linear.weighted_auc(scores, truth, weights)
    mean = linear.weighted_mean(scores, weights)
    for i, w in enumerate(weights):
        assert f1[i] == pytest.approx(f1_score(truth, scores > 1, sample_weight=w))
        assert auc[i] == pytest.approx(roc_auc_score(truth, scores, sample_weight=w))
        assert mean[i] == pytest.approx(np.average(scores, weights=w))
    assert np.isnan(linear.weighted_auc(scores, np.ones(200, bool), weights)).all()
    nobody = np.zeros((1, 200))
    assert np.isnan(linear.weighted_f1(scores > 1, truth, nobody)).all()
    assert np.isnan(linear.weighted_f1((scores > 1)[:, None], truth[:, None], nobody)).all()
    assert linear.weighted_f1(scores > 9, scores > 9, np.ones((1, 200))).tolist() == [0.0]


def test_features_that_are_all_alike_score_as_chance():
    faces = make_faces(600)
    found = probes.evaluate(Lookup(general=np.ones((600, 4))), faces).set_index(["task", "metric"])["value"]
    classes = faces.table["expression"].iloc[faces.split("test")].value_counts(normalize=True)
    assert any(found["expression", "accuracy"] == pytest.approx(share) for share in classes)
    aucs = found[[metric.startswith("AUC") for _, metric in found.index]]
    assert len(aucs) and (aucs == 0.5).all()
    yaw = faces.table["yaw"]
    mean = yaw.iloc[faces.split("train")].mean()
    of_mean = (yaw.iloc[faces.split("test")] - mean).abs().mean()
    assert found["head pose", "MAE yaw"] == pytest.approx(of_mean, rel=0.02)


def test_pairs_need_both_kinds_in_two_folds():
    faces = make_faces(600)
    faces.pairs["fold"] = np.where(faces.pairs["same"], 0, 1)  # each threshold would be learnt from one kind
    plan = probes.tasks.plan(faces)
    assert plan.pairs is None and any(one.reason == "too few pairs" for one in plan.left_out)
    faces.pairs.loc[faces.pairs.index % 4 < 2, "fold"] = 2
    assert probes.tasks.plan(faces).pairs is None  # one fold has both
    faces.pairs.loc[faces.pairs.index % 8 < 2, "fold"] = 3
    assert probes.tasks.plan(faces).pairs is not None


def test_a_factor_in_words_is_left_out_and_said():
    faces = make_faces(600)
    faces.table["skin_tone"] = np.where(faces.table["skin_tone"] > 0.5, "light", "dark")
    notes: list[probes.tasks.LeftOut] = []
    assert probes.tasks.labelled(faces, ["skin_tone"], "skin tone", notes) is None
    assert [str(note) for note in notes] == [
        "Skin tone left out: skin_tone of fake holds text where numbers are wanted."
    ]


def test_verification_matches_a_naive_cross_validation():
    g = np.random.default_rng(2)
    same, fold = g.random(120) < 0.5, g.integers(0, 10, 120)
    similarity = g.normal(size=120) + same
    right, thresholds = linear.verify(similarity, same, fold)
    want = []
    for f in range(10):
        rest = [(float(s), bool(t)) for s, t, k in zip(similarity, same, fold, strict=True) if k != f]
        cuts = sorted(s for s, _ in rest)
        cuts = [cuts[0] - 1, *((a + b) / 2 for a, b in pairwise(cuts)), cuts[-1] + 1]
        best = max(cuts, key=lambda c: (sum((s >= c) == t for s, t in rest), -c))
        want += [(i, (similarity[i] >= best) == same[i]) for i in np.flatnonzero(fold == f)]
        assert thresholds[f] == pytest.approx(best)
    assert right.tolist() == [bool(v) for _, v in sorted(want)]


def test_intervals_resample_identities_not_images():
    """With all images of an identity alike, the spread is that of identities: about sqrt(p(1-p)/identities)."""
    identity = np.repeat(np.arange(50), 20)
    table = pd.DataFrame({"identity": identity, "split": "test"})
    rows = scores.Scores(FakeFaces(table), seed=0)
    right = identity % 2 == 0
    spread = linear.weighted_mean(right, rows.weights(np.arange(1000)))[1:].std()
    assert spread == pytest.approx(np.sqrt(0.25 / 50), rel=0.15)


def problems(n: int = 200, k: int = 6) -> tuple[torch.Tensor, torch.Tensor, np.random.Generator]:
    """Coordinates with variances of 1 to 1e-4, float64, and these."""
    g = np.random.default_rng(3)
    values = np.logspace(0, -4, k)
    z = np.linalg.qr(g.normal(size=(n, k)))[0] * np.sqrt(n * values)
    return torch.tensor(z), torch.tensor(values), g


@pytest.mark.parametrize("kind", ["softmax", "logistic", "soft_absolute"])
def test_losses_and_their_slopes_are_those_of_pytorch(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    out = (3 * torch.randn(4, 3 if kind == "softmax" else 1, 50, generator=g)).double().requires_grad_()
    classes, y = torch.randint(3, (50,), generator=g), torch.randn(50, 2, generator=g).double()
    number = torch.tensor([3, 0, 1, 2])
    column = y.T[number % 2]
    if kind == "softmax":
        loss = linear.softmax_loss(classes)
        want = nn.functional.cross_entropy(out, classes.expand(4, -1), reduction="none").mean(1)
    elif kind == "logistic":
        loss = linear.logistic_loss((y > 0).double())
        want = nn.functional.binary_cross_entropy_with_logits(
            out[:, 0], (column > 0).double(), reduction="none"
        )
        want = want.mean(1)
    else:
        loss = linear.soft_absolute_loss(y)
        want = nn.functional.huber_loss(out[:, 0], column, reduction="none", delta=linear.SOFT).mean(1)
        want = want / linear.SOFT
    want.sum().backward()
    value, slope = loss(out.detach().clone(), number)
    torch.testing.assert_close(value, want.detach())
    torch.testing.assert_close(slope, out.grad)


def test_many_problems_at_once_are_each_at_their_own_minimum() -> None:
    """SciPy's BFGS on each problem alone finds the same, whatever the penalty and the start."""
    z, values, g = problems()
    y = torch.tensor((g.random((200, 3)) < [0.5, 0.1, 0.02]).astype(float))
    penalties = (1.0, 0.01, 1e-4)
    start = linear.Weights(
        torch.tensor(g.normal(size=(6, 3))), torch.tensor(g.normal(size=3)), torch.zeros(3)
    )
    path = linear.descent_path(z, linear.logistic_loss(y), values, start, penalties)
    for w, penalty in zip(path, penalties, strict=True):
        for i in range(3):

            def objective(x: np.ndarray, i: int = i, penalty: float = penalty) -> float:
                out = z.numpy() @ x[:-1] + x[-1]
                loss = np.logaddexp(0, out) - y[:, i].numpy() * out
                return loss.mean() + penalty / 2 * (x[:-1] ** 2).sum()

            best = minimize(objective, np.zeros(7), method="BFGS", options={"gtol": 1e-8})
            mine = np.r_[w.weight[:, i].numpy(), w.bias[i].item()]
            assert objective(mine) <= best.fun + 1e-7
            np.testing.assert_allclose(
                z.numpy() @ mine[:-1] + mine[-1], z.numpy() @ best.x[:-1] + best.x[-1], atol=5e-3
            )
