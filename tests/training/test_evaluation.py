"""Evaluation: counts, loss and modes against numpy, and a public network's published error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from resnet_cli.config.schema import DataConfig, ModelConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.datasets.normalisation import Normalization, parse_normalization
from resnet_cli.datasets.split import Split
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.training.evaluation import BATCH_SIZE, Evaluation, evaluate
from resnet_cli.weights.third_party import load_third_party

SHARED = Path(__file__).parents[3] / "shared"
AKAMASTER = SHARED / "checkpoints" / "akamaster-resnet20-12fca82f.th"
IMAGES = 2 * BATCH_SIZE + 1
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def make_network(classes: int = 5) -> Network:
    """A small network with random batch norms."""
    network = build(ModelConfig(depth=8, widths=(4, 8, 12), shortcut="dropout"), classes, seed=1)
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def make_batches(count: int = IMAGES) -> Batches:
    generator = torch.Generator().manual_seed(6)
    colours = torch.randint(0, 256, (count, 3, 1, 1), generator=generator)
    noise = torch.randint(0, 256, (count, 3, 8, 8), generator=generator)
    labels = torch.randint(5, (count,), generator=generator)
    pixels = ((colours + noise) // 2).to(torch.uint8)
    normalization = Normalization(torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1))
    split = Split("tiny", "test", pixels, labels, tuple("abcde"), "made")
    return Batches(split, normalization, pad=4, flip=True)


@torch.no_grad()
def logits_of(network: Network, batches: Batches) -> np.ndarray:
    """All images in one go, float64 [N, classes]."""
    pixels = batches.images.numpy().astype(np.float64) / 255
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (MEAN, STD))
    images = torch.from_numpy(((pixels - mean) / std).astype(np.float32))
    return network(images).double().numpy()


def test_counts_and_loss_equal_numpy_over_whole_and_cut_batches() -> None:
    network, batches = make_network(), make_batches()
    found = evaluate(network, batches)
    logits, labels = logits_of(network, batches), batches.labels.numpy()
    predicted = logits.argmax(1)
    assert len(set(predicted)) > 1
    log_sum = np.log(np.exp(logits).sum(1))
    assert found.images == IMAGES
    assert found.wrong == int((predicted != labels).sum())
    assert found.error == pytest.approx(100 * float(np.mean(predicted != labels)))
    assert found.loss == pytest.approx(float(np.mean(log_sum - logits[range(IMAGES), labels])))
    assert found.correct.tolist() == (predicted == labels).tolist()


@pytest.mark.parametrize("count", [1, BATCH_SIZE, BATCH_SIZE + 1])
def test_any_number_of_images_is_evaluated_once(count: int) -> None:
    network = make_network()
    found = evaluate(network, make_batches(count))
    assert found.images == len(found.correct) == count
    whole = make_batches(count)
    expected = logits_of(network, whole).argmax(1) != whole.labels.numpy()
    assert found.wrong == int(expected.sum())


def test_errors_are_in_percent() -> None:
    assert Evaluation(8, 3, 0.5, torch.ones(8)).error == 37.5
    assert Evaluation(8, 3, 0.5, torch.ones(8)).top5_error is None
    assert Evaluation(8, 3, 0.5, torch.ones(8), 1).top5_error == 12.5


@pytest.mark.parametrize("classes", [5, 6, 9])
def test_top_5_counts_the_five_largest_logits_of_more_than_five(classes: int) -> None:
    network, batches = make_network(classes), make_batches()
    batches.labels = batches.labels + torch.arange(IMAGES) % (classes - 4)
    found = evaluate(network, batches)
    logits, labels = logits_of(network, batches), batches.labels.numpy()
    larger = (logits > logits[range(IMAGES), labels][:, None]).sum(1)
    assert found.wrong == int((larger > 0).sum())
    assert found.wrong_top5 == (None if classes == 5 else int((larger > 4).sum()))
    assert classes == 5 or 0 < found.wrong_top5 < found.wrong


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_restored_and_nothing_is_changed(training: bool) -> None:
    """Running statistics and no dropout, whatever the network's mode."""
    network, batches = make_network(), make_batches()
    expected = evaluate(network, batches)
    network.train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = evaluate(network, batches)
    assert (found.wrong, found.loss) == (expected.wrong, expected.loss)
    assert all(module.training is training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not any(p.grad is not None or p.is_inference() for p in network.parameters())


def test_the_mode_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batches = make_network().train(), make_batches()

    def stop(start: int, stop: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "evaluation", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(network, batches)
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("classes", [5, 7])
def test_images_without_finite_logits_are_wrong(value: float, classes: int) -> None:
    """Even where the largest logit happens to be the label's."""
    network, batches = make_network(classes), make_batches(BATCH_SIZE + 3)
    with torch.no_grad():
        network.head.fc.bias[2] = value
    batches.labels = torch.from_numpy(logits_of(network, batches).argmax(1))
    found = evaluate(network, batches)
    assert found.wrong == len(batches)
    assert found.error == 100
    assert found.top5_error == (None if classes == 5 else 100)


def test_bfloat16_is_coarser_and_close() -> None:
    network, batches = make_network(), make_batches()
    exact, coarse = evaluate(network, batches), evaluate(network, batches, "bfloat16")
    assert coarse.loss != exact.loss
    assert coarse.loss == pytest.approx(exact.loss, rel=0.02)
    assert (coarse.correct == exact.correct).double().mean() > 0.9
    assert evaluate(network, batches, "auto").loss == exact.loss  # float32 on the CPU


@pytest.mark.skipif(
    not (AKAMASTER.is_file() and (SHARED / "data" / "cifar10").is_dir()),
    reason="the public ResNet-20 or CIFAR-10 is not beside the project",
)
def test_a_public_resnet20_has_its_published_error() -> None:
    """8.27 %, as github.com/akamaster/pytorch_resnet_cifar10 states for these weights."""
    loaded = load_third_party(AKAMASTER)
    network, classes = loaded.network, loaded.num_classes
    split = load_split(DataConfig(dataset="cifar10"), "test", SHARED / "data")
    assert len(split.classes) == classes
    found = evaluate(network, Batches(split, parse_normalization("imagenet", lambda: split)))
    assert found.images == 10_000
    assert abs(found.wrong - 827) <= 2  # an image or two on the border may fall either way
    assert found.error == pytest.approx(8.27, abs=0.02)
