"""Third-party networks whose layers are not exactly torch's, or are shared between parts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

import resnet_cli as rc
from resnet_cli.models.adapt import Parts


class StandardizedConv2d(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019, arXiv:1903.10520)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / weight.std((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class ActivatedNorm2d(nn.BatchNorm2d):
    """A batch norm with its activation, like timm's BatchNormAct2d."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(super().forward(x))


class NegativeReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


class AddingSequential(nn.Sequential):
    """Its layers, and a shortcut around them."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def doubled(layer: nn.Module) -> nn.Module:
    """The layer with a hook that doubles its outputs."""
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return layer


def conv(kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(16, 16, kernel, padding=kernel // 2)


def norm(**options: Any) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(16, **options)


def branch(
    convolution: Callable[[], nn.Module] = conv,
    normalisation: Callable[[], nn.Module] = norm,
    relu: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Layers of which every neighbouring pair could be computed together."""
    return nn.Sequential(
        convolution(), normalisation(), relu(), convolution(), relu(), normalisation()
    )


def units_of(make_branch: Callable[[], nn.Module]) -> list[Parts]:
    return [Parts(F=make_branch()) for _ in range(2)]


def with_shared_relu(relu: nn.Module) -> list[Parts]:
    """All activations are one module, as in torchvision's blocks."""
    layers = (conv(1), norm(), relu, conv(), norm(), relu, conv(1))
    return [Parts(F=nn.Sequential(*layers), f=relu)]


def with_shared_convolution(shared: nn.Module) -> list[Parts]:
    branches = [(shared, norm(), nn.ReLU()), (shared, norm(), nn.ReLU(), shared)]
    return [Parts(F=nn.Sequential(*branch)) for branch in branches]


UNITS: dict[str, Callable[[], list[Parts]]] = {
    "weight standardisation": lambda: units_of(
        lambda: branch(lambda: StandardizedConv2d(16, 16, 3, padding=1))
    ),
    "norm with activation": lambda: units_of(
        lambda: branch(normalisation=lambda: ActivatedNorm2d(16))
    ),
    "other ReLU": lambda: units_of(lambda: branch(relu=NegativeReLU)),
    "parametrization": lambda: units_of(lambda: branch(lambda: weight_norm(conv()))),
    "hook of a convolution": lambda: units_of(lambda: branch(lambda: doubled(conv()))),
    "hook of a norm": lambda: units_of(lambda: branch(normalisation=lambda: doubled(norm()))),
    "hook of a ReLU": lambda: units_of(lambda: branch(relu=lambda: doubled(nn.ReLU()))),
    "other sequence": lambda: units_of(lambda: AddingSequential(*branch())),
    "norm without weights": lambda: units_of(
        lambda: branch(normalisation=lambda: norm(affine=False))
    ),
    "norm without statistics": lambda: units_of(
        lambda: branch(normalisation=lambda: norm(track_running_stats=False))
    ),
    "shared ReLU": lambda: with_shared_relu(nn.ReLU()),
    "shared convolution": lambda: with_shared_convolution(conv()),
}


class Whole(nn.Module):
    def __init__(self, parts: list[Parts]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branches = nn.ModuleList(part.F for part in parts)
        self.after = nn.ModuleList(part.f or nn.Identity() for part in parts)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for F, f in zip(self.branches, self.after, strict=True):
            x = f(x + F(x))
        logits: Tensor = self.head(x)
        return logits


def changed_net(name: str) -> rc.Net:
    """The network with these units and random weights and statistics, for images [N, 3, 8, 8].

    It predicts all classes, since its logits are standardized.

    Args:
        name: a key of UNITS.
    """
    torch.manual_seed(31)
    parts = UNITS[name]()
    model = Whole(parts)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    example, last = torch.randn(64, 3, 8, 8), model.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        logits = model.eval()(example)
        last.weight /= logits.std(0)[:, None]
        last.bias.copy_((last.bias - logits.mean(0)) / logits.std(0))
    return rc.wrap(model, stem=model.stem, units=parts, head=model.head, example=example)
