"""Measured beside published: a paper's tables row by row, and its claims one by one.

The measurements are the `table.csv` files under `results/<paper>/<profile>/`, the published numbers
those of `resnet_cli.claims.papers`. Each paper's claims stand in a module of their own,
`<paper>.py`, with one function `claims(folder, profile)`.

One seed a training gives one error, so a case is a handful of errors. As in paper 1 the median
stands for them. The interval is Student's t for their mean, at 95 %: no interval of the median that
holds for every distribution reaches 95 % with the paper's five runs.
"""

import importlib
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from resnet_cli.claims.judge import Claim, counts, legend
from resnet_cli.claims.papers import PAPERS, case_title, published
from resnet_cli.config.fields import FAILS_ABOVE
from resnet_cli.config.schema import PROFILES
from resnet_cli.datasets.catalogue import known, title_of
from resnet_cli.results.layout import RESULTS, provenance_path
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError, unknown

CONFIDENCE = 0.95
PREFERENCE = ("paper", "cpu", "mini", "smoke")
"""Profiles from the one nearest to the papers' protocol. The first that has results is compared
when none is named, and speaks first in the report; folders of other names follow, by name."""


@dataclass(frozen=True)
class Measured:
    """A case as measured: the test errors of its trainings, one a seed."""

    source: str
    """The table or figure: `table1`."""
    case: str
    dataset: str
    errors: tuple[float, ...]
    """Percent, after the last epoch; infinite for a training that diverged."""
    statuses: tuple[str, ...]
    """`ok`, `fail` or `diverged` of each training."""
    images: int | None = None
    """Test images; None where nobody tells."""
    fails_above: float | None = None
    """Percent: the mark of a failure; None where there is none."""

    @property
    def num_seeds(self) -> int:
        return len(self.errors)

    @property
    def median(self) -> float:
        """Percent; infinite when as many trainings diverged as did not."""
        return statistics.median(self.errors)

    @property
    def status(self) -> str:
        """`diverged` when the median is infinite; `fail` when half of the trainings failed."""
        if not math.isfinite(self.median):
            return "diverged"
        failed = sum(status != "ok" for status in self.statuses)
        return "fail" if 2 * failed >= len(self.statuses) else "ok"

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean, percent, cut at 0 and 100; None for one seed or a
        divergence."""
        if self.num_seeds < 2 or not all(map(math.isfinite, self.errors)):
            return None
        from scipy import stats

        mean = statistics.fmean(self.errors)
        spread = statistics.stdev(self.errors)
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.num_seeds - 1))
        half = quantile * spread / math.sqrt(self.num_seeds)
        return max(0.0, mean - half), min(100.0, mean + half)

    def __str__(self) -> str:
        """`dropout fail (89.72 %)`, `original 1.39 %`, `scaling-0-1 diverged`."""
        if self.status == "diverged":
            return f"{self.case} diverged"
        error = f"{self.median:.2f} %"
        return f"{self.case} fail ({error})" if self.status == "fail" else f"{self.case} {error}"


Measurements = Mapping[str, Mapping[str, Measured]]
"""source -> case -> what was measured."""


@dataclass(frozen=True)
class Row:
    """A row of a paper's table, with what was measured for it."""

    source: str
    case: str
    published: float | None
    """Percent; None where the paper says "fail", or has no such row."""
    published_status: str
    """`ok`, `fail`, or empty when the paper has no such row."""
    approximate: bool
    """The published number was not checked against the paper's text."""
    reference: bool
    """The paper quotes the number from elsewhere."""
    measured: Measured | None
    paper_data: str = "cifar10"
    """The data set that the paper measured on."""

    @property
    def title(self) -> str:
        """The case in words, without its data set."""
        return case_title(self.case.removesuffix(f"-{self.paper_data}"))

    @property
    def is_on_the_papers_data(self) -> bool:
        """Whether it was measured on what the paper measured on; ImageNet is a folder of images."""
        ours = known(self.measured.dataset) if self.measured is not None else None
        return ours is not None and ours.paper_name == self.paper_data

    @property
    def difference(self) -> float | None:
        """Median measured minus published, in points; None where the data are not the paper's."""
        if self.measured is None or self.published is None or not self.is_on_the_papers_data:
            return None
        return _finite(self.measured.median - self.published)

    @property
    def status(self) -> str:
        """That of the measurement, else `published only` or `not measured`."""
        if self.measured is not None:
            return self.measured.status
        return "published only" if self.reference else "not measured"

    def to_dict(self, profile: str) -> dict[str, Any]:
        """For JSON: numbers that are none, or not finite, are null."""
        found = self.measured
        interval = found.interval if found is not None else None
        return {
            "source": self.source,
            "case": self.case,
            "published": self.published,
            "published_status": self.published_status or None,
            "published_approximate": self.approximate,
            "published_dataset": self.paper_data,
            "profile": profile,
            "dataset": found.dataset if found is not None else None,
            "measured": _finite(found.median) if found is not None else None,
            "seeds": found.num_seeds if found is not None else 0,
            "errors": [_finite(e) for e in found.errors] if found is not None else [],
            "interval": list(interval) if interval is not None else None,
            "difference": self.difference,
            "status": self.status,
        }


@dataclass(frozen=True)
class Comparison:
    """A paper against what was measured at one profile."""

    paper: str
    profile: str
    folder: Path
    rows: Sequence[Row]
    claims: Sequence[Claim]
    others: Sequence[str] = ()
    """Other profiles that have results."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "paper": self.paper,
            "profile": self.profile,
            "rows": [row.to_dict(self.profile) for row in self.rows],
            "claims": [vars(claim) for claim in self.claims],
            "counts": counts(self.claims),
        }


def compare(paper: str, profile: str | None = None, results: Path = RESULTS) -> Comparison:
    """Set a paper's numbers and claims beside what lies in `results/<paper>/<profile>/`.

    Args:
        profile: a profile, or another folder's name beside the profiles; None takes the first of
            PREFERENCE that has results.

    Raises:
        UserError: no such paper or profile, no results there, or a table that cannot be read.
    """
    if paper not in PAPERS:
        raise unknown("paper", paper, PAPERS)
    home = results / paper
    found = measured_profiles(paper, results)
    if profile is None:
        profile = next((name for name in PREFERENCE if name in found), "mini")
    elif profile not in (*PROFILES, *_folders(home)):
        raise unknown("profile", profile, {*PROFILES, *found})
    if profile not in found:
        there = f" (there are results of: {', '.join(found)})" if found else ""
        wanted = profile if profile in PROFILES else "mini"
        raise UserError(
            f"no results in {home / profile}{there}; measure them: "
            f"resnet-cli reproduce {paper} --profile {wanted}"
        )
    folder = home / profile
    return Comparison(
        paper=paper,
        profile=profile,
        folder=folder,
        rows=rows(paper, read_measurements(folder)),
        claims=claims_of(paper, folder, profile),
        others=tuple(name for name in found if name != profile),
    )


def measured_profiles(paper: str, results: Path = RESULTS) -> list[str]:
    """The profiles that have results, and folders of other names that do, by PREFERENCE."""
    home = results / paper
    names = _folders(home)
    found = [name for name in names if next((home / name).rglob("*.csv"), None) is not None]
    return by_preference(found)


def by_preference(names: Iterable[str]) -> list[str]:
    """Profiles as PREFERENCE has them, then folders of other names, by name."""
    there = set(names)
    return [name for name in PREFERENCE if name in there] + sorted(there.difference(PREFERENCE))


def _folders(home: Path) -> list[str]:
    return [p.name for p in home.iterdir() if p.is_dir()] if home.is_dir() else []


# --- measured ------------------------------------------------------------------------------------


def read_measurements(folder: Path) -> Measurements:
    """All cases in the `table.csv` files of a profile's folder.

    A table belongs to the table or figure that its provenance names (`config.figure`), else to the
    part of its folder's name before a hyphen: `table3-cifar10` -> `table3`. A seed that two
    experiments of one source measured counts once.

    Raises:
        UserError: a table cannot be read.
    """
    gathered: dict[tuple[str, str], dict[int, tuple[float, str, str]]] = {}
    told: dict[tuple[str, str], tuple[int | None, float | None]] = {}
    for path in sorted(folder.glob("*/table.csv")):
        config = _config(path)
        source = _source(path, config)
        for row in read_table(path).to_dict("records"):
            error, status = float(row["test_error"]), str(row["status"])
            if status == "diverged" or not math.isfinite(error):
                error, status = math.inf, "diverged"
            trainings = gathered.setdefault((source, str(row["case"])), {})
            dataset = str(row["dataset"])
            trainings.setdefault(int(row["seed"]), (error, status, dataset))
            told.setdefault(
                (source, str(row["case"])),
                (test_images(config, dataset), _fails_above(config, dataset)),
            )
    measurements: dict[str, dict[str, Measured]] = {}
    for (source, case), trainings in gathered.items():
        errors, statuses, datasets = zip(*trainings.values(), strict=True)
        measurements.setdefault(source, {})[case] = Measured(
            source,
            case,
            ", ".join(dict.fromkeys(datasets)),
            errors,
            statuses,
            *told[source, case],
        )
    return measurements


def _config(table: Path) -> Mapping[str, Any]:
    """The configuration that a table's provenance has; empty where there is none."""
    config = read_provenance(table).get("config") if provenance_path(table).exists() else None
    return config if isinstance(config, dict) else {}


def _source(table: Path, config: Mapping[str, Any]) -> str:
    """The table or figure of the paper that a table.csv belongs to."""
    figure = config.get("figure")
    return figure if isinstance(figure, str) else table.parent.name.partition("-")[0]


def test_images(config: Mapping[str, Any], dataset: str) -> int | None:
    """How many test images were used; None where nobody tells.

    Args:
        config: an experiment's, as its provenance has it; may be empty.
    """
    asked = (config.get("data") or {}).get("test_images")
    if asked is not None:
        return int(asked)
    entry = known(dataset)
    return None if entry is None else entry.counts.get("test")


def _fails_above(config: Mapping[str, Any], dataset: str) -> float | None:
    """As the runner has it, which marks no failures on data sets of more than ten classes."""
    asked = config.get("fail_above", "auto")
    if asked == "auto":
        entry = known(dataset)
        return FAILS_ABOVE if entry is not None and 0 < len(entry.classes) <= 10 else None
    return None if asked is None else float(asked)


# --- beside published ----------------------------------------------------------------------------


def rows(paper: str, measurements: Measurements) -> list[Row]:
    """The rows of a paper's tables in its order; in each, then, cases it has no number for."""
    found: list[Row] = []
    for row in _published_rows(paper):
        measured = measurements.get(row.source, {}).get(row.case)
        found.append(Row(**vars(row) | {"measured": measured}))
    sources = list(dict.fromkeys(row.source for row in found))
    known = {(row.source, row.case) for row in found}
    for source in sources:
        data = [row.paper_data for row in found if row.source == source]
        for case, measured in measurements.get(source, {}).items():
            if (source, case) not in known:
                of = next((name for name in data if case.endswith(f"-{name}")), data[0])
                found.append(Row(source, case, None, "", False, False, measured, of))
    return sorted(found, key=lambda row: sources.index(row.source))


def _published_rows(paper: str) -> list[Row]:
    """A paper's published errors, as rows without a measurement; top-1 where there is top-5."""
    table = published(paper)
    if paper == "veit2016":
        table = table[table["quantity"].str.startswith("error-")]
        table = pandas.DataFrame(
            {
                "source": table["figure"],
                "case": table["quantity"].str.removeprefix("error-"),
                "dataset": "cifar10",
                "value": table["value"],
                "status": "ok",
                "checked": table["checked"],
                "remark": table["remark"],
            }
        )
    else:
        table = table[table["metric"] != "top5_error"]
    return [
        Row(
            source=str(row["source"]),
            case=str(row["case"]),
            published=_finite(float(row["value"])),
            published_status=str(row["status"]),
            approximate=bool(row["checked"] != "v"),
            reference=str(row["remark"]).startswith("reference"),
            measured=None,
            paper_data=str(row["dataset"]),
        )
        for row in table.to_dict("records")
    ]


def claims_of(paper: str, folder: Path, profile: str) -> list[Claim]:
    """A paper's claims, judged by its own module (which may import this one)."""
    module = importlib.import_module(f"{__package__}.{paper}")
    judged: list[Claim] = module.claims(folder, profile)
    return judged


def caveats_of(paper: str) -> Mapping[str, str]:
    """What each profile cannot show, with which the caveats of its claims begin."""
    module = importlib.import_module(f"{__package__}.{paper}")
    caveats: Mapping[str, str] = module.CAVEATS
    return caveats


# --- showing -------------------------------------------------------------------------------------


COLUMNS = ("case", "paper", "ours", "seeds", "95 % interval", "difference", "status", "data")


def show(comparison: Comparison, display: Display) -> None:
    """Print a comparison: a table for each source and data set that was measured, the claims."""
    paper, profile = comparison.paper, comparison.profile
    tables: dict[str, dict[str, list[Row]]] = {}
    for row in comparison.rows:
        tables.setdefault(row.source, {}).setdefault(row.paper_data, []).append(row)
    missing, shown = [], []
    for source, of_source in tables.items():
        found = [name for name, rows in of_source.items() if any(row.measured for row in rows)]
        if not found:
            missing.append(source)
        for name, of_data in of_source.items():
            whole = f"{source} of {title_of(name)}" if len(of_source) > 1 else source
            if name in found:
                _show_source(f"{paper} {whole}", profile, of_data, display)
                shown += of_data
            elif found:
                missing.append(whole)
    if shown:
        display.paragraph(_note(shown), level=-1)
    if missing:
        display.paragraph(f"nothing measured at profile {profile}: {', '.join(missing)}", level=-1)
    display.line("", level=-1)
    _show_claims(comparison, display)
    if comparison.others:
        display.paragraph(f"other results: --profile {' | '.join(comparison.others)}", level=-1)


def _note(rows: Sequence[Row]) -> str:
    """What the columns of these rows are."""
    told = ["ours: median over seeds"]
    if any(row.measured is not None and row.measured.interval for row in rows):
        told.append("95 % interval: Student's t, of the mean, cut at 0 and 100")
    others = [r for r in rows if r.measured is not None and not r.is_on_the_papers_data]
    if others:
        of = " and ".join(dict.fromkeys(title_of(row.paper_data) for row in others))
        told.append(f"no difference where our data are not the paper's, {of}")
    return "; ".join(told)


def _show_claims(comparison: Comparison, display: Display) -> None:
    """The claims, what their caveats share told once before them, and how many have which verdict.

    Claims by formula stand last, alone and uncounted.
    """
    paper, profile = comparison.paper, comparison.profile
    judged = [claim for claim in comparison.claims if not claim.by_formula]
    if not judged:
        return
    own = caveats_of(paper).get(profile, "")
    rests = {c.text: c.caveat.removeprefix(own).removeprefix("; ") for c in comparison.claims}
    common = Counter(rests[c.text] for c in judged if c.caveat).most_common(1)
    shared = common[0][0] if common and common[0][1] > 1 else ""
    if general := "; ".join(part for part in (own, shared) if part and common):
        display.paragraph(f"of the claims below, unless they say otherwise: {general}", level=-1)
    if any(claim.verdict == "too close" for claim in judged):
        display.paragraph(legend(profile), level=-1)
    for claim in [*judged, *(claim for claim in comparison.claims if claim.by_formula)]:
        verdict = claim.verdict.upper()
        if claim.by_formula and claim.verdict != "not measured":
            verdict += " BY FORMULA"
        display.paragraph(f"{verdict}  {claim.source}: {claim.text}", level=-1)
        display.paragraph(claim.evidence, indent=4, level=-1)
        if rests[claim.text] not in ("", shared):
            display.paragraph(f"({rests[claim.text]})", indent=4, level=-1)
    found = counts(comparison.claims)
    uncounted = len(comparison.claims) - len(judged)
    display.paragraph(
        f"{paper}, profile {profile}: {found['holds']} of {len(judged)} claims hold, "
        f"{found['does not hold']} do not, {found['too close']} too close to call, "
        f"{found['not measured']} not measured"
        + (f"; by formula, not counted: {uncounted}" if uncounted else ""),
        level=-1,
    )


def _show_source(name: str, profile: str, rows: Sequence[Row], display: Display) -> None:
    """The table of one source. The data go into its title where they are the same throughout, and
    intervals need a column only where there are several seeds."""
    found = [row.measured for row in rows if row.measured is not None]
    datasets = list(dict.fromkeys(measured.dataset for measured in found))
    left_out = set() if len(datasets) > 1 else {"data"}
    if all(measured.interval is None for measured in found):
        left_out.add("95 % interval")
    kept = [index for index, column in enumerate(COLUMNS) if column not in left_out]
    title = f"{name}: test error in percent, profile {profile}"
    if len(datasets) == 1:
        title += f", {datasets[0]}"
    cells = [_shown(row) for row in rows]
    display.table(title, [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in cells])


def _shown(row: Row) -> list[object]:
    """A row's cells."""
    publication: object = row.published
    if row.published_status == "fail":
        publication = "fail"
    elif row.approximate:
        publication = f"about {row.published:g}"
    found = row.measured
    if found is None:
        return [row.title, publication, None, None, None, None, row.status, None]
    interval = found.interval
    return [
        row.title,
        publication,
        _finite(found.median),
        found.num_seeds,
        f"{interval[0]:.2f} to {interval[1]:.2f}" if interval is not None else None,
        f"{row.difference:+.2f}" if row.difference is not None else None,
        row.status,
        found.dataset,
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
