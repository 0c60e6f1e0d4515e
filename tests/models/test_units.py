"""Each h, F and f of paper 1 against a straight-line re-computation in float64.

The references below use convolutions and arithmetic only, batch norm written out by hand; the
weights are taken from a unit in the order in which they stand in it, with their number checked.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.models import units
from resnet_cli.models.factory import build
from resnet_cli.models.units import Place, PlainUnit, ResidualUnit, ZeroPadding

PLACEMENTS = (
    "original",
    "bn_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
    "full_preactivation",
)
PREACTIVATION = PLACEMENTS[3:]
DEPTHS = {"basic": 8, "one_layer": 5, "bottleneck": 11}

SHORTCUTS: dict[str, dict[str, Any]] = {
    "identity": {},
    "scaling 0.5, 1": {"shortcut": "scaling", "shortcut_scale": 0.5},
    "scaling 0.5, 0.5": {"shortcut": "scaling", "shortcut_scale": 0.5, "residual_scale": 0.5},
    "exclusive gating": {"shortcut": "exclusive_gating", "gate_bias": -1.0},
    "shortcut-only gating": {"shortcut": "shortcut_only_gating", "gate_bias": 0.0},
    "convolution": {"shortcut": "convolution"},
    "dropout": {"shortcut": "dropout", "shortcut_dropout": 0.3},
}

# A middle unit, the network's first, and one that changes the shape (8 channels everywhere else).
PLACES = {
    "middle": Place(1, 1, 2, 8, 8, 1),
    "first": Place(0, 1, 1, 8, 8, 1),
    "change": Place(2, 2, 1, 8, 16, 2),
}


def make_unit(place: str, **fields: Any) -> ResidualUnit:
    """A unit in float64 whose every parameter and batch statistic is a random number."""
    config = ModelConfig(depth=DEPTHS[fields.get("branch", "basic")], **fields)
    unit = units.make_unit(config, PLACES[place], first_of_network=place == "first").double()
    generator = torch.Generator().manual_seed(11)
    for name, tensor in unit.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0.1, 0.4, generator=generator)
    return unit


def some_input(channels: int = 8) -> Tensor:
    return torch.randn(
        3, channels, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )


# --- the reference -------------------------------------------------------------------------------


@dataclass
class Parts:
    """The weights of one part of a unit, in order, to be used up one by one."""

    convs: list[nn.Conv2d]
    norms: list[nn.BatchNorm2d]
    training: bool

    @classmethod
    def of(cls, part: nn.Module | None) -> "Parts":
        modules = [] if part is None else list(part.modules())
        return cls(
            [m for m in modules if isinstance(m, nn.Conv2d)],
            [m for m in modules if isinstance(m, nn.BatchNorm2d)],
            part is not None and part.training,
        )

    def conv(self, x: Tensor, kernel: int, stride: int = 1) -> Tensor:
        layer = self.convs.pop(0)
        assert layer.weight.shape[2:] == (kernel, kernel)
        return functional.conv2d(x, layer.weight, layer.bias, stride, padding=(kernel - 1) // 2)

    def bn(self, x: Tensor) -> Tensor:
        layer = self.norms.pop(0)
        mean, var = layer.running_mean, layer.running_var
        if self.training:
            mean = x.mean((0, 2, 3))
            var = ((x - mean[:, None, None]) ** 2).mean((0, 2, 3))
        assert mean is not None
        assert var is not None
        x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
        return x * layer.weight[:, None, None] + layer.bias[:, None, None]

    def used_up(self) -> bool:
        return not self.convs and not self.norms


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def reference(unit: ResidualUnit, config: dict[str, Any], place: str, x: Tensor) -> Tensor:
    """The unit's output as paper 1's Figures 2 and 4 draw it."""
    placement = config.get("placement", "full_preactivation")
    branch = config.get("branch", "basic")
    changes = place == "change"
    stride = 2 if changes else 1

    pre = Parts.of(unit.pre)
    shared = placement in PREACTIVATION and place in ("first", "change")
    if shared and placement == "full_preactivation":
        x = relu(pre.bn(x))
    elif shared:
        x = relu(x)
    assert pre.used_up()

    # F
    if branch == "basic":
        layers = [(3, stride), (3, 1)]
    elif branch == "one_layer":
        layers = [(3, stride)]
    elif config.get("stride_in") == "3x3":
        layers = [(1, 1), (3, stride), (1, 1)]
    else:
        layers = [(1, stride), (3, 1), (1, 1)]
    f = Parts.of(unit.F)
    residual = x
    for position, (kernel, step) in enumerate(layers):
        last = position == len(layers) - 1
        if placement == "original":  # conv BN ReLU conv BN
            residual = f.bn(f.conv(residual, kernel, step))
            residual = residual if last else relu(residual)
        elif placement == "bn_after_addition":  # conv BN ReLU conv
            residual = f.conv(residual, kernel, step)
            residual = residual if last else relu(f.bn(residual))
        elif placement == "relu_before_addition":  # conv BN ReLU conv BN ReLU
            residual = relu(f.bn(f.conv(residual, kernel, step)))
        elif placement == "relu_only_preactivation":  # ReLU conv BN ReLU conv BN
            residual = residual if position == 0 and shared else relu(residual)
            residual = f.bn(f.conv(residual, kernel, step))
        else:  # BN ReLU conv BN ReLU conv
            residual = residual if position == 0 and shared else relu(f.bn(residual))
            residual = f.conv(residual, kernel, step)
    assert f.used_up()
    residual = residual * config.get("residual_scale", 1.0)

    # h
    kind = config.get("shortcut", "identity")
    h = Parts.of(unit.h)
    if kind == "convolution":
        shortcut = h.bn(h.conv(x, 1, stride))
    elif not changes:
        shortcut = x
    elif config.get("stage_change") == "zero_padding":
        zeros = torch.zeros(len(x), 4, 3, 3, dtype=x.dtype)
        shortcut = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
    else:
        shortcut = h.conv(x, 1, stride)
        if placement not in PREACTIVATION:
            shortcut = h.bn(shortcut)
    assert h.used_up()
    if kind == "scaling":
        shortcut = 0.5 * shortcut
    if kind == "dropout" and unit.training:
        kept = torch.empty_like(shortcut).bernoulli_(0.7)
        shortcut = shortcut * kept / 0.7

    gate = Parts.of(unit.gate)
    if kind in ("exclusive_gating", "shortcut_only_gating"):
        g = 1 / (1 + torch.exp(-gate.conv(x, 1, stride)))
        shortcut = (1 - g) * shortcut
        if kind == "exclusive_gating":
            residual = g * residual
    assert gate.used_up()

    # f
    y = shortcut + residual
    after = Parts.of(unit.f)
    if placement == "original":
        y = relu(y)
    elif placement == "bn_after_addition":
        y = relu(after.bn(y))
    assert after.used_up()
    return y


def check(place: str, **fields: Any) -> None:
    """Unit and reference agree in evaluation and in training mode, dropout included."""
    unit = make_unit(place, **fields)
    x = some_input()
    for training in (False, True):
        unit.train(training)
        torch.manual_seed(17)
        found = unit(x)
        torch.manual_seed(17)
        expected = reference(unit, fields, place, x)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        assert expected.abs().max() > 0.1


# --- equations (1) and (2) -----------------------------------------------------------------------


@pytest.mark.parametrize("stage_change", ["projection", "zero_padding"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("branch", DEPTHS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_branches_and_placements(
    placement: str, branch: str, place: str, stage_change: str
) -> None:
    check(place, placement=placement, branch=branch, stage_change=stage_change)


@pytest.mark.parametrize("stage_change", ["projection", "zero_padding"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_shortcuts(shortcut: str, placement: str, place: str, stage_change: str) -> None:
    check(place, placement=placement, stage_change=stage_change, **SHORTCUTS[shortcut])


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_bottleneck_with_its_stride_in_the_3x3(placement: str) -> None:
    check(
        "change",
        placement=placement,
        branch="bottleneck",
        stride_in="3x3",
        stage_change="projection",
    )


def test_training_updates_batch_statistics_once() -> None:
    unit = make_unit("middle", placement="original").train()
    x = some_input()
    norm = unit.F[1]
    before = norm.running_mean.clone()
    batch = functional.conv2d(x, unit.F[0].weight, padding=1).mean((0, 2, 3))
    unit(x)
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * batch)


# --- h and F apart -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_shortcut_alone_equals_the_first_branch(shortcut: str, placement: str, place: str) -> None:
    unit = make_unit(place, placement=placement, **SHORTCUTS[shortcut]).eval()
    x = some_input()
    first, second = unit.branches(x)
    assert torch.equal(unit.shortcut(x), first)
    assert torch.equal(unit(x), unit.after(first + second))


@pytest.mark.parametrize("placement", ["relu_before_addition", *PREACTIVATION])
def test_deleting_an_identity_unit_is_exactly_the_identity(placement: str) -> None:
    unit = make_unit("middle", placement=placement).eval()
    x = some_input()
    assert torch.equal(unit.after(unit.shortcut(x)), x)


def test_deleting_an_original_unit_is_the_identity_on_what_a_relu_has_passed() -> None:
    unit = make_unit("middle", placement="original").eval()
    x = some_input()
    assert torch.equal(unit.after(unit.shortcut(x.clamp(min=0))), x.clamp(min=0))
    assert torch.equal(unit.after(unit.shortcut(x)), x.clamp(min=0))


@pytest.mark.parametrize("kind", ["exclusive_gating", "shortcut_only_gating"])
@pytest.mark.parametrize("bias", [0.0, -6.0, -7.0])
def test_gate_bias_is_initialised_as_configured(kind: Any, bias: float) -> None:
    network = build(ModelConfig(depth=8, shortcut=kind, gate_bias=bias), classes=10, seed=1)
    for unit in network.units:
        assert torch.equal(unit.gate.conv.bias, torch.full_like(unit.gate.conv.bias, bias))
        assert unit.gate.conv.weight.abs().max() > 0


@pytest.mark.parametrize(("ins", "outs"), [(4, 8), (4, 7), (8, 4), (5, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_zero_padding_centres_the_channels(ins: int, outs: int, stride: int) -> None:
    x = some_input(ins)
    y = ZeroPadding(ins, outs, stride)(x)
    expected = torch.zeros(3, outs, 6 // stride, 6 // stride, dtype=x.dtype)
    offset = max(outs - ins, 0) // 2
    for channel in range(min(ins, outs)):
        expected[:, offset + channel] = x[:, channel, ::stride, ::stride]
    assert torch.equal(y, expected)


# --- the plain unit ------------------------------------------------------------------------------


def test_plain_unit_is_its_layer_and_its_deletion_the_bypass() -> None:
    layer, bypass = nn.Conv2d(8, 16, 3, padding=1).double(), ZeroPadding(8, 16, 1)
    unit = PlainUnit(PLACES["change"], layer, bypass)
    x = some_input()
    expected = functional.conv2d(x, layer.weight, layer.bias, padding=1)
    shortcut, residual = unit.branches(x)
    assert torch.equal(unit(x), expected)
    assert torch.equal(residual, expected)
    assert torch.equal(shortcut, torch.zeros_like(expected))  # nothing, in the intact network
    assert torch.equal(unit.after(shortcut + residual), unit(x))
    assert torch.equal(unit.shortcut(x)[:, 4:12], x)
    assert not unit.shortcut(x)[:, :4].any()


@torch.no_grad()
def test_vgg_unit_against_formula_and_its_deletion() -> None:
    network = build(ModelConfig(family="vgg", depth=15), classes=10, seed=1).double().eval()
    x = some_input(3)
    first, second = network.units[0], network.units[1]
    convolution, norm = first.F[0], first.F[1]
    expected = functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
    expected = relu(expected / torch.tensor(1 + 1e-5, dtype=torch.float64).sqrt())
    assert norm.running_var.eq(1).all()
    torch.testing.assert_close(first(x), expected)
    # The second unit's layer pools; so does what stays when it is deleted.
    values = first(x)
    pooled = values.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    assert torch.equal(second.shortcut(values), pooled)
    assert second(values).shape == pooled.shape


# --- gradients -----------------------------------------------------------------------------------


def gradient_cases() -> list[Any]:
    cases = []
    for placement, branch in product(PLACEMENTS, DEPTHS):
        for stage_change in ("projection", "zero_padding"):
            fields = {"placement": placement, "branch": branch, "stage_change": stage_change}
            cases.append(pytest.param(fields, id=f"{placement}-{branch}-{stage_change}"))
    for placement, (name, extra) in product(PLACEMENTS, list(SHORTCUTS.items())[1:]):
        cases.append(pytest.param({"placement": placement, **extra}, id=f"{placement}-{name}"))
    return cases


@pytest.mark.parametrize("fields", gradient_cases())
def test_every_parameter_receives_a_finite_gradient(fields: dict[str, Any]) -> None:
    config = ModelConfig(depth=DEPTHS[fields.get("branch", "basic")], **fields)
    network = build(config, classes=5, seed=1).train()
    torch.manual_seed(2)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    functional.cross_entropy(network(images), labels).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
