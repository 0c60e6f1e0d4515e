"""Refuse to study a network whose outputs are not finite."""

import torch
from torch import Tensor

from resnet_cli.datasets.catalogue import SplitName
from resnet_cli.models.network import Network, evaluation_mode
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.subject import Subject

IMAGES = 16
"""Number of images that are checked before a measurement."""


def check_outputs(subject: Subject, split: SplitName, *, batch_statistics: bool = False) -> None:
    """Check the activations of the first images of a split in the intact network.

    Weights that are not finite are refused when they are loaded
    (`weights.state_dict.check_values`); this finds finite ones that overflow.

    Args:
        batch_statistics: normalise by the statistics of these images, as in training.

    Raises:
        UserError: a value is not finite; the message names the part of the network.
    """
    images, _ = subject.batches(split).evaluation(0, IMAGES)
    part = first_not_finite(subject.network, images, batch_statistics=batch_statistics)
    if part is not None:
        raise UserError(
            f"{subject.loaded.source}: on the first {len(images)} {split} images {part} is not "
            "finite, so nothing can be measured; check the weights and --normalize"
        )


@torch.no_grad()
def first_not_finite(
    network: Network, images: Tensor, *, batch_statistics: bool = False
) -> str | None:
    """The first part of a network whose output has a value that is not finite; None if all are.

    Args:
        images: float32 [N, 3, H, W], normalised.
    """
    if not bool(images.isfinite().all()):
        return "a normalised image"
    with evaluation_mode(network, batch_statistics=batch_statistics):
        x = network.stem(images)
        if not bool(x.isfinite().all()):
            return "the output of the stem"
        for index, unit in enumerate(network.unit_list):
            x = unit(x)
            if not bool(x.isfinite().all()):
                return f"the output of unit {index}"
        return None if bool(network.head(x).isfinite().all()) else "the output of the head"
