"""The papers' numbers, as tidy tables in the package.

he2016.csv: He, Zhang, Ren, Sun 2016, Identity Mappings in Deep Residual Networks
(arXiv:1603.05027). One error per row: `source` (table1 … table5, text), `case` (the name used by
experiments), `network`, `dataset`, `metric` (test_error, top1_error, top5_error), `value`
(percent, the paper's median of 5 runs on CIFAR; empty where it says "fail"), `mean` and `std` where
given, `status` (ok, or fail: error above 20 %), `checked`, `remark`.

veit2016.csv: Veit, Wilber, Belongie 2016, Residual Networks Behave Like Ensembles of Relatively
Shallow Networks (arXiv:1605.06431). One number per row: `figure` (fig3 … fig8, section5, text),
`quantity`, `value`, `checked`, `remark`.

`checked` is v for a number that was compared with the paper's text, and m for a number from memory,
which may only be shown as approximate.
"""

import csv
import math
from functools import cache
from pathlib import Path

import pandas

from resnet_cli.config.registry import DATASETS
from resnet_cli.runtime.errors import unknown

PAPERS = ("he2016", "veit2016")
NUMBERS = ("value", "mean", "std")


def published(paper: str) -> pandas.DataFrame:
    """A copy of a paper's numbers.

    Returns:
        The columns above; `value`, `mean` and `std` float64 (NaN where empty), all others text.

    Raises:
        UserError: there is no such paper.
    """
    if paper not in PAPERS:
        raise unknown("paper", paper, PAPERS)
    return _read(paper).copy()


def published_error(paper: str, source: str, case: str, *, top5: bool = False) -> float | None:
    """The error that a paper gives for a case, in percent; by default top-1.

    Args:
        top5: the top-5 error instead.
        source: the table or figure: `table1`, `section5`.
        case: a `case` of he2016.csv; for veit2016, the part of `quantity` after `error-`.

    Returns:
        None if the paper says "fail" or has no such case.

    Raises:
        UserError: there is no such paper.
    """
    table = published(paper)
    if paper == "veit2016" and top5:
        return None
    if paper == "veit2016":
        rows = table[(table["figure"] == source) & (table["quantity"] == f"error-{case}")]
    else:
        rows = table[
            (table["source"] == source)
            & (table["case"] == case)
            & ((table["metric"] == "top5_error") == top5)
            & (table["status"] == "ok")
        ]
    return float(rows["value"].iloc[0]) if len(rows) else None


CASES = {
    "original": "original unit",
    "preact": "full pre-activation",
    "full_preactivation": "full pre-activation",
    "bn_after_addition": "BN after addition",
    "relu_before_addition": "ReLU before addition",
    "relu_only_preactivation": "ReLU-only pre-activation",
    "scaling-0-1": "shortcut 0, F 1",
    "scaling-0.5-1": "shortcut 0.5, F 1",
    "scaling-0.5-0.5": "shortcut 0.5, F 0.5",
    "exclusive-gating-bias0": "exclusive gate, bias 0",
    "exclusive-gating-bias-1": "exclusive gate, bias -1",
    "exclusive-gating-bias-2": "exclusive gate, bias -2",
    "exclusive-gating-bias-3": "exclusive gate, bias -3",
    "exclusive-gating-bias-4": "exclusive gate, bias -4",
    "exclusive-gating-bias-5": "exclusive gate, bias -5",
    "exclusive-gating-bias-6": "exclusive gate, bias -6",
    "exclusive-gating-bias-7": "exclusive gate, bias -7",
    "shortcut-gating-bias0": "shortcut-only gate, bias 0",
    "shortcut-gating-bias-6": "shortcut-only gate, bias -6",
    "convolution": "1x1 convolution",
    "dropout": "dropout 0.5",
    "full": "all units active",
    "active-23": "23 units active",
    "active-24": "24 units active",
}
"""The meaning of the first part of a case's name."""
ONE_BIAS = {"exclusive-gating-bias0to-5": "exclusive-gating-bias0"}
"""In tables of the first edition, one case is named after the paper's row of six biases, but it was
trained with one of them."""


def case_title(case: str, depth: int | None = None) -> str:
    """The title of an experiment's case for tables and plots: `original-110-cifar10` becomes
    "original unit, 110". The data set is left out, since it may differ from the paper's. In an
    unknown name, hyphens and underscores become spaces.

    Args:
        depth: depth of the trained network, if it differs from the one in the name.
    """
    case = ONE_BIAS.get(case, case)
    known = [slug for slug in CASES if case == slug or case.startswith(f"{slug}-")]
    if not known:
        return case.replace("-", " ").replace("_", " ")
    slug = max(known, key=len)
    rest = [part for part in case[len(slug) :].split("-") if part]
    rest = [part for part in rest if part not in DATASETS]
    if depth is not None and rest and rest[0].isdigit():
        rest[0] = str(depth)
    words = [part.replace("_", " ").replace("batch", "batch ") for part in rest]
    return ", ".join([CASES[slug], *words])


@cache
def _read(paper: str) -> pandas.DataFrame:
    with Path(__file__).with_name(f"{paper}.csv").open(encoding="utf-8", newline="") as file:
        columns, *rows = csv.reader(file)
    table = {}
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        if column in NUMBERS:
            numbers = [float(value) if value else math.nan for value in values]
            table[column] = pandas.Series(numbers, dtype="float64")
        else:
            table[column] = pandas.Series(values, dtype=str)
    return pandas.DataFrame(table)
