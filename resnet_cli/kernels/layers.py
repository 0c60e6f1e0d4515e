"""Which layers compute exactly what torch's classes compute, so that faster code may replace them.

Third-party networks contain subclasses that compute something else, such as weight-standardised
convolutions or timm's batch norms with an activation. They, and layers with hooks, are used as they
are.
"""

from typing import TypeGuard, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def is_exactly(module: nn.Module | None, kind: type[M]) -> TypeGuard[M]:
    """Whether a module is of this class, not of a subclass, and has no hooks, which could change
    inputs, outputs or gradients."""
    return type(module) is kind and not (
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
    )


def is_norm(module: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a module is a batch norm with weights and running statistics: in evaluation mode it
    multiplies each channel by a constant and adds another."""
    return is_exactly(module, nn.BatchNorm2d) and module.affine and module.running_var is not None
