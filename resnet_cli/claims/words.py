"""The texts for quantities and verdicts in `compare` and the report. No code reads these texts."""

import math
from typing import Any

from resnet_cli.claims.verdict import (
    ASSUMED_AT,
    ASSUMED_FAILING,
    ASSUMED_SPREAD,
    DECIDES,
    ERROR,
    FAILED,
    POINTS,
    SHARE,
    TEST_ERROR,
    Judgement,
    Part,
    Quantity,
    Verdict,
)
from resnet_cli.figures.titles import figure_title

CAVEATS: dict[str, str] = {
    "smoke": "small networks trained for seconds on digits; shows that the code runs, and says "
    "nothing about the claims",
    "mini": "16x16 digits and a short schedule instead of CIFAR and 64k iterations; one of the 360 "
    "test images is 0.28 points",
    "cpu": "a short schedule instead of 64k iterations",
}
"""The limits of what a profile can show."""
MAX_COMPARISONS = 3
"""For a claim with more comparisons, only those that decide are shown."""
COUNTED: dict[Verdict, str] = {
    "holds": "hold",
    "does not hold": "do not hold",
    "too close": "too close to call",
    "too few draws": "with too few draws",
    "not trained long enough": "not trained long enough",
    "not measured": "not measured",
}
"""A verdict after the number of claims."""


def source_title(key: str) -> str:
    """`table1` -> `Table 1`, `fig5a` -> `Figure 5a`, `section5` -> `Section 5`."""
    return figure_title(key) or {"text": "Section 4.1", "discussion": "Discussion"}.get(key, key)


def number(quantity: Quantity) -> str:
    """`1.39 %`, `fails (86.94 %)`, `diverges`, `+0.41 points`, `0.219`."""
    value, unit = quantity.value, quantity.unit
    if unit == FAILED:
        return f"fails ({value:.2f} %)" if math.isfinite(value) else "fails"
    if unit in (ERROR, TEST_ERROR):
        return f"{value:.2f} %" if math.isfinite(value) else "diverges"
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "unbounded"
    if unit == POINTS:
        return f"{value:+.2f} points"
    if unit == SHARE:
        return f"{100 * value:.3g} %"
    whole = float(value).is_integer() and abs(value) < 1e6
    return (f"{value:.0f} {unit}" if whole else f"{value:.3g} {unit}").rstrip()


def comparison(part: Part) -> str:
    """`dropout 0.5: fails (89.72 %), original unit: 0.83 %; difference +88.89 points (z = 210)`."""
    limit = (part.limit,) if part.limit is not None else ()
    measured = ", ".join(f"{shown.name}: {number(shown)}" for shown in (*part.measured, *limit))
    if part.training and measured:
        measured = f"{part.training}: {measured}"
    if part.tested is None:
        return measured
    notes = []
    if math.isfinite(z := part.tested.z):
        decimals = 1 if abs(z) < 10 else 0
        notes.append(f"z = {z:.{decimals}f}" if abs(z) < 1000 else "|z| > 1000")
        notes += ["spread assumed"] if part.assumed else []
    tested = f"{part.tested.name} {number(part.tested)}"
    tested += f" ({', '.join(notes)})" if notes else ""
    return f"{measured}; {tested}" if measured else tested


def evidence(judgement: Judgement) -> list[str]:
    """What a verdict rests on, one line for each comparison. Of many comparisons, only those that
    decide are shown, and only the closest if the claim holds or if there are too few draws."""
    parts = [part for part in judgement.parts if part.measured or part.tested]
    lines = []
    if len(parts) > MAX_COMPARISONS and judgement.verdict in ("holds", "too few draws"):
        lines.append(f"closest of {len(parts)}: {decisive(judgement)}")
    else:
        decide = [part for part in parts if part.verdict == judgement.verdict]
        shown = decide if len(parts) > MAX_COMPARISONS and decide else parts
        lines += [comparison(part) for part in shown]
    missing = sum(part.verdict == "not measured" for part in judgement.parts)
    if judgement.reason is not None:
        lines.append(f"does not apply to {number(judgement.reason)}")
    elif missing and parts:
        lines.append(f"{missing} of {len(judgement.parts)} comparisons not measured")
    return list(dict.fromkeys(lines))


def decisive(judgement: Judgement) -> str:
    """The one comparison that a verdict rests on; empty if there is none."""
    return comparison(judgement.deciding) if judgement.deciding is not None else ""


def seeds(judgement: Judgement) -> str:
    """`1 seed`, `1 to 3 seeds`; empty if nothing was trained."""
    if judgement.seeds is None:
        return ""
    low, high = judgement.seeds
    count = f"{low}" if low == high else f"{low} to {high}"
    return f"{count} seed{'s' if high > 1 else ''}"


def legend() -> str:
    """The rule behind the verdicts."""
    return (
        f"a difference of at least {DECIDES:g} standard errors (z) decides; for a single training, "
        f"a spread of {ASSUMED_SPREAD:g} points at {ASSUMED_AT:g} % error is assumed (He et al. "
        "2015), more at higher errors and below 10,000 test images, "
        f"{ASSUMED_FAILING:g} points if it fails; verdicts on lesions and paths of one training "
        "hold for it only"
    )


def unpaired_note() -> str:
    """The consequence of missing outcomes for each image."""
    return (
        "where the outcomes for each image are not stored, their variance over images is the least "
        "that the two errors allow, and zero for medians"
    )


def judgement_to_dict(judgement: Judgement) -> dict[str, Any]:
    """The judgement for JSON: the texts, and the quantities behind them."""
    claim = judgement.claim
    return {
        "paper": claim.paper,
        "source": claim.source,
        "text": claim.text,
        "verdict": judgement.verdict,
        "check": claim.is_check,
        "evidence": "; ".join(evidence(judgement)),
        "published": claim.published,
        "profile": judgement.profile,
        "datasets": list(judgement.datasets),
        "networks": list(judgement.networks),
        "seeds": list(judgement.seeds) if judgement.seeds else None,
        "parts": [_part_to_dict(part) for part in judgement.parts],
        "commands": list(judgement.commands),
    }


def _part_to_dict(part: Part) -> dict[str, Any]:
    return {
        "verdict": part.verdict,
        "training": part.training or None,
        "tested": _quantity_to_dict(part.tested) if part.tested is not None else None,
        "measured": [_quantity_to_dict(quantity) for quantity in part.measured],
        "limit": _quantity_to_dict(part.limit) if part.limit is not None else None,
        "spread_assumed": part.assumed,
        "images_unpaired": part.unpaired,
    }


def _quantity_to_dict(quantity: Quantity) -> dict[str, Any]:
    return {
        "name": quantity.name,
        "value": quantity.value if math.isfinite(quantity.value) else None,
        "standard_error": quantity.standard_error,
        "z": quantity.z if math.isfinite(quantity.z) else None,
        "n": quantity.n,
        "unit": quantity.unit,
    }
