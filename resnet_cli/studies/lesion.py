"""What the studies that delete or move units share: draws, columns and measurement."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import PositiveInt

from resnet_cli.results.columns import Table, number, units, whole
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Measured, OnTestImages, Option, Row

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from resnet_cli.datasets.batches import Batches
    from resnet_cli.models.network import Network
    from resnet_cli.models.units import Place
    from resnet_cli.runtime.engine import Engine
    from resnet_cli.studies.batch_statistics import Statistics
    from resnet_cli.studies.progress import Progress, Report
    from resnet_cli.studies.subject import Subject
    from resnet_cli.studies.walks import Outcome, Walk

K = whole("k", "units deleted together")
SAMPLE = whole("sample", "number of the draw within this k, from 0")
BLOCKS = units("blocks", "the deleted units' indices, joined by spaces")
ERRORS = (
    number("test_error", "percent, of the modified network"),
    number("baseline_error", "percent, of the intact network on the same images"),
    whole("images", "test images measured on"),
    whole("seed", "seed of the draws"),
)
PREDICTIONS = (
    number(
        "loss",
        "mean cross-entropy, nats; not finite where an output of the modified network is not",
        infinite=True,
    ),
    number(
        "kl_divergence",
        "mean KL(intact ‖ modified) of the predicted distributions, nats",
        infinite=True,
    ),
    number("agreement", "percent of images for which both networks predict the same class"),
)


RECALIBRATED = "_recalibrated"
"""Suffix of tables measured with re-estimated batch-norm statistics."""
RECALIBRATION = (
    whole("recalibration_images", "training images that the statistics were re-estimated on"),
    whole("subset", "number of the random draw of these images"),
)


def recalibrated(table: Table) -> Table:
    """The table of the same measurement, with re-estimated batch-norm statistics."""
    return Table(
        f"{table.name}{RECALIBRATED}",
        f"{table.row}, with batch-norm statistics re-estimated",
        (*table.columns, *RECALIBRATION),
        f"As `{table.name}.csv`. The statistics of the intact network, to which "
        "`baseline_error`, `kl_divergence`\nand `agreement` refer, are re-estimated on the same "
        "images.",
    )


class Lesion(Protocol):
    """A modification of the network: units deleted or moved."""

    @property
    def columns(self) -> Row:
        """The columns that identify it."""

    def walk(self, places: Sequence["Place"]) -> "Walk":
        """The walk through the modified network.

        Args:
            places: of the network's units.
        """


@dataclass(frozen=True)
class Deletion:
    """One draw: these units are deleted together."""

    sample: int
    units: tuple[int, ...]

    @property
    def columns(self) -> Row:
        """The columns K, SAMPLE and BLOCKS."""
        blocks = " ".join(map(str, self.units))
        return {"k": len(self.units), "sample": self.sample, "blocks": blocks}

    def walk(self, places: Sequence["Place"]) -> "Walk":
        """The walk with these units deleted.

        Raises:
            UserError: a unit does not exist.
        """
        from resnet_cli.studies.walks import delete, intact

        return delete(intact(len(places)), self.units)


def draw_deletions(
    num_units: int,
    ks: Iterable[int],
    samples: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> list[Deletion]:
    """The sets of units to delete: each unit in turn for k = 1, `samples` random sets for k > 1.

    A draw depends on (seed, k, sample) only, so a longer study contains a shorter one.

    Args:
        check: called before each draw; stops on request (`progress.check_of`).

    Raises:
        UserError: k is larger than the number of units, or below 1.
    """
    import torch

    from resnet_cli.runtime.seeding import stream

    deletions = []
    for k in ks:
        if not 1 <= k <= num_units:
            raise UserError(
                f"{k} units cannot be deleted; this network has {num_units} units, "
                f"so k is 1 to {num_units}"
            )
        if k == 1:
            deletions += [Deletion(unit, (unit,)) for unit in range(num_units)]
            continue
        for sample in range(samples):
            check()
            generator = stream(seed, "delete", k, sample)
            chosen = torch.randperm(num_units, generator=generator)[:k].tolist()
            deletions.append(Deletion(sample, tuple(sorted(chosen))))
    return deletions


def evaluate_lesions(
    network: "Network",
    batches: "Batches",
    lesions: Sequence[Lesion],
    report: "Report" = lambda done, total: None,
    engine: "Engine" = "fast",
    statistics: "Mapping[Walk, Statistics] | None" = None,
) -> list["Outcome"]:
    """The outcome of the intact network, then of each lesion (`walks.evaluate_walks`).

    Raises:
        UserError: a unit does not exist, or is moved to where the shapes differ.
    """
    from resnet_cli.studies.walks import evaluate_walks, intact

    walks = [lesion.walk(network.places) for lesion in lesions]
    walks.insert(0, intact(len(network.units)))
    return evaluate_walks(network, batches, walks, report, engine, statistics)


def outcomes_of(
    subject: "Subject",
    lesions: Sequence[Lesion],
    progress: "Progress",
    label: str,
    statistics: "Mapping[Walk, Statistics] | None" = None,
) -> list["Outcome"]:
    """`evaluate_lesions` on the subject's test images, with a progress bar.

    Args:
        label: of the progress bar.
    """
    network, engine = subject.network, subject.context.engine
    batches = subject.batches("test")
    with progress.of(f"{label} of {subject.label}") as report:
        return evaluate_lesions(network, batches, lesions, report, engine, statistics)


def re_estimated(
    subject: "Subject",
    walks: Sequence["Walk"],
    images: Sequence["Tensor"],
    progress: "Progress",
    label: str,
) -> "dict[Walk, Statistics]":
    """The batch-norm statistics of each walk, re-estimated along it (`batch_statistics.estimate`).

    Args:
        walks: in the order in which they are visited.
        images: batches of training images, [B, C, H, W] each.
    """
    from resnet_cli.studies.batch_statistics import estimate
    from resnet_cli.studies.walks import shared_steps

    shared = shared_steps(walks, engine=subject.context.engine)
    with progress.of(label) as report:
        found = estimate(subject.network, images, walks, shared, report)
    return dict(zip(walks, found, strict=True))


def lesion_rows(lesions: Sequence[Lesion], outcomes: Sequence["Outcome"], seed: int) -> list[Row]:
    """A row for each lesion: the columns that identify it, ERRORS and PREDICTIONS.

    Args:
        outcomes: of `evaluate_lesions`.
    """
    intact, *changed = outcomes
    return [
        lesion.columns | measured_columns(outcome, intact, seed)
        for lesion, outcome in zip(lesions, changed, strict=True)
    ]


def summary_title(subject: "Subject", frame: "DataFrame") -> str:
    """The title of a summary: network, number of images and error of the intact network."""
    images, error = frame["images"].iloc[0], frame["baseline_error"].iloc[0]
    return f"{subject.label}: {images:,} images, intact {error:.2f} %"


def measured_columns(outcome: "Outcome", baseline: "Outcome", seed: int) -> Row:
    """The columns ERRORS and PREDICTIONS of one modified network.

    Raises:
        UserError: the loss of the intact network is not finite.
    """
    if not math.isfinite(baseline.loss):
        raise UserError(
            f"the loss of the intact network on {baseline.images:,} images is {baseline.loss}, so "
            "nothing can be compared with it"
        )
    return {
        "test_error": outcome.error,
        "baseline_error": baseline.error,
        "images": outcome.images,
        "seed": seed,
        "loss": outcome.loss,
        "kl_divergence": outcome.kl_divergence,
        "agreement": outcome.agreement,
    }


class LesionStudy(OnTestImages):
    """A study that deletes or moves units and measures on the test split."""

    recalibrate: Annotated[
        PositiveInt | None,
        Option(
            "--recalibrate",
            "Also measure with batch-norm statistics re-estimated on N training images (1000 is "
            "usual), without labels or gradients.",
            metavar="N",
        ),
    ] = None
    """Also measure with batch-norm statistics re-estimated on this number of training images."""

    command = "lesion"
    shared_options = ("images", "engine")

    def names(self) -> tuple[str, ...]:
        names = (table.name for table in self.tables)
        return tuple(name for name in names if self.recalibrate or not name.endswith(RECALIBRATED))

    def identity(self, table: str | None = None) -> dict[str, Any]:
        found = super().identity(table)
        if table is not None and not table.endswith(RECALIBRATED):
            found.pop("recalibrate", None)
        return found

    def check(self, subject: "Subject") -> None:
        if self.recalibrate is not None:
            from resnet_cli.studies import batch_statistics

            batch_statistics.check(subject.network)

    def measure_recalibrated(
        self,
        table: str,
        subject: "Subject",
        lesions: Sequence["Lesion"],
        seed: int,
        progress: "Progress",
        rows: Callable[[Sequence[Any], Sequence["Outcome"], int], list[Row]] = lesion_rows,
    ) -> Measured:
        """Measure `recalibrated(table)` if it is wanted.

        Args:
            table: name of the table with the network's own statistics.
            rows: makes the rows from lesions, outcomes and seed.
        """
        name = f"{table}{RECALIBRATED}"
        if not progress.wants(name):
            return
        from resnet_cli.studies.batch_statistics import training_images
        from resnet_cli.studies.walks import MAX_TOGETHER, visited

        assert self.recalibrate is not None
        images = training_images(subject.batches("train"), self.recalibrate, 0, seed)
        outcomes: list[Outcome] = []
        for start in range(0, len(lesions), MAX_TOGETHER):
            some = lesions[start : start + MAX_TOGETHER]
            walks = [lesion.walk(subject.network.places) for lesion in some]
            label = f"re-estimating batch-norm statistics of {subject.label}"
            statistics = re_estimated(
                subject, visited(subject.num_units, walks), images, progress, label
            )
            intact, *measured = outcomes_of(
                subject, some, progress, "recalibrated lesions", statistics
            )
            outcomes += measured if outcomes else [intact, *measured]
        columns = {"recalibration_images": self.recalibrate, "subset": 0}
        found = [row | columns for row in rows(lesions, outcomes, seed)]
        yield name, found, ("test", "train")
