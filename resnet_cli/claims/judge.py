"""A paper's claim set against what was measured: a verdict with the figures behind it.

When a difference is too close to call. A verdict must not come from noise, so two errors are told
apart only when they lie at least STANDARD_ERRORS standard errors of their difference apart, by the
larger of two:

- of the test images: an error is a share of finitely many images, so its variance is binomial. The
  errors are taken as independent. Of networks tested on the same images they are not, and the true
  standard error is smaller: the rule errs on the side of `too close`.
- of the trainings: the variance of their errors over their number. A single training has no spread
  of its own; SPREAD is assumed for it, at the published protocol PAPER_SPREAD. For two single
  trainings of a short schedule that makes 2.0 points, for two at the published protocol 0.6.

What compares one network with itself, whole and without a unit, has the images' part alone.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Verdict = Literal["holds", "does not hold", "too close", "not measured"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "too close", "not measured")

STANDARD_ERRORS = 2.0
"""As usual for 95 %."""
SPREAD = 0.7
"""Points: the standard deviation assumed of a single training in a short schedule. Of three seeds
each of ours at `mini` deviate by 0.16, 0.42 and 0.58 points (veit2016 effective_paths and fig8,
errors of 0.6 to 2.6 %). A training caught amid its fall varies more (23 active units: 1.1, 11.1 and
10.0 %), which a single seed does not show: that remains a caveat."""
PAPER_SPREAD = 0.22
"""The largest standard deviation that paper 1 publishes of five runs: 0.14, 0.20 and 0.22 points at
errors of 4.9, 4.7 and 22.7 % (Table 4)."""
FINE_ENOUGH = 1.0
"""Points: errors count as equal only where a difference of no more than this would be seen. The
10,000 test images of CIFAR-10 show 0.7 at the papers' errors, the 360 of digits 1.5 and more."""


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, judged at one profile. Nothing is rounded in its favour."""

    paper: str
    source: str
    """Table, figure or section: `table1`, `fig5a`, `section4.3`."""
    text: str
    """The claim in a sentence, the same at every profile."""
    verdict: Verdict
    evidence: str
    """The measured figures that decide, with their numbers of seeds and samples; for `not
    measured`, the command that would measure it."""
    caveat: str = ""
    """What the profile cannot show, for example a short schedule or other data."""
    headline: bool = False
    """One of the few claims that the paper stands for; these have numbers."""
    published: str = ""
    """A headline's figures as the paper has them."""
    ours: str = ""
    """A headline's figures as measured, in the same form; empty when nothing was."""
    dataset: str = ""
    """What was measured on; empty when nothing was, or no data were needed."""
    seeds: str = ""
    """How many trainings decide: `1 seed`, `3 seeds each`; empty likewise."""
    by_formula: bool = False
    """Arithmetic, not a measurement: it is shown, and not counted."""


def counts(claims: Iterable[Claim]) -> dict[Verdict, int]:
    """How many claims have each verdict, those by formula left out."""
    found = Counter(claim.verdict for claim in claims if not claim.by_formula)
    return {verdict: found[verdict] for verdict in VERDICTS}


# --- judging -------------------------------------------------------------------------------------


class Side(Protocol):
    """One side of a comparison."""

    @property
    def errors(self) -> Sequence[float]:
        """Percent, one a training; infinite for one that diverged."""

    @property
    def images(self) -> int | None:
        """Test images; None where nobody tells, and their part is then left out."""


@dataclass(frozen=True)
class Errors:
    """A side by itself."""

    errors: Sequence[float]
    images: int | None


def spread_at(profile: str) -> float:
    """The standard deviation assumed of a single training at a profile, points."""
    return PAPER_SPREAD if profile == "paper" else SPREAD


def margin(*sides: Side, spread: float) -> float:
    """The difference, points, below which the medians of these sides are too close to call.

    Two sides for a difference, one for the distance from a fixed mark, four for a difference of
    differences.

    Args:
        spread: standard deviation assumed of a single training, `spread_at(profile)`; 0 where all
            sides are of one network.
    """
    of_images = sum(_variance_of_images(side) for side in sides)
    of_trainings = sum(_variance_of_trainings(side, spread) for side in sides)
    return STANDARD_ERRORS * math.sqrt(max(of_images, of_trainings))


def _variance_of_images(side: Side) -> float:
    """Binomial, with one wrong and one right image more (Agresti and Caffo 2000, The American
    Statistician 54), since an error of 0 % would have none."""
    error = statistics.median(side.errors)
    if side.images is None or not math.isfinite(error):
        return 0.0
    wrong = max(0.0, error / 100 * side.images)
    share = min(1.0, (wrong + 1) / (side.images + 2))
    return 100**2 * share * (1 - share) / side.images


def _variance_of_trainings(side: Side, spread: float) -> float:
    finite = [error for error in side.errors if math.isfinite(error)]
    if len(finite) < 2 or not spread:
        return spread**2
    return statistics.variance(finite) / len(finite)


def above(difference: float, least: float) -> Verdict:
    """Whether something is greater, by a measured difference and its margin.

    Where both sides diverged the difference is NaN, and nothing is greater.
    """
    if math.isnan(difference):
        return "does not hold"
    if difference == 0 or abs(difference) < least:
        return "too close"
    return "holds" if difference > 0 else "does not hold"


def at_most(difference: float, limit: float, least: float) -> Verdict:
    """Whether something exceeds another by no more than `limit`, by the difference and its margin.

    A coarse measurement can refute it but not show it: see FINE_ENOUGH.
    """
    if math.isnan(difference) or difference - limit >= max(least, 1e-12):
        return "does not hold"
    return "holds" if difference <= limit and least <= FINE_ENOUGH else "too close"


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim that several comparisons make up: it does not hold if one contradicts it, whatever
    is missing; it is too close if some are and none contradicts."""
    found = set(verdicts)
    order: tuple[Verdict, ...] = ("does not hold", "not measured", "too close")
    return next((verdict for verdict in order if verdict in found), "holds")


def legend(profile: str) -> str:
    """What `too close` means, for those who read the verdicts."""
    return (
        f"TOO CLOSE means: the errors differ by less than {STANDARD_ERRORS:g} standard errors of "
        "their difference, of the test images (binomial, taken as independent) or of the trainings "
        f"(for a single one a deviation of {spread_at(profile):g} points is assumed)"
    )
