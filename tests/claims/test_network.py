"""Findings on one network: the claims' judges on tables with known answers."""

import math
from typing import Any

import pandas
import pytest

from resnet_cli.claims.network import QUESTIONS, findings
from resnet_cli.models.units import Place

CHANCE = 90.0
PLACES = [
    Place(unit, 1 + (unit >= 3), 1 + unit % 3, 4, 4 + 4 * (unit == 3), 1) for unit in range(6)
]


def lesions(errors: dict[int, list[float]], baseline: float = 5.0, by: str = "k") -> Any:
    rows = [
        {
            by: k,
            "blocks": str(sample),
            "test_error": error,
            "baseline_error": baseline,
            "agreement": 100 - abs(error - baseline),
            "images": 10_000,
        }
        for k, of_k in errors.items()
        for sample, error in enumerate(of_k)
    ]
    return pandas.DataFrame(rows)


def spectrum(norms: list[float], draws: int = 10) -> dict[str, Any]:
    units = len(norms) - 1
    samples = [
        {"k": k, "grad_norm": norm * (1 + 0.1 * (-1) ** sample)}
        for k, norm in enumerate(norms)
        for sample in range(draws)
    ]
    lengths = [
        {"k": k, "paths": math.comb(units, k), "total": math.comb(units, k) * norm, "std_norm": 0}
        for k, norm in enumerate(norms)
    ]
    return {"path_gradients": pandas.DataFrame(samples), "path_spectrum": pandas.DataFrame(lengths)}


def verdicts(**tables: dict[str, Any]) -> list[str]:
    return [found["verdict"] for found in findings(tables, PLACES, CHANCE)]


SINGLE = {"lesion_delete": lesions({1: [5.2, 5.1, 5.3, 30.0, 5.2, 5.2]})}
RISING = [[10.0 * k + spread for spread in (-1, 0, 1, 0)] for k in range(2, 8)]


def test_a_network_as_the_paper_describes_it() -> None:
    rising = dict(enumerate(RISING, 2))
    found = verdicts(
        deletion=SINGLE,
        deletions={"lesion_delete": lesions(rising)},
        reordering={"lesion_reorder": lesions(rising, by="swaps")},
        paths=spectrum([0.1**k for k in range(7)]),
    )
    assert found == ["holds"] * len(QUESTIONS)


def test_a_network_that_contradicts_each_finding() -> None:
    step = {k: [10.0 if k < 5 else 80.0, 10.5 if k < 5 else 80.5] * 2 for k in range(2, 8)}
    found = verdicts(
        deletion={"lesion_delete": lesions({1: [50.0, 50.0, 60.0, 40.0, 50.0, 50.0]})},
        deletions={"lesion_delete": lesions(step)},
        reordering={"lesion_reorder": lesions(step, by="swaps")},
        paths=spectrum([10.0**k for k in range(7)]),
    )
    assert found == ["does not hold"] * len(QUESTIONS)


def test_what_cannot_be_judged() -> None:
    one_draw = {k: of_k[:1] for k, of_k in enumerate(RISING, 2)}
    found = verdicts(deletion=SINGLE, deletions={"lesion_delete": lesions(one_draw)})
    assert found[2:] == ["too few draws", "not measured", "not measured", "not measured"]
    one_path = spectrum([0.1**k for k in range(7)], draws=1)
    assert verdicts(deletion=SINGLE, paths=one_path)[-1] == "too few draws"
    alike = findings({"deletion": SINGLE}, [Place(u, 1, u, 4, 4, 1) for u in range(6)], CHANCE)
    assert alike[1]["verdict"] == "not measured", "no unit changes the shape"


def test_a_network_that_guesses_has_nothing_to_lose() -> None:
    guessing = {"lesion_delete": lesions({1: [89.0] * 6}, baseline=89.0)}
    found = verdicts(deletion=guessing, paths=spectrum([0.1**k for k in range(7)]))
    assert found[:4] == ["not trained long enough"] * 4
    assert found[4:] == ["holds", "holds"], "gradients are not damage"


def test_a_verdict_carries_its_quantities() -> None:
    (first, *_) = findings({"deletion": SINGLE}, PLACES, CHANCE)
    (part,) = first["parts"]
    assert part["tested"]["value"] == pytest.approx(1 - 0.2)
    assert part["verdict"] == first["verdict"] == "holds"
    assert "unit 3: +25.00 points" in first["evidence"]
