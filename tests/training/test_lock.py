"""Two processes, one run: the second waits and takes what the first made; a dead owner is none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resnet_cli.results.layout import LOCK_FILE, OWNER_FILE
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.interrupt import Interrupted
from resnet_cli.training.lock import locked

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from resnet_cli.training.lock import locked
with locked(Path(sys.argv[1]), lambda: False, print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def hold(folder: Path, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the folder, so long unless it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_second_waits_and_says_who_holds_it(tmp_path: Path) -> None:
    notes: list[str] = []
    with hold(tmp_path / "run", 0.8) as process:
        started = time.monotonic()
        with locked(tmp_path / "run", lambda: False, notes.append):
            assert time.monotonic() - started > 0.2
        assert process.wait() == 0
    (note,) = notes
    assert f"in use by process {process.pid} on " in note
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_FILE]


def test_waiting_can_be_stopped(tmp_path: Path) -> None:
    with (
        hold(tmp_path, 30) as process,
        pytest.raises(Interrupted, match=f"in use by process {process.pid}"),
        locked(tmp_path, lambda: True, lambda line: None),
    ):
        pytest.fail("it is held")


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with hold(tmp_path, 30) as process:
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / OWNER_FILE).exists(), "it had no time to clean up"
    notes: list[str] = []
    with locked(tmp_path, lambda: True, notes.append):
        assert str(os.getpid()) in (tmp_path / OWNER_FILE).read_text()
    assert notes == []
    assert not (tmp_path / OWNER_FILE).exists()


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from resnet_cli.results.tables import atomic_write\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic_write(Path(sys.argv[1]) / 'checkpoint', 'x' * 100)\n"
    )
    other = tmp_path / ".mine.tmp"
    other.write_text("someone else's")
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert len(list(tmp_path.iterdir())) == 2
    with locked(tmp_path, lambda: True, lambda line: None):
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {".mine.tmp", LOCK_FILE, OWNER_FILE}


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="a file where its folder should be"),
        locked(tmp_path / "file" / "run", lambda: False, lambda line: None),
    ):
        pytest.fail("there is no folder")


YAML = """
title: tiny
model: {depth: 8, widths: [2, 4, 8]}
data: {train_images: 128, test_images: 20}
train: {epochs: 12, batch_size: 32, schedule: one_cycle}
"""


def test_two_commands_train_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(YAML)
    command = [sys.executable, "-m", "resnet_cli", "train", "tiny.yaml"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [*command, "--out", name],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("a", "b")
    ]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert (tmp_path / "a/table.csv").read_bytes() == (tmp_path / "b/table.csv").read_bytes()
    assert (tmp_path / "a/training.csv").read_bytes() == (tmp_path / "b/training.csv").read_bytes()
    epochs = [output.count("epoch 12,") for output in outputs]
    assert sum(epochs) in (1, 2)
    if sum(epochs) == 1:  # else the second began after the first had ended
        assert sum("is in use by process" in output for output in outputs) <= 1
