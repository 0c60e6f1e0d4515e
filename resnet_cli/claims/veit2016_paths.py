"""The judges of paper 2's claims on paths: Figures 6 and 7, section 5, the discussion.

They use the published estimator, which draws one path for a whole batch of images. The exact
spectrum and one path for each image are additions of this program.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from pandas import DataFrame, Series

from resnet_cli.claims.evidence import Evidence, StudyTable
from resnet_cli.claims.papers import case_title, published_error
from resnet_cli.claims.veit2016_numbers import (
    PAPER,
    check_54_units,
    for_each_training,
    paper_number,
    undertrained_network,
)
from resnet_cli.claims.verdict import (
    POINTS,
    SHARE,
    NotMeasuredError,
    Part,
    Quantity,
    Verdict,
    decided,
    undertrained,
    within,
)
from resnet_cli.models.resnet import make_places
from resnet_cli.results.tables import read_table

EXPONENTIAL_R2 = 0.9
"""The least share of the variance of log(norm) explained by a straight line in the length."""
ALMOST_ALL = 0.9
"""The share of the gradient that counts as "almost all"; the paper gives no number."""
MIN_PATH_SHARE = 0.95
AS_WELL = 0.5
"""In points: a network does "as well" if its error is higher by at most this, about the range of
paper 1's five runs of one network."""


# --- Figures 6 and 7: paths ----------------------------------------------------------------------


def _sampled(evidence: Evidence, experiment: str, case: str = "main") -> list[StudyTable]:
    """path_spectrum.csv of each training, sampled at every length by the published estimator.

    Raises:
        NotMeasuredError: one was not.
    """
    tables = evidence.tables(experiment, "path_spectrum", case)
    for table in tables:
        total = table.frame["total"]
        if table.estimator != "batch" or total.isna().any() or not (total > 0).any():
            raise NotMeasuredError
    return tables


def _samples(table: StudyTable) -> int:
    """The number of paths drawn for each length."""
    return samples_of(read_table(table.path.with_name("path_gradients.csv")))


def samples_of(frame: DataFrame) -> int:
    """The number of paths drawn for each length.

    Args:
        frame: rows of path_gradients.csv.
    """
    return int(frame.groupby("k").size().min())


def gradient_share(frame: DataFrame, samples: int, first: int, last: int) -> Quantity:
    """The share of the sampled gradient in an interval of lengths, with the standard error from the
    draws.

    Args:
        frame: rows of path_spectrum.csv.
        samples: number of paths drawn for each length.

    Raises:
        NotMeasuredError: no path carries a gradient.
    """
    total = frame["total"].to_numpy(dtype=float)
    error = frame["paths"].astype(float) * frame["std_norm"].fillna(0.0) / math.sqrt(samples)
    inside = ((frame["k"] >= first) & (frame["k"] <= last)).to_numpy()
    if not total.sum() > 0:
        raise NotMeasuredError
    share = float(total[inside].sum() / total.sum())
    influence = (inside - share) / total.sum()
    spread = float(np.sqrt(np.sum((influence * error.to_numpy(dtype=float)) ** 2)))
    return Quantity("share of the sampled gradient", share, spread, samples, SHARE)


def _holds_almost_all(share: Quantity, shown: Sequence[Quantity] = ()) -> Part:
    name = f"above {100 * ALMOST_ALL:g} %"
    margin = share.value - ALMOST_ALL
    tested = Quantity(name, 100 * margin, 100 * (share.standard_error or 0.0), share.n, POINTS)
    return Part(decided(tested), tested, (share, *shown))


def line_of_norms(means: "Series[float]") -> Any:
    """The regression line of log10 of the mean gradient norm on the path length; None for fewer
    than three lengths.

    Args:
        means: mean norms by path length.
    """
    from scipy import stats

    means = means[means > 0]
    if len(means) < 3:
        return None
    return stats.linregress(means.index.to_numpy(float), np.log10(means.to_numpy(float)))


def falls_exponentially(evidence: Evidence) -> list[Part]:
    tables = evidence.tables("fig6", "path_gradients")
    if any(table.estimator != "batch" for table in tables):
        raise NotMeasuredError
    if short := undertrained_network(evidence, "fig6", tables):
        return [short]
    return for_each_training(tables, lambda table: exponential_fall(table.frame))


def exponential_fall(frame: DataFrame) -> list[Part]:
    """Whether the logarithm of the mean norm falls with the length in a straight line.

    Args:
        frame: rows of path_gradients.csv.

    Raises:
        NotMeasuredError: fewer than three lengths carry a gradient.
    """
    fit = line_of_norms(frame.groupby("k")["grad_norm"].mean())
    if fit is None:
        raise NotMeasuredError
    name = "fall of log10(norm) per unit"
    tested = Quantity(name, -float(fit.slope), float(fit.stderr), len(frame), "")
    factor = Quantity("factor per unit", 10 ** float(fit.slope), unit="")
    straight = Quantity("R2 of the line", float(fit.rvalue) ** 2, unit="")
    needed = Quantity("needed", EXPONENTIAL_R2, unit="")
    is_line: Verdict = "holds" if straight.value >= EXPONENTIAL_R2 else "does not hold"
    return [Part(decided(tested), tested), Part(is_line, None, (factor, straight), needed)]


def short_and_few(evidence: Evidence) -> list[Part]:
    """Whether lengths 5 to 17 have ALMOST_ALL of the gradient, sampled as published. The exact
    share is shown in addition; that these paths are few is arithmetic."""
    first, last = (int(paper_number("fig6c", f"effective_{end}")) for end in ("from", "to"))
    lengths = evidence.tables("fig6", "path_spectrum")[0].frame
    check_54_units(int(lengths["k"].max()))
    tables = _sampled(evidence, "fig6")
    if short := undertrained_network(evidence, "fig6", tables):
        return [short]

    def judge(table: StudyTable) -> list[Part]:
        shown = [_share_of_paths(table.frame, first, last)]
        exact = table.frame["exact_norm"]
        if not exact.isna().any():
            inside = table.frame["k"].between(first, last)
            shown.append(Quantity("exact", float(exact[inside].sum() / exact.sum()), unit=SHARE))
        share = gradient_share(table.frame, _samples(table), first, last)
        return [_holds_almost_all(share, shown)]

    return for_each_training(tables, judge)


def _share_of_paths(frame: DataFrame, first: int, last: int) -> Quantity:
    counts = {int(k): int(paths) for k, paths in zip(frame["k"], frame["paths"], strict=True)}
    inside = sum(n for k, n in counts.items() if first <= k <= last)
    return Quantity("share of all paths", inside / sum(counts.values()), unit=SHARE)


def paths_are_of_medium_length(evidence: Evidence) -> list[Part]:
    """Whether the lengths 19 to 35 have MIN_PATH_SHARE of all paths: Binomial(54, 1/2)."""
    frame = evidence.tables("fig6", "path_lengths")[0].frame
    check_54_units(int(frame["k"].max()))
    share = _share_of_paths(frame, 19, 35)
    return [Part("holds" if share.value >= MIN_PATH_SHARE else "does not hold", None, (share,))]


def long_paths_go(evidence: Evidence) -> list[Part]:
    """Whether the share of remaining paths, C(n - d, k) / C(n, k), falls with the length."""
    parts = []
    for count, rows in evidence.tables("fig7", "path_survival")[0].frame.groupby("deleted"):
        left = [float(fraction) for fraction in rows.sort_values("k")["fraction"]]
        falls = all(b < a or a == b == 0 for a, b in pairwise(left))
        units = int(rows["k"].max())
        shown = tuple(
            Quantity(f"{count} deleted, remaining paths of length {k}", left[k], unit=SHARE)
            for k in sorted({1, units // 5, units // 2})
        )
        parts.append(Part("holds" if falls else "does not hold", None, shown))
    return parts


def highways_too(evidence: Evidence) -> list[Part]:
    """Whether lengths up to half of the units have ALMOST_ALL of the sampled gradient of each gated
    network."""

    def of(case: str) -> list[Part]:
        title = case_title(case)
        try:
            tables = _sampled(evidence, "highway_paths", case)
            short = undertrained_network(evidence, "highway_paths", tables, title)
        except NotMeasuredError:
            return [Part("not measured")]
        if short:
            return [short]
        return for_each_training(
            tables, lambda table: [short_half(table.frame, _samples(table), f"{title}, ")]
        )

    return [*of("exclusive-gating"), *of("shortcut-gating")]


def short_half(frame: DataFrame, samples: int, network: str = "") -> Part:
    """Whether lengths up to half of the units have ALMOST_ALL of the sampled gradient.

    Args:
        frame: rows of path_spectrum.csv.
        samples: number of paths drawn for each length.
        network: the beginning of the share's name.
    """
    units = int(frame["k"].max())
    share = gradient_share(frame, samples, 0, units // 2)
    share = replace(share, name=f"{network}lengths up to {units // 2} of {units}")
    if samples < 2:  # the spread is unknown
        return Part("too few draws", None, (share,))
    return _holds_almost_all(share)


# --- section 5: training on effective paths ----------------------------------------------------


def trains_as_well(evidence: Evidence) -> list[Part]:
    source = "section5"
    full, active = (evidence.case(source, case) for case in ("full", "active-23"))
    if full.model is not None:
        check_54_units(len(make_places(full.model)))
    limit = evidence.decides_below("effective_paths", published_error(PAPER, source, "full") or 0.0)
    if short := undertrained(full.for_verdicts.quantity, limit):
        return [short]
    return [within(active.for_verdicts, full.for_verdicts, AS_WELL, two_sided=False)]
