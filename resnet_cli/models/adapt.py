"""Use any residual network written in PyTorch, by dividing it into stem, units and head.

A user's own file calls `adapt`; `--checkpoint FILE.py` runs the function `network` in that file and
studies the network that it returns:

    # mine.py
    import torch
    from torch import nn
    from resnet_cli.models.adapt import Parts, adapt
    from mylab import wide_resnet          # any nn.Module, with its weights loaded

    def network():
        model = wide_resnet()
        model.load_state_dict(torch.load("wrn.pt", weights_only=True))
        return adapt(
            model,
            stem=model.conv1,
            units=[
                Parts(
                    pre=nn.Sequential(block.bn1, nn.ReLU()),   # before both branches
                    h=block.shortcut,                          # None: the identity
                    F=nn.Sequential(block.conv1, block.bn2, nn.ReLU(), block.conv2),
                )
                for stage in (model.layer1, model.layer2, model.layer3)
                for block in stage
            ],
            head=nn.Sequential(model.bn, nn.ReLU(), model.pool, nn.Flatten(), model.fc),
            example=torch.randn(2, 3, 32, 32),
        )

    # resnet-cli lesion --blocks 1 --checkpoint mine.py --dataset cifar10 --normalize cifar

The file is a program that runs with your permissions: use only files that you trust.
"""

import copy
import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from resnet_cli.models.network import Network
from resnet_cli.models.units import Place, ResidualUnit
from resnet_cli.runtime.errors import UserError, one_line

FUNCTION = "network"
"""The function without parameters that a user's file must define."""
TOLERANCE = 1e-4
"""Largest allowed difference between the logits of an adapted network and the original, relative to
the largest logit."""


@dataclass(frozen=True)
class Parts:
    """One residual unit of a third-party network: y = h(pre(x)) + F(pre(x)), x_next = f(y).

    None means the identity.
    """

    F: nn.Module
    h: nn.Module | None = None
    f: nn.Module | None = None
    pre: nn.Module | None = None


@dataclass(frozen=True)
class Adapted:
    """A third-party network, ready for every study."""

    network: Network
    """The network, in evaluation mode."""
    num_classes: int


def adapt(
    model: nn.Module,
    *,
    stem: nn.Module,
    units: Sequence[Parts],
    head: nn.Module,
    example: Tensor,
) -> Adapted:
    """Convert a model to a network of stem, units and head.

    Its modules are copies of the model's, in evaluation mode, without in-place operations.

    Args:
        model: the whole model, images -> logits, used to check the result.
        units: in forward order.
        head: from the last unit's output to logits [N, classes].
        example: images [N, 3, H, W] of the model's input size; they may be random.

    Raises:
        UserError: the parts do not fit together, or their logits differ from the model's.
    """
    if not units:
        raise UserError("adapt: units is empty; give at least one residual unit")
    given = nn.ModuleList(nn.ModuleList(_modules(parts)) for parts in units)
    stem, given, head = copy.deepcopy((stem, given, head))  # together: shared modules stay shared
    for module in nn.ModuleList([stem, given, head]).modules():
        if getattr(module, "inplace", False):
            module.__dict__["inplace"] = False  # lesion studies reuse stored activations
    built: list[ResidualUnit] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            x = stem.eval()(example)
            for index, modules in enumerate(given):
                assert isinstance(modules, nn.ModuleList)
                unit, x = _unit(modules.eval(), x, index, built[-1].place if built else None)
                built.append(unit)
            network = Network(stem, built, head).eval()
            expected, found = model(example), network(example)
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"adapt: the parts do not fit: {one_line(error)}") from None
    finally:
        model.train(was_training)
    if found.shape != expected.shape or found.ndim != 2:
        raise UserError(
            f"adapt: the output of stem, units and head has shape {tuple(found.shape)}, and that "
            f"of the model {tuple(expected.shape)}; the head must end with the logits"
        )
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * float(expected.abs().max()):
        raise UserError(
            f"adapt: the logits of stem, units and head differ from the model's "
            f"by {difference:.3g}; check the order of the units and the parts of each unit"
        )
    return Adapted(network.to(memory_format=torch.channels_last), num_classes=found.shape[1])


def _modules(parts: Parts) -> list[nn.Module]:
    """pre, h, F, f."""
    found = [parts.pre, parts.h, parts.F, parts.f]
    return [nn.Identity() if module is None else module for module in found]


def _unit(
    modules: nn.ModuleList, x: Tensor, index: int, before: Place | None
) -> tuple[ResidualUnit, Tensor]:
    """The unit made of four modules, with its position and shapes taken from x, and its output."""
    pre, h, F, f = modules
    y = pre(x)
    shortcut, residual = h(y), F(y)
    if shortcut.shape != residual.shape:
        raise UserError(
            f"adapt: unit {index}: the output of h has shape {tuple(shortcut.shape)}, and "
            f"that of F {tuple(residual.shape)}; pass the projection as h"
        )
    z = f(shortcut + residual)
    if z.ndim < 2 or x.ndim < 2:
        raise UserError(f"adapt: unit {index}: the output must be [N, ...], not {z.ndim}-D")
    changes = x.shape[1:] != z.shape[1:]
    stage = 1 if before is None else before.stage + changes
    number = 1 if before is None or changes else before.number + 1
    place = Place(index, stage, number, *_channels_and_stride(x, z))
    return ResidualUnit(place, pre=pre, h=h, F=F, f=f), z


def _channels_and_stride(x: Tensor, z: Tensor) -> tuple[int, int, int]:
    """Channels in and out, and the stride, which is 1 only if the shape does not change.

    The channels are the second dimension of [N, C, H, W] and the last dimension of any other shape,
    such as a transformer's tokens [N, T, D].
    """
    channel, length = (1, 2) if x.ndim == z.ndim == 4 else (-1, 1)
    ins, outs = x.shape[channel], z.shape[channel]
    stride = max(1, round(x.shape[length] / z.shape[length])) if x.ndim == z.ndim > 2 else 1
    if stride == 1 and ins == outs and x.shape[1:] != z.shape[1:]:
        stride = 2
    return ins, outs, stride


def load_adapted(path: Path) -> Adapted:
    """Run a user's file and return the network from its function `network`.

    Raises:
        UserError: the file or its function fails, or does not return an adapted network.
    """
    spec = importlib.util.spec_from_file_location(f"_resnet_cli_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # the file may import modules next to it
    try:
        spec.loader.exec_module(module)
        function = getattr(module, FUNCTION, None)
        if not callable(function):
            raise UserError(f"{path}: has no function {FUNCTION}(); see resnet_cli.models.adapt")
        adapted = function()
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(str(path)) else f"{path}: {error}") from None
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {one_line(error)}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(adapted, Adapted):
        raise UserError(
            f"{path}: {FUNCTION}() returned {type(adapted).__name__}; return the result of "
            "adapt(...)"
        )
    return adapted


def weights_hash(network: Network) -> str:
    """SHA-256 of the names and values of all parameters and buffers, as 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
