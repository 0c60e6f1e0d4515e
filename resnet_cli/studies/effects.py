"""How much each later unit depends on an earlier one: delete unit i and compare the output of every
later residual branch (Csordas, Manning and Potts 2025, arXiv:2505.13898).

Let F_j be the output of unit j's residual branch in the intact network, and F_j^(i) its output with
unit i deleted. The effect of i on j is |F_j^(i) - F_j| / |F_j|, with L2 norms over the whole
activation of an image, averaged over the images. (The paper takes the maximum over the positions of
a text.) If units build on the outputs of earlier ones, effects are near or above 1 also far from
the diagonal; if they work in parallel, as in an ensemble, effects are small.

A deleted unit keeps its shortcut, so units that change the shape are deleted like any other.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import PositiveInt

from resnet_cli.figures.style import WIDTH, integer_ticks, new_figure, not_empty, styled
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

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from torch import Tensor

    from resnet_cli.datasets.batches import Batches
    from resnet_cli.figures.titles import Heading
    from resnet_cli.models.network import Network
    from resnet_cli.studies.progress import Progress, Report
    from resnet_cli.studies.subject import Subject


class Effects(OnTestImages):
    """The effect of deleting each unit on every later unit's residual branch (arXiv:2505.13898)."""

    kind: Literal["effects"] = "effects"
    images: Annotated[
        PositiveInt | None,
        Option(
            "--effects",
            "Delete each unit and measure how every later residual branch changes, on the first N "
            "test images.",
            metavar="N",
            selects=True,
        ),
    ] = None
    """Only the first N test images; null: all."""

    command = "signal"
    title = "Effect of deleting a unit on later residual branches"
    pictures: ClassVar = {
        "effects": "heat map of the relative change of each later residual branch by deleted unit",
    }
    tables = (
        Table(
            "effects",
            "deleted unit and later unit (arXiv:2505.13898)",
            (
                whole("deleted", "i, the deleted unit"),
                whole("unit", "j, a later unit"),
                number(
                    "relative_change",
                    "mean over the images of the L2 norm of the change of F_j when i is deleted, "
                    "relative to that of F_j; images on which F_j is zero are left out",
                    empty=True,
                ),
                whole("images", "test images measured on"),
            ),
        ),
    )

    def check(self, subject: "Subject") -> None:
        if subject.num_units < 2:
            raise UserError("this network has one unit; --effects needs at least two")

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
        batches = subject.first(self.images).batches("test")
        with progress.of(f"effects of deleting units of {subject.label}") as report:
            found = effects(subject.network, batches, report)
        rows = [
            {"deleted": i, "unit": j, "relative_change": known(change), "images": len(batches)}
            for (i, j), change in found.items()
        ]
        yield "effects", rows, ("test",)

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        title = heading.over(f"Effect of deleting a {heading.unit} on later residual branches")
        yield NamedFigure("effects", lambda: effects_figure(tables["effects"], title))

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["effects"]
        of_unit = frame.groupby("deleted")["relative_change"]
        following = frame[frame["unit"] == frame["deleted"] + 1]["relative_change"]
        half = subject.num_units // 2
        means = {
            "next_unit": known(following.mean()),
            "within_first_half": known(frame[frame["unit"] < half]["relative_change"].mean()),
            "within_second_half": known(frame[frame["deleted"] >= half]["relative_change"].mean()),
        }
        most = of_unit.mean()
        sentence = (
            f"deleting a unit changes the next residual branch by {following.mean():.2f} of its "
            f"norm on average, and all later ones by {frame['relative_change'].mean():.2f}"
        )
        if most.notna().any():
            sentence += f"; unit {most.idxmax()} changes them most, by {most.max():.2f}"
        return Summary(
            {"mean_effect": known(frame["relative_change"].mean())} | means,
            f"{subject.label}: {frame['images'].iloc[0]:,} images, relative change of later F",
            ["deleted unit", "next unit", "mean of later units", "largest"],
            [[unit, rows.iloc[0], rows.mean(), rows.max()] for unit, rows in of_unit],
            [sentence],
        )


def effects(
    network: "Network",
    batches: "Batches",
    report: "Report" = lambda done, total: None,
) -> dict[tuple[int, int], float]:
    """(deleted unit, later unit) -> the relative change of the later unit's residual branch; NaN
    where its output is zero on every image."""
    import torch

    from resnet_cli.studies.image_sums import finite_sum, means, sum_over_images
    from resnet_cli.studies.progress import check_of

    units = network.unit_list
    check = check_of(report)
    pairs = [(i, j) for i in range(len(units)) for j in range(i + 1, len(units))]

    @torch.no_grad()
    def compared(images: "Tensor", _: "Tensor") -> "Tensor":
        x, inputs, branches = network.stem(images), [], []
        for unit in units:
            shortcut, residual = unit.branches(x)
            inputs.append(x)
            branches.append(residual)
            x = unit.after(shortcut + residual)
        found = []
        for i, unit in enumerate(units[:-1]):
            x = unit.skip(inputs[i])
            for j in range(i + 1, len(units)):
                check()
                shortcut, residual = units[j].branches(x)
                x = units[j].after(shortcut + residual)
                change = (residual - branches[j]).flatten(1).double().norm(dim=1)
                found.append(finite_sum(change / branches[j].flatten(1).double().norm(dim=1)))
        return torch.stack(found)

    changes = means(sum_over_images(network, batches, compared, report)).tolist()
    return dict(zip(pairs, changes, strict=True))


@styled
def effects_figure(frame: "pandas.DataFrame", title: str) -> "Figure":
    """A heat map of the relative change of each later unit's residual branch, by deleted unit.
    Changes of 1 and more, as large as the branch's output itself, have one colour.

    Args:
        frame: rows of effects.csv.
    """
    not_empty(frame, "effects")
    figure = new_figure(title, WIDTH, WIDTH * 0.85)
    axes = figure.subplots()
    matrix = frame.pivot(index="unit", columns="deleted", values="relative_change")
    last = int(frame["unit"].max())
    matrix = matrix.reindex(index=range(last + 1), columns=range(last + 1))
    image = axes.imshow(matrix.to_numpy(dtype=float), vmin=0, vmax=1, cmap="viridis")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        integer_ticks(axis, 6)
    axes.set_xlabel("deleted unit")
    axes.set_ylabel("later unit")
    figure.colorbar(image, ax=axes, extend="max", label="relative change of F")
    return figure
