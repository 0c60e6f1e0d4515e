"""Batch-norm statistics re-estimated along a walk.

After a lesion the running statistics of later batch norms no longer match their inputs. Here the
statistics are reset and re-estimated as cumulative averages over training images: only the batch
norms are in training mode, and neither labels nor gradients are used. Re-estimation after a change
of the network is established (EagleEye, arXiv:2007.02491; universally slimmable networks,
arXiv:1903.05134; REPAIR, arXiv:2211.08403).

Walks with the same first steps have the same activations and statistics there: the statistics
before a lesion are those of the intact network.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnet_cli.models.network import (
    BatchNorm,
    Network,
    NormStatistics,
    batch_norms,
    running_statistics,
)
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.seeding import stream
from resnet_cli.runtime.threads import map_in_threads
from resnet_cli.studies.progress import Report, check_of, pieces_of

if TYPE_CHECKING:
    from resnet_cli.datasets.batches import Batches
    from resnet_cli.studies.walks import Walk

BATCH = 100
"""Training images in a batch, normalised by its own mean and variance."""
GROUP = 8
"""Walks whose statistics are estimated together. Groups run in parallel."""

Part = tuple[NormStatistics, ...]
"""The statistics of the batch norms of a stem, a unit or a head, in the order of its modules."""


@dataclass(frozen=True)
class Statistics:
    """The batch-norm statistics along one walk."""

    stem: Part
    steps: tuple[Part, ...]
    """Of each step's unit."""
    head: Part


def attach(norms: Sequence[BatchNorm], part: Part) -> None:
    """Make batch norms use these statistics; in training mode they update them in place."""
    for norm, (mean, variance, batches) in zip(norms, part, strict=True):
        norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches


def stored(norms: Sequence[BatchNorm]) -> Part:
    """The running statistics of batch norms."""
    return tuple(map(running_statistics, norms))


def own_statistics(network: "Network", walk: "Walk") -> Statistics:
    """The network's own statistics along a walk."""
    units = [stored(batch_norms(unit)) for unit in network.unit_list]
    steps = tuple(units[step.unit] for step in walk)
    return Statistics(stored(batch_norms(network.stem)), steps, stored(batch_norms(network.head)))


def training_images(
    batches: "Batches", count: int, subset: int, seed: int, *, augmented: bool = False
) -> list[Tensor]:
    """Batches of training images for `estimate`, [B, C, H, W] each.

    Args:
        batches: of the training split.
        count: images; at most BATCH, or a multiple of it.
        subset: number of the random draw.
        augmented: augment the images as in training.

    Raises:
        UserError: there are fewer training images, or the last batch would be smaller.
    """
    if count > BATCH and count % BATCH:
        raise UserError(
            f"--recalibrate {count}: a batch has {BATCH} images; use a multiple of {BATCH}"
        )
    if not 2 <= count <= len(batches):
        raise UserError(f"--recalibrate {count}: there are {len(batches)} training images")
    order = torch.randperm(len(batches), generator=stream(seed, "recalibrate", subset))[:count]
    parts = order.split(min(BATCH, count))
    if not augmented:
        return [batches.unaugmented(part)[0] for part in parts]
    generator = stream(seed, "recalibrate", subset, "augmented")
    return [batches.training(part, generator)[0] for part in parts]


def whole_batches(count: int) -> int:
    """The largest number of images up to `count` that `training_images` accepts."""
    return count - count % BATCH if count > BATCH else count if count > 1 else 0


def can_recalibrate(network: "Network") -> bool:
    """Whether the network has batch norms, all of them with running statistics."""
    norms = batch_norms(network)
    return bool(norms) and all(norm.track_running_stats for norm in norms)


def check(network: "Network") -> None:
    """Raises UserError for a network without batch norms or without running statistics."""
    norms = batch_norms(network)
    if not norms:
        raise UserError("--recalibrate: this network has no batch norms, so no statistics")
    if not all(norm.track_running_stats for norm in norms):
        raise UserError("--recalibrate: a batch norm of this network keeps no running statistics")


def estimate(
    network: "Network",
    images: Sequence[Tensor],
    walks: Sequence["Walk"],
    shared: Sequence[int],
    report: Report = lambda done, total: None,
) -> list[Statistics]:
    """The statistics of each walk: the mean of the batches' statistics.

    Args:
        images: batches, [B, C, H, W] each (`training_images`).
        walks: in the order in which they are visited.
        shared: for each walk, the number of first steps that it shares with the previous one.
        report: called with (walks done, all walks); keeps the estimates if it keeps pieces.
    """
    check(network)
    groups = [range(start, min(start + GROUP, len(walks))) for start in range(0, len(walks), GROUP)]
    stop_check = check_of(report)

    def of_group(group: range) -> list[tuple[Part, list[Part], Part]]:
        return _estimated(network, images, walks, shared, group, stop_check)

    measured = partial(map_in_threads, of_group, parallel=network.device.type == "cpu")
    found: list[Statistics] = []
    for group, parts in zip(groups, pieces_of(report, groups, measured), strict=True):
        for index, (stem, steps, head) in zip(group, parts, strict=True):
            before = found[-1].steps[: shared[index]] if found else ()
            found.append(Statistics(found[0].stem if found else stem, (*before, *steps), head))
        report(group.stop, len(walks))
    return found


@torch.no_grad()
def _estimated(
    network: "Network",
    images: Sequence[Tensor],
    walks: Sequence["Walk"],
    shared: Sequence[int],
    group: range,
    stop_check: Callable[[], None],
) -> list[tuple[Part, list[Part], Part]]:
    """For each walk of a group the statistics of the stem, of the steps that it does not share with
    the previous walk, and of the head."""
    own = copy.deepcopy(network).eval()
    for norm in batch_norms(own):
        norm.train()
        norm.momentum = None  # the cumulative mean
    stem_norms, head_norms = batch_norms(own.stem), batch_norms(own.head)
    unit_norms = [batch_norms(unit) for unit in own.unit_list]
    stem = _reset(stem_norms)
    heads = [_reset(head_norms) for _ in group]
    parts: list[list[Part]] = []
    for index in group:
        kept = shared[index] if parts else 0
        fresh = [_reset(unit_norms[step.unit]) for step in walks[index][kept:]]
        parts.append([*parts[-1][:kept], *fresh] if parts else fresh)
    for batch in images:
        attach(stem_norms, stem)
        trail = [own.stem(batch)]
        for number, index in enumerate(group):
            kept = shared[index] if number else 0
            del trail[kept + 1 :]
            for position in range(kept, len(walks[index])):
                stop_check()
                step = walks[index][position]
                unit = own.unit_list[step.unit]
                attach(unit_norms[step.unit], parts[number][position])
                trail.append(unit.skip(trail[-1]) if step.deleted else unit(trail[-1]))
            if head_norms:
                attach(head_norms, heads[number])
                own.head(trail[-1])
    return [
        (stem, steps[shared[index] :], head)
        for index, steps, head in zip(group, parts, heads, strict=True)
    ]


def _reset(norms: Sequence[BatchNorm]) -> Part:
    """Initial statistics, of no batch."""
    return tuple(
        (
            torch.zeros_like(mean),
            torch.ones_like(variance),
            torch.zeros_like(batches),
        )
        for mean, variance, batches in stored(norms)
    )
