"""Clips: what moves and what stays, how smoothly, and how the poses are distributed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, truncnorm

from pcl_lib import data
from pcl_lib.faces import sample_factors
from pcl_lib.faces.clips import sample_clips
from pcl_lib.faces.factors import AUS, EXPRESSIONS, POSE, POSE_SPREAD
from pcl_lib.utils import BadInput

MOVING = [*AUS, "expression"]


def changes(table: pd.DataFrame) -> set[str]:
    """The columns that change within a clip."""
    return {name for name, counts in table.groupby("clip").nunique().items() if (counts > 1).any()}


def test_only_the_head_moves_and_all_else_is_that_of_a_still_image() -> None:
    stills = sample_factors(6, seed=3, identities=4, first_identity=50, clutter=0.5)
    table = sample_clips(6, 5, seed=3, identities=4, first_identity=50, clutter=0.5)
    assert changes(table) == {"frame", *POSE, "noise_seed"}
    assert table["clip"].tolist() == np.repeat(np.arange(6), 5).tolist()
    assert table["frame"].tolist() == list(range(5)) * 6
    kept = [name for name in stills if name not in (*POSE, "noise_seed")]
    for frame in range(5):
        of_frame = table[table["frame"] == frame].reset_index(drop=True)
        pd.testing.assert_frame_equal(of_frame[kept], stills[kept])


def test_a_moving_expression_moves_the_action_units_alone() -> None:
    fixed = sample_clips(40, 5, seed=1, clutter=0.2)
    table = sample_clips(40, 5, seed=1, clutter=0.2, expression="moving")
    assert changes(table) == {"frame", *POSE, "noise_seed", *MOVING}
    kept = [name for name in table if name not in MOVING]
    pd.testing.assert_frame_equal(table[kept], fixed[kept])
    assert set(table["expression"]) <= set(EXPRESSIONS)
    stills = sample_factors(40, seed=1, clutter=0.2)
    between = table[list(AUS)].groupby(table["clip"]).max().to_numpy()
    assert (between <= stills[list(AUS)].max().to_numpy() + 1e-9).all()


def test_motion_is_the_share_of_the_way() -> None:
    fixed, full = (sample_clips(40, 5, seed=1, expression=how) for how in ("fixed", "moving"))
    some = sample_clips(40, 5, seed=1, expression="moving", motion=0.3)
    units = list(AUS)
    assert np.allclose(some[units], 0.7 * fixed[units] + 0.3 * full[units])
    assert (some["expression"] == fixed["expression"]).all()  # never half of the way


@pytest.mark.parametrize("expression", ["fixed", "moving"])
def test_paths_are_smooth(expression: str) -> None:
    frames = 400
    table = sample_clips(30, frames, seed=2, expression=expression)
    for name in (*POSE, "au12"):
        path = table[name].to_numpy().reshape(30, frames)
        span = POSE_SPREAD[name][0] if name in POSE else 5.0
        # No more than 1.6 cycles in 400 frames: a step is a small part of the spread, and steps change slowly.
        assert np.abs(np.diff(path)).max() < 0.12 * span
        assert np.abs(np.diff(path, 2)).max() < 0.01 * span
    assert (np.ptp(table["yaw"].to_numpy().reshape(30, frames), 1) > 10).mean() > 0.8  # and heads do move


def test_a_frame_has_the_poses_of_still_images() -> None:
    table = sample_clips(3000, 3, seed=5)
    for angle, (spread, bound) in POSE_SPREAD.items():
        drawn = table.loc[table["frame"] == 1, angle]
        assert drawn.abs().max() <= bound
        wanted = truncnorm(-bound / spread, bound / spread, scale=spread)
        assert kstest(drawn, wanted.cdf).pvalue > 0.01


def test_the_same_arguments_draw_the_same_and_another_seed_does_not() -> None:
    first, second = (sample_clips(4, 3, seed=9, expression="moving") for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert not np.isclose(first["yaw"], sample_clips(4, 3, seed=10)["yaw"]).any()
    assert len(sample_clips(1, 1)) == 1


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"clips": 0}, "clips=0"),
        ({"frames": 0}, "frames=0"),
        ({"expression": "wild"}, "wild"),
        ({"motion": 1.5}, "motion must be from 0 to 1, but is 1.5"),
    ],
)
def test_what_cannot_be_drawn_is_named(bad: dict[str, object], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        sample_clips(**({"clips": 2, "frames": 2} | bad))  # type: ignore[arg-type]


def test_a_rendered_set_of_clips_has_its_own_people_each_in_one_split(tmp_path: Path) -> None:
    settings = {"images_per_identity": 6, "size": 16, "progress": False}
    clips = data.prepare_rendered(tmp_path / "clips", identities=(5, 3, 3), frames_per_clip=3, **settings)
    stills = data.prepare_rendered(tmp_path / "stills", identities=(5, 3, 3), **settings)
    table = clips.table
    assert len(table) == 11 * 6 and table["clip"].nunique() == 22
    assert (table.groupby("clip")["frame"].apply(list).map(tuple) == (0, 1, 2)).all()
    assert (table.groupby("identity")["split"].nunique() == 1).all()
    people = [
        table.loc[table["split"] == name, "identity"].nunique() for name in ("train", "validation", "test")
    ]
    assert people == [5, 3, 3]
    assert not set(table["identity"]) & set(stills.table["identity"])
    again = data.prepare_rendered(tmp_path / "clips", identities=(5, 3, 3), frames_per_clip=3, **settings)
    assert again.content_hash == clips.content_hash
    with pytest.raises(BadInput, match="frames_per_clip 3"):
        data.prepare_rendered(tmp_path / "clips", identities=(5, 3, 3), frames_per_clip=2, **settings)
    with pytest.raises(BadInput, match="whole clips of 4"):
        data.prepare_rendered(tmp_path / "new", identities=(5, 3, 3), frames_per_clip=4, **settings)
