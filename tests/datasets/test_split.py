"""Splits in memory, and what identifies them."""

import hashlib
import struct

import numpy as np
import pytest
import torch
from dataset_files import make_split, nhwc

from resnet_cli.datasets.split import Split
from resnet_cli.runtime.errors import UserError


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
    with pytest.raises(UserError, match=r"data\.train_images: 13 is too large; the split has 12"):
        make_split(12).take(13)


def test_content_digest_is_the_sum_of_the_images_hashes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    labels = [3, 1, 4, 1, 5, 9]
    total = sum(
        int(hashlib.sha256(image.tobytes() + bytes([label])).hexdigest(), 16)
        for image, label in zip(pixels, labels, strict=True)
    )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for order in (list(range(6)), [5, 2, 0, 1, 4, 3]):
        split = Split("fake", "train", images[order], torch.tensor(labels)[order], (), "")
        assert split.content_digest == f"{total % 2**256:064x}"
    swapped = Split("fake", "train", images, torch.tensor([1, 3, 4, 1, 5, 9]), (), "")
    assert swapped.content_digest != f"{total % 2**256:064x}"
