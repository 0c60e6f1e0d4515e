"""Which findings of paper 2 hold for one network, from the tables of an examination.

The rules are those of the paper's claims on one network; they need no published number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pandas import DataFrame, Series
from scipy import stats

from resnet_cli.models.units import Place
from resnet_cli.studies.intervals import shortest_interval

BARELY = 1.0
"""Points: a deletion that raises the error by no more barely changes it."""
RISING = 0.9
"""Spearman correlation from which the error counts as rising with the number of units."""
EXPONENTIAL = 0.9
"""Share of the variance of the log norms that a straight line must explain."""
ALMOST_ALL = 0.95

FEWEST_DRAWS = 10
"""Draws for each number of units with which a median is worth a verdict."""

Answer = Literal["holds", "does not hold", "too few draws", "not measured"]


@dataclass(frozen=True)
class Finding:
    """One finding of the paper, with what this network shows."""

    text: str
    source: str
    answer: Answer
    evidence: str


def findings(
    tables: Mapping[str, Mapping[str, DataFrame]], places: Sequence[Place]
) -> list[Finding]:
    """Judge each finding.

    Args:
        tables: by study folder (`deletion`, `deletions`, `reordering`, `paths`), then by name.
        places: of the network's units.
    """
    found = []
    for text, source, folder, judge in FINDINGS:
        if folder in tables:
            answer, evidence = judge(tables[folder], places)
        else:
            answer, evidence = "not measured", "this network has no such units"
        found.append(Finding(text, source, answer, evidence))
    return found


Judged = tuple[Answer, str]


def _holds(condition: bool) -> Answer:
    return "holds" if condition else "does not hold"


def _survives(tables: Mapping[str, DataFrame], places: Sequence[Place]) -> Judged:
    damage = _damage(tables)
    middle, worst = float(damage.median()), int(damage.index[int(damage.to_numpy().argmax())])
    more = int((damage > BARELY).sum())
    return _holds(middle <= BARELY), (
        f"{middle:+.2f} points in the median of {len(damage)} units, {damage[worst]:+.2f} at worst "
        f"(unit {worst}, {places[worst].name}); {more} by more than {BARELY:g} point"
    )


def _changes_matter(tables: Mapping[str, DataFrame], places: Sequence[Place]) -> Judged:
    damage = _damage(tables)
    changes = [place.index for place in places if place.changes_shape]
    others = damage.drop(changes)
    if not changes or others.empty:
        return "not measured", "no unit, or every unit, changes the shape"
    shown = ", ".join(f"unit {unit} {damage[unit]:+.2f} points" for unit in changes)
    low, high = float(damage[changes].min()), float(others.max())
    return _holds(
        low > high
    ), f"{shown}; at most {high:+.2f} for all others (unit {others.idxmax()})"


def _damage(tables: Mapping[str, DataFrame]) -> "Series[float]":
    """Increase of the error by unit, points."""
    frame = tables["lesion_delete"]
    damage = frame["test_error"] - frame["baseline_error"]
    return damage.set_axis(frame["blocks"].astype(int))


def _rises(table: str, by: str) -> Callable[..., Judged]:
    """The median error rises with a count."""

    def judge(tables: Mapping[str, DataFrame], places: Sequence[Place]) -> Judged:
        frame = tables[table]
        medians = frame.groupby(by)["test_error"].median()
        varies = len(medians) > 2 and medians.nunique() > 1
        rank = float(stats.spearmanr(medians.index, medians).statistic) if varies else 0.0
        first, last = medians.index[0], medians.index[-1]
        enough = len(frame) >= FEWEST_DRAWS * len(medians)
        return _holds(rank >= RISING) if enough else "too few draws", (
            f"median error {medians.iloc[0]:.2f} % at {first}, {medians.iloc[-1]:.2f} % at {last} "
            f"(intact {frame['baseline_error'].iloc[0]:.2f} %); Spearman correlation {rank:.2f}, "
            f"{len(frame)} draws on {frame['images'].iloc[0]:,} images"
        )

    return judge


def _falls_exponentially(tables: Mapping[str, DataFrame], places: Sequence[Place]) -> Judged:
    means = tables["path_gradients"].groupby("k")["grad_norm"].mean()
    means = means[means > 0]
    if len(means) < 3:
        return "not measured", "fewer than three lengths carry a gradient"
    fit = stats.linregress(list(means.index), [math.log10(mean) for mean in means])
    r2 = float(fit.rvalue) ** 2
    return _holds(fit.slope < 0 and r2 >= EXPONENTIAL), (
        f"each residual branch on a path multiplies the norm by {10 ** float(fit.slope):.3f}; a "
        f"straight line explains {100 * r2:.0f} % of the variance of the logarithms"
    )


def _short_paths(tables: Mapping[str, DataFrame], places: Sequence[Place]) -> Judged:
    frame = tables["path_spectrum"]
    lengths = [int(k) for k in frame["k"]]
    first, last = shortest_interval(lengths, [float(w) for w in frame["total"]], ALMOST_ALL)
    exact = shortest_interval(lengths, [float(w) for w in frame["exact_norm"]], ALMOST_ALL)
    counts = [int(n) for n in frame["paths"]]
    inside = sum(n for k, n in zip(lengths, counts, strict=True) if first <= k <= last)
    return _holds(last < len(places) / 2), (
        f"lengths {first} to {last} of {len(places)} carry {100 * ALMOST_ALL:.0f} % of the "
        f"gradient by the published estimate ({100 * inside / sum(counts):.3g} % of all paths), "
        f"{exact[0]} to {exact[1]} by the exact spectrum"
    )


FINDINGS: tuple[tuple[str, str, str, Callable[..., Judged]], ...] = (
    ("Deleting one unit barely changes the error.", "Figure 3", "deletion", _survives),
    (
        "The units that change the shape matter most.",
        "Figure 3",
        "deletion",
        _changes_matter,
    ),
    (
        "The error rises with the number of deleted units.",
        "Figure 5a",
        "deletions",
        _rises("lesion_delete", "k"),
    ),
    (
        "The error rises as units are reordered.",
        "Figure 5b",
        "reordering",
        _rises("lesion_reorder", "swaps"),
    ),
    (
        "The gradient of a path falls exponentially with its length.",
        "Figure 6b",
        "paths",
        _falls_exponentially,
    ),
    (
        "Almost all gradient comes from paths shorter than half of the network.",
        "Figure 6c",
        "paths",
        _short_paths,
    ),
)
"""Text, source, folder of the tables, and rule."""
