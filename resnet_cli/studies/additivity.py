"""Additivity: to what extent the units act independently (beyond paper 2).

Paper 2 describes the paths as an ensemble whose members do not strongly depend on each other. If
the units acted independently, the damage of deleting a set of them would be the sum of the damages
of deleting each alone. So the joint damage of each set is compared with the sum of its single
damages. Damage is the increase over the intact network: of the error, which saturates at chance
level, and of the loss, which does not.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import model_validator

from resnet_cli.config.fields import IntRange
from resnet_cli.figures.style import GREY, HEIGHT, ROW_WIDTH, new_figure, not_empty, styled
from resnet_cli.results.columns import Table, number
from resnet_cli.studies.base import (
    Case,
    Measured,
    NamedFigure,
    Option,
    Row,
    Samples,
    Summary,
    Tables,
)
from resnet_cli.studies.lesion import (
    BLOCKS,
    ERRORS,
    SAMPLE,
    Deletion,
    K,
    LesionStudy,
    draw_deletions,
    measured_columns,
    outcomes_of,
    recalibrated,
)
from resnet_cli.studies.lesion_figures import tables_of_only_case

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from resnet_cli.figures.titles import Heading
    from resnet_cli.studies.progress import Progress
    from resnet_cli.studies.subject import Subject
    from resnet_cli.studies.walks import Outcome

DAMAGES = {
    "error": ("joint_damage", "summed_damage"),
    "loss": ("joint_loss_damage", "summed_loss_damage"),
}
"""For each measure of damage: the columns of the joint damage and of the sum."""


LESION_ADDITIVITY = Table(
    "lesion_additivity",
    "random set of deleted units",
    (
        K,
        SAMPLE,
        BLOCKS,
        number(
            "joint_damage",
            "test_error - baseline_error with the whole set deleted, percentage points",
        ),
        number(
            "summed_damage",
            "sum of the error increases of its units, each deleted alone",
        ),
        number(
            "joint_loss_damage",
            "increase of the loss, nats; unlike the error it does not saturate; not finite where "
            "the loss is not",
            infinite=True,
        ),
        number(
            "summed_loss_damage",
            "sum of the loss increases of its units, each deleted alone",
            infinite=True,
        ),
        *ERRORS,
    ),
    note="With the same seed the sets are those of `lesion_delete.csv`.",
)


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
    tables = (LESION_ADDITIVITY, recalibrated(LESION_ADDITIVITY))

    @model_validator(mode="after")
    def _sets(self) -> "Additivity":
        if min(self.k) < 2:
            raise ValueError("k must be 2 or more: with one unit there is no sum to compare with")
        return self

    def check(self, subject: "Subject") -> None:
        super().check(subject)
        draw_deletions(subject.num_units, self.k, 1, 0)

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        sets = draw_deletions(subject.num_units, self.k, self.samples, seed, progress.check)
        deletions = with_singles(sets)
        if progress.wants("lesion_additivity"):
            outcomes = outcomes_of(subject, deletions, progress, "deleting sets of units")
            yield "lesion_additivity", damage_rows(deletions, outcomes, seed), ("test",)
        yield from self.measure_recalibrated(
            "lesion_additivity", subject, deletions, seed, progress, damage_rows
        )

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

    def figures_together(self, cases: Sequence[Case], title: str) -> Iterator[NamedFigure]:
        """The sets of all trainings of one case."""
        if (together := tables_of_only_case(cases)) is not None:
            yield NamedFigure(
                "lesion_additivity",
                lambda: additivity_figure(together["lesion_additivity"], title),
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
    return "undefined, the damages do not vary" if correlation is None else f"{correlation:.3f}"


def with_singles(sets: Sequence[Deletion]) -> list[Deletion]:
    """The deletion of each unit that is in a set, alone, in ascending order; then the sets."""
    used = sorted({unit for each in sets for unit in each.units})
    return [*(Deletion(unit, (unit,)) for unit in used), *sets]


def damage_rows(
    deletions: Sequence[Deletion], outcomes: Sequence["Outcome"], seed: int
) -> list[Row]:
    """Rows of lesion_additivity.csv, one for each set.

    Args:
        deletions: of `with_singles`.
        outcomes: of `evaluate_lesions`.
    """
    baseline, *lesioned = outcomes
    measured = list(zip(deletions, lesioned, strict=True))
    single = {each.units[0]: outcome for each, outcome in measured if len(each.units) == 1}
    return [
        each.columns
        | {
            "joint_damage": joint.error - baseline.error,
            "summed_damage": sum(single[unit].error - baseline.error for unit in each.units),
            "joint_loss_damage": joint.loss - baseline.loss,
            "summed_loss_damage": sum(single[unit].loss - baseline.loss for unit in each.units),
        }
        | {c.name: measured_columns(joint, baseline, seed)[c.name] for c in ERRORS}
        for each, joint in measured
        if len(each.units) > 1
    ]


def correlations(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """The correlation of the summed with the joint damage, over all sets.

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

    On the diagonal the damages add up; above it the joint damage is larger than the sum.

    Args:
        sets: rows of lesion_additivity.csv.
    """
    import numpy
    from matplotlib.ticker import MaxNLocator

    not_empty(sets, "lesion_additivity")
    figure = new_figure(title, ROW_WIDTH * 0.75, HEIGHT)
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
    return figure
