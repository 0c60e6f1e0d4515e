"""Comparison with the papers: reading tables, medians and intervals, rows, the commands."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_cli.claims.compare import Comparison, compare, rows
from resnet_cli.claims.evidence import TrainedCase, read_trainings
from resnet_cli.claims.papers import PAPERS
from resnet_cli.claims.show import show
from resnet_cli.claims.verdict import Claim, Judgement, Part, Quantity, Verdict
from resnet_cli.cli import run_command
from resnet_cli.results.layout import provenance_path
from resnet_cli.results.tables import column_names
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError

Errors = dict[str, list[float | None]]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a table.csv: case -> errors by seed; None for a training that diverged."""

    def write_table(
        experiment: str,
        errors: Errors,
        *,
        paper: str = "he2016",
        profile: str = "mini",
        dataset: str = "digits",
        depth: int | None = None,
    ) -> Path:
        lines = [",".join(column_names("table"))]
        for case, of_case in errors.items():
            for seed, error in enumerate(of_case):
                state, shown = "diverged", ""
                if error is not None:
                    state, shown = "ok", repr(error)
                lines.append(
                    f"{paper}/{experiment},{case},{dataset},{seed},1000,{state},{shown},{shown},"
                )
        path = tmp_path / "results" / paper / profile / experiment / "table.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        if depth is not None:
            model = {"depth": depth, "placement": "original"}
            provenance_path(path).write_text(json.dumps({"config": {"model": model}}))
        return path

    return write_table


def measured(*errors: float) -> TrainedCase:
    return TrainedCase("table1", "case", "digits", errors)


# --- a case as measured --------------------------------------------------------------------------


def test_the_interval_is_students_t_of_the_mean() -> None:
    # mean 3, deviation sqrt(2.5), and 2.7764451 the 97.5 % quantile of t with 4 degrees of freedom
    low, high = measured(1.0, 2.0, 3.0, 4.0, 5.0).interval or (0.0, 0.0)
    half = 2.7764451 * math.sqrt(2.5) / math.sqrt(5)
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-6)


def test_no_error_is_below_0_or_above_100() -> None:
    low, high = measured(1.0, 11.0, 10.0).interval or (-1.0, -1.0)  # uncut: -6.3 to 21.0
    assert low == 0
    assert high == pytest.approx(22 / 3 + 4.3026527 * math.sqrt(30.333333333) / math.sqrt(3))
    assert (measured(99.0, 89.0, 90.0).interval or (0.0, 0.0))[1] == 100


def test_equal_errors_have_an_interval_without_width() -> None:
    assert measured(2.5, 2.5, 2.5).interval == (2.5, 2.5)


@pytest.mark.parametrize("errors", [(1.0,), (1.0, math.inf), (math.inf, math.inf)])
def test_no_interval_from_one_seed_or_with_a_divergence(errors: tuple[float, ...]) -> None:
    assert measured(*errors).interval is None


@pytest.mark.parametrize(
    ("errors", "median", "status"),
    [
        ((6.5, 6.1, 7.0), 6.5, "ok"),
        ((6.0, 8.0), 7.0, "ok"),
        ((6.0, 90.0), 48.0, "fail"),
        ((6.0, 7.0, 90.0), 7.0, "ok"),
        ((6.0, 90.0, 91.0), 90.0, "fail"),
        ((6.0, math.inf), math.inf, "diverged"),
        ((6.0, 7.0, math.inf), 7.0, "ok"),
    ],
)
def test_median_and_status(errors: tuple[float, ...], median: float, status: str) -> None:
    case = measured(*errors)
    assert case.median == median
    assert case.status == status


# --- reading -------------------------------------------------------------------------------------


def test_tables_of_one_source_are_read_together(write: Write) -> None:
    write("table3-cifar10", {"original-110-cifar10": [2.0, 1.0, None]})
    write("table3-cifar100", {"original-164-cifar100": [30.0]}, dataset="cifar100")
    path = write("fig1", {"original-1001-cifar10": [5.0]})
    found = read_trainings(path.parents[1])
    assert set(found) == {"table3", "fig1"}
    assert set(found["table3"]) == {"original-110-cifar10", "original-164-cifar100"}
    first = found["table3"]["original-110-cifar10"]
    assert first.errors == (2.0, 1.0, math.inf)
    assert found["table3"]["original-164-cifar100"].dataset == "cifar100"


def test_the_provenance_names_the_source(write: Write) -> None:
    path = write("effective_paths", {"full": [6.0]}, paper="veit2016")
    provenance_path(path).write_text(json.dumps({"config": {"figure": "section5"}}))
    assert set(read_trainings(path.parents[1])) == {"section5"}
    provenance_path(path).write_text(json.dumps({"config": None}))
    assert set(read_trainings(path.parents[1])) == {"effective_paths"}


def test_a_seed_measured_twice_counts_once(write: Write) -> None:
    write("table3-a", {"original-110-cifar10": [2.0, 3.0]})
    path = write("table3-b", {"original-110-cifar10": [2.0, 3.0, 4.0]})
    found = read_trainings(path.parents[1])["table3"]["original-110-cifar10"]
    assert found.errors == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("config", "dataset", "images"),
    [
        (None, "digits", 360),
        ({"data": {"test_images": None}}, "cifar10", 10_000),
        ({"data": {"test_images": 100}}, "cifar10", 100),
    ],
)
def test_images_are_those_of_the_data_or_of_the_provenance(
    write: Write, config: dict[str, object] | None, dataset: str, images: int
) -> None:
    path = write("table1", {"original": [2.0]}, dataset=dataset)
    if config is not None:
        provenance_path(path).write_text(json.dumps({"config": config}))
    assert read_trainings(path.parents[1])["table1"]["original"].images == images


def test_a_failure_is_an_error_above_20_percent_on_ten_classes(write: Write) -> None:
    path = write("table1", {"original": [30.0]})
    write("table3-cifar100", {"original-164-cifar100": [30.0]}, dataset="cifar100")
    found = read_trainings(path.parents[1])
    assert found["table1"]["original"].status == "fail"
    assert found["table3"]["original-164-cifar100"].status == "ok"


def test_a_damaged_table_is_named(write: Write) -> None:
    path = write("table1", {"original": [2.0]})
    path.write_text("experiment,case\n")
    with pytest.raises(UserError, match=r"table1/table.csv: column 3 is missing"):
        read_trainings(path.parents[1])


# --- rows ----------------------------------------------------------------------------------------


def test_rows_in_the_papers_order_with_what_was_measured(write: Write) -> None:
    errors: Errors = {"dropout": [90.0], "original": [7.0, 6.0, 6.5]}
    path = write("table1", errors, dataset="cifar10", depth=110)
    found = [r for r in rows("he2016", read_trainings(path.parents[1])) if r.source == "table1"]
    assert [row.case for row in found][:2] == ["original", "scaling-0-1"]
    assert len(found) == 16
    original, dropout = found[0], found[-1]
    assert original.published == 6.61
    assert original.difference == pytest.approx(6.5 - 6.61)
    assert original.status == "ok"
    assert (dropout.published, dropout.published_status) == (None, "fail")
    assert (dropout.difference, dropout.status) == (None, "fail")
    assert found[1].status == "not measured"


@pytest.mark.parametrize(
    ("dataset", "depth", "difference"),
    [
        ("cifar10", 110, 1.0),
        ("digits", 110, None),  # other data
        ("cifar10", 38, None),  # another network
        ("cifar10", None, None),  # nobody knows which network
    ],
)
def test_a_difference_is_one_of_the_same_network_and_data(
    write: Write, dataset: str, depth: int | None, difference: float | None
) -> None:
    path = write("table1", {"original": [7.61]}, dataset=dataset, depth=depth)
    (row,) = [
        row
        for row in rows("he2016", read_trainings(path.parents[1]))
        if (row.source, row.case) == ("table1", "original")
    ]
    assert row.published == 6.61
    assert row.difference == (None if difference is None else pytest.approx(difference))
    assert row.to_dict("mini")["network"] == (None if depth is None else f"resnet{depth}")


def test_rows_of_other_papers_stand_as_published(write: Write) -> None:
    path = write("table4-cifar10", {"preact-164-cifar10": [6.0]})
    found = {r.case: r for r in rows("he2016", read_trainings(path.parents[1]))}
    assert found["nin-cifar10"].status == "published only"
    assert found["nin-cifar10"].published == 8.81


def test_top_1_where_the_paper_gives_top_1_and_top_5() -> None:
    found = [row for row in rows("he2016", {}) if row.source == "table5"]
    assert len(found) == 7
    assert found[0].case == "original-152-224"
    assert found[0].published == 23.0


def test_the_other_paper_and_a_case_it_has_no_number_for(write: Write) -> None:
    path = write("section5", {"full": [6.0], "active-24": [5.0]}, paper="veit2016")
    found = {row.case: row for row in rows("veit2016", read_trainings(path.parents[1]))}
    assert list(found) == ["active-23", "full", "active-24"]
    assert found["full"].published == 6.10
    assert found["active-24"].published is None
    assert found["active-24"].difference is None


def test_json_has_no_numbers_that_json_lacks(write: Write) -> None:
    path = write("table1", {"original": [None], "dropout": [90.0, None]})
    content = [row.to_dict("mini") for row in rows("he2016", read_trainings(path.parents[1]))]
    text = json.dumps(content, allow_nan=False)
    assert json.loads(text)[0] == {
        "source": "table1",
        "case": "original",
        "published": 6.61,
        "published_status": "ok",
        "published_approximate": False,
        "published_dataset": "cifar10",
        "profile": "mini",
        "dataset": "digits",
        "network": None,
        "measured": None,
        "seeds": 1,
        "errors": [None],
        "interval": None,
        "difference": None,
        "status": "diverged",
    }


# --- which profile -------------------------------------------------------------------------------


def test_real_images_are_compared_first_and_others_are_named(write: Write, tmp_path: Path) -> None:
    for profile in ("smoke", "another", "mini", "cpu"):
        write("table1", {"original": [2.0]}, profile=profile)
    found = compare("he2016", None, tmp_path / "results")
    assert found.profile == "cpu"
    assert found.others == ("mini", "smoke", "another")


def test_without_them_the_next_that_has_results(write: Write, tmp_path: Path) -> None:
    write("table1", {"original": [2.0]}, profile="smoke")
    write("table1", {"original": [2.0]}, profile="mini")
    assert compare("he2016", None, tmp_path / "results").profile == "mini"


@pytest.mark.parametrize("paper", ["he2016", "veit2016"])
def test_claims_come_from_the_papers_module(write: Write, tmp_path: Path, paper: str) -> None:
    write("another", {"main": [2.0]}, paper=paper)
    found = compare(paper, "mini", tmp_path / "results")
    assert len(found.judgements) > 5
    assert all(judgement.claim.paper == paper for judgement in found.judgements)
    json.dumps(found.to_dict(), allow_nan=False)


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that is wide enough for every table."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.usefixtures("wide")
def test_the_command_prints_rows_and_claims(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: Errors = {"original": [1.0, 1.5, 2.0], "dropout": [90.0, 89.0, 88.0]}
    write("table1", errors, dataset="cifar10", depth=110)
    write("table1", {"original": [1.0]}, profile="smoke")
    results = str(tmp_path / "results")
    assert run_command(["compare", "he2016", "--profile", "mini", "--results", results]) == 0
    out = capsys.readouterr().out
    cells = [cell.strip() for cell in _line(out, "original unit").strip("│").split("│")]
    # mean 1.5, deviation 0.5, t(0.975, 2) = 4.3027: 1.5 -+ 1.242
    expected = ["original unit", "6.61", "1.50", "ResNet-110", "3"]
    expected += ["0.3 to 2.7", "-5.11", "ok"]
    assert cells == expected
    assert "fail" in _line(out, "dropout").split("│")[2]
    assert "he2016 table1: test error in percent, profile mini, cifar10" in out
    assert "nothing measured at profile mini: table2, table3, table4, table5, text" in out
    assert "HOLDS  table1: Dropout on the shortcut is worse than the identity" in out
    assert "other results: --profile smoke" in out


@pytest.mark.usefixtures("wide")
def test_digits_are_not_set_against_cifar(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: Errors = {"original-110-cifar10": [2.8], "preact-110-cifar10": [1.7]}
    write("table3-cifar10", errors)
    results = str(tmp_path / "results")
    assert run_command(["compare", "he2016", "--profile", "mini", "--results", results]) == 0
    out = capsys.readouterr().out
    cells = [cell.strip() for cell in _line(out, "original unit, 110").strip("│").split("│")]
    assert cells == ["original unit, 110", "6.61", "2.80", "1", "ok"]
    assert "no difference where our network or data are not the paper's" in out
    assert "he2016 table3 of CIFAR-10: test error in percent, profile mini, digits" in out
    assert "table3 of CIFAR-100, table4" in out  # not measured
    assert "original-110-cifar10" not in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paper", "profile"), [("he2016", "mini"), ("veit2016", "mini"), ("veit2016", "cpu")]
)
def test_our_results_fit_the_terminal(
    paper: str, profile: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    results = str(Path(__file__).parents[2] / "results")
    assert run_command(["compare", paper, "--profile", profile, "--results", results]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "cifar10-" not in out
    first = {line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")}
    whole = {row.title for row in compare(paper, profile, Path(results)).rows}
    words = {word for title in whole for word in title.split()}
    assert {word for cell in first for word in cell.split()} <= words | {"case"}  # none is broken


def _line(text: str, case: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"│ {case} "))


def test_the_command_as_json(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("table1", {"original": [1.0], "dropout": [90.0]})
    results = str(tmp_path / "results")
    assert run_command(["compare", "he2016", "--results", results, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    content = json.loads(line)
    assert content["command"] == "compare"
    assert (content["paper"], content["profile"]) == ("he2016", "mini")
    by_case = {(r["source"], r["case"]): r for r in content["rows"]}
    assert by_case["table1", "original"]["measured"] == 1.0
    verdicts = [claim["verdict"] for claim in content["claims"] if not claim["check"]]
    assert set(verdicts) == {"holds", "not measured"}
    assert {v: n for v, n in content["counts"].items() if n} == {
        verdict: verdicts.count(verdict) for verdict in set(verdicts)
    }
    (dropout,) = [c for c in content["claims"] if c["text"].startswith("Dropout")]
    (part,) = dropout["parts"]
    assert part["tested"]["value"] == 89.0
    assert part["spread_assumed"]


# --- claims --------------------------------------------------------------------------------------


def judgement(verdict: Verdict, text: str, is_check: bool = False) -> Judgement:
    claim = Claim("he2016", "table1", text, {}, lambda _: [], is_check=is_check)
    part = Part(verdict, Quantity("difference", 3.0, 1.0, 2, "points"), assumed=True, unpaired=True)
    return Judgement(claim, "mini", verdict, () if verdict == "not measured" else (part,))


@pytest.mark.usefixtures("wide")
def test_claims_are_printed_with_what_they_share_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judgements = [
        judgement("holds", "formula", is_check=True),
        judgement("too close", "a"),
        judgement("does not hold", "b"),
        judgement("holds", "c"),
        judgement("not measured", "d"),
    ]
    show(Comparison("he2016", "mini", tmp_path, [], judgements), Display())
    out = capsys.readouterr().out
    assert out.count("360 test images") == out.count("outcomes for each image are") == 1
    assert out.count("difference +3.00 points (z = 3.0, spread assumed)") == 4
    lines = out.splitlines()
    assert [line for line in lines if "  table1: " in line] == [
        "TOO CLOSE  table1: a",
        "DOES NOT HOLD  table1: b",
        "HOLDS  table1: c",
        "NOT MEASURED  table1: d",
        "CHECK, holds  table1: formula",
    ]
    assert "4 claims: 1 hold, 1 do not hold, 1 too close to call" in lines[-1]
    assert lines[-1].endswith("1 not measured; checks, not counted: 1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "he2015"], "'he2015' is not one of 'he2016', 'veit2016'"),
        (
            ["compare", "he2016"],
            "measure them: resnet-cli reproduce he2016 --profile mini",
        ),
        (
            ["compare", "veit2016", "--profile", "cpu"],
            "no results in results/veit2016/cpu; measure them: "
            "resnet-cli reproduce veit2016 --profile cpu",
        ),
        (
            ["compare", "he2016", "--profile", "mimi"],
            "unknown profile 'mimi'; did you mean 'mini'",
        ),
        (["compare", "he2016", "--profile", "../.."], "unknown profile '../..'"),
        (["compare"], "Missing argument"),
        (["reproduce", "he2015"], "'he2015' is not one of 'he2016', 'veit2016'"),
        (["reproduce", "he2016", "--profile", "tiny"], "'tiny' is not one of"),
        (["reproduce", "he2016", "--profile", "smoke", "--set", "train.lr=x"], "train.lr"),
        (["reproduce", "he2016", "--profile", "smoke", "--budget", "5x"], "write 90s, 150m or 2h"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for paper in PAPERS:  # otherwise the results that come with the program are compared
        Path("results", paper).mkdir(parents=True)
    assert run_command(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_results_of_another_profile_are_named(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("table1", {"original": [2.0]}, profile="smoke")
    results = str(tmp_path / "results")
    assert run_command(["compare", "he2016", "--profile", "paper", "--results", results]) == 2
    assert "(profiles with results: smoke)" in capsys.readouterr().err
