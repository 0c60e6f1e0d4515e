"""The figures of deleted units (paper 2, Figures 3, 4, 5a and 8)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resnet_cli.figures.style import (
    CHANGES_SHAPE,
    DELETED,
    GREY,
    HEIGHT,
    INTACT,
    PALETTE,
    RECALIBRATED,
    ROW_WIDTH,
    WIDTH,
    integer_ticks,
    new_figure,
    not_empty,
    styled,
)
from resnet_cli.studies.lesion_figures import boxes, chance_line, reference_lines

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@styled
def lesion_single_figure(
    networks: Mapping[str, "pandas.DataFrame"],
    title: str,
    *,
    changes: Mapping[str, Sequence[int]] | None = None,
    chance: float | None = None,
) -> "Figure":
    """Error after deleting one unit, by its index: paper 2, Figures 3, 4 and 8.

    Args:
        networks: name -> rows of lesion_delete.csv, of which those with k = 1 are drawn; the mean
            over several trainings.
        changes: name -> the units that change the shape, each marked by a vertical line.
        chance: the error of guessing, percent.

    Raises:
        UserError: a network has no row with k = 1.
    """
    from matplotlib.lines import Line2D

    figure = new_figure(title)
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
            mark = color if len(networks) > 1 else CHANGES_SHAPE
            axes.axvline(unit, color=mark, linestyle=":", linewidth=1.2, zorder=1)
        axes.plot(errors.index, errors, color=color, marker="o", markersize=3, linewidth=1.1)
        intact_color = color if len(networks) > 1 else INTACT
        axes.axhline(baseline, color=intact_color, linestyle="--", linewidth=1.0)
        # The legend has two columns: deleted on the left, intact on the right.
        label = name if len(networks) > 1 else f"one {what} deleted"
        deleted.append(Line2D([], [], color=color, marker="o", markersize=3, label=label))
        label = f"intact ({baseline:.2f} %)"
        intact.append(Line2D([], [], color=intact_color, linestyle="--", label=label))
    if any_change:
        mark = GREY if len(networks) > 1 else CHANGES_SHAPE
        deleted.append(Line2D([], [], color=mark, linestyle=":", label="changes the shape"))
    if chance is not None:
        intact.append(chance_line(axes, chance))
    if len(deleted) < len(intact):
        deleted.append(Line2D([], [], linestyle="none", label=" "))
    handles = deleted + intact
    axes.set_ylim(bottom=0)
    integer_ticks(axes.xaxis)
    axes.set_xlabel(f"deleted {what} (index)")
    axes.set_ylabel("test error (%)")
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
def lesion_count_figure(
    lesions: "pandas.DataFrame",
    title: str,
    *,
    chance: float | None = None,
    recalibrated: "pandas.DataFrame | None" = None,
) -> "Figure":
    """Error by the number of deleted units, as box plots: paper 2, Figure 5a.

    Boxes show the middle half, lines the median; whiskers extend to 1.5 box heights.

    Args:
        lesions: rows of lesion_delete.csv.
        chance: the error of guessing, percent.
        recalibrated: rows of lesion_delete_recalibrated.csv, of which the medians are drawn.
    """
    from matplotlib.lines import Line2D

    not_empty(lesions, "lesion_delete")
    figure = new_figure(title)
    axes = figure.subplots()
    counts = sorted({int(k) for k in lesions["k"]})
    samples = [lesions.loc[lesions["k"] == k, "test_error"].to_numpy() for k in counts]
    boxes(axes, samples, counts, 0.62)
    handles = reference_lines(axes, lesions, chance)
    if recalibrated is not None:
        medians = recalibrated.groupby("k")["test_error"].median()
        style: dict[str, Any] = {"color": RECALIBRATED, "marker": "o", "markersize": 3}
        axes.plot(medians.index, medians, linewidth=1.1, zorder=4, **style)
        handles.append(Line2D([], [], label="median, statistics re-estimated", **style))
    axes.set_xlim(min(counts) - 0.8, max(counts) + 0.8)
    step = math.ceil(len(counts) / 20)
    axes.set_xticks(counts[::step], [str(k) for k in counts[::step]])
    axes.grid(visible=False, axis="x")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("units deleted at random")
    axes.set_ylabel("test error (%)")
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
def lesion_ranked_figure(
    lesions: "pandas.DataFrame", title: str, *, changes: Sequence[int] = ()
) -> "Figure":
    """The increase of the error by deleted unit, worst first.

    Args:
        lesions: rows of lesion_delete.csv, of which those with k = 1 are drawn.
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
    figure = new_figure(title, ROW_WIDTH if wide else WIDTH, HEIGHT)
    axes = figure.subplots()
    colors = [CHANGES_SHAPE if unit in set(changes) else DELETED for unit in ranked.index]
    axes.bar(range(len(ranked)), ranked, color=colors, width=0.75)
    axes.set_xlim(-0.8, len(ranked) - 0.2)
    step = math.ceil(len(ranked) / 80)
    axes.set_xticks(
        range(0, len(ranked), step), [str(u) for u in ranked.index[::step]], fontsize=6.5
    )
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("deleted unit or layer (index), worst first")
    axes.set_ylabel("increase of the test error (points)")
    handles = [Patch(color=DELETED, label="keeps the shape")]
    if set(changes) & set(ranked.index):
        handles.append(Patch(color=CHANGES_SHAPE, label="changes the shape"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@styled
def lesion_classes_figure(classes: "pandas.DataFrame", title: str) -> "Figure":
    """The increase of the error of each class, by deleted unit, or by k if several were deleted.

    Args:
        classes: rows of lesion_classes.csv; the mean over deletions is drawn.
    """
    import numpy
    from matplotlib.ticker import MaxNLocator

    not_empty(classes, "lesion_classes")
    damage = classes["test_error"] - classes["baseline_error"]
    single = bool((classes["k"] == 1).all())
    column = classes["blocks"].astype(int) if single else classes["k"]
    grid = damage.groupby([classes["class"], column]).mean().unstack()
    names = classes.groupby("class")["class_name"].first()
    figure = new_figure(title, ROW_WIDTH * 0.75, 1.4 + min(0.22 * len(names), 6.0))
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
    return figure
