"""Running a study of a network: measure the missing tables, draw the figures, and summarise."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pandas import DataFrame

from resnet_cli.config.editions import EDITION
from resnet_cli.config.fields import chance_error
from resnet_cli.config.schema import DataConfig, Profile
from resnet_cli.datasets.catalogue import SPLITS
from resnet_cli.figures.style import FigureKind, save
from resnet_cli.figures.titles import Heading, network_title
from resnet_cli.results.provenance import Checkpoint, collect
from resnet_cli.results.tables import is_pair, read_provenance, read_table, write_table
from resnet_cli.runtime import processes
from resnet_cli.runtime.display import Display
from resnet_cli.runtime.errors import UserError
from resnet_cli.studies.base import Case, NamedFigure, Row, Study, Summary, stored_study
from resnet_cli.studies.finite import check_outputs
from resnet_cli.studies.progress import Pieces, Progress
from resnet_cli.studies.subject import Subject, check_names


@dataclass
class Written:
    """The files that a command wrote, and its results."""

    files: list[Path] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)
    """Files that were complete already."""


@dataclass(kw_only=True)
class StudyResult(Written):
    """What a study of one network wrote, and its tables and summary."""

    tables: Mapping[str, DataFrame]
    summary: Summary


def run_study(
    subject: Subject,
    study: Study,
    *,
    seed: int,
    out: Path,
    display: Display,
    profile: Profile | None = None,
    config: Mapping[str, Any] | None = None,
    heading: Heading | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    shows_tables: bool = True,
) -> StudyResult:
    """Measure the tables that are missing in `out`, draw the figures, and show the summary.

    Args:
        config: the resolved experiment; None: a command without an experiment.
        heading: the setting in the titles of figures; None: network and data set.
        should_stop: called after every piece of the measurement.
        shows_tables: show the tables of the summary, not only its sentences.

    Raises:
        Interrupted: `should_stop` returned true; the same call continues from there.
        UserError: the study names units or lengths that the network does not have, or the network's
            outputs are not finite.
    """
    study.check(subject)
    run = _StudyRun(subject, study, config, seed, out, profile, display, should_stop)
    facts = run.measure()
    tables = processes.from_first(partial(read_tables, study, out))
    if heading is None:
        network = network_title(subject.loaded.label)
        heading = Heading(None, network, subject.data.dataset, profile=profile)
    figures = study.figures(tables, heading_for(subject, heading))
    run.written.files += processes.from_first(lambda: draw(figures, out))
    summary = study.summary(tables, subject)
    if shows_tables:
        display.table(summary.title, summary.columns, summary.rows)
        for title, columns, rows in summary.more:
            display.table(title, columns, rows)
    for sentence in summary.sentences:
        display.paragraph(sentence, level=-1)
    return StudyResult(
        files=run.written.files,
        facts=summary.facts | facts,
        kept=run.written.kept,
        tables=tables,
        summary=summary,
    )


def run_together(
    subjects: Sequence[Subject],
    study: Study,
    *,
    seed: int,
    out: Path,
    display: Display,
    should_stop: Callable[[], bool] = lambda: False,
) -> Written:
    """Run one study of several networks: write the tables of each to its own folder below `out`,
    show one table, and draw one figure of all.

    Raises:
        Interrupted: `should_stop` returned true; the same call continues from there.
        UserError: the study names units or lengths that a network does not have, or two networks
            have the same name.
    """
    check_names(subjects)
    written, cases = Written(), []
    shown: dict[tuple[str, ...], list[list[Any]]] = {}
    for subject in subjects:
        study.check(subject)
    for subject in subjects:
        folder = out / subject.name
        display.line(f"{subject.name}:", level=-1)
        one = run_study(
            subject,
            study,
            seed=seed,
            out=folder,
            display=display,
            should_stop=should_stop,
            shows_tables=False,
        )
        written.files += one.files
        written.kept += one.kept
        written.facts[subject.name] = one.facts
        heading = Heading(None, network_title(subject.loaded.label), subject.data.dataset)
        cases.append(Case(subject.name, one.tables, heading_for(subject, heading)))
        rows = [[subject.name, *row] for row in one.summary.rows]
        shown.setdefault(("network", *one.summary.columns), []).extend(rows)
    for columns, rows in shown.items():
        display.table(study.title, columns, rows)
    cases.sort(key=lambda case: case.name)  # as the figures are drawn again from the folders
    figures = study.figures_together(cases, title_together(study, cases))
    written.files += processes.from_first(lambda: draw(figures, out))
    return written


def title_together(study: Study, cases: Sequence[Case]) -> str:
    """The title of the figures of several networks."""
    datasets = {case.heading.dataset for case in cases}
    return Heading(None, "", datasets.pop() if len(datasets) == 1 else "").over(study.title)


def heading_for(subject: Subject, heading: Heading) -> Heading:
    """A heading with what figures mark: units that change the shape, and the error of guessing."""
    places = subject.network.places
    return replace(
        heading,
        changes=tuple(place.index for place in places if place.changes_shape),
        chance=chance_error(subject.loaded.num_classes),
    )


def draw(figures: Iterable[NamedFigure], folder: Path, kind: FigureKind = "png") -> list[Path]:
    """Draw figures into a folder. Returns the files written."""
    return [save(figure.draw(), folder / f"{figure.name}.{kind}") for figure in figures]


class FolderTables(dict[str, DataFrame]):
    """The tables of a folder by name. Reading one that it does not have is a UserError."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        paths = {name: folder / f"{name}.csv" for name in names}
        super().__init__({n: read_table(path) for n, path in paths.items() if path.exists()})
        self.folder = folder

    def __missing__(self, name: str) -> DataFrame:
        raise UserError(
            f"{self.folder / name}.csv: is missing (was the study stopped before it?); repeat the "
            "command of the study, which measures only what is missing"
        )


def read_tables(study: Study, folder: Path) -> FolderTables:
    """The study's tables that a folder has."""
    return FolderTables(folder, study.names())


def identity(config: Mapping[str, Any], table: str | None = None) -> dict[str, Any]:
    """The settings that, with the weights and the images, determine a study's numbers.

    Args:
        config: of a provenance file of any edition.
        table: of whose numbers; None: of all tables.
    """
    study = stored_study(config)
    data = config.get("data")
    return {
        "study": study.identity(table) if study is not None else None,
        "data": DataConfig.model_validate(data).model_dump(mode="json", exclude_defaults=True),
        "seed": config.get("seed") if study is None or study.needs_network else None,
        "engine": config.get("engine", "fast"),
        "overrides": config.get("overrides", {}),
    }


class _StudyRun:
    """One study of one network, with the tables in its folder."""

    def __init__(
        self,
        subject: Subject,
        study: Study,
        config: Mapping[str, Any] | None,
        seed: int,
        out: Path,
        profile: Profile | None,
        display: Display,
        should_stop: Callable[[], bool],
    ) -> None:
        model = subject.loaded.model
        by_hand: dict[str, Any] = {
            "edition": EDITION,
            "model": model.model_dump(mode="json") if model is not None else None,
            "data": subject.data.model_dump(mode="json"),
        }
        if subject.loaded.assumptions:
            by_hand["assumptions"] = {a.key: a.value for a in subject.loaded.assumptions}
        if subject.loaded.overrides:
            by_hand["overrides"] = dict(subject.loaded.overrides)
        # An experiment's data are stored as it names them, so that it can be run again from its
        # provenance. The number of measured images is part of the study and of the table.
        self.config = dict(config or by_hand) | {
            "study": study.model_dump(mode="json"),
            "seed": seed,
        }
        if subject.context.engine != "fast":
            self.config["engine"] = subject.context.engine
        self.subject, self.study, self.seed, self.out = subject, study, seed, out
        self.profile, self.display, self.should_stop = profile, display, should_stop
        self.started = datetime.now(UTC)
        self.written = Written()

    def measure(self) -> dict[str, Any]:
        """Measure and write the missing tables. Returns `Progress.facts`."""
        missing = [name for name in self.study.names() if not self._is_done(name)]
        if not missing:
            return {}
        loaded, left = self.subject.loaded, list(missing)
        split = self.study.split
        if split is not None:
            by_batch = self.study.normalises_by_batch
            check_outputs(self.subject, split, batch_statistics=by_batch)
        pieces = Pieces(
            self._path(missing[0]),
            identity(self.config)
            | {"weights": loaded.sha256, "device": str(self.subject.context.device)}
            | {"images": self._check_images()},
        )
        progress = Progress(self.display, self.should_stop, pieces, missing, self._rows)
        try:
            for name, rows, splits in self.study.measure(self.subject, self.seed, progress):
                if name not in left:
                    continue
                write = partial(self._write, name, rows, splits)
                self.written.files.append(processes.from_first(write))
                left.remove(name)
                pieces.remove()
                if left:
                    pieces.begin(self._path(left[0]))
        finally:
            pieces.close()
        return progress.facts

    def _path(self, name: str) -> Path:
        return self.out / f"{name}.csv"

    def _rows(self, name: str) -> list[Row]:
        found = processes.from_first(lambda: read_table(self._path(name)))
        return [{str(k): v for k, v in row.items()} for row in found.to_dict("records")]

    def _is_done(self, name: str) -> bool:
        """Whether the table of this study, weights, images and seed is complete."""
        done = processes.from_first(lambda: self._is_there(self._path(name)))
        if done:
            self.written.kept.append(self._path(name))
        return done

    def _is_there(self, path: Path) -> bool:
        with suppress(UserError, ValueError):
            if not path.exists() or not is_pair(path):
                return False
            old = read_provenance(path)
            weights = (old.get("checkpoint") or {}).get("sha256")
            same_weights = not self.study.needs_network or weights == self.subject.loaded.sha256
            return (
                same_weights
                and identity(old["config"], path.stem) == identity(self.config, path.stem)
                and self._has_these_images(old.get("data") or {})
            )
        return False

    def _check_images(self) -> str | None:
        """The fingerprint of the images to measure on. Shows a line if they are not those of the
        network's training."""
        split = self.study.split
        if split is None:
            return None
        line = self.subject.other_images(split)
        if line is not None:
            self.display.paragraph(line)
        return self._fingerprint(split)

    def _has_these_images(self, recorded: Mapping[str, str]) -> bool:
        """Whether the fingerprints by `data set/split` are those of the available images."""
        context, data = self.subject.context, self.subject.data
        return all(
            context.fingerprint(data, name) in (None, recorded.get(f"{data.dataset}/{name}"))
            for name in SPLITS
            if f"{data.dataset}/{name}" in recorded
        )

    def _fingerprint(self, split: str) -> str:
        return self.subject.context.split(self.subject.data, split).fingerprint  # type: ignore[arg-type]

    def _write(self, name: str, rows: Sequence[Row], splits: Sequence[str]) -> Path:
        loaded, needed = self.subject.loaded, self.study.needs_network
        provenance = collect(
            self.config,
            seeds=(self.seed,) if needed else (),
            started=self.started,
            profile=self.profile,
            data={
                f"{self.subject.data.dataset}/{name}": self._fingerprint(name) for name in splits
            },
            checkpoint=Checkpoint(source=loaded.source, sha256=loaded.sha256) if needed else None,
            device=str(self.subject.context.device),
        )
        return write_table(rows, name, self.out, provenance)
