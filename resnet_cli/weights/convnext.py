"""Third-party ConvNeXts, with the keys of torchvision and timm (`convnext_*`).

In a unit y = x + F(x) of ConvNeXt (Liu et al. 2022, arXiv:2201.03545), F is a depthwise 7x7
convolution, layer norm and a two-layer perceptron. Downsampling layers come before both branches of
the next unit.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.models.network import Network
from resnet_cli.models.units import Place, ResidualUnit
from resnet_cli.weights.assumptions import Assumptions
from resnet_cli.weights.layers import LayerReader


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNextBranch(nn.Module):
    """F of a unit of ConvNeXt: [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, layers: Sequence[nn.Module], gamma: Tensor) -> None:
        super().__init__()
        self.depthwise, self.rest = layers[0], nn.Sequential(*layers[1:])
        self.gamma = nn.Parameter(gamma)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rest(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        found: Tensor = self.gamma * y
        return found


class ConvNextHead(nn.Module):
    """Global average pooling, layer norm, and the classifier."""

    def __init__(self, norm: nn.LayerNorm, fc: nn.Linear) -> None:
        super().__init__()
        self.norm, self.fc = norm, fc

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.norm(x.mean(dim=(2, 3), keepdim=True)).flatten(1)
        return self.fc(pooled)  # type: ignore[no-any-return]


_BLOCK = re.compile(r"features\.(\d+)\.(\d+)\.block\.0\.weight")
_TIMM_UNIT = re.compile(
    r"stages\.(\d+)\.blocks\.(\d+)\.(conv_dw|norm|mlp\.fc1|mlp\.fc2|gamma)\b(.*)"
)
_TIMM_DOWN = re.compile(r"stages\.(\d+)\.downsample\.(.*)")
_LAYERS = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}
_TIMM_PREFIXES = {
    "stem.": "features.0.",
    "head.norm.": "classifier.0.",
    "head.fc.": "classifier.2.",
}


def _torchvision_key(key: str) -> str:
    """The torchvision name of a key of timm's ConvNeXt; other keys do not change."""
    if match := _TIMM_UNIT.fullmatch(key):
        stage, number, layer, rest = match.groups()
        return f"features.{2 * int(stage) + 1}.{number}.{_LAYERS.get(layer, 'layer_scale')}{rest}"
    if match := _TIMM_DOWN.fullmatch(key):
        return f"features.{2 * int(match[1])}.{match[2]}"
    for start, theirs in _TIMM_PREFIXES.items():
        if key.startswith(start):
            return theirs + key.removeprefix(start)
    return key


def is_convnext(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of ConvNeXt in torchvision or timm."""
    return any(_BLOCK.fullmatch(_torchvision_key(key)) for key in tensors)


def assemble_convnext(tensors: Mapping[str, Tensor], source: str, assume: Assumptions) -> Network:
    """The ConvNeXt of a state dict, in evaluation mode.

    Raises:
        UserError: a key is missing or unexpected, or a shape is wrong.
    """
    tensors = {_torchvision_key(key): tensor for key, tensor in tensors.items()}
    reader = LayerReader(tensors, source, assume.number("epsilon", "1e-06"))
    first = reader.conv("features.0.0", 3, of_patches=True)
    width = first.out_channels
    stem = nn.Sequential(first, reader.layer_norm("features.0.1", width, LayerNorm2d))
    places = sorted(
        (int(match[1]), int(match[2])) for key in tensors if (match := _BLOCK.fullmatch(key))
    )
    units: list[ResidualUnit] = []
    for part, number in places:
        name = f"features.{part}.{number}"
        pre: nn.Module = nn.Identity()
        stride, before = 1, width
        if number == 0 and part > 1:
            below = f"features.{part - 1}"
            norm = reader.layer_norm(f"{below}.0", width, LayerNorm2d)
            down = reader.conv(f"{below}.1", width, kernel=2, of_patches=True)
            pre = nn.Sequential(norm, down)
            stride, width = 2, down.out_channels
        depthwise = reader.conv(f"{name}.block.0", width, width, groups=width)
        norm = reader.layer_norm(f"{name}.block.2", width)
        inner = reader.linear(f"{name}.block.3", width)
        outer = reader.linear(f"{name}.block.5", inner.out_features, width)
        layers = [depthwise, norm, inner, nn.GELU(), outer]
        place = Place(len(units), (part + 1) // 2, number + 1, before, width, stride)
        gamma = reader.take(f"{name}.layer_scale", width).reshape(-1, 1, 1)
        branch = ConvNextBranch(layers, gamma)
        units.append(ResidualUnit(place, pre=pre, h=nn.Identity(), F=branch, f=nn.Identity()))
    norm = reader.layer_norm("classifier.0", width, LayerNorm2d)
    head = ConvNextHead(norm, reader.linear("classifier.2", width))
    reader.check_all_used()
    return Network(stem, units, head).eval().to(memory_format=torch.channels_last)
