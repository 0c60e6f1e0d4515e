"""The digits, enlarged."""

import numpy as np
import pytest
import torch
from dataset_files import nhwc

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.datasets.digits import FILE


@pytest.mark.parametrize("size", [None, 16, 32])
def test_digits_are_split_and_enlarged(size: int | None) -> None:
    config = DataConfig(image_size=size)
    train, test = load_split(config, "train"), load_split(config, "test")
    side = size or 16
    assert train.images.shape == (1437, 3, side, side)
    assert test.images.shape == (360, 3, side, side)
    assert test.classes == tuple("0123456789")
    assert torch.bincount(test.labels).min() >= 34  # stratified: 360 of 1,797, 10 classes
    assert torch.equal(train.images[:, 0], train.images[:, 2])
    # Bilinear enlargement keeps the mean away from the border.
    whole = torch.cat([train.images, test.images]).double().mean() / 255 * 16
    with np.load(FILE) as stored:
        small = np.concatenate([stored["train_images"], stored["test_images"]])
    assert whole == pytest.approx(small.mean(), rel=0.03)


def test_the_stored_digits_are_those_of_scikit_learn() -> None:
    """The committed file is exactly what its comment says: scikit-learn's images and split."""
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.model_selection import train_test_split

    images, labels = datasets.load_digits().images, datasets.load_digits().target
    places = train_test_split(np.arange(1797), test_size=360, random_state=0, stratify=labels)
    with np.load(FILE) as stored:
        assert sorted(stored) == ["test_images", "test_labels", "train_images", "train_labels"]
        for split, chosen in zip(("train", "test"), places, strict=True):
            assert (stored[f"{split}_images"] == images[chosen]).all()
            assert (stored[f"{split}_labels"] == labels[chosen]).all()


def test_digits_are_enlarged_by_the_textbook_rule() -> None:
    """Bilinear with pixel centres at (i + 1/2) / 2 - 1/2, recomputed for one image by hand."""
    split = load_split(DataConfig(test_images=1), "test")
    with np.load(FILE) as stored:
        candidates = stored["test_images"][stored["test_labels"] == int(split.labels[0])]
    weights = np.zeros((16, 8))
    for i in range(16):
        at = min(max((i + 0.5) / 2 - 0.5, 0), 7)
        low = min(int(at), 6)
        weights[i, low], weights[i, low + 1] = 1 - (at - low), at - low
    enlarged = np.rint(np.einsum("ia,nab,jb->nij", weights, candidates, weights) * 255 / 16)
    assert (enlarged == nhwc(split.images)[0, :, :, 0]).all(axis=(1, 2)).sum() == 1
