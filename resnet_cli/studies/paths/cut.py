"""One forward pass of a network, split into the parts through which gradients are propagated.

Shapes: N images, C channels, H and W pixels, K gradients.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cli.models.network import Network, evaluation_mode
from resnet_cli.models.units import ResidualUnit, Unit
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.paths.pullback import Pullback, identity, trace, trace_autograd


@dataclass(frozen=True)
class Cut:
    """The pullbacks of one unit, at the activations of one forward pass."""

    after: Pullback
    """From the unit's output to its sum, through f."""
    shortcut: Pullback
    """From the sum to the unit's input, through h."""
    residual: Pullback
    """From the sum to the unit's input, through F."""


class CutNetwork:
    """A network at one batch, cut between its units, so that gradients can be propagated through
    either branch of each.

    The loss is the mean cross-entropy over the batch.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
        batch_statistics: normalise by the statistics of the batch, as in training, without
            updating the running statistics; default: by the running statistics.
        engine: `plain` propagates all gradients by autograd.
        check: called at every unit, forward and backward; stops on request (`progress.check_of`).

    Raises:
        UserError: the network has no shortcuts.
    """

    def __init__(
        self,
        network: Network,
        images: Tensor,
        labels: Tensor,
        *,
        batch_statistics: bool = False,
        engine: Engine = "fast",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.check = check
        if network.is_plain:
            raise UserError("a plain network (VGG) has one path only; paths needs shortcuts")
        with evaluation_mode(network, batch_statistics=batch_statistics), torch.no_grad():
            follow = trace if engine == "fast" else trace_autograd
            x, self.stem = follow(network.stem, images.detach())
            self.units: list[Cut] = []
            for unit in network.unit_list:
                check()
                x, cut = _cut(unit, x, engine)
                self.units.append(cut)
            _, head = trace_autograd(lambda y: functional.cross_entropy(network.head(y), labels), x)
            self.top = head(torch.ones(1, device=x.device, dtype=x.dtype))
            """The loss's gradient at the last unit's output, [1, N, C, H, W]."""
            self.boost = self._boost()
            """The factor by which the gradient of every residual branch is multiplied, a power of
            two: the gradient along a path of length k is boost^k times too large."""

    def __len__(self) -> int:
        return len(self.units)

    def _boost(self) -> float:
        """The power of two nearest to 1 / (mean gain of a residual branch).

        The mean is the geometric mean of the factors by which the branches change the norm of the
        ordinary gradient, without branches that are zero; 1 if all are.
        """
        gradient, gains = self.top.clone(), []
        for unit in reversed(self.units):
            self.check()
            after = unit.after(gradient)
            norm = after.norm()
            residual = unit.residual(after.clone())
            gains.append(residual.norm() / norm)
            gradient = (unit.shortcut(after) + residual) / norm
        logs = torch.stack(gains).double().log2()
        logs = logs[logs.isfinite()]
        return 2.0 ** -round(float(logs.mean())) if len(logs) else 1.0

    def unboosted(self, gradient: Tensor, k: int | Tensor) -> Tensor:
        """Gradients along paths of length k, without the boost, in float64."""
        return gradient.double() * torch.as_tensor(self.boost, dtype=torch.float64) ** -k


def _cut(unit: Unit, x: Tensor, engine: Engine) -> tuple[Tensor, Cut]:
    """A unit's output at x and the pullbacks of its parts."""
    if engine == "plain":
        shortcut, h = trace_autograd(unit.shortcut, x)
        residual, F = trace_autograd(lambda x: unit.branches(x)[1], x)
        out, f = trace_autograd(unit.after, shortcut + residual)
        return out, Cut(f, h, F)
    if isinstance(unit, ResidualUnit) and unit.gate is None and unit.survival == 1.0:
        x, pre = trace(unit.pre, x)
        shortcut, h = trace(unit.h, x)
        residual, F = trace(unit.F, x)
        out, f = trace(unit.f, shortcut + residual)
        return out, Cut(f, _after(h, pre), _after(F, pre))
    shortcut, h = trace_autograd(unit.shortcut, x)
    residual, F = trace_autograd(lambda x: unit.branches(x)[1], x)
    out, f = trace(unit.f, shortcut + residual)
    return out, Cut(f, h, F)


def _after(first: Pullback, second: Pullback) -> Pullback:
    if second is identity:
        return first
    return lambda gradients: second(first(gradients))


def path_gradient(cut: CutNetwork, units: Iterable[int]) -> Tensor:
    """The gradient at the images along one path, float64 [N, 3, H, W].

    Args:
        units: the units passed through their residual branch; all others are passed through their
            shortcut.
    """
    chosen = set(units)
    gradient = cut.top.clone()
    for index in reversed(range(len(cut))):
        cut.check()
        unit = cut.units[index]
        gradient = unit.after(gradient)
        if index in chosen:
            gradient = unit.residual(gradient).mul_(cut.boost)
        else:
            gradient = unit.shortcut(gradient)
    return cut.unboosted(cut.stem(gradient)[0], len(chosen))
