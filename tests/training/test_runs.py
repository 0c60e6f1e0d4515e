"""Whole runs: trained once, found by configuration, complete with their provenance."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.models.factory import build
from resnet_cli.results.layout import (
    CHECKPOINT_FILE,
    LOCK_FILE,
    OUTCOMES_FILE,
    RUN_FILE,
    WEIGHTS_FILE,
)
from resnet_cli.results.outcomes import read_outcomes
from resnet_cli.results.tables import is_pair, read_provenance, read_table
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.interrupt import Interrupted, Stopper, parse_duration
from resnet_cli.studies.subject import find_subject
from resnet_cli.training import runs as runs_module
from resnet_cli.training.context import Context
from resnet_cli.training.evaluation import evaluate
from resnet_cli.training.runs import FinishedRun, find_finished, is_over, read_finished, train_run
from resnet_cli.weights.load import load_network

CPU = torch.device("cpu")
RUN = RunConfig(
    model=ModelConfig(depth=8, widths=(4, 8, 16)),
    data=DataConfig(train_images=256, test_images=50, pad=2, flip=False),
    train=TrainConfig(epochs=2, batch_size=64, schedule="one_cycle"),
    seed=1,
)


def train(
    context: Context,
    run: RunConfig = RUN,
    stopper: Callable[[], bool] | None = None,
    notes: list[str] | None = None,
) -> FinishedRun:
    return train_run(
        context,
        run,
        experiment="quickstart",
        case="main",
        profile="smoke",
        stopper=stopper or Stopper(),  # type: ignore[arg-type]
        note=(notes if notes is not None else []).append,
    )


def after(count: int) -> Callable[[], bool]:
    asked = iter(range(1, 1_000_000))
    return lambda: next(asked) >= count


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, FinishedRun]:
    context = Context(CPU, runs=tmp_path_factory.mktemp("runs"))
    return context, train(context)


@pytest.fixture
def copied(trained: tuple[Context, FinishedRun], tmp_path: Path) -> tuple[Context, Path]:
    """A copy of the trained run, to be damaged."""
    shutil.copytree(trained[0].runs, tmp_path / "runs")
    return Context(CPU, runs=tmp_path / "runs"), tmp_path / "runs" / RUN.folder


# --- finished ------------------------------------------------------------------------------------


def test_a_run_is_found_again_as_it_ended(trained: tuple[Context, FinishedRun]) -> None:
    context, finished = trained
    found = find_finished(context, RUN)
    assert found == finished
    assert found is not None
    assert found.run == RUN
    assert found.diverged_at is None
    assert found.test_error == found.rows[-1]["test_error"]
    assert found.best_error == min(row["test_error"] for row in found.rows)
    assert found.parameters == sum(p.numel() for p in build(RUN.model, 10).parameters())
    assert set(found.data) == {"digits/train", "digits/test"}


def test_its_folder_holds_these_files(trained: tuple[Context, FinishedRun]) -> None:
    folder = trained[1].folder
    assert folder.name == f"preact8-digits-seed1-{RUN.hash[:10]}"
    assert sorted(path.name for path in folder.iterdir()) == [
        OUTCOMES_FILE,
        RUN_FILE,
        "training.csv",
        "training.provenance.json",
        "weights.safetensors",
    ]


def test_training_csv_keeps_its_contract(trained: tuple[Context, FinishedRun]) -> None:
    path = trained[1].folder / "training.csv"
    frame = read_table(path)
    header = (
        "experiment,case,seed,epoch,iteration,lr,train_loss,train_error,test_loss,test_error,"
        "images_per_second,seconds"
    )
    assert path.read_text().splitlines()[0] == header
    assert frame["experiment"].tolist() == ["quickstart"] * 2
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["iteration"].tolist() == [4, 8]
    for row, kept in zip(frame.to_dict("records"), trained[1].rows, strict=True):
        assert {k: row[k] for k in kept} == kept  # floats to the last bit
    assert is_pair(path)
    provenance = read_provenance(path)
    assert provenance["profile"] == "smoke"
    assert provenance["seeds"] == [1]
    assert provenance["config"] == RUN.model_dump(mode="json")
    assert provenance["config_hash"] == RUN.hash


def test_its_weights_give_the_same_logits_and_error(trained: tuple[Context, FinishedRun]) -> None:
    context, finished = trained
    by_folder = load_network(finished.folder)
    by_file = load_network(finished.weights)
    images = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(by_folder.network(images), by_file.network(images))
    assert by_folder.run == RUN
    assert by_folder.outcome["test_error"] == finished.test_error
    assert by_folder.outcome["case"] == "main"
    subject = find_subject(context, str(finished.folder))
    result = evaluate(subject.loaded.network, subject.batches("test"))
    assert result.error == finished.test_error
    assert result.loss == finished.rows[-1]["test_loss"]


def test_another_configuration_is_not_found(trained: tuple[Context, FinishedRun]) -> None:
    assert find_finished(trained[0], RUN.model_copy(update={"seed": 2})) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", '"text"', "{}", '{"hash": "x"}'])
def test_an_empty_run_file_is_not_a_run(copied: tuple[Context, Path], content: str) -> None:
    context, folder = copied
    (folder / RUN_FILE).write_text(content)
    assert find_finished(context, RUN) is None


@pytest.mark.parametrize("change", [{"hash": "0" * 64}, {"rows": None, "surplus": 1}, {"run": {}}])
def test_a_run_file_of_another_run_or_version_is_not_a_run(
    copied: tuple[Context, Path], change: dict[str, object]
) -> None:
    context, folder = copied
    content = json.loads((folder / RUN_FILE).read_text())
    (folder / RUN_FILE).write_text(json.dumps(content | change))
    assert find_finished(context, RUN) is None


def _flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-3001] ^= 0x40
    (folder / WEIGHTS_FILE).write_bytes(content)


def _change_a_digit(folder: Path) -> None:
    text = (folder / RUN_FILE).read_text()
    assert '"test_error": ' in text
    (folder / RUN_FILE).write_text(text.replace('"test_error": ', '"test_error": 1', 1))


def _pipe(folder: Path) -> None:
    (folder / RUN_FILE).unlink()
    os.mkfifo(folder / RUN_FILE)


def _typed(field: str, value: object) -> Callable[[Path], None]:
    """A run file without hashes, as of the first edition, with a value of another type."""

    def change(folder: Path) -> None:
        content = json.loads((folder / RUN_FILE).read_text())
        del content["sha256"], content["files"]
        (folder / RUN_FILE).write_text(json.dumps(content | {field: value}))

    return change


DAMAGES: dict[str, Callable[[Path], object]] = {
    "bit flipped": _flip_a_bit,
    "weights cut": lambda folder: os.truncate(folder / WEIGHTS_FILE, 1000),
    "weights missing": lambda folder: (folder / WEIGHTS_FILE).unlink(),
    "outcomes cut": lambda folder: os.truncate(folder / OUTCOMES_FILE, 10),
    "digit changed": _change_a_digit,
    "run file cut": lambda folder: os.truncate(folder / RUN_FILE, 100),
    "run file a pipe": _pipe,
    "run file a folder": lambda folder: ((folder / RUN_FILE).unlink(), (folder / RUN_FILE).mkdir()),
    "rows text": _typed("rows", "x"),
    "rows of other columns": _typed("rows", [{"epoch": 1}]),
    "parameters text": _typed("parameters", "many"),
    "data a list": _typed("data", []),
    "started no time": _typed("started", "yesterday"),
    "classes none": _typed("num_classes", 0),
    "run a list": _typed("run", []),
    "files a list": _typed("files", []),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_reported_and_not_used(copied: tuple[Context, Path], damage: str) -> None:
    context, folder = copied
    DAMAGES[damage](folder)
    notes: list[str] = []
    assert find_finished(context, RUN, notes.append) is None
    assert len(notes) == 1
    assert notes[0].startswith(f"{folder}: ")
    assert "train the experiment again" in notes[0]
    assert "\n" not in notes[0]
    with pytest.raises(UserError):
        read_finished(folder)


@pytest.mark.parametrize("damage", ["bit flipped", "weights cut", "digit changed"])
def test_a_damaged_run_is_not_studied(copied: tuple[Context, Path], damage: str) -> None:
    DAMAGES[damage](copied[1])
    with pytest.raises(UserError, match="was changed after the training wrote it"):
        load_network(copied[1])


def test_a_damaged_run_is_trained_again(
    trained: tuple[Context, FinishedRun], copied: tuple[Context, Path]
) -> None:
    context, folder = copied
    _flip_a_bit(folder)
    notes: list[str] = []
    finished = train(context, notes=notes)
    assert "was changed after the training wrote it" in notes[0]
    assert finished.test_error == trained[1].test_error
    assert load_network(folder).sha256 != ""
    assert read_finished(folder) == finished


def test_the_outcome_on_every_test_image_is_stored(trained: tuple[Context, FinishedRun]) -> None:
    context, finished = trained
    (correct,) = read_outcomes(finished.folder).values()
    subject = find_subject(context, str(finished.folder))
    batches = subject.batches("test")
    images, labels = batches.evaluation(0, len(batches))
    with torch.inference_mode():
        predicted = subject.loaded.network(images).argmax(1)
    assert correct.tolist() == (predicted == labels).tolist()
    assert 100 * (1 - correct.mean()) == pytest.approx(finished.test_error)


# --- interrupted ---------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_and_says_so(
    trained: tuple[Context, FinishedRun], tmp_path: Path
) -> None:
    context = Context(CPU, runs=tmp_path)
    with pytest.raises(Interrupted, match=r"stopped at iteration 3 of 8.*the same command resumes"):
        train(context, stopper=after(3))
    folder = tmp_path / RUN.folder
    assert sorted(path.name for path in folder.iterdir()) == [LOCK_FILE, CHECKPOINT_FILE]
    assert find_finished(context, RUN) is None

    notes: list[str] = []
    finished = train(context, notes=notes)
    assert notes == [f"resuming {folder} at iteration 3 of 8"]
    assert not (folder / CHECKPOINT_FILE).exists()
    resumed, whole = load_network(folder), load_network(trained[1].folder)
    for name, tensor in resumed.network.state_dict().items():
        assert torch.equal(tensor, whole.network.state_dict()[name])
    assert finished.test_error == trained[1].test_error


def test_a_damaged_checkpoint_is_reported(tmp_path: Path) -> None:
    context = Context(CPU, runs=tmp_path)
    with pytest.raises(Interrupted):
        train(context, stopper=after(3))
    checkpoint = tmp_path / RUN.folder / CHECKPOINT_FILE
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    notes: list[str] = []
    train(context, notes=notes)
    assert notes == [f"{checkpoint} is damaged; renamed to {CHECKPOINT_FILE}.damaged"]
    assert find_finished(context, RUN) is not None


def test_killed_before_its_checkpoints_were_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(CPU, runs=tmp_path)

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("resnet_cli.training.loop.CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(runs_module, "remove_checkpoints", killed)
        with pytest.raises(KeyboardInterrupt):
            train(context)
    assert find_finished(context, RUN) is not None
    assert not is_over(context, RUN)
    train(context)
    assert is_over(context, RUN)
    assert not list((tmp_path / RUN.folder).glob("*checkpoint*"))


def test_killed_before_run_json_the_end_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.json is written last: without it nothing counts as finished, and the rest is done."""
    context = Context(CPU, runs=tmp_path)
    with pytest.raises(Interrupted):
        train(context, stopper=after(7))

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs_module, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        train(context)
    assert find_finished(context, RUN) is None
    monkeypatch.undo()
    notes: list[str] = []
    train(context, notes=notes)
    assert notes == [f"resuming {tmp_path / RUN.folder} at iteration 7 of 8"]
    assert find_finished(context, RUN) is not None


def test_a_file_in_place_of_runs_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    context = Context(CPU, runs=tmp_path / "runs")
    with pytest.raises(UserError, match="a file where its folder should be"):
        train(context, stopper=after(1))


# --- diverged ------------------------------------------------------------------------------------


def test_a_run_that_diverges_is_a_finished_run(tmp_path: Path) -> None:
    context = Context(CPU, runs=tmp_path)
    run = RUN.model_copy(update={"train": TrainConfig(epochs=2, batch_size=64, lr=1e30)})
    run = run.model_copy(update={"train": run.train.model_copy(update={"warmup_iterations": 0})})
    finished = train(context, run)
    assert finished.diverged_at == 1
    assert finished.test_error is None
    assert finished.best_error is None
    assert find_finished(context, run) == finished
    (row,) = read_table(finished.folder / "training.csv").to_dict("records")
    assert row["iteration"] == 1
    assert row["test_error"] != row["test_error"]  # not measured


# --- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("150m", 9000), ("2h", 7200), ("0.5m", 30), (" 1s ", 1)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5x", "m", "-5s", "1h30m", "1e3s", "9999999s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UserError, match="write 90s, 150m or 2h"):
        parse_duration(text)


def test_a_budget_runs_out() -> None:
    assert Stopper(0.0)()
    assert not Stopper(1000.0)()
    assert not Stopper()()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_only_while_listening(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stopper = Stopper()
    with stopper.listening():
        assert not stopper()
        signal.raise_signal(number)
        deadline = time.monotonic() + 5
        while not stopper() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stopper()
    assert signal.getsignal(number) is before
