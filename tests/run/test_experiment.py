"""Experiments whole: what is trained, what is skipped, what is written and where."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_cli.config.schema import Experiment, RunConfig
from resnet_cli.results.outcomes import case_key, read_outcomes
from resnet_cli.results.tables import column_names, is_pair, read_provenance, read_table
from resnet_cli.run import trainings as trainings_module
from resnet_cli.run.experiment import run_experiment
from resnet_cli.run.trainings import Session, Trained, status, write_training_tables
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.interrupt import Interrupted, Stopper
from resnet_cli.studies import delete
from resnet_cli.studies.runner import Written
from resnet_cli.studies.subject import find_subject
from resnet_cli.training.context import Context
from resnet_cli.training.runs import FinishedRun, train_run

Captured = pytest.CaptureFixture[str]


def make_experiment(**fields: Any) -> Experiment:
    content: dict[str, Any] = {
        "name": "tiny",
        "profile": "smoke",
        "title": "A tiny network",
        "model": {"depth": 8, "widths": (4, 8, 16)},
        "data": {"train_images": 128, "test_images": 50, "pad": 2, "flip": False},
        "train": {"epochs": 1, "batch_size": 64, "schedule": "one_cycle"},
    }
    return Experiment.model_validate(content | fields)


def run(
    experiment: Experiment,
    folder: Path,
    stopper: Callable[[], bool] | None = None,
    context: Context | None = None,
) -> Written:
    context = context or Context(torch.device("cpu"), runs=folder / "runs")
    session = Session(context, Display(), stopper or Stopper())  # type: ignore[arg-type]
    return run_experiment(experiment, session, folder / "out")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """What is trained while the test runs."""
    done: list[RunConfig] = []

    def counted(context: Context, run: RunConfig, **options: Any) -> FinishedRun:
        done.append(run)
        return train_run(context, run, **options)

    monkeypatch.setattr(trainings_module, "train_run", counted)
    return done


# --- training ------------------------------------------------------------------------------------


def test_cases_and_seeds_become_rows(tmp_path: Path, trainings: list[RunConfig]) -> None:
    cases = [
        {"name": "original", "model": {"placement": "original"}},
        {"name": "preact", "model": {"stage_change": "projection"}},
    ]
    experiment = make_experiment(cases=cases, seeds=(0, 3))
    written = run(experiment, tmp_path)
    out = tmp_path / "out"
    table = read_table(out / "table.csv")
    assert table["case"].tolist() == ["original", "original", "preact", "preact"]
    assert table["seed"].tolist() == [0, 3, 0, 3]
    assert table["dataset"].tolist() == ["digits"] * 4
    assert table["params"].nunique() == 2
    assert table["paper_error"].isna().all()
    training = read_table(out / "training.csv")
    assert training[["case", "seed"]].values.tolist() == table[["case", "seed"]].values.tolist()
    assert training["test_error"].tolist() == table["test_error"].tolist()
    assert {path.name for path in written.files} >= {"table.csv", "training.csv"}
    assert all(path.is_file() for path in written.files)
    assert len(trainings) == 4
    for name in ("table.csv", "training.csv"):
        assert is_pair(out / name)
        provenance = read_provenance(out / name)
        assert provenance["config"] == experiment.model_dump(mode="json")
        assert provenance["seeds"] == [0, 3]
        assert provenance["profile"] == "smoke"


def test_what_is_trained_is_not_trained_again(
    tmp_path: Path, trainings: list[RunConfig], capsys: Captured
) -> None:
    run(make_experiment(), tmp_path)
    before = (tmp_path / "out" / "table.csv").read_bytes()
    capsys.readouterr()
    run(make_experiment(), tmp_path)
    assert len(trainings) == 1
    assert "main, seed 0: already trained (" in capsys.readouterr().out
    assert (tmp_path / "out" / "table.csv").read_bytes() == before
    run(make_experiment(seeds=(0, 1)), tmp_path)  # one more seed: only that one
    assert [t.seed for t in trainings] == [0, 1]


def test_trainings_of_another_commit_are_named(tmp_path: Path) -> None:
    run(make_experiment(seeds=(0, 1, 2)), tmp_path)
    table = tmp_path / "out" / "table.csv"
    assert "trainings" not in read_provenance(table)
    for folder in (tmp_path / "runs").iterdir():
        path = folder / "training.provenance.json"
        content = json.loads(path.read_text())
        if content["seeds"] == [2]:
            path.unlink()
        else:
            path.write_text(json.dumps(content | {"commit": "a" * 40, "dirty": False}))
    (tmp_path / "out").rename(tmp_path / "old")
    run(make_experiment(seeds=(0, 1, 2, 3)), tmp_path)
    found = read_provenance(table)
    known, unknown = found["trainings"]
    assert known == {
        "runs": ["main, seed 0", "main, seed 1"],
        "commit": "a" * 40,
        "dirty": False,
        "versions": found["versions"],
        "platform": found["platform"],
    }
    assert unknown["runs"] == ["main, seed 2"]
    assert unknown["commit"] is None


def test_two_experiments_share_a_training(tmp_path: Path, trainings: list[RunConfig]) -> None:
    run(make_experiment(), tmp_path)
    run(make_experiment(name="other", title="Another question"), tmp_path)
    assert len(trainings) == 1
    table = read_table(tmp_path / "out" / "table.csv")
    assert table["experiment"].tolist() == ["other"]


def test_tables_are_written_after_each_training(tmp_path: Path) -> None:
    asked = iter(range(1, 100))  # 2 iterations a run: the fourth question ends the second case
    cases = [{"name": "one"}, {"name": "two", "train": {"lr": 0.2}}]
    experiment = make_experiment(cases=cases)
    with pytest.raises(Interrupted, match="stopped at iteration 1 of 2"):
        run(experiment, tmp_path, stopper=lambda: next(asked) >= 3)
    assert read_table(tmp_path / "out" / "table.csv")["case"].tolist() == ["one"]
    run(experiment, tmp_path)
    assert read_table(tmp_path / "out" / "table.csv")["case"].tolist() == ["one", "two"]


def test_a_table_never_loses_rows_on_a_second_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained already is not written row by row again; the plots follow at the end."""
    written: list[tuple[int, bool]] = []
    original = trainings_module.write_training_tables

    def spy(*args: Any, plot: bool) -> Any:
        written.append((len(args[1]), plot))
        return original(*args, plot=plot)

    monkeypatch.setattr(trainings_module, "write_training_tables", spy)
    for _ in range(2):
        run(make_experiment(seeds=(0, 1, 2)), tmp_path)
    assert written == [(1, False), (2, False), (3, True), (3, True)]


def test_a_diverged_case_is_a_row_and_the_next_goes_on(tmp_path: Path, capsys: Captured) -> None:
    absurd = {"lr": 1e30, "schedule": "milestones", "warmup_iterations": 0}
    cases = [{"name": "absurd", "train": absurd}, {"name": "sane"}]
    run(make_experiment(cases=cases), tmp_path)
    rows = read_table(tmp_path / "out" / "table.csv").to_dict("records")
    assert [row["status"] for row in rows] == ["diverged", "fail"]  # two steps learn nothing
    assert rows[0]["test_error"] != rows[0]["test_error"]  # not measured
    assert "absurd, seed 0: diverged, loss not finite at iteration 1" in capsys.readouterr().out


def test_a_newest_run_that_diverged_is_not_studied(tmp_path: Path) -> None:
    context = Context(torch.device("cpu"), runs=tmp_path / "runs")
    run(make_experiment(), tmp_path)
    sane = find_subject(context, None).loaded.source
    absurd = {"epochs": 1, "batch_size": 64, "lr": 1e30, "warmup_iterations": 0}
    run(make_experiment(train=absurd), tmp_path)
    assert len(list(context.runs.iterdir())) == 2
    assert find_subject(context, None).loaded.source == sane


@pytest.mark.parametrize(
    ("error", "diverged_at", "classes", "limit", "expected"),
    [
        (5.0, None, 10, "auto", "ok"),
        (20.0, None, 10, "auto", "ok"),
        (20.1, None, 10, "auto", "fail"),
        (70.0, None, 100, "auto", "ok"),
        (70.0, None, 100, 60.0, "fail"),
        (99.0, None, 10, None, "ok"),
        (5.0, 17, 10, "auto", "diverged"),
    ],
)
def test_status(
    error: float, diverged_at: int | None, classes: int, limit: Any, expected: str
) -> None:
    experiment = make_experiment(fail_above=limit)
    finished = FinishedRun(
        folder=Path("runs/x"),
        run=experiment.runs()[0][1],
        rows=[{"test_error": error}],
        parameters=1,
        num_classes=classes,
        diverged_at=diverged_at,
        data={},
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )
    assert status(experiment, finished) == expected


def test_the_outcomes_of_all_cases_and_seeds_stand_next_to_the_table(tmp_path: Path) -> None:
    run(make_experiment(seeds=(0, 1)), tmp_path)
    outcomes = read_outcomes(tmp_path / "out")
    table = read_table(tmp_path / "out" / "table.csv")
    assert list(outcomes) == [case_key("main", seed) for seed in (0, 1)]
    errors = [100 * (1 - correct.mean()) for correct in outcomes.values()]
    assert errors == pytest.approx(table["test_error"].tolist())


@pytest.mark.parametrize("classes", [10, 1000])
def test_the_top_5_error_of_many_classes_stands_next_to_the_top_1_error(
    classes: int, tmp_path: Path
) -> None:
    experiment = make_experiment(paper="he2016", figure="text")
    case, config = experiment.runs()[0]
    case = case.model_copy(update={"name": "original-101-224"})
    row = dict.fromkeys(column_names("training")[2:], 1)
    finished = FinishedRun(
        folder=tmp_path / "runs" / "x",
        run=config,
        rows=[row | {"test_error": 24.0}],
        parameters=1,
        num_classes=classes,
        diverged_at=None,
        data={},
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        top5_error=7.25,
    )
    trained = [Trained(case, finished, True, None)]
    write_training_tables(experiment, trained, "cpu", tmp_path, datetime.now(UTC), plot=False)
    path = tmp_path / "table_top5.csv"
    assert path.exists() == (classes == 1000)
    if path.exists():
        assert path.read_text().splitlines()[1].endswith("original-101-224,0,7.25,7.1")


# --- studies -------------------------------------------------------------------------------------


def test_an_experiment_with_a_study_trains_then_studies(tmp_path: Path) -> None:
    experiment = make_experiment(study={"kind": "delete", "k": 1})
    written = run(experiment, tmp_path)
    frame = read_table(tmp_path / "out" / "lesion_delete.csv")
    assert frame["blocks"].tolist() == ["0", "1", "2"]
    assert written.facts["main"]["rows"] == 3
    assert not (tmp_path / "out" / "table.csv").exists()


def test_several_cases_have_a_folder_each_and_a_diverged_one_none(
    tmp_path: Path, capsys: Captured
) -> None:
    absurd = {"lr": 1e30, "schedule": "milestones", "warmup_iterations": 0}
    cases = [{"name": "absurd", "train": absurd}, {"name": "sane"}]
    run(make_experiment(study={"kind": "delete", "k": 1}, cases=cases), tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sane"]
    assert "case absurd: diverged in training" in capsys.readouterr().out


def test_several_seeds_have_a_folder_each(tmp_path: Path) -> None:
    run(make_experiment(study={"kind": "delete", "k": 1}, seeds=(0, 1)), tmp_path)
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert folders == ["lesion_single.png", "main-seed0", "main-seed1"]


def test_a_study_of_some_images_only(tmp_path: Path) -> None:
    run(make_experiment(study={"kind": "delete", "k": 1, "images": 12}), tmp_path)
    table = read_table(tmp_path / "out" / "lesion_delete.csv")
    assert set(table["images"]) == {12}


def test_a_study_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    measure = delete.outcomes_of

    def counted(*args: Any) -> Any:
        calls.append(args)
        return measure(*args)

    monkeypatch.setattr(delete, "outcomes_of", counted)
    experiment = make_experiment(study={"kind": "delete", "k": 1})
    table = tmp_path / "out" / "lesion_delete.csv"
    run(experiment, tmp_path)
    first = table.read_bytes()
    written = run(experiment, tmp_path)
    assert written.kept == [table]
    assert len(calls) == 1
    assert table.read_bytes() == first
    run(make_experiment(study={"kind": "delete", "k": 2, "samples": 2}), tmp_path)
    assert len(calls) == 2  # another question
    assert read_table(table)["k"].tolist() == [2, 2]
    table.write_bytes(table.read_bytes()[:-3])
    run(make_experiment(study={"kind": "delete", "k": 2, "samples": 2}), tmp_path)
    assert len(calls) == 3  # a damaged table is measured again
    assert is_pair(table)
    table.with_suffix(".provenance.json").unlink()
    run(make_experiment(study={"kind": "delete", "k": 2, "samples": 2}), tmp_path)
    assert len(calls) == 4  # so is one of unknown origin
    assert is_pair(table)


def test_stopped_between_training_and_study(tmp_path: Path) -> None:
    experiment = make_experiment(study={"kind": "delete", "k": 1})
    run(make_experiment(), tmp_path)
    with pytest.raises(Interrupted, match="stopped between studies; the same command resumes"):
        run(experiment, tmp_path, stopper=lambda: True)
    assert not (tmp_path / "out" / "lesion_delete.csv").exists()
