"""What the report says: for each table and figure the published numbers, ours, and the verdicts.

All of it is read from `results/<paper>/<profile>/`, the papers' numbers and the experiments' own
headers; nothing is typed here but the papers' names and one sentence on each.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config import PROFILES, experiment_names, experiments_folder
from resnet_cli.errors import UserError
from resnet_cli.papers import PAPERS, published
from resnet_cli.results.claims import Claim
from resnet_cli.results.compare import (
    Comparison,
    Measured,
    Row,
    caveats_of,
    compare,
    measured_profiles,
)
from resnet_cli.results.tables import provenance_path, read_provenance

BEYOND = "beyond"
"""The section of experiments that belong to no table and no figure."""


@dataclass(frozen=True)
class Paper:
    """A paper in a few words."""

    key: str
    authors: str
    title: str
    arxiv: str
    data: str
    """On what it measured its headline claims."""
    says: str


ABOUT = (
    Paper(
        "he2016",
        "He, Zhang, Ren, Sun 2016",
        "Identity Mappings in Deep Residual Networks",
        "1603.05027",
        "CIFAR-10",
        "A residual unit adds what it computed to what it was given. Leave the path of what it was "
        "given untouched, and put batch normalisation and ReLU before the convolutions: then a "
        "network of 1,001 layers trains, and a deeper one is a better one.",
    ),
    Paper(
        "veit2016",
        "Veit, Wilber, Belongie 2016",
        "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
        "1605.06431",
        "CIFAR-10",
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


WORDS: Mapping[str, tuple[str, str]] = {
    "paper": ("the published protocol", "on GPUs"),
    "cpu": (
        "real images with a short schedule",
        "hours on two cores: errors stay above the published ones",
    ),
    "mini": (
        "the paper's depths on 16x16 handwritten digits",
        "minutes: whether an effect is there, not whether a number is",
    ),
    "smoke": ("tiny networks trained for seconds", "shows that the code runs and nothing else"),
    "resnet20": ("the bundled ResNet-20 of 50 epochs", "another network than the paper's"),
    "third-party": ("weights that others trained and published", "other networks than the paper's"),
}
"""A profile in plain words: what is measured there, and what that can show."""

DATA = {
    "digits": "digits",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
    "imagefolder": "class folders",
}
"""Data sets as the page names them."""


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
    """`mini, digits`."""
    title: str
    note: str
    command: str
    commit: str
    measured: str
    """The date."""
    plots: Sequence[Plot]
    folded: bool
    """The plots are of single cases or of weights of others, and are shown on demand."""
    tables: Sequence[tuple[Path, Path | None]]
    """Each table, and its provenance."""


@dataclass(frozen=True)
class Errors:
    """Test errors that the paper gives for one data set."""

    dataset: str
    """The paper's, as the page names it."""
    columns: Sequence[str]
    """`mini, digits`: where some of these rows were measured."""
    rows: Sequence[tuple[str, str, Sequence[str]]]
    """(case, published error, measured error in each of `columns`); no case names its data."""


@dataclass(frozen=True)
class Judged:
    """A section's claims as one profile bears them out."""

    profile: str
    setting: str
    """`mini, digits`; empty where nothing was measured at any profile."""
    claims: Sequence[Claim]
    shown: bool
    """It measures what no profile before it does."""


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
    errors: list[Errors] = field(default_factory=list)
    """By the paper's data set."""
    judged: list[Judged] = field(default_factory=list)
    """By profile, where it measured any; else the claims once."""
    measurements: list[Measurement] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """What would measure it, where nothing was."""


@dataclass(frozen=True)
class Headline:
    """One of the claims that a paper stands for, at the best profile that measured it."""

    claim: Claim
    setting: str
    """`mini, digits, 1 seed`; empty where it was not measured."""
    disagreeing: Sequence[str]
    """Where another profile came to the other verdict: `third-party, CIFAR-10`."""


@dataclass(frozen=True)
class Part:
    """A paper's part of the report."""

    paper: Paper
    counts: Sequence[tuple[str, str, Mapping[str, int]]]
    """By profile: its name, its setting (`mini, digits`), how many claims have which verdict."""
    headlines: Sequence[Headline]
    holding: int
    """Claims that hold at the best profile that measured them."""
    measured: int
    """Claims that any profile measured."""
    claims: int
    means: Sequence[tuple[str, str, int]]
    """(setting with seeds, in plain words, claims measured there) of what `holding` counts."""
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
    settings = {c.profile: _setting(c.profile, _datasets(c)) for c in comparisons}
    counts = [
        (c.profile, settings[c.profile], Counter(str(claim.verdict) for claim in c.claims))
        for c in comparisons
    ]
    best = _best(comparisons)
    measured = [(profile, claim) for profile, claim in best.values() if _is_measured(claim)]
    means = []
    for comparison in comparisons:
        of_profile = [claim for profile, claim in measured if profile == comparison.profile]
        if of_profile:
            seeds = " or ".join(sorted({claim.seeds for claim in of_profile if claim.seeds}))
            words = WORDS.get(comparison.profile, ("", ""))[0]
            setting = settings[comparison.profile]
            means.append((f"{setting}, {seeds}" if seeds else setting, words, len(of_profile)))
    caveats = _caveats(paper.key, comparisons)
    sections = _sections(paper.key)
    for section in sections.values():
        _fill(section, paper.key, comparisons)
        _judge(section, comparisons, caveats)
    return Part(
        paper,
        counts,
        _headlines(comparisons, best),
        sum(claim.verdict == "holds" for _, claim in measured),
        len(measured),
        len(best),
        means,
        caveats,
        list(sections.values()),
    )


def _is_measured(claim: Claim) -> bool:
    return claim.verdict != "not measured"


def _best(comparisons: Sequence[Comparison]) -> dict[str, tuple[str, Claim]]:
    """Claim -> the first profile that measured it, and the verdict there."""
    best: dict[str, tuple[str, Claim]] = {}
    for comparison in comparisons:
        for claim in comparison.claims:
            if claim.text not in best or (
                _is_measured(claim) and not _is_measured(best[claim.text][1])
            ):
                best[claim.text] = (comparison.profile, claim)
    return best


def _headlines(
    comparisons: Sequence[Comparison], best: Mapping[str, tuple[str, Claim]]
) -> list[Headline]:
    found = []
    for profile, claim in best.values():
        if claim.headline:
            others = [
                _setting(comparison.profile, [other.dataset])
                for comparison in comparisons
                for other in comparison.claims
                if other.text == claim.text
                and _is_measured(other)
                and other.verdict != claim.verdict
            ]
            setting = ""
            if _is_measured(claim):
                setting = _setting(profile, [claim.dataset])
                setting += f", {claim.seeds}" if claim.seeds else ""
            found.append(Headline(_on_our_data(claim), setting, others))
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


def _setting(profile: str, datasets: Iterable[str]) -> str:
    """`mini, digits`: a profile with what was measured on."""
    names = dict.fromkeys(name for told in datasets for name in told.split(", ") if name)
    return ", ".join([profile, *(DATA.get(name, name) for name in names)])


def _datasets(comparison: Comparison) -> list[str]:
    return sorted({claim.dataset for claim in comparison.claims if claim.dataset})


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
    for name in ("cifar100", "cifar10"):
        if name not in dataset.split(", "):
            text = re.sub(rf"(?<![\w/.-])([\w.-]+?)-{name}\b", r"\1", text)
            if text.endswith(f", {DATA[name]}"):
                text = text.removesuffix(f", {DATA[name]}") + instead.format(DATA[name])
    return text


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
            title = "Beyond the paper" if key == BEYOND else f"{_spoken(key)}: {_title(name)}"
            section = sections[key] = Section(key, title)
        if not section.question and key != BEYOND:
            section.question, section.published = head["question"], head["published"]
        section.commands.append(head["command"] or f"resnet-cli run {name}")
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
    """The title of an experiment, and of the comment at its head `question`, `published` and
    `command`, the first command with its options."""
    text = (experiments_folder() / f"{experiment}.yaml").read_text(encoding="utf-8")
    told: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.removeprefix("#").strip()
        if found := re.match(r"# ([A-Z][a-z]+)(?:, ([^:]+))?: (.*)", line):  # `Published, top-1: `
            key, words = found[1].lower(), f"{found[2]}: {found[3]}" if found[2] else found[3]
        told[key] = f"{told.get(key, '')} {words}".strip()
    kept = {
        name: re.split(r" Expect | expect ", told.get(name, ""))[0].rstrip(" ;,")
        for name in ("question", "published")
    }
    command = re.match(r"resnet-cli run \S+(?: --\S+ \S+)*", told.get("command", ""))
    return {
        "title": str(_yaml(experiment)["title"]),
        "question": kept["question"][:1].upper() + kept["question"][1:],
        "published": kept["published"],
        "command": command[0] if command else "",
    }


def _title(experiment: str, dataset: str = "") -> str:
    """An experiment's title, with the data that it was measured on instead of the paper's."""
    title = _renamed(header(experiment)["title"], dataset)
    return f"{title}, {DATA.get(dataset, dataset)}" if dataset else title


def _fill(section: Section, paper: str, comparisons: Sequence[Comparison]) -> None:
    """Put in the published numbers, and what was measured at each profile."""
    _put_errors(section, paper, comparisons)
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


def _put_errors(section: Section, paper: str, comparisons: Sequence[Comparison]) -> None:
    """The tables of errors: each case published, and at each profile that measured some of it."""
    cases: dict[str, dict[str, Row]] = {}
    measured: dict[tuple[str, str], Measured] = {}
    for comparison in comparisons:
        for row in comparison.rows:
            if row.source == section.key:
                cases.setdefault(_paper_data(paper, row), {}).setdefault(row.case, row)
                if row.measured is not None:
                    measured[comparison.profile, row.case] = row.measured
    for dataset, rows in cases.items():
        there = {key: found for key, found in measured.items() if key[1] in rows}
        profiles = list(dict.fromkeys(profile for profile, _ in there))
        columns = [
            _setting(name, [found.dataset for (at, _), found in there.items() if at == name])
            for name in profiles
        ]
        table = [
            (
                case.removesuffix(f"-{dataset}"),
                _published(row),
                [_measured(there.get((profile, case))) for profile in profiles],
            )
            for case, row in rows.items()
        ]
        section.errors.append(Errors(DATA.get(dataset, dataset), columns, table))


def _paper_data(paper: str, row: Row) -> str:
    """The data set that the paper's row is of."""
    if paper == "he2016":
        table = published(paper)
        found = table[(table["source"] == row.source) & (table["case"] == row.case)]
        if not found.empty:
            return str(found["dataset"].iloc[0])
    return "cifar100" if row.case.endswith("-cifar100") else "cifar10"


def _measured(found: Measured | None) -> str:
    if found is None:
        return ""
    text = str(found).removeprefix(f"{found.case} ")
    return f"{text}, {found.num_seeds} seeds" if found.num_seeds > 1 else text


def _published(row: Row) -> str:
    if row.published_status == "fail":
        return "fail"
    if row.published is None:
        return ""
    return f"{'about ' if row.approximate else ''}{row.published:.2f} %"


def _judge(section: Section, comparisons: Sequence[Comparison], caveats: Mapping[str, str]) -> None:
    """Put in the claims of each profile that measured one of them, the caveats of its own told
    elsewhere; where none did, the claims once."""
    known: set[str] = set()
    unmeasured: Sequence[Claim] = ()
    for comparison in comparisons:
        claims = [claim for claim in comparison.claims if _belongs(claim.source, section.key)]
        measured = {claim.text for claim in claims if _is_measured(claim)}
        if not measured:
            unmeasured = unmeasured or claims
            continue
        setting = _setting(comparison.profile, [claim.dataset for claim in claims])
        general = caveats.get(comparison.profile, "")
        profiles_own = caveats_of(comparison.paper).get(comparison.profile, "")
        shown = [
            replace(
                _on_our_data(claim),
                caveat="" if claim.caveat == general else _rest(claim.caveat, profiles_own),
            )
            for claim in claims
        ]
        section.judged.append(Judged(comparison.profile, setting, shown, bool(measured - known)))
        known |= measured
    if unmeasured and not section.judged:
        section.judged.append(Judged("", "", unmeasured, True))


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
    command = str(told.get("command"))
    if profile in PROFILES and not re.match(r"resnet-cli (run|reproduce) ", command):
        command = f"resnet-cli run {experiment} --profile {profile}"
    title = _title(experiment, dataset)
    own = sorted(folder.glob("*.png"))
    plots = [
        Plot(path, f"{title}, profile {profile}: {_picture(path, folder)}")
        for path in own or sorted(folder.glob("*/*.png"))
    ]
    note = " ".join(str(config.get("note") or "").split())
    names = [str(case.get("name")) for case in config.get("cases") or ()]
    if any(_renamed(name, dataset) != name for name in names):
        note += (
            f" The plots name cases by the paper's data; these are {DATA.get(dataset, dataset)}."
        )
    commit = str(told.get("commit") or "unknown")[:10]
    return Measurement(
        experiment,
        profile,
        _setting(profile, [dataset]),
        title,
        note.strip(),
        command,
        commit + (" and changes" if told.get("dirty") else ""),
        str(told.get("started"))[:10],
        plots,
        not own or profile not in PROFILES,
        [(t, provenance_path(t) if provenance_path(t).exists() else None) for t in tables],
    )


def _picture(path: Path, folder: Path) -> str:
    """What a plot of an experiment's folder shows; one of a single case lies deeper."""
    shown = PICTURES.get(path.stem, path.stem.replace("_", " "))
    return shown if path.parent == folder else f"{shown}, of {path.parent.name}"
