"""TensorBoard's event files: the rows of training.csv, each once, whatever ended a sitting."""

import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from resnet_cli.cli import run_command
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.results.layout import LOCK_FILE, LOG_FOLDER
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.interrupt import Interrupted, Stopper
from resnet_cli.training.context import Context
from resnet_cli.training.epoch_log import COLUMNS, EpochLog
from resnet_cli.training.runs import FinishedRun, find_finished, train_run, write_log

CPU = torch.device("cpu")
RUN = RunConfig(
    model=ModelConfig(depth=8, widths=(4, 8, 16)),
    data=DataConfig(train_images=256, test_images=50, pad=2, flip=False),
    train=TrainConfig(epochs=3, batch_size=64, schedule="one_cycle", evaluate_every=2),
    seed=1,
)
STARTED = "2026-01-01T12:00:00+00:00"
NOON = 1767268800.0
ROWS = [
    {
        "iteration": 4 * epoch,
        "lr": 0.5,
        "train_loss": 2.0 / epoch,
        "train_error": 50.0,
        "test_loss": None if epoch == 1 else 1.5,
        "test_error": None if epoch == 1 else 25.0,
        "images_per_second": 1000.0,
        "seconds": 10.0 * epoch,
    }
    for epoch in (1, 2)
]


def train(context: Context, should_stop: Callable[[], bool] | None = None) -> FinishedRun:
    return train_run(
        context,
        RUN,
        experiment="quickstart",
        case="main",
        profile="smoke",
        stopper=should_stop or Stopper(),  # type: ignore[arg-type]
    )


def after(count: int) -> Callable[[], bool]:
    asked = iter(range(1, 1_000_000))
    return lambda: next(asked) >= count


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Curve -> (step, value), of all event files of a run's folder."""
    found = EventAccumulator(str(folder / LOG_FOLDER))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def expected(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    return {
        column: [
            (row["iteration"], pytest.approx(row[column], rel=1e-6))
            for row in rows
            if row[column] is not None
        ]
        for column in COLUMNS
    }


# --- rows ----------------------------------------------------------------------------------------


def test_a_point_for_each_number_of_a_row_at_its_iteration(tmp_path: Path) -> None:
    with closing(EpochLog(tmp_path, ROWS[:1], STARTED)) as log:
        log.add(ROWS[1])
    assert points(tmp_path) == {
        "train_loss": [(4, 2.0), (8, 1.0)],
        "train_error": [(4, 50.0), (8, 50.0)],
        "test_loss": [(8, 1.5)],
        "test_error": [(8, 25.0)],
        "lr": [(4, 0.5), (8, 0.5)],
        "images_per_second": [(4, 1000.0), (8, 1000.0)],
    }


def test_a_point_stands_at_its_time_of_training(tmp_path: Path) -> None:
    EpochLog(tmp_path, ROWS, STARTED).close()
    found = EventAccumulator(str(tmp_path / LOG_FOLDER))
    found.Reload()
    assert [event.wall_time for event in found.Scalars("lr")] == [NOON + 10, NOON + 20]


def test_a_log_is_begun_anew(tmp_path: Path) -> None:
    for _ in range(2):
        EpochLog(tmp_path, ROWS, STARTED).close()
    assert points(tmp_path)["lr"] == [(4, 0.5), (8, 0.5)]
    assert len(list((tmp_path / LOG_FOLDER).iterdir())) == 1


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "rank", lambda: 1)
    with closing(EpochLog(tmp_path, ROWS, STARTED)) as log:
        log.add(ROWS[0])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_log_is_one_line(tmp_path: Path) -> None:
    (tmp_path / LOG_FOLDER).write_text("a file")
    with pytest.raises(UserError, match="tensorboard: cannot be written"):
        EpochLog(tmp_path, ROWS, STARTED)


# --- of a training -------------------------------------------------------------------------------


def test_a_training_logs_its_rows(tmp_path: Path) -> None:
    finished = train(Context(CPU, runs=tmp_path, log="tensorboard"))
    assert points(finished.folder) == expected(finished.rows)
    assert [step for step, _ in points(finished.folder)["test_error"]] == [8, 12]


@pytest.mark.parametrize("stop", [1, 4, 6, 9])
def test_a_resumed_training_has_no_point_twice(stop: int, tmp_path: Path) -> None:
    context = Context(CPU, runs=tmp_path, log="tensorboard")
    with pytest.raises(Interrupted):
        train(context, after(stop))
    finished = train(context)
    assert points(finished.folder) == expected(finished.rows)


def test_a_log_started_on_resumption_has_the_earlier_epochs(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(Context(CPU, runs=tmp_path), after(6))
    finished = train(Context(CPU, runs=tmp_path, log="tensorboard"))
    assert points(finished.folder) == expected(finished.rows)


def test_a_finished_training_gets_its_log_from_its_rows(tmp_path: Path) -> None:
    plain = train(Context(CPU, runs=tmp_path))
    assert not (plain.folder / LOG_FOLDER).exists()
    context = Context(CPU, runs=tmp_path, log="tensorboard")
    for _ in range(2):
        write_log(context, plain, Stopper(), print)
        assert points(plain.folder) == expected(plain.rows)
        assert not (plain.folder / LOCK_FILE).exists()
    assert train(context) == plain
    assert points(plain.folder) == expected(plain.rows)


def test_the_log_is_not_part_of_the_run(tmp_path: Path) -> None:
    logged = train(Context(CPU, runs=tmp_path / "a", log="tensorboard"))
    plain = train(Context(CPU, runs=tmp_path / "b"))
    assert logged.folder.name == plain.folder.name
    assert logged.weights.read_bytes() == plain.weights.read_bytes()
    assert find_finished(Context(CPU, runs=tmp_path / "a"), RUN) == logged


# --- Weights & Biases -----------------------------------------------------------------------------


class FakeWandB(ModuleType):
    """What of wandb is used, kept instead of sent."""

    class Error(Exception):
        """As wandb's own."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0
        self.Settings = dict

    def init(self, **arguments: Any) -> "FakeWandB":
        self.begun.append(arguments)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def test_a_training_logs_its_rows_to_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    finished = train(Context(CPU, runs=tmp_path, log="wandb"))
    assert fake.logged == [
        (row["iteration"], {c: row[c] for c in COLUMNS if row[c] is not None})
        for row in finished.rows
    ]
    assert [run["id"] for run in fake.begun] == [finished.folder.name]
    assert fake.finished == 1


def test_wandb_without_an_account_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandB()

    def refuse(**arguments: Any) -> None:
        raise fake.Error("api_key not configured\n(no-tty)")

    fake.init = refuse  # type: ignore[assignment, method-assign]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(UserError, match=r"--log wandb: api_key not.*WANDB_MODE=offline$"):
        EpochLog(tmp_path, ROWS, STARTED, "wandb")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="the extra wandb is missing")
def test_wandb_offline_keeps_its_files_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for _ in range(2):
        EpochLog(tmp_path, ROWS, STARTED, "wandb").close()
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 1


# --- the option ----------------------------------------------------------------------------------


TRAINING = {
    "train": ["train", "--profile", "smoke"],
    "run": ["run", "quickstart", "--profile", "smoke"],
    "reproduce": ["reproduce", "he2016", "--profile", "smoke"],
}


@pytest.mark.parametrize("command", TRAINING)
def test_no_training_begins_for_a_log_that_cannot_be_written(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run_command([*TRAINING[command], "--log", "wandb"]) == 2
    assert "pip install wandb" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if not installed
    assert run_command([*TRAINING[command], "--log", "tensorboard"]) == 2
    assert capsys.readouterr().err == (
        "resnet-cli: --log tensorboard needs TensorBoard: pip install tensorboard\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_log_of_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--profile", "smoke", "--log", "tensorboard", "--quiet"]
    for _ in range(2):  # trained; and trained already
        assert run_command(arguments) == 0
        (folder,) = Path("runs").iterdir()
        assert [step for step, _ in points(folder)["train_loss"]] == [4, 8]
