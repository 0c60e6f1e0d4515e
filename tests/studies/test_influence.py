"""Block influence and angular distance: rotations by hand, and a loop over positions."""

import math

import numpy as np
import pytest
import torch
from plain_lesions import make_batches, make_network
from vectors import batches_of, network_of

from resnet_cli.studies.influence import influence, prediction
from resnet_cli.studies.intervals import RankCorrelation


def test_rotations_by_hand() -> None:
    """Each unit turns its input by 60 degrees, and one that does nothing by none."""
    c, s = math.cos(math.pi / 3), math.sin(math.pi / 3)
    turn = torch.tensor([[c, -s], [s, c]]) - torch.eye(2)
    network = network_of(turn, turn, torch.zeros(2, 2))
    vectors = torch.randn(20, 2, generator=torch.Generator().manual_seed(4))
    vectors[3] = 0  # has no angle and does not count
    found = influence(network, batches_of(vectors, torch.zeros(20).long()), (1, 2, 3))
    expected = {
        (1, 0): (0.5, 1 / 3),
        (1, 1): (0.5, 1 / 3),
        (1, 2): (0, 0),
        (2, 0): (1.5, 2 / 3),
        (2, 1): (0.5, 1 / 3),
        (3, 0): (1.5, 2 / 3),
    }
    assert list(found) == list(expected)
    for run, scores in expected.items():
        assert found[run] == pytest.approx(scores, abs=1e-3)


@pytest.mark.parametrize("placement", ["original", "full_preactivation"])
def test_cosines_at_each_pixel(placement: str) -> None:
    network, batches = make_network(placement), make_batches()
    images, _ = batches.evaluation(0, len(batches))
    found = influence(network, batches, (1,))
    x = network.stem(images)
    for unit in network.unit_list:
        y = unit(x)
        # Where the shape changes, and before the first shared activation, the shortcut's output.
        before = unit.skip(x)
        if not unit.place.changes_shape and unit.place.index > 0:
            assert torch.equal(before, x)
        a, b = (t.detach().permute(0, 2, 3, 1).flatten(0, 2).double().numpy() for t in (before, y))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = [float(p @ q) / n for p, q, n in zip(a, b, norms, strict=True) if n > 0]
        angles = [math.acos(max(-1, min(1, cosine))) / math.pi for cosine in cosines]
        scores = (1 - np.mean(cosines), np.mean(angles))
        assert found[1, unit.place.index] == pytest.approx(scores, rel=1e-5, abs=1e-6)
        x = y


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "is not shown to predict"),
        (RankCorrelation(0.3, -0.1, 0.6, 9), "is not shown to predict"),
        (RankCorrelation(0.8, 0.4, 0.9, 20), "predicts"),
        (RankCorrelation(-0.8, -0.9, -0.4, 20), "predicts the reverse of"),
    ],
)
def test_a_score_predicts_if_its_interval_excludes_zero(
    found: RankCorrelation | None, words: str
) -> None:
    assert prediction(found) == words
