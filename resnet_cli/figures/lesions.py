"""Deleted and reordered units (paper 2, Figures 3, 5 and 8, and beyond)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import pandas

from resnet_cli.figures.style import (
    GREY,
    HEIGHT,
    PALETTE,
    ROW_WIDTH,
    WIDTH,
    new_figure,
    not_empty,
    set_title,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
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

    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    deleted: list[Any] = []
    intact: list[Any] = []
    any_change = False
    plain = [name.startswith("VGG") for name in networks]
    what = "layer" if all(plain) else "unit or layer" if any(plain) else "unit"
    for (name, rows), color in zip(networks.items(), PALETTE, strict=False):
        single = rows[rows["k"] == 1]
        not_empty(single, f"lesion_delete of {name} with k = 1")
        errors = single.groupby(single["blocks"].astype(int))["test_error"].mean()
        baseline = float(single["baseline_error"].mean())
        for unit in (changes or {}).get(name, ()):
            any_change = True
            axes.axvline(unit, color=color, linestyle=":", linewidth=1.0, alpha=0.6, zorder=1)
        axes.plot(errors.index, errors, color=color, marker="o", markersize=3, linewidth=1.1)
        axes.axhline(baseline, color=color, linestyle="--", linewidth=1.0)
        # Their order is that of a legend of two columns: deleted on the left, intact on the right.
        of_name = f"{name}, " if len(networks) > 1 else ""
        label = name if len(networks) > 1 else f"one {what} deleted"
        deleted.append(Line2D([], [], color=color, marker="o", markersize=3, label=label))
        label = f"{of_name}intact ({baseline:.2f} %)"
        intact.append(Line2D([], [], color=color, linestyle="--", label=label))
    if any_change:
        deleted.append(Line2D([], [], color=GREY, linestyle=":", label="changes the shape"))
    if chance is not None:
        intact.append(_chance(axes, chance))
    if len(deleted) < len(intact):
        deleted.append(Line2D([], [], linestyle="none", label=" "))
    handles = deleted + intact
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"deleted {what} (index)")
    axes.set_ylabel("test error (%)")
    set_title(figure, title)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
def lesion_count_figure(
    lesions: pandas.DataFrame, title: str, *, chance: float | None = None
) -> "Figure":
    """Error against the number of units deleted, one box each: paper 2, Figure 5a.

    Boxes hold the middle half, the line is the median, whiskers reach 1.5 box heights.

    Args:
        lesions: rows of lesion_delete.csv.
        chance: the error of guessing, percent.
    """
    not_empty(lesions, "lesion_delete")
    figure = new_figure(WIDTH, HEIGHT)
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
    set_title(figure, title)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
def lesion_reorder_figure(
    lesions: pandas.DataFrame, title: str, *, chance: float | None = None, bins: int = 12
) -> "Figure":
    """Error against the Kendall tau between new and old order: paper 2, Figure 5b.

    Every sample is a point; the range of tau is cut into equal bins, and a bin of five samples or
    more has a box, as the axis says. Tau falls to the right: more disorder.

    Args:
        lesions: rows of lesion_reorder.csv.
        chance: the error of guessing, percent.
    """
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    not_empty(lesions, "lesion_reorder")
    figure = new_figure(WIDTH, HEIGHT)
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
    axes.set_xlim(min(tau.max() + margin, 1.0), tau.min() - margin)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.set_ylim(bottom=0)
    boxes = f"; boxes: tau in bins of {width:.2g}" if width > 0 else ""
    axes.set_xlabel(f"Kendall tau of new and old order{boxes}")
    axes.set_ylabel("test error (%)")
    set_title(figure, title)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
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
    not_empty(single, "lesion_delete with k = 1")
    damage = (single["test_error"] - single["baseline_error"]).groupby(single["blocks"].astype(int))
    ranked = damage.mean().sort_values(ascending=False, kind="stable")
    wide = len(ranked) > 30
    figure = new_figure(ROW_WIDTH if wide else WIDTH, HEIGHT)
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
    set_title(figure, title)
    handles = [Patch(color=PALETTE[0], label="keeps the shape")]
    if set(changes) & set(ranked.index):
        handles.append(Patch(color=PALETTE[1], label="changes the shape"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
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
    _baseline(axes, greedy)
    if chance is not None:
        _chance(axes, chance)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("units deleted")
    axes.set_ylabel("test error (%)")
    set_title(figure, title)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def lesion_additivity_figure(sets: pandas.DataFrame, title: str) -> "Figure":
    """Joint damage of a set of units against the sum of their single damages, error and loss.

    On the diagonal the units act independently; above it they are worse together.

    Args:
        sets: rows of lesion_additivity.csv.
    """
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


@styled
def lesion_classes_figure(classes: pandas.DataFrame, title: str) -> "Figure":
    """The increase of the error of each class: by unit, or by k where several were deleted.

    Args:
        classes: rows of lesion_classes.csv; of several rows the mean is drawn.
    """
    from matplotlib.ticker import MaxNLocator

    not_empty(classes, "lesion_classes")
    damage = classes["test_error"] - classes["baseline_error"]
    single = bool((classes["k"] == 1).all())
    column = classes["blocks"].astype(int) if single else classes["k"]
    grid = damage.groupby([classes["class"], column]).mean().unstack()
    names = classes.groupby("class")["class_name"].first()
    figure = new_figure(ROW_WIDTH * 0.75, 1.4 + min(0.22 * len(names), 6.0))
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
    set_title(figure, title)
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
        chance, color="black", linestyle="-.", linewidth=0.9, label=f"guessing ({chance:g} %)"
    )
