"""Folders of images: what is refused, what is cropped, and that files and memory give the same."""

import dataclasses
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from dataset_files import class_folders, encode, nhwc, noise, png_header, write_image
from PIL import Image
from torch import Tensor

from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets import folder as folders
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.datasets.folder import (
    NUM_DRAWS,
    Folder,
    FolderBatches,
    drawn_box,
    drawn_colours,
    drawn_scale,
)
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.datasets.split import Split
from resnet_cli.models.factory import build
from resnet_cli.results.tables import read_table
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.interrupt import Stopper
from resnet_cli.runtime.seeding import stream
from resnet_cli.studies.delete import DeleteUnits
from resnet_cli.studies.runner import Written, run_study
from resnet_cli.studies.subject import find_subject
from resnet_cli.training.context import Context
from resnet_cli.training.evaluation import evaluate
from resnet_cli.training.loop import Trainer
from resnet_cli.training.runs import train_run

IMAGENET = parse_normalization("imagenet", lambda: pytest.fail("no statistics are needed"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, 12 training and 7 test images of various sizes and formats."""
    sizes = [(30, 40), (50, 33), (41, 41), (28, 64), (20, 20), (64, 37)]
    for split, count in (("train", 12), ("val", 7)):
        for number in range(count):
            height, width = sizes[number % len(sizes)]
            name = f"{number}.{'jpg' if number % 2 else 'png'}"
            pixels = noise(height, width, seed=100 * count + number)
            label = number % 2
            pixels[..., label] //= 4  # the classes differ by their colour
            write_image(tmp_path / split / ("cat", "dog")[label] / name, pixels)
    return tmp_path


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fits into memory."""
    monkeypatch.setattr(folders, "MEMORY_BYTES", 100)


def folder_config(**settings: Any) -> DataConfig:
    """Crops of 14 pixels, made as CIFAR's."""
    return DataConfig(
        dataset="imagefolder", **{"image_size": 14, "augment": "crop", "pad": 2, **settings}
    )


# --- loading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val", "test"])
def test_reads_both_splits(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path / "train", ["cat", "dog"], per_class=3, size=20)
    class_folders(tmp_path / name, ["cat", "dog"], per_class=1, size=20)
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    train = load_split(folder_config(), "train", tmp_path)
    test = load_split(folder_config(), "test", tmp_path)
    assert train.images.shape == (6, 3, 14, 14)
    assert test.images.shape == (2, 3, 14, 14)
    assert train.classes == test.classes == ("cat", "dog")
    assert (train.images[:, 1, 3, 3] == 20 * train.labels).all()


def test_may_be_the_test_split_itself(tmp_path: Path) -> None:
    class_folders(tmp_path / "mine", ["cat", "dog"], size=14)
    assert len(load_split(folder_config(), "test", tmp_path / "mine")) == 4
    with pytest.raises(UserError, match=r"mine: has no train/ folder"):
        load_split(folder_config(), "train", tmp_path / "mine")


def test_resizes_the_shorter_side_and_crops_the_centre(tmp_path: Path) -> None:
    pixels = noise(48, 64)
    write_image(tmp_path / "train" / "a" / "x.png", pixels)
    split = load_split(folder_config(image_size=21), "train", tmp_path)
    resized = Image.fromarray(pixels).resize((32, 24), Image.Resampling.BILINEAR)
    cropped = np.asarray(resized)[2:23, 6:27]  # round((24 - 21) / 2) = 2, round(11 / 2) = 6
    assert np.array_equal(nhwc(split.images)[0], cropped)


def test_defaults_to_224(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["a"], per_class=1)
    split = load_split(folder_config(image_size=None), "train", tmp_path)
    assert split.images.shape == (1, 3, 224, 224)


def test_without_its_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; .* --data-dir"):
        load_split(folder_config(), "train", tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"train: has no class folders; .* train/<class>/<image>"):
        load_split(folder_config(), "train", tmp_path)
    with pytest.raises(UserError, match=r"has no val/ or test/ folder"):
        load_split(folder_config(), "test", tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(UserError, match=r"train/cat: contains no images \(\.png"):
        load_split(folder_config(), "train", tmp_path)


def test_splits_must_agree(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["cat", "dog"])
    class_folders(tmp_path / "val", ["cat", "fox"])
    with pytest.raises(UserError, match=r"same class folders; only one has dog, fox"):
        load_split(folder_config(), "test", tmp_path)


def test_names_a_truncated_image(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["cat"])
    (tmp_path / "train" / "cat" / "1.png").write_bytes(encode(noise(32, 32))[:1000])
    with pytest.raises(UserError, match=r"1\.png: damaged, or not an image"):
        load_split(folder_config(), "train", tmp_path)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (8000, 6250, "more than 40 megapixels"),
        (10_000, 10_000, "more than 40 megapixels"),
    ],
)
def test_refuses_huge_images(tmp_path: Path, width: int, height: int, message: str) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "x.png").write_bytes(png_header(width, height))
    with pytest.raises(UserError, match=rf"x\.png: {message}"):
        load_split(folder_config(), "train", tmp_path)


def test_refuses_an_image_that_resizing_would_blow_up(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    strip = np.zeros((1, 2000, 3), np.uint8)
    (tmp_path / "train" / "a" / "x.png").write_bytes(encode(strip))
    with pytest.raises(UserError, match=r"x\.png: 2000x1 is too narrow to resize to 224x224"):
        load_split(folder_config(image_size=224), "train", tmp_path)


@pytest.mark.parametrize(
    "link", ["train", "train/a", "train/a/x.png", "train/a/sub", "train/a/loop"]
)
def test_refuses_links_that_leave_it(tmp_path: Path, link: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    class_folders(outside, ["a"])
    root.mkdir()
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    targets = {"train": outside, "train/a/x.png": outside / "a" / "0.png", "train/a/loop": "loop"}
    (root / link).symlink_to(targets.get(link, outside / "a"))
    with pytest.raises(UserError, match=r"outside the data folder|cannot be followed"):
        load_split(folder_config(), "train", root)


def test_takes_a_link_to_a_file_inside_but_follows_no_folder(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["a"], per_class=1)
    (tmp_path / "train" / "a" / "copy.png").symlink_to("0.png")
    assert len(load_split(folder_config(), "train", tmp_path)) == 2
    (tmp_path / "train" / "a" / "again").symlink_to(tmp_path / "train")
    with pytest.raises(UserError, match=r"again: a link to a folder, which is not followed"):
        load_split(folder_config(), "train", tmp_path)


def test_refuses_entries_that_are_not_files(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ["a"])
    os.mkfifo(tmp_path / "train" / "a" / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png: neither a file nor a folder"):
        load_split(folder_config(), "train", tmp_path)


# --- in memory and streaming -----------------------------------------------------------------


def both_ways(
    root: Path, monkeypatch: pytest.MonkeyPatch, config: DataConfig, split: Any = "train"
) -> list[Batches]:
    """The batches of one split, held in memory and read from its files."""
    made = []
    for limit in (folders.MEMORY_BYTES, 100):
        with monkeypatch.context() as patch:
            patch.setattr(folders, "MEMORY_BYTES", limit)
            found = load_split(config, split, root)
        if limit == 100:
            assert isinstance(found, Folder)
            assert found.decoded is None
        else:
            assert isinstance(found, Split) or found.decoded is not None
        made.append(found.batches(IMAGENET, config.pad, config.flip))
    return made


@pytest.mark.parametrize("augment", ["crop", "scale", "scale_aspect"])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("part", [slice(None), slice(2, 4)], ids=["whole", "part"])
def test_files_and_memory_give_the_same_batches(
    root: Path, monkeypatch: pytest.MonkeyPatch, augment: Any, ahead: bool, part: slice
) -> None:
    held, streamed = both_ways(root, monkeypatch, folder_config(augment=augment))
    assert len(held) == len(streamed) == 12
    assert held.classes == streamed.classes == ("cat", "dog")
    assert isinstance(held, FolderBatches) == (augment != "crop")
    assert isinstance(streamed, FolderBatches)
    indices = torch.tensor([3, 0, 7, 7, 11])
    requests = [(indices, stream(5, "augmentation", iteration), part) for iteration in (0, 1)]
    read_ahead = streamed.stream(requests)
    for iteration in (0, 1):
        one = held.training(indices, stream(5, "augmentation", iteration), part)
        generator = stream(5, "augmentation", iteration)
        other = next(read_ahead) if ahead else streamed.training(indices, generator, part)
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)
        whole = held.training(indices, stream(5, "augmentation", iteration))[0]
        assert whole.shape == (5, 3, 14, 14)
        assert torch.equal(one[0], whole[part])
        assert one[0].is_contiguous(memory_format=torch.channels_last)
    for batch in (held.unaugmented, streamed.unaugmented):
        assert torch.equal(batch(indices)[0], held.unaugmented(indices)[0])
        assert batch(indices)[1].tolist() == held.labels[indices].tolist()
    for start, stop in ((0, 5), (5, 10), (10, 15), (0, 12), (3, 4)):
        for a, b in zip(
            held.evaluation(start, stop), streamed.evaluation(start, stop), strict=True
        ):
            assert torch.equal(a, b)


@pytest.mark.parametrize("augment", ["crop", "scale", "scale_aspect"])
def test_a_crop_depends_on_the_stream_and_the_place_in_the_batch_only(
    root: Path, augment: Any
) -> None:
    batches = load_split(folder_config(augment=augment, pad=3), "train", root).batches(IMAGENET, 3)
    whole = batches.training(torch.arange(12), stream(0, "a"))[0]
    if augment != "crop":  # `Batches` draws all tops, then all lefts
        first = batches.training(torch.arange(5), stream(0, "a"))[0]
        assert torch.equal(first, whole[:5])
    again = batches.training(torch.arange(12).flip(0), stream(0, "a"))[0]
    elsewhere = batches.training(torch.arange(12), stream(1, "a"))[0]
    assert not torch.equal(again.flip(0), whole)
    assert not torch.equal(elsewhere, whole)
    assert torch.equal(batches.training(torch.arange(12), stream(0, "a"))[0], whole)


def test_images_are_held_up_to_the_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_split(folder_config(augment="scale"), "train", root)
    assert isinstance(whole, Folder)
    assert whole.decoded is not None
    needed = sum(image.nbytes for image in whole.decoded)
    assert needed == whole.decoded_bytes() == 2 * 3 * (1200 + 1650 + 1681 + 1792 + 400 + 2368)
    for limit, held in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(folders, "MEMORY_BYTES", limit)
        found = load_split(folder_config(augment="scale"), "train", root)
        assert isinstance(found, Folder)
        assert (found.decoded is not None) == held
    squares = 12 * 3 * 14 * 14
    for limit, kind in ((squares, Split), (squares - 1, Folder)):
        monkeypatch.setattr(folders, "MEMORY_BYTES", limit)
        assert isinstance(load_split(folder_config(), "train", root), kind)


def test_a_streamed_folder_takes_the_first_images_of_all_classes(
    root: Path, streaming: None
) -> None:
    whole = load_split(folder_config(augment="scale"), "train", root)
    few = load_split(folder_config(augment="scale", train_images=8), "train", root)
    assert few.files == whole.files[:8]
    assert set(few.labels.tolist()) == {0, 1}
    with pytest.raises(UserError, match=r"train_images: 13 is too large; the split has 12"):
        load_split(folder_config(augment="scale", train_images=13), "train", root)


def test_fingerprints_notice_what_they_can(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder_config(augment="scale")

    def fingerprints() -> list[str]:
        found = []
        for limit in (10**9, 100):
            monkeypatch.setattr(folders, "MEMORY_BYTES", limit)
            found.append(load_split(config, "train", root).fingerprint)
        return found

    held, streamed = fingerprints()
    assert fingerprints() == [held, streamed]
    assert len(held) == len(streamed) == 64
    assert held != streamed
    file = root / "train" / "cat" / "4.png"
    pixels = np.asarray(Image.open(file)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(file, dpi=(72, 72))  # another size of file as well
    changed = fingerprints()
    assert changed[0] != held
    assert changed[1] != streamed
    pixels[0, 0] ^= 2
    Image.fromarray(pixels).save(file, dpi=(72, 72), compress_level=0)
    assert fingerprints()[0] != changed[0]


@pytest.mark.parametrize("text", ["channel", "pixel"])
def test_statistics_are_those_of_the_central_crops(
    root: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    split = load_split(folder_config(), "train", root)
    folder = load_split(folder_config(augment="scale"), "train", root)
    expected, found = (parse_normalization(text, lambda s=s: s) for s in (split, folder))
    assert torch.equal(expected.mean, found.mean)
    assert torch.equal(expected.std, found.std)
    assert folder.batches(found).training(torch.arange(3), stream(0, "a"))[0].shape[2] == 14
    monkeypatch.setattr(folders, "MEMORY_BYTES", 100)
    streamed = load_split(folder_config(augment="scale"), "train", root)
    with pytest.raises(UserError, match=r"^normalize: .* 12 images, .* use imagenet, or"):
        parse_normalization(text, lambda: streamed)


# --- crops -----------------------------------------------------------------------------------


def draws_of(count: int, augment: str) -> list[list[float]]:
    generator = torch.Generator().manual_seed(0)
    shape = (count, NUM_DRAWS[augment])
    return torch.rand(shape, generator=generator, dtype=torch.float64).tolist()


def test_scale_draws_every_shorter_side_from_256_to_480() -> None:
    sides = torch.tensor([drawn_scale(224, draws[0]) for draws in draws_of(20_000, "scale")])
    counts = torch.bincount(sides)
    assert (counts > 0).nonzero().flatten().tolist() == list(range(256, 481))
    mean, width = counts[256:].double().mean(), counts[256:].double().std()
    assert mean == pytest.approx(20_000 / 225)
    assert width < 1.3 * math.sqrt(mean)  # as the counts of a uniform draw
    assert drawn_scale(224, 0.0) == 256
    assert drawn_scale(224, math.nextafter(1, 0)) == 480


def test_scale_crops_a_resized_image_anywhere(root: Path) -> None:
    """Each crop is found again in the image resized by hand, and all corners occur."""
    file = root / "only" / "train" / "a" / "x.png"
    write_image(file, noise(30, 40))
    folder = load_split(folder_config(augment="scale"), "train", root / "only")
    assert isinstance(folder, Folder)
    seen = set()
    for draws in draws_of(1500, "scale"):
        square = folder.random(0, draws)
        side = drawn_scale(14, draws[0])
        width = int(side * 40 / 30)
        resized = np.asarray(Image.open(file).resize((width, side), Image.Resampling.BILINEAR))
        windows = np.lib.stride_tricks.sliding_window_view(resized, (14, 14, 3))[:, :, 0]
        places = np.argwhere((windows == square).all((2, 3, 4)))
        assert len(places) == 1
        if side == 16:
            seen.add(tuple(int(n) for n in places[0]))
    assert {row for row, _ in seen} == {0, 1, 2}
    assert {column for _, column in seen} == set(range(21 - 14 + 1))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (120, 160), (64, 64)])
def test_scale_aspect_crops_as_torchvision_does(width: int, height: int) -> None:
    """Area, aspect ratio and place have the distributions of RandomResizedCrop.get_params."""
    count = 3000
    boxes = [drawn_box(width, height, draws) for draws in draws_of(count, "scale_aspect")]
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    get_params = torchvision.transforms.RandomResizedCrop.get_params
    theirs = [get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    tops = np.array(boxes, float)
    for top, left, h, w in boxes:
        assert top >= 0
        assert left >= 0
        assert h > 0
        assert w > 0
        assert top + h <= height
        assert left + w <= width
    areas = tops[:, 2] * tops[:, 3] / (width * height)
    aspects = tops[:, 3] / tops[:, 2]
    slack = 2 / math.sqrt(0.08 * width * height)  # both sides are rounded
    assert areas.min() > 0.08 * (1 - slack)
    assert areas.max() <= 1
    assert aspects.min() > 3 / 4 * (1 - slack)
    assert aspects.max() < 4 / 3 * (1 + slack)
    from scipy.stats import ks_2samp

    reference = np.array(theirs, float)
    for ours, other in (
        (areas, reference[:, 2] * reference[:, 3] / (width * height)),
        (aspects, reference[:, 3] / reference[:, 2]),
        (tops[:, 0] / height, reference[:, 0] / height),
        (tops[:, 1] / width, reference[:, 1] / width),
    ):
        assert ks_2samp(ours, other).pvalue > 1e-3


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1000, 10, (0, 493, 10, 13)),  # no attempt fits: the widest crop of 4:3, central
        (10, 1000, (493, 0, 13, 10)),
        (1, 1, (0, 0, 1, 1)),
    ],
)
def test_scale_aspect_falls_back_to_the_centre(
    width: int, height: int, expected: tuple[int, ...]
) -> None:
    draws = [0.99, 0.5] * folders.ATTEMPTS + [0.3, 0.3, 0.3]
    assert drawn_box(width, height, draws) == expected


@pytest.mark.parametrize("augment", ["scale", "scale_aspect"])
def test_half_of_the_images_are_flipped_with_flip(root: Path, augment: Any) -> None:
    folder = load_split(folder_config(augment=augment), "train", root)
    straight, mixed = (
        folder.batches(IMAGENET, flip=flip).training(torch.arange(12), stream(0, "a"))[0]
        for flip in (False, True)
    )
    same = [torch.equal(a, b) for a, b in zip(straight, mixed, strict=True)]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(straight, mixed, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(same) < 12


# --- test images -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "size", "shorter_side"),
    [
        ({"image_size": 224}, 224, 256),
        ({"image_size": None}, 224, 256),
        ({"image_size": 224, "test_size": 224}, 224, 256),
        ({"image_size": 224, "test_size": 320}, 320, 320),
        ({"image_size": 224, "test_size": 112}, 112, 128),
    ],
)
def test_the_test_crop_is_224_from_256_or_320_from_320(
    tmp_path: Path, settings: dict[str, Any], size: int, shorter_side: int
) -> None:
    pixels = noise(330, 400)
    write_image(tmp_path / "val" / "a" / "x.png", pixels)
    write_image(tmp_path / "train" / "a" / "x.png", pixels)
    split = load_split(folder_config(**settings), "test", tmp_path)
    width = int(shorter_side * 400 / 330)
    resized = Image.fromarray(pixels).resize((width, shorter_side), Image.Resampling.BILINEAR)
    top, left = round((shorter_side - size) / 2), round((width - size) / 2)
    expected = np.asarray(resized)[top : top + size, left : left + size]
    assert np.array_equal(nhwc(split.images)[0], expected)
    train = load_split(folder_config(**settings), "train", tmp_path)
    assert train.images.shape[2] == (settings["image_size"] or 224)


# --- damaged images while streaming ----------------------------------------------------------


@pytest.mark.parametrize("augment", ["crop", "scale", "scale_aspect"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            encode(noise(32, 32))[:1000],
            r"2\.png: damaged, .*: image file is truncated",
        ),
        (b"no image", r"2\.png: damaged, or not an image"),
        (png_header(8000, 6250), r"2\.png: more than 40 megapixels"),
        (png_header(20_000, 20_000), r"2\.png: more than 40 megapixels"),
        (None, r"2\.png: damaged, or not an image: .*No such file"),
    ],
)
def test_a_bad_image_stops_streaming_with_one_line(
    root: Path, streaming: None, augment: Any, content: bytes | None, message: str
) -> None:
    batches = load_split(folder_config(augment=augment), "train", root).batches(IMAGENET)
    file = root / "train" / "cat" / "2.png"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    for ask in (
        lambda: batches.training(torch.arange(12), stream(0, "a")),
        lambda: batches.unaugmented(torch.arange(12)),
        lambda: [batches.evaluation(start, start + 4) for start in (0, 4, 8)],
    ):
        with pytest.raises(UserError, match=message) as error:
            ask()
        assert "\n" not in str(error.value)
        assert str(file) in str(error.value)


def test_a_bomb_is_refused_without_a_warning(root: Path, streaming: None) -> None:
    """Pillow itself warns of 100 megapixels; ours refuses them in one line."""
    batches = load_split(folder_config(), "train", root).batches(IMAGENET)
    (root / "train" / "cat" / "2.png").write_bytes(png_header(10_000, 10_000))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        with pytest.raises(UserError, match=r"2\.png: more than 40 megapixels"):
            batches.unaugmented(torch.arange(12))
    assert [str(warning.message) for warning in told] == []


def test_a_strip_that_resizing_would_blow_up_is_refused_but_may_be_cropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "train" / "a" / "x.png", np.zeros((1, 2000, 3), np.uint8))
    split = load_split(folder_config(augment="scale", image_size=224), "train", tmp_path)
    with pytest.raises(UserError, match=r"x\.png: 2000x1 is too narrow to resize to 224x224"):
        split.batches(IMAGENET).training(torch.tensor([0]), stream(0, "a"))
    split = load_split(folder_config(augment="scale_aspect", image_size=224), "train", tmp_path)
    images, _ = split.batches(IMAGENET).training(torch.tensor([0]), stream(0, "a"))
    assert images.shape == (1, 3, 224, 224)


# --- training and evaluation -----------------------------------------------------------------

TINY = ModelConfig(depth=8, stem="imagenet", units=(1, 1, 1), widths=(8, 8, 8))


def run_of(config: DataConfig, iterations: int = 7) -> RunConfig:
    train = TrainConfig(iterations=iterations, batch_size=5, warmup_iterations=0, lr=0.05)
    return RunConfig(model=TINY, data=config, train=train, seed=3)


def trained(run: RunConfig, root: Path) -> Trainer:
    """A finished training."""
    context = Context(torch.device("cpu"), data_dir=root)
    normalization = context.normalization(run.data)
    batches = [context.batches(run.data, name, normalization) for name in ("train", "test")]  # type: ignore[arg-type]
    trainer = Trainer(run, build(run.model, 2, run.seed), *batches)
    assert trainer.fit()
    return trainer


@pytest.mark.parametrize("augment", ["crop", "scale", "scale_aspect_colour"])
def test_an_imagenet_network_trains_the_same_from_files_and_from_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch, augment: Any
) -> None:
    run = run_of(folder_config(augment=augment, image_size=32))
    held = trained(run, root)
    monkeypatch.setattr(folders, "MEMORY_BYTES", 100)
    streamed = trained(run, root)
    for name, tensor in held.network.state_dict().items():
        assert torch.equal(tensor, streamed.network.state_dict()[name]), name
    keys = ("epoch", "iteration", "train_loss", "train_error", "test_loss", "test_error")
    rows = [[[row[key] for key in keys] for row in t.position.rows] for t in (held, streamed)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3  # three iterations an epoch, and one over


@pytest.mark.parametrize("augment", ["crop", "scale"])
def test_worker_processes_give_the_same_batches(
    root: Path, monkeypatch: pytest.MonkeyPatch, augment: Any
) -> None:
    """In chunks that do not divide a batch, read ahead or from an iteration in the middle."""
    monkeypatch.setattr(folders, "CHUNK", 2)
    held, streamed = both_ways(root, monkeypatch, folder_config(augment=augment))
    monkeypatch.setattr(folders, "_cores", lambda: 2)
    batches = [torch.tensor([3, 0, 7, 7, 11]), torch.tensor([1, 2, 4]), torch.tensor([5])]
    for first in (0, 1):
        expected, found = (
            list(
                one.stream(
                    (batches[i], stream(5, "augmentation", i), slice(None)) for i in range(first, 3)
                )
            )
            for one in (held, streamed)
        )
        for (a, a_labels), (b, b_labels) in zip(expected, found, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a_labels, b_labels)
    assert torch.equal(held.evaluation(0, 12)[0], streamed.evaluation(0, 12)[0])
    (root / "train" / "dog" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1\.jpg: damaged, or not an image") as error:
        streamed.unaugmented(torch.arange(12))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("augment", "method"), [("crop", "centre"), ("scale", "random")])
def test_training_decodes_each_image_of_a_batch_once(
    root: Path, streaming: None, monkeypatch: pytest.MonkeyPatch, augment: Any, method: str
) -> None:
    read: list[int] = []
    decode = getattr(Folder, method)

    def watched(folder: Folder, index: int, *draws: Any) -> np.ndarray:
        if folder.split == "train":
            read.append(index)
        return decode(folder, index, *draws)  # type: ignore[no-any-return]

    monkeypatch.setattr(Folder, method, watched)
    trained(run_of(folder_config(augment=augment, image_size=32)), root)
    assert len(read) == 2 * (5 + 5 + 2) + 5


def test_a_whole_run_and_its_evaluation_from_files(
    root: Path, tmp_path: Path, streaming: None
) -> None:
    """train_run, its provenance, and find_subject: at the size of training and at a larger one."""
    config = DataConfig(dataset="imagefolder", image_size=32)
    context = Context(torch.device("cpu"), data_dir=root, runs=tmp_path / "runs")
    run = run_of(config, iterations=4)
    finished = train_run(context, run, experiment="e", case="main", profile=None, stopper=Stopper())
    assert sorted(finished.data) == ["imagefolder/test", "imagefolder/train"]
    assert finished.test_error is not None
    subject = find_subject(context, str(finished.folder))
    result = evaluate(subject.loaded.network, subject.batches("test"))
    assert result.images == 7
    assert result.error == pytest.approx(finished.test_error)
    assert result.top5_error is None  # of two classes
    larger = find_subject(context, str(finished.folder), test_size=48)
    images, _ = larger.batches("test").evaluation(0, 2)
    assert images.shape == (2, 3, 48, 48)
    assert evaluate(larger.loaded.network, larger.batches("test")).images == 7


def test_a_study_of_other_images_is_not_taken_for_the_same(root: Path, tmp_path: Path) -> None:
    """Two folders of images have one name, and the weights are the same."""
    context = Context(torch.device("cpu"), data_dir=root, runs=tmp_path / "runs")
    run = run_of(folder_config(image_size=32), iterations=1)
    finished = train_run(context, run, experiment="e", case="main", profile=None, stopper=Stopper())
    table, study = tmp_path / "out" / "lesion_delete.csv", DeleteUnits(k=(1,))

    def studied(context: Context) -> Written:
        subject = find_subject(context, str(finished.folder))
        return run_study(subject, study, seed=0, out=table.parent, display=Display(verbosity=-1))

    assert table in studied(context).files
    assert table in studied(context).kept
    other = tmp_path / "other"
    for split in ("train", "val"):
        class_folders(other / split, ["cat", "dog"], per_class=3)
    written = studied(Context(context.device, data_dir=other, runs=context.runs))
    assert table in written.files
    assert read_table(table)["images"].unique().tolist() == [6]


def test_another_test_size_is_for_folders(tmp_path: Path, root: Path) -> None:
    context = Context(torch.device("cpu"), data_dir=root, runs=tmp_path / "runs")
    run = run_of(folder_config(image_size=32, augment="scale_aspect"), iterations=1)
    finished = train_run(context, run, experiment="e", case="main", profile=None, stopper=Stopper())
    with pytest.raises(UserError, match="--test-size: the images of digits have one size"):
        find_subject(context, str(finished.folder), dataset="digits", test_size=48)
    subject = find_subject(context, str(finished.folder), dataset="digits")
    assert subject.data.explicit().augment == "crop"  # what was asked of folders does not stay


def test_top5_error_counts_the_class_among_the_five_largest(root: Path) -> None:
    class Fixed(torch.nn.Module):
        """Logits that fall from class 0 on; the last image's are not finite."""

        device = torch.device("cpu")

        def forward(self, images: Tensor) -> Tensor:
            logits = -torch.arange(8.0).repeat(len(images), 1)
            logits[-1, 7] = float("nan")
            return logits

    images = torch.zeros(9, 3, 4, 4, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0])
    split = Split("fake", "test", images, labels, tuple("abcdefgh"), "made up")
    result = evaluate(Fixed(), split.batches(IMAGENET))  # type: ignore[arg-type]
    assert result.wrong == 8
    assert result.wrong_top5 == 4
    assert result.top5_error == pytest.approx(100 * 4 / 9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.wrong = 0  # type: ignore[misc]


# --- colours ---------------------------------------------------------------------------------


def test_colours_by_hand() -> None:
    """Saturation, brightness and contrast in the drawn order, each image by its own draws."""
    pixels = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 255
    draws = torch.tensor(
        [
            [0.75, 0.25, 1.0, 0.5, 0.9, 0.1, 0.5, 0.5, 0.5],
            [0.0, 0.5, 0.25, 0.1, 0.2, 0.3, 0.8, 0.5, 0.5],
        ],
        dtype=torch.float64,
    )
    found = drawn_colours(pixels, draws)
    weights = torch.tensor([0.299, 0.587, 0.114])

    def grey(image: torch.Tensor) -> torch.Tensor:
        return torch.einsum("c,chw->hw", weights, image)

    first = pixels[0]
    first = 1.4 * first - 0.4 * grey(first)  # saturation 1.4 is drawn first,
    first = 1.2 * first  # then brightness 1.2,
    first = 0.8 * first + 0.2 * grey(first).mean()  # then contrast 0.8
    torch.testing.assert_close(found[0], first, rtol=1e-4, atol=1e-2)

    second = 0.6 * pixels[1]
    second = 0.8 * second + 0.2 * grey(second)
    shift = 255 * 0.1 * 0.8416212 * 0.2175 * torch.tensor([-0.5675, -0.5808, -0.5836])
    torch.testing.assert_close(found[1], second + shift.view(3, 1, 1), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("augment", ["scale_colour", "scale_aspect_colour"])
def test_colours_are_added_to_the_same_crops(augment: str) -> None:
    assert NUM_DRAWS[augment] == NUM_DRAWS[augment.removesuffix("_colour")] + 9
    draws = torch.full((1, 9), 0.5, dtype=torch.float64)
    pixels = torch.randint(256, (1, 3, 5, 5), dtype=torch.uint8)
    torch.testing.assert_close(drawn_colours(pixels, draws), pixels.float())
