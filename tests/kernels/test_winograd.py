"""Winograd's convolutions against torch's own in float64, with gradients, and in networks."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from changed_layers import UNITS, changed_net
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.kernels import winograd
from resnet_cli.kernels.winograd import EvaluationConv2d, TrainingConv2d, fits
from resnet_cli.models.factory import build
from resnet_cli.models.folding import folded

numba = pytest.importorskip("numba", reason="needs the extra resnet-cli[fast]")
transforms = pytest.importorskip("resnet_cli.kernels.transforms")
convolution = pytest.importorskip("resnet_cli.kernels.convolution")
convolve = convolution.convolve

# Images of whole blocks and cut ones: a block is 256 tiles at 16 channels and 128 at 32.
SHAPES = [(1, 16, 16, 8, 8), (70, 16, 16, 8, 8), (3, 32, 16, 16, 4), (40, 16, 32, 8, 8)]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, expected: Tensor) -> None:
    """To float32 rounding of the largest value."""
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).abs().max() / expected.abs().max()
    assert error < 2e-5, float(error)


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_those_of_a_convolution(shape: tuple[int, ...]) -> None:
    count, ins, outs, height, width = shape
    x = random(count, ins, height, width).requires_grad_()
    weight = random(outs, ins, 3, 3, seed=1, scale=0.1).requires_grad_()
    bias = random(outs, seed=2).requires_grad_()
    gradient = random(count, outs, height, width, seed=3)
    y = convolve(x, weight, bias)
    inputs = (x, weight, bias)
    doubles = [each.detach().double().requires_grad_() for each in inputs]
    expected = functional.conv2d(*doubles, padding=1)
    assert_close(y, expected)
    assert y.is_contiguous(memory_format=torch.channels_last)
    found = torch.autograd.grad(y, inputs, gradient)
    wanted = torch.autograd.grad(expected, doubles, gradient.double())
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b)


def test_a_cut_block_after_a_whole_one_sees_nothing_of_it() -> None:
    """The working memory still holds the whole block's tiles, which would enter the weights'."""
    weight = random(16, 16, 3, 3, seed=1).requires_grad_()
    one, many = random(1, 16, 8, 8, seed=2), 100 * random(64, 16, 8, 8, seed=3)
    (alone,) = torch.autograd.grad(convolve(one, weight).square().sum(), weight)
    torch.autograd.grad(convolve(many, weight).square().sum(), weight)
    (after,) = torch.autograd.grad(convolve(one, weight).square().sum(), weight)
    assert torch.equal(alone, after)


def test_memory_first_used_without_gradients_serves_with_them() -> None:
    convolution._thread_local.__dict__.clear()
    x, weight = random(2, 16, 8, 8), random(16, 16, 3, 3, seed=1)
    with torch.inference_mode():
        y = convolve(x, weight)
    again = convolve(x, weight.requires_grad_())
    assert torch.equal(y, again)
    again.sum().backward()
    assert weight.grad is not None


def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    x, weight = random(2, 16, 8, 8), random(16, 16, 3, 3, seed=1)
    (of_x,) = torch.autograd.grad(convolve(x.requires_grad_(), weight).sum(), x)
    (of_weight,) = torch.autograd.grad(convolve(x.detach(), weight.requires_grad_()).sum(), weight)
    assert of_x.shape == x.shape
    assert of_weight.shape == weight.shape


def test_threads_do_not_disturb_one_another() -> None:
    weight = random(16, 16, 3, 3, seed=1)
    inputs = [random(20, 16, 16, 16, seed=seed) for seed in range(6)]
    alone = [convolve(x, weight) for x in inputs]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda x: convolve(x, weight), inputs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_what_is_not_finite_stays_so(value: float) -> None:
    """Also through the ReLUs, so that a diverged network is seen to be one."""
    conv = nn.Conv2d(16, 16, 3, padding=1)
    layer = EvaluationConv2d(conv, relu_before=True, relu_after=True)
    x = random(2, 16, 8, 8)
    x[0, 3, 4, 4] = value
    y = layer(x)
    assert not y[0].isfinite().all()
    assert y[1].isfinite().all()


@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("relu_before", [True, False])
@pytest.mark.parametrize("relu_after", [True, False])
@torch.no_grad()
def test_layers_around_are_taken_along(
    with_norm: bool, relu_before: bool, relu_after: bool
) -> None:
    conv = nn.Conv2d(16, 32, 3, padding=1, bias=relu_after)
    norm = None
    if with_norm:
        norm = nn.BatchNorm2d(16).eval()
        norm.weight.copy_(random(16, seed=1))
        norm.bias.copy_(random(16, seed=2))
        norm.running_mean.copy_(random(16, seed=3))
        norm.running_var.copy_(random(16, seed=4).abs() + 0.1)
    layer = EvaluationConv2d(conv, norm=norm, relu_before=relu_before, relu_after=relu_after)
    x = random(5, 16, 8, 8)
    kept = x.clone()
    y = norm(x) if norm is not None else x
    y = conv(torch.relu(y) if relu_before else y)
    assert_close(layer(x), torch.relu(y) if relu_after else y)
    assert torch.equal(x, kept)
    odd = random(2, 16, 6, 8)  # 6 is no multiple of 4
    assert torch.equal(layer(odd), layer.layers(odd))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"padding": 0},
        {"groups": 2},
        {"in_channels": 3},
        {"out_channels": 24},
        {"padding_mode": "circular"},
        {"dtype": torch.float64},
        {"device": "meta"},
    ],
)
def test_other_convolutions_do_not_fit(options: dict[str, Any]) -> None:
    usual = {"in_channels": 16, "out_channels": 16, "kernel_size": 3, "padding": 1}
    assert fits(nn.Conv2d(**usual))
    assert not fits(nn.Conv2d(**usual | options))


def test_where_no_folder_can_be_written_code_is_compiled_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = numba.njit

    def njit(function: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(function, **options)

    monkeypatch.setattr(numba, "njit", njit)
    assert transforms._compiled(lambda a: a + 1)(2) == 3


# --- in networks ---------------------------------------------------------------------------------

WIDE = {
    "full": ModelConfig(depth=14, widths=(16, 16, 16)),
    "relu-only": ModelConfig(depth=14, widths=(16, 16, 16), placement="relu_only_preactivation"),
    "original": ModelConfig(depth=14, widths=(16, 16, 16), placement="original"),
    "bottleneck": ModelConfig(depth=20, widths=(16, 16, 16), branch="bottleneck"),
    "vgg": ModelConfig(family="vgg", depth=15, widths=(16, 16, 16, 16, 16)),
}


@pytest.mark.parametrize("name", WIDE)
@torch.no_grad()
def test_evaluation_gives_the_same_logits(name: str) -> None:
    network = build(WIDE[name], 10, seed=1).train()
    images = random(4, 3, 32, 32)
    for _ in range(3):
        network(random(8, 3, 32, 32, seed=5))  # batch norms that do something
    network = folded(network)
    faster = copy.deepcopy(network)
    winograd.apply_in_evaluation(faster)
    assert any(isinstance(module, EvaluationConv2d) for module in faster.modules())
    torch.testing.assert_close(faster(images), network(images), rtol=1e-4, atol=1e-4)
    x = network.stem(images)
    for unit, plain in zip(faster.unit_list, network.unit_list, strict=True):
        kept = x.clone()
        torch.testing.assert_close(unit.skip(x), plain.skip(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(unit(x), plain(x), rtol=1e-4, atol=1e-4)
        assert torch.equal(x, kept), "a unit's input is not overwritten"
        x = plain(x)


@pytest.mark.parametrize("units", UNITS)
@torch.no_grad()
def test_evaluation_of_changed_and_shared_layers_gives_the_same_logits(units: str) -> None:
    network = changed_net(units).module
    images = random(4, 3, 8, 8)
    expected = network(images)
    winograd.apply_in_evaluation(network)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def test_evaluation_replaces_all_layers_of_a_branch() -> None:
    """Of F = BN, ReLU, convolution, BN, ReLU, convolution two layers are left."""
    network = folded(build(WIDE["full"], 10, seed=1))
    winograd.apply_in_evaluation(network)
    branch = network.unit_list[1].F
    assert isinstance(branch, nn.Sequential)
    assert [type(layer) for layer in branch] == [EvaluationConv2d, EvaluationConv2d]


def test_training_replaces_3x3_convolutions_and_keeps_parameters() -> None:
    network = build(WIDE["bottleneck"], 10, seed=1)
    parameters = dict(network.named_parameters())
    images, odd = random(2, 3, 32, 32), random(2, 3, 6, 6)
    expected, of_odd = network(images), network(odd)
    winograd.apply_in_training(network)
    replaced = {m.kernel_size for m in network.modules() if isinstance(m, TrainingConv2d)}
    assert replaced == {(3, 3)}
    assert all(p is parameters[name] for name, p in network.named_parameters())
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(network(images), expected), "computed by fewer multiplications"
    assert torch.equal(network(odd), of_odd), "images that do not fall into whole tiles"


def test_evaluation_of_a_network_in_training_is_direct() -> None:
    network = build(WIDE["full"], 10, seed=1).eval()
    images = random(2, 3, 32, 32)
    expected = network(images)
    winograd.apply_in_training(network)
    assert torch.equal(network(images), expected)


def test_they_pay_for_much_work_on_processors_with_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, much = torch.device("cpu"), winograd.PAYS_FROM
    assert winograd.pays(much, cpu)
    assert not winograd.pays(0.9 * much, cpu)
    assert not winograd.pays(much, torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not winograd.pays(much, cpu), "without numba convolutions are direct"
