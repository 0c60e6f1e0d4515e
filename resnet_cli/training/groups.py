"""The batch-norm groups of a batch in parallel, one core each.

With batch statistics over groups of a batch (paper 1: 64 of 128 images, as on two GPUs), the groups
are independent until their gradients are summed. On a CPU each group passes through the network in
its own thread, which is more efficient than all cores sharing every operation.

The result does not depend on the number of threads, to the last bit: each thread uses one core, and
gradients and running statistics are combined in the groups' order. Groups run one after another,
each on all cores, if the network has dropout (one generator draws its masks in order) or if
`checkpoint_units` saves memory.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from resnet_cli.models.network import BatchNorm, Network, batch_norms, running_statistics
from resnet_cli.runtime.threads import map_in_threads

BatchTotals = tuple[Tensor, Tensor]
"""The sum of the losses of a group or batch, and the number of images classified wrongly."""
Gradients = list[Tensor | None]
"""The gradient of each parameter; None in inactive units."""
Forward = Callable[[Network, Tensor, Tensor], tuple[Tensor, BatchTotals]]
"""(network, images, labels) -> (the loss to differentiate, the totals to report)."""


class ParallelGroups:
    """One copy of a network for each group; copies share its parameters but not its buffers."""

    def __init__(self, network: Network, groups: int) -> None:
        self.network = network
        self.parameters = list(network.parameters())
        shared = {id(parameter): parameter for parameter in self.parameters}
        self.copies = [copy.deepcopy(network, dict(shared)) for _ in range(groups)]
        self.norms = [batch_norms(network) for network in (network, *self.copies)]
        self.in_threads = self.fits(network)

    @staticmethod
    def fits(network: Network) -> bool:
        """Whether the groups can pass through this network in separate threads."""
        has_dropout = any(isinstance(module, nn.Dropout) for module in network.modules())
        return not has_dropout and not network.checkpoint_units

    def backward(
        self, groups: Sequence[tuple[Tensor, Tensor]], forward: Forward
    ) -> list[BatchTotals]:
        """Add the groups' gradients to the parameters' `grad` and update the running statistics.

        Args:
            groups: images [N, 3, H, W] and labels [N] of each group; at most one group per copy.

        Returns:
            The totals of each group, in order.
        """
        for norms in self.norms[1:]:
            for norm in norms:
                for statistic in running_statistics(norm):
                    statistic.zero_()

        def through(item: tuple[Network, tuple[Tensor, Tensor]]) -> tuple[Gradients, BatchTotals]:
            network, (images, labels) = item
            network.train()
            loss, outcome = forward(network, images, labels)
            found: Sequence[Tensor | None] = torch.autograd.grad(
                loss, self.parameters, allow_unused=True
            )
            return list(found), outcome

        items = zip(self.copies, groups, strict=False)
        outcomes = []
        for index, (gradients, outcome) in enumerate(
            map_in_threads(through, items, parallel=self.in_threads), 1
        ):
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                if gradient is None:
                    continue
                if parameter.grad is None:
                    # The fused optimizer step needs gradients with the memory layout of their
                    # parameters, which `backward` ensures but `autograd.grad` does not.
                    same = gradient.stride() == parameter.stride()
                    laid = gradient if same else torch.empty_like(parameter).copy_(gradient)
                    parameter.grad = laid
                else:
                    parameter.grad += gradient
            for norm, seen in zip(self.norms[0], self.norms[index], strict=True):
                _update_running_statistics(norm, seen)
            outcomes.append(outcome)
        return outcomes


@torch.no_grad()
def _update_running_statistics(norm: BatchNorm, seen: BatchNorm) -> None:
    """Update a batch norm's running statistics with those of a copy. The copy's started from zero,
    so they are the group's statistics times the momentum. Copies of inactive units saw no batch."""
    assert norm.momentum is not None
    *averages, batches = running_statistics(norm)
    *averages_seen, batches_seen = running_statistics(seen)
    if int(batches_seen) == 0:
        return
    batches.add_(1)
    for running, group in zip(averages, averages_seen, strict=True):
        running.mul_(1 - norm.momentum).add_(group)
