"""Additivity: how far the units act independently (beyond paper 2).

Paper 2 calls the paths an ensemble, whose members hardly depend on one another. If the units acted
independently in this sense, deleting a set of them would damage the network by the sum of what
deleting each alone does. So each set's joint damage is set beside the sum of its single damages.
Damage is an increase over the intact network: of the error, which saturates at chance, and of the
loss, which does not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy
from scipy.stats import pearsonr, spearmanr

from resnet_cli.datasets.data import Batches
from resnet_cli.models.network import Network
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.lesion import Deletion, draw_deletions
from resnet_cli.studies.walks import delete, evaluate_walks, intact

Row = dict[str, Any]
Report = Callable[[int, int], None]
DAMAGES = {
    "error": ("joint_damage", "summed_damage"),
    "loss": ("joint_loss_damage", "summed_loss_damage"),
}
"""For each measure of damage the columns of the joint one and of the sum."""


def draw_sets(num_units: int, ks: Iterable[int], samples: int, seed: int) -> list[Deletion]:
    """`samples` random sets of k units for each k: the sets that `draw_deletions` draws.

    Raises:
        UserError: a k below 2, or above the number of units.
    """
    ks = tuple(ks)
    if min(ks) < 2:
        raise UserError(
            f"sets of {min(ks)} cannot show additivity: one unit's damage is its own sum; "
            "take 2 or more, for example 2-10"
        )
    return draw_deletions(num_units, ks, samples, seed)


def compare_damages(
    network: Network,
    batches: Batches,
    sets: Sequence[Deletion],
    seed: int,
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> list[Row]:
    """Rows of lesion_additivity.csv, one for each set, in the order given."""
    whole = intact(len(network.units))
    used = sorted({unit for each in sets for unit in each.units})
    walks = [delete(whole, (unit,)) for unit in used]
    walks += [delete(whole, each.units) for each in sets]
    baseline, *outcomes = evaluate_walks(network, batches, [whole, *walks], report, engine)
    single = dict(zip(used, outcomes, strict=False))
    return [
        {
            "k": len(each.units),
            "sample": each.sample,
            "blocks": " ".join(map(str, each.units)),
            "joint_damage": joint.error - baseline.error,
            "summed_damage": sum(single[unit].error - baseline.error for unit in each.units),
            "joint_loss_damage": joint.loss - baseline.loss,
            "summed_loss_damage": sum(single[unit].loss - baseline.loss for unit in each.units),
            "test_error": joint.error,
            "baseline_error": baseline.error,
            "images": joint.images,
            "seed": seed,
        }
        for each, joint in zip(sets, outcomes[len(used) :], strict=True)
    ]


def correlations(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """How well the summed damage predicts the joint one, over all sets.

    Returns:
        `pearson_error`, `spearman_error`, `pearson_loss`, `spearman_loss`; None where one side
        does not vary or is no number.
    """
    rows = list(rows)
    found: dict[str, float | None] = {}
    for measure, (joint, summed) in DAMAGES.items():
        x = numpy.array([row[summed] for row in rows], dtype=float)
        y = numpy.array([row[joint] for row in rows], dtype=float)
        finite = numpy.isfinite(x) & numpy.isfinite(y)
        x, y = x[finite], y[finite]
        varies = len(x) > 1 and numpy.ptp(x) > 0 and numpy.ptp(y) > 0
        found[f"pearson_{measure}"] = float(pearsonr(x, y).statistic) if varies else None
        found[f"spearman_{measure}"] = float(spearmanr(x, y).statistic) if varies else None
    return found
