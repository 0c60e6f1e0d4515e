"""The command line: what commands write and print, how they fail, and how they are interrupted."""

import ctypes
import dataclasses
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import typer
import yaml
from PIL import Image

from resnet_cli import __version__
from resnet_cli.claims.compare import PREFERENCE
from resnet_cli.cli import app, run_command
from resnet_cli.config.experiments import experiment_names, load_experiment
from resnet_cli.config.schema import DataConfig
from resnet_cli.models import build
from resnet_cli.results.tables import is_pair, read_provenance, read_table
from resnet_cli.runtime.display import Display, Update
from resnet_cli.runtime.interrupt import Stopper
from resnet_cli.studies.runner import Written
from resnet_cli.studies.subject import find_subject
from resnet_cli.training.context import Context

Captured = pytest.CaptureFixture[str]
TIMES = ["images_per_second", "seconds"]
TRAIN = ["train", "--profile", "smoke"]
OUT = Path("results/local/quickstart/smoke")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the shell that runs the tests counts."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "RESNET_CLI_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the quickstart was trained at the smoke profile."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command([*TRAIN, "--quiet"]) == 0
    return folder


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def work(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, a copy of the one in which a network was trained."""
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


def run_folder() -> Path:
    (folder,) = Path("runs").iterdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def summary_of(arguments: list[str], capsys: Captured) -> dict[str, Any]:
    """What a command says under --json, where stdout is one line."""
    capsys.readouterr()
    assert run_command([*arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert out.count("\n") == 1
    content = json.loads(out)
    assert content["command"] == arguments[0]
    return content  # type: ignore[no-any-return]


# --- train ---------------------------------------------------------------------------------------


def test_train_writes_its_tables_and_says_so(empty: Path, capsys: Captured) -> None:
    assert run_command([*TRAIN, "--set", "train.epochs=1"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "main, seed 0: epoch 1, iteration 4, train loss " in captured.out
    assert f"wrote {OUT}/table.csv" in captured.out
    assert "\x1b" not in captured.out
    for name in ("training.csv", "table.csv"):
        assert is_pair(empty / OUT / name)
        provenance = read_provenance(empty / OUT / name)
        assert provenance["profile"] == "smoke"
        assert provenance["config"]["train"]["epochs"] == 1
    (row,) = read_table(empty / OUT / "table.csv").to_dict("records")
    assert row["test_error"] == read_table(empty / OUT / "training.csv")["test_error"].iloc[-1]


def test_train_twice_says_trained_already(work: Path, capsys: Captured) -> None:
    before = contents(work)
    assert run_command(TRAIN) == 0
    assert f"main, seed 0: trained already ({run_folder()})" in capsys.readouterr().out
    after = contents(work)
    assert before.keys() == after.keys()
    tables = [name for name in before if name.endswith(".csv") or name.startswith("runs/")]
    assert {n: before[n] for n in tables} == {n: after[n] for n in tables}


def test_train_into_another_folder_with_another_seed(work: Path, capsys: Captured) -> None:
    arguments = [*TRAIN, "--set", "train.iterations=1", "--seed", "7", "--out", "elsewhere"]
    content = summary_of(arguments, capsys)
    files = content["experiments"]["quickstart"]["files"]
    assert files
    assert all(Path(file).parent == Path("elsewhere") and Path(file).is_file() for file in files)
    assert read_table(Path("elsewhere/table.csv"))["seed"].tolist() == [7]
    assert content["experiments"]["quickstart"]["cases"][0]["seed"] == 7


def test_quiet_shows_the_result_alone(work: Path, capsys: Captured) -> None:
    assert run_command([*TRAIN, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert "epoch" not in captured.out
    assert "wrote" not in captured.out
    assert "test error" in captured.out


def test_a_spent_budget_stops_with_the_state_saved(empty: Path, capsys: Captured) -> None:
    assert run_command([*TRAIN, "--budget", "0s"]) == 130
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("resnet-cli: stopped at iteration 1 of 8, saved in runs/")
    assert line.endswith("the same command resumes from there")
    assert run_command([*TRAIN, "--budget", "0s"]) == 130
    assert "at iteration 1 of 8" in capsys.readouterr().out  # resuming
    assert run_command(TRAIN) == 0
    assert (OUT / "table.csv").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ["lesion", "--blocks", "1"],
        ["paths", "--k", "1-2", "--batch-size", "8"],
        ["signal", "--batch-size", "8"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_spent_budget_stops_a_study(
    arguments: list[str], work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_cli.studies.walks.CHUNK_BYTES", 1 << 15)
    line = refused([*arguments, "--budget", "0s", "--out", "o"], capsys, code=130, writes=True)
    assert "the same command continues from here" in line
    assert run_command([*arguments, "--out", "o"]) == 0


def test_a_signal_stops_an_evaluation(
    work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signalled(Stopper):
        def __call__(self) -> bool:
            signal.raise_signal(signal.SIGTERM)
            return super().__call__()

    monkeypatch.setattr("resnet_cli.training.evaluation.BATCH_SIZE", 20)
    monkeypatch.setattr("resnet_cli.runtime.interrupt.Stopper", Signalled)
    assert refused(["eval"], capsys, code=130).endswith("stopped; nothing was measured")


def test_a_diverged_training_is_a_result(empty: Path, capsys: Captured) -> None:
    arguments = [*TRAIN, "--set", "train.lr=1e30"]
    content = summary_of(arguments, capsys)
    (case,) = content["experiments"]["quickstart"]["cases"]
    assert case["status"] == "diverged"
    assert case["test_error"] is None


def test_run_takes_a_yaml_file_with_a_study(work: Path, capsys: Captured) -> None:
    Path("mine.yaml").write_text(
        "title: Mine\n"
        "model: {depth: 8, widths: [4, 8, 16]}\n"
        "data: {train_images: 64, test_images: 30}\n"
        "train: {iterations: 1, batch_size: 64}\n"
        "study: {kind: delete, k: 1}\n"
    )
    content = summary_of(["run", "mine.yaml", "--out", "mine"], capsys)
    assert read_table(Path("mine/lesion_delete.csv"))["blocks"].tolist() == ["0", "1", "2"]
    assert Path("mine/lesion_delete.csv") in map(Path, content["experiments"]["mine"]["files"])


# --- lesion --------------------------------------------------------------------------------------


def lesion(out: str, *arguments: str) -> pandas.DataFrame:
    assert run_command(["lesion", *arguments, "--out", out]) == 0
    assert is_pair(Path(out) / "lesion_delete.csv")
    return read_table(Path(out) / "lesion_delete.csv")


def test_lesion_of_each_unit_in_turn(work: Path, capsys: Captured) -> None:
    error = summary_of(["eval"], capsys)["test_error"]
    frame = lesion("a", "--blocks", "1")
    out = capsys.readouterr().out
    assert frame["blocks"].tolist() == ["0", "1", "2"]
    assert frame["baseline_error"].tolist() == [error] * 3
    assert f"from {run_folder()} data: digits" in " ".join(out.split())
    cells = [row[:2] for row in cells_of(out)]
    assert cells[1:] == [["0", "stage 1, first"], ["1", "stage 2, first"], ["2", "stage 3, first"]]
    provenance = read_provenance(Path("a/lesion_delete.csv"))
    assert provenance["checkpoint"]["source"] == str(run_folder())
    assert lesion("b")["test_error"].tolist() == frame["test_error"].tolist()  # the default


def test_lesion_of_several_units(work: Path) -> None:
    frame = lesion("a", "--blocks", "3")
    assert frame["blocks"].unique().tolist() == ["0 1 2"]
    assert len(frame) == 20
    ranged = lesion("b", "--blocks", "1-2", "--samples", "4", "--seed", "5", "--images", "40")
    assert ranged["k"].tolist() == [1] * 3 + [2] * 4
    assert ranged["seed"].unique().tolist() == [5]
    assert ranged["images"].unique().tolist() == [40]


def test_lesion_of_named_units_together(work: Path) -> None:
    (row,) = lesion("a", "--only", "0,2").to_dict("records")
    assert (row["k"], row["blocks"]) == (2, "0 2")


def test_lesion_by_reordering(empty: Path, capsys: Captured) -> None:
    settings = ["--set", "model.depth=14", "--set", "train.iterations=1"]
    assert run_command([*TRAIN, *settings]) == 0
    arguments = ["lesion", "--reorder", "1-2", "--samples", "3", "--out", "a"]
    content = summary_of(arguments, capsys)
    frame = read_table(Path("a/lesion_reorder.csv"))
    assert frame["swaps"].tolist() == [1, 1, 1, 2, 2, 2]
    assert content["rows"] == 6
    assert all(sorted(map(int, order.split(" "))) == list(range(6)) for order in frame["order"])


def test_a_study_by_hand_goes_to_results_local(work: Path, capsys: Captured) -> None:
    content = summary_of(["lesion", "--checkpoint", str(run_folder())], capsys)
    assert content["checkpoint"] == str(run_folder())
    folder = f"results/local/lesion-{run_folder().name}-blocks1"
    assert f"{folder}/lesion_delete.csv" in content["files"]
    assert content["rows"] == 3


FEW = ["--images", "10"]
QUICK_PATHS = ["--k", "1", "--samples", "1", "--batch-size", "4"]


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["lesion", *FEW], "lesion-NAME-blocks1-images10"),
        (["lesion", "--blocks", "1-2,3", *FEW], "lesion-NAME-blocks1-3-images10"),
        (["lesion", "--only", "2,0", *FEW], "lesion-NAME-only0,2-images10"),
        (["lesion", "--per-class", *FEW], "lesion-NAME-blocks1-per-class-images10"),
        (["lesion", "--ranked", *FEW], "lesion-NAME-blocks1-images10"),
        (["lesion", "--engine", "plain", *FEW], "lesion-NAME-blocks1-images10-plain"),
        (
            ["lesion", "--greedy", "1", "--samples", "2", "--seed", "3", *FEW],
            "lesion-NAME-greedy1-samples2-images10-seed3",
        ),
        (
            ["lesion", "--normalize", ".5,.5,.5/1,1,1", *FEW],
            "lesion-NAME-blocks1-images10-normalize-.5,.5,.5-1,1,1",
        ),
        (["paths", "--lengths"], "paths-NAME-lengths"),
        (["paths", *QUICK_PATHS], "paths-NAME-k1-samples1-batch4"),
        (
            ["paths", *QUICK_PATHS, "--exact", "--stages", "--unit", "0"],
            "paths-NAME-k1-exact-stages-unit0-samples1-batch4",
        ),
        (
            ["paths", *QUICK_PATHS, "--estimator", "image"],
            "paths-NAME-k1-samples1-estimator-image-batch4",
        ),
        (["signal", "--batch-size", "8"], "signal-NAME-batch8"),
    ],
)
def test_each_question_has_a_folder_of_its_own(
    arguments: list[str], folder: str, work: Path, capsys: Captured
) -> None:
    expected = Path("results/local") / folder.replace("NAME", run_folder().name)
    files = summary_of(arguments, capsys)["files"]
    assert {Path(file).parent for file in files} == {expected}


def test_a_folder_is_named_after_the_weights_not_their_network(
    work: Path, capsys: Captured
) -> None:
    """One network by its run, the run's file and a copy of that, and with other data."""
    run, copy = run_folder(), "mine.v2.safetensors"
    shutil.copy(run / "weights.safetensors", copy)
    found = []
    for checkpoint in (str(run), f"{run}/weights.safetensors", copy):
        arguments = ["lesion", "--checkpoint", checkpoint, "--dataset", "digits", *FEW]
        found.append(Path(summary_of(arguments, capsys)["files"][0]).parent.name)
    suffix = "blocks1-images10"
    assert found == [
        *[f"lesion-{run.name}-{suffix}"] * 2,
        f"lesion-mine.v2-{suffix}",
    ]
    subject = find_subject(Context(torch.device("cpu")), "preact56-digits")
    assert subject.name == "preact56-digits"
    other = dataclasses.replace(subject, data=DataConfig(dataset="cifar10"))
    assert other.name == "preact56-digits-cifar10"


def test_signals_of_an_experiment_at_two_profiles_lie_apart(
    empty: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_cli.run.experiment.study_experiment", lambda *arguments: Written())
    asked: list[str] = []

    def writable(folder: Path) -> Path:
        asked.append(folder.name)
        return folder

    monkeypatch.setattr("resnet_cli.cli.studies.writable", writable)
    command = ["signal", "he2016/table1", "--profile"]
    for more in (
        ["mini"],
        ["smoke"],
        ["smoke", "--set", "train.lr=1"],
        ["smoke", "--set", "seeds=[1]"],
    ):
        assert run_command([*command, *more]) == 0
    assert asked[:2] == ["signal-he2016-table1-mini", "signal-he2016-table1-smoke"]
    assert len(set(asked)) == 4
    assert "--seed and an EXPERIMENT" in refused([*command, "smoke", "--seed", "1"], capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["lesion", *FEW],
        ["lesion", "--per-class", *FEW],
        ["lesion", "--greedy", "1", "--samples", "2", *FEW],
        ["lesion", "--additivity", "2", "--samples", "2", *FEW],
        ["paths", *QUICK_PATHS, "--exact", "--stages", "--unit", "0"],
        ["signal", "--batch-size", "8"],
    ],
)
def test_the_second_time_all_files_and_numbers_are_told_again(
    arguments: list[str], work: Path, capsys: Captured
) -> None:
    first, second = (summary_of(arguments, capsys) for _ in range(2))
    folder = Path(first["files"][0]).parent
    written = {str(p) for p in folder.iterdir() if p.suffix in (".csv", ".png")}
    assert written == set(first["files"]) == set(second["files"])
    assert len(first["files"]) == len(second["files"]) == len(written)
    first.pop("exact_check", None)  # of the sweep itself, which is not done again
    del first["files"], second["files"]
    assert first == second
    capsys.readouterr()
    assert run_command(arguments) == 0
    out = capsys.readouterr().out
    measured = [file for file in written if file.endswith(".csv") and "lengths" not in file]
    assert measured
    for file in measured:
        assert f"there already: {file}" in out
        assert f"wrote {file}" not in out


# --- paths ---------------------------------------------------------------------------------------


def test_paths_of_one_length(work: Path) -> None:
    assert run_command(["paths", "--k", "1", "--samples", "5", "--out", "a"]) == 0
    frame = read_table(Path("a/path_gradients.csv"))
    assert frame["k"].tolist() == [1] * 5
    assert (frame["grad_norm"] > 0).all()


def test_of_some_lengths_norms_are_told_and_no_shares(work: Path, capsys: Captured) -> None:
    common = ["--samples", "2", "--batch-size", "8", "--out", "a"]
    content = summary_of(["paths", "--k", "1", *common], capsys)
    mean = read_table(Path("a/path_gradients.csv"))["grad_norm"].mean()
    assert content["mean_norm_by_k"] == {"1": pytest.approx(mean)}
    assert not {"intervals_sampled", "intervals_exact", "exact_norm_by_k"} & content.keys()
    assert run_command(["paths", "--k", "1", *common]) == 0
    assert "%" not in capsys.readouterr().out

    content = summary_of(["paths", "--k", "1", "--exact", *common], capsys)
    assert list(content["mean_norm_by_k"]) == ["1"]
    assert list(content["exact_norm_by_k"]) == ["0", "1", "2", "3"]
    assert "intervals_sampled" not in content
    assert content["intervals_exact"].keys() == {"0.5", "0.9", "0.95", "0.99"}
    assert run_command(["paths", "--k", "1", "--exact", *common]) == 0
    out = capsys.readouterr().out
    assert "share exact" in out
    assert "sampled" not in out

    content = summary_of(["paths", *common], capsys)
    assert "intervals_sampled" in content
    assert run_command(["paths", *common]) == 0
    assert "share sampled" in capsys.readouterr().out


def test_paths_of_every_length_with_the_exact_spectrum(work: Path, capsys: Captured) -> None:
    arguments = ["paths", "--exact", "--samples", "2", "--batch-size", "16", "--out", "a"]
    content = summary_of(arguments, capsys)
    assert content["exact_check"] < 1e-3
    frame = read_table(Path("a/path_spectrum.csv"))
    assert frame["k"].tolist() == [0, 1, 2, 3]
    assert frame["paths"].tolist() == [1, 3, 3, 1]
    assert (frame["exact_norm"] > 0).all()
    assert frame["share_exact"].sum() == pytest.approx(1.0)
    assert read_table(Path("a/path_lengths.csv"))["paths"].tolist() == [1, 3, 3, 1]


def test_the_plain_engine_finds_the_same(work: Path) -> None:
    for command, table, column in (
        (["lesion", "--blocks", "1-2", "--samples", "2"], "lesion_delete", "test_error"),
        (["paths", "--samples", "2", "--batch-size", "8", "--exact"], "path_spectrum", "mean_norm"),
    ):
        found = []
        for engine in ("fast", "plain"):
            out = f"{table}-{engine}"
            assert run_command([*command, "--engine", engine, "--out", out]) == 0
            found.append(read_table(Path(out) / f"{table}.csv")[column].tolist())
        assert found[0] == pytest.approx(found[1], rel=1e-4)
    by_hand = read_provenance(Path("path_spectrum-plain/path_spectrum.csv"))
    assert by_hand["config"]["engine"] == "plain"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paths", "--engine", "fats"], "unknown engine 'fats'; did you mean 'fast'?"),
        (["lesion", "--engine", "slow"], "unknown engine 'slow'"),
        (
            ["paths", "--exact", "--batch-statistics"],
            "the exact spectrum uses running statistics",
        ),
        *(
            (["paths", "--lengths", *more], f"--lengths and {more[0]} exclude each other")
            for more in (
                ["--k", "2"],
                ["--exact"],
                ["--stages"],
                ["--unit", "0"],
                ["--batch-statistics"],
            )
        ),
    ],
)
def test_studies_refuse(work: Path, arguments: list[str], message: str, capsys: Captured) -> None:
    assert message in refused(arguments, capsys)


def test_a_unit_that_is_not_there_is_refused_before_any_work(
    work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("resnet_cli.studies.paths.sampled.sample_path_gradients", sample)
    line = refused(["paths", "--unit", "3"], capsys)
    assert line == "unit 3 does not exist; this network has 3 units, 0 to 2"
    with pytest.raises(AssertionError, match="the work began"):
        run_command(["paths", "--unit", "2"])


def test_path_lengths_alone(work: Path, capsys: Captured) -> None:
    content = summary_of(["paths", "--lengths", "--out", "a"], capsys)
    assert (content["units"], content["paths"]) == (3, 8)
    assert read_table(Path("a/path_lengths.csv"))["fraction"].tolist() == [
        1 / 8,
        3 / 8,
        3 / 8,
        1 / 8,
    ]
    assert not Path("a/path_gradients.csv").exists()


# --- eval, list, show, data, models --------------------------------------------------------------


def test_eval_measures_what_training_measured(work: Path, capsys: Captured) -> None:
    content = summary_of(["eval"], capsys)
    (row,) = read_table(OUT / "table.csv").to_dict("records")
    assert content["test_error"] == row["test_error"]
    assert content["images"] == 100
    assert content["top5_error"] is None  # of 10 classes
    assert summary_of(["eval", "--images", "10"], capsys)["images"] == 10
    assert run_command(["eval"]) == 0
    assert "hint: guessing gives 90 %" in capsys.readouterr().out  # smoke learns next to nothing


def test_list_names_every_experiment(empty: Path, capsys: Captured) -> None:
    content = summary_of(["list"], capsys)
    assert list(content["experiments"]) == experiment_names()
    assert content["experiments"]["quickstart"]
    assert run_command(["list"]) == 0
    assert "quickstart" in capsys.readouterr().out


def test_show_is_the_resolved_configuration(empty: Path, capsys: Captured) -> None:
    arguments = ["show", "quickstart", "--profile", "smoke", "--set", "train.lr=0.25"]
    content = summary_of(arguments, capsys)
    expected = load_experiment("quickstart", "smoke", ["train.lr=0.25"], None)
    assert content["config"] == expected.model_dump(mode="json")
    assert content["hash"] == expected.hash
    assert run_command(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"# hash {expected.hash}\n")
    assert "\n  lr: 0.25\n" in out


def test_data_says_what_was_found(empty: Path, capsys: Captured) -> None:
    content = summary_of(["data"], capsys)
    assert content["found"] == ["digits"]
    assert {place["dataset"] for place in content["places"]} == {"digits", "cifar10", "cifar100"}
    assert run_command(["data", "digits"]) == 0
    assert "found" in capsys.readouterr().out


def test_models_lists_the_papers_networks(empty: Path, capsys: Captured) -> None:
    content = summary_of(["models"], capsys)
    by_name = {row["network"]: row for row in content["models"]}
    assert by_name["preact110"]["units"] == 54
    assert by_name["preact110"]["parameters"] == 1_730_522


def test_deterministic_kernels(empty: Path) -> None:
    """On a CPU they are deterministic anyway: the same weights come out."""
    command = ["train", "quickstart", "--profile", "smoke"]
    try:
        assert run_command([*command, "--deterministic"]) == 0
        assert torch.are_deterministic_algorithms_enabled()
        first = (run_folder() / "weights.safetensors").read_bytes()
        shutil.rmtree("runs")
        assert run_command(command) == 0
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert (run_folder() / "weights.safetensors").read_bytes() == first


def test_version_and_help(empty: Path, capsys: Captured) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"resnet-cli {__version__}\n"
    for arguments in (["--help"], ["-h"], ["train", "--help"], ["lesion", "-h"]):
        assert run_command(arguments) == 0
        captured = capsys.readouterr()
        assert "Usage: resnet-cli" in captured.out
        assert captured.err == ""


# --- every command -------------------------------------------------------------------------------

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
RESULTS = str(Path(__file__).parents[2] / "results")
QUICK = {
    "train": TRAIN,
    "run": ["run", "quickstart", "--profile", "smoke"],
    "reproduce": ["reproduce", "he2016", "--profile", "smoke", "--shard", "999/999"],
    "compare": ["compare", "he2016", "--profile", "mini", "--results", RESULTS],
    "report": ["report", "--results", RESULTS, "--out", "page.html"],
    "eval": ["eval"],
    "lesion": ["lesion"],
    "paths": ["paths", "--lengths"],
    "signal": ["signal", "--batch-size", "8"],
    "list": ["list"],
    "show": ["show", "veit2016/fig5a"],
    "models": ["models"],
    "data": ["data"],
    "bench": ["bench", "help", "--small", "--repeats", "1"],
    "weights": ["weights"],
}


def test_a_quick_example_of_every_command() -> None:
    assert QUICK.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_one_json_line(name: str, work: Path, capsys: Captured) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    assert "NaN" not in json.dumps(summary_of(QUICK[name], capsys))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_page_ends_with_examples(name: str, empty: Path, capsys: Captured) -> None:
    """Whole commands on lines of their own, with options that there are."""
    assert run_command([name, "--help"]) == 0
    page = capsys.readouterr().out
    title, *lines = page.strip().split("\n\n")[-1].splitlines()
    assert title.strip() == "Examples:"
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    for line in lines:
        program, command, *words = shlex.split(line)
        assert (program, command) == ("resnet-cli", name)
        assert {word for word in words if word.startswith("-")} <= options
    assert len(lines) > 1
    assert max(map(len, page.splitlines())) <= 80


DEFAULT_PROFILES = {
    "train": "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    "run": "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    "show": "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    "signal": "[default: the first of mini, smoke, cpu, paper that the experiment has]",
    "reproduce": "[default: mini]",
    "compare": f"[default: the first of {', '.join(PREFERENCE)} that has results]",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_the_default_profile(name: str, empty: Path, capsys: Captured) -> None:
    assert run_command([name, "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert ("--profile" in page) == (name in DEFAULT_PROFILES)
    option = page.partition("--profile PROFILE ")[2].partition(" --")[0]
    assert option.endswith(DEFAULT_PROFILES.get(name, ""))
    if name == "compare":
        assert "another folder" in option


def test_the_list_of_commands_cuts_no_sentence(empty: Path, capsys: Captured) -> None:
    assert run_command(["--help"]) == 0
    page = capsys.readouterr().out
    assert "..." not in page.replace("[ARGS]...", "")
    assert max(map(len, page.splitlines())) <= 80


# --- tables and progress -------------------------------------------------------------------------

BUNDLED = ["--checkpoint", "preact56-digits", "--out", "a"]
TABLES = {
    "list": ["list"],
    "models": ["models"],
    "data": ["data"],
    "weights": ["weights"],
    "compare he2016": ["compare", "he2016", "--profile", "mini", "--results", RESULTS],
    "compare veit2016": ["compare", "veit2016", "--profile", "mini", "--results", RESULTS],
    "train": TRAIN,
    "lesion": ["lesion", "--images", "20", *BUNDLED],
    "lesion, classes": ["lesion", "--only", "3,4", "--per-class", "--images", "50", *BUNDLED],
    "lesion, several": [
        *("lesion", "--blocks", "2-4", "--samples", "2", "--images", "20"),
        *BUNDLED,
    ],
    "paths": [
        *("paths", "--exact", "--samples", "1", "--batch-size", "2"),
        *BUNDLED,
    ],
    "path lengths": ["paths", "--lengths", *BUNDLED],
    "signal": ["signal", "--batch-size", "4", *BUNDLED],
}


def cells_of(out: str) -> list[list[str]]:
    """The cells of every line of every table."""
    lines = [line for line in out.splitlines() if line.startswith(("│", "┃"))]
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("name", TABLES)
def test_tables_fit_80_columns_with_every_number_whole(
    name: str, empty: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {}
    for width in (80, 300):
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        assert run_command(TABLES[name]) == 0
        shown[width] = capsys.readouterr().out
    narrow = [line for line in shown[80].splitlines() if line and line[0] in "┏┃┡│└"]
    assert narrow
    assert max(map(len, narrow)) <= 80
    assert "…" not in "".join(narrow)
    prose = [line for line in shown[80].splitlines() if "/" not in line]  # paths stay whole
    assert max(map(len, prose)) <= 80
    number = re.compile(r"[+-]?\d[\d.,e+-]*( to [+-]?[\d.]+)?( [M%])?")
    wide = [cell for row in cells_of(shown[300]) for cell in row]
    numbers = Counter(filter(number.fullmatch, wide))
    assert numbers - Counter(cell for row in cells_of(shown[80]) for cell in row) == Counter()


LONG_WORK = {
    "train": (TRAIN, ["main, seed 0"]),
    "eval": (["eval", "--checkpoint", "preact56-digits"], ["evaluating preact56, digits"]),
    "lesion": (["lesion"], ["deleting units of preact8, digits"]),
    "lesion --reorder": (
        ["lesion", "--reorder", "1", "--images", "20", *BUNDLED],
        ["reordering units of preact56, digits"],
    ),
    "lesion --greedy": (
        ["lesion", "--greedy", "1"],
        [
            "deleting the least harmful units of preact8, digits",
            "deleting random units of preact8, digits",
        ],
    ),
    "lesion --additivity": (
        ["lesion", "--additivity", "2", "--samples", "2"],
        ["deleting sets of units of preact8, digits"],
    ),
    "paths": (
        ["paths", "--exact", "--samples", "1", "--unit", "1", "--stages"],
        [
            "sampling paths of preact8, digits",
            "exact spectrum of preact8, digits",
            *(f"exact spectrum of stage {stage}" for stage in (1, 2, 3)),
            "exact spectrum at unit 1",
        ],
    ),
    "signal": (
        ["signal"],
        ["signals of preact8, digits, initial", "signals of preact8, digits, trained"],
    ),
    "weights --export": (
        ["weights", "--export", "RUN", "--name", "mine", "--out", "a"],
        ["evaluating RUN in float16"],
    ),
}


@pytest.mark.parametrize("name", LONG_WORK)
def test_long_work_shows_how_far_it_is(
    name: str, work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def progress(display: Display, label: str) -> Iterator[Update]:
        steps = told.setdefault(label, [])
        yield lambda done, total, remark="": steps.append((done, total))

    monkeypatch.setattr(Display, "progress", progress)
    arguments, labels = LONG_WORK[name]
    if name == "train":
        shutil.rmtree("runs")
    run = str(next(Path("runs").glob("*"), ""))
    assert run_command([argument.replace("RUN", run) for argument in arguments]) == 0
    assert list(told) == [label.replace("RUN", run) for label in labels]
    for steps in told.values():
        done, totals = zip(*steps, strict=True)
        assert done[-1] == totals[-1]
        assert list(done) == sorted(done)
        assert len(set(totals)) == 1


def test_between_trainings_it_says_what_is_left(empty: Path, capsys: Captured) -> None:
    assert run_command([*TRAIN, "--set", "seeds=[0, 1, 2]"]) == 0
    out = capsys.readouterr().out
    assert "quickstart: 1 of 3 trainings, at most about " in out
    assert "quickstart: 2 of 3 trainings, at most about " in out
    assert "3 of 3" not in out
    assert run_command([*TRAIN, "--set", "seeds=[0, 1, 2]"]) == 0
    assert "trainings, " not in capsys.readouterr().out


def test_before_each_benchmark_it_says_what_is_left(empty: Path, capsys: Captured) -> None:
    arguments = ["bench", "help", "batch_preparation", "--small", "--repeats", "1"]
    assert run_command(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("1 of 2: preparing a batch")
    assert re.fullmatch(r"2 of 2, about \d+ s left: resnet-cli --help", lines[3])


# --- bad usage and bad input ---------------------------------------------------------------------


def refused(arguments: list[str], capsys: Captured, *, code: int = 2, writes: bool = False) -> str:
    """The one line that a command leaves on stderr; every file is as it was before, but for new
    ones where it `writes`."""
    before = contents(Path())
    capsys.readouterr()
    assert run_command(arguments) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("resnet-cli: ")
    assert "Traceback" not in captured.out + captured.err
    kept = contents(Path())
    assert (kept | before if writes else before) == kept
    capsys.readouterr()
    assert run_command([*arguments, "--json"]) == code
    assert capsys.readouterr().out == ""  # a failure is no result
    return line.removeprefix("resnet-cli: ")


BAD: dict[str, tuple[list[str], list[str]]] = {
    # name: (arguments, what the line must say)
    "unknown key": (
        [*TRAIN, "--set", "train.lrr=1"],
        ["--set 'train.lrr=1': train.lrr: unknown key 'lrr'; did you mean 'lr'?"],
    ),
    "wrong type": (
        [*TRAIN, "--set", "train.lr=fast"],
        ["--set 'train.lr=fast': train.lr: ", "valid number (got 'fast')"],
    ),
    "wrong choice": (
        [*TRAIN, "--set", "model.shortcut=none"],
        ["model.shortcut: ", "'identity'", "(got 'none')"],
    ),
    "depth": (
        [*TRAIN, "--set", "model.depth=9"],
        ["model: depth 9 fits no network of basic units: depth must be 6n+2", "8 or 14"],
    ),
    "set without =": ([*TRAIN, "--set", "train.lr"], ["--set 'train.lr'", "key.path=value"]),
    "profile": (["train", "--profile", "tiny"], ["unknown profile 'tiny'", "smoke"]),
    "experiment": (
        ["train", "quickstrat"],
        ["unknown experiment 'quickstrat'; did you mean 'quickstart'? `resnet-cli list` shows all"],
    ),
    "missing yaml": (["run", "none.yaml"], ["none.yaml"]),
    "no experiment": (["run"], ["Missing argument", "resnet-cli run --help"]),
    "command": (["trian"], ["No such command 'trian'", "resnet-cli --help"]),
    "option": ([*TRAIN, "--epochs", "3"], ["--epochs", "resnet-cli train --help"]),
    "option without value": (["train", "--profile"], ["--profile", "requires an argument"]),
    "negative seed": ([*TRAIN, "--seed", "-1"], ["--seed"]),
    "device": ([*TRAIN, "--device", "tpu"], ["--device tpu: use auto, cpu, cuda or cuda:n"]),
    "budget": ([*TRAIN, "--budget", "5x"], ["--budget '5x': write 90s, 150m or 2h"]),
    "more blocks than units": (
        ["lesion", "--blocks", "60"],
        ["60 units cannot be deleted; this network has 3 units, so k is 1 to 3"],
    ),
    "no blocks": (["lesion", "--blocks", "0"], ["0 units cannot be deleted", "1 to 3"]),
    "blocks no number": (
        ["lesion", "--blocks", "x"],
        ["--blocks: 'x' is no range; write 3, 1-20 or 1,5,9"],
    ),
    "blocks backwards": (["lesion", "--blocks", "3-1"], ["runs backwards; write 1-3"]),
    "only a unit beyond": (
        ["lesion", "--only", "1,3"],
        ["unit 3 does not exist; this network has 3 units, 0 to 2"],
    ),
    "nothing to reorder": (["lesion", "--reorder", "1"], ["no two units", "deeper network"]),
    "exclusive options": (
        ["lesion", "--blocks", "1", "--only", "2"],
        ["--blocks, --only", "exclude each other"],
    ),
    "no samples": (["lesion", "--samples", "0"], ["--samples"]),
    "path too long": (
        ["paths", "--k", "4"],
        ["--k 4: no path has length 4; this network has 3 units, so lengths are 0 to 3"],
    ),
    "no path length": (["paths", "--k", "-1"], ["--k"]),
    "missing checkpoint": (
        ["eval", "--checkpoint", "none.safetensors"],
        ["--checkpoint none.safetensors: no such file"],
    ),
    "unknown weights": (["eval", "--checkpoint", "resnet9000"], ["'resnet9000'"]),
    "folder without weights": (
        ["lesion", "--checkpoint", "results"],
        ["--checkpoint results: this folder holds no weights.safetensors; name a finished run"],
    ),
    "data set": (["eval", "--dataset", "digit"], ["data set 'digit'; did you mean 'digits'?"]),
    "data set not there": (
        ["eval", "--dataset", "cifar10", "--data-dir", "nowhere"],
        ["CIFAR-10 not found: looked for", "nowhere/cifar-10-batches-py", "--data-dir"],
    ),
    "normalisation": (["eval", "--normalize", "imagent"], ["'imagent'", "imagenet"]),
    "data to show": (["data", "cifar"], ["data set 'cifar'", "cifar10"]),
    "data to fetch": (["data", "--download"], ["resnet-cli data cifar10 --download"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_one_line_with_the_mend(name: str, work: Path, capsys: Captured) -> None:
    arguments, expected = BAD[name]
    line = refused(arguments, capsys)
    for part in expected:
        assert part in line
    assert len(line) < 700


def test_a_yaml_file_with_an_unknown_key(work: Path, capsys: Captured) -> None:
    Path("mine.yaml").write_text("title: T\nmodel: {depht: 8}\ntrain: {epochs: 1}\n")
    line = refused(["run", "mine.yaml"], capsys)
    assert line.startswith("mine.yaml: model.depht: unknown key 'depht'; did you mean 'depth'?")


def test_a_yaml_file_that_is_no_yaml(work: Path, capsys: Captured) -> None:
    Path("mine.yaml").write_text("title: [T\n")
    assert refused(["run", "mine.yaml"], capsys).startswith("mine.yaml, line 2, column 1: ")


@pytest.mark.parametrize("keep", [0, 50, -1])
def test_a_truncated_checkpoint(keep: int, work: Path, capsys: Captured) -> None:
    path = run_folder() / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    for arguments in (["eval"], ["eval", "--checkpoint", str(path)], ["paths"]):
        assert refused(arguments, capsys).startswith(f"{path}: damaged or no safetensors file")


def test_a_checkpoint_in_training_is_no_network(empty: Path, capsys: Captured) -> None:
    assert run_command([*TRAIN, "--budget", "0s"]) == 130
    line = refused(["eval", "--checkpoint", str(run_folder())], capsys)
    assert "this folder holds no weights.safetensors" in line
    line = refused(["eval", "--checkpoint", str(run_folder() / "checkpoint.safetensors")], capsys)
    assert "name the run's weights.safetensors" in line


def test_a_state_dict_that_fits_no_network(work: Path, capsys: Captured) -> None:
    torch.save({"layer.weight": torch.ones(3)}, "foreign.pth")
    assert "foreign.pth" in refused(["eval", "--checkpoint", "foreign.pth"], capsys)


def test_a_checkpoint_whose_classes_are_not_the_data_sets(work: Path, capsys: Captured) -> None:
    for split, name in itertools.product(("train", "val"), ("cat", "dog", "owl")):
        folder = Path("animals") / split / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 40), (number * 90, 10, 200)).save(folder / f"{number}.png")
    line = refused(["eval", "--dataset", "imagefolder", "--data-dir", "animals"], capsys)
    assert f"{run_folder()} tells 10 classes apart, imagefolder has 3" in line
    assert "--dataset" in line


def test_weights_of_others_that_name_no_data_set(work: Path, capsys: Captured) -> None:
    network = build(load_experiment("quickstart", "smoke", (), None).model, 7, 0)
    torch.save(network.state_dict(), "seven.pth")
    line = refused(["eval", "--checkpoint", "seven.pth"], capsys)
    assert "seven.pth" in line


def test_a_data_folder_with_a_file_missing(work: Path, capsys: Captured) -> None:
    folder = Path("mydata/cifar-10-batches-py")
    folder.mkdir(parents=True)
    (folder / "batches.meta").write_bytes(b"")
    line = refused(["eval", "--dataset", "cifar10", "--data-dir", "mydata"], capsys)
    assert str(folder) in line
    assert "data_batch_1: is missing" in line
    assert "resnet-cli data cifar10 --download" in line


def test_with_nothing_named_or_trained_a_study_needs_no_download(
    empty: Path, capsys: Captured
) -> None:
    assert run_command(["lesion", "--only", "3", "--images", "20"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith("from preact56-digits")
    assert second == "data: digits, normalised by channel"


def test_a_file_in_place_of_the_folder_for_results(work: Path, capsys: Captured) -> None:
    Path("taken").write_text("a file")
    for arguments in (TRAIN, ["lesion"], ["paths", "--k", "1"], ["paths", "--lengths"]):
        assert refused([*arguments, "--out", "taken"], capsys) == (
            "taken: cannot be written: a file stands where its folder should be; move it or "
            "choose another folder with --out"
        )


WORKING = {
    "train": [*TRAIN, "--out"],
    "run": ["run", "quickstart", "--profile", "smoke", "--out"],
    "reproduce": ["reproduce", "he2016", "--profile", "smoke", "--results"],
    "lesion": ["lesion", "--out"],
    "paths": ["paths", "--out"],
    "signal": ["signal", "--out"],
    "signal of an experiment": ["signal", "quickstart", "--profile", "smoke", "--out"],
    "bench": ["bench", "--small", "--out"],
}


@pytest.mark.parametrize("command", WORKING)
def test_no_work_begins_for_a_folder_that_takes_no_results(
    command: str, empty: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the work began")

    for name in (
        "run.executors.run_experiment",
        "run.experiment.study_experiment",
        "studies.runner.run_study",
    ):
        monkeypatch.setattr(f"resnet_cli.{name}", work)
    monkeypatch.setattr("resnet_cli.bench.run.run_benchmarks", work)
    Path("taken").write_text("a file")
    Path("nowhere").symlink_to("gone/away")
    for folder in ("taken", "taken/below/it", "nowhere", "x" * 300, "/proc/results"):
        line = refused([*WORKING[command], folder], capsys)
        assert "cannot be written: " in line
        assert line.endswith(f"choose another folder with {WORKING[command][-1]}")
    with pytest.raises(AssertionError, match="the work began"):  # a folder that can be made
        run_command([*WORKING[command], "new/folder"])
    assert not Path("new").exists()


def test_a_training_whose_run_folder_takes_no_files_does_not_begin(
    empty: Path, capsys: Captured
) -> None:
    Path("runs").write_text("a file")
    line = refused(TRAIN, capsys)
    assert line.startswith("runs/preact8-")
    assert line.endswith(
        "a file stands where its folder should be; move it or work in another folder: trainings "
        "are kept in its runs/"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_for_results_that_takes_no_files(work: Path, capsys: Captured) -> None:
    Path("locked").mkdir(mode=0o500)
    line = refused(["lesion", "--out", "locked"], capsys)
    assert "no permission to write there; choose another folder with --out" in line


@pytest.mark.parametrize("length", [300, 5000])
@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--checkpoint"],
        ["eval", "--dataset", "cifar10", "--data-dir"],
        ["run"],
        ["show"],
        ["compare", "he2016", "--results"],
        ["data", "--data-dir"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_a_name_too_long_for_the_file_system(
    arguments: list[str], suffix: str, length: int, work: Path, capsys: Captured
) -> None:
    line = refused([*arguments, "x" * length + suffix], capsys)
    assert "xxx" in line
    assert len(line) < 700


def test_an_error_is_one_line_whatever_is_in_a_name(work: Path, capsys: Captured) -> None:
    line = refused(["eval", "--checkpoint", "a\n\x1b[31mb/c"], capsys)
    assert line == r"--checkpoint a\n\x1b[31mb/c: no such file"
    assert "null byte" in refused(["eval", "--checkpoint", "a\0b"], capsys)


def test_out_takes_one_experiment(work: Path, capsys: Captured) -> None:
    Path("mine").mkdir()
    for name in ("a", "b"):
        Path(f"mine/{name}.yaml").write_text("title: T\nmodel: {depth: 8}\ntrain: {epochs: 1}\n")
    line = refused(["run", "mine", "--out", "x"], capsys)
    assert line.startswith("--out takes one experiment")


def test_a_name_without_any_argument_is_help(empty: Path, capsys: Captured) -> None:
    assert run_command([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: resnet-cli")
    assert "  train " in captured.err
    assert "Traceback" not in captured.err


def test_the_card_of_bundled_weights(empty: Path, capsys: Captured) -> None:
    content = summary_of(["weights", "preact56-digits"], capsys)
    (card,) = content["weights"]
    assert card["name"] == "preact56-digits"
    assert run_command(["weights", "preact56-digits"]) == 0
    out = capsys.readouterr().out
    for part in (
        "27 units",
        f"{card['parameters']:,}",
        "digits, normalised by channel",
        f"{card['test_error']:.2f} % on 360 images",
        "15 epochs",
        card["command"],
        card["commit"],
        card["sha256"],
    ):
        assert part in out
    assert "momentum" not in out
    assert run_command(["weights", "preact56-digits", "-v"]) == 0
    longer = capsys.readouterr().out
    assert longer.startswith(out)
    assert yaml.safe_load(longer.removeprefix(out)) == card["run"]
    line = refused(["weights", "preact56-digit"], capsys)
    assert "did you mean 'preact56-digits'?" in line


def test_an_unusual_width_is_named(empty: Path, capsys: Captured) -> None:
    assert run_command(["weights"]) == 0
    narrow = [row for row in cells_of(capsys.readouterr().out) if "wide" in row[1]]
    assert [row[:2] for row in narrow] == [["vgg15-cifar10", "vgg15, 24-176 wide"]]
    for name, width in (("vgg15-cifar10", "24-176 wide"), ("preact20-cifar10", "")):
        refused(["lesion", "--checkpoint", name, "--data-dir", "nowhere"], capsys)
        run_command(["lesion", "--checkpoint", name, "--data-dir", "nowhere"])
        assert width in (line := capsys.readouterr().out.splitlines()[0])
        assert ("wide" in line) == bool(width)


def test_data_says_in_a_row_what_is_nowhere(empty: Path, capsys: Captured) -> None:
    assert run_command(["data"]) == 0
    short = capsys.readouterr().out
    assert short.count("cifar10 ") == 1
    assert "-v names them" in short
    assert run_command(["data", "-v"]) == 0
    assert capsys.readouterr().out.count("cifar10 ") > 1
    assert run_command(["data", "cifar10"]) == 0
    assert capsys.readouterr().out.count("missing") > 1


# --- a process of its own ------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """One thread, as in the tests' own process, so that sums are in the same order."""
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def test_help_answers_without_torch(empty: Path) -> None:
    script = (
        "import sys; sys.argv = ['resnet-cli', *sys.argv[1:]]\n"
        "from resnet_cli.cli import run_command\n"
        "code = run_command(sys.argv[1:])\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'sklearn', 'scipy', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)), code)"
    )
    for arguments in (["--help"], ["train", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
        )
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "[] 0"


def test_the_module_is_the_command(empty: Path) -> None:
    command = [sys.executable, "-m", "resnet_cli"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Usage: resnet-cli" in done.stdout
    assert "\x1b" not in done.stdout
    done = subprocess.run([*command, "trian"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_two_processes_give_the_same_bytes(empty: Path) -> None:
    """A training with active units, and a study of it."""
    settings = ["train.epochs=1", "train.active_units=2", "data.test_images=20"]
    commands = [
        [*TRAIN, "--out", "a", *(word for s in settings for word in ("--set", s))],
        ["lesion", "--out", "a"],
        ["paths", "--k", "1-2", "--exact", "--batch-size", "8", "--out", "a"],
    ]
    script = (
        "import json, sys\n"
        "from resnet_cli.cli import run_command\n"
        "sys.exit(max(run_command(command) for command in json.loads(sys.argv[1])))\n"
    )
    found = []
    for _ in range(2):
        command = [sys.executable, "-c", script, json.dumps(commands)]
        subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment())
        names = ("lesion_delete", "path_gradients", "path_spectrum")
        weights = (run_folder() / "weights.safetensors").read_bytes()
        found.append([weights, *(Path(f"a/{name}.csv").read_bytes() for name in names)])
        shutil.rmtree("runs")
        shutil.rmtree("a")
    assert found[0] == found[1]


LONG = [*TRAIN, "--set", "train.epochs=12"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> pandas.DataFrame:
    """training.csv of LONG, never stopped."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command([*LONG, "--quiet"]) == 0
    return read_table(folder / OUT / "training.csv")


@pytest.mark.parametrize(
    ("number", "resume"),
    [
        (signal.SIGINT, lambda: subprocess.call([sys.executable, "-m", "resnet_cli", *LONG])),
        (signal.SIGTERM, lambda: run_command(LONG)),
    ],
    ids=["SIGINT", "SIGTERM"],
)
def test_interrupted_and_resumed_equals_never_interrupted(
    number: signal.Signals,
    resume: Callable[[], int],
    empty: Path,
    uninterrupted: pandas.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "resnet_cli", *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "epoch 1," in line:
                process.send_signal(number)
                break
        out, err = process.communicate()
    finally:
        watchdog.cancel()
    assert process.returncode == 130
    (line,) = err.splitlines()
    assert line.startswith("resnet-cli: stopped at iteration ")
    assert f"of {12 * 4}, saved in runs/" in line
    assert line.endswith("the same command resumes from there")
    assert "\x1b" not in "".join(lines) + out
    names = sorted(path.name for path in run_folder().iterdir())
    assert names == [".lock", "checkpoint.safetensors"]
    assert not (OUT / "training.csv").exists()

    assert resume() == 0
    resumed = read_table(OUT / "training.csv")
    pandas.testing.assert_frame_equal(
        resumed.drop(columns=TIMES), uninterrupted.drop(columns=TIMES), check_exact=True
    )
    assert (resumed["seconds"] > 0).all()


def test_a_second_signal_ends_at_once_without_harm(
    empty: Path, uninterrupted: pandas.DataFrame
) -> None:
    """In the midst of an iteration that would not end for a long time."""
    script = (
        "import sys, time\n"
        "from resnet_cli.training.loop import Trainer\n"
        "step = Trainer.step\n"
        "def slow(trainer):\n"
        "    step(trainer)\n"
        "    if trainer.position.iteration == 9:\n"
        "        print('in the midst', flush=True)\n"
        "        deadline = time.monotonic() + 50\n"
        "        while time.monotonic() < deadline: time.sleep(0.05)\n"
        "Trainer.step = slow\n"
        "from resnet_cli.cli import run_command\n"
        "sys.exit(run_command(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        next(line for line in process.stdout if "in the midst" in line)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):  # the first waits for the iteration's end
            process.wait(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 130
    finally:
        process.kill()
        process.communicate()
        watchdog.cancel()
    assert run_command(LONG) == 0
    found = read_table(OUT / "training.csv")
    pandas.testing.assert_frame_equal(
        found.drop(columns=TIMES), uninterrupted.drop(columns=TIMES), check_exact=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_folders_that_may_not_be_written(work: Path) -> None:
    """Also as root, who gives up the right to write everywhere."""

    def without_privilege() -> None:
        drop_bounding, override = 24, 1  # PR_CAPBSET_DROP and CAP_DAC_OVERRIDE
        ctypes.CDLL(None).prctl(drop_bounding, override, 0, 0, 0)

    folders = [Path("runs"), Path("results"), *(p for p in Path().rglob("*") if p.is_dir())]
    before = contents(Path())
    for folder in folders:
        folder.chmod(0o500)
    try:
        for arguments in (
            [*TRAIN, "--seed", "1"],
            [*TRAIN, "--seed", "1", "--out", "results/new"],
            ["lesion", "--out", "results"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "resnet_cli", *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                env=environment(),
                preexec_fn=without_privilege,
            )
            assert done.returncode == 2, done.stderr
            (line,) = done.stderr.splitlines()
            assert "no permission to write there" in line
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert contents(Path()) == before
