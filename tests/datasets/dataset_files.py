"""Small made-up data sets: images, parquet files, class folders, torchvision's pickles."""

import hashlib
import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch import Tensor

from resnet_cli.datasets.cifar import Cifar
from resnet_cli.datasets.split import Split


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A random image, uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pictures(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Random images, uint8 [count, size, size, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, lossless=True)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims to have this size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + bytes(13)


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels, "JPEG" if path.suffix == ".jpg" else "PNG"))


def class_folders(folder: Path, names: list[str], per_class: int = 2, size: int = 32) -> None:
    """Images of one grey value each, 20 times the index of the class."""
    for index, name in enumerate(names):
        for number in range(per_class):
            pixels = np.full((size, size, 3), 20 * index % 256, np.uint8)
            write_image(folder / name / f"{number}.png", pixels)


def write_parquet(
    file: Path | io.BytesIO,
    encoded: list[bytes | None],
    labels: list[Any],
    image: str = "img",
    label: str = "label",
    plain: bool = False,
) -> None:
    if isinstance(file, Path):
        file.parent.mkdir(parents=True, exist_ok=True)
    rows = encoded if plain else [{"bytes": content, "path": "x.png"} for content in encoded]
    pq.write_table(pa.table({image: rows, label: labels}), file)


def parquet_set(folder: Path, dataset: Cifar, **columns: Any) -> dict[str, np.ndarray]:
    """A whole set of parquet files; returns the pixels of each split."""
    pixels = {}
    for seed, (split, count) in enumerate(dataset.counts.items()):
        pixels[split] = pictures(count, seed=seed)
        labels = [i % len(dataset.classes) for i in range(count)]
        encoded: list[bytes | None] = [encode(image) for image in pixels[split]]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", encoded, labels, **columns)
    return pixels


def torchvision_set(
    monkeypatch: pytest.MonkeyPatch, root: Path, dataset: Cifar
) -> dict[str, np.ndarray]:
    """A whole set of pickles, with torchvision's checksums changed to theirs."""
    import torchvision

    key = "labels" if dataset.name == "cifar10" else "fine_labels"
    pixels = {}
    folder = root / dataset.torchvision_folder
    folder.mkdir(parents=True)
    for split, count in dataset.counts.items():
        pixels[split] = pictures(count)
        published = []
        for number, part in enumerate((slice(0, count // 2), slice(count // 2, None))):
            rows = pixels[split][part].transpose(0, 3, 1, 2).reshape(-1, 3072)
            labels = [i % len(dataset.classes) for i in range(count)][part]
            content = pickle.dumps({"data": rows, key: labels})
            (folder / f"{split}_{number}").write_bytes(content)
            published.append([f"{split}_{number}", hashlib.md5(content).hexdigest()])
        source = getattr(torchvision.datasets, dataset.torchvision_name)
        monkeypatch.setattr(source, f"{split}_list", published)
    return pixels


def nhwc(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def make_split(count: int = 12, size: int = 8, seed: int = 0) -> Split:
    """Random images of three classes."""
    pixels = pictures(count, size, seed)
    labels = np.arange(count) % 3
    return Split.of_pixels("fake", "train", pixels, labels, ("a", "b", "c"), "made up")
