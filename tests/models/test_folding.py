"""Folded networks give the same logits, and are what folding says they are."""

import copy

import pytest
import torch
from changed_layers import UNITS, changed_net
from torch import nn

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.factory import build
from resnet_cli.models.folding import folded
from resnet_cli.models.network import Network

NETWORKS = {
    "full": ModelConfig(depth=14, widths=(4, 6, 8)),
    "relu-only": ModelConfig(depth=14, widths=(4, 6, 8), placement="relu_only_preactivation"),
    "original": ModelConfig(depth=14, widths=(4, 6, 8), placement="original"),
    "bn-after": ModelConfig(depth=14, widths=(4, 6, 8), placement="bn_after_addition"),
    "projection": ModelConfig(
        depth=14, widths=(4, 6, 8), placement="original", stage_change="projection"
    ),
    "scaled": ModelConfig(
        depth=14, widths=(4, 6, 8), shortcut="scaling", shortcut_scale=0.5, residual_scale=0.5
    ),
    "convolution": ModelConfig(
        depth=14, widths=(4, 6, 8), placement="original", shortcut="convolution"
    ),
    "bottleneck": ModelConfig(depth=20, widths=(2, 3, 4), branch="bottleneck"),
    "vgg": ModelConfig(family="vgg", depth=15, widths=(4, 4, 4, 4, 4)),
}


def make_network(name: str) -> Network:
    network = build(NETWORKS[name], 10, seed=1)
    generator = torch.Generator().manual_seed(4)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, 0.0, 0.3, generator=generator)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0.0, 0.3, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_logits_are_the_same(name: str) -> None:
    network = make_network(name)
    before = copy.deepcopy(network.state_dict())
    images = torch.randn(4, 3, 32, 32)
    expected = network(images)
    fold = folded(network.train())
    assert network.training, "the network itself is left as it was"
    assert not fold.training
    torch.testing.assert_close(fold(images), expected, rtol=1e-4, atol=1e-4)
    network.eval()
    assert torch.equal(network(images), expected)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    x = network.stem(images)
    for unit, plain in zip(fold.unit_list, network.unit_list, strict=True):
        kept = x.clone()
        torch.testing.assert_close(unit.skip(x), plain.skip(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(unit(x), plain(x), rtol=1e-4, atol=1e-4)
        assert torch.equal(x, kept), "a unit's input is not overwritten"
        x = plain(x)


@pytest.mark.parametrize(("name", "left"), [("original", 0), ("convolution", 0), ("full", 7)])
def test_norms_after_convolutions_are_gone(name: str, left: int) -> None:
    """In a pre-activation unit the first norm stays: it stands before its convolution."""
    fold = folded(make_network(name))
    norms = [module for module in fold.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == left


def test_a_relu_that_stands_first_does_not_work_in_place() -> None:
    """Its input belongs to the shortcut as well."""
    fold = folded(make_network("relu-only"))
    for unit in fold.unit_list:
        assert isinstance(unit.F, nn.Sequential)
        first = next(iter(unit.F))
        assert not (isinstance(first, nn.ReLU) and first.inplace)


@pytest.mark.parametrize("units", UNITS)
@torch.no_grad()
def test_changed_and_shared_layers_compute_the_same(units: str) -> None:
    network = changed_net(units).module
    images = torch.randn(4, 3, 8, 8)
    expected = network(images)
    fold = folded(network)
    torch.testing.assert_close(fold(images), expected, rtol=1e-4, atol=1e-4)
    x = network.stem(images)
    for unit in fold.unit_list:
        kept = x.clone()
        unit.skip(x)
        assert torch.equal(x, kept), "a unit's input is not overwritten"
