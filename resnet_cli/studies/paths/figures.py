"""The figures of path lengths and of the gradient by path length (paper 2, Figure 6)."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from resnet_cli.figures.style import (
    ALL,
    EXACT,
    GREY,
    HEIGHT,
    PALETTE,
    PATHS,
    ROW_WIDTH,
    SAMPLED,
    WIDTH,
    integer_ticks,
    log_axis,
    new_figure,
    not_empty,
    published_label,
    styled,
)
from resnet_cli.studies.intervals import shortest_interval

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def paths_figure(
    lengths: "pandas.DataFrame",
    gradients: "pandas.DataFrame",
    title: str,
    *,
    spectrum: "pandas.DataFrame | None" = None,
) -> "Figure":
    """Path lengths, gradient by length, and their product: paper 2, Figures 6a-c.

    In (b) the line is the median, and bands show 50 and 90 % of the samples. In (c) each curve is
    normalised by its sum, and the band is one standard error of the mean norm of each length. The
    interval published for 54 units is drawn for 54 units only.

    Args:
        lengths: rows of path_lengths.csv.
        gradients: rows of path_gradients.csv.
        spectrum: rows of path_spectrum.csv, of which the exact column is drawn in (c).
    """
    import numpy
    from matplotlib.ticker import MaxNLocator

    not_empty(lengths, "path_lengths")
    not_empty(gradients, "path_gradients")
    figure = new_figure(title, ROW_WIDTH, 3.3)
    first, second, third = figure.subplots(1, 3, sharex=True)

    first.fill_between(
        lengths["k"], 100 * lengths["fraction"], color=PATHS, alpha=0.25, linewidth=0
    )
    first.plot(lengths["k"], 100 * lengths["fraction"], color=PATHS)
    first.set_ylim(bottom=0)
    first.set_ylabel("paths of this length (% of all)")
    first.set_title("(a) number of paths")

    by_length = gradients[gradients["grad_norm"] > 0].groupby("k")["grad_norm"]
    if len(by_length):
        quantiles = by_length.quantile(numpy.array([0.05, 0.25, 0.5, 0.75, 0.95])).unstack()
        k = quantiles.index.to_numpy()
        for low, high, alpha in ((0.05, 0.95, 0.15), (0.25, 0.75, 0.3)):
            second.fill_between(
                k,
                quantiles[low],
                quantiles[high],
                color=SAMPLED,
                alpha=alpha,
                linewidth=0,
                label=f"{100 * (high - low):.0f} % of samples",
            )
        marker = "o" if len(k) < 15 else None
        second.plot(k, quantiles[0.5], color=SAMPLED, marker=marker, markersize=3, label="median")
        log_axis(second, quantiles.to_numpy(), decades=ALL)
        medians = quantiles[0.5].to_numpy()
        second.legend(loc="upper left" if medians[-1] > medians[0] else "upper right")
    second.set_ylabel("gradient norm at the input")
    second.set_title("(b) gradient of one path")

    product = _product(lengths, gradients) if spectrum is None else spectrum
    samples = gradients.groupby("k").size()
    sampled = product[product["share_total"].notna()]
    k, shares = sampled["k"].to_numpy(), 100 * sampled["share_total"].to_numpy(dtype=float)
    label = f"sampled: (a) × (b), {_range(samples)} paths per length"
    third.plot(k, shares, color=SAMPLED, label=label)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        relative = sampled["std_norm"].to_numpy(dtype=float) / sampled["mean_norm"].to_numpy(float)
    error = shares * relative / numpy.sqrt(samples.reindex(k).to_numpy(dtype=float))
    if numpy.isfinite(error).any():
        third.fill_between(
            k,
            numpy.maximum(shares - error, 0),
            shares + error,
            color=SAMPLED,
            alpha=0.22,
            linewidth=0,
            label="± standard error",
        )
    if "share_exact" in product and product["share_exact"].notna().any():
        exact = product[["k", "share_exact"]].dropna()
        third.plot(
            exact["k"],
            100 * exact["share_exact"],
            color=EXACT,
            linestyle="-.",
            label="exact: paths may cancel",
        )
    _published_interval(third, units=int(lengths["k"].max()))
    third.set_ylabel("share of the total (%)")
    third.set_title("(c) gradient by path length")
    third.set_ylim(0, min(third.get_ylim()[1], 102.0))
    third.yaxis.set_major_locator(MaxNLocator(6))
    handles, labels = third.get_legend_handles_labels()
    figure.legend(handles, [f"(c) {labels[0]}", *labels[1:]], loc="outside lower right", ncols=4)
    for axes in (first, second, third):
        axes.set_xlabel("path length k (residual branches)")
        integer_ticks(axes.xaxis, 6)
    return figure


@styled
def spectrum_figure(spectrum: "pandas.DataFrame", title: str) -> "Figure":
    """Sampled total and exact norm by path length, log scale, with shaded 90 % intervals.

    An interval is the shortest range of lengths that holds 90 % of the curve's sum.

    Args:
        spectrum: rows of path_spectrum.csv.
    """
    not_empty(spectrum, "path_spectrum")
    figure = new_figure(title)
    axes = figure.subplots()
    curves = [
        ("total", SAMPLED, "-", "sampled: paths × mean norm"),
        ("exact_norm", EXACT, "-.", "exact: norm of their sum"),
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
        log_axis(axes, spectrum[["total", "exact_norm"]].to_numpy(dtype=float))
        bottom = axes.get_ylim()[0]
        for inside, column, color in drawn:
            axes.fill_between(
                inside["k"], bottom, inside[column], color=color, alpha=0.18, linewidth=0
            )
    integer_ticks(axes.xaxis, 8)
    axes.set_xlabel("path length k (residual branches)")
    axes.set_ylabel("gradient norm at the input")
    if drawn:
        figure.legend(loc="outside lower center", ncols=1)
    return figure


@styled
def cumulative_figure(cumulative: "pandas.DataFrame", title: str) -> "Figure":
    """Cosine with the ordinary gradient, and relative norm, of the summed gradient of all paths up
    to each length.

    Args:
        cumulative: rows of path_cumulative.csv.
    """
    not_empty(cumulative, "path_cumulative")
    figure = new_figure(title)
    axes = figure.subplots()
    k = cumulative["k"]
    axes.plot(k, cumulative["cosine"], color=PALETTE[0], label="cosine with the ordinary gradient")
    axes.set_ylabel("cosine")
    axes.set_ylim(min(0.0, float(cumulative["cosine"].min())) - 0.05, 1.05)
    norms = axes.twinx()
    norms.plot(k, cumulative["relative_norm"], "-.", color=PALETTE[1], label="relative norm")
    norms.set_ylabel("relative norm")
    norms.set_ylim(bottom=0)
    norms.grid(visible=False)
    norms.spines["right"].set_visible(True)
    axes.set_xlabel("largest path length k (residual branches)")
    integer_ticks(axes.xaxis, 8)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def exact_figure(spectra: "pandas.DataFrame", key: str, title: str) -> "Figure":
    """Exact spectra by path length, one curve for each stage or unit, normalised by its sum.

    Args:
        spectra: rows of path_spectrum_stages.csv or path_spectrum_unit.csv.
        key: `stage` or `unit`.
    """
    not_empty(spectra, f"path_spectrum_{'stages' if key == 'stage' else key}")
    figure = new_figure(title)
    axes = figure.subplots()
    for number, (value, rows) in enumerate(spectra.groupby(key)):
        weights = list(rows["exact_norm"])
        name = f"{key} {value}"
        if any(weight > 0 for weight in weights):
            first, last = shortest_interval(list(rows["k"]), weights, 0.9)
            name += f"; 90 % in {first}–{last}"
        color = PALETTE[number % len(PALETTE)]
        axes.plot(
            rows["k"],
            100 * rows["share_exact"],
            color=color,
            marker="o",
            markersize=4,
            label=name,
        )
    integer_ticks(axes.xaxis, 8)
    axes.set_xlabel(f"path length k (residual branches{' in the stage' if key == 'stage' else ''})")
    axes.set_ylabel("share of the exact norms (%)")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _range(counts: "pandas.Series[int]") -> str:
    """`20`, or `10 to 20` where they differ."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _product(lengths: "pandas.DataFrame", gradients: "pandas.DataFrame") -> "pandas.DataFrame":
    """k, mean_norm, std_norm, and share_total: (fraction of paths) x (mean gradient norm) at each
    length, normalised by the sum."""
    import pandas

    norms = gradients.groupby("k")["grad_norm"]
    found = pandas.DataFrame({"mean_norm": norms.mean(), "std_norm": norms.std()})
    product = lengths.set_index("k")["fraction"] * found["mean_norm"]
    return found.assign(share_total=product / product.sum()).reset_index()


def _published_interval(axes: "Axes", units: int) -> None:
    """Paper 2's interval of path lengths, if the network has as many units as the paper's."""
    from resnet_cli.claims.papers import published

    numbers = published("veit2016")
    if units != int(numbers.loc[numbers["quantity"] == "units", "value"].iloc[0]):
        return
    rows = numbers[
        (numbers["figure"] == "fig6c")
        & numbers["quantity"].isin(["effective_from", "effective_to"])
    ]
    first, last = sorted(float(value) for value in rows["value"])
    checked = "v" if (rows["checked"] == "v").all() else "m"
    label = published_label(f"{first:.0f} to {last:.0f}, CIFAR-10", checked)
    axes.axvspan(first, last, color="#e3e3e3", zorder=0, label=label)


@styled
def spectra_figure(spectra: Mapping[str, "pandas.DataFrame"], title: str) -> "Figure":
    """Several networks: the mean gradient norm of a path by its length, and, where every length was
    measured, the share of each length, sampled (solid) and exact.

    Args:
        spectra: name -> rows of path_spectrum.csv.
    """
    import numpy
    from matplotlib.lines import Line2D

    columns = {"share_total": "-", "share_exact": "-."}
    any_share = any(rows[list(columns)].notna().any(axis=None) for rows in spectra.values())
    figure = new_figure(title, ROW_WIDTH if any_share else WIDTH, HEIGHT)
    panels = figure.subplots(1, 2 if any_share else 1, sharex=True, squeeze=False)[0]
    of_path, shares = panels[0], panels[-1]
    handles = []
    for (name, rows), color in zip(spectra.items(), itertools.cycle(PALETTE), strict=False):
        positive = rows[rows["mean_norm"] > 0]
        of_path.plot(positive["k"], positive["mean_norm"], color=color)
        for column, linestyle in columns.items() if any_share else ():
            shares.plot(rows["k"], 100 * rows[column], color=color, linestyle=linestyle)
        handles.append(Line2D([], [], color=color, label=name))
    norms = numpy.concatenate([rows["mean_norm"].to_numpy(float) for rows in spectra.values()])
    if (norms > 0).any():
        log_axis(of_path, norms, decades=ALL)
    of_path.set_ylabel("mean gradient norm of one path")
    for axes in panels:
        axes.set_xlabel("path length k (residual branches)")
        integer_ticks(axes.xaxis, 8)
    if any_share:
        shares.set_ylabel("share of the gradient (%)")
        shares.set_ylim(bottom=0)
        handles.append(Line2D([], [], color=GREY, label="sampled"))
        handles.append(Line2D([], [], color=GREY, linestyle="-.", label="exact"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
