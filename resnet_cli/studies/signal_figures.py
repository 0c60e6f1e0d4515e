"""The figures of signals by unit (paper 1, section 2)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resnet_cli.figures.style import (
    GREY,
    MAX_IN_ONE,
    PALETTE,
    ROW_WIDTH,
    integer_ticks,
    largest_calm,
    log_axis,
    new_figure,
    not_empty,
    styled,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

EXPLODED = 1e6
"""A curve whose maximum exceeds the median one by this factor does not extend the axis."""
STATES = {"initial": "at initialisation", "trained": "trained"}
"""State in signal.csv -> label."""
PANELS = {
    "activation_norm": "activation norm",
    "gradient_norm": "gradient norm",
    "shortcut_gain": "gradient through shortcuts only, from the last unit's output",
}
"""Column of signal.csv -> label of its panel."""


@styled
def signal_figure(tables: Mapping[str, "pandas.DataFrame"], title: str) -> "Figure":
    """Activation norm, gradient norm and gain of the shortcuts by unit, log scales.

    One network: both states in one row of panels. Up to four: a row for each state and a colour for
    each network. More: a panel for each network and a colour for each quantity. The product of the
    lambdas (equation 8) is dotted. Networks whose signals exploded are off the scale, as their
    labels say.

    Args:
        tables: name -> rows of signal.csv.
    """
    import pandas

    for frame in tables.values():
        not_empty(frame, "signal")
    if len(tables) > MAX_IN_ONE:
        return _small_multiples(tables, title)
    states = [s for s in STATES if any((frame["state"] == s).any() for frame in tables.values())]
    alone = len(tables) == 1
    rows = [states] if alone else [[state] for state in states]
    panels = {key: label.replace("shortcuts ", "shortcuts\n") for key, label in PANELS.items()}
    count = len(states) if alone else len(tables)
    figure = new_figure(title, ROW_WIDTH, 2.6 * len(rows) + 0.3 + 0.22 * math.ceil(count / 4))
    grid = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True)
    handles: dict[str, Any] = {}
    off_scale: dict[str, str] = {}
    for shown, line in zip(rows, grid, strict=True):
        for (column, label), axes in zip(panels.items(), line, strict=True):
            drawn: dict[str, pandas.Series[float]] = {}
            for position, (name, frame) in enumerate(tables.items()):
                for state in shown:
                    key = STATES[state] if alone else name
                    index = list(states).index(state) if alone else position
                    color = PALETTE[index % len(PALETTE)]
                    dashes = ("-", "--", "-.")[index // len(PALETTE) % 3]
                    part = frame[(frame["state"] == state) & (frame[column] > 0)]
                    if part.empty:
                        continue
                    (handles[key],) = axes.plot(part["unit"], part[column], dashes, color=color)
                    drawn[key] = part[column]
                    if column == "shortcut_gain":
                        axes.plot(part["unit"], part["shortcut_product"], ":", color=color, lw=1)
            if drawn:
                maxima = {key: float(values.max()) for key, values in drawn.items()}
                top = largest_calm(list(maxima.values()), math.inf if alone else EXPLODED)
                calm = [key for key in drawn if not maxima[key] > top]
                off_scale |= {key: STATES[shown[0]] for key in drawn if key not in calm}
                log_axis(axes, pandas.concat([drawn[key] for key in calm]).to_numpy(), 24)
            axes.set_ylabel(label if alone else f"{label}\n({STATES[shown[0]]})", fontsize=8)
            integer_ticks(axes.xaxis, 6)
    for axes in grid[-1]:
        axes.set_xlabel("unit")
    dotted = grid[0][-1].plot([], [], ":", color=GREY, lw=1)[0]
    handles["product of the lambdas or mean gates, equation (8)"] = dotted
    labels = [
        f"{key} ({off_scale[key]}: off the scale)" if key in off_scale else key for key in handles
    ]
    figure.legend(
        list(handles.values()), labels, loc="outside lower center", ncols=min(4, count + 1)
    )
    return figure


def _small_multiples(tables: Mapping[str, "pandas.DataFrame"], title: str) -> "Figure":
    """A panel for each network, with a colour for each quantity and common axes."""
    from matplotlib.lines import Line2D

    columns = 4
    rows = math.ceil(len(tables) / columns)
    figure = new_figure(title, ROW_WIDTH, 1.9 * rows + 0.8)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    maxima = {name: float(frame[list(PANELS)].max().max()) for name, frame in tables.items()}
    top = largest_calm(list(maxima.values()), EXPLODED)
    styles: dict[str, Any] = {"initial": ":", "trained": "-"}
    for axes, (name, frame) in zip(grid, tables.items(), strict=False):
        for column, color in zip(PANELS, PALETTE, strict=False):
            for state, linestyle in styles.items():
                part = frame[(frame["state"] == state) & (frame[column] > 0)]
                axes.plot(part["unit"], part[column], linestyle, color=color, lw=1.2)
        off = " (off the scale)" if maxima[name] > top else ""
        axes.set_title(f"{name}{off}", fontsize=8)
    calm = [frame[list(PANELS)] for name, frame in tables.items() if maxima[name] <= top]
    log_axis(grid[0], [value for frame in calm for value in frame.to_numpy().flatten()], 24)
    integer_ticks(grid[0].xaxis, 6)
    for position, axes in enumerate(grid):
        axes.set_visible(position < len(tables))
        if position + columns >= len(tables):
            axes.set_xlabel("unit")
            axes.tick_params(labelbottom=True)
    handles = [
        Line2D([], [], color=color, label=label)
        for label, color in zip(PANELS.values(), PALETTE, strict=False)
    ]
    handles += [
        Line2D([], [], color=GREY, linestyle=linestyle, label=STATES[state])
        for state, linestyle in styles.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
