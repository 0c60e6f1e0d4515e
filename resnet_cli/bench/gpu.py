"""GPU benchmarks: correctness checks, and images per second compared with the plain loop.

`resnet-cli bench --device cuda` runs both, and `examples/gpu.sh` uses them to choose the length of
a training. An item that fails is reported, and the others still run.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.bench.catalog import GPU_NAMES
from resnet_cli.bench.run import choose
from resnet_cli.bench.subjects import NORMALIZATION, random_split
from resnet_cli.config.schema import RunConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.models.factory import build
from resnet_cli.results.provenance import collect
from resnet_cli.results.tables import write_table
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import one_line
from resnet_cli.runtime.interrupt import Interrupted, Stopper
from resnet_cli.training.loop import Trainer

PRECISIONS = ("float32", "tf32", "bfloat16")
BATCH = 128
NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet-20": {"depth": 20},
    "ResNet-110": {"depth": 110},
    "ResNet-110, 23 active units": {"depth": 110},
    "ResNet-164": {"depth": 164, "branch": "bottleneck"},
    "VGG-15": {"family": "vgg", "depth": 15},
}
"""Pre-activation networks and a VGG."""
DEEPEST: dict[str, dict[str, Any]] = {"ResNet-1001": {"depth": 1001, "branch": "bottleneck"}}
"""Measured last, without the plain loop."""
ACTIVE_UNITS = {"ResNet-110, 23 active units": 23}
"""The number of units that are active in a batch, where it is not all."""
ROUNDING = {"tf32": 2.0, "bfloat16": 2.0}
"""Largest distance of a fast step from the float32 step, divided by the distance of the plain step
of the same precision."""
SAME = 1e-3
"""Largest distance between two float32 computations of the logits, divided by their norm."""
SAME_STEP = 1e-2
"""Largest distance between two float32 training steps of ResNet-20, divided by the norm of a step.
A deeper network would be less informative: for an untrained ResNet-110, the distance between the
gradients in float32 and float64 is 2.5 % of their norm, and in bfloat16 more than 100 %."""
LARGEST_LIMIT = 0.5
"""Upper bound of all limits, relative to the norm of a step: a step that changes nothing differs by
1."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The device and the amount of work."""

    device: torch.device
    small: bool = False
    """Use tiny networks, only to check that everything runs."""

    def trainer(
        self,
        network: str,
        precision: str,
        engine: str,
        notes: list[str] | None = None,
        active_units: int | None = None,
    ) -> Trainer:
        """A trainer on random images, with batches of 128 in batch-norm groups of 64."""
        model = dict((NETWORKS | DEEPEST)[network])
        if self.small and active_units:
            active_units = 1
        if self.small:
            model["depth"] = 11 if "branch" in model else 8
        batch = 16 if self.small else BATCH
        run = RunConfig.model_validate(
            {
                "model": model,
                "data": {"dataset": "cifar10"},
                "train": {"iterations": 64000, "batch_size": batch, "batch_norm_group": batch // 2}
                | {"precision": precision, "active_units": active_units},
                "seed": 0,
            }
        )
        split = random_split(batch * (4 if self.small else 50))
        batches = Batches(split, NORMALIZATION, pad=4, flip=True, device=self.device)
        made = build(run.model, 10, 0).to(self.device)
        note = (notes if notes is not None else []).append
        return Trainer(run, made, batches, batches, engine=engine, note=note)  # type: ignore[arg-type]

    def wait(self) -> None:
        """Wait until the device has finished all work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def run_gpu_benchmarks(
    names: Sequence[str], settings: Settings, out: Path, display: Display, stopper: Stopper
) -> tuple[list[Path], list[Row]]:
    """Run the checks (bench_gpu_checks.csv) and the measurements (bench_gpu.csv). Tables are
    rewritten after each item with the results so far.

    Returns:
        The files, and the rows of both tables.

    Raises:
        Interrupted: `stopper` returned True; the results so far are written.
        UserError: there is no such benchmark, or a file cannot be written.
    """
    started = datetime.now(UTC)
    items = {"gpu_checks": _checks, "gpu": _measurements}
    files: list[Path] = []
    every: list[Row] = []
    for benchmark in choose(names, GPU_NAMES):
        rows: list[Row] = []
        for name, measure in items[benchmark](settings):
            if stopper():
                raise Interrupted("stopped between benchmarks; the results so far are written")
            try:
                new = measure()
            except (RuntimeError, ArithmeticError, TypeError, AttributeError) as error:
                new = [_row(name, "", "", [], "", remark=f"failed: {one_line(error, 200)}")]
            for row in new:
                display.line(_line(row), level=-1)
            rows += new
            described = {"benchmarks": [benchmark], "small": settings.small}
            provenance = collect(
                described, seeds=(0,), started=started, device=str(settings.device)
            )
            path = write_table(rows, f"bench_{benchmark}", out, provenance)
        files.append(path)
        every += rows
    return files, every


Item = tuple[str, Callable[[], list[Row]]]


def _checks(settings: Settings) -> Iterator[Item]:
    yield "step", lambda: check_steps(settings)
    yield "evaluation", lambda: check_evaluation(settings)


def _measurements(settings: Settings) -> Iterator[Item]:
    for network in list(NETWORKS)[: 3 if settings.small else None]:
        for precision in PRECISIONS:
            yield (
                f"train {network}",
                lambda n=network, p=precision: [  # type: ignore[misc]
                    train_speed(settings, n, p, "fast"),
                    train_speed(settings, n, p, "plain"),
                ],
            )
    yield "lesion sweep", lambda: [lesion_speed(settings)]
    yield "exact spectrum", lambda: [spectrum_speed(settings)]
    for network in DEEPEST if not settings.small else ():
        for precision in ("bfloat16", "float32"):
            yield (
                f"train {network}",
                lambda n=network, p=precision: [  # type: ignore[misc]
                    train_speed(settings, n, p, "fast")
                ],
            )


# --- checks --------------------------------------------------------------------------------------


def check_steps(settings: Settings) -> list[Row]:
    """Compare one fast and one plain training step of ResNet-20 in each precision, by the distance
    between the weights afterwards, with all units and with a random half of them.

    In float32 the two must agree; in a lower precision the fast step must be about as close to
    float32 as the plain one.
    """
    start = [
        p.detach() for p in settings.trainer("ResNet-20", "float32", "plain").network.parameters()
    ]
    rows = []
    for item, active in (("step", None), ("step with random units", 4)):
        reference = _after_a_step(settings, "float32", "plain", active=active)
        length = _distance(reference, start)
        for precision in PRECISIONS:
            notes: list[str] = []
            fast = _after_a_step(settings, precision, "fast", notes, active)
            plain = _after_a_step(settings, precision, "plain", active=active)
            far, usual = _distance(fast, reference) / length, _distance(plain, reference) / length
            limit = min(max(SAME_STEP, ROUNDING.get(precision, 0.0) * usual), LARGEST_LIMIT)
            agrees = far <= limit and not notes
            remark = f"plain {usual:.2g}, at most {limit:.2g}: {'agrees' if agrees else 'DIFFERS'}"
            remark = "; ".join([remark, *notes])
            rows.append(_row(item, precision, "fast", [far], "of its length", remark))
    return rows


def _after_a_step(
    settings: Settings,
    precision: str,
    engine: str,
    notes: list[str] | None = None,
    active: int | None = None,
) -> list[Tensor]:
    trainer = settings.trainer("ResNet-20", precision, engine, notes, active)
    trainer.step()
    return [p.detach().clone() for p in trainer.network.parameters()]


def _distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    squares = [(a.double() - b.double()).square().sum() for a, b in zip(first, second, strict=True)]
    return float(torch.stack(squares).sum().sqrt())


def check_evaluation(settings: Settings) -> list[Row]:
    """Compare a bundled network's logits for random images on the device and on the CPU."""
    from resnet_cli.weights.load import load_network

    loaded = load_network("preact56-digits" if settings.small else "preact110-cifar10")
    side = 16 if settings.small else 32
    images = torch.randn(64, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = loaded.network(images)
        found = loaded.network.to(settings.device)(images.to(settings.device)).cpu()
    error = float((found - expected).norm() / expected.norm())
    remark = f"at most {SAME:g}: {'agrees' if error <= SAME else 'DIFFERS'}"
    return [
        _row("evaluation against the processor", "float32", "fast", [error], "of logits", remark)
    ]


# --- speed ---------------------------------------------------------------------------------------


def train_speed(settings: Settings, network: str, precision: str, engine: str) -> Row:
    """Images per second of the training step."""
    notes: list[str] = []
    gc.collect()  # free the previous trainer and its graph's memory
    if settings.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = settings.trainer(network, precision, engine, notes, ACTIVE_UNITS.get(network))
    for _ in range(3):
        trainer.step()
    settings.wait()
    begun = time.perf_counter()
    trainer.step()
    settings.wait()
    # Enough steps for about half a second per repeat, from the time of one step.
    count = 1 if settings.small else max(1, min(100, int(0.5 / (time.perf_counter() - begun))))
    speeds = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(count):
            trainer.step()
        settings.wait()
        speeds.append(trainer.batch_size * count / (time.perf_counter() - begun))
    remark = notes
    if settings.device.type == "cuda":
        remark = [f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB", *notes]
    return _row(f"train {network}", precision, engine, speeds, "images/s", "; ".join(remark))


def lesion_speed(settings: Settings) -> Row:
    """Images times deletions per second, deleting each unit of a ResNet-110 in turn."""
    from resnet_cli.studies.lesion import draw_deletions, evaluate_lesions

    trainer = settings.trainer("ResNet-110", "float32", "plain")
    network, images = trainer.network.eval(), 16 if settings.small else 2000
    split = random_split(images)
    batches = Batches(split, NORMALIZATION, device=settings.device)
    deletions = draw_deletions(len(network.units), (1,), 1, 0)
    speeds = _repeats(
        settings,
        lambda: evaluate_lesions(network, batches, deletions),
        images * len(deletions),
    )
    return _row("lesion sweep", "float32", "fast", speeds, "images/s", "images times deletions")


def spectrum_speed(settings: Settings) -> Row:
    """Images per second of the exact spectrum of a ResNet-110."""
    from resnet_cli.studies.paths.exact import exact_spectrum

    trainer = settings.trainer("ResNet-110", "float32", "plain")
    network, images = trainer.network.eval(), 8 if settings.small else 512
    split = random_split(images)
    batches = Batches(split, NORMALIZATION, device=settings.device)
    x, labels = batches.evaluation(0, images)
    speeds = _repeats(settings, lambda: exact_spectrum(network, x, labels), images)
    return _row("exact spectrum", "float32", "fast", speeds, "images/s")


def _repeats(settings: Settings, work: Callable[[], object], amount: int) -> list[float]:
    work()
    settings.wait()
    speeds = []
    for _ in range(1 if settings.small else 3):
        begun = time.perf_counter()
        work()
        settings.wait()
        speeds.append(amount / (time.perf_counter() - begun))
    return speeds


def _row(
    item: str, precision: str, side: str, values: Sequence[float], unit: str, remark: str = ""
) -> Row:
    return {
        "item": item,
        "precision": precision,
        "side": side,
        "value": statistics.median(values) if values else None,
        "lowest": min(values, default=None),
        "highest": max(values, default=None),
        "measured_in": unit,
        "remark": remark,
    }


def _line(row: Row) -> str:
    value = "" if row["value"] is None else f"{row['value']:.5g} {row['measured_in']}"
    words = [row["item"], row["precision"], row["side"], value, row["remark"]]
    return ", ".join(word for word in words if word)
