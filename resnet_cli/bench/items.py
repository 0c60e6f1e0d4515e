"""What each benchmark measures; the baselines are in `resnet_cli.bench.plain`."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch.nn import functional

from resnet_cli.bench import plain
from resnet_cli.bench.measure import (
    BenchmarkProcess,
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
    benchmark_network,
    deletions_of,
    num_units_of,
    random_split,
    trainer_of,
)
from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.models.factory import build
from resnet_cli.models.network import measure
from resnet_cli.studies.paths.exact import exact_spectrum
from resnet_cli.studies.paths.sampled import sample_path_gradients
from resnet_cli.studies.walks import delete, evaluate_walks, intact
from resnet_cli.training.loop import Trainer


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of a benchmark."""

    values: list[float]
    """The measured number of each repeat: a ratio, a percentage, seconds or GB."""
    seconds: dict[str, Sequence[float]]
    """BenchmarkProcess (`plain` or `ours`) -> seconds of each repeat."""
    amount: float
    """Work of this program in one repeat, in the item's unit."""
    plain_amount: float | None = None
    """Work of the baseline in one repeat; None means the same."""
    gflops: float | None = None
    """Speed of this program, in 1e9 multiplications and additions per second."""
    remark: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.values)


# --- lesions -------------------------------------------------------------------------------------


def _our_lesion(settings: Settings, images: int, ks: Sequence[int], samples: int) -> Work:
    split = random_split(images)
    network, batches = benchmark_network(settings, 56, split), batches_of(split)
    whole = intact(len(network.units))
    walks = [delete(whole, units) for units in deletions_of(network, ks, samples)]
    return lambda: [outcome.wrong for outcome in evaluate_walks(network, batches, walks)]


def _lesion(settings: Settings, images: int, ks: Sequence[int], samples: int) -> BenchmarkResult:
    images = settings.amount(images)
    case = settings, images, ks, samples
    with (
        BenchmarkProcess(plain.lesion, *case, ours=False) as baseline,
        BenchmarkProcess(_our_lesion, *case) as ours,
    ):
        timing = alternate(baseline.seconds, ours.seconds, settings.repeats)
    difference = max(abs(a - b) for a, b in zip(baseline.value, ours.value, strict=True))
    split = random_split(images)
    network = benchmark_network(settings, 56, split)
    num_units = len(network.units)
    walks = [delete(intact(num_units), units) for units in deletions_of(network, ks, samples)]
    prefixes = {walk[: end + 1] for walk in walks for end in range(num_units)}
    computed = sum(not prefix[-1].deleted for prefix in prefixes)
    flops = 2 * measure(network, IMAGE_SIZE).multiply_adds / num_units * computed * len(split)
    return BenchmarkResult(
        timing.ratios,
        {"plain": timing.plain, "ours": timing.ours},
        amount=len(split) * len(walks),
        gflops=flops / statistics.median(timing.ours) / 1e9,
        remark=f"{len(split)} images, {len(walks)} networks; errors differ by at most "
        f"{difference} images",
    )


# --- paths ---------------------------------------------------------------------------------------


def _sweep_and_passes(settings: Settings, count: int) -> Work:
    split = random_split(count)
    network = benchmark_network(settings, 110, split)
    images, labels = batches_of(split).evaluation(0, len(split))
    trained = copy.deepcopy(network).train()

    def backward() -> float:
        """Time one training backward pass, to inputs and weights, without the forward pass."""
        trained.zero_grad()
        loss = functional.cross_entropy(trained(images.clone().requires_grad_()), labels)
        return timed(loss.backward)

    def work() -> tuple[float, float, float]:
        one_pass = statistics.median(backward() for _ in range(3))
        checks: list[float] = []
        sweep = timed(lambda: checks.append(exact_spectrum(network, images, labels).check))
        return one_pass, sweep, checks[0]

    return work


def exact_sweep(settings: Settings) -> BenchmarkResult:
    images, num_units = settings.amount(128), num_units_of(settings, 110)
    rows = []
    with BenchmarkProcess(_sweep_and_passes, settings, images) as ours:
        for _ in range(settings.repeats):
            ours.seconds()
            rows.append(ours.value)
    passes, sweeps, checks = map(list, zip(*rows, strict=True))
    return BenchmarkResult(
        [a / b for a, b in zip(sweeps, passes, strict=True)],
        {"plain": passes, "ours": sweeps},
        amount=1,
        remark=f"{images} images, {num_units} units; check {max(checks):.1e}",
    )


def _our_paths(settings: Settings, count: int, ks: Sequence[int]) -> Work:
    split = random_split(count)
    network, batches = benchmark_network(settings, 110, split), batches_of(split)

    def work() -> None:
        sample_path_gradients(network, batches, ks, 1, count, 0, estimator="image")

    return work


def path_samples(settings: Settings) -> BenchmarkResult:
    images, num_units = settings.amount(128), num_units_of(settings, 110)
    ks = range(0, num_units + 1, 1 if settings.small else 6)
    with (
        BenchmarkProcess(plain.path, settings, images, ours=False) as baseline,
        BenchmarkProcess(_our_paths, settings, images, ks) as ours,
    ):
        timing = alternate(baseline.seconds, ours.seconds, settings.repeats)
    paths = len(ks) * images  # each image has its own path for each length
    return BenchmarkResult(
        [ratio * paths for ratio in timing.ratios],
        {"plain": timing.plain, "ours": timing.ours},
        amount=paths,
        plain_amount=1,
        remark=f"{images} images, {len(ks)} lengths of {num_units} units",
    )


# --- training ------------------------------------------------------------------------------------


def steps_in_groups(settings: Settings, depth: int, count: int) -> Work:
    """Training steps with batches of 128 in batch-norm groups of 64, as in paper 1."""
    batch = TRAINING_BATCH
    trainer = trainer_of(settings, depth, batch * 4, batch_size=batch, batch_norm_group=64)
    return plain.take_steps(trainer, count)


def _training(settings: Settings, depth: int, steps: int) -> BenchmarkResult:
    batch = TRAINING_BATCH
    steps = 1 if settings.small else steps
    case = settings, depth, steps
    with (
        BenchmarkProcess(plain.steps, *case, ours=False) as baseline,
        BenchmarkProcess(steps_in_groups, *case) as ours,
    ):
        timing = alternate(baseline.seconds, ours.seconds, settings.repeats)
    network = build(ModelConfig(depth=settings.depth(depth)), CLASSES, 0)
    flops = 3 * 2 * measure(network, IMAGE_SIZE).multiply_adds * batch * steps
    return BenchmarkResult(
        timing.ratios,
        {"plain": timing.plain, "ours": timing.ours},
        amount=batch * steps,
        gflops=flops / statistics.median(timing.ours) / 1e9,
        remark=f"batches of {batch}, ours in batch-norm groups of 64",
    )


def torchrun(settings: Settings) -> BenchmarkResult:
    """Two processes of one thread against one process of two threads, restarted for each repeat."""
    depth, steps, repeats = settings.depth(110), 3, settings.repeats
    if settings.small:
        steps = repeats = 1
    alone, shared = [], []
    for _ in range(repeats):
        with BenchmarkProcess(steps_in_groups, settings, 110, steps, threads=2) as one:
            alone.append(one.seconds())
        module = "resnet_cli.bench.torchrun_steps"
        shared.append(torchrun_seconds(2, module, str(depth), str(steps)))
    return BenchmarkResult(
        [a / b for a, b in zip(alone, shared, strict=True)],
        {"plain": alone, "ours": shared},
        amount=TRAINING_BATCH * steps,
        remark=f"batches of {TRAINING_BATCH} in batch-norm groups of 64; plain: ours in one "
        "process with two threads",
    )


def _steps_of_active(settings: Settings, batch: int, active: int | None, count: int) -> Work:
    trainer = trainer_of(settings, 110, batch * 4, batch_size=batch, active_units=active)
    return plain.take_steps(trainer, count)


def active_units(settings: Settings) -> BenchmarkResult:
    batch = 64
    count, steps = (1, 1) if settings.small else (23, 4)
    with (
        BenchmarkProcess(_steps_of_active, settings, batch, None, steps) as whole,
        BenchmarkProcess(_steps_of_active, settings, batch, count, steps) as part,
    ):
        timing = alternate(whole.seconds, part.seconds, settings.repeats)
    return BenchmarkResult(
        timing.ratios,
        {"plain": timing.plain, "ours": timing.ours},
        amount=batch * steps,
        remark=f"{count} of {num_units_of(settings, 110)} units active; plain: ours with all",
    )


def _preparation_and_steps(settings: Settings, batch: int) -> Work:
    trainer = trainer_of(settings, 20, batch * 4, batch_size=batch)
    trainer.step()

    def work() -> tuple[float, float]:
        prepared = statistics.median(timed(lambda: trainer.batch(0)) for _ in range(9))
        return prepared, statistics.median(timed(trainer.step) for _ in range(5))

    return work


def batch_preparation(settings: Settings) -> BenchmarkResult:
    batch = TRAINING_BATCH
    rows = []
    with BenchmarkProcess(_preparation_and_steps, settings, batch) as ours:
        for _ in range(settings.repeats):
            ours.seconds()
            rows.append(ours.value)
    prepared, whole = map(list, zip(*rows, strict=True))
    return BenchmarkResult(
        [100 * a / b for a, b in zip(prepared, whole, strict=True)],
        {"plain": whole, "ours": prepared},
        amount=batch,
        remark="plain: the whole step; ours: crop, flip and normalise its batch",
    )


# --- the rest ------------------------------------------------------------------------------------


def help_command(settings: Settings) -> BenchmarkResult:
    seconds = [command_seconds("--help") for _ in range(max(3, settings.repeats))]
    return BenchmarkResult(seconds, {"ours": seconds}, amount=1)


def _step_1001(depth: int) -> float:
    """Seconds of one training step of a bottleneck network with batch size 64, recomputing units in
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


def memory_1001(settings: Settings) -> BenchmarkResult:
    with BenchmarkProcess(with_peak, _step_1001, 11 if settings.small else 1001) as ours:
        ours.seconds()
    seconds, peak, _ = ours.value
    return BenchmarkResult(
        [peak / 1e3],
        {"ours": [seconds]},
        amount=64,
        remark="pre-activation, checkpoint_units, one step with batch size 64; whole process",
    )


MEASURES: dict[str, Callable[[Settings], BenchmarkResult]] = {
    "lesion_single": partial(_lesion, images=512, ks=[1], samples=1),
    "lesion_count": partial(_lesion, images=64, ks=range(1, 21), samples=20),
    "exact_sweep": exact_sweep,
    "path_samples": path_samples,
    "training_110": partial(_training, depth=110, steps=3),
    "training_20": partial(_training, depth=20, steps=16),
    "torchrun": torchrun,
    "active_units": active_units,
    "batch_preparation": batch_preparation,
    "help": help_command,
    "memory_1001": memory_1001,
}
"""Name of the item in `resnet_cli.bench.catalog` -> its measurement."""
