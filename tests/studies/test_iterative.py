"""Iterative inference: by hand, image by image with autograd, and stops by plain passes."""

import pytest
import torch
from plain_lesions import make_batches, make_network, plain_logits
from torch.nn import functional
from vectors import batches_of, network_of

from resnet_cli.models.units import ResidualUnit
from resnet_cli.studies.iterative import refinement, stops
from resnet_cli.studies.lesion import evaluate_lesions


def test_a_unit_that_only_scales_by_hand() -> None:
    """Logits 1.5 x (a, -a): towards class 0, F(x) = x / 2 is the negative gradient's direction;
    towards class 1 it is the gradient's."""
    network = network_of(torch.eye(2) / 2)
    vectors = torch.tensor([[1.0, -1.0], [2.0, -2.0], [0.5, -0.5], [1.0, -1.0]])
    (found,) = refinement(network, batches_of(vectors, torch.tensor([0, 0, 0, 1])))
    assert found == pytest.approx(((1 + 1 + 1 - 1) / 4, 0.5))


def test_a_branch_of_zero_has_no_cosine() -> None:
    network = network_of(torch.zeros(2, 2))
    ((cosine, ratio),) = refinement(network, batches_of(torch.ones(3, 2), torch.zeros(3).long()))
    assert cosine != cosine
    assert ratio == 0


@pytest.mark.parametrize("placement", ["original", "full_preactivation"])
def test_every_image_by_itself(placement: str) -> None:
    network, batches = make_network(placement), make_batches(7)
    found = refinement(network, batches)
    cosines, ratios = torch.zeros(6, 7), torch.zeros(6, 7)
    for image in range(7):
        images, labels = batches.evaluation(image, image + 1)
        x, kept = network.stem(images), []
        for unit in network.unit_list:
            assert isinstance(unit, ResidualUnit)
            x.retain_grad()
            residual, shortcut = unit.F(unit.pre(x)), unit.h(unit.pre(x))
            total = shortcut + residual
            total.retain_grad()
            kept.append((residual, shortcut, x, total))
            x = unit.f(total)
        functional.cross_entropy(network.head(x), labels).backward()
        for unit, (residual, shortcut, before, total) in enumerate(kept):
            changes = unit in (2, 4)
            gradient = total.grad if changes else before.grad
            assert gradient is not None
            pair = (residual.flatten(), -gradient.flatten())
            base = shortcut if changes else before
            with torch.no_grad():
                cosines[unit, image] = functional.cosine_similarity(*pair, dim=0)
                ratios[unit, image] = residual.norm() / base.norm()
    for (cosine, ratio), c, r in zip(found, cosines, ratios, strict=True):
        assert cosine == pytest.approx(float(c.mean()), abs=1e-5)
        assert ratio == pytest.approx(float(r.mean()), rel=1e-5)


def test_a_stop_deletes_all_later_units_that_keep_the_shape() -> None:
    network, batches = make_network(), make_batches()
    images, labels = batches.evaluation(0, len(batches))
    left = {0: [1, 3, 5], 1: [3, 5], 2: [3, 5], 3: [5], 4: [5], 5: []}
    _, *outcomes = evaluate_lesions(network, batches, stops(network.places))
    errors = []
    for unit, outcome in enumerate(outcomes):
        logits = plain_logits(network, images, left[unit])
        errors.append(100.0 * float((logits.argmax(1) != labels).double().mean()))
        assert outcome.error == pytest.approx(errors[-1])
    assert len(set(errors)) > 2
