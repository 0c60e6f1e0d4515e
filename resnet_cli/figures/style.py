"""What all figures share: colours, sizes, titles, axes, and how one is written."""

import functools
import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 150
WIDTH, HEIGHT = 4.8, 3.4
"""Inches of one plot, made for a column of half a page."""
TITLE_CHARACTERS_PER_INCH = 12
ROW_WIDTH = 9.6
"""Inches of a row of three."""
MAX_IN_ONE = 4
"""Cases drawn in one axes; more get a panel each, against the first."""
MAX_PANELS = 30
"""Cases that get a panel each; more are drawn as one bundle of curves."""
ALL = 400
"""Decades: more than float64 has."""
DECADES = 12
"""A logarithmic axis shows so many at most, down from its largest value; Figure 6b all."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart with any colour vision."""
GREY = "#555555"
SAMPLED, EXACT, PATHS = PALETTE[0], PALETTE[1], PALETTE[4]
"""The gradient by path length, sampled and exact, and the number of paths."""
DELETED, INTACT, RECALIBRATED = PALETTE[0], PALETTE[2], PALETTE[1]
"""The error with units deleted, of the intact network, and with re-estimated statistics."""
CHANGES_SHAPE = PALETTE[3]
"""Units that change the shape."""
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
    "svg.hashsalt": "resnet-cli",  # names inside of the file, random otherwise
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names and titles are text, dollar signs included
}

FigureKind = Literal["png", "svg"]
P = ParamSpec("P")
R = TypeVar("R")


def styled(build: Callable[P, R]) -> Callable[P, R]:
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


def published_label(text: str, checked: str) -> str:
    """The legend of a paper's number; one not checked against the paper is "approximate"."""
    label = "published" if checked == "v" else "published, approximate"
    return f"{label}: {text}" if text else label


def new_figure(title: str, width: float = WIDTH, height: float = HEIGHT) -> "Figure":
    """A figure of its own, unknown to pyplot. width, height: inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(_broken(title, width), fontsize=STYLE["axes.titlesize"])
    return figure


def _broken(title: str, width: float) -> str:
    """A title in lines that fit a width in inches: broken before its parenthesis and after its
    colon, if it can be, else between words."""
    characters = int(width * TITLE_CHARACTERS_PER_INCH)
    lines = [""]
    for part in re.split(r"(?<=:) | (?=\()", title):
        if lines[-1] and len(f"{lines[-1]} {part}") > characters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {part}".strip()
    return "\n".join(textwrap.fill(line, characters, break_on_hyphens=False) for line in lines)


def integer_ticks(axis: "Axis", intervals: int = 10) -> None:
    """Ticks at whole numbers, with at most so many intervals between them."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(intervals, integer=True))


def thousands(axes: "Axes") -> None:
    """`32k` for 32000 on the x axis, where the numbers are that large."""
    from matplotlib.ticker import FuncFormatter

    integer_ticks(axes.xaxis, 5)
    if axes.get_xlim()[1] >= 5000:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x else "0"))


def log_axis(
    axes: "Axes", values: Any, decades: int = DECADES, margins: tuple[float, float] = (2.0, 3.0)
) -> None:
    """A logarithmic y axis over the positive values, of at most so many decades.

    Below the lowest and above the highest are `margins`, as factors. Where it spans
    less than two decades, its ticks are plain numbers at 1, 2 and 5; else powers of ten.
    """
    import numpy
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = numpy.asarray(values, dtype=float)
    positive = values[numpy.isfinite(values) & (values > 0)]
    axes.set_yscale("log")
    high = float(positive.max())
    low = max(float(positive.min()), high * 10.0**-decades)
    axes.set_ylim(low / margins[0], high * margins[1])
    axes.yaxis.set_minor_formatter(NullFormatter())
    if high < 100 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _power_of_ten(y)))


def _power_of_ten(value: float) -> str:
    """`10⁻³` for 0.001."""
    exponent = str(round(math.log10(value))) if value > 0 else ""
    superscript = exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{superscript}" if exponent else ""


def largest_calm(maxima: Sequence[float], factor: float) -> float:
    """The largest of some curves' maxima, those aside that exploded: that are more than `factor`
    times the middle one, or not finite. An axis up to it shows the others."""
    finite = sorted(value for value in maxima if math.isfinite(value))
    if not finite:
        return math.nan
    return max(value for value in finite if value <= factor * finite[(len(finite) - 1) // 2])


@styled
def save(figure: "Figure", path: Path) -> Path:
    """Write a PNG or an SVG, by the name of the file; equal figures give equal bytes (no date, no
    version of the writer). A PNG has at most 256 colours, and a third of the size that it would
    have with all."""
    from PIL import Image

    from resnet_cli.results.tables import atomic_write

    drawn, buffer = io.BytesIO(), io.BytesIO()
    if path.suffix == ".svg":
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        atomic_write(path, buffer.getvalue())
        return path
    figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(buffer, format="png", optimize=True, dpi=(DPI, DPI))
    atomic_write(path, buffer.getvalue())
    return path


def not_empty(rows: "pandas.DataFrame", what: str) -> None:
    """Raises UserError for a table without rows."""
    if rows.empty:
        raise UserError(f"nothing to draw: {what} has no rows")
