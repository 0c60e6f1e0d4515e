"""What README says was found is what lies in results/."""

import re
from pathlib import Path

import pytest

from resnet_cli.claims.compare import compare
from resnet_cli.claims.verdict import VERDICTS, counts
from resnet_cli.results.tables import read_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOUND = README.split("## What was found")[1].split("\n## ")[0]
PAPERS = {"1": "he2016", "2": "veit2016"}


@pytest.mark.parametrize("profile", ["mini", "cpu"])
@pytest.mark.parametrize("number", PAPERS)
def test_claims_are_counted(number: str, profile: str) -> None:
    assert f"| claims | {' | '.join(VERDICTS)} |" in FOUND
    judgements = compare(PAPERS[number], profile, ROOT / "results").judgements
    row = " | ".join(str(count) for count in counts(judgements).values())
    assert f"| paper {number}, `{profile}` | {row} |" in FOUND


def rows_of_tables() -> list[tuple[str, str, str]]:
    """Measured figures, profile and table of each row on a table of paper 1."""
    found = []
    for line in FOUND.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 6 and (table := re.fullmatch("`he2016/(table.*)`", cells[4])):
            found.append((cells[2], cells[3], table[1]))
    return found


@pytest.mark.parametrize(("measured", "profile", "table"), rows_of_tables())
def test_errors_are_those_of_the_table(measured: str, profile: str, table: str) -> None:
    errors = read_table(ROOT / "results/he2016" / profile / table / "table.csv")["test_error"]
    said = [
        number
        for run in re.findall(r"((?:[\d.]+(?:, | and | to ))*[\d.]+) %", measured)
        for number in re.findall(r"\d+(?:\.\d+)?", run)
    ]
    assert said
    for number in said:
        decimals = len(number.partition(".")[2])
        assert number in {f"{error:.{decimals}f}" for error in errors}, (number, table)


def test_there_are_rows_of_tables_to_check() -> None:
    assert {(profile, table) for _, profile, table in rows_of_tables()} >= {
        ("mini", "table1"),
        ("mini", "table2"),
        ("cpu", "table1"),
    }
