"""What the report says: for each table and figure the published numbers, ours, and the verdicts.

All of it is read from `results/<paper>/<profile>/`, the papers' numbers and the experiments' own
headers; nothing is typed here but the papers' names and one sentence on each.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config import PROFILES, experiment_names, experiments_folder
from resnet_cli.errors import UserError
from resnet_cli.papers import PAPERS, published
from resnet_cli.results.claims import Claim
from resnet_cli.results.compare import Comparison, Row, compare, measured_profiles
from resnet_cli.results.tables import PROVENANCE_SUFFIX, read_provenance

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


ABOUT = (
    Paper(
        "he2016",
        "He, Zhang, Ren, Sun 2016",
        "Identity Mappings in Deep Residual Networks",
        "1603.05027",
        "A residual unit adds what it computed to what it was given. Leave the path of what it was "
        "given untouched, and put batch normalisation and ReLU before the convolutions: then a "
        "network of 1,001 layers trains, and a deeper one is a better one.",
    ),
    Paper(
        "veit2016",
        "Veit, Wilber, Belongie 2016",
        "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
        "1605.06431",
        "A residual network of n units is 2ⁿ paths of all lengths at once. Delete a unit, even "
        "several, and it goes on working, as an ensemble does that lost a few members; and short "
        "paths carry nearly all of the gradient that trains it.",
    ),
)
assert tuple(paper.key for paper in ABOUT) == PAPERS

PICTURES = {
    "training": "training loss and test error by iteration, one curve for each case",
    "table": "test error of each case beside the published one",
    "lesion_single": "test error after deleting each unit in turn",
    "lesion_count": "boxes of the test error by the number of units deleted",
    "lesion_reorder": "test error by the number of swapped units and by Kendall's tau",
    "lesion_greedy": "test error with the least harmful units deleted, beside random ones",
    "lesion_additivity": "joint damage of several deleted units against the sum of single damages",
    "lesion_ranked": "units by the damage of their deletion",
    "lesion_classes": "test error of each class by deletion",
    "paths": "number of paths, gradient of one path, and their product, by path length",
    "path_spectrum": "share of the gradient by path length, sampled and exact",
    "path_spectrum_stages": "exact share of the gradient by path length in each stage",
    "path_spectrum_unit": "exact share of the gradient at one unit's weights by path length",
    "path_survival": "share of paths of each length left after deleting units",
    "signal": "activation and gradient norms and the shortcut's factor, by unit",
}
"""What a plot shows, by the stem of its file."""


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
    title: str
    note: str
    command: str
    commit: str
    measured: str
    """The date."""
    plots: Sequence[Plot]
    tables: Sequence[Path]


@dataclass
class Section:
    """A table or a figure of a paper."""

    key: str
    title: str
    question: str = ""
    published: str = ""
    """The published picture in words, from the experiment's header."""
    numbers: list[tuple[str, str, str]] = field(default_factory=list)
    """(quantity, value, remark) where the paper has no table of errors."""
    columns: list[str] = field(default_factory=list)
    """Profiles with a column of measured errors."""
    rows: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """(case, published error, measured error at each of `columns`)."""
    claims: list[tuple[str, list[Claim]]] = field(default_factory=list)
    """By profile; a caveat that all of a profile's share is left to `Part.caveats`."""
    measurements: list[Measurement] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """What would measure it, where nothing was."""


@dataclass(frozen=True)
class Part:
    """A paper's part of the report."""

    paper: Paper
    counts: Sequence[tuple[str, Mapping[str, int]]]
    """By profile, how many claims have which verdict."""
    shown_profile: str
    """The profile of `headlines`: that with most claims measured."""
    headlines: Sequence[Claim]
    """The first measured claims of each table and figure: one each, or two where these are few."""
    caveats: Mapping[str, str]
    """What a profile cannot show, whatever the claim."""
    sections: Sequence[Section]


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
    counts = [(c.profile, Counter(str(claim.verdict) for claim in c.claims)) for c in comparisons]
    most = max(comparisons, key=lambda c: sum(_is_measured(claim) for claim in c.claims))
    measured = [claim for claim in most.claims if _is_measured(claim)]
    sources = Counter(claim.source for claim in measured)
    each = 2 if len(sources) < 5 else 1
    headlines = [
        claim for source in sources for claim in [c for c in measured if c.source == source][:each]
    ]
    caveats: dict[str, str] = {}
    for comparison in comparisons:
        told = Counter(claim.caveat for claim in comparison.claims if claim.caveat)
        for caveat, shared_by in told.most_common(1):
            if shared_by > 1:
                caveats[comparison.profile] = caveat
    sections = _sections(paper.key)
    for section in sections.values():
        _fill(section, paper.key, comparisons)
    for comparison in comparisons:
        for claim in comparison.claims:
            if claim.caveat == caveats.get(comparison.profile):
                claim = replace(claim, caveat="")
            _add_claim(sections, comparison.profile, claim)
    return Part(paper, counts, most.profile, headlines, caveats, list(sections.values()))


def _is_measured(claim: Claim) -> bool:
    return claim.verdict != "not measured"


# --- sections ------------------------------------------------------------------------------------


def _sections(paper: str) -> dict[str, Section]:
    """The paper's tables and figures that an experiment belongs to, then what goes beyond it."""
    sections: dict[str, Section] = {}
    for name in experiment_names():
        if not name.startswith(f"{paper}/"):
            continue
        key = figure_of(name)
        head = header(name)
        section = sections.get(key)
        if section is None:
            title = "Beyond the paper" if key == BEYOND else f"{_spoken(key)}: {head['title']}"
            section = sections[key] = Section(key, title)
        if not section.question and key != BEYOND:
            section.question, section.published = head["question"], head["published"]
        section.commands.append(f"resnet-cli run {name}")
    order = sorted(sections, key=_place)
    return {key: sections[key] for key in order}


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
    """The title of an experiment, and of the comment at its head `question` and `published`."""
    text = (experiments_folder() / f"{experiment}.yaml").read_text(encoding="utf-8")
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    found = {"title": str(_yaml(experiment)["title"]), "question": "", "published": ""}
    told = " ".join(comment)
    keys = "Question|Paper|Command|Time|Published"
    for key, value in re.findall(rf"({keys}): (.*?)(?= (?:{keys}): |$)", told):
        if key.lower() in found:
            found[key.lower()] = re.split(r" Expect | expect ", value)[0].rstrip(" ;,") or value
    found["question"] = found["question"][:1].upper() + found["question"][1:]
    return found


def _fill(section: Section, paper: str, comparisons: Sequence[Comparison]) -> None:
    """Put in the published numbers, and what was measured at each profile."""
    _put_rows(section, comparisons)
    if paper == "veit2016":
        table = published(paper)
        of_section = table["figure"].map(lambda figure: _belongs(figure, section.key))
        for row in table[of_section].to_dict("records"):
            if not str(row["quantity"]).startswith("error-"):
                value = f"{'about ' if row['checked'] != 'v' else ''}{row['value']:g}"
                quantity = str(row["quantity"]).replace("_", " ")
                section.numbers.append((quantity, value, str(row["remark"])))
    for comparison in comparisons:
        for folder in sorted(p for p in comparison.folder.iterdir() if p.is_dir()):
            name = f"{paper}/{folder.name}"
            if name in experiment_names() and figure_of(name) == section.key:
                found = _measurement(name, comparison.profile, folder)
                if found is not None:
                    section.measurements.append(found)


def _put_rows(section: Section, comparisons: Sequence[Comparison]) -> None:
    """The table of errors: each case published, and at each profile that measured some of it."""
    by_profile: dict[str, dict[str, Row]] = {}
    cases: dict[str, Row] = {}
    for comparison in comparisons:
        of_section = {row.case: row for row in comparison.rows if row.source == section.key}
        cases |= {case: row for case, row in of_section.items() if case not in cases}
        if any(row.measured is not None for row in of_section.values()):
            by_profile[comparison.profile] = of_section
    section.columns = list(by_profile)
    for case, row in cases.items():
        measured = []
        for rows in by_profile.values():
            found = rows[case].measured if case in rows else None
            text = ""
            if found is not None:
                text = str(found).removeprefix(f"{case} ")
                if found.num_seeds > 1:
                    text += f", {found.num_seeds} seeds"
            measured.append(text)
        section.rows.append((case, _published(row), measured))


def _published(row: Row) -> str:
    if row.published_status == "fail":
        return "fail"
    if row.published is None:
        return ""
    return f"{'about ' if row.approximate else ''}{row.published:.2f} %"


def _belongs(source: str, key: str) -> bool:
    """`fig6b` belongs to `fig6`; `fig5a` only to itself."""
    return source == key or (source[:-1] == key and source[-1:].isalpha())


def _add_claim(sections: Mapping[str, Section], profile: str, claim: Claim) -> None:
    section = next((s for key, s in sections.items() if _belongs(claim.source, key)), None)
    if section is None:
        return
    if not section.claims or section.claims[-1][0] != profile:
        section.claims.append((profile, []))
    section.claims[-1][1].append(claim)


# --- what lies in results/ -----------------------------------------------------------------------


def _measurement(experiment: str, profile: str, folder: Path) -> Measurement | None:
    """An experiment's folder; None when it has no table with a provenance."""
    tables = sorted(folder.rglob("*.csv"))
    described = [t for t in tables if t.with_suffix(PROVENANCE_SUFFIX).exists()]
    if not described:
        return None
    told = read_provenance(described[0])
    config = told.get("config") or {}
    command = f"resnet-cli run {experiment} --profile {profile}"
    if profile not in PROFILES:
        command = str(told.get("command"))
    plots = [
        Plot(path, f"{header(experiment)['title']}, profile {profile}: {_picture(path)}")
        for path in sorted(folder.glob("*.png")) or sorted(folder.glob("*/*.png"))
    ]
    commit = str(told.get("commit") or "unknown")[:10]
    return Measurement(
        experiment,
        profile,
        header(experiment)["title"],
        " ".join(str(config.get("note") or "").split()),
        command,
        commit + (" and changes" if told.get("dirty") else ""),
        str(told.get("started"))[:10],
        plots,
        tables,
    )


def _picture(path: Path) -> str:
    case = f" of {path.parent.name}" if path.parent.parent.name in PROFILES else ""
    return PICTURES.get(path.stem, path.stem.replace("_", " ")) + case
