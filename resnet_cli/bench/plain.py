"""The baselines: the same work as a careful researcher would write it in plain PyTorch.

Eager mode, NCHW, torchvision's transforms in a DataLoader, a complete evaluation for each deletion,
one forward and backward pass for each sampled path. The networks are those of `resnet_cli.models`
with the same weights, so that results can be compared as well as times.
"""

import copy
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from resnet_cli.bench.measure import Work
from resnet_cli.bench.subjects import (
    CLASSES,
    MEAN,
    STD,
    TRAINING_BATCH,
    Settings,
    benchmark_network,
    deletions_of,
    random_split,
)
from resnet_cli.config.schema import ModelConfig
from resnet_cli.datasets.split import Split
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.units import ResidualUnit
from resnet_cli.training.loop import Trainer

EVALUATION_BATCH = 250


class Images(Dataset[Any]):
    """A split in the form of torchvision's CIFAR10: PIL images with transforms."""

    def __init__(self, split: Split, augmented: bool) -> None:
        self.pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = split.labels.tolist()
        steps = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        if augmented:
            steps = [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                *steps,
            ]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


Loader = Iterable[tuple[Tensor, Tensor]]
"""Batches of images [N, 3, 32, 32] and labels [N]."""


def evaluation_loader(split: Split) -> Loader:
    return DataLoader(Images(split, augmented=False), EVALUATION_BATCH)


def training_loader(split: Split) -> Loader:
    data = Images(split, augmented=True)
    return DataLoader(data, TRAINING_BATCH, shuffle=True, drop_last=True)


def forward(network: Network, images: Tensor, deleted: Collection[int] = ()) -> Tensor:
    """The logits of the network, without the residual branches of deleted units."""
    x = network.stem(images)
    for index, unit in enumerate(network.units):
        assert isinstance(unit, ResidualUnit)
        x = unit.pre(x)
        y = unit.h(x) if index in deleted else unit.h(x) + unit.F(x)
        x = unit.f(y)
    logits: Tensor = network.head(x)
    return logits


@torch.no_grad()
def count_wrong(
    network: Network,
    loader: Loader,
    deletions: Sequence[Collection[int]],
) -> list[int]:
    """The number of images classified wrongly after each deletion, each with a whole evaluation."""
    network.eval()
    wrong = []
    for deleted in deletions:
        count = 0
        for images, labels in loader:
            count += int((forward(network, images, deleted).argmax(1) != labels).sum())
        wrong.append(count)
    return wrong


def path_norm(network: Network, images: Tensor, labels: Tensor, path: Collection[int]) -> float:
    """The norm of the gradient with respect to the images along one path: in each unit, only one
    branch is differentiated; the values are unchanged."""
    leaf = images.clone().requires_grad_()
    x = network.stem(leaf)
    for index, unit in enumerate(network.units):
        assert isinstance(unit, ResidualUnit)
        x = unit.pre(x)
        shortcut, residual = unit.h(x), unit.F(x)
        y = shortcut.detach() + residual if index in path else shortcut + residual.detach()
        x = unit.f(y)
    loss = functional.cross_entropy(network.head(x), labels)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return float(gradient.norm())


class TrainingLoop:
    """SGD on a loader, step by step, with batch statistics over the whole batch."""

    def __init__(self, network: nn.Module, split: Split) -> None:
        self.network = network.train()
        self.loader = training_loader(split)
        self.batches = iter(self.loader)
        self.optimizer = torch.optim.SGD(
            network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
        )

    def step(self) -> float:
        """Take one step and return its loss."""
        try:
            images, labels = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            images, labels = next(self.batches)
        loss = functional.cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


# --- work of the baselines ------------------------------------------------------------------------


def in_nchw(network: Network) -> Network:
    """A copy in torch's default memory format."""
    copied = copy.deepcopy(network)
    for parameter in copied.parameters():
        parameter.data = parameter.data.contiguous()
    return copied


def lesion(settings: Settings, images: int, ks: Sequence[int], samples: int) -> Work:
    split = random_split(images)
    network, loader = benchmark_network(settings, 56, split), evaluation_loader(split)
    sets, baseline = deletions_of(network, ks, samples), in_nchw(network)
    return lambda: count_wrong(baseline, loader, sets)


def path(settings: Settings, count: int) -> Work:
    split = random_split(count)
    network = in_nchw(benchmark_network(settings, 110, split)).eval()
    images, labels = next(iter(evaluation_loader(split)))
    half = list(range(0, len(network.units), 2))
    return lambda: path_norm(network, images, labels, half)


def take_steps(trainer: Trainer | TrainingLoop, count: int) -> Work:
    """Work of `count` training steps, after one step to warm up."""
    trainer.step()

    def take() -> None:
        for _ in range(count):
            trainer.step()

    return take


def steps(settings: Settings, depth: int, count: int) -> Work:
    network = in_nchw(build(ModelConfig(depth=settings.depth(depth)), CLASSES, 0))
    return take_steps(TrainingLoop(network, random_split(TRAINING_BATCH * 4)), count)
