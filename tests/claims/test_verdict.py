"""The rule of two standard errors: spreads, images, and several comparisons."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from resnet_cli.claims.verdict import (
    ASSUMED_FAILING,
    ASSUMED_SPREAD,
    Between,
    Claim,
    Errors,
    Judgement,
    Part,
    Quantity,
    Verdict,
    against,
    all_of,
    counts,
    damage_variance,
    decided,
    difference,
    least_variance_of_images,
    variances_between,
    within,
)
from resnet_cli.results.outcomes import paired_variance


def z_of(part: Part) -> float:
    assert part.tested is not None
    return part.tested.z


# --- the spread between trainings ----------------------------------------------------------------


def test_single_seeds_have_the_assumed_spread() -> None:
    part = difference([(Errors("a", [7.6]), Errors("b", [5.6]))])  # 6.6 % in the mean
    assert part.assumed
    of_images = 0.02 * 0.98 / 10_000 * 100**2  # none are stored
    assert z_of(part) == pytest.approx(2.0 / math.sqrt(2 * ASSUMED_SPREAD**2 + of_images))


def test_the_assumed_spread_goes_with_the_root_of_the_error_and_of_the_images() -> None:
    def assumed(error: float, **others: Any) -> float:
        between = variances_between([Errors("a", [error], **others)])
        assert between is not None
        assert between.assumed
        return between.values[0]

    assert assumed(13.2) == pytest.approx(2 * ASSUMED_SPREAD**2)
    assert assumed(26.4, can_fail=False) == pytest.approx(4 * ASSUMED_SPREAD**2)
    assert assumed(6.6, images=2500) == pytest.approx(4 * ASSUMED_SPREAD**2)
    assert assumed(6.6, images=50_000) == pytest.approx(ASSUMED_SPREAD**2)


def test_a_network_that_fails_has_an_assumed_spread_of_its_own() -> None:
    fails, trained = Errors("a", [55.0]), Errors("b", [6.6])
    part = difference([(fails, trained)])
    assert part.assumed
    assert part.tested is not None
    assert part.tested.standard_error == pytest.approx(
        math.sqrt(ASSUMED_FAILING**2 + ASSUMED_SPREAD**2), rel=1e-3
    )
    assert difference([(Errors("c", [40.0]), trained)]).verdict == "too close"
    assert difference([(Errors("d", [90.0]), fails)]).verdict == "too close"


@pytest.mark.parametrize("unit", ["points", "nats"])
def test_the_spread_of_damages_and_losses_is_not_assumed(unit: str) -> None:
    single, several = Errors("a", [80.0], unit=unit), Errors("b", [3.0, 4.0], unit=unit)
    part = difference([(single, Errors("b", [3.0], unit=unit))])
    assert part.verdict == "too few draws"
    assert part.limit == Quantity("needed", 2, unit="")
    assert difference([(single, several)]).verdict == "holds"  # the spread is pooled
    assert difference([(Errors("a", [math.inf], unit=unit), single)]).verdict == "holds"


def test_several_seeds_have_their_own_pooled_spread() -> None:
    sides = [Errors("a", [1.0, 3.0]), Errors("b", [5.0, 5.5, 6.0])]
    between = variances_between(sides)
    variance = (2.0 * 1 + 0.25 * 2) / 3
    assert between == Between([pytest.approx(variance)] * 2, assumed=False)
    part = difference([(sides[1], sides[0])])
    assert part.tested is not None
    assert part.tested.standard_error == pytest.approx(math.sqrt(variance * (1 / 2 + 1 / 3)))


def test_equal_seeds_show_no_spread_so_that_it_is_assumed() -> None:
    between = variances_between([Errors("a", [1.0, 1.0]), Errors("b", [2.0, 2.0])])
    assert between is not None
    assert between.assumed


def test_published_medians_count_as_five() -> None:
    sides = [Errors("a", [6.61], published_n=5), Errors("b", [6.37], published_n=5)]
    level = (6.61 + 6.37) / 2
    spread = ASSUMED_SPREAD * math.sqrt(level / 6.6)
    assert z_of(difference([(sides[0], sides[1])])) == pytest.approx(
        0.24 / (spread * math.sqrt(2 / 5))
    )


def test_a_published_spread_is_taken() -> None:
    sides = [
        Errors("a", [4.92], spread=0.14, published_n=5),
        Errors("b", [4.62], spread=0.20, published_n=5),
    ]
    pooled = math.sqrt((0.14**2 + 0.20**2) / 2)
    part = difference([(sides[0], sides[1])])
    assert not part.assumed
    assert z_of(part) == pytest.approx(0.30 / (pooled * math.sqrt(2 / 5)))


# --- the images ----------------------------------------------------------------------------------


def test_outcomes_on_the_same_images_are_paired() -> None:
    generator = np.random.default_rng(0)
    first = generator.random(1000) > 0.1
    second = first ^ (generator.random(1000) > 0.97)
    sides = [
        Errors("a", [100 * float((~outcome).mean())], (outcome,)) for outcome in (first, second)
    ]
    part = difference([(sides[0], sides[1])])
    between = variances_between(sides)
    assert between is not None
    assert not part.unpaired
    assert part.tested is not None
    assert part.tested.standard_error == pytest.approx(
        math.sqrt(sum(between.values) + paired_variance(first, second))
    )


def test_without_outcomes_the_verdict_says_so() -> None:
    assert difference([(Errors("a", [2.0]), Errors("b", [1.0]))]).unpaired


def test_without_outcomes_the_variance_over_images_is_the_least_possible() -> None:
    """That of nested outcomes: the better network is right wherever the other one is."""
    images = 360
    errors = (10, 4)
    nested = [np.arange(images) >= count for count in errors]
    sides = [Errors("a", [100 * count / images], images=images) for count in errors]
    least = least_variance_of_images(sides[0], sides[1])
    assert least == pytest.approx(paired_variance(*nested), rel=2 / images)
    assert difference([(sides[0], sides[1])]).verdict == "too close"
    medians = [replace(side, published_n=5) for side in sides]
    assert least_variance_of_images(medians[0], medians[1]) == 0


def test_the_variance_of_a_damage_is_never_below_the_paired_one() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(10, size=2000)
    intact = np.where(generator.random(2000) > 0.1, labels, generator.integers(10, size=2000))
    changed = np.where(generator.random(2000) > 0.3, intact, generator.integers(10, size=2000))
    errors = [100 * float((predicted != labels).mean()) for predicted in (changed, intact)]
    agreement = 100 * float((intact == changed).mean())
    bound = damage_variance(errors[0], errors[1], agreement, 2000)
    exact = paired_variance(intact == labels, changed == labels)
    assert exact <= bound * (1 + 1e-3)
    assert bound < 2 * exact


# --- what decides --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (2.0, 1.0, "holds"),
        (1.9, 1.0, "too close"),
        (-1.9, 1.0, "too close"),
        (-2.0, 1.0, "does not hold"),
        (0.0, None, "too close"),
        (math.inf, 1.0, "holds"),
        (math.nan, 1.0, "does not hold"),
    ],
)
def test_two_standard_errors_decide(value: float, error: float | None, verdict: Verdict) -> None:
    assert decided(Quantity("difference", value, error)) == verdict


def test_a_divergence_is_worse_than_any_error() -> None:
    diverged, fine = Errors("a", [math.inf]), Errors("b", [5.0])
    assert difference([(diverged, fine)]).verdict == "holds"
    assert difference([(fine, diverged)]).verdict == "does not hold"
    assert difference([(diverged, diverged)]).verdict == "does not hold"


@pytest.mark.parametrize(
    ("first", "second", "two_sided", "verdict"),
    [
        (6.0, 6.05, True, "holds"),
        (6.0, 6.30, True, "does not hold"),
        (6.0, 6.17, True, "too close"),
        (5.0, 6.0, True, "does not hold"),
        (5.0, 6.0, False, "holds"),  # better is within, unless the two should be the same
        (math.inf, 6.0, False, "does not hold"),
        (math.inf, math.inf, False, "does not hold"),
    ],
)
def test_within(first: float, second: float, two_sided: bool, verdict: Verdict) -> None:
    sides = [Errors(name, [value], published_n=40) for name, value in (("a", first), ("b", second))]
    assert within(sides[0], sides[1], 0.2, two_sided).verdict == verdict


@pytest.mark.parametrize(
    ("error", "higher", "verdict"),
    [
        (89.0, True, "holds"),
        (50.0, True, "too close"),
        (19.9, False, "too close"),
        (15.0, False, "holds"),
        (math.inf, True, "holds"),
    ],
)
def test_against_a_limit(error: float, higher: bool, verdict: Verdict) -> None:
    assert against(Errors("a", [error]), 20.0, higher).verdict == verdict


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "too close"], "too close"),
        (["too few draws", "too close"], "too few draws"),
        (["holds", "not measured", "too close"], "not measured"),
        (["not trained long enough", "not measured"], "not trained long enough"),
        (["too close", "does not hold", "not measured", "holds"], "does not hold"),
    ],
)
def test_what_several_comparisons_make(verdicts: list[Verdict], whole: Verdict) -> None:
    assert all_of(verdicts) == whole


def test_an_error_near_a_limit_is_too_close_on_few_images() -> None:
    assert against(Errors("a", [17.0]), 20.0, higher=False).verdict == "holds"
    assert against(Errors("a", [17.0], images=100), 20.0, higher=False).verdict == "too close"


def judgement(verdict: Verdict, is_check: bool = False, parts: tuple[Part, ...] = ()) -> Judgement:
    claim = Claim("he2016", "table1", "a claim", {}, lambda _: [], is_check=is_check)
    return Judgement(claim, "mini", verdict, parts)


def test_checks_are_not_counted() -> None:
    found = counts([judgement("holds"), judgement("holds", is_check=True), judgement("too close")])
    assert {verdict: n for verdict, n in found.items() if n} == {"holds": 1, "too close": 1}


def test_the_closest_comparison_decides() -> None:
    far, near, other = (
        Part(verdict, Quantity(name, value, 1.0))
        for name, value, verdict in (
            ("far", 9.0, "holds"),
            ("near", 3.0, "holds"),
            ("other", 1.0, "too close"),
        )
    )
    found = judgement("holds", parts=(far, near, other)).deciding
    assert found is not None
    assert found.tested is not None
    assert found.tested.name == "near"


def test_a_limit_decides_before_a_test() -> None:
    test = Part("holds", Quantity("rise", 3.0, 1.0))
    far, near = (
        Part("holds", None, (Quantity("step", value),), Quantity("allowed", 25.0))
        for value in (5.0, 20.0)
    )
    assert judgement("holds", parts=(test, far, near)).deciding == near
