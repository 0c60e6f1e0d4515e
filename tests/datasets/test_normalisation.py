"""Normalisations: by name, by statistics, and as they are stored."""

from typing import Any

import pytest
import torch
from dataset_files import make_split, nhwc

from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.datasets.split import Split
from resnet_cli.runtime.errors import UserError


def no_training_split() -> Split:
    raise AssertionError("the training split is not needed here")


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
        ("0,nan,0/1,1,1", r"every mean and std must be finite"),
        ("125.3,123,113.9/63,62,66", r"on the 0-1 scale; divide means and stds by 255"),
    ],
)
def test_bad_normalizations_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_normalization(text, no_training_split)


def test_a_channel_that_never_varies_cannot_be_normalised() -> None:
    images = torch.full((4, 3, 8, 8), 7, dtype=torch.uint8)
    split = Split("fake", "train", images, torch.zeros(4, dtype=torch.int64), ("a",), "")
    with pytest.raises(UserError, match="is constant in the training images; use none"):
        parse_normalization("channel", lambda: split)


@pytest.mark.parametrize("text", ["channel", "pixel", "imagenet"])
def test_normalization_is_applied(text: str) -> None:
    split = make_split()
    one = parse_normalization(text, lambda: split)
    normalized = one.apply(split.images)
    assert normalized.dtype == torch.float32
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    assert (normalized - (split.images.double() / 255 - one.mean) / one.std).abs().max() < 2e-6
