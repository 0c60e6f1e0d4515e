"""Images, networks and trainings for benchmarks, as fast as real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.normalisation import PUBLISHED, Normalization
from resnet_cli.datasets.split import Split
from resnet_cli.models.factory import build
from resnet_cli.models.network import Head, Network, batch_norms
from resnet_cli.runtime.seeding import stream
from resnet_cli.studies.lesion import draw_deletions
from resnet_cli.training.loop import Trainer

IMAGE_SIZE = 32
CLASSES = 10
MEAN, STD = PUBLISHED["cifar"]
NORMALIZATION = Normalization(torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1))
TRAINING_BATCH = 128


@dataclass(frozen=True)
class Settings:
    """The amount of work."""

    repeats: int = 3
    small: bool = False
    """Use tiny networks and few images, only to check that everything runs."""

    def depth(self, depth: int) -> int:
        return 8 if self.small else depth

    def amount(self, count: int) -> int:
        return min(count, 8) if self.small else count


def random_split(count: int) -> Split:
    """Random pixels and labels in the shape of CIFAR; speed does not depend on their values."""
    generator = stream(0, "bench")
    shape = (count, 3, IMAGE_SIZE, IMAGE_SIZE)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    names = tuple(map(str, range(CLASSES)))
    return Split("random", "test", pixels, labels, names, "random images")


def batches_of(split: Split, *, augmented: bool = False) -> Batches:
    return Batches(split, NORMALIZATION, 4 if augmented else 0, augmented)


def benchmark_network(settings: Settings, depth: int, split: Split) -> Network:
    """A pre-activation network in channels_last format, with running statistics of these images and
    standardized logits, so that all classes are predicted."""
    config = ModelConfig(depth=settings.depth(depth))
    network = build(config, CLASSES, seed=0)
    norms = batch_norms(network)
    for norm in norms:
        norm.momentum = 1.0
    images, _ = batches_of(split).evaluation(0, 64)
    assert isinstance(network.head, Head)
    with torch.no_grad():
        network.train()(images)
        for norm in norms:
            norm.momentum = 0.1
        logits = network.eval()(images)
        head = network.head.fc
        head.weight /= logits.std(0)[:, None]
        head.bias.copy_((head.bias - logits.mean(0)) / logits.std(0))
    return network


def num_units_of(settings: Settings, depth: int) -> int:
    """The number of units of a network with two-layer units."""
    return len(build(ModelConfig(depth=settings.depth(depth)), CLASSES, seed=0).units)


def trainer_of(settings: Settings, depth: int, images: int, **train: Any) -> Trainer:
    run = RunConfig(
        model=ModelConfig(depth=settings.depth(depth)),
        data=DataConfig(dataset="cifar10"),
        train=TrainConfig.model_validate({"epochs": 100, "schedule": "one_cycle"} | train),
        seed=0,
    )
    split = random_split(images)
    network = build(run.model, CLASSES, 0)
    return Trainer(run, network, batches_of(split, augmented=True), batches_of(split))


def deletions_of(network: Network, ks: Sequence[int], samples: int) -> list[tuple[int, ...]]:
    """The empty set, followed by the drawn sets of units to delete."""
    num_units = len(network.units)
    drawn = draw_deletions(num_units, [k for k in ks if k <= num_units], samples, seed=0)
    return [(), *(deletion.units for deletion in drawn)]
