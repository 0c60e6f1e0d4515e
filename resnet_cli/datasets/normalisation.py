"""Normalisation of images, with the statistics given by `data.normalize`."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnet_cli.config.fields import NORMALIZATIONS
from resnet_cli.runtime.errors import UserError, unknown

if TYPE_CHECKING:
    from resnet_cli.datasets.folder import Folder
    from resnet_cli.datasets.split import Split


@dataclasses.dataclass(frozen=True, eq=False)
class Normalization:
    """x -> (x / 255 - mean) / std, for uint8 images."""

    mean: Tensor
    """float32 [C, 1, 1], or [C, H, W] for a per-pixel mean; on the 0-1 scale."""
    std: Tensor
    """float32 [C, 1, 1], above 0; on the 0-1 scale."""

    def __post_init__(self) -> None:
        assert self.mean.dtype == self.std.dtype == torch.float32
        assert self.mean.dim() == 3, self.mean.shape
        assert self.std.shape == (len(self.mean), 1, 1), self.std.shape

    @property
    def per_pixel(self) -> bool:
        """Whether each pixel has its own mean."""
        return self.mean.shape[1:] != (1, 1)

    @cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(x / 255 - mean) / std as x * scale + shift; computed in float64."""
        mean, std = self.mean.double(), self.std.double()
        return (1 / (255 * std)).float(), (-mean / std).float()

    def apply(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> float32 [N, C, H, W], channels_last, on the images' device."""
        scale, shift = (tensor.to(images.device) for tensor in self._scale_and_shift)
        normalized = torch.addcmul(shift, images.float(), scale)
        return normalized.contiguous(memory_format=torch.channels_last)

    def to(self, device: torch.device | str) -> "Normalization":
        """This normalisation on another device."""
        return Normalization(self.mean.to(device), self.std.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """`mean` and `std`, to be stored with weights."""
        return {"mean": self.mean, "std": self.std}


PUBLISHED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""The usual published means and standard deviations of the channels."""


def check_statistics(mean: Tensor, std: Tensor, where: str) -> None:
    """Check the statistics of a normalisation.

    Raises:
        UserError: a number is not finite, or a standard deviation is not above 0.
    """
    if not bool(mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise UserError(f"{where}: every mean and std must be finite, and every std above 0")
    if bool((mean.abs() > 1).any()):
        raise UserError(f"{where}: means must be on the 0-1 scale; divide means and stds by 255")


def parse_normalization(text: str, train: "Callable[[], Split | Folder]") -> Normalization:
    """The normalisation given by `data.normalize` or `--normalize`.

    - `channel`: mean and (population) standard deviation of each channel over `train()`.
    - `pixel`: the mean of each pixel over `train()`, std 1, as in "per-pixel mean subtracted"
      (He et al., arXiv:1512.03385, section 4.2). The paper does not give the scale. Here values
      stay on the 0-1 scale, so inputs are between -1 and 1; the result of the convolution and
      batch normalisation that follow does not depend on the scale.
    - `imagenet`, `cifar`: the usual published statistics. `none`: the 0-1 scale.
    - `m1,m2,m3/s1,s2,s3`: means and standard deviations on the 0-1 scale.

    Args:
        text: one of the above.
        train: loads the training split; only called for `channel` and `pixel`.

    Raises:
        UserError: the text is malformed, a std is not above 0, or a channel has the same value
            in all training images.
    """
    name = text.strip()
    where = f"normalize {name!r}"
    if name == "channel":
        mean, std = _channel_statistics(train().chunks())
        if not bool((std > 0).all()):
            raise UserError(f"{where}: a channel is constant in the training images; use none")
    elif name == "pixel":
        split = train()
        sums = [chunk.sum(dim=0, dtype=torch.int64) for chunk in split.chunks()]
        mean = (torch.stack(sums).sum(0).double() / (255 * len(split))).float()
        return Normalization(mean.contiguous(), torch.ones(len(mean), 1, 1))
    elif name in PUBLISHED or "/" in name:
        mean, std = map(torch.tensor, PUBLISHED[name] if name in PUBLISHED else _triples(name))
        check_statistics(mean, std, where)
    else:
        raise unknown("normalisation", name, NORMALIZATIONS)
    return Normalization(mean.view(-1, 1, 1), std.view(-1, 1, 1))


def _triples(text: str) -> tuple[tuple[float, ...], ...]:
    """The numbers in `m1,m2,m3/s1,s2,s3`."""
    try:
        triples = tuple(tuple(float(n) for n in half.split(",")) for half in text.split("/"))
    except ValueError:
        triples = ()
    if [len(triple) for triple in triples] != [3, 3]:
        raise UserError(
            f"normalize {text!r}: write three means and three standard deviations, "
            "for example 0.5,0.5,0.5/0.25,0.25,0.25"
        )
    return triples


def _channel_statistics(chunks: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each channel on the 0-1 scale, float32 [C].

    They are computed from exact histograms of the byte values, so they do not depend on the order
    of summation or the number of threads.
    """
    histograms = torch.zeros(1, 256, dtype=torch.int64)  # [C, 256] from the first chunk on
    for chunk in chunks:
        counts = [torch.bincount(channel.flatten(), minlength=256) for channel in chunk.unbind(1)]
        histograms = histograms + torch.stack(counts)
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for histogram in histograms:
        share = histogram.double() / histogram.sum()
        mean = (share * values).sum()
        means.append(mean)
        stds.append((share * (values - mean).square()).sum().sqrt())
    return torch.stack(means).float(), torch.stack(stds).float()
