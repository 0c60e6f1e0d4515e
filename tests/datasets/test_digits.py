"""The digits, enlarged."""

import numpy as np
import pytest
import torch
from dataset_files import nhwc

from resnet_cli.config.schema import DataConfig
from resnet_cli.datasets.catalogue import load_split


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
