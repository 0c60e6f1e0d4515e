"""Deleting and reordering: the draws, the rows, and real weights against plain convolutions."""

import io
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch
from changed_layers import UNITS, changed_net
from PIL import Image
from plain_lesions import make_batches, measured
from torch import Tensor
from torch.nn import functional

import resnet_cli as rc
from resnet_cli.config.schema import DataConfig, ModelConfig
from resnet_cli.datasets.batches import Batches
from resnet_cli.datasets.catalogue import load_split
from resnet_cli.datasets.normalisation import parse_normalization
from resnet_cli.models.factory import build
from resnet_cli.models.network import Network
from resnet_cli.models.units import Place
from resnet_cli.results.tables import column_names
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.delete import which_matter
from resnet_cli.studies.lesion import Deletion, draw_deletions, evaluate_lesions
from resnet_cli.studies.reorder import Reordering, draw_reorderings
from resnet_cli.studies.walks import delete, evaluate_walks, intact, reorder
from resnet_cli.training.evaluation import evaluate
from resnet_cli.weights.third_party import load_third_party

SHARED = Path(__file__).parents[3] / "shared"
AKAMASTER = SHARED / "checkpoints" / "akamaster-resnet20-12fca82f.th"
TEST_FILE = SHARED / "data" / "cifar10" / "test-00000-of-00001.parquet"


def make_network() -> Network:
    """Eight pre-activation units; 3 and 6 change the shape, so 0 1 2, 4 5 and 7 do not."""
    config = ModelConfig(depth=18, units=(3, 3, 2), widths=(4, 8, 12))
    return build(config, 5, seed=8)


def places_of(**fields: object) -> list[Place]:
    with torch.device("meta"):
        return build(ModelConfig.model_validate(fields), 10).places


def resnet110() -> Network:
    with torch.device("meta"):
        return build(ModelConfig(depth=110), 10)


# --- draws of deletions --------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 20])
def test_one_deletion_takes_each_unit_in_turn(samples: int) -> None:
    draws = draw_deletions(54, (1,), samples, seed=0)
    assert draws == [Deletion(unit, (unit,)) for unit in range(54)]


def test_many_deletions_are_distinct_units_in_order() -> None:
    draws = draw_deletions(9, (2, 5, 9), 40, seed=3)
    assert [(len(d.units), d.sample) for d in draws] == [
        (k, sample) for k in (2, 5, 9) for sample in range(40)
    ]
    for draw in draws:
        assert list(draw.units) == sorted(set(draw.units))
        assert set(draw.units) <= set(range(9))
    assert {d.units for d in draws[80:]} == {tuple(range(9))}
    assert len({d.units for d in draws[:40]}) > 15


def test_every_pair_of_units_is_drawn_about_equally_often() -> None:
    drawn = Counter(d.units for d in draw_deletions(5, (2,), 2000, seed=1))
    assert set(drawn) == set(itertools.combinations(range(5), 2))
    # 200 expected, standard deviation 13.4
    assert all(abs(count - 200) < 54 for count in drawn.values())


def test_a_longer_study_contains_a_shorter_one() -> None:
    short = draw_deletions(54, (3, 7), 5, seed=4)
    long = draw_deletions(54, (1, 2, 3, 5, 7), 12, seed=4)
    by_place = {(len(d.units), d.sample): d for d in long}
    assert all(by_place[len(d.units), d.sample] == d for d in short)
    assert [d for d in long if len(d.units) == 3 and d.sample < 5] == short[:5]
    assert draw_deletions(54, (3, 7), 5, seed=4) == short


def test_draws_depend_on_the_seed_k_and_sample_only() -> None:
    state = torch.get_rng_state()
    first, second = (draw_deletions(54, (6,), 10, seed) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(a.units != b.units for a, b in zip(first, second, strict=True))
    assert len({d.units for d in first}) == 10
    larger = draw_deletions(54, (7,), 10, 0)
    assert not any(set(a.units) < set(b.units) for a, b in zip(first, larger, strict=True))


@pytest.mark.parametrize("k", [0, 55, -1])
def test_an_impossible_number_of_deletions_is_refused(k: int) -> None:
    message = rf"^{k} units cannot be deleted; this network has 54 units, so k is 1 to 54$"
    with pytest.raises(UserError, match=message):
        draw_deletions(54, (2, k), 3, seed=0)


# --- draws of orders -----------------------------------------------------------------------------


def shape(place: Place) -> tuple[int, int, int, int]:
    return place.stage, place.in_channels, place.out_channels, place.stride


def parity(order: tuple[int, ...]) -> int:
    """0 for an even number of exchanges, 1 for an odd: by counting inversions."""
    return sum(a > b for a, b in itertools.combinations(order, 2)) % 2


@pytest.mark.parametrize(
    "fields",
    [
        {"depth": 20},
        {"depth": 20, "placement": "original"},
        {"depth": 29, "branch": "bottleneck"},
        {"depth": 20, "widths": (16, 16, 16)},
        {"depth": 15, "family": "vgg"},
    ],
    ids=str,
)
def test_only_units_of_equal_shape_are_swapped(fields: dict[str, object]) -> None:
    places = places_of(**fields)
    for draw in draw_reorderings(places, (1, 2, 7), 30, seed=5):
        assert sorted(draw.order) == list(range(len(places)))
        for position, moved in enumerate(draw.order):
            assert shape(places[position]) == shape(places[moved])
            if places[moved].stride != 1 or places[moved].in_channels != places[moved].out_channels:
                assert position == moved


def test_one_swap_exchanges_two_positions_and_reaches_every_pair_equally() -> None:
    places = places_of(depth=20)
    possible = {
        (a, b)
        for a, b in itertools.combinations(range(9), 2)
        if shape(places[a]) == shape(places[b])
    }
    assert possible == {(0, 1), (0, 2), (1, 2), (4, 5), (7, 8)}
    seen: Counter[tuple[int, ...]] = Counter()
    for draw in draw_reorderings(places, (1,), 1000, seed=2):
        moved = tuple(i for i, unit in enumerate(draw.order) if unit != i)
        assert len(moved) == 2
        assert [draw.order[i] for i in moved] == list(reversed(moved))
        seen[moved] += 1
    assert set(seen) == possible
    # 200 expected, standard deviation 12.6
    assert all(abs(count - 200) < 51 for count in seen.values())


@pytest.mark.parametrize("swaps", [1, 2, 3, 8, 19])
def test_n_swaps_are_n_exchanges(swaps: int) -> None:
    """n exchanges give a permutation of n's parity, at most n cycles away from the identity."""
    for draw in draw_reorderings(places_of(depth=110), (swaps,), 25, seed=6):
        assert draw.swaps == swaps
        assert parity(draw.order) == swaps % 2
        unseen, cycles = set(range(54)), 0
        while unseen:
            cycles += 1
            at = min(unseen)
            while at in unseen:
                unseen.discard(at)
                at = draw.order[at]
        assert 54 - cycles <= swaps


def test_orders_by_swaps_then_sample_from_the_seed() -> None:
    places = places_of(depth=110)
    draws = draw_reorderings(places, (1, 4), 6, seed=9)
    assert [(d.swaps, d.sample) for d in draws] == [(s, i) for s in (1, 4) for i in range(6)]
    assert draw_reorderings(places, (1, 4), 3, seed=9) == draws[:3] + draws[6:9]
    assert draw_reorderings(places, (4,), 6, seed=9) == draws[6:]
    other = draw_reorderings(places, (4,), 6, seed=10)
    assert all(a.order != b.order for a, b in zip(draws[6:], other, strict=True))
    assert len({d.order for d in draws[6:]}) == 6


def test_swaps_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="0 swaps change nothing; --reorder takes 1 or more"):
        draw_reorderings(places_of(depth=20), (2, 0), 3, seed=0)
    alone = places_of(depth=8, placement="original", widths=(16, 32, 64))
    assert [p.changes_shape for p in alone] == [False, True, True]
    with pytest.raises(UserError, match="no two units of this network have the same shape"):
        draw_reorderings(alone, (1,), 3, seed=0)


# --- rows ----------------------------------------------------------------------------------------


def test_rows_of_deletions() -> None:
    network, batches = make_network(), make_batches(30)
    deletions = [Deletion(3, (5,)), Deletion(0, (1, 4, 7)), Deletion(2, (0,)), Deletion(9, (5,))]
    rows = measured(network, batches, deletions, seed=77)
    assert [row["k"] for row in rows] == [1, 3, 1, 1]
    assert [row["sample"] for row in rows] == [3, 0, 2, 9]
    assert [row["blocks"] for row in rows] == ["5", "1 4 7", "0", "5"]
    baseline = evaluate(network, batches)
    for row, deletion in zip(rows, deletions, strict=True):
        assert set(row) == set(column_names("lesion_delete"))
        assert row["seed"] == 77
        assert row["images"] == 30
        assert row["baseline_error"] == baseline.error
        (alone,) = evaluate_walks(network, batches, [delete(intact(8), deletion.units)])
        assert row["test_error"] == alone.error == 100 * alone.wrong / 30
        assert row["loss"] == alone.loss != baseline.loss
        assert row["kl_divergence"] == alone.kl_divergence > 0
        assert row["agreement"] == alone.agreement
    assert len({row["loss"] for row in rows}) == 3


def test_rows_of_reorderings() -> None:
    network, batches = make_network(), make_batches(30)
    draws = draw_reorderings(network.places, (1, 3), 4, seed=12)
    draws.append(Reordering(2, 0, tuple(range(8))))  # swapped back
    rows = measured(network, batches, draws, seed=12)
    baseline = evaluate(network, batches)
    for row, draw in zip(rows, draws, strict=True):
        assert set(row) == set(column_names("lesion_reorder"))
        assert (row["swaps"], row["sample"]) == (draw.swaps, draw.sample)
        assert row["order"] == " ".join(str(unit) for unit in draw.order)
        assert row["seed"] == 12
        assert row["baseline_error"] == baseline.error
        walk = reorder(intact(8), draw.order, network.places)
        (alone,) = evaluate_walks(network, batches, [walk])
        assert row["test_error"] == alone.error
        assert row["loss"] == alone.loss
        assert row["agreement"] == alone.agreement
    assert rows[-1]["kendall_tau"] == pytest.approx(1, abs=1e-12)
    assert rows[-1]["kl_divergence"] == 0
    assert rows[-1]["loss"] == pytest.approx(baseline.loss, rel=1e-6)


@pytest.mark.parametrize("units", UNITS)
def test_the_baseline_of_changed_and_shared_layers_is_the_networks_own_error(
    units: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are the network's predictions, so any other prediction is an error."""
    monkeypatch.setattr("resnet_cli.kernels.winograd.PAYS_FROM", 0)
    net = changed_net(units)
    images = torch.randn(100, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        data = rc.tensors(images, net.module(images).argmax(1), device="cpu")
    assert net.error(data) == 0
    assert (rc.lesions(net, data)["baseline_error"] == 0).all()


def test_kendall_tau_counts_pairs_that_agree() -> None:
    network, batches = make_network(), make_batches(4)
    draws = draw_reorderings(network.places, (1, 2, 3, 5), 8, seed=1)
    rows = measured(network, batches, draws, seed=1)
    for row in rows:
        order = [int(unit) for unit in row["order"].split()]
        signs = [1 if order[j] > order[i] else -1 for i in range(8) for j in range(i + 1, 8)]
        assert row["kendall_tau"] == pytest.approx(sum(signs) / 28, abs=1e-12)
        assert isinstance(row["kendall_tau"], float)
    assert len({round(row["kendall_tau"], 6) for row in rows}) > 3


def test_deleting_a_unit_that_does_not_exist_is_refused_before_anything_runs() -> None:
    network = resnet110()  # on the meta device, where no evaluation could run
    message = "^unit 57 does not exist; this network has 54 units, 0 to 53$"
    with pytest.raises(UserError, match=message):
        measured(network, make_batches(30), [Deletion(0, (3,)), Deletion(0, (4, 57))])


def test_reordering_across_stages_is_refused_before_anything_runs() -> None:
    order = list(range(54))
    order[17], order[20] = 20, 17
    message = "^unit 20 cannot move to position 17: only units of one stage that keep the shape"
    with pytest.raises(UserError, match=message):
        measured(resnet110(), make_batches(30), [Reordering(1, 0, tuple(order))])


def test_progress_passes_through() -> None:
    network, batches = make_network(), make_batches(30)
    seen: list[tuple[int, int]] = []
    evaluate_lesions(network, batches, [Deletion(0, (0,))], lambda *done: seen.append(done))
    order = (1, 0, *range(2, 8))
    swapped = [Reordering(1, 0, order)]
    evaluate_lesions(network, batches, swapped, lambda *done: seen.append(done))
    assert seen == [(30, 30), (30, 30)]


# --- real weights --------------------------------------------------------------------------------


def plain_resnet20(w: dict[str, Tensor], x: Tensor, deleted: int | None) -> Tensor:
    """ResNet-20 with zero-padded shortcuts, straight from a state dict, in tensor operations."""

    def bn(x: Tensor, name: str) -> Tensor:
        scale = w[f"{name}.weight"] / torch.sqrt(w[f"{name}.running_var"] + 1e-5)
        offset = w[f"{name}.bias"] - scale * w[f"{name}.running_mean"]
        return x * scale[:, None, None] + offset[:, None, None]

    x = bn(functional.conv2d(x, w["conv1.weight"], padding=1), "bn1").clamp(min=0)
    for index in range(9):
        stage, unit = divmod(index, 3)
        name = f"layer{stage + 1}.{unit}"
        down = stage > 0 and unit == 0
        y = functional.conv2d(x, w[f"{name}.conv1.weight"], stride=2 if down else 1, padding=1)
        y = bn(y, f"{name}.bn1").clamp(min=0)
        y = bn(functional.conv2d(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        if down:
            x = x[:, :, ::2, ::2]
            zeros = x.new_zeros(len(x), x.shape[1] // 2, *x.shape[2:])
            x = torch.cat([zeros, x, zeros], dim=1)
        x = x if index == deleted else x + y
        x = x.clamp(min=0)
    return x.mean((2, 3)) @ w["linear.weight"].T + w["linear.bias"]


@pytest.mark.skipif(
    not (AKAMASTER.is_file() and TEST_FILE.is_file()),
    reason="the public ResNet-20 or CIFAR-10 is not beside the project",
)
@torch.no_grad()
def test_single_deletions_of_a_public_resnet20_equal_plain_convolutions() -> None:
    images = 1000
    network = load_third_party(AKAMASTER).network
    split = load_split(DataConfig(dataset="cifar10", test_images=images), "test", SHARED / "data")
    normalization = parse_normalization("imagenet", lambda: split)
    rows = measured(
        network, Batches(split, normalization), draw_deletions(9, (1,), 1, seed=0), seed=0
    )
    assert [row["blocks"] for row in rows] == [str(unit) for unit in range(9)]

    table = pq.read_table(TEST_FILE).slice(0, images)
    labels = torch.tensor(table["label"].to_pylist())
    decoded = [Image.open(io.BytesIO(struct["bytes"])) for struct in table["img"].to_pylist()]
    x = torch.from_numpy(np.stack([np.asarray(image) for image in decoded])).permute(0, 3, 1, 2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x / 255 - mean[:, None, None]) / std[:, None, None]
    raw = torch.load(AKAMASTER, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): value for name, value in raw.items()}

    def outcome(deleted: int | None) -> tuple[Tensor, Tensor]:
        logits = torch.cat([plain_resnet20(weights, part, deleted) for part in x.split(125)])
        return logits.double().log_softmax(1), logits.argmax(1)

    whole, predicted = outcome(None)
    baseline = 100 * float((predicted != labels).double().mean())
    for unit, row in enumerate(rows):
        log_p, chosen = outcome(unit)
        assert row["images"] == images
        assert row["baseline_error"] == pytest.approx(baseline, abs=1e-9)
        assert row["test_error"] == pytest.approx(
            100 * float((chosen != labels).double().mean()), abs=1e-9
        )
        assert row["agreement"] == pytest.approx(
            100 * float((chosen == predicted).double().mean()), abs=1e-9
        )
        loss = -float(log_p[torch.arange(images), labels].mean())
        assert row["loss"] == pytest.approx(loss, rel=1e-5)
        kl = float((whole.exp() * (whole - log_p)).sum(1).mean())
        assert row["kl_divergence"] == pytest.approx(kl, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("errors", "changes", "is_plain", "words"),
    [
        ([2.0, 2.9, 1.0], (1,), False, ["none of 3 units", "largest increase is 0.90 points"]),
        (
            [5.0, 90.0, 3.1, 2.0],
            (1,),
            False,
            ["3 of 4 units raise", "first: 1, 0, 2;", "1 of the 1"],
        ),
        ([2.0, 90.0, 2.0], (0,), False, ["1 of 3 units raises", "0 of the 1 units that change"]),
        ([80.0, 90.0], (0, 1), True, ["2 of 2 units", "without shortcuts there is one path"]),
    ],
)
def test_the_sentence_on_which_units_matter(
    errors: list[float], changes: tuple[int, ...], is_plain: bool, words: list[str]
) -> None:
    single = pandas.DataFrame(
        {"blocks": list(map(str, range(len(errors)))), "test_error": errors, "baseline_error": 2.0}
    )
    sentence = which_matter(single, changes, is_plain=is_plain)
    for each in words:
        assert each in sentence
