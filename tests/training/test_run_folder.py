"""The images are part of a run's identity: in commands, checkpoints, folders and studies."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_files import encode, pictures, write_image, write_parquet

from resnet_cli.cli import run_command
from resnet_cli.config.registry import DATASETS
from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import catalogue, cifar
from resnet_cli.results.layout import CHECKPOINT_FILE, RUN_FILE
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.runtime.errors import UserError
from resnet_cli.training.checkpoint import Position, load_checkpoint, save_checkpoint
from resnet_cli.training.context import Context

COUNTS = {"train": 40, "test": 20}
SETTINGS = {
    "imagefolder": "{dataset: imagefolder, image_size: 16, pad: 2, augment: crop}",
    "cifar10": "{dataset: cifar10, pad: 2}",
}
EXPERIMENT = """
title: t
model: {{depth: 8, widths: [4, 4, 8]}}
data: {data}
train: {{iterations: {iterations}, batch_size: 8, lr: 0.1, warmup_iterations: 0}}
"""


def class_folders_of_noise(root: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for split in ("train", "val"):
        for name in "ab":
            for number in range(8):
                pixels = generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)
                write_image(root / split / name / f"{number}.png", pixels)


def parquet_of_noise(root: Path, seed: int) -> None:
    for split, count in COUNTS.items():
        encoded: list[bytes | None] = [encode(image) for image in pictures(count, seed=seed)]
        file = root / f"{split}-00000-of-00001.parquet"
        write_parquet(file, encoded, [i % 10 for i in range(count)])


@pytest.fixture(params=sorted(SETTINGS))
def dataset(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set of which folders A and B have other images; the working folder has an
    experiment on it."""
    small = dataclasses.replace(cifar.CIFAR10, counts=COUNTS, digests={})
    monkeypatch.setattr(cifar, "CIFAR10", small)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESNET_CLI_DATA", raising=False)
    write = {"imagefolder": class_folders_of_noise, "cifar10": parquet_of_noise}[request.param]
    for name, seed in (("A", 1), ("B", 2)):
        write(tmp_path / name, seed)
    write_experiment(request.param)
    return request.param  # type: ignore[no-any-return]


def write_experiment(dataset: str, iterations: int = 4, study: str = "") -> None:
    text = EXPERIMENT.format(data=SETTINGS[dataset], iterations=iterations)
    Path("x.yaml").write_text(text + study)


def run_folders() -> list[Path]:
    return sorted(path.parent for path in Path("runs").glob(f"*/{RUN_FILE}"))


def train(*arguments: str) -> int:
    return run_command(["train", "x.yaml", *arguments])


def test_the_same_configuration_on_other_data_is_a_second_run(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--data-dir", "A", "--out", "outA") == 0
    capsys.readouterr()
    assert train("--data-dir", "B", "--out", "outB") == 0
    said = capsys.readouterr()
    assert "already trained" not in said.out + said.err
    first, second = run_folders()
    data = {name: read_provenance(Path(name) / "table.csv")["data"] for name in ("outA", "outB")}
    train_split = f"{dataset}/train"
    assert data["outA"][train_split] != data["outB"][train_split]
    assert second.name == f"{first.name}-{data['outB'][train_split][:10]}"
    curves = [read_table(Path(name) / "training.csv")["train_loss"] for name in ("outA", "outB")]
    assert curves[0].tolist() != curves[1].tolist()
    # Each is found again by its data, and the first by its configuration alone.
    for arguments, folder in ((["A"], first), (["B"], second)):
        assert train("--data-dir", *arguments) == 0
        assert f"already trained ({folder})" in capsys.readouterr().out
    assert run_folders() == [first, second]


def test_a_finished_run_needs_no_data(
    dataset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--data-dir", "A") == 0

    def unread(*arguments: Any, **options: Any) -> None:
        raise AssertionError("data were read")

    entry = type(catalogue.dataset(dataset))
    with monkeypatch.context() as patch:
        if dataset != "imagefolder":  # its folder may be the default one
            patch.setattr(entry, "read", unread)
        assert train() == 0
        assert train("--data-dir", "nowhere") == 0 if dataset == "imagefolder" else True
    assert "already trained" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_checkpoint_of_other_data_is_not_resumed(
    dataset: str, by: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_experiment(dataset, iterations=300)
    assert train("--data-dir", "A", "--budget", "1s") == 130
    (checkpoint,) = Path("runs").glob(f"*/{CHECKPOINT_FILE}")
    before = checkpoint.read_bytes()
    capsys.readouterr()
    arguments = ["--budget", "1s"]
    if by == "option":
        arguments += ["--data-dir", "B"]
    else:
        monkeypatch.setenv("RESNET_CLI_DATA", "B")
    assert train(*arguments) == 130
    said = capsys.readouterr()
    assert "resuming" not in said.out + said.err
    assert f"{checkpoint.parent} is for different images" in said.out
    assert checkpoint.read_bytes() == before
    folders = sorted(path.parent.name for path in Path("runs").glob(f"*/{CHECKPOINT_FILE}"))
    assert len(folders) == 2
    assert folders[1].startswith(f"{folders[0]}-")
    assert train("--data-dir", "A", "--budget", "1s") in (0, 130)
    assert f"resuming {checkpoint.parent} at iteration" in capsys.readouterr().out


def test_a_checkpoint_moved_to_other_data_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "ab" * 32, Position(3), {"model.w": torch.ones(2)}, "11" * 32)
    assert load_checkpoint(tmp_path, "ab" * 32, "11" * 32) is not None
    with pytest.raises(UserError, match=r"different images \(fingerprint 1111.*not 2222"):
        load_checkpoint(tmp_path, "ab" * 32, "22" * 32)
    # Those of the first edition record no images.
    save_checkpoint(tmp_path, "ab" * 32, Position(3), {"model.w": torch.ones(2)})
    assert load_checkpoint(tmp_path, "ab" * 32, "22" * 32) is not None


def test_a_study_measures_the_network_of_its_data(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_experiment(dataset, study="study: {kind: delete, k: 1}\n")
    tables = {}
    for name in ("A", "B"):
        assert run_command(["run", "x.yaml", "--data-dir", name, "--out", "out"]) == 0
        (path,) = Path("out").glob("lesion_delete.csv")
        tables[name] = read_provenance(path)
    assert tables["A"]["checkpoint"]["sha256"] != tables["B"]["checkpoint"]["sha256"]
    assert tables["A"]["data"] != tables["B"]["data"]
    assert len(run_folders()) == 2


def test_a_finished_table_of_other_test_images_is_measured_anew(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--data-dir", "A") == 0
    (folder,) = run_folders()
    capsys.readouterr()

    def lesion(*arguments: str) -> dict[str, Any]:
        command = ["lesion", "--checkpoint", str(folder), "--blocks", "1", "--out", "out"]
        assert run_command([*command, "--json", *arguments]) == 0
        said = capsys.readouterr()
        assert ("are not those of the training" in said.err) == ("B" in arguments)
        return json.loads(said.out)  # type: ignore[no-any-return]

    table = Path("out/lesion_delete.csv")
    lesion("--data-dir", "A")
    first = read_provenance(table)["data"]
    written = table.stat().st_mtime_ns
    lesion("--data-dir", "A")
    assert table.stat().st_mtime_ns == written
    lesion("--data-dir", "B")
    assert read_provenance(table)["data"] != first


def test_images_that_nobody_names_are_not_read(dataset: str) -> None:
    data = DataConfig(dataset=dataset)
    assert Context(torch.device("cpu"), data_dir=Path("nowhere")).fingerprint(data, "train") is None
    assert Context(torch.device("cpu")).fingerprint(data, "train") is None
    assert Context(torch.device("cpu")).fingerprint(DataConfig(), "train") is None
    context = Context(torch.device("cpu"))
    found = context.split(DataConfig(), "train").fingerprint
    assert context.fingerprint(DataConfig(), "train") == found
    assert set(SETTINGS) < set(DATASETS)
