"""Signals by unit against plain recomputation, and against the closed form of equation (8)."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from resnet_cli.cli import run_command
from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.units import ResidualUnit
from resnet_cli.results.tables import column_names, is_pair, read_table
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.signal import closed_form_deviation, measure_signal

Captured = pytest.CaptureFixture[str]
DEPTH = 20
UNITS = 9
SCALED = {"shortcut": "scaling", "shortcut_scale": 0.5}


def make(**model: Any) -> Network:
    config = ModelConfig(**({"depth": DEPTH, "widths": (4, 6, 8), "placement": "original"} | model))
    return build(config, 10, seed=3)


def batch(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 8, 8, generator=generator)
    return images, torch.arange(count) % 10


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"placement": "full_preactivation"},
        SCALED,
        {"shortcut": "shortcut_only_gating", "gate_bias": -1.0},
        {"shortcut": "exclusive_gating", "gate_bias": 0.0},
        {"shortcut": "convolution"},
    ],
    ids=lambda model: model.get("shortcut") or model.get("placement") or "original",
)
def test_norms_are_those_of_one_plain_backward_pass(model: dict[str, Any]) -> None:
    network = make(**model)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = batch()
    rows = measure_signal(network, images, labels)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed"
    network.train()
    points = [network.stem(images)]
    for unit in network.unit_list:
        points.append(unit(points[-1]))
    for point in points:
        point.retain_grad()
    functional.cross_entropy(network.head(points[-1]), labels, reduction="sum").backward()
    assert [row["unit"] for row in rows] == list(range(UNITS + 1))
    for row, point in zip(rows, points, strict=True):
        assert point.grad is not None
        for column, value in (("activation_norm", point), ("gradient_norm", point.grad)):
            by_image = value.detach().double().flatten(1).norm(dim=1)
            expected = math.sqrt(float(by_image.square().mean()))
            assert row[column] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("scale", "residual"), [(0.5, 1.0), (0.5, 0.5), (1.5, 1.0), (1.0, 0.5)])
def test_constant_scaling_is_the_closed_form(scale: float, residual: float) -> None:
    network = make(shortcut="scaling", shortcut_scale=scale, residual_scale=residual)
    rows = measure_signal(network, *batch())
    for index, row in enumerate(rows):
        assert row["shortcut_product"] == pytest.approx(scale ** (UNITS - index), rel=1e-12)
    # Inside a stage nothing else stands on the shortcut: lambda to the number of units.
    for first, last in ((1, 3), (4, 6), (7, 9)):
        ratio = rows[first]["shortcut_gain"] / rows[last]["shortcut_gain"]
        assert ratio == pytest.approx(scale ** (last - first), rel=1e-6)
    deviation = closed_form_deviation(network, rows)
    assert deviation is not None
    assert deviation < 1e-6


def test_the_check_can_fail() -> None:
    network = make(**SCALED)
    rows = measure_signal(network, *batch())
    rows[2]["shortcut_gain"] *= 1.01
    deviation = closed_form_deviation(network, rows)
    assert deviation == pytest.approx(0.01, rel=0.02)


def test_a_shortcut_that_carries_nothing() -> None:
    rows = measure_signal(make(shortcut="scaling", shortcut_scale=0.0), *batch())
    assert [row["shortcut_gain"] for row in rows] == [0.0] * UNITS + [1.0]
    assert all(row["gradient_norm"] > 0 for row in rows)


def test_the_gain_of_deep_networks_is_no_float32() -> None:
    network = make(depth=602, widths=(2, 2, 2), shortcut="scaling", shortcut_scale=0.5)
    rows = measure_signal(network, *batch(2))
    assert len(rows) == 301
    inside = rows[1]["shortcut_gain"] / rows[100]["shortcut_gain"]
    assert inside == pytest.approx(0.5**99, rel=1e-6)
    assert 0 < rows[0]["shortcut_gain"] < 1e-88


def test_gates_count_by_their_mean() -> None:
    network = make(shortcut="shortcut_only_gating", gate_bias=-2.0)
    images, labels = batch()
    for unit in network.unit_list:  # gates that do not look at their input are constant scales
        assert isinstance(unit, ResidualUnit)
        assert unit.gate is not None
        nn.init.zeros_(unit.gate.conv.weight)
    rows = measure_signal(network, images, labels)
    open_ = 1 - 1 / (1 + math.exp(2.0))
    for row in rows[:-1]:
        assert row["shortcut_factor"] == pytest.approx(open_, rel=1e-6)
    ratio = rows[1]["shortcut_gain"] / rows[3]["shortcut_gain"]
    assert ratio == pytest.approx(open_**2, rel=1e-5)
    assert closed_form_deviation(network, rows) is None


def test_a_convolution_has_no_scalar_factor() -> None:
    rows = measure_signal(make(shortcut="convolution"), *batch())
    assert rows[3]["shortcut_factor"] == 1.0, "its stage change only fits the shapes"
    assert rows[1]["shortcut_factor"] is None
    assert [row["shortcut_product"] for row in rows] == [None] * UNITS + [1.0]
    assert all(row["shortcut_gain"] > 0 for row in rows)


def test_a_plain_network_is_refused() -> None:
    vgg = build(ModelConfig(family="vgg", depth=15, widths=(4, 4, 4, 4, 4)), 10, seed=0)
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    with pytest.raises(UserError, match=r"a plain network \(VGG\) has no shortcuts"):
        measure_signal(vgg, images, labels)


# --- the command ---------------------------------------------------------------------------------

YAML = """
title: two shortcuts
model: {depth: 8, widths: [2, 4, 8], placement: original}
data: {train_images: 64, test_images: 20}
train: {epochs: 1, batch_size: 64, schedule: one_cycle}
cases:
  - {name: identity}
  - {name: half, model: {shortcut: scaling, shortcut_scale: 0.5}}
"""


def test_an_experiment_untrained_and_then_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(YAML)
    command = ["signal", "two.yaml", "--batch-size", "16", "--out", "s"]
    assert run_command(command) == 0
    assert "shortcuts that are scalars scale the gradient" in capsys.readouterr().out
    assert not Path("runs").exists(), "nothing is trained"
    for case in ("identity", "half"):
        frame = read_table(Path(f"s/{case}/signal.csv"))
        assert tuple(frame.columns) == column_names("signal")
        assert frame["state"].tolist() == ["initial"] * 4
        assert frame["images"].tolist() == [16] * 4
        assert is_pair(Path(f"s/{case}/signal.csv"))
        assert Path(f"s/{case}/signal.png").stat().st_size > 0
    assert Path("s/signal.png").stat().st_size > 0
    untrained = Path("s/half/signal.csv").read_text()
    assert run_command(["train", "two.yaml"]) == 0
    assert run_command(command) == 0
    frame = read_table(Path("s/half/signal.csv"))
    assert frame["state"].tolist() == ["initial"] * 4 + ["trained"] * 4
    assert Path("s/half/signal.csv").read_text().startswith(untrained)
    trained = frame[frame["state"] == "trained"]
    assert not (trained["gradient_norm"].to_numpy() == frame["gradient_norm"][:4].to_numpy()).any()


def test_a_checkpoint_in_both_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["signal", "--checkpoint", "preact56-digits", "--batch-size", "4"]
    assert run_command(command) == 0
    frame = read_table(Path("results/local/signal-preact56-digits-batch4/signal.csv"))
    assert frame.groupby("state").size().to_dict() == {"initial": 28, "trained": 28}
    assert "trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "mini"], "--profile goes with an EXPERIMENT"),
        (["--set", "train.lr=1"], "--set goes with an EXPERIMENT"),
        (["quickstart", "--checkpoint", "x"], "--checkpoint and an EXPERIMENT exclude each other"),
        (["quickstrat"], "did you mean"),
        (["--batch-size", "0"], "batch-size"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: Captured) -> None:
    assert run_command(["signal", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
