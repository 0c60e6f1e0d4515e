"""Intervals that hold a stated share of something."""

import math
from collections.abc import Sequence

SHARES = (0.5, 0.9, 0.95, 0.99)
"""The shares for which intervals of path lengths are given."""


def shortest_interval(
    lengths: Sequence[float], weights: Sequence[float], share: float
) -> tuple[int, int]:
    """The shortest run of path lengths that holds at least `share` of the weights' sum.

    Of equally short ones the one that holds most, and of these the first.

    Args:
        lengths: rising.
        weights: as many; those not finite or negative count as zero.
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
    # The sum of all rounds to 1 - 1e-16 or so: the tolerance lets share 1 be met.
    enough = (share - 1e-12) * total
    for width in range(1, len(held) + 1):
        sums = [math.fsum(held[i : i + width]) for i in range(len(held) - width + 1)]
        best = max(range(len(sums)), key=sums.__getitem__)
        if sums[best] >= enough:
            return int(lengths[best]), int(lengths[best + width - 1])
    raise AssertionError("unreachable: the whole range holds everything")
