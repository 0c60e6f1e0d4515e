"""Whether a curve rises smoothly or in one step, by fits over all of its points.

Figures 5a and 5b of paper 2 show the error by the number of deleted or exchanged units, several
draws for each. Two models are fitted by least squares to all draws: a parabola, and a parabola with
one step at an inner k. The step of the best fit, as a share of the whole rise, tells them apart.

Draws scatter, so that the rule is calibrated by simulation at the draws and the spread measured: it
decides only if it accepts a straight line, and rejects a line half of whose rise is one step,
wherever that is, in at least ACCURACY of the cases each. Otherwise there are too few draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

STEP_SHARE = 0.25
"""A step of more than this share of the rise is a step: half-way between none and one half."""
ACCURACY = 0.95
SIMULATIONS = 2000
MAX_DRAWS = 10_000
"""The search for the draws that it takes ends here."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """Draws of an error by k, summarised."""

    k: tuple[float, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    """Standard deviation of the draws of each k."""
    draws: tuple[int, ...]

    @cached_property
    def fits(self) -> list[tuple[Array, Array]]:
        """For each inner k of a step: the design matrix, whose last column is the step, and the
        matrix that takes means to coefficients."""
        position = self._position
        weights = np.array(self.draws, dtype=float)
        found = []
        for at in range(1, len(self.k) - 1):
            step = (np.arange(len(self.k)) >= at).astype(float)
            design = np.stack([np.ones_like(position), position, position**2, step], axis=1)
            weighted = design.T * weights
            found.append((design, np.linalg.pinv(weighted @ design) @ weighted))
        return found

    @property
    def _position(self) -> Array:
        """k from 0 to 1."""
        k = np.array(self.k)
        return (k - k[0]) / (k[-1] - k[0])  # type: ignore[no-any-return]

    def step_shares(self, means: Array) -> Array:
        """The step of the best fit as a share of the rise.

        Args:
            means: [curves, k].

        Returns:
            [curves]; infinite where the fit does not rise.
        """
        weights = np.array(self.draws, dtype=float)
        best = np.full(len(means), np.inf)
        shares = np.full(len(means), np.inf)
        for design, solve in self.fits:
            coefficients = means @ solve.T
            fitted = coefficients @ design.T
            squares = ((means - fitted) ** 2 * weights).sum(axis=1)
            rise = fitted[:, -1] - fitted[:, 0]
            share = np.full(len(means), np.inf)
            np.divide(coefficients[:, -1], rise, out=share, where=rise > 0)
            better = squares < best
            best[better], shares[better] = squares[better], share[better]
        return shares

    @property
    def step_share(self) -> float:
        """Of the measured curve."""
        return float(self.step_shares(np.array([self.means]))[0])

    @property
    def rise(self) -> tuple[float, float]:
        """(rise from the first k to the last, its standard error)."""
        ends = (0, -1)
        error = sum(self.spreads[end] ** 2 / self.draws[end] for end in ends) ** 0.5
        return self.means[-1] - self.means[0], error

    @property
    def accuracy(self) -> float:
        """The share of simulated cases that the rule decides correctly: of straight lines, or of
        the steps that it recognises worst."""
        rise, _ = self.rise
        if rise <= 0:
            return 0.0
        generator = np.random.default_rng(0)
        noise = generator.standard_normal((SIMULATIONS, len(self.k)))
        noise *= np.array(self.spreads) / np.sqrt(self.draws)
        line = self._position
        right = [self.step_shares(self.means[0] + rise * line + noise) <= STEP_SHARE]
        for at in range(1, len(self.k) - 1):
            stepped = line / 2 + (np.arange(len(self.k)) >= at) / 2
            right.append(self.step_shares(self.means[0] + rise * stepped + noise) > STEP_SHARE)
        return float(min(cases.mean() for cases in right))

    @property
    def draws_needed(self) -> int:
        """The fewest draws for each k with which the rule decides; MAX_DRAWS where even those are
        too few."""
        low, high = 2, MAX_DRAWS
        while low < high:
            middle = (low + high) // 2
            if replace(self, draws=(middle,) * len(self.k)).accuracy >= ACCURACY:
                high = middle
            else:
                low = middle + 1
        return low


def curve_of(frame: DataFrame, by: str) -> Curve:
    """The errors of a study's table by the number of units in a column."""
    groups = frame.groupby(by)["test_error"]
    k: Sequence[Any] = sorted(groups.groups)
    return Curve(
        tuple(float(value) for value in k),
        tuple(float(groups.get_group(value).mean()) for value in k),
        tuple(float(groups.get_group(value).std(ddof=1)) for value in k),
        tuple(len(groups.get_group(value)) for value in k),
    )
