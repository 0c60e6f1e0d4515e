"""Folders of images that are decoded when they are needed.

Shapes: B images per batch, C channels, H rows, W columns. How a split is represented:

- Test images, and training images that are padded and cropped, always come from the same central
  crop. If all these crops take at most MEMORY_BYTES, they become a `Split`.
- Training images that are cropped from the whole image (`scale`, `scale_aspect`) are a `Folder`. If
  the decoded images take at most MEMORY_BYTES, they are kept in memory.
- For a larger `Folder`, worker processes of a `torch.utils.data.DataLoader` read and decode the
  images of a batch while the network processes the previous batches.

The sampler sends each image's index and random draws to the workers, so a crop depends only on the
random stream of its iteration and the position in the batch, not on the number of workers.
"""

import dataclasses
import hashlib
import math
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import images
from resnet_cli.datasets.batches import Batches, Drawn, to_device
from resnet_cli.datasets.catalogue import NotFoundError, SplitName
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.datasets.split import Split, check_limit
from resnet_cli.runtime.errors import RunError, UserError, one_line

if TYPE_CHECKING:
    from PIL import Image

MEMORY_BYTES = 4_000_000_000
"""Splits that take more memory when decoded are not kept in memory."""
CENTRE = 256 / 224
"""Shorter side of a test image divided by its central crop, as is usual for ImageNet."""
SCALES = (256 / 224, 480 / 224)
"""`scale`: range of the shorter side divided by the crop (He et al. 2015, section 3.4)."""
AREAS = (0.08, 1.0)
ASPECTS = (3 / 4, 4 / 3)
"""`scale_aspect`: ranges of the crop's fraction of the area and of its width over its height."""
ATTEMPTS = 10
COLOUR_DRAWS = 9
NUM_DRAWS = {
    "scale": 4,
    "scale_aspect": 2 * ATTEMPTS + 3,
    "scale_colour": 4 + COLOUR_DRAWS,
    "scale_aspect_colour": 2 * ATTEMPTS + 3 + COLOUR_DRAWS,
}
"""Random numbers per image; the last decides whether to flip, those before it set the colours."""
COLOUR_STRENGTH = 0.4
LIGHTING = 0.1
"""Standard deviation of the noise along each principal component, relative to its eigenvalue."""
COLOUR_VALUES = (0.2175, 0.0188, 0.0045)
COLOUR_VECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Eigenvalues, and eigenvectors as columns, of the colours of ImageNet's training images on the 0-1
scale, from fb.resnet.torch."""
GREY = (0.299, 0.587, 0.114)
CHUNK = 32
"""Images that a worker decodes before returning them."""


def read(
    dataset: str, root: Path, split: SplitName, config: DataConfig, limit: int | None
) -> "Split | Folder":
    """One split of a tree of class folders.

    `root` contains `train/`, and `val/` or `test/` (tried in this order), each with one folder for
    each class. For the test split alone, `root` may also contain the class folders directly.

    Raises:
        UserError: the tree has a different layout, or an image that is decoded now is damaged.
    """
    if not root.is_dir():
        raise NotFoundError(f"{root}: no such folder; give the image folder with --data-dir")
    folder = _split_folder(root, split)
    classes = images.class_names(folder)
    if not classes:
        raise UserError(
            f"{folder}: has no class folders; expected {folder.name}/<class>/<image>, with one "
            "folder for each class"
        )
    if folder != root:
        other = _split_folder(root, "test" if split == "train" else "train", missing_ok=True)
        if images.class_names(other):
            images.check_same_classes(folder, other)
    files, labels = images.image_files(folder, root, classes)
    n = check_limit(limit, len(files), split)
    assert config.image_size is not None
    assert config.augment != "auto"
    size = config.image_size
    shorter_side = round(size * CENTRE)
    if split == "test" and config.test_size is not None:
        larger = config.test_size > size
        size = config.test_size
        shorter_side = size if larger else round(size * CENTRE)
    found = Folder(
        dataset=dataset,
        split=split,
        top=folder,
        files=files[:n],
        labels=torch.from_numpy(labels[:n]),
        classes=tuple(classes),
        size=size,
        shorter_side=shorter_side,
        augmentation="crop" if split == "test" else config.augment,
    )
    if found.augmentation == "crop":
        if n * 3 * size * size > MEMORY_BYTES:
            return found
        pixels = images.decode_all(n, size, found.centre)
        return Split.of_pixels(dataset, split, pixels, labels[:n], classes, found.source)
    return found.in_memory() if found.decoded_bytes() <= MEMORY_BYTES else found


def _split_folder(root: Path, split: str, missing_ok: bool = False) -> Path:
    """The folder of a split: the first candidate with class folders, or the first that exists."""
    names = ("train",) if split == "train" else ("val", "test")
    halves = [root / name for name in names if (root / name).is_dir()]
    for half in halves:
        if images.class_names(half):
            return half
    if halves or missing_ok:
        return halves[0] if halves else root / names[0]
    if split == "test" and not (root / "train").is_dir():
        return root
    raise NotFoundError(f"{root}: has no {' or '.join(name + '/' for name in names)} folder")


# --- one split -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
    """The training or test split of a folder of images, decoded image by image."""

    dataset: str
    split: str
    """`train` or `test`."""
    top: Path
    """The folder that contains the class folders."""
    files: Sequence[str]
    labels: Tensor
    """int64 [N], indices into `classes`."""
    classes: tuple[str, ...]
    size: int
    """Width and height of every crop in pixels."""
    shorter_side: int
    """The length to which the shorter side is resized before the central crop."""
    augmentation: str
    """A value of `DataConfig.augment` other than `auto`."""
    decoded: Sequence[npt.NDArray[np.uint8]] | None = None
    """Every uncropped image, uint8 [H, W, 3]; None if they do not fit in memory."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def source(self) -> str:
        """A description of the files that are read."""
        return f"class folders {self.top}"

    def batches(
        self,
        normalization: Normalization,
        pad: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
    ) -> "FolderBatches":
        """Batches of this split on a device; see `FolderBatches`."""
        return FolderBatches(self, normalization, pad, flip, device)

    def in_memory(self) -> "Folder":
        """This folder with every image decoded into memory."""
        decoded: list[npt.NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(self)

        def decode(start: int, stop: int) -> None:
            for i in range(start, stop):
                decoded[i] = images.pixels_of(self._picture(i))

        images.in_chunks(len(self), decode, chunk=50)
        return dataclasses.replace(self, decoded=decoded)

    def decoded_bytes(self) -> int:
        """The memory that `in_memory` would need, according to the files' headers. Counting stops
        above MEMORY_BYTES."""
        total = 0
        for file in self.files:
            width, height = images.header_size(file)
            total += 3 * width * height
            if total > MEMORY_BYTES:
                break
        return total

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 as 64 hex digits, over names, labels and pixels if the images are in memory,
        otherwise over the files' names, labels and sizes, because reading 150 GB would take too
        long.
        """
        digest = hashlib.sha256(f"{len(self)} images;".encode())
        for i, (file, label) in enumerate(zip(self.files, self.labels.tolist(), strict=True)):
            name = Path(file).relative_to(self.top).as_posix()
            digest.update(f"{name};{label};".encode())
            if self.decoded is None:
                digest.update(f"{os.stat(file).st_size};".encode())
            else:
                height, width, _ = self.decoded[i].shape
                digest.update(f"{width}x{height};".encode())
                digest.update(self.decoded[i].data)
        return digest.hexdigest()

    def chunks(self) -> Iterator[Tensor]:
        """The central crops of all images, in parts of uint8 [n, C, H, W], for statistics.

        Raises:
            UserError: the images are not in memory.
        """
        if self.decoded is None:
            raise UserError(
                f"normalize: statistics would need all {len(self):,} images, which do not fit in "
                "memory; use imagenet, or write m1,m2,m3/s1,s2,s3"
            )
        starts = range(0, len(self), 500)
        yield from self.pixels(
            ((torch.arange(start, min(start + 500, len(self))), None) for start in starts),
            len(self),
        )

    def pixels(
        self, drawn: Iterable[Drawn], num_images: int, flip: bool = False
    ) -> Iterator[Tensor]:
        """The crops of each batch, uint8 [B, C, H, W], channels_last, decoded in advance.

        Args:
            drawn: indices, and draws float64 [B, NUM_DRAWS[augmentation]] for random crops or None
                for central crops.
            num_images: approximate number of images that will be read in total.
            flip: whether to flip the images whose last draw is below 0.5.

        Raises:
            UserError: an image is damaged, too large or too narrow; the first such image is named.
            RunError: a worker process died.
        """
        num_chunks: deque[int] = deque()  # for each batch that the workers have started

        def chunks() -> Iterator[list[_Item]]:
            for indices, draws in drawn:
                each = [None] * len(indices) if draws is None else draws.tolist()
                items = list(zip(indices.tolist(), each, strict=True))
                num_chunks.append(math.ceil(len(items) / CHUNK))
                for start in range(0, len(items), CHUNK):
                    yield items[start : start + CHUNK]

        workers = min(_cores(), num_images // CHUNK)  # starting one takes as long as a few images
        loader = DataLoader(
            _Images(self, flip),
            batch_sampler=chunks(),
            num_workers=workers,
            collate_fn=_stacked,
            worker_init_fn=_leave_interrupts_to_the_parent,
            generator=torch.Generator(),  # the global generator is for the network's dropout
            # Forked workers share the images that are in memory.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        try:
            parts: list[Tensor] = []
            for part in loader:
                if isinstance(part, UserError):
                    raise part
                parts.append(part)
                if len(parts) == num_chunks[0]:
                    yield torch.cat(parts).permute(0, 3, 1, 2)
                    num_chunks.popleft()
                    parts = []
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RunError(f"{self.top}: images cannot be read: {one_line(error)}") from None

    # --- one image ----------------------------------------------------------------------------

    def centre(self, index: int) -> npt.NDArray[np.uint8]:
        """The central square of an image, uint8 [size, size, 3].

        Raises:
            UserError: the image is damaged, too large or too narrow.
        """
        from torchvision.transforms.v2 import functional

        resized = self._resized(index, self.shorter_side)
        return images.pixels_of(functional.center_crop(resized, [self.size, self.size]))

    def random(self, index: int, draws: Sequence[float]) -> npt.NDArray[np.uint8]:
        """A random square of an image, uint8 [size, size, 3].

        Images are resized bilinearly with antialiasing, as for torchvision's networks;
        fb.resnet.torch resizes bicubically.

        Args:
            draws: NUM_DRAWS[augmentation] numbers, uniform in [0, 1).

        Raises:
            UserError: as for `centre`.
        """
        from torchvision.transforms.v2 import functional

        if self.augmentation.startswith("scale_aspect"):
            picture = self._picture(index)
            box = drawn_box(picture.width, picture.height, draws)
            square = functional.resized_crop(picture, *box, [self.size, self.size])
            return images.pixels_of(square)
        resized = self._resized(index, drawn_scale(self.size, draws[0]))
        top = int(draws[1] * (resized.height - self.size + 1))
        left = int(draws[2] * (resized.width - self.size + 1))
        return images.pixels_of(functional.crop(resized, top, left, self.size, self.size))

    def _picture(self, index: int) -> "Image.Image":
        """The uncropped image."""
        from PIL import Image

        if self.decoded is not None:
            return Image.fromarray(self.decoded[index])
        return images.open_rgb(self.files[index], self.files[index])

    def _resized(self, index: int, shorter_side: int) -> "Image.Image":
        """The uncropped image, resized so that its shorter side has the given length."""
        from torchvision.transforms.v2 import functional

        picture = self._picture(index)
        longer, shorter = max(picture.size), min(picture.size)
        if shorter_side * shorter_side * longer > images.MAX_PIXELS * shorter:  # 1 x 1,000,000
            raise UserError(
                f"{self.files[index]}: {picture.width}x{picture.height} is too narrow to resize to "
                f"{self.size}x{self.size}; remove it"
            )
        return functional.resize(picture, [shorter_side])  # type: ignore[no-any-return]


def drawn_scale(size: int, draw: float) -> int:
    """The shorter side for `scale`: for size 224, uniform over the integers from 256 to 480."""
    low, high = (round(size * scale) for scale in SCALES)
    return low + int(draw * (high - low + 1))


def drawn_box(width: int, height: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """The crop for `scale_aspect`: (top, left, height, width).

    Szegedy et al. 2015, section 6, as in torchvision's RandomResizedCrop: the area and the
    logarithm of the aspect ratio are uniform; after ten crops that do not fit in the image, the
    largest central crop is used. (fb.resnet.torch draws the square root of the aspect ratio from
    the same interval, so its crops are up to 16:9.)
    """
    low, high = (math.log(aspect) for aspect in ASPECTS)
    for attempt in range(ATTEMPTS):
        area = (AREAS[0] + draws[2 * attempt] * (AREAS[1] - AREAS[0])) * width * height
        aspect = math.exp(low + draws[2 * attempt + 1] * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = draws[2 * ATTEMPTS], draws[2 * ATTEMPTS + 1]
            return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
    w = min(width, round(height * ASPECTS[1]))
    h = min(height, round(width / ASPECTS[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def drawn_colours(pixels: Tensor, draws: Tensor) -> Tensor:
    """The colour augmentation of fb.resnet.torch (datasets/transforms.lua, with the strengths of
    datasets/imagenet.lua): brightness, contrast and saturation times 0.6 to 1.4 in random order,
    then lighting noise along the principal components of ImageNet's colours (Krizhevsky et al.
    2012, section 4.1).

    Args:
        pixels: [B, 3, H, W] from 0 to 255.
        draws: float64 [B, COLOUR_DRAWS], uniform in [0, 1): three for the strengths, three whose
            sorting gives the order, three for the noise.

    Returns:
        float32 [B, 3, H, W], roughly 0 to 255; as in the original, values are not clipped.
    """
    draws = to_device(draws, pixels.device).float()
    strengths = 1 + COLOUR_STRENGTH * (2 * draws[:, :3] - 1)
    order = draws[:, 3:6].argsort(1)
    grey_of = torch.tensor(GREY, device=pixels.device).view(1, 3, 1, 1)
    coloured = pixels.float()
    for step in range(3):
        kind = order[:, step].view(-1, 1, 1, 1)  # 0 brightness, 1 contrast, 2 saturation
        strength = strengths.gather(1, order[:, step : step + 1]).view(-1, 1, 1, 1)
        grey = (coloured * grey_of).sum(1, keepdim=True)
        target = torch.where(kind == 1, grey.mean((2, 3), keepdim=True), grey) * (kind > 0)
        coloured = strength * coloured + (1 - strength) * target
    noise = LIGHTING * torch.special.ndtri(draws[:, 6:].clamp(1e-7, 1 - 1e-7))
    values = torch.tensor(COLOUR_VALUES, device=pixels.device)
    vectors = torch.tensor(COLOUR_VECTORS, device=pixels.device)
    shift: Tensor = 255 * ((noise * values) @ vectors.T)
    return coloured + shift.view(-1, 3, 1, 1)


# --- worker processes ------------------------------------------------------------------------

_Item = tuple[int, Sequence[float] | None]
"""The index and the random draws of an image."""


class _Images(Dataset[npt.NDArray[np.uint8] | UserError]):
    """The crops of a folder, by index and draws."""

    def __init__(self, folder: Folder, flip: bool) -> None:
        self.folder, self.flip = folder, flip

    def __getitem__(self, item: _Item) -> npt.NDArray[np.uint8] | UserError:
        """uint8 [size, size, 3]. Errors are returned, because the loader would add a traceback to
        one that is raised."""
        from PIL import Image

        index, draws = item
        with warnings.catch_warnings():
            # MAX_PIXELS is below Pillow's own limit; broken EXIF data are harmless.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            try:
                if draws is None:
                    return self.folder.centre(index)
                square = self.folder.random(index, draws)
            except UserError as error:
                return error
        return square[:, ::-1] if self.flip and draws[-1] < 0.5 else square


def _stacked(squares: list[npt.NDArray[np.uint8] | UserError]) -> Tensor | UserError:
    """uint8 [n, size, size, 3], or the first error."""
    pixels = []
    for square in squares:
        if isinstance(square, UserError):
            return square
        pixels.append(square)
    return torch.from_numpy(np.stack(pixels))


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ignore Ctrl-C, which also reaches the parent; it saves its state and ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    """The number of available processor cores, at most 16."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return min(16, len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)


# --- batches ---------------------------------------------------------------------------------


class FolderBatches(Batches):
    """Batches whose images are decoded when they are needed, or shortly before.

    Batches do not depend on whether the folder's images are in memory or read from their files.
    """

    def __init__(
        self,
        folder: Folder,
        normalization: Normalization,
        pad: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """See `Batches`; `pad` is only used for the augmentation `crop`."""
        self._describe(folder, (3, folder.size, folder.size), normalization, pad, flip, device)
        self.folder = folder
        self._is_padded = folder.augmentation == "crop"
        self._windows: Iterator[Tensor] = iter(())
        self._next_window = (-1, 0)  # start and width

    def evaluation(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        width, stop = stop - start, min(stop, len(self))
        if self._next_window != (start, width):
            order = torch.arange(start, len(self))
            self._windows = self._read((window, None) for window in order.split(width))
        self._next_window = (stop, width)
        images = self.normalization.apply(next(self._windows))
        if stop == len(self):
            self._windows = iter(())  # ends the workers
        return images, self.labels[start:stop]

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """For random crops, uniform numbers float64 [B, NUM_DRAWS[augmentation]]."""
        if self._is_padded:
            return super()._draw(count, generator)
        shape = (count, NUM_DRAWS[self.folder.augmentation])
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def _augmented(self, pixels: Tensor, draws: Tensor) -> Tensor:
        if self._is_padded:
            return super()._augmented(pixels, draws)
        if self.folder.augmentation.endswith("colour"):
            pixels = drawn_colours(pixels, draws[:, -1 - COLOUR_DRAWS : -1])
        return self.normalization.apply(pixels)

    def _read(self, drawn: Iterable[Drawn]) -> Iterator[Tensor]:
        is_whole = isinstance(drawn, Sequence)
        count = sum(len(indices) for indices, _ in drawn) if is_whole else len(self)
        if self._is_padded:  # the draws are for the padding
            drawn = ((indices, None) for indices, _ in drawn)
        for pixels in self.folder.pixels(drawn, count, self.flip):
            yield to_device(pixels, self.device)
