"""ImageNet networks: torchvision's where it has them, the released pre-activation ones else."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.factory import build
from resnet_cli.weights.third_party import load_third_party

PROJECTION_NORMS = 2 * (256 + 512 + 1024 + 2048)
"""Parameters of the batch norms after torchvision's four projections."""
UNIT_AT_28 = 512 * 128 + 128 * 128 * 9 + 128 * 512 + 2 * (512 + 128 + 128)
"""Parameters of a pre-activation unit of stage 2 that changes no shape."""


def config(depth: int, **fields: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {"depth": depth, "branch": "bottleneck", "stem": "imagenet", **fields}
    )


def scatter(module: nn.Module) -> None:
    """Batch norms that are not the identity, and activations that stay moderate."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.weight, 0.3, 0.7),
                (norm.bias, -0.2, 0.2),
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)


def images(size: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("depth", "size"), [(50, 224), (101, 64), (152, 64)])
def test_original_networks_are_torchvisions(depth: int, size: int, tmp_path: Path) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")()
    scatter(theirs)
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    loaded = load_third_party(tmp_path / "weights.pt")
    ours, found, classes = loaded.network, loaded.model, loaded.num_classes
    assert found == config(depth, placement="original")
    assert classes == 1000
    with torch.no_grad():
        expected = theirs.eval()(images(size))
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(images(size)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (50, 25_557_032 - PROJECTION_NORMS),
        (101, 44_549_160 - PROJECTION_NORMS),
        (152, 60_192_808 - PROJECTION_NORMS),
        (200, 60_192_808 - PROJECTION_NORMS + 16 * UNIT_AT_28),
    ],
)
def test_preactivation_networks_have_torchvisions_sizes_but_for_the_projections_norms(
    depth: int, expected: int
) -> None:
    """A unit's last BN becomes the next one's first; after the last unit stands one of its own."""
    with torch.device("meta"):
        network = build(config(depth), 1000)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_resnet200_is_resnet152_with_16_more_units_at_28() -> None:
    assert config(152).stage_units() == (3, 8, 36, 3)
    assert config(200).stage_units() == (3, 24, 36, 3)
    with torch.device("meta"):
        places = build(config(200), 1000).places
    assert [place.out_channels for place in places].count(512) == 24
    assert [place.stride for place in places if place.number == 1] == [1, 2, 2, 2]


def test_the_first_preactivation_unit_takes_its_activation_from_the_stem() -> None:
    """The released network, written out: no activation after max pooling, shared ones at the
    other changes of shape, projections without batch norm, one activation before pooling.
    """
    network = build(config(23, units=(2, 2, 1, 2), widths=(4, 8, 8, 16)), 7).double().eval()
    scatter(network)
    convs = iter([m for m in network.modules() if isinstance(m, nn.Conv2d)])
    x = images(64, 2).double()

    def take(x: Tensor, stride: int = 1) -> Tensor:
        weight = next(convs).weight
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)

    def activate(norm: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - scale * norm.running_mean
        return (x * scale[:, None, None] + shift[:, None, None]).relu()

    norms = iter([m for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    found = network(x)
    x = functional.max_pool2d(activate(next(norms), take(x, 2)), 3, 2, 1)
    for stage, count in enumerate((2, 2, 1, 2), 1):
        for number in range(count):
            stride = 2 if stage > 1 and number == 0 else 1
            # As the modules are listed: shared activation, projection, then the branch.
            shared = activate(next(norms), x) if number == 0 and stage > 1 else x
            shortcut = take(shared, stride) if number == 0 else x
            inner = shared if number == 0 else activate(next(norms), x)
            inner = activate(next(norms), take(inner))
            inner = activate(next(norms), take(inner, stride))
            x = shortcut + take(inner)
    x = activate(next(norms), x).mean((2, 3))
    assert not list(convs)
    assert not list(norms)
    torch.testing.assert_close(found, network.head.fc(x))


@pytest.mark.parametrize("placement", ["full_preactivation", "relu_only_preactivation"])
def test_basic_units_begin_with_a_convolution_as_well(placement: Any) -> None:
    first = build(config(18, branch="basic", placement=placement), 7).unit_list[0]
    assert isinstance(first.pre, nn.Identity)
    assert isinstance(first.F[0], nn.Conv2d)


def test_a_cifar_network_keeps_its_first_activation() -> None:
    first = build(ModelConfig(depth=8), 7).unit_list[0]
    assert [type(m) for m in first.pre] == [nn.BatchNorm2d, nn.ReLU]
