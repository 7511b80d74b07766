"""Beyond the paper: what a change's features know, shares of a swap, pose by landmarks, alignment, tracking."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from pcl_lib import disentangle
from pcl_lib.data.rendered import RenderedFaces, gallery_table
from pcl_lib.disentangle.attributes import Changed
from pcl_lib.faces import camera, head_landmarks, render, sample_factors
from pcl_lib.faces.factors import NUMERIC, POSE
from pcl_lib.faces.pnp import angles_of, solve_pose
from pcl_lib.methods.changes import CAST
from pcl_lib.probes.features import FrozenFeatures
from pcl_lib.reproduce import beyond
from pcl_lib.utils import BadInput

SIZE = 24


@pytest.fixture(scope="module")
def faces() -> RenderedFaces:
    return beyond.strangers(SIZE, 10, 8)


def random_angles(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform((-75, -30, -20), (75, 30, 20), (n, 3))


def test_angles_of_a_rotation_are_those_of_scipy() -> None:
    angles = random_angles(50)
    yaw, pitch, roll = angles.T
    turned = Rotation.from_euler("XYZ", np.stack([-pitch, -yaw, -roll], 1), degrees=True).as_matrix()
    assert np.allclose(camera.rotation(yaw, pitch, roll), turned)
    assert np.allclose(angles_of(turned), angles)


def test_landmarks_of_the_own_head_give_its_pose() -> None:
    factors = sample_factors(12, seed=3).assign(shift_x=0.0, shift_y=0.0, zoom=1.0)
    factors[list(POSE)] = random_angles(12)
    head = head_landmarks(factors)
    places, _ = camera.project(factors, head, 64)
    assert np.allclose(solve_pose(places, head, 64), factors[list(POSE)], atol=1e-3)
    assert np.allclose(solve_pose(places / 2, head, 32), factors[list(POSE)], atol=1e-3)
    wrong = solve_pose(places + np.random.default_rng(0).normal(0, 2, places.shape), head, 64)
    assert 0.5 < np.abs(wrong - factors[list(POSE)].to_numpy()).mean() < 10


def test_pose_of_points_that_make_no_sense_is_refused() -> None:
    for points, head in (
        (np.zeros((1, 3, 2)), np.zeros((3, 3))),
        (np.zeros((1, 8, 3)), np.zeros((8, 3))),
        (np.full((1, 8, 2), np.nan), np.ones((8, 3))),
    ):
        with pytest.raises(BadInput, match="solve_pose needs"):
            solve_pose(points, head, 64)


class Pictures:
    """A model whose features are images; decode answers with what `answer` makes of (A, B), and shows A plainly."""

    def __init__(self, answer: str, faces: RenderedFaces, factors: tuple[str, ...]) -> None:
        self.answer, self.faces, self.factors = answer, faces, factors
        self.rows = {x.numpy().tobytes(): i for i, x in enumerate(faces.images(np.arange(len(faces))))}

    def features(self, x: Tensor) -> FrozenFeatures:
        return FrozenFeatures(x, x, x)

    def decode(self, face: Tensor, pose: Tensor) -> Tensor:
        shown = pose if self.answer == "b" else face
        if self.answer == "truth" and not torch.equal(face, pose):
            table = self.faces.table
            a, b = ([self.rows[x.numpy().tobytes()] for x in images] for images in (face, pose))
            factors = table[list(NUMERIC)].iloc[a].reset_index(drop=True)
            factors[list(self.factors)] = table[list(self.factors)].iloc[b].to_numpy()
            shown = render(factors, SIZE)
        return shown.float() / 255


@pytest.mark.parametrize(("answer", "wanted"), [("truth", (1, 0)), ("a", (0, 0)), ("b", (1, 1))])
@pytest.mark.parametrize("name", ["flip", "occluder", "ageing", "make-up"])
def test_shares_of_swaps_whose_pictures_are_known(
    faces: RenderedFaces, name: str, answer: str, wanted: tuple[int, int]
) -> None:
    factors = disentangle.FACTORS[name]
    rows = disentangle.swap_shares(Pictures(answer, faces, factors), faces, factors, n=12).set_index(
        "picture"
    )
    assert rows.loc["swap", ["follows", "takes"]].to_numpy(float) == pytest.approx(wanted, abs=1e-6)
    assert rows.loc["plain", ["follows", "takes"]].to_numpy(float) == pytest.approx((1, 0), abs=1e-6)
    for share in ("follows", "takes"):
        assert (rows[f"{share}_low"] <= rows[share] + 1e-9).all() and (
            rows[share] <= rows[f"{share}_high"] + 1e-9
        ).all()


def test_swaps_without_a_truth_are_refused(faces: RenderedFaces) -> None:
    bare = SimpleNamespace(name="photographs", table=faces.table[["identity"]], split=faces.split)
    with pytest.raises(BadInput, match=r"photographs has no .*: only swaps of rendered faces"):
        disentangle.swap_shares(None, bare, ("light_warmth",))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"photographs has no yaw, .*rendered faces have it"):
        disentangle.attribute_rows(None, bare, "flip")  # type: ignore[arg-type]
    alike = SimpleNamespace(name="alike", table=faces.table.assign(occluder=0), split=faces.split)
    with pytest.raises(BadInput, match="no two test images of different people"):
        disentangle.swap_shares(None, alike, disentangle.FACTORS["occluder"])  # type: ignore[arg-type]


class Colours:
    """The mean colour as the attribute's feature, and as that of all else how bright the image is."""

    def features(self, x: Tensor) -> FrozenFeatures:
        means = x.float().mean((2, 3))
        return FrozenFeatures(means, means.sum(1, keepdim=True).repeat(1, 3), means)


def test_a_cast_is_found_in_colours_and_not_in_brightness() -> None:
    grey = gallery_table(60, 2)
    images = torch.full((len(grey), 3, 8, 8), 120, dtype=torch.uint8)

    class Flat:
        name, table = "grey", grey

        def images(self, rows: np.ndarray) -> Tensor:
            return images[torch.as_tensor(rows)]

        def split(self, part: str) -> np.ndarray:
            return np.flatnonzero(grey["split"] == part)

        def __len__(self) -> int:
            return len(grey)

    rows = disentangle.attribute_rows(Colours(), Flat(), "colour")  # type: ignore[arg-type]
    value = rows.set_index(["question", "feature"])["value"]
    assert value["change", "attribute"] > 0.98 and value["change", "all else"] < 0.1
    assert value["factor", "attribute"] < 0.1  # the images have no true warmth
    changed = Changed(Flat(), "colour")  # type: ignore[arg-type]
    cosine = changed.marks[:, 0]
    red = changed.images(np.arange(len(grey))).float().mean((2, 3))[:, 0] / 120
    assert np.allclose(red.numpy(), 1 + CAST * cosine, atol=0.01)


def test_half_the_images_get_an_occluder_and_the_marks_say_which(faces: RenderedFaces) -> None:
    changed = Changed(faces, "occluder")
    rows = np.arange(len(faces))
    touched = (changed.images(rows) != faces.images(rows)).flatten(1).any(1).numpy()
    assert (touched == changed.marks[:, 0]).all() and 0.3 < touched.mean() < 0.7
    assert Changed(faces, "flip").marks.shape == (len(faces), 0)


def test_strangers_come_again_in_each_case() -> None:
    faces = beyond.strangers(SIZE, 10, 4, cases=True)
    cases = {name: faces.table.iloc[faces.split(name)] for name in ("test", *beyond.CASES)}
    assert {len(rows) for rows in cases.values()} == {8}
    assert (cases["60 degrees"]["yaw"].abs() == 60).all()
    assert (np.sign(cases["60 degrees"]["yaw"].to_numpy()) == np.sign(cases["test"]["yaw"].to_numpy())).all()
    assert (cases["glasses"]["glasses"] == 2).all() and (cases["occluder"]["occluder"] == 1).all()
    assert not cases["plain"][["glasses", "occluder"]].to_numpy().any()
    assert 0 < cases["test"]["occluder"].mean() < 1
    assert faces.pairs is not None and set(faces.pairs["first"]) <= set(faces.split("test"))


def test_ways_are_judged_by_their_errors() -> None:
    faces = beyond.strangers(SIZE, 20, 8, cases=True)
    truth = faces.table[list(POSE)].to_numpy(float)
    angles = truth + np.array([3.0, -2.0, 1.0])
    angles[faces.split("glasses"), 0] += 4
    person = torch.nn.functional.one_hot(torch.from_numpy(faces.table["identity"].to_numpy() % 20))
    ways = [beyond.Way("known", "all", angles, person.float(), 7.0), beyond.Way("blind", "none", angles)]
    known, blind = beyond.judge(ways, faces).to_dict("records")
    assert [known[f"{angle} MAE"] for angle in POSE] == pytest.approx([3, 2, 1])
    assert known["yaw, plain"] == pytest.approx(3) and known["yaw, glasses"] == pytest.approx(7)
    assert known["cross-pose verification"] == 1 and np.isnan(blind["cross-pose verification"])
    assert known["seconds"] == 7


def test_landmarks_without_noise_beat_noisy_ones_and_the_mean() -> None:
    faces = beyond.strangers(64, 10, 4)
    truth = faces.table[list(POSE)].to_numpy(float)
    error = [np.abs(beyond.by_landmarks(faces, noise).angles - truth).mean() for noise in (0.0, 2.0)]
    assert error[0] < 2 < error[1] < np.abs(truth - truth.mean(0)).mean()


class Mirror:
    """A model that sees the picture, in eight times eight grey pixels."""

    config = SimpleNamespace(image_size=SIZE)

    def features(self, x: Tensor) -> FrozenFeatures:
        small = torch.nn.functional.interpolate(x.float(), (8, 8), mode="area").mean(1).flatten(1)
        return FrozenFeatures(small, small, small)


def test_a_probe_follows_heads_of_clips_better_than_the_mean() -> None:
    table = beyond.track(Mirror(), 30, 6, clips=2)
    assert table.groupby("clip")["frame"].apply(list).tolist() == [list(range(beyond.CLIP))] * 2
    assert isinstance(table, pd.DataFrame) and table["constant"].nunique() == 1
    assert (table["true"] - table["found"]).abs().mean() < (table["true"] - table["constant"]).abs().mean()


def test_stored_rows_are_this_machine_s_before_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = SimpleNamespace(out=tmp_path / "runs" / "cpu", preset=SimpleNamespace(name="cpu"))
    monkeypatch.setattr(beyond, "REPOSITORY", tmp_path / "kit")
    assert beyond.stored(run, "longer_ways") is None  # type: ignore[arg-type]
    assert "no rows yet; make beyond PRESET=cpu" in capsys.readouterr().out
    places = {"on record": tmp_path / "kit" / "figures", "of this machine": tmp_path / "runs" / "cpu-beyond"}
    for said, folder in places.items():
        (folder / "tables").mkdir(parents=True)
        (folder / "tables" / "longer_ways.csv").write_text("way\n")
        assert beyond.stored(run, "longer_ways") == folder / "tables" / "longer_ways.csv"  # type: ignore[arg-type]
        assert said in capsys.readouterr().out


class Pair:
    """The person's number in the face-aware feature, the true angles in the pose-related one."""

    def __init__(self, faces: RenderedFaces) -> None:
        self.rows = {x.numpy().tobytes(): i for i, x in enumerate(faces.images(np.arange(len(faces))))}
        self.table, self.mix = faces.table, torch.rand(3, 3, generator=torch.Generator().manual_seed(0))

    def features(self, x: Tensor) -> FrozenFeatures:
        found = self.table.iloc[[self.rows[image.numpy().tobytes()] for image in x]]
        person = torch.nn.functional.one_hot(
            torch.from_numpy(found["identity"].to_numpy(copy=True) % 10), 10
        ).float()
        angles = torch.from_numpy(found[list(POSE)].to_numpy(np.float32, copy=True))
        return FrozenFeatures(torch.cat([person, angles], 1), person, angles @ self.mix + 1)


def test_a_pair_of_features_gives_angles_and_identity(faces: RenderedFaces) -> None:
    way = beyond.by_pair("known", "all", Pair(faces), faces)
    test = faces.split("test")
    assert np.isnan(way.angles[faces.split("train")]).all()
    assert np.allclose(way.angles[test], faces.table[list(POSE)].to_numpy()[test], atol=0.5)
    assert way.identity is not None and way.identity.shape == (len(faces), 10)
