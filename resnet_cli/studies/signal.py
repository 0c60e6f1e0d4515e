"""Signals through a residual network, forward and backward (paper 1, section 2, equations 3-8).

With h(x) = lambda x and f the identity, equation (8) splits the gradient at the input of unit l
into the term that passes through shortcuts only and the rest:

    dE/dx_l = dE/dx_L ( prod_{i=l}^{L-1} lambda_i  +  d/dx_l sum_{i=l}^{L-1} F^(x_i) ).

The product explodes or vanishes with depth unless every lambda is 1. Here these quantities are
measured on one batch of images: the activations x_l, the gradients dE/dx_l, the product of the
lambdas (or of the mean gates), and the gradient at the last unit's output propagated to x_l through
the shortcuts only. The last equals the product if shortcuts are scalars, and is defined for all.

Batch norm uses the statistics of the batch, as in training: an untrained network has no others.
Dropout is inactive. PyTorch scales the kept activations by 1 / (1 - p), so dropout on the shortcut
has the factor 1 in expectation.
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
    Measured,
    NamedFigure,
    Option,
    Row,
    Study,
    Summary,
    Tables,
    curves_of,
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
    """Images in the batch."""

    on: Annotated[GradientImages, ON] = "train"
    """The split that the batch is drawn from."""

    title = "Signals by unit"
    pictures: ClassVar = {
        "signal": "norms of activations and gradients, and shortcut factors, by unit",
    }
    command = "signal"
    takes_experiment = True
    tables = (
        Table(
            "signal",
            "state of a network and unit (paper 1, section 2)",
            (
                text("state", "`initial`: the network at the start of its training; `trained`"),
                whole("unit", "l; the last row of a state is the output of the last unit"),
                number(
                    "activation_norm",
                    "root mean square over the images of the L2 norm of x_l, the unit's input",
                ),
                number(
                    "gradient_norm",
                    "the same for the gradient of an image's cross-entropy at x_l",
                ),
                number(
                    "shortcut_factor",
                    "lambda of the unit: its constant scale, times the mean of 1 - g(x) if it has "
                    "a gate; empty if the shortcut is a convolution, and in the last row",
                    empty=True,
                ),
                number(
                    "shortcut_product",
                    "product of the factors from this unit to the last, as in equation (8)",
                    empty=True,
                ),
                number(
                    "shortcut_gain",
                    "the gradient at the last unit's output propagated to this unit's input "
                    "through the shortcuts only (with projections and the derivative of gates, "
                    "without activations after the addition): L2 norm relative to that at the last "
                    "unit's output",
                ),
                whole(
                    "images",
                    "images in the batch; batch norm uses the statistics of this batch, dropout "
                    "is inactive",
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

    def measure(self, subject: "Subject", seed: int, progress: "Progress") -> Measured:
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
        """The signals of all cases (`curves_of`)."""
        frames = curves_of(cases, "signal")
        yield NamedFigure("signal", lambda: signal_figure(frames, title))

    def summary(self, tables: Tables, subject: "Subject") -> Summary:
        frame = tables["signal"]
        places = subject.network.places
        milestones = {place.index for place in places if place.number == 1} | {len(places)}
        facts: dict[str, Any] = {}
        sentences = []
        for state in frame["state"].unique():
            rows = frame[frame["state"] == state]
            deviation = closed_form_deviation(subject.network, rows.to_dict("records"))
            if deviation is not None:
                facts[f"closed_form_deviation_{state}"] = deviation
                sentences.append(
                    f"{state}: shortcuts that are scalars scale the gradient by their lambda "
                    f"(largest relative deviation {deviation:.1e})"
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
    """The network at initialisation, if it is known, and trained, if it is."""
    from resnet_cli.models.factory import build
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

    Only the inputs of the units are kept; each unit is recomputed for its gradients.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
        report: called after every unit, forward and backward, with (steps done, all steps).

    Returns:
        For l = 0..L, with L the number of units:
        unit: l; x_L is the last unit's output.
        activation_norm: root mean square, over the images, of the L2 norm of x_l.
        gradient_norm: the same for the gradient of an image's cross-entropy at x_l.
        shortcut_factor: lambda of unit l (`shortcut_factor`); None at L.
        shortcut_product: the product of the factors from unit l on; 1 at L; None if one is None.
        shortcut_gain: the gradient at x_L propagated to x_l through the shortcuts only, with f
            taken as the identity as in the derivation: its L2 norm relative to that at x_L.

    Raises:
        UserError: the network has no shortcuts.
    """
    import torch
    from torch.nn import functional

    from resnet_cli.models.network import evaluation_mode

    if network.is_plain:
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
        # The direct gradient is normalised and its norm kept apart: 0.5^333 underflows float32.
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
            # The loss is the mean over N images, so the gradient of one image is N times as large.
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
    """`gradient` at a unit's output propagated to x through the whole unit, and `direct` propagated
    through its shortcut only, without f."""
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
        The constant scale of h, times the mean over images, channels and pixels of 1 - g(x) if the
        shortcut has a gate; 1 for the identity, and for dropout in expectation. Zero padding and
        projections that only change the shape have the factor 1. None if the shortcut of a unit
        that keeps the shape is a convolution, and for third-party units.
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
    """The deviation of the measured gains from the closed form of equation (8).

    For all units whose shortcut is the identity or a constant scale, the gain of the direct
    gradient is compared with lambda.

    Args:
        rows: of `measure_signal` for this network.

    Returns:
        The largest | gain / lambda - 1 |; None if the network has no such unit.
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
