"""Compare measured with published results: the rows of a paper's tables, and its claims.

Measurements come from the tables in `results/<paper>/<profile>/`, published numbers from
`resnet_cli.claims.papers`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from resnet_cli.claims.evidence import TrainedCase, Trainings, finite, read_trainings
from resnet_cli.claims.judge import judge_all
from resnet_cli.claims.papers import PAPERS, case_title, published
from resnet_cli.claims.verdict import Judgement, counts
from resnet_cli.claims.words import judgement_to_dict
from resnet_cli.config.schema import PROFILES
from resnet_cli.datasets.catalogue import find_dataset
from resnet_cli.results.layout import RESULTS
from resnet_cli.runtime.errors import UserError, unknown

PREFERENCE = ("paper", "cpu", "mini", "smoke")
"""Profiles, the closest to the papers' protocol first. If no profile is given, the first one with
results is compared. Folders with other names follow in alphabetical order."""


@dataclass(frozen=True)
class Row:
    """A row of a paper's table with the measurement for it."""

    source: str
    case: str
    published: float | None
    """Percent; None if the paper says "fail" or has no such row."""
    published_status: str
    """`ok`, `fail`, or empty if the paper has no such row."""
    approximate: bool
    """Whether the published number was not checked against the paper's text."""
    reference: bool
    """Whether the paper quotes the number from other work."""
    measured: TrainedCase | None
    paper_data: str = "cifar10"
    """The paper's data set."""
    network: str = ""
    """The paper's network, such as `preact110`; empty if the paper has no such row."""

    @property
    def title(self) -> str:
        """The name of the case, without its data set."""
        return case_title(self.case.removesuffix(f"-{self.paper_data}"))

    @property
    def is_comparable(self) -> bool:
        """Whether the paper's network was trained on the paper's data; False if the network is
        unknown because there is no provenance."""
        found = self.measured
        ours = find_dataset(found.dataset) if found is not None else None
        return (
            found is not None
            and ours is not None
            and ours.paper_name == self.paper_data
            and found.model is not None
            and found.model.label == self.network
            and found.model.widths is None
        )

    @property
    def publication(self) -> str:
        """The published error: `6.61`, `about 6.10`, `fail`; empty if the paper has no such row."""
        if self.published is None:
            return self.published_status.removeprefix("ok")
        return f"{'about ' if self.approximate else ''}{self.published:.2f}"

    @property
    def difference(self) -> float | None:
        """Measured median minus published error, in percentage points; None if the network or the
        data are not the paper's."""
        if self.measured is None or self.published is None or not self.is_comparable:
            return None
        return finite(self.measured.median - self.published)

    @property
    def status(self) -> str:
        """The status of the measurement, or else `published only` or `not measured`."""
        if self.measured is not None:
            return self.measured.status
        return "published only" if self.reference else "not measured"

    def to_dict(self, profile: str) -> dict[str, Any]:
        """The row for JSON; numbers that are missing or not finite are null."""
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
            "network": found.model.label if found is not None and found.model else None,
            "measured": finite(found.median) if found is not None else None,
            "seeds": found.num_seeds if found is not None else 0,
            "errors": [finite(e) for e in found.errors] if found is not None else [],
            "interval": list(interval) if interval is not None else None,
            "difference": self.difference,
            "status": self.status,
        }


@dataclass(frozen=True)
class Comparison:
    """A paper compared with the results of one profile."""

    paper: str
    profile: str
    folder: Path
    rows: Sequence[Row]
    judgements: Sequence[Judgement]
    others: Sequence[str] = ()
    """Other profiles that have results."""

    def to_dict(self) -> dict[str, Any]:
        """The comparison for JSON."""
        return {
            "paper": self.paper,
            "profile": self.profile,
            "rows": [row.to_dict(self.profile) for row in self.rows],
            "claims": [judgement_to_dict(judgement) for judgement in self.judgements],
            "counts": counts(self.judgements),
        }


def compare(paper: str, profile: str | None = None, results: Path = RESULTS) -> Comparison:
    """Compare a paper's numbers and claims with the results in `results/<paper>/<profile>/`.

    Args:
        profile: a profile or the name of another folder; None: the first of PREFERENCE with
            results.

    Raises:
        UserError: the paper or profile does not exist or has no results, or a table cannot be read.
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
        there = f" (profiles with results: {', '.join(found)})" if found else ""
        wanted = profile if profile in PROFILES else "mini"
        raise UserError(
            f"no results in {home / profile}{there}; measure them: "
            f"resnet-cli reproduce {paper} --profile {wanted}"
        )
    folder = home / profile
    trainings = read_trainings(folder)
    return Comparison(
        paper=paper,
        profile=profile,
        folder=folder,
        rows=rows(paper, trainings),
        judgements=judge_all(paper, folder, profile, trainings),
        others=tuple(name for name in found if name != profile),
    )


def measured_profiles(paper: str, results: Path = RESULTS) -> list[str]:
    """The profiles and other folders that have results, ordered by PREFERENCE."""
    home = results / paper
    names = _folders(home)
    found = [name for name in names if next((home / name).rglob("*.csv"), None) is not None]
    return by_preference(found)


def by_preference(names: Iterable[str]) -> list[str]:
    """Profiles in the order of PREFERENCE, then other folders in alphabetical order."""
    there = set(names)
    return [name for name in PREFERENCE if name in there] + sorted(there.difference(PREFERENCE))


def _folders(home: Path) -> list[str]:
    return [p.name for p in home.iterdir() if p.is_dir()] if home.is_dir() else []


# --- rows ----------------------------------------------------------------------------------------


def rows(paper: str, trainings: Trainings) -> list[Row]:
    """The rows of a paper's tables in its order; cases that it does not report come last in each
    table."""
    found: list[Row] = []
    for row in _published_rows(paper):
        measured = trainings.get(row.source, {}).get(row.case)
        found.append(Row(**vars(row) | {"measured": measured}))
    sources = list(dict.fromkeys(row.source for row in found))
    known = {(row.source, row.case) for row in found}
    for source in sources:
        data = [row.paper_data for row in found if row.source == source]
        for case, measured in trainings.get(source, {}).items():
            if (source, case) not in known:
                of = next((name for name in data if case.endswith(f"-{name}")), data[0])
                found.append(Row(source, case, None, "", False, False, measured, of))
    return sorted(found, key=lambda row: sources.index(row.source))


def _published_rows(paper: str) -> list[Row]:
    """A paper's published errors as rows without a measurement; top-1 error if top-5 is given
    too."""
    table = published(paper)
    if paper == "veit2016":
        table = table[table["quantity"].str.startswith("error-")]
        table = pandas.DataFrame(
            {
                "source": table["figure"],
                "case": table["quantity"].str.removeprefix("error-"),
                "network": "preact110",
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
            published=finite(float(row["value"])),
            published_status=str(row["status"]),
            approximate=bool(row["checked"] != "v"),
            reference=str(row["remark"]).startswith("reference"),
            measured=None,
            paper_data=str(row["dataset"]),
            network=str(row["network"]),
        )
        for row in table.to_dict("records")
    ]
