"""Walks: the order in which an image passes a network's units, and which of them are deleted.

An intervention is a function from a walk to a new walk. One engine evaluates any set of walks
together, in sorted order: the activations that a walk shares with the previous one, from the stem
to the first step where they differ, are computed once.
"""

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cli.datasets.batches import Batches
from resnet_cli.kernels import winograd
from resnet_cli.models.folding import folded
from resnet_cli.models.network import Network, batch_norms, measure
from resnet_cli.models.units import DeletedUnit, Place, Unit
from resnet_cli.runtime import processes
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.threads import map_in_threads
from resnet_cli.studies.base import check_unit
from resnet_cli.studies.batch_statistics import Statistics, attach
from resnet_cli.studies.progress import Report, check_of, pieces_of, shifted
from resnet_cli.training.evaluation import BATCH_SIZE


class Step(NamedTuple):
    """One step of a walk: through unit `unit`, intact or with its residual branch deleted."""

    unit: int
    deleted: bool = False


Walk = tuple[Step, ...]


def intact(num_units: int) -> Walk:
    """The walk through the intact network."""
    return tuple(Step(index) for index in range(num_units))


def delete(walk: Walk, units: Collection[int]) -> Walk:
    """The walk with these units deleted: F is zero, h and f are kept (paper 2, section 4.1).

    Raises:
        UserError: a unit does not exist.
    """
    for unit in units:
        check_unit(unit, len(walk))
    return tuple(Step(step.unit, deleted=True) if step.unit in units else step for step in walk)


def reorder(walk: Walk, order: Sequence[int], places: Sequence[Place]) -> Walk:
    """The walk in another order: step order[i] moves to position i.

    Raises:
        UserError: `order` is not a permutation, or moves a unit to where the shapes differ.
    """
    if sorted(order) != list(range(len(walk))):
        raise UserError(
            f"the order must contain each of the {len(walk)} units once (got {len(order)} entries)"
        )
    for position, moved in enumerate(order):
        here, there = places[position], places[moved]
        shapes = [(p.stage, p.in_channels, p.out_channels, p.stride) for p in (here, there)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"unit {moved} cannot move to position {position}: only units of one stage that "
                "keep the shape can be exchanged"
            )
    return tuple(walk[index] for index in order)


def along(network: Network, walk: Walk) -> Network:
    """The network whose units are the steps of a walk. It shares the weights of `network`.

    Raises:
        UserError: the walk passes a unit twice.
    """
    if len({step.unit for step in walk}) != len(walk):
        raise UserError("this walk passes a unit twice, but a network has each unit once")
    units: list[Unit] = []
    for place, step in zip(network.places, walk, strict=True):
        unit = copy.copy(network.unit_list[step.unit])
        unit.place = place
        units.append(DeletedUnit(unit) if step.deleted else unit)
    return Network(network.stem, units, network.head).train(network.training)


@dataclass(frozen=True)
class Outcome:
    """The predictions along a walk on a split, compared with those of the intact network."""

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


MAX_TOGETHER = 1000
"""Walks that a chunk of images takes before the next chunk: their sums are kept in memory, and an
interrupted study measures the chunk again."""
CHUNK_BYTES = 1 << 21
"""The largest activation of a chunk of images: about the second-level cache of a core."""


def evaluate_walks(
    network: Network,
    batches: Batches,
    walks: Sequence[Walk],
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
    statistics: Mapping[Walk, Statistics] | None = None,
) -> list[Outcome]:
    """The outcome of each walk over all images, in evaluation mode.

    Under torchrun each process takes its share of the chunks, and all return the same.

    Memory in addition to the network: for each thread one activation of a chunk (2 MB on a CPU) for
    each unit.

    Args:
        report: called with (images done, all images of this process) after each chunk; keeps the
            chunks' results if it keeps pieces (`pieces_of`).
        engine: `fast` shares prefixes, folds batch norms and takes chunks that fit the cache, one
            on each core.
        statistics: batch-norm statistics along each walk and along the intact one
            (`batch_statistics.estimate`); batch norms are then not folded, and convolutions are
            not replaced by Winograd's. None: the network's own.

    Returns:
        One outcome for each walk, in the order given.
    """
    whole, *visits = visited(len(network.units), walks)
    groups = [
        [whole, *visits[start : start + MAX_TOGETHER]]
        for start in range(0, max(1, len(visits)), MAX_TOGETHER)
    ]
    chunk = BATCH_SIZE
    if engine == "fast":
        if statistics is None:  # both fast forms of a network contain its own statistics
            computed = sum(units_computed(each, shared_steps(each)) for each in groups)
            passes = len(batches) * computed / len(network.units)
            multiply_adds = passes * measure(network, batches.shape[1]).multiply_adds
            network = folded(network)
            if winograd.pays(multiply_adds, network.device):
                winograd.apply_in_evaluation(network)
        chunk = chunk_size(network, batches)
    was_training = network.training
    network.eval()
    outcomes: dict[Walk, Outcome] = {}
    try:
        for number, group in enumerate(groups):
            outcomes |= _evaluate_together(
                network,
                batches,
                group,
                shifted(report, number, len(groups)),
                engine,
                chunk,
                statistics,
            )
    finally:
        network.train(was_training)
    return [outcomes[walk] for walk in walks]


def _evaluate_together(
    network: Network,
    batches: Batches,
    visits: Sequence[Walk],
    report: Report,
    engine: Engine,
    chunk: int,
    statistics: Mapping[Walk, Statistics] | None,
) -> dict[Walk, Outcome]:
    """The outcome of each walk. Each chunk of images takes all walks before the next chunk.

    Args:
        visits: the intact walk first.
        chunk: number of images.
    """
    shared = shared_steps(visits, statistics, engine)
    parallel = engine == "fast" and network.device.type == "cpu"
    count = len(batches)
    starts = range(0, count, chunk)
    starts = starts[processes.share(len(starts))]
    first, end = starts.start, min(starts.stop, count)
    sums: list[Tensor] = []
    by_class: Tensor | None = None

    check = check_of(report)
    along_walks = None if statistics is None else [statistics[walk] for walk in visits]
    # Each thread sets the statistics of its walk in its own copy of the network.
    copies = SimpleQueue[Network]()
    for _ in range(torch.get_num_threads() if parallel and statistics is not None else 1):
        copies.put(network if statistics is None else copy.deepcopy(network))

    def visit_all(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if along_walks is None:
            return _visit_all(network, part[0], part[1], visits, shared, check)
        own = copies.get()
        try:
            return _visit_all(own, part[0], part[1], visits, shared, check, along_walks)
        finally:
            copies.put(own)

    def measured(starts: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        parts = (batches.evaluation(start, start + chunk) for start in starts)
        return map_in_threads(visit_all, parts, parallel=parallel)

    for start, found in zip(starts, pieces_of(report, starts, measured), strict=True):
        sums.append(found[0])
        by_class = found[1] if by_class is None else by_class.to(found[1].device) + found[1]
        report(min(start + chunk, end) - first, end - first)
    # With more processes than chunks, some have no result. The sums of the chunks are added in the
    # order of the images, so that the result does not depend on the number of processes.
    of_chunks = processes.gather_lists([torch.stack([each.cpu() for each in sums])] if sums else [])
    of_classes = processes.gather_lists([] if by_class is None else [by_class.cpu()])
    total = torch.cat(of_chunks).sum(0)
    wrong_by_class = torch.stack(of_classes).sum(0)
    return {
        walk: Outcome(
            images=count,
            wrong=int(wrong),
            loss=loss / count,
            kl_divergence=kl / count,
            agreement=100.0 * agreed / count,
            wrong_by_class=tuple(classes),
        )
        for walk, (wrong, loss, kl, agreed), classes in zip(
            visits, total.tolist(), wrong_by_class.tolist(), strict=True
        )
    }


@torch.inference_mode()
def chunk_size(network: Network, batches: Batches) -> int:
    """Images whose activation after the first unit takes CHUNK_BYTES; BATCH_SIZE off the CPU."""
    if network.device.type != "cpu":
        return BATCH_SIZE
    images, _ = batches.evaluation(0, 1)
    x = network.stem(images)
    for unit in network.unit_list[:1]:
        x = unit(x)
    size: int = x.numel() * x.element_size()
    return max(1, min(BATCH_SIZE, CHUNK_BYTES // size))


@torch.inference_mode()
def _visit_all(
    network: Network,
    images: Tensor,
    labels: Tensor,
    visits: Sequence[Walk],
    shared: Sequence[int],
    check: Callable[[], None],
    statistics: Sequence[Statistics] | None = None,
) -> tuple[Tensor, Tensor]:
    """Evaluate a batch along every walk.

    Args:
        images: [N, 3, H, W].
        visits: the intact walk first.
        shared: for each walk, the number of first steps that it shares with the previous one.
        check: called before each step; stops on request.
        statistics: of the batch norms along each walk, with the same stem; None: the network's own.

    Returns:
        float64 [walks, 4], sums over the images: errors, cross-entropy, KL(intact || this), same
        prediction as the intact network; and int64 [walks, classes], the errors of each class.
    """
    units = network.unit_list
    if statistics is not None:
        norms, head_norms = [batch_norms(unit) for unit in units], batch_norms(network.head)
        attach(batch_norms(network.stem), statistics[0].stem)
    trail = [network.stem(images)]
    sums: list[Tensor] = []
    by_class: list[Tensor] = []
    for index, (walk, prefix) in enumerate(zip(visits, shared, strict=True)):
        del trail[prefix + 1 :]
        for position in range(prefix, len(walk)):
            check()
            step = walk[position]
            unit = units[step.unit]
            if statistics is not None:
                attach(norms[step.unit], statistics[index].steps[position])
            trail.append(unit.skip(trail[-1]) if step.deleted else unit(trail[-1]))
        if statistics is not None:
            attach(head_norms, statistics[index].head)
        logits = network.head(trail[-1]).float()
        log_p = functional.log_softmax(logits, 1)
        predicted = logits.argmax(1)
        if not sums:
            reference, reference_class = log_p, predicted
        wrong = (predicted != labels) | ~logits.isfinite().all(1)
        found = (
            wrong.sum(),
            functional.nll_loss(log_p, labels, reduction="sum"),
            (reference.exp() * (reference - log_p)).sum(),
            (predicted == reference_class).sum(),
        )
        sums.append(torch.stack([value.double() for value in found]))
        zeros = torch.zeros(logits.shape[1], dtype=torch.int64, device=labels.device)
        by_class.append(zeros.scatter_add_(0, labels, wrong.long()))
    return torch.stack(sums), torch.stack(by_class)


def units_computed(visits: Sequence[Walk], shared: Sequence[int]) -> int:
    """The number of residual branches computed for an image, if walks share their prefixes."""
    return sum(
        not step.deleted
        for walk, prefix in zip(visits, shared, strict=True)
        for step in walk[prefix:]
    )


def visited(num_units: int, walks: Sequence[Walk]) -> list[Walk]:
    """The intact walk and these, each once, in the order in which they are visited."""
    whole = intact(num_units)
    visits = sorted({whole, *walks})
    assert visits[0] == whole, "the intact walk sorts first: no step of it is deleted or moved"
    return visits


def shared_steps(
    visits: Sequence[Walk],
    statistics: Mapping[Walk, Statistics] | None = None,
    engine: Engine = "fast",
) -> list[int]:
    """For each walk, the number of first steps whose activations are those of the previous walk;
    none with the plain engine."""
    if engine == "plain":
        return [0] * len(visits)
    shared = [0]
    for before, walk in itertools.pairwise(visits):
        count = _common_prefix(before, walk)
        if statistics is not None:
            pairs = zip(statistics[before].steps, statistics[walk].steps, strict=True)
            count = min(count, sum(1 for _ in itertools.takewhile(lambda p: p[0] is p[1], pairs)))
        shared.append(count)
    return shared


def _common_prefix(first: Walk, second: Walk) -> int:
    """The number of steps that two walks have in common from the start."""
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        if a != b:
            return index
    return len(first)
