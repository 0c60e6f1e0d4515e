"""Walks: in which order an image visits a network's units, and which of them are deleted.

An intervention is a function from a walk to a new walk. One engine evaluates any set of walks
together: they are visited in sorted order, and the activations that a walk shares with the one
before it, from the stem up to the first step where they part, are computed once.
"""

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cli.data import Batches
from resnet_cli.errors import UserError
from resnet_cli.evaluation import BATCH_SIZE
from resnet_cli.models.network import Network
from resnet_cli.models.units import Place


class Step(NamedTuple):
    """One step of a walk: through unit `unit`, whole or with its residual branch deleted."""

    unit: int
    deleted: bool = False


Walk = tuple[Step, ...]


def intact(num_units: int) -> Walk:
    """Every unit whole, in its own order."""
    return tuple(Step(index) for index in range(num_units))


def delete(walk: Walk, units: Collection[int]) -> Walk:
    """The walk with these units deleted: F is zero, h and f stay (paper 2, section 4.1).

    A unit that changes the shape keeps its projection, since the shapes must fit.

    Raises:
        UserError: a unit does not exist.
    """
    for unit in units:
        if not 0 <= unit < len(walk):
            raise UserError(
                f"unit {unit} does not exist; this network has {len(walk)} units, "
                f"0 to {len(walk) - 1}"
            )
    return tuple(Step(step.unit, step.deleted or step.unit in units) for step in walk)


def reorder(walk: Walk, order: Sequence[int], places: Sequence[Place]) -> Walk:
    """The walk in another order: position i takes what stood at position order[i].

    Raises:
        UserError: `order` is no permutation, or moves a unit to where the shapes differ.
    """
    if sorted(order) != list(range(len(walk))):
        raise UserError(f"the order names {len(order)} units; each of {len(walk)} must stand once")
    for position, moved in enumerate(order):
        here, there = places[position], places[moved]
        shapes = [(p.stage, p.in_channels, p.out_channels, p.stride) for p in (here, there)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"unit {moved} cannot stand at {position}: only units of one stage that keep the "
                "shape can be exchanged"
            )
    return tuple(walk[index] for index in order)


@dataclass(frozen=True)
class Outcome:
    """What a walk does to the predictions on a split, against the intact network."""

    images: int
    wrong: int
    loss: float
    """Mean cross-entropy in nats."""
    kl_divergence: float
    """Mean KL(intact || this walk) of the predicted distributions, in nats."""
    agreement: float
    """Images with the same prediction as the intact network, in percent."""
    wrong_by_class: tuple[int, ...]

    @property
    def error(self) -> float:
        """Top-1 error in percent."""
        return 100.0 * self.wrong / self.images


@torch.inference_mode()
def evaluate_walks(
    network: Network,
    batches: Batches,
    walks: Sequence[Walk],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """The outcome of each walk over all images, in evaluation mode.

    Memory beside the network: one activation for each unit and batch (ResNet-110 on CIFAR-10:
    0.26 GB at 125 images).

    Args:
        report: called with (images done, images in all) after each batch.

    Returns:
        One outcome for each walk, in the order given.
    """
    was_training = network.training
    network.eval()
    whole = intact(len(network.units))
    visits = sorted({whole, *walks})
    assert visits[0] == whole, "the intact walk sorts first: no step of it is deleted or moved"
    shared = [0] + [_common_prefix(a, b) for a, b in itertools.pairwise(visits)]
    device, units = network.device, network.unit_list
    sums = torch.zeros(len(visits), 4, dtype=torch.float64, device=device)
    by_class: Tensor | None = None
    try:
        for start in range(0, len(batches), BATCH_SIZE):
            images, labels = batches.evaluation(start, start + BATCH_SIZE)
            trail = [network.stem(images)]
            for visit, (walk, prefix) in enumerate(zip(visits, shared, strict=True)):
                del trail[prefix + 1 :]
                for step in walk[prefix:]:
                    unit = units[step.unit]
                    trail.append(unit.skip(trail[-1]) if step.deleted else unit(trail[-1]))
                logits = network.head(trail[-1]).float()
                log_p = functional.log_softmax(logits, 1)
                if visit == 0:
                    reference, reference_class = log_p, logits.argmax(1)
                    if by_class is None:
                        shape = (len(visits), logits.shape[1])
                        by_class = torch.zeros(shape, dtype=torch.int64, device=device)
                predicted = logits.argmax(1)
                wrong = (predicted != labels) | ~logits.isfinite().all(1)
                assert by_class is not None
                by_class[visit].scatter_add_(0, labels, wrong.long())
                sums[visit, 0] += wrong.sum()
                sums[visit, 1] += functional.nll_loss(log_p, labels, reduction="sum")
                sums[visit, 2] += (reference.exp() * (reference - log_p)).sum()
                sums[visit, 3] += (predicted == reference_class).sum()
            report(min(start + BATCH_SIZE, len(batches)), len(batches))
    finally:
        network.train(was_training)
    assert by_class is not None
    count = len(batches)
    outcomes = {
        walk: Outcome(
            images=count,
            wrong=int(wrong),
            loss=loss / count,
            kl_divergence=kl / count,
            agreement=100.0 * agreed / count,
            wrong_by_class=tuple(classes),
        )
        for walk, (wrong, loss, kl, agreed), classes in zip(
            visits, sums.tolist(), by_class.tolist(), strict=True
        )
    }
    return [outcomes[walk] for walk in walks]


def _common_prefix(first: Walk, second: Walk) -> int:
    """The number of steps that two walks have in common from the start."""
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        if a != b:
            return index
    return len(first)
