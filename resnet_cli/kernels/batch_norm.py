"""Training batch norm over groups of a batch in one pass, with the ReLU that follows it.

Paper 1 trains batches of 128 on two GPUs, so its batch statistics are over 64 images. On one device
the groups pass through the network together: convolutions run once over the whole batch, and only
the statistics are computed per group. The results equal those of one group after another.

`apply_groups` changes a network from outside: parameters, buffers and their names are unchanged,
and evaluation uses torch's implementation. On CUDA, training uses four Triton kernels, two forward
and two backward; elsewhere it applies torch's batch norm to each group.

Shapes: N images, C channels, H and W pixels, G groups of N / G consecutive images; the kernels see
channels_last activations as a matrix of N H W rows and C columns.
"""

from functools import cache
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm whose training statistics are over groups of the batch; with `relu`, it also
    applies the ReLU that follows."""

    groups: int
    relu: bool

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]; running statistics are updated with each group in order."""
        if not self.training:
            return super().forward(x)
        return group_batch_norm(self, x, self.groups, self.relu)


class ReLUWhenEvaluating(nn.ReLU):
    """The ReLU after a `GroupedBatchNorm2d`, which applies it during training."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training else super().forward(x)


def apply_groups(network: nn.Module, groups: int) -> None:
    """Make the network's batch norms compute their training statistics over `groups` equal groups,
    each fused with the ReLU that follows it."""
    followed: dict[nn.Module, nn.Module] = {}
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            followed |= dict(pairwise(module))
    for module in list(network.modules()):
        if type(module) is nn.BatchNorm2d:
            after = followed.get(module)
            grouped = cast("Any", module)
            grouped.__class__ = GroupedBatchNorm2d
            grouped.groups, grouped.relu = groups, type(after) is nn.ReLU
            if grouped.relu:
                cast("Any", after).__class__ = ReLUWhenEvaluating


def group_batch_norm(norm: nn.BatchNorm2d, x: Tensor, groups: int, relu: bool) -> Tensor:
    """Batch norm of each of `groups` equal parts of the batch with its own statistics, optionally
    followed by a ReLU.

    Args:
        norm: holds the parameters and the running statistics, which are updated.
        x: [N, C, H, W]; float32 or bfloat16 on CUDA, any floating-point type elsewhere.
    """
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    if x.is_cuda and has_triton():
        rows = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        flat = rows.reshape(-1, x.shape[1])
        y = _GroupedBatchNormFunction.apply(
            flat,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
            groups,
            norm.momentum,
            norm.eps,
            relu,
        )
        return y.view(rows.shape).permute(0, 3, 1, 2)  # type: ignore[no-any-return]
    norm.num_batches_tracked.add_(groups)
    parts = [
        functional.batch_norm(
            part,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            True,
            norm.momentum,
            norm.eps,
        )
        for part in x.chunk(groups)
    ]
    y = torch.cat(parts)
    return functional.relu(y) if relu else y


@cache
def has_triton() -> bool:
    """Whether Triton can be imported; it comes with torch's CUDA builds for Linux."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


class _GroupedBatchNormFunction(torch.autograd.Function):
    """The four Triton kernels as one differentiable function of a matrix [N H W, C]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        count: Tensor,
        groups: int,
        momentum: float,
        eps: float,
        relu: bool,
    ) -> Tensor:
        from resnet_cli.kernels import batch_norm_triton as kernels

        y, mean, rstd = kernels.forward(
            x, weight, bias, running_mean, running_var, count, groups, momentum, eps, relu
        )
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups, ctx.relu = groups, relu
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from resnet_cli.kernels import batch_norm_triton as kernels

        x, weight, bias, mean, rstd = ctx.saved_tensors
        (dy,) = gradients
        dx, dweight, dbias = kernels.backward(
            dy.contiguous(), x, weight, bias, mean, rstd, ctx.groups, ctx.relu
        )
        return dx, dweight, dbias, None, None, None, None, None, None, None
