"""Paths: every one of the 2^n by itself, against plain backward passes and enumeration."""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import Any, get_args

import pytest
import torch
from changed_layers import UNITS, changed_net
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.datasets.split import Split
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.units import ResidualUnit, Subsampled1x1, ZeroPadding
from resnet_cli.results.tables import column_names
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.paths import exact as exact_module
from resnet_cli.studies.paths import sampled as sampled_module
from resnet_cli.studies.paths.cut import CutNetwork, path_gradient
from resnet_cli.studies.paths.exact import (
    ExactSpectrum,
    exact_spectrum,
    exact_spectrum_of_unit,
    gradient_by_length,
)
from resnet_cli.studies.paths.pullback import trace, trace_autograd
from resnet_cli.studies.paths.sampled import (
    batch_indices,
    draw_path,
    path_gradients_by_image,
    sample_path_gradients,
)
from resnet_cli.studies.paths.tables import exact_rows, path_lengths, spectrum_rows

PLACEMENTS = (
    "original",
    "bn_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
    "full_preactivation",
)
SHORTCUTS: dict[str, dict[str, Any]] = {
    "zero padding": {"stage_change": "zero_padding"},
    "projection": {"stage_change": "projection"},
    "scaling": {"shortcut": "scaling", "shortcut_scale": 0.5, "residual_scale": 0.7},
    "exclusive gating": {"shortcut": "exclusive_gating", "gate_bias": -0.5},
    "shortcut-only gating": {"shortcut": "shortcut_only_gating", "gate_bias": -0.5},
    "convolution": {"shortcut": "convolution"},
}
"""Identity shortcuts are in the first two, everywhere but at a change of shape."""
SMALL = {"widths": (3, 4, 5)}
BRANCHES: dict[str, dict[str, Any]] = {
    "basic": SMALL | {"depth": 8},
    "one_layer": SMALL | {"depth": 5},
    "bottleneck": {"depth": 11, "widths": (2, 2, 3)},
}
DEEPER: dict[str, dict[str, Any]] = {
    "full pre-activation": SMALL | {"depth": 12, "units": (2, 2, 1)},
    "original": SMALL | {"depth": 12, "units": (2, 2, 1), "placement": "original"},
    "exclusive gating": SMALL | {"depth": 12, "units": (1, 2, 2)} | SHORTCUTS["exclusive gating"],
    "bottleneck": {"depth": 17, "units": (2, 1, 2), "widths": (2, 2, 3), "branch": "bottleneck"},
    "dropout": SMALL | {"depth": 10, "units": (2, 1, 1), "shortcut": "dropout"},
    "ImageNet's stem": {"depth": 8, "units": (2, 1), "widths": (3, 5), "stem": "imagenet"},
}


def make_network(fields: dict[str, Any], dtype: torch.dtype = torch.float64) -> Network:
    """A network whose batch norms have random weights and running statistics."""
    network = build(ModelConfig(**fields), 4, seed=21)
    generator = torch.Generator().manual_seed(22)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0.1, 0.3, generator=generator)
            module.running_mean.normal_(0.0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network.to(dtype).eval()


def a_batch(count: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(25)
    images = torch.randn(count, 3, 8, 8, dtype=dtype, generator=generator)
    return images, torch.randint(4, (count,), generator=generator)


def make_batches(count: int = 12) -> Batches:
    generator = torch.Generator().manual_seed(26)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(4, (count,), generator=generator)
    normalization = Normalization(torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25))
    return Batches(Split("tiny", "train", pixels, labels, tuple("abcd"), "made"), normalization)


def subsets(n: int) -> list[tuple[int, ...]]:
    return [chosen for k in range(n + 1) for chosen in itertools.combinations(range(n), k)]


# --- the reference: plain backward passes --------------------------------------------------------


def copy_in_mode(network: Network, batch_statistics: bool) -> Network:
    copied = copy.deepcopy(network).eval()
    if batch_statistics:
        for module in copied.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.train()
    return copied


def ordinary_gradient(
    network: Network, images: Tensor, labels: Tensor, batch_statistics: bool = False
) -> Tensor:
    leaf = images.clone().requires_grad_()
    logits = copy_in_mode(network, batch_statistics)(leaf)
    functional.cross_entropy(logits, labels).backward()
    assert leaf.grad is not None
    return leaf.grad


def parts(unit: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a unit's shortcut and its residual branch add to the sum (paper 1, section 3)."""
    assert isinstance(unit, ResidualUnit)
    x = unit.pre(x)
    shortcut, residual = unit.h(x), unit.survival * unit.F(x)
    if unit.gate is not None:
        g = torch.sigmoid(unit.gate.conv(x))
        shortcut = (1 - g) * shortcut
        residual = g * residual if unit.gates_residual else residual
    return shortcut, residual


def gradient_by_detaching(
    network: Network,
    images: Tensor,
    labels: Tensor,
    chosen: Collection[int],
    batch_statistics: bool = False,
) -> Tensor:
    """One forward pass of unchanged values in which each unit lets one branch be differentiated."""
    copied = copy_in_mode(network, batch_statistics)
    leaf = images.clone().requires_grad_()
    x = copied.stem(leaf)
    for index, unit in enumerate(copied.units):
        shortcut, residual = parts(unit, x)
        y = shortcut.detach() + residual if index in chosen else shortcut + residual.detach()
        x = unit.f(y)
    functional.cross_entropy(copied.head(x), labels).backward()
    assert leaf.grad is not None
    return leaf.grad


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


# --- every path of small networks ----------------------------------------------------------------


def check_every_path(fields: dict[str, Any], batch_statistics: bool) -> None:
    network = make_network(fields)
    images, labels = a_batch(3 if "stem" not in fields else 2)
    if "stem" in fields:
        images = functional.interpolate(images, scale_factor=4)
    check_paths_of(network, images, labels, batch_statistics)


def check_paths_of(
    network: Network, images: Tensor, labels: Tensor, batch_statistics: bool
) -> None:
    n = len(network.units)
    cut = CutNetwork(network, images, labels, batch_statistics=batch_statistics)
    assert len(cut) == n
    gradients = {chosen: path_gradient(cut, chosen) for chosen in subsets(n)}
    assert len(gradients) == 2**n

    for chosen, gradient in gradients.items():
        assert_close(
            gradient, gradient_by_detaching(network, images, labels, chosen, batch_statistics)
        )
    ordinary = ordinary_gradient(network, images, labels, batch_statistics)
    assert ordinary.abs().max() > 1e-5
    assert_close(torch.stack(list(gradients.values())).sum(0), ordinary)

    by_length = gradient_by_length(cut)
    assert by_length.shape == (n + 1, *images.shape)
    for k in range(n + 1):
        of_length = [gradient for chosen, gradient in gradients.items() if len(chosen) == k]
        assert len(of_length) == math.comb(n, k)
        assert_close(by_length[k], torch.stack(of_length).sum(0))
    assert_close(by_length.sum(0), ordinary)

    counted = set(range(0, n, 2))
    by_counted = gradient_by_length(cut, counted)
    assert len(by_counted) == len(counted) + 1
    for k in range(len(counted) + 1):
        of_length = [g for chosen, g in gradients.items() if len(counted & set(chosen)) == k]
        assert_close(by_counted[k], torch.stack(of_length).sum(0))


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_path_of_three_units(
    placement: str, branch: str, shortcut: str, batch_statistics: bool
) -> None:
    fields = BRANCHES[branch] | {"branch": branch, "placement": placement} | SHORTCUTS[shortcut]
    check_every_path(fields, batch_statistics)


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("name", DEEPER)
def test_every_path_of_several_units(name: str, batch_statistics: bool) -> None:
    check_every_path(DEEPER[name], batch_statistics)


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("units", UNITS)
def test_every_path_of_changed_and_shared_layers(units: str, batch_statistics: bool) -> None:
    network = changed_net(units).module.double()
    check_paths_of(network, *a_batch(), batch_statistics)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 5, (1, 7), padding=(0, 3)),
        nn.Conv2d(4, 5, (3, 5), padding=(1, 2)),
        nn.Conv2d(4, 5, (3, 5), padding=(1, 0)),
        nn.Conv2d(4, 5, (3, 5), padding=1, stride=(2, 1), dilation=(1, 2)),
        nn.Conv2d(4, 5, 3, padding="same", dilation=2),
        pytest.param(
            nn.Conv2d(4, 5, (2, 5), padding="same"),  # one row more below than above
            marks=pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
        ),
        nn.Conv2d(4, 5, (2, 3), padding="valid"),
        Subsampled1x1(4, 5, 1, 2),
        ZeroPadding(4, 9, 2),
        ZeroPadding(4, 9, 2, at_end=True),
        ZeroPadding(4, 3, 1),
    ],
    ids=str,
)
def test_pullbacks_of_layers_are_those_of_autograd(layer: nn.Module) -> None:
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64)
    y, pullback = trace(layer.double(), x)
    expected, by_autograd = trace_autograd(layer, x)
    assert torch.equal(y, expected)
    gradients = torch.randn(2, *y.shape, dtype=torch.float64)
    assert_close(pullback(gradients.clone()), by_autograd(gradients))


def test_paths_differ_from_one_another() -> None:
    """Otherwise the comparisons above would miss a wrong unit."""
    network = make_network(DEEPER["full pre-activation"])
    cut = CutNetwork(network, *a_batch())
    gradients = [path_gradient(cut, chosen) for chosen in subsets(5)]
    size = max(gradient.norm() for gradient in gradients)
    for a, b in itertools.combinations(gradients, 2):
        assert (a - b).norm() > 1e-3 * size


def test_a_unit_weighed_by_its_survival_weighs_its_residual_branch() -> None:
    network = make_network(SMALL | {"depth": 8})
    cut_before = CutNetwork(network, *a_batch())
    for index, unit in enumerate(network.unit_list):
        unit.survival = 0.9 - 0.2 * index
    images, labels = a_batch()
    cut = CutNetwork(network, images, labels)
    for chosen in subsets(3):
        expected = gradient_by_detaching(network, images, labels, chosen)
        assert_close(path_gradient(cut, chosen), expected)
    assert (path_gradient(cut, [1]) - path_gradient(cut_before, [1])).abs().max() > 1e-4
    assert_close(gradient_by_length(cut).sum(0), ordinary_gradient(network, images, labels))


def test_gradients_by_jacobian_matrices() -> None:
    """The sweep of the module's docstring with J and S as matrices, for one image."""
    fields = {"depth": 5, "branch": "one_layer", "widths": (2, 3, 3), "placement": "original"}
    network = make_network(fields)
    images, labels = a_batch(1)

    def matrix(function: Any, x: Tensor) -> Tensor:
        jacobian = torch.autograd.functional.jacobian(function, x)
        return jacobian.reshape(-1, x.numel())

    x = network.stem(images).detach()
    total = {(): matrix(network.stem, images)}  # chosen units -> d x / d images along the path
    for index, unit in enumerate(network.units):
        S = matrix(lambda x, unit=unit: parts(unit, x)[0], x)
        J = matrix(lambda x, unit=unit: parts(unit, x)[1], x)
        after = matrix(unit.f, sum(parts(unit, x)).detach())
        total = {chosen: after @ S @ so_far for chosen, so_far in total.items()} | {
            (*chosen, index): after @ J @ so_far for chosen, so_far in total.items()
        }
        x = unit(x).detach()
    top = matrix(lambda x: functional.cross_entropy(network.head(x), labels), x)
    cut = CutNetwork(network, images, labels)
    assert len(total) == 8
    for chosen, jacobian in total.items():
        assert_close(path_gradient(cut, chosen), (top @ jacobian).reshape(images.shape))


def test_the_order_of_the_chosen_units_does_not_matter() -> None:
    cut = CutNetwork(make_network(DEEPER["original"]), *a_batch())
    assert torch.equal(path_gradient(cut, [4, 1, 1]), path_gradient(cut, {1, 4}))
    assert torch.equal(path_gradient(cut, iter([1, 4])), path_gradient(cut, [1, 4]))


@pytest.mark.parametrize("name", DEEPER)
def test_a_path_of_its_own_for_each_image(name: str) -> None:
    """Images do not see one another: each image's gradient is that of its path for the batch."""
    network = make_network(DEEPER[name])
    images, labels = a_batch(3)
    if "stem" in DEEPER[name]:
        images = functional.interpolate(images, scale_factor=4)
    n = len(network.units)
    generator = torch.Generator().manual_seed(41)
    chosen = torch.rand(6, 3, n, generator=generator) < 0.5
    chosen[0], chosen[1] = False, True
    chosen[2, 0], chosen[2, 1:] = True, False
    found = path_gradients_by_image(CutNetwork(network, images, labels), chosen)
    assert found.shape == (6, *images.shape)
    for path, image in itertools.product(range(6), range(3)):
        units = chosen[path, image].nonzero().flatten().tolist()
        gradient = gradient_by_detaching(network, images, labels, units)
        assert_close(found[path, image], gradient[image])


# --- gradients below the smallest float32 -------------------------------------------------------


def last_weight(unit: nn.Module) -> Tensor:
    """What all that a residual branch adds is multiplied by."""
    assert isinstance(unit, ResidualUnit)
    layers = [m for m in unit.F.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    return layers[-1].weight.data


def faint(network: Network, factor: float = 1e-12) -> Network:
    """A network whose residual branches are all but nothing, and so the gradients of long paths."""
    for unit in network.unit_list:
        last_weight(unit).mul_(factor)
    return network


@pytest.mark.parametrize("name", ["full pre-activation", "original", "exclusive gating"])
def test_long_paths_below_the_smallest_float32(name: str) -> None:
    network = faint(make_network(DEEPER[name], torch.float32))
    images, labels = a_batch(3, torch.float32)
    double, in_double = copy.deepcopy(network).double(), images.double()
    cut = CutNetwork(network, images, labels)
    expected = torch.zeros(6, *images.shape, dtype=torch.float64)
    for chosen in subsets(5):
        reference = gradient_by_detaching(double, in_double, labels, chosen)
        found = float(path_gradient(cut, chosen).norm())
        assert found == pytest.approx(float(reference.norm()), rel=1e-4, abs=0)
        expected[len(chosen)] += reference
    assert 0 < expected[5].norm() < 1e-55  # the smallest float32 is 1.4e-45

    norms = [float(gradient.norm()) for gradient in expected]
    by_length = gradient_by_length(cut)
    assert [float(g.norm()) for g in by_length] == pytest.approx(norms, rel=1e-4, abs=0)
    spectrum = exact_spectrum(network, images, labels)
    assert spectrum.norms == pytest.approx(norms, rel=1e-4, abs=0)
    assert spectrum.check < 1e-6
    every = torch.ones(1, 3, 5, dtype=torch.bool)
    by_image = path_gradients_by_image(cut, every)[0]
    assert float(by_image.norm()) == pytest.approx(norms[5], rel=1e-4, abs=0)
    of_unit = exact_spectrum_of_unit(network, images, labels, 1)
    in_double_too = exact_spectrum_of_unit(double, in_double, labels, 1)
    assert of_unit.norms == pytest.approx(in_double_too.norms, rel=1e-4, abs=0)


def test_the_boost_is_a_power_of_two_that_a_dead_branch_does_not_change() -> None:
    network = faint(make_network(DEEPER["full pre-activation"]), 2.0**-40)
    cut = CutNetwork(network, *a_batch())
    exponent = math.log2(cut.boost)
    assert exponent == round(exponent)
    assert 35 < exponent < 45
    last_weight(network.unit_list[2]).zero_()
    assert CutNetwork(network, *a_batch()).boost == pytest.approx(cut.boost, rel=3)
    for unit in network.unit_list:
        last_weight(unit).zero_()
    cut = CutNetwork(network, *a_batch())
    assert cut.boost == 1.0
    assert path_gradient(cut, [1]).norm() == 0 < path_gradient(cut, []).norm()


def test_a_boost_changes_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (images, labels) = single(), a_batch(3, torch.float32)
    found = []
    for boost in (1.0, 8.0, 2.0**-5):
        monkeypatch.setattr(CutNetwork, "_boost", lambda cut, boost=boost: boost)
        cut = CutNetwork(network, images, labels)
        every = torch.ones(1, 3, 5, dtype=torch.bool)
        by_image = path_gradients_by_image(cut, every)
        found.append((path_gradient(cut, [0, 2, 3]), gradient_by_length(cut), by_image))
    for others in found[1:]:
        for gradient, other in zip(found[0], others, strict=True):
            assert torch.equal(gradient, other)


def test_a_plain_network_is_refused() -> None:
    network = build(ModelConfig(family="vgg", depth=10, widths=(2, 2, 2, 2, 2)), 4, seed=1)
    message = r"^a plain network \(VGG\) has one path only; paths needs shortcuts$"
    with pytest.raises(UserError, match=message):
        CutNetwork(network, *a_batch(dtype=torch.float32))
    with pytest.raises(UserError, match=message):
        sample_path_gradients(network, make_batches(), (1,), 1, 4, seed=0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_the_network_is_left_as_it_was(training: bool, batch_statistics: bool) -> None:
    """Weights, running statistics, their counts and settings, gradients, mode."""
    network = make_network(SMALL | {"depth": 8, "shortcut": "dropout"}, torch.float32)
    network.train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    settings = [(m.momentum, m.track_running_stats) for m in norms]
    images, labels = a_batch(dtype=torch.float32)
    cut = CutNetwork(network, images, labels, batch_statistics=batch_statistics)
    path_gradient(cut, [1])
    gradient_by_length(cut)
    exact_spectrum(network, images, labels)
    exact_spectrum_of_unit(network, images, labels, 1)
    sample_path_gradients(
        network, make_batches(), (0, 2), 2, 4, seed=0, batch_statistics=batch_statistics
    )
    after = network.state_dict()
    assert list(after) == list(before)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == []
    assert [(m.momentum, m.track_running_stats) for m in norms] == settings
    assert all(module.training is training for module in network.modules())
    assert all(p.grad is None for p in network.parameters())
    assert images.grad is None
    assert not images.requires_grad


# --- the exact spectrum --------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEEPER)
@pytest.mark.parametrize(("chunk", "cached_bytes"), [(1, 1), (3, 10_000), (7, 1 << 30)])
def test_the_exact_spectrum_does_not_depend_on_chunks(
    name: str, chunk: int, cached_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(DEEPER[name])
    images, labels = a_batch(7)
    if "stem" in DEEPER[name]:
        images = functional.interpolate(images, scale_factor=4)
    n = len(network.units)
    expected = torch.zeros(n + 1, *images.shape, dtype=torch.float64)
    for chosen in subsets(n):
        expected[len(chosen)] += gradient_by_detaching(network, images, labels, chosen)

    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(exact_module, "SWEEP_CHUNK", chunk)
    monkeypatch.setattr(exact_module, "CACHED_BYTES", cached_bytes)
    found = exact_spectrum(network, images, labels, report=lambda *done: seen.append(done))
    assert found.norms == pytest.approx([float(g.norm()) for g in expected], rel=1e-8)
    assert found.images == 7
    assert found.check < 1e-12
    whole = ordinary_gradient(network, images, labels).flatten()
    for (cosine, norm), up_to in zip(found.cumulative, expected.cumsum(0).flatten(1), strict=True):
        assert cosine == pytest.approx(float(functional.cosine_similarity(up_to, whole, dim=0)))
        assert norm == pytest.approx(float(up_to.norm() / whole.norm()))
    assert found.cumulative[-1] == pytest.approx((1, 1))
    assert seen == [(min(done, 7), 7) for done in range(chunk, 7 + chunk, chunk)]


def test_the_check_is_small_in_single_precision() -> None:
    network = build(ModelConfig(depth=38, widths=(8, 8, 8)), 4, seed=2)
    images, labels = a_batch(20, torch.float32)
    found = exact_spectrum(network, images.contiguous(memory_format=torch.channels_last), labels)
    assert len(found.norms) == 19
    assert 0 < found.check < 1e-5
    double = exact_spectrum(network.double(), images.double(), labels)
    assert found.norms == pytest.approx(double.norms, rel=1e-3)


def test_the_check_sees_a_lost_length(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(SMALL | {"depth": 8})
    images, labels = a_batch()
    by_length = gradient_by_length(CutNetwork(network, images, labels))
    expected = float(by_length[2].norm() / ordinary_gradient(network, images, labels).norm())

    def without_length_2(cut: CutNetwork, *counted: Any) -> Tensor:
        keep = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
        return gradient_by_length(cut, *counted) * keep.view(-1, 1, 1, 1, 1)

    monkeypatch.setattr(exact_module, "gradient_by_length", without_length_2)
    found = exact_spectrum(network, images, labels)
    assert found.check == pytest.approx(expected)
    assert found.norms[2] == 0


@pytest.mark.parametrize("name", DEEPER)
def test_the_spectrum_of_some_units_only(name: str) -> None:
    network = make_network(DEEPER[name])
    images, labels = a_batch(3)
    if "stem" in DEEPER[name]:
        images = functional.interpolate(images, scale_factor=4)
    counted = [1, len(network.units) - 1]
    expected = torch.zeros(3, *images.shape, dtype=torch.float64)
    for chosen in subsets(len(network.units)):
        k = len(set(counted) & set(chosen))
        expected[k] += gradient_by_detaching(network, images, labels, chosen)
    found = exact_spectrum(network, images, labels, counted)
    assert found.norms == pytest.approx([float(g.norm()) for g in expected], rel=1e-8)
    assert found.check < 1e-12


@pytest.mark.parametrize("name", DEEPER)
@pytest.mark.parametrize("chunk", [2, 16])
def test_the_spectrum_at_the_weights_of_a_unit(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each path from the loss that ends in this unit's F, one by one."""
    monkeypatch.setattr(exact_module, "UNIT_CHUNK", chunk)
    network = make_network(DEEPER[name])
    images, labels = a_batch(3)
    if "stem" in DEEPER[name]:
        images = functional.interpolate(images, scale_factor=4)
    n = len(network.units)
    for unit in range(n):
        found = exact_spectrum_of_unit(network, images, labels, unit)
        free = n - 1 - unit
        sums: list[Any] = [0.0] * (free + 2)
        for later in subsets(free):
            chosen = [unit, *(unit + 1 + i for i in later)]
            sums[len(chosen)] += weight_gradient(network, images, labels, unit, chosen)
        assert len(found.norms) == free + 2
        assert found.norms[0] == 0
        assert found.norms[1:] == pytest.approx([float(g.norm()) for g in sums[1:]], rel=1e-8)
        assert found.check < 1e-12
        assert found.images == 3


def weight_gradient(
    network: Network, images: Tensor, labels: Tensor, unit: int, chosen: Collection[int]
) -> Tensor:
    """The gradient at all parameters of one unit's F, flat, along one path."""
    copied = copy.deepcopy(network).eval()
    x = copied.stem(images)
    for index, one in enumerate(copied.units):
        shortcut, residual = parts(one, x)
        x = one.f(shortcut.detach() + residual if index in chosen else shortcut + residual.detach())
    functional.cross_entropy(copied.head(x), labels).backward()
    return torch.cat([p.grad.flatten() for p in copied.units[unit].F.parameters()])


@pytest.mark.parametrize("unit", [5, -1])
def test_the_spectrum_of_a_unit_that_does_not_exist_is_refused(unit: int) -> None:
    network = make_network(DEEPER["original"])
    message = rf"^unit {unit} does not exist; this network has 5 units, 0 to 4$"
    with pytest.raises(UserError, match=message):
        exact_spectrum_of_unit(network, *a_batch(), unit)


def test_rows_of_exact_spectra() -> None:
    spectrum = ExactSpectrum([0.0, 3.0, 2.0, 5.0], check=0.0, images=4)
    by_stage = exact_rows("stage", 2, spectrum)
    assert [tuple(row.values()) for row in by_stage] == [
        (2, 0, 1, 0.0, 0.0),
        (2, 1, 3, 3.0, 0.3),
        (2, 2, 3, 2.0, 0.2),
        (2, 3, 1, 5.0, 0.5),
    ]
    by_unit = exact_rows("unit", 7, spectrum)
    assert [row["paths"] for row in by_unit] == [0, 1, 2, 1]
    assert all(set(row) == set(column_names("path_spectrum_stages")) for row in by_stage)
    assert all(set(row) == set(column_names("path_spectrum_unit")) for row in by_unit)


# --- lengths -------------------------------------------------------------------------------------


def pascal(n: int) -> list[int]:
    row = [1]
    for _ in range(n):
        row = [1, *(a + b for a, b in itertools.pairwise(row)), 1]
    return row


@pytest.mark.parametrize("n", [1, 9, 54, 333])
def test_path_lengths_are_exact(n: int) -> None:
    rows = path_lengths(n)
    assert [row["k"] for row in rows] == list(range(n + 1))
    counts = [row["paths"] for row in rows]
    assert counts == pascal(n)
    assert all(type(count) is int for count in counts)
    assert sum(counts) == 2**n
    for row in rows:
        assert set(row) == set(column_names("path_lengths"))
        assert row["fraction"] == float(Fraction(row["paths"], 2**n))


def test_the_share_of_short_paths_that_paper_2_states() -> None:
    """Section 5: the effective paths, of 5 to 17 units, are 0.45 % of all paths."""
    rows = path_lengths(54)
    assert round(100 * sum(row["fraction"] for row in rows[5:18]), 2) == 0.45


# --- sampled paths -------------------------------------------------------------------------------


def sampled(network: Network, ks: Sequence[int], **changes: Any) -> list[dict[str, Any]]:
    settings = {"samples": 3, "batch_size": 5, "seed": 31} | changes
    return sample_path_gradients(network, make_batches(), ks, **settings)


def single(**fields: Any) -> Network:
    return make_network(SMALL | {"depth": 12, "units": (2, 2, 1)} | fields, torch.float32)


def test_rows_of_sampled_paths() -> None:
    seen: list[tuple[int, int]] = []
    rows = sampled(single(), (3, 0, 5), report=lambda *done: seen.append(done))
    assert [(row["k"], row["sample"]) for row in rows] == [
        (k, sample) for k in (3, 0, 5) for sample in range(3)
    ]
    for row in rows:
        assert set(row) == set(column_names("path_gradients"))
        assert row["images"] == 5
        assert row["seed"] == 31
        assert row["grad_norm"] > 0
    assert seen == [(3, 9), (6, 9), (9, 9)]  # after each chunk of images: here a whole batch
    seen.clear()
    sampled(single(), (3, 0, 5), batch_statistics=True, report=lambda *done: seen.append(done))
    assert seen == [(done, 9) for done in range(1, 10)]  # after each path


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("placement", ["full_preactivation", "original"])
def test_sampled_norms_are_those_of_the_drawn_paths(placement: str, batch_statistics: bool) -> None:
    """Each norm again from its draw, by a plain backward pass in float64."""
    network = single(placement=placement)
    double = copy.deepcopy(network).double()
    batches = make_batches()
    for row in sampled(network, range(6), batch_statistics=batch_statistics):
        indices = batch_indices(12, 5, 31, row["sample"])
        images = (batches.images[indices].double() / 255 - 0.5) / 0.25
        path = draw_path(5, row["k"], 31, row["sample"])
        gradient = gradient_by_detaching(
            double, images, batches.labels[indices], path, batch_statistics
        )
        assert row["grad_norm"] == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_a_lengths_draws_do_not_depend_on_the_others() -> None:
    for estimator in ("batch", "image"):
        alone = sampled(single(), (2,), estimator=estimator)
        among = [r for r in sampled(single(), (0, 2, 4), estimator=estimator) if r["k"] == 2]
        assert [r["grad_norm"] for r in alone] == [
            pytest.approx(r["grad_norm"], rel=1e-5) for r in among
        ]


@pytest.mark.parametrize("shortcut", [None, *SHORTCUTS])
def test_the_engines_agree(shortcut: str | None) -> None:
    """The fast pullbacks against autograd throughout, in float32 as they are used."""
    network = single(**(SHORTCUTS[shortcut] if shortcut else {}))
    images, labels = make_batches().unaugmented(torch.arange(8))
    fast = exact_spectrum(network, images, labels)
    plain = exact_spectrum(network, images, labels, engine="plain")
    assert fast.norms == pytest.approx(plain.norms, rel=1e-4)
    engines: tuple[Engine, ...] = get_args(Engine)
    of_unit = [exact_spectrum_of_unit(network, images, labels, 1, engine=e) for e in engines]
    assert of_unit[0].norms == pytest.approx(of_unit[1].norms, rel=1e-4)
    for estimator in ("batch", "image"):
        rows = [
            [row["grad_norm"] for row in sampled(network, (1, 3), estimator=estimator, engine=e)]
            for e in engines
        ]
        assert rows[0] == pytest.approx(rows[1], rel=1e-4)


def test_a_batchs_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    network = single()
    whole = sampled(network, (2, 0, 5), batch_size=7)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(sampled_module, "CHUNK", 3)
    chunked = sampled(network, (2, 0, 5), batch_size=7, report=lambda *done: told.append(done))
    norms = [row["grad_norm"] for row in whole]
    assert [row["grad_norm"] for row in chunked] == pytest.approx(norms, rel=1e-6)
    assert told == [(done, 9) for done in range(1, 10)]


def test_sampling_a_path_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image's path has the length asked for; chunks do not matter; the norm is the batch's."""
    network = single()
    asked: list[Tensor] = []

    def watched(cut: CutNetwork, chosen: Tensor) -> Tensor:
        asked.append(chosen)
        return path_gradients_by_image(cut, chosen)

    monkeypatch.setattr(sampled_module, "path_gradients_by_image", watched)
    rows = sampled(network, (2, 0, 5), estimator="image", samples=2, batch_size=7)
    assert [(row["k"], row["sample"]) for row in rows] == [
        (k, sample) for k in (2, 0, 5) for sample in range(2)
    ]
    assert [chosen.sum(2).tolist() for chosen in asked] == [[[2] * 7, [0] * 7, [5] * 7]] * 2
    assert len({tuple(path) for path in asked[0][0].tolist()}) > 1
    double, batches = copy.deepcopy(network).double(), make_batches()
    for row in rows:
        indices = batch_indices(12, 7, 31, row["sample"])
        images = (batches.images[indices].double() / 255 - 0.5) / 0.25
        square = 0.0
        for image, path in enumerate(asked[row["sample"]][(2, 0, 5).index(row["k"])]):
            units = path.nonzero().flatten().tolist()
            gradient = gradient_by_detaching(double, images, batches.labels[indices], units)
            square += float(gradient[image].square().sum())
        assert row["grad_norm"] == pytest.approx(math.sqrt(square), rel=1e-4)
        assert row["images"] == 7

    monkeypatch.setattr(sampled_module, "CHUNK", 3)
    chunked = sampled(network, (2, 0, 5), estimator="image", samples=2, batch_size=7)
    assert [row["grad_norm"] for row in chunked] == pytest.approx(
        [row["grad_norm"] for row in rows], rel=1e-5
    )


def test_a_path_for_each_image_needs_running_statistics() -> None:
    with pytest.raises(UserError, match="--estimator image needs images that do not influence"):
        sampled(single(), (1,), estimator="image", batch_statistics=True)


def test_the_lengths_0_and_n_have_one_path_each() -> None:
    network, batches = single(), make_batches()
    rows = sampled(network, (0, 5))
    for row in rows:
        cut = CutNetwork(network, *batches.unaugmented(batch_indices(12, 5, 31, row["sample"])))
        units = range(5) if row["k"] == 5 else []
        norm = float(path_gradient(cut, units).norm())
        assert row["grad_norm"] == pytest.approx(norm, rel=1e-12)
    assert len({row["grad_norm"] for row in rows}) == 6


def test_samples_are_a_function_of_the_seed() -> None:
    network = single()
    state = torch.get_rng_state()
    rows = sampled(network, (1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert sampled(network, (1, 2)) == rows
    longer = sampled(network, (0, 1, 2, 4), samples=5)
    kept = [row for row in longer if row["k"] in (1, 2) and row["sample"] < 3]
    assert kept == rows
    other = sampled(network, (1, 2), seed=32)
    norms = [row["grad_norm"] for row in rows]
    assert not set(norms) & {row["grad_norm"] for row in other}


def test_a_batch_is_at_most_all_images() -> None:
    rows = sampled(single(), (2,), batch_size=100, samples=1)
    assert rows[0]["images"] == 12
    assert sorted(batch_indices(12, 100, 0, 0).tolist()) == list(range(12))


def test_batches_are_drawn_without_repetition() -> None:
    drawn = [tuple(batch_indices(50, 8, 1, sample).tolist()) for sample in range(20)]
    assert all(len(set(indices)) == 8 and max(indices) < 50 for indices in drawn)
    assert len(set(drawn)) == 20
    assert tuple(batch_indices(50, 8, 1, 3).tolist()) == drawn[3]
    assert tuple(batch_indices(50, 8, 2, 3).tolist()) != drawn[3]


def test_paths_of_a_length_are_drawn_equally_often() -> None:
    drawn = Counter(tuple(draw_path(5, 2, 7, sample)) for sample in range(2000))
    assert set(drawn) == set(itertools.combinations(range(5), 2))
    # 200 expected, standard deviation 13.4
    assert all(abs(count - 200) < 54 for count in drawn.values())
    assert draw_path(54, 0, 7, 1) == []
    assert draw_path(54, 54, 7, 1) == list(range(54))
    assert draw_path(54, 20, 7, 1) == draw_path(54, 20, 7, 1) != draw_path(54, 20, 8, 1)


@pytest.mark.parametrize("k", [6, -1, 55])
def test_a_length_that_no_path_has_is_refused(k: int) -> None:
    message = rf"^--k {k}: no path has length {k}; this network has 5 units, so lengths are 0 to 5$"
    with pytest.raises(UserError, match=message):
        sampled(single(), (0, k))


# --- the spectrum's rows -------------------------------------------------------------------------


def gradients_of(norms: dict[int, list[float]]) -> list[dict[str, Any]]:
    return [
        {"k": k, "sample": sample, "grad_norm": norm, "images": 5, "seed": 0}
        for k, values in norms.items()
        for sample, norm in enumerate(values)
    ]


def test_spectrum_rows_by_hand() -> None:
    exact = ExactSpectrum([8.0, 4.0, 2.0, 2.0], check=1e-9, images=5)
    rows = spectrum_rows(3, gradients_of({2: [1.0, 2.0, 6.0], 0: [3.0], 1: [4.0, 6.0]}), exact)
    total = 3 + 15 + 9
    names = column_names("path_spectrum")
    table = [
        (0, 1, 3.0, None, 3.0, 8.0, 3 / total, 0.5, 8 / 3),
        (1, 3, 5.0, math.sqrt(2), 15.0, 4.0, 15 / total, 0.25, 4 / 15),
        (2, 3, 3.0, math.sqrt(7), 9.0, 2.0, 9 / total, 0.125, 2 / 9),
        (3, 1, None, None, None, 2.0, None, 0.125, None),
    ]
    assert names == (
        *("k", "paths", "mean_norm", "std_norm"),
        *("total", "exact_norm", "share_total", "share_exact", "cancellation"),
    )
    assert len(rows) == 4
    for row, values in zip(rows, table, strict=True):
        assert set(row) == set(names)
        for name, value in zip(names, values, strict=True):
            assert row[name] == (value if value is None else pytest.approx(value)), (row, name)


def test_spectrum_rows_without_an_exact_spectrum() -> None:
    rows = spectrum_rows(54, gradients_of({10: [2.0, 2.0], 3: [1.0]}), None)
    assert [row["k"] for row in rows] == [3, 10]
    assert all(set(row) == set(column_names("path_spectrum")) for row in rows)
    assert [row["paths"] for row in rows] == [24_804, 23_930_713_170]
    assert [row["std_norm"] for row in rows] == [None, 0.0]
    assert [row["total"] for row in rows] == [24_804.0, 47_861_426_340.0]
    assert sum(row["share_total"] for row in rows) == pytest.approx(1)
    assert all(row["exact_norm"] is row["share_exact"] is None for row in rows)


def test_spectrum_rows_of_gradients_that_are_all_zero() -> None:
    rows = spectrum_rows(1, gradients_of({0: [0.0], 1: [0.0]}), ExactSpectrum([0.0, 0.0], 0.0, 5))
    assert [row["total"] for row in rows] == [0.0, 0.0]
    assert all(row["share_total"] is row["share_exact"] is None for row in rows)
    assert all(row["cancellation"] is None for row in rows)


def test_exact_and_sampled_agree_where_there_is_one_path() -> None:
    """Length 0, and length n, have one path: both roads lead along it."""
    network = make_network(DEEPER["full pre-activation"], torch.float32)
    gradients = sampled(network, (0, 5), samples=1)
    exact = exact_spectrum(network, *make_batches().unaugmented(batch_indices(12, 5, 31, 0)))
    rows = spectrum_rows(5, gradients, exact)
    for k in (0, 5):
        assert rows[k]["total"] == pytest.approx(rows[k]["exact_norm"], rel=1e-5)
        assert rows[k]["mean_norm"] == gradients[min(k, 1)]["grad_norm"]
