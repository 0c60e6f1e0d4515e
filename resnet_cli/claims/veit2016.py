"""Paper 2's claims against what was measured (Veit et al. 2016, arXiv:1605.06431).

Each claim is judged from the tables of one experiment at one profile, by thresholds that stand here
with their reasons and were set before these experiments were run at `mini`. What is too close, the
median in Figure 8 and the first unit in Figure 3 came later, from an audit of the verdicts; no
claim that did not hold holds by them. Where several trainings were measured, evidence says how
many. A network that learned nothing has nothing to lose, so no claim about damage is judged by one.

What is too close to call is told by `resnet_cli.claims.judge`. Damages of one network are shares
of the test images that a deletion breaks, so their binomial error is that of the damage.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy
from pandas import DataFrame, Series
from scipy import stats

from resnet_cli.claims.compare import test_images
from resnet_cli.claims.judge import (
    STANDARD_ERRORS,
    Claim,
    Errors,
    Verdict,
    above,
    all_of,
    at_most,
    margin,
    spread_at,
)
from resnet_cli.claims.papers import case_title, published
from resnet_cli.config.schema import PROFILES, ModelConfig
from resnet_cli.models.resnet import make_places
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.studies.intervals import SHARES, shortest_interval

PAPER = "veit2016"

LEARNED = 0.5
"""A network counts as trained when its intact error is at most this share of chance."""
NEAR_CHANCE = 0.8
"""A network has "fallen to chance" when its error is at least this share of chance: the paper's
picture shows about 90 % without numbers, and a layer in ten may still leave a trace."""
BARELY = 1.0
"""Percentage points: the error "barely changes" when a typical deletion raises it by no more. The
paper's baseline is 6.1 %; it gives no number for the rise."""
FIRST = 0
"""The unit that the claim on downsampling units leaves aside, as its text says, and whose damage
the evidence tells: its input is the stem's output, which no unit before it has added to. All other
units must cost less than each of those that downsample."""
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
    """What a judge found: the verdict and the figures."""

    verdict: Verdict
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
    judge: Callable[[Path, str], _Finding]
    """Takes the experiment's folder and the profile's name."""
    headline: bool = False
    by_formula: bool = False


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
        found = judge.judge(folder / judge.experiment, profile)
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
            by_formula=judge.by_formula,
        )
    own = "" if judge.by_formula else CAVEATS.get(profile, "")
    caveat = "; ".join(part for part in (own, found.caveat) if part)
    dataset, seeds = _setting(folder / judge.experiment)
    return Claim(
        PAPER,
        judge.source,
        judge.text,
        found.verdict,
        found.evidence,
        caveat,
        judge.headline,
        found.published if judge.headline else "",
        found.ours if judge.headline else "",
        dataset,
        seeds,
        judge.by_formula,
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

    @property
    def config(self) -> dict[str, Any]:
        """The experiment's configuration, by its provenance; empty where that has none."""
        return read_provenance(self.path).get("config") or {}


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
    config = table.config
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


def _images(tables: Sequence[_Measured]) -> int:
    """Test images of the tables' errors, the fewest."""
    return min(int(table.frame["images"].min()) for table in tables)


def _num_units(table: _Measured) -> int | None:
    """How many units the network of a table has, by its provenance; None where it does not say."""
    if "model" not in table.config:
        return None
    return len(make_places(ModelConfig.model_validate(table.config["model"])))


def _of_54_units(units: int) -> None:
    """Raises _MissingError where a claim on the paper's 54 units cannot be judged."""
    if units != int(_number("text", "units")):
        raise _MissingError(f"does not apply to {units} units")


def _several(count: int, each: str = "") -> str:
    """`, 3 trainings each`; nothing for one, of which the caveat tells."""
    return f", {count} trainings{each}" if count > 1 else ""


def _one_seed(count: int) -> str:
    return "a single seed" if count == 1 else ""


# --- Figures 3, 4 and 8: one unit deleted --------------------------------------------------------


def _vgg_falls(folder: Path, profile: str) -> _Finding:
    tables = _measured(folder, "lesion_delete", "vgg15")
    errors = _damages(tables) + _baseline(tables)
    chance = _number("fig3", "chance_error")
    mark = NEAR_CHANCE * chance
    fallen = int((errors >= mark).sum())
    middle = float(errors.median())
    least = margin(Errors([middle], _images(tables)), spread=0)
    return _Finding(
        above(middle - mark, least),
        f"intact {_baseline(tables):.2f} %; after deleting one of {len(errors)} layers median "
        f"{middle:.2f} %, range {errors.min():.2f} to {errors.max():.2f} %; {fallen} of "
        f"{len(errors)} layers leave at least {mark:.0f} %{_several(len(tables))}",
        _one_seed(len(tables)),
        f"to about {chance:g} %, whichever layer is deleted",
        f"from {_baseline(tables):.2f} % to {middle:.2f} % in the median of "
        f"{len(errors)} layers, {errors.min():.2f} to {errors.max():.2f} %",
    )


def _resnet_survives(folder: Path, profile: str) -> _Finding:
    return _survives(_measured(folder, "lesion_delete", "preact110"))


def _imagenet_survives(folder: Path, profile: str) -> _Finding:
    return _survives(_measured(folder, "lesion_delete"))


def _survives(tables: Sequence[_Measured]) -> _Finding:
    damages = _damages(tables)
    more = damages[damages > BARELY]
    worst = _worst(damages)
    middle = float(damages.median())
    least = margin(Errors([middle], _images(tables)), spread=0)
    return _Finding(
        above(BARELY - middle, least),
        f"intact {_baseline(tables):.2f} %; deleting one of {len(damages)} units raises it by "
        f"{middle:.2f} points in the median, {damages.quantile(0.9):.2f} at the 90th "
        f"percentile, {damages.max():.2f} at worst (unit {worst}); {len(more)} units by more than "
        f"{BARELY:g}{_several(len(tables))}",
        _one_seed(len(tables)),
        f"from {_number('section4.3', 'error-full'):.2f} %, barely changes (no number given)",
        f"from {_baseline(tables):.2f} %, by {middle:.2f} points in the median; by more "
        f"than {BARELY:g} for {len(more)} of {len(damages)} units, {damages.max():.2f} at worst",
    )


def _downsampling_matters(folder: Path, profile: str) -> _Finding:
    """The least harmful of the units that downsample against the most harmful of the others, but
    for FIRST. One that cannot be told from the median of the others does not stand out at all."""
    tables = _measured(folder, "lesion_delete", "preact110")
    damages = _damages(tables)
    changes = _changes(tables[0], "preact110")
    aside = [FIRST] if FIRST in damages.index and FIRST not in changes else []
    others = damages.drop([*changes, *aside])
    low, high = float(damages[changes].min()), float(others.max())
    base, images = _baseline(tables), _images(tables)

    def exceeds(damage: float) -> Verdict:
        sides = [Errors([base + of], images) for of in (low, damage)]
        return above(low - damage, margin(*sides, spread=0))

    verdict = exceeds(high)
    if verdict == "too close" and exceeds(float(others.median())) != "holds":
        verdict = "does not hold"
    ranks = damages.rank(ascending=False, method="max").astype(int)
    told = ", ".join(
        f"unit {unit}: {damages[unit]:+.2f} points, rank {ranks[unit]} of {len(damages)}"
        for unit in changes
    )
    told += f"; the worst of the others is unit {_worst(others)} with {high:+.2f}"
    if aside:
        told += (
            f"; left aside: unit {FIRST}, which does not downsample: {damages[FIRST]:+.2f} points, "
            f"rank {ranks[FIRST]}"
        )
    return _Finding(
        verdict,
        told + _several(len(tables)),
        _one_seed(len(tables)),
    )


def _fig8_pairs(folder: Path) -> list[tuple[_Measured, _Measured]]:
    """(plain, with stochastic depth) of each seed that was trained both ways."""
    plain = {table.seed: table for table in _measured(folder, "lesion_delete", "plain")}
    other = _measured(folder, "lesion_delete", "stochastic-depth")
    pairs = [(plain[table.seed], table) for table in other if table.seed in plain]
    if not pairs:
        raise _MissingError("no seed was trained both ways")
    return pairs


def _falls(pairs: Sequence[tuple[float, float]], images: int) -> Verdict:
    """Whether a damage falls from one training to the other, paired by seed.

    The margin is of the seeds' differences where there are several, else of the test images alone:
    the spread assumed of a single training is one of errors, and the damages of ours that have
    three seeds deviate less (their medians by 0.16 points at most, at `mini`).
    """
    falls = [before - after for before, after in pairs]
    if len(falls) > 1:
        least = STANDARD_ERRORS * stdev(falls) / math.sqrt(len(falls))
    else:
        least = margin(*(Errors([damage], images) for damage in pairs[0]), spread=0)
    return above(fmean(falls), least)


def _told_pairs(pairs: Sequence[tuple[float, float]], verdict: Verdict) -> str:
    """`4.71 to 3.61 points`; of several seeds the mean, then each."""
    before, after = (fmean(column) for column in zip(*pairs, strict=True))
    word = {"holds": "falls", "does not hold": "rises"}.get(verdict, "is too close")
    told = f"{word}, {before:.2f} to {after:.2f} points"
    if len(pairs) > 1:
        told += " (by seed " + ", ".join(f"{a:.2f} to {b:.2f}" for a, b in pairs) + ")"
    return told


def _intact(pairs: Sequence[tuple[_Measured, _Measured]]) -> str:
    plain, other = (_baseline(tables) for tables in zip(*pairs, strict=True))
    return (
        f"from plain training to stochastic depth; intact {plain:.2f} and {other:.2f} %"
        f"{_several(len(pairs), ' each')}"
    )


def _more_resilient(folder: Path, profile: str) -> _Finding:
    """By the mean damage of all units, and by the median of those that do not downsample: a few
    units that stand out decide the mean, and are not what the claim is about."""
    pairs = _fig8_pairs(folder)
    means, medians = [], []
    for pair in pairs:
        changes = _changes(pair[0], "plain")
        damages = [_damages([table]) for table in pair]
        means.append((float(damages[0].mean()), float(damages[1].mean())))
        rest = [found.drop(changes) for found in damages]
        medians.append((float(rest[0].median()), float(rest[1].median())))
    images = _images([table for pair in pairs for table in pair])
    of_means, of_medians = _falls(means, images), _falls(medians, images)
    return _Finding(
        all_of((of_means, of_medians)),
        f"mean damage of all units {_told_pairs(means, of_means)}; median of those that do not "
        f"downsample {_told_pairs(medians, of_medians)}; {_intact(pairs)}",
        _one_seed(len(pairs)),
    )


def _resilient_where_it_downsamples(folder: Path, profile: str) -> _Finding:
    pairs = _fig8_pairs(folder)
    means = []
    for pair in pairs:
        changes = _changes(pair[0], "plain")
        before, after = (float(_damages([table])[changes].mean()) for table in pair)
        means.append((before, after))
    verdict = _falls(means, _images([table for pair in pairs for table in pair]))
    return _Finding(
        verdict,
        f"mean damage of these units {_told_pairs(means, verdict)}; {_intact(pairs)}",
        _one_seed(len(pairs)),
    )


# --- Figure 5: many units ------------------------------------------------------------------------


def _rise(medians: "Series[Any]") -> tuple[float, float, float]:
    """(Spearman correlation with the index, whole rise, the largest step's share of it)."""
    if len(medians) < 3 or medians.nunique() < 2:
        return 0.0, 0.0, math.nan
    rank = float(stats.spearmanr(medians.index, medians).statistic)
    rise = float(medians.iloc[-1] - medians.iloc[0])
    step = float(medians.diff().max()) / rise if rise > 0 else math.nan
    return rank, rise, step


def _smooth(medians: "Series[Any]", images: int) -> tuple[Verdict, str]:
    """Rising steadily, with no step of more than LARGEST_STEP of the rise; and the step in words.

    The margin of a step is that of the test images: which units are drawn moves a leap, and makes
    none.
    """
    rank, rise, step = _rise(medians)
    if math.isnan(step):
        return "does not hold", "no rise"
    told = f"the largest step is {100 * step:.0f} % of the rise, {100 * LARGEST_STEP:.0f} % allowed"
    excess = (step - LARGEST_STEP) * rise
    if rank < SMOOTH_RANK:
        return "does not hold", told
    if excess <= 0:
        return "holds", told
    at = int(medians.diff().to_numpy()[1:].argmax())
    sides = [Errors([float(error)], images) for error in medians.iloc[at : at + 2]]
    least = margin(*sides, spread=0)
    if excess >= least:
        return "does not hold", told
    return "too close", f"{told} (too close: {excess:.2f} points above it, margin {least:.2f})"


def _grows_with_k(folder: Path, profile: str) -> _Finding:
    tables = _measured(folder, "lesion_delete")
    _learned(tables[0])
    frame = tables[0].frame
    medians = frame.groupby("k")["test_error"].median()
    rank, _, _ = _rise(medians)
    verdict, step = _smooth(medians, _images(tables[:1]))
    falls = int((medians.diff() < 0).sum())
    return _Finding(
        verdict,
        f"median error {medians.iloc[0]:.2f} % at k = {medians.index[0]}, {medians.iloc[-1]:.2f} % "
        f"at k = {medians.index[-1]} (intact {_baseline(tables[:1]):.2f} %); Spearman of k and "
        f"median {rank:.3f}, {falls} of {len(medians) - 1} steps fall, {step} "
        f"({len(frame)} deletions)",
        "a single seed" if len(tables) == 1 else f"seed {tables[0].seed} of {len(tables)}",
    )


def _grows_with_disorder(folder: Path, profile: str) -> _Finding:
    tables = _measured(folder, "lesion_reorder")
    _learned(tables[0])
    frame = tables[0].frame
    medians = frame.groupby("swaps")["test_error"].median()
    rank, _, _ = _rise(medians)
    verdict, step = _smooth(medians, _images(tables[:1]))
    tau, error = frame["kendall_tau"], frame["test_error"]
    varies = tau.nunique() > 1 and error.nunique() > 1
    rho = -float(stats.spearmanr(tau, error).statistic) if varies else 0.0
    low, high = _fisher(rho, len(frame))
    return _Finding(
        verdict if rho >= DISORDER_RANK else "does not hold",
        f"Spearman of error and 1 - tau {rho:.3f} ({100 * CONFIDENCE:.0f} % interval {low:.3f} to "
        f"{high:.3f}, {len(frame)} orders, tau {tau.min():.3f} to {tau.max():.3f}); median error "
        f"{medians.iloc[0]:.2f} % after {medians.index[0]} swap, {medians.iloc[-1]:.2f} % after "
        f"{medians.index[-1]}, Spearman {rank:.3f}, {step}",
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


def _falls_exponentially(folder: Path, profile: str) -> _Finding:
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
        "holds" if r2 >= EXPONENTIAL_R2 and float(fit.slope) + half < 0 else "does not hold",
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


def _short_and_few(folder: Path, profile: str) -> _Finding:
    """Lengths 5 to 17 hold ALMOST_ALL of the gradient, sampled as published and exact; that they
    are few of all paths is arithmetic."""
    frame = _measured(folder, "path_spectrum")[0].frame
    _of_54_units(int(frame["k"].max()))
    first, last = (int(_number("fig6c", f"effective_{end}")) for end in ("from", "to"))
    shares = {}
    for way, column in (("sampled", "total"), ("exact", "exact_norm")):
        frame = _spectrum(folder, column)
        inside = frame[(frame["k"] >= first) & (frame["k"] <= last)]
        shares[way] = float(inside[column].sum() / frame[column].sum())
    held = ", ".join(f"{100 * share:.1f} % {way}" for way, share in shares.items())
    lengths = (
        f"lengths {first} to {last} of {frame['k'].max()} "
        f"({100 * _paths_in(frame, first, last):.2g} % of all paths)"
    )
    told = f"{lengths} hold {held}; shortest intervals "
    told += f"sampled: {_intervals(frame, 'total')}; exact: {_intervals(frame, 'exact_norm')}"
    failing = [way for way, share in shares.items() if share < ALMOST_ALL]
    if len(failing) == 1:
        told = f"not by the {failing[0]} spectrum: {told}"
    return _Finding(
        "does not hold" if failing else "holds",
        told,
        "a single seed",
        f"lengths {first} to {last} of {_number('text', 'units'):g}, "
        f"{_number('fig6c', 'effective_paths_percent'):g} % of all paths",
        f"{lengths} hold {held}",
    )


def _long_paths_go(folder: Path, profile: str) -> _Finding:
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
    verdict: Verdict = "holds" if holds else "does not hold"
    return _Finding(verdict, f"paths left by the formula C(n - d, k) / C(n, k): {'; '.join(told)}")


def _highways_too(folder: Path, profile: str) -> _Finding:
    """The gated networks that learned decide; their errors are those of highway_lesion."""
    told, ends, unchecked = [], [], False
    for case in ("identity", "exclusive-gating", "shortcut-gating"):
        frame = _spectrum(folder, "exact_norm", case)
        units = int(frame["k"].max())
        lengths, weights = [int(k) for k in frame["k"]], [float(w) for w in frame["exact_norm"]]
        first, last = shortest_interval(lengths, weights, ALMOST_ALL)
        shown = f"{case_title(case)}: {first} to {last} of {units} units"
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
        "holds" if max(ends) <= 0.5 else "does not hold",
        f"shortest intervals with {100 * ALMOST_ALL:.0f} % of the exact norms, which must end "
        f"below half of the units: {'; '.join(told)}",
        caveat + ("; errors not known, run highway_lesion" if unchecked else ""),
    )


# --- section 4.3: training on effective paths ----------------------------------------------------


def _trains_as_well(folder: Path, profile: str) -> _Finding:
    tables = _measured(folder, "table")
    units = _num_units(tables[0])
    if units is not None:
        _of_54_units(units)
    frame = tables[0].frame
    errors = {
        str(case): [float(error) for error in rows["test_error"].fillna(math.inf)]
        for case, rows in frame.groupby("case")
    }
    if not {"full", "active-23"} <= set(errors):
        raise _MissingError
    full, active = errors["full"], errors["active-23"]
    _check_learned(fmean(full))
    difference = fmean(active) - fmean(full)
    images = test_images(tables[0].config, str(frame["dataset"].iloc[0]))
    least = margin(Errors(active, images), Errors(full, images), spread=spread_at(profile))
    verdict = at_most(difference, AS_WELL, least)
    interval, note = "", "a single seed"
    if not math.isfinite(difference):
        interval, note = ", no interval, a training diverged", ""
    elif len(full) > 1 and len(active) > 1:
        low, high = _welch(active, full)
        interval = f", {100 * CONFIDENCE:.0f} % interval {low:+.2f} to {high:+.2f}"
        if low > 0 and verdict == "holds":
            verdict = "too close"  # within AS_WELL, and yet higher beyond the seeds' spread
        note = f"{len(active)} seeds only" if len(active) < 5 else ""
    if verdict == "too close":
        interval += f", too close: margin {least:.2f}"
    shown = ", ".join(f"{case_title(case)}: {_listed(values)}" for case, values in errors.items())
    return _Finding(
        verdict,
        f"{shown}; 23 active units minus all {difference:+.2f} points{interval} (published "
        f"{_number('section4.3', 'error-active-23'):.2f} against "
        f"{_number('section4.3', 'error-full'):.2f} %)",
        note,
        f"{_number('section4.3', 'error-active-23'):.2f} % against "
        f"{_number('section4.3', 'error-full'):.2f} % with all",
        f"{fmean(active):.2f} % against {fmean(full):.2f} % with all{interval}",
    )


def _listed(errors: Sequence[float]) -> str:
    """`20.98 %`; of several the mean, then each and their median."""
    if len(errors) == 1:
        return f"{errors[0]:.2f} %"
    each = ", ".join(f"{error:.2f}" for error in errors)
    return f"{fmean(errors):.2f} % ({each}; median {median(errors):.2f})"


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
        "The units that downsample matter most when deleted (the network's first aside).",
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
        "Almost all gradient comes from few and short paths, of 5 to 17 of 54 units.",
        _short_and_few,
        headline=True,
    ),
    _Judge(
        "section4.3",
        "effective_paths",
        "Training with 23 of 54 units active in each batch does as well as training all.",
        _trains_as_well,
        headline=True,
    ),
    _Judge(
        "fig7",
        "fig7",
        "Deleting units removes mostly long paths.",
        _long_paths_go,
        by_formula=True,
    ),
    _Judge(
        "fig8",
        "fig8",
        "Stochastic depth makes a network more resilient to the deletion of a unit.",
        _more_resilient,
    ),
    _Judge(
        "fig8",
        "fig8",
        "Stochastic depth adds resilience at the units that downsample.",
        _resilient_where_it_downsamples,
    ),
    _Judge(
        "discussion",
        "highway_paths",
        "Highway networks, too, rely on short paths.",
        _highways_too,
    ),
)
"""Every claim, in the order of the paper."""
