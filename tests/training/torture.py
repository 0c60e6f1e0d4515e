"""Inject faults into whole commands, and check the results after the same command is run again.

`make torture` runs this file with many faults, prints their consequences, and writes the table in
results/reliability/ with its provenance. The tests run a few faults of each kind.

A child process is forked for each command, so that it starts quickly. It kills itself or fails at
its n-th event: a training step or a file operation (sync, rename, delete). At a sync, the file is
first cut in half, as by an unfinished write. A full disk stays full for the rest of the command.
"""

import argparse
import errno
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import pandas
import torch
import torch._dynamo

import resnet_cli.run.experiment
import resnet_cli.run.trainings
import resnet_cli.studies.runner
from resnet_cli.cli import run_command
from resnet_cli.results.layout import CHECKPOINT_FILE
from resnet_cli.results.provenance import collect
from resnet_cli.results.tables import read_table, write_table
from resnet_cli.training import loop

YAML = """
title: everything that a resumed run must draw again
model: {depth: 8, widths: [4, 8, 8]}
data: {train_images: 160, test_images: 40, pad: 2}
train: {epochs: 2, batch_size: 40, batch_norm_group: 20, schedule: one_cycle}
cases:
  - {name: active, train: {active_units: 2}}
  - name: dropout
    model: {placement: original, shortcut: dropout}
    train: {stochastic_depth: 0.5}
study: {kind: delete, k: 1-2, samples: 3}
"""
COMMANDS = (["train", "torture.yaml"], ["run", "torture.yaml"])
"""Training tables, then the study of the same runs."""
TIMES = ["images_per_second", "seconds"]
"""Columns that differ from run to run."""
MAX_ATTEMPTS = 60


# --- one command in a child ----------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What happens at which of the child's events; nothing happens after the last event."""

    kind: str
    """`kill`, `terminate`, `disk full` or `none`."""
    moment: int = 0


@dataclass
class Ended:
    """How a child ended."""

    code: int
    """Exit code; the negative signal when one killed it."""
    moments: int
    """How many it lived through; 0 when it was killed."""
    output: str


def run_in_child(folder: Path, arguments: list[str], fault: Fault) -> Ended:
    """One command of ours in a forked process that works in `folder`."""
    log, count = folder / "log.txt", folder / "moments.txt"
    count.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.chdir(folder)
            # Both the streams of Python, which a test runner may have replaced, and the system's.
            sys.stdout = sys.stderr = log.open("w", buffering=1)
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
            moments = _install(fault)
            code = run_command(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            count.write_text(str(moments()))
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    moments_lived = int(count.read_text()) if count.exists() else 0
    return Ended(os.waitstatus_to_exitcode(status), moments_lived, log.read_text())


def _install(fault: Fault) -> Callable[[], int]:
    """Put the fault into this process; returns a counter of its moments."""
    for module in (resnet_cli.run.experiment, resnet_cli.studies.runner):
        module.draw = lambda *args: []  # figures take time and hold no result
    resnet_cli.run.trainings.draw_training = lambda *args: Path()
    loop.CHECKPOINT_SECONDS = 0.0  # a checkpoint after every step, so that most moments are writes
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    passed = 0
    sync, replace, unlink, step = os.fsync, os.replace, Path.unlink, loop.Trainer.step

    def tick(descriptor: int | None = None) -> None:
        nonlocal passed
        passed += 1
        if fault.kind == "disk full" and descriptor is not None and 0 < fault.moment <= passed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if passed != fault.moment:
            return
        if fault.kind == "kill":
            if descriptor is not None:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.kind == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)

    def slow_sync(descriptor: int) -> None:
        tick(descriptor)
        sync(descriptor)

    def slow_replace(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        tick()
        replace(source, target)
        tick()

    def slow_unlink(path: Path, missing_ok: bool = False) -> None:
        tick()
        unlink(path, missing_ok)

    def slow_step(trainer: loop.Trainer) -> None:
        tick()
        step(trainer)

    os.fsync, os.replace = slow_sync, slow_replace  # type: ignore[assignment]
    Path.unlink = slow_unlink  # type: ignore[method-assign]
    loop.Trainer.step = slow_step  # type: ignore[method-assign]
    return lambda: passed


# --- whole studies -------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of one kind of fault."""

    fault: str
    injected: int = 0
    resumed: int = 0
    """Commands that finished when run again."""
    rows_lost: int = 0
    """Rows of the undisturbed tables that are missing in the end."""
    files_differing: int = 0
    """Tables that differ from the undisturbed ones, times left out."""


def untouched(folder: Path) -> int:
    """The study undisturbed, in `folder`; returns the number of its moments."""
    folder.mkdir(parents=True)
    (folder / "torture.yaml").write_text(YAML)
    moments = 0
    for command in COMMANDS:
        ended = run_in_child(folder, command, Fault("none"))
        assert ended.code == 0, ended.output
        moments += ended.moments
    return moments


def disturbed(
    kind: str, folder: Path, reference: Path, moments: int, generator: random.Random, faults: int
) -> Tally:
    """Run studies with faults at random events, repeating each command until it finishes, until
    `faults` faults were injected; compare the results with the undisturbed study."""
    tally = Tally(kind)
    study = 0
    while tally.injected < faults:
        study += 1
        place = folder / f"{kind.replace(' ', '-')}-{study}"
        place.mkdir(parents=True)
        (place / "torture.yaml").write_text(YAML)
        for command in COMMANDS:
            _until_it_ends(kind, place, command, moments, generator, tally)
        lost, differing = compare(reference, place)
        tally.rows_lost += lost
        tally.files_differing += len(differing)
        shutil.rmtree(place)
    return tally


EXPECTED = {"kill": -signal.SIGKILL, "terminate": 130, "disk full": 2, "damaged checkpoint": -9}
"""The exit code of a command into which a fault was put."""


def _until_it_ends(
    kind: str,
    place: Path,
    command: list[str],
    moments: int,
    generator: random.Random,
    tally: Tally,
) -> None:
    was_disturbed = False
    for _ in range(MAX_ATTEMPTS):
        at = generator.randint(1, max(2, moments // 2))
        fault = Fault("kill" if kind == "damaged checkpoint" else kind, at)
        ended = run_in_child(place, command, fault)
        assert "Traceback" not in ended.output, ended.output
        if ended.code == 0:
            tally.resumed += was_disturbed
            return
        assert ended.code == EXPECTED[kind], (ended.code, ended.output)
        tally.injected += 1
        was_disturbed = True
        if kind == "disk full":
            assert "the disk is full" in ended.output, ended.output
        if kind == "damaged checkpoint":
            _damage(place, generator)
    raise AssertionError(f"{command} did not end in {MAX_ATTEMPTS} attempts")


def _damage(place: Path, generator: random.Random) -> None:
    """Change a byte of every checkpoint that is there, or cut it."""
    for path in place.glob(f"runs/*/{CHECKPOINT_FILE}"):
        content = bytearray(path.read_bytes())
        at = generator.randrange(len(content))
        if generator.random() < 0.5:
            content[at] ^= 0xFF
        else:
            del content[at:]
        path.write_bytes(content)


def compare(reference: Path, place: Path) -> tuple[int, list[str]]:
    """Rows lost, and the tables that differ: byte for byte, but for columns of times."""
    lost, differing = 0, []
    for expected in sorted((reference / "results").rglob("*.csv")):
        path = place / expected.relative_to(reference)
        if not path.exists():
            lost += len(read_table(expected))
            differing.append(str(path))
            continue
        wanted, found = pandas.read_csv(expected), pandas.read_csv(path)
        lost += max(0, len(wanted) - len(found))
        if expected.stem == "training":
            same = _without_times(wanted).equals(_without_times(found))
        else:
            same = expected.read_bytes() == path.read_bytes()
        if not same:
            differing.append(str(path))
    left = [p.name for p in place.glob("runs/*/*") if "checkpoint" in p.name]
    differing += [name for name in left if not name.endswith(".damaged")]
    return lost, differing


def _without_times(frame: pandas.DataFrame) -> pandas.DataFrame:
    return frame.drop(columns=TIMES)


def limited_files(folder: Path, reference: Path) -> Tally:
    """The operating system's own limit on the size of a file, lifted for the second attempt."""
    folder.mkdir(parents=True)
    (folder / "torture.yaml").write_text(YAML)
    tally = Tally("file size limit")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        ended = run_in_child(folder, list(COMMANDS[0]), Fault("none"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ended.code == 2, ended.output
    assert "cannot be written" in ended.output, ended.output
    assert "Traceback" not in ended.output, ended.output
    tally.injected = 1
    for command in COMMANDS:
        ended = run_in_child(folder, command, Fault("none"))
        assert ended.code == 0, ended.output
    tally.resumed = 1
    tally.rows_lost, differing = compare(reference, folder)
    tally.files_differing = len(differing)
    return tally


def main() -> None:
    """The long version, as `make torture` runs it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--faults", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/reliability"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # a forked child has no threads but its own
    started = datetime.now(UTC)
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        moments = untouched(place / "untouched")
        tallies = []
        for kind in EXPECTED:
            tally = disturbed(kind, place, place / "untouched", moments, generator, options.faults)
            tallies.append(tally)
            print(tally, flush=True)
        tallies.append(limited_files(place / "limited", place / "untouched"))
        print(tallies[-1], flush=True)
    provenance = collect(
        {"faults": options.faults, "experiment": YAML},
        seeds=(options.seed,),
        started=started,
        command=("make", "torture") if len(sys.argv) == 1 else None,
    )
    print("wrote", write_table([vars(t) for t in tallies], "reliability", options.out, provenance))
    if any(tally.rows_lost or tally.files_differing for tally in tallies):
        sys.exit(1)


if __name__ == "__main__":
    main()
