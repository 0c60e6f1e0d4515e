"""Training curves, and final test errors."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import pandas

from resnet_cli.claims.papers import CASES, case_title, published
from resnet_cli.config.fields import FAILS_ABOVE
from resnet_cli.datasets.catalogue import title_of
from resnet_cli.figures.style import (
    GREY,
    HEIGHT,
    MAX_IN_ONE,
    MAX_PANELS,
    PALETTE,
    ROW_WIDTH,
    WIDTH,
    largest_calm,
    log_axis,
    new_figure,
    not_empty,
    published_label,
    styled,
    thousands,
)
from resnet_cli.figures.titles import case_names, heading_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from resnet_cli.config.schema import Experiment

MAX_POINTS = 2
"""Maximum number of evaluations drawn as points only, without a line."""
EXPLODED = 1e3
"""The loss axis ignores a case whose largest loss is more than this many times the median."""
MEASURED_AT, PUBLISHED_AT = 48.0, 95.0
"""Right edges of the columns of numbers, in points to the right of the axes."""
FAILED: dict[str, Any] = {
    "facecolor": "#f3d9cb",
    "edgecolor": PALETTE[1],
    "hatch": "////",
    "linewidth": 0.6,
}
HOLLOW: dict[str, Any] = {
    "marker": "D",
    "markersize": 6,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 1.1,
    "linestyle": "none",
}


def figure_of_trainings(stem: str, table: pandas.DataFrame, experiment: "Experiment") -> "Figure":
    """The figure of an experiment's training.csv or table.csv, with its title, the names of its
    cases and the published numbers.

    Args:
        stem: `training` or `table`.
    """
    title, names = heading_of(experiment).over(experiment.title), case_names(experiment)
    if stem == "training":
        return training_figure(table, title, names)
    numbers = None
    if experiment.paper == "he2016" and experiment.figure is not None:
        numbers = published(experiment.paper)
        numbers = numbers[numbers["source"] == experiment.figure]
        numbers = None if numbers.empty else numbers
    return table_figure(table, title, numbers, names)


@styled
def training_figure(
    training: pandas.DataFrame, title: str, names: Mapping[str, str] | None = None
) -> "Figure":
    """Training loss (dashed) and test error (solid) over iterations: paper 1, Figures 1, 3, 6.

    Each case has a colour; with several seeds, the line is their median and the band their range.
    More than four cases are drawn in panels, each with the original unit of the same depth for
    comparison (or, if there is none or the case itself has it, with the first case), and more than
    30 cases as one bundle of error curves. If a case's loss exploded, its curve leaves the loss
    axis and its label says so. A label also says if only the final values of a case are known.

    Args:
        training: rows of training.csv.
        names: case -> its name in words; by default from `case_title`.
    """
    from matplotlib.lines import Line2D

    not_empty(training, "training")
    cases = list(dict.fromkeys(training["case"]))
    if len(cases) > MAX_PANELS:
        return _bundle_figure(training, title)
    losses = training["train_loss"].replace([numpy.inf, -numpy.inf], numpy.nan)
    losses = losses.where(losses > 0)
    top = largest_calm(list(losses.groupby(training["case"]).max()), EXPLODED)
    labels = {case: _label(training[training["case"] == case], case, names, top) for case in cases}
    if training.groupby(["case", "seed"]).size().max() > 1:
        for case in cases:
            if training.loc[training["case"] == case].groupby("seed").size().max() == 1:
                labels[case] += " (final values only)"
    if len(cases) <= MAX_IN_ONE:
        groups = [cases]
        figure = new_figure(title, WIDTH, HEIGHT + 0.22 * math.ceil(len(cases) / 2))
        rows, columns = 1, 1
    else:
        against = {case: _reference(case, cases) for case in cases}
        compared = {reference for case, reference in against.items() if reference != case}
        groups = [
            [reference if reference != case else cases[0], case]
            for case, reference in against.items()
            if case not in compared
        ]
        columns = 4 if len(groups) == 4 or len(groups) > 9 else 3
        rows = math.ceil(len(groups) / columns)
        figure = new_figure(title, ROW_WIDTH, 2.3 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    # `subplots` shares only the axes that it creates, so all loss axes are set to the same range.
    for number, (error_axes, group) in enumerate(zip(axes, groups, strict=False)):
        loss_axes = error_axes.twinx()
        loss_axes.grid(visible=False)
        loss_axes.spines["right"].set_visible(True)
        for case in group:
            color = PALETTE[(cases.index(case) if len(groups) == 1 else group.index(case))]
            rows_of_case = training[training["case"] == case]
            _median_line(error_axes, rows_of_case, "test_error", color, "-")
            _median_line(loss_axes, rows_of_case, "train_loss", color, "--")
        if top > 0:
            log_axis(loss_axes, losses[losses <= top].to_numpy(), margins=(1.3, 1.3))
        if len(groups) > 1:
            error_axes.set_title(labels[group[1]], fontsize=8)
        if number % columns == 0:
            error_axes.set_ylabel("test error (%)")
        if number % columns == columns - 1:
            loss_axes.set_ylabel("training loss (nats)")
        else:
            loss_axes.tick_params(labelright=False, which="both")
        if number + columns >= len(groups):
            error_axes.set_xlabel("iteration")
            error_axes.tick_params(labelbottom=True)
    axes[0].set_ylim(0, _highest_shown(training))
    axes[0].set_xlim(0, 1.03 * float(training["iteration"].max()))
    for used in axes[: len(groups)]:
        thousands(used)
    for spare in axes[len(groups) :]:
        spare.set_visible(False)
    named = list(labels.values())
    if len(groups) > 1:
        references = list(dict.fromkeys(group[0] for group in groups))
        same = f"{labels[references[0]]} (in every panel)"
        others = "the original unit of the same depth"
        if any(_suffix(case) != _suffix(reference) for reference, case in groups):
            others += " or the first case"
        named = [same if len(references) == 1 else others]
        named.append("the panel's case")
    handles = [Line2D([], [], color=PALETTE[i], label=name) for i, name in enumerate(named)]
    for linestyle, name in (("-", "test error"), ("--", "training loss")):
        fill = GREY if linestyle == "-" else "white"
        handles.append(Line2D([], [], color=GREY, markerfacecolor=fill, label=name))
        handles[-1].set_linestyle(_line(training, linestyle))
        handles[-1].set_marker(_marker(training))
    if len(groups) == 1:
        for handle, case in zip(handles, cases, strict=False):
            handle.set_marker(_marker(training[training["case"] == case]))
            handle.set_markersize(4)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2 if len(groups) == 1 else len(handles)
    )
    return figure


def _bundle_figure(training: pandas.DataFrame, title: str) -> "Figure":
    """The test error of many cases: a thin line for each training, with the median on top."""
    from matplotlib.collections import LineCollection

    evaluated = training[numpy.isfinite(training["test_error"])]
    curves = [
        group[["iteration", "test_error"]].to_numpy()
        for _, group in evaluated.groupby(["case", "seed"], sort=False)
    ]
    figure = new_figure(title)
    axes = figure.subplots()
    label = f"{training['case'].nunique()} cases"
    if _line(evaluated, "-") == "none":
        points = evaluated["iteration"], evaluated["test_error"]
        axes.plot(*points, ".", color=PALETTE[0], alpha=0.35, label=label)
    else:
        lines = LineCollection(curves, colors=PALETTE[0], linewidths=0.8, alpha=0.35, label=label)
        axes.add_collection(lines)
    median = evaluated.groupby("iteration")["test_error"].median()
    marker = _marker(evaluated)
    style: dict[str, Any] = {"marker": marker, "linestyle": _line(evaluated, "-")}
    axes.plot(median.index, median, color=PALETTE[1], label="median", **style)
    axes.set_xlim(0, 1.03 * float(training["iteration"].max()))
    axes.set_ylim(0, _highest_shown(training))
    axes.set_xlabel("iteration")
    axes.set_ylabel("test error (%)")
    thousands(axes)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _highest_shown(training: pandas.DataFrame) -> float:
    """The upper end of the axis of errors; 1 if no error is above 0 or none was measured."""
    highest = float(training["test_error"].max())
    return 1.05 * highest if highest > 0 else 1.0


def _label(
    rows: pandas.DataFrame, case: str, names: Mapping[str, str] | None, highest_loss: float
) -> str:
    """A case in words, with a remark if its loss leaves the axis."""
    label = (names or {}).get(case) or case_title(case)
    return f"{label} (loss off the scale)" if (rows["train_loss"] > highest_loss).any() else label


def _reference(case: str, cases: Sequence[str]) -> str:
    """The case with the original unit of the same depth, or the first case if there is none."""
    depth = _suffix(case)
    same = [c for c in cases if c.startswith("original") and _suffix(c) == depth]
    return same[0] if same else cases[0]


def _suffix(case: str) -> str:
    """The part of a case's name after the kind of unit: `164-cifar10`."""
    known = [slug for slug in CASES if case == slug or case.startswith(f"{slug}-")]
    return case.removeprefix(max(known, key=len, default="")).removeprefix("-")


def _marker(rows: pandas.DataFrame) -> str:
    """Mark the points if there are few evaluations."""
    return "o" if rows["iteration"].nunique() < 4 else ""


def _line(rows: pandas.DataFrame, linestyle: str) -> Any:
    """The line style, or none for one or two points, which are not a curve."""
    return linestyle if rows["iteration"].nunique() > MAX_POINTS else "none"


def _median_line(
    axes: "Axes", rows: pandas.DataFrame, column: str, color: str, linestyle: str
) -> None:
    """Plot the median over seeds against the iteration, with the range as a band."""
    finite = rows[numpy.isfinite(rows[column])]
    grouped = finite.groupby("iteration")[column]
    line = grouped.median()
    axes.plot(
        line.index,
        line,
        color=color,
        linestyle=_line(finite, linestyle),
        linewidth=1.2,
        marker=_marker(finite),
        markersize=4,
        markerfacecolor=color if linestyle == "-" else "white",
    )
    if finite["seed"].nunique() > 1:
        axes.fill_between(
            line.index, grouped.min(), grouped.max(), color=color, alpha=0.15, linewidth=0
        )


@styled
def table_figure(
    table: pandas.DataFrame,
    title: str,
    numbers: pandas.DataFrame | None = None,
    names: Mapping[str, str] | None = None,
) -> "Figure":
    """The measured error of each case (bar) next to the published one (hollow marker), and both as
    columns of numbers on the right.

    A bar is the median over seeds; points are single seeds. A case whose median is "fail" or
    "diverged" is hatched and labelled; its bar is cut off if all others are much shorter.

    Args:
        table: rows of table.csv.
        numbers: the paper's rows for these cases (one source of `papers.published("he2016")`),
            including a published "fail"; None uses the column `paper_error`.
        names: case -> its name in words; by default from `case_title`.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    not_empty(table, "table")
    cases = list(dict.fromkeys(table["case"]))
    measured = {case: _median_of_case(table[table["case"] == case]) for case in cases}
    published_errors = {case: _published_of_case(table, numbers, case) for case in cases}
    any_published = any(not math.isnan(error) for error, _ in published_errors.values())
    shown = [error for error, status in measured.values() if status == "ok"]
    shown += list(table.loc[table["status"] == "ok", "test_error"].dropna())
    shown += [error for error, _ in published_errors.values() if math.isfinite(error)]
    right = (1.25 * max(shown) or 1.0) if shown else 100.0
    if right > 50:
        right = 100.0
    figure = new_figure(title, WIDTH, 1.7 + 0.27 * len(cases))
    axes = figure.subplots()
    several = table["seed"].nunique() > 1
    any_failed = any_broken = False

    def column(points: float, y: float, text: str, color: str = "black") -> None:
        axes.annotate(
            text,
            (1.0, y),
            (points, 0),
            xycoords=axes.get_yaxis_transform(),  # x relative to the width of the axes, y in rows
            textcoords="offset points",
            annotation_clip=False,
            ha="right",
            va="center",
            fontsize=7.5,
            color=color,
        )

    column(MEASURED_AT, -0.85, "measured", GREY)
    if any_published:
        column(PUBLISHED_AT, -0.85, "published", GREY)
    for y, case in enumerate(cases):
        error, status = measured[case]
        if status == "ok":
            axes.barh(y, error, height=0.62, color=PALETTE[0], alpha=0.75)
            column(MEASURED_AT, y, f"{error:.2f}")
        else:
            any_failed = True
            axes.barh(y, min(error, right), height=0.62, **FAILED)
            text = f"fail, {error:.1f}" if status == "fail" else "diverged"
            column(MEASURED_AT, y, text, PALETTE[1])
        if error > right:
            any_broken = True
            _draw_break(axes, y, right)
        if several:
            seeds = table[(table["case"] == case) & (table["test_error"] <= right)]
            axes.plot(seeds["test_error"], [y] * len(seeds), ".", color="black", markersize=3)
        paper, _ = published_errors[case]
        if math.isfinite(paper):
            axes.plot(paper, y, zorder=4, clip_on=False, **HOLLOW)
        if not math.isnan(paper):
            text = f"{paper:.2f}" if math.isfinite(paper) else f"fail, > {FAILS_ABOVE:.0f}"
            column(PUBLISHED_AT, y, text)
    axes.set_xlim(0, right)
    axes.set_yticks(range(len(cases)), [(names or {}).get(c) or case_title(c) for c in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("test error (%)")
    handles: list[Any] = [Patch(color=PALETTE[0], alpha=0.75, label="measured")]
    if any_failed:
        broken = ", bar cut off" if any_broken else ""
        handles.append(Patch(label=f"measured: fail{broken}", **FAILED))
    if several:
        handles.append(
            Line2D([], [], marker=".", color="black", linestyle="none", label="one seed")
        )
    if any_published:
        approximate = any(checked != "v" for _, checked in published_errors.values())
        label = published_label(_datasets_of(numbers, cases), "m" if approximate else "v")
        handles.append(Line2D([], [], label=label, **HOLLOW))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _draw_break(axes: "Axes", y: float, right: float) -> None:
    """Draw two slanted strokes across a bar that is cut off."""
    for x in (0.93 * right, 0.955 * right):
        slant = [x - 0.008 * right, x + 0.008 * right], [y + 0.42, y - 0.42]
        axes.plot(*slant, color="white", linewidth=3.5, zorder=3)
        axes.plot(*slant, color=PALETTE[1], linewidth=1.0, zorder=3.1)


def _datasets_of(numbers: pandas.DataFrame | None, cases: Sequence[str]) -> str:
    """The data sets of the published numbers, which may differ from the measured one."""
    if numbers is None:
        return ""
    found = dict.fromkeys(numbers.loc[numbers["case"].isin(cases), "dataset"])
    return ", ".join(title_of(name) for name in found)


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
    """(published error, checked); the error is inf for "fail" and NaN if there is none."""
    if numbers is not None:
        rows = numbers[(numbers["case"] == case) & (numbers["metric"] != "top5_error")]
        if len(rows):
            row = rows.iloc[0]
            return (math.inf if row["status"] == "fail" else float(row["value"])), row["checked"]
    values = table.loc[table["case"] == case, "paper_error"].dropna()
    return (float(values.iloc[0]), "v") if len(values) else (math.nan, "v")
