"""What the tests of data sets share."""

import dataclasses
from pathlib import Path

import pytest

from resnet_cli.datasets import cifar


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test finds a data set by accident: neither in ./data nor by the environment."""
    (tmp_path / "working_folder").mkdir()
    monkeypatch.chdir(tmp_path / "working_folder")
    monkeypatch.delenv("RESNET_CLI_DATA", raising=False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR with four training and two test images of each of 10 classes, or two and one of 100."""
    for name, counts in (
        ("CIFAR10", {"train": 40, "test": 20}),
        ("CIFAR100", {"train": 200, "test": 100}),
    ):
        monkeypatch.setattr(cifar, name, dataclasses.replace(getattr(cifar, name), counts=counts))
