"""The gradient of single paths, sampled (paper 2, section 5)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from resnet_cli.datasets.batches import Batches, to_device
from resnet_cli.models.network import Network, evaluation_mode
from resnet_cli.runtime import processes
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.seeding import stream
from resnet_cli.runtime.threads import map_in_threads
from resnet_cli.studies.base import Row
from resnet_cli.studies.paths.cut import CutNetwork, path_gradient
from resnet_cli.studies.paths.tables import check_lengths
from resnet_cli.studies.progress import Report, check_of, pieces_of

CHUNK = 16
"""Images whose gradients along single paths are propagated together, on a CPU core."""
DEVICE_CHUNK = 128
"""The same on other devices."""


def batch_indices(num_images: int, batch_size: int, seed: int, sample: int) -> Tensor:
    """The images of a sample's batch, drawn without replacement; int64 [min(batch, images)]."""
    generator = stream(seed, "path batch", sample)
    return torch.randperm(num_images, generator=generator)[:batch_size]


def draw_path(num_units: int, k: int, seed: int, *position: int) -> list[int]:
    """The k of n units that one sampled path passes through their residual branch."""
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
    """Norms of the gradients of single paths (paper 2, section 5).

    Each sample draws a batch, takes one forward pass, and for each k propagates the gradient of the
    mean loss back along paths of length k. Under torchrun each process takes its share of the
    samples, and all return the same.

    Args:
        ks: path lengths, each 0 to the number of units.
        estimator: `batch`, as published: one path, the same for all images of the batch. `image`:
            one path for each image, so that a sample averages over as many paths as there are
            images. With running statistics images do not influence each other, so the squared norm
            has the same expectation for both, and a smaller variance for `image`.
        batch_statistics: normalise by the statistics of the batch; `batch` only, since the images
            then influence each other.
        report: called with (norms done, norms in all of this process).

    Returns:
        Rows of path_gradients.csv by k, then sample; grad_norm is the L2 norm over all values of
        the gradient at the batch's images.

    Raises:
        UserError: a k that no path of this network has, or `image` with batch statistics.
    """
    if estimator == "image" and batch_statistics:
        raise UserError(
            "--estimator image needs images that do not influence each other, but batch statistics "
            "mix them; use --estimator batch"
        )
    num_units = len(network.units)
    check_lengths(ks, num_units)
    own: list[list[float]] = []
    images_used = min(batch_size, len(batches))
    mine = range(samples)[processes.share(samples)]
    for sample in mine:
        indices = batch_indices(len(batches), batch_size, seed, sample)
        images, labels = batches.unaugmented(indices)
        done = len(own) * len(ks)

        def told(share: float, done: int = done) -> None:
            report(done + int(share * len(ks)), len(mine) * len(ks))

        if batch_statistics:
            paths = [draw_path(num_units, k, seed, sample) for k in ks]
            found = _norms_by_batch_statistics(network, images, labels, paths, told, report, engine)
        else:
            if estimator == "image":
                measure = _by_image(ks, len(labels), num_units, seed, sample)
            else:
                measure = _by_batch([draw_path(num_units, k, seed, sample) for k in ks])
            found = _norms(network, images, labels, measure, told, report, engine)
        own.append(found)
    norms = processes.gather_lists(own)
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
    report_share: Callable[[float], None],
    report: Report,
    engine: Engine,
) -> list[float]:
    """Norms of gradients of the mean loss at a batch whose images do not influence each other.

    They are measured in chunks of images, on a CPU one chunk on each core.

    Args:
        measure: (network at a chunk, indices of its images) -> float64 [K], the squared norms of K
            gradients of the mean loss of the chunk.
        report_share: called with the share done, 0 to 1.
        report: keeps the pieces.
    """
    total = len(labels)
    chunk = CHUNK if network.device.type == "cpu" else DEVICE_CHUNK

    def of_chunk(start: int) -> Tensor:
        part = slice(start, start + chunk)
        cut = CutNetwork(network, images[part], labels[part], engine=engine, check=check_of(report))
        return measure(cut, part) * (len(labels[part]) / total) ** 2

    starts = range(0, total, chunk)
    squares: list[Tensor] = []
    with evaluation_mode(network):  # set once: threads would restore it for each other
        in_threads = engine == "fast" and images.device.type == "cpu"
        measured = partial(map_in_threads, of_chunk, parallel=in_threads)
        for found in pieces_of(report, starts, measured):
            squares.append(found)
            report_share(len(squares) / len(starts))
    norms: list[float] = torch.stack(squares).sum(0).sqrt().tolist()
    return norms


def _norms_by_batch_statistics(
    network: Network,
    images: Tensor,
    labels: Tensor,
    paths: Sequence[Sequence[int]],
    report_share: Callable[[float], None],
    report: Report,
    engine: Engine,
) -> list[float]:
    """Norms of the gradients along single paths, with the statistics of the whole batch."""

    def measured(paths: Sequence[Sequence[int]]) -> Iterator[float]:
        cut = CutNetwork(
            network, images, labels, batch_statistics=True, engine=engine, check=check_of(report)
        )
        return (float(path_gradient(cut, path).norm()) for path in paths)

    found: list[float] = []
    for norm in pieces_of(report, paths, measured):
        found.append(norm)
        report_share(len(found) / len(paths))
    return found


def _by_batch(paths: Sequence[Sequence[int]]) -> Callable[[CutNetwork, slice], Tensor]:
    """Measures each of these paths for all images of a batch."""

    def measure(cut: CutNetwork, part: slice) -> Tensor:
        return torch.stack([path_gradient(cut, path).square().sum().cpu() for path in paths])

    return measure


def _by_image(
    ks: Sequence[int], total: int, num_units: int, seed: int, sample: int
) -> Callable[[CutNetwork, slice], Tensor]:
    """Measures, for each k, one path of length k for each image of a batch."""
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


def path_gradients_by_image(cut: CutNetwork, chosen: Tensor) -> Tensor:
    """The gradients at the images along K paths for each image.

    Args:
        chosen: bool [K, N, n] on the CPU: whether path k of image i passes a unit through its
            residual branch. Indices are computed on the CPU, so that no unit waits for the device.

    Returns:
        float64 [K, N, 3, H, W]. At each unit only the gradients whose path takes the residual
        branch are propagated through it, gathered into as few rows as possible.
    """
    device = cut.top.device
    gradients = cut.top.expand(len(chosen), *cut.top.shape[1:]).contiguous()
    for index in reversed(range(len(cut))):
        cut.check()
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
        targets = [to_device(each[wanted], device) for each in (order, images)]
        residual = unit.residual(gradients[*taken])
        gradients = unit.shortcut(gradients)
        gradients[*targets] = residual[*of_taken] * cut.boost
    lengths = to_device(chosen.sum(2)[:, :, None, None, None], device)
    return cut.unboosted(cut.stem(gradients), lengths)
