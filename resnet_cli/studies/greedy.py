"""Greedy deletion: delete the least harmful unit, one after another (beyond paper 2).

Random deletions (paper 2, Figure 5a) measure the error without an average set of k units. The
greedy curve shows how many units can be deleted at little cost. Each step tries every remaining
unit.

If the units are chosen on the images on which the error is then measured, that error is too low
(selection bias). Choosing on training images and measuring on test images avoids this.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import PositiveInt

from resnet_cli.figures.style import PALETTE, integer_ticks, new_figure, not_empty, styled
from resnet_cli.results.columns import Table, units, whole
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Measured, NamedFigure, Option, Row, Samples, Summary, Tables
from resnet_cli.studies.delete import LESION_DELETE
from resnet_cli.studies.lesion import (
    ERRORS,
    PREDICTIONS,
    LesionStudy,
    draw_deletions,
    evaluate_lesions,
    lesion_rows,
    outcomes_of,
    recalibrated,
    summary_title,
)
from resnet_cli.studies.lesion_figures import reference_lines

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from resnet_cli.datasets.batches import Batches
    from resnet_cli.figures.titles import Heading
    from resnet_cli.models.network import Network
    from resnet_cli.models.units import Place
    from resnet_cli.runtime.engine import Engine
    from resnet_cli.studies.progress import Progress, Report
    from resnet_cli.studies.subject import Subject
    from resnet_cli.studies.walks import Outcome, Walk


LESION_GREEDY = Table(
    "lesion_greedy",
    "step of a greedy deletion",
    (
        whole("k", "units deleted so far"),
        whole(
            "unit",
            "the unit deleted in this step: of the remaining units the one whose deletion "
            "leaves the fewest errors, then the lowest loss",
        ),
        units("blocks", "all units deleted so far, in ascending order"),
        *ERRORS,
        *PREDICTIONS,
    ),
    note="`config.study.choose_on` in the provenance names the images on which the units were "
    "chosen. If these are\nthe test images, on which the error is measured too, the error is "
    "biased downwards. The random deletions\nfor comparison are in `lesion_delete.csv`.",
)


class GreedyDeletion(LesionStudy):
    """Delete the least harmful unit, one after another; random deletions for comparison (beyond
    paper 2)."""

    kind: Literal["greedy"] = "greedy"
    max_units: Annotated[
        PositiveInt,
        Option(
            "--greedy",
            "Number of units to delete one after another, each time the least harmful one; random "
            "sets are measured for comparison.",
            metavar="N",
            selects=True,
        ),
    ] = 20
    samples: Samples = 20
    """Random sets for each number of units, for comparison."""
    choose_on: Literal["test", "train"] = "test"
    """The split on which the units are chosen. `test`: the images that are measured, which biases
    the error downwards."""
    choose_images: PositiveInt | None = None
    """With `choose_on: train`, choose on the first N training images only; null: all."""

    title = "Error after deleting the least harmful units"
    pictures: ClassVar = {
        "lesion_greedy": "test error with the least harmful units deleted, and with random ones",
    }
    tables = (LESION_GREEDY, LESION_DELETE, recalibrated(LESION_GREEDY))

    def check(self, subject: "Subject") -> None:
        super().check(subject)
        check_count(self.max_units, subject.num_units)

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        from resnet_cli.studies.progress import quietly

        network, engine = subject.network, subject.context.engine
        batches = subject.batches("test")
        if progress.wants("lesion_greedy"):
            chosen_on, splits = batches, ["test"]
            if self.choose_on == "train":
                limit = self.choose_images or subject.data.train_images
                data = subject.data.model_copy(update={"train_images": limit})
                chosen_on, splits = replace(subject, data=data).batches("train"), ["test", "train"]
            with progress.of(f"deleting the least harmful units of {subject.label}") as report:
                order = choose_units(network, chosen_on, self.max_units, report, engine)
                steps = steps_of(order)
                outcomes = evaluate_lesions(network, batches, steps, quietly(report), engine)
            yield "lesion_greedy", lesion_rows(steps, outcomes, seed), splits
        if progress.wants("lesion_delete"):
            ks = range(1, self.max_units + 1)
            deletions = draw_deletions(subject.num_units, ks, self.samples, seed, progress.check)
            outcomes = outcomes_of(subject, deletions, progress, "deleting random units")
            yield "lesion_delete", lesion_rows(deletions, outcomes, seed), ("test",)
        if self.recalibrate is not None:
            steps = steps_of([int(row["unit"]) for row in progress.rows("lesion_greedy")])
            yield from self.measure_recalibrated("lesion_greedy", subject, steps, seed, progress)

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        yield NamedFigure(
            "lesion_greedy",
            lambda: lesion_greedy_figure(
                tables["lesion_greedy"],
                heading.over(f"Error after deleting the least harmful {heading.unit}s"),
                random=tables.get("lesion_delete"),
                chance=heading.chance,
            ),
        )

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["lesion_greedy"]
        random = tables["lesion_delete"].groupby("k")["test_error"].mean()
        baseline = float(frame["baseline_error"].iloc[0])
        steps = list(frame[["k", "unit", "test_error"]].itertuples(index=False))
        k, _, last = steps[-1]
        images = "the same" if self.choose_on == "test" else "training"
        return Summary(
            {
                "baseline_error": baseline,
                "chosen_on": self.choose_on,
                "order": [int(unit) for unit in frame["unit"]],
                "error_by_k": {str(k): error for k, _, error in steps},
                "mean_random_error_by_k": {str(k): float(error) for k, error in random.items()},
            },
            f"{summary_title(subject, frame)}; units chosen on {images} images",
            ["k", "unit deleted", "error (%)", "mean error, random (%)"],
            [[k, unit, error, float(random[k])] for k, unit, error in steps],
            [
                f"intact {baseline:.2f} %; without the {k} least harmful units {last:.2f} %, "
                f"without {k} random ones {float(random[k]):.2f} %"
            ],
        )


@dataclass(frozen=True)
class GreedyStep:
    """The units deleted up to one step, in the order in which they were chosen."""

    order: tuple[int, ...]

    @property
    def columns(self) -> Row:
        """The columns of lesion_greedy.csv that identify it."""
        blocks = " ".join(map(str, sorted(self.order)))
        return {"k": len(self.order), "unit": self.order[-1], "blocks": blocks}

    def walk(self, places: Sequence["Place"]) -> "Walk":
        """The walk without the units deleted so far."""
        from resnet_cli.studies.walks import delete, intact

        return delete(intact(len(places)), self.order)


def steps_of(order: Sequence[int]) -> list[GreedyStep]:
    """The steps that delete units in this order."""
    return [GreedyStep(tuple(order[:k])) for k in range(1, len(order) + 1)]


def check_count(max_units: int, num_units: int) -> None:
    """Raises UserError if a network of this many units has too few to delete `max_units`."""
    if not 1 <= max_units <= num_units:
        raise UserError(
            f"--greedy {max_units}: this network has {num_units} units, "
            f"so 1 to {num_units} can be deleted"
        )


def choose_units(
    network: "Network",
    batches: "Batches",
    max_units: int,
    report: "Report" = lambda done, total: None,
    engine: "Engine" = "fast",
) -> list[int]:
    """The units in the order in which greedy deletion deletes them.

    The least harmful deletion is the one with the fewest misclassified images; among equals, the
    one with the lowest loss, then the unit with the lowest index.

    Args:
        max_units: how many to delete.
        report: called with (candidates tried, candidates in all) after each step.

    Raises:
        UserError: the network has fewer units.
    """
    from resnet_cli.studies.progress import quietly
    from resnet_cli.studies.walks import delete, evaluate_walks, intact

    num_units = len(network.units)
    check_count(max_units, num_units)
    whole = intact(num_units)
    total = sum(num_units - step for step in range(max_units))
    chosen: list[int] = []
    tried = 0
    for _ in range(max_units):
        remaining = [unit for unit in range(num_units) if unit not in chosen]
        walks = [delete(whole, [*chosen, unit]) for unit in remaining]
        outcomes = evaluate_walks(network, batches, walks, quietly(report), engine)
        harms = [(*_harm(outcome), unit) for outcome, unit in zip(outcomes, remaining, strict=True)]
        chosen.append(min(harms)[-1])
        tried += len(remaining)
        report(tried, total)
    return chosen


def _harm(outcome: "Outcome") -> tuple[int, float]:
    """What a step minimises: errors, then the loss. A loss that is not finite is the worst."""
    return outcome.wrong, outcome.loss if math.isfinite(outcome.loss) else math.inf


@styled
def lesion_greedy_figure(
    greedy: "pandas.DataFrame",
    title: str,
    *,
    random: "pandas.DataFrame | None" = None,
    chance: float | None = None,
) -> "Figure":
    """Error by the number of deleted units: greedy and random deletion.

    Args:
        greedy: rows of lesion_greedy.csv.
        random: rows of lesion_delete.csv: their mean by k, and the band of 5 to 95 %.
        chance: the error of guessing, percent.
    """
    not_empty(greedy, "lesion_greedy")
    figure = new_figure(title)
    axes = figure.subplots()
    if random is not None and not random.empty:
        errors = random.groupby("k")["test_error"]
        mean = errors.mean()
        axes.plot(
            mean.index, mean, color=PALETTE[0], marker="o", markersize=3, label="random, mean"
        )
        axes.fill_between(
            mean.index,
            errors.quantile(0.05),
            errors.quantile(0.95),
            color=PALETTE[0],
            alpha=0.18,
            linewidth=0,
            label="random, 90 % of draws",
        )
    axes.plot(
        greedy["k"],
        greedy["test_error"],
        color=PALETTE[1],
        marker="s",
        markersize=3,
        label="least harmful first",
    )
    reference_lines(axes, greedy, chance)
    axes.set_ylim(bottom=0)
    integer_ticks(axes.xaxis)
    axes.set_xlabel("units deleted")
    axes.set_ylabel("test error (%)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
