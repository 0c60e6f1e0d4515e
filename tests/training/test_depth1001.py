"""Depth 1001: units recomputed in the backward pass, with equal gradients and less memory."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.datasets.split import Split
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.training import loop
from resnet_cli.training.loop import Trainer


def network_of(depth: int, **fields: Any) -> Network:
    return build(
        ModelConfig.model_validate({"depth": depth, "branch": "bottleneck", **fields}), 10, seed=0
    ).train()


def batch(count: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, size, size, generator=generator)
    return images, torch.arange(count) % 10


def step(network: Network, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """One forward and backward pass: the loss, every gradient, every statistic."""
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    found = {"loss": loss.detach()}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        found[f"gradient of {name}"] = parameter.grad.clone()
    return found | {name: tensor.clone() for name, tensor in network.named_buffers()}


@pytest.mark.parametrize(
    "fields",
    [
        {"depth": 56, "placement": "full_preactivation"},
        {"depth": 56, "placement": "original"},
        {"depth": 10, "family": "vgg", "branch": "basic", "widths": (4, 8, 8, 8, 8)},
    ],
)
def test_recomputing_gives_the_same_gradients_and_statistics(fields: dict[str, Any]) -> None:
    found = []
    for recompute in (False, True):
        network = network_of(**fields)
        network.checkpoint_units = recompute
        found.append(step(network, *batch(4, 16)))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_recomputing_counts_a_batch_into_the_statistics_once() -> None:
    """By hand: the first batch norm sees the stem's output, and only once."""
    network = network_of(29)
    network.checkpoint_units = True
    images, labels = batch(4, 16)
    stem = network.stem(images).detach()
    step(network, images, labels)
    norm = network.unit_list[0].pre[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.1
    expected = 0.1 * stem.mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected)
    variance = 0.9 + 0.1 * stem.transpose(0, 1).flatten(1).var(1)
    torch.testing.assert_close(norm.running_var, variance)


def test_recomputing_runs_each_branch_twice_and_keeps_unit_inputs_only() -> None:
    """What autograd holds between forward and backward, counted in bytes."""
    held = {}
    for recompute in (False, True):
        network = network_of(56)
        network.checkpoint_units = recompute
        blocks: dict[int, int] = {}

        def count(tensor: Tensor, blocks: dict[int, int] = blocks) -> Tensor:
            storage = tensor.untyped_storage()
            blocks[storage.data_ptr()] = storage.nbytes()
            return tensor

        runs: list[nn.Module] = []
        for unit in network.unit_list:
            unit.F.register_forward_pre_hook(lambda module, _, runs=runs: runs.append(module))
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = functional.cross_entropy(network(batch(4, 16)[0]), batch(4, 16)[1])
        held[recompute] = sum(blocks.values())
        loss.backward()
        assert len(runs) == (2 if recompute else 1) * len(network.units)
    assert held[True] < held[False] / 2


def test_resnet1001_takes_a_step() -> None:
    network = network_of(1001)
    network.checkpoint_units = True
    assert len(network.units) == 333
    found = step(network, *batch(2, 16))
    assert 1 < float(found["loss"]) < 10
    assert all(bool(value.isfinite().all()) for value in found.values())
    first = found["gradient of units.0.F.0.weight"]
    assert first.abs().max() > 0  # the signal arrives 332 units before the loss


@pytest.mark.parametrize("recompute", [False, True])
def test_large_blocks_are_returned_only_when_units_are_recomputed(
    recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(loop, "return_large_blocks", lambda: told.append(True))
    run = RunConfig(
        model=ModelConfig(depth=8),
        data=DataConfig(),
        train=TrainConfig(iterations=1, batch_size=4, checkpoint_units=recompute),
        seed=0,
    )
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    split = Split("fake", "train", images, torch.arange(4), tuple("0123456789"), "made up")
    batches = split.batches(parse_normalization("none", lambda: split))
    Trainer(run, build(run.model, 10, 0), batches, batches)
    assert told == [True] * recompute
