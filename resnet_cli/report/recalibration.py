"""The effect of re-estimated batch-norm statistics, in sentences for the report.

They give absolute errors with the range over draws of images, not shares of the damage: the share
of a small damage is meaningless.
"""

from pathlib import Path

from pandas import DataFrame

from resnet_cli.report.labels import network_label
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.studies.recalibration import OTHER, OWN, RECALIBRATED

WORST = 3
"""Number of units that are named: those whose deletion does the most damage."""


def recovered(folder: Path) -> list[str]:
    """A sentence on each `recalibration.csv` of a profile.

    Args:
        folder: `results/veit2016/<profile>`.

    Raises:
        UserError: a table cannot be read.
    """
    sentences = []
    for path in sorted(folder.rglob("recalibration.csv")):
        name = network_label(folder.name, read_provenance(path), path.parent.name)
        sentences.append(f"{name}: {_of_single_units(read_table(path))}")
    return sentences


def _of_single_units(frame: DataFrame) -> str:
    """The errors of the most harmful deletions and of the intact network as trained and, after the
    arrow, re-estimated (range over draws of images; with the statistics of another lesion)."""
    most = frame.loc[frame["statistics"] == RECALIBRATED, "recalibration_images"].max()
    again = frame[(frame["statistics"] == RECALIBRATED) & (frame["recalibration_images"] == most)]
    own = frame[frame["statistics"] == OWN].set_index("blocks")["test_error"]
    other = frame[frame["statistics"] == OTHER].set_index("blocks")["test_error"]
    errors = again.groupby("blocks")["test_error"].agg(["mean", "min", "max"])
    worst = own.drop("", errors="ignore").sort_values(ascending=False).index[:WORST]
    parts = []
    for unit in worst:
        mean, low, high = (errors.loc[unit, name] for name in ("mean", "min", "max"))
        notes = [f"{low:.1f} to {high:.1f}"] if high > low else []
        notes += [f"other lesion {other[unit]:.1f} %"] if unit in other else []
        note = f" ({'; '.join(notes)})" if notes else ""
        parts.append(f"without unit {unit} {own[unit]:.1f} → {mean:.1f} %{note}")
    intact = ""
    if "" in own and "" in errors.index:
        intact = f"; intact {own['']:.1f} → {errors.loc['', 'mean']:.1f} %"
    return f"{'; '.join(parts)}{intact}; {most:,} training images."
