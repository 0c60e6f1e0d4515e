"""A network is a stem, a flat list of units, and a head. Its forward pass is a `for` loop."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resnet_cli.models.units import Gate, Place, PlainUnit, Unit

BatchNorm = nn.modules.batchnorm._BatchNorm
"""Batch norm of any dimension."""
NormStatistics = tuple[Tensor, Tensor, Tensor]
"""Running mean [C], running variance [C], and the number of batches averaged."""


class Network(nn.Module):
    """stem [N, 3, H, W] -> units -> head [N, classes].

    Studies run modified lists of units with the same stem and head; they never change the
    network itself.
    """

    def __init__(self, stem: nn.Module, units: Iterable[Unit], head: nn.Module) -> None:
        super().__init__()
        self.checkpoint_units = False
        """Store only the units' inputs for the backward pass and recompute the rest."""
        self._in_training: Sequence[Callable[[Tensor], Tensor]] = ()
        """The functions set by `replace_in_training`."""
        self.stem = stem
        self.units = nn.ModuleList(units)
        self.head = head

    def forward(self, images: Tensor, active: Sequence[bool] | None = None) -> Tensor:
        """[N, 3, H, W] -> logits [N, classes].

        Args:
            active: whether each unit's residual branch runs; for an inactive unit, only the
                shortcut is computed, forward and backward. None means that all are active.
        """
        x = self.stem(images)
        for index, unit in enumerate(self.unit_list):
            if active is not None and not active[index]:
                x = unit.skip(x)
            elif self.checkpoint_units and torch.is_grad_enabled():
                x = _recomputed(unit, x)
            elif self._in_training and self.training:
                x = self._in_training[index](x)
            else:
                x = unit(x)
        return self.head(x)  # type: ignore[no-any-return]

    def replace_in_training(self, units: Sequence[Callable[[Tensor], Tensor]]) -> None:
        """Use these functions in place of the active units, during training only. They compute the
        same values; an empty sequence restores the units."""
        self._in_training = units

    @property
    def unit_list(self) -> list[Unit]:
        """The units in forward order, with their type."""
        return [unit for unit in self.units if isinstance(unit, Unit)]

    @property
    def places(self) -> list[Place]:
        return [unit.place for unit in self.unit_list]

    @property
    def is_plain(self) -> bool:
        """Whether this is a plain network (VGG): its units, deleted or not, have no shortcuts."""
        return any(isinstance(module, PlainUnit) for module in self.modules())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def batch_norms(module: nn.Module) -> list[BatchNorm]:
    """The batch norms of a module, in the order of its modules."""
    return [norm for norm in module.modules() if isinstance(norm, BatchNorm)]


def running_statistics(norm: BatchNorm) -> NormStatistics:
    """The buffers of a batch norm that keeps running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    return norm.running_mean, norm.running_var, norm.num_batches_tracked


def _recomputed(unit: Unit, x: Tensor) -> Tensor:
    """unit(x), with its inner activations recomputed in the backward pass.

    The recomputation must not update the running statistics a second time.
    """
    norms = batch_norms(unit)

    @contextmanager
    def frozen_statistics() -> Iterator[None]:
        kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, count) in zip(norms, kept, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics()

    y = checkpoint(unit, x, use_reentrant=False, context_fn=contexts)
    assert isinstance(y, Tensor)
    return y


@contextmanager
def evaluation_mode(network: Network, *, batch_statistics: bool = False) -> Iterator[None]:
    """Set the network to evaluation mode; its previous mode is restored afterwards.

    Args:
        batch_statistics: normalise with each batch's own statistics, as in training, without
            updating the running statistics.
    """
    was_training = network.training
    norms = batch_norms(network)
    tracked = [norm.track_running_stats for norm in norms]
    network.eval()
    if batch_statistics:
        for norm in norms:
            norm.train()
            norm.track_running_stats = False  # so that batches are not counted either
    try:
        yield
    finally:
        for norm, tracks in zip(norms, tracked, strict=True):
            norm.track_running_stats = tracks
        network.train(was_training)


class Head(nn.Module):
    """The last activation (if any), global average pooling, and the linear classifier."""

    def __init__(self, last_activation: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.last_activation = last_activation
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last_activation(x)
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def initialize(network: nn.Module) -> None:
    """He initialisation (He et al. 2015, arXiv:1502.01852), drawn from torch's global generator.

    Convolutions: normal with variance 2 / (kernel area x output channels), as in the authors'
    released code. Batch norm: weight 1, bias 0. Linear layers: torch's uniform distribution, bias
    0. Gates: weights like other convolutions, bias from the configuration (paper 1, section 3.1).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, BatchNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Gate) and module.conv.bias is not None:
            nn.init.constant_(module.conv.bias, module.initial_bias)


@dataclass(frozen=True)
class Size:
    """The size of a network for an input size."""

    units: int
    layers: int
    """Weighted layers: convolutions outside shortcuts and gates, and linear layers. This is the
    number in the network's name."""
    parameters: int
    multiply_adds: int
    """For one image, in all convolutions and linear layers, including shortcuts and gates."""


@torch.no_grad()
def measure(network: Network, image_size: int) -> Size:
    """Count units, layers, parameters and multiply-adds, with a forward pass of one image."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            area = module.kernel_size[0] * module.kernel_size[1]
            per_value = area * module.in_channels // module.groups
        else:
            assert isinstance(module, nn.Linear)
            per_value = module.in_features
        total += output.numel() * per_value

    first = next(iter(network.parameters()))
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [module.register_forward_hook(count) for module in weighted]
    was_training = network.training
    try:
        network.eval()
        network(first.new_zeros(1, 3, image_size, image_size))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    in_shortcuts = set()
    for unit in network.unit_list:
        for name in ("h", "gate"):
            part = getattr(unit, name, None)
            in_shortcuts |= set(part.modules()) if isinstance(part, nn.Module) else set()
    return Size(
        units=len(network.units),
        layers=sum(module not in in_shortcuts for module in weighted),
        parameters=sum(p.numel() for p in network.parameters()),
        multiply_adds=total,
    )


def same_shape_groups(places: Sequence[Place]) -> list[list[int]]:
    """Indices of units that can be exchanged: same stage and channels, stride 1.

    Units that change the shape do not belong to any group.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for place in places:
        if not place.changes_shape:
            groups.setdefault((place.stage, place.out_channels), []).append(place.index)
    return list(groups.values())
