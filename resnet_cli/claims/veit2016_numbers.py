"""What the judges of paper 2 share: its numbers, and the networks that decide."""

from collections.abc import Sequence

from resnet_cli.claims.evidence import Evidence, StudyTable
from resnet_cli.claims.papers import published, published_error
from resnet_cli.claims.verdict import NotMeasuredError, Part, Quantity

PAPER = "veit2016"


def paper_number(figure: str, quantity: str) -> float:
    """A number of the paper."""
    numbers = published(PAPER)
    rows = numbers[(numbers["figure"] == figure) & (numbers["quantity"] == quantity)]
    return float(rows["value"].iloc[0])


CHANCE = paper_number("fig3", "chance_error")
UNITS = int(paper_number("text", "units"))


def of_54_units(units: int) -> None:
    """Raises NotMeasuredError where a claim on the paper's 54 units cannot be judged."""
    if units != UNITS:
        raise NotMeasuredError(Quantity("units", units, unit="units"))


def trained_enough(
    evidence: Evidence, experiment: str, tables: Sequence[StudyTable], name: str = "intact"
) -> Part | None:
    """None where the intact networks decide, else the part that says so.

    Raises:
        NotMeasuredError: no table has the error of the network.
    """
    limit = evidence.decides_below(experiment, published_error(PAPER, "section5", "full") or 0.0)
    for table in tables:
        error = evidence.intact_error(table)
        if error is None:
            raise NotMeasuredError
        if not error <= limit:
            measured = (Quantity(name, error), Quantity("needed to decide", limit))
            return Part("not trained long enough", None, measured)
    return None
