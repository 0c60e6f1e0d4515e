"""The figures. Each takes tables as DataFrames and writes one PNG, atomically, and nothing else.

Every plot has two functions: `…_figure` builds and returns the matplotlib Figure, `plot_…` writes
it. Figures are made without pyplot, so none stays open and no global state changes. matplotlib is
imported inside, since most commands draw nothing.

Numbers of the papers are drawn over the measurements when they were checked against the paper's
text; others only with the word "approximate" (`published_label`).
"""

import functools
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy
import pandas

from resnet_cli.errors import UserError, unknown
from resnet_cli.intervals import shortest_interval
from resnet_cli.papers import published
from resnet_cli.results.tables import COLUMNS, atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
WIDTH, HEIGHT = 4.8, 3.4
TITLE_CHARACTERS_PER_INCH = 11
"""Inches of one plot, made for a column of half a page."""
ROW_WIDTH = 9.6
"""Inches of a row of three."""
FAIL_ABOVE = 20.0
"""Percent; paper 1, Table 1, calls a higher error "fail"."""
MOST_IN_ONE = 4
"""Cases drawn in one axes; more get a panel each, against the first."""
DECADES = 12
"""A logarithmic axis shows so many at most, down from its largest value (6b: twice as many)."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart with any colour vision."""
GREY = "#555555"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

P = ParamSpec("P")
R = TypeVar("R")


def _styled(build: Callable[P, R]) -> Callable[P, R]:
    """Run with STYLE, whatever the user's matplotlibrc says, and leave that as it was."""

    @functools.wraps(build)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            for key, value in STYLE.items():
                matplotlib.rcParams[key] = value
            return build(*args, **kwargs)

    return styled


def describe(network: str, dataset: str, profile: str | None = None) -> str:
    """A plot's title: `preact110, digits, profile mini`."""
    return f"{network}, {dataset}" + (f", profile {profile}" if profile else "")


def published_label(text: str, checked: str) -> str:
    """The legend of a paper's number; one not checked against the paper is "approximate"."""
    label = "published" if checked == "v" else "published, approximate"
    return f"{label}: {text}" if text else label


# --- training ----------------------------------------------------------------------------------


@_styled
def training_figure(training: pandas.DataFrame, title: str) -> "Figure":
    """Training loss (dashed) and test error (solid) over iterations: paper 1, Figures 1, 3, 6.

    One colour a case; with several seeds the line is their median and the band their range. More
    than four cases are drawn in panels, each against the first.

    Args:
        training: rows of training.csv.
    """
    from matplotlib.lines import Line2D

    _not_empty(training, "training")
    cases = list(dict.fromkeys(training["case"]))
    if len(cases) <= MOST_IN_ONE:
        groups = [cases]
        figure = _new_figure(WIDTH, HEIGHT + 0.22 * math.ceil(len(cases) / 2))
        rows, columns = 1, 1
    else:
        groups = [[cases[0], case] for case in cases[1:]]
        columns = 3 if len(groups) <= 9 else 4
        rows = math.ceil(len(groups) / columns)
        figure = _new_figure(ROW_WIDTH, 2.3 * rows + 0.7)
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
        _thousands(error_axes)
    for spare in axes[len(groups) :]:
        spare.set_visible(False)
    _set_title(figure, title)
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


# --- tables ------------------------------------------------------------------------------------


@_styled
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

    _not_empty(table, "table")
    cases = list(dict.fromkeys(table["case"]))
    measured = {case: _median_of_case(table[table["case"] == case]) for case in cases}
    published_errors = {case: _published_of_case(table, numbers, case) for case in cases}
    shown = [error for error, status in measured.values() if status == "ok"]
    shown += list(table.loc[table["status"] == "ok", "test_error"].dropna())
    shown += [error for error, _ in published_errors.values() if math.isfinite(error)]
    right = (1.25 * max(shown) or 1.0) if shown else 100.0
    figure = _new_figure(WIDTH, 1.5 + 0.27 * len(cases))
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
    _set_title(figure, title)
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


# --- lesions -----------------------------------------------------------------------------------


@_styled
def lesion_single_figure(
    networks: Mapping[str, pandas.DataFrame],
    title: str,
    *,
    changes: Mapping[str, Sequence[int]] | None = None,
    chance: float | None = None,
) -> "Figure":
    """Error after deleting one unit, by its index: paper 2, Figures 3, 4 and 8.

    Args:
        networks: name -> rows of lesion_delete.csv, of which those with k = 1 count; the mean is
            drawn where a unit was deleted more than once (several trainings).
        changes: name -> the units that change the shape, each marked by a vertical line.
        chance: the error of guessing, percent.

    Raises:
        UserError: a network has no row with k = 1.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    figure = _new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    handles = []
    any_change = False
    for (name, rows), color in zip(networks.items(), PALETTE, strict=False):
        single = rows[rows["k"] == 1]
        _not_empty(single, f"lesion_delete of {name} with k = 1")
        errors = single.groupby(single["blocks"].astype(int))["test_error"].mean()
        baseline = float(single["baseline_error"].mean())
        for unit in (changes or {}).get(name, ()):
            any_change = True
            axes.axvline(unit, color=color, linestyle=":", linewidth=1.0, alpha=0.6, zorder=1)
        axes.plot(errors.index, errors, color=color, marker="o", markersize=3, linewidth=1.1)
        axes.axhline(baseline, color=color, linestyle="--", linewidth=1.0)
        handles.append(
            Line2D([], [], color=color, marker="o", markersize=3, label=f"{name}, one deleted")
        )
        handles.append(
            Line2D([], [], color=color, linestyle="--", label=f"intact ({baseline:.2f} %)")
        )
    if any_change:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="changes the shape"))
    if chance is not None:
        handles.append(_chance(axes, chance))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("deleted unit (index)")
    axes.set_ylabel("test error (%)")
    _set_title(figure, title)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@_styled
def lesion_count_figure(
    lesions: pandas.DataFrame, title: str, *, chance: float | None = None
) -> "Figure":
    """Error against the number of units deleted, one box each: paper 2, Figure 5a.

    Boxes hold the middle half, the line is the median, whiskers reach 1.5 box heights.

    Args:
        lesions: rows of lesion_delete.csv.
        chance: the error of guessing, percent.
    """
    _not_empty(lesions, "lesion_delete")
    figure = _new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    counts = sorted({int(k) for k in lesions["k"]})
    samples = [lesions.loc[lesions["k"] == k, "test_error"].to_numpy() for k in counts]
    _boxes(axes, samples, counts, 0.62)
    handles = [_baseline(axes, lesions)]
    if chance is not None:
        handles.append(_chance(axes, chance))
    axes.set_xlim(min(counts) - 0.8, max(counts) + 0.8)
    step = math.ceil(len(counts) / 20)
    axes.set_xticks(counts[::step], [str(k) for k in counts[::step]])
    axes.grid(visible=False, axis="x")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("units deleted at random")
    axes.set_ylabel("test error (%)")
    _set_title(figure, title)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@_styled
def lesion_reorder_figure(
    lesions: pandas.DataFrame, title: str, *, chance: float | None = None, bins: int = 12
) -> "Figure":
    """Error against the Kendall tau between new and old order: paper 2, Figure 5b.

    Every sample is a point; the range of tau is cut into equal bins, and a bin of five samples or
    more has a box. Tau falls to the right: more disorder.

    Args:
        lesions: rows of lesion_reorder.csv.
        chance: the error of guessing, percent.
    """
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    _not_empty(lesions, "lesion_reorder")
    figure = _new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    tau = lesions["kendall_tau"].to_numpy(dtype=float)
    errors = lesions["test_error"].to_numpy(dtype=float)
    edges = numpy.linspace(tau.min(), tau.max(), bins + 1)
    width = float(edges[1] - edges[0])
    if width > 0:
        index = numpy.clip(((tau - edges[0]) / width).astype(int), 0, bins - 1)
        full = [number for number in range(bins) if (index == number).sum() >= 5]
        centres = [float(edges[number] + width / 2) for number in full]
        _boxes(
            axes, [errors[index == number] for number in full], centres, 0.7 * width, outliers=False
        )
    axes.plot(tau, errors, ".", color=PALETTE[0], markersize=3, alpha=0.35, zorder=1)
    handles = [_baseline(axes, lesions)]
    if chance is not None:
        handles.append(_chance(axes, chance))
    margin = width if width > 0 else 0.01
    axes.set_xlim(tau.max() + margin, tau.min() - margin)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Kendall tau between new and old order of the units")
    axes.set_ylabel("test error (%)")
    _set_title(figure, title)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@_styled
def lesion_ranked_figure(
    lesions: pandas.DataFrame, title: str, *, changes: Sequence[int] = ()
) -> "Figure":
    """The increase of the error by each deleted unit, worst first; units named by their index.

    Args:
        lesions: rows of lesion_delete.csv, of which those with k = 1 count.
        changes: the units that change the shape, in another colour.

    Raises:
        UserError: there is no row with k = 1.
    """
    from matplotlib.patches import Patch

    single = lesions[lesions["k"] == 1]
    _not_empty(single, "lesion_delete with k = 1")
    damage = (single["test_error"] - single["baseline_error"]).groupby(single["blocks"].astype(int))
    ranked = damage.mean().sort_values(ascending=False, kind="stable")
    wide = len(ranked) > 30
    figure = _new_figure(ROW_WIDTH if wide else WIDTH, HEIGHT)
    axes = figure.subplots()
    colors = [PALETTE[1] if unit in set(changes) else PALETTE[0] for unit in ranked.index]
    axes.bar(range(len(ranked)), ranked, color=colors, width=0.75)
    axes.set_xlim(-0.8, len(ranked) - 0.2)
    step = math.ceil(len(ranked) / 80)
    axes.set_xticks(
        range(0, len(ranked), step), [str(u) for u in ranked.index[::step]], fontsize=6.5
    )
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("deleted unit (index), worst first")
    axes.set_ylabel("increase of the test error (points)")
    _set_title(figure, title)
    handles = [Patch(color=PALETTE[0], label="keeps the shape")]
    if set(changes) & set(ranked.index):
        handles.append(Patch(color=PALETTE[1], label="changes the shape"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@_styled
def lesion_greedy_figure(
    greedy: pandas.DataFrame,
    title: str,
    *,
    random: pandas.DataFrame | None = None,
    chance: float | None = None,
) -> "Figure":
    """Error against the number of deleted units: the least harmful ones against random ones.

    Args:
        greedy: rows of lesion_greedy.csv.
        random: rows of lesion_delete.csv: their mean by k, and the band of 5 to 95 %.
        chance: the error of guessing, percent.
    """
    from matplotlib.ticker import MaxNLocator

    _not_empty(greedy, "lesion_greedy")
    figure = _new_figure(WIDTH, HEIGHT)
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
    _baseline(axes, greedy)
    if chance is not None:
        _chance(axes, chance)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("units deleted")
    axes.set_ylabel("test error (%)")
    _set_title(figure, title)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@_styled
def lesion_additivity_figure(sets: pandas.DataFrame, title: str) -> "Figure":
    """Joint damage of a set of units against the sum of their single damages, error and loss.

    On the diagonal the units act independently; above it they are worse together.

    Args:
        sets: rows of lesion_additivity.csv.
    """
    from matplotlib.ticker import MaxNLocator

    _not_empty(sets, "lesion_additivity")
    figure = _new_figure(ROW_WIDTH * 0.75, HEIGHT)
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
    _set_title(figure, title)
    return figure


@_styled
def lesion_classes_figure(classes: pandas.DataFrame, title: str) -> "Figure":
    """The increase of the error of each class: by unit, or by k where several were deleted.

    Args:
        classes: rows of lesion_classes.csv; of several rows the mean is drawn.
    """
    from matplotlib.ticker import MaxNLocator

    _not_empty(classes, "lesion_classes")
    damage = classes["test_error"] - classes["baseline_error"]
    single = bool((classes["k"] == 1).all())
    column = classes["blocks"].astype(int) if single else classes["k"]
    grid = damage.groupby([classes["class"], column]).mean().unstack()
    names = classes.groupby("class")["class_name"].first()
    figure = _new_figure(ROW_WIDTH * 0.75, 1.4 + min(0.22 * len(names), 6.0))
    axes = figure.subplots()
    top = max(float(numpy.nanmax(numpy.abs(grid.to_numpy()))), 1e-9)
    image = axes.imshow(grid, aspect="auto", cmap="RdBu_r", vmin=-top, vmax=top)
    axes.grid(visible=False)
    step = math.ceil(len(names) / 30)
    axes.set_yticks(range(0, len(names), step), list(names)[::step])
    labels = [str(value) for value in grid.columns]
    step = math.ceil(len(labels) / 20)
    axes.set_xticks(range(0, len(labels), step), labels[::step])
    axes.set_xlabel("deleted unit (index)" if single else "units deleted together, k")
    axes.set_ylabel("class")
    bar = figure.colorbar(image, ax=axes, label="error increase (points)")
    bar.locator = MaxNLocator(5)
    _set_title(figure, title)
    return figure


def _boxes(
    axes: "Axes",
    samples: Sequence[Any],
    positions: Sequence[float],
    width: float,
    *,
    outliers: bool = True,
) -> None:
    """Box plots at numeric positions; the axis keeps its own ticks."""
    if not samples:
        return
    axes.boxplot(
        samples,
        positions=positions,
        widths=width,
        manage_ticks=False,
        showfliers=outliers,
        patch_artist=True,
        boxprops={"facecolor": (0.0, 0.45, 0.7, 0.18), "edgecolor": PALETTE[0], "linewidth": 0.9},
        medianprops={"color": PALETTE[1], "linewidth": 1.6},
        whiskerprops={"color": PALETTE[0], "linewidth": 0.9},
        capprops={"color": PALETTE[0], "linewidth": 0.9},
        flierprops={
            "marker": "o",
            "markersize": 2.5,
            "markerfacecolor": PALETTE[0],
            "markeredgecolor": "none",
            "alpha": 0.6,
        },
    )


def _baseline(axes: "Axes", lesions: pandas.DataFrame) -> Any:
    baseline = float(lesions["baseline_error"].mean())
    return axes.axhline(
        baseline,
        color=PALETTE[2],
        linestyle="--",
        linewidth=1.2,
        label=f"intact network ({baseline:.2f} %)",
    )


def _chance(axes: "Axes", chance: float) -> Any:
    return axes.axhline(
        chance, color=GREY, linestyle=(0, (1, 3)), linewidth=1.2, label=f"guessing ({chance:g} %)"
    )


# --- paths -------------------------------------------------------------------------------------


@_styled
def paths_figure(
    lengths: pandas.DataFrame,
    gradients: pandas.DataFrame,
    title: str,
    *,
    spectrum: pandas.DataFrame | None = None,
) -> "Figure":
    """Path lengths, gradient by length, and their product, in a row: paper 2, Figures 6a-c.

    In (b) the line is the median, the bands hold 50 and 90 % of the samples. In (c) everything is
    a share of its own total; the interval published for 54 units is drawn for 54 units only.

    Args:
        lengths: rows of path_lengths.csv.
        gradients: rows of path_gradients.csv.
        spectrum: rows of path_spectrum.csv, whose exact column is drawn beside the product.
    """
    from matplotlib.ticker import MaxNLocator

    _not_empty(lengths, "path_lengths")
    _not_empty(gradients, "path_gradients")
    figure = _new_figure(ROW_WIDTH, 3.2)
    first, second, third = figure.subplots(1, 3, sharex=True)

    first.fill_between(
        lengths["k"], 100 * lengths["fraction"], color=PALETTE[0], alpha=0.2, linewidth=0
    )
    first.plot(lengths["k"], 100 * lengths["fraction"], color=PALETTE[0])
    first.set_ylim(bottom=0)
    first.set_ylabel("paths of this length (% of all)")
    first.set_title("(a) how many paths")

    by_length = gradients[gradients["grad_norm"] > 0].groupby("k")["grad_norm"]
    if len(by_length):
        quantiles = by_length.quantile(numpy.array([0.05, 0.25, 0.5, 0.75, 0.95])).unstack()
        k = quantiles.index.to_numpy()
        for low, high, alpha in ((0.05, 0.95, 0.15), (0.25, 0.75, 0.3)):
            second.fill_between(
                k,
                quantiles[low],
                quantiles[high],
                color=PALETTE[0],
                alpha=alpha,
                linewidth=0,
                label=f"{100 * (high - low):.0f} % of samples",
            )
        marker = "o" if len(k) < 15 else None
        second.plot(
            k, quantiles[0.5], color=PALETTE[0], marker=marker, markersize=3, label="median"
        )
        _log_axis(second, quantiles.to_numpy(), decades=2 * DECADES)
        second.legend(loc="upper right")
    second.set_ylabel("gradient norm at the input")
    second.set_title("(b) gradient of one path")

    product = _product(lengths, gradients) if spectrum is None else spectrum
    shares = product[["k", "share_total"]].dropna()
    third.plot(
        shares["k"], 100 * shares["share_total"], color=PALETTE[0], label="(a) × (b), sampled"
    )
    if "share_exact" in product and product["share_exact"].notna().any():
        exact = product[["k", "share_exact"]].dropna()
        third.plot(
            exact["k"],
            100 * exact["share_exact"],
            color=PALETTE[1],
            linestyle="-.",
            label="exact, paths may cancel",
        )
    _published_interval(third, units=int(lengths["k"].max()))
    third.set_ylim(bottom=0)
    third.set_ylabel("share of the total (%)")
    third.set_title("(c) gradient by path length")
    top = third.get_ylim()[1]
    third.set_ylim(0, top * 1.4)
    third.legend(loc="upper right", frameon=True, framealpha=1, edgecolor="none")
    for axes in (first, second, third):
        axes.set_xlabel("path length k (units passed)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _set_title(figure, title)
    return figure


@_styled
def spectrum_figure(spectrum: pandas.DataFrame, title: str) -> "Figure":
    """Sampled total and exact norm by path length, log scale, 90 % intervals shaded.

    The interval is the shortest run of lengths that holds 90 % of the curve's own total.

    Args:
        spectrum: rows of path_spectrum.csv.
    """
    from matplotlib.ticker import MaxNLocator

    _not_empty(spectrum, "path_spectrum")
    figure = _new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    curves = [
        ("total", PALETTE[0], "-", "sampled: paths × mean norm"),
        ("exact_norm", PALETTE[1], "-.", "exact: norm of their sum"),
    ]
    drawn = []
    for column, color, linestyle, name in curves:
        rows = spectrum[spectrum[column] > 0]
        if rows.empty:
            continue
        first, last = shortest_interval(list(rows["k"]), list(rows[column]), 0.9)
        axes.plot(
            rows["k"],
            rows[column],
            color=color,
            linestyle=linestyle,
            label=f"{name}; 90 % in {first}–{last}",
        )
        drawn.append((rows[(rows["k"] >= first) & (rows["k"] <= last)], column, color))
    if drawn:
        _log_axis(axes, spectrum[["total", "exact_norm"]].to_numpy(dtype=float))
        bottom = axes.get_ylim()[0]
        for inside, column, color in drawn:
            axes.fill_between(
                inside["k"], bottom, inside[column], color=color, alpha=0.18, linewidth=0
            )
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("path length k (units passed)")
    axes.set_ylabel("gradient norm at the input")
    _set_title(figure, title)
    figure.legend(loc="outside lower center", ncols=1)
    return figure


@_styled
def exact_figure(spectra: pandas.DataFrame, key: str, title: str) -> "Figure":
    """Exact spectra by path length, one curve for each stage or unit, each as shares of its sum.

    Args:
        spectra: rows of path_spectrum_stages.csv or path_spectrum_unit.csv.
        key: `stage` or `unit`.
    """
    from matplotlib.ticker import MaxNLocator

    _not_empty(spectra, f"path_spectrum_{'stages' if key == 'stage' else key}")
    figure = _new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    for number, (value, rows) in enumerate(spectra.groupby(key)):
        weights = list(rows["exact_norm"])
        name = f"{key} {value}"
        if any(weight > 0 for weight in weights):
            first, last = shortest_interval(list(rows["k"]), weights, 0.9)
            name += f"; 90 % in {first}–{last}"
        color = PALETTE[number % len(PALETTE)]
        axes.plot(rows["k"], 100 * rows["share_exact"], color=color, marker="o", label=name)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel(f"path length k (units passed{' in the stage' if key == 'stage' else ''})")
    axes.set_ylabel("share of the exact norms (%)")
    axes.set_ylim(bottom=0)
    _set_title(figure, title)
    figure.legend(loc="outside lower center", ncols=1)
    return figure


STATES = {"initial": "at initialisation", "trained": "trained"}
"""Of a network whose signals are measured, in signal.csv and in words."""


@_styled
def signal_figure(tables: Mapping[str, pandas.DataFrame], title: str) -> "Figure":
    """Activation norm, gradient norm and what the shortcuts alone do, by unit, log scales.

    Of one network both states are drawn in one row of panels; of several, a row for each state
    and a colour for each network. The product of the lambdas (equation 8) is drawn dotted.

    Args:
        tables: name -> rows of signal.csv.
    """
    from matplotlib.ticker import MaxNLocator

    for frame in tables.values():
        _not_empty(frame, "signal")
    states = [s for s in STATES if any((frame["state"] == s).any() for frame in tables.values())]
    alone = len(tables) == 1
    rows = [states] if alone else [[state] for state in states]
    panels = {
        "activation_norm": "activation norm",
        "gradient_norm": "gradient norm",
        "shortcut_gain": "gradient by the shortcuts\nalone, from the last unit's output",
    }
    count = len(states) if alone else len(tables)
    figure = _new_figure(ROW_WIDTH, 2.6 * len(rows) + 0.3 + 0.22 * math.ceil(count / 4))
    grid = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True)
    handles: dict[str, Any] = {}
    for shown, line in zip(rows, grid, strict=True):
        for (column, label), axes in zip(panels.items(), line, strict=True):
            drawn = []
            for number, (name, frame) in enumerate(tables.items()):
                for state in shown:
                    key = STATES[state] if alone else name
                    index = list(states).index(state) if alone else number
                    color = PALETTE[index % len(PALETTE)]
                    dashes = ("-", "--", "-.")[index // len(PALETTE) % 3]
                    part = frame[(frame["state"] == state) & (frame[column] > 0)]
                    if part.empty:
                        continue
                    (handles[key],) = axes.plot(part["unit"], part[column], dashes, color=color)
                    drawn.append(part[column])
                    if column == "shortcut_gain":
                        axes.plot(part["unit"], part["shortcut_product"], ":", color=color, lw=1)
            if drawn:
                _log_axis(axes, pandas.concat(drawn).to_numpy(), 24)
            axes.set_ylabel(label if alone else f"{label}\n({STATES[shown[0]]})", fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for axes in grid[-1]:
        axes.set_xlabel("unit")
    dotted = grid[0][-1].plot([], [], ":", color=GREY, lw=1)[0]
    handles["product of the lambdas or mean gates, equation (8)"] = dotted
    _set_title(figure, title)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=min(4, count + 1)
    )
    return figure


@_styled
def path_survival_figure(survival: pandas.DataFrame, title: str) -> "Figure":
    """The share of paths of each length left after deleting units: paper 2, Figure 7.

    Args:
        survival: rows of path_survival.csv.
    """
    from matplotlib.ticker import MaxNLocator

    _not_empty(survival, "path_survival")
    figure = _new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    for (count, rows), color in zip(
        survival.groupby("deleted"), itertools.cycle(PALETTE), strict=False
    ):
        axes.plot(rows["k"], 100 * rows["fraction"], color=color, label=f"{count} deleted")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("path length k (units passed)")
    axes.set_ylabel("paths left (% of this length)")
    _set_title(figure, title)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _product(lengths: pandas.DataFrame, gradients: pandas.DataFrame) -> pandas.DataFrame:
    """k, share_total: the share of (fraction of paths) x (mean gradient norm) at each length."""
    means = gradients.groupby("k")["grad_norm"].mean()
    product = lengths.set_index("k")["fraction"] * means
    product = product.dropna()
    return pandas.DataFrame({"k": product.index, "share_total": product / product.sum()})


def _published_interval(axes: "Axes", units: int) -> None:
    """Paper 2's interval of path lengths, where the network has as many units as the paper's."""
    numbers = published("veit2016")
    if units != int(numbers.loc[numbers["quantity"] == "units", "value"].iloc[0]):
        return
    rows = numbers[
        (numbers["figure"] == "fig6c")
        & numbers["quantity"].isin(["effective_from", "effective_to"])
    ]
    first, last = sorted(float(value) for value in rows["value"])
    checked = "v" if (rows["checked"] == "v").all() else "m"
    label = published_label(f"{first:.0f} to {last:.0f}, cifar10", checked)
    axes.axvspan(first, last, color="#e3e3e3", zorder=0, label=label)


def _log_axis(axes: "Axes", values: Any, decades: int = DECADES) -> None:
    """A logarithmic y axis over the positive values, of at most so many decades."""
    values = numpy.asarray(values, dtype=float)
    positive = values[numpy.isfinite(values) & (values > 0)]
    axes.set_yscale("log")
    high = float(positive.max())
    low = max(float(positive.min()), high * 10.0**-decades)
    axes.set_ylim(low / 2, high * 3)


# --- writing -----------------------------------------------------------------------------------


def plot_training(training: pandas.DataFrame, path: Path, title: str) -> Path:
    """Write `training_figure`. Raises UserError when the file cannot be written."""
    return _save(training_figure(training, title), path)


def plot_table(
    table: pandas.DataFrame, path: Path, title: str, numbers: pandas.DataFrame | None = None
) -> Path:
    """Write `table_figure`. Raises UserError when the file cannot be written."""
    return _save(table_figure(table, title, numbers), path)


def plot_lesion_single(
    networks: Mapping[str, pandas.DataFrame],
    path: Path,
    title: str,
    *,
    changes: Mapping[str, Sequence[int]] | None = None,
    chance: float | None = None,
) -> Path:
    """Write `lesion_single_figure`. Raises UserError when the file cannot be written."""
    return _save(lesion_single_figure(networks, title, changes=changes, chance=chance), path)


def plot_lesion_count(
    lesions: pandas.DataFrame, path: Path, title: str, *, chance: float | None = None
) -> Path:
    """Write `lesion_count_figure`. Raises UserError when the file cannot be written."""
    return _save(lesion_count_figure(lesions, title, chance=chance), path)


def plot_lesion_reorder(
    lesions: pandas.DataFrame, path: Path, title: str, *, chance: float | None = None
) -> Path:
    """Write `lesion_reorder_figure`. Raises UserError when the file cannot be written."""
    return _save(lesion_reorder_figure(lesions, title, chance=chance), path)


def plot_lesion_ranked(
    lesions: pandas.DataFrame, path: Path, title: str, *, changes: Sequence[int] = ()
) -> Path:
    """Write `lesion_ranked_figure`. Raises UserError when the file cannot be written."""
    return _save(lesion_ranked_figure(lesions, title, changes=changes), path)


def plot_lesion_greedy(
    greedy: pandas.DataFrame,
    path: Path,
    title: str,
    *,
    random: pandas.DataFrame | None = None,
    chance: float | None = None,
) -> Path:
    """Write `lesion_greedy_figure`. Raises UserError when the file cannot be written."""
    return _save(lesion_greedy_figure(greedy, title, random=random, chance=chance), path)


def plot_lesion_additivity(sets: pandas.DataFrame, path: Path, title: str) -> Path:
    """Write `lesion_additivity_figure`. Raises UserError when the file cannot be written."""
    return _save(lesion_additivity_figure(sets, title), path)


def plot_lesion_classes(classes: pandas.DataFrame, path: Path, title: str) -> Path:
    """Write `lesion_classes_figure`. Raises UserError when the file cannot be written."""
    return _save(lesion_classes_figure(classes, title), path)


def plot_path_survival(survival: pandas.DataFrame, path: Path, title: str) -> Path:
    """Write `path_survival_figure`. Raises UserError when the file cannot be written."""
    return _save(path_survival_figure(survival, title), path)


def plot_paths(
    lengths: pandas.DataFrame,
    gradients: pandas.DataFrame,
    path: Path,
    title: str,
    *,
    spectrum: pandas.DataFrame | None = None,
) -> Path:
    """Write `paths_figure`. Raises UserError when the file cannot be written."""
    return _save(paths_figure(lengths, gradients, title, spectrum=spectrum), path)


def plot_spectrum(spectrum: pandas.DataFrame, path: Path, title: str) -> Path:
    """Write `spectrum_figure`. Raises UserError when the file cannot be written."""
    return _save(spectrum_figure(spectrum, title), path)


def plot_signals(tables: Mapping[str, pandas.DataFrame], path: Path, title: str) -> Path:
    """Write `signal_figure`. Raises UserError when the file cannot be written."""
    return _save(signal_figure(tables, title), path)


def plot_for(
    stem: str,
    tables: Mapping[str, pandas.DataFrame],
    folder: Path,
    title: str,
    *,
    network: str = "network",
    changes: Sequence[int] = (),
    chance: float | None = None,
    numbers: pandas.DataFrame | None = None,
) -> list[Path]:
    """Draw what a table is for; the one call of the studies.

    training -> training.png; table -> table.png; lesion_delete -> lesion_single.png when k = 1 was
    measured and lesion_count.png when another k was; lesion_reorder -> lesion_reorder.png;
    path_lengths and path_gradients -> paths.png once both are there; path_spectrum ->
    path_spectrum.png; lesion_greedy (with lesion_delete, if there), lesion_additivity,
    lesion_classes, path_survival, path_spectrum_stages, path_spectrum_unit and signal -> a PNG of
    the same name.

    Args:
        stem: which table to draw.
        tables: stem -> DataFrame; must hold `stem`, and the other path tables where there are any.
        title: as `describe` makes it.
        network: the legend's name for the network (single deletions).
        changes: indices of the units that change the shape (single deletions).
        chance: the error of guessing, percent (lesions).
        numbers: the paper's rows (table).

    Returns:
        The files written; none when `tables` holds too little for a figure.

    Raises:
        UserError: no such table, an empty one, or a file cannot be written.
    """
    if stem not in COLUMNS:
        raise unknown("table", stem, COLUMNS)
    frame = tables[stem]
    if stem == "training":
        return [plot_training(frame, folder / "training.png", title)]
    if stem == "table":
        return [plot_table(frame, folder / "table.png", title, numbers)]
    if stem == "lesion_reorder":
        return [plot_lesion_reorder(frame, folder / "lesion_reorder.png", title, chance=chance)]
    if stem == "path_spectrum":
        return [plot_spectrum(frame, folder / "path_spectrum.png", title)]
    if stem in ("path_spectrum_stages", "path_spectrum_unit"):
        figure = exact_figure(frame, "stage" if stem.endswith("stages") else "unit", title)
        return [_save(figure, folder / f"{stem}.png")]
    if stem == "lesion_greedy":
        path, drawn = folder / "lesion_greedy.png", tables.get("lesion_delete")
        return [plot_lesion_greedy(frame, path, title, random=drawn, chance=chance)]
    if stem == "lesion_additivity":
        return [plot_lesion_additivity(frame, folder / "lesion_additivity.png", title)]
    if stem == "lesion_classes":
        return [plot_lesion_classes(frame, folder / "lesion_classes.png", title)]
    if stem == "signal":
        return [plot_signals({network: frame}, folder / "signal.png", title)]
    if stem == "path_survival":
        return [plot_path_survival(frame, folder / "path_survival.png", title)]
    if stem == "lesion_delete":
        _not_empty(frame, stem)
        written = []
        if (frame["k"] == 1).any():
            written.append(
                plot_lesion_single(
                    {network: frame},
                    folder / "lesion_single.png",
                    title,
                    changes={network: changes},
                    chance=chance,
                )
            )
        if (frame["k"] != 1).any():
            written.append(
                plot_lesion_count(frame, folder / "lesion_count.png", title, chance=chance)
            )
        return written
    if not {"path_lengths", "path_gradients"} <= set(tables):
        return []
    return [
        plot_paths(
            tables["path_lengths"],
            tables["path_gradients"],
            folder / "paths.png",
            title,
            spectrum=tables.get("path_spectrum"),
        )
    ]


def _new_figure(width: float, height: float) -> "Figure":
    """A figure of its own, unknown to pyplot. width, height: inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _set_title(figure: "Figure", title: str) -> None:
    """The figure's title, broken into lines that fit its width."""
    width = int(figure.get_figwidth() * TITLE_CHARACTERS_PER_INCH)
    figure.suptitle(textwrap.fill(title, width), fontsize=STYLE["axes.titlesize"])


def _thousands(axes: "Axes") -> None:
    """`32k` for 32000 on the x axis, where the numbers are that large."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if axes.get_xlim()[1] >= 5000:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x else "0"))


@_styled
def _save(figure: "Figure", path: Path) -> Path:
    """Write a PNG; equal figures give equal bytes (no date, no version of the writer)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    atomic_write(path, buffer.getvalue())
    return path


def _not_empty(rows: pandas.DataFrame, what: str) -> None:
    if rows.empty:
        raise UserError(f"nothing to draw: {what} has no rows")
