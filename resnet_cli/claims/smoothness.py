"""Whether a curve rises smoothly or in a step, by fits to all of its points.

Figures 5a and 5b of paper 2 show the error by the number k of deleted or swapped units, with
several draws for each k. A parabola with a step at an inner k is fitted to all draws by least
squares, for each position of the step. The step of the best fit, as a share of the whole rise,
decides.

The draws are random, so the rule is tested by simulation with the measured number and spread of
draws. It is only used if it is right in at least ACCURACY of the cases, both for a straight line
and for a line with half of its rise in one step at any position. Otherwise there are too few draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame

STEP_SHARE = 0.25
"""The curve has a step if its share of the rise is above this, halfway between 0 and one half."""
ACCURACY = 0.95
SIMULATIONS = 2000
MAX_DRAWS = 10_000
"""Upper limit of the search for the required number of draws."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """The draws of an error, summarised for each k."""

    k: tuple[float, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    """Standard deviation of the draws for each k."""
    draws: tuple[int, ...]

    @cached_property
    def fits(self) -> list[tuple[Array, Array]]:
        """For each position of the step: the design matrix, whose last column is the step, and the
        matrix that maps means to coefficients."""
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
        """k, scaled to 0 to 1."""
        k = np.array(self.k)
        return (k - k[0]) / (k[-1] - k[0])  # type: ignore[no-any-return]

    def step_shares(self, means: Array) -> Array:
        """The step of the best fit as a share of the rise, for several curves.

        Args:
            means: [curves, k].

        Returns:
            [curves]; infinite if the fit does not rise.
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
        """The step of the measured curve as a share of its rise."""
        return float(self.step_shares(np.array([self.means]))[0])

    @property
    def rise(self) -> tuple[float, float]:
        """(rise from the first k to the last, its standard error)."""
        ends = (0, -1)
        error = sum(self.spreads[end] ** 2 / self.draws[end] for end in ends) ** 0.5
        return self.means[-1] - self.means[0], error

    @property
    def accuracy(self) -> float:
        """The share of simulated curves that the rule decides correctly: the lowest of that for
        straight lines and those for each position of a step."""
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
        """The smallest number of draws for each k with which the rule can be used; MAX_DRAWS if
        even they are too few."""
        low, high = 2, MAX_DRAWS
        while low < high:
            middle = (low + high) // 2
            if replace(self, draws=(middle,) * len(self.k)).accuracy >= ACCURACY:
                high = middle
            else:
                low = middle + 1
        return low


def curve_of(frame: DataFrame, by: str) -> Curve:
    """The errors in a study's table by the number of units in a column."""
    groups = frame.groupby(by)["test_error"]
    k: Sequence[Any] = sorted(groups.groups)
    return Curve(
        tuple(float(value) for value in k),
        tuple(float(groups.get_group(value).mean()) for value in k),
        tuple(float(groups.get_group(value).std(ddof=1)) for value in k),
        tuple(len(groups.get_group(value)) for value in k),
    )
