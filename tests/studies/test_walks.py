"""Walks against a naive evaluation: each walk whole, from the images on, every part written out."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnet_cli.config.schema import ModelConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.normalisation import Normalization
from resnet_cli.datasets.split import Split
from resnet_cli.kernels.winograd import EvaluationConv2d
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.units import PlainUnit, Unit
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies import walks as walks_module
from resnet_cli.studies.walks import Outcome, Step, Walk, delete, evaluate_walks, intact, reorder
from resnet_cli.training.evaluation import BATCH_SIZE, evaluate

CLASSES = 5
IMAGES = BATCH_SIZE + 7  # a whole batch and a cut one

TINY: dict[str, Any] = {"depth": 18, "units": (3, 3, 2), "widths": (4, 8, 12)}
NETWORKS: dict[str, dict[str, Any]] = {
    "full pre-activation": TINY,
    "relu-only pre-activation": TINY | {"placement": "relu_only_preactivation"},
    "original, zero padding": TINY | {"placement": "original"},
    "original, projection": TINY | {"placement": "original", "stage_change": "projection"},
    "bn after addition": TINY | {"placement": "bn_after_addition"},
    "relu before addition": TINY | {"placement": "relu_before_addition"},
    "one layer": TINY | {"depth": 10, "branch": "one_layer"},
    "bottleneck": {"depth": 23, "units": (3, 2, 2), "widths": (2, 3, 4), "branch": "bottleneck"},
    "exclusive gating": TINY
    | {"shortcut": "exclusive_gating", "gate_bias": -0.5, "stage_change": "projection"},
    "shortcut-only gating": TINY
    | {"placement": "original", "shortcut": "shortcut_only_gating", "gate_bias": -0.5},
    "scaling": TINY | {"shortcut": "scaling", "shortcut_scale": 0.5, "residual_scale": 0.8},
    "convolution": TINY | {"placement": "original", "shortcut": "convolution"},
    "dropout": TINY | {"shortcut": "dropout"},
    "stochastic depth": TINY,
    "vgg": {"family": "vgg", "depth": 10, "widths": (4, 8, 6, 8, 8)},  # 8 to 6: channels are cut
}


NORMALIZATION = Normalization(
    torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
)


def make_pixels() -> Tensor:
    """Noise on a colour of its own in each image, uint8 [IMAGES, 3, 8, 8]."""
    generator = torch.Generator().manual_seed(23)
    colours = torch.rand(IMAGES, 3, 1, 1, generator=generator)
    noise = torch.rand(IMAGES, 3, 8, 8, generator=generator)
    return (255 * (0.6 * colours + 0.4 * noise)).to(torch.uint8)


def make_network(name: str = "full pre-activation") -> Network:
    """A network whose every batch norm has random weights and running statistics somewhere near
    the images', and whose logits vary over the images, so that it predicts all classes."""
    network = build(ModelConfig(**NETWORKS[name]), CLASSES, seed=3)
    generator = torch.Generator().manual_seed(17)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(0.1, 0.3, generator=generator)
        norm.momentum = 1.0
    network.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        network(NORMALIZATION.apply(make_pixels()))
    for norm in norms:
        norm.momentum = 0.1
        noise = torch.randn(norm.num_features, generator=generator)
        norm.running_mean += 0.3 * norm.running_var.sqrt() * noise
        norm.running_var *= 0.5 + torch.rand(norm.num_features, generator=generator)
    if name == "stochastic depth":
        for index, unit in enumerate(network.unit_list):
            unit.survival = 1 - 0.06 * index
    network.eval()
    with torch.no_grad():
        logits = network(NORMALIZATION.apply(make_pixels()))
        network.head.fc.weight /= logits.std(0)[:, None]
        network.head.fc.bias.copy_((network.head.fc.bias - logits.mean(0)) / logits.std(0))
    return network


def make_batches(network: Network) -> Batches:
    """Random images; seven labels in ten are what the intact network predicts."""
    generator = torch.Generator().manual_seed(29)
    pixels = make_pixels()
    with torch.no_grad():
        predicted = network(NORMALIZATION.apply(pixels)).argmax(1)
    assert predicted.bincount(minlength=CLASSES).min() > IMAGES // 20
    noise = torch.randint(CLASSES, (IMAGES,), generator=generator)
    keep = torch.rand(IMAGES, generator=generator) < 0.7
    labels = torch.where(keep, predicted, noise)
    split = Split("tiny", "test", pixels, labels, tuple("abcde"), "random numbers")
    return Batches(split, NORMALIZATION, pad=4, flip=True)


# --- the naive evaluation ------------------------------------------------------------------------


def through(unit: Unit, x: Tensor, deleted: bool) -> Tensor:
    """One unit by its parts, f(h(x) + F(x)) or f(h(x)); for a plain layer F(x) or what stays."""
    place = unit.place
    if isinstance(unit, PlainUnit):
        if not deleted:
            return unit.F(x)
        if x.shape[2] == x.shape[3] == 1 and isinstance(unit.bypass, nn.AdaptiveAvgPool2d):
            return x
        surplus = place.out_channels - place.in_channels
        if surplus > 0:
            size = x.shape[0], surplus // 2, *x.shape[2:]
            rest = x.shape[0], surplus - surplus // 2, *x.shape[2:]
            x = torch.cat([torch.zeros(size), x, torch.zeros(rest)], dim=1)
        x = x[:, : place.out_channels]
        return functional.max_pool2d(x, 2, ceil_mode=True) if place.stride == 2 else x
    x = unit.pre(x)
    y = unit.h(x)
    if unit.gate is not None:
        g = torch.sigmoid(unit.gate.conv(x))
        y = (1 - g) * y
    if not deleted:
        residual = unit.survival * unit.F(x)
        if unit.gate is not None and unit.gates_residual:
            residual = g * residual
        y = y + residual
    return unit.f(y)


class Naive:
    """Evaluates one walk at a time on a copy of a network, all images in one go."""

    @torch.no_grad()
    def __init__(self, network: Network, batches: Batches) -> None:
        self.network = copy.deepcopy(network).eval()
        scaled = batches.images.float() / 255
        self.images = (scaled - batches.normalization.mean) / batches.normalization.std
        self.labels = batches.labels.numpy()
        n = len(network.units)
        self.log_p, self.whole = self.predict(tuple(Step(i, False) for i in range(n)))

    @torch.no_grad()
    def logits(self, walk: Walk) -> np.ndarray:
        """Every step of the walk, from the images on; float64 [N, classes]."""
        x = self.network.stem(self.images)
        for step in walk:
            x = through(self.network.unit_list[step.unit], x, step.deleted)
        return self.network.head(x).double().numpy()

    def predict(self, walk: Walk) -> tuple[np.ndarray, np.ndarray]:
        """The classes' log-probabilities and the most probable class of each image."""
        logits = self.logits(walk)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return shifted - log_sum, logits.argmax(axis=1)

    def outcome(self, walk: Walk) -> dict[str, Any]:
        log_q, predicted = self.predict(walk)
        wrong = predicted != self.labels
        divergences = (np.exp(self.log_p) * (self.log_p - log_q)).sum(axis=1)
        return {
            "images": len(self.labels),
            "wrong": int(wrong.sum()),
            "error": 100 * float(wrong.mean()),
            "loss": float(np.mean([-log_q[i, label] for i, label in enumerate(self.labels)])),
            "kl_divergence": float(divergences.mean()),
            "agreement": 100 * float((predicted == self.whole).mean()),
            "wrong_by_class": tuple(
                int((wrong & (self.labels == c)).sum()) for c in range(CLASSES)
            ),
        }


def assert_same(outcome: Outcome, expected: dict[str, Any]) -> None:
    for name in ("images", "wrong", "wrong_by_class"):
        assert getattr(outcome, name) == expected[name], name
    for name in ("error", "agreement"):
        assert getattr(outcome, name) == pytest.approx(expected[name], abs=1e-9), name
    for name in ("loss", "kl_divergence"):
        assert getattr(outcome, name) == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name
    assert sum(outcome.wrong_by_class) == outcome.wrong


def some_walks(network: Network) -> list[Walk]:
    """Every single deletion, sets of deletions, exchanges, and both together, in no order."""
    n = len(network.units)
    whole = tuple(Step(i, False) for i in range(n))

    def without(*units: int) -> Walk:
        return tuple(Step(i, i in units) for i in range(n))

    walks = [without(i) for i in range(n)]
    walks += [without(0, n - 1), without(1, 2, 4), without(*range(n)), whole]
    shapes = [(p.stage, p.in_channels, p.out_channels, p.stride) for p in network.places]
    for a in range(n):
        for b in range(a + 1, n):
            if shapes[a] == shapes[b]:
                exchanged = list(whole)
                exchanged[a], exchanged[b] = exchanged[b], exchanged[a]
                walks.append(tuple(exchanged))
                exchanged[b] = Step(a, True)
                walks.append(tuple(exchanged))
    order = torch.randperm(len(walks), generator=torch.Generator().manual_seed(1)).tolist()
    return [walks[i] for i in order]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_outcome_equals_the_naive_one_in_the_order_given(name: str) -> None:
    network = make_network(name)
    batches = make_batches(network)
    walks = some_walks(network)
    if name != "vgg":
        assert any(sorted(walk) != list(walk) for walk in walks)  # some are reordered
    naive = Naive(network, batches)
    outcomes = evaluate_walks(network, batches, walks)
    assert len(outcomes) == len(walks)
    for walk, outcome in zip(walks, outcomes, strict=True):
        assert_same(outcome, naive.outcome(walk))


@pytest.mark.parametrize("placement", ["full_preactivation", "original"])
def test_large_studies_go_by_winograd_and_give_the_same(
    placement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setitem(NETWORKS, "wide", TINY | {"widths": (16, 16, 32), "placement": placement})
    network = make_network("wide")
    batches = make_batches(network)
    walks = some_walks(network)
    passed = 0
    forward = EvaluationConv2d.forward

    def counted(layer: EvaluationConv2d, x: Tensor) -> Tensor:
        nonlocal passed
        passed += 1
        return forward(layer, x)

    monkeypatch.setattr(EvaluationConv2d, "forward", counted)
    direct = evaluate_walks(network, batches, walks)
    assert passed == 0, "this study is small"
    monkeypatch.setattr("resnet_cli.kernels.winograd.PAYS_FROM", 0)
    evaluate_walks(network, batches, walks, engine="plain")
    assert passed == 0
    outcomes = evaluate_walks(network, batches, walks)
    assert passed > 0
    naive = Naive(network, batches)
    for walk, outcome, other in zip(walks, outcomes, direct, strict=True):
        assert_same(outcome, naive.outcome(walk))
        assert outcome.loss == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_deletions_of_different_units_are_told_apart(name: str) -> None:
    """Otherwise the comparison with the naive evaluation would miss a wrong unit."""
    network = make_network(name)
    n = len(network.units)
    walks = [delete(intact(n), [unit]) for unit in range(n)]
    losses = sorted(o.loss for o in evaluate_walks(network, make_batches(network), walks))
    assert np.diff(losses).min() > 1e-4


def test_the_intact_walk_is_the_ordinary_network() -> None:
    network = make_network()
    batches = make_batches(network)
    (outcome,) = evaluate_walks(network, batches, [intact(len(network.units))])
    ordinary = evaluate(network, batches)
    assert outcome.wrong == ordinary.wrong
    assert 0 < outcome.wrong < IMAGES
    assert outcome.error == ordinary.error
    assert outcome.loss == pytest.approx(ordinary.loss, rel=1e-6)
    assert outcome.kl_divergence == 0
    assert outcome.agreement == 100


def test_walks_given_twice_have_the_same_outcome_twice() -> None:
    network = make_network()
    batches = make_batches(network)
    whole = intact(len(network.units))
    a, b = delete(whole, [5]), delete(whole, [2, 3])
    one_by_one = [evaluate_walks(network, batches, [walk])[0] for walk in (a, b)]
    assert one_by_one[0] != one_by_one[1]
    found = evaluate_walks(network, batches, [b, a, b, whole, b, a])
    assert [found[i] for i in (1, 0, 2, 4, 5)] == [one_by_one[i] for i in (0, 1, 1, 1, 0)]
    assert found[3].agreement == 100
    assert evaluate_walks(network, batches, []) == []


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["full pre-activation", "dropout", "vgg"])
def test_the_network_is_left_as_it_was(name: str, training: bool) -> None:
    """Evaluation is by running statistics whatever the mode, and changes nothing."""
    network = make_network(name)
    batches = make_batches(network)
    walks = some_walks(network)[:6]
    expected = evaluate_walks(network, batches, walks)
    network.train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert evaluate_walks(network, batches, walks) == expected
    assert all(module.training is training for module in network.modules())
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_the_mode_is_restored_after_an_error() -> None:
    network = make_network()
    batches = make_batches(network)
    network.train()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_walks(network, batches, [intact(len(network.units))], stop)
    assert all(module.training for module in network.modules())


def test_progress_is_reported_after_each_batch() -> None:
    network = make_network()
    seen: list[tuple[int, int]] = []
    evaluate_walks(
        network, make_batches(network), [], lambda done, total: seen.append((done, total))
    )
    assert seen == [(BATCH_SIZE, IMAGES), (IMAGES, IMAGES)]


def test_images_without_finite_logits_are_wrong() -> None:
    network = make_network()
    batches = make_batches(network)
    batches.labels = torch.zeros_like(batches.labels)  # the class that argmax gives for NaN
    with torch.no_grad():
        network.head.fc.bias.fill_(float("nan"))
    (outcome,) = evaluate_walks(network, batches, [intact(len(network.units))])
    assert outcome.wrong == IMAGES
    assert outcome.wrong_by_class == (IMAGES, 0, 0, 0, 0)


# --- how much is computed ------------------------------------------------------------------------


class Calls:
    """Counts how often parts of a network run."""

    def __init__(self, network: Network) -> None:
        self.stem = self.residual = self.head = 0

        def add(name: str) -> Any:
            def count(*_: object) -> None:
                setattr(self, name, getattr(self, name) + 1)

            return count

        network.stem.register_forward_hook(add("stem"))
        network.head.register_forward_hook(add("head"))
        for unit in network.unit_list:
            unit.F.register_forward_hook(add("residual"))


@pytest.mark.parametrize("name", ["full pre-activation", "original, zero padding", "vgg"])
def test_a_sweep_computes_each_shared_prefix_once(name: str) -> None:
    """Deleting unit i leaves n - 1 - i units to run after it; the intact walk runs n."""
    network = make_network(name)
    batches = make_batches(network)
    calls = Calls(network)
    n = len(network.units)
    evaluate_walks(network, batches, [delete(intact(n), [unit]) for unit in range(n)])
    # Two batches, and an image that tells the size of a chunk and one that tells the arithmetic.
    assert calls.stem == 2 + 2
    swept = calls.residual - 1 - n
    assert swept == 2 * (n + n * (n - 1) // 2)
    assert calls.head == 2 * (n + 1) + 1
    assert swept < 2 * n * n * 0.6  # n + 1 whole passes would take 2 n^2


def test_the_plain_engine_computes_every_walk_whole() -> None:
    network = make_network()
    batches = make_batches(network)
    calls = Calls(network)
    n = len(network.units)
    walks = [delete(intact(n), [unit]) for unit in range(n)]
    evaluate_walks(network, batches, walks, engine="plain")
    assert (calls.stem, calls.residual) == (2, 2 * (n + n * (n - 1)))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_engines_agree(name: str) -> None:
    network = make_network(name)
    batches = make_batches(network)
    walks = some_walks(network)
    fast = evaluate_walks(network, batches, walks)
    plain = evaluate_walks(network, batches, walks, engine="plain")
    for a, b in zip(fast, plain, strict=True):
        assert a.wrong == b.wrong
        assert a.wrong_by_class == b.wrong_by_class
        assert a.agreement == b.agreement
        assert a.loss == pytest.approx(b.loss, rel=1e-4)
        assert a.kl_divergence == pytest.approx(b.kl_divergence, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("chunk_bytes", [1, 5000])
def test_neither_threads_nor_chunks_change_what_is_found(
    chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network()
    batches = make_batches(network)
    walks = some_walks(network)[:8]
    monkeypatch.setattr(walks_module, "CHUNK_BYTES", chunk_bytes)
    alone = evaluate_walks(network, batches, walks)
    torch.set_num_threads(3)
    try:
        assert evaluate_walks(network, batches, walks) == alone, "to the last bit"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    monkeypatch.undo()
    for a, b in zip(alone, evaluate_walks(network, batches, walks), strict=True):
        assert (a.wrong, a.agreement) == (b.wrong, b.agreement)
        assert a.loss == pytest.approx(b.loss, rel=1e-5)


def test_any_set_of_walks_computes_each_distinct_prefix_once() -> None:
    network = make_network()
    batches = make_batches(network)
    walks = some_walks(network)
    calls = Calls(network)
    evaluate_walks(network, batches, walks * 2)
    whole = tuple(Step(i, False) for i in range(len(network.units)))
    prefixes = {
        walk[: end + 1]
        for walk in [*walks, whole]
        for end in range(len(walk))
        if not walk[end].deleted
    }
    assert calls.residual == 2 * len(prefixes) + 1 + len(whole)
    assert calls.head == 2 * len({*walks, whole}) + 1


# --- deletion as dropping ------------------------------------------------------------------------


def shorter(network: Network, units: Sequence[int]) -> Network:
    """The same stem and head with these units only."""
    return Network(network.stem, [network.unit_list[i] for i in units], network.head).eval()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        # Units 3 and 6 change the shape. A pre-activation network's first unit shares its
        # activation between both branches, so its shortcut is no identity and it stays.
        ("full pre-activation", [0, 3, 6]),
        ("relu-only pre-activation", [0, 3, 6]),
        # ReLU follows the addition: nothing is left of a deleted unit, as x was through a ReLU.
        ("original, zero padding", [3, 6]),
        ("original, projection", [3, 6]),
        ("relu before addition", [0, 3, 6]),
        ("bottleneck", [0, 3, 5]),
    ],
)
def test_deleting_identity_units_equals_a_network_without_them(name: str, kept: list[int]) -> None:
    network = make_network(name)
    batches = make_batches(network)
    n = len(network.units)
    gone = [i for i in range(n) if i not in kept]
    assert not any(network.places[i].changes_shape for i in gone)
    small = shorter(network, kept)
    assert len(small.units) == len(kept)

    (outcome,) = evaluate_walks(network, batches, [delete(intact(n), gone)])
    expected = evaluate(small, batches)
    assert outcome.wrong == expected.wrong
    assert outcome.loss == pytest.approx(expected.loss, rel=1e-6)
    assert outcome.agreement < 100

    images, _ = batches.evaluation(0, 20)
    with torch.no_grad():
        skipping = network(images, active=[i in kept for i in range(n)])
        assert torch.equal(skipping, small(images))  # to the bit
    by_hand = Naive(network, batches).logits(delete(intact(n), gone))[:20]
    np.testing.assert_allclose(skipping.numpy(), by_hand, rtol=1e-4, atol=1e-4)


def test_a_deletion_is_no_dropping_where_f_or_h_does_something() -> None:
    """BN after the addition stays when the unit's residual branch goes."""
    network = make_network("bn after addition")
    batches = make_batches(network)
    n = len(network.units)
    (outcome,) = evaluate_walks(network, batches, [delete(intact(n), [1])])
    dropped = evaluate(shorter(network, [i for i in range(n) if i != 1]), batches)
    assert abs(outcome.loss - dropped.loss) > 1e-3


# --- walks ---------------------------------------------------------------------------------------


def places(name: str = "full pre-activation") -> Any:
    with torch.device("meta"):
        return build(ModelConfig(**NETWORKS[name]), CLASSES).places


def test_intact_and_delete_make_new_walks() -> None:
    whole = intact(4)
    assert whole == ((0, False), (1, False), (2, False), (3, False))
    assert delete(whole, [2, 0]) == ((0, True), (1, False), (2, True), (3, False))
    assert delete(delete(whole, [2]), [0]) == delete(whole, {0, 2})
    assert delete(whole, []) == whole == intact(4)


def test_delete_speaks_of_units_also_in_a_reordered_walk() -> None:
    moved = reorder(intact(8), [2, 1, 0, 3, 4, 5, 6, 7], places())
    assert [step.unit for step in delete(moved, [0]) if step.deleted] == [0]
    assert delete(moved, [0])[2] == (0, True)


@pytest.mark.parametrize("unit", [57, 54, -1])
def test_a_unit_that_does_not_exist_is_refused(unit: int) -> None:
    message = rf"^unit {unit} does not exist; this network has 54 units, 0 to 53$"
    with pytest.raises(UserError, match=message):
        delete(intact(54), [3, unit])


def test_reorder_takes_from_where_the_order_says() -> None:
    order = [1, 2, 0, 3, 5, 4, 6, 7]
    assert [step.unit for step in reorder(intact(8), order, places())] == order
    deleted = delete(intact(8), [2])
    assert reorder(deleted, order, places())[1] == (2, True)
    assert reorder(intact(8), range(8), places()) == intact(8)


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("full pre-activation", (2, 4)),  # another stage
        ("full pre-activation", (3, 4)),  # 3 changes the shape
        ("full pre-activation", (3, 6)),  # both do, in their own ways
        ("bottleneck", (0, 1)),  # 0 changes the channels without a stride
    ],
)
def test_an_exchange_of_unequal_shapes_is_refused(name: str, pair: tuple[int, int]) -> None:
    a, b = pair
    order = list(range(len(places(name))))
    order[a], order[b] = b, a
    message = rf"^unit {b} cannot move to position {a}: only units of one stage that keep the shape"
    with pytest.raises(UserError, match=message):
        reorder(intact(len(order)), order, places(name))


@pytest.mark.parametrize("width", [8, 4])
def test_equal_widths_do_not_join_stages(width: int) -> None:
    config = ModelConfig(depth=14, units=(2, 2, 2), widths=(width,) * 3)
    with torch.device("meta"):
        network = build(config, CLASSES)
    with pytest.raises(UserError, match="unit 3 cannot move to position 1: only units of one"):
        reorder(intact(6), [0, 3, 2, 1, 4, 5], network.places)


@pytest.mark.parametrize(
    "order", [[0, 1, 2], [0, 0, 2, 3, 4, 5, 6, 7], [*range(8), 8], [*range(1, 9)]]
)
def test_an_order_must_name_each_unit_once(order: list[int]) -> None:
    message = rf"^the order must contain each of the 8 units once \(got {len(order)} entries\)$"
    with pytest.raises(UserError, match=message):
        reorder(intact(8), order, places())
