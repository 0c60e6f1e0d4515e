"""The command train: what it writes and prints, and how it is interrupted and resumed."""

import ctypes
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import torch
from cli_helpers import (
    OUT,
    TIMES,
    TRAIN,
    Captured,
    contents,
    environment,
    refused,
    run_folder,
    summary_of,
)

from resnet_cli.cli import run_command
from resnet_cli.results.tables import is_pair, read_provenance, read_table


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
    assert f"main, seed 0: already trained ({run_folder()})" in capsys.readouterr().out
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
    assert " 90.00 " in captured.out


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


def test_a_diverged_training_is_a_result(empty: Path, capsys: Captured) -> None:
    arguments = [*TRAIN, "--set", "train.lr=1e30"]
    content = summary_of(arguments, capsys)
    (case,) = content["experiments"]["quickstart"]["cases"]
    assert case["status"] == "diverged"
    assert case["test_error"] is None


def test_deterministic_kernels(empty: Path) -> None:
    """A CPU is always deterministic, so the weights are the same."""
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


def test_between_trainings_it_says_what_is_left(empty: Path, capsys: Captured) -> None:
    assert run_command([*TRAIN, "--set", "seeds=[0, 1, 2]"]) == 0
    out = capsys.readouterr().out
    assert "quickstart: 1 of 3 trainings, at most about " in out
    assert "quickstart: 2 of 3 trainings, at most about " in out
    assert "3 of 3" not in out
    assert run_command([*TRAIN, "--set", "seeds=[0, 1, 2]"]) == 0
    assert "trainings, " not in capsys.readouterr().out


def test_a_training_whose_run_folder_takes_no_files_does_not_begin(
    empty: Path, capsys: Captured
) -> None:
    Path("runs").write_text("a file")
    line = refused(TRAIN, capsys)
    assert line.startswith("runs/preact8-")
    assert "a file where its folder should be; move it or change to another working folder" in line


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
    """Stop in the middle of a very long iteration."""
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
    """Also as root, after dropping the privilege to write everywhere."""

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
