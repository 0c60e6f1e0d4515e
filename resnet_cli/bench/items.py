"""What is measured: each item's work, its baseline and the ratio asked for."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from resnet_cli.bench import plain
from resnet_cli.bench.measure import (
    Side,
    Work,
    alternate,
    command_seconds,
    timed,
    torchrun_seconds,
    with_peak,
)
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets.data import Batches, Normalization, Split
from resnet_cli.models import Network, build
from resnet_cli.models.network import Head, measure
from resnet_cli.runtime.seeding import stream
from resnet_cli.studies.lesion import draw_deletions
from resnet_cli.studies.paths.exact import exact_spectrum
from resnet_cli.studies.paths.sampled import sample_path_gradients
from resnet_cli.studies.walks import delete, evaluate_walks, intact
from resnet_cli.training.loop import Trainer

IMAGE_SIZE = 32
CLASSES = 10
NORMALIZATION = Normalization(
    torch.tensor(plain.MEAN).view(3, 1, 1), torch.tensor(plain.STD).view(3, 1, 1)
)


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    repeats: int = 3
    small: bool = False
    """Tiny networks and few images: shows that everything runs; the numbers mean nothing."""

    def depth(self, depth: int) -> int:
        return 8 if self.small else depth

    def amount(self, count: int) -> int:
        return min(count, 8) if self.small else count


@dataclass(frozen=True)
class Found:
    """What an item's measurement gave."""

    values: list[float]
    """The measured number of each repeat: a ratio, a share, seconds or GB."""
    seconds: dict[str, Sequence[float]]
    """By side (`plain`, `ours`), the seconds of each repeat."""
    amount: float
    """Work of one repeat of ours, in the item's unit."""
    plain_amount: float | None = None
    """Of the baseline; None: the same."""
    gflops: float | None = None
    """Multiplications and additions of ours a second, in units of 1e9."""
    remark: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Item:
    """A row of the benchmark."""

    name: str
    title: str
    measure: Callable[[Settings], Found]
    target: float
    better: Literal["higher", "lower"]
    measured_in: str
    """Of the number that is compared with the target: `x`, `%`, `s`, `GB`."""
    unit: str = ""
    """Of the work done, for speeds: `images`."""

    def is_reached(self, value: float) -> bool:
        return value >= self.target if self.better == "higher" else value <= self.target


# --- what is worked on ---------------------------------------------------------------------------


def random_split(count: int) -> Split:
    """Random pixels and labels in CIFAR's shape; speed does not depend on what they show."""
    generator = stream(0, "bench")
    shape = (count, 3, IMAGE_SIZE, IMAGE_SIZE)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    names = tuple(map(str, range(CLASSES)))
    return Split("random", "test", pixels, labels, names, "made for the benchmark")


def batches_of(split: Split, *, augmented: bool = False) -> Batches:
    return Batches(split, NORMALIZATION, 4 if augmented else 0, augmented)


def network_of(settings: Settings, depth: int, split: Split) -> Network:
    """A pre-activation network whose running statistics and logits fit the images, so that all
    classes are predicted; in channels_last format."""
    config = ModelConfig(depth=settings.depth(depth))
    network = build(config, CLASSES, seed=0)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
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
    """Of a network of two-layer units."""
    return len(build(ModelConfig(depth=settings.depth(depth)), CLASSES, seed=0).units)


def in_nchw(network: Network) -> Network:
    """A copy in torch's default memory format."""
    copied = copy.deepcopy(network)
    for parameter in copied.parameters():
        parameter.data = parameter.data.contiguous()
    return copied


# --- lesions -------------------------------------------------------------------------------------


def _deletions(network: Network, ks: Sequence[int], samples: int) -> list[tuple[int, ...]]:
    """The empty set, then the sets of units to delete."""
    num_units = len(network.units)
    drawn = draw_deletions(num_units, [k for k in ks if k <= num_units], samples, seed=0)
    return [(), *(deletion.units for deletion in drawn)]


def _plain_lesion(settings: Settings, images: int, ks: Sequence[int], samples: int) -> Work:
    split = random_split(images)
    network, loader = network_of(settings, 56, split), plain.evaluation_loader(split)
    sets, baseline = _deletions(network, ks, samples), in_nchw(network)
    return lambda: plain.count_wrong(baseline, loader, sets)


def _our_lesion(settings: Settings, images: int, ks: Sequence[int], samples: int) -> Work:
    split = random_split(images)
    network, batches = network_of(settings, 56, split), batches_of(split)
    whole = intact(len(network.units))
    walks = [delete(whole, units) for units in _deletions(network, ks, samples)]
    return lambda: [outcome.wrong for outcome in evaluate_walks(network, batches, walks)]


def _lesion(settings: Settings, images: int, ks: Sequence[int], samples: int) -> Found:
    images = settings.amount(images)
    case = settings, images, ks, samples
    with Side(_plain_lesion, *case, ours=False) as by_hand, Side(_our_lesion, *case) as ours:
        timing = alternate(by_hand.seconds, ours.seconds, settings.repeats)
    difference = max(abs(a - b) for a, b in zip(by_hand.value, ours.value, strict=True))
    split = random_split(images)
    network = network_of(settings, 56, split)
    num_units = len(network.units)
    walks = [delete(intact(num_units), units) for units in _deletions(network, ks, samples)]
    prefixes = {walk[: end + 1] for walk in walks for end in range(num_units)}
    computed = sum(not prefix[-1].deleted for prefix in prefixes)
    flops = 2 * measure(network, IMAGE_SIZE).multiply_adds / num_units * computed * len(split)
    return Found(
        timing.ratios,
        {"plain": timing.plain, "ours": timing.ours},
        amount=len(split) * len(walks),
        gflops=flops / statistics.median(timing.ours) / 1e9,
        remark=f"{len(split)} images, {len(walks)} networks; errors differ by at most "
        f"{difference} images",
    )


def lesion_single(settings: Settings) -> Found:
    return _lesion(settings, 512, [1], 1)


def lesion_count(settings: Settings) -> Found:
    return _lesion(settings, 64, range(1, 21), 20)


# --- paths ---------------------------------------------------------------------------------------


def _sweep_beside_passes(settings: Settings, count: int) -> Work:
    split = random_split(count)
    network = network_of(settings, 110, split)
    images, labels = batches_of(split).evaluation(0, len(split))
    trained = copy.deepcopy(network).train()

    def backward() -> float:
        """One training backward pass, to inputs and weights; the forward pass is not counted."""
        trained.zero_grad()
        loss = functional.cross_entropy(trained(images.clone().requires_grad_()), labels)
        return timed(loss.backward)

    def work() -> tuple[float, float, float]:
        one_pass = statistics.median(backward() for _ in range(3))
        checks: list[float] = []
        sweep = timed(lambda: checks.append(exact_spectrum(network, images, labels).check))
        return one_pass, sweep, checks[0]

    return work


def exact_sweep(settings: Settings) -> Found:
    images, num_units = settings.amount(128), num_units_of(settings, 110)
    rows = []
    with Side(_sweep_beside_passes, settings, images) as ours:
        for _ in range(settings.repeats):
            ours.seconds()
            rows.append(ours.value)
    passes, sweeps, checks = map(list, zip(*rows, strict=True))
    return Found(
        [a / b for a, b in zip(sweeps, passes, strict=True)],
        {"plain": passes, "ours": sweeps},
        amount=1,
        remark=f"{images} images, {num_units} units; check {max(checks):.1e}",
    )


def _plain_path(settings: Settings, count: int) -> Work:
    split = random_split(count)
    network = in_nchw(network_of(settings, 110, split)).eval()
    images, labels = next(iter(plain.evaluation_loader(split)))
    half = list(range(0, len(network.units), 2))
    return lambda: plain.path_norm(network, images, labels, half)


def _our_paths(settings: Settings, count: int, ks: Sequence[int]) -> Work:
    split = random_split(count)
    network, batches = network_of(settings, 110, split), batches_of(split)

    def work() -> None:
        sample_path_gradients(network, batches, ks, 1, count, 0, estimator="image")

    return work


def path_samples(settings: Settings) -> Found:
    images, num_units = settings.amount(128), num_units_of(settings, 110)
    ks = range(0, num_units + 1, 1 if settings.small else 6)
    with (
        Side(_plain_path, settings, images, ours=False) as by_hand,
        Side(_our_paths, settings, images, ks) as ours,
    ):
        timing = alternate(by_hand.seconds, ours.seconds, settings.repeats)
    paths = len(ks) * images  # each image has a path of its own for each length
    return Found(
        [ratio * paths for ratio in timing.ratios],
        {"plain": timing.plain, "ours": timing.ours},
        amount=paths,
        plain_amount=1,
        remark=f"{images} images, {len(ks)} lengths of {num_units} units",
    )


# --- training ------------------------------------------------------------------------------------


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


def _take_steps(trainer: Trainer | plain.TrainingLoop, count: int) -> Work:
    """So many steps, one taken before."""
    trainer.step()

    def take() -> None:
        for _ in range(count):
            trainer.step()

    return take


def _plain_steps(settings: Settings, depth: int, count: int) -> Work:
    network = in_nchw(build(ModelConfig(depth=settings.depth(depth)), CLASSES, 0))
    return _take_steps(plain.TrainingLoop(network, random_split(plain.TRAINING_BATCH * 4)), count)


def steps_in_groups(settings: Settings, depth: int, count: int) -> Work:
    """Steps at batches of 128 in batch-norm groups of 64, as in paper 1."""
    batch = plain.TRAINING_BATCH
    trainer = trainer_of(settings, depth, batch * 4, batch_size=batch, batch_norm_group=64)
    return _take_steps(trainer, count)


def _training(settings: Settings, depth: int, steps: int) -> Found:
    batch = plain.TRAINING_BATCH
    steps = 1 if settings.small else steps
    case = settings, depth, steps
    with Side(_plain_steps, *case, ours=False) as by_hand, Side(steps_in_groups, *case) as ours:
        timing = alternate(by_hand.seconds, ours.seconds, settings.repeats)
    network = build(ModelConfig(depth=settings.depth(depth)), CLASSES, 0)
    flops = 3 * 2 * measure(network, IMAGE_SIZE).multiply_adds * batch * steps
    return Found(
        timing.ratios,
        {"plain": timing.plain, "ours": timing.ours},
        amount=batch * steps,
        gflops=flops / statistics.median(timing.ours) / 1e9,
        remark=f"batches of {batch}, ours in batch-norm groups of 64",
    )


def training_110(settings: Settings) -> Found:
    return _training(settings, 110, 3)


def training_20(settings: Settings) -> Found:
    return _training(settings, 20, 16)


def torchrun(settings: Settings) -> Found:
    """Two processes of one thread, against one process of two; started anew for each repeat."""
    depth, steps, repeats = settings.depth(110), 3, settings.repeats
    if settings.small:
        steps = repeats = 1
    alone, shared = [], []
    for _ in range(repeats):
        with Side(steps_in_groups, settings, 110, steps, threads=2) as one:
            alone.append(one.seconds())
        shared.append(torchrun_seconds(2, "resnet_cli.bench.shared", str(depth), str(steps)))
    return Found(
        [a / b for a, b in zip(alone, shared, strict=True)],
        {"plain": alone, "ours": shared},
        amount=plain.TRAINING_BATCH * steps,
        remark=f"batches of {plain.TRAINING_BATCH} in batch-norm groups of 64; plain: ours in one "
        "process with two threads",
    )


def _steps_of_active(settings: Settings, batch: int, active: int | None, count: int) -> Work:
    trainer = trainer_of(settings, 110, batch * 4, batch_size=batch, active_units=active)
    return _take_steps(trainer, count)


def active_units(settings: Settings) -> Found:
    batch = 64
    count, steps = (1, 1) if settings.small else (23, 4)
    with (
        Side(_steps_of_active, settings, batch, None, steps) as whole,
        Side(_steps_of_active, settings, batch, count, steps) as part,
    ):
        timing = alternate(whole.seconds, part.seconds, settings.repeats)
    return Found(
        timing.ratios,
        {"plain": timing.plain, "ours": timing.ours},
        amount=batch * steps,
        remark=f"{count} of {num_units_of(settings, 110)} units active; plain: ours with all",
    )


def _batches_beside_steps(settings: Settings, batch: int) -> Work:
    trainer = trainer_of(settings, 20, batch * 4, batch_size=batch)
    trainer.step()

    def work() -> tuple[float, float]:
        prepared = statistics.median(timed(lambda: trainer.batch(0)) for _ in range(9))
        return prepared, statistics.median(timed(trainer.step) for _ in range(5))

    return work


def batch_preparation(settings: Settings) -> Found:
    batch = plain.TRAINING_BATCH
    rows = []
    with Side(_batches_beside_steps, settings, batch) as ours:
        for _ in range(settings.repeats):
            ours.seconds()
            rows.append(ours.value)
    prepared, whole = map(list, zip(*rows, strict=True))
    return Found(
        [100 * a / b for a, b in zip(prepared, whole, strict=True)],
        {"plain": whole, "ours": prepared},
        amount=batch,
        remark="plain: the whole step; ours: crop, flip and normalise its batch",
    )


# --- the rest ------------------------------------------------------------------------------------


def help_command(settings: Settings) -> Found:
    seconds = [command_seconds("--help") for _ in range(max(3, settings.repeats))]
    return Found(seconds, {"ours": seconds}, amount=1)


def _step_1001(depth: int) -> float:
    """Seconds of one training step of a bottleneck network at batch 64, its units recomputed in
    the backward pass."""
    run = RunConfig(
        model=ModelConfig(depth=depth, branch="bottleneck"),
        data=DataConfig(dataset="cifar10"),
        train=TrainConfig(epochs=1, batch_size=64, checkpoint_units=True),
        seed=0,
    )
    split = random_split(64)
    network = build(run.model, CLASSES, 0)
    trainer = Trainer(run, network, batches_of(split, augmented=True), batches_of(split))
    start = time.perf_counter()
    trainer.step()
    return time.perf_counter() - start


def memory_1001(settings: Settings) -> Found:
    with Side(with_peak, _step_1001, 11 if settings.small else 1001) as ours:
        ours.seconds()
    seconds, peak, _ = ours.value
    return Found(
        [peak / 1e3],
        {"ours": [seconds]},
        amount=64,
        remark="pre-activation, checkpoint_units, one step at batch 64; all of the process",
    )


ITEMS: tuple[Item, ...] = (
    Item(
        "lesion_single",
        "Figure 3's sweep: each of 27 units deleted, ResNet-56",
        lesion_single,
        6.0,
        "higher",
        "x",
        "images",
    ),
    Item(
        "lesion_count",
        "Figure 5a's sweep: k = 1..20, 20 samples each, ResNet-56",
        lesion_count,
        3.0,
        "higher",
        "x",
        "images",
    ),
    Item(
        "exact_sweep",
        "exact spectrum of ResNet-110, in training backward passes of the batch",
        exact_sweep,
        25.0,
        "lower",
        "passes",
        "sweeps",
    ),
    Item(
        "path_samples",
        "sampled paths a second, ResNet-110, a path for each image",
        path_samples,
        40.0,
        "higher",
        "x",
        "paths",
    ),
    Item("training_110", "training ResNet-110", training_110, 1.25, "higher", "x", "images"),
    Item("training_20", "training ResNet-20", training_20, 1.25, "higher", "x", "images"),
    Item(
        "torchrun",
        "training ResNet-110 by two processes of one thread, against one of two threads",
        torchrun,
        1.1,
        "higher",
        "x",
        "images",
    ),
    Item(
        "active_units",
        "training with 23 of 54 units active, against all",
        active_units,
        2.0,
        "higher",
        "x",
        "images",
    ),
    Item(
        "batch_preparation",
        "preparing a batch, share of a training step of ResNet-20",
        batch_preparation,
        2.0,
        "lower",
        "%",
        "images",
    ),
    Item("help", "resnet-cli --help", help_command, 0.4, "lower", "s"),
    Item(
        "memory_1001",
        "peak memory of a training step of ResNet-1001, batch 64",
        memory_1001,
        8.0,
        "lower",
        "GB",
        "images",
    ),
)


# --- how cost grows ------------------------------------------------------------------------------

DEPTHS = (20, 56, 110, 164)
IMAGES = (32, 64, 128)
STUDIES = ("lesion_single", "exact_sweep")


@dataclass(frozen=True)
class Point:
    """One measurement of how cost grows."""

    study: str
    depth: int
    images: int


def points(settings: Settings) -> list[Point]:
    """Depth at 32 images, and images at depth 56."""
    if settings.small:
        return [Point(study, 8, 8) for study in STUDIES]
    wanted = [(depth, IMAGES[0]) for depth in DEPTHS] + [(56, count) for count in IMAGES[1:]]
    return [Point(study, depth, images) for study in STUDIES for depth, images in wanted]


def point_seconds(study: str, depth: int, images: int) -> float:
    """Seconds of one study of a pre-activation network of this depth (two-layer units)."""
    split = random_split(images)
    settings = Settings()
    network = network_of(settings, depth, split)
    batches, num_units = batches_of(split), len(network.units)
    if study == "exact_sweep":
        x, y = batches.evaluation(0, images)
        return timed(lambda: exact_spectrum(network, x, y))
    walks = [delete(intact(num_units), [unit]) for unit in range(num_units)]
    return timed(lambda: evaluate_walks(network, batches, walks))
