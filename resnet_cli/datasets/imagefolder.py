"""Folders of images, ImageNet included: in memory when small, else decoded as they are asked for.

Shapes: B images of a batch, C channels, H rows, W columns, as in `data`. What a split becomes:

- test images, and training images that are cropped as CIFAR's are, always start from the same
  square: up to MEMORY_BYTES of squares become a `Split`;
- training images of which every epoch takes other parts (`scale`, `scale_aspect`) are kept whole:
  a `Folder`, its decoded images in memory up to MEMORY_BYTES;
- a `Folder` larger than that reads and decodes the images of a batch on a pool of threads, while
  the network works on the batch before. Threads are enough, since Pillow decodes and resizes
  outside Python's global lock.

An image's crop is a function of the stream of its iteration and its place in the batch: all
random numbers of a batch are drawn at once, before any thread begins.
"""

import dataclasses
import hashlib
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import images
from resnet_cli.datasets.data import (
    ALL,
    Batches,
    Normalization,
    Split,
    SplitName,
    check_limit,
    split_of,
    to_device,
)
from resnet_cli.runtime.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

MEMORY_BYTES = 4_000_000_000
"""Splits that take more, decoded, are not held in memory."""
THREADS = min(16, os.cpu_count() or 1)
CENTRE = 256 / 224
"""The shorter side of a test image over its central crop, as is usual for ImageNet."""
SCALES = (256 / 224, 480 / 224)
"""`scale`: the shorter side over the crop, from and to (He et al. 2015, section 3.4)."""
AREAS = (0.08, 1.0)
ASPECTS = (3 / 4, 4 / 3)
"""`scale_aspect`: the crop's share of the area, and its width over its height."""
ATTEMPTS = 10
NUM_DRAWS = {"scale": 4, "scale_aspect": 2 * ATTEMPTS + 3}
"""Random numbers for each image; the last decides on mirroring."""


# --- loading ---------------------------------------------------------------------------------


def load(root: Path, split: SplitName, config: DataConfig, limit: int | None) -> "Split | Folder":
    """One split of a tree of class folders.

    `root` has `train/` and `val/` or `test/` (in this order) with a folder for each class; for
    the test split it may hold the class folders itself.

    Raises:
        UserError: the tree is not of this form, or an image that is decoded now is damaged.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the image folder with --data-dir")
    folder = _half(root, split)
    classes = images.class_names(folder)
    if not classes:
        raise UserError(
            f"{folder}: has no class folders; expected are {folder.name}/<class>/<image>, "
            "one folder for each class"
        )
    if folder != root:
        other = _half(root, "test" if split == "train" else "train", missing_ok=True)
        if images.class_names(other):
            images.check_same_classes(folder, other)
    files, labels = images.image_files(folder, root, classes)
    n = check_limit(limit, len(files), split)
    size = 224 if config.image_size is None else config.image_size
    shorter_side = round(size * CENTRE)
    if split == "test" and config.test_size is not None:
        larger = config.test_size > size
        size = config.test_size
        shorter_side = size if larger else round(size * CENTRE)
    found = Folder(
        split=split,
        top=folder,
        files=files[:n],
        labels=torch.from_numpy(labels[:n]),
        classes=tuple(classes),
        size=size,
        shorter_side=shorter_side,
        augmentation="crop" if split == "test" else config.augmentation,
    )
    if found.augmentation == "crop":
        if n * 3 * size * size > MEMORY_BYTES:
            return found
        pixels = images.decode_all(n, size, found.centre)
        return split_of("imagefolder", split, pixels, labels[:n], classes, found.source)
    return found.held() if found.decoded_bytes() <= MEMORY_BYTES else found


def _half(root: Path, split: str, missing_ok: bool = False) -> Path:
    """The folder of a split; the first candidate with class folders, else the first there is."""
    names = ("train",) if split == "train" else ("val", "test")
    halves = [root / name for name in names if (root / name).is_dir()]
    for half in halves:
        if images.class_names(half):
            return half
    if halves or missing_ok:
        return halves[0] if halves else root / names[0]
    if split == "test" and not (root / "train").is_dir():
        return root
    raise UserError(f"{root}: has no {' or '.join(name + '/' for name in names)} folder")


# --- one split -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
    """The training or the test half of a folder of images, decoded image by image."""

    split: str
    """`train` or `test`."""
    top: Path
    """The folder that holds the class folders."""
    files: Sequence[str]
    labels: Tensor
    """int64 [N], indices into `classes`."""
    classes: tuple[str, ...]
    size: int
    """Pixels a side of every crop."""
    shorter_side: int
    """What the shorter side is resized to before the central crop."""
    augmentation: Literal["crop", "scale", "scale_aspect"]
    decoded: Sequence[npt.NDArray[np.uint8]] | None = None
    """Every image whole, uint8 [H, W, 3]; None when they are too large to be held."""
    dataset: str = "imagefolder"

    def __len__(self) -> int:
        return len(self.files)

    @property
    def source(self) -> str:
        """In words: the files that are read."""
        return f"class folders {self.top}"

    def batches(
        self,
        normalization: Normalization,
        pad: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
    ) -> "FolderBatches":
        """Batches of this split on a device, see `FolderBatches`."""
        return FolderBatches(self, normalization, pad, flip, device)

    def held(self) -> "Folder":
        """The same with every image decoded into memory."""
        decoded: list[npt.NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(self)

        def decode(start: int, stop: int) -> None:
            for i in range(start, stop):
                decoded[i] = images.pixels_of(self._picture(i))

        images.in_chunks(len(self), decode, chunk=50)
        return dataclasses.replace(self, decoded=decoded)

    def decoded_bytes(self) -> int:
        """What `held` would take, by the files' headers; above MEMORY_BYTES, what counts so far."""
        total = 0
        for file in self.files:
            width, height = images.header_size(file)
            total += 3 * width * height
            if total > MEMORY_BYTES:
                break
        return total

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 as 64 hex digits: over names, labels and pixels of images that are held, else
        over the files' names, labels and sizes, so that 150 GB need not be read for it.
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
        """The central crops of all images, uint8 [n, C, H, W] at a time, for statistics.

        Raises:
            UserError: the images are not held in memory.
        """
        if self.decoded is None:
            raise UserError(
                f"normalize: statistics of {len(self):,} images that do not fit into memory would "
                "read them all; use imagenet, or write m1,m2,m3/s1,s2,s3"
            )
        for start in range(0, len(self), 500):
            yield _Job(self, range(start, min(start + 500, len(self))), None).result()

    # --- one image ----------------------------------------------------------------------------

    def centre(self, index: int) -> npt.NDArray[np.uint8]:
        """The central square of an image, uint8 [size, size, 3].

        Raises:
            UserError: the image is damaged, too large or too narrow; as for `random`.
        """
        from torchvision.transforms.v2 import functional

        resized = self._resized(index, self.shorter_side)
        return images.pixels_of(functional.center_crop(resized, [self.size, self.size]))

    def random(self, index: int, draws: Sequence[float]) -> npt.NDArray[np.uint8]:
        """A random square of an image, uint8 [size, size, 3].

        Resized bilinearly with antialiasing, as torchvision's networks are trained;
        fb.resnet.torch resizes bicubically.

        Args:
            draws: NUM_DRAWS[augmentation] numbers, uniform in [0, 1).
        """
        from torchvision.transforms.v2 import functional

        if self.augmentation == "scale":
            resized = self._resized(index, drawn_scale(self.size, draws[0]))
            top = int(draws[1] * (resized.height - self.size + 1))
            left = int(draws[2] * (resized.width - self.size + 1))
            return images.pixels_of(functional.crop(resized, top, left, self.size, self.size))
        picture = self._picture(index)
        top, left, height, width = drawn_box(picture.width, picture.height, draws)
        square = functional.resized_crop(picture, top, left, height, width, [self.size, self.size])
        return images.pixels_of(square)

    def _picture(self, index: int) -> "Image.Image":
        """The whole image."""
        from PIL import Image

        if self.decoded is not None:
            return Image.fromarray(self.decoded[index])
        return images.open_rgb(self.files[index], self.files[index])

    def _resized(self, index: int, shorter_side: int) -> "Image.Image":
        """The whole image with its shorter side resized."""
        from torchvision.transforms.v2 import functional

        picture = self._picture(index)
        longer, shorter = max(picture.size), min(picture.size)
        if shorter_side * shorter_side * longer > images.MAX_PIXELS * shorter:  # 1 x 1,000,000
            raise UserError(
                f"{self.files[index]}: {picture.width}x{picture.height} is too narrow to resize "
                f"to {self.size}x{self.size}"
            )
        return functional.resize(picture, [shorter_side])  # type: ignore[no-any-return]


def drawn_scale(size: int, draw: float) -> int:
    """The shorter side of `scale`: uniform over the whole numbers from 256 to 480 for size 224."""
    low, high = (round(size * scale) for scale in SCALES)
    return low + int(draw * (high - low + 1))


def drawn_box(width: int, height: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """The crop of `scale_aspect`: (top, left, height, width).

    Szegedy et al. 2015, section 6, as torchvision's RandomResizedCrop has it: area uniform,
    aspect ratio uniform in its logarithm, ten attempts to fit, then the largest central crop.
    (fb.resnet.torch draws the square root of the aspect ratio from the same interval, so its
    crops are up to 16:9.)
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


# --- batches ---------------------------------------------------------------------------------


@cache
def _pool() -> ThreadPoolExecutor:
    from PIL import Image

    Image.init()  # registers the formats once, before the threads need them
    # Our own limit on pixels is below the one Pillow warns at; broken EXIF is not ours to report.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    return ThreadPoolExecutor(THREADS, thread_name_prefix="images")


class _Job:
    """The images of one batch on their way from files to bytes, on the pool's threads."""

    def __init__(
        self, folder: Folder, indices: Sequence[int], draws: Tensor | None, flip: bool = False
    ) -> None:
        self.folder, self.flip = folder, flip
        self.pixels = np.empty((len(indices), folder.size, folder.size, 3), np.uint8)
        each = [None] * len(indices) if draws is None else draws.tolist()
        self.futures = [
            _pool().submit(self._work, position, index, each[position])
            for position, index in enumerate(indices)
        ]

    def _work(self, position: int, index: int, draws: Sequence[float] | None) -> None:
        if draws is None:
            self.pixels[position] = self.folder.centre(index)
            return
        square = self.folder.random(index, draws)
        mirrored = self.flip and draws[-1] < 0.5
        self.pixels[position] = square[:, ::-1] if mirrored else square

    def result(self) -> Tensor:
        """uint8 [B, C, H, W], channels_last; the first failure in batch order is raised."""
        try:
            for future in self.futures:
                future.result()
        finally:
            for future in self.futures:
                future.cancel()
        return torch.from_numpy(self.pixels).permute(0, 3, 1, 2)


class FolderBatches(Batches):
    """Batches whose images are decoded when they are asked for, or announced.

    The batches themselves, and the statistics they depend on, are the same whether the folder's
    images are held in memory or read from their files.
    """

    def __init__(
        self,
        folder: Folder,
        normalization: Normalization,
        pad: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """See `Batches`; `pad` is for the augmentation `crop` only."""
        self._describe(folder, (3, folder.size, folder.size), normalization, pad, flip, device)
        self.folder = folder
        self._announced: tuple[bytes, _Job] | None = None
        self._ahead: tuple[int, int, _Job] | None = None

    def announce(self, indices: Tensor, generator: torch.Generator, part: slice = ALL) -> None:
        draws = self._draw(len(indices), generator, part)
        indices = indices[part]
        self._announced = _key(indices, draws), self._begin(indices, draws)

    def training(
        self, indices: Tensor, generator: torch.Generator, part: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        draws = self._draw(len(indices), generator, part)
        if draws is None:
            return super().training(indices, generator, part)
        indices = indices[part]
        images = to_device(self._collect(indices, draws), self.device)
        labels = self.labels[to_device(indices, self.device)]
        return self.normalization.apply(images), labels

    def evaluation(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        width, stop = stop - start, min(stop, len(self))
        if self._ahead is not None and self._ahead[:2] == (start, stop):
            job = self._ahead[2]
        else:
            job = self._begin(torch.arange(start, stop), None)
        after = min(stop + width, len(self))
        self._ahead = None
        if stop < after:
            self._ahead = stop, after, self._begin(torch.arange(stop, after), None)
        images = to_device(job.result(), self.device)
        return self.normalization.apply(images), self.labels[start:stop]

    def _pixels(self, indices: Tensor) -> Tensor:
        return to_device(self._collect(indices, None), self.device)

    def _draw(self, count: int, generator: torch.Generator, part: slice) -> Tensor | None:
        """A part of random numbers float64 [count, NUM_DRAWS]; None when `Batches` augments."""
        if self.folder.augmentation == "crop":
            return None
        shape = (count, NUM_DRAWS[self.folder.augmentation])
        return torch.rand(shape, generator=generator, dtype=torch.float64)[part]

    def _begin(self, indices: Tensor, draws: Tensor | None) -> _Job:
        return _Job(self.folder, indices.tolist(), draws, self.flip)

    def _collect(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """The pixels of a batch, announced or not."""
        announced = self._announced
        if announced is not None and announced[0] == _key(indices, draws):
            self._announced = None
            return announced[1].result()
        return self._begin(indices, draws).result()


def _key(indices: Tensor, draws: Tensor | None) -> bytes:
    return indices.numpy().tobytes() + (b"" if draws is None else draws.numpy().tobytes())
