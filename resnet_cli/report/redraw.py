"""Redraw the figures of results folders from their tables and provenance.

`python -m resnet_cli.report.redraw results` redraws the figures next to each table after a change
of the drawing code. It trains nothing, needs no data and writes only PNGs.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from resnet_cli.claims.evidence import dataset_of
from resnet_cli.config.fields import chance_error, validated
from resnet_cli.config.schema import Experiment, ModelConfig
from resnet_cli.datasets.catalogue import find_dataset
from resnet_cli.figures.style import FigureKind
from resnet_cli.figures.titles import Heading, case_name, heading_of, network_title
from resnet_cli.figures.training import figure_of_trainings
from resnet_cli.models.factory import build
from resnet_cli.results.columns import all_tables
from resnet_cli.results.layout import case_folder, provenance_path
from resnet_cli.results.tables import read_provenance, read_table
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Case, NamedFigure, Study, stored_study
from resnet_cli.studies.runner import draw, read_tables, title_together


def redraw(folder: Path) -> list[Path]:
    """Redraw the figures of one folder: of its tables, or of its cases together; return the files.

    Raises:
        UserError: a table or its provenance is damaged, or a file cannot be written.
    """
    return draw(figures_of(folder), folder)


def plot(source: Path, out: Path | None = None, kind: FigureKind = "png") -> list[Path]:
    """Draw the figures of a table, or of all tables of a folder; return the files.

    Args:
        source: a CSV with its provenance next to it, or a folder of them.
        out: the folder of the figures; None: that of the table.

    Raises:
        UserError: there is no such table, it has no provenance or figure, or it is damaged; or a
            table of the same study is missing. Figures that do not need that table are drawn.
    """
    if source.is_dir():
        folder, only = source, None
    else:
        folder, only = source.parent, source.stem
        if source.suffix != ".csv" or not source.exists():
            raise UserError(f"{source}: is not a table (.csv) or a folder of tables")
        if not _has(folder, source.stem):
            raise UserError(
                f"{source}: has no {provenance_path(source).name} next to it, which describes it"
            )
    written = draw(figures_of(folder, only), out or folder, kind)
    if not written:
        raise UserError(f"{source}: there is no figure of this table")
    return written


def figures_of(folder: Path, only: str | None = None) -> Iterator[NamedFigure]:
    """The figures of a folder's tables, or, if it has none, of its cases together.

    Args:
        only: the stem of a table: only the figures of its study or training.
    """
    any_table = False
    for stem in ("training", "table"):
        if _has(folder, stem) and only in (None, stem):
            experiment = _experiment(_config_of(folder / f"{stem}.csv"))
            if experiment is not None:
                any_table = True
                table = read_table(folder / f"{stem}.csv")
                yield NamedFigure(stem, partial(figure_of_trainings, stem, table, experiment))
    drawn_before = {path.stem for path in folder.glob("*.png")}
    for study, config in _studies(folder):
        if only is None or only in study.names():
            any_table = True
            drawn = study.as_drawn(drawn_before)
            heading = _heading(config, _experiment(config), folder)
            yield from drawn.figures(read_tables(drawn, folder), heading)
    if not any_table and only is None:
        yield from _figures_together(folder)


def _studies(folder: Path) -> Iterator[tuple[Study, Mapping[str, Any]]]:
    """The studies that have tables in a folder, each with its configuration."""
    found: dict[str, tuple[Study, Mapping[str, Any]]] = {}
    for table in _measured_in(folder):
        config = _config_of(folder / f"{table}.csv")
        study = stored_study(config)
        if study is not None:
            found.setdefault(study.model_dump_json(), (study, config))
    yield from found.values()


def _measured_in(folder: Path) -> list[str]:
    """The tables of a folder that have a provenance."""
    return [table.name for table in all_tables() if _has(folder, table.name)]


def measured_last(folders: Iterable[Path]) -> Mapping[str, Any]:
    """The configuration of the table that was measured last. A run measures only what is missing,
    so the other tables can be those of an earlier version of the experiment."""
    tables = [folder / f"{name}.csv" for folder in folders for name in _measured_in(folder)]
    return _config_of(max(tables, key=lambda table: str(read_provenance(table).get("started"))))


def _figures_together(folder: Path) -> Iterable[NamedFigure]:
    """The figures of all cases of an experiment together, or of all networks that one command
    studied."""
    found = [(path, *entry) for path in sorted(folder.glob("*/")) for entry in _studies(path)]
    if not found:
        return []
    _, study, _ = found[0]
    experiment = _experiment(measured_last(path for path, *_ in found))
    if experiment is None:
        cases = [
            Case(path.name, read_tables(study, path), _heading(config, None, path))
            for path, other, config in found
            if other == study
        ]
        title = title_together(study, cases)
        return study.figures_together(cases, title) if len(cases) > 1 else []
    cases = []
    for case, run in experiment.runs():
        below = folder / case_folder(experiment, case.name, run.seed)
        if any(_has(below, name) for name in study.names()):
            heading = _marked(heading_of(experiment, case), run.model)
            cases.append(Case(case_name(case), read_tables(study, below), heading))
    if len(cases) < 2:
        return []
    title = heading_of(experiment).over(experiment.title)
    return study.figures_together(cases, title)


def _has(folder: Path, stem: str) -> bool:
    table = folder / f"{stem}.csv"
    return table.exists() and provenance_path(table).exists()


def _config_of(table: Path) -> Mapping[str, Any]:
    """The configuration in a table's provenance.

    Raises:
        UserError: there is none, or its study or experiment is not valid.
    """
    config: Mapping[str, Any] | None = read_provenance(table).get("config")
    try:
        if config is None:
            raise UserError("is missing")
        stored_study(config)
        _experiment(config)
    except UserError as error:
        path = provenance_path(table)
        raise UserError(
            f"{path}: config: {error}; restore the file or measure the table again"
        ) from None
    return config


def _experiment(config: Mapping[str, Any]) -> Experiment | None:
    """The experiment in a provenance; None for a study from the command line.

    Raises:
        UserError: it is not valid.
    """
    if "cases" not in config:
        return None
    kept = {key: value for key, value in config.items() if key in Experiment.model_fields}
    return validated(Experiment, kept, "experiment")


def _heading(config: Mapping[str, Any], experiment: Experiment | None, folder: Path) -> Heading:
    """The heading of a folder's figures."""
    if experiment is None:
        model = ModelConfig.model_validate(config["model"]) if config.get("model") else None
        label = network_title(model.label) if model is not None else "network"
        return _marked(Heading(None, label, dataset_of(config)), model)
    runs = experiment.runs()
    if len(runs) == 1:
        return _marked(heading_of(experiment, runs[0][0]), runs[0][1].model)
    for case, run in runs:
        if case_folder(experiment, case.name, run.seed) == folder.name:
            seed = run.seed if len(experiment.seeds) > 1 else None
            return _marked(heading_of(experiment, case, seed), run.model)
    return heading_of(experiment)


def _marked(heading: Heading, model: ModelConfig | None) -> Heading:
    """A heading with the units that change the shape and the error of guessing, for the figures."""
    data = find_dataset(heading.dataset)
    chance = chance_error(len(data.classes)) if data is not None and data.classes else None
    return replace(heading, changes=_changes(model), chance=chance)


@cache
def _changes(model: ModelConfig | None) -> tuple[int, ...]:
    """The units of a network that change the shape."""
    if model is None:
        return ()
    return tuple(place.index for place in build(model, 10).places if place.changes_shape)


def main(arguments: Sequence[str]) -> None:
    """Redraw the given folders and all folders in them."""
    for root in map(Path, arguments or ["results"]):
        for folder in sorted({root, *(path for path in root.rglob("*") if path.is_dir())}):
            for path in redraw(folder):
                print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
