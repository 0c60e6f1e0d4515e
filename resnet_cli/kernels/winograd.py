"""Use Winograd convolutions (see `convolution`) in a network where they are faster.

They need numba, from the extra `resnet-cli[fast]`. The network's code does not refer to them:
`apply_in_training` or `apply_in_evaluation` replaces its layers from outside if `pays` returns
True.
"""

import numpy as np
import torch
from torch import Tensor, nn

from resnet_cli.kernels.layers import is_exactly, is_norm

PAYS_FROM = 2e11
"""Minimum multiply-adds for which Winograd convolutions pay off: about two seconds of work
on two cores. Compiling takes ten seconds, once per machine."""


def is_available() -> bool:
    """Whether numba, which compiles the transforms, can be imported."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def pays(multiply_adds: float, device: torch.device) -> bool:
    """Whether Winograd convolutions are available and make this much work faster."""
    return device.type == "cpu" and multiply_adds >= PAYS_FROM and is_available()


def fits(conv: nn.Conv2d) -> bool:
    """Whether this convolution can be computed with fewer multiplications."""
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == conv.padding == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.in_channels % 16 == conv.out_channels % 16 == 0
        and conv.weight.dtype == torch.float32
        and conv.weight.device.type == "cpu"
    )


def fits_image(x: Tensor) -> bool:
    """Whether images [N, C, H, W] divide into whole 4x4 tiles."""
    return x.dtype == torch.float32 and not (x.shape[2] % 4 or x.shape[3] % 4)


# --- in training ---------------------------------------------------------------------------------


class TrainingConv2d(nn.Conv2d):
    """A convolution that uses fewer multiplications in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, K, H, W]."""
        if self.training and fits_image(x):
            from resnet_cli.kernels.convolution import convolve

            return convolve(x, self.weight, self.bias)
        return super().forward(x)


def apply_in_training(network: nn.Module) -> None:
    """Make the 3x3 convolutions of a network use fewer multiplications in training.

    They keep their parameters, names and hooks: only their class changes. Each convolution should
    run in one thread, because more threads would only speed up its matrix products.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and fits(module):
            module.__class__ = TrainingConv2d


# --- in evaluation -------------------------------------------------------------------------------


class EvaluationConv2d(nn.Module):
    """[batch norm], [ReLU], 3x3 convolution, [ReLU] in evaluation mode, without gradient.

    The transforms also apply the neighbouring layers, each of which would be a separate pass over
    memory. Images that do not divide into whole tiles pass through the original layers.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        *,
        norm: nn.BatchNorm2d | None = None,
        relu_before: bool = False,
        relu_after: bool = False,
    ) -> None:
        """Copy the weights of the layers.

        Args:
            conv: a convolution for which `fits` returns True.
            norm: a batch norm for which `is_norm` returns True, applied first.
        """
        from resnet_cli.kernels.convolution import transform_weight

        super().__init__()
        assert fits(conv)
        layers = [norm, nn.ReLU() if relu_before else None, conv, nn.ReLU() if relu_after else None]
        self.layers = nn.Sequential(*(layer for layer in layers if layer is not None)).eval()
        self.relu_before, self.relu_after = relu_before, relu_after
        with torch.no_grad():
            self.weights = transform_weight(conv.weight.double()).float()
            scale, shift = torch.ones(conv.in_channels), torch.zeros(conv.in_channels)
            if norm is not None:
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                shift = norm.bias - norm.running_mean * scale
            bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.clone()
            self.scale, self.shift, self.bias = scale.numpy(), shift.numpy(), bias.numpy()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, K, H, W]."""
        from resnet_cli.kernels.convolution import NO_MINIMUM, convolve_transformed

        if not fits_image(x):
            return self.layers(x)  # type: ignore[no-any-return]
        zero = np.float32(0)
        return convolve_transformed(
            x,
            self.weights,
            self.scale,
            self.shift,
            self.bias,
            minimum_before=zero if self.relu_before else NO_MINIMUM,
            minimum_after=zero if self.relu_after else NO_MINIMUM,
        )


def apply_in_evaluation(network: nn.Module) -> None:
    """Replace each sequence [batch norm], [ReLU], 3x3 convolution, [ReLU] of a network, in place.

    The network must stay in evaluation mode and on the CPU. Layers that are not exactly torch's
    (`is_exactly`) stay as they are.
    """
    for module in list(network.modules()):
        if is_exactly(module, nn.Sequential):
            _replace_sequences(module)


def _replace_sequences(sequence: nn.Sequential) -> None:
    done: list[tuple[str, nn.Module]] = []
    waiting = list(sequence._modules.items())  # `named_children` skips repeated layers
    while waiting:
        name, layer = waiting.pop(0)
        if is_exactly(layer, nn.Conv2d) and fits(layer):
            relu_before = bool(done) and is_exactly(done[-1][1], nn.ReLU)
            if relu_before:
                done.pop()
            last = done[-1][1] if done else None
            norm = last if is_norm(last) else None
            if norm is not None:
                done.pop()
            relu_after = bool(waiting) and is_exactly(waiting[0][1], nn.ReLU)
            if relu_after:
                waiting.pop(0)
            layer = EvaluationConv2d(
                layer, norm=norm, relu_before=relu_before, relu_after=relu_after
            )
        done.append((name, layer))
    for name in list(sequence._modules):
        delattr(sequence, name)
    for name, layer in done:
        sequence.add_module(name, layer)
