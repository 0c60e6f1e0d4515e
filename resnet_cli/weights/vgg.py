"""Third-party VGG networks: convolutions in `features.N`, and a classifier of linear layers.

torchvision (vgg*_bn), kuangliu/pytorch-cifar (VGG) and chenyaofo/pytorch-cifar-models number the
layers of one nn.Sequential: a convolution, its batch norm and its ReLU, and a pooling layer where a
number is missing. Each convolution and each hidden linear layer becomes a unit without a shortcut,
which can be deleted as in paper 2's Figure 3 (Veit et al. 2016, arXiv:1605.06431).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from resnet_cli.models.network import Network
from resnet_cli.models.units import Place, PlainUnit, ZeroPadding
from resnet_cli.models.vgg import Classifier
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.assumptions import Assumptions
from resnet_cli.weights.layers import LayerReader

_CONVOLUTION = re.compile(r"features\.(\d+)\.weight")
_CLASSIFIER = re.compile(r"(?:classifier|fc|linear)(?:\.(\d+))?\.weight")


def is_vgg(tensors: Mapping[str, Tensor]) -> bool:
    """Whether all weights are in `features.N` and a classifier."""
    names = [name for name in tensors if name.endswith(".weight")]
    known = [_CONVOLUTION.fullmatch(name) or _CLASSIFIER.fullmatch(name) for name in names]
    return bool(names) and all(known) and "features.0.weight" in tensors


class _Hidden(nn.Module):
    """A hidden linear layer with ReLU: [N, C, 1, 1] -> [N, C', 1, 1]."""

    def __init__(self, fc: nn.Linear, pool: nn.Module | None) -> None:
        super().__init__()
        self.fc = fc
        self.pool = nn.Identity() if pool is None else pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(self.pool(x).flatten(1)))[:, :, None, None]


class _Flat(nn.Module):
    """The classifier, applied to the flattened last activations."""

    def __init__(self, fc: nn.Linear, pool: nn.Module) -> None:
        super().__init__()
        self.pool, self.fc = pool, fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(x).flatten(1))  # type: ignore[no-any-return]


class _Bypass(nn.Module):
    """The replacement of a deleted hidden layer: its pooled input, with channels dropped or padded
    with zeros."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.padding = ZeroPadding(ins, outs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.padding(x.mean(dim=(2, 3), keepdim=True))  # type: ignore[no-any-return]


def assemble_vgg(tensors: Mapping[str, Tensor], source: str, assume: Assumptions) -> Network:
    """The VGG of a state dict, in evaluation mode and channels_last format.

    Raises:
        UserError: a layer is missing, unexpected or has the wrong shape.
    """
    reader = LayerReader(tensors, source)
    units: list[PlainUnit] = []
    convs = sorted(
        int(match[1])
        for name, tensor in tensors.items()
        if (match := _CONVOLUTION.fullmatch(name)) and tensor.ndim == 4
    )
    if not convs:
        reader.refuse("features.0.weight", "not a convolution")
    stage, number, channels = 1, 0, 3
    last_pool = assume.value("last_pool", "max", ("max", "none"), ("max", "none"))
    for index, at in enumerate(convs):
        name, norm = f"features.{at}", f"features.{at + 1}"
        has_norm = f"{norm}.running_mean" in tensors
        is_last = index == len(convs) - 1
        gap = 0 if is_last else convs[index + 1] - at - (3 if has_norm else 2)
        if gap not in (0, 1):
            raise UserError(
                f"{source}: {name}: {convs[index + 1] - at} layers before the next convolution; "
                "expected a batch norm, a ReLU and a pooling layer"
            )
        pools = gap == 1 or (is_last and last_pool == "max")
        conv = reader.conv(name, channels, kernel=3)
        outs = conv.out_channels
        layers: list[nn.Module] = [conv]
        if has_norm:
            layers.append(reader.batch_norm(norm, outs))
        layers.append(nn.ReLU())
        bypass: list[nn.Module] = [ZeroPadding(channels, outs, 1)] if channels != outs else []
        if pools:
            layers.append(nn.MaxPool2d(2))
            bypass.append(nn.MaxPool2d(2))
        number += 1
        place = Place(len(units), stage, number, channels, outs, 2 if pools else 1)
        units.append(PlainUnit(place, nn.Sequential(*layers), nn.Sequential(*bypass)))
        channels = outs
        if pools:
            stage, number = stage + 1, 0
    head = _linear_units(reader, units, channels)
    reader.check_all_used()
    network = Network(nn.Identity(), units, head)
    return network.eval().to(memory_format=torch.channels_last)


def _linear_units(reader: LayerReader, units: list[PlainUnit], channels: int) -> nn.Module:
    """Append the hidden linear layers to `units` and return the classifier."""
    names = sorted(
        (int(match[1] or 0), name.removesuffix(".weight"))
        for name in reader.tensors
        if (match := _CLASSIFIER.fullmatch(name))
    )
    if not names:
        raise UserError(f"{reader.source}: has no classifier; save the whole network")
    layers: list[nn.Linear] = []
    for _, name in names:
        layers.append(reader.linear(name, layers[-1].out_features if layers else None))
    side = round((layers[0].in_features / channels) ** 0.5)
    if side * side * channels != layers[0].in_features:
        reader.refuse(
            f"{names[0][1]}.weight",
            f"takes {layers[0].in_features} values, which is not {channels} channels of a square",
        )
    pool = nn.AdaptiveAvgPool2d(side)
    stage = units[-1].place.stage + 1
    for number, layer in enumerate(layers[:-1], 1):
        ins, outs = units[-1].place.out_channels, layer.out_features
        place = Place(len(units), stage, number, ins, outs, 1)
        hidden = _Hidden(layer, pool if number == 1 else None)
        units.append(PlainUnit(place, hidden, _Bypass(ins, outs)))
    if len(layers) == 1 and side == 1:
        made = Classifier(channels, layers[0].out_features)
        made.fc = layers[0]
        return made
    return _Flat(layers[-1], pool if len(layers) == 1 else nn.Identity())
