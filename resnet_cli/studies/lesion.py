"""Delete and reorder units (paper 2, Figures 3, 4, 5a and 5b)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import kendalltau

from resnet_cli.data import Batches
from resnet_cli.errors import UserError
from resnet_cli.models.network import Network, same_shape_groups
from resnet_cli.models.units import Place
from resnet_cli.seeding import stream
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
) -> list[Row]:
    """Evaluate each deletion. Returns the rows of lesion_delete.csv, in the order given.

    Raises:
        UserError: a unit does not exist.
    """
    whole = intact(len(network.units))
    walks = [delete(whole, deletion.units) for deletion in deletions]
    baseline, *outcomes = evaluate_walks(network, batches, [whole, *walks], report)
    return [
        {"k": len(deletion.units), "sample": deletion.sample}
        | {"blocks": " ".join(map(str, deletion.units))}
        | _measured(outcome, baseline, seed)
        for deletion, outcome in zip(deletions, outcomes, strict=True)
    ]


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
) -> list[Row]:
    """Evaluate each order. Returns the rows of lesion_reorder.csv, in the order given."""
    whole = intact(len(network.units))
    walks: list[Walk] = [reorder(whole, r.order, network.places) for r in reorderings]
    baseline, *outcomes = evaluate_walks(network, batches, [whole, *walks], report)
    return [
        {
            "swaps": reordering.swaps,
            "sample": reordering.sample,
            "order": " ".join(map(str, reordering.order)),
            "kendall_tau": float(kendalltau(range(len(whole)), reordering.order).statistic),
        }
        | _measured(outcome, baseline, seed)
        for reordering, outcome in zip(reorderings, outcomes, strict=True)
    ]


def _measured(outcome: Outcome, baseline: Outcome, seed: int) -> Row:
    """The columns that all lesions share."""
    return {
        "test_error": outcome.error,
        "baseline_error": baseline.error,
        "images": outcome.images,
        "seed": seed,
        "loss": outcome.loss,
        "kl_divergence": outcome.kl_divergence,
        "agreement": outcome.agreement,
    }
