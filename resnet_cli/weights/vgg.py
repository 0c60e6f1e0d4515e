"""Third-party VGG networks: convolutions in `features.N`, and a classifier of linear layers.

torchvision (vgg*_bn), kuangliu/pytorch-cifar (VGG) and chenyaofo/pytorch-cifar-models number the
layers of one nn.Sequential: a convolution, its batch norm and its ReLU, and a pooling layer where a
number is missing. Each convolution and each hidden linear layer becomes a unit without a shortcut,
which can be deleted as in paper 2's Figure 3 (Veit et al. 2016, arXiv:1605.06431).
"""

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from resnet_cli.models.network import Network
from resnet_cli.models.units import Place, PlainUnit, ZeroPadding
from resnet_cli.models.vgg import Classifier
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.assumptions import Assumptions

_CONVOLUTION = re.compile(r"features\.(\d+)\.weight")
_CLASSIFIER = re.compile(r"(?:classifier|fc|linear)(?:\.(\d+))?\.weight")
M = TypeVar("M", bound=nn.Module)


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
    units: list[PlainUnit] = []
    convs = sorted(
        int(match[1])
        for name, tensor in tensors.items()
        if (match := _CONVOLUTION.fullmatch(name)) and tensor.ndim == 4
    )
    used: set[str] = set()
    stage, number, channels = 1, 0, 3
    last_pool = assume.value("last_pool", "max", ("max", "none"), ("max", "none"))
    for index, at in enumerate(convs):
        conv, norm = f"features.{at}", f"features.{at + 1}"
        has_norm = f"{norm}.running_mean" in tensors
        width = 3 if has_norm else 2
        is_last = index == len(convs) - 1
        gap = 0 if is_last else convs[index + 1] - at - width
        if gap not in (0, 1):
            raise UserError(
                f"{source}: {conv}: {convs[index + 1] - at} layers before the next convolution; "
                "expected a batch norm, a ReLU and a pooling layer"
            )
        pools = gap == 1 or (is_last and last_pool == "max")
        weight = tensors[f"{conv}.weight"]
        if weight.shape[1] != channels or weight.shape[2:] != (3, 3):
            raise UserError(
                f"{source}: {conv}.weight: has shape {list(weight.shape)}; expected "
                f"[C, {channels}, 3, 3]"
            )
        outs = int(weight.shape[0])
        layer: list[nn.Module] = [
            _filled(nn.Conv2d(channels, outs, 3, padding=1), conv, tensors, used)
        ]
        if has_norm:
            layer.append(_filled(nn.BatchNorm2d(outs), norm, tensors, used))
        layer.append(nn.ReLU())
        bypass: list[nn.Module] = [ZeroPadding(channels, outs, 1)] if channels != outs else []
        if pools:
            layer.append(nn.MaxPool2d(2))
            bypass.append(nn.MaxPool2d(2))
        number += 1
        place = Place(len(units), stage, number, channels, outs, 2 if pools else 1)
        units.append(PlainUnit(place, nn.Sequential(*layer), nn.Sequential(*bypass)))
        channels = outs
        if pools:
            stage, number = stage + 1, 0
    head = _linear_units(tensors, source, units, channels, used)
    unused = sorted(set(tensors) - used - {n for n in tensors if n.endswith("num_batches_tracked")})
    if unused:
        raise UserError(f"{source}: {unused[0]}: not part of a VGG with these layers")
    network = Network(nn.Identity(), units, head)
    return network.eval().to(memory_format=torch.channels_last)


def _linear_units(
    tensors: Mapping[str, Tensor],
    source: str,
    units: list[PlainUnit],
    channels: int,
    used: set[str],
) -> nn.Module:
    """Append the hidden linear layers to `units` and return the classifier."""
    names = sorted(
        (int(match[1] or 0), name.removesuffix(".weight"))
        for name in tensors
        if (match := _CLASSIFIER.fullmatch(name))
    )
    if not names:
        raise UserError(f"{source}: has no classifier; save the whole network")
    layers = []
    for _, name in names:
        weight = tensors[f"{name}.weight"]
        if weight.ndim != 2:
            raise UserError(
                f"{source}: {name}.weight: has shape {list(weight.shape)}; expected a matrix"
            )
        layers.append(_filled(nn.Linear(weight.shape[1], weight.shape[0]), name, tensors, used))
    side = round((layers[0].in_features / channels) ** 0.5)
    if side * side * channels != layers[0].in_features:
        raise UserError(
            f"{source}: {names[0][1]}.weight: takes {layers[0].in_features} values, which is not "
            f"{channels} channels of a square"
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


def _filled(module: M, name: str, tensors: Mapping[str, Tensor], used: set[str]) -> M:
    """The module, filled with the tensors of that name; a missing bias becomes zero.

    Raises:
        UserError: a tensor is missing or has the wrong shape.
    """
    own = module.state_dict()
    given = {leaf: tensors[f"{name}.{leaf}"] for leaf in own if f"{name}.{leaf}" in tensors}
    for leaf in own:
        if leaf not in given and leaf != "num_batches_tracked":
            if leaf != "bias" or isinstance(module, nn.BatchNorm2d):
                raise UserError(f"{name}.{leaf}: is missing")
            given[leaf] = torch.zeros_like(own[leaf])
    for leaf, tensor in given.items():
        if tensor.shape != own[leaf].shape:
            raise UserError(
                f"{name}.{leaf}: has shape {list(tensor.shape)}; expected {list(own[leaf].shape)}"
            )
    used |= {f"{name}.{leaf}" for leaf in given}
    module.load_state_dict(own | given)
    return module
