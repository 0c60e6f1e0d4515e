"""Shortest intervals, by hand and against all intervals."""

import math
from collections.abc import Sequence

import pytest
import torch

from resnet_cli.studies.intervals import rank_correlation, shortest_interval


@pytest.mark.parametrize(
    ("weights", "share", "expected"),
    [
        ([0, 1, 5, 3, 1], 0.5, (2, 2)),
        ([0, 1, 5, 3, 1], 0.51, (2, 3)),
        ([0, 1, 5, 3, 1], 0.8, (2, 3)),
        ([0, 1, 5, 3, 1], 0.9, (1, 3)),
        ([0, 1, 5, 3, 1], 1.0, (1, 4)),
        ([1, 1, 4, 0, 4], 0.8, (2, 4)),  # not around the middle
        ([2, 3, 1, 3, 3], 0.5, (3, 4)),  # of the two-long ones that which holds most
        ([3, 1, 3], 0.5, (0, 1)),  # of equal ones the first
        ([0, 0, 7, 0], 0.99, (2, 2)),
        ([1.0], 0.95, (0, 0)),
        ([0.1] * 10, 1.0, (0, 9)),
        ([1, float("nan"), 2, float("inf"), -4], 0.6, (2, 2)),  # no numbers hold nothing
    ],
)
def test_shortest_interval_by_hand(
    weights: Sequence[float], share: float, expected: tuple[int, int]
) -> None:
    assert shortest_interval(range(len(weights)), weights, share) == expected
    lengths = [10 * k + 3 for k in range(len(weights))]  # only some lengths were sampled
    first, last = expected
    assert shortest_interval(lengths, weights, share) == (10 * first + 3, 10 * last + 3)


def test_shortest_interval_against_all_intervals() -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(200):
        weights = torch.randint(0, 9, (7,), generator=generator).tolist()
        share = [0.5, 0.75, 0.9, 1.0][int(torch.randint(4, (1,), generator=generator))]
        total = sum(weights)
        every = [(b - a, -sum(weights[a : b + 1]), a, b) for a in range(7) for b in range(a, 7)]
        enough = [interval for interval in every if -interval[1] >= share * total]
        first, last = shortest_interval(range(7), weights, share)
        assert (last - first, -sum(weights[first : last + 1]), first, last) == min(enough)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [float("nan"), -1.0]])
def test_there_is_no_interval_without_a_weight(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="no weight is positive"):
        shortest_interval(range(len(weights)), weights, 0.5)


@pytest.mark.parametrize(
    ("weights", "share", "interval"),
    [
        ([1, 2, 4, 2, 1], 0.4, (10, 10)),
        ([1, 2, 4, 2, 1], 0.5, (9, 10)),
        ([1, 2, 4, 2, 1], 0.8, (9, 11)),
        ([1, 2, 4, 2, 1], 1.0, (8, 12)),
        ([5, 0, 0, 0, 5], 0.5, (8, 8)),
        ([0, 0, 3, math.nan, 0], 0.99, (10, 10)),
        ([0.1] * 5, 1.0, (8, 12)),
    ],
)
def test_shortest_interval(weights: list[float], share: float, interval: tuple[int, int]) -> None:
    assert shortest_interval([8, 9, 10, 11, 12], weights, share) == interval


def test_no_interval_of_nothing() -> None:
    with pytest.raises(ValueError, match="no weight is positive"):
        shortest_interval([0, 1], [0.0, math.nan], 0.9)


def test_a_rank_correlation_by_hand() -> None:
    found = rank_correlation([1, 2, 3, 4, math.nan], [10, 30, 20, 40, 50])
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(1 - 6 * 2 / (4 * 15)), 4)
    assert found.low < found.value < found.high <= 1
    many = [math.sin(i) for i in range(200)], [math.sin(i) + math.cos(3 * i) for i in range(200)]
    more = rank_correlation(*many)
    assert more is not None
    # The probable error of r in samples of a normal distribution, about (1 - r^2) / sqrt(n).
    assert more.high - more.low == pytest.approx(2 * 1.96 * (1 - more.value**2) / 200**0.5, rel=0.2)


@pytest.mark.parametrize(
    ("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([], [])]
)
def test_what_does_not_vary_has_no_rank_correlation(x: list[float], y: list[float]) -> None:
    assert rank_correlation(x, y) is None
