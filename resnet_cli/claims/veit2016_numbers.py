"""What the judges of paper 2 share: its numbers, and when a network was trained long enough."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from resnet_cli.claims.evidence import Evidence, StudyTable
from resnet_cli.claims.papers import published, published_error
from resnet_cli.claims.verdict import NotMeasuredError, Part, Quantity, undertrained

PAPER = "veit2016"


def paper_number(figure: str, quantity: str) -> float:
    """A number of the paper."""
    numbers = published(PAPER)
    rows = numbers[(numbers["figure"] == figure) & (numbers["quantity"] == quantity)]
    return float(rows["value"].iloc[0])


CHANCE = paper_number("fig3", "chance_error")
UNITS = int(paper_number("text", "units"))


def check_54_units(units: int) -> None:
    """Check that a claim about the paper's 54 units applies to a network.

    Raises:
        NotMeasuredError: the network has another number of units.
    """
    if units != UNITS:
        raise NotMeasuredError(Quantity("units", units, unit="units"))


def for_each_training(
    tables: Sequence[StudyTable], judge: Callable[[StudyTable], list[Part]]
) -> list[Part]:
    """The parts of every training; if there are several, each part names its training."""
    if len(tables) == 1:
        return judge(tables[0])
    return [
        replace(part, training=f"seed {table.seed}") for table in tables for part in judge(table)
    ]


def undertrained_network(
    evidence: Evidence, experiment: str, tables: Sequence[StudyTable], name: str = "intact"
) -> Part | None:
    """None if the intact networks were trained long enough, else the part that says that one was
    not.

    Raises:
        NotMeasuredError: the error of a network is unknown.
    """
    limit = evidence.decides_below(experiment, published_error(PAPER, "section5", "full") or 0.0)
    for table in tables:
        error = evidence.intact_error(table)
        if error is None:
            raise NotMeasuredError
        if short := undertrained(Quantity(name, error), limit):
            return short
    return None
