"""How much of a lesion's damage re-estimated batch-norm statistics recover, with controls.

Each unit is deleted in turn, as in Figure 3 of paper 2, and the error is measured with several
kinds of batch-norm statistics (`resnet_cli.studies.batch_statistics`). The controls vary the images
and their number, re-estimate the statistics of the intact network too, use the statistics of
another lesion, and replace only the means or only the variances.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from resnet_cli.config.fields import IntRange
from resnet_cli.figures.style import (
    DELETED,
    HEIGHT,
    INTACT,
    PALETTE,
    ROW_WIDTH,
    new_figure,
    not_empty,
    styled,
)
from resnet_cli.results.columns import Table, text, units
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import (
    Measured,
    NamedFigure,
    OnTestImages,
    Option,
    Row,
    Summary,
    Tables,
)
from resnet_cli.studies.lesion import (
    ERRORS,
    PREDICTIONS,
    RECALIBRATION,
    measured_columns,
    re_estimated,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from resnet_cli.figures.titles import Heading
    from resnet_cli.studies.batch_statistics import Part, Statistics
    from resnet_cli.studies.progress import Progress
    from resnet_cli.studies.subject import Subject
    from resnet_cli.studies.walks import Walk

OWN, RECALIBRATED, AUGMENTED = "as trained", "re-estimated", "re-estimated, augmented images"
MEANS, VARIANCES, OTHER = "means only", "variances only", "of another lesion"
KINDS = {
    OWN: "the trained network's own",
    RECALIBRATED: "re-estimated with the unit deleted",
    AUGMENTED: "the same, on augmented images",
    MEANS: "re-estimated means, the trained network's variances",
    VARIANCES: "re-estimated variances, the trained network's means",
    OTHER: "re-estimated with another unit deleted, half of the network away",
}
"""Kind of statistics -> meaning, in the order of the table."""


MAX_UNITS = 10
"""Number of deletions in the figure."""


class Recalibration(OnTestImages):
    """Single deletions with several kinds of batch-norm statistics (beyond paper 2)."""

    kind: Literal["recalibration"] = "recalibration"
    counts: Annotated[
        IntRange,
        Option(
            "--recalibration",
            "Delete each unit in turn, with batch-norm statistics re-estimated on these numbers of "
            "training images, such as 100,1000, and with controls.",
            metavar="N|N1,N2",
            selects=True,
        ),
    ] = (100, 1000, 10_000)
    """Numbers of training images on which the statistics are re-estimated."""
    count: PositiveInt = 1000
    """Number of training images of the controls."""
    subsets: Annotated[PositiveInt, Field(le=1000)] = 3
    """Random draws of the training images, for each number of them."""

    command = "lesion"
    shared_options = ("images", "engine")
    title = "Single deletions with re-estimated batch-norm statistics"
    pictures: ClassVar = {
        "recalibration": "test error by deleted unit and kind of statistics, and by the number of "
        "images that the statistics were re-estimated on",
    }
    tables = (
        Table(
            "recalibration",
            "kind of batch-norm statistics, draw of images, and deleted unit",
            (
                text("statistics", "; ".join(f"`{kind}`: {what}" for kind, what in KINDS.items())),
                *RECALIBRATION,
                units("blocks", "the deleted unit; empty for the intact network"),
                units(
                    "statistics_of",
                    "the unit that was deleted when the statistics were re-estimated",
                ),
                *ERRORS,
                *PREDICTIONS,
            ),
            note="`baseline_error`, `kl_divergence` and `agreement` refer to the intact network "
            "with the same kind of\nstatistics; for `of another lesion`, with re-estimated ones.",
        ),
    )

    def check(self, subject: "Subject") -> None:
        from resnet_cli.studies import batch_statistics

        batch_statistics.check(subject.network)
        if subject.num_units < 2:
            raise UserError("this network has one unit; --recalibration needs at least two")

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        from resnet_cli.studies.batch_statistics import own_statistics
        from resnet_cli.studies.walks import delete, intact, visited

        network, units = subject.network, subject.num_units
        whole = intact(units)
        walks = visited(units, [delete(whole, [unit]) for unit in range(units)])
        own = {walk: own_statistics(network, walk) for walk in walks}
        rows = self._rows(OWN, 0, 0, subject, own, seed, progress)
        for count in self.counts:
            for subset in range(self.subsets):
                found = self._estimated(subject, walks, count, subset, seed, progress)
                rows += self._rows(RECALIBRATED, count, subset, subject, found, seed, progress)
        control = self._estimated(subject, walks, self.count, 0, seed, progress)
        augmented = self._estimated(subject, walks, self.count, 0, seed, progress, augmented=True)
        for kind, statistics in (
            (AUGMENTED, augmented),
            (MEANS, _combined(control, own, variances=False)),
            (VARIANCES, _combined(control, own, variances=True)),
            (OTHER, _of_another(control, units)),
        ):
            rows += self._rows(kind, self.count, 0, subject, statistics, seed, progress)
        yield "recalibration", rows, ("test", "train")

    def _estimated(
        self,
        subject: "Subject",
        walks: Sequence["Walk"],
        count: int,
        subset: int,
        seed: int,
        progress: "Progress",
        *,
        augmented: bool = False,
    ) -> "Mapping[Walk, Statistics]":
        """The statistics of each walk, re-estimated along it."""
        from resnet_cli.studies.batch_statistics import training_images

        batches = subject.batches("train")
        images = training_images(batches, count, subset, seed, augmented=augmented)
        label = f"re-estimating statistics on {count:,} images"
        return re_estimated(subject, walks, images, progress, label)

    def _rows(
        self,
        kind: str,
        count: int,
        subset: int,
        subject: "Subject",
        statistics: "Mapping[Walk, Statistics]",
        seed: int,
        progress: "Progress",
    ) -> list[Row]:
        """A row for the intact network and for each deletion."""
        from resnet_cli.studies.walks import evaluate_walks

        walks = list(statistics)
        with progress.of(f"deleting units, statistics {kind}") as report:
            outcomes = evaluate_walks(
                subject.network,
                subject.batches("test"),
                walks,
                report,
                subject.context.engine,
                statistics,
            )
        rows = []
        for walk, outcome in zip(walks, outcomes, strict=True):
            deleted = [step.unit for step in walk if step.deleted]
            of = [_other(unit, len(walk)) for unit in deleted] if kind == OTHER else deleted
            rows.append(
                {
                    "statistics": kind,
                    "recalibration_images": count,
                    "subset": subset,
                    "blocks": " ".join(map(str, deleted)),
                    "statistics_of": "" if kind == OWN else " ".join(map(str, of)),
                }
                | measured_columns(outcome, outcomes[0], seed)
            )
        return rows

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        title = heading.over(f"Error after deleting one {heading.unit}, by batch-norm statistics")
        yield NamedFigure(
            "recalibration", lambda: recalibration_figure(tables["recalibration"], title)
        )

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["recalibration"]
        rows, facts = [], {}
        for (kind, count, subset), part in frame.groupby(
            ["statistics", "recalibration_images", "subset"], sort=False
        ):
            errors = part.loc[part["blocks"] != "", "test_error"]
            intact = float(part.loc[part["blocks"] == "", "test_error"].iloc[0])
            found = [intact, float(errors.median()), float(errors.mean()), float(errors.max())]
            rows.append([kind, count, subset, *found])
            names = ("intact", "median", "mean", "worst")
            facts[f"{kind}, {count} images, subset {subset}"] = dict(zip(names, found, strict=True))
        own = frame[frame["statistics"] == OWN]
        again = frame[
            (frame["statistics"] == RECALIBRATED) & (frame["recalibration_images"] == self.count)
        ]
        sentences = []
        if len(again):
            recovered = [
                float(part.loc[part["blocks"] != "", "test_error"].mean()) for part in (own, again)
            ]
            sentences = [
                f"mean error over all deletions: {recovered[0]:.2f} % with the trained network's "
                f"statistics, {recovered[1]:.2f} % with statistics re-estimated on {self.count:,} "
                f"training images"
            ]
        return Summary(
            facts,
            f"{subject.label}: error of {frame['images'].iloc[0]:,} images (%), one unit deleted",
            ["statistics", "images", "subset", "intact", "median", "mean", "worst"],
            rows,
            sentences,
        )


def _other(unit: int, units: int) -> int:
    """The unit whose deletion provides the statistics OTHER, half of the network away."""
    return (unit + units // 2) % units


def _of_another(statistics: "Mapping[Walk, Statistics]", units: int) -> "dict[Walk, Statistics]":
    """For each deletion the statistics of another one."""
    by_unit = {
        next((step.unit for step in walk if step.deleted), None): found
        for walk, found in statistics.items()
    }
    return {
        walk: by_unit[next((_other(step.unit, units) for step in walk if step.deleted), None)]
        for walk in statistics
    }


def _combined(
    again: "Mapping[Walk, Statistics]", own: "Mapping[Walk, Statistics]", *, variances: bool
) -> "dict[Walk, Statistics]":
    """Re-estimated means with the network's own variances, or the reverse. Statistics that walks
    share are still shared."""
    from resnet_cli.studies.batch_statistics import Statistics

    made: dict[tuple[int, int], Part] = {}

    def combine(new: "Part", old: "Part") -> "Part":
        key = (id(new), id(old))
        if key not in made:
            first, second = (old, new) if variances else (new, old)
            pairs = zip(first, second, strict=True)
            made[key] = tuple((a[0], b[1], a[2]) for a, b in pairs)
        return made[key]

    found = {}
    for walk, new in again.items():
        old = own[walk]
        steps = zip(new.steps, old.steps, strict=True)
        found[walk] = Statistics(
            combine(new.stem, old.stem),
            tuple(combine(a, b) for a, b in steps),
            combine(new.head, old.head),
        )
    return found


@styled
def recalibration_figure(frame: "pandas.DataFrame", title: str) -> "Figure":
    """Errors of the most harmful deletions for each kind of statistics, and the mean over all
    deletions by the number of images.

    Args:
        frame: rows of recalibration.csv.
    """
    not_empty(frame, "recalibration")
    figure = new_figure(title, ROW_WIDTH, HEIGHT + 0.5)
    by_unit, by_count = figure.subplots(1, 2, width_ratios=(1.6, 1.0))
    deleted = frame[frame["blocks"] != ""]
    again = deleted[deleted["statistics"] == RECALIBRATED]
    counts = sorted(again["recalibration_images"].unique())
    controls = deleted[deleted["statistics"] == MEANS]["recalibration_images"]
    shown = int(controls.iloc[0]) if len(controls) else int(counts[-1])
    kinds = (OWN, RECALIBRATED, MEANS, VARIANCES, OTHER)
    trained = deleted[deleted["statistics"] == OWN].set_index("blocks")["test_error"]
    units = list(trained.nlargest(MAX_UNITS).index)
    for number, (kind, color) in enumerate(zip(kinds, PALETTE, strict=False)):
        rows = deleted[(deleted["statistics"] == kind) & (deleted["subset"] == 0)]
        if kind == RECALIBRATED:
            rows = rows[rows["recalibration_images"] == shown]
        errors = rows.set_index("blocks")["test_error"].reindex(units)
        places = [place + 0.14 * (number - (len(kinds) - 1) / 2) for place in range(len(units))]
        by_unit.plot(places, errors, "o", color=color, markersize=4.5, label=kind)
    by_unit.set_xticks(range(len(units)), units)
    by_unit.set_xlabel("deleted unit or layer (index), worst first")
    by_unit.set_ylabel("test error (%)")
    by_unit.set_ylim(bottom=0)
    intact = frame[(frame["blocks"] == "") & (frame["statistics"] == RECALIBRATED)]
    for rows, label, color in (
        (again, "mean of all deletions", PALETTE[1]),
        (intact, "intact network", INTACT),
    ):
        means = rows.groupby(["recalibration_images", "subset"])["test_error"].mean().reset_index()
        x, y = means["recalibration_images"], means["test_error"]
        by_count.plot(x, y, "o", color=color, markersize=4, label=f"{label}, a point for each draw")
    own = frame[frame["statistics"] == OWN]
    for rows, color in (
        (own[own["blocks"] != ""], DELETED),
        (own[own["blocks"] == ""], INTACT),
    ):
        by_count.axhline(rows["test_error"].mean(), color=color, linestyle="--", linewidth=1)
    by_count.set_xscale("log")
    by_count.set_xticks(counts, [f"{count:,}" for count in counts])
    by_count.minorticks_off()
    by_count.set_xlabel("training images (dashed: as trained)")
    by_count.set_ylim(bottom=0)
    handles, labels = by_unit.get_legend_handles_labels()
    more, names = by_count.get_legend_handles_labels()
    figure.legend(handles + more, labels + names, loc="outside lower center", ncols=4)
    return figure
