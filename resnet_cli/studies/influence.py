"""Block influence and angular distance compared with the damage of a deletion: does a score that
takes one forward pass predict the damage?

The block influence of unit l is 1 - E[cos(x_l, x_{l+1})], one minus the mean over images and
positions of the cosine between its input and its output (ShortGPT, Men et al. 2024,
arXiv:2403.03853). The angular distance of n consecutive units is E[arccos(cos(x_l, x_{l+n}))] / pi,
between the input of unit l and the output of unit l+n-1 (Gromov et al. 2024, arXiv:2403.17887).

Both papers compare hidden states of tokens. Here a vector holds the channels at one position: a
token of [N, T, D], a pixel of [N, C, H, W], or all of [N, D]. Gromov et al. use the last token of a
text; here the mean is over all positions. Positions where a vector is zero are left out.

Where the shape changes, x_l and x_{l+n} cannot be compared directly. So x_l is first passed through
the shortcuts of these units, as when they are deleted. If h is the identity, without an activation
before both branches, this does not change x_l.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from resnet_cli.config.fields import PositiveRange
from resnet_cli.figures.style import GREY, HEIGHT, ROW_WIDTH, new_figure, not_empty, styled
from resnet_cli.results.columns import Table, number, whole
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import (
    Measured,
    NamedFigure,
    OnTestImages,
    Option,
    Summary,
    Tables,
    known,
)
from resnet_cli.studies.intervals import RankCorrelation, rank_correlation
from resnet_cli.studies.lesion import ERRORS, PREDICTIONS, Deletion, measured_columns, outcomes_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from torch import Tensor

    from resnet_cli.datasets.batches import Batches
    from resnet_cli.figures.titles import Heading
    from resnet_cli.models.network import Network
    from resnet_cli.studies.progress import Progress, Report
    from resnet_cli.studies.subject import Subject

SCORES = {"block_influence": "block influence", "angular_distance": "angular distance"}
"""Column -> name of the score."""


class BlockInfluence(OnTestImages):
    """Block influence and angular distance compared with the damage of deleting the units
    (arXiv:2403.03853, arXiv:2403.17887)."""

    kind: Literal["influence"] = "influence"
    lengths: Annotated[
        PositiveRange,
        Option(
            "--influence",
            "Delete each run of N consecutive units, and measure its block influence and angular "
            "distance; 1: single units.",
            metavar="N|N1-N2",
            selects=True,
        ),
    ] = (1,)
    """Numbers of consecutive units."""

    command = "lesion"
    shared_options = ("images", "engine")
    title = "Damage of a deletion by block influence and angular distance"
    pictures: ClassVar = {
        "influence": "error increase of deleting units by their block influence and their angular "
        "distance",
    }
    tables = (
        Table(
            "influence",
            "run of consecutive units",
            (
                whole("n", "number of consecutive units, deleted together"),
                whole("unit", "the first of these units"),
                number(
                    "block_influence",
                    "1 - mean cosine, over images and positions, between the first unit's input "
                    "and the last one's output (arXiv:2403.03853)",
                    empty=True,
                ),
                number(
                    "angular_distance",
                    "mean angle between the same vectors, as a share of 180 degrees "
                    "(arXiv:2403.17887)",
                    empty=True,
                ),
                *ERRORS,
                *PREDICTIONS,
            ),
            note="The input is first passed through the shortcuts of the units, so that the shapes "
            "agree. A score is empty where\nevery activation is zero.",
        ),
    )

    def check(self, subject: "Subject") -> None:
        if not 1 <= min(self.lengths) <= max(self.lengths) <= subject.num_units:
            raise UserError(
                f"runs of {min(self.lengths)} to {max(self.lengths)} units; this network has "
                f"{subject.num_units}, so 1 to {subject.num_units} can be deleted"
            )

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        network, batches = subject.network, subject.batches("test")
        with progress.of(f"scores of {subject.label}") as report:
            scores = influence(network, batches, self.lengths, report)
        runs = [Deletion(unit, tuple(range(unit, unit + n))) for n, unit in scores]
        intact, *deleted = outcomes_of(subject, runs, progress, "deleting units")
        rows = [
            {
                "n": n,
                "unit": unit,
                "block_influence": known(score),
                "angular_distance": known(angle),
            }
            | measured_columns(outcome, intact, seed)
            for ((n, unit), (score, angle)), outcome in zip(scores.items(), deleted, strict=True)
        ]
        yield "influence", rows, ("test",)

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        title = f"Damage of deleting {heading.unit}s by scores of one forward pass"
        yield NamedFigure(
            "influence", lambda: influence_figure(tables["influence"], heading.over(title))
        )

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = with_damage(tables["influence"])
        facts: dict[str, Any] = {"baseline_error": float(frame["baseline_error"].iloc[0])}
        sentences = []
        for n, rows in frame.groupby("n"):
            found = correlations(rows)
            facts[f"rank_correlation_n{n}"] = {
                name: None if r is None else vars(r) for name, r in found.items()
            }
            words = [
                f"{SCORES[name]} {'does not vary' if r is None else r}"
                for name, r in found.items()
                if name in SCORES
            ]
            sentences.append(
                f"rank correlation with the error increase of deleting {_units(int(str(n)))}: "
                f"{'; '.join(words)}"
            )
        first = correlations(frame[frame["n"] == frame["n"].min()])["block_influence"]
        sentences.append(f"the block influence {prediction(first)} the damage of a deletion")
        places = subject.network.places
        shown = ["block_influence", "angular_distance", "error_rise", "loss"]
        return Summary(
            facts,
            f"{subject.label}: {frame['images'].iloc[0]:,} images",
            ["units", "stage", "block influence", "angular distance", "error rise", "loss"],
            [
                [_run(n, unit), places[unit].stage, *values]
                for n, unit, *values in frame[["n", "unit", *shown]].itertuples(index=False)
            ],
            sentences,
        )


def _units(n: int) -> str:
    return "one unit" if n == 1 else f"{n} consecutive units"


def _run(n: int, unit: int) -> str:
    return str(unit) if n == 1 else f"{unit}-{unit + n - 1}"


def influence(
    network: "Network",
    batches: "Batches",
    lengths: Sequence[int],
    report: "Report" = lambda done, total: None,
) -> dict[tuple[int, int], tuple[float, float]]:
    """(n, first unit) -> (block influence, angular distance), for each run of n units.

    Args:
        lengths: the values of n.
    """
    import torch

    from resnet_cli.studies.image_sums import finite_sum, means, sum_over_images
    from resnet_cli.studies.progress import check_of

    units = network.unit_list
    check = check_of(report)
    runs = [(n, unit) for n in lengths for unit in range(len(units) - n + 1)]

    @torch.no_grad()
    def compared(images: "Tensor", _: "Tensor") -> "Tensor":
        trail = [network.stem(images)]
        for unit in units:
            trail.append(unit(trail[-1]))
        found = {}
        for first, x in enumerate(trail[:-1]):
            for last in range(first, min(first + max(lengths), len(units))):
                check()
                x = units[last].skip(x)
                if last - first + 1 in lengths:
                    cosine = position_cosines(x, trail[last + 1])
                    angle = cosine.arccos() / math.pi
                    sums = [finite_sum(1 - cosine), finite_sum(angle)]
                    found[last - first + 1, first] = torch.stack(sums)
        return torch.stack([found[run] for run in runs])

    scores = means(sum_over_images(network, batches, compared, report)).tolist()
    return dict(zip(runs, map(tuple, scores), strict=True))


def position_cosines(x: "Tensor", y: "Tensor") -> "Tensor":
    """The cosine of the channels of x and y at each position, float64; NaN where a vector is zero.

    Args:
        x, y: of one shape: [N, C, H, W], or channels last, such as tokens [N, T, D].
    """
    channels = 1 if x.ndim == 4 else -1
    x, y = x.double(), y.double()
    norms = x.norm(dim=channels) * y.norm(dim=channels)
    cosines: Tensor = ((x * y).sum(channels) / norms).clamp(-1, 1)
    return cosines


def with_damage(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """Rows of influence.csv with `error_rise`, percentage points."""
    return frame.assign(error_rise=frame["test_error"] - frame["baseline_error"])


def correlations(frame: "pandas.DataFrame") -> dict[str, RankCorrelation | None]:
    """Spearman's rank correlation of each score with the increase of the error and, under
    `<score>_loss`, with the loss, which has fewer ties. None if one of both does not vary."""
    damages = {"": "error_rise", "_loss": "loss"}
    return {
        score + suffix: rank_correlation(list(frame[score]), list(frame[damage]))
        for suffix, damage in damages.items()
        for score in SCORES
    }


def prediction(found: RankCorrelation | None) -> str:
    """Whether a score with this rank correlation predicts the damage, as a verb."""
    if found is None or not (found.low > 0 or found.high < 0):
        return "is not shown to predict"
    return "predicts" if found.low > 0 else "predicts the reverse of"


@styled
def influence_figure(frame: "pandas.DataFrame", title: str) -> "Figure":
    """Error increase by block influence and by angular distance; each deletion is a point.

    Args:
        frame: rows of influence.csv.
    """
    from matplotlib.ticker import MaxNLocator

    not_empty(frame, "influence")
    frame = with_damage(frame)
    found = correlations(frame)
    figure = new_figure(title, ROW_WIDTH * 0.75, HEIGHT)
    several = frame["n"].nunique() > 1
    shade = "n" if several else "unit"
    for axes, (score, name) in zip(figure.subplots(1, 2, sharey=True), SCORES.items(), strict=True):
        points = axes.scatter(frame[score], frame["error_rise"], c=frame[shade], s=14)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xlabel(name)
        r = found[score]
        axes.set_title("no rank correlation" if r is None else f"rank correlation {r.value:.2f}")
    figure.axes[0].set_ylabel("error increase (points)")
    label = "units deleted together" if several else "deleted unit (index)"
    whole_numbers = MaxNLocator(6, integer=True)
    figure.colorbar(points, ax=figure.axes, label=label, ticks=whole_numbers)
    return figure
