"""The judges of paper 1's claims: errors of a table's rows, training losses, identities.

A claim about several rows holds if it holds for each row, and does not hold if one row contradicts
it. If a row is missing, the claim is not measured, unless another row already contradicts it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from pandas import DataFrame

from resnet_cli.claims.evidence import Evidence
from resnet_cli.claims.papers import case_title, published_error
from resnet_cli.claims.verdict import (
    Errors,
    NotMeasuredError,
    Part,
    Quantity,
    Verdict,
    against,
    difference,
    undertrained,
    within,
)
from resnet_cli.config.fields import FAILS_ABOVE
from resnet_cli.models.resnet import make_places

PAPER = "he2016"
SAME_WITHIN = 0.2
"""In points: errors that differ by at most this are "about the same". It is twice the difference
that the paper ignores (0.10, ReLU-only pre-activation with 110 layers), and less than the smallest
one that it counts (0.21, ReLU before addition with 164 layers)."""
AT_FIRST = 0.25
"""The share of a training that counts as "the beginning of training"; the paper gives no number."""
IDENTITY_WITHIN = 1e-5
"""The largest relative difference of the two sides of an identity, in float32."""

ORIGINAL = "original"
SCALINGS = ("scaling-0-1", "scaling-0.5-1", "scaling-0.5-0.5")
SIX_BIASES = tuple(f"exclusive-gating-bias{bias}" for bias in (0, -1, -2, -3, -4, -5))
"""The paper's row "0 to -5"."""
EXCLUSIVE = (*SIX_BIASES, "exclusive-gating-bias-6", "exclusive-gating-bias-7")
SHORTCUT_ONLY = ("shortcut-gating-bias0", "shortcut-gating-bias-6")
ROWS = (*SCALINGS, SIX_BIASES[0], *EXCLUSIVE[6:], *SHORTCUT_ONLY, "convolution", "dropout")
"""The row of six biases is represented by bias 0."""
FAILING = ("scaling-0-1", "scaling-0.5-1", *SIX_BIASES, "dropout")
PLACEMENTS = (
    "original",
    "bn_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
)
"""All of Table 2 except full pre-activation."""
TABLES = {"fig1": "table3", "fig3": "table1", "fig6": "table2"}
"""The table with the errors of a figure's trainings."""


# --- parts of claims -----------------------------------------------------------------------------


def _reference(source: str, case: str) -> str:
    """The case that must be trained long enough for a verdict on another case.

    It is the original network of the same depth and data set, or, with 1001 layers, the
    pre-activation network, since there the slow training of the original is the claim itself.
    """
    if source in ("table1", "fig3"):
        return ORIGINAL
    if source == "table4":
        return "preact-1001-cifar10"
    _, _, rest = case.partition("-")
    return f"preact-{rest}" if rest.startswith("1001") else f"original-{rest}"


def _experiment(source: str, case: str) -> str:
    """The experiment that trains a case."""
    if source in ("table3", "table4"):
        return f"{source}-{'cifar100' if case.endswith('-cifar100') else 'cifar10'}"
    if source == "fig6":
        return "fig6a" if case.endswith("110") else "fig6b"
    return {"text": "imagenet101"}.get(source, source)


def _undertrained_reference(evidence: Evidence, source: str, cases: Sequence[str]) -> Part | None:
    """None if the reference networks of these cases were trained long enough, else the part that
    says that one was not."""
    for case in dict.fromkeys(_reference(source, case) for case in cases):
        found = evidence.case(source, case)
        published = published_error(PAPER, TABLES.get(source, source), case)
        limit = evidence.decides_below(_experiment(source, case), published or math.inf)
        if short := undertrained(found.for_verdicts.quantity, limit):
            return short
    return None


def _part(
    evidence: Evidence, source: str, cases: Sequence[str], compare: Callable[..., Part]
) -> Part:
    """Compare cases if they are measured and their reference networks were trained long enough."""
    try:
        short = _undertrained_reference(evidence, source, cases)
        errors = [evidence.case(source, case).for_verdicts for case in cases]
    except NotMeasuredError:
        return Part("not measured")
    return short or compare(*errors)


def _above(evidence: Evidence, source: str, higher: str, lower: str) -> Part:
    """Whether the error of `higher` is above that of `lower`."""
    return _part(evidence, source, (higher, lower), lambda a, b: difference([(a, b)]))


def above_original(
    source: str, pairs: Sequence[tuple[str, str]]
) -> Callable[[Evidence], list[Part]]:
    """Whether, in each pair (higher, lower) of cases, the first error is higher."""
    return lambda evidence: [_above(evidence, source, high, low) for high, low in pairs]


def lowest(source: str, best: str, others: Sequence[str]) -> Callable[[Evidence], list[Part]]:
    """Whether the error of one case is below all others."""
    return above_original(source, [(other, best) for other in others])


def about(source: str, pairs: Sequence[tuple[str, str]]) -> Callable[[Evidence], list[Part]]:
    """Whether the two errors of each pair differ by at most SAME_WITHIN points."""
    same = partial(within, points=SAME_WITHIN)
    return lambda evidence: [_part(evidence, source, pair, same) for pair in pairs]


def failing_rows(evidence: Evidence) -> list[Part]:
    """Whether the rows that fail in the paper fail, and the identity does not."""
    above, below = (partial(against, limit=FAILS_ABOVE, higher=higher) for higher in (True, False))
    failing = [_part(evidence, "table1", (case,), above) for case in FAILING]
    return [*failing, _part(evidence, "table1", (ORIGINAL,), below)]


def lead_grows(suffix: str, depths: Sequence[str]) -> Callable[[Evidence], list[Part]]:
    """Whether the original's error minus full pre-activation's increases with each depth."""

    def judge(evidence: Evidence) -> list[Part]:
        return [
            _part(
                evidence,
                "table3",
                [f"{kind}-{depth}-{suffix}" for depth in pair for kind in ("original", "preact")],
                lambda a, b, c, d: difference([(c, d), (b, a)], "growth of the lead"),
            )
            for pair in pairwise(depths)
        ]

    return judge


# --- curves --------------------------------------------------------------------------------------


def higher_loss(
    source: str, pairs: Sequence[tuple[str, str]], at_first: bool
) -> Callable[[Evidence], list[Part]]:
    """Whether the first case of each pair has a higher training loss than the second."""

    def judge(evidence: Evidence) -> list[Part]:
        def compare(first: Errors, second: Errors, pair: tuple[str, str]) -> Part:
            sides = [
                Errors(side.name, _losses(evidence, source, case, at_first), unit="nats")
                for side, case in zip((first, second), pair, strict=True)
            ]
            return difference([(sides[0], sides[1])])

        return [_part(evidence, source, pair, partial(compare, pair=pair)) for pair in pairs]

    return judge


def _losses(evidence: Evidence, source: str, case: str, at_first: bool) -> list[float]:
    """The training loss of each seed: the median over the epochs of the beginning, since a single
    epoch can have a loss ten times as high as its neighbours, or that of the last epoch."""
    values = []
    for rows in evidence.curves(_experiment(source, case), case):
        count = max(1, int(AT_FIRST * len(rows)))
        losses = (rows.iloc[:count] if at_first else rows.iloc[-1:])["train_loss"]
        loss = float(losses.fillna(math.inf).median())
        values.append(loss)
    return values


# --- identities ----------------------------------------------------------------------------------


def scaled_gradients(evidence: Evidence) -> list[Part]:
    """Equations (6) to (8): along the shortcuts alone, a unit that keeps the shape multiplies the
    gradient by its lambda. The largest relative deviation over all units and both states."""
    parts = []
    for case in (ORIGINAL, *SCALINGS[1:]):
        try:
            (table, *_) = evidence.tables("signal", "signal", case)
            changes = {place.index for place in make_places(table.model) if place.changes_shape}
        except NotMeasuredError:
            parts.append(Part("not measured"))
            continue
        largest = max(_deviations(rows, changes) for _, rows in table.frame.groupby("state"))
        verdict: Verdict = "holds" if largest <= IDENTITY_WITHIN else "does not hold"
        name = f"{case_title(case)}, largest relative deviation"
        parts.append(Part(verdict, None, (Quantity(name, largest, unit=""),)))
    return parts


def _deviations(rows: DataFrame, changes: set[int]) -> float:
    ordered = rows.sort_values("unit")
    gain, factor = ordered["shortcut_gain"].to_numpy(), ordered["shortcut_factor"].to_numpy()
    kept = [unit for unit in range(len(gain) - 1) if unit not in changes]
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.abs(gain[:-1] / gain[1:] / factor[:-1] - 1)[kept]
    return float(np.nanmax(deviation))
