"""Several processes, one network: shares, agreement, and the numbers of a single process.

Most tests start processes from a server that has imported torch already, with the variables that
torchrun sets; one starts torchrun itself and kills a worker.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from torch import Tensor

from resnet_cli.cli import run_command
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.models.factory import build
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.runtime import processes
from resnet_cli.runtime.device import pick_device
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.processes import share_of
from resnet_cli.runtime.seeding import stream
from resnet_cli.training.context import Context
from resnet_cli.training.distributed import check_shares
from resnet_cli.training.evaluation import Evaluation, evaluate
from resnet_cli.training.loop import Trainer
from resnet_cli.weights.load import load_network

ROOT = Path(__file__).parents[2]
SERVER = multiprocessing.get_context("forkserver")
pytestmark = pytest.mark.usefixtures("forks_of_torch")
TIMES = ["images_per_second", "seconds"]
DATA = DataConfig(train_images=256, test_images=130, pad=2, flip=False)
YAML = """
title: tiny
model: {depth: 8, widths: [4, 8, 16]}
data: {dataset: digits, pad: 2, flip: false, train_images: 256, test_images: 130}
train: {epochs: 3, batch_size: 64, batch_norm_group: 32, schedule: one_cycle, lr: 0.1}
"""
ITERATIONS = 12


# --- processes -----------------------------------------------------------------------------------


@dataclass
class Ended:
    """What a process left behind."""

    value: Any
    """What its function returned; None when it was killed."""
    out: str
    err: str


def together(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Ended]:
    """Run function(*arguments) in several connected processes, in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        SERVER.Process(target=_process, args=(rank, size, port, folder, function, arguments))
        for rank in range(size)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        process.kill()
    return [
        Ended(
            pickle.loads(value.read_bytes()) if value.exists() else None,
            (folder / f"{rank}.out").read_text(),
            (folder / f"{rank}.err").read_text(),
        )
        for rank in range(size)
        for value in [folder / f"{rank}.value"]
    ]


def _process(
    rank: int, size: int, port: int, folder: Path, function: Callable[..., Any], arguments: Any
) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.pop("OMP_NUM_THREADS", None)
    os.chdir(folder)
    sys.argv = ["resnet-cli"]
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{rank}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    value = function(*arguments)
    Path(f"{rank}.value").write_bytes(pickle.dumps(value))


def joined(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function for a process that does not run a command."""
    processes.start()
    value = function(*arguments)
    processes.finish(0)
    return value


# --- shares --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 2, 10, 21, 128])
def test_shares_are_everything_once_in_order_and_even(total: int, size: int) -> None:
    shares = [range(total)[share_of(total, rank, size)] for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("batch", "group", "size"),
    [(128, 64, 1), (128, 64, 2), (128, 32, 4), (100, None, 1), (64, 24, 1), (96, 200, 1)],
)
def test_whole_groups_are_shared_out(batch: int, group: int | None, size: int) -> None:
    check_shares(batch, group, size)


@pytest.mark.parametrize(
    ("batch", "group", "size", "fix"),
    [
        (128, None, 2, "--set train.batch_norm_group=64"),
        (128, 64, 4, "--set train.batch_norm_group=32"),
        (128, 64, 3, "--set train.batch_size=192"),
        (96, 64, 2, "--set train.batch_norm_group=48"),
        (64, 24, 2, "--set train.batch_norm_group=32"),
    ],
)
def test_batches_that_cannot_be_divided_are_refused_and_the_fix_works(
    batch: int, group: int | None, size: int, fix: str
) -> None:
    with pytest.raises(UserError, match=f"among {size} processes; use {fix} or") as refused:
        check_shares(batch, group, size)
    assert "\n" not in str(refused.value)
    key, _, value = fix.removeprefix("--set train.").partition("=")
    check_shares(
        **(
            {"batch_size": batch, "group": group, "size": size}
            | {"group" if key == "batch_norm_group" else key: int(value)}
        )
    )  # type: ignore[arg-type]


def test_parts_of_a_batch_are_augmented_as_in_the_whole() -> None:
    batches = make_batches("train")
    indices = torch.arange(50, 61)
    whole, labels = batches.training(indices, stream(0, "a"))
    parts = [batches.training(indices, stream(0, "a"), share_of(11, r, 3)) for r in range(3)]
    assert torch.equal(torch.cat([images for images, _ in parts]), whole)
    assert torch.equal(torch.cat([found for _, found in parts]), labels)


# --- without torchrun ----------------------------------------------------------------------------


def test_one_process_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # other launchers set it too
    processes.start()
    assert (processes.rank(), processes.size()) == (0, 1)
    assert processes.any_of(True)
    assert not processes.any_of(False)
    assert processes.gather_lists([1, 2]) == [1, 2]
    assert processes.gather(torch.ones(2)).tolist() == [[1, 1]]
    with pytest.raises(ZeroDivisionError):
        processes.from_first(lambda: 1 // 0)


# --- agreement -----------------------------------------------------------------------------------


def _agree() -> dict[str, Any]:
    rank = processes.rank()
    tensor = torch.tensor([1.0, rank])
    processes.sum_over_processes(tensor)
    try:
        processes.from_first(lambda: Path("missing").read_text())
        error = ""
    except OSError as found:
        error = type(found).__name__
    return {
        "rank": rank,
        "any": (processes.any_of(rank == 1), processes.any_of(False)),
        "collected": processes.gather_lists([f"{rank}a", f"{rank}b"][: rank + 1]),
        "first": processes.from_first(lambda: rank),
        "gathered": processes.gather(torch.tensor([rank, 5])).tolist(),
        "sum": tensor.tolist(),
        "error": error,
        "found": processes.first_then_others(lambda: _write_or_find(rank)),
        "threads": torch.get_num_threads(),
        "device": str(pick_device("auto")),
        "may_print_errors": sum(processes.gather_lists([processes.may_print_errors()])),
    }


def _write_or_find(rank: int) -> bool:
    if rank == 0:
        Path("written").touch()
    return Path("written").exists()


def test_processes_agree(tmp_path: Path) -> None:
    first, second = (ended.value for ended in together(2, tmp_path, joined, _agree))
    assert (first.pop("rank"), second.pop("rank")) == (0, 1)
    assert first == second
    assert first == {
        "any": (True, False),
        "collected": ["0a", "1a", "1b"],
        "first": 0,
        "gathered": [[0, 5], [1, 5]],
        "sum": [2.0, 1.0],
        "error": "FileNotFoundError",
        "found": True,
        "threads": 1,
        "device": "cpu",
        "may_print_errors": 1,
    }


# --- evaluation ----------------------------------------------------------------------------------


def make_batches(split: str) -> Batches:
    train = load_split(DATA, "train")
    normalization = parse_normalization("channel", lambda: train)
    found = train if split == "train" else load_split(DATA, "test")
    return found.batches(normalization, DATA.pad, DATA.flip)


def _evaluation() -> Evaluation:
    return evaluate(build(ModelConfig(depth=8, widths=(4, 8, 16)), 10, 0), make_batches("test"))


@pytest.mark.parametrize("size", [2, 3])
def test_each_image_is_evaluated_once(size: int, tmp_path: Path) -> None:
    """130 images are two batches: of three processes, one has none."""
    alone = _evaluation()
    for ended in together(size, tmp_path, joined, _evaluation):
        found = ended.value
        assert (found.images, found.wrong, found.wrong_top5, found.loss) == (
            alone.images,
            alone.wrong,
            alone.wrong_top5,
            alone.loss,
        )
        assert torch.equal(found.correct, alone.correct)


# --- training ------------------------------------------------------------------------------------


@dataclass
class Trained:
    rows: list[dict[str, Any]]
    state: dict[str, Tensor]
    iteration: int


def _train(
    train: dict[str, Any], folder: Path | None = None, stop_after: int = 0, stopping: int = 0
) -> Trained:
    """Train; only process `stopping` requests a stop, after `stop_after` iterations."""
    run = RunConfig(
        model=ModelConfig(depth=8, widths=(4, 8, 16), stage_change="projection"),
        data=DATA,
        train=TrainConfig(**({"epochs": 3, "batch_size": 64, "lr": 0.05} | train)),
        seed=3,
    )
    network = build(run.model, 10, run.seed)
    batches = make_batches("train"), make_batches("test")
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_after and processes.rank() == stopping

    trainer = Trainer(run, network, *batches, folder, should_stop=should_stop)
    trainer.fit()
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in trainer.position.rows]
    state = {name: tensor.clone() for name, tensor in trainer._tensors()}
    return Trained(rows, state, trainer.position.iteration)


def assert_close(one: Trained, other: Trained) -> None:
    torch.testing.assert_close(one.state, other.state, rtol=1e-4, atol=1e-6)
    assert len(one.rows) == len(other.rows) > 0
    for row, expected in zip(one.rows, other.rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "train",
    [
        {"batch_norm_group": 32},
        {"batch_norm_group": 16, "nesterov": True},
        {"batch_norm_group": 32, "active_units": 2},
        {"batch_norm_group": 30, "batch_size": 60},
    ],
    ids=["a group each", "two groups each", "inactive units", "a smaller last batch"],
)
def test_two_processes_train_what_one_trains(train: dict[str, Any], tmp_path: Path) -> None:
    alone = _train(train)
    first, second = (ended.value for ended in together(2, tmp_path, joined, _train, train))
    assert_close(first, alone)
    assert first.rows == second.rows
    for name, tensor in first.state.items():
        assert torch.equal(tensor, second.state[name]), name


def test_a_checkpoint_goes_on_in_another_number_of_processes(tmp_path: Path) -> None:
    """1 -> 2 -> 1 processes; in the second session, the process that does not write stops it."""
    train = {"batch_norm_group": 32}
    undisturbed = _train(train)
    folder = tmp_path / "run"
    assert _train(train, folder, 3).iteration == 3
    stopped = [e.value for e in together(2, tmp_path, joined, _train, train, folder, 4, 1)]
    assert [value.iteration for value in stopped] == [7, 7]
    assert_close(_train(train, folder), undisturbed)


# --- the command ---------------------------------------------------------------------------------


def make_folder(folder: Path, yaml: str = YAML) -> list[str]:
    """An experiment in the folder, and the command that trains it there."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml)
    return ["train", "tiny.yaml", "--out", "out"]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ended]]:
    """The experiment trained by two processes without disturbance."""
    folder = tmp_path_factory.mktemp("two")
    return folder, together(2, folder, run_command, make_folder(folder))


def training(folder: Path) -> pandas.DataFrame:
    return read_table(folder / "out/training.csv").drop(columns=TIMES)


def test_the_first_process_writes_and_prints(
    by_two: tuple[Path, list[Ended]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (first, second) = by_two
    assert (first.value, second.value) == (0, 0)
    assert (second.out, first.err, second.err) == ("", "", "")
    assert first.out.count("epoch 3,") == 1
    assert "wrote out/training.csv" in first.out
    assert read_provenance(folder / "out/training.csv")["platform"]["processes"] == 2
    command = make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_command([*command, "--quiet"]) == 0
    pandas.testing.assert_frame_equal(training(folder), training(tmp_path), rtol=1e-5)
    one, two = (load_network(next(f.glob("runs/*"))).network for f in (tmp_path, folder))
    torch.testing.assert_close(dict(two.state_dict()), dict(one.state_dict()), rtol=1e-4, atol=1e-6)


def test_a_batch_that_cannot_be_shared_out_is_one_line(tmp_path: Path) -> None:
    command = [*make_folder(tmp_path), "--set", "train.batch_norm_group=64"]
    first, second = together(2, tmp_path, run_command, command)
    assert (first.value, second.value) == (2, 2)
    (line,) = (first.err + second.err).splitlines()
    assert line.startswith("resnet-cli: train.batch_size: 64 images in batch-norm groups of 64")
    assert "--set train.batch_norm_group=32" in line


def _disturbed(command: list[str], iteration: int, number: int) -> int:
    """Run a command; the second process gets a signal during an iteration."""
    step = Trainer.step

    def with_signal(trainer: Trainer) -> None:
        if processes.rank() == 1 and trainer.position.iteration == iteration - 1:
            os.kill(os.getpid(), number)
        step(trainer)

    Trainer.step = with_signal  # type: ignore[method-assign]
    return run_command(command)


def test_a_signal_to_one_stops_all_and_one_process_goes_on(
    by_two: tuple[Path, list[Ended]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = make_folder(tmp_path)
    first, second = together(2, tmp_path, _disturbed, command, 6, signal.SIGTERM)
    assert (first.value, second.value) == (130, 130)
    (line,) = (first.err + second.err).splitlines()
    assert line.startswith(f"resnet-cli: stopped at iteration 6 of {ITERATIONS}, saved in runs/")
    (run,) = (tmp_path / "runs").iterdir()
    assert sorted(path.name for path in run.iterdir()) == [".lock", "checkpoint.safetensors"]
    monkeypatch.chdir(tmp_path)
    assert run_command([*command, "--quiet"]) == 0
    pandas.testing.assert_frame_equal(training(tmp_path), training(by_two[0]), rtol=1e-5)


def _fail_alone(command: list[str]) -> int:
    """Carry out a command; the second process cannot read its data."""
    split = Context.split

    def with_failure(self: Context, *arguments: Any) -> Any:
        if processes.rank() == 1:
            raise UserError("no data here")
        return split(self, *arguments)

    processes.LEAVE_SECONDS = 0.5
    Context.split = with_failure  # type: ignore[method-assign]
    return run_command(command)


def test_an_error_in_one_process_ends_all_and_is_said_once(tmp_path: Path) -> None:
    first, second = together(2, tmp_path, _fail_alone, make_folder(tmp_path))
    assert (first.value, second.value) == (1, 2)
    assert first.err + second.err == "resnet-cli: no data here\n"


def test_a_process_whose_other_is_killed_says_so_in_one_line(tmp_path: Path) -> None:
    first, second = together(2, tmp_path, _disturbed, make_folder(tmp_path), 6, signal.SIGKILL)
    assert (first.value, second.value, second.err) == (1, None, "")
    (line,) = first.err.splitlines()
    assert line.startswith("resnet-cli: process 0 lost contact with another one (")
    assert "the same command" in line


@pytest.mark.parametrize(
    ("command", "tables"),
    [
        (
            ["lesion", "--blocks", "1-2", "--samples", "3", "--per-class"],
            ["lesion_delete", "lesion_classes"],
        ),
        (
            ["paths", "--exact", "--samples", "3", "--batch-size", "40", "--stages", "--unit", "1"],
            ["path_gradients", "path_spectrum", "path_spectrum_stages", "path_spectrum_unit"],
        ),
    ],
    ids=["delete", "paths"],
)
def test_a_study_shared_by_two_gives_the_tables_of_one(
    command: list[str], tables: list[str], by_two: tuple[Path, list[Ended]], tmp_path: Path
) -> None:
    command = [*command, "--checkpoint", str(next(by_two[0].glob("runs/*"))), "--out"]
    assert run_command([*command, str(tmp_path / "alone"), "--quiet"]) == 0
    first, second = together(2, tmp_path, run_command, [*command, "shared"])
    assert (first.value, second.value) == (0, 0)
    assert (second.out, first.err, second.err) == ("", "", "")
    for table in tables:
        alone, shared = (tmp_path / folder / f"{table}.csv" for folder in ("alone", "shared"))
        assert len(read_table(alone)) > 0
        assert shared.read_bytes() == alone.read_bytes()


KILLED = """
import os, signal, sys
from resnet_cli.cli import run_command
from resnet_cli.training import loop

loop.CHECKPOINT_SECONDS = -1.0  # after every iteration
step = loop.Trainer.step


def step_or_die(trainer):
    attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
    if (attempt, rank, trainer.position.iteration) == ("0", "1", 5):
        os.kill(os.getpid(), signal.SIGKILL)
    step(trainer)


loop.Trainer.step = step_or_die
sys.exit(run_command(sys.argv[1:]))
"""


def test_torchrun_starts_anew_after_a_killed_worker(
    by_two: tuple[Path, list[Ended]], tmp_path: Path
) -> None:
    command = make_folder(tmp_path)
    (tmp_path / "killed.py").write_text(KILLED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "--max-restarts", "1", "killed.py", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    # What process 0 says is chance: torchrun may stop it before it misses the other one.
    assert done.returncode == 0, done.stderr
    assert f"at iteration 5 of {ITERATIONS}" in done.stdout
    pandas.testing.assert_frame_equal(training(tmp_path), training(by_two[0]), check_exact=True)
