"""One network trained by several processes, each on its share of every batch.

torchrun starts the processes (`resnet_cli.runtime.processes`). Each computes whole batch-norm
groups of the batch, in order of rank. Gradients are summed, and running statistics are combined in
the groups' order. The result is therefore that of one process with the same groups, up to rounding,
whatever the number of processes. Only dropout differs: each process has its own generator.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from resnet_cli.models.network import (
    BatchNorm,
    Network,
    NormStatistics,
    batch_norms,
    running_statistics,
)
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError
from resnet_cli.training.groups import BatchTotals


def check_shares(batch_size: int, group: int | None, size: int) -> None:
    """Raise UserError if `size` processes cannot share the whole groups of a batch equally."""
    width = min(group or batch_size, batch_size)
    if size == 1 or batch_size % (width * size) == 0:
        return
    if batch_size % size == 0:
        fix = f"--set train.batch_norm_group={batch_size // size}"
    else:
        fix = f"--set train.batch_size={-(-batch_size // (width * size)) * width * size}"
    raise UserError(
        f"train.batch_size: {batch_size} images in batch-norm groups of {width} cannot be divided "
        f"evenly among {size} processes; use {fix} or another --nproc-per-node"
    )


def distributed_backward(network: Network, backward: Callable[[], BatchTotals]) -> BatchTotals:
    """Run this process's part of a backward pass and combine the parts of all processes.

    Args:
        backward: adds this part's gradient of the whole batch's mean loss to the parameters' `grad`
            and returns this part's (sum of losses, number wrong).

    Returns:
        (sum of losses, number wrong) of the whole batch. Gradients and running statistics are also
        those of the whole batch.
    """
    if processes.size() == 1:
        return backward()
    norms = [norm for norm in batch_norms(network) if norm.running_mean is not None]
    before = []
    for mean, variance, batches in map(running_statistics, norms):
        before.append((mean.clone(), variance.clone(), batches.clone()))
        for statistic in (mean, variance, batches):
            statistic.zero_()
    loss_sum, wrong = backward()
    sums = torch.stack((loss_sum.double(), wrong.double()))
    processes.sum_over_processes(sums)
    _add_up_gradients(network.parameters())
    _combine_statistics(norms, before)
    return sums[0], sums[1]


def _add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum gradients over processes. Inactive units have no gradient in any process."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    processes.sum_over_processes(flat)
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view(gradient.shape))


@torch.no_grad()
def _combine_statistics(norms: list[BatchNorm], before: list[NormStatistics]) -> None:
    """Update running statistics with the groups of all processes in order.

    Each process's statistics started from zero, so after its n groups they are the amount to add,
    while the earlier statistics are multiplied by (1 - momentum)^n. n is zero in inactive units.
    """
    if not norms:
        return
    gained = torch.cat([torch.cat(running_statistics(norm)[:2]) for norm in norms])
    parts = processes.gather(gained).split([2 * norm.num_features for norm in norms], dim=1)
    for norm, (*old, old_batches), parts_of_norm in zip(norms, before, parts, strict=True):
        assert norm.momentum is not None
        mean, variance, batches = running_statistics(norm)
        decay = (1 - norm.momentum) ** batches
        running = torch.cat(old)
        for part in parts_of_norm:
            running = running * decay + part
        mean.copy_(running[: norm.num_features])
        variance.copy_(running[norm.num_features :])
        batches.mul_(processes.size()).add_(old_batches)
