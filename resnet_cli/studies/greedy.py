"""Greedy deletion: remove the least harmful unit, again and again (beyond paper 2).

Random deletions (paper 2, Figure 5a) say what an average set of k units is worth; the greedy curve
says how many units the network hardly needs. Each step looks at every unit that is left.

The units are chosen by the images they are chosen on, so on these same images the curve flatters
itself; choosing on training images and measuring on test images does not.
"""

import math
from collections.abc import Callable
from typing import Any

from resnet_cli.datasets.data import Batches
from resnet_cli.models.network import Network
from resnet_cli.runtime.engine import Engine
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.lesion import measured_columns
from resnet_cli.studies.walks import Outcome, delete, evaluate_walks, intact

Row = dict[str, Any]
Report = Callable[[int, int], None]


def choose_units(
    network: Network,
    batches: Batches,
    max_units: int,
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> list[int]:
    """The units in the order in which greedy deletion removes them.

    Least harmful is the deletion that leaves the fewest images wrong; of equals, the one with the
    lower loss, then the unit with the lower index.

    Args:
        max_units: how many to remove.
        report: called with (candidates tried, candidates in all) after each step.

    Raises:
        UserError: the network has fewer units.
    """
    num_units = len(network.units)
    if not 1 <= max_units <= num_units:
        raise UserError(
            f"--greedy {max_units}: this network has {num_units} units, "
            f"so 1 to {num_units} can be deleted"
        )
    whole = intact(num_units)
    total = sum(num_units - step for step in range(max_units))
    chosen: list[int] = []
    tried = 0
    for _ in range(max_units):
        left = [unit for unit in range(num_units) if unit not in chosen]
        walks = [delete(whole, [*chosen, unit]) for unit in left]
        outcomes = evaluate_walks(network, batches, walks, engine=engine)
        harms = [(*_harm(outcome), unit) for outcome, unit in zip(outcomes, left, strict=True)]
        chosen.append(min(harms)[-1])
        tried += len(left)
        report(tried, total)
    return chosen


def _harm(outcome: Outcome) -> tuple[int, float]:
    """What a step keeps low: images wrong, then the loss; a loss that is no number is the worst."""
    return outcome.wrong, outcome.loss if math.isfinite(outcome.loss) else math.inf


def delete_greedily(
    network: Network,
    batches: Batches,
    max_units: int,
    seed: int,
    *,
    choose_on: Batches | None = None,
    report: Report = lambda done, total: None,
    engine: Engine = "fast",
) -> list[Row]:
    """Rows of lesion_greedy.csv: after each step the error with all units removed so far.

    Args:
        batches: what is measured on.
        choose_on: what the units are chosen on; None: the same images.
        seed: of the study; nothing here is drawn.

    Raises:
        UserError: the network has fewer units than `max_units`.
    """
    order = choose_units(network, choose_on or batches, max_units, report, engine)
    whole = intact(len(network.units))
    walks = [delete(whole, order[: k + 1]) for k in range(max_units)]
    baseline, *outcomes = evaluate_walks(network, batches, [whole, *walks], engine=engine)
    return [
        {"k": k, "unit": order[k - 1], "blocks": " ".join(map(str, sorted(order[:k])))}
        | measured_columns(outcome, baseline, seed)
        for k, outcome in enumerate(outcomes, 1)
    ]
