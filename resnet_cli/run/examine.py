"""All measurements of paper 2 for one network, within a time budget.

The sizes of the measurements (images, draws) are chosen for the budget and the speed of the network
on this machine. They are stored next to the results, so an examination that was stopped continues
with the same sizes.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pandas import DataFrame

from resnet_cli.datasets.catalogue import NotFoundError
from resnet_cli.figures.titles import Heading, network_title
from resnet_cli.models.network import same_shape_groups
from resnet_cli.results.layout import PLAN_FILE
from resnet_cli.results.tables import atomic_write
from resnet_cli.runtime.display import Display, duration
from resnet_cli.studies.base import GradientImages, Study, Summary
from resnet_cli.studies.batch_statistics import can_recalibrate, whole_batches
from resnet_cli.studies.delete import DeleteUnits
from resnet_cli.studies.influence import BlockInfluence
from resnet_cli.studies.paths.study import Paths
from resnet_cli.studies.reorder import ReorderUnits
from resnet_cli.studies.runner import Written, heading_for, run_study
from resnet_cli.studies.signal import Signal
from resnet_cli.studies.subject import Subject
from resnet_cli.training.evaluation import evaluate

DEFAULT_BUDGET = 600.0
"""The default budget in seconds."""
MAX_UNITS = 20
"""Largest number of units deleted together or of pairs swapped (paper 2, Figure 5)."""
TIMED_IMAGES = 100
MIN_TESTED = 1000
"""Minimum number of images for the test error, whatever the budget, if there are that many."""
TESTED_SHARE = 0.2
"""Fraction of the budget for the test error on more images."""
RECALIBRATED_COST = 2.0
"""Relative cost of a pass whose batch norms are not folded or that estimates statistics."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements."""

    images: int
    """Test images for single deletions."""
    fewer_images: int
    """Test images for each random set of deleted units and for each random order."""
    draws: int
    """Random sets for each number of units, and random orders for each number of swaps."""
    paths: int
    """Sampled paths of each length."""
    recalibration: int = 0
    """Training images on which batch-norm statistics are re-estimated after each single deletion;
    0 means that they are not re-estimated."""
    batch: int = 128
    """Images in the batch for each sampled path, for the exact spectrum and for signals."""
    tested: int = 10_000
    """Test images for the error of the intact network."""

    def __str__(self) -> str:
        again = f", batch norms re-estimated on {self.recalibration:,}"
        return (
            f"test error on {self.tested:,} images; single deletions on {self.images:,}"
            f"{again if self.recalibration else ''}; random sets and orders with {self.draws} "
            f"draws on {self.fewer_images:,}; {self.paths} sampled paths of each length on "
            f"{self.batch}"
        )

    def passes(self, num_units: int) -> float:
        """The approximate cost, in forward passes of one image through the network.

        Deletions share the part of the network before the first deleted unit: half of it for single
        deletions, which are measured twice (`deletion` and `influence`). A sampled path takes one
        backward pass, and the exact spectrum one for each length.
        """
        several = min(MAX_UNITS, num_units - 1)
        single = 2 * self.images * num_units / 2
        if self.recalibration:
            single += RECALIBRATED_COST * (self.images + self.recalibration) * num_units / 2
        random = 2 * 0.8 * several * self.draws * self.fewer_images
        sampled = self.batch * self.paths * (num_units + 1)
        exact = 2 * self.batch * num_units
        return self.tested + single + random + sampled + exact


LEVELS = (
    Sizes(10_000, 1000, 100, 100, 1000),
    Sizes(10_000, 1000, 50, 50, 1000),
    Sizes(10_000, 1000, 20, 20, 1000),
    Sizes(5000, 500, 20, 20, 1000),
    Sizes(2000, 250, 20, 20, 1000),
    Sizes(1000, 125, 20, 10, 500),
    Sizes(500, 125, 10, 5, 200),
    Sizes(250, 50, 10, 3, 100),
    Sizes(100, 40, 5, 2, 100, 32),
    Sizes(50, 20, 3, 2, 100, 16),
)
"""From the largest to the smallest useful sizes. Fewer images add less variance than fewer
draws."""


@dataclass(frozen=True)
class Examined:
    """The examination of one network."""

    subject: Subject
    sizes: Sizes
    error: float
    """Top-1 error in percent on the first `Sizes.tested` test images."""
    images: int
    parts: list["Part"]


@dataclass(frozen=True)
class Part:
    """One study of an examination, with its results."""

    folder: Path
    study: Study
    tables: Mapping[str, DataFrame]
    summary: Summary


def examine(
    subject: Subject,
    out: Path,
    display: Display,
    should_stop: Callable[[], bool],
    *,
    budget: float = DEFAULT_BUDGET,
    seed: int = 0,
) -> tuple[Examined, Written]:
    """Measure deletions, reorderings, paths and signals of a network.

    Args:
        out: each study gets a subfolder of this folder; existing results are kept.
        budget: seconds for which sizes are chosen; measurements are not cut off after that.

    Raises:
        Interrupted: `should_stop` returned True; the same call continues from there.
        UserError: the classes of the network and the data differ, or the folder cannot be written.
    """
    training = training_images(subject)
    if not training:
        display.paragraph(
            "no training images: paths and signals are measured on test images, and batch-norm "
            "statistics are not re-estimated"
        )
    sizes = _sizes(subject, out, training, budget, seed, display)
    tested = subject.first(sizes.tested).batches("test")
    with display.progress(f"evaluating {subject.label}") as update:
        whole = evaluate(subject.loaded.network, tested, report=update)
    written, parts = Written(), []
    for name, study, images in studies(subject, sizes, "train" if training else "test"):
        limited = subject.first(images)
        found = run_study(
            limited,
            study,
            seed=seed,
            out=out / name,
            display=display,
            should_stop=should_stop,
            shows_tables=False,
        )
        written.files += found.files
        written.kept += found.kept
        written.facts[name] = found.facts
        parts.append(Part(out / name, study, found.tables, found.summary))
    written.facts |= {"test_error": whole.error, "images": whole.images, "sizes": asdict(sizes)}
    return Examined(subject, sizes, whole.error, whole.images, parts), written


def training_images(subject: Subject) -> int:
    """The number of training images; 0 if there is no training split."""
    try:
        return len(subject.batches("train"))
    except NotFoundError:
        return 0


def studies(
    subject: Subject, sizes: Sizes, gradients: GradientImages = "train"
) -> list[tuple[str, Study, int]]:
    """The studies of an examination, as (folder, study, test images). Sets of units are only
    deleted if there are several units, and orders are only changed if there are units of equal
    shape.

    Args:
        gradients: the split on which paths and signals are measured.
    """
    several = tuple(range(2, min(MAX_UNITS, subject.num_units - 1) + 1))
    single = DeleteUnits(k=(1,), recalibrate=sizes.recalibration or None)
    found: list[tuple[str, Study, int]] = [
        ("deletion", single, sizes.images),
        ("influence", BlockInfluence(), sizes.images),
    ]
    if several:
        study: Study = DeleteUnits(k=several, samples=sizes.draws)
        found.append(("deletions", study, sizes.fewer_images))
    if any(len(group) > 1 for group in same_shape_groups(subject.loaded.network.places)):
        swaps = tuple(range(1, MAX_UNITS + 1))
        study = ReorderUnits(swaps=swaps, samples=sizes.draws)
        found.append(("reordering", study, sizes.fewer_images))
    if not subject.loaded.is_plain:
        batch = sizes.batch
        paths = Paths(samples=sizes.paths, batch_size=batch, cumulative=True, on=gradients)
        found.append(("paths", paths, sizes.images))
        found.append(("signal", Signal(batch_size=batch, on=gradients), sizes.images))
    return found


def _sizes(
    subject: Subject,
    out: Path,
    training: int,
    budget: float,
    seed: int,
    display: Display,
) -> Sizes:
    """The sizes for the budget, or those of the same examination if it was stopped."""
    identity = {
        "weights": subject.loaded.sha256,
        "data": subject.data.model_dump(mode="json"),
        "overrides": dict(subject.loaded.overrides),
        "budget": budget,
        "seed": seed,
    }
    path = out / PLAN_FILE
    with suppress(OSError, ValueError, TypeError, KeyError):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["identity"] == identity:
            return Sizes(**stored["sizes"])
    seconds = seconds_per_image(subject)
    able = training if can_recalibrate(subject.loaded.network) else 0
    available = len(subject.batches("test"))
    sizes = sizes_for_budget(subject.num_units, seconds, budget, available, able)
    estimate = duration(sizes.passes(subject.num_units) * seconds)
    display.paragraph(f"sizes for {duration(budget)}: {sizes}; about {estimate}")
    content = {"identity": identity, "sizes": asdict(sizes)}
    atomic_write(path, json.dumps(content, indent=1) + "\n")
    return sizes


def sizes_for_budget(
    num_units: int, seconds: float, budget: float, available: int, training: int = 0
) -> Sizes:
    """The largest sizes within the budget, or the smallest sizes if none are.

    Args:
        seconds: the time of one image's forward pass.
        available: number of test images.
        training: number of images on which batch-norm statistics can be re-estimated.
    """
    tested = max(MIN_TESTED, int(TESTED_SHARE * budget / seconds))
    for level in LEVELS:
        sizes = replace(
            level,
            images=min(level.images, available),
            fewer_images=min(level.fewer_images, available),
            recalibration=min(level.recalibration, whole_batches(training)),
            tested=min(tested, available),
        )
        if sizes.passes(num_units) * seconds <= budget:
            break
    return sizes


def seconds_per_image(subject: Subject) -> float:
    """The time of one image's forward pass in seconds, the faster of two measurements."""
    few = subject.first(TIMED_IMAGES).batches("test")
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        evaluate(subject.loaded.network, few)
        times.append(time.perf_counter() - begun)
    return min(times) / len(few)


def heading_of(subject: Subject) -> Heading:
    """The heading of the figures."""
    heading = Heading(None, network_title(subject.loaded.label), subject.data.dataset)
    return heading_for(subject, heading)
