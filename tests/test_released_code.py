"""pcl_lib.probes.released_code against the loop of notebooks/method.md, section 7, in torch.nn with a scheduler."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from test_probes import Lookup, known_features, make_faces
from torch import Tensor, nn

from pcl_lib import probes, tables
from pcl_lib.probes import linear, released_code
from pcl_lib.probes.tasks import OPTIMISTIC, Split, plan
from pcl_lib.utils import BadInput

N, D = 400, 6


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(released_code, "EPOCHS", 12)
    return 12


@pytest.fixture
def frozen() -> tuple[linear.CachedFeatures, Split, np.ndarray]:
    """Noisy features of a hidden score; train and test interleaved."""
    g = np.random.default_rng(2)
    x = g.normal(size=(N, D)).astype(np.float32)
    hidden = x[:, :3] + g.normal(size=(N, 3))
    rows = np.arange(N)
    test = rows[rows % 4 == 0]
    return linear.CachedFeatures(torch.from_numpy(x), rows, N), Split(rows[rows % 4 != 0], test, test), hidden


def naive(
    x: Tensor,
    y: Tensor,
    layer: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: nn.Module,
    epochs: int,
    *,
    batch: int = 256,
    decay: bool = True,
    train_mode: int = 1000,
) -> list[Tensor]:
    """Outputs for all rows after each epoch, trained on those that are not multiples of four."""
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    layer.train()
    generator = torch.Generator().manual_seed(0)
    train = torch.arange(len(x))[torch.arange(len(x)) % 4 != 0]
    outputs = []
    for epoch in range(epochs):
        if epoch < train_mode:
            layer.train()
        order = torch.randperm(len(train), generator=generator)
        for start in range(0, len(train), batch):
            rows = train[order[start : start + batch]]
            optimizer.zero_grad()
            loss(layer(x[rows]), y[rows]).backward()
            optimizer.step()
        if decay:
            scheduler.step()
        layer.eval()
        outputs.append(layer(x).detach())
    return outputs


def fresh(outputs: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(D, outputs)


def test_classes_are_those_of_the_best_test_epoch_of_the_naive_loop(
    short: int, frozen: tuple[linear.CachedFeatures, Split, np.ndarray]
) -> None:
    held, split, hidden = frozen
    y = hidden.argmax(1)
    layer = fresh(3)
    layer.weight.data.normal_(mean=0.0, std=0.01)
    layer.bias.data.zero_()
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2)
    outputs = naive(held.x, torch.from_numpy(y), layer, adam, nn.CrossEntropyLoss(), short)
    right = [(out.argmax(1).numpy()[split.test] == y[split.test]).mean() for out in outputs]
    predicted, epoch = released_code.predict_classes(held, split, y)
    assert epoch == int(np.argmax(right)) + 1 and epoch > 1
    assert (predicted == outputs[epoch - 1].argmax(1).numpy()[split.test]).all()
    assert max(right) > right[0]  # choosing mattered


def test_presence_is_judged_by_mean_f1_at_zero(
    short: int, frozen: tuple[linear.CachedFeatures, Split, np.ndarray]
) -> None:
    held, split, hidden = frozen
    y = hidden > 0.5
    layer = fresh(3)
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2)
    outputs = naive(held.x, torch.from_numpy(y).float(), layer, adam, nn.BCEWithLogitsLoss(), short)
    scores = [f1_score(y[split.test], out.numpy()[split.test] >= 0, average="macro") for out in outputs]
    logits, epoch = released_code.predict_presence(held, split, y)
    assert epoch == int(np.argmax(scores)) + 1
    np.testing.assert_allclose(logits, outputs[epoch - 1].numpy()[split.test], atol=1e-5)


def test_values_are_read_by_batch_norm_and_a_linear_layer(
    short: int, frozen: tuple[linear.CachedFeatures, Split, np.ndarray]
) -> None:
    held, split, hidden = frozen
    y = 10 * hidden
    layer = nn.Sequential(nn.BatchNorm1d(D), fresh(3))
    adam = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    outputs = naive(
        held.x, torch.from_numpy(y).float(), layer, adam, nn.L1Loss(), short, batch=128, decay=False
    )
    errors = [np.abs(out.numpy()[split.test] - y[split.test]).mean() for out in outputs]
    predicted, epoch = released_code.predict_values(held, split, y)
    assert epoch == int(np.argmin(errors)) + 1
    np.testing.assert_allclose(predicted, outputs[epoch - 1].numpy()[split.test], atol=1e-4)


def test_the_pcfrl_code_calls_units_present_from_a_very_low_probability_on(
    monkeypatch: pytest.MonkeyPatch, frozen: tuple[linear.CachedFeatures, Split, np.ndarray]
) -> None:
    monkeypatch.setattr(released_code, "EPOCHS", 150)  # until some probabilities fall below the bar
    held, split, _ = frozen
    x, y = held.x, held.x[:, :3].numpy() > 0.5
    layer = nn.Sequential(nn.BatchNorm1d(D), fresh(3))
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2)
    outputs = naive(x, torch.from_numpy(y).float(), layer, adam, nn.BCEWithLogitsLoss(), 150, train_mode=1)
    called = [(torch.sigmoid(out) > 0.0005).numpy()[split.test] for out in outputs]
    scores = [f1_score(y[split.test], each, average="macro") for each in called]
    logits, epoch = released_code.predict_presence_pcfrl(held, split, y)
    assert epoch == int(np.argmax(scores)) + 1
    np.testing.assert_allclose(logits, outputs[epoch - 1].numpy()[split.test], atol=1e-4)
    assert not called[epoch - 1].all()
    assert ((logits > released_code.PCFRL_LOGIT) == called[epoch - 1]).all()


def test_the_pcfrl_code_trains_its_verification_on_pairs(
    short: int, frozen: tuple[linear.CachedFeatures, Split, np.ndarray]
) -> None:
    held, _, _ = frozen
    g = np.random.default_rng(4)
    who = held.x[:, 0].numpy() > 0  # two "people", told by one of six numbers
    first, second = g.integers(0, N, (2, 500))
    pairs = pd.DataFrame({"first": first, "second": second, "same": who[first] == who[second]})
    train, test = pairs[:300], pairs[300:]
    torch.manual_seed(0)
    linear_layer = nn.Linear(D, released_code.PAIR_SIZE)
    layer = nn.Sequential(nn.BatchNorm1d(D), linear_layer)
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2)
    loss = nn.CosineEmbeddingLoss(margin=0.5)
    generator, scores, judged = torch.Generator().manual_seed(0), [], []
    target = torch.tensor(np.where(train["same"], 1.0, -1.0))
    for _ in range(short):
        layer.train()
        order = torch.randperm(300, generator=generator)
        for rows in order.split(256):
            one, two = (layer(held.x[train[end].to_numpy()[rows.numpy()]]) for end in ("first", "second"))
            adam.zero_grad()
            loss(one, two, target[rows]).backward()
            adam.step()
        layer.eval()
        with torch.no_grad():
            one, two = (layer(held.x[test[end].to_list()]) for end in ("first", "second"))
        judged.append((torch.cosine_similarity(one, two) >= 0.5).numpy() == test["same"].to_numpy())
        scores.append(judged[-1].mean())
    right, epoch = released_code.verify_pcfrl(held, train, test)
    assert epoch == int(np.argmax(scores)) + 1
    assert (right == judged[epoch - 1]).mean() > 0.99 and max(scores) > 0.8


@pytest.mark.usefixtures("short")
def test_pcfrl_differs_from_the_released_code_in_two_tasks_and_says_so() -> None:
    faces = make_faces(300)
    model = Lookup(**known_features(faces))
    keys = ["task", "metric"]
    first, second = (
        probes.evaluate(model, faces, protocol=protocol, features=["general"]).set_index(keys)
        for protocol in ("released_code", "pcfrl")
    )
    assert set(second["protocol"]) == {"pcfrl"} and list(first.index) == list(second.index)
    differ = first.drop(columns="protocol").compare(second.drop(columns="protocol")).index
    assert set(differ.get_level_values("task")) == {
        "action units", "verification", "cross-pose verification",
    }  # fmt: skip
    assert second.loc[("verification", "accuracy"), "epoch"] >= 1
    assert second.loc[("verification", "accuracy"), "n"] == first.loc[("verification", "accuracy"), "n"]


def test_without_training_people_pcfrl_judges_each_fold_after_training_on_the_others() -> None:
    faces = make_faces(300)
    made = plan(faces, "pcfrl")
    assert made.training_pairs is not None
    trained = set(made.training_pairs["first"]) | set(made.training_pairs["second"])
    assert trained <= set(faces.split("train")) and trained <= set(made.rows())
    faces.table["split"] = faces.table["split"].replace("train", "validation")
    made = plan(faces, "pcfrl")
    assert made.pairs is not None and made.training_pairs is None
    splits = made.pair_splits(made.pairs)
    assert sorted(np.concatenate([test.index for _, test in splits])) == sorted(made.pairs.index)
    assert all(not set(train["fold"]) & set(test["fold"]) for train, test in splits)


@pytest.mark.parametrize("protocol", OPTIMISTIC)
def test_rows_say_that_they_are_optimistic_and_never_share_a_table(short: int, protocol: str) -> None:
    faces = make_faces(300)
    model = Lookup(**known_features(faces))
    rows = probes.evaluate(model, faces, protocol=protocol, features=["general"])
    assert set(rows["protocol"]) == {protocol}
    trained = rows[~rows["task"].str.contains("verification") & ~rows["metric"].str.contains("mean")]
    assert len(trained) and trained["epoch"].between(1, short).all() and trained["penalty"].isna().all()
    context = {"method": "pcl", "preset": "smoke", "seed": 0, "data": "fake", "device": "cpu"}
    context |= {"precision": "32-true", "versions": "-", "commit": "-"}
    table = tables.main_table(rows.assign(**context))
    assert "optimistic" in table.context["protocol"]
    ours = probes.evaluate(model, faces, features=["general"])
    with pytest.raises(BadInput, match=rf"differ in protocol \({protocol}, validation\)"):
        tables.main_table(pd.concat([rows, ours]).assign(**context))
