"""Paths through a residual network: their lengths, and the gradient by length (Figure 6).

A network of n units has 2^n paths: each unit is passed through its shortcut or through its
residual branch, and a path's length k is the number of residual branches on it. With J_i the
Jacobian of F_i and S_i that of h_i at the activations of one forward pass, the gradient at the
input splits into one term for each path.

Two measurements:
- sampled, as published: draw a path of length k, take the norm of the gradient it alone delivers,
  and multiply the mean norm by the number of paths C(n, k);
- exact: carry the sums over all paths of each length in one backward sweep,
      G_i[k] = S_i^T f_i'^T G_{i+1}[k] + J_i^T f_i'^T G_{i+1}[k-1],
  so that G_0[k] is the gradient that all paths of length k deliver together. Its sum over k is
  the ordinary gradient.
The first ignores that gradients of different paths cancel; the second does not.

A trained network's gradient shrinks at every residual branch, over 54 of them to less than float32
can hold. So each branch's gradient is multiplied by a power of two that keeps long paths as large
as short ones (`CutNetwork.boost`), which changes no digit; results are brought back in float64.

Shapes: N images, C channels, H and W pixels, K path lengths.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cli.datasets.data import Batches, to_device
from resnet_cli.models.network import Network, evaluation_mode
from resnet_cli.models.units import PlainUnit, ResidualUnit, Unit
from resnet_cli.runtime import processes
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.seeding import stream
from resnet_cli.runtime.threads import map_in_threads
from resnet_cli.studies.pullback import Pullback, identity, trace, trace_autograd

Row = dict[str, Any]
Report = Callable[[int, int], None]


# --- lengths -----------------------------------------------------------------------------------


def path_lengths(num_units: int) -> list[Row]:
    """Rows of path_lengths.csv: the number of paths of each length, C(n, k) of 2^n, exactly."""
    return [
        {
            "k": k,
            "paths": math.comb(num_units, k),
            "fraction": math.comb(num_units, k) / 2**num_units,
        }
        for k in range(num_units + 1)
    ]


# --- one forward pass, cut into its pieces -----------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    """How gradients pass one unit, at the activations of one forward pass."""

    after: Pullback
    """From the unit's output to its sum, through f."""
    shortcut: Pullback
    """From the sum to the unit's input, through h."""
    residual: Pullback
    """From the sum to the unit's input, through F."""


class CutNetwork:
    """A network at one batch, cut between its units, so that gradients can be led through either
    branch of each.

    The loss is the mean cross-entropy over the batch.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
        batch_statistics: normalise by the batch's own statistics, as in training; the running
            statistics are left as they are. Default: the running statistics.
        engine: `plain` leads every gradient back by autograd.

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
    ) -> None:
        if any(isinstance(unit, PlainUnit) for unit in network.units):
            raise UserError("a plain network (VGG) has one path only; paths needs shortcuts")
        with evaluation_mode(network, batch_statistics=batch_statistics), torch.no_grad():
            follow = trace if engine == "fast" else trace_autograd
            x, self.stem = follow(network.stem, images.detach())
            self.units: list[_Cut] = []
            for unit in network.unit_list:
                x, cut = _cut(unit, x, engine)
                self.units.append(cut)
            _, head = trace_autograd(lambda y: functional.cross_entropy(network.head(y), labels), x)
            self.top = head(torch.ones(1, device=x.device, dtype=x.dtype))
            """The loss's gradient at the last unit's output, [1, N, C, H, W]."""
            self.boost = self._boost()
            """What the gradient of every residual branch is multiplied by on its way back, a power
            of two: a path of length k arrives boost^k times too large."""

    def __len__(self) -> int:
        return len(self.units)

    def _boost(self) -> float:
        """The power of two nearest to 1 / (mean gain of a residual branch): the geometric mean of
        the factors by which the branches change the norm of the ordinary gradient. Dead branches
        do not count; 1 where none does."""
        gradient, gains = self.top.clone(), []
        for unit in reversed(self.units):
            after = unit.after(gradient)
            norm = after.norm()
            residual = unit.residual(after.clone())
            gains.append(residual.norm() / norm)
            gradient = (unit.shortcut(after) + residual) / norm
        logs = torch.stack(gains).double().log2()
        logs = logs[logs.isfinite()]
        return 2.0 ** -round(float(logs.mean())) if len(logs) else 1.0

    def unboosted(self, gradient: Tensor, k: int | Tensor) -> Tensor:
        """The gradients at the images that paths of length k delivered, as float64."""
        return gradient.double() * torch.as_tensor(self.boost, dtype=torch.float64) ** -k


def _cut(unit: Unit, x: Tensor, engine: Engine) -> tuple[Tensor, _Cut]:
    """A unit's output at x and the pullbacks of its parts."""
    if engine == "plain":
        shortcut, h = trace_autograd(unit.shortcut, x)
        residual, F = trace_autograd(lambda x: unit.branches(x)[1], x)
        out, f = trace_autograd(unit.after, shortcut + residual)
        return out, _Cut(f, h, F)
    if isinstance(unit, ResidualUnit) and unit.gate is None and unit.survival == 1.0:
        x, pre = trace(unit.pre, x)
        shortcut, h = trace(unit.h, x)
        residual, F = trace(unit.F, x)
        out, f = trace(unit.f, shortcut + residual)
        return out, _Cut(f, _after(h, pre), _after(F, pre))
    shortcut, h = trace_autograd(unit.shortcut, x)
    residual, F = trace_autograd(lambda x: unit.branches(x)[1], x)
    out, f = trace(unit.f, shortcut + residual)
    return out, _Cut(f, h, F)


def _after(first: Pullback, second: Pullback) -> Pullback:
    if second is identity:
        return first
    return lambda gradients: second(first(gradients))


# --- gradients -----------------------------------------------------------------------------------


def path_gradient(cut: CutNetwork, units: Iterable[int]) -> Tensor:
    """The gradient at the images, float64 [N, 3, H, W], that one path delivers.

    Args:
        units: the units passed through their residual branch; all others by their shortcut.
    """
    chosen = set(units)
    gradient = cut.top.clone()
    for index in reversed(range(len(cut))):
        unit = cut.units[index]
        gradient = unit.after(gradient)
        if index in chosen:
            gradient = unit.residual(gradient).mul_(cut.boost)
        else:
            gradient = unit.shortcut(gradient)
    return cut.unboosted(cut.stem(gradient)[0], len(chosen))


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
    """The gradients by length at the input of the first of `units`, led back from the top; those of
    length k are boosted k times (`CutNetwork.boost`).

    All lengths lie in one stack, which a unit changes in place, a few lengths at a time: as many as
    a core's cache holds, since leading more of them through at once only moves memory.
    """
    is_counted = [counted is None or index in counted for index in range(len(cut))]
    num_lengths = 1 + sum(is_counted[index] for index in units)
    reached = 1  # lengths that there are so far
    gradients = _stack(num_lengths, cut.top[0])
    gradients[:1] = cut.top
    for index in reversed(units):
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


def _pass_unit(unit: _Cut, gradients: Tensor, reached: int, boost: float | None) -> Tensor:
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


def path_gradients_by_image(cut: CutNetwork, chosen: Tensor) -> Tensor:
    """The gradients at the images that a path of its own for each image delivers.

    Args:
        chosen: bool [K, N, n] on the CPU, for each of K paths of each image whether it passes each
            of the n units through the residual branch. What goes where is worked out there, so that
            no unit waits for the device.

    Returns:
        float64 [K, N, 3, H, W]. At each unit only the gradients whose path takes the residual
        branch are led through it, gathered into as few rows as the busiest image needs.
    """
    device = cut.top.device
    gradients = cut.top.expand(len(chosen), *cut.top.shape[1:]).contiguous()
    for index in reversed(range(len(cut))):
        unit = cut.units[index]
        gradients = unit.after(gradients)
        through = chosen[:, :, index]  # [K, N]
        rows = int(through.sum(0).max())
        # For each image its chosen paths first: order [K, N], of which the first `rows` matter.
        order = through.to(torch.uint8).argsort(dim=0, descending=True, stable=True)[:rows]
        images = torch.arange(through.shape[1]).expand_as(order)
        wanted = through[order, images].nonzero(as_tuple=True)
        taken = [to_device(each, device) for each in (order, images)]
        of_taken = [to_device(each, device) for each in wanted]
        led_to = [to_device(each[wanted], device) for each in (order, images)]
        residual = unit.residual(gradients[*taken])
        gradients = unit.shortcut(gradients)
        gradients[*led_to] = residual[*of_taken] * cut.boost
    lengths = to_device(chosen.sum(2)[:, :, None, None, None], device)
    return cut.unboosted(cut.stem(gradients), lengths)


def batch_indices(num_images: int, batch_size: int, seed: int, sample: int) -> Tensor:
    """The images of one sample's batch, drawn without repetition; int64 [min(batch, images)]."""
    generator = stream(seed, "path batch", sample)
    return torch.randperm(num_images, generator=generator)[:batch_size]


def draw_path(num_units: int, k: int, seed: int, *position: int) -> list[int]:
    """The k units, of n, that one sampled path passes through their residual branch."""
    generator = stream(seed, "path", k, *position)
    return sorted(torch.randperm(num_units, generator=generator)[:k].tolist())


def sample_path_gradients(
    network: Network,
    batches: Batches,
    ks: Sequence[int],
    samples: int,
    batch_size: int,
    seed: int,
    *,
    estimator: str = "batch",
    batch_statistics: bool = False,
    engine: Engine = "fast",
    report: Report = lambda done, total: None,
) -> list[Row]:
    """Norms of the gradients of single paths (paper 2, section 4.3).

    Each sample draws a batch, sends it forward whole, and for each k leads the gradient of the
    mean loss back along paths of length k. Under torchrun each process takes its share of the
    samples, and all return the same.

    Args:
        ks: path lengths, each 0 to the number of units.
        estimator: `batch`, as published: one path, the same for all images of the batch. `image`:
            each image has a path of its own, so one sample averages over as many paths as there
            are images. Images do not see one another by running statistics, so the squared norm
            has the same expectation for both, and less spread for `image`.
        batch_statistics: normalise by the batch's statistics; `batch` only, since then the
            images do see one another.
        report: called with (norms done, norms in all of this process).

    Returns:
        Rows of path_gradients.csv by k, then sample; grad_norm is the L2 norm over all values of
        the gradient at the batch's images.

    Raises:
        UserError: a k that no path of this network has, or `image` with batch statistics.
    """
    if estimator == "image" and batch_statistics:
        raise UserError(
            "--estimator image takes images one by one, which batch statistics mix; "
            "use --estimator batch"
        )
    num_units = len(network.units)
    check_lengths(ks, num_units)
    own: list[list[float]] = []
    images_used = min(batch_size, len(batches))
    mine = range(samples)[processes.share(samples)]
    for sample in mine:
        indices = batch_indices(len(batches), batch_size, seed, sample)
        images, labels = batches.plain(indices)
        done = len(own) * len(ks)

        def told(share: float, done: int = done) -> None:
            report(done + int(share * len(ks)), len(mine) * len(ks))

        if batch_statistics:
            cut = CutNetwork(network, images, labels, batch_statistics=True, engine=engine)
            found = []
            for k in ks:
                path = draw_path(num_units, k, seed, sample)
                found.append(float(path_gradient(cut, path).norm()))
                told(len(found) / len(ks))
        else:
            if estimator == "image":
                measure = _by_image(ks, len(labels), num_units, seed, sample)
            else:
                measure = _by_batch([draw_path(num_units, k, seed, sample) for k in ks])
            found = _norms(network, images, labels, measure, told, engine)
        own.append(found)
    norms = processes.collect(own)
    return [
        {"k": k, "sample": sample, "grad_norm": found[index], "images": images_used, "seed": seed}
        for index, k in enumerate(ks)
        for sample, found in enumerate(norms)
    ]


def _norms(
    network: Network,
    images: Tensor,
    labels: Tensor,
    measure: Callable[[CutNetwork, slice], Tensor],
    report: Callable[[float], None],
    engine: Engine,
) -> list[float]:
    """Norms of gradients of the mean loss at a batch whose images do not see one another.

    They are measured a few images at a time, on a CPU one such chunk on each core.

    Args:
        measure: (network at some images of the batch, which) -> float64 [K], the squared norms of
            K gradients of the mean loss of these images.
        report: called with the share done, 0 to 1.
    """
    total = len(labels)
    chunk = EXACT_CHUNK if network.device.type == "cpu" else DEVICE_CHUNK

    def of_chunk(start: int) -> Tensor:
        part = slice(start, start + chunk)
        cut = CutNetwork(network, images[part], labels[part], engine=engine)
        return measure(cut, part) * (len(labels[part]) / total) ** 2

    starts = range(0, total, chunk)
    squares: list[Tensor] = []
    with evaluation_mode(network):  # for all threads at once: each would restore it to the others
        in_threads = engine == "fast" and images.device.type == "cpu"
        for found in map_in_threads(of_chunk, starts, parallel=in_threads):
            squares.append(found)
            report(len(squares) / len(starts))
    norms: list[float] = torch.stack(squares).sum(0).sqrt().tolist()
    return norms


def _by_batch(paths: Sequence[Sequence[int]]) -> Callable[[CutNetwork, slice], Tensor]:
    """Each of these paths for all images of a batch, one after another."""

    def measure(cut: CutNetwork, part: slice) -> Tensor:
        return torch.stack([path_gradient(cut, path).square().sum().cpu() for path in paths])

    return measure


def _by_image(
    ks: Sequence[int], total: int, num_units: int, seed: int, sample: int
) -> Callable[[CutNetwork, slice], Tensor]:
    """For each k a path of length k of its own for each image of a batch."""
    drawn = []
    for k in ks:
        # The k units with the smallest of n random numbers are a uniformly drawn set of k.
        generator = stream(seed, "image paths", k, sample)
        ranks = torch.rand(total, num_units, generator=generator).argsort(-1).argsort(-1)
        drawn.append(ranks < k)
    chosen = torch.stack(drawn)

    def measure(cut: CutNetwork, part: slice) -> Tensor:
        return path_gradients_by_image(cut, chosen[:, part]).square().flatten(1).sum(1).cpu()

    return measure


def check_lengths(ks: Sequence[int], num_units: int) -> None:
    """Raises UserError for a path length that a network of so many units does not have."""
    for k in ks:
        if not 0 <= k <= num_units:
            raise UserError(
                f"--k {k}: no path has length {k}; this network has {num_units} units, "
                f"so lengths are 0 to {num_units}"
            )


@dataclass(frozen=True)
class ExactSpectrum:
    """The gradient by path length over one batch, and how well its sum was checked."""

    norms: list[float]
    """For each k, the L2 norm of the gradient that all paths of length k deliver together."""
    check: float
    """|| sum over k - ordinary gradient || / || ordinary gradient ||."""
    images: int


EXACT_CHUNK = 16
"""Images whose gradients autograd, or single paths on a processor's core, carry at a time."""
DEVICE_CHUNK = 128
"""Images whose gradients along single paths a device that is no processor carries at a time."""
SWEEP_CHUNK = 4
"""Images carried through an exact sweep at a time."""
CACHED_BYTES = 1 << 20
"""Of the gradients led through a unit at a time on a CPU core."""


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
    squares = torch.zeros(num_counted + 1, dtype=torch.float64)
    difference = ordinary_square = 0.0
    total = len(labels)
    chunk = SWEEP_CHUNK
    starts = range(0, total, chunk)
    starts = starts[processes.share(len(starts))]

    def sweep(start: int) -> tuple[Tensor, float, float]:
        x, y = images[start : start + chunk], labels[start : start + chunk]
        share = len(y) / total
        cut = CutNetwork(network, x, y, engine=engine)
        by_length = gradient_by_length(cut, counted) * share
        ordinary = _ordinary_gradient(network, x, y).double() * share
        return (
            by_length.square().flatten(1).sum(1).cpu(),
            float((by_length.sum(0) - ordinary).square().sum()),
            float(ordinary.square().sum()),
        )

    own: list[tuple[Tensor, float, float]] = []
    end = min(starts.stop, total)
    with evaluation_mode(network):  # for all threads at once: each would restore it to the others
        in_threads = engine == "fast" and images.device.type == "cpu"
        for start, found in zip(
            starts, map_in_threads(sweep, starts, parallel=in_threads), strict=True
        ):
            own.append(found)
            report(min(start + chunk, end) - starts.start, end - starts.start)
    for of_chunk, its_difference, its_ordinary in processes.collect(own):
        squares += of_chunk
        difference += its_difference
        ordinary_square += its_ordinary
    return ExactSpectrum(squares.sqrt().tolist(), _relative(difference, ordinary_square), total)


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
    num_units = len(network.units)
    if not 0 <= unit < num_units:
        raise UserError(
            f"unit {unit} does not exist; this network has {num_units} units, 0 to {num_units - 1}"
        )
    target = network.unit_list[unit]
    parameters = list(target.residual_parameters())
    total = len(labels)
    sums = [torch.zeros((), dtype=torch.float64)] * len(parameters)
    ordinary = [torch.zeros((), dtype=torch.float64)] * len(parameters)
    for start in range(0, total, EXACT_CHUNK):
        x, y = images[start : start + EXACT_CHUNK], labels[start : start + EXACT_CHUNK]
        share = len(y) / total
        cut = CutNetwork(network, x, y, engine=engine)
        gradients = cut.units[unit].after(_sweep(cut, range(unit + 1, num_units)))
        with evaluation_mode(network):
            with torch.no_grad():
                z = network.stem(x)
                for before in network.unit_list[:unit]:
                    z = before(z)
            with torch.enable_grad():
                residual = target.branches(z)[1]
                boosted = torch.autograd.grad(
                    residual, parameters, gradients, is_grads_batched=True
                )
                loss = functional.cross_entropy(network(x), y)
                whole = torch.autograd.grad(loss, parameters)
        by_length = [cut.unboosted(g, _lengths_of(g)) for g in boosted]
        sums = [a + b * share for a, b in zip(sums, by_length, strict=True)]
        ordinary = [a + b.double() * share for a, b in zip(ordinary, whole, strict=True)]
        report(min(start + EXACT_CHUNK, total), total)
    squares = torch.stack([s.flatten(1).square().sum(1) for s in sums]).sum(0)
    pairs = list(zip(sums, ordinary, strict=True))
    difference = math.fsum(float((s.sum(0) - whole).square().sum()) for s, whole in pairs)
    ordinary_square = math.fsum(float(whole.square().sum()) for whole in ordinary)
    norms = [0.0, *squares.sqrt().tolist()]
    return ExactSpectrum(norms, _relative(difference, ordinary_square), total)


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


def spectrum_rows(
    num_units: int, gradients: Sequence[Mapping[str, Any]], exact: ExactSpectrum | None
) -> list[Row]:
    """Rows of path_spectrum.csv: for each length the sampled estimate beside the exact norm.

    `cancellation` is exact norm over sampled total: what is left of the paths' gradients when those
    of one length are added up as vectors instead of by their norms.

    Lengths that were not sampled have no sampled columns, and without an exact spectrum there are
    no exact ones; shares are of the sum over the lengths that are there.
    """
    by_k: dict[int, list[float]] = {}
    for row in gradients:
        by_k.setdefault(row["k"], []).append(row["grad_norm"])
    means = {k: math.fsum(norms) / len(norms) for k, norms in by_k.items()}
    totals = {k: math.comb(num_units, k) * mean for k, mean in means.items()}
    sum_total = math.fsum(totals.values())
    sum_exact = math.fsum(exact.norms) if exact else 0.0
    rows = []
    for k in range(num_units + 1) if exact else sorted(by_k):
        norms = by_k.get(k, [])
        spread = None
        if len(norms) > 1:
            spread = math.sqrt(math.fsum((n - means[k]) ** 2 for n in norms) / (len(norms) - 1))
        rows.append(
            {
                "k": k,
                "paths": math.comb(num_units, k),
                "mean_norm": means.get(k),
                "std_norm": spread,
                "total": totals.get(k),
                "exact_norm": exact.norms[k] if exact else None,
                "share_total": totals[k] / sum_total if k in totals and sum_total else None,
                "share_exact": exact.norms[k] / sum_exact if exact and sum_exact else None,
                "cancellation": exact.norms[k] / totals[k] if exact and totals.get(k) else None,
            }
        )
    return rows


def exact_rows(key: str, value: int, exact: ExactSpectrum) -> list[Row]:
    """Rows of path_spectrum_stages.csv and path_spectrum_unit.csv: one spectrum's exact norms.

    Args:
        key: the first column, `stage` or `unit`; for a unit, paths end in its F, so that of k
            branches k - 1 are chosen freely.
        value: that column's value.
    """
    total = math.fsum(exact.norms)
    free = len(exact.norms) - 1
    counts = [math.comb(free, k) for k in range(free + 1)]
    if key == "unit":
        counts = [0, *(math.comb(free - 1, k) for k in range(free))]
    return [
        {
            key: value,
            "k": k,
            "paths": counts[k],
            "exact_norm": norm,
            "share_exact": norm / total if total else None,
        }
        for k, norm in enumerate(exact.norms)
    ]
