"""Build a `Network` with its weights from the plan of a third-party network."""

import torch
from torch import Tensor, nn

from resnet_cli.models.network import Head, Network
from resnet_cli.models.units import (
    NARROW,
    Place,
    ResidualUnit,
    Subsampled1x1,
    ZeroPadding,
)
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.assumptions import Assumptions
from resnet_cli.weights.plan import Layer, Plan, UnitPlan

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
}
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue for conversion to grey (ITU-R BT.601)."""


class Grey(nn.Module):
    """[N, 3, H, W] -> [N, 1, H, W], for a network that takes one-channel images."""

    def forward(self, x: Tensor) -> Tensor:
        weights = x.new_tensor(GREY)[:, None, None]
        return (x * weights).sum(dim=1, keepdim=True)


def assemble(plan: Plan, source: str, assume: Assumptions) -> Network:
    """The network of a plan, in evaluation mode and channels_last format.

    Raises:
        UserError: an assumption is not valid for the network.
    """
    builder = _Builder(plan, source, assume)
    network = Network(builder.stem(), builder.units(), builder.head())
    return network.eval().to(memory_format=torch.channels_last)


class _Builder:
    """Builds the parts of one network and makes the assumptions that they need."""

    def __init__(self, plan: Plan, source: str, assume: Assumptions) -> None:
        self.plan, self.source, self.assume = plan, source, assume
        likely = ("relu", "silu", "gelu")
        self.activation = assume.value("activation", "relu", tuple(_ACTIVATIONS), likely)
        self.epsilon = assume.number("epsilon", "1e-05")

    # --- layers -----------------------------------------------------------------------------------

    def act(self) -> nn.Module:
        return _ACTIVATIONS[self.activation]()

    def conv(self, layer: Layer, ins: int, stride: int = 1) -> nn.Conv2d:
        """A padded convolution: with stride 1, H and W do not change."""
        kernel, groups = layer.kernel, ins // layer.ins
        narrow = kernel == 1 and stride > 1 and ins < NARROW
        kind = Subsampled1x1 if narrow else nn.Conv2d
        has_bias = "bias" in layer.tensors
        made = kind(
            ins, layer.outs, kernel, stride, kernel // 2, 1, groups, has_bias, device="meta"
        )
        _fill(made, layer)
        return made

    def norm(self, layer: Layer) -> nn.BatchNorm2d:
        made = nn.BatchNorm2d(layer.outs, eps=self.epsilon, device="meta")
        _fill(made, layer)
        return made

    # --- parts ------------------------------------------------------------------------------------

    def stem(self) -> nn.Sequential:
        plan, assume = self.plan, self.assume
        first = plan.stem[0][0]
        large = first.kernel >= 7 or len(plan.stem) > 1
        usual = "2" if large else "1"
        stride = assume.whole_number("stem_stride", usual)
        pools = assume.value(
            "stem_pool",
            "max" if large else "none",
            ("max", "none"),
            ("max", "none") if large else (),
        )
        layers: list[nn.Module] = []
        if plan.channels == 1:
            layers.append(Grey())
        elif plan.channels != 3:
            raise UserError(
                f"{self.source}: {first.name}.weight: takes images with {plan.channels} channels; "
                "only networks for 1 or 3 can be loaded"
            )
        ins = plan.channels
        for index, (conv, norm) in enumerate(plan.stem):
            layers.append(self.conv(conv, ins, stride if index == 0 else 1))
            if norm is not None:
                layers += [self.norm(norm), self.act()]
            ins = conv.outs
        if pools == "max":
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        return nn.Sequential(*layers)

    def units(self) -> list[ResidualUnit]:
        shared = "none"
        if self.plan.is_preactivation:
            kinds = ("projections", "stages", "none")
            shared = self.assume.value("shared_activation", "projections", kinds, kinds)
        units: list[ResidualUnit] = []
        ins, stage, number = self.plan.stem[-1][0].outs, 0, 0
        for plan in self.plan.units:
            stage, number = (stage + 1, 1) if plan.starts_stage else (stage, number + 1)
            place = Place(len(units), stage, number, ins, plan.outs, plan.stride)
            units.append(self.unit(plan, place, shared))
            ins = plan.outs
        return units

    def unit(self, plan: UnitPlan, place: Place, shared: str) -> ResidualUnit:
        convs = self.branch_convs(plan, place)
        layers: list[nn.Module] = []
        if not self.plan.is_preactivation:
            for index, (conv, norm) in enumerate(zip(convs, plan.norms, strict=True)):
                layers += [conv, self.norm(norm)]
                if index < len(convs) - 1:
                    layers.append(self.act())
            F, f, pre = nn.Sequential(*layers), self.act(), nn.Identity()
            return ResidualUnit(place, pre=pre, h=self.shortcut(plan, place), F=F, f=f)
        activations = [nn.Sequential(self.norm(norm), self.act()) for norm in plan.norms]
        if len(activations) < len(convs):  # the first activation is in the stem
            activations.insert(0, nn.Sequential())
        starts_shared = (shared == "stages" and plan.starts_stage) or (
            shared == "projections" and bool(plan.projection)
        )
        pre_: nn.Module = activations.pop(0) if starts_shared else nn.Identity()
        if starts_shared:
            activations.insert(0, nn.Sequential())
        for activation, conv in zip(activations, convs, strict=True):
            layers += [*activation, conv]
        F = nn.Sequential(*layers)
        h = self.shortcut(plan, place)
        return ResidualUnit(place, pre=pre_, h=h, F=F, f=nn.Identity())

    def branch_convs(self, plan: UnitPlan, place: Place) -> list[nn.Conv2d]:
        """The convolutions of F, one of which has the unit's stride."""
        kernels = [layer.kernel for layer in plan.convs]
        position = 0
        if any(unit.stride > 1 for unit in self.plan.units) and len(kernels) > 1:
            known = {f"conv{number}": number - 1 for number in range(1, len(kernels) + 1)}
            names, usual = tuple(known), "conv1"
            others: tuple[str, ...] = ()
            if kernels == [1, 3, 1]:
                known = {"3x3": 1, "1x1": 0}
                names, usual, others = ("3x3", "1x1"), "3x3", ("3x3", "1x1")
            position = known[self.assume.value("stride_in", usual, names, others)]
        found, ins = [], place.in_channels
        for index, layer in enumerate(plan.convs):
            found.append(self.conv(layer, ins, place.stride if index == position else 1))
            ins = layer.outs
        return found

    def shortcut(self, plan: UnitPlan, place: Place) -> nn.Module:
        if plan.projection:
            conv, *rest = plan.projection
            layers: list[nn.Module] = []
            stride = place.stride
            if plan.pools_shortcut and stride > 1:
                layers.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
                stride = 1
            layers.append(self.conv(conv, place.in_channels, stride))
            layers += [self.norm(norm) for norm in rest]
            return nn.Sequential(*layers)
        if not place.changes_shape:
            return nn.Identity()
        missing = place.out_channels - place.in_channels
        if missing < 0:
            raise UserError(
                f"{self.source}: {plan.name}: has fewer output than input channels and no "
                "projection, which is not supported"
            )
        if missing == 0:
            return ZeroPadding(place.in_channels, place.out_channels, place.stride)
        where = self.assume.value("zero_padding", "both", ("both", "end"), ("both", "end"))
        return ZeroPadding(
            place.in_channels, place.out_channels, place.stride, at_end=where == "end"
        )

    def head(self) -> Head:
        plan = self.plan
        last: nn.Module = nn.Identity()
        if plan.last is not None:
            kind = self.assume.value("last_activation", "same", ("same", "none"), ("same", "none"))
            last = nn.Sequential(self.norm(plan.last), *([self.act()] if kind == "same" else []))
        made = Head(last, plan.head.ins, plan.head.outs)
        made.fc.weight = nn.Parameter(_float(plan.head.weight.flatten(1)))
        bias = plan.head.tensors.get("bias")
        made.fc.bias = nn.Parameter(
            _float(bias) if bias is not None else made.fc.weight.new_zeros(plan.head.outs)
        )
        return made


def _float(tensor: Tensor) -> Tensor:
    return tensor.detach().float().clone()


def _fill(module: nn.Module, layer: Layer) -> None:
    """Give a module on the meta device the tensors of a layer."""
    for leaf, tensor in layer.tensors.items():
        if leaf == "num_batches_tracked":
            continue
        value = _float(tensor)
        if leaf in ("weight", "bias"):
            setattr(module, leaf, nn.Parameter(value))
        else:
            module.register_buffer(leaf, value)
    if isinstance(module, nn.BatchNorm2d):
        counted = layer.tensors.get("num_batches_tracked")
        count = torch.zeros((), dtype=torch.int64, device=layer.weight.device)
        module.register_buffer(
            "num_batches_tracked", count if counted is None else counted.reshape(()).long().clone()
        )
