"""Image files: which of them a folder holds, and how one is decoded. All of it is untrusted.

A file is checked before it is used: a link may not lead out of the data folder, only the formats
below are opened, and an image's size is read from its header before a pixel is decoded.
"""

import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from resnet_cli.runtime.errors import UserError, one_line

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_PIXELS = 40_000_000
"""Larger images of a folder are refused before they are decoded."""


# --- decoding --------------------------------------------------------------------------------


def decode_all(
    count: int, side: int, decode: Callable[[int], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    """`decode(0)` to `decode(count - 1)`, each [side, side, 3], on a few threads.

    Of several failures the one of the lowest chunk is raised, whatever the threads do.
    """
    pixels = np.empty((count, side, side, 3), np.uint8)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            pixels[i] = decode(i)

    in_chunks(count, work)
    return pixels


def in_chunks(count: int, work: Callable[[int, int], None], chunk: int = 500) -> None:
    """`work(start, stop)` for all of `range(count)` in chunks, on a few threads."""
    from PIL import Image

    Image.init()  # registers the formats once, before the threads need them
    starts = range(0, count, chunk)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for _ in pool.map(work, starts, [min(start + chunk, count) for start in starts]):
                pass


def open_rgb(
    source: str | Path | io.BytesIO, where: str, *, side: int | None = None
) -> "Image.Image":
    """Decode one image to RGB; its size is checked in the header, before any pixel is decoded.

    Args:
        source: the file or its content.
        where: names the image in an error.
        side: the only width and height allowed; None allows up to MAX_PIXELS in all.

    Raises:
        UserError: the image is damaged, of another format, or of a size not allowed.
    """
    from PIL import Image

    try:
        with Image.open(source, formats=IMAGE_FORMATS) as image:
            _check_size(image.size, where, side)
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(where) from None
    except Exception as error:  # Pillow's decoders raise errors of any type for a damaged file
        raise UserError(f"{where}: damaged, or not an image: {one_line(error)}") from None


def header_size(file: str) -> tuple[int, int]:
    """Width and height of an image file by its header; nothing is decoded.

    Raises:
        UserError: as `open_rgb`, for what the header shows.
    """
    from PIL import Image

    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            _check_size(image.size, file, None)
            return image.size
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(file) from None
    except Exception as error:
        raise UserError(f"{file}: damaged, or not an image: {one_line(error)}") from None


def _check_size(size: tuple[int, int], where: str, side: int | None) -> None:
    width, height = size
    if side is not None and (width, height) != (side, side):
        raise UserError(f"{where}: {width}x{height} pixels; expected {side}x{side}")
    if width * height > MAX_PIXELS:
        raise _too_large(where)


def pixels_of(image: "Image.Image") -> npt.NDArray[np.uint8]:
    """An RGB image -> uint8 [H, W, 3] (less work than np.asarray, which counts for tiny images)."""
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


def _too_large(where: str) -> UserError:
    return UserError(f"{where}: more than {MAX_PIXELS // 1_000_000} megapixels are refused")


# --- folders of images -----------------------------------------------------------------------


def class_names(folder: Path) -> list[str]:
    """The class folders in a folder, sorted, hidden ones left out; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith("."))


def check_same_classes(one: Path, other: Path) -> None:
    """Both splits must have the same classes, or their labels would differ.

    Raises:
        UserError: they do not; names the first that differ.
    """
    difference = sorted(set(class_names(one)) ^ set(class_names(other)))
    if difference:
        shown = ", ".join(difference[:5]) + (" …" if len(difference) > 5 else "")
        raise UserError(
            f"{one} and {other}: must have the same class folders; only one has {shown}"
        )


def image_files(
    folder: Path, root: Path, classes: Sequence[str]
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """All image files below the class folders, with their labels.

    They come in one fixed shuffled order, so that the first N are a fair subset of the classes.

    Raises:
        UserError: a class is empty, or a link leads out of `root`.
    """
    import torch
    from torchvision.datasets.folder import make_dataset

    from resnet_cli.runtime.seeding import stream

    _check_link(folder, root.resolve())
    for name in classes:
        _check_link(folder / name, root.resolve())
        _check_tree(folder / name, root.resolve())
    indices = {name: index for index, name in enumerate(classes)}
    try:
        samples = make_dataset(folder, indices, extensions=IMAGE_SUFFIXES)
    except FileNotFoundError as error:  # torchvision names the empty classes and the suffixes
        raise UserError(f"{folder}: {one_line(error)}") from None
    order = torch.randperm(len(samples), generator=stream(0, "folder", len(samples)))
    shuffled = [samples[i] for i in order.tolist()]
    labels = np.array([label for _, label in shuffled], np.int64)
    return [path for path, _ in shuffled], labels


def _check_tree(folder: Path, root: Path) -> None:
    """Everything below a folder is a file or folder of its own, or a link to a file inside root."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.is_symlink():
                _check_link(path, root)
                if path.is_dir():
                    raise UserError(f"{path}: is a link to a folder, which is not followed")
            elif entry.is_dir():
                _check_tree(path, root)
            elif not entry.is_file():
                raise UserError(f"{path}: is neither file nor folder; remove it")


def _check_link(path: Path, root: Path) -> None:
    """A path must stay inside root (itself resolved) after following links."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise UserError(f"{path}: cannot be followed: {one_line(error)}") from None
    if not target.is_relative_to(root):
        raise UserError(f"{path}: leads out of the data folder {root}, to {target}; copy it inside")
