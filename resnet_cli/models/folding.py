"""A network made ready for evaluation: fewer passes over memory, the same numbers to rounding."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnet_cli.models.network import Network


def folded(network: Network, *, winograd: bool = False) -> Network:
    """A copy in evaluation mode whose batch norms are part of the convolutions before them.

    Batch norm in evaluation mode is linear, so one that follows a convolution goes into its
    weights and bias. A ReLU that follows either works in place. What the parts mean (h, F, f) and
    their order stay as they are, so studies treat the copy like any network.

    Args:
        winograd: 3x3 convolutions take fewer multiplications, and take the batch norm and ReLUs
            beside them along (`resnet_cli.kernels.winograd`). For processors and float32.
    """
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
            if winograd:
                _take_winograd(module)
    return copied


def _fold(sequence: nn.Sequential) -> None:
    """Fold a sequence in place; layers keep their names, folded norms become identities."""
    before: nn.Module | None = None
    for name, layer in list(sequence.named_children()):
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            fused = fuse_conv_bn_eval(before, layer)
            before.weight, before.bias = fused.weight, fused.bias
            delattr(sequence, name)
            continue  # a ReLU after it follows the convolution now
        if isinstance(layer, nn.ReLU) and isinstance(before, nn.Conv2d | nn.BatchNorm2d):
            layer.inplace = True  # its input is no one else's
        before = layer


def _take_winograd(sequence: nn.Sequential) -> None:
    """Put one layer in place of each run of [batch norm], [ReLU], convolution, [ReLU]."""
    from resnet_cli.kernels.winograd import WinogradConv2d, fits  # numba takes its time to import

    done: list[tuple[str, nn.Module]] = []
    waiting = list(sequence.named_children())
    while waiting:
        name, layer = waiting.pop(0)
        if isinstance(layer, nn.Conv2d) and fits(layer):
            relu_before = bool(done) and isinstance(done[-1][1], nn.ReLU)
            if relu_before:
                done.pop()
            last = done[-1][1] if done else None
            norm = last if isinstance(last, nn.BatchNorm2d) else None
            if norm is not None:
                done.pop()
            relu_after = bool(waiting) and isinstance(waiting[0][1], nn.ReLU)
            if relu_after:
                waiting.pop(0)
            layer = WinogradConv2d(layer, norm=norm, relu_before=relu_before, relu_after=relu_after)
        done.append((name, layer))
    for name, _ in list(sequence.named_children()):
        delattr(sequence, name)
    for name, layer in done:
        sequence.add_module(name, layer)
