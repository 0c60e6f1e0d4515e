"""Verdicts: measured quantities, the rule that decides on a difference, and claims.

A difference decides if it is at least two standard errors from zero: z = difference / SE with
|z| >= 2. Otherwise it is too close to call.

- Two trained networks: SE^2 = s^2 (1/nA + 1/nB) + v. s is the pooled standard deviation between
  seeds. For a single seed the spread of a final error is assumed, and the verdict says so:
  ASSUMED_SPREAD, proportional to the square root of the error, or ASSUMED_FAILING for a network
  that fails. On fewer than 10,000 test images ASSUMED_SPREAD is multiplied by the square root of
  the ratio, because it comes from images that only some trainings classify correctly. Nothing is
  known about the spread of other quantities, such as damages and losses: there a single seed is too
  few. v is the variance of the difference between the two networks' outcomes for an image, divided
  by the number of images. It needs `correct.npz`; without it v is the least that the two errors
  allow, and the verdict says so.
- One network, intact and changed: the paired variance over images and the spread of the draws.
  Where the draws are judged (Figures 5 and 6), each training is judged on its own, and the claim
  must hold for all; elsewhere the damage is averaged over the trainings, and their spread is added.

A verdict requires that the reference network, the original or the intact one, reached the error
given by `decides_below` of the experiment. Otherwise it was not trained long enough.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from resnet_cli.config.fields import FAILS_ABOVE
from resnet_cli.results.outcomes import paired_variance

if TYPE_CHECKING:
    from resnet_cli.claims.evidence import Evidence

Verdict = Literal[
    "holds",
    "does not hold",
    "too close",
    "too few draws",
    "not trained long enough",
    "not measured",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
JUDGED: tuple[Verdict, ...] = ("holds", "does not hold", "too close")
"""Verdicts that rest on enough training and enough draws."""

DECIDES = 2.0
"""The least |z| at which a difference decides: two standard errors, as usual for 95 %."""
ASSUMED_SPREAD = 0.16
"""In points: the standard deviation of five trainings of ResNet-110 (He et al. 2015,
arXiv:1512.03385, Table 6: 6.61 +- 0.16)."""
ASSUMED_AT = 6.6
"""In percent: the error for which ASSUMED_SPREAD was measured."""
ASSUMED_ON = 10_000
"""The number of test images for which it was measured; on fewer, trainings differ more."""
ASSUMED_FAILING = 20.0
"""In points: the standard deviation of three trainings that fail, with errors of 52.2, 56.9 and
88.9 % (BN after addition, results/he2016/mini/fig6a)."""

ERROR = "%"
TEST_ERROR = "% test error"
"""The unit of a trained network's error."""
FAILED = "% test error, fails"
"""The unit of an error that counts as a failure."""
POINTS = "points"
SHARE = "share"
"""The unit of a share from 0 to 1, which is shown in percent."""


@dataclass(frozen=True)
class Quantity:
    """A measured number."""

    name: str
    value: float
    standard_error: float | None = None
    n: int = 1
    """The number of trainings, draws or units of which it is the median or mean."""
    unit: str = ERROR

    @property
    def z(self) -> float:
        """The value in standard errors; infinite if there is no spread."""
        if math.isnan(self.value) or self.value == 0:
            return 0.0
        if not self.standard_error or not math.isfinite(self.value):
            return math.copysign(math.inf, self.value)
        return self.value / self.standard_error


@dataclass(frozen=True)
class Part:
    """One of the comparisons that a claim rests on."""

    verdict: Verdict
    tested: Quantity | None = None
    """Positive if the claim holds; None if nothing is compared."""
    measured: tuple[Quantity, ...] = ()
    """What `tested` is computed from, or is shown with it."""
    limit: Quantity | None = None
    """What the last of `measured` has to reach, if this decides and not a test."""
    assumed: bool = False
    """Whether the spread between trainings is assumed, not measured."""
    unpaired: bool = False
    """Whether the variance over images is missing, since no outcomes for each image are stored."""
    training: str = ""
    """The training that was measured, `seed 1`, if each of several is judged."""

    @property
    def from_limit(self) -> float:
        """How far the last measurement is from the limit, as a share of the limit."""
        assert self.limit is not None
        return abs(self.measured[-1].value / self.limit.value - 1)


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: data, and the function that judges it."""

    paper: str
    source: str
    """Table, figure or section: `table1`, `fig5a`, `section5`."""
    text: str
    needs: Mapping[str, Sequence[str]]
    """Experiment, without its paper -> the cases that the judge reads; empty: all."""
    judge: Callable[["Evidence"], Sequence[Part]]
    """Takes the measurements of one profile; raises NotMeasuredError if they are missing."""
    published: str = ""
    """What the paper reports, if the claim has a number of its own."""
    short: str = ""
    """A short form for the overview of the report; empty if it is not shown there."""
    is_check: bool = False
    """Whether it holds by construction (arithmetic, an identity): shown as a check, not counted."""


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict at one profile."""

    claim: Claim
    profile: str
    verdict: Verdict
    parts: tuple[Part, ...] = ()
    reason: Quantity | None = None
    """Why the claim does not apply to the measurements; None if it does."""
    commands: tuple[str, ...] = ()
    """The commands that measure what is missing."""
    datasets: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    seeds: tuple[int, int] | None = None
    """The smallest and the largest number of trainings of a network."""

    @property
    def deciding(self) -> Part | None:
        """The comparison that the verdict rests on, of those with this verdict: the closest to its
        limit, or, if none has a limit, the closest test, or else the first with a measurement."""
        found = [part for part in self.parts if part.verdict == self.verdict]
        limited = [(part.from_limit, part) for part in found if part.limit is not None]
        tested = [(abs(part.tested.z), part) for part in found if part.tested is not None]
        if limited or tested:
            return min(limited or tested, key=lambda pair: pair[0])[1]
        return next((part for part in found if part.measured), None)


class NotMeasuredError(Exception):
    """What a claim needs is missing, or the claim does not apply to the measured network."""

    def __init__(self, reason: Quantity | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


def counts(judgements: Iterable[Judgement]) -> dict[Verdict, int]:
    """The number of claims with each verdict, without checks."""
    found = Counter(j.verdict for j in judgements if not j.claim.is_check)
    return {verdict: found[verdict] for verdict in VERDICTS}


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a claim with several parts: it does not hold if one part does not hold; else
    it has the verdict of a part that cannot be decided; it holds if each part holds."""
    found = set(verdicts)
    order: tuple[Verdict, ...] = (
        "does not hold",
        "not trained long enough",
        "not measured",
        "too few draws",
        "too close",
    )
    return next((verdict for verdict in order if verdict in found), "holds")


def decided(tested: Quantity) -> Verdict:
    """The verdict by z alone. If two networks both diverged, there is no difference."""
    if math.isnan(tested.value):
        return "does not hold"
    if abs(tested.z) < DECIDES:
        return "too close"
    return "holds" if tested.value > 0 else "does not hold"


def undertrained(error: Quantity, limit: float) -> Part | None:
    """None if a network's error is at most the limit, in percent; else the part that says that it
    was not trained long enough."""
    if error.value <= limit:
        return None
    return Part("not trained long enough", None, (error,), Quantity("needed to decide", limit))


# --- trainings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """The final test errors of the trainings of one network, or another quantity of each."""

    name: str
    values: Sequence[float]
    """Percent, one for each seed; infinite if the training diverged."""
    outcomes: Sequence[NDArray[np.bool_]] = ()
    """Whether each test image is classified correctly, [images], one for each seed; optional."""
    spread: float | None = None
    """A standard deviation published instead of the single values, in points."""
    images: int = ASSUMED_ON
    """The number of test images."""
    image_variance: float | None = None
    """The variance of the median over images, in squared points, if known without `outcomes`."""
    unit: str = TEST_ERROR
    published_n: int | None = None
    """The number of trainings behind a published median."""
    can_fail: bool = True
    """Whether an error above 20 % is a failure: if there are at most ten classes."""

    @property
    def n(self) -> int:
        """The number of trainings."""
        return self.published_n or len(self.values)

    @property
    def median(self) -> float:
        """Infinite if at least half of the trainings diverged."""
        return statistics.median(self.values)

    @property
    def fails(self) -> bool:
        """Whether the median is above 20 %, as in paper 1."""
        return self.unit == TEST_ERROR and self.can_fail and self.median > FAILS_ABOVE

    @property
    def quantity(self) -> Quantity:
        """The median, with its standard error from the spread of the trainings."""
        between = variances_between([self])
        error = math.sqrt(between.values[0] / self.n) if between is not None else None
        # A published failure has no number; a failure without a number here has diverged.
        is_failure = self.fails and (math.isfinite(self.median) or self.published_n is not None)
        return Quantity(self.name, self.median, error, self.n, FAILED if is_failure else self.unit)

    @property
    def assumed_variance(self) -> float | None:
        """The variance between trainings, in squared points, to be used if it is not measured; None
        if nothing is known about it."""
        if self.unit != TEST_ERROR:
            return None
        if self.fails:
            return ASSUMED_FAILING**2
        images = min(ASSUMED_ON, self.images)
        return ASSUMED_SPREAD**2 * max(self.median, 0.0) / ASSUMED_AT * ASSUMED_ON / images


@dataclass(frozen=True)
class Between:
    """Variances between trainings, in squared points."""

    values: Sequence[float]
    """One for each network."""
    assumed: bool


def variances_between(sides: Sequence[Errors]) -> Between | None:
    """The variance between the trainings of each network, pooled over the networks if it can be
    measured; None if it can neither be measured nor assumed.

    It is also assumed if all errors are equal, as can happen on few images.
    """
    squares, freedom = 0.0, 0
    for side in sides:
        finite = [value for value in side.values if math.isfinite(value)]
        if side.spread is not None:
            squares, freedom = squares + side.spread**2 * (side.n - 1), freedom + side.n - 1
        elif len(finite) > 1:
            squares += statistics.variance(finite) * (len(finite) - 1)
            freedom += len(finite) - 1
    if squares > 0:
        return Between([squares / freedom] * len(sides), False)
    assumed = [variance for side in sides if (variance := side.assumed_variance) is not None]
    return Between(assumed, True) if len(assumed) == len(sides) else None


def variance_of_images(first: Errors, second: Errors) -> float | None:
    """v, in squared points, for the outcomes averaged over seeds; None without outcomes."""
    known = [side.image_variance for side in (first, second)]
    if known[0] is not None and known[1] is not None:
        return known[0] + known[1]
    outcomes = [side.outcomes for side in (first, second)]
    if not all(outcomes) or len({outcome.shape for side in outcomes for outcome in side}) != 1:
        return None
    return paired_variance(*(np.mean(side, axis=0) for side in outcomes))


def least_variance_of_images(first: Errors, second: Errors) -> float:
    """A lower bound of v, in squared points.

    The outcomes of two trainings differ for at least as many images as their errors differ. Nothing
    follows from medians of several trainings.
    """
    apart = abs(first.median - second.median) / 100
    if first.n > 1 or second.n > 1 or first.unit != TEST_ERROR or not apart <= 1:
        return 0.0
    return apart * (1 - apart) / min(first.images, second.images) * 100.0**2


def difference(pairs: Sequence[tuple[Errors, Errors]], name: str = "difference") -> Part:
    """The sum over pairs of (first - second), with its standard error and verdict.

    One pair tests whether the first error is higher. Two pairs, (a, b) and (d, c), test whether
    a - b is larger than c - d.
    """
    value = math.fsum(first.median - second.median for first, second in pairs)
    measured = tuple(side.quantity for pair in pairs for side in pair)
    variance, assumed, unpaired = 0.0, False, False
    for first, second in pairs:
        between = variances_between([first, second])
        if between is not None:
            variance += between.values[0] / first.n + between.values[1] / second.n
            assumed = assumed or between.assumed
        elif math.isfinite(value):
            fewest = Quantity("trainings of each", min(first.n, second.n), unit="")
            needed = Quantity("needed", 2, unit="")
            return Part("too few draws", None, (*measured, fewest), needed)
        of_images = variance_of_images(first, second)
        if of_images is None:
            of_images = least_variance_of_images(first, second)
            unpaired = unpaired or first.unit == TEST_ERROR
        variance += of_images
    total = sum(side.n for side in pairs[0])
    unit = POINTS if pairs[0][0].unit == TEST_ERROR else pairs[0][0].unit
    tested = Quantity(name, value, math.sqrt(variance), total, unit)
    return Part(decided(tested), tested, measured, assumed=assumed, unpaired=unpaired)


def within(first: Errors, second: Errors, points: float, two_sided: bool = True) -> Part:
    """Whether two errors differ by at most `points`; if not two-sided, whether the first exceeds
    the second by at most `points`."""
    part = difference([(first, second)])
    assert part.tested is not None
    apart = abs(part.tested.value) if two_sided else part.tested.value
    name = f"margin below {points:g} points"
    tested = Quantity(name, points - apart, part.tested.standard_error, part.tested.n, POINTS)
    if math.isnan(apart):
        tested = Quantity(name, -math.inf, None, part.tested.n, POINTS)
    return replace(part, verdict=decided(tested), tested=tested)


def against(side: Errors, limit: float, higher: bool = True) -> Part:
    """Whether an error is above a fixed limit, or below it."""
    between = variances_between([side])
    assert between is not None
    share = min(side.median, 100.0) / 100
    of_images = share * (1 - share) / side.images * 100.0**2
    value = side.median - limit if higher else limit - side.median
    name = f"{'above' if higher else 'below'} {limit:g} %"
    error = math.sqrt(between.values[0] / side.n + of_images)
    tested = Quantity(name, value, error, side.n, POINTS)
    return Part(decided(tested), tested, (side.quantity,), assumed=between.assumed)


# --- one network ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """The effect of a change of one network on its error on the same images."""

    error: float
    """The changed network's error, in percent."""
    baseline: float
    """The intact network's error, in percent."""
    variance: float = 0.0
    """The variance of their difference over images, in squared points."""

    @property
    def points(self) -> float:
        """The increase of the error, in points."""
        return self.error - self.baseline


def damage_variance(error: float, baseline: float, agreement: float, images: int) -> float:
    """An upper bound of the variance of a damage over images, in squared points.

    The outcome for an image can only change if the prediction changes. The paired variance (share
    of changed outcomes - damage^2) / images is therefore at most the one with the share of changed
    predictions.

    Args:
        error, baseline, agreement: in percent.
    """
    damage = (error - baseline) / 100
    changed = max(1 - agreement / 100, abs(damage))
    return max(changed - damage**2, 0.0) / images * 100.0**2
