"""Effects of a deleted unit on later ones: matrices by hand, and plain forward passes."""

import pytest
import torch
from plain_lesions import make_batches, make_network
from torch import Tensor
from vectors import batches_of, network_of

from resnet_cli.models.network import Network
from resnet_cli.models.units import ResidualUnit
from resnet_cli.studies.effects import effects


def test_units_that_read_other_channels_by_hand() -> None:
    """Unit 0 doubles channel 0; unit 1 reads channel 1 and unit 2 channel 0."""
    double, read_1, read_0 = (torch.zeros(3, 3) for _ in range(3))
    double[0, 0] = 1
    read_1[2, 1] = 1
    read_0[1, 0] = 1
    network = network_of(double, read_1, read_0)
    vectors = torch.tensor([[1.0, 3.0, 0.0], [-2.0, 1.0, 5.0]])
    found = effects(network, batches_of(vectors, torch.tensor([0, 1])))
    assert found == {(0, 1): 0, (0, 2): 0.5, (1, 2): 0}


@torch.no_grad()
def branches(network: Network, images: Tensor, deleted: int | None) -> list[Tensor]:
    x, found = network.stem(images), []
    for index, unit in enumerate(network.unit_list):
        assert isinstance(unit, ResidualUnit)
        y = unit.pre(x)
        found.append(unit.F(y))
        x = unit.f(unit.h(y) if index == deleted else unit.h(y) + found[-1])
    return found


@pytest.mark.parametrize("placement", ["original", "full_preactivation"])
def test_every_pair_by_plain_forward_passes(placement: str) -> None:
    network, batches = make_network(placement), make_batches()
    images, _ = batches.evaluation(0, len(batches))
    found = effects(network, batches)
    assert list(found) == [(i, j) for i in range(6) for j in range(i + 1, 6)]
    whole = branches(network, images, None)
    for (i, j), change in found.items():
        lesioned = branches(network, images, i)[j]
        differences = (lesioned - whole[j]).flatten(1).norm(dim=1)
        expected = float((differences / whole[j].flatten(1).norm(dim=1)).mean())
        assert change == pytest.approx(expected, rel=1e-5)
