"""Leakage and swaps of models whose content is known: what they hide must not be found, what they show must."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from test_probes import FakeFaces, Lookup, known_features, make_faces

from pcl_lib import disentangle, probes
from pcl_lib.disentangle.swaps import r_squared
from pcl_lib.utils import BadInput


class Painter:
    """Decodes a blob whose place is yaw and pitch and whose grey is skin tone; `sources` says from which feature."""

    def __init__(self, faces: FakeFaces, sources: dict[str, str]) -> None:
        table = faces.table
        self.scene = torch.tensor(
            np.stack([table["yaw"] / 90, table["pitch"] / 90, table["skin_tone"]], 1), dtype=torch.float32
        )
        self.sources = [sources[f] for f in ("yaw", "pitch", "skin_tone")]

    def features(self, x: torch.Tensor) -> SimpleNamespace:
        rows = x[:, 0, 0, 0].long() + 256 * x[:, 0, 0, 1].long()
        return SimpleNamespace(general=self.scene[rows], face=self.scene[rows], pose=self.scene[rows])

    def decode(self, face: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        held = {"face": face, "pose": pose}
        yaw, pitch, skin = (held[source][:, i, None, None] for i, source in enumerate(self.sources))
        v, u = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
        blob = (0.5 + skin) * torch.exp(-((u + yaw).square() + (v - pitch).square()) / 0.2)
        return blob[:, None].expand(-1, 3, -1, -1)


@pytest.fixture(scope="module")
def faces() -> FakeFaces:
    return make_faces(1500)


def by_factor(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("factor")


def test_swaps_follow_the_feature_that_carries_the_factor(faces):
    model = Painter(faces, {"yaw": "pose", "pitch": "face", "skin_tone": "face"})
    table = by_factor(disentangle.swap_report(model, faces, n=300, factors=("yaw", "pitch", "skin_tone")))
    assert (table["reader_r2"] > 0.95).all() and (table["n"] == 300).all()
    assert table.loc["yaw", "pose_donor_r"] > 0.97 and abs(table.loc["yaw", "face_donor_r"]) < 0.15
    for factor in ("pitch", "skin_tone"):
        assert table.loc[factor, "face_donor_r"] > 0.9 and abs(table.loc[factor, "pose_donor_r"]) < 0.15


def test_the_shortcut_through_the_pose_feature_is_seen(faces):
    """A decoder that looks at the pose feature alone turns the head and takes the pose donor's skin."""
    model = Painter(faces, dict.fromkeys(("yaw", "pitch", "skin_tone"), "pose"))
    table = by_factor(disentangle.swap_report(model, faces, n=300, factors=("yaw", "skin_tone")))
    assert (table["pose_donor_r"] > 0.9).all() and (table["face_donor_r"].abs() < 0.15).all()


def test_what_the_pictures_do_not_show_is_not_read(faces):
    model = Painter(faces, {"yaw": "pose", "pitch": "pose", "skin_tone": "face"})
    table = disentangle.swap_report(model, faces, n=200, factors=("roll", "hair_tone"))
    assert table["factor"].tolist() == ["roll"]
    known, _, notes = disentangle.swap_plan(faces, ("roll", "hair_tone"))
    assert known == ["roll"] and notes[0].columns == ("hair_tone",)
    assert table["reader_r2"].item() < 0.1 and abs(table["pose_donor_r"].item()) < 0.25
    same = disentangle.swap_report(model, faces, n=200, factors=("roll", "hair_tone"))
    pd.testing.assert_frame_equal(table, same)


def test_swaps_refuse_what_cannot_swap(faces):
    with pytest.raises(BadInput, match="decoder"):
        disentangle.swap_report(probes.RawPixels(), faces)
    model = Painter(faces, dict.fromkeys(("yaw", "pitch", "skin_tone"), "pose"))
    with pytest.raises(BadInput, match="no labels for yaw"):
        disentangle.swap_report(model, FakeFaces(faces.table[["identity", "split"]]), factors=("yaw",))
    alone = faces.table.copy()
    alone.loc[alone["split"] == "test", "identity"] = 0
    with pytest.raises(BadInput, match=r"test images of .* show a single person"):
        disentangle.swap_report(model, FakeFaces(alone), factors=("yaw",))


def test_a_constant_has_no_r_squared():
    g = np.random.default_rng(0)
    truth, predicted = g.normal(size=40), g.normal(size=40)
    assert r_squared(truth, predicted) == pytest.approx(
        1 - ((truth - predicted) ** 2).sum() / 40 / truth.var()
    )
    assert np.isnan(r_squared(np.full(40, 2.0), predicted)) and np.isnan(r_squared(np.ones(40), np.ones(40)))


def test_picture_reader_is_kernel_ridge_at_the_best_of_its_settings():
    g = np.random.default_rng(0)
    x = g.normal(size=(250, 5))
    y = np.stack([np.sin(x[:, 0]) + x[:, 1] ** 2, x[:, 2] + 0.3 * g.normal(size=250)], 1)
    train, validation = torch.tensor(x[:150]), torch.tensor(x[150:200])
    read = disentangle.PictureReader(train, y[:150], validation, y[150:200])(torch.tensor(x[200:]))
    typical = np.median(((x[:150, None] - x[None, :150]) ** 2).sum(2))  # torch takes the lower of two middles
    for i in range(2):
        found = []
        for multiple in (0.3, 1.0, 3.0, 10.0):
            for alpha in np.logspace(-6, 1, 15):
                skl = KernelRidge(alpha=alpha, kernel="rbf", gamma=1 / (2 * multiple * typical))
                skl.fit(x[:150], y[:150, i] - y[:150, i].mean())
                error = np.square(skl.predict(x[150:200]) + y[:150, i].mean() - y[150:200, i]).mean()
                found.append((error, skl.predict(x[200:]) + y[:150, i].mean()))
        np.testing.assert_allclose(read[:, i], min(found, key=lambda f: f[0])[1], atol=2e-3)


def test_leakage_tells_what_each_feature_holds(faces):
    table = disentangle.leakage(Lookup(**known_features(faces)), faces)
    found = {(r.feature, r.factor): r.value for r in table.itertuples()}
    for angle in ("yaw", "pitch", "roll"):
        assert found["pose", angle] > 0.9 and found["general", angle] > 0.6  # identities are its noise
        assert abs(found["face", angle]) < 0.05
    assert found["face", "identity"] > 0.8 > 0.3 > found["pose", "identity"]
    assert found["face", "expression"] > 0.6 > 0.25 > found["pose", "expression"]
    chance = {(r.feature, r.factor): r.chance for r in table.itertuples()}
    assert chance["face", "identity"] == pytest.approx(1 / 20, abs=0.03)
    assert chance["face", "expression"] == pytest.approx(1 / 7, abs=0.04)
    assert chance["face", "yaw"] == 0


def test_leakage_is_the_r2_of_a_plain_regression(faces):
    features = known_features(faces)
    table = by_factor(disentangle.leakage(Lookup(**features), faces, features=("pose",)))
    train, test = faces.split("train"), faces.split("test")
    yaw = faces.table["yaw"].to_numpy()
    plain = (
        LinearRegression().fit(features["pose"][train], yaw[train]).score(features["pose"][test], yaw[test])
    )
    assert table.loc["yaw", "value"] == pytest.approx(plain, abs=0.01)  # penalties hardly matter here
    assert table.loc["yaw", "n"] == len(test)


def test_identity_is_read_on_other_images_than_it_was_fitted_on(faces):
    """Features that only tell images apart must give chance, though they could learn every image by heart."""
    g = np.random.default_rng(3)
    noise = g.normal(size=(len(faces), 600))
    table = by_factor(disentangle.leakage(Lookup(general=noise), faces))
    row = table.loc["identity"]
    assert row["value"] < row["chance"] + 0.06
    for fit, _, other in disentangle.leakage_plan(faces, 0).identity:
        assert not set(fit) & set(other)
        identity = faces.table["identity"]
        counts = identity[fit].value_counts(), identity[other].value_counts()
        assert (counts[0] - counts[1]).abs().max() <= 1


def test_leakage_says_what_it_left_out():
    faces = make_faces(300)
    bare = FakeFaces(faces.table[["identity", "split", "yaw"]])
    table = disentangle.leakage(Lookup(**known_features(faces)), bare)
    assert set(table["factor"]) == {"yaw", "identity"}
    said = " ".join(map(str, disentangle.leakage_plan(bare).left_out))
    assert all(word in said for word in ("Expression", "pitch", "Skin tone"))
    with pytest.raises(BadInput, match="can be probed"):
        disentangle.leakage(Lookup(), FakeFaces(faces.table[["split"]]))


def test_leakage_leaves_out_what_is_the_same_on_all_test_images():
    faces = make_faces(300)
    still = faces.table[["identity", "split", "yaw", "skin_tone"]].copy()
    still.loc[still["split"] == "test", "skin_tone"] = 0.5
    still = FakeFaces(still)
    table = disentangle.leakage(Lookup(**known_features(faces)), still)
    assert set(table["factor"]) == {"yaw", "identity"} and table["value"].notna().all()
    said = map(str, disentangle.leakage_plan(still).left_out)
    assert any("Leakage of skin tone left out: it is the same on all test images" in note for note in said)


def readings(**above: tuple[float, float]) -> pd.DataFrame:
    """Rows of `leakage` by factor: what is read above chance from the face and from the pose feature."""
    return pd.DataFrame(
        [
            {"factor": factor, "feature": feature, "value": 0.2 + 0.8 * value, "chance": 0.2}
            for factor, both in above.items()
            for feature, value in zip(("face", "pose"), both, strict=True)
        ]
    )


def test_parting_is_1_where_each_factor_is_in_one_feature_and_0_where_both_hold_all() -> None:
    apart = disentangle.dci(readings(yaw=(0.0, 0.9), identity=(0.6, 0.0)))
    assert apart == pytest.approx(
        {"disentanglement": 1, "completeness": 1, "informativeness": 0.75, "SAP": 0.75}
    )
    alike = disentangle.dci(readings(yaw=(0.5, 0.5), identity=(0.5, 0.5), skin_tone=(0.5, 0.5)))
    assert alike == pytest.approx({"disentanglement": 0, "completeness": 0, "informativeness": 0.5, "SAP": 0})


def test_parting_by_hand() -> None:
    found = disentangle.dci(readings(yaw=(0.2, 0.6), identity=(0.4, 0.0)))
    entropy = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert found["completeness"] == pytest.approx((0.8 * (1 - entropy) + 0.4) / 1.2)
    face = -(np.log2(1 / 3) / 3 + 2 * np.log2(2 / 3) / 3)  # the face feature's shares are .2 and .4
    assert found["disentanglement"] == pytest.approx((0.6 * (1 - face) + 0.6) / 1.2)
    assert found["SAP"] == pytest.approx(0.4) and found["informativeness"] == pytest.approx(0.5)
    rows = readings(yaw=(0.2, 0.6), identity=(0.4, 0.0)).replace({"feature": {"face": "even", "pose": "odd"}})
    assert disentangle.dci(rows, ("even", "odd")) == found


def test_parting_below_chance_counts_nothing_and_needs_both_features() -> None:
    nothing = disentangle.dci(readings(yaw=(-0.3, -0.1), identity=(-0.2, 0.0)))
    assert np.isnan(nothing["disentanglement"]) and nothing["informativeness"] == nothing["SAP"] == 0
    rows = readings(yaw=(0.1, 0.2))
    with pytest.raises(BadInput, match="these rows lack one"):
        disentangle.dci(rows[rows["feature"] == "pose"])
