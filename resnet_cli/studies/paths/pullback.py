"""Vector-Jacobian products of a unit's parts, for many gradients at one forward pass.

`trace(module, x)` runs a module on x [N, C, H, W] and returns its output with a pullback: a
function that maps gradients at the output to gradients at x. Gradients are stacks
[K, N, C', H', W'], K for each image: in the paths study one for each path length.

In evaluation mode every module of the papers' networks is linear around x: a convolution, or a
multiplication by a fixed mask. Their pullbacks are computed directly, as one batch of K x N images,
without gradients of weights and without the overhead of autograd. All other modules (gates, batch
statistics, subclasses of torch's layers, other third-party modules) use autograd, with the K
gradients batched.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.kernels.layers import is_exactly, is_norm
from resnet_cli.models.units import Scale, ZeroPadding

Pullback = Callable[[Tensor], Tensor]
"""[K, N, C', H', W'] at the output -> [K, N, C, H, W] at the input. It may reuse its argument's
memory."""


def identity(gradients: Tensor) -> Tensor:
    """The pullback of the identity."""
    return gradients


def trace(module: nn.Module, x: Tensor) -> tuple[Tensor, Pullback]:
    """(module(x), its pullback at x), x [N, C, H, W] without gradient history."""
    if is_exactly(module, nn.Sequential):
        return _chain(module, x)
    if is_exactly(module, nn.Identity) or (is_exactly(module, nn.Dropout) and not module.training):
        return x, identity
    if is_exactly(module, nn.ReLU):
        y = torch.relu(x)
        return y, _multiplied((y > 0).to(x.dtype))
    if is_norm(module) and not module.training:
        y = module(x)
        return y, _multiplied(_bn_scale(module).view(1, -1, 1, 1))
    # Not `Subsampled1x1`, which avoids the backward pass of a strided convolution.
    if (
        is_exactly(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)  # by name, it may differ between two sides
    ):
        return module(x), _convolved(module, x, module.padding)
    if is_exactly(module, Scale):
        factor = module.factor
        return module(x), lambda gradients: gradients.mul_(factor)
    if is_exactly(module, ZeroPadding):
        return module(x), _unpadded(module, x)
    return trace_autograd(module, x)


def _chain(module: nn.Sequential, x: Tensor) -> tuple[Tensor, Pullback]:
    """A sequence; a batch norm and the ReLU after it become one mask."""
    pullbacks: list[Pullback] = []
    layers = list(module)
    position = 0
    while position < len(layers):
        layer = layers[position]
        following = layers[position + 1] if position + 1 < len(layers) else None
        if is_norm(layer) and not layer.training and is_exactly(following, nn.ReLU):
            x = torch.relu(layer(x))
            pullbacks.append(_multiplied((x > 0) * _bn_scale(layer).view(1, -1, 1, 1)))
            position += 2
            continue
        x, pullback = trace(layer, x)
        pullbacks.append(pullback)
        position += 1

    def chained(gradients: Tensor) -> Tensor:
        for pullback in reversed(pullbacks):
            gradients = pullback(gradients)
        return gradients

    return x, chained


def trace_autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Pullback]:
    """(function(x), its pullback at x) by autograd, for any function."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        y = function(leaf)

    def pulled(gradients: Tensor) -> Tensor:
        found: tuple[Tensor, ...] = torch.autograd.grad(
            y, leaf, gradients, retain_graph=True, is_grads_batched=True
        )
        return found[0]

    return y.detach(), pulled


def _multiplied(factor: Tensor) -> Pullback:
    """The pullback of an elementwise product; factor [N or 1, C, H or 1, W or 1]."""
    return lambda gradients: gradients.mul_(factor)


def _bn_scale(norm: nn.BatchNorm2d) -> Tensor:
    """The factor of each channel in a batch norm in evaluation mode, [C]."""
    assert norm.running_var is not None
    return (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach()


def _convolved(module: nn.Conv2d, x: Tensor, padding: tuple[int, ...]) -> Pullback:
    """The pullback of a convolution: the transposed convolution.

    At stride 1 this is a convolution with the flipped kernel, which is faster.
    """
    weight = module.weight.detach()
    plain = module.stride == (1, 1) and module.dilation == (1, 1)
    same = plain and all(
        2 * pad == kernel - 1 for pad, kernel in zip(padding, module.kernel_size, strict=True)
    )
    flipped = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
    height, width = x.shape[2:]

    def pulled(gradients: Tensor) -> Tensor:
        merged = gradients.flatten(0, 1)
        if same:
            result = functional.conv2d(merged, flipped, padding=padding)
        else:
            shape = (len(merged), module.in_channels, height, width)
            found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
                merged,
                merged.new_empty(1).expand(shape),
                weight,
                None,
                module.stride,
                padding,
                module.dilation,
                False,
                [0, 0],
                1,
                [True, False, False],
            )
            result = found[0]
        unmerged: Tensor = result.unflatten(0, gradients.shape[:2])
        return unmerged

    return pulled


def _unpadded(module: ZeroPadding, x: Tensor) -> Pullback:
    """The pullback of zero padding (option A): padded channels are dropped, skipped pixels are
    zero."""
    channels, stride, before = x.shape[1], module.stride, module.before
    kept = min(channels, channels + module.missing)

    def pulled(gradients: Tensor) -> Tensor:
        result = gradients.new_zeros(*gradients.shape[:2], *x.shape[1:])
        result[:, :, :kept, ::stride, ::stride] = gradients[:, :, before : before + kept]
        return result

    return pulled
