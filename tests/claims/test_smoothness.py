"""The smoothness rule of Figures 5a and 5b, checked by simulation with other random numbers."""

import numpy as np
import pytest
from pandas import DataFrame

from resnet_cli.claims.smoothness import ACCURACY, STEP_SHARE, Curve, curve_of

K = tuple(range(1, 21))
SPREADS = tuple(33.0 if 2 <= k <= 12 else 18.0 for k in K)
"""As in Figure 5a at `cpu`, where the spread is largest for draws of a few units."""
LINE = np.linspace(0, 1, len(K))


def curve(draws: int, means: np.ndarray | None = None, spread: float = 1.0) -> Curve:
    means = 10 + 80 * LINE if means is None else means
    return Curve(K, tuple(means), tuple(spread * s for s in SPREADS), (draws,) * len(K))


def simulated(shape: np.ndarray, draws: int, cases: int = 400) -> np.ndarray:
    """Means of `draws` normal draws around a curve from 10 to 90 %, [cases, k]."""
    generator = np.random.default_rng(7)
    noise = generator.standard_normal((cases, draws, len(K))).mean(axis=1)
    return 10 + 80 * shape + noise * np.array(SPREADS)


def test_where_the_rule_decides_it_accepts_lines_and_rejects_steps_at_any_inner_k() -> None:
    draws = curve(2).draws_needed
    fit = curve(draws)
    assert fit.accuracy >= ACCURACY
    tolerance = 0.03  # of 400 cases
    accepted = (fit.step_shares(simulated(LINE, draws)) <= STEP_SHARE).mean()
    assert accepted >= ACCURACY - tolerance
    for at in range(1, len(K) - 1):
        stepped = LINE / 2 + (np.arange(len(K)) >= at) / 2
        rejected = (fit.step_shares(simulated(stepped, draws)) > STEP_SHARE).mean()
        assert rejected >= ACCURACY - tolerance, f"step at {K[at]}"


def test_ten_draws_are_too_few_for_such_a_spread() -> None:
    assert curve(10).accuracy < ACCURACY
    assert 10 < curve(10).draws_needed < 100
    assert curve(curve(10).draws_needed - 1).accuracy < ACCURACY


@pytest.mark.parametrize(
    ("shape", "smooth"),
    [
        (LINE, True),
        (LINE**2, True),
        (1 - (1 - LINE) ** 3, True),  # as of the chance to hit one of three units
        (LINE / 2 + (np.arange(len(K)) >= 9) / 2, False),
        ((np.arange(len(K)) >= 3).astype(float), False),
    ],
)
def test_the_step_of_known_curves(shape: np.ndarray, smooth: bool) -> None:
    assert (curve(50, 10 + 80 * shape).step_share <= STEP_SHARE) == smooth


def test_a_curve_is_read_from_its_draws() -> None:
    frame = DataFrame({"k": [1, 1, 2, 2, 2], "test_error": [1.0, 3.0, 5.0, 5.0, 8.0]})
    found = curve_of(frame, "k")
    assert found.k == (1.0, 2.0)
    assert found.means == (2.0, 6.0)
    assert found.spreads == pytest.approx((2**0.5, 3**0.5))
    assert found.draws == (2, 3)
    rise, error = found.rise
    assert rise == 4.0
    assert error == pytest.approx((2 / 2 + 3 / 3) ** 0.5)


def test_a_falling_curve_never_decides() -> None:
    assert curve(50, 90 - 80 * LINE).accuracy == 0
