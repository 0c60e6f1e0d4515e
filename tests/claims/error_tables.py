"""Rows of table.csv for the tests of claims."""

from collections.abc import Mapping, Sequence
from typing import Any

ErrorsByCase = Mapping[str, Sequence[float | None]]
"""case -> errors by seed, in percent; None for a training that diverged."""


def error_rows(experiment: str, dataset: str, errors: ErrorsByCase) -> list[dict[str, Any]]:
    return [
        {
            "experiment": experiment,
            "case": case,
            "dataset": dataset,
            "seed": seed,
            "params": 1,
            "status": "diverged" if error is None else "ok",
            "test_error": error,
            "best_error": error,
            "paper_error": None,
        }
        for case, of_case in errors.items()
        for seed, error in enumerate(of_case)
    ]
