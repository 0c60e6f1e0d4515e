"""Shards are disjoint, complete and idempotent; Ray gives what the serial run gives, also when a
worker is killed."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import typer

from resnet_cli.cli import run_command
from resnet_cli.cli.app import app
from resnet_cli.config.experiments import load_experiment
from resnet_cli.config.schema import Case, RunConfig
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.run.executors import (
    RETRIES,
    Cluster,
    distinct_trainings,
    parse_shard,
    shard_of,
    task_options,
)
from resnet_cli.runtime.errors import RunError, UserError
from resnet_cli.studies.runner import Written
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


@pytest.mark.parametrize("of", [1, 2, 3, 4, 7])
def test_shards_are_disjoint_and_complete(of: int, folder: Path) -> None:
    experiments = [load_experiment("four.yaml"), load_experiment("study.yaml")]
    trainings = distinct_trainings(experiments, CONTEXT)
    assert len({t.run.hash for t in trainings}) == len(trainings) == 4, "shared ones stand once"
    shards = [shard_of(trainings, number, of) for number in range(1, of + 1)]
    hashes = [t.run.hash for shard in shards for t in shard]
    assert sorted(hashes) == sorted(t.run.hash for t in trainings)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_shards_of_a_paper_cover_it() -> None:
    experiments = [load_experiment(f"he2016/table{n}", "mini") for n in (1, 2)]
    trainings = distinct_trainings(experiments, CONTEXT)
    wanted = {run.hash for experiment in experiments for _, run in experiment.runs()}
    found = {t.run.hash for i in range(1, 6) for t in shard_of(trainings, i, 5)}
    assert found == wanted


def test_shards_train_and_the_run_without_one_does_the_rest(folder: Path, capsys: Captured) -> None:
    assert run_command(["run", "study.yaml", "--shard", "1/2"]) == 0
    first = runs()
    assert len(first) == 2
    assert not Path("results").exists()
    assert "shard 1 of 2: 2 trainings done" in capsys.readouterr().out
    assert run_command(["run", "study.yaml", "--shard", "1/2"]) == 0
    assert runs() == first
    assert "trained already" in capsys.readouterr().out
    assert run_command(["run", "study.yaml", "--shard", "2/2"]) == 0
    assert len(runs()) == 4
    capsys.readouterr()
    assert run_command(["run", "study.yaml"]) == 0
    assert "epoch 1" not in capsys.readouterr().out, "nothing was trained"
    assert len(list(Path("results").rglob("lesion_delete.csv"))) == 4


REPRODUCE = ["reproduce", "he2016", "--profile", "smoke", "--results", "out", "--json"]


@pytest.fixture
def without_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A paper of two experiments: the first on CIFAR-10, which is not there, one on digits."""
    monkeypatch.setenv("RESNET_CLI_DATA", str(folder / "nothing"))
    (folder / "experiments/he2016").mkdir(parents=True)
    digits = "data: {train_images: 128, test_images: 20}"
    tiny = YAML.replace("EPOCHS", "1") + "paper: he2016\nprofiles: {smoke: {}}\n"
    assert digits in tiny
    shelf = folder / "experiments/he2016"
    (shelf / "table1.yaml").write_text(tiny.replace(digits, "data: {dataset: cifar10}"))
    (shelf / "fig6a.yaml").write_text(tiny)
    monkeypatch.setattr("resnet_cli.config.experiments.experiments_folder", lambda: shelf.parent)
    return folder


def of_one_failure(capsys: Captured) -> None:
    """`without_cifar` was told as the serial run tells it, once for all four trainings."""
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert list(summary["failed"]) == ["he2016/table1"]
    assert "he2016/fig6a" not in captured.err.splitlines()[-1]
    assert "resnet-cli: he2016/table1 could not run: a, seed 0: CIFAR-10 not found" in captured.err
    assert captured.err.count("CIFAR-10 not found") == 2, "when it failed, and at the end"
    assert "Traceback" not in captured.err


def test_a_shard_trains_what_has_data(without_cifar: Path, capsys: Captured) -> None:
    assert run_command([*REPRODUCE, "--shard", "1/1"]) == 2
    of_one_failure(capsys)
    assert len(runs()) == 4
    assert run_command(["run", "he2016", "--profile", "smoke", "--shard", "1/1"]) == 2
    assert "shard 1 of 1: 4 trainings done, 4 failed" in capsys.readouterr().out


def test_a_training_that_fails_is_wanting_wherever_it_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def train(experiment: object, case: Case, run: RunConfig, *others: object) -> None:
        if (run.train.lr, run.seed) == (0.05, 0):
            raise RunError("lost contact")

    monkeypatch.setattr("resnet_cli.run.executors.train_case", train)
    Path("other.yaml").write_text(Path("four.yaml").read_text().replace("name: b", "name: c"))
    assert run_command(["run", "four.yaml", "other.yaml", "--shard", "1/1"]) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        "resnet-cli: four could not run: b, seed 0: lost contact; neither could other\n"
    )
    assert "other: c, seed 0: lost contact" in captured.out


def test_a_shard_of_a_paper(folder: Path, capsys: Captured) -> None:
    command = ["reproduce", "he2016", "--profile", "smoke", "--shard", "25/25", "--json"]
    assert run_command(command) == 0
    assert json.loads(capsys.readouterr().out)["experiments"] == {}
    assert len(runs()) == 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_no_shard(text: str) -> None:
    with pytest.raises(UserError, match="write i/n"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "2/1"], "write i/n with i from 1 to n"),
        (["--executor", "slurm"], "unknown executor 'slurm'"),
        (["--ray-cpus", "2"], "go with --executor ray"),
        (["--ray-address", "auto"], "go with --executor ray"),
        (["--executor", "ray", "--shard", "1/2"], "leave out --executor ray"),
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
    assert parse_shard(found["shard"]) == (8, 8)


def test_a_stopped_shard_is_queued_again(folder: Path) -> None:
    assert submitted(folder, 3, 130)[::2] == (130, ["requeue 703"])
    for code in (0, 1, 2):
        assert submitted(folder, 4, code)[::2] == (code, ["requeue 703"]), "and no other"


# --- Ray -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "gpus", "num_gpus"),
    [("auto", 4, 1), ("cuda", 1, 1), ("cpu", 4, 0), ("auto", 0, 0), ("cpu", 0, 0)],
)
def test_what_a_task_asks_for(device: str, gpus: int, num_gpus: int) -> None:
    resources = {"CPU": 8.0} | ({"GPU": float(gpus)} if gpus else {})
    options = task_options(Cluster(cpus=3, device=device), resources)
    assert options == {"num_cpus": 3, "num_gpus": num_gpus, "max_retries": RETRIES}


@pytest.mark.parametrize(
    ("device", "resources", "message"),
    [
        ("cuda", {"CPU": 8.0}, "--device cuda: the Ray cluster has no GPU"),
        ("cuda:1", {"CPU": 8.0, "GPU": 4.0}, "--device cuda:1: on Ray each task has a device"),
    ],
)
def test_a_device_that_no_task_gets(device: str, resources: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_options(Cluster(device=device), resources)


@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_the_device_is_found_on_the_worker(
    device: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine has no GPU, as a head node may not; the cluster has, and is asked for one."""
    pytest.importorskip("ray", reason="needs the extra: pip install ray")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8.0}}])
    monkeypatch.setattr("resnet_cli.run.executors._connect", lambda cluster: None)
    monkeypatch.setattr("resnet_cli.run.experiment.run_experiment", lambda *args: Written())
    asked = []

    def all_done(tasks: list[Any], options: dict[str, int], *others: object) -> None:
        asked.extend((task.arguments[0].device, options["num_gpus"]) for task in tasks)

    monkeypatch.setattr("resnet_cli.run.executors._all_done", all_done)
    assert run_command(["run", "four.yaml", "--executor", "ray", "--device", device]) == 0
    assert asked == [(device, int(device != "cpu"))] * 5, "four trainings and what follows them"


TIMES = ["images_per_second", "seconds"]


def without_times(path: Path) -> pandas.DataFrame:
    return read_table(path).drop(columns=TIMES)


def test_ray_gives_what_the_serial_run_gives_though_a_worker_is_killed(
    folder: Path, capsys: Captured
) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra: pip install ray")
    longer = YAML.replace("EPOCHS", "12")
    Path("four.yaml").write_text(longer)
    Path("study.yaml").write_text(longer + STUDY)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    killed: list[int] = []

    def kill_one() -> None:
        """The first worker that owns a run's folder, once."""
        until = time.monotonic() + 60
        while time.monotonic() < until and not killed:
            for owner in Path(folder / "runs").glob("*/.owner.json"):
                try:
                    pid = json.loads(owner.read_text())["pid"]
                except (OSError, ValueError):
                    continue
                assert pid != os.getpid(), "trainings are not done here"
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        assert run_command(["run", "four.yaml", "study.yaml", "--executor", "ray"]) == 0
    finally:
        killer.join()
        ray.shutdown()
    assert killed, "a worker was killed"
    out = capsys.readouterr().out
    assert "four: a, seed 0: done" in out
    assert len(runs()) == 4
    made = Path("results/local")
    command = read_provenance(made / "four/mini/table.csv")["command"]
    made.rename("ray")
    Path("runs").rename("runs-ray")

    assert run_command(["run", "four.yaml", "study.yaml"]) == 0
    for path in sorted(made.rglob("*.csv")):
        by_ray = Path("ray") / path.relative_to(made)
        if path.stem == "training":
            assert without_times(path).equals(without_times(by_ray))
        else:
            assert path.read_bytes() == by_ray.read_bytes()
    assert len(list(made.rglob("*.csv"))) == 6
    assert command == read_provenance(made / "four/mini/table.csv")["command"]


def test_stopped_on_ray_it_saves_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """By its budget before a task began, by a signal while both workers train."""
    ray = pytest.importorskip("ray", reason="needs the extra: pip install ray")
    seeds = "seeds: [0, 1]"
    only = YAML.replace("cases: [{name: a}, {name: b, train: {lr: 0.05}}]", "")
    assert seeds in only
    Path("two.yaml").write_text(only.replace("EPOCHS", "40"))
    command = ["run", "two.yaml", "--executor", "ray"]
    monkeypatch.setattr("resnet_cli.run.executors.SAVE_SECONDS", 120.0)  # the machine may be busy

    def stop() -> None:
        """Once both workers own a run's folder."""
        until = time.monotonic() + 300
        while time.monotonic() < until:
            if len(list(Path(folder / "runs").glob("*/.owner.json"))) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.02)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert run_command([*command, "--budget", "0s"]) == 130
        error = capsys.readouterr().err
        assert "resnet-cli: stopped with 2 of 2 tasks to do" in error
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        watcher = threading.Thread(target=stop)
        watcher.start()
        assert run_command(command) == 130
        watcher.join()
        error = capsys.readouterr().err
        assert error.endswith("with 2 of 2 tasks to do; the same command goes on from there\n")
        assert len({path.parent for path in Path("runs").glob("*/checkpoint*")}) == 2
        assert runs() == set()
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        assert run_command(command) == 0
    finally:
        ray.shutdown()
    assert len(runs()) == 2
    made = Path("results/local/two/mini")
    made.rename("ray")
    Path("runs").rename("runs-ray")
    assert run_command(["run", "two.yaml"]) == 0
    assert without_times(made / "training.csv").equals(without_times(Path("ray/training.csv")))
    assert (made / "table.csv").read_bytes() == Path("ray/table.csv").read_bytes()


def test_on_ray_missing_data_stop_one_experiment_alone(
    without_cifar: Path, capsys: Captured
) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra: pip install ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        assert run_command([*REPRODUCE, "--executor", "ray"]) == 2
    finally:
        ray.shutdown()
    of_one_failure(capsys)
    assert Path("out/he2016/smoke/fig6a/table.csv").is_file()
    assert not Path("out/he2016/smoke/table1").exists()


def test_retries_used_up_stop_one_experiment_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Its worker is killed each time; the other experiment's has the threads asked for."""
    ray = pytest.importorskip("ray", reason="needs the extra: pip install ray")
    one = YAML.replace("cases: [{name: a}, {name: b, train: {lr: 0.05}}]\nseeds: [0, 1]\n", "")
    assert "seeds" not in one
    Path("bad.yaml").write_text(one.replace("EPOCHS", "40"))
    Path("good.yaml").write_text(one.replace("EPOCHS", "1"))
    doomed = folder / "runs" / load_experiment("bad.yaml").runs()[0][1].folder
    killed: set[int] = set()
    is_over = threading.Event()

    def kill_each() -> None:
        while not is_over.wait(0.02):
            try:
                pid = json.loads((doomed / ".owner.json").read_text())["pid"]
            except (OSError, ValueError):
                continue
            if pid not in killed:
                assert pid != os.getpid(), "trainings are not done here"
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    monkeypatch.setattr("resnet_cli.run.executors.RETRIES", 1)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    killer = threading.Thread(target=kill_each)
    killer.start()
    try:
        command = ["run", "bad.yaml", "good.yaml", "--executor", "ray", "--ray-cpus", "2"]
        assert run_command(command) == 1
    finally:
        is_over.set()
        killer.join()
        ray.shutdown()
    assert len(killed) == 2
    error = capsys.readouterr().err
    assert error.count("resnet-cli: ") == 1
    assert "resnet-cli: bad could not run: main, seed 0: its worker was lost" in error
    assert "the same command goes on from the last checkpoint" in error
    assert Path("results/local/good/mini/table.csv").is_file()
    assert not Path("results/local/bad").exists()
    (trained,) = Path("runs").glob("*/training.csv")
    assert torch.get_num_threads() == 1
    assert read_provenance(trained)["platform"]["threads"] == 2


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:PORT", "no cluster answers there"),
        ("ray://127.0.0.1:PORT", "no cluster answers there"),
        ("127.0.0.1:99999", "no cluster answers there"),
        ("nonsense", "Invalid address format"),
    ],
)
def test_no_cluster_at_the_address(
    address: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra: pip install ray")
    address = address.replace("PORT", str(closed_port()))
    if address != "nonsense":  # Ray would try for minutes
        monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("not asked first"))
    assert run_command(["run", "four.yaml", "--executor", "ray", "--ray-address", address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"resnet-cli: --ray-address {address}: {message}")


def test_more_cores_than_any_machine_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install ray")
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {}}]
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}])
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr("resnet_cli.run.executors._connect", lambda cluster: None)
    assert run_command(["run", "four.yaml", "--executor", "ray", "--ray-cpus", "5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resnet-cli: --ray-cpus 5: no machine of the cluster has more than 4 ")


def test_ray_that_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert run_command(["run", "four.yaml", "--executor", "ray"]) == 2
    assert "pip install ray" in capsys.readouterr().err
