"""README.md and docs/: what they say was found is what lies in results/."""

import json
import re
from pathlib import Path

import pandas
import pytest

import resnet_cli as rc
from resnet_cli.claims.compare import compare
from resnet_cli.claims.judge import CLAIMS
from resnet_cli.claims.verdict import VERDICTS
from resnet_cli.cli import run_command
from resnet_cli.report.findings import FILES, rewritten
from resnet_cli.weights.cards import bundled_names, read_card

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = {"Table 1": "table1", "Table 3": "table3-cifar10", "Section 5": "effective_paths"}
"""Where the trainings lie of the claims in README that rest on some."""


def generated(text: str, name: str) -> list[list[str]]:
    """The rows of a generated table."""
    part = text.split(f"<!-- findings {name} -->")[1].split("<!-- end -->")[0]
    lines = part.strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
    return {name: rewritten(text, ROOT / "results") for name, text in texts.items()}


@pytest.mark.parametrize("name", FILES)
def test_generated_tables_are_up_to_date(name: str, written: dict[str, str]) -> None:
    shown = (ROOT / name).read_text(encoding="utf-8")
    assert shown == written[name], "run: make findings"
    assert len(generated(shown, re.findall(r"<!-- findings (\w+)", shown)[0])) > 1


def test_readme_is_short() -> None:
    assert len(README.split()) <= 1200


def test_five_findings_quote_claims_with_at_most_two_numbers_in_a_cell() -> None:
    *rows, _ = generated(README, "short")
    texts = {claim.text for claims in CLAIMS.values() for claim in claims}
    assert len(rows) == 5
    for claim, published, measured, verdict in rows:
        assert re.match("“(.*)”", claim)[1] in texts  # type: ignore[index]
        assert verdict.split(" (`")[0] in VERDICTS
        for cell in (published, measured):
            assert len(re.findall(r"[-+\d.]+ (?:%|points|nats)", cell)) <= 2


def test_the_last_row_has_the_errors_before_and_after_re_estimation() -> None:
    *_, (_, _, measured, _) = generated(README, "short")
    folder = ROOT / "results/veit2016/cpu/fig3/preact110"
    errors = [
        pandas.read_csv(folder / f"{name}.csv").set_index("blocks")["test_error"]
        for name in ("lesion_delete", "lesion_delete_recalibrated")
    ]
    shown = re.findall(r"without unit (\d+): ([\d.]+) → ([\d.]+) %", measured)
    assert len(shown) == 2
    for unit, *numbers in shown:
        assert [f"{error[int(unit)]:.2f}" for error in errors] == numbers


@pytest.mark.parametrize("source", TABLES)
def test_measured_errors_are_those_of_the_trainings(source: str) -> None:
    (row,) = [cells for cells in generated(README, "short") if f"({source})" in cells[0]]
    profile = re.search("`(.*)`", row[3])[1]  # type: ignore[index]
    (path,) = (ROOT / "results").glob(f"*/{profile}/{TABLES[source]}/table.csv")
    medians = pandas.read_csv(path).groupby("case")["test_error"].median()
    shown = re.findall(r"([\d.]+) %", row[2].split("; needed")[0])
    assert shown
    for number in shown:
        assert number in {f"{median:.2f}" for median in medians}


@pytest.mark.parametrize("paper", CLAIMS)
def test_counts_are_those_of_compare(paper: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [cells for cells in generated(README, "counts") if cells[0].startswith(paper)]
    assert rows
    for name, *shown in rows:
        profile = re.search("`(.*)`", name)[1]  # type: ignore[index]
        arguments = ["compare", paper, "--profile", profile, "--json"]
        assert run_command([*arguments, "--results", str(ROOT / "results")]) == 0
        claims = json.loads(capsys.readouterr().out.splitlines()[-1])["claims"]
        verdicts = [claim["verdict"] for claim in claims if not claim["check"]]
        assert shown == [str(verdicts.count(verdict)) for verdict in VERDICTS]


def test_all_claims_are_listed() -> None:
    text = (ROOT / "docs/papers.md").read_text(encoding="utf-8")
    for paper, claims in CLAIMS.items():
        judged = {j.claim.text: j for j in compare(paper, "mini", ROOT / "results").judgements}
        rows = generated(text, paper)
        assert [row[1].removesuffix(" (check)") for row in rows] == [c.text for c in claims]
        column = text.split(f"findings {paper}")[1].split("\n")[1].split(" | ").index("`mini`")
        for row in rows:
            assert row[column] == judged[row[1].removesuffix(" (check)")].verdict


def test_networks_are_listed_by_depth() -> None:
    text = (ROOT / "docs/papers.md").read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in generated(text, "networks")}
    name = "ResNet-20, published by akamaster, CIFAR-10"
    units, error, rise, *_ = rows[name]
    frame = pandas.read_csv(ROOT / "results/veit2016/third-party/fig3/lesion_delete.csv")
    assert (int(units), float(error)) == (len(frame), frame["baseline_error"].iloc[0])
    middle = frame["test_error"].sort_values().iloc[len(frame) // 2]  # of nine
    assert float(rise) == pytest.approx(middle - frame["baseline_error"].iloc[0], abs=0.006)


def test_every_bundled_file_is_listed_with_its_error() -> None:
    text = (ROOT / "docs/checkpoints.md").read_text(encoding="utf-8")
    rows = {row[0].strip("`"): row[-1] for row in generated(text, "weights")}
    assert rows == {name: f"{read_card(name)['test_error']:.2f}" for name in bundled_names()}


def test_the_first_command_prints_what_readme_shows() -> None:
    shown = re.findall(r"│ +(\d+) │ stage (\d)[^│]*│ +([\d.]+) │", README)
    assert len(shown) > 3
    net, data = rc.load("preact56-digits"), rc.dataset("digits").test
    for unit, _, error in (shown[0], shown[-1]):
        found = rc.delete(net, [int(unit)]).error(data)
        assert found == pytest.approx(float(error), abs=0.6)  # two images, on other processors
