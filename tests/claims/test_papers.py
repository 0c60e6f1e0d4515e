"""The papers' numbers: some exact values, and the form of all."""

import math
import re
from pathlib import Path
from typing import get_args

import pandas
import pytest

from resnet_cli.claims import papers
from resnet_cli.claims.papers import case_title, published, published_error
from resnet_cli.config.schema import ModelConfig, Placement
from resnet_cli.runtime.errors import UserError

CASE = re.compile(r"^[a-z0-9][a-z0-9_.+-]*$")  # config.Case.name


@pytest.mark.parametrize(
    ("source", "case", "error"),
    [
        ("table1", "original", 6.61),
        ("table1", "scaling-0.5-0.5", 12.35),
        ("table1", "scaling-0-1", None),
        ("table1", "exclusive-gating-bias-5", None),
        ("table1", "exclusive-gating-bias-6", 8.70),
        ("table1", "exclusive-gating-bias-7", 9.81),
        ("table1", "shortcut-gating-bias0", 12.86),
        ("table1", "shortcut-gating-bias-6", 6.91),
        ("table1", "convolution", 12.22),
        ("table1", "dropout", None),
        ("table2", "bn_after_addition-110", 8.17),
        ("table2", "relu_before_addition-164", 6.14),
        ("table2", "relu_only_preactivation-110", 6.71),
        ("table2", "full_preactivation-164", 5.46),
        ("table3", "original-110-one_layer-cifar10", 9.90),
        ("table3", "preact-110-one_layer-cifar10", 8.91),
        ("table3", "original-1001-cifar10", 7.61),
        ("table3", "preact-1001-cifar100", 22.71),
        ("table4", "nin-cifar100", 35.68),
        ("table4", "preact-1001-batch64-cifar10", 4.62),
        ("table5", "preact-200-320-aspect", 20.1),  # top-1
        ("text", "bn_after_addition-101-224", 24.6),
        ("table1", "no-such-case", None),
        ("table9", "original", None),
    ],
)
def test_errors_of_he2016(source: str, case: str, error: float | None) -> None:
    assert published_error("he2016", source, case) == error


def test_top_5_errors() -> None:
    assert published_error("he2016", "table5", "original-152-224", top5=True) == 6.7
    assert published_error("he2016", "text", "bn_after_addition-101-224", top5=True) == 7.5
    assert published_error("he2016", "table1", "original", top5=True) is None
    assert published_error("veit2016", "section5", "full", top5=True) is None


def test_errors_of_veit2016() -> None:
    assert published_error("veit2016", "section5", "active-23") == 5.96
    assert published_error("veit2016", "section5", "full") == 6.10
    assert published_error("veit2016", "section5", "active-24") is None


def test_sizes_of_the_tables() -> None:
    sizes = published("he2016").groupby("source").size().to_dict()
    assert sizes == {
        "table1": 16,
        "table2": 10,
        "table3": 12,
        "table4": 23,
        "table5": 14,
        "text": 4,
    }


def test_columns() -> None:
    assert list(published("he2016").columns) == [
        "source",
        "case",
        "network",
        "dataset",
        "metric",
        "value",
        "mean",
        "std",
        "status",
        "checked",
        "remark",
    ]
    assert list(published("veit2016").columns) == [
        "figure",
        "quantity",
        "value",
        "checked",
        "remark",
    ]


def test_no_key_stands_twice() -> None:
    assert not published("he2016").duplicated(["source", "case", "metric"]).any()
    assert not published("veit2016").duplicated(["figure", "quantity"]).any()


def test_every_value_is_a_number_in_range() -> None:
    table = published("he2016")
    assert set(table["status"]) == {"ok", "fail"}
    ok = table[table["status"] == "ok"]
    assert ok["value"].between(3, 40).all()
    assert table.loc[table["status"] == "fail", "value"].isna().all()
    assert len(table) - len(ok) == 9
    given = table.dropna(subset=["std"])
    assert len(given) == 3
    assert ((given["mean"] - given["value"]).abs() < given["std"]).all()
    assert given["std"].between(0.1, 0.3).all()
    assert table["mean"].notna().equals(table["std"].notna())
    values = published("veit2016")["value"]
    assert values.between(0, 1000).all()


def test_words_come_from_short_lists() -> None:
    table = published("he2016")
    assert set(table["dataset"]) == {"cifar10", "cifar100", "imagenet"}
    assert set(table["metric"]) == {"test_error", "top1_error", "top5_error"}
    assert ((table["dataset"] == "imagenet") == (table["metric"] != "test_error")).all()
    for paper in papers.PAPERS:
        assert set(published(paper)["checked"]) <= {"v", "m"}


def test_cases_may_name_the_cases_of_an_experiment() -> None:
    assert all(CASE.match(case) for case in published("he2016")["case"])


def test_placements_are_those_of_the_schema() -> None:
    cases = set(published("he2016").query("source == 'table2'")["case"])
    assert cases == {f"{name}-{depth}" for name in get_args(Placement) for depth in (110, 164)}


@pytest.mark.parametrize("source", ["table1", "table2", "table3"])
def test_networks_are_called_as_the_program_calls_them(source: str) -> None:
    for row in published("he2016").query("source == @source").to_dict("records"):
        case, kind = str(row["case"]), str(row["case"]).split("-")[0]
        config: dict[str, object] = {"depth": 110, "placement": "original"}
        if source == "table1" and kind != "original":
            shortcut = {"exclusive": "exclusive_gating", "shortcut": "shortcut_only_gating"}
            config["shortcut"] = shortcut.get(kind, kind)
        if source != "table1":
            config["depth"] = int(case.split("-")[1])
            config["placement"] = "full_preactivation" if kind == "preact" else kind
        if config["depth"] != 110:
            config["branch"] = "bottleneck"
        if "one_layer" in case:
            config["branch"] = "one_layer"
        assert ModelConfig.model_validate(config).label == row["network"]


def test_equal_networks_have_equal_errors_in_all_tables() -> None:
    table = published("he2016").query("source in ('table2', 'table3', 'table4') and status == 'ok'")
    table = table[~table["case"].str.contains("batch64")]
    assert (table.groupby(["network", "dataset"])["value"].nunique() == 1).all()


def test_the_effective_lengths_are_the_share_of_paths_that_the_paper_says() -> None:
    values = published("veit2016").set_index(["figure", "quantity"])["value"]
    first, last = int(values["fig6c", "effective_from"]), int(values["fig6c", "effective_to"])
    units = int(values["text", "units"])
    share = 100 * sum(math.comb(units, k) for k in range(first, last + 1)) / 2**units
    assert values["fig6c", "effective_paths_percent"] == pytest.approx(share, abs=0.02)
    assert values["fig3", "chance_error"] == 90
    assert values["section5", "mean_length"] == values["section5", "active_units"] / 2


def test_a_copy_is_returned() -> None:
    table = published("he2016")
    table["value"] = 0.0
    assert published("he2016")["value"].max() > 1


def test_an_unknown_paper() -> None:
    with pytest.raises(UserError, match=r"unknown paper 'he2015'; did you mean 'he2016'"):
        published("he2015")
    with pytest.raises(UserError, match="unknown paper"):
        published_error("", "table1", "original")


@pytest.mark.parametrize("paper", papers.PAPERS)
def test_the_files_are_tidy(paper: str) -> None:
    raw = (Path(papers.__file__).parent / f"{paper}.csv").read_bytes()
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    assert isinstance(published(paper), pandas.DataFrame)


@pytest.mark.parametrize(
    ("case", "title"),
    [
        ("original", "original unit"),
        ("scaling-0.5-1", "shortcut 0.5, F 1"),
        ("scaling-0.5-0.5", "shortcut 0.5, F 0.5"),
        ("exclusive-gating-bias-5", "exclusive gate, bias -5"),
        ("bn_after_addition-164", "BN after addition, 164"),
        ("original-110-one_layer-cifar10", "original unit, 110, one layer"),
        ("preact-1001-batch64-cifar10", "full pre-activation, 1001, batch 64"),
        ("active-23", "23 units active"),
        ("mine_own", "mine own"),
    ],
)
def test_cases_have_titles_of_words(case: str, title: str) -> None:
    assert case_title(case) == title


def test_no_two_rows_of_a_table_share_a_title() -> None:
    table = published("he2016")
    for _, rows in table[table["metric"] != "top5_error"].groupby(["source", "dataset"]):
        titles = [case_title(case) for case in rows["case"]]
        assert len(set(titles)) == len(titles)
