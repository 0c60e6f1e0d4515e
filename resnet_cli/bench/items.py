"""What each benchmark measures, and the work of its own side."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from resnet_cli.bench.subjects import (
    CLASSES,
    IMAGE_SIZE,
    TRAINING_BATCH,
    Settings,
    batches_of,
    deletions_of,
    network_of,
    num_units_of,
    random_split,
    trainer_of,
)
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.models import build
from resnet_cli.models.network import measure
from resnet_cli.studies.paths.exact import exact_spectrum
from resnet_cli.studies.paths.sampled import sample_path_gradients
from resnet_cli.studies.walks import delete, evaluate_walks, intact
from resnet_cli.training.loop import Trainer


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


# --- lesions -------------------------------------------------------------------------------------


def _our_lesion(settings: Settings, images: int, ks: Sequence[int], samples: int) -> Work:
    split = random_split(images)
    network, batches = network_of(settings, 56, split), batches_of(split)
    whole = intact(len(network.units))
    walks = [delete(whole, units) for units in deletions_of(network, ks, samples)]
    return lambda: [outcome.wrong for outcome in evaluate_walks(network, batches, walks)]


def _lesion(settings: Settings, images: int, ks: Sequence[int], samples: int) -> Found:
    images = settings.amount(images)
    case = settings, images, ks, samples
    with Side(plain.lesion, *case, ours=False) as by_hand, Side(_our_lesion, *case) as ours:
        timing = alternate(by_hand.seconds, ours.seconds, settings.repeats)
    difference = max(abs(a - b) for a, b in zip(by_hand.value, ours.value, strict=True))
    split = random_split(images)
    network = network_of(settings, 56, split)
    num_units = len(network.units)
    walks = [delete(intact(num_units), units) for units in deletions_of(network, ks, samples)]
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
        Side(plain.path, settings, images, ours=False) as by_hand,
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


def steps_in_groups(settings: Settings, depth: int, count: int) -> Work:
    """Steps at batches of 128 in batch-norm groups of 64, as in paper 1."""
    batch = TRAINING_BATCH
    trainer = trainer_of(settings, depth, batch * 4, batch_size=batch, batch_norm_group=64)
    return plain.take_steps(trainer, count)


def _training(settings: Settings, depth: int, steps: int) -> Found:
    batch = TRAINING_BATCH
    steps = 1 if settings.small else steps
    case = settings, depth, steps
    with Side(plain.steps, *case, ours=False) as by_hand, Side(steps_in_groups, *case) as ours:
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
        amount=TRAINING_BATCH * steps,
        remark=f"batches of {TRAINING_BATCH} in batch-norm groups of 64; plain: ours in one "
        "process with two threads",
    )


def _steps_of_active(settings: Settings, batch: int, active: int | None, count: int) -> Work:
    trainer = trainer_of(settings, 110, batch * 4, batch_size=batch, active_units=active)
    return plain.take_steps(trainer, count)


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
    batch = TRAINING_BATCH
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


MEASURES: dict[str, Callable[[Settings], Found]] = {
    "lesion_single": lesion_single,
    "lesion_count": lesion_count,
    "exact_sweep": exact_sweep,
    "path_samples": path_samples,
    "training_110": training_110,
    "training_20": training_20,
    "torchrun": torchrun,
    "active_units": active_units,
    "batch_preparation": batch_preparation,
    "help": help_command,
    "memory_1001": memory_1001,
}
"""By the name of the item in `resnet_cli.bench.catalog`."""
