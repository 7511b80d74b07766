"""Clips: one person in one scene whose head moves along a smooth path, as factors for `render`.

An angle's path is a random sum of slow sines that is standard normal at every moment; the quantile function of the
still images' distribution turns it into degrees. So a frame of a clip has the poses of `sample_factors`, and frames
that follow each other have similar ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from pcl_lib.faces.factors import AUS, POSE, POSE_SPREAD, sample_factors
from pcl_lib.utils import BadInput

Floats = NDArray[np.float64]

MOTIONS = ("fixed", "moving")
CYCLES = (0.4, 1.6)  # of a sine, in the length of a clip: slowest, fastest
SINES = 3  # in a path
FRAME_COLUMNS = (*POSE, "noise_seed")  # what differs between frames of a clip of fixed expression


def sample_clips(
    clips: int,
    frames: int,
    seed: int = 0,
    *,
    identities: int | None = None,
    first_identity: int = 0,
    clutter: float = 0.0,
    expression: str = "fixed",
    motion: float = 1.0,
) -> pd.DataFrame:
    """Draw the true factors of clips: a row per frame, the frames of a clip one after the other.

    clips, frames >= 1: clip i shows identity first_identity + i % identities (None: every clip its own) at `frames`
    evenly spaced moments; it has the looks, light, background, occluder and framing of row i of `sample_factors` with
    the same arguments. Yaw, pitch and roll follow smooth paths of their own, distributed over frames as over still
    images; the camera's noise is fresh in each frame. expression: "fixed", or "moving" from the clip's expression
    towards that of another clip and back, by whatever share of the way the path gives times `motion` (0 to 1); the
    column `expression` then names the nearer of the two.
    Returns the columns of `sample_factors`, `clip` (0 to clips - 1) and `frame` (0 to frames - 1).
    Raises BadInput where an argument is out of range.
    """
    if clips < 1 or frames < 1:
        raise BadInput(
            f"sample_clips needs clips >= 1 and frames >= 1, but got clips={clips}, frames={frames}."
        )
    if expression not in MOTIONS:
        raise BadInput(f'expression must be "fixed" or "moving", but is "{expression}".')
    if not 0 <= motion <= 1:
        raise BadInput(f"motion must be from 0 to 1, but is {motion}.")
    stills = sample_factors(
        clips, seed, identities=identities, first_identity=first_identity, clutter=clutter
    )
    table = stills.loc[np.repeat(stills.index, frames)].reset_index(drop=True)
    moments = np.linspace(0.0, 1.0, frames) if frames > 1 else np.array([0.5])
    rng = np.random.default_rng([seed, 0xC119])
    for angle, (spread, bound) in POSE_SPREAD.items():
        edge = float(ndtr(-bound / spread))
        table[angle] = spread * ndtri(edge + (1 - 2 * edge) * ndtr(_paths(clips, moments, rng))).ravel()
    table["noise_seed"] = rng.integers(2**20, size=len(table))
    if expression == "moving":
        share = motion * ndtr(_paths(clips, moments, rng))
        _move_expression(table, stills, share, rng)
    table.insert(1, "clip", np.repeat(np.arange(clips), frames))
    table.insert(2, "frame", np.tile(np.arange(frames), clips))
    return table


def _paths(clips: int, moments: Floats, rng: np.random.Generator) -> Floats:
    """Smooth paths [clips, moments], standard normal over clips at each moment."""
    shape = (clips, SINES, 1)
    turns = 2 * np.pi * rng.uniform(*CYCLES, shape) * moments
    sines = rng.standard_normal(shape) * np.cos(turns) + rng.standard_normal(shape) * np.sin(turns)
    return sines.sum(1) / np.sqrt(SINES)


def _move_expression(
    table: pd.DataFrame, stills: pd.DataFrame, shares: Floats, rng: np.random.Generator
) -> None:
    """Move the action units of each clip these shares [clips, frames] of the way to another clip's, in place."""
    other = stills.loc[rng.permutation(stills.index)].reset_index(drop=True)
    frames, share = shares.shape[1], shares.ravel()
    towards = other.loc[np.repeat(other.index, frames)].reset_index(drop=True)
    units = list(AUS)
    table[units] = table[units].mul(1 - share, axis=0) + towards[units].mul(share, axis=0)
    table["expression"] = np.where(share < 0.5, table["expression"], towards["expression"])
