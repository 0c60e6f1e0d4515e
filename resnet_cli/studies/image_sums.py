"""Sums over the images of a split, in chunks: on a CPU one on each core."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from resnet_cli.datasets.batches import Batches
from resnet_cli.models.network import Network, evaluation_mode
from resnet_cli.runtime.threads import map_in_threads
from resnet_cli.studies.progress import Report, pieces_of
from resnet_cli.studies.walks import chunk_size

MAX_IMAGES = 64
"""Images in a chunk, since all their activations may be kept for a backward pass."""


def sum_over_images(
    network: Network,
    batches: Batches,
    measure: Callable[[Tensor, Tensor], Tensor],
    report: Report = lambda done, total: None,
) -> Tensor:
    """The sum of `measure(images, labels)` over all chunks, with the network in evaluation mode.

    Args:
        measure: (images [N, C, H, W], labels [N]) -> float64 sums over these images.
        report: called with (images done, all images); keeps the chunks' sums if it keeps pieces.
    """
    count, chunk = len(batches), min(MAX_IMAGES, chunk_size(network, batches))
    starts = range(0, count, chunk)

    def measured(starts: Sequence[int]) -> Iterator[Tensor]:
        parts = (batches.evaluation(start, start + chunk) for start in starts)
        parallel = network.device.type == "cpu"
        return map_in_threads(lambda part: measure(*part).cpu(), parts, parallel=parallel)

    found: list[Tensor] = []
    with evaluation_mode(network):
        for start, sums in zip(starts, pieces_of(report, starts, measured), strict=True):
            found.append(sums)
            report(min(start + chunk, count), count)
    return torch.stack(found).sum(0)


def finite_sum(values: Tensor) -> Tensor:
    """float64 [2]: the sum of the finite values and their number, for a mean over many chunks."""
    finite = values.isfinite()
    return torch.stack([values.where(finite, 0.0).double().sum(), finite.double().sum()])


def means(sums: Tensor) -> Tensor:
    """The means of `finite_sum`s, [..., 2] -> [...]; NaN where no value was finite."""
    return sums[..., 0] / sums[..., 1]
