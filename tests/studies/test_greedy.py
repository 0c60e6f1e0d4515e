"""Greedy deletion against a naive loop over plain forward passes, and hand-made networks."""

import math
from dataclasses import replace

import pytest
import torch
from plain_lesions import make_batches, make_network, measured, plain_logits, silence
from torch.nn import functional

from resnet_cli.config.schema import DataConfig, ModelConfig, RunConfig, TrainConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.split import Split
from resnet_cli.models.network import Network
from resnet_cli.results.tables import column_names
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies import walks
from resnet_cli.studies.greedy import GreedyDeletion, choose_units, steps_of
from resnet_cli.studies.lesion import Deletion
from resnet_cli.studies.progress import Progress
from resnet_cli.studies.subject import untrained_subject
from resnet_cli.studies.walks import Outcome
from resnet_cli.training.context import Context


def naive_order(network: Network, batches: Batches, steps: int) -> list[int]:
    """Greedy deletion by one whole forward pass for each candidate."""
    images, labels = batches.evaluation(0, len(batches))
    deleted: list[int] = []
    for _ in range(steps):
        best: tuple[float, float, int] = (math.inf, math.inf, -1)
        for unit in range(len(network.units)):
            if unit in deleted:
                continue
            logits = plain_logits(network, images, [*deleted, unit])
            wrong = float((logits.argmax(1) != labels).sum())
            loss = float(functional.cross_entropy(logits.double(), labels))
            best = min(best, (wrong, loss, unit))
        deleted.append(best[-1])
    return deleted


@pytest.mark.parametrize("placement", ["full_preactivation", "original"])
@pytest.mark.parametrize("seed", [2, 5])
def test_the_order_is_that_of_a_naive_loop(placement: str, seed: int) -> None:
    network, batches = make_network(placement), make_batches(seed=seed)
    assert choose_units(network, batches, 6) == naive_order(network, batches, 6)


def test_units_that_do_nothing_go_first_and_cost_nothing() -> None:
    network, batches = make_network(), make_batches(300)
    silence(network, [1, 5])
    images, _ = batches.evaluation(0, len(batches))
    answers = plain_logits(network, images, []).argmax(1)  # so that the intact error is 0
    split = Split("tiny", "test", batches.images, answers, batches.classes, "made")
    batches = Batches(split, batches.normalization)
    others = [Deletion(0, (unit,)) for unit in (0, 2, 3, 4)]
    assert min(row["test_error"] for row in measured(network, batches, others)) > 0
    rows = measured(network, batches, steps_of(choose_units(network, batches, 2)))
    assert [row["unit"] for row in rows] == [1, 5]
    assert [row["test_error"] for row in rows] == [0, 0]
    assert [row["agreement"] for row in rows] == [100, 100]


def test_rows_are_the_nested_deletions() -> None:
    network, batches = make_network(), make_batches()
    order = choose_units(network, batches, 6)
    rows = measured(network, batches, steps_of(order), seed=7)
    assert [row["unit"] for row in rows] == order
    assert sorted(order) == list(range(6))
    assert [row["k"] for row in rows] == [1, 2, 3, 4, 5, 6]
    sets = [Deletion(0, tuple(sorted(order[:k]))) for k in range(1, 7)]
    expected = measured(network, batches, sets, seed=7)
    for row, other in zip(rows, expected, strict=True):
        assert set(row) == set(column_names("lesion_greedy"))
        shared = set(row) & set(other)
        assert shared >= {"blocks", "test_error", "baseline_error", "loss", "agreement", "seed"}
        assert {name: row[name] for name in shared} == {name: other[name] for name in shared}


def test_a_shorter_study_is_the_beginning_of_a_longer_one() -> None:
    network, batches = make_network(), make_batches()
    assert choose_units(network, batches, 2) == choose_units(network, batches, 5)[:2]


def test_units_may_be_chosen_on_training_images() -> None:
    run = RunConfig(
        model=ModelConfig(depth=14, units=(2, 2, 2), widths=(4, 6, 8)),
        data=DataConfig(dataset="digits", test_images=40),
        train=TrainConfig(epochs=1),
        seed=0,
    )
    subject = untrained_subject(Context(torch.device("cpu")), run)
    study = GreedyDeletion(max_units=4, choose_on="train", choose_images=30)
    progress = Progress(Display(silent=True), wanted=["lesion_greedy"])
    ((_, rows, splits),) = study.measure(subject, 0, progress)
    data = run.data.model_copy(update={"train_images": 30})
    chosen_on = replace(subject, data=data).batches("train")
    assert len(chosen_on) == 30
    assert [row["unit"] for row in rows] == naive_order(subject.loaded.network, chosen_on, 4)
    assert {row["images"] for row in rows} == {40}
    assert splits == ["test", "train"]


def test_ties_go_to_the_lower_loss_then_the_lower_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(wrong: int, loss: float) -> Outcome:
        return Outcome(10, wrong, loss, 0.0, 100.0, (wrong,))

    script = [
        [outcome(3, 1.0), outcome(2, 9.0), outcome(2, 8.0), outcome(2, 8.0)] + 2 * [outcome(9, 0)],
        [outcome(1, math.nan), outcome(1, 5.0), outcome(1, math.inf), *2 * [outcome(9, 0)]],
    ]
    monkeypatch.setattr(walks, "evaluate_walks", lambda *args: script.pop(0))
    assert choose_units(make_network(), make_batches(), 2) == [2, 1]


def test_the_network_is_left_as_it_was() -> None:
    network, batches = make_network().train(), make_batches()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    choose_units(network, batches, 3)
    assert network.training
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_progress_counts_the_candidates() -> None:
    told: list[tuple[int, int]] = []
    choose_units(make_network(), make_batches(), 3, lambda done, total: told.append((done, total)))
    assert told == [(6, 15), (11, 15), (15, 15)]


@pytest.mark.parametrize("count", [0, 7])
def test_more_units_than_there_are(count: int) -> None:
    with pytest.raises(UserError, match=rf"--greedy {count}: this network has 6 units, so 1 to 6"):
        choose_units(make_network(), make_batches(), count)
