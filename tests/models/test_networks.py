"""Whole networks: sizes, places, initialisation, shapes, and the plain forward loop."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network, measure, same_shape_groups
from resnet_cli.models.units import PlainUnit, ZeroPadding


def shapes_only(classes: int = 10, **fields: Any) -> Network:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return build(ModelConfig(**fields), classes)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def images(size: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"depth": 20, "placement": "original"}, 269_722),
        ({"depth": 20, "placement": "original", "stage_change": "zero_padding"}, 269_722),
        ({"depth": 20, "placement": "original", "stage_change": "projection"}, 272_474),
        ({"depth": 20}, 269_722),
        # Pre-activated projections have no batch norm: 2 * (32 + 64) fewer.
        ({"depth": 20, "stage_change": "projection"}, 272_282),
        ({"depth": 110, "placement": "original"}, 1_727_962),
        ({"depth": 110}, 1_727_962),
        ({"depth": 110, "stage_change": "projection"}, 1_730_522),
        ({"depth": 110, "branch": "one_layer"}, 1_727_962),
        ({"depth": 164, "branch": "bottleneck"}, 1_703_258),
        ({"depth": 1001, "branch": "bottleneck"}, 10_327_706),
        ({"depth": 1202, "placement": "original"}, 19_421_274),
    ],
)
def test_exact_parameter_counts(fields: dict[str, Any], expected: int) -> None:
    assert parameters(shapes_only(**fields)) == expected


@pytest.mark.parametrize(
    ("depth", "branch", "published"),
    [
        (110, "basic", 1.7),
        (164, "bottleneck", 1.7),
        # 10.33M with batch norm's scales and offsets (149,216), 10.18M without: the published
        # 10.2M fits the convolutions and the classifier alone. 110 and 164 layers round to the
        # same either way.
        (1001, "bottleneck", 10.2),
        (1202, "basic", 19.4),
    ],
)
@pytest.mark.parametrize("placement", ["original", "full_preactivation"])
def test_published_millions_of_weights(
    depth: int, branch: str, published: float, placement: str
) -> None:
    network = shapes_only(depth=depth, branch=branch, placement=placement)
    norms = sum(parameters(m) for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    weights = parameters(network) - norms
    if (
        depth == 1202
    ):  # published earlier (He et al. 2015): 19.42M in all, 19.33M without batch norm
        weights += norms
    assert round(weights / 1e6, 1) == published


def test_resnet20_parameters_by_formula() -> None:
    """Stem, 18 3x3 convolutions with batch norm, 10-way classifier; option A adds nothing."""
    total = 3 * 16 * 9 + 2 * 16
    ins = 16
    for outs in (16, 32, 64):
        total += ins * outs * 9 + 5 * outs * outs * 9 + 6 * 2 * outs
        ins = outs
    assert total + 64 * 10 + 10 == 269_722


def test_resnet20_multiply_adds_by_formula() -> None:
    """32x32 pixels in the stem and stage 1, a quarter in each further stage."""
    total, pixels, ins = 32 * 32 * 3 * 16 * 9, 32 * 32, 16
    for outs in (16, 32, 64):
        pixels = pixels // 4 if outs != ins else pixels
        total += pixels * 9 * (ins * outs + 5 * outs * outs)
        ins = outs
    total += 64 * 10
    assert total == 40_551_040
    size = measure(build(ModelConfig(depth=20, placement="original"), 10), 32)
    assert (size.units, size.layers, size.parameters) == (9, 20, 269_722)
    assert size.multiply_adds == total
    projection = ModelConfig(depth=20, placement="original", stage_change="projection")
    extra = 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64  # two 1x1 convolutions
    assert measure(build(projection, 10), 32).multiply_adds == total + extra


def test_gates_and_shortcut_convolutions_count_as_work_but_not_as_depth() -> None:
    plain = measure(build(ModelConfig(depth=8, placement="original"), 10), 32)
    gated = ModelConfig(depth=8, placement="original", shortcut="exclusive_gating")
    size = measure(build(gated, 10), 32)
    one_by_one = 1024 * 16 * 16 + 256 * 16 * 32 + 64 * 32 * 64
    assert size.layers == 8
    assert size.multiply_adds == plain.multiply_adds + one_by_one
    assert size.parameters == plain.parameters + 16 * 17 + 32 * 17 + 64 * 33
    convolved = measure(build(ModelConfig(depth=8, shortcut="convolution"), 10), 32)
    assert convolved.layers == 8


def test_measure_leaves_the_network_as_it_was() -> None:
    network = build(ModelConfig(depth=8), 10, seed=1).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    measure(network, 16)
    assert network.training
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({"depth": 20}, 9),
        ({"depth": 110}, 54),
        ({"depth": 110, "placement": "original"}, 54),
        ({"depth": 110, "branch": "one_layer"}, 108),
        ({"depth": 164, "branch": "bottleneck"}, 54),
        ({"depth": 1001, "branch": "bottleneck"}, 333),
        ({"depth": 1202}, 600),
        ({"depth": 18, "stem": "imagenet"}, 8),
        ({"depth": 50, "stem": "imagenet", "branch": "bottleneck"}, 16),
        ({"depth": 152, "stem": "imagenet", "branch": "bottleneck"}, 50),
        ({"depth": 200, "stem": "imagenet", "branch": "bottleneck"}, 66),
        ({"depth": 14, "units": (1, 2, 1, 2)}, 6),
    ],
)
def test_layers_are_the_depth_and_units_are_counted(fields: dict[str, Any], units: int) -> None:
    size = measure(shapes_only(**fields), 64 if fields.get("stem") else 16)
    assert size.layers == fields["depth"]
    assert size.units == units


@pytest.mark.parametrize("depth", [10, 12, 15, 18])
def test_vgg_layers_are_the_depth(depth: int) -> None:
    assert measure(shapes_only(family="vgg", depth=depth), 16).layers == depth


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_imagenet_bottleneck_networks_have_the_known_sizes(depth: int, expected: int) -> None:
    network = shapes_only(
        1000, depth=depth, branch="bottleneck", stem="imagenet", placement="original"
    )
    assert parameters(network) == expected


# --- places --------------------------------------------------------------------------------------


def test_places_of_resnet110() -> None:
    places = shapes_only(depth=110).places
    assert [p.index for p in places] == list(range(54))
    assert [p.stage for p in places] == [1] * 18 + [2] * 18 + [3] * 18
    assert [p.number for p in places] == list(range(1, 19)) * 3
    assert [p.stride for p in places] == [2 if i in (18, 36) else 1 for i in range(54)]
    assert [p.out_channels for p in places] == [16] * 18 + [32] * 18 + [64] * 18
    assert [p.in_channels for p in places] == [16] * 19 + [32] * 18 + [64] * 17
    assert [i for i, p in enumerate(places) if p.changes_shape] == [18, 36]
    assert places[0].name == "stage1.unit01"
    assert places[18].name == "stage2.unit01"
    assert places[53].name == "stage3.unit18"


def test_places_of_a_bottleneck_network() -> None:
    places = shapes_only(depth=29, branch="bottleneck").places
    assert [(p.in_channels, p.out_channels, p.stride) for p in places] == [
        (16, 64, 1),
        (64, 64, 1),
        (64, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 128, 1),
        (128, 256, 2),
        (256, 256, 1),
        (256, 256, 1),
    ]
    assert [p.index for p in places if p.changes_shape] == [0, 3, 6]


def test_same_shape_groups() -> None:
    groups = same_shape_groups(shapes_only(depth=110).places)
    assert groups == [[*range(18)], [*range(19, 36)], [*range(37, 54)]]
    assert same_shape_groups(shapes_only(depth=29, branch="bottleneck").places) == [
        [1, 2],
        [4, 5],
        [7, 8],
    ]
    # Equal widths do not join stages: their pictures differ in size.
    equal = shapes_only(depth=14, units=(2, 2, 2), widths=(16, 16, 16)).places
    assert same_shape_groups(equal) == [[0, 1], [3], [5]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"depth": 8, "placement": "original"}, ZeroPadding),
        ({"depth": 5, "branch": "one_layer", "placement": "bn_after_addition"}, ZeroPadding),
        ({"depth": 8, "placement": "full_preactivation"}, ZeroPadding),
        ({"depth": 5, "branch": "one_layer"}, ZeroPadding),
        ({"depth": 11, "branch": "bottleneck"}, nn.Conv2d),
        ({"depth": 11, "branch": "bottleneck", "placement": "original"}, nn.Sequential),
        ({"depth": 18, "stem": "imagenet", "placement": "original"}, nn.Sequential),
    ],
)
def test_auto_shortcut_at_a_change_of_shape(fields: dict[str, Any], expected: type) -> None:
    changing = [unit for unit in shapes_only(**fields).units if unit.place.stride == 2]
    assert len(changing) >= 2
    assert all(type(unit.h) is expected for unit in changing)


@pytest.mark.parametrize(
    ("fields", "position"),
    [
        ({"depth": 11}, 0),
        ({"depth": 11, "stride_in": "3x3"}, 1),
        ({"depth": 50, "stem": "imagenet"}, 1),
        ({"depth": 50, "stem": "imagenet", "stride_in": "1x1"}, 0),
    ],
)
def test_which_layer_of_a_bottleneck_has_the_stride(fields: dict[str, Any], position: int) -> None:
    for unit in shapes_only(branch="bottleneck", **fields).units:
        strides = [m.stride[0] for m in unit.F if isinstance(m, nn.Conv2d)]
        expected = [1, 1, 1]
        expected[position] = unit.place.stride
        assert strides == expected


# --- initialisation ------------------------------------------------------------------------------


def test_he_initialisation() -> None:
    network = build(ModelConfig(depth=32, stage_change="projection"), 10, seed=4)
    seen = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            k = module.kernel_size[0]
            expected = math.sqrt(2 / (k * k * module.out_channels))
            count = module.weight.numel()
            tolerance = 5 / math.sqrt(2 * count)  # five standard errors of a deviation
            assert module.weight.std().item() == pytest.approx(expected, rel=tolerance)
            assert abs(module.weight.mean().item()) < 5 * expected / math.sqrt(count)
            seen += 1
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
    assert seen == 33  # 31 layers and two projections
    assert network.head.fc.bias.eq(0).all()
    assert 0 < network.head.fc.weight.abs().max() <= 1 / math.sqrt(64)


def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator() -> None:
    config = ModelConfig(depth=8, shortcut="exclusive_gating")
    torch.manual_seed(99)
    state = torch.get_rng_state()
    first = build(config, 10, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    second = build(config, 10, seed=1).state_dict()
    other = build(config, 10, seed=2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    convolutions = [name for name, tensor in first.items() if tensor.ndim == 4]
    assert convolutions
    assert not any(torch.equal(first[name], other[name]) for name in convolutions)
    state = torch.get_rng_state()
    build(config, 10)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_channels_last() -> None:
    for config in (ModelConfig(depth=8), ModelConfig(family="vgg", depth=10)):
        for module in build(config, 10, seed=1).modules():
            if isinstance(module, nn.Conv2d):
                assert module.weight.is_contiguous(memory_format=torch.channels_last)


# --- forward -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"depth": 8},
        {"depth": 8, "placement": "original"},
        {"depth": 8, "placement": "relu_only_preactivation"},
        {"depth": 5, "branch": "one_layer"},
        {"depth": 11, "branch": "bottleneck"},
        {"depth": 18, "stem": "imagenet"},
        {"family": "vgg", "depth": 15},
    ],
)
@pytest.mark.parametrize("size", [16, 32])
@torch.no_grad()
def test_output_shapes_and_forward_is_a_plain_loop(fields: dict[str, Any], size: int) -> None:
    network = build(ModelConfig(**fields), 7, seed=1).eval()
    x = network.stem(images(size))
    for unit in network.unit_list:
        before = x.shape
        x = unit(x)
        assert x.shape[1] == unit.place.out_channels
        if isinstance(unit, PlainUnit):
            continue
        assert before[1] == unit.place.in_channels
        assert x.shape[2] == -(-before[2] // unit.place.stride)
    logits = network.head(x)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert torch.equal(network(images(size)), logits)


@torch.no_grad()
def test_head_averages_over_the_picture_after_the_last_activation() -> None:
    network = build(ModelConfig(depth=8), 7, seed=1).eval()
    norm = network.head.last_activation[0]
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 64, 4, 4)
    scaled = (x - norm.running_mean[:, None, None]) / (
        norm.running_var[:, None, None] + 1e-5
    ).sqrt()
    pooled = scaled.clamp(min=0).sum((2, 3)) / 16
    fc = network.head.fc
    torch.testing.assert_close(network.head(x), pooled @ fc.weight.T + fc.bias)


@pytest.mark.parametrize(
    ("placement", "stem", "head"),
    [
        ("original", ["Conv2d", "BatchNorm2d", "ReLU"], ["Identity"]),
        ("bn_after_addition", ["Conv2d", "BatchNorm2d", "ReLU"], ["Identity"]),
        ("relu_before_addition", ["Conv2d", "BatchNorm2d", "ReLU"], ["Identity"]),
        ("relu_only_preactivation", ["Conv2d", "BatchNorm2d"], ["ReLU"]),
        ("full_preactivation", ["Conv2d"], ["BatchNorm2d", "ReLU"]),
    ],
)
def test_stem_and_last_activation_of_each_placement(
    placement: Any, stem: list[str], head: list[str]
) -> None:
    network = shapes_only(depth=8, placement=placement)

    def leaves(module: nn.Module) -> list[str]:
        return [type(m).__name__ for m in module.modules() if not list(m.children())]

    assert leaves(network.stem) == stem
    assert leaves(network.head.last_activation) == head


# --- the plain network ---------------------------------------------------------------------------


def test_structure_of_the_vgg_of_15_layers() -> None:
    network = build(ModelConfig(family="vgg", depth=15), 10, seed=1)
    assert len(network.units) == 14
    assert all(isinstance(unit, PlainUnit) for unit in network.units)
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 15
    convolutions = [m for m in weighted if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert [i for i, p in enumerate(network.places) if p.stride == 2] == [1, 3, 6, 9, 12]


@pytest.mark.parametrize("size", [16, 32])
@torch.no_grad()
def test_each_vgg_unit_can_be_deleted(size: int) -> None:
    """What stays in the place of a deleted layer has the shape that the next one expects."""
    network = build(ModelConfig(family="vgg", depth=15), 10, seed=1).eval()
    x = network.stem(images(size))
    for unit in network.unit_list:
        after = unit(x)
        assert unit.after(unit.shortcut(x)).shape == after.shape
        x = after
    assert network.head(x).shape == (2, 10)
