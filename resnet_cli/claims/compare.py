"""Measured next to published: a paper's tables row by row, and its claims one by one.

The measurements are the tables under `results/<paper>/<profile>/`, the published numbers those of
`resnet_cli.claims.papers`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from resnet_cli.claims.evidence import TrainedCase, Trainings, read_trainings
from resnet_cli.claims.judge import judge_all
from resnet_cli.claims.papers import PAPERS, case_title, published
from resnet_cli.claims.verdict import Judgement, counts
from resnet_cli.claims.words import judgement_to_dict
from resnet_cli.config.schema import PROFILES
from resnet_cli.datasets.catalogue import find_dataset
from resnet_cli.results.layout import RESULTS
from resnet_cli.runtime.errors import UserError, unknown

PREFERENCE = ("paper", "cpu", "mini", "smoke")
"""Profiles from the one nearest to the papers' protocol. The first that has results is compared
when none is named, and comes first in the report; folders of other names follow, by name."""


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
    measured: TrainedCase | None
    paper_data: str = "cifar10"
    """The data set that the paper measured on."""
    network: str = ""
    """The paper's network, such as `preact110`; empty where the paper has no such row."""

    @property
    def title(self) -> str:
        """The case in words, without its data set."""
        return case_title(self.case.removesuffix(f"-{self.paper_data}"))

    @property
    def is_comparable(self) -> bool:
        """Whether the paper's network was trained on the paper's data; ImageNet is a folder of
        images. Without a provenance the network is unknown, and taken to be another."""
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
    def difference(self) -> float | None:
        """Median measured minus published, in points; None where the network or the data are not
        the paper's."""
        if self.measured is None or self.published is None or not self.is_comparable:
            return None
        return finite(self.measured.median - self.published)

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
    """A paper against what was measured at one profile."""

    paper: str
    profile: str
    folder: Path
    rows: Sequence[Row]
    judgements: Sequence[Judgement]
    others: Sequence[str] = ()
    """Other profiles that have results."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "paper": self.paper,
            "profile": self.profile,
            "rows": [row.to_dict(self.profile) for row in self.rows],
            "claims": [judgement_to_dict(judgement) for judgement in self.judgements],
            "counts": counts(self.judgements),
        }


def compare(paper: str, profile: str | None = None, results: Path = RESULTS) -> Comparison:
    """Set a paper's numbers and claims next to what lies in `results/<paper>/<profile>/`.

    Args:
        profile: a profile, or the name of another folder; None takes the first of PREFERENCE that
            has results.

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


# --- rows ----------------------------------------------------------------------------------------


def rows(paper: str, trainings: Trainings) -> list[Row]:
    """The rows of a paper's tables in its order; in each, then, cases it has no number for."""
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
    """A paper's published errors, as rows without a measurement; top-1 where there is top-5."""
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


def finite(value: float) -> float | None:
    """None for what is not, as in JSON and in tables."""
    return value if math.isfinite(value) else None
