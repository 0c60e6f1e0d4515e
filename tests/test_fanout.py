"""Shards are disjoint, complete and idempotent; Ray gives what the serial run gives, also when a
worker is killed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pandas
import pytest
import torch

from resnet_cli.cli import run_command
from resnet_cli.config import load_experiment
from resnet_cli.context import Context
from resnet_cli.errors import UserError
from resnet_cli.fanout import distinct_trainings, parse_shard, shard_of
from resnet_cli.results.tables import read_provenance, read_table

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


# --- Ray -----------------------------------------------------------------------------------------

TIMES = ["images_per_second", "seconds"]


def without_times(path: Path) -> pandas.DataFrame:
    return read_table(path).drop(columns=TIMES)


def test_ray_gives_what_the_serial_run_gives_though_a_worker_is_killed(
    folder: Path, capsys: Captured
) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra: pip install 'resnet-cli[ray]'")
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


def test_bad_input_on_ray_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra: pip install 'resnet-cli[ray]'")
    monkeypatch.setenv("RESNET_CLI_DATA", str(folder))
    Path("four.yaml").write_text(YAML.replace("EPOCHS", "1") + "data: {dataset: cifar10}\n")
    text = Path("four.yaml").read_text().replace("data: {train_images: 128, test_images: 20}\n", "")
    Path("four.yaml").write_text(text)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        assert run_command(["run", "four.yaml", "--executor", "ray"]) == 2
    finally:
        ray.shutdown()
    error = capsys.readouterr().err.splitlines()
    assert "CIFAR-10 not found" in error[-1]
    assert error[-1].startswith("resnet-cli: four: a, seed 0: ")


def test_ray_that_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert run_command(["run", "four.yaml", "--executor", "ray"]) == 2
    assert "pip install 'resnet-cli[ray]'" in capsys.readouterr().err
