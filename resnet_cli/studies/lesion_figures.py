"""What the figures of several lesion studies share: boxes, reference lines, and medians."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resnet_cli.figures.style import DELETED, INTACT, PALETTE, integer_ticks, new_figure, styled
from resnet_cli.studies.base import Case, Tables

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def boxes(
    axes: "Axes",
    samples: Sequence[Any],
    positions: Sequence[float],
    width: float,
    *,
    outliers: bool = True,
) -> None:
    """Box plots at numeric positions; the ticks of the axis do not change."""
    if not samples:
        return
    axes.boxplot(
        samples,
        positions=positions,
        widths=width,
        manage_ticks=False,
        showfliers=outliers,
        patch_artist=True,
        boxprops={"facecolor": (0.0, 0.45, 0.7, 0.18), "edgecolor": DELETED, "linewidth": 0.9},
        medianprops={"color": "black", "linewidth": 1.6},
        whiskerprops={"color": DELETED, "linewidth": 0.9},
        capprops={"color": DELETED, "linewidth": 0.9},
        flierprops={
            "marker": "o",
            "markersize": 2.5,
            "markerfacecolor": DELETED,
            "markeredgecolor": "none",
            "alpha": 0.6,
        },
    )


def chance_line(axes: "Axes", chance: float) -> Any:
    """The error of guessing."""
    return axes.axhline(
        chance, color="black", linestyle="-.", linewidth=0.9, label=f"guessing ({chance:g} %)"
    )


def reference_lines(axes: "Axes", lesions: "pandas.DataFrame", chance: float | None) -> list[Any]:
    """The error of the intact network and, where it is known, that of guessing."""
    baseline = float(lesions["baseline_error"].mean())
    label = f"intact network ({baseline:.2f} %)"
    lines = [axes.axhline(baseline, color=INTACT, linestyle="--", linewidth=1.2, label=label)]
    if chance is not None:
        lines.append(chance_line(axes, chance))
    return lines


@styled
def medians_figure(
    networks: Mapping[str, "pandas.DataFrame"], column: str, label: str, title: str
) -> "Figure":
    """The median error of several networks by the number of units or swaps. Bands show the middle
    half of the draws, dashed lines the intact networks.

    Args:
        networks: name -> rows with `column`, `test_error` and `baseline_error`.
        label: what `column` counts.
    """
    figure = new_figure(title)
    axes = figure.subplots()
    for (name, rows), color in zip(networks.items(), itertools.cycle(PALETTE), strict=False):
        errors = rows.groupby(column)["test_error"]
        median = errors.median()
        axes.plot(median.index, median, color=color, marker="o", markersize=3, label=name)
        low, high = errors.quantile(0.25), errors.quantile(0.75)
        axes.fill_between(median.index, low, high, color=color, alpha=0.15, linewidth=0)
        axes.axhline(float(rows["baseline_error"].mean()), color=color, linestyle="--", lw=1)
    axes.set_ylim(bottom=0)
    integer_ticks(axes.xaxis)
    axes.set_xlabel(f"{label} (dashed: intact)")
    axes.set_ylabel("test error (%), median and middle half")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def tables_of(cases: Sequence[Case], stem: str) -> dict[str, "pandas.DataFrame"]:
    """A table of each case; those of several trainings of a case are concatenated."""
    import pandas

    frames: dict[str, list[pandas.DataFrame]] = {}
    for case in cases:
        frames.setdefault(case.name, []).append(case.tables[stem])
    return {name: pandas.concat(parts, ignore_index=True) for name, parts in frames.items()}


def tables_of_only_case(cases: Sequence[Case]) -> Tables | None:
    """The concatenated tables of one case's trainings; None if there are several cases."""
    if len({case.name for case in cases}) > 1:
        return None
    return {stem: next(iter(tables_of(cases, stem).values())) for stem in cases[0].tables}
