"""Which figures a table has, and their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

from resnet_cli.errors import unknown
from resnet_cli.plots.lesions import (
    lesion_additivity_figure,
    lesion_classes_figure,
    lesion_count_figure,
    lesion_greedy_figure,
    lesion_reorder_figure,
    lesion_single_figure,
)
from resnet_cli.plots.paths import (
    exact_figure,
    path_survival_figure,
    paths_figure,
    spectrum_figure,
)
from resnet_cli.plots.signals import signal_figure
from resnet_cli.plots.style import not_empty, save
from resnet_cli.plots.training import table_figure, training_figure
from resnet_cli.results.tables import COLUMNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_for(
    stem: str,
    tables: Mapping[str, pandas.DataFrame],
    folder: Path,
    title: str,
    *,
    network: str = "network",
    changes: Sequence[int] = (),
    chance: float | None = None,
    numbers: pandas.DataFrame | None = None,
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
        title: as `describe` makes it.
        network: the legend's name for the network (single deletions).
        changes: indices of the units that change the shape (single deletions).
        chance: the error of guessing, percent (lesions).
        numbers: the paper's rows (table).

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
    figures: dict[str, Figure] = {}
    if stem == "training":
        figures[stem] = training_figure(frame, title)
    elif stem == "table":
        figures[stem] = table_figure(frame, title, numbers)
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
        if (frame["k"] == 1).any():
            figures["lesion_single"] = lesion_single_figure(
                {network: frame}, title, changes={network: changes}, chance=chance
            )
        if (frame["k"] != 1).any():
            figures["lesion_count"] = lesion_count_figure(frame, title, chance=chance)
    elif stem == "path_spectrum":
        figures[stem] = spectrum_figure(frame, title)
    elif stem in ("path_spectrum_stages", "path_spectrum_unit"):
        figures[stem] = exact_figure(frame, "stage" if stem.endswith("stages") else "unit", title)
    elif stem == "path_survival":
        figures[stem] = path_survival_figure(frame, title)
    elif stem == "signal":
        figures[stem] = signal_figure({network: frame}, title)
    elif {"path_lengths", "path_gradients"} <= set(tables):
        figures["paths"] = paths_figure(
            tables["path_lengths"],
            tables["path_gradients"],
            title,
            spectrum=tables.get("path_spectrum"),
        )
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]
