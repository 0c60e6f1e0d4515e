"""Signals through a residual network, forward and backward (paper 1, section 2, equations 3-8).

With h(x) = lambda x and f the identity, equation (8) splits the gradient at the input of unit l
into a term that comes by the shortcuts alone and the rest:

    dE/dx_l = dE/dx_L ( prod_{i=l}^{L-1} lambda_i  +  d/dx_l sum_{i=l}^{L-1} F^(x_i) ).

The product explodes or vanishes with depth unless every lambda is 1. Here each part is measured at
one batch of images: the activations x_l, the gradients dE/dx_l, the product of the lambdas (or of
the mean gates), and what the shortcuts alone make of the gradient that arrives at the last unit's
output. The last is that same product where shortcuts are scalars, and is defined for any.

Batch norm takes the batch's own statistics, as in training: an untrained network has no others.
Dropout is inactive; torch scales what it keeps by 1 / (1 - p), so as a shortcut it has factor 1 in
expectation.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import PositiveInt

from resnet_cli.results.columns import Table, number, text, whole
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import (
    ON,
    Case,
    GradientImages,
    NamedFigure,
    Option,
    Row,
    Study,
    Summary,
    Tables,
    first_tables,
    known,
    short,
)
from resnet_cli.studies.signal_figures import signal_figure

if TYPE_CHECKING:
    from torch import Tensor

    from resnet_cli.datasets.catalogue import SplitName
    from resnet_cli.figures.titles import Heading
    from resnet_cli.models.network import Network
    from resnet_cli.models.units import Unit
    from resnet_cli.studies.progress import Progress, Report
    from resnet_cli.studies.subject import Subject

PLAIN = "a plain network (VGG) has no shortcuts; signal needs a residual network"
SHOWN = ("activation_norm", "gradient_norm", "shortcut_product", "shortcut_gain")


class Signal(Study):
    """Activations, gradients and the shortcut factor by unit, untrained and trained (paper 1,
    equations 3-8)."""

    kind: Literal["signal"] = "signal"
    batch_size: Annotated[
        PositiveInt,
        Option("--batch-size", "Images in the batch.", metavar="N", word="batch"),
    ] = 128
    """Images in the one batch that is measured."""

    on: Annotated[GradientImages, ON] = "train"
    """The split that the batch is drawn from."""

    title = "Signals by unit"
    pictures: ClassVar = {
        "signal": "activation and gradient norms and the shortcut's factor, by unit",
    }
    command = "signal"
    takes_experiment = True
    tables = (
        Table(
            "signal",
            "state of a network and unit (paper 1, section 2)",
            (
                text("state", "`initial`: the network its training started from; `trained`"),
                whole("unit", "l; the last row of a state is the output of the last unit"),
                number(
                    "activation_norm",
                    "root mean square over the images of the L2 norm of x_l, the unit's input",
                ),
                number(
                    "gradient_norm", "the same of the gradient, at x_l, of an image's cross-entropy"
                ),
                number(
                    "shortcut_factor",
                    "lambda of the unit: its constant scale, times the mean of 1 - g(x) of a gate; "
                    "empty where a convolution is the shortcut, and in the last row",
                    empty=True,
                ),
                number(
                    "shortcut_product",
                    "product of these from this unit to the last, as in equation (8)",
                    empty=True,
                ),
                number(
                    "shortcut_gain",
                    "the gradient at the last unit's output backpropagated to here by the "
                    "shortcuts alone (without after-addition activations, with projections and the "
                    "derivative of gates): its L2 norm over that at the last unit's output",
                ),
                whole(
                    "images",
                    "images of the batch; batch norm takes this batch's statistics, "
                    "dropout is inactive",
                ),
                whole("seed", "seed of the batch's draw"),
            ),
        ),
    )

    @property
    def split(self) -> "SplitName":
        return self.on

    @property
    def normalises_by_batch(self) -> bool:
        return True

    def check(self, subject: "Subject") -> None:
        if subject.loaded.is_plain:
            raise UserError(PLAIN)

    def measure(
        self, subject: "Subject", seed: int, progress: "Progress"
    ) -> Iterator[tuple[str, Sequence[Row], Sequence[str]]]:
        from resnet_cli.studies.paths.sampled import batch_indices

        batches = subject.batches(self.on)
        images, labels = batches.unaugmented(batch_indices(len(batches), self.batch_size, seed, 0))
        rows: list[Row] = []
        for state, network in _states(subject, seed).items():
            with progress.of(f"signals of {subject.label}, {state}") as report:
                found = measure_signal(network.to(images.device), images, labels, report)
            common = {"state": state, "images": len(labels), "seed": seed}
            rows += [common | row for row in found]
        yield "signal", rows, (self.on,)

    def figures(self, tables: Tables, heading: "Heading") -> Iterator[NamedFigure]:
        yield NamedFigure(
            "signal",
            lambda: signal_figure(
                {heading.network: tables["signal"]}, heading.over("Signals by unit")
            ),
        )

    def figures_together(self, cases: Sequence[Case], title: str) -> Iterator[NamedFigure]:
        """The signals of all cases; of several seeds, each case's first."""
        frames = first_tables(cases, "signal")
        yield NamedFigure("signal", lambda: signal_figure(frames, title))

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["signal"]
        places = subject.loaded.network.places
        milestones = {place.index for place in places if place.number == 1} | {len(places)}
        facts: dict[str, Any] = {}
        sentences = []
        for state in frame["state"].unique():
            rows = frame[frame["state"] == state]
            deviation = closed_form_deviation(subject.loaded.network, rows.to_dict("records"))
            if deviation is not None:
                facts[f"closed_form_deviation_{state}"] = deviation
                sentences.append(
                    f"{state}: shortcuts that are scalars pass the gradient on by their lambda "
                    f"to within {deviation:.1e} (relative)"
                )
            facts[f"{state}_at_first_unit"] = {name: known(rows[name].iloc[0]) for name in SHOWN}
        return Summary(
            facts,
            f"{subject.label}: signals at the input of the first unit and of every stage after it",
            ["state", "unit", "activation", "gradient", "lambda product", "direct gain"],
            [
                [state, unit, *map(short, values)]
                for state, unit, *values in frame[["state", "unit", *SHOWN]].itertuples(index=False)
                if unit in milestones
            ],
            sentences,
        )


def _states(subject: "Subject", seed: int) -> dict[str, "Network"]:
    """The network as its training started from it, if that is known, and trained, if it is."""
    from resnet_cli.models import build
    from resnet_cli.models.survival import set_survival

    loaded, networks = subject.loaded, {}
    if loaded.model is not None:
        start = loaded.run.seed if loaded.run is not None else seed
        networks["initial"] = build(loaded.model, loaded.num_classes, start)
        if loaded.run is not None:
            set_survival(networks["initial"], loaded.run.train)
    if loaded.is_trained:
        networks["trained"] = loaded.network
    return networks


def measure_signal(
    network: "Network",
    images: "Tensor",
    labels: "Tensor",
    report: "Report" = lambda done, total: None,
) -> list[Row]:
    """Signals at the input of every unit, and at the output of the last, for one batch.

    Only the inputs of the units are kept; each unit is computed once more for its gradients.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
        report: called after every unit, forward and then backward, with the number of these steps
            done, and of all.

    Returns:
        For l = 0..L, with L the number of units:
        unit: l; x_L is the last unit's output.
        activation_norm: root mean square, over the images, of the L2 norm of x_l.
        gradient_norm: the same of the gradient, at x_l, of an image's cross-entropy.
        shortcut_factor: lambda of unit l (`shortcut_factor`); None at L.
        shortcut_product: the product of these from unit l on; 1 at L; None where one is None.
        shortcut_gain: the gradient at x_L backpropagated to x_l through the shortcuts alone, with f
            taken for the identity as in the derivation: its L2 norm over that at x_L.

    Raises:
        UserError: the network has no shortcuts.
    """
    import torch
    from torch.nn import functional

    from resnet_cli.models.network import evaluation_mode
    from resnet_cli.models.units import PlainUnit

    if any(isinstance(unit, PlainUnit) for unit in network.units):
        raise UserError(PLAIN)
    units = network.unit_list
    with evaluation_mode(network, batch_statistics=True):
        with torch.no_grad():
            inputs = [network.stem(images)]
            for unit in units:
                inputs.append(unit(inputs[-1]))
                report(len(inputs) - 1, 2 * len(units))
            factors = [shortcut_factor(unit, x) for unit, x in zip(units, inputs, strict=False)]
        with torch.enable_grad():
            leaf = inputs[-1].detach().requires_grad_()
            loss = functional.cross_entropy(network.head(leaf), labels)
            (gradient,) = torch.autograd.grad(loss, leaf)
        gradients, gains = [gradient], [1.0]
        # The direct gradient is kept at norm 1 and its size apart: 0.5^333 is no float32.
        direct = gradient / float(gradient.double().norm())
        for unit, x in zip(reversed(units), reversed(inputs[:-1]), strict=True):
            gradient, direct = _backpropagate(unit, x, gradient, direct)
            gradients.insert(0, gradient)
            gain = float(direct.double().norm())
            gains.insert(0, gains[0] * gain)
            direct = direct / gain if gain > 0 else direct
            report(len(units) + len(gains) - 1, 2 * len(units))
    products: list[float | None] = [1.0]
    for factor in reversed(factors):
        ahead = products[0]
        products.insert(0, None if factor is None or ahead is None else factor * ahead)
    total = len(labels)
    return [
        {
            "unit": index,
            "activation_norm": float(inputs[index].double().norm()) / math.sqrt(total),
            # The loss is the mean over N images, so an image's own gradient is N times as large.
            "gradient_norm": float(gradients[index].double().norm()) * math.sqrt(total),
            "shortcut_factor": factors[index] if index < len(units) else None,
            "shortcut_product": products[index],
            "shortcut_gain": gains[index],
        }
        for index in range(len(units) + 1)
    ]


def _backpropagate(
    unit: "Unit", x: "Tensor", gradient: "Tensor", direct: "Tensor"
) -> tuple["Tensor", "Tensor"]:
    """A gradient at a unit's output backpropagated to x through the whole unit, and another
    through its shortcut alone, without f."""
    import torch

    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        shortcut, residual = unit.branches(leaf)
        (whole,) = torch.autograd.grad(
            unit.after(shortcut + residual), leaf, gradient, retain_graph=True
        )
        (alone,) = torch.autograd.grad(shortcut, leaf, direct)
    return whole, alone


def shortcut_factor(unit: "Unit", x: "Tensor") -> float | None:
    """lambda of equation (6) for one unit at its input x [N, C, H, W].

    Returns:
        The constant scale of h, times the mean over images, channels and pixels of 1 - g(x) where
        a gate stands on the shortcut; 1 for the identity, and for dropout in expectation. What
        only fits the shapes (zero padding, projection) does not count. None where a convolution
        is the shortcut of a unit that keeps the shape, and for units of others.
    """
    import torch
    from torch import nn

    from resnet_cli.models.units import ResidualUnit, Scale

    if not isinstance(unit, ResidualUnit):
        return None
    parts = list(unit.h.modules())
    if not unit.place.changes_shape and any(isinstance(part, nn.Conv2d) for part in parts):
        return None
    factor = math.prod(part.factor for part in parts if isinstance(part, Scale))
    if unit.gate is not None:
        with torch.no_grad():
            factor *= float((1 - unit.gate(unit.pre(x))).double().mean())
    return factor


def closed_form_deviation(network: "Network", rows: Sequence[Row]) -> float | None:
    """How far the shortcuts that are scalars are from the closed form of equation (8).

    Over all units whose shortcut is the identity or a constant scale, shapes kept, what the unit
    does to the direct gradient is compared with its lambda.

    Args:
        rows: as `measure_signal` gives them for this network.

    Returns:
        The largest | gain / lambda - 1 |; None when the network has no such unit.
    """
    from torch import nn

    from resnet_cli.models.units import ResidualUnit, Scale

    found = []
    for unit, here, ahead in zip(network.unit_list, rows, rows[1:], strict=False):
        is_scalar = (
            isinstance(unit, ResidualUnit)
            and isinstance(unit.h, nn.Identity | Scale)
            and isinstance(unit.pre, nn.Identity)
            and unit.gate is None
        )
        if is_scalar and here["shortcut_factor"] and ahead["shortcut_gain"] > 0:
            gain = here["shortcut_gain"] / ahead["shortcut_gain"]
            found.append(abs(gain / abs(here["shortcut_factor"]) - 1))
    return max(found, default=None)
