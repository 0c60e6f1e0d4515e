"""Every network of the two papers, with its size next to the published one.

The sizes come from `resnet_cli.models.network.measure`; a test builds every network and checks
them. They are stored here so that listing them needs neither torch nor a forward pass.
"""

from typing import Any

from resnet_cli.config.schema import ModelConfig

NETWORKS: tuple[tuple[dict[str, Any], str | None, tuple[int, int, int, int]], ...] = (
    ({"depth": 20, "placement": "original"}, "0.27 M", (9, 20, 269_722, 40_551_040)),
    ({"depth": 32, "placement": "original"}, "0.46 M", (15, 32, 464_154, 68_862_592)),
    ({"depth": 44, "placement": "original"}, "0.66 M", (21, 44, 658_586, 97_174_144)),
    ({"depth": 56, "placement": "original"}, "0.85 M", (27, 56, 853_018, 125_485_696)),
    ({"depth": 110, "placement": "original"}, "1.7 M", (54, 110, 1_727_962, 252_887_680)),
    (
        {"depth": 110, "placement": "original", "branch": "one_layer"},
        None,
        (108, 110, 1_727_962, 252_887_680),
    ),
    ({"depth": 110}, "1.7 M", (54, 110, 1_727_962, 252_887_680)),
    ({"depth": 110, "branch": "one_layer"}, None, (108, 110, 1_727_962, 252_887_680)),
    (
        {"depth": 164, "placement": "original", "branch": "bottleneck"},
        "1.7 M",
        (54, 164, 1_704_154, 244_500_992),
    ),
    ({"depth": 164, "branch": "bottleneck"}, "1.7 M", (54, 164, 1_703_258, 244_500_992)),
    (
        {"depth": 1001, "placement": "original", "branch": "bottleneck"},
        "10.2 M",
        (333, 1001, 10_328_602, 1_487_849_984),
    ),
    ({"depth": 1001, "branch": "bottleneck"}, "10.2 M", (333, 1001, 10_327_706, 1_487_849_984)),
    ({"depth": 1202, "placement": "original"}, "19.4 M", (600, 1202, 19_421_274, 2_829_238_912)),
    ({"family": "vgg", "depth": 15}, None, (14, 15, 14_991_946, 313_463_808)),
    (
        {"depth": 50, "placement": "original", "branch": "bottleneck", "stem": "imagenet"},
        "25,557,032",
        (16, 50, 25_557_032, 4_089_184_256),
    ),
    (
        {"depth": 101, "placement": "original", "branch": "bottleneck", "stem": "imagenet"},
        "44,549,160",
        (33, 101, 44_549_160, 7_801_405_440),
    ),
    (
        {"depth": 152, "placement": "original", "branch": "bottleneck", "stem": "imagenet"},
        "60,192,808",
        (50, 152, 60_192_808, 11_513_626_624),
    ),
    (
        {"depth": 101, "branch": "bottleneck", "stem": "imagenet"},
        None,
        (33, 101, 44_541_480, 7_801_405_440),
    ),
    (
        {"depth": 152, "branch": "bottleneck", "stem": "imagenet"},
        None,
        (50, 152, 60_185_128, 11_513_626_624),
    ),
    (
        {"depth": 200, "branch": "bottleneck", "stem": "imagenet"},
        None,
        (66, 200, 64_666_152, 15_007_481_856),
    ),
)
"""The keys of the configuration; the published number of parameters; and the counted units, layers,
parameters and multiply-adds for one image.

Published numbers: He et al. 2015 (arXiv:1512.03385) table 6 and He et al. 2016 (arXiv:1603.05027)
table 4 and text for CIFAR-10; torchvision's counts for ImageNet. The published 10.2 M for
ResNet-1001 does not include the scales and shifts of batch norm.
"""


def input_of(config: ModelConfig) -> tuple[int, int]:
    """The image size in pixels and the number of classes, of ImageNet or CIFAR-10."""
    return (224, 1000) if config.stem == "imagenet" else (32, 10)


def catalog() -> list[dict[str, Any]]:
    """One row for each network: name, input, units, layers, parameters (counted and published) and
    multiply-adds for one image."""
    rows = []
    for keys, published, (units, layers, parameters, multiply_adds) in NETWORKS:
        config = ModelConfig.model_validate(keys)
        pixels, _ = input_of(config)
        rows.append(
            {
                "network": config.label,
                "input": f"{pixels}x{pixels}",
                "units": units,
                "layers": layers,
                "parameters": parameters,
                "published_parameters": published,
                "multiply_adds": multiply_adds,
            }
        )
    return rows
