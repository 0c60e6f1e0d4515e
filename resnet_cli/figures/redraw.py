"""The plots of results folders again, from their tables and provenance alone.

`python -m resnet_cli.figures.redraw results` draws what `resnet-cli run` drew beside each table,
after a change of the plots; it trains nothing, needs no data and writes no file but PNGs.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from resnet_cli.config.schema import Case, Experiment, ModelConfig
from resnet_cli.figures.draw import plot_deletions, plot_for, plot_ranked, plot_signals
from resnet_cli.figures.titles import Heading, heading_of, network_title
from resnet_cli.models import build
from resnet_cli.results.tables import COLUMNS, provenance_path, read_provenance, read_table

BESIDE = {
    "path_lengths": ("path_gradients", "path_spectrum"),
    "path_spectrum": (),
    "lesion_greedy": ("lesion_delete",),
}
"""Tables that are drawn together with others; all others are drawn alone."""
NOT_DRAWN = (
    "bench",
    "bench_summary",
    "bench_gpu",
    "bench_scaling",
    "reliability",
    "path_gradients",
)
CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100}


def redraw(folder: Path) -> list[Path]:
    """The plots of one folder: of its tables, or of its cases' together; the files written.

    Raises:
        UserError: a table or its provenance is damaged, or a file cannot be written.
    """
    stems = [stem for stem in COLUMNS if stem not in NOT_DRAWN and _has(folder, stem)]
    if not stems:
        return _redraw_cases(folder)
    if "lesion_greedy" in stems:
        stems.remove("lesion_delete")  # its random draws are a band in the other's plot
    written = []
    for stem in stems:
        told = read_provenance(folder / f"{stem}.csv")["config"]
        if told.get("only") is not None:
            continue
        experiment = _experiment(told)
        heading, model = _heading(told, experiment, folder)
        names = [stem, *(name for name in BESIDE.get(stem, ()) if _has(folder, name))]
        tables = {name: read_table(folder / f"{name}.csv") for name in names}
        chance, changes = _chance(heading.dataset), _changes(model)
        if stem == "path_survival":
            heading = Heading(heading.figure, f"{int(tables[stem]['k'].max())} units")
        written += plot_for(
            stem, tables, folder, heading, changes=changes, chance=chance, experiment=experiment
        )
        if (folder / "lesion_ranked.png").exists() and stem == "lesion_delete":
            written.append(plot_ranked(tables[stem], folder, heading, changes))
    return written


def _redraw_cases(folder: Path) -> list[Path]:
    """Single deletions, or signals, of all cases of an experiment in one plot."""
    for stem in ("lesion_delete", "signal"):
        folders = {path.parent.name: path.parent for path in folder.glob(f"*/{stem}.csv")}
        if not folders:
            continue
        first = next(iter(folders.values()))
        experiment = _experiment(read_provenance(first / f"{stem}.csv")["config"])
        if experiment is None:
            continue
        found = [
            (case, folders[name])
            for case, name in _folders(experiment)
            if name in folders and _has(folders[name], stem)
        ]
        tables = [(case, read_table(path / f"{stem}.csv")) for case, path in found]
        if len(tables) < 2:
            continue
        if stem == "signal":
            return plot_signals(experiment, tables, folder)
        runs = {case.name: run for case, run in experiment.runs()}
        changes = {
            name: _changes(run.model) for name, run in runs.items() if run.model.family != "vgg"
        }
        chance = _chance(heading_of(experiment).dataset)
        return plot_deletions(experiment, tables, changes, chance, folder)
    return []


def _has(folder: Path, stem: str) -> bool:
    table = folder / f"{stem}.csv"
    return table.exists() and provenance_path(table).exists()


def _experiment(told: Mapping[str, Any]) -> Experiment | None:
    """The experiment of a provenance; None for a command typed by hand."""
    if "cases" not in told:
        return None
    kept = {key: value for key, value in told.items() if key in Experiment.model_fields}
    return Experiment.model_validate(kept)


def _folders(experiment: Experiment) -> list[tuple[Case, str]]:
    """The folder below the experiment's own of every case and seed."""
    several = len(experiment.seeds) > 1
    return [
        (case, f"{case.name}{f'-seed{run.seed}' if several else ''}")
        for case, run in experiment.runs()
    ]


def _heading(
    told: Mapping[str, Any], experiment: Experiment | None, folder: Path
) -> tuple[Heading, ModelConfig | None]:
    """What the titles say, and the network of the folder."""
    if experiment is None:
        model = ModelConfig.model_validate(told["model"]) if told.get("model") else None
        label = network_title(model.label) if model is not None else "network"
        return Heading(None, label, (told.get("data") or {}).get("dataset", "")), model
    if experiment.study is None or len(experiment.runs()) == 1:
        case = experiment.cases[0] if experiment.study is not None else None
        return heading_of(experiment, case), experiment.runs()[0][1].model
    for (case, name), (_, run) in zip(_folders(experiment), experiment.runs(), strict=True):
        if name == folder.name:
            seed = run.seed if len(experiment.seeds) > 1 else None
            return heading_of(experiment, case, seed), run.model
    return heading_of(experiment), None


@cache
def _changes(model: ModelConfig | None) -> tuple[int, ...]:
    """The units of a network that change the shape."""
    if model is None:
        return ()
    return tuple(place.index for place in build(model, 10).places if place.changes_shape)


def _chance(dataset: str) -> float | None:
    """The error of guessing, percent; None where the number of classes is not known."""
    return 100.0 * (1 - 1 / CLASSES[dataset]) if dataset in CLASSES else None


def main(arguments: Sequence[str]) -> None:
    """Redraw the folders that are given, with all below them."""
    for root in map(Path, arguments or ["results"]):
        for folder in sorted({root, *(path for path in root.rglob("*") if path.is_dir())}):
            for path in redraw(folder):
                print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
