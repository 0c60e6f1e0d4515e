"""Data sets: from files to uint8 tensors in memory to augmented batches on the device.

Shapes: N images, B images of a batch, C channels, H rows, W columns. Images are kept as uint8 in
PyTorch's channels_last memory format: the shape reads [N, C, H, W], the bytes lie in the order
N, H, W, C. Reading is separate from augmenting: `load_split` gives a `Split`, `Batches` cuts
batches from it. Files are untrusted: nothing is unpickled whose checksum is not the published
one; `images` decodes image files, `imagefolder` reads folders of them.
"""

import dataclasses
import hashlib
import io
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets.images import (
    check_same_classes,
    class_names,
    decode_all,
    image_files,
    one_line,
    open_rgb,
    pixels_of,
)
from resnet_cli.runtime import seeding
from resnet_cli.runtime.errors import UserError, unknown

if TYPE_CHECKING:
    from resnet_cli.datasets.imagefolder import Folder

SplitName = Literal["train", "test"]
ALL = slice(None)
Progress = Callable[[str, int, int | None], None]
"""Called while downloading with (file name, bytes so far, bytes in all or None)."""

CIFAR_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
CIFAR_SIZE = 32
CIFAR_COUNTS = {"train": 50_000, "test": 10_000}
_CIFAR10_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR_CLASSES: dict[str, tuple[str, ...]] = {
    "cifar10": tuple(_CIFAR10_NAMES.split()),
    "cifar100": tuple(_CIFAR100_NAMES.split()),
}
"""The class names in the order of the published labels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The training or the test half of a data set, in memory."""

    dataset: str
    split: str
    """`train` or `test`."""
    images: Tensor
    """uint8 [N, C, H, W], channels_last."""
    labels: Tensor
    """int64 [N], indices into `classes`."""
    classes: tuple[str, ...]
    source: str
    """In words: the files that were read."""

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8, self.images.dtype
        assert self.images.dim() == 4, self.images.shape
        assert self.labels.dtype == torch.int64, self.labels.dtype
        assert self.labels.shape == self.images.shape[:1], (self.labels.shape, self.images.shape)
        channels_last = self.images.contiguous(memory_format=torch.channels_last)
        object.__setattr__(self, "images", channels_last)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels and labels, as 64 hex digits.

        Hashed are the text `NxHxWxC;`, the pixels in that order, and the labels as little-endian
        int64; names of classes and files play no part.
        """
        pixels = self.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        digest = hashlib.sha256(f"{'x'.join(map(str, pixels.shape))};".encode())
        digest.update(pixels.data)
        digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def chunks(self) -> Iterator[Tensor]:
        """The images, uint8 [n, C, H, W], about 1,000 at a time, for statistics."""
        yield from self.images.chunk(1 + len(self) // 1000)

    def batches(
        self,
        normalization: "Normalization",
        pad: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
    ) -> "Batches":
        """Batches of this split on a device, see `Batches`."""
        return Batches(self, normalization, pad, flip, device)

    def take(self, n: int | None) -> "Split":
        """The first n images (a view), or all of them for None.

        Raises:
            UserError: the split has fewer than n images.
        """
        if n is None or n == len(self):
            return self
        check_limit(n, len(self), self.split)
        return dataclasses.replace(self, images=self.images[:n], labels=self.labels[:n])


def check_limit(limit: int | None, total: int, split: str) -> int:
    """How many images to read: the limit, or all.

    Raises:
        UserError: the limit is larger than the split.
    """
    if limit is not None and limit > total:
        raise UserError(f"data.{split}_images: {limit:,} asked for, the split has {total:,}")
    return total if limit is None else limit


# --- loading ---------------------------------------------------------------------------------


def data_root(data_dir: Path | None = None) -> Path:
    """The folder data sets are looked for in: `data_dir`, else $RESNET_CLI_DATA, else ./data."""
    if data_dir is not None:
        return data_dir.expanduser()
    return Path(os.environ.get("RESNET_CLI_DATA") or "data").expanduser()


def load_split(
    config: DataConfig,
    split: SplitName,
    data_dir: Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> "Split | Folder":
    """Read one split of the configured data set, checked, with `train_images`/`test_images`.

    Args:
        config: names the data set and its sizes.
        split: `train` or `test`; where a data set has a validation split only, that is `test`.
        data_dir: the folder to look in, see `data_root`.
        download: fetch CIFAR into that folder if it is not there.
        progress: told how the download fares.

    Returns:
        images uint8 [N, 3, H, W]; H = W = 16 or 32 (digits), 32 (CIFAR), `image_size` or
        `test_size` (folders, which may be larger than memory: see `imagefolder`).

    Raises:
        UserError: nothing was found (names every folder tried), a file is damaged or not what it
            should be (names it), or the configuration does not fit the data set.
        RunError: the download failed.
    """
    limit = config.train_images if split == "train" else config.test_images
    if config.dataset == "digits":
        return _load_digits(config.image_size, split).take(limit)
    root = data_root(data_dir)
    if config.dataset == "imagefolder":
        from resnet_cli.datasets import imagefolder

        return imagefolder.load(root, split, config, limit)
    if config.image_size not in (None, CIFAR_SIZE):
        raise UserError(
            f"data.image_size: {config.image_size} does not fit; "
            f"{CIFAR_TITLES[config.dataset]} is always {CIFAR_SIZE}"
        )
    try:
        return _load_cifar(config.dataset, root, split, limit)
    except _NotFoundError:
        if not download:
            raise
    from resnet_cli.datasets import download as downloading

    downloading.fetch(config.dataset, root, progress=progress)
    return _load_cifar(config.dataset, root, split, limit)


class _NotFoundError(UserError):
    """The split is in none of the places; a download may mend that."""


def _load_digits(image_size: int | None, split: SplitName) -> Split:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels with values 0..16, enlarged.

    Enlarged by torch's bilinear interpolation (align_corners=False) on the values before they
    are scaled to 0..255 and rounded; all three channels are equal. The split is fixed: 360 test
    and 1,437 training images, stratified by class.
    """
    size = 16 if image_size is None else image_size
    if size not in (16, 32):
        raise UserError(f"data.image_size: {size} does not fit; digits come in 16 (default) or 32")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    halves = train_test_split(
        np.arange(len(bunch.target)), test_size=360, random_state=0, stratify=bunch.target
    )
    chosen = halves[0 if split == "train" else 1]
    small = torch.from_numpy(bunch.images[chosen]).unsqueeze(1)  # [N, 1, 8, 8] float64, 0..16
    large = nnf.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    images = (large * (255 / 16)).round().to(torch.uint8).expand(-1, 3, -1, -1)
    labels = torch.from_numpy(bunch.target[chosen]).to(torch.int64)
    classes = tuple(str(name) for name in bunch.target_names)
    source = "scikit-learn's load_digits (embedded)"
    return Split("digits", split, images, labels, classes, source)


def _load_cifar(dataset: str, root: Path, split: SplitName, limit: int | None) -> Split:
    """The split from the first place that has it."""
    places = _places(dataset, root)
    for place in places:
        if split in place.splits():
            return place.read(split, limit)
    title = CIFAR_TITLES[dataset]
    mend = f"fetch it: resnet-cli data {dataset} --download; or name its folder with --data-dir"
    for place in places:
        if place.splits():
            raise _NotFoundError(
                f"{title}: {place.folder} has no {split} split ({place.wanted(split)} is missing); "
                + mend
            )
    tried: dict[str, list[str]] = {}
    for place in places:
        tried.setdefault(place.kind, []).append(str(place.folder))
    looked = "; ".join(f"{kind} in {', '.join(folders)}" for kind, folders in tried.items())
    raise _NotFoundError(f"{title} not found: looked for {looked}; {mend}")


# --- the places CIFAR may lie in -------------------------------------------------------------


class _Place(Protocol):
    """One place where a CIFAR set may lie, in one of its three forms."""

    kind: str
    folder: Path

    def splits(self) -> tuple[str, ...]:
        """The splits that have files here, damaged ones included."""

    def wanted(self, split: SplitName) -> str:
        """The files this split needs here, in words."""

    def read(self, split: SplitName, limit: int | None) -> Split:
        """The first `limit` images of a split that `splits` names; UserError if damaged."""


def _places(dataset: str, root: Path) -> list[_Place]:
    """Everywhere a CIFAR set is looked for, in order."""
    bases = (root, root / dataset)
    shelves = [base / name for base in bases for name in ("", "data", "plain_text")]
    return [
        *(_TorchvisionFiles(dataset, base) for base in bases),
        *(_ParquetFiles(dataset, shelf) for shelf in shelves),
        *(_ClassFolders(dataset, base) for base in bases),
    ]


class _TorchvisionFiles:
    """The pickles that torchvision (and the data set's author) distribute."""

    def __init__(self, dataset: str, base: Path) -> None:
        self.dataset = dataset
        self.kind = "torchvision's files"
        name = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[dataset]
        self.folder = base if base.name == name else base / name

    def splits(self) -> tuple[str, ...]:
        return ("train", "test") if self.folder.is_dir() else ()

    def wanted(self, split: SplitName) -> str:
        return ", ".join(name for name, _ in self._published()[split])

    def _published(self) -> dict[str, list[tuple[str, str]]]:
        """The (name, MD5) of every file of each split, as torchvision publishes them."""
        from torchvision.datasets import CIFAR10, CIFAR100

        published = {"cifar10": CIFAR10, "cifar100": CIFAR100}[self.dataset]
        return {
            split: [(str(name), str(md5)) for name, md5 in files]
            for split, files in (("train", published.train_list), ("test", published.test_list))
        }

    def read(self, split: SplitName, limit: int | None) -> Split:
        # All files are checked before the first is unpickled, and what is unpickled are the very
        # bytes that were checked: a pickle can run any code.
        contents: dict[str, list[tuple[Path, bytes]]] = {"train": [], "test": []}
        for half, files in self._published().items():
            for name, md5 in files:
                content = self._checked(self.folder / name, md5)
                if half == split:
                    contents[half].append((self.folder / name, content))
        pixels, labels = [], []
        for file, content in contents[split]:
            entry = _unpickled(file, content)
            pixels.append(entry["data"])
            labels.extend(entry["labels" if "labels" in entry else "fine_labels"])
        planes = np.concatenate(pixels).reshape(-1, 3, CIFAR_SIZE, CIFAR_SIZE)
        targets = np.asarray(labels, np.int64)
        where = str(self.folder)
        _check_cifar_labels(self.dataset, split, targets, where)
        n = check_limit(limit, len(targets), split)
        return Split(
            self.dataset,
            split,
            torch.from_numpy(planes[:n]),
            torch.from_numpy(targets[:n]),
            CIFAR_CLASSES[self.dataset],
            f"torchvision's files in {where}",
        )

    def _checked(self, file: Path, md5: str) -> bytes:
        mend = f"remove {self.folder} and run resnet-cli data {self.dataset} --download"
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{file}: is missing; {mend}") from None
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise UserError(f"{file}: is damaged (its MD5 is not the published one); {mend}")
        return content


_CIFAR_GLOBALS = frozenset(
    {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }
)
"""All that CIFAR's pickles name beside plain values: what an array is made of."""


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays and plain values; any other class or function is refused before it is found."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _CIFAR_GLOBALS:
            raise UserError(f"holds pickled code ({module}.{name}) and is refused")
        return super().find_class(module, name)


def _unpickled(file: Path, content: bytes) -> Mapping[str, Any]:
    """The content of one of CIFAR's pickles, whose MD5 was found to be the published one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy dislikes how these old pickles name dtypes
            entry: Mapping[str, Any] = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return entry


class _ParquetFiles:
    """Hugging Face's parquet files of encoded images."""

    def __init__(self, dataset: str, folder: Path) -> None:
        self.dataset = dataset
        self.kind = "parquet files"
        self.folder = folder

    def _files(self, split: str) -> list[Path]:
        return sorted(self.folder.glob(f"{split}-*.parquet"))

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in ("train", "test") if self._files(split))

    def wanted(self, split: SplitName) -> str:
        return f"{split}-*.parquet"

    def read(self, split: SplitName, limit: int | None) -> Split:
        return read_parquet(self.dataset, split, self._files(split), limit)


class _ClassFolders:
    """A folder of image files for each class: `train/<class>/*.png` and `test/` or `val/`."""

    def __init__(self, dataset: str, folder: Path) -> None:
        self.dataset = dataset
        self.kind = "class folders"
        self.folder = folder

    def _top(self, split: str) -> Path | None:
        names = ("train",) if split == "train" else ("test", "val")
        tops = (self.folder / name for name in names)
        return next((top for top in tops if class_names(top)), None)

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in ("train", "test") if self._top(split) is not None)

    def wanted(self, split: SplitName) -> str:
        names = {"train": "train/<class>/", "test": "test/<class>/ or val/<class>/"}
        return names[split]

    def read(self, split: SplitName, limit: int | None) -> Split:
        top = self._top(split)
        assert top is not None
        classes = class_names(top)  # sorted; so are the canonical names, which keep their order
        expected = len(CIFAR_CLASSES[self.dataset])
        if len(classes) != expected:
            raise UserError(
                f"{top}: has {len(classes)} class folders; "
                f"{CIFAR_TITLES[self.dataset]} has {expected}"
            )
        other = self._top("test" if split == "train" else "train")
        if other is not None:
            check_same_classes(top, other)
        files, labels = image_files(top, self.folder, classes)
        n = check_limit(limit, len(files), split)
        images = decode_all(
            n,
            CIFAR_SIZE,
            lambda i: pixels_of(open_rgb(files[i], files[i], side=CIFAR_SIZE)),
        )
        return split_of(self.dataset, split, images, labels[:n], classes, f"class folders {top}")


def split_of(
    dataset: str,
    split: str,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    source: str,
) -> Split:
    """A Split of pixels in N, H, W, C order, without a copy."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Split(dataset, split, images, torch.from_numpy(labels), tuple(classes), source)


def _check_cifar_count(dataset: str, split: str, count: int, where: str) -> None:
    """The full CIFAR splits have 50,000 and 10,000 images.

    Raises:
        UserError: this one has not.
    """
    title, total = CIFAR_TITLES[dataset], CIFAR_COUNTS[split]
    if count != total:
        raise UserError(
            f"{where}: {count:,} images; the {split} split of {title} has {total:,} "
            "(is a file missing or cut short?)"
        )


def _check_cifar_labels(
    dataset: str, split: str, labels: npt.NDArray[np.int64], where: str
) -> None:
    """The full CIFAR splits have equally many images of each class.

    Raises:
        UserError: this one has not, or not as many images as it should.
    """
    _check_cifar_count(dataset, split, len(labels), where)
    title, total = CIFAR_TITLES[dataset], CIFAR_COUNTS[split]
    num_classes = len(CIFAR_CLASSES[dataset])
    if labels.min() < 0 or labels.max() >= num_classes:
        bad = int(np.flatnonzero((labels < 0) | (labels >= num_classes))[0])
        raise UserError(
            f"{where}: label {labels[bad]} in row {bad}; {title} has 0 to {num_classes - 1}"
        )
    counts = np.bincount(labels, minlength=num_classes)
    if (counts != total // num_classes).any():
        uneven = int(np.flatnonzero(counts != total // num_classes)[0])
        raise UserError(
            f"{where}: {counts[uneven]:,} images of class {uneven}; {title} has "
            f"{total // num_classes:,} of each of its {num_classes} classes: another data set"
        )


def read_parquet(
    dataset: str, split: SplitName, files: Sequence[Path], limit: int | None = None
) -> Split:
    """One split of CIFAR from Hugging Face parquet files, one after the other.

    The column `img` or `image` holds encoded images (binary, or a struct with `bytes`), the
    column `label` (CIFAR-100: `fine_label`, else `label`) integers. The number of rows is checked
    before the labels are read, and these before any image is decoded; only the first `limit`
    images are.

    Raises:
        UserError: a file is unreadable, has other columns, other counts, or a bad image; the
            message names the file and the row (counted from 0 within the file).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert files, "a place without files has no such split"
    columns: list[tuple[str, str]] = []
    labels: list[npt.NDArray[np.int64]] = []
    file = files[0]
    where = str(file) if len(files) == 1 else f"{files[0].parent}/{split}-*.parquet"
    rows = 0
    try:
        for file in files:
            with pq.ParquetFile(file) as parquet:
                columns.append(_parquet_columns(dataset, file, parquet.schema_arrow))
                rows += parquet.metadata.num_rows
        _check_cifar_count(dataset, split, rows, where)
        for file, (_, label) in zip(files, columns, strict=True):
            with pq.ParquetFile(file) as parquet:
                column = parquet.read(columns=[label]).column(label)
            if column.null_count:
                raise UserError(f"{file}: {column.null_count:,} rows have no {label}")
            labels.append(column.to_numpy().astype(np.int64))
        targets = np.concatenate(labels)
        _check_cifar_labels(dataset, split, targets, where)
        total = check_limit(limit, len(targets), split)
        pixels = np.empty((total, CIFAR_SIZE, CIFAR_SIZE, 3), np.uint8)
        done = 0
        for file, (image, _) in zip(files, columns, strict=True):
            encoded = _encoded_images(pq, file, image, total - done)
            pixels[done : done + len(encoded)] = _decode_parquet_rows(file, encoded)
            done += len(encoded)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: damaged, or no parquet file: {one_line(error)}") from None
    source = f"Hugging Face parquet: {', '.join(map(str, files))}"
    return split_of(dataset, split, pixels, targets[:total], CIFAR_CLASSES[dataset], source)


def _parquet_columns(dataset: str, file: Path, schema: Any) -> tuple[str, str]:
    """The names of the image and the label column."""
    import pyarrow as pa

    def is_image(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            index = kind.get_field_index("bytes")
            return index >= 0 and is_image(kind.field(index).type)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    label_names = ("label",) if dataset == "cifar10" else ("fine_label", "label")
    kinds = dict(zip(schema.names, schema.types, strict=True))
    image = next((n for n in ("img", "image") if n in kinds and is_image(kinds[n])), None)
    label = next((n for n in label_names if n in kinds and pa.types.is_integer(kinds[n])), None)
    if image is None or label is None:
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise UserError(
            f"{file}: has the columns {found}; expected for {CIFAR_TITLES[dataset]} are img or "
            f"image (binary, or a struct with bytes) and {' or '.join(label_names)} (integers)"
        )
    return image, label


def _encoded_images(pq: Any, file: Path, column: str, limit: int) -> list[bytes | None]:
    """The first `limit` encoded images of a file."""
    import pyarrow as pa

    encoded: list[bytes | None] = []
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=2048, columns=[column]):
            if len(encoded) >= limit:
                break
            values = batch.column(0)
            if pa.types.is_struct(values.type):
                values = values.field("bytes")
            encoded.extend(values[: limit - len(encoded)].to_pylist())
    return encoded


def _decode_parquet_rows(file: Path, encoded: list[bytes | None]) -> npt.NDArray[np.uint8]:
    """Encoded images of 32x32 pixels -> uint8 [N, 32, 32, 3]."""

    def decode(row: int) -> npt.NDArray[np.uint8]:
        content = encoded[row]
        where = f"{file}, row {row}"
        if content is None:
            raise UserError(f"{where}: holds no image bytes (a path alone is not enough)")
        return pixels_of(open_rgb(io.BytesIO(content), where, side=CIFAR_SIZE))

    return decode_all(len(encoded), CIFAR_SIZE, decode)


# --- normalisation ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Normalization:
    """x -> (x / 255 - mean) / std, for images of bytes."""

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
        """Whether each pixel has a mean of its own."""
        return self.mean.shape[1:] != (1, 1)

    @cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(x / 255 - mean) / std as x * scale + shift; worked out in float64."""
        mean, std = self.mean.double(), self.std.double()
        return (1 / (255 * std)).float(), (-mean / std).float()

    def apply(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> float32 [N, C, H, W], channels_last, on the images' device."""
        scale, shift = (tensor.to(images.device) for tensor in self._scale_and_shift)
        normalized = torch.addcmul(shift, images.float(), scale)
        return normalized.contiguous(memory_format=torch.channels_last)

    def to(self, device: torch.device | str) -> "Normalization":
        """The same on another device."""
        return Normalization(self.mean.to(device), self.std.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """`mean` and `std`, for a file of weights."""
        return {"mean": self.mean, "std": self.std}

    def to_dict(self) -> dict[str, Any]:
        """`mean` and `std` as nested lists [C] or [C][H][W]; exact, and JSON can hold it."""
        mean = self.mean if self.per_pixel else self.mean.flatten()
        return {"mean": mean.tolist(), "std": self.std.flatten().tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Normalization":
        """The inverse of `to_dict`; takes what `tensors` gives as well.

        Raises:
            UserError: the content is no mean and std of fitting shapes, finite, std above 0.
        """
        try:
            mean = torch.as_tensor(content["mean"], dtype=torch.float32)
            std = torch.as_tensor(content["std"], dtype=torch.float32).flatten()
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise UserError("normalisation: mean and std must be lists of numbers") from None
        mean = mean.view(-1, 1, 1) if mean.dim() == 1 else mean
        if mean.dim() != 3 or len(mean) != len(std) or len(std) == 0:
            raise UserError(
                f"normalisation: mean {list(mean.shape)} and std {list(std.shape)} do not fit; "
                "mean is [C] or [C, H, W] and std [C]"
            )
        _check_statistics(mean, std, "normalisation")
        return cls(mean, std.view(-1, 1, 1))


NORMALIZATIONS = ("channel", "pixel", "imagenet", "cifar", "none", "m1,m2,m3/s1,s2,s3")
_PUBLISHED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def _check_statistics(mean: Tensor, std: Tensor, where: str) -> None:
    if not bool(mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise UserError(f"{where}: every mean must be a number and every std above 0")
    if bool((mean.abs() > 1).any()):
        raise UserError(f"{where}: means are on the 0-1 scale; divide yours and the stds by 255")


def parse_normalization(text: str, train: "Callable[[], Split | Folder]") -> Normalization:
    """The normalisation that `data.normalize` or `--normalize` names.

    - `channel`: mean and (population) standard deviation of each channel over `train()`.
    - `pixel`: the mean of each pixel over `train()`, std 1, as in "per-pixel mean subtracted"
      (He et al., arXiv:1512.03385, section 4.2). The paper names no scale. Here values stay on
      the 0-1 scale, so inputs lie between -1 and 1; what follows is a convolution and a batch
      normalisation, which is blind to the scale.
    - `imagenet`, `cifar`: the statistics usually published. `none`: the 0-1 scale itself.
    - `m1,m2,m3/s1,s2,s3`: means and standard deviations on the 0-1 scale.

    Args:
        text: one of the above.
        train: loads the training split; called for `channel` and `pixel` only.

    Raises:
        UserError: the text is none of these, a std is not above 0, or the training images have a
            channel that never varies.
    """
    name = text.strip()
    where = f"normalize {name!r}"
    if name == "channel":
        mean, std = _channel_statistics(train().chunks())
        if not bool((std > 0).all()):
            raise UserError(f"{where}: a channel of the training images never varies; use none")
        return Normalization(mean.view(-1, 1, 1), std.view(-1, 1, 1))
    if name == "pixel":
        split = train()
        total = torch.stack([chunk.sum(dim=0, dtype=torch.int64) for chunk in split.chunks()]).sum(
            0
        )
        mean = (total.double() / (255 * len(split))).float()
        return Normalization(mean.contiguous(), torch.ones(len(mean), 1, 1))
    if name in _PUBLISHED:
        means, stds = _PUBLISHED[name]
    elif "/" in name:
        means, stds = _parse_triples(name)
    else:
        raise unknown("normalisation", name, NORMALIZATIONS)
    mean, std = torch.tensor(means), torch.tensor(stds)
    _check_statistics(mean, std, where)
    return Normalization(mean.view(-1, 1, 1), std.view(-1, 1, 1))


def _parse_triples(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        means, stds = (tuple(float(n) for n in half.split(",")) for half in text.split("/"))
    except ValueError:
        means, stds = (), ()
    if len(means) != 3 or len(stds) != 3:
        raise UserError(
            f"normalize {text!r}: write three means and three standard deviations, "
            "for example 0.5,0.5,0.5/0.25,0.25,0.25"
        )
    return means, stds


def _channel_statistics(chunks: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each channel on the 0-1 scale, float32 [C].

    Taken from the exact histogram of the byte values, so it does not depend on the order of a
    sum or the number of threads.
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


# --- batches ---------------------------------------------------------------------------------


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device. To CUDA it goes from pinned memory, and the CPU goes on
    without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Batches:
    """A split on a device, cut into normalised batches; training batches are augmented.

    Augmentation is that of He et al., arXiv:1512.03385, section 4.2: pad each side, crop a random
    window of the original size, mirror half of the images. What is padded with depends on the
    normalisation:

    - per channel, or a fixed one: black pixels, put there before normalising (torchvision's
      order, and what most published CIFAR numbers rest on);
    - per pixel: zeros, put there after the mean is subtracted, so that the mean's crop window
      moves along with the image's.

    Images stay on the device as bytes; only the batch is padded, so padding takes no memory.
    """

    def __init__(
        self,
        split: Split,
        normalization: Normalization,
        pad: int = 0,
        flip: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Move the split to the device.

        Args:
            split: the images, uint8 [N, C, H, W].
            normalization: fits the images' channels and, per pixel, their size.
            pad: pixels added on each side before the random crop; 0 turns the crop off.
            flip: mirror training images left to right with probability one half.
            device: where images live and batches are made.

        Raises:
            UserError: the normalisation is for images of another shape.
        """
        shape = tuple(split.images.shape[1:])
        self._describe(split, shape, normalization, pad, flip, device)
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
        """All but the images themselves, which are [N, *shape]."""
        allowed = (shape,) if normalization.per_pixel else ((shape[0], 1, 1),)
        if tuple(normalization.mean.shape) not in allowed:
            raise UserError(
                f"the normalisation is for images of {list(normalization.mean.shape)} (channels, "
                f"height, width); {split.dataset} has {list(shape)}"
            )
        self.shape = shape
        """Of an image: channels, height, width."""
        self.device = torch.device(device)
        self.classes = split.classes
        self.labels = split.labels.to(self.device)
        self.normalization = normalization.to(self.device)
        self.pad = pad
        self.flip = flip

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def announce(self, indices: Tensor, generator: torch.Generator, part: slice = ALL) -> None:
        """Tell which batch `training` will be asked for next, so that it can be made ready.

        Nothing depends on it but time. Images in memory are ready.
        """

    def training(
        self, indices: Tensor, generator: torch.Generator, part: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """An augmented batch.

        Args:
            indices: int64 [B], which images.
            generator: a CPU generator; the batch is a function of it and the indices. All three
                draws are always made, on the CPU: another device, or no mirroring, sees the
                same crops.
            part: which of the batch's B images to make; they are augmented as in the whole batch.

        Returns:
            images float32 [B, C, H, W], channels_last, and labels int64 [B], on the device; B that
            of the part.
        """
        count = len(indices)
        top = torch.randint(2 * self.pad + 1, (count,), generator=generator)
        left = torch.randint(2 * self.pad + 1, (count,), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5
        indices = indices[part]
        drawn = torch.stack((indices, top[part], left[part], mirrored[part].long()))
        chosen, top, left, mirrored = to_device(drawn, self.device).unbind()
        images = self._pixels(indices)
        if self.normalization.per_pixel:
            images = self._augment(self.normalization.apply(images), top, left, mirrored)
        else:
            images = self.normalization.apply(self._augment(images, top, left, mirrored))
        return images, self.labels[chosen]

    def _augment(self, images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
        """Pad, crop at (top, left), mirror where `mirrored` is 1, each int64 [B] on the device;
        [B, C, H, W] of any dtype."""
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

    def plain(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """These images as they are, normalised.

        Args:
            indices: int64 [B], which images.

        Returns:
            images float32 [B, C, H, W], channels_last, and labels int64 [B], on the device.
        """
        images = self.normalization.apply(self._pixels(indices))
        return images, self.labels[to_device(indices, self.device)]

    def _pixels(self, indices: Tensor) -> Tensor:
        """These images, uint8 [B, C, H, W], channels_last, on the device."""
        # Advanced indexing keeps no memory format, so it works on the [N, H, W, C] view.
        chosen = self.images.permute(0, 2, 3, 1)[to_device(indices, self.device)]
        return chosen.permute(0, 3, 1, 2)

    def evaluation(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Images `start` to `stop` (exclusive, cut at the end) as they are, normalised.

        Returns:
            images float32 [B, C, H, W], channels_last, and labels int64 [B], on the device.
        """
        return self.normalization.apply(self.images[start:stop]), self.labels[start:stop]


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits the images: a permutation, int64 [num_images]."""
    return torch.randperm(num_images, generator=seeding.stream(seed, "order", epoch))


# --- what is where ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found at one place a data set was looked for in."""

    dataset: str
    place: str
    state: Literal["found", "missing", "damaged"]
    detail: str
    """The number of images and how far they were verified, or what is missing or wrong."""


def find(dataset: str, data_dir: Path | None = None) -> list[Finding]:
    """Look in every place for a data set and read all that is there, as loading would.

    Takes a few seconds for a full CIFAR set: each image is decoded, and CIFAR-10 is compared
    with the published pixels.

    Args:
        dataset: `digits`, `cifar10` or `cifar100`.
        data_dir: see `data_root`.

    Raises:
        UserError: another data set is named.
    """
    if dataset == "digits":
        detail = "1,437 training and 360 test images, always at hand"
        return [Finding(dataset, "scikit-learn's load_digits", "found", detail)]
    if dataset not in CIFAR_TITLES:
        raise unknown("data set", dataset, ("digits", *CIFAR_TITLES))
    return [_finding(dataset, place) for place in _places(dataset, data_root(data_dir))]


def _finding(dataset: str, place: _Place) -> Finding:
    from resnet_cli.datasets import download

    where = str(place.folder)
    splits: tuple[SplitName, ...] = ("train", "test")
    present = place.splits()
    if not present:
        return Finding(dataset, where, "missing", f"no {place.kind}")
    told = []
    try:
        for split in splits:
            if split not in present:
                return Finding(dataset, where, "damaged", f"{place.wanted(split)} is missing")
            images = place.read(split, None)
            verdict = download.verify_content(images)
            told.append(f"{len(images):,} {split} images{verdict}")
    except UserError as error:
        return Finding(dataset, where, "damaged", str(error))
    return Finding(dataset, where, "found", f"{place.kind}: {', '.join(told)}")
