"""Prepare a network for evaluation: fewer passes over memory, the same results up to rounding."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnet_cli.models.network import Network


def folded(network: Network) -> Network:
    """A copy in evaluation mode whose batch norms are folded into the convolutions before them.

    Batch norm in evaluation mode is affine, so one that follows a convolution can be folded into
    the convolution's weights and bias. A ReLU that follows either one works in place. The meaning
    of the parts (h, F, f) and their order do not change, so studies treat the copy like any
    network.
    """
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    return copied


def _fold(sequence: nn.Sequential) -> None:
    """Fold a sequence in place; folded norms are removed, other layers keep their names."""
    before: nn.Module | None = None
    for name, layer in list(sequence.named_children()):
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            fused = fuse_conv_bn_eval(before, layer)
            before.weight, before.bias = fused.weight, fused.bias
            delattr(sequence, name)
            continue  # `before` stays the convolution, which a ReLU now follows
        if isinstance(layer, nn.ReLU) and isinstance(before, nn.Conv2d | nn.BatchNorm2d):
            layer.inplace = True  # nothing else uses its input
        before = layer
