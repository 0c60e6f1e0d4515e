"""Training curves, and the errors that trainings ended with."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy
import pandas

from resnet_cli.plots.style import (
    DECADES,
    FAIL_ABOVE,
    GREY,
    HEIGHT,
    MOST_IN_ONE,
    PALETTE,
    ROW_WIDTH,
    WIDTH,
    new_figure,
    not_empty,
    published_label,
    set_title,
    styled,
    thousands,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def training_figure(training: pandas.DataFrame, title: str) -> "Figure":
    """Training loss (dashed) and test error (solid) over iterations: paper 1, Figures 1, 3, 6.

    One colour a case; with several seeds the line is their median and the band their range. More
    than four cases are drawn in panels, each against the first.

    Args:
        training: rows of training.csv.
    """
    from matplotlib.lines import Line2D

    not_empty(training, "training")
    cases = list(dict.fromkeys(training["case"]))
    if len(cases) <= MOST_IN_ONE:
        groups = [cases]
        figure = new_figure(WIDTH, HEIGHT + 0.22 * math.ceil(len(cases) / 2))
        rows, columns = 1, 1
    else:
        groups = [[cases[0], case] for case in cases[1:]]
        columns = 3 if len(groups) <= 9 else 4
        rows = math.ceil(len(groups) / columns)
        figure = new_figure(ROW_WIDTH, 2.3 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    # The axes of the losses are not made by subplots, so they share their range by hand.
    losses = training["train_loss"].replace([numpy.inf, -numpy.inf], numpy.nan)
    positive = losses[losses > 0]
    for number, (error_axes, group) in enumerate(zip(axes, groups, strict=False)):
        loss_axes = error_axes.twinx()
        loss_axes.grid(visible=False)
        loss_axes.spines["right"].set_visible(True)
        for case in group:
            color = PALETTE[(cases.index(case) if len(groups) == 1 else group.index(case))]
            rows_of_case = training[training["case"] == case]
            _median_line(error_axes, rows_of_case, "test_error", color, "-")
            _median_line(loss_axes, rows_of_case, "train_loss", color, "--")
        error_axes.set_ylim(bottom=0)
        if len(positive):
            low = max(float(positive.min()), float(positive.max()) * 10.0**-DECADES)
            loss_axes.set_yscale("log")
            loss_axes.set_ylim(low / 1.5, float(positive.max()) * 1.5)
        if len(groups) > 1:
            error_axes.set_title(group[1], fontsize=8)
        is_left, is_right = number % columns == 0, number % columns == columns - 1
        is_bottom = number + columns >= len(groups)
        if is_left:
            error_axes.set_ylabel("test error (%)")
        if is_right:
            loss_axes.set_ylabel("training loss (nats)")
        else:
            loss_axes.tick_params(labelright=False, which="both")
        if is_bottom:
            error_axes.set_xlabel("iteration")
            error_axes.tick_params(labelbottom=True)
        thousands(error_axes)
    for spare in axes[len(groups) :]:
        spare.set_visible(False)
    set_title(figure, title)
    names = cases if len(groups) == 1 else [f"{cases[0]} (in every panel)", "the panel's case"]
    handles = [Line2D([], [], color=PALETTE[i], label=name) for i, name in enumerate(names)]
    handles += [
        Line2D([], [], color=GREY, label="test error"),
        Line2D([], [], color=GREY, linestyle="--", label="training loss"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2 if len(groups) == 1 else len(handles)
    )
    return figure


def _median_line(
    axes: "Axes", rows: pandas.DataFrame, column: str, color: str, linestyle: str
) -> None:
    """The median over seeds against the iteration, with the range as a band."""
    finite = rows[numpy.isfinite(rows[column])]
    grouped = finite.groupby("iteration")[column]
    line = grouped.median()
    marker = "o" if len(line) < 4 else None
    axes.plot(
        line.index,
        line,
        color=color,
        linestyle=linestyle,
        linewidth=1.2,
        marker=marker,
        markersize=3,
    )
    if finite["seed"].nunique() > 1:
        axes.fill_between(
            line.index, grouped.min(), grouped.max(), color=color, alpha=0.15, linewidth=0
        )


@styled
def table_figure(
    table: pandas.DataFrame, title: str, numbers: pandas.DataFrame | None = None
) -> "Figure":
    """Measured error of each case (bar) beside the published one (hollow marker).

    The bar is the median over seeds, the points are the seeds. A case whose median is "fail" or
    "diverged" is hatched and named so; where all others are small, its bar runs off the axis.

    Args:
        table: rows of table.csv.
        numbers: the paper's rows for these cases (`papers.published("he2016")` of one source),
            which also tell a published "fail"; None takes `paper_error`.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    not_empty(table, "table")
    cases = list(dict.fromkeys(table["case"]))
    measured = {case: _median_of_case(table[table["case"] == case]) for case in cases}
    published_errors = {case: _published_of_case(table, numbers, case) for case in cases}
    shown = [error for error, status in measured.values() if status == "ok"]
    shown += list(table.loc[table["status"] == "ok", "test_error"].dropna())
    shown += [error for error, _ in published_errors.values() if math.isfinite(error)]
    right = (1.25 * max(shown) or 1.0) if shown else 100.0
    figure = new_figure(WIDTH, 1.5 + 0.27 * len(cases))
    axes = figure.subplots()
    any_failed = any_published = any_approximate = False
    several = table["seed"].nunique() > 1
    for y, case in enumerate(cases):
        error, status = measured[case]
        inside = error if error <= right else right
        if status == "ok":
            axes.barh(y, error, height=0.62, color=PALETTE[0], alpha=0.75)
            axes.text(right * 1.03, y, f"{error:.2f}", va="center", fontsize=7.5, clip_on=False)
        else:
            any_failed = True
            axes.barh(
                y,
                inside if math.isfinite(error) else right,
                height=0.62,
                facecolor="#f3d9cb",
                edgecolor=PALETTE[1],
                hatch="////",
                linewidth=0.6,
            )
            text = f"fail ({error:.1f})" if status == "fail" else "diverged"
            axes.text(
                right * 1.03,
                y,
                text,
                va="center",
                fontsize=7.5,
                color=PALETTE[1],
                clip_on=False,
            )
        if several:
            seeds = table[(table["case"] == case) & (table["test_error"] <= right)]
            axes.plot(seeds["test_error"], [y] * len(seeds), ".", color="black", markersize=3)
        paper, checked = published_errors[case]
        if not math.isnan(paper):
            any_published = True
            any_approximate = any_approximate or checked != "v"
            axes.plot(
                min(paper, right),
                y,
                marker="D" if math.isfinite(paper) else ">",
                markersize=6,
                markerfacecolor="white",
                markeredgecolor="black",
                markeredgewidth=1.1,
                linestyle="none",
                clip_on=False,
                zorder=4,
            )
    axes.set_xlim(0, right)
    axes.set_yticks(range(len(cases)), cases)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("test error (%)")
    set_title(figure, title)
    handles: list[Any] = [Patch(color=PALETTE[0], alpha=0.75, label="measured")]
    if any_failed:
        handles.append(
            Patch(
                facecolor="#f3d9cb",
                edgecolor=PALETTE[1],
                hatch="////",
                label="measured: fail or diverged",
            )
        )
    if several:
        handles.append(
            Line2D([], [], marker=".", color="black", linestyle="none", label="one seed")
        )
    if any_published:
        checked = "m" if any_approximate else "v"
        handles.append(_hollow("D", published_label(_datasets_of(numbers, cases), checked)))
        if any(math.isinf(error) for error, _ in published_errors.values()):
            handles.append(_hollow(">", published_label(f"fail (> {FAIL_ABOVE:.0f} %)", checked)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _hollow(marker: str, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        marker=marker,
        linestyle="none",
        markerfacecolor="white",
        markeredgecolor="black",
        markeredgewidth=1.1,
        label=label,
    )


def _datasets_of(numbers: pandas.DataFrame | None, cases: Sequence[str]) -> str:
    """The data sets of the published numbers, which may be others than the measured one."""
    if numbers is None:
        return ""
    return ", ".join(dict.fromkeys(numbers.loc[numbers["case"].isin(cases), "dataset"]))


def _median_of_case(rows: pandas.DataFrame) -> tuple[float, str]:
    """(median test error over seeds, its status); a diverged run counts as infinite."""
    errors = rows["test_error"].where(rows["status"] != "diverged", numpy.inf).fillna(numpy.inf)
    error = float(errors.median())
    if not math.isfinite(error):
        return math.inf, "diverged"
    worst_half = (rows["status"] != "ok").mean() >= 0.5
    return error, "fail" if worst_half else "ok"


def _published_of_case(
    table: pandas.DataFrame, numbers: pandas.DataFrame | None, case: str
) -> tuple[float, str]:
    """(published error, checked): inf for a published "fail", NaN for none."""
    if numbers is not None:
        rows = numbers[(numbers["case"] == case) & (numbers["metric"] != "top5_error")]
        if len(rows):
            row = rows.iloc[0]
            return (math.inf if row["status"] == "fail" else float(row["value"])), row["checked"]
    values = table.loc[table["case"] == case, "paper_error"].dropna()
    return (float(values.iloc[0]), "v") if len(values) else (math.nan, "v")
