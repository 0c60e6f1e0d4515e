"""Batches: augmented as the paper says, and the same for the same stream."""

import pytest
import torch
from dataset_files import make_split, pictures
from torch import Tensor

from resnet_cli.datasets.batches import Batches, epoch_order
from resnet_cli.datasets.normalisation import Normalization, parse_normalization
from resnet_cli.datasets.split import Split
from resnet_cli.runtime import seeding
from resnet_cli.runtime.errors import UserError


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
    """The position of one white pixel shows the crop and the flip."""
    size, pad, count = 9, 2, 5000
    images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    images[:, :, 4, 3] = 255  # off the centre column: mirrored, it lies at 5
    split = Split("fake", "train", images, torch.zeros(1, dtype=torch.int64), ("a",), "")
    batches = Batches(split, parse_normalization("none", make_split), pad=pad, flip=True)
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
    assert (
        images - (split.images[8:].double() / 255 - normalization.mean) / normalization.std
    ).abs().max() < 2e-6
    assert torch.equal(labels, split.labels[8:])


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 1)])
def test_batches_refuse_a_normalization_of_another_shape(shape: tuple[int, ...]) -> None:
    foreign = Normalization(torch.zeros(shape), torch.ones(shape[0], 1, 1))
    with pytest.raises(
        UserError, match=rf"for images of shape \[{shape[0]}, .*fake has \[3, 8, 8\]"
    ):
        Batches(make_split(), foreign)


def test_epoch_order_is_a_permutation_of_its_own_for_each_epoch_and_seed() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert epoch_order(50, 0, 1).tolist() == orders[1]
