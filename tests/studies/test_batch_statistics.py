"""Re-estimated batch-norm statistics equal those of a copy that is reset and passed once."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.models.network import Network
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies import batch_statistics
from resnet_cli.studies.batch_statistics import Statistics, estimate, training_images
from resnet_cli.studies.subject import Subject, untrained_subject
from resnet_cli.studies.walks import (
    Walk,
    along,
    delete,
    evaluate_walks,
    intact,
    reorder,
    shared_steps,
    visited,
)
from resnet_cli.training.context import Context


@pytest.fixture(params=["full_preactivation", "original", "vgg"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """Weights and statistics that no two layers have alike."""
    fields = (
        {"family": "vgg", "depth": 10, "widths": (4, 16, 16, 16, 16)}
        if request.param == "vgg"
        else {"depth": 14, "widths": (16, 16, 32), "placement": request.param}
    )
    run = RunConfig(
        model=ModelConfig.model_validate(fields),
        data=DataConfig(dataset="digits", test_images=30, train_images=60),
        train=TrainConfig(epochs=1),
        seed=0,
    )
    found = untrained_subject(Context(torch.device("cpu")), run)
    generator = torch.Generator().manual_seed(1)
    for norm in norms_of(found.loaded.network):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
    return found


def norms_of(module: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def walks_of(network: Network) -> list[Walk]:
    whole = intact(len(network.units))
    walks = [delete(whole, [unit]) for unit in range(len(whole))]
    walks.append(delete(whole, [0, 2]))
    group = [place.index for place in network.places if not place.changes_shape][:2]
    if len(group) == 2 and network.places[group[0]].stage == network.places[group[1]].stage:
        order = list(range(len(whole)))
        order[group[0]], order[group[1]] = order[group[1]], order[group[0]]
        walks.append(reorder(whole, order, network.places))
    return walks


def plainly(network: Network, walk: Walk, images: Sequence[Tensor]) -> Network:
    """A copy of the network along a walk, its statistics reset and averaged over one pass."""
    changed = copy.deepcopy(along(network, walk)).eval()
    for norm in norms_of(changed):
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in images:
            changed(batch)
    return changed.eval()


def estimated(
    subject: Subject, walks: Sequence[Walk]
) -> tuple[dict[Walk, Statistics], list[Tensor]]:
    network = subject.loaded.network
    images = training_images(subject.batches("train"), 60, 0, 0)
    visits = visited(len(network.units), walks)
    found = estimate(network, images, visits, shared_steps(visits))
    return dict(zip(visits, found, strict=True)), images


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_statistics, "BATCH", 20)
    monkeypatch.setattr(batch_statistics, "GROUP", 3)
    monkeypatch.setattr("resnet_cli.studies.walks.CHUNK_BYTES", 1 << 15)
    monkeypatch.setattr("resnet_cli.kernels.winograd.PAYS_FROM", 0)


@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_outcomes_are_those_of_a_copy_that_is_reset_and_passed_once(
    subject: Subject, engine: str
) -> None:
    network, batches = subject.loaded.network, subject.batches("test")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    walks = walks_of(network)
    statistics, images = estimated(subject, walks)
    assert len(images) == 3
    outcomes = evaluate_walks(
        network,
        batches,
        walks,
        engine=engine,  # type: ignore[arg-type]
        statistics=statistics,
    )
    test, labels = batches.evaluation(0, len(batches))
    for walk, outcome in zip(walks, outcomes, strict=True):
        with torch.no_grad():
            logits = plainly(network, walk, images)(test)
        assert outcome.loss == pytest.approx(
            float(functional.cross_entropy(logits, labels)), rel=1e-4
        )
        assert outcome.wrong == int((logits.argmax(1) != labels).sum())
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_statistics_before_the_lesion_are_the_intact_networks(subject: Subject) -> None:
    network = subject.loaded.network
    whole = intact(len(network.units))
    unit = len(whole) - 2
    walk = delete(whole, [unit])
    statistics, images = estimated(subject, [walk])
    assert statistics[walk].steps[:unit] == statistics[whole].steps[:unit]
    naive = plainly(network, whole, images)
    parts = (statistics[whole].stem, *statistics[whole].steps, statistics[whole].head)
    assert sum(map(len, parts)) == len(norms_of(network))
    for index, part in enumerate(statistics[whole].steps):
        for norm, (mean, variance, count) in zip(
            norms_of(naive.unit_list[index]), part, strict=True
        ):
            assert int(count) == len(images)
            torch.testing.assert_close(mean, norm.running_mean)
            torch.testing.assert_close(variance, norm.running_var)


def test_images_are_drawn_by_subset_and_never_a_smaller_last_batch(subject: Subject) -> None:
    batches = subject.batches("train")
    first, second = (torch.cat(training_images(batches, 40, subset, 0)) for subset in (0, 1))
    assert first.shape[0] == 40
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat(training_images(batches, 40, 0, 0)))
    assert len(torch.cat(training_images(batches, 7, 0, 0))) == 7
    augmented = torch.cat(training_images(batches, 40, 0, 0, augmented=True))
    assert augmented.shape == first.shape
    for count, fault in ((30, "multiple of 20"), (80, "60 training images"), (1, "60 training")):
        with pytest.raises(UserError, match=fault):
            training_images(batches, count, 0, 0)


def test_a_network_without_batch_norms_is_refused() -> None:
    with pytest.raises(UserError, match="no batch norms"):
        batch_statistics.check(Network(nn.Identity(), [], nn.Identity()))
    with pytest.raises(UserError, match="keeps no running statistics"):
        batch_statistics.check(
            Network(nn.BatchNorm2d(3, track_running_stats=False), [], nn.Identity())
        )
