"""Narrow residual networks as in other repositories, one class for each layout.

Each is written after the forward pass of the repository that its docstring names; the tests compare
its logits with those of the network that its state dict is loaded as.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Act = Callable[[Tensor], Tensor]
RELU: Act = functional.relu


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics that keep activations moderate and make every entry matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.2, 0.2, generator=generator)
        else:
            tensor.normal_(0, (1 / tensor[0].numel()) ** 0.5, generator=generator)
    return module.eval()


def wrong_shapes(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Shapes that a tensor of this shape cannot have in its network, though torch may broadcast
    them."""
    yield (*shape, 2)
    if shape:
        yield ()
        yield tuple(shape[1:])
    for dimension, size in enumerate(shape):
        for other in {0, 1, size + 1} - {size}:
            yield (*shape[:dimension], other, *shape[dimension + 1 :])


def conv(ins: int, outs: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=bias)


BN = nn.BatchNorm2d


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


class Stages(nn.Module):
    """A stem, `stages` of modules by name, and a classifier; forward as most repositories do."""

    def run(self, x: Tensor, names: list[str]) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x

    def add(self, make: type, name: str, widths: tuple[int, ...], counts: tuple[int, ...]) -> int:
        """Stages `name.format(1)`, …, of units make(ins, outs, stride); the last one's channels."""
        ins, self.names = widths[0], []
        for stage, (width, count) in enumerate(zip(widths[1:], counts, strict=True), 1):
            units = []
            for number in range(count):
                units.append(make(ins, width, 2 if stage > 1 and number == 0 else 1))
                ins = width
            self.names.append(name.format(stage))
            setattr(self, self.names[-1], nn.Sequential(*units))
        return ins


# --- kuangliu/pytorch-cifar, akamaster, chenyaofo, bearpaw, torchvision with a CIFAR stem --------


class TheirUnit(nn.Module):
    """A residual unit with the names of most CIFAR repositories."""

    def __init__(
        self,
        ins: int,
        outs: int,
        stride: int,
        convs: int,
        zero_padding: bool,
        act: Act = RELU,
        zeros: str = "both",
        stride_in: str = "3x3",
        word: str = "shortcut",
    ) -> None:
        super().__init__()
        self.num_convs, self.act, self.zeros, self.word = convs, act, zeros, word
        inner = outs // 4 if convs == 3 else outs
        first, middle = (1, stride) if stride_in == "3x3" else (stride, 1)
        plan = {
            1: [(ins, outs, 3, stride)],
            2: [(ins, outs, 3, stride), (outs, outs, 3, 1)],
            3: [(ins, inner, 1, first), (inner, inner, 3, middle), (inner, outs, 1, 1)],
        }
        for number, (a, b, kernel, step) in enumerate(plan[convs], 1):
            convolution = nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{number}", convolution)
            setattr(self, f"bn{number}", nn.BatchNorm2d(b))
        projection = nn.Sequential()
        changes = stride != 1 or ins != outs
        self.missing = outs - ins if zero_padding and changes else None
        self.stride = stride
        if not zero_padding and changes:
            projection = nn.Sequential(conv(ins, outs, 1, stride), BN(outs))
        setattr(self, word, projection)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.num_convs + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            if number < self.num_convs:
                out = self.act(out)
        shortcut = getattr(self, self.word)(x)
        if self.missing is not None:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            before = self.missing // 2 if self.zeros == "both" else 0
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, before, self.missing - before))
        return self.act(out + shortcut)


class Theirs(nn.Module):
    """kuangliu/pytorch-cifar's plan: stem, layer1 … layerN, linear."""

    def __init__(
        self,
        units: tuple[int, ...] = (1, 1, 1),
        widths: tuple[int, ...] = (16, 32, 64),
        convs: int = 2,
        zero_padding: bool = False,
        classes: int = 10,
        channels: int = 3,
        head: str = "linear",
        stem: int = 3,
        pool: bool = False,
        **unit_options: Any,
    ) -> None:
        super().__init__()
        self.conv1 = conv(channels, widths[0], stem, 1 if stem == 3 else 2)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.act, self.pool, self.head = unit_options.get("act", RELU), pool, head
        self.num_stages = len(units)
        ins = widths[0]
        for stage, (count, width) in enumerate(zip(units, widths, strict=True), 1):
            layer = []
            for unit in range(count):
                stride = 2 if stage > 1 and unit == 0 else 1
                outs = width * (4 if convs == 3 else 1)
                layer.append(TheirUnit(ins, outs, stride, convs, zero_padding, **unit_options))
                ins = outs
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        setattr(self, head, nn.Linear(ins, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1) if self.pool else x
        for stage in range(1, self.num_stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return getattr(self, self.head)(pooled(x))


# --- kuangliu/pytorch-cifar: PreActResNet ---------------------------------------------------------


class KuangliuPreActBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = BN(ins), conv(ins, outs, 3, stride)
        self.bn2, self.conv2 = BN(outs), conv(outs, outs)
        if stride != 1 or ins != outs:
            self.shortcut = nn.Sequential(conv(ins, outs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        out = RELU(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        return self.conv2(RELU(self.bn2(self.conv1(out)))) + shortcut


class KuangliuPreActBottleneck(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        inner = outs // 4
        self.bn1, self.conv1 = BN(ins), conv(ins, inner, 1)
        self.bn2, self.conv2 = BN(inner), conv(inner, inner, 3, stride)
        self.bn3, self.conv3 = BN(inner), conv(inner, outs, 1)
        if stride != 1 or ins != outs:
            self.shortcut = nn.Sequential(conv(ins, outs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        out = RELU(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv2(RELU(self.bn2(self.conv1(out))))
        return self.conv3(RELU(self.bn3(out))) + shortcut


class KuangliuPreAct(Stages):
    def __init__(self, bottleneck: bool = False) -> None:
        super().__init__()
        self.conv1 = conv(3, 16)
        widths = (16, 64, 128) if bottleneck else (16, 16, 32, 64)
        block = KuangliuPreActBottleneck if bottleneck else KuangliuPreActBlock
        outs = self.add(block, "layer{}", widths, (2,) * (len(widths) - 1))
        self.linear = nn.Linear(outs, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(pooled(self.run(self.conv1(x), self.names)))


# --- weiaicunzai/pytorch-cifar100 -----------------------------------------------------------------


class WeiBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.residual_function = nn.Sequential(
            conv(ins, outs, 3, stride), BN(outs), nn.ReLU(inplace=True), conv(outs, outs), BN(outs)
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or ins != outs:
            self.shortcut = nn.Sequential(conv(ins, outs, 1, stride), BN(outs))

    def forward(self, x: Tensor) -> Tensor:
        return RELU(self.residual_function(x) + self.shortcut(x))


class WeiBottleneck(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        inner = outs // 4
        self.residual_function = nn.Sequential(
            *(conv(ins, inner, 1), BN(inner), nn.ReLU(inplace=True)),
            *(conv(inner, inner, 3, stride), BN(inner), nn.ReLU(inplace=True)),
            *(conv(inner, outs, 1), BN(outs)),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or ins != outs:
            self.shortcut = nn.Sequential(conv(ins, outs, 1, stride), BN(outs))

    def forward(self, x: Tensor) -> Tensor:
        return RELU(self.residual_function(x) + self.shortcut(x))


class Wei(Stages):
    def __init__(self, bottleneck: bool = False, classes: int = 100) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv(3, 16), BN(16), nn.ReLU(inplace=True))
        widths = (16, 64, 128) if bottleneck else (16, 16, 32, 64)
        block = WeiBottleneck if bottleneck else WeiBlock
        outs = self.add(block, "conv{}_x", widths, (2,) * (len(widths) - 1))
        self.fc = nn.Linear(outs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.run(self.conv1(x), self.names)))


class WeiPreActBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(BN(ins), nn.ReLU(inplace=True), conv(ins, outs, 3, stride, bias=True)),
            *(BN(outs), nn.ReLU(inplace=True), conv(outs, outs, bias=True)),
        )
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or ins != outs:
            self.shortcut = conv(ins, outs, 1, stride, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x.clone()) + self.shortcut(x)


class WeiPreActBottleneck(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        inner = outs // 4
        self.residual = nn.Sequential(
            *(BN(ins), nn.ReLU(inplace=True), conv(ins, inner, 1, stride, bias=True)),
            *(BN(inner), nn.ReLU(inplace=True), conv(inner, inner, bias=True)),
            *(BN(inner), nn.ReLU(inplace=True), conv(inner, outs, 1, bias=True)),
        )
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or ins != outs:
            self.shortcut = conv(ins, outs, 1, stride, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x.clone()) + self.shortcut(x)


class WeiPreAct(Stages):
    def __init__(self, bottleneck: bool = False) -> None:
        super().__init__()
        self.pre = nn.Sequential(conv(3, 16, bias=True), BN(16), nn.ReLU(inplace=True))
        widths = (16, 64, 128) if bottleneck else (16, 16, 32)
        block = WeiPreActBottleneck if bottleneck else WeiPreActBlock
        outs = self.add(block, "stage{}", widths, (2, 2))
        self.linear = nn.Linear(outs, 100)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(pooled(self.run(self.pre(x), self.names)))


class WeiWideBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(BN(ins), nn.ReLU(inplace=True), conv(ins, outs, 3, stride, bias=True)),
            *(BN(outs), nn.ReLU(inplace=True), nn.Dropout(), conv(outs, outs, bias=True)),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or ins != outs:
            self.shortcut = nn.Sequential(conv(ins, outs, 1, stride, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x.clone()) + self.shortcut(x)


class WeiWide(Stages):
    def __init__(self) -> None:
        super().__init__()
        self.init_conv = conv(3, 16, bias=True)
        outs = self.add(WeiWideBlock, "conv{}", (16, 32, 64), (2, 1))
        self.bn = BN(outs)
        self.linear = nn.Linear(outs, 100)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(pooled(self.bn(self.run(self.init_conv(x), self.names))))


# --- bearpaw/pytorch-classification: preresnet ----------------------------------------------------


class BearpawPreBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = BN(ins), conv(ins, outs, 3, stride)
        self.bn2, self.conv2 = BN(outs), conv(outs, outs)
        self.downsample = None
        if stride != 1 or ins != outs:
            self.downsample = nn.Sequential(conv(ins, outs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(RELU(self.bn2(self.conv1(RELU(self.bn1(x))))))
        return out + (x if self.downsample is None else self.downsample(x))


class BearpawPre(Stages):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 16)
        outs = self.add(BearpawPreBlock, "layer{}", (16, 16, 32, 64), (2, 2, 2))
        self.bn = BN(outs)
        self.fc = nn.Linear(outs, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(RELU(self.bn(self.run(self.conv1(x), self.names)))))


# --- hysts/pytorch_image_classification -----------------------------------------------------------


class HystsBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(ins, outs, 3, stride), BN(outs)
        self.conv2, self.bn2 = conv(outs, outs), BN(outs)
        self.shortcut = nn.Sequential()
        if ins != outs:
            self.shortcut.add_module("conv", conv(ins, outs, 1, stride))
            self.shortcut.add_module("bn", BN(outs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(RELU(self.bn1(self.conv1(x)))))
        return RELU(out + self.shortcut(x))


class HystsPreBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        self.bn1, self.conv1 = BN(ins), conv(ins, outs, 3, stride)
        self.bn2, self.conv2 = BN(outs), conv(outs, outs)
        self.shortcut = nn.Sequential()
        if ins != outs:
            self.shortcut.add_module("conv", conv(ins, outs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        activated = RELU(self.bn1(x))
        out = self.conv2(RELU(self.bn2(self.conv1(activated))))
        return out + self.shortcut(activated if self.shared else x)


class Hysts(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        widths = {"resnet": (16, 16, 32), "preact": (16, 16, 32), "wrn": (16, 32, 64)}[kind]
        self.kind = kind
        self.conv = conv(3, 16)
        ins = widths[0]
        for stage, outs in enumerate(widths[1:], 1):
            units = nn.Sequential()
            for number in (1, 2):
                stride = 2 if stage > 1 and number == 1 else 1
                shared = number == 1 if kind == "preact" else ins != outs
                unit = (
                    HystsBlock(ins, outs, stride)
                    if kind == "resnet"
                    else HystsPreBlock(ins, outs, stride, shared)
                )
                units.add_module(f"block{number}", unit)
                ins = outs
            setattr(self, f"stage{stage}", units)
        self.bn = BN(16 if kind == "resnet" else ins)
        self.fc = nn.Linear(ins, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = RELU(self.bn(x)) if self.kind == "resnet" else x
        x = self.stage2(self.stage1(x))
        return self.fc(pooled(x if self.kind == "resnet" else RELU(self.bn(x))))


# --- facebookresearch/open_lth --------------------------------------------------------------------


class LthBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(ins, outs, 3, stride), BN(outs)
        self.conv2, self.bn2 = conv(outs, outs), BN(outs)
        self.shortcut = nn.Sequential()
        if stride != 1 or ins != outs:
            self.shortcut = nn.Sequential(conv(ins, outs, 1, stride), BN(outs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(RELU(self.bn1(self.conv1(x)))))
        return RELU(out + self.shortcut(x))


class Lth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = conv(3, 16), BN(16)
        plan = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
        self.blocks = nn.Sequential(*(LthBlock(*unit) for unit in plan))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.blocks(RELU(self.bn(self.conv(x))))))


# --- xternalz/WideResNet-pytorch ------------------------------------------------------------------


class XternalzBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = BN(ins), conv(ins, outs, 3, stride)
        self.bn2, self.conv2 = BN(outs), conv(outs, outs)
        self.equal = ins == outs
        self.convShortcut = None if self.equal else conv(ins, outs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = RELU(self.bn1(x))
        out = self.conv2(RELU(self.bn2(self.conv1(activated))))
        return out + (x if self.convShortcut is None else self.convShortcut(activated))


class XternalzStage(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(XternalzBlock(ins, outs, stride), XternalzBlock(outs, outs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Xternalz(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 16)
        self.block1 = XternalzStage(16, 32, 1)
        self.block2 = XternalzStage(32, 64, 2)
        self.block3 = XternalzStage(64, 128, 2)
        self.bn1 = BN(128)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(pooled(RELU(self.bn1(x))))


# --- meliketoy/wide-resnet.pytorch ----------------------------------------------------------------


class MeliketoyBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = BN(ins), conv(ins, outs, bias=True)
        self.bn2, self.conv2 = BN(outs), conv(outs, outs, 3, stride, bias=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or ins != outs:
            self.shortcut = nn.Sequential(conv(ins, outs, 1, stride, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(RELU(self.bn1(x)))
        return self.conv2(RELU(self.bn2(out))) + self.shortcut(x)


class Meliketoy(Stages):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(3, 16, bias=True)
        outs = self.add(MeliketoyBlock, "layer{}", (16, 32, 64), (2, 2))
        self.bn1 = BN(outs)
        self.linear = nn.Linear(outs, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(pooled(RELU(self.bn1(self.run(self.conv1(x), self.names)))))


# --- transformers: ResNetForImageClassification ---------------------------------------------------


class HfConv(nn.Module):
    def __init__(self, ins: int, outs: int, kernel: int, stride: int, active: bool = True) -> None:
        super().__init__()
        self.convolution, self.normalization = conv(ins, outs, kernel, stride), BN(outs)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalization(self.convolution(x))
        return RELU(x) if self.active else x


class HfBottleneck(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int, stride_in_first: bool) -> None:
        super().__init__()
        inner = outs // 4
        first, second = (stride, 1) if stride_in_first else (1, stride)
        if stride != 1 or ins != outs:
            self.shortcut = HfConv(ins, outs, 1, stride, active=False)
        self.layer = nn.Sequential(
            HfConv(ins, inner, 1, first),
            HfConv(inner, inner, 3, second),
            HfConv(inner, outs, 1, 1, active=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x) if hasattr(self, "shortcut") else x
        return RELU(self.layer(x) + shortcut)


class HfStage(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int, stride_in_first: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            HfBottleneck(ins, outs, stride, stride_in_first),
            HfBottleneck(outs, outs, 1, stride_in_first),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class HfResNet(nn.Module):
    def __init__(self, stride_in_first: bool = False) -> None:
        super().__init__()
        inner = nn.Module()
        inner.embedder = nn.Module()
        inner.embedder.embedder = HfConv(3, 16, 7, 2)
        inner.encoder = nn.Module()
        inner.encoder.stages = nn.ModuleList(
            [HfStage(16, 64, 1, stride_in_first), HfStage(64, 128, 2, stride_in_first)]
        )
        self.resnet = inner
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.resnet.embedder.embedder(x), 3, 2, 1)
        for stage in self.resnet.encoder.stages:
            x = stage(x)
        return self.classifier(pooled(x))


# --- fb.resnet.torch (preresnet.lua), in torchvision's names --------------------------------------


class FbPreBottleneck(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int, first: bool = False) -> None:
        super().__init__()
        inner = outs // 4
        if not first:
            self.bn1 = BN(ins)
        self.conv1 = conv(ins, inner, 1)
        self.bn2, self.conv2 = BN(inner), conv(inner, inner, 3, stride)
        self.bn3, self.conv3 = BN(inner), conv(inner, outs, 1)
        self.downsample = nn.Sequential(conv(ins, outs, 1, stride)) if ins != outs else None

    def forward(self, x: Tensor) -> Tensor:
        activated = RELU(self.bn1(x)) if hasattr(self, "bn1") else x
        out = self.conv2(RELU(self.bn2(self.conv1(activated))))
        out = self.conv3(RELU(self.bn3(out)))
        return out + (x if self.downsample is None else self.downsample(activated))


class FbPre(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 7, 2), BN(16)
        self.layer1 = nn.Sequential(
            FbPreBottleneck(16, 64, 1, first=True), FbPreBottleneck(64, 64, 1)
        )
        self.layer2 = nn.Sequential(FbPreBottleneck(64, 128, 2), FbPreBottleneck(128, 128, 1))
        self.bn_last = BN(128)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(RELU(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(pooled(RELU(self.bn_last(self.layer2(self.layer1(x))))))


# --- timm: deep stem and average pooling in the shortcut (resnet26d) ------------------------------


class TimmDBlock(nn.Module):
    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(ins, outs, 3, stride), BN(outs)
        self.conv2, self.bn2 = conv(outs, outs), BN(outs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or ins != outs:
            pool: nn.Module = nn.Identity()
            if stride != 1:
                pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            self.downsample = nn.Sequential(pool, conv(ins, outs, 1), BN(outs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(RELU(self.bn1(self.conv1(x)))))
        return RELU(out + self.downsample(x))


class TimmD(Stages):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            *(conv(3, 8, 3, 2), BN(8), nn.ReLU(inplace=True)),
            *(conv(8, 8), BN(8), nn.ReLU(inplace=True), conv(8, 16)),
        )
        self.bn1 = BN(16)
        outs = self.add(TimmDBlock, "layer{}", (16, 16, 32), (2, 2))
        self.fc = nn.Linear(outs, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(RELU(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(pooled(self.run(x, self.names)))


# --- VGG ------------------------------------------------------------------------------------------


class Vgg(nn.Module):
    """kuangliu (`classifier` one layer) or chenyaofo (three layers)."""

    def __init__(self, hidden: bool = False, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        ins = 3
        for width in (16, 0, 32, 32, 0, 64, 0):
            if width:
                layers.append(conv(ins, width, bias=True))
                layers += [BN(width)] if norm else []
                layers.append(nn.ReLU(inplace=True))
                ins = width
            else:
                layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier: nn.Module = nn.Linear(ins, 10)
        if hidden:
            self.classifier = nn.Sequential(
                *(nn.Linear(ins, 32), nn.ReLU(inplace=True), nn.Dropout()),
                *(nn.Linear(32, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, 10)),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))
