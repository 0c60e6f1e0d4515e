"""CIFAR: where it is looked for, and the three layouts in which it is read."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from dataset_files import (
    class_folders,
    encode,
    nhwc,
    parquet_set,
    pictures,
    png_header,
    torchvision_set,
    write_parquet,
)

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import cifar, cifar_files, download
from resnet_cli.datasets.catalogue import SPLITS, DownloadProgress, dataset, load_split
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.datasets.split import Split
from resnet_cli.runtime.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_cifar10 = pytest.mark.skipif(
    not (SHARED / "cifar10").is_dir(), reason=f"the real CIFAR-10 is not at {SHARED}"
)
CIFAR10 = DataConfig(dataset="cifar10")
CIFAR100 = DataConfig(dataset="cifar100")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "place", ["", "data", "plain_text", "cifar10", "cifar10/data", "cifar10/plain_text"]
)
def test_parquet_is_found_in_every_documented_folder(tmp_path: Path, place: str) -> None:
    pixels = parquet_set(tmp_path / "root" / place, cifar.CIFAR10)
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
        parquet_set(tmp_path / name, cifar.CIFAR10)
    assert str(tmp_path) not in load_split(CIFAR10, "test").source  # ./data, relative
    monkeypatch.setenv("RESNET_CLI_DATA", str(tmp_path / "variable"))
    assert "variable" in load_split(CIFAR10, "test").source
    assert "option" in load_split(CIFAR10, "test", tmp_path / "option").source


@pytest.mark.usefixtures("small")
def test_torchvisions_files_go_before_parquet_before_class_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "test", list(cifar.CIFAR10.classes))
    assert "class folders" in load_split(CIFAR10, "test", tmp_path).source
    parquet_set(tmp_path / "cifar10", cifar.CIFAR10)
    assert "parquet" in load_split(CIFAR10, "test", tmp_path).source
    torchvision_set(monkeypatch, tmp_path, cifar.CIFAR10)
    assert "torchvision" in load_split(CIFAR10, "test", tmp_path).source


def test_nothing_found_names_every_folder_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data cifar10 --download, .* --data-dir$") as error:
        load_split(CIFAR10, "train", tmp_path)
    for finding in dataset("cifar10").locations(tmp_path):
        assert finding.place in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("small")
def test_a_missing_split_matters_only_when_it_is_needed(tmp_path: Path) -> None:
    parquet_set(tmp_path, cifar.CIFAR10)
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert len(load_split(CIFAR10, "train", tmp_path)) == 40
    with pytest.raises(UserError, match=r"has no test split \(test-\*\.parquet.* is missing\)"):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
def test_download_is_tried_only_when_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[tuple[str, Path]] = []

    def download_cifar(entry: cifar.Cifar, root: Path, progress: DownloadProgress | None) -> Path:
        fetched.append((entry.name, root))
        parquet_set(root / entry.name, entry)
        return root / entry.name

    monkeypatch.setattr(download, "download_cifar", download_cifar)
    with pytest.raises(UserError, match="not found"):
        load_split(CIFAR10, "train", tmp_path)
    assert len(load_split(CIFAR10, "train", tmp_path, download=True)) == 40
    assert len(load_split(CIFAR10, "test", tmp_path, download=True)) == 20
    assert fetched == [("cifar10", tmp_path)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_torchvisions_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int
) -> None:
    entry = dataset(name)
    assert isinstance(entry, cifar.Cifar)
    pixels = torchvision_set(monkeypatch, tmp_path, entry)
    for split in SPLITS:
        loaded = load_split(DataConfig(dataset=name), split, tmp_path)
        assert np.array_equal(nhwc(loaded.images), pixels[split])
        assert loaded.labels.tolist() == [i % classes for i in range(len(pixels[split]))]
        assert len(loaded.classes) == classes
    few = load_split(DataConfig(dataset=name, test_images=3), "test", tmp_path)
    assert np.array_equal(nhwc(few.images), pixels["test"][:3])


def test_folder_names_are_torchvisions(tmp_path: Path) -> None:
    from torchvision import datasets

    for name, published in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        place = dataset(name).locations(tmp_path)[0].place
        assert place == str(tmp_path / published.base_folder)
        # Naming the folder itself by --data-dir works as well as naming the one above it.
        assert dataset(name).locations(Path(place))[0].place == place


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
    torchvision_set(monkeypatch, tmp_path, cifar.CIFAR10)
    file = tmp_path / "cifar-10-batches-py" / evil
    file.write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    opened: list[bytes] = []
    monkeypatch.setattr(cifar_files, "_unpickled", lambda file, content: opened.append(content))
    with pytest.raises(UserError, match=f"{evil}: damaged .* data cifar100? --download"):
        load_split(CIFAR10, split, tmp_path)
    assert opened == []
    assert not (tmp_path / "mark").exists()


@pytest.mark.usefixtures("small")
def test_a_pickle_of_the_right_checksum_makes_arrays_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10 as PUBLISHED

    torchvision_set(monkeypatch, tmp_path, cifar.CIFAR10)
    content = pickle.dumps({"data": Evil(tmp_path / "mark"), "labels": []})
    (tmp_path / "cifar-10-batches-py" / "test_0").write_bytes(content)
    published = [["test_0", hashlib.md5(content).hexdigest()], PUBLISHED.test_list[1]]
    monkeypatch.setattr(PUBLISHED, "test_list", published)
    words = r"test_0: contains pickled code \((os|posix|nt)\.mkdir\)"
    with pytest.raises(UserError, match=words):
        load_split(CIFAR10, "test", tmp_path)
    assert not (tmp_path / "mark").exists()
    pickle.loads(content)  # the file is indeed dangerous
    assert (tmp_path / "mark").exists()


@pytest.mark.usefixtures("small")
def test_a_missing_torchvision_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision_set(monkeypatch, tmp_path, cifar.CIFAR10)
    (tmp_path / "cifar-10-batches-py" / "train_1").unlink()
    with pytest.raises(UserError, match=r"train_1: missing; remove .* and run resnet-cli data"):
        load_split(CIFAR10, "train", tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("image", ["img", "image"])
def test_parquet_columns_come_in_several_forms(tmp_path: Path, image: str, plain: bool) -> None:
    pixels = parquet_set(tmp_path, cifar.CIFAR10, image=image, plain=plain)
    assert np.array_equal(nhwc(load_split(CIFAR10, "train", tmp_path).images), pixels["train"])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("label", ["fine_label", "label"])
def test_cifar100_labels_are_the_fine_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    parquet_set(tmp_path / "cifar100", cifar.CIFAR100, label=label)
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
def test_only_the_requested_images_are_decoded(tmp_path: Path) -> None:
    encoded: list[bytes | None] = [encode(image) for image in pictures(20)]
    encoded[10] = b"not an image"
    write_parquet(tmp_path / "test-0.parquet", encoded, [i % 10 for i in range(20)])
    assert len(load_split(DataConfig(dataset="cifar10", test_images=10), "test", tmp_path)) == 10


GOOD = encode(pictures(1)[0])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD[: len(GOOD) // 2], r"test-0\.parquet, row 13: damaged, or not an image: "),
        (b"", r"row 13: damaged, or not an image"),
        (b"<html>not found</html>", r"row 13: damaged, or not an image"),
        (None, r"row 13: has no image bytes"),
        (encode(pictures(1, 33)[0]), r"row 13: 33x33 pixels; expected 32x32"),
        (png_header(8000, 6250), r"row 13: 8000x6250 pixels; expected 32x32"),
        (png_header(10_000, 10_000), r"row 13: more than 40 megapixels"),
        (png_header(60_000, 60_000), r"row 13: more than 40 megapixels"),
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
        ([*range(10), *range(9), 10], r"label 10 in row 19; labels of CIFAR-10 range from 0 to 9"),
        ([*range(10), *range(9), -1], r"label -1 in row 19"),
        ([*range(10), *range(9), 8], r"3 images of class 8; CIFAR-10 has 2 in each .* different"),
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
def test_wrong_columns_are_listed_with_the_expected(
    tmp_path: Path, columns: dict[str, str]
) -> None:
    write_parquet(tmp_path / "test-0.parquet", [GOOD] * 20, list(range(20)), **columns)
    names = ".*".join([columns.get("image", "img"), columns.get("label", "label")])
    with pytest.raises(UserError, match=rf"test-0.parquet: has the columns {names}.*needs"):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("keep", [0, 100, -200])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, keep: int) -> None:
    parquet_set(tmp_path, cifar.CIFAR10)
    file = tmp_path / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet: damaged, or not a parquet"):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["test", "val"])
def test_class_folders_have_the_canonical_order(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path / "cifar10" / name, list(cifar.CIFAR10.classes), per_class=2)
    split = load_split(CIFAR10, "test", tmp_path)
    assert split.classes == cifar.CIFAR10.classes
    assert len(split) == 20
    # Each fake image is one grey value that tells its class; pixels and labels belong together.
    assert (split.images[:, 0, 0, 0] == 20 * split.labels).all()
    assert split.labels.tolist() != sorted(split.labels.tolist())  # classes are mixed


def test_the_canonical_class_names_are_sorted() -> None:
    """Sorted class folders have the published labels only because of this."""
    for name, count in (("cifar10", 10), ("cifar100", 100)):
        names = dataset(name).classes
        assert len(set(names)) == count
        assert list(names) == sorted(names)


def test_class_folders_of_another_number_of_classes(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["cat", "dog"])
    with pytest.raises(UserError, match=r"has 2 class folders; CIFAR-10 has 10"):
        load_split(CIFAR10, "train", tmp_path)


def test_class_folders_must_agree_between_the_splits(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", [f"n{i}" for i in range(10)])
    class_folders(tmp_path / "test", [f"n{i}" for i in range(1, 11)])
    with pytest.raises(UserError, match=r"same class folders; only one has n0, n10"):
        load_split(CIFAR10, "train", tmp_path)


@pytest.mark.usefixtures("small")
def test_class_folders_hold_images_of_32_pixels(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", list(cifar.CIFAR10.classes), per_class=4, size=16)
    with pytest.raises(UserError, match=r"\.png: 16x16 pixels; expected 32x32"):
        load_split(CIFAR10, "train", tmp_path)


@pytest.mark.usefixtures("small")
def test_every_location_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {f.state for f in dataset("cifar10").locations(tmp_path)} == {"missing"}
    parquet_set(tmp_path / "cifar10", cifar.CIFAR10)
    torchvision_set(monkeypatch, tmp_path, cifar.CIFAR10)
    (tmp_path / "cifar-10-batches-py" / "test_0").write_bytes(b"")
    class_folders(tmp_path / "train", list(cifar.CIFAR10.classes), per_class=4)
    told = [f for f in dataset("cifar10").locations(tmp_path) if f.state != "missing"]
    assert [(f.place, f.state) for f in told] == [
        (str(tmp_path / "cifar-10-batches-py"), "damaged"),
        (str(tmp_path / "cifar10"), "found"),
        (str(tmp_path), "damaged"),
    ]
    assert "test_0: damaged" in told[0].detail
    assert "40 train images (pixels differ" in told[1].detail
    assert "test/<class>/ or val/<class>/ is missing" in told[2].detail


@needs_cifar10
@pytest.mark.slow
def test_real_cifar10_has_the_published_statistics() -> None:
    train = load_split(CIFAR10, "train", SHARED)
    assert train.images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert train.content_digest == cifar.CIFAR10.digests["train"]
    found = parse_normalization("channel", lambda: train)
    assert [round(x, 4) for x in found.mean.flatten().tolist()] == [0.4914, 0.4822, 0.4465]
    assert [round(x, 4) for x in found.std.flatten().tolist()] == [0.2470, 0.2435, 0.2616]


@needs_cifar10
def test_real_cifar10_test_split() -> None:
    test = load_split(CIFAR10, "test", SHARED)
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.content_digest == cifar.CIFAR10.digests["test"]
    shuffled = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))
    other = Split("cifar10", "test", test.images[shuffled], test.labels[shuffled], test.classes, "")
    assert other.content_digest == test.content_digest
    assert other.fingerprint != test.fingerprint
    few = load_split(DataConfig(dataset="cifar10", test_images=100), "test", SHARED)
    assert torch.equal(few.images, test.images[:100])
