"""One network trained by several processes, each on its share of every batch.

torchrun starts the processes (`resnet_cli.runtime.processes`). Each takes whole batch-norm groups
of the batch, in the order of the ranks; gradients are added up, and running statistics are put
together in the groups' order. So what is trained is what one process trains with the same groups,
to rounding, whatever the number of processes. Only dropout draws other numbers: each process has a
generator of its own.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from resnet_cli.models.network import Network
from resnet_cli.runtime import processes
from resnet_cli.runtime.errors import UserError
from resnet_cli.training.groups import Outcome


def check_shares(batch_size: int, group: int | None, size: int) -> None:
    """Raises UserError where `size` processes cannot each take as many whole groups of a batch."""
    width = min(group or batch_size, batch_size)
    if size == 1 or batch_size % (width * size) == 0:
        return
    if batch_size % size == 0:
        mend = f"--set train.batch_norm_group={batch_size // size}"
    else:
        mend = f"--set train.batch_size={-(-batch_size // (width * size)) * width * size}"
    raise UserError(
        f"train.batch_size: {batch_size} images in batch-norm groups of {width} do not share out "
        f"evenly over {size} processes; use {mend} or another --nproc-per-node"
    )


def combined(network: Network, backward: Callable[[], Outcome]) -> Outcome:
    """Carry out this process's part of a backward pass and put all parts together.

    Args:
        backward: adds the part's gradient of the whole batch's mean loss to the parameters' `grad`
            and returns the part's (sum of losses, number wrong).

    Returns:
        The whole batch's (sum of losses, number wrong); gradients and running statistics are those
        of the whole batch too.
    """
    if processes.size() == 1:
        return backward()
    norms = [
        m
        for m in network.modules()
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.running_mean is not None
    ]
    before = [{name: b.clone() for name, b in norm.named_buffers()} for norm in norms]
    for norm in norms:
        for buffer in norm.buffers():
            buffer.zero_()
    loss_sum, wrong = backward()
    sums = torch.stack((loss_sum.double(), wrong.double()))
    processes.sum_over_processes(sums)
    _add_up_gradients(network.parameters())
    _combine_statistics(norms, before)
    return sums[0], sums[1]


def _add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum gradients over processes; units that were not active have none in any of them."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    processes.sum_over_processes(flat)
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view(gradient.shape))


@torch.no_grad()
def _combine_statistics(
    norms: list[nn.BatchNorm1d | nn.BatchNorm2d], before: list[dict[str, Tensor]]
) -> None:
    """Let running statistics see the groups of all processes in order.

    Those of each process began at zero, so after its n groups they are what the statistics gain;
    what they were before has by then faded by (1 - momentum)^n. n is zero in inactive units.
    """
    if not norms:
        return
    gained = torch.cat([torch.cat((_mean(norm), _variance(norm))) for norm in norms])
    parts = processes.gather(gained).split([2 * norm.num_features for norm in norms], dim=1)
    for norm, old, parts_of_norm in zip(norms, before, parts, strict=True):
        assert norm.momentum is not None
        assert norm.num_batches_tracked is not None
        fading = (1 - norm.momentum) ** norm.num_batches_tracked
        running = torch.cat((old["running_mean"], old["running_var"]))
        for part in parts_of_norm:
            running = running * fading + part
        _mean(norm).copy_(running[: norm.num_features])
        _variance(norm).copy_(running[norm.num_features :])
        norm.num_batches_tracked.mul_(processes.size()).add_(old["num_batches_tracked"])


def _mean(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    assert norm.running_mean is not None
    return norm.running_mean


def _variance(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    assert norm.running_var is not None
    return norm.running_var
