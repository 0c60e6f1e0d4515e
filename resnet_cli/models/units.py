"""The residual unit and its parts: y = h(x) + F(x), x_next = f(y).

He, Zhang, Ren, Sun 2016, "Identity Mappings in Deep Residual Networks" (arXiv:1603.05027),
equations (1) and (2). h is the shortcut, F the residual branch, and f the function after the
addition; every row of the paper's tables is a choice of these three. Shapes: N batch, C channels, H
and W pixels.

`F` always means the residual branch here, so `torch.nn.functional` is imported as `functional`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig

EXPANSION = 4
"""Output channels of a bottleneck divided by the channels of its 3x3 layer (He et al. 2015)."""


@dataclass(frozen=True)
class Place:
    """The position of a unit in its network, and its input and output shapes."""

    index: int
    """Position in the flat list of units, from 0."""
    stage: int
    """Stage, from 1."""
    number: int
    """Position inside the stage, from 1."""
    in_channels: int
    out_channels: int
    stride: int

    @property
    def name(self) -> str:
        return f"stage{self.stage}.unit{self.number:02d}"

    @property
    def changes_shape(self) -> bool:
        """Whether input and output differ in shape, so that the unit cannot be moved."""
        return self.stride != 1 or self.in_channels != self.out_channels


NARROW = 8
"""With fewer input channels than this, oneDNN (torch 2.14, processors with AVX2 but not AVX-512)
writes past the end of its buffers in the backward pass of a strided 1x1 convolution."""


class Subsampled1x1(nn.Conv2d):
    """A strided 1x1 convolution, computed without a stride on every stride-th pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, K, H', W']."""
        x = x[:, :, :: self.stride[0], :: self.stride[1]]
        return functional.conv2d(x, self.weight, self.bias)


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, bias: bool = False
) -> nn.Conv2d:
    """A padded convolution: with stride 1, H and W do not change."""
    narrow = kernel == 1 and stride > 1 and in_channels < NARROW
    kind = Subsampled1x1 if narrow else nn.Conv2d
    return kind(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)


def bn_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


# --- h: shortcuts ------------------------------------------------------------------------------


class ZeroPadding(nn.Module):
    """Option A (He et al. 2015, section 4.2): every stride-th pixel, channels padded with zeros.

    If there are fewer output than input channels, as for some deleted layers of a plain network,
    the surplus channels are dropped.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, at_end: bool = False
    ) -> None:
        """
        Args:
            at_end: put all zeros after the channels, as in fb.resnet.torch, instead of half of them
                before.
        """
        super().__init__()
        self.missing = out_channels - in_channels
        self.before = self.missing // 2 if self.missing > 0 and not at_end else 0
        """Zeros before the channels."""
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.before, self.missing - self.before))


class Scale(nn.Module):
    """Constant scaling, h(x) = lambda x (paper 1, equation 6)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Gate(nn.Module):
    """g(x) = sigmoid(W x + b), W a 1x1 convolution: [N, C, H, W] -> [N, C', H', W'] in (0, 1).

    One gate for each channel and position (paper 1, section 3.1).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, bias: float) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, 1, stride, bias=True)
        self.initial_bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x))


def make_shortcut(config: ModelConfig, place: Place) -> nn.Module:
    """h of a unit, without its gate: the identity, or its replacement."""
    ins, outs, stride = place.in_channels, place.out_channels, place.stride
    if config.shortcut == "convolution":
        return nn.Sequential(conv(ins, outs, 1, stride), nn.BatchNorm2d(outs))
    parts: list[nn.Module] = []
    if place.changes_shape:
        if config.stage_change == "zero_padding":
            parts.append(ZeroPadding(ins, outs, stride))
        else:
            parts.append(conv(ins, outs, 1, stride))
            if not is_preactivation(config):
                parts.append(nn.BatchNorm2d(outs))
    if config.shortcut == "scaling":
        parts.append(Scale(config.shortcut_scale))
    if config.shortcut == "dropout":
        parts.append(nn.Dropout(config.shortcut_dropout))
    if not parts:
        return nn.Identity()
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def is_preactivation(config: ModelConfig) -> bool:
    """Whether activations come before the weights: Figure 4 (d) and (e)."""
    return config.placement in ("relu_only_preactivation", "full_preactivation")


# --- F: residual branches ----------------------------------------------------------------------


def make_branch(config: ModelConfig, place: Place, *, activated: bool) -> nn.Sequential:
    """F of a unit: its convolutions, with BN and ReLU placed as in the configuration (Figure 4).

    Args:
        activated: the first activation of a pre-activation unit comes before both branches or is
            in the stem, so F begins with its first convolution.
    """
    ins, outs, stride = place.in_channels, place.out_channels, place.stride
    if config.branch == "basic":
        convs = [conv(ins, outs, 3, stride), conv(outs, outs, 3)]
    elif config.branch == "one_layer":
        convs = [conv(ins, outs, 3, stride)]
    else:
        inner = outs // EXPANSION
        first, middle = (1, stride) if config.stride_in == "3x3" else (stride, 1)
        convs = [
            conv(ins, inner, 1, first),
            conv(inner, inner, 3, middle),
            conv(inner, outs, 1),
        ]
    layers: list[nn.Module] = []
    for position, convolution in enumerate(convs):
        is_first, is_last = position == 0, position == len(convs) - 1
        width_in, width_out = convolution.in_channels, convolution.out_channels
        if config.placement == "full_preactivation":
            if not (is_first and activated):
                layers += bn_relu(width_in)
            layers.append(convolution)
        elif config.placement == "relu_only_preactivation":
            if not (is_first and activated):
                layers.append(nn.ReLU())
            layers += [convolution, nn.BatchNorm2d(width_out)]
        else:
            layers.append(convolution)
            if not is_last or config.placement != "bn_after_addition":
                layers.append(nn.BatchNorm2d(width_out))
            if not is_last or config.placement == "relu_before_addition":
                layers.append(nn.ReLU())
    if config.shortcut == "scaling" and config.residual_scale != 1.0:
        layers.append(Scale(config.residual_scale))
    return nn.Sequential(*layers)


# --- f: after the addition ---------------------------------------------------------------------


def make_after_addition(config: ModelConfig, channels: int) -> nn.Module:
    """f of a unit (Figure 4): ReLU, BN-ReLU, or the identity."""
    if config.placement == "original":
        return nn.ReLU()
    if config.placement == "bn_after_addition":
        return bn_relu(channels)
    return nn.Identity()


# --- the unit ----------------------------------------------------------------------------------


class Unit(nn.Module):
    """The interface that studies use: a place, two branches, and f after their sum."""

    place: Place
    F: nn.Module
    f: nn.Module
    survival: float = 1.0
    """The probability that F was active in training, by which F is multiplied in evaluation (Huang
    et al. 2016, arXiv:1603.09382, equation 5)."""

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(h(x), F(x)), both [N, C', H', W'], before the addition."""
        raise NotImplementedError

    def shortcut(self, x: Tensor) -> Tensor:
        """h(x) alone, [N, C', H', W'], without computing F."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']: equations (1) and (2)."""
        shortcut, residual = self.branches(x)
        return self.after(shortcut + residual)

    def residual_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of F."""
        return self.F.parameters()

    def skip(self, x: Tensor) -> Tensor:
        """f(h(x)): the unit with its residual branch deleted."""
        return self.after(self.shortcut(x))

    def after(self, y: Tensor) -> Tensor:
        """f(y)."""
        return self.f(y)  # type: ignore[no-any-return]


class ResidualUnit(Unit):
    """A residual unit with any h, F and f of paper 1.

    `pre` is an activation before both branches, and x below is its output. In most units it is the
    identity (`make_unit`).

    With gates (section 3.1), g = sigmoid(Wx + b):
    exclusive gating      y = (1 - g) h(x) + g F(x)
    shortcut-only gating  y = (1 - g) h(x) + F(x)
    """

    def __init__(
        self,
        place: Place,
        *,
        pre: nn.Module,
        h: nn.Module,
        F: nn.Module,
        f: nn.Module,
        gate: Gate | None = None,
        gates_residual: bool = False,
    ) -> None:
        super().__init__()
        self.place = place
        self.pre, self.h, self.F, self.f, self.gate = pre, h, F, f, gate
        self.gates_residual = gates_residual

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.pre(x)
        residual = self.F(x)
        if not self.training and self.survival != 1.0:
            residual = self.survival * residual
        if self.gate is None:
            return self.h(x), residual
        g = self.gate(x)
        return (1 - g) * self.h(x), g * residual if self.gates_residual else residual

    def shortcut(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        if self.gate is None:
            return self.h(x)  # type: ignore[no-any-return]
        return (1 - self.gate(x)) * self.h(x)  # type: ignore[no-any-return]


def make_unit(config: ModelConfig, place: Place, *, first_of_network: bool) -> ResidualUnit:
    """The unit of a configuration.

    In a pre-activation network, the first unit and all units that change the shape have their first
    activation before both branches (He et al. 2016, appendix; resnet-pre-act.lua in the authors'
    KaimingHe/resnet-1k-layers). An ImageNet stem ends with BN, ReLU and max pooling, so the first
    unit has no pre-activation at all (`no_preact` in models/preresnet.lua of facebookarchive's
    fb.resnet.torch, the repository of the code and of the trained ResNet-200 in paper 1's Table 5).
    """
    by_stem = first_of_network and config.stem == "imagenet"
    shares = is_preactivation(config) and (first_of_network or place.changes_shape) and not by_stem
    pre: nn.Module = nn.Identity()
    if shares:
        full = config.placement == "full_preactivation"
        pre = bn_relu(place.in_channels) if full else nn.ReLU()
    h = make_shortcut(config, place)
    F = make_branch(config, place, activated=shares or by_stem)
    f = make_after_addition(config, place.out_channels)
    gate = None
    if config.shortcut in ("exclusive_gating", "shortcut_only_gating"):
        gate = Gate(place.in_channels, place.out_channels, place.stride, config.gate_bias)
    return ResidualUnit(
        place,
        pre=pre,
        h=h,
        F=F,
        f=f,
        gate=gate,
        gates_residual=config.shortcut == "exclusive_gating",
    )


class DeletedUnit(Unit):
    """A unit with its residual branch deleted: F is zero, h and f remain (paper 2, section 4.1).

    Args:
        unit: the intact unit, whose weights are shared.
    """

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.place, self.unit, self.f = unit.place, unit, unit.f

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shortcut = self.unit.shortcut(x)
        return shortcut, 0.0 * shortcut  # part of the graph, with zero gradient

    def shortcut(self, x: Tensor) -> Tensor:
        return self.unit.shortcut(x)

    def residual_parameters(self) -> Iterator[nn.Parameter]:
        return iter(())

    def after(self, y: Tensor) -> Tensor:
        return self.unit.after(y)


class PlainUnit(Unit):
    """A layer of a plain network, x_next = F(x): a unit without a shortcut.

    Deleting it (paper 2, Figure 3) replaces it by the identity, or by the zero padding of option A
    if the shapes differ; a pooling that belongs to the layer remains.
    """

    def __init__(self, place: Place, layer: nn.Module, bypass: nn.Module) -> None:
        super().__init__()
        self.place = place
        self.F = layer
        self.bypass = bypass
        self.f: nn.Module = nn.Identity()

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        residual = self.F(x)
        return torch.zeros_like(residual), residual

    def shortcut(self, x: Tensor) -> Tensor:
        return self.bypass(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.F(x)  # type: ignore[no-any-return]
