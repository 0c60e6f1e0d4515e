"""Third-party Vision Transformers and ConvNeXts: units y = x + F(x) in networks other than ResNets.

A pre-norm Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) has two units in each
layer: F is layer norm and attention, or layer norm and a two-layer perceptron. Activations are
[N, T, D]: T tokens of D channels. A unit of ConvNeXt (Liu et al. 2022, arXiv:2201.03545) is a
depthwise 7x7 convolution, layer norm and a perceptron; its downsampling layers come before both
branches of the next unit. Keys are those of torchvision and timm (`vit_*`, `convnext_*`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.models.network import Network
from resnet_cli.models.units import Place, ResidualUnit
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.assumptions import Assumptions

HEAD_WIDTH = 64
"""The usual number of channels of an attention head."""


@dataclass(frozen=True)
class _Names:
    """The names of a Vision Transformer's weights; {} is replaced by the layer's number."""

    patches: str
    token: str
    position: str
    norm1: str
    qkv: tuple[str, str]
    """Weight and bias of the combined queries, keys and values."""
    out: str
    norm2: str
    mlp: tuple[str, str]
    last: str
    head: str
    scales: tuple[str, str] = ("", "")
    """LayerScale factors of attention and perceptron."""


TIMM = _Names(
    "patch_embed.proj",
    "cls_token",
    "pos_embed",
    "blocks.{}.norm1",
    ("blocks.{}.attn.qkv.weight", "blocks.{}.attn.qkv.bias"),
    "blocks.{}.attn.proj",
    "blocks.{}.norm2",
    ("blocks.{}.mlp.fc1", "blocks.{}.mlp.fc2"),
    "norm",
    "head",
    ("blocks.{}.ls1.gamma", "blocks.{}.ls2.gamma"),
)
_LAYER = "layers.encoder_layer_{}"
TORCHVISION = _Names(
    "conv_proj",
    "class_token",
    "pos_embedding",
    _LAYER + ".ln_1",
    (_LAYER + ".self_attention.in_proj_weight", _LAYER + ".self_attention.in_proj_bias"),
    _LAYER + ".self_attention.out_proj",
    _LAYER + ".ln_2",
    (_LAYER + ".mlp.0", _LAYER + ".mlp.3"),
    "ln",
    "heads.head",
)


class Attention(nn.Module):
    """Multi-head self-attention: [N, T, D] -> [N, T, D]."""

    def __init__(self, qkv: nn.Linear, out: nn.Linear, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = qkv, out, heads

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, d))  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    """A learned factor for each channel, in the last dimension."""

    def __init__(self, gamma: Tensor) -> None:
        super().__init__()
        self.gamma = nn.Parameter(gamma)

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class Patches(nn.Module):
    """Images [N, 3, H, W] -> tokens [N, T, D], with position embeddings."""

    def __init__(self, proj: nn.Conv2d, token: Tensor | None, position: Tensor) -> None:
        super().__init__()
        self.proj, self.position = proj, nn.Parameter(position)
        self.token = None if token is None else nn.Parameter(token)
        rows = math.isqrt(position.shape[1])
        self.places_token = token is not None and rows**2 != position.shape[1]
        """Whether the class token has a position embedding; that of DeiT III has none."""
        self.side = rows * proj.kernel_size[0]
        """Width and height of the images in pixels."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.side or images.shape[-2] != self.side:
            raise UserError(
                f"this Vision Transformer needs images of {self.side}x{self.side} pixels, not "
                f"{images.shape[-2]}x{images.shape[-1]}"
            )
        x = self.proj(images).flatten(2).transpose(1, 2)
        if self.token is None:
            found: Tensor = x + self.position
            return found
        token = self.token.expand(len(x), -1, -1)
        if self.places_token:
            return torch.cat([token, x], dim=1) + self.position
        return torch.cat([token, x + self.position], dim=1)


class TokenHead(nn.Module):
    """Layer norm, the class token or the mean of all tokens, and the classifier."""

    def __init__(self, norm: nn.LayerNorm, fc: nn.Linear, pools: bool) -> None:
        super().__init__()
        self.norm, self.fc, self.pools = norm, fc, pools

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.fc(x.mean(dim=1) if self.pools else x[:, 0])  # type: ignore[no-any-return]


def is_transformer(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a Vision Transformer."""
    return any(f"{names.patches}.weight" in tensors for names in (TIMM, TORCHVISION))


class _Reader:
    """Creates layers from tensors and records which tensors were used."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str, epsilon: float) -> None:
        self.tensors, self.source, self.epsilon = tensors, source, epsilon
        self.used: set[str] = set()

    def take(self, key: str) -> Tensor:
        if key not in self.tensors:
            self.refuse(key, "is missing")
        self.used.add(key)
        return self.tensors[key].detach().float().clone()

    def optional(self, key: str) -> Tensor | None:
        return self.take(key) if key and key in self.tensors else None

    def refuse(self, key: str, why: str) -> NoReturn:
        raise UserError(f"{self.source}: {key[:80]}: {why}")

    def linear(self, name: str) -> nn.Linear:
        return self.linear_of(f"{name}.weight", f"{name}.bias")

    def linear_of(self, weight: str, bias: str) -> nn.Linear:
        w, b = self.take(weight), self.optional(bias)
        w = w.flatten(1) if w.shape[2:] == (1, 1) else w  # a 1x1 convolution
        if w.ndim != 2 or (b is not None and b.shape != w.shape[:1]):
            self.refuse(weight, f"has shape {list(w.shape)}; expected a linear layer")
        made = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device="meta")
        made.weight = nn.Parameter(w)
        made.bias = None if b is None else nn.Parameter(b)  # type: ignore[assignment]
        return made

    def norm(self, name: str, kind: type[nn.LayerNorm] = nn.LayerNorm) -> nn.LayerNorm:
        w, b = self.take(f"{name}.weight"), self.take(f"{name}.bias")
        made = kind(w.shape[0], eps=self.epsilon)
        made.weight, made.bias = nn.Parameter(w), nn.Parameter(b)
        return made

    def conv(self, name: str, stride: int, padding: int = 0, groups: int = 1) -> nn.Conv2d:
        w, b = self.take(f"{name}.weight"), self.optional(f"{name}.bias")
        if w.ndim != 4 or w.shape[2] != w.shape[3]:
            self.refuse(f"{name}.weight", f"has shape {list(w.shape)}; expected a convolution")
        made = nn.Conv2d(
            w.shape[1] * groups, w.shape[0], w.shape[2], stride, padding, 1, groups, b is not None
        )
        made.weight = nn.Parameter(w)
        made.bias = None if b is None else nn.Parameter(b)
        return made

    def check_all_used(self) -> None:
        for key in self.tensors:
            if key not in self.used:
                self.refuse(key, "not part of a network of this kind that can be loaded")


def _unit(index: int, stage: int, number: int, width: int, F: nn.Module) -> ResidualUnit:
    place = Place(index, stage, number, width, width, 1)
    identity = [nn.Identity() for _ in range(3)]
    return ResidualUnit(place, pre=identity[0], h=identity[1], F=F, f=identity[2])


def assemble_transformer(
    tensors: Mapping[str, Tensor], source: str, assume: Assumptions
) -> Network:
    """The Vision Transformer of a state dict, in evaluation mode, with two units for each layer.

    Raises:
        UserError: a key is missing or unexpected, or a shape is wrong.
    """
    names = TIMM if f"{TIMM.patches}.weight" in tensors else TORCHVISION
    reader = _Reader(tensors, source, float(assume.value("epsilon", "1e-06", ())))
    patch = tensors[f"{names.patches}.weight"].shape[-1]
    stem = Patches(
        reader.conv(names.patches, patch), reader.optional(names.token), reader.take(names.position)
    )
    width = stem.proj.out_channels
    heads = _positive_integer(assume, "attention_heads", max(1, width // HEAD_WIDTH))
    if width % heads:
        raise UserError(f"--model attention_heads={heads}: does not divide {width} channels")
    pooled = assume.value("token", "class" if stem.token is not None else "mean", ("class", "mean"))
    units: list[ResidualUnit] = []
    for layer in range(_count(tensors, names.norm1)):
        at = [text.format(layer) for text in (names.norm1, *names.qkv, names.out, names.norm2)]
        attention = Attention(reader.linear_of(at[1], at[2]), reader.linear(at[3]), heads)
        first, second = (reader.linear(text.format(layer)) for text in names.mlp)
        halves: list[Sequence[nn.Module]] = [
            (reader.norm(at[0]), attention),
            (reader.norm(at[4]), first, nn.GELU(), second),
        ]
        for half, scale in zip(halves, names.scales, strict=True):
            gamma = reader.optional(scale.format(layer))
            scaled = [] if gamma is None else [LayerScale(gamma)]
            F = nn.Sequential(*half, *scaled)
            units.append(_unit(len(units), 1, len(units) + 1, width, F))
    last = "fc_norm" if "fc_norm.weight" in tensors else names.last
    head = TokenHead(reader.norm(last), reader.linear(names.head), pooled == "mean")
    reader.check_all_used()
    return Network(stem, units, head).eval()


def _positive_integer(assume: Assumptions, key: str, usual: int) -> int:
    text = assume.value(key, str(usual), ())
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--model {key}={text}: must be an integer above 0")
    return int(text)


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """The number of layers, which are numbered from 0 without gaps."""
    number = 0
    while f"{pattern.format(number)}.weight" in tensors:
        number += 1
    return number


# --- ConvNeXt ------------------------------------------------------------------------------------


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
    reader = _Reader(tensors, source, float(assume.value("epsilon", "1e-06", ())))
    first = tensors["features.0.0.weight"].shape[-1] if "features.0.0.weight" in tensors else 4
    stem = nn.Sequential(
        reader.conv("features.0.0", first), reader.norm("features.0.1", LayerNorm2d)
    )
    width = tensors["features.0.0.weight"].shape[0]
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
            down = reader.conv(f"{below}.1", 2)
            pre = nn.Sequential(reader.norm(f"{below}.0", LayerNorm2d), down)
            stride, width = 2, down.out_channels
        kernel = tensors[f"{name}.block.0.weight"].shape[-1]
        layers = [
            reader.conv(f"{name}.block.0", 1, kernel // 2, groups=width),
            reader.norm(f"{name}.block.2"),
            reader.linear(f"{name}.block.3"),
            nn.GELU(),
            reader.linear(f"{name}.block.5"),
        ]
        place = Place(len(units), (part + 1) // 2, number + 1, before, width, stride)
        branch = ConvNextBranch(layers, reader.take(f"{name}.layer_scale").reshape(-1, 1, 1))
        units.append(ResidualUnit(place, pre=pre, h=nn.Identity(), F=branch, f=nn.Identity()))
    head = ConvNextHead(reader.norm("classifier.0", LayerNorm2d), reader.linear("classifier.2"))
    reader.check_all_used()
    return Network(stem, units, head).eval().to(memory_format=torch.channels_last)
