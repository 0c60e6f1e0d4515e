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

Shapes: N images, C channels, H and W pixels, K path lengths.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.data import Batches
from resnet_cli.errors import UserError
from resnet_cli.models.network import Network
from resnet_cli.models.units import PlainUnit, Unit
from resnet_cli.seeding import stream

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


def shortest_interval(weights: Sequence[float], share: float) -> tuple[int, int]:
    """The shortest run of indices, first and last, that holds at least `share` of the sum.

    Of equally short ones, the one that holds most.
    """
    total = math.fsum(weights)
    for length in range(1, len(weights) + 1):
        sums = [math.fsum(weights[i : i + length]) for i in range(len(weights) - length + 1)]
        best = max(range(len(sums)), key=sums.__getitem__)
        if sums[best] >= share * total:
            return best, best + length - 1
    return 0, len(weights) - 1


# --- one forward pass, cut into its pieces -----------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    """A unit's local graph at the activations of one forward pass."""

    x: Tensor
    """Leaf, the unit's input."""
    shortcut: Tensor | None
    """h(x); None where it is x itself."""
    residual: Tensor
    """F(x)."""
    y: Tensor
    """Leaf, h(x) + F(x)."""
    out: Tensor | None
    """f(y); None where it is y itself."""


class CutNetwork:
    """A network at one batch, its graph cut between units, so that gradients can be led through
    either branch of each.

    The loss is the mean cross-entropy over the batch.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
        batch_statistics: normalise by the batch's own statistics, as in training; the running
            statistics are left as they are. Default: the running statistics.

    Raises:
        UserError: the network has no shortcuts.
    """

    def __init__(
        self, network: Network, images: Tensor, labels: Tensor, *, batch_statistics: bool = False
    ) -> None:
        if any(isinstance(unit, PlainUnit) for unit in network.units):
            raise UserError("a plain network (VGG) has one path only; paths needs shortcuts")
        with _norms_in_mode(network, batch_statistics), torch.enable_grad():
            self._images = images.detach().requires_grad_()
            self._stem_out = network.stem(self._images)
            x = self._stem_out.detach().requires_grad_()
            self._cuts: list[_Cut] = []
            for unit in network.unit_list:
                cut = _cut(unit, x)
                self._cuts.append(cut)
                x = (cut.y if cut.out is None else cut.out).detach().requires_grad_()
            loss = functional.cross_entropy(network.head(x), labels)
            self._top: Tensor = torch.autograd.grad(loss, x)[0]

    @property
    def top(self) -> Tensor:
        """The loss's gradient at the last unit's output, [N, C, H, W]."""
        return self._top

    def after(self, index: int, gradient: Tensor, *, batched: bool = False) -> Tensor:
        """Lead a gradient at unit `index`'s output through its f."""
        cut = self._cuts[index]
        return gradient if cut.out is None else _vjp(cut.out, cut.y, gradient, batched)

    def shortcut(self, index: int, gradient: Tensor, *, batched: bool = False) -> Tensor:
        """Lead a gradient at unit `index`'s sum through its shortcut, to its input."""
        cut = self._cuts[index]
        return gradient if cut.shortcut is None else _vjp(cut.shortcut, cut.x, gradient, batched)

    def residual(self, index: int, gradient: Tensor, *, batched: bool = False) -> Tensor:
        """Lead a gradient at unit `index`'s sum through its residual branch, to its input."""
        cut = self._cuts[index]
        return _vjp(cut.residual, cut.x, gradient, batched)

    def stem(self, gradient: Tensor, *, batched: bool = False) -> Tensor:
        """Lead a gradient at the first unit's input through the stem, to the images."""
        return _vjp(self._stem_out, self._images, gradient, batched)

    def __len__(self) -> int:
        return len(self._cuts)


def _cut(unit: Unit, x: Tensor) -> _Cut:
    shortcut, residual = unit.branches(x)
    y = (shortcut + residual).detach().requires_grad_()
    out = unit.after(y)
    return _Cut(x, None if shortcut is x else shortcut, residual, y, None if out is y else out)


def _vjp(output: Tensor, leaf: Tensor, gradient: Tensor, batched: bool) -> Tensor:
    """The gradient at `leaf` of one gradient at `output`, or of a stack of them [K, …]."""
    found: tuple[Tensor, ...] = torch.autograd.grad(
        output, leaf, gradient, retain_graph=True, is_grads_batched=batched
    )
    return found[0]


@contextmanager
def _norms_in_mode(network: Network, batch_statistics: bool) -> Iterator[None]:
    """The network in evaluation mode, its batch norms by batch statistics if asked; all as it was
    after."""
    was_training = network.training
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    if batch_statistics:
        for norm in norms:
            norm.train()
            norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(was_training)


# --- gradients -----------------------------------------------------------------------------------


def path_gradient(cut: CutNetwork, units: Iterable[int]) -> Tensor:
    """The gradient at the images, [N, 3, H, W], that one path delivers.

    Args:
        units: the units passed through their residual branch; all others by their shortcut.
    """
    chosen = set(units)
    gradient = cut.top
    for index in reversed(range(len(cut))):
        gradient = cut.after(index, gradient)
        branch = cut.residual if index in chosen else cut.shortcut
        gradient = branch(index, gradient)
    return cut.stem(gradient)


def gradient_by_length(cut: CutNetwork) -> Tensor:
    """The exact spectrum: [n + 1, N, 3, H, W], entry k the gradient at the images that all paths
    of length k deliver together. Its sum over k is the ordinary gradient."""
    gradients = cut.top.unsqueeze(0)
    for index in reversed(range(len(cut))):
        gradients = cut.after(index, gradients, batched=True)
        longer = cut.residual(index, gradients, batched=True)
        same = cut.shortcut(index, gradients, batched=True)
        gradients = torch.cat((same[:1], same[1:] + longer[:-1], longer[-1:]))
    return cut.stem(gradients, batched=True)


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
    batch_statistics: bool = False,
    report: Report = lambda done, total: None,
) -> list[Row]:
    """Norms of the gradients of single paths, as paper 2 sampled them (section 4.3).

    Each sample draws a batch, sends it forward whole, and for each k leads the gradient of the
    mean loss back along one path of length k, the same for all images of the batch.

    Args:
        ks: path lengths, each 0 to the number of units.

    Returns:
        Rows of path_gradients.csv by k, then sample; grad_norm is the L2 norm over all values of
        the gradient at the batch's images.

    Raises:
        UserError: a k that no path of this network has.
    """
    check_lengths(ks, len(network.units))
    norms: dict[int, list[float]] = {k: [] for k in ks}
    images_used = min(batch_size, len(batches))
    for sample in range(samples):
        indices = batch_indices(len(batches), batch_size, seed, sample)
        images, labels = batches.plain(indices)
        cut = CutNetwork(network, images, labels, batch_statistics=batch_statistics)
        for k in ks:
            path = draw_path(len(cut), k, seed, sample)
            norms[k].append(float(path_gradient(cut, path).double().norm()))
        report(sample + 1, samples)
    return [
        {"k": k, "sample": sample, "grad_norm": norm, "images": images_used, "seed": seed}
        for k in ks
        for sample, norm in enumerate(norms[k])
    ]


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
"""Images carried through the exact sweep at a time."""


def exact_spectrum(
    network: Network,
    images: Tensor,
    labels: Tensor,
    report: Report = lambda done, total: None,
) -> ExactSpectrum:
    """The exact gradient spectrum of the mean loss over a batch, by running batch statistics.

    In evaluation mode images do not see one another, so the sweep takes a chunk at a time; memory
    is (n + 1) gradients of a chunk at the widest activation.

    Args:
        images: float32 [N, 3, H, W].
        labels: int64 [N].
    """
    squares = torch.zeros(len(network.units) + 1, dtype=torch.float64)
    difference = ordinary_square = 0.0
    total = len(labels)
    for start in range(0, total, EXACT_CHUNK):
        x, y = images[start : start + EXACT_CHUNK], labels[start : start + EXACT_CHUNK]
        share = len(y) / total
        by_length = gradient_by_length(CutNetwork(network, x, y)).double() * share
        ordinary = _ordinary_gradient(network, x, y).double() * share
        squares += by_length.square().flatten(1).sum(1).cpu()
        difference += float((by_length.sum(0) - ordinary).square().sum())
        ordinary_square += float(ordinary.square().sum())
        report(min(start + EXACT_CHUNK, total), total)
    check = math.sqrt(difference / ordinary_square) if ordinary_square else math.sqrt(difference)
    return ExactSpectrum(squares.sqrt().tolist(), check, total)


def _ordinary_gradient(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the mean loss at the images by a plain backward pass, [N, 3, H, W]."""
    with _norms_in_mode(network, batch_statistics=False), torch.enable_grad():
        leaf = images.detach().requires_grad_()
        loss = functional.cross_entropy(network(leaf), labels)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def spectrum_rows(
    num_units: int, gradients: Sequence[Mapping[str, Any]], exact: ExactSpectrum | None
) -> list[Row]:
    """Rows of path_spectrum.csv: for each length the sampled estimate beside the exact norm.

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
            }
        )
    return rows
