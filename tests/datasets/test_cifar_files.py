"""CIFAR's files as people write them: names of classes, kinds of labels, layouts of parquet."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from dataset_files import class_folders, encode, nhwc, pictures

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets import cifar
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.runtime.errors import UserError

CIFAR10 = DataConfig(dataset="cifar10")
CIFAR100 = DataConfig(dataset="cifar100")
CLASSES = list(cifar.CIFAR10.classes)
pytestmark = pytest.mark.usefixtures("small")

# --- class folders ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["plane", "car", *CLASSES[2:]],
        [name.capitalize() for name in CLASSES],
        ["airplane", "Automobile", *CLASSES[2:]],
        [str(label) for label in range(10)],
        [f"{label}_{name}" for label, name in enumerate(CLASSES)],
    ],
    ids=["aliases", "capitals", "mixed", "numbers", "numbered"],
)
def test_class_folders_have_the_published_labels_under_other_names(
    tmp_path: Path, names: list[str]
) -> None:
    """For any order of names, the grey value of an image gives its published label."""
    class_folders(tmp_path / "train", names, per_class=4)
    split = load_split(CIFAR10, "train", tmp_path)
    assert split.classes == cifar.CIFAR10.classes
    assert (split.images[:, 0, 0, 0] == 20 * split.labels).all()


def test_numbers_of_two_digits_are_labels_too(tmp_path: Path) -> None:
    """Sorted as text, 10 comes before 2."""
    class_folders(tmp_path / "test", [str(label) for label in range(100)], per_class=1)
    split = load_split(CIFAR100, "test", tmp_path)
    assert torch.equal(split.images[:, 0, 0, 0].long(), 20 * split.labels % 256)


@pytest.mark.parametrize(
    "names",
    [
        [f"n{i:02}" for i in range(10)],
        ["plane", CLASSES[0], *CLASSES[2:]],
        [f"{label + 1}_{name}" for label, name in enumerate(CLASSES)],
    ],
    ids=["unknown", "twice", "other numbers"],
)
def test_class_folders_of_unknown_names_are_refused(tmp_path: Path, names: list[str]) -> None:
    class_folders(tmp_path / "train", names, per_class=4)
    with pytest.raises(UserError, match=r"train: .*not the class names of CIFAR-10"):
        load_split(CIFAR10, "train", tmp_path)


def test_class_folders_are_counted_as_other_layouts_are(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", CLASSES, per_class=3)
    with pytest.raises(UserError, match=r"train: 30 images; the train split .* has 40"):
        load_split(CIFAR10, "train", tmp_path)
    class_folders(tmp_path / "train", CLASSES, per_class=4)
    (tmp_path / "train" / "cat" / "0.png").rename(tmp_path / "train" / "dog" / "new.png")
    with pytest.raises(UserError, match=r"train: 3 images of class 3; CIFAR-10 has 4 in each"):
        load_split(CIFAR10, "train", tmp_path)


# --- parquet files ---------------------------------------------------------------------------


def rows_of(count: int = 20) -> tuple[list[dict[str, Any]], list[int]]:
    images = [{"bytes": encode(image), "path": "x"} for image in pictures(count)]
    return images, [i % 10 for i in range(count)]


def write_table(root: Path, table: Any, name: str = "test-00000-of-00001.parquet") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / name)


@pytest.mark.parametrize("kind", ["float", "string", "dictionary", "int8", "labels"])
def test_labels_may_be_numbers_or_names(tmp_path: Path, kind: str) -> None:
    images, labels = rows_of()
    names = pa.array([CLASSES[label] for label in labels])
    columns = {
        "float": pa.array(labels, pa.float64()),
        "string": names,
        "dictionary": names.dictionary_encode(),
        "int8": pa.array(labels, pa.int8()),
        "labels": pa.array(labels),
    }
    name = "labels" if kind == "labels" else "label"
    write_table(tmp_path, pa.table({"img": images, name: columns[kind]}))
    assert load_split(CIFAR10, "test", tmp_path).labels.tolist() == labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda labels: [label + 1 for label in labels],
            r"labels range from 1 to 10; .*: subtract",
        ),
        (lambda labels: [label + 0.5 for label in labels], r"labels are not whole numbers"),
        (lambda labels: [f"class {label}" for label in labels], r"'class 0' is not the name of"),
        (lambda labels: [None, *labels[1:]], r"1 rows have no label"),
    ],
    ids=["one-based", "fractions", "names", "null"],
)
def test_labels_that_are_not_those_of_the_set(tmp_path: Path, change: Any, message: str) -> None:
    images, labels = rows_of()
    write_table(tmp_path, pa.table({"img": images, "label": change(labels)}))
    with pytest.raises(UserError, match=message):
        load_split(CIFAR10, "test", tmp_path)


def test_two_label_columns_are_refused(tmp_path: Path) -> None:
    images, labels = rows_of()
    columns = [pa.array(images), pa.array(labels), pa.array(labels)]
    write_table(tmp_path, pa.table(columns, ["img", "label", "label"]))
    with pytest.raises(UserError, match="several columns named label"):
        load_split(CIFAR10, "test", tmp_path)


@pytest.mark.parametrize(
    "name",
    ["validation-00000-of-00001.parquet", "test.parquet", "test/0000.parquet"],
)
def test_other_names_of_parquet_files(tmp_path: Path, name: str) -> None:
    images, labels = rows_of()
    write_table(tmp_path, pa.table({"img": images, "label": labels}), name)
    assert load_split(CIFAR10, "test", tmp_path).labels.tolist() == labels
    with pytest.raises(UserError, match=r"train-\*\.parquet, train\.parquet or train/\*\.parquet"):
        load_split(CIFAR10, "train", tmp_path)


@pytest.mark.parametrize("order", ["rows", "planes"])
def test_pixels_may_be_nested_lists(tmp_path: Path, order: str) -> None:
    pixels, labels = pictures(20), rows_of()[1]
    stored = pixels if order == "rows" else pixels.transpose(0, 3, 1, 2)
    write_table(tmp_path, pa.table({"img": stored.tolist(), "label": labels}))
    assert np.array_equal(nhwc(load_split(CIFAR10, "test", tmp_path).images), pixels)
    few = load_split(DataConfig(dataset="cifar10", test_images=3), "test", tmp_path)
    assert np.array_equal(nhwc(few.images), pixels[:3])


@pytest.mark.parametrize("form", ["lists", "encoded"])
def test_files_beyond_the_limit_or_without_rows_are_not_decoded(tmp_path: Path, form: str) -> None:
    pixels, labels = pictures(20), rows_of()[1]
    images: list[Any] = (
        [encode(image) for image in pixels] if form == "encoded" else pixels.tolist()
    )
    whole = pa.table({"img": images, "label": labels})
    for number, (start, count) in enumerate([(0, 0), (0, 5), (5, 0), (5, 15)]):
        part = whole.slice(start, count)
        write_table(tmp_path, part, f"test-{number:05}-of-00004.parquet")
    for limit in (3, 5, 8, 20):
        few = load_split(DataConfig(dataset="cifar10", test_images=limit), "test", tmp_path)
        assert np.array_equal(nhwc(few.images), pixels[:limit])
        assert few.labels.tolist() == labels[:limit]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            [image.tolist() for image in pictures(19)] + [pictures(1)[0, :30].tolist()],
            r"lists of varying x 32 x 3 numbers; expected 32 x 32 x 3",
        ),
        (
            pa.nulls(20, pa.list_(pa.list_(pa.list_(pa.uint8())))),
            r"lists of varying x varying x varying numbers; expected 32 x 32 x 3",
        ),
        ([image.tobytes() for image in pictures(20)], r"3,072 bytes of raw pixels, whose order"),
        (pictures(20).reshape(20, -1).tolist(), r"lists of 3072 numbers; expected 32 x 32 x 3"),
        ((2 * pictures(20).astype(int)).tolist(), r"pixels that are not integers from 0 to 255"),
    ],
    ids=["varying", "missing", "bytes", "flat", "values"],
)
def test_pixels_of_unknown_order_or_scale(tmp_path: Path, images: Any, message: str) -> None:
    write_table(tmp_path, pa.table({"img": images, "label": rows_of()[1]}))
    with pytest.raises(UserError, match=message):
        load_split(CIFAR10, "test", tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n"
    (tmp_path / "test-00000-of-00001.parquet").write_text(pointer)
    with pytest.raises(UserError, match=r"Git LFS pointer.*git lfs pull"):
        load_split(CIFAR10, "test", tmp_path)
