"""Paper 2's claims against what was measured (Veit et al. 2016, arXiv:1605.06431).

Each claim is judged from the tables of one experiment at one profile, by thresholds that stand here
with their reasons and were set before these experiments were run at `mini`. Where several trainings
were measured, evidence says how many. A network that learned nothing has nothing to lose, so no
claim about damage is judged by one.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy
from pandas import DataFrame, Series
from scipy import stats

from resnet_cli.config import PROFILES, ModelConfig
from resnet_cli.intervals import SHARES, shortest_interval
from resnet_cli.models.resnet import make_places
from resnet_cli.papers import published
from resnet_cli.results.claims import Claim
from resnet_cli.results.tables import provenance_path, read_provenance, read_table

PAPER = "veit2016"

LEARNED = 0.5
"""A network counts as trained when its intact error is at most this share of chance."""
NEAR_CHANCE = 0.8
"""A network has "fallen to chance" when its error is at least this share of chance: the paper's
picture shows about 90 % without numbers, and a layer in ten may still leave a trace."""
BARELY = 1.0
"""Percentage points: the error "barely changes" when a typical deletion raises it by no more. The
paper's baseline is 6.1 %, its curve rises by less than the width of its line."""
STANDS_OUT = 90
"""A downsampling unit "matters most" when its damage is above this percentile of the other units'
damages. Not their maximum: the first unit of the network has the stem's output as its input."""
SMOOTH_RANK = 0.9
"""Spearman correlation from which medians count as rising steadily; 1 is strictly rising."""
LARGEST_STEP = 0.25
"""Of the whole rise, at most this share may fall on one step of the 19 from 1 to 20: five times an
even step. A cliff, as of a network that needs every unit, is one step of nearly 1."""
DISORDER_RANK = 0.5
"""Spearman correlation, error against 1 - tau over single draws, that counts as growing with
disorder. Lower than SMOOTH_RANK since which units are swapped matters beside tau."""
EXPONENTIAL_R2 = 0.9
"""Share of the variance of log(norm) that a straight line in the length must explain."""
ALMOST_ALL = 0.9
"""The share of the gradient that "almost all" stands for; the paper gives none."""
FEW_PATHS = 0.01
"""At most this share of all paths counts as few: about twice the published 0.45 %."""
AS_WELL = 0.5
"""Percentage points by which an error may be higher and the network still trained "as well": about
the range of paper 1's five runs of one network."""
CONFIDENCE = 0.95

CAVEATS: Mapping[str, str] = {
    "smoke": "smoke: 9 narrow units trained for seconds on digits; it shows that the code runs, "
    "and nothing about the claim",
    "mini": "mini: 16x16 digits and 15 epochs (highway networks and section 4.3: 45) instead of "
    "CIFAR-10 and 64k iterations; one of 360 test images is 0.28 points",
    "cpu": "cpu: 14 epochs instead of 64k iterations",
}
"""What a profile cannot show."""


@dataclass(frozen=True)
class _Finding:
    """What a judge found: whether the claim holds, and the figures."""

    holds: bool
    evidence: str
    caveat: str = ""
    published: str = ""
    """A headline's figures as the paper has them."""
    ours: str = ""
    """The same as measured."""


class _MissingError(Exception):
    """The tables of a claim are not there, or are of a network that it does not speak of."""


@dataclass(frozen=True)
class _Judge:
    source: str
    experiment: str
    """Whose tables decide."""
    text: str
    judge: Callable[[Path], _Finding]
    """Takes the experiment's folder."""
    headline: bool = False


def claims(folder: Path, profile: str) -> list[Claim]:
    """All claims of paper 2, judged at one profile.

    Args:
        folder: of the paper's results at this profile, such as `results/veit2016/mini`; it holds a
            folder for each experiment.
        profile: its name, for the commands and caveats.

    Raises:
        UserError: a table is there and damaged.
    """
    return [_judged(judge, folder, profile) for judge in JUDGES]


def _judged(judge: _Judge, folder: Path, profile: str) -> Claim:
    try:
        found = judge.judge(folder / judge.experiment)
    except _MissingError as missing:
        only_paper = judge.experiment == "fig4"
        no_use = profile not in PROFILES or (profile == "smoke" and str(missing))
        larger = "mini" if no_use else profile
        command = f"resnet-cli run {PAPER}/{judge.experiment} --profile " + (
            "paper --data-dir FOLDER" if only_paper else larger
        )
        reason = f"{missing}; " if str(missing) else ""
        return Claim(
            PAPER,
            judge.source,
            judge.text,
            "not measured",
            reason + command,
            headline=judge.headline,
        )
    caveat = "; ".join(part for part in (CAVEATS.get(profile, ""), found.caveat) if part)
    dataset, seeds = _setting(folder / judge.experiment)
    return Claim(
        PAPER,
        judge.source,
        judge.text,
        "holds" if found.holds else "does not hold",
        found.evidence,
        caveat,
        judge.headline,
        found.published if judge.headline else "",
        found.ours if judge.headline else "",
        dataset,
        seeds,
    )


def _setting(folder: Path) -> tuple[str, str]:
    """On what an experiment measured and how many seeds, by the provenance of its tables."""
    datasets, seeds = set(), set()
    for path in folder.rglob("*.csv"):
        if not provenance_path(path).exists():
            continue
        told = read_provenance(path)
        if found := told.get("seeds"):  # a formula has none, and took no data
            seeds |= {int(seed) for seed in found}
            data = (told.get("config") or {}).get("data") or {}
            datasets |= {str(data["dataset"])} if "dataset" in data else set()
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}" if seeds else ""
    return ", ".join(sorted(datasets)), count


# --- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    """A table of one training."""

    path: Path
    frame: DataFrame
    seed: int


def _measured(folder: Path, stem: str, case: str = "main") -> list[_Measured]:
    """A case's table of each training, by seed.

    A network that is the experiment's only one may have its table in the folder itself: `main`, and
    `preact110` of Figure 3, where a checkpoint of others stands without a VGG.

    Raises:
        _MissingError: there is none, or an empty one.
    """
    paths = sorted(folder.glob(f"{case}-seed*/{stem}.csv"))
    alone = case in ("main", "preact110")
    for single in (folder / case, folder) if alone else (folder / case,):
        paths = paths or [path for path in [single / f"{stem}.csv"] if path.exists()]
    tables = [_Measured(path, read_table(path), _seed(path)) for path in paths]
    if not tables or any(table.frame.empty for table in tables):
        raise _MissingError
    return sorted(tables, key=lambda table: table.seed)


def _seed(path: Path) -> int:
    seeds = read_provenance(path).get("seeds") or [0]
    return int(seeds[0])


def _damages(tables: Sequence[_Measured]) -> "Series[Any]":
    """Error increase of each single deletion, points, by unit; the mean over trainings."""
    total = []
    for table in tables:
        _learned(table)
        single = table.frame[table.frame["k"] == 1]
        if single.empty:
            raise _MissingError("no unit was deleted alone")
        damage = single["test_error"] - single["baseline_error"]
        total.append(damage.groupby(single["blocks"].astype(int)).mean())
    return sum(total[1:], total[0]) / len(total)


def _learned(table: _Measured) -> None:
    """Raises _MissingError when the intact network is hardly better than guessing."""
    _check_learned(float(table.frame["baseline_error"].iloc[0]))


def _check_learned(error: float) -> None:
    limit = LEARNED * _number("fig3", "chance_error")
    if not error <= limit:
        raise _MissingError(f"the intact network's error is {error:.2f} %: it learned too little")


def _worst(damages: "Series[Any]") -> int:
    """The unit whose deletion costs most."""
    values = damages.to_numpy(dtype=float)
    return int(damages.index.to_numpy()[values.argmax()])


def _baseline(tables: Sequence[_Measured]) -> float:
    return fmean(float(table.frame["baseline_error"].iloc[0]) for table in tables)


def _changes(table: _Measured, case: str = "main") -> list[int]:
    """The units that downsample, from the configuration in the table's provenance."""
    config: dict[str, Any] = read_provenance(table.path).get("config") or {}
    if "model" not in config:
        raise _MissingError("its provenance does not say of which network")
    cases = {entry["name"]: entry["model"] for entry in config.get("cases", ())}
    model = ModelConfig.model_validate(config["model"] | cases.get(case, {}))
    return [place.index for place in make_places(model) if place.stride != 1]


def _number(figure: str, quantity: str) -> float:
    """A number of the paper."""
    numbers = published(PAPER)
    rows = numbers[(numbers["figure"] == figure) & (numbers["quantity"] == quantity)]
    return float(rows["value"].iloc[0])


def _trainings(count: int) -> str:
    return "1 training" if count == 1 else f"{count} trainings"


def _one_seed(count: int) -> str:
    return "a single seed" if count == 1 else ""


# --- Figures 3, 4 and 8: one unit deleted --------------------------------------------------------


def _vgg_falls(folder: Path) -> _Finding:
    tables = _measured(folder, "lesion_delete", "vgg15")
    errors = _damages(tables) + _baseline(tables)
    chance = _number("fig3", "chance_error")
    fallen = int((errors >= NEAR_CHANCE * chance).sum())
    return _Finding(
        float(errors.median()) >= NEAR_CHANCE * chance,
        f"intact {_baseline(tables):.2f} %; after deleting one of {len(errors)} layers median "
        f"{errors.median():.2f} %, range {errors.min():.2f} to {errors.max():.2f} %; {fallen} of "
        f"{len(errors)} layers leave at least {NEAR_CHANCE * chance:.0f} % "
        f"({_trainings(len(tables))})",
        _one_seed(len(tables)),
        f"to about {chance:g} %, whichever layer is deleted",
        f"from {_baseline(tables):.2f} % to {errors.median():.2f} % in the median of "
        f"{len(errors)} layers, {errors.min():.2f} to {errors.max():.2f} %",
    )


def _resnet_survives(folder: Path) -> _Finding:
    return _survives(_measured(folder, "lesion_delete", "preact110"))


def _imagenet_survives(folder: Path) -> _Finding:
    return _survives(_measured(folder, "lesion_delete"))


def _survives(tables: Sequence[_Measured]) -> _Finding:
    damages = _damages(tables)
    more = damages[damages > BARELY]
    worst = _worst(damages)
    return _Finding(
        float(damages.median()) <= BARELY,
        f"intact {_baseline(tables):.2f} %; deleting one of {len(damages)} units raises it by "
        f"{damages.median():.2f} points in the median, {damages.quantile(0.9):.2f} at the 90th "
        f"percentile, {damages.max():.2f} at worst (unit {worst}); {len(more)} units by more than "
        f"{BARELY:g} ({_trainings(len(tables))})",
        _one_seed(len(tables)),
        f"from {_number('section4.3', 'error-full'):.2f} %, for most units by less than the width "
        "of the plot's line",
        f"from {_baseline(tables):.2f} %, by {damages.median():.2f} points in the median; by more "
        f"than {BARELY:g} for {len(more)} of {len(damages)} units, {damages.max():.2f} at worst",
    )


def _downsampling_matters(folder: Path) -> _Finding:
    tables = _measured(folder, "lesion_delete", "preact110")
    damages = _damages(tables)
    changes = _changes(tables[0], "preact110")
    others = damages.drop(changes)
    limit = float(numpy.percentile(others, STANDS_OUT))
    ranks = damages.rank(ascending=False, method="max").astype(int)
    told = ", ".join(
        f"unit {unit}: {damages[unit]:+.2f} points, rank {ranks[unit]} of {len(damages)}"
        for unit in changes
    )
    worst = _worst(others)
    return _Finding(
        bool((damages[changes] > limit).all()),
        f"{told}; the other units' {STANDS_OUT}th percentile is {limit:+.2f}, the worst of them "
        f"unit {worst} with {others[worst]:+.2f} ({_trainings(len(tables))})",
        _one_seed(len(tables)),
    )


def _stochastic_depth(units: Callable[[_Measured], Sequence[int] | None]) -> Any:
    """A judge of Figure 8 over some units: damage lower in every training, paired by seed."""

    def judge(folder: Path) -> _Finding:
        plain = {table.seed: table for table in _measured(folder, "lesion_delete", "plain")}
        other = _measured(folder, "lesion_delete", "stochastic-depth")
        pairs = [(plain[table.seed], table) for table in other if table.seed in plain]
        if not pairs:
            raise _MissingError("no seed was trained both ways")
        means = []
        for pair in pairs:
            chosen = units(pair[0])
            damages = [_damages([table]) for table in pair]
            means.append(
                [float((d if chosen is None else d[list(chosen)]).mean()) for d in damages]
            )
        before, after = (fmean(column) for column in zip(*means, strict=True))
        each = ", ".join(f"{a:.2f} to {b:.2f}" for a, b in means)
        return _Finding(
            all(b < a for a, b in means),
            f"mean damage {before:.2f} points plain, {after:.2f} with stochastic depth; by seed "
            f"{each} (intact {_baseline([p for p, _ in pairs]):.2f} % and "
            f"{_baseline([o for _, o in pairs]):.2f} %; {_trainings(len(pairs))} each)",
            _one_seed(len(pairs)),
        )

    return judge


def _all_units(table: _Measured) -> None:
    return None


# --- Figure 5: many units ------------------------------------------------------------------------


def _rise(medians: "Series[Any]") -> tuple[float, float, float]:
    """(Spearman correlation with the index, whole rise, the largest step's share of it)."""
    if len(medians) < 3 or medians.nunique() < 2:
        return 0.0, 0.0, math.nan
    rank = float(stats.spearmanr(medians.index, medians).statistic)
    rise = float(medians.iloc[-1] - medians.iloc[0])
    step = float(medians.diff().max()) / rise if rise > 0 else math.nan
    return rank, rise, step


def _step(step: float) -> str:
    return "no rise" if math.isnan(step) else f"the largest step is {100 * step:.0f} % of the rise"


def _smooth(rank: float, rise: float, step: float) -> bool:
    return rank >= SMOOTH_RANK and rise > 0 and step <= LARGEST_STEP


def _grows_with_k(folder: Path) -> _Finding:
    tables = _measured(folder, "lesion_delete")
    _learned(tables[0])
    frame = tables[0].frame
    medians = frame.groupby("k")["test_error"].median()
    rank, rise, step = _rise(medians)
    falls = int((medians.diff() < 0).sum())
    return _Finding(
        _smooth(rank, rise, step),
        f"median error {medians.iloc[0]:.2f} % at k = {medians.index[0]}, {medians.iloc[-1]:.2f} % "
        f"at k = {medians.index[-1]} (intact {_baseline(tables[:1]):.2f} %); Spearman of k and "
        f"median {rank:.3f}, {falls} of {len(medians) - 1} steps fall, {_step(step)} "
        f"({len(frame)} deletions)",
        "a single seed" if len(tables) == 1 else f"seed {tables[0].seed} of {len(tables)}",
    )


def _grows_with_disorder(folder: Path) -> _Finding:
    tables = _measured(folder, "lesion_reorder")
    _learned(tables[0])
    frame = tables[0].frame
    medians = frame.groupby("swaps")["test_error"].median()
    rank, rise, step = _rise(medians)
    tau, error = frame["kendall_tau"], frame["test_error"]
    varies = tau.nunique() > 1 and error.nunique() > 1
    rho = -float(stats.spearmanr(tau, error).statistic) if varies else 0.0
    low, high = _fisher(rho, len(frame))
    return _Finding(
        _smooth(rank, rise, step) and rho >= DISORDER_RANK,
        f"Spearman of error and 1 - tau {rho:.3f} ({100 * CONFIDENCE:.0f} % interval {low:.3f} to "
        f"{high:.3f}, {len(frame)} orders, tau {tau.min():.3f} to {tau.max():.3f}); median error "
        f"{medians.iloc[0]:.2f} % after {medians.index[0]} swap, {medians.iloc[-1]:.2f} % after "
        f"{medians.index[-1]}, Spearman {rank:.3f}, {_step(step)}",
        "a single seed" if len(tables) == 1 else f"seed {tables[0].seed} of {len(tables)}",
    )


def _fisher(rho: float, count: int) -> tuple[float, float]:
    """The interval of a rank correlation by Fisher's z, variance 1.06 / (n - 3) (Fieller 1957)."""
    if count < 5 or abs(rho) >= 1:
        return (rho, rho) if abs(rho) >= 1 else (-1.0, 1.0)
    half = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(1.06 / (count - 3))
    return math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)


# --- Figures 6 and 7: paths ----------------------------------------------------------------------


def _spectrum(folder: Path, column: str, case: str = "main") -> DataFrame:
    """path_spectrum.csv where every length of the network has a value in `column`."""
    frame = _measured(folder, "path_spectrum", case)[0].frame
    if frame[column].isna().any() or not (frame[column] > 0).any():
        raise _MissingError(f"{column} was not measured at every length")
    return frame


def _falls_exponentially(folder: Path) -> _Finding:
    frame = _measured(folder, "path_gradients")[0].frame
    means = frame.groupby("k")["grad_norm"].mean()
    means = means[means > 0]
    if len(means) < 3:
        raise _MissingError("fewer than three lengths were sampled")
    k = means.index.to_numpy(dtype=float)
    fit = stats.linregress(k, numpy.log10(means.to_numpy(dtype=float)))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(means) - 2)) * float(fit.stderr)
    r2 = float(fit.rvalue) ** 2
    return _Finding(
        r2 >= EXPONENTIAL_R2 and float(fit.slope) + half < 0,
        f"log10 of the mean norm against length: slope {fit.slope:.4f} +/- {half:.4f} a unit, so "
        f"each unit passed multiplies the norm by {10 ** float(fit.slope):.3f}; R2 {r2:.3f} over "
        f"lengths {means.index[0]} to {means.index[-1]} ({len(frame)} paths)",
        "a single seed",
    )


def _paths_in(frame: DataFrame, first: int, last: int) -> float:
    """The share of all paths whose length is in an interval."""
    counts = {int(k): int(paths) for k, paths in zip(frame["k"], frame["paths"], strict=True)}
    return sum(n for k, n in counts.items() if first <= k <= last) / sum(counts.values())


def _intervals(frame: DataFrame, column: str) -> str:
    """The shortest intervals at each share, with the share of paths in them."""
    lengths, weights = [int(k) for k in frame["k"]], [float(w) for w in frame[column]]
    told = []
    for share in SHARES:
        first, last = shortest_interval(lengths, weights, share)
        told.append(
            f"{100 * share:g} % in {first}-{last} "
            f"({100 * _paths_in(frame, first, last):.3g} % of paths)"
        )
    return ", ".join(told)


def _published_lengths(column: str) -> Callable[[Path], _Finding]:
    """A judge of "5 to 17 of 54" by one column of path_spectrum.csv."""

    def judge(folder: Path) -> _Finding:
        frame = _spectrum(folder, column)
        units = int(frame["k"].max())
        if units != int(_number("text", "units")):
            raise _MissingError(f"measured on {units} units, not 54")
        first, last = (int(_number("fig6c", f"effective_{end}")) for end in ("from", "to"))
        inside = frame[(frame["k"] >= first) & (frame["k"] <= last)]
        share = float(inside[column].sum() / frame[column].sum())
        return _Finding(
            share >= ALMOST_ALL,
            f"lengths {first} to {last} hold {100 * share:.1f} % of it; shortest intervals: "
            f"{_intervals(frame, column)}",
            "a single seed",
        )

    return judge


def _few_paths(column: str) -> Callable[[Path], _Finding]:
    """A judge of "few paths" by one column of path_spectrum.csv."""

    def judge(folder: Path) -> _Finding:
        frame = _spectrum(folder, column)
        lengths, weights = [int(k) for k in frame["k"]], [float(w) for w in frame[column]]
        first, last = shortest_interval(lengths, weights, ALMOST_ALL)
        share = _paths_in(frame, first, last)
        return _Finding(
            share <= FEW_PATHS and last < max(lengths) / 2,
            f"the shortest interval with {100 * ALMOST_ALL:.0f} % is {first} to {last} of "
            f"{max(lengths)} units and has {100 * share:.3g} % of all paths (published "
            f"{_number('fig6c', 'effective_paths_percent'):g} %)",
            "a single seed",
            f"lengths {_number('fig6c', 'effective_from'):g} to "
            f"{_number('fig6c', 'effective_to'):g} of {_number('text', 'units'):g}, "
            f"{_number('fig6c', 'effective_paths_percent'):g} % of all paths",
            f"lengths {first} to {last} of {max(lengths)}, {100 * share:.3g} % of all paths, with "
            f"{100 * ALMOST_ALL:.0f} % of the gradient",
        )

    return judge


def _long_paths_go(folder: Path) -> _Finding:
    frame = _measured(folder, "path_survival")[0].frame
    told, holds = [], True
    for count, rows in frame.groupby("deleted"):
        left = [float(fraction) for fraction in rows.sort_values("k")["fraction"]]
        holds = holds and all(b < a or a == b == 0 for a, b in itertools.pairwise(left))
        units = int(rows["k"].max())
        picked = {int(k): f for k, f in zip(rows["k"], rows["fraction"], strict=True)}
        shown = sorted({1, units // 5, units // 2})
        told.append(
            f"{count} deleted: "
            + ", ".join(f"{100 * picked[k]:.3g} % of length {k}" for k in shown)
        )
    return _Finding(holds, f"paths left by the formula C(n - d, k) / C(n, k): {'; '.join(told)}")


def _highways_too(folder: Path) -> _Finding:
    """The gated networks that learned decide; their errors are those of highway_lesion."""
    told, ends, unchecked = [], [], False
    for case in ("identity", "exclusive-gating", "shortcut-gating"):
        frame = _spectrum(folder, "exact_norm", case)
        units = int(frame["k"].max())
        lengths, weights = [int(k) for k in frame["k"]], [float(w) for w in frame["exact_norm"]]
        first, last = shortest_interval(lengths, weights, ALMOST_ALL)
        shown = f"{case}: {first} to {last} of {units} units"
        counts = case != "identity"
        try:
            tables = _measured(folder.parent / "highway_lesion", "lesion_delete", case)
            shown += f", error {_baseline(tables):.2f} %"
            _learned(tables[0])
        except _MissingError as missing:
            unchecked = unchecked or not str(missing)
            if counts and str(missing):
                shown += ", not judged: it learned too little"
                counts = False
        told.append(shown)
        if counts:
            ends.append(last / units)
    if not ends:
        raise _MissingError("no gated network learned enough")
    caveat = "a single seed; the paper measures no highway network"
    return _Finding(
        max(ends) <= 0.5,
        f"shortest intervals with {100 * ALMOST_ALL:.0f} % of the exact norms, which must end "
        f"below half of the units: {'; '.join(told)}",
        caveat + ("; errors not known, run highway_lesion" if unchecked else ""),
    )


# --- section 4.3: training on effective paths ----------------------------------------------------


def _trains_as_well(folder: Path) -> _Finding:
    frame = _measured(folder, "table")[0].frame
    errors = {
        str(case): [float(error) for error in rows["test_error"].fillna(math.inf)]
        for case, rows in frame.groupby("case")
    }
    if not {"full", "active-23"} <= set(errors):
        raise _MissingError
    full, active = errors["full"], errors["active-23"]
    _check_learned(fmean(full))
    difference = fmean(active) - fmean(full)
    interval, note = "no interval from one seed", "a single seed"
    excluded = False
    if not math.isfinite(difference):
        interval, note = "no interval, a training diverged", ""
    elif len(full) > 1 and len(active) > 1:
        low, high = _welch(active, full)
        interval = f"{100 * CONFIDENCE:.0f} % interval {low:+.2f} to {high:+.2f}"
        excluded = low > 0
        note = f"{len(active)} seeds only" if len(active) < 5 else ""
    shown = ", ".join(
        f"{case} {fmean(values):.2f} % ({', '.join(f'{v:.2f}' for v in values)}; "
        f"median {median(values):.2f})"
        for case, values in errors.items()
    )
    return _Finding(
        difference <= AS_WELL and not excluded,
        f"{shown}; active-23 minus full {difference:+.2f} points, {interval} (published "
        f"{_number('section4.3', 'error-active-23'):.2f} against "
        f"{_number('section4.3', 'error-full'):.2f} %)",
        note,
        f"{_number('section4.3', 'error-active-23'):.2f} % against "
        f"{_number('section4.3', 'error-full'):.2f} % with all",
        f"{fmean(active):.2f} % against {fmean(full):.2f} % with all, {interval}",
    )


def _welch(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Welch's interval of the difference of two means; a point where nothing varies."""
    if len(set(one)) == 1 and len(set(other)) == 1:
        difference = fmean(one) - fmean(other)
        return difference, difference
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


JUDGES: tuple[_Judge, ...] = (
    _Judge(
        "fig3",
        "fig3",
        "Deleting any one layer of a VGG lets it fall to chance.",
        _vgg_falls,
        headline=True,
    ),
    _Judge(
        "fig3",
        "fig3",
        "Deleting one unit of a residual network barely changes its error.",
        _resnet_survives,
        headline=True,
    ),
    _Judge(
        "fig3",
        "fig3",
        "The units that downsample matter most when deleted.",
        _downsampling_matters,
    ),
    _Judge(
        "fig4",
        "fig4",
        "Deleting one unit of an ImageNet ResNet-200 barely changes its error.",
        _imagenet_survives,
    ),
    _Judge(
        "fig5a",
        "fig5a",
        "The error grows smoothly with the number of deleted units.",
        _grows_with_k,
    ),
    _Judge(
        "fig5b",
        "fig5b",
        "The error grows smoothly as the units are reordered.",
        _grows_with_disorder,
    ),
    _Judge(
        "fig6b",
        "fig6",
        "The gradient of a path falls exponentially with its length.",
        _falls_exponentially,
    ),
    _Judge(
        "fig6c",
        "fig6",
        "Almost all gradient comes from paths of 5 to 17 of 54 units (sampled, as published).",
        _published_lengths("total"),
    ),
    _Judge(
        "fig6c",
        "fig6",
        "Almost all gradient comes from paths of 5 to 17 of 54 units (exact spectrum).",
        _published_lengths("exact_norm"),
    ),
    _Judge(
        "fig6c",
        "fig6",
        "The paths that deliver almost all gradient are short and few (sampled, as published).",
        _few_paths("total"),
    ),
    _Judge(
        "fig6c",
        "fig6",
        "The paths that deliver almost all gradient are short and few (exact spectrum).",
        _few_paths("exact_norm"),
        headline=True,
    ),
    _Judge(
        "section4.3",
        "effective_paths",
        "Training with 23 of 54 units active in each batch does as well as training all.",
        _trains_as_well,
        headline=True,
    ),
    _Judge("fig7", "fig7", "Deleting units removes mostly long paths.", _long_paths_go),
    _Judge(
        "fig8",
        "fig8",
        "Stochastic depth makes a network more resilient to the deletion of a unit.",
        _stochastic_depth(_all_units),
    ),
    _Judge(
        "fig8",
        "fig8",
        "Stochastic depth adds resilience at the units that downsample.",
        _stochastic_depth(lambda table: _changes(table, "plain")),
    ),
    _Judge(
        "discussion",
        "highway_paths",
        "Highway networks, too, rely on short paths.",
        _highways_too,
    ),
)
"""Every claim, in the order of the paper."""
