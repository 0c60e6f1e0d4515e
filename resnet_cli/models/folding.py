"""Prepare a network for evaluation: fewer passes over memory, the same results up to rounding."""

import copy
from typing import TypeGuard

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnet_cli.kernels.layers import is_exactly, is_norm
from resnet_cli.models.network import Network
from resnet_cli.models.units import Subsampled1x1


def folded(network: Network) -> Network:
    """A copy in evaluation mode whose batch norms are folded into the convolutions before them.

    Batch norm in evaluation mode is affine, so one that follows a convolution can be folded into
    the convolution's weights and bias. A ReLU that follows either one works in place. The meaning
    of the parts (h, F, f) and their order do not change, so studies treat the copy like any
    network. Layers that are not exactly torch's (`is_exactly`) stay as they are.
    """
    copied = copy.deepcopy(network).eval()
    for module in list(copied.modules()):
        if is_exactly(module, nn.Sequential):
            _fold(module)
    return copied


def _fold(sequence: nn.Sequential) -> None:
    """Fold a sequence in place; folded norms are removed, other layers keep their names.

    Layers are replaced, never changed, because other parts of the network may share them.
    """
    name_before = ""
    before: nn.Module | None = None
    for name, layer in list(sequence._modules.items()):  # `named_children` skips repeated layers
        if is_norm(layer) and _is_convolution(before):
            before = fuse_conv_bn_eval(before, layer)
            setattr(sequence, name_before, before)
            delattr(sequence, name)
            continue  # `before` stays the convolution, which a ReLU now follows
        if is_exactly(layer, nn.ReLU) and (_is_convolution(before) or is_norm(before)):
            layer = nn.ReLU(inplace=True)  # nothing else uses its input
            setattr(sequence, name, layer)
        name_before, before = name, layer


def _is_convolution(module: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    return is_exactly(module, nn.Conv2d) or is_exactly(module, Subsampled1x1)
