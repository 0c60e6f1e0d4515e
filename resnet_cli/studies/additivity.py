"""Additivity: how far the units act independently (beyond paper 2).

Paper 2 calls the paths an ensemble, whose members hardly depend on one another. If the units acted
independently in this sense, deleting a set of them would damage the network by the sum of what
deleting each alone does. So each set's joint damage is compared with the sum of its single damages.
Damage is an increase over the intact network: of the error, which saturates at chance, and of the
loss, which does not.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import model_validator

from resnet_cli.config.fields import IntRange
from resnet_cli.figures.style import (
    GREY,
    HEIGHT,
    ROW_WIDTH,
    new_figure,
    not_empty,
    set_title,
    styled,
)
from resnet_cli.results.columns import Table, number
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import NamedFigure, Option, Row, Samples, Summary, Tables
from resnet_cli.studies.lesion import (
    BLOCKS,
    ERRORS,
    SAMPLE,
    Deletion,
    K,
    LesionStudy,
    draw_deletions,
    measured_columns,
    recalibrated,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from resnet_cli.datasets.batches import Batches
    from resnet_cli.figures.titles import Heading
    from resnet_cli.models.network import Network
    from resnet_cli.runtime.engine import Engine
    from resnet_cli.studies.progress import Progress, Report
    from resnet_cli.studies.subject import Subject
    from resnet_cli.studies.walks import Outcome, Walk

DAMAGES = {
    "error": ("joint_damage", "summed_damage"),
    "loss": ("joint_loss_damage", "summed_loss_damage"),
}
"""For each measure of damage the columns of the joint one and of the sum."""


LESION_ADDITIVITY = Table(
    "lesion_additivity",
    "random set of deleted units",
    (
        K,
        SAMPLE,
        BLOCKS,
        number(
            "joint_damage",
            "test_error - baseline_error, percentage points, with the whole set deleted",
        ),
        number(
            "summed_damage",
            "the sum of the error increases of its units, each deleted alone",
        ),
        number(
            "joint_loss_damage",
            "increase of the loss, nats; it does not saturate; not finite where the loss is not",
            infinite=True,
        ),
        number("summed_loss_damage", "the sum of the loss increases of its units", infinite=True),
        *ERRORS,
    ),
    note="For the same seed the sets are those of lesion_delete.csv.",
)
LESION_ADDITIVITY_RECALIBRATED = recalibrated(LESION_ADDITIVITY)


class Additivity(LesionStudy):
    """Joint damage of k deleted units against the sum of single damages (beyond paper 2)."""

    kind: Literal["additivity"] = "additivity"
    k: Annotated[
        IntRange,
        Option(
            "--additivity",
            "Number of units in a set, such as 2-10: compare the damage of deleting a set with the "
            "sum of the damages of its units.",
            metavar="K|K1-K2",
            selects=True,
        ),
    ] = tuple(range(2, 11))
    samples: Samples = 20
    """Random sets for each k."""

    title = "Joint damage of deleted units against the sum of their single damages"
    pictures: ClassVar = {
        "lesion_additivity": "joint damage of deleted units against the sum of single damages",
    }
    tables = (
        LESION_ADDITIVITY,
        LESION_ADDITIVITY_RECALIBRATED,
    )

    @model_validator(mode="after")
    def _sets(self) -> "Additivity":
        if min(self.k) < 2:
            raise ValueError("k starts at 2: the damage of one unit is its own sum")
        return self

    def check(self, subject: "Subject") -> None:
        super().check(subject)
        draw_sets(subject.num_units, self.k, 1, 0)

    def measure(
        self, subject: "Subject", seed: int, progress: "Progress"
    ) -> Iterator[tuple[str, Sequence[Row], Sequence[str]]]:
        sets = draw_sets(subject.num_units, self.k, self.samples, seed, progress.check)
        network, batches = subject.loaded.network, subject.batches("test")
        if progress.wants("lesion_additivity"):
            with progress.of(f"deleting sets of units of {subject.label}") as report:
                rows = compare_damages(network, batches, sets, seed, report, subject.context.engine)
            yield "lesion_additivity", rows, ("test",)
        if progress.wants(LESION_ADDITIVITY_RECALIBRATED.name):
            walks = walks_of(sets, subject.num_units)
            outcomes = self.recalibrated_outcomes(subject, walks, seed, progress)
            rows = damage_rows(sets, outcomes, seed)
            rows = [row | self.recalibration_columns for row in rows]
            yield LESION_ADDITIVITY_RECALIBRATED.name, rows, ("test", "train")

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        yield NamedFigure(
            "lesion_additivity",
            lambda: additivity_figure(
                tables["lesion_additivity"],
                heading.over(
                    f"Joint damage of deleted {heading.unit}s against the sum of their single "
                    "damages"
                ),
            ),
        )

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["lesion_additivity"]
        found = correlations(frame.to_dict("records"))  # type: ignore[arg-type]
        columns = ["joint_damage", "summed_damage", "joint_loss_damage", "summed_loss_damage"]
        words = [f"{name.replace('_', ', ')}: {_in_words(r)}" for name, r in found.items()]
        return Summary(
            {
                "baseline_error": float(frame["baseline_error"].iloc[0]),
                "rows": len(frame),
                "correlation": found,
            },
            f"{subject.label}: {frame['images'].iloc[0]} images; mean damage of sets of k units",
            ["k", "sets", "joint (points)", "summed (points)", "joint (nats)", "summed (nats)"],
            [
                [k, len(rows), *(float(rows[column].mean()) for column in columns)]
                for k, rows in frame.groupby("k")
            ],
            [f"correlation of joint with summed damage: {'; '.join(words)}"],
        )


def _in_words(correlation: float | None) -> str:
    return "none, the damages do not vary" if correlation is None else f"{correlation:.3f}"


def draw_sets(
    num_units: int,
    ks: Iterable[int],
    samples: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> list[Deletion]:
    """`samples` random sets of k units for each k: the sets that `draw_deletions` draws.

    Raises:
        UserError: a k below 2, or above the number of units.
    """
    ks = tuple(ks)
    if min(ks) < 2:
        raise UserError(
            f"sets of {min(ks)} cannot show additivity: one unit's damage is its own sum; "
            "take 2 or more, for example 2-10"
        )
    return draw_deletions(num_units, ks, samples, seed, check)


def compare_damages(
    network: "Network",
    batches: "Batches",
    sets: Sequence[Deletion],
    seed: int,
    report: "Report" = lambda done, total: None,
    engine: "Engine" = "fast",
) -> list[Row]:
    """Rows of lesion_additivity.csv, one for each set, in the order given."""
    from resnet_cli.studies.walks import evaluate_walks, intact

    walks = [intact(len(network.units)), *walks_of(sets, len(network.units))]
    return damage_rows(sets, evaluate_walks(network, batches, walks, report, engine), seed)


def walks_of(sets: Sequence[Deletion], num_units: int) -> list["Walk"]:
    """The deletion of each unit that is in a set, in ascending order, then of each set."""
    from resnet_cli.studies.walks import delete, intact

    whole = intact(num_units)
    return [
        *(delete(whole, (unit,)) for unit in _used(sets)),
        *(delete(whole, each.units) for each in sets),
    ]


def _used(sets: Sequence[Deletion]) -> list[int]:
    return sorted({unit for each in sets for unit in each.units})


def damage_rows(sets: Sequence[Deletion], outcomes: Sequence["Outcome"], seed: int) -> list[Row]:
    """Rows of lesion_additivity.csv from the outcome of the intact network, then of `walks_of`."""
    baseline, *lesioned = outcomes
    used = _used(sets)
    single = dict(zip(used, lesioned, strict=False))
    return [
        {
            "k": len(each.units),
            "sample": each.sample,
            "blocks": each.blocks,
            "joint_damage": joint.error - baseline.error,
            "summed_damage": sum(single[unit].error - baseline.error for unit in each.units),
            "joint_loss_damage": joint.loss - baseline.loss,
            "summed_loss_damage": sum(single[unit].loss - baseline.loss for unit in each.units),
        }
        | {c.name: measured_columns(joint, baseline, seed)[c.name] for c in ERRORS}
        for each, joint in zip(sets, lesioned[len(used) :], strict=True)
    ]


def correlations(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """How well the summed damage predicts the joint one, over all sets.

    Returns:
        `pearson_error`, `spearman_error`, `pearson_loss`, `spearman_loss`; None where one side
        does not vary or is not finite.
    """
    import numpy
    from scipy.stats import pearsonr, spearmanr

    rows = list(rows)
    found: dict[str, float | None] = {}
    for measure, (joint, summed) in DAMAGES.items():
        x = numpy.array([row[summed] for row in rows], dtype=float)
        y = numpy.array([row[joint] for row in rows], dtype=float)
        finite = numpy.isfinite(x) & numpy.isfinite(y)
        x, y = x[finite], y[finite]
        varies = len(x) > 1 and numpy.ptp(x) > 0 and numpy.ptp(y) > 0
        found[f"pearson_{measure}"] = float(pearsonr(x, y).statistic) if varies else None
        found[f"spearman_{measure}"] = float(spearmanr(x, y).statistic) if varies else None
    return found


@styled
def additivity_figure(sets: "pandas.DataFrame", title: str) -> "Figure":
    """Joint damage of a set of units against the sum of their single damages, error and loss.

    On the diagonal the units act independently; above it they are worse together.

    Args:
        sets: rows of lesion_additivity.csv.
    """
    import numpy
    from matplotlib.ticker import MaxNLocator

    not_empty(sets, "lesion_additivity")
    figure = new_figure(ROW_WIDTH * 0.75, HEIGHT)
    panels = (
        ("summed_damage", "joint_damage", "error increase (points)"),
        ("summed_loss_damage", "joint_loss_damage", "loss increase (nats)"),
    )
    for axes, (summed, joint, unit) in zip(figure.subplots(1, 2), panels, strict=True):
        rows = sets[numpy.isfinite(sets[summed]) & numpy.isfinite(sets[joint])]
        points = axes.scatter(rows[summed], rows[joint], c=rows["k"], s=9, cmap="viridis")
        both = [*rows[summed], *rows[joint], 0.0]
        low, high = min(both), max(both)
        axes.plot([low, high], [low, high], color=GREY, linestyle="--", linewidth=1.0)
        axes.set_xlabel(f"sum of single damages: {unit}")
        axes.set_ylabel(f"joint damage: {unit}")
    whole = MaxNLocator(6, integer=True)
    figure.colorbar(points, ax=figure.axes, label="units deleted together, k", ticks=whole)
    set_title(figure, title)
    return figure
