"""Residual networks for CIFAR and ImageNet, built from a configuration.

CIFAR: He et al. 2016 (arXiv:1603.05027), section 5 and appendix; three stages of n units.
ImageNet: He et al. 2015 (arXiv:1512.03385), table 1; four stages of bottleneck units.
"""

from torch import nn

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.network import Head, Network
from resnet_cli.models.units import (
    EXPANSION,
    Place,
    bn_relu,
    conv,
    is_preactivation,
    make_unit,
)


def make_resnet(config: ModelConfig, classes: int) -> Network:
    """The residual network of a configuration, with torch's default initialisation."""
    widths = config.stage_widths()
    places = make_places(config)
    units = [make_unit(config, place, first_of_network=place.index == 0) for place in places]
    # The stem is as wide as the first stage: 16 channels for CIFAR unless `widths` is set.
    stem = make_stem(config, widths[0])
    channels = places[-1].out_channels
    last: nn.Module = nn.Identity()
    if config.placement == "full_preactivation":
        last = bn_relu(channels)
    elif config.placement == "relu_only_preactivation":
        last = nn.ReLU()
    return Network(stem, units, Head(last, channels, classes))


def make_places(config: ModelConfig) -> list[Place]:
    """The places of all units, stage by stage; the first unit of each later stage has stride 2."""
    expansion = EXPANSION if config.branch == "bottleneck" else 1
    places: list[Place] = []
    widths = config.stage_widths()
    channels = widths[0]
    for stage, (count, width) in enumerate(zip(config.stage_units(), widths, strict=True), 1):
        for number in range(1, count + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            places.append(Place(len(places), stage, number, channels, width * expansion, stride))
            channels = width * expansion
    return places


def make_stem(config: ModelConfig, channels: int) -> nn.Sequential:
    """The first convolution, with the BN and ReLU that the first unit does not contain.

    In pre-activation CIFAR networks, the first unit has its activation before both branches, so
    the stem is just the convolution with full pre-activation (Figure 4 e), and conv-BN with
    ReLU-only pre-activation (d). For ImageNet, the stem is always conv-BN-ReLU-max pooling, and the
    first unit has no activation of its own (models/preresnet.lua of
    facebookarchive/fb.resnet.torch).
    """
    if config.stem == "imagenet":
        first = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
    else:
        first = conv(3, channels, 3)
    layers: list[nn.Module] = [first]
    if config.stem == "imagenet" or not is_preactivation(config):
        layers += bn_relu(channels)
    elif config.placement == "relu_only_preactivation":
        layers.append(nn.BatchNorm2d(channels))
    if config.stem == "imagenet":
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(*layers)
