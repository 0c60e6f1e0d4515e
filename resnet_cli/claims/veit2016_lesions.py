"""The judges of paper 2's claims on lesions: Figures 3, 4, 5 and 8.

Each threshold is given with its reason. No claim about damage is judged on a network that was not
trained long enough, whose error can hardly increase.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from statistics import fmean, variance

import numpy as np
from pandas import DataFrame

from resnet_cli.claims.evidence import Evidence, StudyTable
from resnet_cli.claims.smoothness import ACCURACY, STEP_SHARE, curve_of
from resnet_cli.claims.veit2016_numbers import CHANCE, for_each_training, undertrained_network
from resnet_cli.claims.verdict import (
    ERROR,
    POINTS,
    SHARE,
    Damage,
    Errors,
    NotMeasuredError,
    Part,
    Quantity,
    Verdict,
    damage_variance,
    decided,
    difference,
)
from resnet_cli.models.resnet import make_places

NEAR_CHANCE = 0.8
"""An error is at chance level if it is at least this share of the error of guessing. The paper's
figure shows about 90 % without numbers; a network without one layer may still do slightly better
than guessing."""
BARELY = 1.0
"""In points: the error "barely changes" if a typical deletion raises it by at most this. The
paper's baseline is 6.1 %; it gives no number for the increase."""
MODEST = 0.5
"""The damage at a unit that downsamples is "modest" if the error is below this share of that of
guessing. The paper gives no number; the peaks in its figure are well below it."""


def _downsampling(table: StudyTable) -> list[int]:
    """The units that downsample."""
    return [place.index for place in make_places(table.model) if place.stride != 1]


# --- Figures 3, 4 and 8: one unit deleted --------------------------------------------------------


Damages = Mapping[int, Damage]
"""The damage of each single deletion, by unit."""


def single_damages(frame: DataFrame) -> dict[int, Damage]:
    """The damage of each single deletion of one training, by unit.

    Args:
        frame: rows of lesion_delete.csv.

    Raises:
        NotMeasuredError: there is no single deletion.
    """
    single = frame[frame["k"] == 1]
    if single.empty:
        raise NotMeasuredError
    found = {}
    for row in single.to_dict("records"):
        error, baseline = float(row["test_error"]), float(row["baseline_error"])
        variance = damage_variance(error, baseline, float(row["agreement"]), int(row["images"]))
        found[int(row["blocks"])] = Damage(error, baseline, variance)
    return found


def _single(tables: Iterable[StudyTable]) -> list[dict[int, Damage]]:
    return [single_damages(table.frame) for table in tables]


def mean_of(damages: Sequence[Damage]) -> Damage:
    """The mean damage. The images are the same, so its variance over images is at most that of
    fully correlated outcomes."""
    return Damage(
        fmean(damage.error for damage in damages),
        fmean(damage.baseline for damage in damages),
        fmean(math.sqrt(damage.variance) for damage in damages) ** 2,
    )


def over_trainings(trainings: Sequence[Damages], of: Callable[[Damages], Damage]) -> Damage:
    """A damage of each training, averaged; the variance between trainings is added to that over
    images."""
    found = [of(damages) for damages in trainings]
    mean = mean_of(found)
    between = variance(damage.points for damage in found) / len(found) if len(found) > 1 else 0.0
    return replace(mean, variance=mean.variance + between)


def _each_unit(trainings: Sequence[Damages]) -> dict[int, Damage]:
    """The damage of each single deletion over trainings."""
    return {unit: over_trainings(trainings, itemgetter(unit)) for unit in trainings[0]}


def _middle(damages: Iterable[Damage]) -> Damage:
    """The damage of the median unit; of an even number, the mean of the two in the middle."""
    ordered = sorted(damages, key=lambda damage: damage.points)
    return mean_of(ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1])


def _rise(name: str, damage: Damage, n: int = 1) -> Quantity:
    return Quantity(name, damage.points, math.sqrt(damage.variance), n, POINTS)


def _room(name: str, damage: Damage, limit: float, n: int) -> Quantity:
    """How far a damage is below a limit, in points."""
    return Quantity(name, limit - damage.points, math.sqrt(damage.variance), n, POINTS)


def vgg_falls(evidence: Evidence) -> list[Part]:
    """Whether deleting even the least harmful layer brings the error to chance level."""
    tables = evidence.tables("fig3", "lesion_delete", "vgg15")
    if short := undertrained_network(evidence, "fig3", tables):
        return [short]
    damages = _each_unit(_single(tables))
    least = min(damages.values(), key=lambda damage: damage.error)
    limit = NEAR_CHANCE * CHANCE
    name = f"above {limit:g} %"
    tested = Quantity(name, least.error - limit, math.sqrt(least.variance), unit=POINTS)
    measured = (
        Quantity("intact", least.baseline, n=len(tables)),
        Quantity("lowest", least.error, n=len(damages)),
        Quantity("median", float(np.median([d.error for d in damages.values()])), n=len(damages)),
    )
    return [Part(decided(tested), tested, measured)]


def survives(experiment: str, case: str) -> Callable[[Evidence], list[Part]]:
    """Whether deleting the median unit barely changes the error."""

    def judge(evidence: Evidence) -> list[Part]:
        tables = evidence.tables(experiment, "lesion_delete", case)
        if short := undertrained_network(evidence, experiment, tables):
            return [short]
        return barely_changes(_single(tables))

    return judge


def barely_changes(trainings: Sequence[Damages]) -> list[Part]:
    """Whether the median damage is below BARELY."""
    damages = _each_unit(trainings)
    middle = over_trainings(trainings, lambda of_one: _middle(of_one.values()))
    tested = _room(f"median below {BARELY:g} point", middle, BARELY, len(damages))
    worst = max(damages, key=lambda unit: damages[unit].points)
    more = sum(damage.points > BARELY for damage in damages.values())
    measured = (
        Quantity("intact", middle.baseline, n=len(trainings)),
        _rise("median rise", middle, len(damages)),
        _rise(f"largest rise, unit {worst}", damages[worst]),
        Quantity(f"units above {BARELY:g} point", more, n=len(damages), unit=""),
    )
    return [Part(decided(tested), tested, measured)]


def downsampling_matters(evidence: Evidence) -> list[Part]:
    """Whether each unit that downsamples does more damage than all other units."""
    tables = evidence.tables("fig3", "lesion_delete", "preact110")
    if short := undertrained_network(evidence, "fig3", tables):
        return [short]
    return changes_matter(_single(tables), _downsampling(tables[0]))


def changes_matter(trainings: Sequence[Damages], changes: Sequence[int]) -> list[Part]:
    """Whether each of some units does more damage than the most harmful other unit.

    Unit 0 counts as one of the others: the paper only excepts the units that downsample, because
    they change the representation.

    Raises:
        NotMeasuredError: there are no such units, or no others.
    """
    damages = _each_unit(trainings)
    if not changes or len(changes) == len(damages):
        raise NotMeasuredError
    worst = max(set(damages) - set(changes), key=lambda unit: damages[unit].points)
    parts = []
    for unit in changes:
        apart = over_trainings(trainings, partial(_apart, unit, worst))
        tested = _rise("difference", apart, len(trainings))
        measured = (
            _rise(f"unit {unit}", damages[unit]),
            _rise(f"unit {worst}, the worst other", damages[worst]),
        )
        parts.append(Part(decided(tested), tested, measured))
    return parts


def _apart(unit: int, other: int, damages: Damages) -> Damage:
    """The effect of deleting one unit compared with deleting another one."""
    first, second = damages[unit], damages[other]
    return Damage(first.error, second.error, first.variance + second.variance)


def downsampling_is_modest(evidence: Evidence) -> list[Part]:
    """Whether the error without each unit that downsamples is below MODEST of that of guessing."""
    tables = evidence.tables("fig3", "lesion_delete", "preact110")
    if short := undertrained_network(evidence, "fig3", tables):
        return [short]
    damages, limit = _each_unit(_single(tables)), MODEST * CHANCE
    parts = []
    for unit in _downsampling(tables[0]):
        damage = damages[unit]
        name = f"below {limit:g} %"
        tested = Quantity(name, limit - damage.error, math.sqrt(damage.variance), unit=POINTS)
        measured = (Quantity(f"error without unit {unit}", damage.error, unit=ERROR),)
        parts.append(Part(decided(tested), tested, measured))
    return parts


def more_resilient(
    title: str, damage_of: Callable[[Damages, list[int]], Damage]
) -> Callable[[Evidence], list[Part]]:
    """Whether a damage is larger after plain training than after stochastic depth, compared between
    trainings."""

    def judge(evidence: Evidence) -> list[Part]:
        sides = []
        for case, name in (("plain", "plain"), ("stochastic-depth", "stochastic depth")):
            tables = evidence.tables("fig8", "lesion_delete", case)
            if case == "plain" and (short := undertrained_network(evidence, "fig8", tables)):
                return [short]
            found = [damage_of(single_damages(t.frame), _downsampling(t)) for t in tables]
            points = [damage.points for damage in found]
            by_images = mean_of(found).variance
            sides.append(Errors(name, points, image_variance=by_images, unit=POINTS))
        return [difference([(sides[0], sides[1])], f"{title}, difference")]

    return judge


def _others(damages: Damages, changes: list[int]) -> Damage:
    """The median of the units that do not downsample."""
    return _middle(damage for unit, damage in damages.items() if unit not in changes)


def resilient(evidence: Evidence) -> list[Part]:
    """Compare the mean over all units, and the median over those that do not downsample: the mean
    is dominated by a few units that the claim is not about."""
    of_all = more_resilient("mean of all units", lambda damages, _: mean_of([*damages.values()]))
    of_others = more_resilient("median of those that do not downsample", _others)
    return [*of_all(evidence), *of_others(evidence)]


# --- Figure 5: many units ------------------------------------------------------------------------


def rises_smoothly(experiment: str, stem: str, by: str) -> Callable[[Evidence], list[Part]]:
    """Whether the error rises with the number of changed units, without a step."""

    def judge(evidence: Evidence) -> list[Part]:
        tables = evidence.tables(experiment, stem)
        if short := undertrained_network(evidence, experiment, tables):
            return [short]
        return for_each_training(tables, lambda table: smooth_rise(table.frame, by))

    return judge


def smooth_rise(frame: DataFrame, by: str) -> list[Part]:
    """Whether the error rises with the number in a column, without a step.

    Raises:
        NotMeasuredError: the column has fewer than five different numbers.
    """
    curve = curve_of(frame, by)
    if len(curve.k) < 5:
        raise NotMeasuredError
    draws = Quantity("draws for each number", min(curve.draws), unit="")
    if min(curve.draws) < 2:
        return [Part("too few draws", None, (draws,), Quantity("needed", 2, unit=""))]
    rise = Quantity("rise", *curve.rise, n=sum(curve.draws), unit=POINTS)
    ends = [f"mean at {k:g}" for k in (curve.k[0], curve.k[-1])]
    measured = (
        Quantity(ends[0], curve.means[0], n=curve.draws[0]),
        Quantity(ends[1], curve.means[-1], n=curve.draws[-1]),
    )
    grows = Part(decided(rise), rise, measured)
    if grows.verdict != "holds":
        return [grows]
    if curve.accuracy < ACCURACY:
        needed = Quantity("needed", curve.draws_needed, unit="")
        return [grows, Part("too few draws", None, (draws,), needed)]
    step = Quantity("largest step relative to the rise", curve.step_share, unit=SHARE)
    verdict: Verdict = "holds" if step.value <= STEP_SHARE else "does not hold"
    return [grows, Part(verdict, None, (step,), Quantity("allowed", STEP_SHARE, unit=SHARE))]
