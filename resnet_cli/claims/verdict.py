"""Verdicts: measured quantities, the rule that decides between them, and what a claim is.

A difference decides when it is at least two standard errors away from zero, z = difference / SE
with |z| >= 2; otherwise it is too close.

- Two trainings: SE^2 = s^2 (1/nA + 1/nB) + v. s is the pooled standard deviation of the final
  errors between seeds. A single seed has none: ASSUMED_SPREAD is assumed for it, in proportion to
  the root of the error, and the verdict says so. On fewer than 10,000 test images it is larger, by
  the root of their ratio, since it stems from images that only some trainings classify correctly.
  v is the variance of the difference of the two networks' outcomes on the same images, over their
  number; it needs `correct.npz`, and is zero and reported as missing without it.
- One network, intact and changed: only the images' paired variance and the spread of the draws.

A training decides only if its reference network, the original or the intact one, reached the error
that the experiment's `decides_below` states. Otherwise it was not trained long enough.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

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
"""Verdicts of measurements that could decide."""

DECIDES = 2.0
"""|z| from which a difference decides; two standard errors, as usual for 95 %."""
ASSUMED_SPREAD = 0.16
"""Points: the standard deviation of five trainings of ResNet-110 (He et al. 2015,
arXiv:1512.03385, Table 6: 6.61 +- 0.16)."""
ASSUMED_AT = 6.6
"""Percent: the error to which ASSUMED_SPREAD belongs."""
ASSUMED_ON = 10_000
"""Test images to which it belongs: on fewer, trainings differ by more."""

ERROR = "%"
TEST_ERROR = "% test error"
"""Of a training; above 20 % it is called a failure."""
POINTS = "points"
SHARE = "share"
"""From 0 to 1; shown in percent."""


@dataclass(frozen=True)
class Quantity:
    """A measured number."""

    name: str
    value: float
    standard_error: float | None = None
    n: int = 1
    """Trainings, draws or units that it is the median or mean of."""
    unit: str = ERROR

    @property
    def z(self) -> float:
        """The value in standard errors; infinite without any spread."""
        if math.isnan(self.value) or self.value == 0:
            return 0.0
        if not self.standard_error or not math.isfinite(self.value):
            return math.copysign(math.inf, self.value)
        return self.value / self.standard_error


@dataclass(frozen=True)
class Part:
    """One comparison that a claim rests on."""

    verdict: Verdict
    tested: Quantity | None = None
    """Positive where the claim is right; None where there is no comparison."""
    measured: tuple[Quantity, ...] = ()
    """What `tested` is made of, or is to be shown with it."""
    assumed: bool = False
    """The spread between trainings is assumed, not measured."""
    unpaired: bool = False
    """No outcomes by image were stored: the images' variance is left out."""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: data, and the function that judges it."""

    paper: str
    source: str
    """Table, figure or section: `table1`, `fig5a`, `section5`."""
    text: str
    needs: Mapping[str, Sequence[str]]
    """Experiment, without its paper -> the cases that the judge reads; empty for all."""
    judge: Callable[["Evidence"], Sequence[Part]]
    """Takes the measurements of one profile; raises NotMeasuredError where there are none."""
    published: str = ""
    """What the paper reports, for claims with a number of their own."""
    short: str = ""
    """A few words for the headlines of the report; empty for other claims."""
    is_check: bool = False
    """Arithmetic or an identity by construction: shown as a check, and not counted."""


@dataclass(frozen=True)
class Judgement:
    """A claim at one profile."""

    claim: Claim
    profile: str
    verdict: Verdict
    parts: tuple[Part, ...] = ()
    reason: Quantity | None = None
    """Why it cannot be judged, where something else than a missing table is the reason."""
    commands: tuple[str, ...] = ()
    """What would measure it."""
    datasets: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    seeds: tuple[int, int] | None = None
    """The fewest and the most trainings of a network."""

    @property
    def deciding(self) -> Part | None:
        """The comparison that the verdict rests on: of those with this verdict the closest."""
        found = [p for p in self.parts if p.verdict == self.verdict and p.tested is not None]
        return min(found, key=lambda p: abs(p.tested.z) if p.tested else math.inf, default=None)


class NotMeasuredError(Exception):
    """What a claim needs is not there, or is of a network that it does not speak of."""

    def __init__(self, reason: Quantity | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


def counts(judgements: Iterable[Judgement]) -> dict[Verdict, int]:
    """How many claims have each verdict; checks are left out."""
    found = Counter(j.verdict for j in judgements if not j.claim.is_check)
    return {verdict: found[verdict] for verdict in VERDICTS}


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a claim of several parts: one that contradicts it decides; then what keeps it
    from being decided; it holds if each part does."""
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
    """By z alone; two networks that both diverged differ in nothing."""
    if math.isnan(tested.value):
        return "does not hold"
    if abs(tested.z) < DECIDES:
        return "too close"
    return "holds" if tested.value > 0 else "does not hold"


# --- trainings -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """The final test errors of one network's trainings."""

    name: str
    """In words."""
    values: Sequence[float]
    """Percent, one a seed; infinite for a training that diverged."""
    outcomes: Sequence[NDArray[np.bool_]] = ()
    """Whether each test image is classified correctly, [images], one a seed; may be missing."""
    spread: float | None = None
    """A standard deviation that was published instead of the single values, points."""
    level: float | None = None
    """Percent: the error that the assumed spread belongs to, where `values` are differences."""
    images: int = ASSUMED_ON
    """Test images."""
    image_variance: float | None = None
    """Of the median, by the images, squared points, where it is known without `outcomes`."""
    unit: str = TEST_ERROR
    published_n: int | None = None
    """The number of trainings behind a published median."""

    @property
    def n(self) -> int:
        """Trainings."""
        return self.published_n or len(self.values)

    @property
    def median(self) -> float:
        """Infinite when half of the trainings diverged."""
        return statistics.median(self.values)

    @property
    def quantity(self) -> Quantity:
        """The median, with the standard error that the spread of the trainings gives it."""
        variance, _ = spread_between([self])
        return Quantity(self.name, self.median, math.sqrt(variance / self.n), self.n, self.unit)


def spread_between(sides: Sequence[Errors]) -> tuple[float, bool]:
    """(variance between trainings, whether it is assumed), pooled over networks.

    Equal errors of few images show no spread either, so that it is assumed for them as well.
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
        return squares / freedom, False
    levels = [side.median if side.level is None else side.level for side in sides]
    finite = [level for level in levels if math.isfinite(level)]
    level = statistics.fmean(finite) if finite else 0.0
    images = min(ASSUMED_ON, *(side.images for side in sides))
    return ASSUMED_SPREAD**2 * max(level, 0.0) / ASSUMED_AT * ASSUMED_ON / images, True


def variance_of_images(first: Errors, second: Errors) -> float | None:
    """v, squared points, of the networks' outcomes averaged over their seeds; None without any."""
    known = [side.image_variance for side in (first, second)]
    if known[0] is not None and known[1] is not None:
        return known[0] + known[1]
    outcomes = [side.outcomes for side in (first, second)]
    if not all(outcomes) or len({outcome.shape for side in outcomes for outcome in side}) != 1:
        return None
    return paired_variance(*(np.mean(side, axis=0) for side in outcomes))


def difference(pairs: Sequence[tuple[Errors, Errors]], name: str = "difference") -> Part:
    """The sum over pairs of (first minus second), with its standard error and verdict.

    One pair tests whether the first error is higher; two with the second pair's sides exchanged,
    whether one difference is larger than another.
    """
    value = math.fsum(first.median - second.median for first, second in pairs)
    variance, images, assumed, unpaired = 0.0, 0.0, False, False
    for first, second in pairs:
        between, is_assumed = spread_between([first, second])
        variance += between * (1 / first.n + 1 / second.n)
        of_images = variance_of_images(first, second)
        images += of_images or 0.0
        assumed, unpaired = assumed or is_assumed, unpaired or of_images is None
    total = sum(side.n for side in pairs[0])
    tested = Quantity(name, value, math.sqrt(variance + images), total, POINTS)
    measured = tuple(side.quantity for pair in pairs for side in pair)
    return Part(decided(tested), tested, measured, assumed, unpaired)


def within(first: Errors, second: Errors, points: float, two_sided: bool = True) -> Part:
    """Whether two errors differ by at most `points`; else, whether the first exceeds the second by
    at most that."""
    part = difference([(first, second)])
    assert part.tested is not None
    apart = abs(part.tested.value) if two_sided else part.tested.value
    name = f"room below {points:g} points"
    tested = Quantity(name, points - apart, part.tested.standard_error, part.tested.n, POINTS)
    if math.isnan(apart):
        tested = Quantity(name, -math.inf, None, part.tested.n, POINTS)
    return Part(decided(tested), tested, part.measured, part.assumed, part.unpaired)


def against(side: Errors, limit: float, higher: bool = True) -> Part:
    """Whether an error lies above a fixed limit, or below it."""
    variance, assumed = spread_between([side])
    value = side.median - limit if higher else limit - side.median
    name = f"{'above' if higher else 'below'} {limit:g} %"
    tested = Quantity(name, value, math.sqrt(variance / side.n), side.n, POINTS)
    return Part(decided(tested), tested, (side.quantity,), assumed)


# --- one network ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """What a change of one network does to its error on the same images."""

    error: float
    """Percent, of the changed network."""
    baseline: float
    """Percent, of the intact network."""
    variance: float = field(default=0.0)
    """Of their difference, by the images, squared points."""

    @property
    def points(self) -> float:
        """The rise of the error."""
        return self.error - self.baseline


def damage_variance(error: float, baseline: float, agreement: float, images: int) -> float:
    """The largest variance that a damage can have, by the images, squared points.

    Outcomes on an image can differ only where the two predictions do, so the paired variance
    (share of images with other outcomes - damage^2) / images is at most that of all images whose
    prediction changed. All three are percentages.
    """
    damage = (error - baseline) / 100
    changed = max(1 - agreement / 100, abs(damage))
    return max(changed - damage**2, 0.0) / images * 100.0**2
