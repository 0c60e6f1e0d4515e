"""Colours, sizes, titles and axes of all figures, and writing them to files."""

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
"""Size of a single plot in inches, for a column of half a page."""
TITLE_CHARACTERS_PER_INCH = 12
ROW_WIDTH = 9.6
"""Width in inches of a row of three plots."""
MAX_IN_ONE = 4
"""Maximum number of cases in one axes; if there are more, each gets a panel."""
MAX_PANELS = 30
"""Maximum number of panels; more cases are drawn as one bundle of curves."""
ALL = 400
"""More decades than float64 has."""
DECADES = 12
"""Maximum number of decades on a logarithmic axis; Figure 6b shows all."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which can be distinguished with any colour vision."""
GREY = "#555555"
SAMPLED, EXACT, PATHS = PALETTE[0], PALETTE[1], PALETTE[4]
"""For the sampled and the exact gradient by path length, and the number of paths."""
DELETED, INTACT, RECALIBRATED = PALETTE[0], PALETTE[2], PALETTE[1]
"""For the errors with units deleted, of the intact network, and with re-estimated statistics."""
CHANGES_SHAPE = PALETTE[3]
"""For units that change the shape."""
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
    "svg.hashsalt": "resnet-cli",  # identifiers in the file, otherwise random
    "svg.fonttype": "none",  # keep text as text
    "text.parse_math": False,  # a dollar sign in a name is not mathematics
}

FigureKind = Literal["png", "svg"]
P = ParamSpec("P")
R = TypeVar("R")


def styled(build: Callable[P, R]) -> Callable[P, R]:
    """Make a function draw with STYLE, ignoring the user's matplotlibrc; restore it afterwards."""

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
    """The legend of published numbers: "approximate" unless checked against the paper."""
    label = "published" if checked == "v" else "published, approximate"
    return f"{label}: {text}" if text else label


def new_figure(title: str, width: float = WIDTH, height: float = HEIGHT) -> "Figure":
    """A figure that pyplot does not manage; width and height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(_wrapped(title, width), fontsize=STYLE["axes.titlesize"])
    return figure


def _wrapped(title: str, width: float) -> str:
    """A title wrapped to a width in inches: before its parenthesis and after its colon if
    possible, otherwise into lines of about the same length between words, but not between
    "profile" and its name."""
    characters = int(width * TITLE_CHARACTERS_PER_INCH)
    lines = [""]
    for part in re.split(r"(?<=:) | (?=\()", title):
        if lines[-1] and len(f"{lines[-1]} {part}") > characters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {part}".strip()
    kept = (line.replace("profile ", "profile\N{NO-BREAK SPACE}") for line in lines)
    filled = (line for part in kept for line in _even_lines(part, characters))
    return "\n".join(filled).replace("\N{NO-BREAK SPACE}", " ")


def _even_lines(text: str, characters: int) -> list[str]:
    """A text in as few lines as possible, with the longest line as short as possible."""
    lines = textwrap.wrap(text, characters, break_on_hyphens=False)
    for narrower in range(characters - 1, 0, -1):
        shorter = textwrap.wrap(text, narrower, break_on_hyphens=False, break_long_words=False)
        if len(shorter) > len(lines) or max(map(len, shorter), default=0) > narrower:
            break
        lines = shorter
    return lines


def integer_ticks(axis: "Axis", intervals: int = 10) -> None:
    """Ticks at integers, with at most the given number of intervals."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(intervals, integer=True))


def thousands(axes: "Axes") -> None:
    """Label the x axis with `32k` for 32000 if it reaches 5000."""
    from matplotlib.ticker import FuncFormatter

    integer_ticks(axes.xaxis, 5)
    if axes.get_xlim()[1] >= 5000:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x else "0"))


def log_axis(
    axes: "Axes", values: Any, decades: int = DECADES, margins: tuple[float, float] = (2.0, 3.0)
) -> None:
    """A logarithmic y axis over the positive values.

    Ticks are plain numbers at 1, 2 and 5 if it spans less than two decades, otherwise powers of
    ten.

    Args:
        decades: maximum range below the largest value.
        margins: factors below the lowest and above the highest value.
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
    """The largest of several curves' maxima, ignoring those that exploded: not finite, or more
    than `factor` times the median."""
    finite = sorted(value for value in maxima if math.isfinite(value))
    if not finite:
        return math.nan
    return max(value for value in finite if value <= factor * finite[(len(finite) - 1) // 2])


@styled
def save(figure: "Figure", path: Path) -> Path:
    """Write a PNG or an SVG, depending on the file's suffix.

    Equal figures produce equal bytes: no date and no version of matplotlib is written. A PNG is
    reduced to 256 colours, which makes it three times smaller.
    """
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
    """Raise UserError if a table has no rows."""
    if rows.empty:
        raise UserError(f"nothing to draw: {what} has no rows")
