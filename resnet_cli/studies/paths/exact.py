"""The exact spectrum: the gradient that all paths of a length deliver together."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

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
"""Images whose gradients at one unit's parameters autograd carries at a time."""
SWEEP_CHUNK = 4
"""Images carried through an exact sweep at a time."""
CACHED_BYTES = 1 << 20
"""Of the gradients sent through a unit at a time on a CPU core."""


@dataclass(frozen=True)
class ExactSpectrum:
    """The gradient by path length over one batch, and how well its sum was checked."""

    norms: list[float]
    """For each k, the L2 norm of the gradient that all paths of length k deliver together."""
    check: float
    """|| sum over k - ordinary gradient || / || ordinary gradient ||."""
    images: int
    cumulative: Sequence[tuple[float, float]] = ()
    """For each k, of the gradient that all paths of at most length k deliver together: its cosine
    with the ordinary gradient, and its norm over that one's. NaN where a norm is zero."""


def exact_spectrum(
    network: Network,
    images: Tensor,
    labels: Tensor,
    counted: Collection[int] | None = None,
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> ExactSpectrum:
    """The exact gradient spectrum of the mean loss over a batch, by running batch statistics.

    In evaluation mode images do not see one another, so the sweep takes a chunk at a time, on a CPU
    one on each core; memory is, for each, (n + 1) gradients of a chunk at the widest activation.
    Under torchrun each process takes its share of the chunks, and all return the same.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
        counted: the units that count for a path's length; None: all (`gradient_by_length`).
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
    with evaluation_mode(network):  # for all threads at once: each would restore it to the others
        in_threads = engine == "fast" and images.device.type == "cpu"

        def measured(starts: Sequence[int]) -> Iterator[tuple[Tensor, float, float]]:
            return map_in_threads(sweep, starts, parallel=in_threads)

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

    The paths lead from the loss through the units after it and end in its F, which counts as one:
    k is 1 to (units after it) + 1, and norms[0] is zero.

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
    """The gradient at each parameter of a unit's residual branch, for some images of a batch:
    float64 [lengths, *shape] by length, and [*shape] by an ordinary backward pass.

    Args:
        cut: the network at these images.
        share: of these images in the batch.
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
    """The gradient of the mean loss at the images by a plain backward pass, [N, 3, H, W]."""
    with evaluation_mode(network), torch.enable_grad():
        leaf = images.detach().requires_grad_()
        loss = functional.cross_entropy(network(leaf), labels)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def gradient_by_length(cut: CutNetwork, counted: Collection[int] | None = None) -> Tensor:
    """The exact spectrum: float64 [n + 1, N, 3, H, W], entry k the gradient at the images that all
    paths of length k deliver together. Its sum over k is the ordinary gradient.

    Args:
        counted: the units whose residual branches count for a path's length, n of them; the
            others pass the gradient whole, by both branches. None: all.
    """
    gradients = cut.stem(_sweep(cut, range(len(cut)), counted))
    return cut.unboosted(gradients, _lengths_of(gradients))


def _lengths_of(gradients: Tensor) -> Tensor:
    """The length of each of a stack of gradients, of a shape that multiplies them."""
    lengths = torch.arange(len(gradients), device=gradients.device)
    return lengths.view(-1, *[1] * (gradients.ndim - 1))


def _sweep(cut: CutNetwork, units: range, counted: Collection[int] | None = None) -> Tensor:
    """The gradients by length at the input of the first of `units`, backpropagated from the top;
    those of length k are boosted k times (`CutNetwork.boost`).

    All lengths lie in one stack, which a unit changes in place, a few lengths at a time: as many as
    a core's cache holds, since leading more of them through at once only moves memory.
    """
    is_counted = [counted is None or index in counted for index in range(len(cut))]
    num_lengths = 1 + sum(is_counted[index] for index in units)
    reached = 1  # lengths that there are so far
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
    """Lead a stack of gradients through a unit, from its output to its input.

    Args:
        gradients: [K, N, C, H, W], of which the first `reached` are led, and memory for the rest;
            changed in place where the unit keeps the shape.
        boost: what passes the residual branch becomes one longer, and is multiplied by this. None:
            it does not count.
    """
    step = reached
    if gradients.device.type == "cpu":
        step = max(1, CACHED_BYTES // (gradients[0].numel() * gradients.element_size()))
    at_input: Tensor | None = None
    for start in reversed(range(0, reached, step)):  # long ones first: k + 1 is done before k
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
