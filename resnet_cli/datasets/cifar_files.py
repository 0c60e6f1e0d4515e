"""Reading CIFAR from torchvision's pickles, Hugging Face's parquet files, and class folders.

Files are untrusted: a file is only unpickled if it has the published checksum, counts are checked
before labels, and labels before any image is decoded.
"""

import hashlib
import io
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from resnet_cli.datasets.catalogue import SPLITS, SplitName
from resnet_cli.datasets.cifar import Cifar
from resnet_cli.datasets.images import (
    check_same_classes,
    class_names,
    decode_all,
    image_files,
    open_rgb,
    pixels_of,
)
from resnet_cli.datasets.split import Split, check_limit
from resnet_cli.runtime.errors import UserError, one_line


def _check_count(dataset: Cifar, split: SplitName, count: int, where: str) -> None:
    """Check that the split has all of its images.

    Raises:
        UserError: it has more or fewer.
    """
    total = dataset.counts[split]
    if count != total:
        raise UserError(
            f"{where}: {count:,} images; the {split} split of {dataset.title} has {total:,} "
            "(is a file missing or cut short?)"
        )


def _check_labels(
    dataset: Cifar, split: SplitName, labels: npt.NDArray[np.int64], where: str
) -> None:
    """Check that the split has all of its images, the same number in each class.

    Raises:
        UserError: a number or a label is wrong.
    """
    _check_count(dataset, split, len(labels), where)
    num_classes = len(dataset.classes)
    per_class = len(labels) // num_classes
    if labels.min() == 1 and labels.max() == num_classes:
        raise UserError(
            f"{where}: labels range from 1 to {num_classes}; those of {dataset.title} range "
            f"from 0 to {num_classes - 1}: subtract 1"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        bad = int(np.flatnonzero((labels < 0) | (labels >= num_classes))[0])
        raise UserError(
            f"{where}: label {labels[bad]} in row {bad}; labels of {dataset.title} range from "
            f"0 to {num_classes - 1}"
        )
    counts = np.bincount(labels, minlength=num_classes)
    if (counts != per_class).any():
        uneven = int(np.flatnonzero(counts != per_class)[0])
        raise UserError(
            f"{where}: {counts[uneven]:,} images of class {uneven}; {dataset.title} has "
            f"{per_class:,} in each of its {num_classes} classes: this is a different data set"
        )


# --- torchvision's pickles -------------------------------------------------------------------


def published(dataset: Cifar) -> dict[SplitName, list[tuple[str, str]]]:
    """The (name, MD5) of every file of each split, from torchvision."""
    from torchvision import datasets

    source = getattr(datasets, dataset.torchvision_name)
    lists = (source.train_list, source.test_list)
    return {
        split: [(str(name), str(md5)) for name, md5 in files]
        for split, files in zip(SPLITS, lists, strict=True)
    }


def read_pickles(dataset: Cifar, split: SplitName, folder: Path, limit: int | None) -> Split:
    """One split from the folder of an unpacked archive.

    Raises:
        UserError: a file is missing or damaged.
    """
    # A pickle can run any code. All files are therefore checked before the first is unpickled, and
    # exactly the bytes that were checked are unpickled.
    contents = {
        half: [(folder / name, _checked(dataset, folder / name, md5)) for name, md5 in files]
        for half, files in published(dataset).items()
    }
    pixels, labels = [], []
    for file, content in contents[split]:
        entry = _unpickled(file, content)
        pixels.append(entry["data"])
        labels.extend(entry["labels" if "labels" in entry else "fine_labels"])
    planes = np.concatenate(pixels).reshape(-1, 3, dataset.image_size, dataset.image_size)
    targets = np.asarray(labels, np.int64)
    _check_labels(dataset, split, targets, str(folder))
    n = check_limit(limit, len(targets), split)
    return Split(
        dataset.name,
        split,
        torch.from_numpy(planes[:n]),
        torch.from_numpy(targets[:n]),
        dataset.classes,
        f"torchvision files in {folder}",
    )


def _checked(dataset: Cifar, file: Path, md5: str) -> bytes:
    """The content of a file, after checking its MD5."""
    fix = f"remove {file.parent} and run resnet-cli data {dataset.name} --download"
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{file}: missing; {fix}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise UserError(f"{file}: damaged (its MD5 is not the published one); {fix}")
    return content


_ALLOWED_GLOBALS = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }
)
"""The only globals in CIFAR's pickles, which are needed to construct arrays."""


class _ArraysOnly(pickle.Unpickler):
    """Loads arrays and basic values; rejects any other class or function without importing it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise UserError(f"contains pickled code ({module}.{name}), which is not loaded")
        return super().find_class(module, name)


def _unpickled(file: Path, content: bytes) -> Mapping[str, Any]:
    """The content of one of CIFAR's pickles, whose MD5 is the published one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about dtype names in these old pickles
            entry: Mapping[str, Any] = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return entry


# --- parquet files ---------------------------------------------------------------------------


def read_parquet(
    dataset: Cifar, split: SplitName, files: Sequence[Path], limit: int | None = None
) -> Split:
    """One split from one or more Hugging Face parquet files.

    The column `img` or `image` holds encoded images (binary, or a struct with `bytes`) or lists of
    pixels; one of `label_columns` holds class numbers or names. Only the first `limit` images
    are decoded.

    Raises:
        UserError: a file cannot be read, has the wrong columns or number of images, or contains a
            damaged image; the message names the file and the row (counted from 0 within the file).
    """
    assert files, "a location without files has no splits"
    where = str(files[0]) if len(files) == 1 else f"{files[0].parent}/{split}-*.parquet"
    columns, labels, pixels = [], [], []
    rows = 0
    file = files[0]
    try:
        for file in files:
            with pq.ParquetFile(file) as parquet:
                columns.append(_columns(dataset, file, parquet.schema_arrow))
                rows += parquet.metadata.num_rows
        _check_count(dataset, split, rows, where)
        for file, (_, label) in zip(files, columns, strict=True):
            with pq.ParquetFile(file) as parquet:
                column = parquet.read(columns=[label]).column(label)
            if column.null_count:
                raise UserError(f"{file}: {column.null_count:,} rows have no {label}")
            labels.append(_labels(dataset, file, column))
        targets = np.concatenate(labels)
        _check_labels(dataset, split, targets, where)
        remaining = total = check_limit(limit, len(targets), split)
        for file, (image, _), inside in zip(files, columns, labels, strict=True):
            count = min(remaining, len(inside))
            if count > 0:
                pixels.append(_decode_rows(file, image, count, dataset.image_size))
                remaining -= count
    except (pa.ArrowException, OSError) as error:
        raise UserError(_why_unreadable(file, error)) from None
    return Split.of_pixels(
        dataset.name,
        split,
        pixels[0] if len(pixels) == 1 else np.concatenate(pixels),
        targets[:total],
        dataset.classes,
        f"Hugging Face parquet: {', '.join(map(str, files))}",
    )


SIGNATURES = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"GIF8", b"II", b"MM", b"P")
"""The first bytes of image files."""


def _why_unreadable(file: Path, error: Exception) -> str:
    with suppress(OSError), file.open("rb") as stream:
        if stream.read(40).startswith(b"version https://git-lfs"):
            return f"{file}: a Git LFS pointer, not the file itself; run git lfs pull"
    return f"{file}: damaged, or not a parquet file: {one_line(error)}"


def _columns(dataset: Cifar, file: Path, schema: Any) -> tuple[str, str]:
    """The names of the image and the label column."""

    def is_label(kind: Any) -> bool:
        if pa.types.is_dictionary(kind):
            return is_label(kind.value_type)
        checks = ("is_integer", "is_floating", "is_string", "is_large_string")
        return any(getattr(pa.types, check)(kind) for check in checks)

    def is_image(kind: Any) -> bool:
        if _is_list(kind):
            return True
        if pa.types.is_struct(kind):
            index = kind.get_field_index("bytes")
            return index >= 0 and is_image(kind.field(index).type)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    names = dataset.label_columns
    kinds = dict(zip(schema.names, schema.types, strict=True))
    twice = [name for name in ("img", "image", *names) if schema.names.count(name) > 1]
    if twice:
        raise UserError(f"{file}: has several columns named {twice[0]}; keep one")
    image = next((n for n in ("img", "image") if n in kinds and is_image(kinds[n])), None)
    label = next((n for n in names if n in kinds and is_label(kinds[n])), None)
    if image is None or label is None:
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise UserError(
            f"{file}: has the columns {found}; {dataset.title} needs img or image (encoded, in a "
            f"binary column or a struct with bytes; or lists of pixels) and "
            f"{' or '.join(names)} (numbers or names)"
        )
    return image, label


def _labels(dataset: Cifar, file: Path, column: Any) -> npt.NDArray[np.int64]:
    """The labels in a column of numbers or of class names.

    Raises:
        UserError: a number is not an integer, or a name is not a class name.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values = column.to_numpy()
    if pa.types.is_integer(column.type):
        return np.asarray(values, np.int64)
    if pa.types.is_floating(column.type):
        whole = np.asarray(np.nan_to_num(values), np.int64)
        if (whole != values).any():
            raise UserError(f"{file}: the labels are not whole numbers")
        return whole
    known = {name: dataset.label_of(name) for name in set(values.tolist())}
    unknown = sorted(name for name, label in known.items() if label is None)
    if unknown:
        raise UserError(
            f"{file}: {unknown[0][:50]!r} is not the name of a class of {dataset.title}"
        )
    return np.array([known[name] for name in values.tolist()], np.int64)


def _pixel_lists(file: Path, column: str, limit: int, size: int) -> npt.NDArray[np.uint8]:
    """The first `limit` images in a column of nested lists, [size, size, 3] or [3, size, size].

    Raises:
        UserError: a list has the wrong length, or a value is not in the range 0 to 255.
    """
    parts = []
    for values in _first_values(file, column, limit):
        shape = [len(values)]
        while _is_list(values.type):
            lengths = set(pc.list_value_length(values).to_pylist())
            is_fixed = len(lengths) == 1 and None not in lengths
            shape.append(lengths.pop() if is_fixed else -1)
            values = values.flatten()
        pixels = values.to_numpy(zero_copy_only=False)
        if shape[1:] not in ([size, size, 3], [3, size, size]):
            sizes = " x ".join("varying" if n < 0 else str(n) for n in shape[1:])
            raise UserError(
                f"{file}: {column} has lists of {sizes} numbers; "
                f"expected {size} x {size} x 3 or 3 x {size} x {size}"
            )
        if values.null_count or pixels.dtype.kind not in "iu" or not _fit_a_byte(pixels):
            raise UserError(f"{file}: {column} has pixels that are not integers from 0 to 255")
        pixels = pixels.astype(np.uint8).reshape(shape)
        parts.append(pixels if shape[3] == 3 else pixels.transpose(0, 2, 3, 1))
    return np.ascontiguousarray(np.concatenate(parts))


def _fit_a_byte(pixels: npt.NDArray[Any]) -> bool:
    return pixels.size == 0 or (pixels.min() >= 0 and pixels.max() <= 255)


def _decode_rows(file: Path, column: str, limit: int, size: int) -> npt.NDArray[np.uint8]:
    """The first `limit` images of a file, uint8 [N, size, size, 3]."""
    with pq.ParquetFile(file) as parquet:
        kind = parquet.schema_arrow.field(column).type
    if _is_list(kind):
        return _pixel_lists(file, column, limit, size)
    encoded = [
        content
        for values in _first_values(file, column, limit)
        for content in (values.field("bytes") if pa.types.is_struct(kind) else values).to_pylist()
    ]

    def decode(row: int) -> npt.NDArray[np.uint8]:
        content = encoded[row]
        where = f"{file}, row {row}"
        if content is None:
            raise UserError(f"{where}: has no image bytes (a path alone is not enough)")
        if len(content) == 3 * size * size and not content.startswith(SIGNATURES):
            raise UserError(
                f"{where}: {len(content):,} bytes of raw pixels, whose order is unknown; store "
                f"lists of {size} x {size} x 3 numbers, or PNG"
            )
        return pixels_of(open_rgb(io.BytesIO(content), where, side=size))

    return decode_all(len(encoded), size, decode)


def _first_values(file: Path, column: str, limit: int) -> Iterator[Any]:
    """The first `limit` values of a column, as arrays of up to 2,048."""
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=2048, columns=[column]):
            yield batch.column(0)[:limit]
            limit -= len(batch)
            if limit <= 0:
                break


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


# --- class folders ---------------------------------------------------------------------------


def read_class_folders(
    dataset: Cifar, split: SplitName, root: Path, top: Path, other: Path | None, limit: int | None
) -> Split:
    """One split from folders of image files.

    Args:
        root: links must not lead out of this folder.
        top: the folder with this split's class folders.
        other: the folder with the other split's class folders, if there is one.

    Raises:
        UserError: the classes differ from the data set's, or an image is missing, damaged or of
            the wrong size.
    """
    classes = class_names(top)
    if len(classes) != len(dataset.classes):
        raise UserError(
            f"{top}: has {len(classes)} class folders; {dataset.title} has {len(dataset.classes)}"
        )
    if other is not None:
        check_same_classes(top, other)
    known = [dataset.label_of(name) for name in classes]
    strange = [name for name, label in zip(classes, known, strict=True) if label is None]
    if strange or len(set(known)) != len(known):
        raise UserError(
            f"{top}: {', '.join((strange or classes)[:3])}: not the class names of "
            f"{dataset.title}, so their labels are unknown; rename the folders to "
            f"{', '.join(dataset.classes[:3])} and so on, or use the data set imagefolder"
        )
    files, positions = image_files(top, root, classes)
    labels = np.array(known, np.int64)[positions]
    _check_labels(dataset, split, labels, str(top))
    n = check_limit(limit, len(files), split)

    def decode(i: int) -> npt.NDArray[np.uint8]:
        return pixels_of(open_rgb(files[i], files[i], side=dataset.image_size))

    pixels = decode_all(n, dataset.image_size, decode)
    return Split.of_pixels(
        dataset.name, split, pixels, labels[:n], dataset.classes, f"class folders {top}"
    )
