"""The content of the report: for each paper its figures, claims and measurements.

It comes from `results/<paper>/<profile>/`, the papers' numbers and the experiments' YAML files; the
explanations come from `article.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from resnet_cli.claims.compare import Comparison, Row, compare, measured_profiles
from resnet_cli.claims.evidence import dataset_of
from resnet_cli.claims.judge import CLAIMS
from resnet_cli.claims.verdict import JUDGED, Claim, Judgement, Verdict, counts
from resnet_cli.claims.words import source_title
from resnet_cli.config.experiments import experiment_names, experiment_profiles, load_experiment
from resnet_cli.config.registry import STUDIES, registered
from resnet_cli.config.schema import PROFILES, Experiment
from resnet_cli.datasets.catalogue import title_of
from resnet_cli.report.article import ABOUT, Paper, Story
from resnet_cli.report.labels import (
    checkpoint_label,
    profile_label,
    repeat_command,
    training_label,
)
from resnet_cli.report.recalibration import recovered
from resnet_cli.results.layout import PROVENANCE_SUFFIX, provenance_path, table_path
from resnet_cli.results.tables import read_provenance
from resnet_cli.runtime.errors import UserError

TRAININGS = {
    "training": "training loss and test error by iteration, one curve for each case",
    "table": "test error of each case and the published one",
}
"""The content of the figures of trainings, by the stem of the file; for studies see `pictures`."""

MAX_FINDINGS = 4
"""Number of claims next to a figure; the table of claims has all of them."""


@dataclass(frozen=True)
class Plot:
    """A picture in the results."""

    path: Path
    alt: str


@dataclass(frozen=True)
class Measurement:
    """An experiment at one profile."""

    folder: Path
    experiment: str
    """Without its paper."""
    profile: str
    setting: str
    """`cpu: CIFAR-10, ResNet-110, 14 epochs`."""
    title: str
    note: str
    command: str
    """The command that repeats it; the provenance has the one that was typed."""
    commit: str
    date: str
    plots: Sequence[Plot]
    tables: Sequence[Path]


@dataclass(frozen=True)
class ClaimRow:
    """A claim with its verdict at each profile."""

    claim: Claim
    judgements: Sequence[Judgement]


@dataclass(frozen=True)
class Figure:
    """A figure of the article with its measurement."""

    story: Story
    measurement: Measurement
    plot: Plot
    question: str
    published: str
    findings: Sequence[Judgement]
    """The claims shown with it."""
    sentences: Sequence[str] = ()
    """The result in words, for a figure without claims."""


@dataclass(frozen=True)
class ErrorTable:
    """Test errors of one table and data set of a paper."""

    title: str
    columns: Sequence[str]
    """The profiles at which some of these rows were measured."""
    rows: Sequence[tuple[str, str, Sequence[str]]]
    """(case, published error, measured error for each of `columns`), in percent."""


@dataclass(frozen=True)
class Count:
    """The number of claims with each verdict at a profile."""

    profile: str
    setting: str
    verdicts: Mapping[Verdict, int]


@dataclass(frozen=True)
class Part:
    """A paper's part of the report."""

    paper: Paper
    counts: Sequence[Count]
    """By profile."""
    headlines: Sequence[ClaimRow]
    claims: Sequence[ClaimRow]
    checks: Sequence[ClaimRow]
    figures: Sequence[Figure]
    errors: Sequence[ErrorTable]
    measurements: Sequence[Measurement]


def content(results: Path) -> list[Part]:
    """The parts of the report, one for each paper with results.

    Raises:
        UserError: there are no results, or a table cannot be read.
    """
    parts = []
    for paper in ABOUT:
        comparisons = [
            compare(paper.key, name, results) for name in measured_profiles(paper.key, results)
        ]
        if comparisons:
            parts.append(_part(paper, comparisons))
    if not parts:
        raise UserError(
            f"no results in {results}; measure some: resnet-cli reproduce --profile mini"
        )
    return parts


def _part(paper: Paper, comparisons: Sequence[Comparison]) -> Part:
    measurements = [found for comparison in comparisons for found in _measurements(comparison)]
    profiles = [comparison for comparison in comparisons if comparison.profile in PROFILES]
    rows = _claim_rows(paper.key, profiles)
    stories = [_figure(story, paper.key, measurements, rows) for story in paper.stories]
    return Part(
        paper,
        [Count(c.profile, _setting(c), counts(c.judgements)) for c in comparisons],
        [row for row in rows if row.claim.short],
        [row for row in rows if not row.claim.is_check],
        [row for row in rows if row.claim.is_check],
        [figure for figure in stories if figure is not None],
        _error_tables(comparisons),
        measurements,
    )


def _setting(comparison: Comparison) -> str:
    """The data and the networks of a profile."""
    network = ""
    if comparison.profile not in PROFILES:
        tables = sorted(comparison.folder.rglob(f"*{PROVENANCE_SUFFIX}"))
        network = checkpoint_label(read_provenance(table_path(tables[0]))) if tables else ""
    datasets = {name for judgement in comparison.judgements for name in judgement.datasets}
    return profile_label(comparison.profile, sorted(datasets), network)


def _claim_rows(paper: str, comparisons: Sequence[Comparison]) -> list[ClaimRow]:
    by_profile = [comparison.judgements for comparison in comparisons]
    return [
        ClaimRow(claim, judgements)
        for claim, *judgements in zip(CLAIMS[paper], *by_profile, strict=True)
    ]


def _figure(
    story: Story, paper: str, measurements: Sequence[Measurement], rows: Sequence[ClaimRow]
) -> Figure | None:
    """The figure at the first profile where its claims are decided, or else at the first that has
    it; None if no profile has it."""
    candidates = [
        (found, plot)
        for found in measurements
        for plot in found.plots
        if found.experiment == story.experiment and plot.path.stem == story.plot
    ]
    of_story = [row for row in rows if row.claim.source in story.sources]
    judged = [j for row in of_story for j in row.judgements if j.verdict in JUDGED]
    decided = {judgement.profile for judgement in judged}
    candidates.sort(key=lambda candidate: candidate[0].profile not in decided)
    if not candidates:
        return None
    measurement, plot = candidates[0]
    experiment = _experiment(f"{paper}/{story.experiment}")
    here = [judgement for judgement in judged if judgement.profile == measurement.profile]
    here.sort(key=lambda judgement: not judgement.claim.short)
    return Figure(
        story,
        measurement,
        plot,
        (experiment.question or "") if experiment else "",
        (experiment.published or "") if experiment else "",
        here[:MAX_FINDINGS],
        recovered(measurement.folder.parent) if story.experiment == "recalibration" else (),
    )


@cache
def _experiment(name: str) -> Experiment | None:
    """An experiment at its most usual profile; None if there is no such experiment."""
    if name not in experiment_names():
        return None
    offered = experiment_profiles(name)
    return load_experiment(name, next(p for p in ("mini", *PROFILES) if p in offered))


# --- errors --------------------------------------------------------------------------------------


def _error_tables(comparisons: Sequence[Comparison]) -> list[ErrorTable]:
    """For each table and data set, the published error of each case and those of each profile."""
    rows: dict[tuple[str, str], dict[str, Row]] = {}
    for comparison in comparisons:
        for row in comparison.rows:
            rows.setdefault((row.source, row.paper_data), {}).setdefault(row.case, row)
    tables = []
    for (source, dataset), cases in rows.items():
        measured = {
            comparison.profile: {
                row.case: row
                for row in comparison.rows
                if (row.source, row.paper_data) == (source, dataset) and row.measured is not None
            }
            for comparison in comparisons
        }
        columns = [profile for profile, found in measured.items() if found]
        body = [
            (row.title, row.publication, [_measured(measured[p].get(case)) for p in columns])
            for case, row in cases.items()
        ]
        title = f"{source_title(source)}, {title_of(dataset)}"
        tables.append(ErrorTable(title, columns, body))
    return tables


def _measured(row: Row | None) -> str:
    """`1.39`, `fail (86.94)`, `0.56, 3 seeds`, `30.15, ResNet-38`, percent."""
    if row is None or row.measured is None:
        return ""
    found = row.measured
    error = "diverged" if found.status == "diverged" else f"{found.median:.2f}"
    parts = [f"fail ({error})" if found.status == "fail" else error]
    if found.num_seeds > 1:
        parts.append(f"{found.num_seeds} seeds")
    if found.model is not None and row.network and found.model.label != row.network:
        parts.append(str(found.network))
    return ", ".join(parts)


# --- the contents of results/ -------------------------------------------------------------------


def _measurements(comparison: Comparison) -> list[Measurement]:
    folders = sorted(path for path in comparison.folder.iterdir() if path.is_dir())
    found = [measurement_of(folder, comparison.paper, comparison.profile) for folder in folders]
    return [measurement for measurement in found if measurement is not None]


def measurement_of(folder: Path, paper: str, profile: str) -> Measurement | None:
    """The measurement in an experiment's folder; None if no table has a provenance."""
    tables = [table for table in sorted(folder.rglob("*.csv")) if provenance_path(table).exists()]
    if not tables:
        return None
    # A later measurement replaces some tables of a folder; its configuration describes them all.
    provenances = [read_provenance(table) for table in tables]
    provenance = max(provenances, key=lambda provenance: str(provenance.get("started")))
    config = provenance.get("config") or {}
    trained = training_label(provenance)
    setting = f"{profile}: {trained}" if trained else f"{profile}: a formula, no network"
    if profile not in PROFILES:
        setting = f"{checkpoint_label(provenance)}, {title_of(dataset_of(config))}"
    experiment = _experiment(f"{paper}/{folder.name}")
    title = str(config.get("title") or (experiment.title if experiment else folder.name))
    plots = [
        Plot(path, f"{title}; {setting}: {_picture(path, folder)}")
        for path in sorted(folder.glob("*.png")) or sorted(folder.glob("*/*.png"))
    ]
    commit = str(provenance.get("commit") or "unknown")[:10]
    return Measurement(
        folder,
        folder.name,
        profile,
        setting,
        title,
        " ".join(str(config.get("note") or "").split()),
        repeat_command(f"{paper}/{folder.name}", profile, provenance),
        commit + (" and changes" if provenance.get("dirty") else ""),
        str(provenance.get("started"))[:10],
        plots,
        tables,
    )


def pictures() -> dict[str, str]:
    """Figure -> its content, for trainings and all studies."""
    shown = dict(TRAININGS)
    for kind in STUDIES:
        shown |= registered(STUDIES, "study", kind).pictures
    return shown


def _picture(path: Path, folder: Path) -> str:
    """The content of a plot in an experiment's folder or in the folder of a case."""
    shown = pictures().get(path.stem, path.stem.replace("_", " "))
    return shown if path.parent == folder else f"{shown}, of {path.parent.name}"
