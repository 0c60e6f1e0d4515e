"""The figures that each study draws of its tables, and their sizes."""

from pathlib import Path

import pandas
import pytest
from figure_tables import (
    HEADING,
    additivity,
    classes,
    cumulative,
    deletions,
    effects,
    gradients,
    greedy,
    influences,
    iteratives,
    lengths,
    reorders,
    signals,
    size,
    spectrum,
    stages,
    survival,
    table,
    training,
)

from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.additivity import Additivity
from resnet_cli.studies.base import Study
from resnet_cli.studies.delete import DeleteUnits
from resnet_cli.studies.effects import Effects
from resnet_cli.studies.greedy import GreedyDeletion
from resnet_cli.studies.influence import BlockInfluence
from resnet_cli.studies.iterative import IterativeInference
from resnet_cli.studies.path_survival import PathSurvival
from resnet_cli.studies.paths.study import Paths
from resnet_cli.studies.reorder import ReorderUnits
from resnet_cli.studies.runner import draw
from resnet_cli.studies.signal import Signal

BENCHMARKS = {"bench", "bench_summary", "bench_scaling", "reliability"}
"""Tables that are read, not drawn."""

FRAMES = {
    "training": training(["original", "preact"]),
    "table": table(original=1.1, other=88.0),
    "lesion_delete": pandas.concat([deletions(k, [1.0 * k] * 4) for k in (1, 2, 3)]),
    "lesion_reorder": reorders([1.0 - 0.01 * i for i in range(20)]),
    "path_lengths": lengths(),
    "path_gradients": gradients(),
    "path_spectrum": spectrum(),
    "path_spectrum_stages": stages(),
    "path_spectrum_unit": stages("unit"),
    "lesion_greedy": greedy(),
    "lesion_additivity": additivity(),
    "lesion_classes": classes(),
    "path_survival": survival(),
    "signal": signals(),
    "influence": influences(),
    "iterative": iteratives(),
    "effects": effects(),
    "path_cumulative": cumulative(),
}

STUDIES: dict[str, tuple[Study, dict[str, tuple[int, int]]]] = {
    "lesion_delete": (
        DeleteUnits(k=(1, 2, 3)),
        {"lesion_single.png": (720, 510), "lesion_count.png": (720, 510)},
    ),
    "lesion_classes": (
        DeleteUnits(per_class=True, only=(1,)),
        {"lesion_classes.png": (1080, 276)},
    ),
    "lesion_reorder": (ReorderUnits(swaps=(1,)), {"lesion_reorder.png": (720, 510)}),
    "path_spectrum": (
        Paths(stages=True, unit=0, cumulative=True),
        {
            "paths.png": (1440, 495),
            "path_spectrum.png": (720, 510),
            "path_cumulative.png": (720, 510),
            "path_spectrum_stages.png": (720, 510),
            "path_spectrum_unit.png": (720, 510),
        },
    ),
    "lesion_greedy": (GreedyDeletion(), {"lesion_greedy.png": (720, 510)}),
    "lesion_additivity": (Additivity(), {"lesion_additivity.png": (1080, 510)}),
    "path_survival": (PathSurvival(), {"path_survival.png": (720, 510)}),
    "influence": (BlockInfluence(), {"influence.png": (1080, 510)}),
    "iterative": (IterativeInference(), {"iterative.png": (1440, 435)}),
    "effects": (Effects(), {"effects.png": (720, 612)}),
    "signal": (Signal(), {"signal.png": (1440, 468)}),
}


@pytest.mark.parametrize("table", STUDIES)
def test_the_figures_of_a_study(tmp_path: Path, table: str) -> None:
    study, files = STUDIES[table]
    written = draw(study.figures(FRAMES, HEADING), tmp_path / "new")
    assert {path.name: size(path) for path in written} == files
    assert {figure.name for figure in study.figures(FRAMES, HEADING)} <= set(study.pictures)


@pytest.mark.parametrize("table", sorted(set(STUDIES) - {"lesion_delete"}))
def test_an_empty_table_is_refused(tmp_path: Path, table: str) -> None:
    frames = FRAMES | {table: FRAMES[table].iloc[:0]}
    with pytest.raises(UserError, match=f"nothing to draw: {table} has no rows"):
        draw(STUDIES[table][0].figures(frames, HEADING), tmp_path)
