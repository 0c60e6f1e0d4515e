"""Data sets: what is found where, what is refused and in which words, and how batches are cut."""

import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import data, download
from resnet_cli.datasets.data import Batches, Normalization, Split, load_split, parse_normalization
from resnet_cli.runtime import seeding
from resnet_cli.runtime.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_cifar10 = pytest.mark.skipif(
    not (SHARED / "cifar10").is_dir(), reason=f"the real CIFAR-10 is not at {SHARED}"
)
CIFAR10 = DataConfig(dataset="cifar10")
CIFAR100 = DataConfig(dataset="cifar100")
COUNTS = {"train": 40, "test": 20}
"""The size that the `small` fixture makes the loaders expect; four and two of each class."""


# --- fakes -----------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR splits of 40 and 20 images."""
    monkeypatch.setattr(data, "CIFAR_COUNTS", COUNTS)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test finds a data set by accident: neither in ./data nor by the environment."""
    empty = tmp_path / "working_folder"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("RESNET_CLI_DATA", raising=False)


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


def write_parquet(
    file: Path,
    encoded: list[bytes | None],
    labels: list[Any],
    image: str = "img",
    label: str = "label",
    plain: bool = False,
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = encoded if plain else [{"bytes": content, "path": "x.png"} for content in encoded]
    pq.write_table(pa.table({image: rows, label: labels}), file)


def parquet_set(folder: Path, classes: int = 10, **columns: Any) -> dict[str, np.ndarray]:
    """A whole small set of parquet files; gives the pixels of each split."""
    pixels = {}
    for seed, (split, count) in enumerate(data.CIFAR_COUNTS.items()):
        pixels[split] = pictures(count, seed=seed)
        labels = [i % classes for i in range(count)]
        encoded: list[bytes | None] = [encode(image) for image in pixels[split]]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", encoded, labels, **columns)
    return pixels


def class_folders(folder: Path, names: list[str], per_class: int = 2, size: int = 32) -> None:
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.full((size, size, 3), 20 * index, np.uint8)
            (folder / name / f"{number}.png").write_bytes(encode(pixels))


def torchvision_set(
    monkeypatch: pytest.MonkeyPatch, root: Path, dataset: str = "cifar10"
) -> dict[str, np.ndarray]:
    """A whole small set of pickles, and torchvision's checksums changed to theirs."""
    import torchvision

    name, key, base = {
        "cifar10": ("CIFAR10", "labels", "cifar-10-batches-py"),
        "cifar100": ("CIFAR100", "fine_labels", "cifar-100-python"),
    }[dataset]
    classes = len(data.CIFAR_CLASSES[dataset])
    pixels = {split: pictures(count) for split, count in data.CIFAR_COUNTS.items()}
    folder = root / base
    folder.mkdir(parents=True)
    for split, list_name in (("train", "train_list"), ("test", "test_list")):
        published = []
        half = len(pixels[split]) // 2
        for number, part in enumerate((slice(0, half), slice(half, None))):
            rows = pixels[split][part].transpose(0, 3, 1, 2).reshape(-1, 3072)
            labels = [i % classes for i in range(len(pixels[split]))][part]
            content = pickle.dumps({"data": rows, key: labels})
            (folder / f"{split}_{number}").write_bytes(content)
            published.append([f"{split}_{number}", hashlib.md5(content).hexdigest()])
        monkeypatch.setattr(getattr(torchvision.datasets, name), list_name, published)
    return pixels


def nhwc(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def make_split(count: int = 12, size: int = 8, seed: int = 0) -> Split:
    images = torch.from_numpy(pictures(count, size, seed)).permute(0, 3, 1, 2)
    return Split("fake", "train", images, torch.arange(count) % 3, ("a", "b", "c"), "made up")


# --- splits ----------------------------------------------------------------------------------


def test_a_split_lies_in_channels_last_order_whatever_it_is_made_of() -> None:
    split = make_split()
    again = Split("fake", "train", split.images.contiguous(), split.labels, split.classes, "")
    assert again.images.is_contiguous(memory_format=torch.channels_last)
    assert again.fingerprint == split.fingerprint


def test_fingerprint_is_the_hash_of_shape_pixels_and_labels() -> None:
    split = make_split(count=5, size=4)
    expected = hashlib.sha256(b"5x4x4x3;" + nhwc(split.images).tobytes())
    for label in split.labels.tolist():
        expected.update(struct.pack("<q", label))
    assert split.fingerprint == expected.hexdigest()


def test_fingerprint_notices_one_pixel_and_one_label() -> None:
    one = make_split()
    pixels, labels = one.images.clone(), one.labels.clone()
    pixels[3, 1, 2, 2] ^= 1
    labels[3] = 2 - labels[3]
    other_pixels = Split("fake", "train", pixels, one.labels, one.classes, "")
    other_labels = Split("fake", "train", one.images, labels + 1, one.classes, "")
    assert len({one.fingerprint, other_pixels.fingerprint, other_labels.fingerprint}) == 3


def test_take_gives_the_first_images() -> None:
    split = make_split(12)
    assert split.take(None) is split
    assert torch.equal(split.take(5).images, split.images[:5])
    assert torch.equal(split.take(5).labels, split.labels[:5])
    assert split.take(5).fingerprint != split.fingerprint


def test_take_refuses_more_than_there_are() -> None:
    with pytest.raises(UserError, match=r"data\.train_images: 13 asked for, the split has 12"):
        make_split(12).take(13)


# --- digits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 16, 32])
def test_digits_are_split_and_enlarged(size: int | None) -> None:
    from sklearn.datasets import load_digits

    config = DataConfig(image_size=size)
    train, test = load_split(config, "train"), load_split(config, "test")
    side = size or 16
    assert train.images.shape == (1437, 3, side, side)
    assert test.images.shape == (360, 3, side, side)
    assert test.classes == tuple("0123456789")
    assert torch.bincount(test.labels).min() >= 34  # stratified: 360 of 1,797, 10 classes
    assert torch.equal(train.images[:, 0], train.images[:, 2])
    # Bilinear enlargement keeps the mean away from the border; all 1,797 digits are used once.
    whole = torch.cat([train.images, test.images]).double().mean() / 255 * 16
    assert whole == pytest.approx(load_digits().images.mean(), rel=0.03)
    assert (
        sum(torch.bincount(s.labels) for s in (train, test)).tolist()
        == np.bincount(load_digits().target).tolist()
    )


def test_digits_are_enlarged_by_the_textbook_rule() -> None:
    """Bilinear with pixel centres at (i + 1/2) / 2 - 1/2, recomputed for one image by hand."""
    from sklearn.datasets import load_digits

    split = load_split(DataConfig(test_images=1), "test")
    candidates = load_digits().images[load_digits().target == int(split.labels[0])]
    weights = np.zeros((16, 8))
    for i in range(16):
        at = min(max((i + 0.5) / 2 - 0.5, 0), 7)
        low = min(int(at), 6)
        weights[i, low], weights[i, low + 1] = 1 - (at - low), at - low
    enlarged = np.rint(np.einsum("ia,nab,jb->nij", weights, candidates, weights) * 255 / 16)
    assert (enlarged == nhwc(split.images)[0, :, :, 0]).all(axis=(1, 2)).sum() == 1


def test_digits_refuse_another_size() -> None:
    with pytest.raises(UserError, match=r"image_size: 28 .* 16 \(default\) or 32"):
        load_split(DataConfig(image_size=28), "train")


def test_digits_take_the_first_images() -> None:
    few = load_split(DataConfig(train_images=7, test_images=3), "train")
    assert len(few) == 7
    assert torch.equal(few.images, load_split(DataConfig(), "train").images[:7])


# --- CIFAR: where it is looked for -----------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "place", ["", "data", "plain_text", "cifar10", "cifar10/data", "cifar10/plain_text"]
)
def test_parquet_is_found_in_every_documented_folder(tmp_path: Path, place: str) -> None:
    pixels = parquet_set(tmp_path / "root" / place)
    split = load_split(CIFAR10, "test", tmp_path / "root")
    assert np.array_equal(nhwc(split.images), pixels["test"])
    assert split.labels.tolist() == [i % 10 for i in range(20)]
    assert split.classes[0] == "airplane"
    assert "test-00000-of-00001.parquet" in split.source


@pytest.mark.usefixtures("small")
def test_data_dir_goes_before_the_environment_before_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("option", "variable", "working_folder/data"):
        parquet_set(tmp_path / name)
    assert str(tmp_path) not in load_split(CIFAR10, "test").source  # ./data, relative
    monkeypatch.setenv("RESNET_CLI_DATA", str(tmp_path / "variable"))
    assert "variable" in load_split(CIFAR10, "test").source
    assert "option" in load_split(CIFAR10, "test", tmp_path / "option").source


@pytest.mark.usefixtures("small")
def test_torchvisions_files_go_before_parquet_before_class_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "test", list(data.CIFAR_CLASSES["cifar10"]))
    assert "class folders" in load_split(CIFAR10, "test", tmp_path).source
    parquet_set(tmp_path / "cifar10")
    assert "parquet" in load_split(CIFAR10, "test", tmp_path).source
    torchvision_set(monkeypatch, tmp_path)
    assert "torchvision" in load_split(CIFAR10, "test", tmp_path).source


def test_nothing_found_names_every_folder_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data cifar10? --download; .* --data-dir$") as error:
        load_split(CIFAR10, "train", tmp_path)
    for finding in data.find("cifar10", tmp_path):
        assert finding.place in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("small")
def test_a_missing_split_matters_only_when_it_is_needed(tmp_path: Path) -> None:
    parquet_set(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert len(load_split(CIFAR10, "train", tmp_path)) == 40
    with pytest.raises(UserError, match=r"has no test split \(test-\*\.parquet is missing\)"):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
def test_download_is_tried_only_when_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[tuple[str, Path]] = []

    def fetch(dataset: str, root: Path, *, progress: data.Progress | None) -> Path:
        fetched.append((dataset, root))
        parquet_set(root / dataset)
        return root / dataset

    monkeypatch.setattr(download, "fetch", fetch)
    with pytest.raises(UserError, match="not found"):
        load_split(CIFAR10, "train", tmp_path)
    assert len(load_split(CIFAR10, "train", tmp_path, download=True)) == 40
    assert len(load_split(CIFAR10, "test", tmp_path, download=True)) == 20
    assert fetched == [("cifar10", tmp_path)]


def test_cifar_has_one_size_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image_size: 64 does not fit; CIFAR-10 is always 32"):
        load_split(DataConfig(dataset="cifar10", image_size=64), "train", tmp_path)


def test_importing_the_module_costs_torch_only() -> None:
    code = (
        "import sys, resnet_cli.datasets.data; "
        "print([m for m in ('sklearn', 'pyarrow', 'torchvision', 'PIL') if m in sys.modules])"
    )
    root = Path(data.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- CIFAR: torchvision's files --------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_torchvisions_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Any, classes: int
) -> None:
    monkeypatch.setattr(data, "CIFAR_COUNTS", {"train": 200, "test": 100})
    pixels = torchvision_set(monkeypatch, tmp_path, dataset)
    for split in ("train", "test"):
        loaded = load_split(DataConfig(dataset=dataset), split, tmp_path)  # type: ignore[arg-type]
        assert np.array_equal(nhwc(loaded.images), pixels[split])
        assert loaded.labels.tolist() == [i % classes for i in range(len(pixels[split]))]
        assert len(loaded.classes) == classes
    few = load_split(DataConfig(dataset=dataset, test_images=3), "test", tmp_path)
    assert np.array_equal(nhwc(few.images), pixels["test"][:3])


def test_folder_names_are_torchvisions(tmp_path: Path) -> None:
    from torchvision import datasets

    for dataset, published in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        place = data.find(dataset, tmp_path)[0].place
        assert place == str(tmp_path / published.base_folder)
        # Naming the folder itself by --data-dir works as well as naming the one above it.
        assert data.find(dataset, Path(place))[0].place == place


class Evil:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("evil", ["train_0", "train_1", "test_0"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_pickle_is_opened_unless_all_checksums_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: str, split: Any
) -> None:
    torchvision_set(monkeypatch, tmp_path)
    file = tmp_path / "cifar-10-batches-py" / evil
    file.write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    opened: list[bytes] = []
    monkeypatch.setattr(data, "_unpickled", lambda file, content: opened.append(content))
    with pytest.raises(UserError, match=f"{evil}: is damaged .* data cifar100? --download"):
        load_split(CIFAR10, split, tmp_path)
    assert opened == []
    assert not (tmp_path / "mark").exists()


@pytest.mark.usefixtures("small")
def test_a_pickle_of_the_right_checksum_makes_arrays_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10 as PUBLISHED

    torchvision_set(monkeypatch, tmp_path)
    content = pickle.dumps({"data": Evil(tmp_path / "mark"), "labels": []})
    (tmp_path / "cifar-10-batches-py" / "test_0").write_bytes(content)
    published = [["test_0", hashlib.md5(content).hexdigest()], PUBLISHED.test_list[1]]
    monkeypatch.setattr(PUBLISHED, "test_list", published)
    words = r"test_0: holds pickled code \((os|posix|nt)\.mkdir\) and is refused"
    with pytest.raises(UserError, match=words):
        load_split(CIFAR10, "test", tmp_path)
    assert not (tmp_path / "mark").exists()
    pickle.loads(content)  # the file is indeed dangerous
    assert (tmp_path / "mark").exists()


@pytest.mark.usefixtures("small")
def test_a_missing_torchvision_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision_set(monkeypatch, tmp_path)
    (tmp_path / "cifar-10-batches-py" / "train_1").unlink()
    with pytest.raises(UserError, match=r"train_1: is missing; remove .* and run resnet-cli data"):
        load_split(CIFAR10, "train", tmp_path)


# --- CIFAR: parquet --------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("image", ["img", "image"])
def test_parquet_columns_come_in_several_forms(tmp_path: Path, image: str, plain: bool) -> None:
    pixels = parquet_set(tmp_path, image=image, plain=plain)
    assert np.array_equal(nhwc(load_split(CIFAR10, "train", tmp_path).images), pixels["train"])


@pytest.mark.parametrize("label", ["fine_label", "label"])
def test_cifar100_labels_are_the_fine_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    monkeypatch.setattr(data, "CIFAR_COUNTS", {"train": 200, "test": 100})
    parquet_set(tmp_path / "cifar100", classes=100, label=label)
    split = load_split(CIFAR100, "test", tmp_path)
    assert split.labels.tolist() == list(range(100))
    assert split.classes[99] == "worm"


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP"])
def test_image_formats_and_grey_images(tmp_path: Path, form: str, small: None) -> None:
    pixels = pictures(20)
    encoded: list[bytes | None] = [encode(image, form) for image in pixels]
    encoded[3] = encode(pixels[3, :, :, 0], "PNG")
    write_parquet(tmp_path / "test-0.parquet", encoded, [i % 10 for i in range(20)])
    loaded = nhwc(load_split(CIFAR10, "test", tmp_path).images)
    assert np.array_equal(loaded[4:], pixels[4:])
    assert np.array_equal(loaded[3], np.repeat(pixels[3, :, :, :1], 3, axis=2))


@pytest.mark.usefixtures("small")
def test_shards_follow_their_names(tmp_path: Path) -> None:
    pixels = pictures(20)
    for shard, part in ((1, slice(12, 20)), (0, slice(0, 12))):
        labels = [i % 10 for i in range(20)][part]
        encoded: list[bytes | None] = [encode(image) for image in pixels[part]]
        write_parquet(tmp_path / f"test-0000{shard}-of-00002.parquet", encoded, labels)
    assert np.array_equal(nhwc(load_split(CIFAR10, "test", tmp_path).images), pixels)
    few = load_split(DataConfig(dataset="cifar10", test_images=15), "test", tmp_path)
    assert np.array_equal(nhwc(few.images), pixels[:15])
    (tmp_path / "test-00001-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"12 images; the test split of CIFAR-10 has 20 \(is a fi"):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
def test_too_many_images_asked_for(tmp_path: Path) -> None:
    parquet_set(tmp_path)
    with pytest.raises(UserError, match=r"data\.test_images: 21 asked for, the split has 20"):
        load_split(DataConfig(dataset="cifar10", test_images=21), "test", tmp_path)


@pytest.mark.usefixtures("small")
def test_only_the_images_asked_for_are_decoded(tmp_path: Path) -> None:
    encoded: list[bytes | None] = [encode(image) for image in pictures(20)]
    encoded[10] = b"not an image"
    write_parquet(tmp_path / "test-0.parquet", encoded, [i % 10 for i in range(20)])
    assert len(load_split(DataConfig(dataset="cifar10", test_images=10), "test", tmp_path)) == 10


GOOD = encode(pictures(1)[0])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD[: len(GOOD) // 2], r"test-0\.parquet, row 13: damaged, or no image: "),
        (b"", r"row 13: damaged, or no image"),
        (b"<html>not found</html>", r"row 13: damaged, or no image"),
        (None, r"row 13: holds no image bytes"),
        (encode(pictures(1, 33)[0]), r"row 13: 33x33 pixels; expected are 32x32"),
        (png_header(8000, 6250), r"row 13: 8000x6250 pixels; expected are 32x32"),
        (png_header(10_000, 10_000), r"row 13: more than 40 megapixels are refused"),
        (png_header(60_000, 60_000), r"row 13: more than 40 megapixels are refused"),
    ],
)
def test_a_bad_image_is_named_by_file_and_row(
    tmp_path: Path, bad: bytes | None, message: str
) -> None:
    encoded: list[bytes | None] = [GOOD] * 20
    encoded[13] = bad
    write_parquet(tmp_path / "test-0.parquet", encoded, [i % 10 for i in range(20)])
    with pytest.raises(UserError, match=message):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([i % 10 for i in range(19)], r"19 images; the test split of CIFAR-10 has 20"),
        ([*range(10), *range(9), 10], r"label 10 in row 19; CIFAR-10 has 0 to 9"),
        ([*range(10), *range(9), -1], r"label -1 in row 19"),
        ([*range(10), *range(9), 8], r"3 images of class 8; CIFAR-10 has 2 of each .* another da"),
        ([*range(10), *range(9), None], r"1 rows have no label"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, labels: list[int | None], message: str) -> None:
    write_parquet(tmp_path / "test-0.parquet", [GOOD] * len(labels), labels)
    with pytest.raises(UserError, match=message):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
def test_rows_are_counted_before_the_labels_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a few bytes may hold a billion equal labels."""

    def read(*arguments: object, **options: object) -> None:
        pytest.fail("the labels were read")

    monkeypatch.setattr(pq.ParquetFile, "read", read)
    for shard in (0, 1):  # each may belong to the set, both together are too many
        write_parquet(tmp_path / f"test-{shard}.parquet", [GOOD] * 11, [0] * 11)
    with pytest.raises(UserError, match=r"test-\*\.parquet: 22 images; the test split of CIFAR-10"):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "columns", [{"image": "picture"}, {"label": "coarse_label"}, {"image": "label", "label": "x"}]
)
def test_wrong_columns_are_listed_beside_the_expected(
    tmp_path: Path, columns: dict[str, str]
) -> None:
    write_parquet(tmp_path / "test-0.parquet", [GOOD] * 20, list(range(20)), **columns)
    names = ".*".join([columns.get("image", "img"), columns.get("label", "label")])
    with pytest.raises(UserError, match=rf"test-0.parquet: has the columns {names}.*expected"):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("keep", [0, 100, -200])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, keep: int) -> None:
    parquet_set(tmp_path)
    file = tmp_path / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet: damaged, or no parquet"):
        load_split(CIFAR10, "test", tmp_path)


# --- CIFAR: class folders --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test", "val"])
def test_class_folders_have_the_canonical_order(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path / "cifar10" / name, list(data.CIFAR_CLASSES["cifar10"]), per_class=3)
    split = load_split(CIFAR10, "test", tmp_path)
    assert split.classes == data.CIFAR_CLASSES["cifar10"]
    assert len(split) == 30
    # Each fake image is one grey value that tells its class; pixels and labels belong together.
    assert (split.images[:, 0, 0, 0] == 20 * split.labels).all()
    assert split.labels.tolist() != sorted(split.labels.tolist())  # classes are mixed


def test_the_canonical_class_names_are_sorted() -> None:
    """Sorted class folders have the published labels only because of this."""
    for dataset, count in (("cifar10", 10), ("cifar100", 100)):
        names = data.CIFAR_CLASSES[dataset]
        assert len(set(names)) == count
        assert list(names) == sorted(names)


def test_class_folders_with_other_names_are_sorted(tmp_path: Path) -> None:
    names = [f"n{i:02}" for i in range(10)]
    class_folders(tmp_path / "train", names[::-1])
    split = load_split(CIFAR10, "train", tmp_path)
    assert list(split.classes) == names
    assert (split.images[:, 0, 0, 0] == 20 * (9 - split.labels)).all()


def test_class_folders_of_another_number_of_classes(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["cat", "dog"])
    with pytest.raises(UserError, match=r"has 2 class folders; CIFAR-10 has 10"):
        load_split(CIFAR10, "train", tmp_path)


def test_class_folders_must_agree_between_the_splits(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", [f"n{i}" for i in range(10)])
    class_folders(tmp_path / "test", [f"n{i}" for i in range(1, 11)])
    with pytest.raises(UserError, match=r"same class folders; only one has n0, n10"):
        load_split(CIFAR10, "train", tmp_path)


def test_class_folders_hold_images_of_32_pixels(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", list(data.CIFAR_CLASSES["cifar10"]), size=16)
    with pytest.raises(UserError, match=r"\.png: 16x16 pixels; expected are 32x32"):
        load_split(CIFAR10, "train", tmp_path)


# --- normalisation ---------------------------------------------------------------------------


def no_training_split() -> Split:
    raise AssertionError("the training split is not needed here")


def reference(images: Tensor, normalization: Normalization) -> Tensor:
    return (images.double() / 255 - normalization.mean.double()) / normalization.std.double()


def test_channel_statistics() -> None:
    split = make_split(40)
    found = parse_normalization("channel", lambda: split)
    values = nhwc(split.images).reshape(-1, 3) / 255
    assert found.mean.flatten().numpy() == pytest.approx(values.mean(axis=0), abs=1e-7)
    assert found.std.flatten().numpy() == pytest.approx(values.std(axis=0), abs=1e-7)
    normalized = found.apply(split.images).double()
    assert normalized.mean(dim=(0, 2, 3)).abs().max() < 1e-6
    assert normalized.var(dim=(0, 2, 3), unbiased=False).numpy() == pytest.approx(1, abs=1e-5)


def test_pixel_mean() -> None:
    split = make_split(40)
    found = parse_normalization("pixel", lambda: split)
    assert found.per_pixel
    assert found.mean.numpy() == pytest.approx(split.images.double().mean(dim=0) / 255, abs=1e-7)
    assert (found.std == 1).all()
    assert found.apply(split.images).mean(dim=0).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("cifar", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        ("none", [0, 0, 0], [1, 1, 1]),
        ("0.5,0.25, 0/1,0.5,0.1", [0.5, 0.25, 0], [1, 0.5, 0.1]),
    ],
)
def test_fixed_normalizations_need_no_data(text: str, mean: list[Any], std: list[Any]) -> None:
    found = parse_normalization(text, no_training_split)
    assert torch.equal(found.mean, torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
    assert torch.equal(found.std, torch.tensor(std, dtype=torch.float32).view(3, 1, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet", r"unknown normalisation 'imagnet'; did you mean 'imagenet'\?.*cifar.*pixel"),
        ("", r"known: .*m1,m2,m3/s1,s2,s3"),
        ("1,2/3,4", r"write three means and three standard deviations"),
        ("a,b,c/1,1,1", r"for example 0\.5,0\.5,0\.5/"),
        ("0,0,0/1,1,1/2,2,2", r"write three means"),
        ("0,0,0/1,0,1", r"every std above 0"),
        ("0,0,0/1,-1,1", r"every std above 0"),
        ("0,nan,0/1,1,1", r"every mean must be a number"),
        ("125.3,123,113.9/63,62,66", r"on the 0-1 scale; divide yours and the stds by 255"),
    ],
)
def test_bad_normalizations_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_normalization(text, no_training_split)


def test_a_channel_that_never_varies_cannot_be_normalised() -> None:
    images = torch.full((4, 3, 8, 8), 7, dtype=torch.uint8)
    split = Split("fake", "train", images, torch.zeros(4, dtype=torch.int64), ("a",), "")
    with pytest.raises(UserError, match="never varies; use none"):
        parse_normalization("channel", lambda: split)


@pytest.mark.parametrize("text", ["channel", "pixel", "imagenet"])
def test_normalization_applies_and_survives_json(text: str) -> None:
    split = make_split()
    one = parse_normalization(text, lambda: split)
    normalized = one.apply(split.images)
    assert normalized.dtype == torch.float32
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    assert (normalized - reference(split.images, one)).abs().max() < 2e-6
    for other in (
        Normalization.from_dict(json.loads(json.dumps(one.to_dict()))),
        Normalization.from_dict(one.tensors()),
    ):
        assert torch.equal(other.mean, one.mean)
        assert torch.equal(other.std, one.std)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mean": [0.5]}, "must be lists of numbers"),
        ({"mean": ["a"], "std": [1]}, "must be lists of numbers"),
        ({"mean": [0.5, 0.5], "std": [1.0]}, r"mean \[2, 1, 1\] and std \[1\] do not fit"),
        ({"mean": [[0.5]], "std": [1.0]}, r"mean is \[C\] or \[C, H, W\]"),
        ({"mean": [0.5], "std": [0.0]}, "every std above 0"),
    ],
)
def test_a_stored_normalization_is_checked(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Normalization.from_dict(content)


# --- batches ---------------------------------------------------------------------------------


def naive_batch(
    split: Split, normalization: Normalization, pad: int, flip: bool, indices: Tensor, seed: int
) -> Tensor:
    """One image after the other, by slicing, in float64: [B, C, H, W].

    The draws are those that `Batches.training` documents: top, left, mirrored.
    """
    generator = torch.Generator().manual_seed(seed)
    count, (_, height, width) = len(indices), split.images.shape[1:]
    top = torch.randint(2 * pad + 1, (count,), generator=generator).tolist()
    left = torch.randint(2 * pad + 1, (count,), generator=generator).tolist()
    mirrored = (torch.rand(count, generator=generator) < 0.5).tolist()
    batch = []
    for n, index in enumerate(indices.tolist()):
        image = split.images[index].double() / 255
        mean, std = normalization.mean.double(), normalization.std.double()
        if normalization.per_pixel:  # subtract, then pad with zeros
            image = (image - mean) / std
        padded = torch.zeros(3, height + 2 * pad, width + 2 * pad, dtype=torch.float64)
        padded[:, pad : pad + height, pad : pad + width] = image
        window = padded[:, top[n] : top[n] + height, left[n] : left[n] + width]
        if not normalization.per_pixel:  # pad with black, then normalise
            window = (window - mean) / std
        columns = range(width - 1, -1, -1) if flip and mirrored[n] else range(width)
        batch.append(torch.stack([window[:, :, column] for column in columns], dim=2))
    return torch.stack(batch)


@pytest.mark.parametrize("text", ["channel", "pixel", "none"])
@pytest.mark.parametrize(("pad", "flip"), [(0, False), (0, True), (2, False), (2, True), (9, True)])
def test_training_batches_equal_a_plain_loop(text: str, pad: int, flip: bool) -> None:
    split = make_split(30)
    normalization = parse_normalization(text, lambda: split)
    batches = Batches(split, normalization, pad=pad, flip=flip)
    indices = torch.randperm(30, generator=torch.Generator().manual_seed(5))[:20]
    images, labels = batches.training(indices, torch.Generator().manual_seed(3))
    expected = naive_batch(split, normalization, pad, flip, indices, seed=3)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (images - expected).abs().max() < 2e-6
    assert torch.equal(labels, split.labels[indices])


def test_images_need_not_be_square() -> None:
    images = torch.from_numpy(pictures(6, 12)).permute(0, 3, 1, 2)[:, :, :7]
    split = Split("fake", "train", images, torch.zeros(6, dtype=torch.int64), ("a",), "")
    normalization = parse_normalization("pixel", lambda: split)
    batches = Batches(split, normalization, pad=3, flip=True)
    found, _ = batches.training(torch.arange(6), torch.Generator().manual_seed(1))
    expected = naive_batch(split, normalization, 3, True, torch.arange(6), seed=1)
    assert (found - expected).abs().max() < 2e-6


def test_the_generator_decides_the_batch() -> None:
    batches = Batches(make_split(), parse_normalization("none", make_split), pad=2, flip=True)
    batch = [batches.training(torch.arange(12), seeding.stream(0, "crop", i))[0] for i in (1, 1, 2)]
    assert torch.equal(batch[0], batch[1])
    assert not torch.equal(batch[0], batch[2])


def test_switching_the_flip_off_leaves_the_crops() -> None:
    split, normalization = make_split(), parse_normalization("none", make_split)
    straight, mixed = (
        Batches(split, normalization, pad=2, flip=flip).training(
            torch.arange(12), torch.Generator().manual_seed(0)
        )[0]
        for flip in (False, True)
    )
    same = [torch.equal(a, b) for a, b in zip(straight, mixed, strict=True)]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(straight, mixed, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(same) < 12


def test_crops_and_flips_cover_everything_evenly() -> None:
    """One white pixel at a place of its own tells the window and the mirroring."""
    size, pad, count = 9, 2, 5000
    images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    images[:, :, 4, 3] = 255  # off the centre column: mirrored, it lies at 5
    split = Split("fake", "train", images, torch.zeros(1, dtype=torch.int64), ("a",), "")
    batches = Batches(split, parse_normalization("none", no_training_split), pad=pad, flip=True)
    indices = torch.zeros(count, dtype=torch.int64)
    batch, _ = batches.training(indices, torch.Generator().manual_seed(0))
    _, rows, columns = (batch[:, 0] > 0.5).nonzero(as_tuple=True)
    assert len(rows) == count  # the pixel is never cropped away
    offsets = torch.bincount(rows, minlength=size)
    assert (offsets > 0).nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
    assert (offsets[2:7] / count - 1 / 5).abs().max() < 0.03
    # Unmirrored the columns are 1 to 5, mirrored 3 to 7; the overlap is 3 to 5.
    shares = torch.bincount(columns, minlength=size) / count
    assert (shares - torch.tensor([0, 1, 1, 2, 2, 2, 1, 1, 0]) / 10).abs().max() < 0.03


def test_evaluation_batches_are_the_images_themselves() -> None:
    split = make_split(12)
    normalization = parse_normalization("channel", lambda: split)
    batches = Batches(split, normalization, pad=4, flip=True)
    images, labels = batches.evaluation(8, 100)
    assert len(batches) == 12
    assert images.shape == (4, 3, 8, 8)
    assert (images - reference(split.images[8:], normalization)).abs().max() < 2e-6
    assert torch.equal(labels, split.labels[8:])


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 1)])
def test_batches_refuse_a_normalization_of_another_shape(shape: tuple[int, ...]) -> None:
    foreign = Normalization(torch.zeros(shape), torch.ones(shape[0], 1, 1))
    with pytest.raises(UserError, match=rf"for images of \[{shape[0]}, .*fake has \[3, 8, 8\]"):
        Batches(make_split(), foreign)


def test_epoch_order_is_a_permutation_of_its_own_for_each_epoch_and_seed() -> None:
    orders = [
        data.epoch_order(50, seed, epoch).tolist() for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert data.epoch_order(50, 0, 1).tolist() == orders[1]


# --- find ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_find_tells_of_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {f.state for f in data.find("cifar10", tmp_path)} == {"missing"}
    parquet_set(tmp_path / "cifar10")
    torchvision_set(monkeypatch, tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_0").write_bytes(b"")
    class_folders(tmp_path / "train", list(data.CIFAR_CLASSES["cifar10"]))
    told = [f for f in data.find("cifar10", tmp_path) if f.state != "missing"]
    assert [(f.place, f.state) for f in told] == [
        (str(tmp_path / "cifar-10-batches-py"), "damaged"),
        (str(tmp_path / "cifar10"), "found"),
        (str(tmp_path), "damaged"),
    ]
    assert "test_0: is damaged" in told[0].detail
    assert "40 train images (pixels differ" in told[1].detail
    assert "test/<class>/ or val/<class>/ is missing" in told[2].detail


def test_find_digits_and_unknown_sets(tmp_path: Path) -> None:
    (finding,) = data.find("digits", tmp_path)
    assert finding.state == "found"
    with pytest.raises(UserError, match=r"unknown data set 'mnist' \(known: cifar10, cifar100, di"):
        data.find("mnist", tmp_path)


# --- the real CIFAR-10 -----------------------------------------------------------------------


@needs_cifar10
def test_real_cifar10_has_the_published_statistics() -> None:
    train = load_split(CIFAR10, "train", SHARED)
    assert train.images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert download.verify_content(train) == " (pixels verified)"
    found = parse_normalization("channel", lambda: train)
    assert [round(x, 4) for x in found.mean.flatten().tolist()] == [0.4914, 0.4822, 0.4465]
    assert [round(x, 4) for x in found.std.flatten().tolist()] == [0.2470, 0.2435, 0.2616]


@needs_cifar10
def test_real_cifar10_test_split() -> None:
    test = load_split(CIFAR10, "test", SHARED)
    assert test.images.shape == (10_000, 3, 32, 32)
    assert download.verify_content(test) == " (pixels verified)"
    shuffled = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))
    other = Split("cifar10", "test", test.images[shuffled], test.labels[shuffled], test.classes, "")
    assert download.verify_content(other) == " (pixels verified)"
    assert other.fingerprint != test.fingerprint
    few = load_split(DataConfig(dataset="cifar10", test_images=100), "test", SHARED)
    assert torch.equal(few.images, test.images[:100])
