"""Layers made from named tensors, for networks whose structure is known from their keys."""

from collections.abc import Mapping
from typing import NoReturn

from torch import Tensor, nn

from resnet_cli.runtime.errors import UserError


class LayerReader:
    """Makes layers from the tensors of a state dict, and records which tensors were used.

    Args:
        source: the name of the file, for error messages.
        epsilon: of all layer norms.

    Every method raises UserError if a tensor is missing or has the wrong shape.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str, epsilon: float = 1e-5) -> None:
        self.tensors, self.source, self.epsilon = tensors, source, epsilon
        self.used: set[str] = set()

    def take(self, key: str) -> Tensor:
        """A copy of a tensor, as float32."""
        if key not in self.tensors:
            self.refuse(key, "is missing")
        self.used.add(key)
        return self.tensors[key].detach().float().clone()

    def optional(self, key: str) -> Tensor | None:
        """A copy of a tensor, if it exists."""
        return self.take(key) if key in self.tensors else None

    def refuse(self, key: str, why: str) -> NoReturn:
        raise UserError(f"{self.source}: {key[:80]}: {why}")

    def linear(self, name: str) -> nn.Linear:
        return self.linear_of(f"{name}.weight", f"{name}.bias")

    def linear_of(self, weight: str, bias: str) -> nn.Linear:
        """A linear layer, also from the weights of a 1x1 convolution; the bias may be missing."""
        w, b = self.take(weight), self.optional(bias)
        w = w.flatten(1) if w.shape[2:] == (1, 1) else w
        if w.ndim != 2 or (b is not None and b.shape != w.shape[:1]):
            self.refuse(weight, f"has shape {list(w.shape)}; expected a linear layer")
        made = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device="meta")
        _set(made, weight=w, bias=b)
        return made

    def conv(self, name: str, stride: int, padding: int = 0, groups: int = 1) -> nn.Conv2d:
        """A convolution with a square kernel; the bias may be missing."""
        w, b = self.take(f"{name}.weight"), self.optional(f"{name}.bias")
        if w.ndim != 4 or w.shape[2] != w.shape[3]:
            self.refuse(f"{name}.weight", f"has shape {list(w.shape)}; expected a convolution")
        ins, has_bias = w.shape[1] * groups, b is not None
        made = nn.Conv2d(
            ins, w.shape[0], w.shape[2], stride, padding, 1, groups, has_bias, device="meta"
        )
        _set(made, weight=w, bias=b)
        return made

    def layer_norm(self, name: str, kind: type[nn.LayerNorm] = nn.LayerNorm) -> nn.LayerNorm:
        w, b = self.take(f"{name}.weight"), self.take(f"{name}.bias")
        made = kind(w.shape[0], eps=self.epsilon, device="meta")
        _set(made, weight=w, bias=b)
        return made

    def batch_norm(self, name: str, channels: int) -> nn.BatchNorm2d:
        made = nn.BatchNorm2d(channels)
        for leaf, own in made.state_dict().items():
            key = f"{name}.{leaf}"
            if leaf == "num_batches_tracked" and key not in self.tensors:
                continue
            given = self.take(key)
            if given.shape != own.shape:
                self.refuse(key, f"has shape {list(given.shape)}; expected {list(own.shape)}")
            own.copy_(given)
        return made

    def check_all_used(self) -> None:
        """Check that every tensor is part of the network.

        Raises:
            UserError: one is not.
        """
        for key in self.tensors:
            if key not in self.used:
                self.refuse(key, "not part of a network of this kind that can be loaded")


def _set(layer: nn.Module, **values: Tensor | None) -> None:
    """Set parameters of a layer on the meta device."""
    for name, value in values.items():
        setattr(layer, name, None if value is None else nn.Parameter(value))
