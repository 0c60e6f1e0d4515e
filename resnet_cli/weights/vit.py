"""Third-party Vision Transformers, with the keys of torchvision and timm (`vit_*`).

A pre-norm Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) has two units
y = x + F(x) in each layer: F is layer norm and attention, or layer norm and a two-layer perceptron.
Activations are [N, T, D]: T tokens of D channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnet_cli.models.network import Network
from resnet_cli.models.units import Place, ResidualUnit
from resnet_cli.runtime.errors import UserError
from resnet_cli.weights.assumptions import Assumptions
from resnet_cli.weights.layers import LayerReader

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


def is_vit(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a Vision Transformer."""
    return any(f"{names.patches}.weight" in tensors for names in (TIMM, TORCHVISION))


def assemble_vit(tensors: Mapping[str, Tensor], source: str, assume: Assumptions) -> Network:
    """The Vision Transformer of a state dict, in evaluation mode, with two units for each layer.

    Raises:
        UserError: a key is missing or unexpected, or a shape is wrong.
    """
    names = TIMM if f"{TIMM.patches}.weight" in tensors else TORCHVISION
    reader = LayerReader(tensors, source, assume.number("epsilon", "1e-06"))
    proj = reader.conv(names.patches, 3, of_patches=True)
    width = proj.out_channels
    token = reader.optional(names.token, 1, 1, width)
    position = reader.take(names.position, 1, None, width)
    beyond_square = position.shape[1] - math.isqrt(position.shape[1]) ** 2
    if beyond_square not in ((0,) if token is None else (0, 1)):
        why = f"has shape {list(position.shape)}; expected the positions of a square of patches"
        reader.refuse(names.position, why)
    stem = Patches(proj, token, position)
    heads = assume.whole_number("attention_heads", str(max(1, width // HEAD_WIDTH)))
    if width % heads:
        raise UserError(f"--model attention_heads={heads}: does not divide {width} channels")
    pooled = assume.value("token", "class" if stem.token is not None else "mean", ("class", "mean"))
    units: list[ResidualUnit] = []
    for layer in range(_count(tensors, names.norm1)):
        at = [text.format(layer) for text in (names.norm1, *names.qkv, names.out, names.norm2)]
        qkv = reader.linear_of(at[1], at[2], width, 3 * width)
        attention = Attention(qkv, reader.linear(at[3], width, width), heads)
        first = reader.linear(names.mlp[0].format(layer), width)
        second = reader.linear(names.mlp[1].format(layer), first.out_features, width)
        halves: list[Sequence[nn.Module]] = [
            (reader.layer_norm(at[0], width), attention),
            (reader.layer_norm(at[4], width), first, nn.GELU(), second),
        ]
        for half, scale in zip(halves, names.scales, strict=True):
            gamma = reader.optional(scale.format(layer), width)
            scaled = [] if gamma is None else [LayerScale(gamma)]
            place = Place(len(units), 1, len(units) + 1, width, width, 1)
            pre, h, f = nn.Identity(), nn.Identity(), nn.Identity()
            F = nn.Sequential(*half, *scaled)
            units.append(ResidualUnit(place, pre=pre, h=h, F=F, f=f))
    last = "fc_norm" if "fc_norm.weight" in tensors else names.last
    head = TokenHead(
        reader.layer_norm(last, width), reader.linear(names.head, width), pooled == "mean"
    )
    reader.check_all_used()
    return Network(stem, units, head).eval()


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """The number of layers, which are numbered from 0 without gaps."""
    number = 0
    while f"{pattern.format(number)}.weight" in tensors:
        number += 1
    return number
