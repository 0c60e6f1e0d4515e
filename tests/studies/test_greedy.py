"""Greedy deletion against a naive loop over plain forward passes, and hand-made networks."""

import math

import pytest
import torch
from plain_lesions import make_batches, make_network, plain_logits, silence
from torch.nn import functional

from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.split import Split
from resnet_cli.models import Network
from resnet_cli.results.tables import column_names
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies import walks
from resnet_cli.studies.delete import delete_units
from resnet_cli.studies.greedy import choose_units, delete_greedily
from resnet_cli.studies.lesion import Deletion
from resnet_cli.studies.walks import Outcome


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
    assert min(row["test_error"] for row in delete_units(network, batches, others, 0)) > 0
    rows = delete_greedily(network, batches, 2, seed=0)
    assert [row["unit"] for row in rows] == [1, 5]
    assert [row["test_error"] for row in rows] == [0, 0]
    assert [row["agreement"] for row in rows] == [100, 100]


def test_rows_are_the_nested_deletions() -> None:
    network, batches = make_network(), make_batches()
    rows = delete_greedily(network, batches, 6, seed=7)
    order = [row["unit"] for row in rows]
    assert sorted(order) == list(range(6))
    assert [row["k"] for row in rows] == [1, 2, 3, 4, 5, 6]
    sets = [Deletion(0, tuple(sorted(order[:k]))) for k in range(1, 7)]
    expected = delete_units(network, batches, sets, 7)
    for row, other in zip(rows, expected, strict=True):
        assert set(row) == set(column_names("lesion_greedy"))
        shared = set(row) & set(other)
        assert shared >= {"blocks", "test_error", "baseline_error", "loss", "agreement", "seed"}
        assert {name: row[name] for name in shared} == {name: other[name] for name in shared}


def test_a_shorter_study_is_the_beginning_of_a_longer_one() -> None:
    network, batches = make_network(), make_batches()
    assert choose_units(network, batches, 2) == choose_units(network, batches, 5)[:2]


def test_units_may_be_chosen_on_other_images() -> None:
    network, measured, other = make_network(), make_batches(40), make_batches(30, seed=9)
    rows = delete_greedily(network, measured, 4, 0, choose_on=other)
    assert [row["unit"] for row in rows] == naive_order(network, other, 4)
    assert {row["images"] for row in rows} == {40}


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
    delete_greedily(network, batches, 3, seed=0)
    assert network.training
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_progress_counts_the_candidates() -> None:
    told: list[tuple[int, int]] = []
    choose_units(make_network(), make_batches(), 3, lambda done, total: told.append((done, total)))
    assert told == [(6, 15), (11, 15), (15, 15)]


@pytest.mark.parametrize("count", [0, 7])
def test_more_units_than_there_are(count: int) -> None:
    with pytest.raises(UserError, match=rf"--greedy {count}: this network has 6 units, so 1 to 6"):
        delete_greedily(make_network(), make_batches(), count, seed=0)
