"""The exact spectrum: the sum of the gradients along all paths of each length."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cli.models.network import Network, evaluation_mode
from resnet_cli.runtime import processes
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.threads import map_in_threads
from resnet_cli.studies.base import check_unit
from resnet_cli.studies.paths.cut import Cut, CutNetwork
from resnet_cli.studies.progress import Report, check_of, pieces_of

UNIT_CHUNK = 16
"""Images whose gradients at one unit's parameters autograd computes together."""
SWEEP_CHUNK = 4
"""Images propagated together in an exact sweep."""
CACHED_BYTES = 1 << 20
"""Size of the gradients propagated through a unit together on a CPU core."""


@dataclass(frozen=True)
class ExactSpectrum:
    """The gradient by path length over one batch, and the check of its sum."""

    norms: list[float]
    """For each k, the L2 norm of the sum of the gradients along all paths of length k."""
    check: float
    """|| sum over k - ordinary gradient || / || ordinary gradient ||."""
    images: int
    cumulative: Sequence[tuple[float, float]] = ()
    """For each k, of the sum of the gradients along all paths of length at most k: the cosine with
    the ordinary gradient, and the norm relative to it. NaN where a norm is zero."""


def exact_spectrum(
    network: Network,
    images: Tensor,
    labels: Tensor,
    counted: Collection[int] | None = None,
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> ExactSpectrum:
    """The exact spectrum of the gradient of the mean loss over a batch, with running statistics.

    In evaluation mode images do not influence each other, so the sweep takes chunks of images, on a
    CPU one on each core. Each holds (n + 1) gradients of a chunk at the largest activation. Under
    torchrun each process takes its share of the chunks, and all return the same.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
        counted: the units that count towards a path's length; None: all (`gradient_by_length`).
    """
    num_counted = len(network.units) if counted is None else len(set(counted))
    sums = torch.zeros(3, num_counted + 1, dtype=torch.float64)
    difference = ordinary_square = 0.0
    total = len(labels)
    chunk = SWEEP_CHUNK
    starts = range(0, total, chunk)
    starts = starts[processes.share(len(starts))]

    def sweep(start: int) -> tuple[Tensor, float, float]:
        x, y = images[start : start + chunk], labels[start : start + chunk]
        share = len(y) / total
        cut = CutNetwork(network, x, y, engine=engine, check=check_of(report))
        by_length = gradient_by_length(cut, counted) * share
        ordinary = _ordinary_gradient(network, x, y).double() * share
        squares = by_length.square().flatten(1).sum(1)
        whole = by_length.sum(0)
        up_to = by_length.flatten(1).cumsum_(0)
        found = [squares, up_to @ ordinary.flatten(), up_to.square().sum(1)]
        return (
            torch.stack(found).cpu(),
            float((whole - ordinary).square().sum()),
            float(ordinary.square().sum()),
        )

    own: list[tuple[Tensor, float, float]] = []
    end = min(starts.stop, total)
    with evaluation_mode(network):  # set once: threads would restore it for each other
        in_threads = engine == "fast" and images.device.type == "cpu"
        measured = partial(map_in_threads, sweep, parallel=in_threads)
        for start, found in zip(starts, pieces_of(report, starts, measured), strict=True):
            own.append(found)
            report(min(start + chunk, end) - starts.start, end - starts.start)
    for of_chunk, its_difference, its_ordinary in processes.gather_lists(own):
        sums += of_chunk
        difference += its_difference
        ordinary_square += its_ordinary
    squares, products, up_to = sums
    cosines = products / (up_to * ordinary_square).sqrt()
    shares = (up_to / ordinary_square).sqrt()
    return ExactSpectrum(
        squares.sqrt().tolist(),
        _relative(difference, ordinary_square),
        total,
        list(zip(cosines.tolist(), shares.tolist(), strict=True)),
    )


def exact_spectrum_of_unit(
    network: Network,
    images: Tensor,
    labels: Tensor,
    unit: int,
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> ExactSpectrum:
    """The exact spectrum of the gradient at the parameters of one unit's residual branch.

    The paths go from the loss through the units after this one and end in its F, which counts
    towards their length: k is 1 to (units after it) + 1, and norms[0] is zero.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
        unit: index, from 0.

    Raises:
        UserError: the unit does not exist.
    """
    check_unit(unit, len(network.units))
    total = len(labels)
    sums: list[Tensor] = []
    ordinary: list[Tensor] = []
    for start in range(0, total, UNIT_CHUNK):
        x, y = images[start : start + UNIT_CHUNK], labels[start : start + UNIT_CHUNK]
        cut = CutNetwork(network, x, y, engine=engine, check=check_of(report))
        found, whole = _at_unit(network, cut, x, y, unit, len(y) / total)
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        ordinary = [a + b for a, b in zip(ordinary, whole, strict=True)] if ordinary else whole
        report(min(start + UNIT_CHUNK, total), total)
    squares = torch.stack([s.flatten(1).square().sum(1) for s in sums]).sum(0)
    pairs = list(zip(sums, ordinary, strict=True))
    difference = math.fsum(float((s.sum(0) - whole).square().sum()) for s, whole in pairs)
    ordinary_square = math.fsum(float(whole.square().sum()) for whole in ordinary)
    norms = [0.0, *squares.sqrt().tolist()]
    return ExactSpectrum(norms, _relative(difference, ordinary_square), total)


def _at_unit(
    network: Network, cut: CutNetwork, x: Tensor, y: Tensor, unit: int, share: float
) -> tuple[list[Tensor], list[Tensor]]:
    """The gradient at each parameter of a unit's residual branch, for a chunk of a batch: float64
    [lengths, *shape] by length, and [*shape] by an ordinary backward pass.

    Args:
        cut: the network at the chunk.
        share: of the chunk in the batch.
    """
    target = network.unit_list[unit]
    parameters = list(target.residual_parameters())
    gradients = cut.units[unit].after(_sweep(cut, range(unit + 1, len(network.units))))
    with evaluation_mode(network):
        with torch.no_grad():
            z = network.stem(x)
            for before in network.unit_list[:unit]:
                z = before(z)
        with torch.enable_grad():
            residual = target.branches(z)[1]
            boosted = torch.autograd.grad(residual, parameters, gradients, is_grads_batched=True)
            loss = functional.cross_entropy(network(x), y)
            whole = torch.autograd.grad(loss, parameters)
    by_length = [cut.unboosted(g, _lengths_of(g)) * share for g in boosted]
    return by_length, [w.double() * share for w in whole]


def _relative(difference_square: float, reference_square: float) -> float:
    if reference_square == 0.0:
        return math.sqrt(difference_square)
    return math.sqrt(difference_square / reference_square)


def _ordinary_gradient(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the mean loss at the images by an ordinary backward pass, [N, 3, H, W]."""
    with evaluation_mode(network), torch.enable_grad():
        leaf = images.detach().requires_grad_()
        loss = functional.cross_entropy(network(leaf), labels)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def gradient_by_length(cut: CutNetwork, counted: Collection[int] | None = None) -> Tensor:
    """The exact spectrum: float64 [n + 1, N, 3, H, W]. Entry k is the sum of the gradients at the
    images along all paths of length k; the sum over k is the ordinary gradient.

    Args:
        counted: the n units whose residual branches count towards a path's length; the others pass
            the whole gradient, through both branches. None: all.
    """
    gradients = cut.stem(_sweep(cut, range(len(cut)), counted))
    return cut.unboosted(gradients, _lengths_of(gradients))


def _lengths_of(gradients: Tensor) -> Tensor:
    """The lengths of a stack of gradients, in a shape that broadcasts over it."""
    lengths = torch.arange(len(gradients), device=gradients.device)
    return lengths.view(-1, *[1] * (gradients.ndim - 1))


def _sweep(cut: CutNetwork, units: range, counted: Collection[int] | None = None) -> Tensor:
    """The gradients by length at the input of the first of `units`, propagated from the top; those
    of length k are boosted k times (`CutNetwork.boost`).

    All lengths are in one stack, which each unit changes in place, a few lengths at a time: as many
    as fit the cache of a core, since more would only move memory.
    """
    is_counted = [counted is None or index in counted for index in range(len(cut))]
    num_lengths = 1 + sum(is_counted[index] for index in units)
    reached = 1  # number of lengths so far
    gradients = _stack(num_lengths, cut.top[0])
    gradients[:1] = cut.top
    for index in reversed(units):
        cut.check()
        boost = cut.boost if is_counted[index] else None
        gradients = _pass_unit(cut.units[index], gradients, reached, boost)
        reached += is_counted[index]
    return gradients


def _stack(num_lengths: int, like: Tensor) -> Tensor:
    """Zeros [num_lengths, N, C, H, W] in the memory format of `like`, [N, C, H, W]."""
    images = like.new_zeros((num_lengths * len(like), *like.shape[1:]))
    if like.is_contiguous(memory_format=torch.channels_last):
        images = images.contiguous(memory_format=torch.channels_last)
    stack: Tensor = images.unflatten(0, (num_lengths, len(like)))
    return stack


def _pass_unit(unit: Cut, gradients: Tensor, reached: int, boost: float | None) -> Tensor:
    """Propagate a stack of gradients through a unit, from its output to its input.

    Args:
        gradients: [K, N, C, H, W], of which the first `reached` are propagated; the others are
            memory for later ones. Changed in place if the unit keeps the shape.
        boost: the factor of the residual branch, which makes paths one longer; None: it does not
            count towards the length.
    """
    step = reached
    if gradients.device.type == "cpu":
        step = max(1, CACHED_BYTES // (gradients[0].numel() * gradients.element_size()))
    at_input: Tensor | None = None
    for start in reversed(range(0, reached, step)):  # entry k is read before k - 1 is added
        end = min(start + step, reached)
        after = unit.after(gradients[start:end])
        # The residual branch goes first and on a copy: pullbacks may reuse their argument.
        longer = unit.residual(after.clone())
        same = unit.shortcut(after)
        if at_input is None:
            keeps_shape = same.shape[1:] == gradients.shape[1:]
            at_input = gradients if keeps_shape else _stack(len(gradients), same[0])
        shift = int(boost is not None)
        if same.data_ptr() != at_input[start].data_ptr():
            at_input[start:end] = same
        at_input[start + shift : end + shift].add_(longer, alpha=1.0 if boost is None else boost)
    assert at_input is not None
    return at_input
