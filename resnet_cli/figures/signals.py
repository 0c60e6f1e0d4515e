"""Signals by unit (paper 1, section 2)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas

from resnet_cli.figures.style import (
    GREY,
    PALETTE,
    ROW_WIDTH,
    largest_calm,
    log_axis,
    new_figure,
    not_empty,
    set_title,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


EXPLODED = 1e6
"""A curve whose maximum is so many times the middle one's does not stretch the axis."""
STATES = {"initial": "at initialisation", "trained": "trained"}
"""Of a network whose signals are measured, in signal.csv and in words."""


@styled
def signal_figure(tables: Mapping[str, pandas.DataFrame], title: str) -> "Figure":
    """Activation norm, gradient norm and what the shortcuts alone do, by unit, log scales.

    Of one network both states are drawn in one row of panels; of several, a row for each state
    and a colour for each network. The product of the lambdas (equation 8) is drawn dotted. A
    network whose signals exploded is cut off, and its label says so.

    Args:
        tables: name -> rows of signal.csv.
    """
    from matplotlib.ticker import MaxNLocator

    for frame in tables.values():
        not_empty(frame, "signal")
    states = [s for s in STATES if any((frame["state"] == s).any() for frame in tables.values())]
    alone = len(tables) == 1
    rows = [states] if alone else [[state] for state in states]
    panels = {
        "activation_norm": "activation norm",
        "gradient_norm": "gradient norm",
        "shortcut_gain": "gradient by the shortcuts\nalone, from the last unit's output",
    }
    count = len(states) if alone else len(tables)
    figure = new_figure(ROW_WIDTH, 2.6 * len(rows) + 0.3 + 0.22 * math.ceil(count / 4))
    grid = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True)
    handles: dict[str, Any] = {}
    off_scale: dict[str, str] = {}
    for shown, line in zip(rows, grid, strict=True):
        for (column, label), axes in zip(panels.items(), line, strict=True):
            drawn: dict[str, pandas.Series[float]] = {}
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
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for axes in grid[-1]:
        axes.set_xlabel("unit")
    dotted = grid[0][-1].plot([], [], ":", color=GREY, lw=1)[0]
    handles["product of the lambdas or mean gates, equation (8)"] = dotted
    set_title(figure, title)
    labels = [
        f"{key} ({off_scale[key]}: off the scale)" if key in off_scale else key for key in handles
    ]
    figure.legend(
        list(handles.values()), labels, loc="outside lower center", ncols=min(4, count + 1)
    )
    return figure
