"""Finding and decoding image files, which are all untrusted.

Files are checked before they are used: links must not lead out of the data folder, only the formats
below are opened, and an image's size is read from its header before any pixel is decoded.
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

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
OTHER_SUFFIXES = (
    "",
    ".txt",
    ".md",
    ".csv",
    ".json",
    ".xml",
    ".yaml",
    ".yml",
    ".html",
    ".db",
    ".ini",
)
"""Suffixes of files that are ignored. Any other file is an error, because it may be an image in
another format."""
MAX_PIXELS = 40_000_000
"""Larger images are an error; they are not decoded."""


# --- decoding --------------------------------------------------------------------------------


def decode_all(
    count: int, side: int, decode: Callable[[int], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    """`decode(0)` to `decode(count - 1)`, each [side, side, 3], on a few threads.

    If several images fail, the error of the first failing chunk is raised, regardless of timing.
    """
    pixels = np.empty((count, side, side, 3), np.uint8)

    def work(start: int, stop: int) -> None:
        for i in range(start, stop):
            pixels[i] = decode(i)

    in_chunks(count, work)
    return pixels


def in_chunks(count: int, work: Callable[[int, int], None], chunk: int = 500) -> None:
    """Call `work(start, stop)` for chunks that cover `range(count)`, on a few threads."""
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
    """Decode one image to RGB, after checking its size in the header.

    Args:
        source: the file or its content.
        where: the name of the image in error messages.
        side: the required width and height; None allows up to MAX_PIXELS pixels.

    Raises:
        UserError: the image is damaged, or its format or size is not valid.
    """
    from PIL import Image

    try:
        with Image.open(source, formats=IMAGE_FORMATS) as image:
            _check_size(image.size, where, side)
            image.load()
            return _to_rgb(image, where)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(where) from None
    except Exception as error:  # Pillow's decoders raise errors of any type for a damaged file
        raise UserError(f"{where}: damaged, or not an image: {one_line(error)}") from None


def _to_rgb(image: "Image.Image", where: str) -> "Image.Image":
    """Convert an image of any mode to 8-bit RGB. 16-bit values are scaled; Pillow would clip
    them."""
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode[0] in "IF":
        pixels = np.asarray(image)
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
            raise UserError(f"{where}: has 32-bit pixels, whose range is unknown; use 8 bits")
        image = Image.fromarray(((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))
    return image.convert("RGB")


def header_size(file: str) -> tuple[int, int]:
    """Width and height of an image file, from its header alone.

    Raises:
        UserError: the header is damaged, or the format or size is not valid.
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
    """An RGB image -> uint8 [H, W, 3]. For tiny images this is faster than np.asarray."""
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


def _too_large(where: str) -> UserError:
    return UserError(
        f"{where}: more than {MAX_PIXELS // 1_000_000} megapixels; make the image smaller"
    )


# --- folders of images -----------------------------------------------------------------------


def class_names(folder: Path) -> list[str]:
    """The names of the class folders in a folder, sorted, without hidden ones; empty if the folder
    does not exist.

    Raises:
        UserError: a name is not UTF-8.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    return sorted(_text(folder, name) for name in names if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is a by-product of other programs, such as `.ipynb_checkpoints`,
    `._1.png` and `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def _text(folder: Path, name: str) -> str:
    """Check that a name is valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{ascii(str(folder / name))[1:-1]}: its name is not UTF-8; rename it"
        ) from None
    return name


def check_same_classes(one: Path, other: Path) -> None:
    """Check that both splits have the same classes; otherwise their labels would differ.

    Raises:
        UserError: the classes differ; the message names the first few.
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

    Files are in a fixed shuffled order, so that the first N are a fair sample of all classes.
    Labels are positions in the sorted list of classes.

    Raises:
        UserError: a class has no images or contains other files, or a link leads out of `root`.
    """
    import torch

    from resnet_cli.runtime.seeding import stream

    root = root.resolve()
    _check_link(folder, root)
    samples: list[tuple[str, int]] = []
    for label, name in enumerate(sorted(classes)):
        _check_link(folder / name, root)
        files = _files_in_tree(folder / name, root)
        found = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
        if not found:
            raise UserError(
                f"{folder / name}: contains no images ({', '.join(IMAGE_SUFFIXES)}); add images or "
                "remove the folder"
            )
        others = [f for f in files if Path(f).suffix.lower() not in IMAGE_SUFFIXES + OTHER_SUFFIXES]
        if others:
            raise UserError(
                f"{folder / name}: {len(others):,} files of other kinds, such as "
                f"{Path(others[0]).name}; convert them to images "
                f"({', '.join(IMAGE_SUFFIXES)}) or remove them"
            )
        samples += [(file, label) for file in found]
    order = torch.randperm(len(samples), generator=stream(0, "folder", len(samples)))
    shuffled = [samples[i] for i in order.tolist()]
    labels = np.array([label for _, label in shuffled], np.int64)
    return [path for path, _ in shuffled], labels


def _files_in_tree(top: Path, root: Path) -> list[str]:
    """All files below a folder, sorted by folder and then by name, without hidden ones.

    Raises:
        UserError: an entry is not a file, a folder or a link to a file inside `root`, or it cannot
            be read.
    """
    found: list[tuple[str, str]] = []
    folders = [str(top)]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as scanned:
                entries = [entry for entry in scanned if not _is_hidden(entry.name)]
        except OSError as error:  # such as a path of more than 4,096 bytes
            place = folder if len(folder) < 200 else f"{folder[:200]}…"
            raise UserError(f"{place}: cannot be read: {error.strerror}") from None
        for entry in entries:
            path = Path(folder, _text(Path(folder), entry.name))
            if entry.is_symlink():
                _check_link(path, root)
                if path.is_dir():
                    raise UserError(f"{path}: a link to a folder, which is not followed; copy it")
            elif entry.is_dir():
                folders.append(entry.path)
                continue
            elif not entry.is_file():
                raise UserError(f"{path}: neither a file nor a folder; remove it")
            found.append((folder, entry.name))
    return [os.path.join(folder, name) for folder, name in sorted(found)]


def _check_link(path: Path, root: Path) -> None:
    """Check that a path stays inside `root`, which is resolved already, after following links."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise UserError(f"{path}: cannot be followed: {one_line(error)}") from None
    if not target.is_relative_to(root):
        raise UserError(
            f"{path}: links to {target}, outside the data folder {root}; copy it inside"
        )
