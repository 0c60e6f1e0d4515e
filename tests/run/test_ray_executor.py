"""Ray gives what the serial run gives, also when a worker is killed or all are stopped."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

from resnet_cli.cli import run_command
from resnet_cli.config.experiments import load_experiment
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.run.ray_executor import RETRIES, RayExecutor
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.runner import Written

ray: Any = pytest.importorskip("ray", reason="needs the extra: pip install ray")

Captured = pytest.CaptureFixture[str]
TIMES = ["images_per_second", "seconds"]
YAML = """
title: tiny
model: {depth: 8, widths: [2, 4, 8]}
data: {train_images: 128, test_images: 20}
train: {epochs: EPOCHS, batch_size: 32, schedule: one_cycle}
"""
FOUR = (
    YAML
    + """
cases: [{name: a}, {name: b, train: {lr: 0.05}}]
seeds: [0, 1]
"""
)
STUDY = "study: {kind: delete, k: 1}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("four.yaml").write_text(FOUR.replace("EPOCHS", "1"))
    return tmp_path


@pytest.fixture
def cluster() -> Iterator[Callable[[], None]]:
    """Starts a cluster of two cores; the command joins it, and shuts it down when it ends."""
    yield lambda: ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.shutdown()


def runs() -> set[str]:
    return {path.parent.name for path in Path("runs").glob("*/run.json")}


def owners(folder: Path) -> set[int]:
    """The processes that own a run's folder."""
    found = set()
    for owner in (folder / "runs").glob("*/.owner.json"):
        try:
            found.add(int(json.loads(owner.read_text())["pid"]))
        except (OSError, ValueError):
            continue
    assert os.getpid() not in found, "trainings run on the workers"
    return found


def without_times(path: Path) -> pandas.DataFrame:
    return read_table(path).drop(columns=TIMES)


def assert_same_results(made: Path, by_ray: Path) -> None:
    """Every table of the serial run is that of Ray, except for times."""
    tables = sorted(made.rglob("*.csv"))
    assert len(tables) == len(list(by_ray.rglob("*.csv"))) > 0
    for path in tables:
        other = by_ray / path.relative_to(made)
        if path.stem == "training":
            assert without_times(path).equals(without_times(other))
        else:
            assert path.read_bytes() == other.read_bytes()


# --- resources -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "gpus", "num_gpus"),
    [("auto", 4, 1), ("cuda", 1, 1), ("cpu", 4, 0), ("auto", 0, 0), ("cpu", 0, 0)],
)
def test_the_resources_of_a_task(device: str, gpus: int, num_gpus: int) -> None:
    resources = {"CPU": 8.0} | ({"GPU": float(gpus)} if gpus else {})
    options = RayExecutor(cpus=3, device=device).task_options(resources)
    assert options == {"num_cpus": 3, "num_gpus": num_gpus, "max_retries": RETRIES}


@pytest.mark.parametrize(
    ("device", "resources", "message"),
    [
        ("cuda", {"CPU": 8.0}, "--device cuda: the Ray cluster has no GPU"),
        (
            "cuda:1",
            {"CPU": 8.0, "GPU": 4.0},
            "--device cuda:1: on Ray each task has its own",
        ),
    ],
)
def test_a_device_that_no_task_gets(device: str, resources: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RayExecutor(device=device).task_options(resources)


@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_the_device_is_found_on_the_worker(
    device: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine has no GPU, like some head nodes; the cluster has GPUs, and one is requested."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8.0}}])
    monkeypatch.setattr("resnet_cli.run.ray_executor.connect", lambda address: None)
    monkeypatch.setattr("resnet_cli.run.executors.run_experiment", lambda *args: Written())
    asked = []

    def run_tasks(tasks: list[Any], setup: Any, options: dict[str, int], session: object) -> None:
        asked.append((len(tasks), setup.device, options["num_gpus"]))

    monkeypatch.setattr("resnet_cli.run.ray_executor.run_tasks", run_tasks)
    assert run_command(["run", "four.yaml", "--executor", "ray", "--device", device]) == 0
    num_gpus = int(device != "cpu")
    assert asked == [(4, device, num_gpus), (1, device, num_gpus)], "trainings, then studies"


def test_more_cores_than_any_machine_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {}}]
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}])
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr("resnet_cli.run.ray_executor.connect", lambda address: None)
    assert run_command(["run", "four.yaml", "--executor", "ray", "--ray-cpus", "5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resnet-cli: --ray-cpus 5: no machine of the cluster has more than 4 ")


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    "address", ["127.0.0.1:PORT", "ray://127.0.0.1:PORT", "127.0.0.1:99999", "nonsense"]
)
def test_no_cluster_at_the_address(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    address = address.replace("PORT", str(closed_port()))
    if address != "nonsense":  # Ray would try for minutes
        monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("not checked first"))
    assert run_command(["run", "four.yaml", "--executor", "ray", "--ray-address", address]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"resnet-cli: --ray-address {address}: ")


def test_ray_that_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert run_command(["run", "four.yaml", "--executor", "ray"]) == 2
    assert "pip install ray" in capsys.readouterr().err


# --- tasks ---------------------------------------------------------------------------------------


def test_ray_gives_what_the_serial_run_gives_though_a_worker_is_killed(
    folder: Path, cluster: Callable[[], None], capsys: Captured
) -> None:
    longer = FOUR.replace("EPOCHS", "12")
    Path("four.yaml").write_text(longer)
    Path("study.yaml").write_text(longer + STUDY)
    cluster()
    killed: list[int] = []

    def kill_one() -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and not killed:
            for pid in owners(folder):
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
    assert killed, "a worker was killed"
    assert "four: a, seed 0: done" in capsys.readouterr().out
    assert len(runs()) == 4
    made = Path("results/local")
    made.rename("ray")
    Path("runs").rename("runs-ray")
    assert run_command(["run", "four.yaml", "study.yaml"]) == 0
    assert_same_results(made, Path("ray"))
    commands = [read_provenance(f / "four/mini/table.csv")["command"] for f in (made, Path("ray"))]
    assert commands[0] == commands[1]


def test_stopped_on_ray_it_saves_and_resumes(
    folder: Path, cluster: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A signal while both workers train and a third task waits; resumed without Ray."""
    Path("three.yaml").write_text(YAML.replace("EPOCHS", "40") + "seeds: [0, 1, 2]\n")
    monkeypatch.setattr("resnet_cli.run.ray_executor.SAVE_SECONDS", 120.0)  # on a busy machine

    def stop() -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            if len(owners(folder)) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.02)

    cluster()
    watcher = threading.Thread(target=stop)
    watcher.start()
    assert run_command(["run", "three.yaml", "--executor", "ray"]) == 130
    watcher.join()
    error = capsys.readouterr().err
    assert "stopped with 3 of 3 tasks left" in error
    assert "not saved" not in error
    assert len({path.parent for path in Path("runs").glob("*/checkpoint*")}) == 2
    assert runs() == set()
    assert run_command(["run", "three.yaml"]) == 0
    made = Path("results/local/three/mini")
    made.rename("resumed")
    Path("runs").rename("runs-resumed")
    assert run_command(["run", "three.yaml"]) == 0
    assert_same_results(made, Path("resumed"))


def test_a_failure_on_ray_stops_one_experiment_alone(
    folder: Path, cluster: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """The worker of one is killed each time, the data of another are missing; the third runs."""
    monkeypatch.setenv("RESNET_CLI_DATA", str(folder / "nothing"))
    Path("lost.yaml").write_text(YAML.replace("EPOCHS", "40"))
    Path("good.yaml").write_text(YAML.replace("EPOCHS", "1"))
    Path("cifar.yaml").write_text(
        YAML.replace("EPOCHS", "1").replace("data: {", "data: {dataset: cifar10, ")
    )
    doomed = folder / "runs" / load_experiment("lost.yaml").runs()[0][1].folder
    killed: set[int] = set()
    is_over = threading.Event()

    def kill_each() -> None:
        while not is_over.wait(0.02):
            try:
                pid = json.loads((doomed / ".owner.json").read_text())["pid"]
            except (OSError, ValueError):
                continue
            if pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    monkeypatch.setattr("resnet_cli.run.ray_executor.RETRIES", 1)
    cluster()
    killer = threading.Thread(target=kill_each)
    killer.start()
    try:
        names = ["lost.yaml", "cifar.yaml", "good.yaml"]
        assert run_command(["run", *names, "--executor", "ray", "--ray-cpus", "2", "--json"]) == 1
    finally:
        is_over.set()
        killer.join()
    assert len(killed) == 2
    captured = capsys.readouterr()
    failed = json.loads(captured.out.splitlines()[-1])["failed"]  # Ray itself prints before
    assert set(failed) == {"lost", "cifar"}
    assert "its worker was lost" in failed["lost"]
    assert "CIFAR-10 not found" in failed["cifar"]
    assert captured.err.count("resnet-cli: ") == 1
    assert "Traceback" not in captured.err
    assert Path("results/local/good/mini/table.csv").is_file()
    assert not Path("results/local/lost").exists()
    (trained,) = Path("runs").glob("*/training.csv")
    assert torch.get_num_threads() == 1
    assert read_provenance(trained)["platform"]["threads"] == 2
