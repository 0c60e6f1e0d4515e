"""The tables of the paths study: their columns, and their rows from what was measured."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resnet_cli.results.columns import Table, number, whole
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Row, known

if TYPE_CHECKING:
    from resnet_cli.studies.paths.exact import ExactSpectrum


_LENGTH = whole("k", "length: number of units that a path passes through their residual branch")
_SHARE = number("share_exact", "exact_norm as a share of its sum over k, 0 to 1", empty=True)
TABLES = (
    Table(
        "path_lengths",
        "path length",
        (
            _LENGTH,
            whole("paths", "number of paths of this length, C(n, k); an integer of any size"),
            number("fraction", "share of all 2^n paths, 0 to 1"),
        ),
    ),
    Table(
        "path_gradients",
        "sampled path",
        (
            _LENGTH,
            whole("sample", "number of the draw within this k, from 0"),
            number(
                "grad_norm",
                "L2 norm of the gradient along this path, of the loss at the network's input",
            ),
            whole("images", "images in the batch"),
            whole("seed", "seed of the draws"),
        ),
    ),
    Table(
        "path_spectrum",
        "path length",
        (
            _LENGTH,
            whole("paths", "as in path_lengths.csv"),
            number(
                "mean_norm",
                "mean of grad_norm over the samples; empty for a length not sampled",
                empty=True,
            ),
            number("std_norm", "standard deviation of grad_norm over the samples", empty=True),
            number(
                "total",
                "paths × mean_norm, the estimate of paper 2, which ignores cancellation",
                empty=True,
            ),
            number(
                "exact_norm",
                "L2 norm of the sum of the gradients along all paths of this length; empty unless "
                "measured",
                empty=True,
            ),
            number("share_total", "total as a share of its sum over k, 0 to 1", empty=True),
            _SHARE,
            number(
                "cancellation",
                "exact_norm / total: the norm of the sum of the gradients relative to the sum of "
                "their norms",
                empty=True,
            ),
        ),
    ),
    Table(
        "path_cumulative",
        "longest path length",
        (
            whole("k", "largest number of residual branches on a path"),
            number(
                "cosine",
                "cosine of the sum of the gradients along all these paths with the ordinary "
                "gradient; empty where one is zero",
                empty=True,
            ),
            number(
                "relative_norm",
                "L2 norm of that sum over that of the ordinary gradient",
                empty=True,
            ),
            whole("images", "images in the batch"),
        ),
    ),
    Table(
        "path_spectrum_stages",
        "stage and path length",
        (
            whole("stage", "stage, from 1"),
            whole("k", "number of residual branches of this stage on the path"),
            whole("paths", "number of choices of these branches, C(units of the stage, k)"),
            number(
                "exact_norm",
                "L2 norm of the sum of the gradients at the input along all these paths",
            ),
            _SHARE,
        ),
        note="Exact spectra in which only the units of one stage count towards the length of a "
        "path. All other units pass\nthe whole gradient, through both branches.",
    ),
    Table(
        "path_spectrum_unit",
        "path length",
        (
            whole("unit", "the unit, from 0"),
            whole("k", "residual branches on the path from the loss, including the unit's own"),
            whole("paths", "number of these paths, C(units after the unit, k - 1)"),
            number(
                "exact_norm",
                "L2 norm of the sum of the gradients at its parameters along all these paths",
            ),
            _SHARE,
        ),
        note="The exact spectrum of the gradient at the parameters of one unit's residual branch.",
    ),
)


def path_lengths(num_units: int) -> list[Row]:
    """Rows of path_lengths.csv: the number of paths of each length, C(n, k) of 2^n, exactly."""
    return [
        {
            "k": k,
            "paths": math.comb(num_units, k),
            "fraction": math.comb(num_units, k) / 2**num_units,
        }
        for k in range(num_units + 1)
    ]


def check_lengths(ks: Sequence[int], num_units: int) -> None:
    """Raises UserError for a path length that a network with this number of units does not have."""
    for k in ks:
        if not 0 <= k <= num_units:
            raise UserError(
                f"--k {k}: no path has length {k}; this network has {num_units} units, "
                f"so lengths are 0 to {num_units}"
            )


def spectrum_rows(
    num_units: int, gradients: Sequence[Mapping[str, Any]], exact: "ExactSpectrum | None"
) -> list[Row]:
    """Rows of path_spectrum.csv: for each length the sampled estimate and the exact norm.

    `cancellation` is the exact norm over the sampled total: the norm of the sum of the gradients
    relative to the sum of their norms.

    The sampled columns are None for lengths that were not sampled, the exact ones without an exact
    spectrum. Shares are of the sum over the lengths that were measured.
    """
    by_k: dict[int, list[float]] = {}
    for row in gradients:
        by_k.setdefault(row["k"], []).append(row["grad_norm"])
    means = {k: math.fsum(norms) / len(norms) for k, norms in by_k.items()}
    totals = {k: math.comb(num_units, k) * mean for k, mean in means.items()}
    sum_total = math.fsum(totals.values())
    sum_exact = math.fsum(exact.norms) if exact else 0.0
    rows = []
    for k in range(num_units + 1) if exact else sorted(by_k):
        norms = by_k.get(k, [])
        spread = None
        if len(norms) > 1:
            spread = math.sqrt(math.fsum((n - means[k]) ** 2 for n in norms) / (len(norms) - 1))
        rows.append(
            {
                "k": k,
                "paths": math.comb(num_units, k),
                "mean_norm": means.get(k),
                "std_norm": spread,
                "total": totals.get(k),
                "exact_norm": exact.norms[k] if exact else None,
                "share_total": totals[k] / sum_total if k in totals and sum_total else None,
                "share_exact": exact.norms[k] / sum_exact if exact and sum_exact else None,
                "cancellation": exact.norms[k] / totals[k] if exact and totals.get(k) else None,
            }
        )
    return rows


def cumulative_rows(exact: "ExactSpectrum") -> list[Row]:
    """Rows of path_cumulative.csv."""
    return [
        {"k": k, "cosine": known(cosine), "relative_norm": known(norm), "images": exact.images}
        for k, (cosine, norm) in enumerate(exact.cumulative)
    ]


def exact_rows(key: str, value: int, exact: "ExactSpectrum") -> list[Row]:
    """Rows of path_spectrum_stages.csv and path_spectrum_unit.csv: one spectrum's exact norms.

    Args:
        key: name of the first column, `stage` or `unit`. For a unit, paths end in its F, so that
            k - 1 of the k branches can be chosen.
        value: of that column.
    """
    total = math.fsum(exact.norms)
    free = len(exact.norms) - 1
    counts = [math.comb(free, k) for k in range(free + 1)]
    if key == "unit":
        counts = [0, *(math.comb(free - 1, k) for k in range(free))]
    return [
        {
            key: value,
            "k": k,
            "paths": counts[k],
            "exact_norm": norm,
            "share_exact": norm / total if total else None,
        }
        for k, norm in enumerate(exact.norms)
    ]
