"""The number of paths after deleting units (paper 2, Figure 7): computed, without a network.

A path of length k passes k of the n units through their residual branch. If d units are deleted,
the remaining paths are those whose k units are all among the other n - d: C(n - d, k) of C(n, k),
whichever units were deleted.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from resnet_cli.config.fields import IntRange
from resnet_cli.figures.style import PALETTE, integer_ticks, new_figure, not_empty, styled
from resnet_cli.results.columns import Table, number, whole
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Measured, NamedFigure, Row, Study, Summary, Tables

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from resnet_cli.figures.titles import Heading
    from resnet_cli.studies.progress import Progress, Report
    from resnet_cli.studies.subject import Subject


MAX_ROWS = 500_000
"""Of the table: the numbers of a large network have hundreds of digits."""


class PathSurvival(Study):
    """The share of paths of each length that remain after deleting units (paper 2, Figure 7).

    It is computed; nothing is trained."""

    kind: Literal["path_survival"] = "path_survival"
    deleted: IntRange = (1, 10, 20)

    title = "Remaining paths after deleting units"
    pictures: ClassVar = {
        "path_survival": "share of paths of each length that remain after deleting units",
    }
    needs_network = False
    tables = (
        Table(
            "path_survival",
            "number of deleted units and path length",
            (
                whole("deleted", "number of deleted units, d"),
                whole(
                    "k", "length: number of units that a path passes through their residual branch"
                ),
                whole("paths", "number of paths of this length before the deletion, C(n, k)"),
                whole("remaining", "number of these paths after the deletion, C(n - d, k)"),
                number("fraction", "remaining / paths, 0 to 1"),
            ),
        ),
    )

    def check(self, subject: "Subject") -> None:
        check_deleted(subject.num_units, self.deleted)

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        with progress.of(f"counting the paths of {subject.num_units} units") as report:
            rows = path_survival(subject.num_units, self.deleted, report)
        yield "path_survival", rows, ()

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        from resnet_cli.figures.titles import Heading

        frame = tables["path_survival"]
        network = f"{frame['k'].max()} units"
        title = Heading(heading.figure, network, paper=heading.paper).over(self.title)
        yield NamedFigure(
            "path_survival",
            lambda: path_survival_figure(frame, title),
        )

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame, total = tables["path_survival"], 2**subject.num_units
        left = {
            count: sum(int(n) for n in frame.loc[frame["deleted"] == count, "remaining"])
            for count in self.deleted
        }
        rows = [[d, f"{n:,}", f"{100 * (n / total):.3g} %"] for d, n in left.items()]
        return Summary(
            {
                "units": subject.num_units,
                "paths_left": {str(d): n / total for d, n in left.items()},
            },
            f"{subject.num_units} units, {total:,} paths",
            ["deleted units", "remaining paths", "share of all"],
            rows,
            [f"{rows[-1][2]} of all paths remain after deleting {rows[-1][0]} units"],
        )


def check_deleted(num_units: int, deleted: Sequence[int]) -> None:
    """Raises UserError if there are fewer units than are to be deleted, or the table would be too
    long."""
    if max(deleted) > num_units:
        raise UserError(
            f"{max(deleted)} units cannot be deleted; this network has {num_units} units, "
            f"so 0 to {num_units}"
        )
    if len(deleted) * (num_units + 1) > MAX_ROWS:
        raise UserError(
            f"{len(deleted)} numbers of deleted units, of {num_units} units, give a table of more "
            f"than {MAX_ROWS:,} rows; give fewer numbers"
        )


def path_survival(
    num_units: int, deleted: Sequence[int], report: "Report" = lambda done, total: None
) -> list[Row]:
    """Rows of path_survival.csv: the share of remaining paths by deleted units and length.

    Args:
        report: called with (rows done, rows in all).

    Raises:
        UserError: there are fewer units than are to be deleted, or the table would be too long.
    """
    check_deleted(num_units, deleted)
    rows: list[Row] = []
    for count in deleted:
        for k in range(num_units + 1):
            paths, remaining = math.comb(num_units, k), math.comb(num_units - count, k)
            rows.append(
                {
                    "deleted": count,
                    "k": k,
                    "paths": paths,
                    "remaining": remaining,
                    "fraction": remaining / paths,
                }
            )
            report(len(rows), len(deleted) * (num_units + 1))
    return rows


@styled
def path_survival_figure(survival: "pandas.DataFrame", title: str) -> "Figure":
    """The share of paths of each length that remain after deleting units: paper 2, Figure 7.

    Args:
        survival: rows of path_survival.csv.
    """
    not_empty(survival, "path_survival")
    figure = new_figure(title)
    axes = figure.subplots()
    for (count, rows), color in zip(
        survival.groupby("deleted"), itertools.cycle(PALETTE), strict=False
    ):
        axes.plot(rows["k"], 100 * rows["fraction"], color=color, label=f"{count} deleted")
    axes.set_ylim(bottom=0)
    integer_ticks(axes.xaxis, 8)
    axes.set_xlabel("path length k (residual branches)")
    axes.set_ylabel("remaining paths (% of this length)")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
