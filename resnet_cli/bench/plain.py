"""The baselines: the same work as a careful researcher would write it in plain PyTorch.

Eager, NCHW, torchvision's transforms in a DataLoader, a whole evaluation for each deletion, one
forward and backward pass for each sampled path. Networks are those of `resnet_cli.models` with
their own weights, so that the numbers can be compared and not only the times.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from resnet_cli.datasets.data import Split
from resnet_cli.models.network import Network
from resnet_cli.models.units import ResidualUnit

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
EVALUATION_BATCH = 250
TRAINING_BATCH = 128


class Images(Dataset[Any]):
    """A split as torchvision's CIFAR10 gives it: PIL images through transforms."""

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
    """The network by the parts of its units, some residual branches left out: logits."""
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
    """The images classified wrongly after each deletion, each by a whole evaluation."""
    network.eval()
    wrong = []
    for deleted in deletions:
        count = 0
        for images, labels in loader:
            count += int((forward(network, images, deleted).argmax(1) != labels).sum())
        wrong.append(count)
    return wrong


def path_norm(network: Network, images: Tensor, labels: Tensor, path: Collection[int]) -> float:
    """The norm of the gradient at the images along one path: each unit lets only one branch be
    differentiated, values unchanged."""
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
    """SGD over a loader, step by step; batch statistics over the whole batch."""

    def __init__(self, network: nn.Module, split: Split) -> None:
        self.network = network.train()
        self.loader = training_loader(split)
        self.batches = iter(self.loader)
        self.optimizer = torch.optim.SGD(
            network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
        )

    def step(self) -> float:
        """One iteration; returns its loss."""
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
