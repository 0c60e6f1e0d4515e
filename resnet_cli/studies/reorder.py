"""Reorder units (paper 2, section 4.2 and Figure 5b)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from resnet_cli.config.fields import PositiveRange
from resnet_cli.figures.style import PALETTE, new_figure, not_empty, styled
from resnet_cli.results.columns import Table, number, units, whole
from resnet_cli.runtime.errors import UserError
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
    ERRORS,
    PREDICTIONS,
    LesionStudy,
    lesion_rows,
    outcomes_of,
    recalibrated,
    summary_title,
)
from resnet_cli.studies.lesion_figures import (
    boxes,
    medians_figure,
    reference_lines,
    tables_of,
    tables_of_only_case,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from resnet_cli.figures.titles import Heading
    from resnet_cli.models.units import Place
    from resnet_cli.studies.progress import Progress
    from resnet_cli.studies.subject import Subject
    from resnet_cli.studies.walks import Walk


LESION_REORDER = Table(
    "lesion_reorder",
    "network with units in another order",
    (
        whole("swaps", "number of random swaps of two units of equal shape"),
        whole("sample", "number of the draw within this number of swaps, from 0"),
        units("order", "the units' original indices in their new order, joined by spaces"),
        number(
            "kendall_tau",
            "Kendall's rank correlation of the new with the original order; 1: they are equal",
        ),
        *ERRORS,
        *PREDICTIONS,
    ),
)


class ReorderUnits(LesionStudy):
    """Swap pairs of units of equal shape (paper 2, Figure 5b)."""

    kind: Literal["reorder"] = "reorder"
    swaps: Annotated[
        PositiveRange,
        Option(
            "--reorder",
            "Number of swaps of two units of equal shape, such as 1-20.",
            metavar="N|N1-N2",
            selects=True,
        ),
    ]
    samples: Samples = 20

    title = "Error after reordering units"
    pictures: ClassVar = {
        "lesion_reorder": "test error by the number of swapped units and by Kendall's tau",
    }
    tables = (LESION_REORDER, recalibrated(LESION_REORDER))

    def check(self, subject: "Subject") -> None:
        super().check(subject)
        draw_reorderings(subject.network.places, self.swaps, 0, 0)

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        places = subject.network.places
        draws = draw_reorderings(places, self.swaps, self.samples, seed, progress.check)
        if progress.wants("lesion_reorder"):
            outcomes = outcomes_of(subject, draws, progress, "reordering units")
            yield "lesion_reorder", lesion_rows(draws, outcomes, seed), ("test",)
        yield from self.measure_recalibrated("lesion_reorder", subject, draws, seed, progress)

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        yield NamedFigure(
            "lesion_reorder",
            lambda: lesion_reorder_figure(
                tables["lesion_reorder"],
                heading.over(f"Error after reordering {heading.unit}s"),
                chance=heading.chance,
                recalibrated=tables.get("lesion_reorder_recalibrated"),
            ),
        )

    def figures_together(self, cases: Sequence[Case], title: str) -> Iterator[NamedFigure]:
        """Errors by the number of swaps: boxes of one case, medians of several."""
        frames, label = tables_of(cases, "lesion_reorder"), "swapped pairs of units"
        if (together := tables_of_only_case(cases)) is not None:
            yield NamedFigure(
                "lesion_reorder",
                lambda: lesion_reorder_figure(
                    together["lesion_reorder"],
                    title,
                    chance=cases[0].heading.chance,
                    recalibrated=together.get("lesion_reorder_recalibrated"),
                ),
            )
        else:
            yield NamedFigure(
                "lesion_reorder", lambda: medians_figure(frames, "swaps", label, title)
            )

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["lesion_reorder"]
        baseline = float(frame["baseline_error"].iloc[0])
        by_swaps = frame.groupby("swaps")[["kendall_tau", "test_error"]].median()
        medians = {str(k): float(error) for k, _, error in by_swaps.itertuples()}
        most = list(medians)[-1]
        return Summary(
            {"baseline_error": baseline, "rows": len(frame), "median_error_by_swaps": medians},
            summary_title(subject, frame),
            ["swaps", "median Kendall tau", "median error (%)"],
            list(by_swaps.itertuples()),
            [f"intact {baseline:.2f} %; after {most} swaps the median is {medians[most]:.2f} %"],
        )


@dataclass(frozen=True)
class Reordering:
    """One draw: the order of the network's units after this number of swaps."""

    swaps: int
    sample: int
    order: tuple[int, ...]

    @property
    def columns(self) -> Row:
        """The columns of lesion_reorder.csv that identify it."""
        from scipy.stats import kendalltau

        return {
            "swaps": self.swaps,
            "sample": self.sample,
            "order": " ".join(map(str, self.order)),
            "kendall_tau": float(kendalltau(range(len(self.order)), self.order).statistic),
        }

    def walk(self, places: Sequence["Place"]) -> "Walk":
        """The walk in this order.

        Raises:
            UserError: a unit is moved to where the shapes differ.
        """
        from resnet_cli.studies.walks import intact, reorder

        return reorder(intact(len(places)), self.order, places)


def draw_reorderings(
    places: Sequence["Place"],
    swaps: Iterable[int],
    samples: int,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> list[Reordering]:
    """Orders obtained by random swaps of two units of equal shape (paper 2, section 4.2).

    Each swap is drawn uniformly from all pairs of units of equal shape.

    Args:
        check: called before each draw; stops on request (`progress.check_of`).

    Raises:
        UserError: a number of swaps is 0, or no two units have the same shape.
    """
    import torch

    from resnet_cli.models.network import same_shape_groups
    from resnet_cli.runtime.seeding import stream

    pairs = [
        (a, b)
        for group in same_shape_groups(places)
        for index, a in enumerate(group)
        for b in group[index + 1 :]
    ]
    if not pairs:
        raise UserError(
            "no two units of this network have the same shape, so none can be swapped; "
            "take a deeper network"
        )
    reorderings = []
    for count in swaps:
        if count < 1:
            raise UserError("0 swaps change nothing; --reorder takes 1 or more")
        for sample in range(samples):
            check()
            generator = stream(seed, "reorder", count, sample)
            order = list(range(len(places)))
            for choice in torch.randint(len(pairs), (count,), generator=generator).tolist():
                a, b = pairs[choice]
                order[a], order[b] = order[b], order[a]
            reorderings.append(Reordering(count, sample, tuple(order)))
    return reorderings


@styled
def lesion_reorder_figure(
    lesions: "pandas.DataFrame",
    title: str,
    *,
    chance: float | None = None,
    recalibrated: "pandas.DataFrame | None" = None,
    bins: int = 12,
) -> "Figure":
    """Error by Kendall's tau of the new and the original order: paper 2, Figure 5b.

    Each draw is a point. The range of tau is divided into bins of equal width, and each bin with
    five draws or more has a box plot. Tau decreases to the right.

    Args:
        lesions: rows of lesion_reorder.csv.
        chance: the error of guessing, percent.
        recalibrated: rows of lesion_reorder_recalibrated.csv, drawn as points.
    """
    import numpy
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    not_empty(lesions, "lesion_reorder")
    figure = new_figure(title)
    axes = figure.subplots()
    tau = lesions["kendall_tau"].to_numpy(dtype=float)
    errors = lesions["test_error"].to_numpy(dtype=float)
    edges = numpy.linspace(tau.min(), tau.max(), bins + 1)
    width = float(edges[1] - edges[0])
    if width > 0:
        index = numpy.clip(((tau - edges[0]) / width).astype(int), 0, bins - 1)
        full = [number for number in range(bins) if (index == number).sum() >= 5]
        centres = [float(edges[number] + width / 2) for number in full]
        boxes(
            axes, [errors[index == number] for number in full], centres, 0.7 * width, outliers=False
        )
    axes.plot(tau, errors, ".", color=PALETTE[0], markersize=3, alpha=0.35, zorder=1)
    handles = reference_lines(axes, lesions, chance)
    if recalibrated is not None:
        label = "statistics re-estimated"
        handles += axes.plot(
            recalibrated["kendall_tau"],
            recalibrated["test_error"],
            ".",
            color=PALETTE[1],
            markersize=3,
            label=label,
        )
    margin = width if width > 0 else 0.01
    axes.set_xlim(min(tau.max() + margin, 1.0), tau.min() - margin)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.set_ylim(bottom=0)
    binned = f"; boxes: tau in bins of {width:.2g}" if width > 0 else ""
    axes.set_xlabel(f"Kendall tau of new and old order{binned}")
    axes.set_ylabel("test error (%)")
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
