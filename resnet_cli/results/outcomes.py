"""Which test images a network classifies correctly, stored next to the table of its errors.

Two networks evaluated on the same images tend to fail on the same difficult ones, so the standard
error of their difference needs the outcome for every image, not only the two errors. `correct.npz`
holds one array for each network or measurement, eight images per byte, in the order of the test
split.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_cli.results.layout import OUTCOMES_FILE
from resnet_cli.results.tables import atomic_write
from resnet_cli.runtime.errors import UserError, one_line

RUN_KEY = "test"
"""The name of the only array in a run's folder, for its network after the last epoch."""

_LARGEST_FILE = 1 << 28


def case_key(case: str, seed: int) -> str:
    """The name of the array for one trained network of a table."""
    return f"{case}/seed{seed}"


def write_outcomes(folder: Path, outcomes: Mapping[str, NDArray[np.bool_]]) -> Path:
    """Write `folder/correct.npz`; return its path.

    Args:
        outcomes: name -> whether each test image is classified correctly, shape [images], all of
            the same length.

    Raises:
        UserError: the file cannot be written.
        ValueError: an array is not one-dimensional and of type bool, or the lengths differ.
    """
    lengths = {array.size for array in outcomes.values()}
    if len(lengths) != 1 or any(a.dtype != bool or a.ndim != 1 for a in outcomes.values()):
        raise ValueError("outcomes must be one-dimensional arrays of bool with the same length")
    arrays = {name: np.packbits(array) for name, array in outcomes.items()}
    if "images" in arrays:
        raise ValueError("the name 'images' is reserved for the number of images")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, images=np.array(lengths.pop()), **arrays)
    path = folder / OUTCOMES_FILE
    atomic_write(path, buffer.getvalue())
    return path


def read_outcomes(folder: Path) -> dict[str, NDArray[np.bool_]]:
    """The arrays of `folder/correct.npz` by name, each of shape [images]; empty without the file.

    Raises:
        UserError: the file cannot be read, or was not written by `write_outcomes`.
    """
    path = folder / OUTCOMES_FILE
    try:
        if not path.exists():
            return {}
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_FILE:
                raise ValueError("it is larger than any table's outcomes")
        with np.load(path, allow_pickle=False) as stored:
            images = int(stored["images"])
            packed = {name: stored[name] for name in stored.files if name != "images"}
        if any(a.dtype != np.uint8 or a.shape != (-(-images // 8),) for a in packed.values()):
            raise ValueError(f"an array does not hold {images} images")
        return {name: np.unpackbits(a, count=images).astype(bool) for name, a in packed.items()}
    except Exception as error:  # a damaged archive can raise any error
        why = one_line(error, 120)
        raise UserError(f"{path}: cannot be read: {why}; remove it or measure again") from None


def paired_variance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The variance of the difference between two test errors, in squared percentage points.

    The two networks classify the same images. With d the difference of the outcomes for an image,
    the variance is var(d) / images (as in McNemar's test, but without assuming equal errors).

    Args:
        first, second: whether each image is classified correctly, or the share of trainings in
            which it is, shape [images].

    Raises:
        ValueError: the shapes differ, or there are fewer than two images.
    """
    if first.shape != second.shape or first.size < 2:
        raise ValueError(f"outcomes on {first.size} and {second.size} images cannot be paired")
    difference = first.astype(float) - second
    return float(difference.var(ddof=1)) / first.size * 100.0**2
