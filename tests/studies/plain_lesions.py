"""What the tests of lesions share: a small network, images, and a forward pass from the parts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resnet_cli.bench import plain
from resnet_cli.config.schema import ModelConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.datasets.split import Split
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.units import ResidualUnit
from resnet_cli.studies.base import Row
from resnet_cli.studies.lesion import Lesion, evaluate_lesions, lesion_rows


def make_network(placement: str = "full_preactivation") -> Network:
    """Six units; 2 and 4 change the shape. Every unit's deletion changes some predictions."""
    config = ModelConfig.model_validate(
        {"depth": 14, "units": (2, 2, 2), "widths": (4, 6, 8), "placement": placement}
    )
    network = build(config, 5, seed=3).eval()
    generator = torch.Generator().manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean = torch.randn(norm.num_features, generator=generator) * 0.3
            norm.running_var = torch.rand(norm.num_features, generator=generator) + 0.5
    with torch.no_grad():  # or all images would fall into one class, whatever is deleted
        logits = network(torch.randn(200, 3, 8, 8, generator=generator))
        network.head.fc.bias -= logits.mean(0)  # type: ignore[union-attr, operator]
    return network


def make_batches(count: int = 40, seed: int = 2) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(5, (count,), generator=generator)
    normalization = Normalization(torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25))
    return Batches(Split("tiny", "test", pixels, labels, tuple("abcde"), "made"), normalization)


@torch.no_grad()
def plain_logits(network: Network, images: Tensor, deleted: list[int]) -> Tensor:
    """The forward pass with some residual branches left out, written from the parts of a unit."""
    return plain.forward(network, images, deleted)


def silence(network: Network, units: list[int]) -> None:
    """Make F zero in these units, so that deleting them changes nothing."""
    for index in units:
        unit = network.units[index]
        assert isinstance(unit, ResidualUnit)
        last = [module for module in unit.F if isinstance(module, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)


def measured(
    network: Network, batches: Batches, lesions: Sequence[Lesion], seed: int = 0
) -> list[Row]:
    """The rows of these lesions, as a study makes them."""
    return lesion_rows(lesions, evaluate_lesions(network, batches, lesions), seed)
