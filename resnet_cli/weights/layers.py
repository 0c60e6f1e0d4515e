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

    def take(self, key: str, *shape: int | None) -> Tensor:
        """A copy of a tensor, as float32.

        Args:
            shape: of the tensor; None for a size that is not known. Further dimensions of size 1,
                as of a 1x1 convolution, are dropped.
        """
        if key not in self.tensors:
            self.refuse(key, "is missing")
        self.used.add(key)
        found = self.tensors[key].detach().float().clone()
        given = list(found.shape)
        while found.ndim > len(shape) and found.shape[-1] == 1:
            found = found.squeeze(-1)
        fits = found.ndim == len(shape) and all(
            actual == wanted or (wanted is None and actual > 0)
            for actual, wanted in zip(found.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            self.refuse(key, f"has shape {given}; expected [{wanted}]")
        return found

    def optional(self, key: str, *shape: int | None) -> Tensor | None:
        """`take`, if the tensor exists."""
        return self.take(key, *shape) if key in self.tensors else None

    def refuse(self, key: str, why: str) -> NoReturn:
        raise UserError(f"{self.source}: {key[:80]}: {why}")

    def linear(self, name: str, ins: int | None, outs: int | None = None) -> nn.Linear:
        return self.linear_of(f"{name}.weight", f"{name}.bias", ins, outs)

    def linear_of(
        self, weight: str, bias: str, ins: int | None, outs: int | None = None
    ) -> nn.Linear:
        """A linear layer, also from the weights of a 1x1 convolution; the bias may be missing."""
        w = self.take(weight, outs, ins)
        b = self.optional(bias, w.shape[0])
        made = nn.Linear(w.shape[1], w.shape[0], bias=b is not None, device="meta")
        _set(made, weight=w, bias=b)
        return made

    def conv(
        self,
        name: str,
        ins: int,
        outs: int | None = None,
        kernel: int | None = None,
        *,
        groups: int = 1,
        of_patches: bool = False,
    ) -> nn.Conv2d:
        """A convolution with a square kernel; the bias may be missing.

        Args:
            outs, kernel: None: as in the file.
            of_patches: the kernel's positions do not overlap, and there is no padding. Otherwise
                the stride is 1, and the padding keeps H and W.
        """
        key = f"{name}.weight"
        w = self.take(key, outs, ins // groups, kernel, kernel)
        b = self.optional(f"{name}.bias", w.shape[0])
        side = w.shape[3]
        if w.shape[2] != side or (side % 2 == 0 and not of_patches):
            kind = "a square kernel" if of_patches else "an odd square kernel"
            self.refuse(key, f"has shape {list(w.shape)}; expected {kind}")
        stride, padding = (side, 0) if of_patches else (1, side // 2)
        made = nn.Conv2d(
            ins, w.shape[0], side, stride, padding, 1, groups, b is not None, device="meta"
        )
        _set(made, weight=w, bias=b)
        return made

    def layer_norm(
        self, name: str, channels: int, kind: type[nn.LayerNorm] = nn.LayerNorm
    ) -> nn.LayerNorm:
        w, b = self.take(f"{name}.weight", channels), self.take(f"{name}.bias", channels)
        made = kind(channels, eps=self.epsilon, device="meta")
        _set(made, weight=w, bias=b)
        return made

    def batch_norm(self, name: str, channels: int) -> nn.BatchNorm2d:
        made = nn.BatchNorm2d(channels)
        for leaf, own in made.state_dict().items():
            key = f"{name}.{leaf}"
            if leaf == "num_batches_tracked" and key not in self.tensors:
                continue
            own.copy_(self.take(key, *own.shape))
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
