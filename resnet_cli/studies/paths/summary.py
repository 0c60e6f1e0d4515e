"""What the paths study found, for the screen and for `--json`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnet_cli.studies.base import Summary, Tables, short
from resnet_cli.studies.intervals import SHARES, shortest_interval

if TYPE_CHECKING:
    import pandas

ALIGNED = (0.5, 0.9, 0.99)
"""Cosines with the ordinary gradient for which the path length is given."""


def summary_of(tables: Tables, label: str, num_units: int) -> Summary:
    """The summary of the measured tables, or of the numbers of paths if there are no others.

    Args:
        label: the network and the data set.
    """
    if "path_spectrum" not in tables:
        rows = [
            [k, f"{paths:,}", f"{100 * fraction:.4f} %"]
            for k, paths, fraction in tables["path_lengths"].itertuples(index=False)
        ]
        title = f"{label}: {2**num_units:,} paths"
        facts = {"units": num_units, "paths": 2**num_units}
        return Summary(facts, *_cut(title, ["k", "paths", "share"], rows))
    frame = tables["path_spectrum"]
    columns, weights, facts = _spectrum_columns(frame, num_units)
    sentences = []
    for name, of_lengths in weights.items():
        if any(weight > 0 for weight in of_lengths):
            sentence, intervals = _intervals(name, list(frame["k"]), of_lengths, num_units)
            sentences.append(sentence)
            facts[f"intervals_{name}"] = intervals
    if "path_cumulative" in tables:
        sentence, facts["cosine_up_to_k"] = _direction(tables["path_cumulative"], num_units)
        sentences.append(sentence)
    for key, stem in (("stage", "path_spectrum_stages"), ("unit", "path_spectrum_unit")):
        if stem in tables:
            facts[f"exact_norm_by_{key}_and_k"] = {
                str(which): _by_length(rows, "exact_norm")
                for which, rows in tables[stem].groupby(key)
            }
    title = f"{label}: gradient by path length, {num_units} units"
    shown = list(zip(*columns.values(), strict=True))
    return Summary(facts, *_cut(title, list(columns), shown), sentences)


def _cut(
    title: str, columns: list[str], rows: Sequence[Sequence[Any]]
) -> tuple[str, list[str], Sequence[Sequence[Any]]]:
    """Title, columns and rows of a table, without the first and last lengths whose shares are shown
    as zero. The title says which remain."""
    shares = [index for index, column in enumerate(columns) if column.startswith("share")]
    filled = [
        position
        for position, row in enumerate(rows)
        if any(row[index].strip("0. %-") for index in shares)
    ]
    if not filled or len(filled) == len(rows):
        return title, columns, rows
    kept = rows[filled[0] : filled[-1] + 1]
    return f"{title}; only lengths {kept[0][0]} to {kept[-1][0]} have a share", columns, kept


def _spectrum_columns(
    frame: "pandas.DataFrame", num_units: int
) -> tuple[dict[str, list[object]], dict[str, list[float]], dict[str, Any]]:
    """The columns of the spectrum that are shown, the weight of each length for each measurement,
    and the facts.

    Shares are of all lengths: they are left out if some lengths were not sampled.
    """
    columns: dict[str, list[object]] = {
        "k": list(frame["k"]),
        "paths": [short(paths) for paths in frame["paths"]],
    }
    weights: dict[str, list[float]] = {}
    facts: dict[str, Any] = {"rows": len(frame)}
    for name, norm, weight, share in (
        ("sampled", "mean_norm", "total", "share_total"),
        ("exact", "exact_norm", "exact_norm", "share_exact"),
    ):
        if frame[norm].isna().all():
            continue
        columns[norm.replace("_", " ")] = [short(value) for value in frame[norm]]
        facts[f"{norm}_by_k"] = _by_length(frame, norm)
        if len(frame) == num_units + 1 and frame[norm].notna().all():
            shares = frame[share]
            columns[f"share {name}"] = [
                "-" if math.isnan(value) else f"{100 * value:.2f} %" for value in shares
            ]
            weights[name] = [float(value) for value in frame[weight]]
    return columns, weights, facts


def _intervals(
    name: str, lengths: list[int], weights: list[float], num_units: int
) -> tuple[str, dict[str, list[int]]]:
    """The shortest intervals of lengths that hold most of the gradient, as a sentence and facts."""
    intervals = {share: shortest_interval(lengths, weights, share) for share in SHARES}
    words = ", ".join(f"{share:.0%} in {a}-{b}" for share, (a, b) in intervals.items())
    first, last = intervals[0.9]
    inside = sum(math.comb(num_units, k) for k in range(first, last + 1)) / 2**num_units
    return (
        f"{name}: {words} units; {first}-{last} are {100 * inside:.2g} % of all paths",
        {f"{share:g}": list(interval) for share, interval in intervals.items()},
    )


def _direction(frame: "pandas.DataFrame", num_units: int) -> tuple[str, dict[str, float]]:
    """The length from which on the summed gradient has the direction of the ordinary one, as a
    sentence, and the cosine by length."""
    found = []
    for cosine in ALIGNED:
        # For all larger lengths too: a single cosine may be large by chance.
        below = frame.index[~(frame["cosine"] >= cosine)]
        length = int(below[-1]) + 1 if len(below) else 0
        found.append(f"{cosine:g} from length {length}")
    return (
        "the summed gradient of all paths up to a length has a cosine with the ordinary gradient "
        f"of at least {' on, '.join(found)} on, of {num_units}"
    ), _by_length(frame, "cosine")


def _by_length(frame: "pandas.DataFrame", column: str) -> dict[str, float]:
    """A column by path length, for the lengths that were measured."""
    measured = frame[frame[column].notna()]
    return {str(k): float(v) for k, v in zip(measured["k"], measured[column], strict=True)}
