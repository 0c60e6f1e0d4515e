"""Shortest intervals that hold a share of a distribution, and rank correlations with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SHARES = (0.5, 0.9, 0.95, 0.99)
"""The shares for which intervals of path lengths are given."""
ALMOST_ONE = 1 - 1e-12
"""Fisher's z of a correlation of 1 is infinite."""


def shortest_interval(
    lengths: Sequence[float], weights: Sequence[float], share: float
) -> tuple[int, int]:
    """The shortest range of path lengths that holds at least `share` of the sum of the weights.

    Of several, the one that holds most, and of these the first.

    Args:
        lengths: in ascending order.
        weights: of the lengths; negative ones and those that are not finite count as zero.
        share: above 0, at most 1.

    Returns:
        (first, last), both included.

    Raises:
        ValueError: no weight is positive.
    """
    held = [w if math.isfinite(w) and w > 0 else 0.0 for w in weights]
    total = math.fsum(held)
    if not total > 0:
        raise ValueError("no weight is positive: there is no interval")
    # The tolerance lets a share of 1 be reached despite rounding.
    enough = (share - 1e-12) * total
    for width in range(1, len(held) + 1):
        sums = [math.fsum(held[i : i + width]) for i in range(len(held) - width + 1)]
        best = max(range(len(sums)), key=sums.__getitem__)
        if sums[best] >= enough:
            return int(lengths[best]), int(lengths[best + width - 1])
    raise AssertionError("unreachable: the whole range holds everything")


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    """Pairs."""

    def __str__(self) -> str:
        return f"{self.value:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, n = {self.n})"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> RankCorrelation | None:
    """Spearman's rank correlation of the finite pairs; None if there are fewer than 4, or if x or y
    does not vary.

    The interval is that of Fisher's z with the standard error sqrt((1 + r^2 / 2) / (n - 3))
    (Bonett and Wright 2000, Psychometrika 65).
    """
    from scipy.stats import norm, spearmanr

    pairs = [pair for pair in zip(x, y, strict=True) if all(map(math.isfinite, pair))]
    if len(pairs) < 4 or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    value = float(spearmanr(pairs).statistic)
    z = math.atanh(max(-ALMOST_ONE, min(ALMOST_ONE, value)))
    margin = float(norm.ppf(0.975)) * math.sqrt((1 + value**2 / 2) / (len(pairs) - 3))
    return RankCorrelation(value, math.tanh(z - margin), math.tanh(z + margin), len(pairs))
