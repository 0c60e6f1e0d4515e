"""What the report says: for each table and figure the published numbers, ours, and the verdicts.

All of it is read from `results/<paper>/<profile>/`, the papers' numbers and the experiments' own
headers; nothing is typed here but what each paper says, and short names of its headline claims.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.claims.compare import (
    Comparison,
    Measured,
    Row,
    caveats_of,
    compare,
    measured_profiles,
)
from resnet_cli.claims.judge import Claim
from resnet_cli.claims.judge import counts as counts_of
from resnet_cli.claims.papers import PAPERS, published
from resnet_cli.config.experiments import (
    experiment_names,
    experiment_profiles,
    experiments_folder,
    load_experiment,
)
from resnet_cli.config.registry import STUDIES, registered
from resnet_cli.config.schema import PROFILES
from resnet_cli.datasets import catalogue
from resnet_cli.datasets.catalogue import datasets, title_of
from resnet_cli.report.wording import (
    column,
    command_again,
    network_of,
    setting,
    trained,
)
from resnet_cli.results.layout import PROVENANCE_SUFFIX, provenance_path, table_path
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.runtime.errors import UserError

BEYOND = "beyond"
"""The section of experiments that belong to no table and no figure."""


@dataclass(frozen=True)
class Paper:
    """A paper in a few words."""

    key: str
    authors: str
    title: str
    arxiv: str
    says: str
    """In at most two lines of a card."""
    short: Mapping[str, str]
    """How a headline claim begins -> its name in a line; the first screen has these."""
    pictures: Sequence[tuple[str, str]]
    """(figure, stem of its plot): the first that is there stands on the first screen."""


ABOUT = (
    Paper(
        "he2016",
        "He, Zhang, Ren, Sun 2016",
        "Identity Mappings in Deep Residual Networks",
        "1603.05027",
        "Leave the shortcut alone, put batch norm and ReLU before the convolutions: 1,001 layers "
        "train, and deeper is better.",
        {
            "The identity is the best": "The identity is the best shortcut",
            "A shortcut scaled by a constant": "A shortcut of 0 or 0.5 is worse",
            "From 164 to 1001 layers": "Only pre-activation gains from depth",
        },
        (("fig1", "training"), ("table1", "table")),
    ),
    Paper(
        "veit2016",
        "Veit, Wilber, Belongie 2016",
        "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
        "1605.06431",
        "A network of n units is 2ⁿ paths: delete a unit and the rest work on, as an ensemble. "
        "Short paths carry nearly all gradient.",
        {
            "Deleting one unit of a residual": "Deleting one unit barely matters",
            "Almost all gradient comes": "Short paths carry nearly all gradient",
            "Training with 23 of 54": "Training 23 of 54 units does as well",
        },
        (("fig3", "lesion_single"), ("fig6", "paths")),
    ),
)
assert tuple(paper.key for paper in ABOUT) == PAPERS

TRAININGS = {
    "training": "training loss and test error by iteration, one curve for each case",
    "table": "test error of each case beside the published one",
}
"""What the figures of trainings show, by the stem of the file; those of studies: `pictures`."""

MAIN = (
    "paths",
    "lesion_count",
    "lesion_reorder",
    "lesion_greedy",
    "lesion_additivity",
    "lesion_single",
    "path_survival",
    "signal",
)
"""Plots that are shown at once, the first that is there; others are shown on demand. Of trainings a
table shows its bars and a figure its curves."""

MARKS: Mapping[str, str] = {"holds": "✓", "does not hold": "✗", "too close": "≈"}
"""Before a verdict; a dash before any that is no judgement."""
WORDS = {"too close": "too close to call"}
"""Verdicts that are written out."""


@dataclass(frozen=True)
class Plot:
    """A picture in the results."""

    path: Path
    alt: str


@dataclass(frozen=True)
class Measurement:
    """An experiment at one profile."""

    experiment: str
    profile: str
    setting: str
    """`cpu: CIFAR-10, ResNet-38, 2 epochs`."""
    title: str
    note: str
    command: str
    """That gives it again; the one that was typed stands in the provenance."""
    commit: str
    measured: str
    """The date."""
    main: Plot | None
    """The plot to show at once."""
    others: Sequence[Plot]
    tables: Sequence[tuple[Path, Path | None]]
    """Each table, and its provenance."""

    @property
    def plots(self) -> list[Plot]:
        """All of them."""
        return [*([self.main] if self.main else []), *self.others]


@dataclass(frozen=True)
class Errors:
    """Test errors that the paper gives for one data set."""

    dataset: str
    """The paper's, as the page names it, with its network if it has but one."""
    columns: Sequence[str]
    """`mini: digits, ResNet-110, 30 epochs`: where some of these rows were measured."""
    rows: Sequence[tuple[str, str, Sequence[str]]]
    """(case in words, published error, measured error in each of `columns`), percent."""

    @property
    def measured(self) -> int:
        """Rows that were measured anywhere."""
        return sum(any(found) for _, _, found in self.rows)


@dataclass(frozen=True)
class Finding:
    """What one profile makes of a claim."""

    profile: str
    setting: str
    """`CIFAR-10, short schedule`; empty for a formula, which is the same everywhere."""
    claim: Claim
    """Without the paper's data in its names where ours are others."""
    units: int = 0
    """The network's, where the claim is about as many as it has not."""

    @property
    def verdict(self) -> str:
        """The claim's in words, or `does not apply (9 units)`."""
        if self.units:
            return f"does not apply ({self.units} units)"
        told = WORDS.get(self.claim.verdict, str(self.claim.verdict))
        return f"{told} by formula" if self.claim.by_formula else told

    @property
    def mark(self) -> str:
        """A sign for the verdict."""
        return MARKS.get(self.claim.verdict, "–")

    @property
    def kind(self) -> str:
        """The verdict as a CSS class."""
        return self.claim.verdict.replace(" ", "-") if self.is_judged else "no-verdict"

    @property
    def is_judged(self) -> bool:
        """Whether there is a judgement."""
        return self.claim.verdict in MARKS


@dataclass(frozen=True)
class Judged:
    """A claim, and what each profile that has an opinion makes of it."""

    source: str
    text: str
    findings: Sequence[Finding]


@dataclass
class Section:
    """A table or a figure of a paper."""

    key: str
    title: str
    question: str = ""
    published: str = ""
    """The published picture in words, from the experiment's header."""
    errors: list[Errors] = field(default_factory=list)
    """By the paper's data set."""
    judged: list[Judged] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    """By profile, the first of an experiment being the one to show at once."""
    commands: list[str] = field(default_factory=list)
    """What would measure it, where nothing was."""

    @property
    def first(self) -> list[Judged]:
        """The claims to show at once: all of a few, else three, the headlines before others."""
        if len(self.judged) <= 4:
            return self.judged
        order = sorted(self.judged, key=lambda one: not one.findings[0].claim.headline)
        return order[:3]

    @property
    def further(self) -> list[Judged]:
        """The claims to show on demand."""
        return [one for one in self.judged if one not in self.first]

    @property
    def shown(self) -> list[Measurement]:
        """Of each experiment the one nearest to the paper's protocol; none beyond the paper."""
        if self.key == BEYOND:
            return []
        first: dict[str, Measurement] = {}
        for found in self.measurements:
            first.setdefault(found.experiment, found)
        return list(first.values())

    @property
    def folded(self) -> list[Measurement]:
        """The measurements at other profiles."""
        return [found for found in self.measurements if found not in self.shown]


@dataclass(frozen=True)
class Headline:
    """One of the claims that a paper stands for."""

    source: str
    text: str
    short: str
    """In a line; empty when the first screen does without it."""
    published: str
    findings: Sequence[Finding]
    """At each profile, also those that did not measure it."""


@dataclass(frozen=True)
class Count:
    """How many claims have which verdict at a profile."""

    profile: str
    setting: str
    verdicts: Mapping[str, int]

    @property
    def holding(self) -> int:
        """Claims that hold."""
        return self.verdicts.get("holds", 0)

    @property
    def judged(self) -> int:
        """Claims that were measured and judged."""
        return sum(self.verdicts.get(verdict, 0) for verdict in MARKS)

    def __str__(self) -> str:
        """`CIFAR-10, short schedule: 5 of 9 hold, 1 too close to call`."""
        close = self.verdicts.get("too close", 0)
        told = f", {close} too close to call" if close else ""
        return f"{self.setting}: {self.holding} of {self.judged} hold{told}"


@dataclass(frozen=True)
class Part:
    """A paper's part of the report."""

    paper: Paper
    counts: Sequence[Count]
    """By profile."""
    headlines: Sequence[Headline]
    picture: tuple[Plot, Section] | None
    """For the first screen."""
    claims: int
    formulas: int
    """Of the claims, those that are arithmetic and not counted."""
    caveats: Mapping[str, str]
    """What a profile cannot show, whatever the claim."""
    sections: Sequence[Section]

    @property
    def main_counts(self) -> list[Count]:
        """Those of the profiles: of networks like the paper's."""
        return [count for count in self.counts if count.profile in PROFILES and count.judged]


def content(results: Path) -> list[Part]:
    """The report's parts, of each paper that has results.

    Raises:
        UserError: there are no results, or a table cannot be read.
    """
    parts = []
    for paper in ABOUT:
        comparisons = _comparisons(paper.key, results)
        if comparisons:
            parts.append(_part(paper, comparisons))
    if not parts:
        raise UserError(
            f"no results in {results}; measure some: resnet-cli reproduce --profile mini"
        )
    return parts


def _comparisons(paper: str, results: Path) -> list[Comparison]:
    """A paper at every profile that has results, in the order they are shown."""
    return [compare(paper, name, results) for name in measured_profiles(paper, results)]


def _part(paper: Paper, comparisons: Sequence[Comparison]) -> Part:
    settings = {c.profile: _setting(c) for c in comparisons}
    counts = [
        Count(c.profile, settings[c.profile], {str(k): n for k, n in counts_of(c.claims).items()})
        for c in comparisons
    ]
    caveats = _caveats(paper.key, comparisons)
    judged = _judged(paper.key, comparisons, settings, caveats)
    sections = _sections(paper.key)
    for section in sections.values():
        _fill(section, paper.key, comparisons)
        section.judged = [_opinions(j) for j in judged if _belongs(j.source, section.key)]
    _fold_curves(list(sections.values()))
    return Part(
        paper,
        counts,
        _headlines(paper, judged),
        _picture_of(paper, sections),
        len(judged),
        sum(one.findings[0].claim.by_formula for one in judged),
        caveats,
        list(sections.values()),
    )


def _setting(comparison: Comparison) -> str:
    """What a profile measured, in words."""
    network = ""
    if comparison.profile not in PROFILES:
        tables = sorted(comparison.folder.rglob(f"*{PROVENANCE_SUFFIX}"))
        network = network_of(read_provenance(table_path(tables[0]))) if tables else ""
    datasets = sorted({claim.dataset for claim in comparison.claims if claim.dataset})
    return setting(comparison.profile, datasets, network)


def _is_measured(claim: Claim) -> bool:
    return claim.verdict != "not measured"


def _picture_of(paper: Paper, sections: Mapping[str, Section]) -> tuple[Plot, Section] | None:
    for key, stem in paper.pictures:
        for found in sections[key].measurements:
            for plot in found.plots:
                if plot.path.stem == stem and found.profile in PROFILES:
                    return plot, sections[key]
    return None


# --- claims --------------------------------------------------------------------------------------


def _judged(
    paper: str,
    comparisons: Sequence[Comparison],
    settings: Mapping[str, str],
    caveats: Mapping[str, str],
) -> list[Judged]:
    """Every claim, with what each profile makes of it; caveats without what is told elsewhere."""
    claims: dict[str, list[Finding]] = {}
    for comparison in comparisons:
        profile = comparison.profile
        general = caveats.get(profile, "")
        own = caveats_of(paper).get(profile, "")
        for claim in comparison.claims:
            rest = "" if claim.caveat == general else _rest(claim.caveat, own)
            parts = [part for part in rest.split("; ") if "seed" not in part]  # told beside it
            shown = replace(_on_our_data(claim), caveat="; ".join(parts))
            units = re.match(r"does not apply to (\d+) units", claim.evidence)
            others = int(units[1]) if units and not _is_measured(claim) else 0
            at = "" if claim.by_formula else settings[profile]
            finding = Finding(profile, at, shown, others)
            claims.setdefault(claim.text, []).append(finding)
    found = []
    for text, findings in claims.items():
        datasets = ", ".join({f.claim.dataset: None for f in findings if f.claim.dataset})
        told = _renamed(text, datasets, " (in the paper on {})") if datasets else text
        found.append(Judged(findings[0].claim.source, told.rstrip("."), findings))
    return found


def _opinions(judged: Judged) -> Judged:
    """Without the profiles that did not measure it; of those that all did not, the first."""
    found = [f for f in judged.findings if f.is_judged or f.units]
    if found and found[0].claim.by_formula:
        found = found[:1]
    if not any(f.is_judged for f in found):
        found = []
    return replace(judged, findings=found or judged.findings[:1])


def _headlines(paper: Paper, judged: Sequence[Judged]) -> list[Headline]:
    found = []
    for one in judged:
        claims = [finding.claim for finding in one.findings]
        if claims[0].headline:
            names = [name for start, name in paper.short.items() if one.text.startswith(start)]
            short = names[0] if names else ""
            found.append(Headline(one.source, one.text, short, claims[0].published, one.findings))
    if not any(headline.short for headline in found):
        found = [replace(headline, short=headline.text) for headline in found]
    return found


def _caveats(paper: str, comparisons: Sequence[Comparison]) -> dict[str, str]:
    """By profile: its caveat, and what else all its measured claims share."""
    found = {}
    for comparison in comparisons:
        general = caveats_of(paper).get(comparison.profile, "")
        rests = [_rest(c.caveat, general) for c in comparison.claims if _is_measured(c)]
        shared = set(rests).pop() if len(rests) > 1 and len(set(rests)) == 1 else ""
        if told := "; ".join(part for part in (general, shared) if part):
            found[comparison.profile] = told
    return found


def _rest(caveat: str, general: str) -> str:
    """What a claim's caveat has beside the general one."""
    return caveat.removeprefix(general).removeprefix("; ") if general else caveat


# --- data sets -----------------------------------------------------------------------------------


def _on_our_data(claim: Claim) -> Claim:
    """A measured claim without the paper's data in its names, where ours are others."""
    if not claim.dataset:
        return claim
    return replace(
        claim,
        text=_renamed(claim.text, claim.dataset, " (in the paper on {})"),
        evidence=_renamed(claim.evidence, claim.dataset),
        published=_renamed(claim.published, claim.dataset),
        ours=_renamed(claim.ours, claim.dataset),
    )


def _renamed(text: str, dataset: str, instead: str = "") -> str:
    """Without `-cifar10` in the names of cases (not of experiments, `he2016/table3-cifar10`) and
    without `, CIFAR-10` at the end (or `instead` of it), where another data set was measured."""
    for name in (entry.name for entry in datasets() if entry.name == entry.paper_name):
        if name not in dataset.split(", "):
            text = re.sub(rf"(?<![\w/.-])([\w.-]+?)-{name}\b", r"\1", text)
            if text.endswith(f", {title_of(name)}"):
                text = text.removesuffix(f", {title_of(name)}") + instead.format(title_of(name))
    return text


# --- sections ------------------------------------------------------------------------------------


def _sections(paper: str) -> dict[str, Section]:
    """The paper's tables and figures that an experiment belongs to, then what goes beyond it."""
    sections: dict[str, Section] = {}
    titles: dict[str, list[str]] = {}
    for name in experiment_names():
        if not name.startswith(f"{paper}/"):
            continue
        key = figure_of(name)
        head = header(name)
        section = sections.setdefault(key, Section(key, "Beyond the paper"))
        titles.setdefault(key, []).append(head["title"])
        if not section.question and key != BEYOND:
            section.question, section.published = head["question"], head["published"]
        section.commands.append(head["command"] or f"resnet-cli run {name}")
    for key, section in sections.items():
        if key != BEYOND:
            section.title = f"{_spoken(key)}: {_shared(titles[key])}"
    order = sorted(sections, key=_place)
    return {key: sections[key] for key in order}


def _shared(titles: Sequence[str]) -> str:
    """What the titles of a section's experiments begin with, by their commas, else the first
    title; without the network, since ours may be another than the paper's."""
    parts = [title.split(", ") for title in titles]
    same = [words[0] for words in zip(*parts, strict=False) if len(set(words)) == 1]
    kept = same or parts[0]
    named = [part for part in kept if not re.fullmatch(r"ResNet-\d+|CIFAR-\d+", part)]
    return ", ".join(named or kept)


def _place(key: str) -> tuple[int, str]:
    """Tables, figures, the rest of the paper, what goes beyond it."""
    for place, start in enumerate(("table", "fig", "section")):
        if key.startswith(start):
            return place, key
    return (9, key) if key == BEYOND else (5, key)


def _spoken(key: str) -> str:
    """`table1` -> `Table 1`, `fig5a` -> `Figure 5a`, `section4.3` -> `Section 4.3`."""
    found = re.fullmatch(r"(table|fig|section)(.+)", key)
    if found is None:
        return {"text": "In the text", "discussion": "Discussion"}.get(key, key)
    kind = {"table": "Table", "fig": "Figure", "section": "Section"}[found[1]]
    return f"{kind} {found[2]}"


def figure_of(experiment: str) -> str:
    """The section that an experiment of ours belongs to."""
    figure = _yaml(experiment).get("figure")
    return str(figure) if figure else BEYOND


def _yaml(experiment: str) -> dict[str, Any]:
    path = experiments_folder() / f"{experiment}.yaml"
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def header(experiment: str) -> dict[str, str]:
    """The title of an experiment, its question, what was published, and the command of its first
    profile."""
    order = ("mini", "cpu", "paper")
    profile = next(p for p in order if p in experiment_profiles(experiment))
    loaded = load_experiment(experiment, profile)
    folder = "" if catalogue.dataset(loaded.data.dataset).is_fixed else " --data-dir FOLDER"
    return {
        "title": loaded.title,
        "question": loaded.question or "",
        "published": loaded.published or "",
        "command": f"resnet-cli run {experiment} --profile {profile}{folder}",
    }


def _fill(section: Section, paper: str, comparisons: Sequence[Comparison]) -> None:
    """Put in the published numbers, and what was measured at each profile."""
    _put_errors(section, paper, comparisons)
    for comparison in comparisons:
        for folder in sorted(p for p in comparison.folder.iterdir() if p.is_dir()):
            name = f"{paper}/{folder.name}"
            if name in experiment_names() and figure_of(name) == section.key:
                found = _measurement(name, comparison.profile, folder)
                if found is not None:
                    section.measurements.append(found)


def _put_errors(section: Section, paper: str, comparisons: Sequence[Comparison]) -> None:
    """The tables of errors: each case published, and at each profile that measured some of it."""
    cases: dict[str, dict[str, Row]] = {}
    measured: dict[tuple[str, str], Measured] = {}
    for comparison in comparisons:
        for row in comparison.rows:
            if row.source == section.key:
                cases.setdefault(row.paper_data, {}).setdefault(row.case, row)
                if row.measured is not None:
                    measured[comparison.profile, row.case] = row.measured
    folders = {comparison.profile: comparison.folder for comparison in comparisons}
    for dataset, rows in cases.items():
        there = {key: found for key, found in measured.items() if key[1] in rows}
        profiles = list(dict.fromkeys(profile for profile, _ in there))
        columns = [
            _column(name, folders[name], section.key, [case for at, case in there if at == name])
            for name in profiles
        ]
        table = [
            (
                row.title,
                _published(row),
                [_measured(there.get((profile, case))) for profile in profiles],
            )
            for case, row in rows.items()
        ]
        section.errors.append(Errors(_paper_column(paper, dataset, rows), columns, table))


def _column(profile: str, folder: Path, key: str, cases: Sequence[str]) -> str:
    """A profile with what trained these cases of a section."""
    told: dict[str, None] = {}
    for table in sorted(folder.glob("*/table.csv")):
        if provenance_path(table).exists():
            provenance = read_provenance(table)
            config = provenance.get("config") or {}
            names = {str(case.get("name")) for case in config.get("cases") or ()}
            if config.get("figure") == key and names.intersection(cases):
                told[trained(provenance, cases)] = None
    return column(profile, "; ".join(told))


def _paper_column(paper: str, dataset: str, rows: Mapping[str, Row]) -> str:
    """`CIFAR-10, ResNet-110`: the paper's data, and its network if its rows have but one."""
    name = title_of(dataset)
    if paper == "he2016":
        table = published(paper)
        sources = {row.source for row in rows.values()}
        of_rows = table[table["source"].isin(sources) & table["case"].isin(list(rows))]
        depths = set(of_rows["network"].str.extract(r"^resnet(\d+)", expand=False))
        if len(depths) == 1 and (depth := depths.pop()) == depth:  # NaN: another network
            return f"{name}, ResNet-{depth}"
    return name


def _measured(found: Measured | None) -> str:
    """`1.39`, `fail (86.94)`, `0.56, 3 seeds`, percent."""
    if found is None:
        return ""
    text = str(found).removeprefix(f"{found.case} ").replace(" %", "")
    return f"{text}, {found.num_seeds} seeds" if found.num_seeds > 1 else text


def _published(row: Row) -> str:
    """`6.61`, `fail`, `about 6.1`, percent."""
    if row.published_status == "fail":
        return "fail"
    if row.published is None:
        return ""
    return f"{'about ' if row.approximate else ''}{row.published:.2f}"


def _belongs(source: str, key: str) -> bool:
    """`fig6b` belongs to `fig6`; `fig5a` only to itself."""
    return source == key or (source[:-1] == key and source[-1:].isalpha())


# --- what lies in results/ -----------------------------------------------------------------------


def _measurement(experiment: str, profile: str, folder: Path) -> Measurement | None:
    """An experiment's folder; None when it has no table with a provenance."""
    tables = sorted(folder.rglob("*.csv"))
    described = [t for t in tables if provenance_path(t).exists()]
    if not described:
        return None
    told = read_provenance(described[0])
    config = told.get("config") or {}
    seeds = [read_provenance(table).get("seeds") for table in described]
    dataset = str((config.get("data") or {}).get("dataset") or "") if any(seeds) else ""
    at = column(profile, trained(told)) if any(seeds) else f"{profile}: a formula, no network"
    if profile not in PROFILES:
        at = f"{network_of(told)}, {title_of(dataset)}"
    title = str(config.get("title") or header(experiment)["title"])
    title = _renamed(title, dataset) if dataset else title
    own = sorted(folder.glob("*.png"))
    plots = [
        Plot(path, f"{title}; {at}: {_picture(path, folder)}")
        for path in own or sorted(folder.glob("*/*.png"))
    ]
    main = _main(plots, figure_of(experiment)) if own else None
    note = " ".join(str(config.get("note") or "").split())
    commit = str(told.get("commit") or "unknown")[:10]
    return Measurement(
        experiment,
        profile,
        at,
        title,
        note,
        command_again(experiment, profile, told),
        commit + (" and changes" if told.get("dirty") else ""),
        str(told.get("started"))[:10],
        main,
        [plot for plot in plots if plot is not main],
        [(t, provenance_path(t) if provenance_path(t).exists() else None) for t in tables],
    )


def _main(plots: Sequence[Plot], key: str) -> Plot:
    trainings = ("training", "table") if key.startswith("fig") else ("table", "training")
    stems = [plot.path.stem for plot in plots]
    best = next((stem for stem in (*MAIN, *trainings) if stem in stems), stems[0])
    return plots[stems.index(best)]


def _fold_curves(sections: Sequence[Section]) -> None:
    """Show trainings once that a table and a figure share: the table their bars, the figure their
    curves."""
    tables = [s for s in sections if s.key.startswith("table")]
    for figure in sections:
        if not figure.key.startswith("fig"):
            continue
        for at, found in enumerate(figure.measurements):
            own = _trainings(found)
            shared = [
                (table, place)
                for table in tables
                for place, other in enumerate(table.measurements)
                if other.profile == found.profile and own and own <= _trainings(other)
            ]
            for table, place in shared[:1]:
                note = f"Trainings of {_spoken(table.key)}, as curves."
                figure.measurements[at] = _without(replace(found, note=note), "table")
                if own == _trainings(table.measurements[place]):
                    table.measurements[place] = _without(table.measurements[place], "training")


def _without(found: Measurement, stem: str) -> Measurement:
    return replace(found, others=[plot for plot in found.others if plot.path.stem != stem])


def _trainings(found: Measurement) -> set[tuple[str, str, str]]:
    """(case, seed, error) of a measurement's trainings."""
    trainings = set()
    for path, _ in found.tables:
        if path.name == "table.csv":
            for row in read_table(path).to_dict("records"):
                trainings.add((str(row["case"]), str(row["seed"]), str(row["test_error"])))
    return trainings


def pictures() -> dict[str, str]:
    """Figure -> what it shows, of trainings and of every study."""
    shown = dict(TRAININGS)
    for kind in STUDIES:
        shown |= registered(STUDIES, "study", kind).pictures
    return shown


def _picture(path: Path, folder: Path) -> str:
    """What a plot of an experiment's folder shows; one of a single case lies deeper."""
    shown = pictures().get(path.stem, path.stem.replace("_", " "))
    return shown if path.parent == folder else f"{shown}, of {path.parent.name}"
