"""The plain network of paper 2's Figure 3: a VGG of 15 layers for small images.

It has thirteen 3x3 convolutions with batch norm, pooling after each of five stages, one hidden
linear layer with 512 outputs, and the classifier: the VGG for CIFAR-10 of the Torch blog (S.
Zagoruyko, "92.45% on CIFAR-10 in Torch", 2015), which has the 15 layers shown by Veit et al. 2016
(arXiv:1605.06431). Every layer except the classifier is a unit that a study can delete.
"""

import torch
from torch import Tensor, nn

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.network import Network
from resnet_cli.models.units import Place, PlainUnit, ZeroPadding


class Hidden(nn.Module):
    """The hidden linear layer, with BN and ReLU: [N, C, 1, 1] -> [N, C', 1, 1]."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, out_features)
        self.bn = nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.fc(x.flatten(1))))[:, :, None, None]


class Classifier(nn.Module):
    """The last linear layer: [N, C, 1, 1] -> [N, classes]."""

    def __init__(self, in_features: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def make_vgg(config: ModelConfig, classes: int) -> Network:
    """The plain network of a configuration, with torch's default initialisation."""
    units: list[PlainUnit] = []
    channels = 3
    for stage, (count, width) in enumerate(
        zip(config.stage_units(), config.stage_widths(), strict=True), 1
    ):
        for number in range(1, count + 1):
            pools = number == count
            place = Place(len(units), stage, number, channels, width, 2 if pools else 1)
            layer: list[nn.Module] = [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            bypass: list[nn.Module] = []
            if channels != width:
                bypass.append(ZeroPadding(channels, width, 1))
            if pools:
                layer.append(_pool())
                bypass.append(_pool())
            units.append(PlainUnit(place, nn.Sequential(*layer), nn.Sequential(*bypass)))
            channels = width
    place = Place(len(units), len(config.stage_units()) + 1, 1, channels, channels, 1)
    units.append(PlainUnit(place, Hidden(channels, channels), nn.AdaptiveAvgPool2d(1)))
    return Network(nn.Identity(), units, Classifier(channels, classes))


def _pool() -> nn.MaxPool2d:
    """2x2 max pooling that rounds sizes up, so that 16-pixel images can pass through five
    stages."""
    return nn.MaxPool2d(2, stride=2, ceil_mode=True)
