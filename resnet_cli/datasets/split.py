"""A split of a data set in memory.

Shapes: N images, C channels, H rows, W columns. Images are uint8 in PyTorch's channels_last memory
format: the shape is [N, C, H, W], but the bytes are in the order N, H, W, C.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The training or test split of a data set, in memory."""

    dataset: str
    split: str
    """`train` or `test`."""
    images: Tensor
    """uint8 [N, C, H, W], channels_last."""
    labels: Tensor
    """int64 [N], indices into `classes`."""
    classes: tuple[str, ...]
    source: str
    """A description of the files that were read."""

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8, self.images.dtype
        assert self.images.dim() == 4, self.images.shape
        assert self.labels.dtype == torch.int64, self.labels.dtype
        assert self.labels.shape == self.images.shape[:1], (self.labels.shape, self.images.shape)
        channels_last = self.images.contiguous(memory_format=torch.channels_last)
        object.__setattr__(self, "images", channels_last)

    @classmethod
    def of_pixels(
        cls,
        dataset: str,
        split: str,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        classes: Sequence[str],
        source: str,
    ) -> "Split":
        """A split from pixels [N, H, W, C], without a copy."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return cls(dataset, split, images, torch.from_numpy(labels), tuple(classes), source)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels and labels, as 64 hex digits.

        It covers the text `NxHxWxC;`, the pixels in that order, and the labels as little-endian
        int64, but not the names of classes and files.
        """
        pixels = self.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        digest = hashlib.sha256(f"{'x'.join(map(str, pixels.shape))};".encode())
        digest.update(pixels.data)
        digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def content_digest(self) -> str:
        """A digest of images and labels that does not depend on their order, as 64 hex digits.

        It is the sum, modulo 2^256, of SHA-256(pixels in the order H, W, C + one byte of label).
        """
        total = 0
        pixels = self.images.permute(0, 2, 3, 1).contiguous().numpy()
        for image, label in zip(pixels, self.labels.tolist(), strict=True):
            digest = hashlib.sha256(image.data)
            digest.update(bytes([label]))
            total += int.from_bytes(digest.digest(), "big")
        return f"{total % (1 << 256):064x}"

    def chunks(self) -> Iterator[Tensor]:
        """The images, about 1,000 at a time, uint8 [n, C, H, W], for statistics."""
        yield from self.images.chunk(1 + len(self) // 1000)

    def batches(
        self,
        normalization: Normalization,
        pad: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
    ) -> Batches:
        """Batches of this split on a device; see `Batches`."""
        return Batches(self, normalization, pad, flip, device)

    def take(self, n: int | None) -> "Split":
        """The first n images (a view); None means all.

        Raises:
            UserError: the split has fewer than n images.
        """
        if n is None or n == len(self):
            return self
        check_limit(n, len(self), self.split)
        return dataclasses.replace(self, images=self.images[:n], labels=self.labels[:n])


def check_limit(limit: int | None, total: int, split: str) -> int:
    """The number of images to read: the limit, or all if it is None.

    Raises:
        UserError: the limit is larger than the split.
    """
    if limit is not None and limit > total:
        raise UserError(f"data.{split}_images: {limit:,} is too large; the split has {total:,}")
    return total if limit is None else limit
