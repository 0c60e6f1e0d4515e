"""Examinations: sizes that fit a budget, all studies, resumed with the same sizes, and the page."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torchvision
from layouts import Vgg, fill
from PIL import Image

from resnet_cli.claims.verdict import JUDGED
from resnet_cli.cli.entry import run_command
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.run import examine as examine_module
from resnet_cli.run.examine import LEVELS, Sizes, sizes_for_budget
from resnet_cli.studies.effects import effects
from resnet_cli.studies.influence import influence
from resnet_cli.studies.subject import untrained_subject
from resnet_cli.training.context import Context


def test_sizes_grow_with_the_budget_and_never_exceed_the_images() -> None:
    passes = [level.passes(54) for level in LEVELS]
    assert passes == sorted(passes, reverse=True)
    assert sizes_for_budget(54, 1e-9, 600, 10_000, 50_000) == LEVELS[0]
    smallest = replace(LEVELS[-1], tested=1000)
    assert sizes_for_budget(54, 1.0, 1, 10_000, 50_000) == smallest, "though it takes longer"
    middle = sizes_for_budget(9, 0.002, 600, 10_000)
    assert middle.passes(9) * 0.002 <= 600
    assert sizes_for_budget(9, 1e-9, 600, 360) == Sizes(360, 360, 100, 100, 0, 128, 360)
    assert sizes_for_budget(16, 0.1, 600, 50_000).tested == 1200, "a fifth of the budget"
    assert sizes_for_budget(16, 1.0, 600, 50_000).tested == 1000
    assert sizes_for_budget(9, 1e-9, 600, 360, 1437).recalibration == LEVELS[0].recalibration
    assert sizes_for_budget(9, 1e-9, 600, 360, 730).recalibration == 700, "whole batches"
    assert sizes_for_budget(9, 1e-9, 600, 360, 70).recalibration == 70


def run(*arguments: str) -> int:
    return run_command(list(arguments))


def read_summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_one_network_is_examined_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examine_module, "LEVELS", (Sizes(40, 10, 1, 1, 40, 8),))
    command = ("examine", "preact56-digits", "--images", "40", "--budget", "1s", "--out", "out")
    assert run(*command, "--json") == 0
    summary = read_summary(capsys)
    (network,) = summary["networks"]
    assert network["images"] == 40
    assert {f["verdict"] for f in network["findings"]} <= set(JUDGED) | {"too few draws"}
    assert len(network["findings"]) == 6
    names = {"deletion", "influence", "deletions", "reordering", "paths", "signal"}
    assert {path.name for path in Path("out").iterdir() if path.is_dir()} == names
    page = Path("out/examine.html").read_text()
    assert page.count("data:image/png;base64,") == 8
    assert Path("out/deletion/lesion_delete_recalibrated.csv").exists()
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "the page needs no other file"
    assert all(finding["evidence"] in page for finding in network["findings"][:1])

    tables = {path: path.read_bytes() for path in Path("out").rglob("*.csv")}
    plan = Path("out/examine.json").read_bytes()
    monkeypatch.setattr("resnet_cli.studies.runner.draw", lambda *arguments: [])  # takes seconds
    assert run(*command, "--json") == 0
    assert {path: path.read_bytes() for path in Path("out").rglob("*.csv")} == tables
    assert Path("out/examine.json").read_bytes() == plan


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["preact56-digits", "preact56-digits"], "given twice"),
        (["a", "b", "c"], "3 checkpoints"),
        (["no-such-network"], "no-such-network"),
        (["preact56-digits", "--budget", "soon"], "--budget 'soon'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("examine", *arguments) == 2
    assert fault in capsys.readouterr().err


def test_without_training_images_gradients_are_of_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image folder that has `val` only, and a small Vision Transformer, which has no batch
    norms."""
    for label in range(10):
        folder = tmp_path / "images" / "val" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(2):
            pixels = numpy.random.default_rng(10 * label + number).integers(0, 255, (32, 32, 3))
            Image.fromarray(pixels.astype(numpy.uint8)).save(folder / f"{number}.png")
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(224, 112, 2, 2, 16, 24, num_classes=10)
    torch.nn.init.normal_(vit.heads.head.weight)
    torch.save(vit.state_dict(), tmp_path / "vit.pt")
    monkeypatch.setattr(examine_module, "LEVELS", (Sizes(20, 10, 2, 1, 40, 4),))
    monkeypatch.chdir(tmp_path)
    command = ("examine", "vit.pt", "--model", "attention_heads=2", "--dataset", "imagefolder")
    assert run(*command, "--data-dir", "images", "--out", "out", "--json") == 0
    (network,) = read_summary(capsys)["networks"]
    assert network["sizes"]["recalibration"] == 0
    damage = [f["verdict"] for f in network["findings"][:2]]
    assert damage == ["not trained long enough"] * 2, "it guesses"
    provenance = json.loads(Path("out/paths/path_spectrum.provenance.json").read_text())
    assert list(provenance["data"]) == ["imagefolder/test"]


def test_a_plain_network_has_neither_paths_nor_signals() -> None:
    run_config = RunConfig(
        model=ModelConfig(family="vgg", depth=10, widths=(4, 4, 4, 4, 4)),
        data=DataConfig(dataset="digits", test_images=8, train_images=8),
        train=TrainConfig(epochs=1),
        seed=0,
    )
    subject = untrained_subject(Context(torch.device("cpu")), run_config)
    names = {name for name, _, _ in examine_module.studies(subject, LEVELS[-1])}
    assert names == {"deletion", "influence", "deletions"}, "no two layers have one shape"
    batches = subject.batches("test")
    scores = influence(subject.loaded.network, batches, (1,))
    assert len(scores) == subject.num_units
    assert len(effects(subject.loaded.network, batches)) == 9 * 8 / 2


def test_a_third_party_plain_network_gets_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examine_module, "LEVELS", (Sizes(40, 10, 1, 1, 40, 8),))
    torch.save(fill(Vgg()).state_dict(), "vgg.pt")
    command = ("examine", "vgg.pt", "--model", "last_pool=max", "--dataset", "digits")
    assert run(*command, "--images", "40", "--budget", "5s", "--json") == 0
    (network,) = read_summary(capsys)["networks"]
    assert not {"paths", "signal"} & network.keys()
    folder = Path("results/local/examine-vgg-digits-images40-budget5s-last_pool-max")
    assert (folder / "examine.html").exists(), "no result of other options is replaced"
