"""A network made ready for evaluation: fewer passes over memory, the same numbers to rounding."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnet_cli.models.network import Network


def folded(network: Network) -> Network:
    """A copy in evaluation mode whose batch norms are part of the convolutions before them.

    Batch norm in evaluation mode is linear, so one that follows a convolution goes into its
    weights and bias. A ReLU that follows either works in place. What the parts mean (h, F, f) and
    their order stay as they are, so studies treat the copy like any network.
    """
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
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
