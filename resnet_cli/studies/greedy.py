"""Greedy deletion: remove the least harmful unit, again and again (beyond paper 2).

Random deletions (paper 2, Figure 5a) say what an average set of k units is worth; the greedy curve
says how many units the network hardly needs. Each step looks at every unit that is left.

The units are chosen by the images they are chosen on, so on these same images the curve flatters
itself; choosing on training images and measuring on test images does not.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import PositiveInt

from resnet_cli.figures.style import (
    HEIGHT,
    PALETTE,
    WIDTH,
    new_figure,
    not_empty,
    set_title,
    styled,
)
from resnet_cli.results.columns import Table, units, whole
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import NamedFigure, Option, Row, Samples, Summary, Tables
from resnet_cli.studies.delete import LESION_DELETE, delete_units
from resnet_cli.studies.lesion import (
    ERRORS,
    PREDICTIONS,
    LesionStudy,
    baseline_line,
    chance_line,
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
    from resnet_cli.studies.walks import Outcome


LESION_GREEDY = Table(
    "lesion_greedy",
    "step of a greedy deletion",
    (
        whole("k", "units deleted so far"),
        whole(
            "unit",
            "the unit this step deleted: the least harmful of those left, by images wrong, "
            "then by loss",
        ),
        units("blocks", "all units deleted so far, in ascending order"),
        *ERRORS,
        *PREDICTIONS,
    ),
    note="The provenance's `config.study.choose_on` says which images the units were "
    "chosen on. Chosen on\nthe test images that they are measured on, the curve flatters "
    "itself. The random deletions to compare\nwith are in `lesion_delete.csv`.",
)
LESION_GREEDY_RECALIBRATED = recalibrated(LESION_GREEDY)


class GreedyDeletion(LesionStudy):
    """Delete the least harmful unit again and again; random deletions to compare with (beyond
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
    """Random sets for each number of units, to compare with."""
    choose_on: Literal["test", "train"] = "test"
    """The images the units are chosen on. `test`: those that are measured, which flatters."""
    choose_images: PositiveInt | None = None
    """Only the first N images to choose on; for `choose_on: train`."""

    title = "Error after deleting the least harmful units"
    pictures: ClassVar = {
        "lesion_greedy": "test error with the least harmful units deleted, and with random ones",
    }
    tables = (
        LESION_GREEDY,
        LESION_DELETE,
        LESION_GREEDY_RECALIBRATED,
    )

    def check(self, subject: "Subject") -> None:
        super().check(subject)
        check_count(self.max_units, subject.num_units)

    def measure(
        self, subject: "Subject", seed: int, progress: "Progress"
    ) -> Iterator[tuple[str, Sequence[Row], Sequence[str]]]:
        from resnet_cli.studies.walks import delete, intact

        network, batches = subject.loaded.network, subject.batches("test")
        engine = subject.context.engine
        if progress.wants("lesion_greedy"):
            chosen_on, splits = None, ["test"]
            if self.choose_on == "train":
                limit = self.choose_images or subject.data.train_images
                data = subject.data.model_copy(update={"train_images": limit})
                chosen_on, splits = replace(subject, data=data).batches("train"), ["test", "train"]
            with progress.of(f"deleting the least harmful units of {subject.label}") as report:
                rows = delete_greedily(
                    network,
                    batches,
                    self.max_units,
                    seed,
                    choose_on=chosen_on,
                    report=report,
                    engine=engine,
                )
            yield "lesion_greedy", rows, splits
        if progress.wants("lesion_delete"):
            ks = range(1, self.max_units + 1)
            deletions = draw_deletions(subject.num_units, ks, self.samples, seed, progress.check)
            with progress.of(f"deleting random units of {subject.label}") as report:
                rows = delete_units(network, batches, deletions, seed, report, engine)
            yield "lesion_delete", rows, ("test",)
        if progress.wants(LESION_GREEDY_RECALIBRATED.name):
            order = [int(row["unit"]) for row in progress.rows("lesion_greedy")]
            walks = [delete(intact(subject.num_units), order[: k + 1]) for k in range(len(order))]
            outcomes = self.recalibrated_outcomes(subject, walks, seed, progress)
            rows = [row | self.recalibration_columns for row in greedy_rows(order, outcomes, seed)]
            yield LESION_GREEDY_RECALIBRATED.name, rows, ("test", "train")

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
        images = "these same" if self.choose_on == "test" else "training"
        return Summary(
            {
                "baseline_error": baseline,
                "chosen_on": self.choose_on,
                "order": [int(unit) for unit in frame["unit"]],
                "error_by_k": {str(k): error for k, _, error in steps},
                "mean_random_error_by_k": {str(k): float(error) for k, error in random.items()},
            },
            f"{subject.label}: {frame['images'].iloc[0]} images, intact {baseline:.2f} %; units "
            f"chosen on {images} images",
            ["k", "unit deleted", "error (%)", "mean error, random (%)"],
            [[k, unit, error, float(random[k])] for k, unit, error in steps],
            [
                f"intact {baseline:.2f} %; without the {k} least harmful units {last:.2f} %, "
                f"without {k} random ones {float(random[k]):.2f} %"
            ],
        )


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
    """The units in the order in which greedy deletion removes them.

    Least harmful is the deletion that leaves the fewest images wrong; of equals, the one with the
    lower loss, then the unit with the lower index.

    Args:
        max_units: how many to remove.
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
        left = [unit for unit in range(num_units) if unit not in chosen]
        walks = [delete(whole, [*chosen, unit]) for unit in left]
        outcomes = evaluate_walks(network, batches, walks, quietly(report), engine)
        harms = [(*_harm(outcome), unit) for outcome, unit in zip(outcomes, left, strict=True)]
        chosen.append(min(harms)[-1])
        tried += len(left)
        report(tried, total)
    return chosen


def _harm(outcome: "Outcome") -> tuple[int, float]:
    """What a step keeps low: images wrong, then the loss; a loss that is no number is the worst."""
    return outcome.wrong, outcome.loss if math.isfinite(outcome.loss) else math.inf


def delete_greedily(
    network: "Network",
    batches: "Batches",
    max_units: int,
    seed: int,
    *,
    choose_on: "Batches | None" = None,
    report: "Report" = lambda done, total: None,
    engine: "Engine" = "fast",
) -> list[Row]:
    """Rows of lesion_greedy.csv: after each step the error with all units removed so far.

    Args:
        batches: what is measured on.
        choose_on: what the units are chosen on; None: the same images.
        seed: of the study; nothing here is drawn.

    Raises:
        UserError: the network has fewer units than `max_units`.
    """
    from resnet_cli.studies.progress import quietly
    from resnet_cli.studies.walks import delete, evaluate_walks, intact

    order = choose_units(network, choose_on or batches, max_units, report, engine)
    whole = intact(len(network.units))
    walks = [delete(whole, order[: k + 1]) for k in range(max_units)]
    outcomes = evaluate_walks(network, batches, [whole, *walks], quietly(report), engine)
    return greedy_rows(order, outcomes, seed)


def greedy_rows(order: Sequence[int], outcomes: Sequence["Outcome"], seed: int) -> list[Row]:
    """Rows of lesion_greedy.csv from the outcome of the intact network, then of each step."""
    baseline, *steps = outcomes
    return [
        {"k": k, "unit": order[k - 1], "blocks": " ".join(map(str, sorted(order[:k])))}
        | measured_columns(outcome, baseline, seed)
        for k, outcome in enumerate(steps, 1)
    ]


@styled
def lesion_greedy_figure(
    greedy: "pandas.DataFrame",
    title: str,
    *,
    random: "pandas.DataFrame | None" = None,
    chance: float | None = None,
) -> "Figure":
    """Error against the number of deleted units: the least harmful ones against random ones.

    Args:
        greedy: rows of lesion_greedy.csv.
        random: rows of lesion_delete.csv: their mean by k, and the band of 5 to 95 %.
        chance: the error of guessing, percent.
    """
    from matplotlib.ticker import MaxNLocator

    not_empty(greedy, "lesion_greedy")
    figure = new_figure(WIDTH, HEIGHT)
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
    baseline_line(axes, greedy)
    if chance is not None:
        chance_line(axes, chance)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("units deleted")
    axes.set_ylabel("test error (%)")
    set_title(figure, title)
    figure.legend(loc="outside lower center", ncols=2)
    return figure
