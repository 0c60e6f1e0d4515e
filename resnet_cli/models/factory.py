"""Building any network of both papers from its configuration."""

import torch

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.network import Network, initialize
from resnet_cli.models.resnet import make_resnet
from resnet_cli.models.vgg import make_vgg
from resnet_cli.runtime.seeding import stream_seed


def build(config: ModelConfig, classes: int, seed: int | None = None) -> Network:
    """The network of a configuration, in channels_last memory format.

    Args:
        classes: number of outputs of the classifier.
        seed: seed of the He initialisation, which does not change torch's global generator; None
            keeps torch's default initialisation, for weights that are loaded later.
    """
    make = make_vgg if config.family == "vgg" else make_resnet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed or 0, "initialization"))
        network = make(config, classes)
        if seed is not None:
            initialize(network)
    return network.to(memory_format=torch.channels_last)
