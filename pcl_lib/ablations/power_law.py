"""Power laws with a floor: how an error falls with people, images, iterations and width, and with what certainty.

    error = floor + sum over axes k of gain_k * (x_k / reference_k) ** -exponent_k

The form, whose terms add, is that of Hoffmann et al. 2022 (arXiv 2203.15556, approach 3). Floor and gains are a linear
least-squares problem once the exponents are known, so that only the exponents are searched for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pcl_lib.utils import BadInput

Floats = NDArray[np.float64]
EXPONENTS = (0.05, 3.0)  # the range they are searched in: a smaller one is hardly a law, a larger one a step
STARTS = (0.15, 0.5, 1.5)
REPLICATES = 200


@dataclass(frozen=True)
class PowerLaw:
    """A law of one quantity: floor, and for each of k axes its gain (in the quantity's units), exponent, reference."""

    floor: float
    gains: Floats
    exponents: Floats
    references: Floats

    def __call__(self, x: Floats) -> Floats:
        """The quantity at points x [n, k]: [n]."""
        return np.asarray(self.floor + (x / self.references) ** -self.exponents @ self.gains)


@dataclass(frozen=True)
class Fit:
    """The law that fits best, laws of resampled residuals, and the residuals' standard deviation."""

    law: PowerLaw
    replicates: tuple[PowerLaw, ...]
    spread: float

    def interval(self, values: Floats) -> tuple[float, float]:
        """The middle 95% of a number that each of the replicates has: values [REPLICATES]."""
        low, high = np.quantile(values, (0.025, 0.975))
        return float(low), float(high)

    def exponents(self) -> Floats:
        """Those of the replicates: [REPLICATES, k]."""
        return np.stack([law.exponents for law in self.replicates])

    def change(self, start: Floats, end: Floats) -> tuple[float, float, float]:
        """By how much the quantity changes from one point [k] to another, with a 95% interval."""
        laws = (self.law, *self.replicates)
        changes = np.array([np.diff(law(np.stack([start, end])))[0] for law in laws])
        return float(changes[0]), *self.interval(changes[1:])

    def at(self, point: Floats) -> tuple[float, float, float]:
        """The quantity at a point [k], with a 95% interval."""
        found = np.array([law(point[None])[0] for law in (self.law, *self.replicates)])
        return float(found[0]), *self.interval(found[1:])


def fit(x: Floats, y: Floats, seed: int = 0) -> Fit:
    """Fit a power law by least squares, and again to `REPLICATES` resamplings of its residuals.

    x: [n, k] positive, k axes with two values or more each; y: [n]. The floor is at least 0; gains have any sign, since
    a quantity may also rise. Residuals are enlarged by the degrees of freedom that the fit took (n over n - 1 - 2k).
    The intervals know the noise between trainings; what all of them share, such as their test people, is not in them.
    Raises BadInput where values are missing or not positive, an axis has one value, or there are no more points than
    unknowns. Source of the intervals: Efron and Tibshirani 1993, chapter 9.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    unknowns = 1 + 2 * x.shape[1]
    if len(x) <= unknowns:
        raise BadInput(f"a power law of {x.shape[1]} axes needs more than {unknowns} trainings, not {len(x)}")
    if not (np.isfinite(y).all() and np.isfinite(x).all() and (x > 0).all()):
        raise BadInput("a power law needs finite values at sizes above 0")
    if (np.ptp(x, axis=0) == 0).any():
        raise BadInput("a power law needs at least two sizes of each axis")
    references = np.exp(np.log(x).mean(0))
    law = _best(x, y, references, list(product(STARTS, repeat=x.shape[1])))
    residuals = (y - law(x)) * np.sqrt(len(y) / (len(y) - unknowns))
    rng, replicates = np.random.default_rng(seed), []
    for _ in range(REPLICATES):
        again = law(x) + rng.choice(residuals, len(y))
        replicates.append(_best(x, again, references, [tuple(law.exponents)]))
    return Fit(law, tuple(replicates), float(np.sqrt(np.mean(residuals**2))))


def _best(x: Floats, y: Floats, references: Floats, starts: list[tuple[float, ...]]) -> PowerLaw:
    """The law of least squares; the search begins at the best of `starts`."""
    logs = np.log(x / references)

    def residuals(log_exponents: Floats) -> Floats:
        return _linear(logs, y, np.exp(log_exponents))[1]

    low, high = np.log(EXPONENTS)
    first = min(starts, key=lambda start: float(np.sum(residuals(np.log(start)) ** 2)))
    begin = np.clip(np.log(first), low + 1e-6, high - 1e-6)
    exponents = np.exp(least_squares(residuals, begin, bounds=(low, high)).x)
    (floor, *gains), _ = _linear(logs, y, exponents)
    return PowerLaw(float(floor), np.array(gains), exponents, references)


def _linear(logs: Floats, y: Floats, exponents: Floats) -> tuple[Floats, Floats]:
    """Floor (0 or more) and gains [1 + k] of least squares for given exponents, and the residuals [n]."""
    columns = np.exp(-exponents * logs)
    design = np.column_stack([np.ones(len(y)), columns])
    found = np.linalg.lstsq(design, y, rcond=None)[0]
    if found[0] < 0:
        found = np.concatenate([[0.0], np.linalg.lstsq(columns, y, rcond=None)[0]])
    return found, design @ found - y
