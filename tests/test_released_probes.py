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
from pcl_lib.probes.tasks import Split
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
    x: Tensor, y: Tensor, layer: nn.Module, optimizer: torch.optim.Optimizer, loss: nn.Module, epochs: int
) -> list[Tensor]:
    """Outputs for all rows after each epoch, trained on those that are not multiples of four."""
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(0)
    train = torch.arange(len(x))[torch.arange(len(x)) % 4 != 0]
    outputs = []
    for _ in range(epochs):
        layer.train()
        order = torch.randperm(len(train), generator=generator)
        for start in range(0, len(train), 256):
            rows = train[order[start : start + 256]]
            optimizer.zero_grad()
            loss(layer(x[rows]), y[rows]).backward()
            optimizer.step()
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
    outputs = naive(held.x, torch.from_numpy(y).float(), layer, adam, nn.L1Loss(), short)
    errors = [np.abs(out.numpy()[split.test] - y[split.test]).mean() for out in outputs]
    predicted, epoch = released_code.predict_values(held, split, y)
    assert epoch == int(np.argmin(errors)) + 1
    np.testing.assert_allclose(predicted, outputs[epoch - 1].numpy()[split.test], atol=1e-4)


def test_rows_say_that_they_are_optimistic_and_never_share_a_table(short: int) -> None:
    faces = make_faces(300)
    model = Lookup(**known_features(faces))
    rows = probes.evaluate(model, faces, protocol="released_code", features=["general"])
    assert set(rows["protocol"]) == {"released_code"}
    trained = rows[~rows["task"].str.contains("verification") & ~rows["metric"].str.contains("mean")]
    assert len(trained) and trained["chosen"].str.contains(f"of {short}, the best on test: optimistic").all()
    context = {"method": "pcl", "preset": "smoke", "seed": 0, "data": "fake", "device": "cpu"}
    context |= {"precision": "32-true", "versions": "-", "commit": "-"}
    table = tables.main_table(rows.assign(**context))
    assert "optimistic" in table.attrs["context"]["protocol"]
    ours = probes.evaluate(model, faces, features=["general"])
    with pytest.raises(BadInput, match=r"differ in protocol \(released_code, validation\)"):
        tables.main_table(pd.concat([rows, ours]).assign(**context))
