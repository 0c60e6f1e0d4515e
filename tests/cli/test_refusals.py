"""Bad usage and bad input: one line that says how to fix it, and exit code 2."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_helpers import TRAIN, Captured, refused, run_folder
from PIL import Image

from resnet_cli.cli import run_command
from resnet_cli.config.experiments import load_experiment
from resnet_cli.models.factory import build


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lesion", "--engine", "slow"], "'slow' is not one of 'fast', 'plain'"),
        (
            ["paths", "--exact", "--batch-statistics"],
            "the exact spectrum uses running statistics",
        ),
        *(
            (["paths", "--lengths", *more], f"--lengths and {more[0]} exclude each other")
            for more in (
                ["--k", "2"],
                ["--exact"],
                ["--stages"],
                ["--unit", "0"],
                ["--batch-statistics"],
            )
        ),
    ],
)
def test_studies_refuse(work: Path, arguments: list[str], message: str, capsys: Captured) -> None:
    assert message in refused(arguments, capsys)


def test_a_unit_that_is_not_there_is_refused_before_any_work(
    work: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("resnet_cli.studies.paths.sampled.sample_path_gradients", sample)
    line = refused(["paths", "--unit", "3"], capsys)
    assert line == "unit 3 does not exist; this network has 3 units, 0 to 2"
    with pytest.raises(AssertionError, match="the work began"):
        run_command(["paths", "--unit", "2"])


BAD: dict[str, tuple[list[str], list[str]]] = {
    # name: (arguments, what the line must say)
    "unknown key": (
        [*TRAIN, "--set", "train.lrr=1"],
        ["--set 'train.lrr=1': train.lrr: unknown key 'lrr'; did you mean 'lr'?"],
    ),
    "wrong type": (
        [*TRAIN, "--set", "train.lr=fast"],
        ["--set 'train.lr=fast': train.lr: ", "must be a number (got 'fast')"],
    ),
    "wrong choice": (
        [*TRAIN, "--set", "model.shortcut=none"],
        ["model.shortcut: ", "'identity'", "(got 'none')"],
    ),
    "depth": (
        [*TRAIN, "--set", "model.depth=9"],
        ["model: depth 9 does not fit a network of basic units: depth must be 6n+2", "8 or 14"],
    ),
    "set without =": ([*TRAIN, "--set", "train.lr"], ["--set 'train.lr'", "key.path=value"]),
    "profile": (["train", "--profile", "tiny"], ["--profile", "'tiny'", "'smoke'"]),
    "experiment": (
        ["train", "quickstrat"],
        ["unknown experiment 'quickstrat'; did you mean 'quickstart'? `resnet-cli list` shows all"],
    ),
    "missing yaml": (["run", "none.yaml"], ["none.yaml"]),
    "no experiment": (["run"], ["Missing argument", "resnet-cli run --help"]),
    "command": (["trian"], ["No such command 'trian'", "resnet-cli --help"]),
    "option": ([*TRAIN, "--epochs", "3"], ["--epochs", "resnet-cli train --help"]),
    "option without value": (["train", "--profile"], ["--profile", "requires an argument"]),
    "negative seed": ([*TRAIN, "--seed", "-1"], ["--seed"]),
    "device": ([*TRAIN, "--device", "tpu"], ["--device tpu: use auto, cpu, cuda or cuda:n"]),
    "budget": ([*TRAIN, "--budget", "5x"], ["--budget '5x': write 90s, 150m or 2h"]),
    "more blocks than units": (
        ["lesion", "--blocks", "60"],
        ["60 units cannot be deleted; this network has 3 units, so k is 1 to 3"],
    ),
    "no blocks": (["lesion", "--blocks", "0"], ["--blocks: 0 is not valid"]),
    "blocks no number": (
        ["lesion", "--blocks", "x"],
        ["--blocks: 'x' is not a range; write 3, 1-20 or 1,5,9"],
    ),
    "blocks backwards": (["lesion", "--blocks", "3-1"], ["is backwards; write 1-3"]),
    "only a unit beyond": (
        ["lesion", "--only", "1,3"],
        ["unit 3 does not exist; this network has 3 units, 0 to 2"],
    ),
    "nothing to reorder": (["lesion", "--reorder", "1"], ["no two units", "deeper network"]),
    "exclusive options": (
        ["lesion", "--blocks", "1", "--only", "2"],
        ["--blocks, --only", "exclude each other"],
    ),
    "no samples": (["lesion", "--samples", "0"], ["--samples"]),
    "path too long": (
        ["paths", "--k", "4"],
        ["--k 4: no path has length 4; this network has 3 units, so lengths are 0 to 3"],
    ),
    "no path length": (["paths", "--k", "-1"], ["--k"]),
    "too many images": (
        ["eval", "--images", "2000000000"],
        ["data: test_images: must be less than or equal to 1000000000 (got 2000000000)"],
    ),
    "missing checkpoint": (
        ["eval", "--checkpoint", "none.safetensors"],
        ["--checkpoint none.safetensors: no such file"],
    ),
    "unknown weights": (["eval", "--checkpoint", "resnet9000"], ["'resnet9000'"]),
    "folder without weights": (
        ["lesion", "--checkpoint", "results"],
        ["--checkpoint results: this folder contains no weights.safetensors; give a finished run"],
    ),
    "data set": (["eval", "--dataset", "digit"], ["data set 'digit'; did you mean 'digits'?"]),
    "data set not there": (
        ["eval", "--dataset", "cifar10", "--data-dir", "nowhere"],
        ["CIFAR-10 not found: looked for", "nowhere/cifar-10-batches-py", "--data-dir"],
    ),
    "a user that does not exist": (
        ["eval", "--dataset", "cifar10", "--data-dir", "~nouser/x"],
        ["--data-dir ~nouser/x: unknown user"],
    ),
    "infinitely many epochs": (
        ["train", "quickstart", "--profile", "smoke", "--set", "train.epochs=1e400"],
        ["train.epochs"],
    ),
    "normalisation": (["eval", "--normalize", "imagent"], ["'imagent'", "imagenet"]),
    "data to show": (["data", "cifar"], ["'cifar'", "'cifar10'"]),
    "data to fetch": (["data", "--download"], ["resnet-cli data cifar10 --download"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_one_line_with_the_fix(name: str, work: Path, capsys: Captured) -> None:
    arguments, expected = BAD[name]
    line = refused(arguments, capsys)
    for part in expected:
        assert part in line
    assert len(line) < 700


def test_a_yaml_file_with_an_unknown_key(work: Path, capsys: Captured) -> None:
    Path("mine.yaml").write_text("title: T\nmodel: {depht: 8}\ntrain: {epochs: 1}\n")
    line = refused(["run", "mine.yaml"], capsys)
    assert line.startswith("mine.yaml: model.depht: unknown key 'depht'; did you mean 'depth'?")


def test_a_yaml_file_that_is_no_yaml(work: Path, capsys: Captured) -> None:
    Path("mine.yaml").write_text("title: [T\n")
    assert refused(["run", "mine.yaml"], capsys).startswith("mine.yaml, line 2, column 1: ")


@pytest.mark.parametrize("keep", [0, 50, -1])
def test_a_truncated_checkpoint(keep: int, work: Path, capsys: Captured) -> None:
    folder = run_folder()
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    for arguments in (["eval"], ["eval", "--checkpoint", str(path)], ["paths"]):
        assert refused(arguments, capsys).startswith(f"{folder}: weights.safetensors was changed")


def test_a_checkpoint_in_training_is_no_network(empty: Path, capsys: Captured) -> None:
    assert run_command([*TRAIN, "--budget", "0s"]) == 130
    line = refused(["eval", "--checkpoint", str(run_folder())], capsys)
    assert "this folder contains no weights.safetensors" in line
    line = refused(["eval", "--checkpoint", str(run_folder() / "checkpoint.safetensors")], capsys)
    assert "give the run's weights.safetensors" in line


def test_a_state_dict_that_fits_no_network(work: Path, capsys: Captured) -> None:
    torch.save({"layer.weight": torch.ones(3)}, "foreign.pth")
    assert "foreign.pth" in refused(["eval", "--checkpoint", "foreign.pth"], capsys)


def test_a_checkpoint_whose_classes_are_not_the_data_sets(work: Path, capsys: Captured) -> None:
    for split, name in itertools.product(("train", "val"), ("cat", "dog", "owl")):
        folder = Path("animals") / split / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 40), (number * 90, 10, 200)).save(folder / f"{number}.png")
    line = refused(["eval", "--dataset", "imagefolder", "--data-dir", "animals"], capsys)
    assert f"{run_folder()} has 10 classes, but imagefolder has 3" in line
    assert "--dataset" in line


def test_weights_of_others_that_name_no_data_set(work: Path, capsys: Captured) -> None:
    network = build(load_experiment("quickstart", "smoke", (), None).model, 7, 0)
    torch.save(network.state_dict(), "seven.pth")
    line = refused(["eval", "--checkpoint", "seven.pth"], capsys)
    assert "seven.pth" in line


def test_a_data_folder_with_a_file_missing(work: Path, capsys: Captured) -> None:
    folder = Path("mydata/cifar-10-batches-py")
    folder.mkdir(parents=True)
    (folder / "batches.meta").write_bytes(b"")
    line = refused(["eval", "--dataset", "cifar10", "--data-dir", "mydata"], capsys)
    assert str(folder) in line
    assert "data_batch_1: missing" in line
    assert "resnet-cli data cifar10 --download" in line


def test_a_file_in_place_of_the_folder_for_results(work: Path, capsys: Captured) -> None:
    Path("taken").write_text("a file")
    for arguments in (TRAIN, ["lesion"], ["paths", "--k", "1"], ["paths", "--lengths"]):
        assert refused([*arguments, "--out", "taken"], capsys) == (
            "taken: cannot be written: there is a file where its folder should be; move it or "
            "choose another folder with --out"
        )


WORKING = {
    "train": [*TRAIN, "--out"],
    "run": ["run", "quickstart", "--profile", "smoke", "--out"],
    "reproduce": ["reproduce", "he2016", "--profile", "smoke", "--results"],
    "lesion": ["lesion", "--out"],
    "paths": ["paths", "--out"],
    "signal": ["signal", "--out"],
    "signal of an experiment": ["signal", "quickstart", "--profile", "smoke", "--out"],
    "bench": ["bench", "--small", "--out"],
}


@pytest.mark.parametrize("command", WORKING)
def test_no_work_begins_for_a_folder_that_takes_no_results(
    command: str, empty: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the work began")

    for name in (
        "run.executors.run_experiment",
        "run.experiment.study_experiment",
        "studies.runner.run_study",
    ):
        monkeypatch.setattr(f"resnet_cli.{name}", work)
    monkeypatch.setattr("resnet_cli.bench.run.run_benchmarks", work)
    Path("taken").write_text("a file")
    Path("nowhere").symlink_to("gone/away")
    for folder in ("taken", "taken/below/it", "nowhere", "x" * 300, "/proc/results"):
        line = refused([*WORKING[command], folder], capsys)
        assert "cannot be written: " in line
        assert line.endswith(f"choose another folder with {WORKING[command][-1]}")
    with pytest.raises(AssertionError, match="the work began"):  # a folder that can be made
        run_command([*WORKING[command], "new/folder"])
    assert not Path("new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_for_results_that_takes_no_files(work: Path, capsys: Captured) -> None:
    Path("locked").mkdir(mode=0o500)
    line = refused(["lesion", "--out", "locked"], capsys)
    assert "no permission to write there; choose another folder with --out" in line


@pytest.mark.parametrize("length", [300, 5000])
@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--checkpoint"],
        ["eval", "--dataset", "cifar10", "--data-dir"],
        ["run"],
        ["show"],
        ["compare", "he2016", "--results"],
        ["data", "--data-dir"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_a_name_too_long_for_the_file_system(
    arguments: list[str], suffix: str, length: int, work: Path, capsys: Captured
) -> None:
    line = refused([*arguments, "x" * length + suffix], capsys)
    assert "xxx" in line
    assert len(line) < 700
