"""Batches of normalised images on the device, augmented for training.

Shapes: N images, B images per batch, C channels, H rows, W columns.
"""

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor

from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.runtime import seeding
from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    from resnet_cli.datasets.folder import Folder
    from resnet_cli.datasets.split import Split

ALL = slice(None)
Request = tuple[Tensor, torch.Generator, slice]
"""A training batch: indices int64 [B], the generator of its random draws, and the part of the batch
that this process needs. The images of a part are augmented as in the whole batch."""
Drawn = tuple[Tensor, Tensor | None]
"""The indices of images, int64 [B], and the random draws for each, [B, ...]; None means no
augmentation."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a CPU tensor to the device; to CUDA asynchronously, from pinned memory."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Batches:
    """A split on a device, divided into normalised batches; training batches are augmented.

    The augmentation is that of He et al., arXiv:1512.03385, section 4.2: pad each side, take a
    random crop of the original size, flip half of the images. The padding depends on the
    normalisation:

    - per channel, or fixed: black pixels, added before normalising (as in torchvision, on which
      most published CIFAR numbers are based);
    - per pixel: zeros, added after the mean is subtracted, so that the mean is cropped along with
      the image.

    Images are kept on the device as bytes, and only the current batch is padded.
    """

    images: Tensor
    """uint8 [N, C, H, W], channels_last, on the device."""

    def __init__(
        self,
        split: "Split",
        normalization: Normalization,
        pad: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Move the split to the device.

        Args:
            split: the images, uint8 [N, C, H, W].
            normalization: must match the number of channels and, per pixel, the image size.
            pad: pixels added on each side before the random crop; 0 disables the crop.
            flip: flip training images horizontally with probability 0.5.
            device: where images are kept and batches are made.

        Raises:
            UserError: the normalisation is for images of a different shape.
        """
        self._describe(split, tuple(split.images.shape[1:]), normalization, pad, flip, device)
        self.images = split.images.to(self.device)

    def _describe(
        self,
        split: "Split | Folder",
        shape: tuple[int, ...],
        normalization: Normalization,
        pad: int,
        flip: bool,
        device: torch.device | str,
    ) -> None:
        """Set all attributes except the images, which have the shape [N, *shape]."""
        expected = shape if normalization.per_pixel else (shape[0], 1, 1)
        if tuple(normalization.mean.shape) != expected:
            raise UserError(
                f"the normalisation is for images of shape {list(normalization.mean.shape)} "
                f"(channels, height, width), but {split.dataset} has {list(shape)}; use another "
                "normalisation"
            )
        self.shape = shape
        """The shape of an image: channels, height, width."""
        self.device = torch.device(device)
        self.classes = split.classes
        self.labels = split.labels.to(self.device)
        self.normalization = normalization.to(self.device)
        self.pad = pad
        self.flip = flip

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    # --- training ----------------------------------------------------------------------------

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches, in order; each depends only on its request.

        Returns:
            for each request, images float32 [B, C, H, W], channels_last, and labels int64 [B], on
            the device, where B is the size of the request's part.
        """
        drawn = (
            (indices[part], self._draw(len(indices), generator)[part])
            for indices, generator, part in requests
        )
        to_read, to_augment = tee(drawn)
        for pixels, (indices, draws) in zip(self._read(to_read), to_augment, strict=True):
            yield self._augmented(pixels, draws), self.labels[to_device(indices, self.device)]

    def training(
        self, indices: Tensor, generator: torch.Generator, part: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """One augmented batch; see `stream`."""
        return next(self.stream([(indices, generator, part)]))

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The random draws of a batch, int64 [B, 3]: top, left, and whether to flip.

        All three are always drawn, on the CPU, so that crops do not depend on the device or on
        `flip`.
        """
        top = torch.randint(2 * self.pad + 1, (count,), generator=generator)
        left = torch.randint(2 * self.pad + 1, (count,), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5
        return torch.stack((top, left, mirrored.long()), dim=1)

    def _augmented(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> float32 [B, C, H, W], augmented and normalised."""
        top, left, mirrored = to_device(draws.T.contiguous(), self.device).unbind()
        if self.normalization.per_pixel:
            return self._augment(self.normalization.apply(pixels), top, left, mirrored)
        return self.normalization.apply(self._augment(pixels, top, left, mirrored))

    def _augment(self, images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
        """Pad images [B, C, H, W] of any dtype, crop them at (top, left), and flip those for which
        `mirrored` is 1; all three are int64 [B] on the device."""
        pixels = images.permute(0, 2, 3, 1)  # [B, H, W, C]
        count, height, width, _ = pixels.shape
        if self.pad:
            padded = nnf.pad(pixels, (0, 0, *4 * (self.pad,)))
            # A view of every window: [B, 2 pad + 1, 2 pad + 1, H, W, C].
            windows = padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
            each = torch.arange(count, device=self.device)
            pixels = windows[each, top, left]
        if self.flip:
            pixels = torch.where(mirrored.bool().view(-1, 1, 1, 1), pixels.flip(2), pixels)
        return pixels.permute(0, 3, 1, 2)

    # --- without augmentation ----------------------------------------------------------------

    def unaugmented(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Some images, normalised but not augmented.

        Args:
            indices: int64 [B], the indices of the images.

        Returns:
            images float32 [B, C, H, W], channels_last, and labels int64 [B], on the device.
        """
        (pixels,) = self._read([(indices, None)])
        return self.normalization.apply(pixels), self.labels[to_device(indices, self.device)]

    def evaluation(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Images `start` to `stop` (exclusive, clipped at the end), normalised but not augmented.

        Returns:
            images float32 [B, C, H, W], channels_last, and labels int64 [B], on the device.
        """
        return self.normalization.apply(self.images[start:stop]), self.labels[start:stop]

    def _read(self, drawn: Iterable[Drawn]) -> Iterator[Tensor]:
        """The images of each batch, uint8 [B, C, H, W], channels_last, on the device."""
        for indices, _ in drawn:
            # Advanced indexing does not preserve the memory format, so index the [N, H, W, C] view.
            chosen = self.images.permute(0, 2, 3, 1)[to_device(indices, self.device)]
            yield chosen.permute(0, 3, 1, 2)


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """The order of the images in an epoch: a permutation, int64 [num_images]."""
    return torch.randperm(num_images, generator=seeding.stream(seed, "order", epoch))
