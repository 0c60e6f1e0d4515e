"""Joint damage against the sum of single damages, by plain forward passes and by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from plain_lesions import make_batches, make_network, plain_logits, silence
from pydantic import ValidationError
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.results.tables import column_names
from resnet_cli.studies.additivity import Additivity, correlations, damage_rows, with_singles
from resnet_cli.studies.base import Row
from resnet_cli.studies.lesion import Deletion, draw_deletions, evaluate_lesions


def compared(
    network: Network, batches: Batches, sets: Sequence[Deletion], seed: int = 0
) -> list[Row]:
    """The rows of these sets, as the study makes them."""
    deletions = with_singles(sets)
    return damage_rows(deletions, evaluate_lesions(network, batches, deletions), seed)


def plain_damage(network: Network, batches: Batches, units: list[int]) -> tuple[float, float]:
    """(error, loss) increase over the intact network, from two plain forward passes."""
    images, labels = batches.evaluation(0, len(batches))
    found = []
    for deleted in ([], units):
        logits = plain_logits(network, images, deleted)
        error = 100.0 * float((logits.argmax(1) != labels).double().mean())
        found.append((error, float(functional.cross_entropy(logits, labels))))
    return found[1][0] - found[0][0], found[1][1] - found[0][1]


def test_damages_are_those_of_plain_forward_passes() -> None:
    network, batches = make_network(), make_batches()
    sets = [Deletion(0, (0, 3)), Deletion(1, (1, 2, 5)), Deletion(2, (0, 1, 2, 3, 4, 5))]
    rows = compared(network, batches, sets, seed=4)
    singles = [plain_damage(network, batches, [unit]) for unit in range(6)]
    for row, each in zip(rows, sets, strict=True):
        assert set(row) == set(column_names("lesion_additivity"))
        assert (row["k"], row["sample"], row["seed"]) == (len(each.units), each.sample, 4)
        assert row["blocks"] == " ".join(map(str, each.units))
        error, loss = plain_damage(network, batches, list(each.units))
        assert row["joint_damage"] == pytest.approx(error)
        assert row["joint_loss_damage"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
        assert row["summed_damage"] == pytest.approx(sum(singles[u][0] for u in each.units))
        summed = sum(singles[u][1] for u in each.units)
        assert row["summed_loss_damage"] == pytest.approx(summed, rel=1e-4, abs=1e-6)
        assert row["test_error"] - row["baseline_error"] == row["joint_damage"]
        assert row["images"] == 40


def test_units_that_do_nothing_add_up_to_nothing() -> None:
    network, batches = make_network(), make_batches()
    silence(network, [0, 1, 5])
    rows = compared(network, batches, [Deletion(0, (0, 1)), Deletion(1, (0, 1, 5))])
    for row in rows:
        assert row["joint_damage"] == row["summed_damage"] == 0
        assert row["joint_loss_damage"] == pytest.approx(0, abs=1e-7)
    (mixed,) = compared(network, batches, [Deletion(0, (1, 3))])
    assert mixed["joint_damage"] == mixed["summed_damage"]
    assert mixed["joint_loss_damage"] == pytest.approx(mixed["summed_loss_damage"], abs=1e-6)


def test_a_set_has_two_units_or_more() -> None:
    with pytest.raises(ValidationError, match="k must be 2 or more"):
        Additivity(k=(1, 2))


def row(
    joint: float, summed: float, loss: float = 0.5, summed_loss: float = 0.5
) -> dict[str, float]:
    return {
        "joint_damage": joint,
        "summed_damage": summed,
        "joint_loss_damage": loss,
        "summed_loss_damage": summed_loss,
    }


def test_correlations_by_hand() -> None:
    joint, summed = [1.0, 4.0, 2.0, 9.0], [1.0, 2.0, 3.0, 10.0]
    found = correlations([row(j, s, j**3, j) for j, s in zip(joint, summed, strict=True)])
    assert found["pearson_error"] == pytest.approx(np.corrcoef(joint, summed)[0, 1])
    assert found["spearman_error"] == pytest.approx(1 - 6 * (1 + 1) / (4 * 15))  # ranks 1 3 2 4
    assert found["spearman_loss"] == pytest.approx(1)
    assert 0.8 < (found["pearson_loss"] or 0) < 1


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(1, 2)],
        [row(1, 2), row(1, 3)],
        [row(1, 2), row(3, 2)],
        [row(1, 2), row(math.nan, 5), row(math.inf, 7)],
    ],
)
def test_what_does_not_vary_has_no_correlation(rows: list[dict[str, float]]) -> None:
    assert set(correlations(rows).values()) == {None}


def test_a_deeper_network_is_left_as_it_was() -> None:
    network = build(ModelConfig(depth=20, widths=(4, 4, 4)), 5, seed=1).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    compared(network, make_batches(), draw_deletions(9, (2, 3), 4, 0))
    assert network.training
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
