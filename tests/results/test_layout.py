"""Where files lie: the folders of experiments, cases and repeated results."""

from pathlib import Path
from typing import Any

import pytest

from resnet_cli.config.schema import Experiment
from resnet_cli.results.layout import (
    case_folder,
    experiment_folder,
    partial_table,
    provenance_path,
    repeated_folder,
    table_path,
)


def make_experiment(**changes: Any) -> Experiment:
    content: dict[str, Any] = {
        "name": "mine",
        "profile": "mini",
        "title": "A title",
        "model": {"depth": 8},
        "train": {"epochs": 1, "batch_size": 64, "schedule": "one_cycle"},
    }
    return Experiment.model_validate(content | changes)


@pytest.mark.parametrize(
    ("name", "paper", "expected"),
    [
        ("he2016/table1", "he2016", "results/he2016/mini/table1"),
        ("veit2016/fig5a", "veit2016", "results/veit2016/mini/fig5a"),
        ("quickstart", None, "results/local/quickstart/mini"),
        ("mine", "he2016", "results/he2016/mini/mine"),
    ],
)
def test_the_folder_of_an_experiment(name: str, paper: str | None, expected: str) -> None:
    experiment = make_experiment(name=name, paper=paper)
    assert experiment_folder(experiment) == Path(expected)
    assert experiment_folder(experiment, Path("elsewhere")).parts[0] == "elsewhere"


@pytest.mark.parametrize(
    ("cases", "seeds", "expected"),
    [
        (["plain"], [3], "."),
        (["plain"], [3, 4], "plain-seed3"),
        (["plain", "other"], [3], "plain"),
        (["plain", "other"], [3, 4], "plain-seed3"),
    ],
)
def test_the_folder_of_a_case(cases: list[str], seeds: list[int], expected: str) -> None:
    experiment = make_experiment(cases=[{"name": name} for name in cases], seeds=seeds)
    assert case_folder(experiment, "plain", 3) == expected


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ("results/he2016/mini/signal/case/signal.provenance.json", "he2016-mini-signal-case"),
        ("/a/results/b/results/local/x/y.provenance.json", "local-x"),
        ("/a/results/y.provenance.json", "results"),
        ("/elsewhere/folder/y.provenance.json", "folder"),
    ],
)
def test_a_repeated_result_is_named_after_where_the_first_lies(
    provenance: str, expected: str
) -> None:
    assert repeated_folder(Path(provenance)) == Path(f"results/local/again-{expected}")


def test_the_files_of_a_table() -> None:
    table = Path("a/path_gradients.csv")
    assert provenance_path(table) == Path("a/path_gradients.provenance.json")
    assert table_path(provenance_path(table)) == table
    assert partial_table(table) == Path("a/path_gradients.partial.jsonl")
    assert partial_table(table, 2) == Path("a/path_gradients.partial2.jsonl")
