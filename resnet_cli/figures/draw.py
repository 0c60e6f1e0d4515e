"""Which figures a table has, and their files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

from resnet_cli.claims.papers import published
from resnet_cli.config.schema import Case, Experiment
from resnet_cli.figures.lesions import (
    lesion_additivity_figure,
    lesion_classes_figure,
    lesion_count_figure,
    lesion_greedy_figure,
    lesion_ranked_figure,
    lesion_reorder_figure,
    lesion_single_figure,
)
from resnet_cli.figures.paths import (
    exact_figure,
    path_survival_figure,
    paths_figure,
    spectrum_figure,
)
from resnet_cli.figures.signals import signal_figure
from resnet_cli.figures.style import not_empty, save
from resnet_cli.figures.titles import Heading, case_name, case_names, heading_of
from resnet_cli.figures.training import table_figure, training_figure
from resnet_cli.results.tables import COLUMNS
from resnet_cli.runtime.errors import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN = {
    "training": "Training curves",
    "table": "Error after training",
    "lesion_single": "Error after deleting one {unit}",
    "lesion_count": "Error after deleting several {unit}s at random",
    "lesion_ranked": "Damage by deleting one {unit}, worst first",
    "lesion_reorder": "Error after reordering {unit}s",
    "lesion_greedy": "Error after deleting the least harmful {unit}s",
    "lesion_additivity": "Joint damage of deleted {unit}s against the sum of their single damages",
    "lesion_classes": "Damage by class after deleting {unit}s",
    "paths": "Paths by length, and the gradient that they carry",
    "path_spectrum": "Gradient by path length, sampled and exact",
    "path_spectrum_stages": "Exact gradient by path length within each stage",
    "path_spectrum_unit": "Exact gradient of one unit's parameters by path length",
    "path_survival": "Paths left after deleting units",
    "signal": "Signals by unit",
}
"""What plots show, in words for a title."""


def plot_for(
    stem: str,
    tables: Mapping[str, pandas.DataFrame],
    folder: Path,
    heading: Heading,
    *,
    changes: Sequence[int] = (),
    chance: float | None = None,
    experiment: Experiment | None = None,
) -> list[Path]:
    """Draw what a table is for; the one call of the studies.

    training -> training.png; table -> table.png; lesion_delete -> lesion_single.png when k = 1 was
    measured and lesion_count.png when another k was; lesion_reorder -> lesion_reorder.png;
    path_lengths and path_gradients -> paths.png once both are there; path_spectrum ->
    path_spectrum.png; lesion_greedy (with lesion_delete, if there), lesion_additivity,
    lesion_classes, path_survival, path_spectrum_stages, path_spectrum_unit and signal -> a PNG of
    the same name.

    Args:
        stem: which table to draw.
        tables: stem -> DataFrame; must hold `stem`, and the other path tables where there are any.
        heading: what the titles say beside what is shown.
        changes: indices of the units that change the shape (single deletions).
        chance: the error of guessing, percent (lesions).
        experiment: whose title, names of cases and published numbers are shown (training, table).

    Returns:
        The files written; none when `tables` holds too little for a figure.

    Raises:
        UserError: no such table, an empty one, or a file cannot be written.
    """
    if stem not in COLUMNS:
        raise unknown("table", stem, COLUMNS)
    frame = tables[stem]
    if stem == "lesion_delete":
        not_empty(frame, stem)
    title = _title(stem, heading)
    figures: dict[str, Figure] = {}
    if stem in ("training", "table"):
        figures[stem] = _training_plot(stem, frame, heading, experiment)
    elif stem == "lesion_reorder":
        figures[stem] = lesion_reorder_figure(frame, title, chance=chance)
    elif stem == "lesion_greedy":
        drawn = tables.get("lesion_delete")
        figures[stem] = lesion_greedy_figure(frame, title, random=drawn, chance=chance)
    elif stem == "lesion_additivity":
        figures[stem] = lesion_additivity_figure(frame, title)
    elif stem == "lesion_classes":
        figures[stem] = lesion_classes_figure(frame, title)
    elif stem == "lesion_delete":
        several = bool((frame["k"] != 1).any())
        if (frame["k"] == 1).any():
            # Beside a box for each k, the plot of k = 1 is not the paper's figure.
            alone = replace(heading, figure=None) if several else heading
            name = heading.network or "network"
            figures["lesion_single"] = lesion_single_figure(
                {name: frame},
                _title("lesion_single", alone),
                changes={name: changes},
                chance=chance,
            )
        if several:
            title = _title("lesion_count", heading)
            figures["lesion_count"] = lesion_count_figure(frame, title, chance=chance)
    elif stem == "path_spectrum":
        figures[stem] = spectrum_figure(frame, title)
    elif stem in ("path_spectrum_stages", "path_spectrum_unit"):
        figures[stem] = exact_figure(frame, "stage" if stem.endswith("stages") else "unit", title)
    elif stem == "path_survival":
        figures[stem] = path_survival_figure(frame, title)
    elif stem == "signal":
        figures[stem] = signal_figure({heading.network: frame}, title)
    elif {"path_lengths", "path_gradients"} <= set(tables):
        figures["paths"] = paths_figure(
            tables["path_lengths"],
            tables["path_gradients"],
            _title("paths", heading),
            spectrum=tables.get("path_spectrum"),
        )
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def _title(name: str, heading: Heading) -> str:
    unit = "layer" if heading.network.startswith("VGG") else "unit"
    return heading.over(SHOWN.get(name, name).format(unit=unit))


def plot_ranked(
    deletions: pandas.DataFrame, folder: Path, heading: Heading, changes: Sequence[int]
) -> Path:
    """Draw single deletions by damage."""
    figure = lesion_ranked_figure(deletions, _title("lesion_ranked", heading), changes=changes)
    return save(figure, folder / "lesion_ranked.png")


def _training_plot(
    stem: str, table: pandas.DataFrame, heading: Heading, experiment: Experiment | None
) -> "Figure":
    """training.csv or table.csv, with an experiment's title, names and published numbers."""
    if experiment is None:
        title = heading.over(SHOWN[stem])
        return training_figure(table, title) if stem == "training" else table_figure(table, title)
    title = heading.over(experiment.title)
    names = case_names(experiment)
    if stem == "training":
        return training_figure(table, title, names)
    numbers = None
    if experiment.paper == "he2016" and experiment.figure is not None:
        numbers = published(experiment.paper)
        numbers = numbers[numbers["source"] == experiment.figure]
        numbers = None if numbers.empty else numbers
    return table_figure(table, title, numbers, names)


def plot_deletions(
    experiment: Experiment,
    tables: Sequence[tuple[Case, pandas.DataFrame]],
    changes: Mapping[str, Sequence[int]],
    chance: float | None,
    folder: Path,
) -> list[Path]:
    """Single deletions of all cases in one plot (paper 2, Figures 3 and 8), averaged over seeds.

    Args:
        tables: rows of lesion_delete.csv of each case and seed.
        changes: case -> the units that change the shape.
    """
    frames: dict[str, list[pandas.DataFrame]] = {}
    for case, table in tables:
        frames.setdefault(case_name(case), []).append(table)
    figure = lesion_single_figure(
        {name: pandas.concat(parts, ignore_index=True) for name, parts in frames.items()},
        heading_of(experiment).over(experiment.title),
        changes={case_name(case): changes.get(case.name, ()) for case, _ in tables},
        chance=chance,
    )
    return [save(figure, folder / "lesion_single.png")]


def plot_signals(
    experiment: Experiment, tables: Sequence[tuple[Case, pandas.DataFrame]], folder: Path
) -> list[Path]:
    """The signals of all cases in one plot; of several seeds, each case's first."""
    frames: dict[str, pandas.DataFrame] = {}
    for case, table in tables:
        frames.setdefault(case_name(case), table)
    title = heading_of(experiment).over(experiment.title)
    return [save(signal_figure(frames, title), folder / "signal.png")]
