"""Every network of the two papers, measured beside its published size."""

from collections.abc import Callable
from typing import Any

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models import build
from resnet_cli.models.network import measure

_CIFAR: tuple[tuple[dict[str, Any], str | None], ...] = (
    ({"depth": 20, "placement": "original"}, "0.27 M"),
    ({"depth": 32, "placement": "original"}, "0.46 M"),
    ({"depth": 44, "placement": "original"}, "0.66 M"),
    ({"depth": 56, "placement": "original"}, "0.85 M"),
    ({"depth": 110, "placement": "original"}, "1.7 M"),
    ({"depth": 110, "placement": "original", "branch": "one_layer"}, None),
    ({"depth": 110}, "1.7 M"),
    ({"depth": 110, "branch": "one_layer"}, None),
    ({"depth": 164, "placement": "original", "branch": "bottleneck"}, "1.7 M"),
    ({"depth": 164, "branch": "bottleneck"}, "1.7 M"),
    ({"depth": 1001, "placement": "original", "branch": "bottleneck"}, "10.2 M"),
    ({"depth": 1001, "branch": "bottleneck"}, "10.2 M"),
    ({"depth": 1202, "placement": "original"}, "19.4 M"),
    ({"depth": 15, "family": "vgg"}, None),
)
_IMAGENET: tuple[tuple[int, str, str | None], ...] = (
    (50, "original", "25,557,032"),
    (101, "original", "44,549,160"),
    (152, "original", "60,192,808"),
    (101, "full_preactivation", None),
    (152, "full_preactivation", None),
    (200, "full_preactivation", None),
)


def catalog(
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """One row for each network: name, input, units, layers, parameters (ours and published) and
    multiply-adds for one image.

    Published: He et al. 2015 (arXiv:1512.03385) table 6 and He et al. 2016 (arXiv:1603.05027)
    table 4 and text, for CIFAR-10; torchvision's counts for ImageNet. The published 10.2 M of
    ResNet-1001 leaves the batch norms' scales and shifts out.

    Args:
        report: called after every network with the number done, and of all.
    """
    wanted = [(ModelConfig(**keys), 10, 32, size) for keys, size in _CIFAR]
    for depth, placement, size in _IMAGENET:
        config = ModelConfig.model_validate(
            {"depth": depth, "placement": placement, "branch": "bottleneck", "stem": "imagenet"}
        )
        wanted.append((config, 1000, 224, size))
    rows = []
    for config, classes, pixels, published in wanted:
        measured = measure(build(config, classes), pixels)
        rows.append(
            {
                "network": config.label,
                "input": f"{pixels}x{pixels}",
                "units": measured.units,
                "layers": measured.layers,
                "parameters": measured.parameters,
                "published_parameters": published,
                "multiply_adds": measured.multiply_adds,
            }
        )
        report(len(rows), len(wanted))
    return rows
