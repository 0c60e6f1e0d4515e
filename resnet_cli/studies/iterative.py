"""Iterative inference: does each unit move its input against the gradient of the loss, and what is
the error after each unit? (Jastrzebski et al. 2018, arXiv:1710.04773)

To first order a residual branch changes the loss by F(x_l) . dE/dx_l, so a unit lowers the loss
where the cosine of F(x_l) with -dE/dx_l is positive. Measured for each image of the test split in
evaluation mode and averaged over the images: this cosine over the whole activation, the ratio
|F(x_l)| / |x_l|, and the error of the network stopped after unit l.

If a unit changes the shape, F(x_l) and x_l have different shapes. Its gradient is then taken at the
sum y_l = h(x_l) + F(x_l), and its ratio is |F(x_l)| / |h(x_l)|. Images on which a gradient or a
norm is zero are left out.

To stop after unit l, the residual branches of all later units that keep the shape are deleted.
Later units that change the shape are kept: the head needs the shape of their output, and the
network was not trained on the output of their shortcut alone. In the last stage a stop thus deletes
all later units.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import PositiveInt

from resnet_cli.figures.style import (
    GREY,
    PALETTE,
    ROW_WIDTH,
    integer_ticks,
    log_axis,
    new_figure,
    not_empty,
    styled,
)
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
from resnet_cli.studies.lesion import (
    ERRORS,
    PREDICTIONS,
    Deletion,
    measured_columns,
    outcomes_of,
    summary_title,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from torch import Tensor

    from resnet_cli.datasets.batches import Batches
    from resnet_cli.figures.titles import Heading
    from resnet_cli.models.network import Network
    from resnet_cli.models.units import Place
    from resnet_cli.studies.progress import Progress, Report
    from resnet_cli.studies.subject import Subject


class IterativeInference(OnTestImages):
    """Cosine of each residual branch with the negative gradient, ratio of norms, and the error
    after each unit (arXiv:1710.04773)."""

    kind: Literal["iterative"] = "iterative"
    images: Annotated[
        PositiveInt | None,
        Option(
            "--iterative",
            "Compare each residual branch with the negative gradient of the loss, and measure the "
            "error when the network stops after each unit, on the first N test images.",
            metavar="N",
            selects=True,
        ),
    ] = None
    """Only the first N test images; null: all."""

    command = "signal"
    title = "Iterative inference"
    pictures: ClassVar = {
        "iterative": "cosine of each residual branch with the negative gradient, ratio of its norm "
        "to its input's, and test error after stopping, by unit",
    }
    tables = (
        Table(
            "iterative",
            "unit (arXiv:1710.04773)",
            (
                whole("unit", "l, from 0"),
                number(
                    "cosine",
                    "mean over the images of the cosine of F(x_l) with -dE/dx_l, where E is an "
                    "image's cross-entropy; empty where all gradients are zero",
                    empty=True,
                ),
                number(
                    "norm_ratio",
                    "mean over the images of the L2 norm of F(x_l) relative to that of x_l",
                    empty=True,
                ),
                *ERRORS,
                *PREDICTIONS,
            ),
            note="`test_error` and the columns after it refer to the network stopped after the "
            "unit: all later units that\nkeep the shape are deleted. For a unit that changes the "
            "shape, the gradient is taken at h(x_l) + F(x_l),\nand the ratio is |F(x_l)| / "
            "|h(x_l)|.",
        ),
    )

    def check(self, subject: "Subject") -> None:
        if subject.loaded.is_plain:
            raise UserError(
                "a plain network (VGG) has no shortcuts; iterative inference needs a residual "
                "network"
            )

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        subject, network = subject.first(self.images), subject.network
        with progress.of(f"gradients of {subject.label}") as report:
            refined = refinement(network, subject.batches("test"), report)
        stopped_after = stops(network.places)
        intact, *stopped = outcomes_of(subject, stopped_after, progress, "stops after each unit")
        rows = [
            {"unit": unit, "cosine": known(cosine), "norm_ratio": known(ratio)}
            | measured_columns(outcome, intact, seed)
            for unit, ((cosine, ratio), outcome) in enumerate(zip(refined, stopped, strict=True))
        ]
        yield "iterative", rows, ("test",)

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        title = heading.over("Iterative inference by unit")
        yield NamedFigure(
            "iterative",
            lambda: iterative_figure(tables["iterative"], title, heading.changes, heading.chance),
        )

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["iterative"]
        against = int((frame["cosine"] > 0).sum())
        baseline = float(frame["baseline_error"].iloc[0])
        half = frame["test_error"].iloc[len(frame) // 2]
        facts: dict[str, Any] = {
            "baseline_error": baseline,
            "mean_cosine": known(frame["cosine"].mean()),
            "units_against_the_gradient": against,
            "mean_norm_ratio": known(frame["norm_ratio"].mean()),
            "error_by_unit": {
                str(unit): float(error)
                for unit, error in zip(frame["unit"], frame["test_error"], strict=True)
            },
        }
        columns = ["unit", "cosine", "norm_ratio", "test_error", "kl_divergence"]
        return Summary(
            facts,
            summary_title(subject, frame),
            ["unit", "cosine with -gradient", "|F| / |x|", "error (%)", "KL divergence (nats)"],
            [list(row) for row in frame[columns].itertuples(index=False)],
            [
                f"{against} of {len(frame)} units move their input against the gradient of the "
                f"loss, with a mean cosine of {frame['cosine'].mean():.3f} over all units; stopped "
                f"after unit {len(frame) // 2} the error is {half:.2f} %, after the last "
                f"{baseline:.2f} %"
            ],
        )


def refinement(
    network: "Network",
    batches: "Batches",
    report: "Report" = lambda done, total: None,
) -> list[tuple[float, float]]:
    """For each unit the mean cosine of F with the negative gradient, and the mean ratio of norms;
    NaN where it is not defined on any image."""
    import torch
    from torch.nn import functional

    from resnet_cli.studies.image_sums import finite_sum, means, sum_over_images
    from resnet_cli.studies.progress import check_of

    check = check_of(report)

    def compared(images: "Tensor", labels: "Tensor") -> "Tensor":
        branches, bases, points = [], [], []
        with torch.enable_grad():
            x = network.stem(images).detach().requires_grad_()
            for unit in network.unit_list:
                check()
                shortcut, residual = unit.branches(x)
                total = shortcut + residual
                keeps = x.shape == total.shape
                points.append(x if keeps else total)
                bases.append(x if keeps else shortcut)
                branches.append(residual)
                x = unit.after(total)
            loss = functional.cross_entropy(network.head(x), labels, reduction="sum")
            gradients = torch.autograd.grad(loss, points)
        found = []
        for F, base, gradient in zip(branches, bases, gradients, strict=True):
            f, b, g = (t.detach().flatten(1).double() for t in (F, base, gradient))
            size = f.norm(dim=1)
            cosine = -(f * g).sum(1) / (size * g.norm(dim=1))
            found.append(torch.stack([finite_sum(cosine), finite_sum(size / b.norm(dim=1))]))
        return torch.stack(found)

    sums = sum_over_images(network, batches, compared, report)
    return [(float(cosine), float(ratio)) for cosine, ratio in means(sums)]


def stops(places: "Sequence[Place]") -> list[Deletion]:
    """For each unit the deletion that stops the network after it: all later units that keep the
    shape."""
    kept = [place.index for place in places if not place.changes_shape]
    return [
        Deletion(unit, tuple(later for later in kept if later > unit))
        for unit in range(len(places))
    ]


@styled
def iterative_figure(
    frame: "pandas.DataFrame", title: str, changes: Sequence[int], chance: float | None
) -> "Figure":
    """Cosine, ratio of norms and error after stopping, by unit; dotted lines mark the units that
    change the shape.

    Args:
        frame: rows of iterative.csv.
    """
    not_empty(frame, "iterative")
    figure = new_figure(title, ROW_WIDTH, 2.9)
    panels = figure.subplots(1, 3, sharex=True)
    labels = ("cosine of F(x) with the\nnegative gradient", "|F(x)| / |x|", "test error (%)")
    columns = ("cosine", "norm_ratio", "test_error")
    for axes, column, label in zip(panels, columns, labels, strict=True):
        for unit in changes:
            axes.axvline(unit, color=GREY, linestyle=":", linewidth=0.8)
        axes.plot(frame["unit"], frame[column], color=PALETTE[0], marker="o", markersize=2.5)
        axes.set_ylabel(label)
        axes.set_xlabel("unit")
        integer_ticks(axes.xaxis, 6)
    panels[0].axhline(0, color=GREY, linewidth=0.8)
    if (frame["norm_ratio"] > 0).any():
        log_axis(panels[1], frame["norm_ratio"])
    panels[2].set_title("stopped after the unit")
    panels[2].axhline(frame["baseline_error"].iloc[0], color=PALETTE[2], linestyle="--")
    if chance is not None:
        panels[2].axhline(chance, color="black", linestyle="-.", linewidth=0.9)
    panels[2].set_ylim(bottom=0)
    return figure
