"""Shards are disjoint, complete and idempotent; a failure stops no other experiment."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from resnet_cli.cli import run_command
from resnet_cli.cli.app import app
from resnet_cli.config.experiments import load_experiment
from resnet_cli.config.schema import Case, RunConfig
from resnet_cli.run.executors import Job, Shard, distinct_trainings
from resnet_cli.runtime.errors import RunError, UserError
from resnet_cli.training.context import Context

Captured = pytest.CaptureFixture[str]
YAML = """
title: four
model: {depth: 8, widths: [2, 4, 8]}
data: {train_images: 128, test_images: 20}
train: {epochs: EPOCHS, batch_size: 32, schedule: one_cycle}
cases: [{name: a}, {name: b, train: {lr: 0.05}}]
seeds: [0, 1]
"""
CONTEXT = Context(torch.device("cpu"))
STUDY = "study: {kind: delete, k: 1}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("four.yaml").write_text(YAML.replace("EPOCHS", "1"))
    Path("study.yaml").write_text(YAML.replace("EPOCHS", "1") + STUDY)
    return tmp_path


def runs() -> set[str]:
    return {path.parent.name for path in Path("runs").glob("*/run.json")}


# --- shards --------------------------------------------------------------------------------------


def jobs_of(*names: str, profile: str | None = None) -> list[Job]:
    return [Job(load_experiment(name, profile), Path("out")) for name in names]


@pytest.mark.parametrize("of", [1, 2, 3, 4, 7])
def test_shards_are_disjoint_and_complete(of: int, folder: Path) -> None:
    trainings = distinct_trainings(jobs_of("four.yaml", "study.yaml"), CONTEXT)
    assert len({t.run.hash for t in trainings}) == len(trainings) == 4, "shared ones once"
    shards = [Shard(number, of).share_of(trainings) for number in range(1, of + 1)]
    hashes = [t.run.hash for shard in shards for t in shard]
    assert sorted(hashes) == sorted(t.run.hash for t in trainings)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_shards_of_a_paper_cover_it() -> None:
    jobs = jobs_of("he2016/table1", "he2016/table2", profile="mini")
    trainings = distinct_trainings(jobs, CONTEXT)
    wanted = {run.hash for job in jobs for _, run in job.experiment.runs()}
    found = {t.run.hash for i in range(1, 6) for t in Shard(i, 5).share_of(trainings)}
    assert found == wanted


def test_shards_train_and_the_run_without_one_does_the_rest(folder: Path, capsys: Captured) -> None:
    assert run_command(["run", "study.yaml", "--shard", "1/2"]) == 0
    first = runs()
    assert len(first) == 2
    assert not Path("results").exists()
    assert "2 trainings done" in capsys.readouterr().out
    assert run_command(["run", "study.yaml", "--shard", "1/2"]) == 0
    assert runs() == first
    assert "already trained" in capsys.readouterr().out
    assert run_command(["run", "study.yaml", "--shard", "2/2"]) == 0
    assert len(runs()) == 4
    capsys.readouterr()
    assert run_command(["run", "study.yaml"]) == 0
    assert "epoch 1" not in capsys.readouterr().out, "nothing was trained"
    assert len(list(Path("results").rglob("lesion_delete.csv"))) == 4


def test_a_training_that_fails_fails_every_experiment_that_needs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def train(experiment: object, case: Case, run: RunConfig, *others: object) -> None:
        if (run.train.lr, run.seed) == (0.05, 0):
            raise RunError("lost contact")

    monkeypatch.setattr("resnet_cli.run.executors.train_case", train)
    Path("other.yaml").write_text(Path("four.yaml").read_text().replace("name: b", "name: c"))
    assert run_command(["run", "four.yaml", "other.yaml", "--shard", "1/1"]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("resnet-cli: four failed: b, seed 0: lost contact")
    assert line.endswith(": other")
    assert "other: c, seed 0: lost contact" in captured.out


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_an_invalid_shard(text: str) -> None:
    with pytest.raises(UserError, match=r"--shard .*2/8"):
        Shard.parse(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "2/1"], "--shard '2/1'"),
        (["--executor", "slurm"], "'slurm' is not one of"),
        (["--ray-cpus", "2"], "--executor ray"),
        (["--ray-address", "auto"], "--executor ray"),
        (["--executor", "ray", "--shard", "1/2"], "--shard cannot be used with --executor ray"),
    ],
)
def test_bad_options(options: list[str], message: str, folder: Path, capsys: Captured) -> None:
    assert run_command(["run", "four.yaml", *options]) == 2
    assert message in capsys.readouterr().err


# --- SLURM ---------------------------------------------------------------------------------------

SLURM = Path(__file__).parents[2] / "examples" / "slurm.sh"


def submitted(
    folder: Path, task: int, code: int, *arguments: str
) -> tuple[int, list[str], list[str]]:
    """(exit code, arguments of resnet-cli, what scontrol was told) of a task of the job array.

    In SLURM's place: srun that runs its arguments, and a resnet-cli that ends with this code.
    """
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in {
        "srun": 'exec "$@"',
        "scontrol": f'echo "$@" >> {folder / "scontrol"}',
        "resnet-cli": f'printf "%s\\n" "$@" > {folder / "arguments"}; exit {code}',
    }.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    of_slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": f"70{task}"}
    ended = subprocess.run(["bash", SLURM, *arguments], env={"PATH": path} | of_slurm, check=False)
    told = folder / "scontrol"
    return (
        ended.returncode,
        (folder / "arguments").read_text().splitlines(),
        told.read_text().splitlines() if told.exists() else [],
    )


def test_the_job_array_is_a_script_with_as_many_tasks_as_shards() -> None:
    assert subprocess.run(["bash", "-n", SLURM], check=False).returncode == 0
    text = SLURM.read_text()
    options = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--signal=TERM@120", "--requeue"} <= set(options)
    (array,) = (option for option in options if option.startswith("--array="))
    number = int(array.removeprefix("--array=1-"))
    assert f'--shard "$SLURM_ARRAY_TASK_ID/{number}"' in text
    before_commands = text[: text.index("\nset -u")].splitlines()
    assert all(line.startswith("#") for line in before_commands), "or sbatch reads no further"


@pytest.mark.parametrize(
    ("given", "paper", "profile"),
    [((), "he2016", "paper"), (("veit2016", "cpu"), "veit2016", "cpu")],
)
def test_the_command_of_the_job_array_parses(
    given: tuple[str, ...], paper: str, profile: str, folder: Path
) -> None:
    _, arguments, _ = submitted(folder, 8, 0, *given)
    program: Any = typer.main.get_command(app)
    name, command, rest = program.resolve_command(program.make_context("x", ["list"]), arguments)
    found = command.make_context(name, list(rest)).params
    assert name == "reproduce"
    assert (found["paper"], found["profile"]) == (paper, profile)
    assert Shard.parse(found["shard"]) == Shard(8, 8)


def test_a_stopped_shard_is_queued_again(folder: Path) -> None:
    assert submitted(folder, 3, 130)[::2] == (130, ["requeue 703"])
    for code in (0, 1, 2):
        assert submitted(folder, 4, code)[::2] == (code, ["requeue 703"]), "and no other"
