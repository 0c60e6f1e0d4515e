"""Delete and reorder units (paper 2, Figures 3, 4, 5a and 5b)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import kendalltau

from resnet_cli.datasets.data import Batches
from resnet_cli.models.network import Network, same_shape_groups
from resnet_cli.models.units import Place
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.runtime.seeding import stream
from resnet_cli.studies.walks import Outcome, Walk, delete, evaluate_walks, intact, reorder

Row = dict[str, Any]
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Deletion:
    """One draw: these units are deleted together."""

    sample: int
    units: tuple[int, ...]


def draw_deletions(num_units: int, ks: Iterable[int], samples: int, seed: int) -> list[Deletion]:
    """The sets of units to delete: k = 1 takes each unit in turn, k > 1 `samples` random sets.

    A draw depends on (seed, k, sample) alone, so a longer study contains a shorter one.

    Raises:
        UserError: k is larger than the number of units, or 0.
    """
    deletions = []
    for k in ks:
        if not 1 <= k <= num_units:
            raise UserError(
                f"{k} units cannot be deleted; this network has {num_units} units, "
                f"so k is 1 to {num_units}"
            )
        if k == 1:
            deletions += [Deletion(unit, (unit,)) for unit in range(num_units)]
            continue
        for sample in range(samples):
            generator = stream(seed, "delete", k, sample)
            chosen = torch.randperm(num_units, generator=generator)[:k].tolist()
            deletions.append(Deletion(sample, tuple(sorted(chosen))))
    return deletions


def delete_units(
    network: Network,
    batches: Batches,
    deletions: Sequence[Deletion],
    seed: int,
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> list[Row]:
    """Evaluate each deletion. Returns the rows of lesion_delete.csv, in the order given.

    Raises:
        UserError: a unit does not exist.
    """
    outcomes = measure_deletions(network, batches, deletions, report, engine)
    return deletion_rows(deletions, outcomes, seed)


def measure_deletions(
    network: Network,
    batches: Batches,
    deletions: Sequence[Deletion],
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> list[Outcome]:
    """The outcome of the intact network, then of each deletion in the order given.

    Raises:
        UserError: a unit does not exist.
    """
    whole = intact(len(network.units))
    walks = [delete(whole, deletion.units) for deletion in deletions]
    return evaluate_walks(network, batches, [whole, *walks], report, engine)


def deletion_rows(
    deletions: Sequence[Deletion], outcomes: Sequence[Outcome], seed: int
) -> list[Row]:
    """Rows of lesion_delete.csv from what `measure_deletions` found."""
    baseline, *lesioned = outcomes
    return [
        {"k": len(deletion.units), "sample": deletion.sample}
        | {"blocks": _blocks(deletion)}
        | measured_columns(outcome, baseline, seed)
        for deletion, outcome in zip(deletions, lesioned, strict=True)
    ]


def class_rows(
    deletions: Sequence[Deletion], outcomes: Sequence[Outcome], batches: Batches, seed: int
) -> list[Row]:
    """Rows of lesion_classes.csv from what `measure_deletions` found: each deletion's error on
    the images of each class. A class without images has no error.

    Args:
        batches: the images measured on.
    """
    images = torch.bincount(batches.labels, minlength=len(batches.classes)).tolist()
    baseline, *lesioned = outcomes
    return [
        {
            "blocks": _blocks(deletion),
            "class": index,
            "images": images[index],
            "test_error": _share(outcome.wrong_by_class[index], images[index]),
            "baseline_error": _share(baseline.wrong_by_class[index], images[index]),
            "class_name": name,
            "k": len(deletion.units),
            "sample": deletion.sample,
            "seed": seed,
        }
        for deletion, outcome in zip(deletions, lesioned, strict=True)
        for index, name in enumerate(batches.classes)
    ]


def _blocks(deletion: Deletion) -> str:
    return " ".join(map(str, deletion.units))


def _share(wrong: int, images: int) -> float | None:
    """Percent; None of no images."""
    return 100.0 * wrong / images if images else None


@dataclass(frozen=True)
class Reordering:
    """One draw: the network's units in another order, after so many swaps."""

    swaps: int
    sample: int
    order: tuple[int, ...]


def draw_reorderings(
    places: Sequence[Place], swaps: Iterable[int], samples: int, seed: int
) -> list[Reordering]:
    """Orders made by random swaps of two units of equal shape (paper 2, section 4.2).

    Each swap picks uniformly among all pairs that may be exchanged.

    Raises:
        UserError: a number of swaps is 0, or no two units have the same shape.
    """
    pairs = [
        (a, b)
        for group in same_shape_groups(places)
        for index, a in enumerate(group)
        for b in group[index + 1 :]
    ]
    if not pairs:
        raise UserError(
            "no two units of this network have the same shape, so none can be swapped; "
            "take a deeper network"
        )
    reorderings = []
    for count in swaps:
        if count < 1:
            raise UserError("0 swaps change nothing; --reorder takes 1 or more")
        for sample in range(samples):
            generator = stream(seed, "reorder", count, sample)
            order = list(range(len(places)))
            for choice in torch.randint(len(pairs), (count,), generator=generator).tolist():
                a, b = pairs[choice]
                order[a], order[b] = order[b], order[a]
            reorderings.append(Reordering(count, sample, tuple(order)))
    return reorderings


def reorder_units(
    network: Network,
    batches: Batches,
    reorderings: Sequence[Reordering],
    seed: int,
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> list[Row]:
    """Evaluate each order. Returns the rows of lesion_reorder.csv, in the order given."""
    whole = intact(len(network.units))
    walks: list[Walk] = [reorder(whole, r.order, network.places) for r in reorderings]
    baseline, *outcomes = evaluate_walks(network, batches, [whole, *walks], report, engine)
    return [
        {
            "swaps": reordering.swaps,
            "sample": reordering.sample,
            "order": " ".join(map(str, reordering.order)),
            "kendall_tau": float(kendalltau(range(len(whole)), reordering.order).statistic),
        }
        | measured_columns(outcome, baseline, seed)
        for reordering, outcome in zip(reorderings, outcomes, strict=True)
    ]


def measured_columns(outcome: Outcome, baseline: Outcome, seed: int) -> Row:
    """The columns that all lesions share: test_error to agreement."""
    return {
        "test_error": outcome.error,
        "baseline_error": baseline.error,
        "images": outcome.images,
        "seed": seed,
        "loss": outcome.loss,
        "kl_divergence": outcome.kl_divergence,
        "agreement": outcome.agreement,
    }
