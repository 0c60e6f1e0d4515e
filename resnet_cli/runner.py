"""Carries out experiments: trains what is missing, asks the studies, writes tables and plots."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pandas import DataFrame, concat

from resnet_cli.config import (
    AdditivityStudy,
    Case,
    DeleteStudy,
    Experiment,
    GreedyStudy,
    PathsStudy,
    PathSurvivalStudy,
    ReorderStudy,
    RunConfig,
    config_hash,
    experiment_names,
)
from resnet_cli.context import Context, Subject, find_subject
from resnet_cli.display import Display
from resnet_cli.errors import UserError, unknown
from resnet_cli.intervals import SHARES, shortest_interval
from resnet_cli.papers import PAPERS, published, published_error
from resnet_cli.results.plots import describe, plot_for, plot_lesion_ranked, plot_lesion_single
from resnet_cli.results.provenance import Checkpoint, collect
from resnet_cli.results.tables import is_pair, read_provenance, read_table, write_table
from resnet_cli.studies import additivity, greedy, lesion, paths
from resnet_cli.studies.path_survival import path_survival
from resnet_cli.training.interrupt import Interrupted, Stopper
from resnet_cli.training.loop import Progress
from resnet_cli.training.runs import FinishedRun, find_finished, train_run

AnyStudy = DeleteStudy | ReorderStudy | PathsStudy | GreedyStudy | AdditivityStudy
"""The studies of a network; path_survival needs none."""
PLOT_SECONDS = 60.0
"""Seconds between the plots of an experiment that is still training."""


@dataclass
class Written:
    """The files a command wrote, and what it found, for its summary."""

    files: list[Path] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


# --- experiments -------------------------------------------------------------------------------


def default_out(experiment: Experiment, results: Path = Path("results")) -> Path:
    """`results/<paper>/<profile>/<experiment>`, or `results/local/<experiment>/<profile>`."""
    if experiment.paper is None:
        return results / "local" / experiment.name / experiment.profile
    name = experiment.name.removeprefix(f"{experiment.paper}/")
    return results / experiment.paper / experiment.profile / name


def paper_experiments(paper: str) -> list[str]:
    """A paper's experiments, tables before figures: figures share the tables' trainings.

    Raises:
        UserError: there is no such paper.
    """
    if paper not in PAPERS:
        raise unknown("paper", paper, PAPERS)
    names = [name for name in experiment_names() if name.startswith(f"{paper}/")]
    return sorted(names, key=lambda name: (name.startswith(f"{paper}/fig"), name))


def run_experiment(
    experiment: Experiment, context: Context, display: Display, stopper: Stopper, out: Path
) -> Written:
    """Train every case and seed that is not trained yet; then the study, or the tables.

    Tables are written anew after each training, so that nothing measured waits for the rest, and
    never with fewer rows than are trained. Their plots follow at most once a minute, and at the
    end.

    Raises:
        Interrupted: `stopper` said so; what is done is written.
        UserError: data are missing, or files cannot be written.
    """
    display.line(f"{experiment.name} (profile {experiment.profile}): {experiment.title}")
    started = datetime.now(UTC)
    if isinstance(experiment.study, PathSurvivalStudy):
        return _path_survival(experiment, experiment.study, out, display)
    trained: list[tuple[Case, FinishedRun]] = []
    written = Written()
    runs = experiment.runs()
    plotted = time.monotonic()
    for case, run in runs:
        is_new = find_finished(context, run) is None
        finished = _trained(experiment, case, run, context, display, stopper)
        trained.append((case, finished))
        is_last = len(trained) == len(runs)
        if experiment.study is None and (is_new or is_last):
            plot = is_last or time.monotonic() - plotted > PLOT_SECONDS
            written = write_training_tables(experiment, trained, context, out, started, plot=plot)
            plotted = time.monotonic() if plot else plotted
    if experiment.study is None:
        _show_table(experiment, out, display)
        return written
    several_seeds = len(experiment.seeds) > 1
    studied: list[tuple[Case, Subject, Path]] = []
    for case, finished in trained:
        if stopper():
            raise Interrupted("stopped between studies; the same command goes on from there")
        folder = out
        if len(experiment.cases) > 1 or several_seeds:
            suffix = f"-seed{finished.run.seed}" if several_seeds else ""
            folder = out / f"{case.name}{suffix}"
        if finished.diverged_at is not None:
            display.line(f"case {case.name}: diverged in training; there is nothing to study")
            continue
        subject = find_subject(context, str(finished.folder))
        more = run_study(
            subject,
            experiment.study,
            seed=finished.run.seed,
            out=folder,
            display=display,
            profile=experiment.profile,
            config=experiment.model_dump(mode="json"),
        )
        written.files += more.files
        written.facts[case.name if not several_seeds else folder.name] = more.facts
        studied.append((case, subject, folder))
    if isinstance(experiment.study, DeleteStudy) and len(studied) > 1:
        written.files += _plot_together(experiment, experiment.study, studied, out)
    return written


def _plot_together(
    experiment: Experiment,
    study: DeleteStudy,
    studied: Sequence[tuple[Case, Subject, Path]],
    out: Path,
) -> list[Path]:
    """Single deletions of all cases in one plot (paper 2, Figures 3 and 8), averaged over seeds."""
    if 1 not in study.k:
        return []
    tables: dict[str, list[DataFrame]] = {}
    changes: dict[str, list[int]] = {}
    for case, subject, folder in studied:
        name = case.title or case.name
        tables.setdefault(name, []).append(read_table(folder / "lesion_delete.csv"))
        if subject.loaded.model.family == "resnet":  # a VGG's shape changes at every pooling
            places = subject.loaded.network.places
            changes[name] = [place.index for place in places if place.changes_shape]
    subject = studied[0][1]
    return [
        plot_lesion_single(
            {name: concat(frames, ignore_index=True) for name, frames in tables.items()},
            out / "lesion_single.png",
            describe(experiment.name.split("/")[-1], subject.data.dataset, experiment.profile),
            changes=changes,
            chance=100.0 * (1 - 1 / subject.loaded.num_classes),
        )
    ]


def _path_survival(
    experiment: Experiment, study: PathSurvivalStudy, out: Path, display: Display
) -> Written:
    """path_survival.csv and its plot: arithmetic on the number of units, nothing is trained."""
    num_units = sum(experiment.model.stage_units())
    rows = path_survival(num_units, study.deleted)
    provenance = collect(
        experiment.model_dump(mode="json"),
        seeds=(),
        started=datetime.now(UTC),
        profile=experiment.profile,
    )
    written = Written([write_table(rows, "path_survival", out, provenance)])
    frame = read_table(written.files[0])
    title = f"{experiment.title}, {num_units} units"
    written.files += plot_for("path_survival", {"path_survival": frame}, out, title)
    left = {
        count: sum(row["remaining"] for row in rows if row["deleted"] == count)
        for count in study.deleted
    }
    shares = {str(count): left[count] / 2**num_units for count in left}
    written.facts = {"units": num_units, "paths_left": shares}
    display.table(
        f"{num_units} units, {2**num_units:,} paths",
        ["units deleted", "paths left", "share of all"],
        [[count, f"{left[count]:,}", f"{100 * shares[str(count)]:.3g} %"] for count in left],
    )
    return written


def _trained(
    experiment: Experiment,
    case: Case,
    run: RunConfig,
    context: Context,
    display: Display,
    stopper: Stopper,
) -> FinishedRun:
    """The finished run of a case, trained now if it was not."""
    label = f"{case.name}, seed {run.seed}"
    finished = find_finished(context, run)
    if finished is not None:
        display.line(f"{label}: trained already ({finished.folder})")
        return finished
    with display.progress(label) as update:

        def report(progress: Progress) -> None:
            row = progress.row
            update(progress.iteration, progress.total, "")
            if row is not None:
                display.line(f"{label}: {_epoch_line(row)}")

        finished = train_run(
            context,
            run,
            experiment=experiment.name,
            case=case.name,
            profile=experiment.profile,
            stopper=stopper,
            report=report,
            note=display.line,
        )
    if finished.diverged_at is not None:
        display.line(f"{label}: diverged, loss not finite at iteration {finished.diverged_at}")
    return finished


def _epoch_line(row: Mapping[str, Any]) -> str:
    parts = [f"epoch {row['epoch']}", f"iteration {row['iteration']}"]
    if row["train_loss"] is not None:
        parts.append(f"train loss {row['train_loss']:.4f}")
    if row["test_error"] is not None:
        parts.append(f"test error {row['test_error']:.2f} %")
    if row["images_per_second"] is not None:
        parts.append(f"{row['images_per_second']:.0f} images/s")
    return ", ".join(parts)


def write_training_tables(
    experiment: Experiment,
    trained: Sequence[tuple[Case, FinishedRun]],
    context: Context,
    out: Path,
    started: datetime,
    *,
    plot: bool = True,
) -> Written:
    """training.csv and table.csv with their plots, from finished runs."""
    curves = [
        {"experiment": experiment.name, "case": case.name} | row
        for case, finished in trained
        for row in finished.rows
    ]
    table = [_table_row(experiment, case, finished) for case, finished in trained]
    provenance = collect(
        experiment.model_dump(mode="json"),
        seeds=experiment.seeds,
        started=min([started, *(datetime.fromisoformat(f.started) for _, f in trained)]),
        profile=experiment.profile,
        data={name: print_ for _, finished in trained for name, print_ in finished.data.items()},
        device=str(context.device),
        duration_seconds=sum(finished.seconds for _, finished in trained),
    )
    title = describe(experiment.title, trained[0][1].run.data.dataset, experiment.profile)
    written = Written()
    for stem, rows in (("training", curves), ("table", table)):
        if not rows:
            continue
        path = write_table(rows, stem, out, provenance)
        written.files.append(path)
        numbers = None
        if stem == "table" and experiment.paper == "he2016" and experiment.figure is not None:
            numbers = published(experiment.paper)
            numbers = numbers[numbers["source"] == experiment.figure]
            numbers = None if numbers.empty else numbers
        if plot:
            frame = read_table(path)
            written.files += plot_for(stem, {stem: frame}, out, title, numbers=numbers)
    written.facts = {"cases": [dict(row) for row in table]}
    return written


def status(experiment: Experiment, finished: FinishedRun) -> str:
    """`diverged`, `fail` (test error above the experiment's `fail_above`), or `ok`."""
    if finished.diverged_at is not None or finished.test_error is None:
        return "diverged"
    limit = experiment.fail_above
    if limit == "auto":
        limit = 20.0 if finished.num_classes <= 10 else None
    return "fail" if limit is not None and finished.test_error > limit else "ok"


def _table_row(experiment: Experiment, case: Case, finished: FinishedRun) -> dict[str, Any]:
    paper_error = None
    if experiment.paper is not None and experiment.figure is not None:
        paper_error = published_error(experiment.paper, experiment.figure, case.name)
    return {
        "experiment": experiment.name,
        "case": case.name,
        "dataset": finished.run.data.dataset,
        "seed": finished.run.seed,
        "params": finished.parameters,
        "status": status(experiment, finished),
        "test_error": finished.test_error,
        "best_error": finished.best_error,
        "paper_error": paper_error,
    }


def _show_table(experiment: Experiment, out: Path, display: Display) -> None:
    frame = read_table(out / "table.csv")
    columns = ("case", "seed", "params", "status", "test_error", "best_error", "paper_error")
    rows = [
        [None if value != value else value for value in row]  # NaN is the one unequal to itself
        for row in frame[list(columns)].itertuples(index=False)
    ]
    display.table(f"{experiment.title} ({experiment.profile})", columns, rows)


# --- studies -----------------------------------------------------------------------------------


def run_study(
    subject: Subject,
    study: AnyStudy,
    *,
    seed: int,
    out: Path,
    display: Display,
    profile: str | None = None,
    config: Mapping[str, Any] | None = None,
    only: Sequence[int] | None = None,
    ranked: bool = False,
    batch_statistics: bool = False,
) -> Written:
    """Ask a study of a network and write its tables and plots; skipped when `out` has them.

    Args:
        config: the resolved experiment; None for a command typed by hand.
        only: delete exactly these units, together.
        ranked: show deletions by damage, worst first.

    Raises:
        UserError: the study asks for units or lengths that the network does not have.
    """
    by_hand = {"model": subject.loaded.model.model_dump(mode="json")}
    described = dict(config or by_hand) | {
        "study": study.model_dump(mode="json"),
        "data": subject.data.model_dump(mode="json"),
        "only": list(only) if only is not None else None,
        "batch_statistics": batch_statistics,
        "seed": seed,
    }
    recorder = _Recorder(subject, described, seed, out, profile)
    if isinstance(study, DeleteStudy):
        _delete(subject, study, seed, recorder, display, only, ranked)
    elif isinstance(study, ReorderStudy):
        _reorder(subject, study, seed, recorder, display)
    elif isinstance(study, GreedyStudy):
        _greedy(subject, study, seed, recorder, display)
    elif isinstance(study, AdditivityStudy):
        _additivity(subject, study, seed, recorder, display)
    else:
        _paths(subject, study, seed, recorder, display, batch_statistics)
    return recorder.written


class _Recorder:
    """Writes a study's tables with their provenance, and knows which are there already."""

    def __init__(
        self,
        subject: Subject,
        config: Mapping[str, Any],
        seed: int,
        out: Path,
        profile: str | None,
    ) -> None:
        self.subject, self.config, self.seed, self.out = subject, config, seed, out
        self.profile = profile
        self.started = datetime.now(UTC)
        self.written = Written()
        self.split: str = "test"

    def done(self, stem: str) -> bool:
        """This very table is there: same configuration, same weights, whole."""
        path = self.out / f"{stem}.csv"
        try:
            if not path.exists() or not is_pair(path):
                return False
            old = read_provenance(path)
        except UserError:
            return False
        same_weights = (old.get("checkpoint") or {}).get("sha256") == self.subject.loaded.sha256
        return same_weights and old.get("config_hash") == config_hash(self.config)

    def write(self, stem: str, rows: Sequence[Mapping[str, Any]], *splits: str) -> None:
        """Write a table; `splits` are those that were measured on."""
        loaded, data = self.subject.loaded, self.subject.data
        provenance = collect(
            self.config,
            seeds=(self.seed,),
            started=self.started,
            profile=self.profile,
            data={
                f"{data.dataset}/{name}": self.subject.context.split(data, name).fingerprint  # type: ignore[arg-type]
                for name in splits
            },
            checkpoint=Checkpoint(loaded.source, loaded.sha256),
            device=str(self.subject.context.device),
        )
        self.written.files.append(write_table(rows, stem, self.out, provenance))

    def plot(self, *stems: str) -> None:
        """Draw the last of these tables, with the others at hand."""
        tables = {
            stem: read_table(self.out / f"{stem}.csv")
            for stem in stems
            if (self.out / f"{stem}.csv").exists()
        }
        loaded, data = self.subject.loaded, self.subject.data
        places = loaded.network.places
        self.written.files += plot_for(
            stems[-1],
            tables,
            self.out,
            describe(loaded.model.label, data.dataset, self.profile),
            network=loaded.model.label,
            changes=[place.index for place in places if place.changes_shape],
            chance=100.0 * (1 - 1 / loaded.num_classes),
        )

    def plot_ranked(self, deletions: DataFrame) -> None:
        """Draw single deletions by damage."""
        loaded, data = self.subject.loaded, self.subject.data
        changes = [place.index for place in loaded.network.places if place.changes_shape]
        title = describe(loaded.model.label, data.dataset, self.profile)
        path = self.out / "lesion_ranked.png"
        self.written.files.append(plot_lesion_ranked(deletions, path, title, changes=changes))


def _delete(
    subject: Subject,
    study: DeleteStudy,
    seed: int,
    recorder: _Recorder,
    display: Display,
    only: Sequence[int] | None,
    ranked: bool,
) -> None:
    num_units = len(subject.loaded.network.units)
    if only is not None:
        deletions = [lesion.Deletion(0, tuple(only))]
    else:
        deletions = lesion.draw_deletions(num_units, study.k, study.samples, seed)
    stems = ["lesion_delete", *(["lesion_classes"] if study.per_class else [])]
    if not all(recorder.done(stem) for stem in stems):
        batches = subject.batches("test")
        with display.progress(f"deleting units of {subject.label}") as update:
            outcomes = lesion.measure_deletions(subject.loaded.network, batches, deletions, update)
        rows = lesion.deletion_rows(deletions, outcomes, seed)
        recorder.write("lesion_delete", rows, "test")
        if study.per_class:
            by_class = lesion.class_rows(deletions, outcomes, batches, seed)
            recorder.write("lesion_classes", by_class, "test")
    if only is None:
        recorder.plot("lesion_delete")
    if study.per_class:
        recorder.plot("lesion_classes")
    frame = read_table(recorder.out / "lesion_delete.csv")
    if ranked and (frame["k"] == 1).any():
        recorder.plot_ranked(frame)
    baseline = float(frame["baseline_error"].iloc[0])
    recorder.written.facts = {
        "baseline_error": baseline,
        "rows": len(frame),
        "median_error_by_k": {
            str(k): float(errors.median()) for k, errors in frame.groupby("k")["test_error"]
        },
    }
    title = f"{subject.label}: {frame['images'].iloc[0]} images, intact {baseline:.2f} %"
    _show_deletions(subject, frame, title, ranked, display)
    if study.per_class:
        _show_classes(read_table(recorder.out / "lesion_classes.csv"), display)


MOST_SHOWN = 60
"""Deletions listed one by one; more are summarised by k, or cut when ranked."""


def _show_deletions(
    subject: Subject, frame: DataFrame, title: str, ranked: bool, display: Display
) -> None:
    """Each deletion in a row, in order or worst first; or a summary by k where they are many."""
    if ranked:
        worst = frame.sort_values(["test_error", "loss"], ascending=False, kind="stable")
        if len(worst) > MOST_SHOWN:
            title += f"; the worst {MOST_SHOWN} of {len(worst)}"
        frame = worst.head(MOST_SHOWN)
    elif frame["k"].nunique() > 1 or len(frame) > MOST_SHOWN:
        summary = frame.groupby("k")["test_error"].describe()[["count", "min", "50%", "max"]]
        display.table(
            title,
            ["k", "samples", "min error", "median error", "max error"],
            [[k, int(n), *rest] for k, n, *rest in summary.itertuples()],
        )
        return
    shown = ["blocks", "test_error", "kl_divergence", "agreement"]
    rows = [list(row) for row in frame[shown].itertuples(index=False)]
    columns = list(shown)
    if (frame["k"] == 1).all():
        places = subject.loaded.network.places
        columns = ["unit", "name", *shown[1:]]
        rows = [[blocks, places[int(blocks)].name, *rest] for blocks, *rest in rows]
    display.table(title, columns, rows)


def _show_classes(classes: DataFrame, display: Display) -> None:
    """The error of each class, intact and by deletion."""
    by_class = classes.groupby(["class", "class_name"], sort=True)
    display.table(
        "by class",
        ["class", "images", "intact", "mean with units deleted", "worst", "units deleted there"],
        [
            [
                name,
                int(rows["images"].iloc[0]),
                float(rows["baseline_error"].iloc[0]),
                float(rows["test_error"].mean()),
                float(rows["test_error"].max()),
                rows["blocks"].iloc[int(rows["test_error"].fillna(-1).argmax())],
            ]
            for (_, name), rows in by_class
        ],
    )


def _greedy(
    subject: Subject, study: GreedyStudy, seed: int, recorder: _Recorder, display: Display
) -> None:
    network = subject.loaded.network
    num_units = len(network.units)
    ks = range(1, study.max_units + 1)
    if not (recorder.done("lesion_greedy") and recorder.done("lesion_delete")):
        batches = subject.batches("test")
        chosen_on, splits = None, ["test"]
        if study.choose_on == "train":
            limit = study.choose_images or subject.data.train_images
            data = subject.data.model_copy(update={"train_images": limit})
            chosen_on, splits = replace(subject, data=data).batches("train"), ["test", "train"]
        with display.progress(f"deleting the least harmful units of {subject.label}") as update:
            rows = greedy.delete_greedily(
                network, batches, study.max_units, seed, choose_on=chosen_on, report=update
            )
        recorder.write("lesion_greedy", rows, *splits)
        deletions = lesion.draw_deletions(num_units, ks, study.samples, seed)
        with display.progress(f"deleting random units of {subject.label}") as update:
            drawn = lesion.delete_units(network, batches, deletions, seed, update)
        recorder.write("lesion_delete", drawn, "test")
    recorder.plot("lesion_delete", "lesion_greedy")
    frame = read_table(recorder.out / "lesion_greedy.csv")
    random = read_table(recorder.out / "lesion_delete.csv").groupby("k")["test_error"].mean()
    baseline = float(frame["baseline_error"].iloc[0])
    recorder.written.facts = {
        "baseline_error": baseline,
        "chosen_on": study.choose_on,
        "order": [int(unit) for unit in frame["unit"]],
        "error_by_k": {
            str(k): error for k, error in zip(frame["k"], frame["test_error"], strict=True)
        },
        "mean_random_error_by_k": {str(k): float(error) for k, error in random.items()},
    }
    display.table(
        f"{subject.label}: {frame['images'].iloc[0]} images, intact {baseline:.2f} %; units chosen "
        f"on {'these same' if study.choose_on == 'test' else 'training'} images",
        ["k", "unit deleted", "error", "mean error, random"],
        [
            [k, unit, error, float(random[k])]
            for k, unit, error in frame[["k", "unit", "test_error"]].itertuples(index=False)
        ],
    )


def _additivity(
    subject: Subject, study: AdditivityStudy, seed: int, recorder: _Recorder, display: Display
) -> None:
    network = subject.loaded.network
    sets = additivity.draw_sets(len(network.units), study.k, study.samples, seed)
    if not recorder.done("lesion_additivity"):
        batches = subject.batches("test")
        with display.progress(f"deleting sets of units of {subject.label}") as update:
            rows = additivity.compare_damages(network, batches, sets, seed, update)
        recorder.write("lesion_additivity", rows, "test")
    recorder.plot("lesion_additivity")
    frame = read_table(recorder.out / "lesion_additivity.csv")
    found = additivity.correlations(frame.to_dict("records"))  # type: ignore[arg-type]
    recorder.written.facts = {
        "baseline_error": float(frame["baseline_error"].iloc[0]),
        "rows": len(frame),
        "correlation": found,
    }
    columns = ["joint_damage", "summed_damage", "joint_loss_damage", "summed_loss_damage"]
    display.table(
        f"{subject.label}: {frame['images'].iloc[0]} images; means over sets of k units",
        ["k", "sets", "joint error", "summed error", "joint loss", "summed loss"],
        [
            [k, len(rows), *(float(rows[column].mean()) for column in columns)]
            for k, rows in frame.groupby("k")
        ],
    )
    told = [f"{name.replace('_', ', ')}: {_correlation(value)}" for name, value in found.items()]
    display.line(f"correlation of joint with summed damage: {'; '.join(told)}", level=-1)


def _correlation(value: float | None) -> str:
    return "none, the damages do not vary" if value is None else f"{value:.3f}"


def _reorder(
    subject: Subject, study: ReorderStudy, seed: int, recorder: _Recorder, display: Display
) -> None:
    network = subject.loaded.network
    if not recorder.done("lesion_reorder"):
        draws = lesion.draw_reorderings(network.places, study.swaps, study.samples, seed)
        batches = subject.batches("test")
        with display.progress(f"reordering units of {subject.label}") as update:
            rows = lesion.reorder_units(network, batches, draws, seed, update)
        recorder.write("lesion_reorder", rows, "test")
    recorder.plot("lesion_reorder")
    frame = read_table(recorder.out / "lesion_reorder.csv")
    by_swaps = frame.groupby("swaps")[["kendall_tau", "test_error"]].median()
    recorder.written.facts = {
        "baseline_error": float(frame["baseline_error"].iloc[0]),
        "rows": len(frame),
        "median_error_by_swaps": {str(k): float(e) for k, _, e in by_swaps.itertuples()},
    }
    display.table(
        f"{subject.label}: {frame['images'].iloc[0]} images, "
        f"intact {frame['baseline_error'].iloc[0]:.2f} %",
        ["swaps", "median Kendall tau", "median error"],
        list(by_swaps.itertuples()),
    )


def _paths(
    subject: Subject,
    study: PathsStudy,
    seed: int,
    recorder: _Recorder,
    display: Display,
    batch_statistics: bool,
) -> None:
    network = subject.loaded.network
    num_units = len(network.units)
    ks = tuple(range(num_units + 1)) if study.k is None else study.k
    paths.check_lengths(ks, num_units)
    recorder.write("path_lengths", paths.path_lengths(num_units))
    if study.lengths_only:
        recorder.plot("path_lengths")
        recorder.written.facts = {"units": num_units, "paths": 2**num_units}
        rows = [
            [row["k"], f"{row['paths']:,}", f"{100 * row['fraction']:.4f} %"]
            for row in paths.path_lengths(num_units)
        ]
        display.table(f"{subject.label}: {2**num_units:,} paths", ["k", "paths", "share"], rows)
        return
    stems = ["path_gradients", "path_spectrum"]
    stems += ["path_spectrum_stages"] if study.stages else []
    stems += ["path_spectrum_unit"] if study.unit is not None else []
    if not all(recorder.done(stem) for stem in stems):
        _measure_paths(subject, study, ks, seed, recorder, display, batch_statistics)
    recorder.plot("path_lengths", "path_gradients", "path_spectrum")
    recorder.plot("path_lengths", "path_spectrum", "path_gradients")
    for stem in stems[2:]:
        recorder.plot(stem)
    _show_spectrum(subject, recorder, display)


def _measure_paths(
    subject: Subject,
    study: PathsStudy,
    ks: Sequence[int],
    seed: int,
    recorder: _Recorder,
    display: Display,
    batch_statistics: bool,
) -> None:
    """Sample paths and, if asked, sweep the exact spectra; write their tables."""
    network = subject.loaded.network
    num_units = len(network.units)
    batches = subject.batches("train")
    with display.progress(f"sampling paths of {subject.label}") as update:
        gradients = paths.sample_path_gradients(
            network,
            batches,
            ks,
            study.samples,
            study.batch_size,
            seed,
            estimator=study.estimator,
            batch_statistics=batch_statistics,
            report=update,
        )
    recorder.write("path_gradients", gradients, "train")
    images, labels = batches.plain(paths.batch_indices(len(batches), study.batch_size, seed, 0))
    exact = None
    if study.exact:
        with display.progress(f"exact spectrum of {subject.label}") as update:
            exact = paths.exact_spectrum(network, images, labels, report=update)
        recorder.written.facts["exact_check"] = exact.check
        display.line(f"exact spectrum over {exact.images} images: {_checked(exact)}")
    recorder.write("path_spectrum", paths.spectrum_rows(num_units, gradients, exact), "train")
    if study.stages:
        rows = []
        for stage in sorted({place.stage for place in network.places}):
            counted = [place.index for place in network.places if place.stage == stage]
            with display.progress(f"exact spectrum of stage {stage}") as update:
                found = paths.exact_spectrum(network, images, labels, counted, update)
            display.line(f"stage {stage}, {len(counted)} units: {_checked(found)}")
            rows += paths.exact_rows("stage", stage, found)
        recorder.write("path_spectrum_stages", rows, "train")
    if study.unit is not None:
        with display.progress(f"exact spectrum at unit {study.unit}") as update:
            found = paths.exact_spectrum_of_unit(network, images, labels, study.unit, update)
        display.line(f"parameters of unit {study.unit}: {_checked(found)}")
        recorder.write("path_spectrum_unit", paths.exact_rows("unit", study.unit, found), "train")


def _checked(exact: paths.ExactSpectrum) -> str:
    return f"its sum differs from the ordinary gradient by {exact.check:.1e} (relative)"


def _show_spectrum(subject: Subject, recorder: _Recorder, display: Display) -> None:
    """The spectrum as a table, and the intervals of lengths that hold most of it."""
    frame = read_table(recorder.out / "path_spectrum.csv")
    num_units = len(subject.loaded.network.units)
    recorder.written.facts |= {"rows": len(frame)}
    columns = ("k", "paths", "mean_norm", "exact_norm", "share_total", "share_exact")
    display.table(
        f"{subject.label}: gradient by path length, {num_units} units",
        ["k", "paths", "mean norm", "exact norm", "share sampled", "share exact"],
        [
            [k, _short(paths_of_k), _short(mean), _short(whole), _percent(st), _percent(se)]
            for k, paths_of_k, mean, whole, st, se in frame[list(columns)].itertuples(index=False)
        ],
    )
    if len(frame) < num_units + 1:
        return
    for name, column in (("sampled", "total"), ("exact", "exact_norm")):
        weights = [float(weight) for weight in frame[column]]
        if not any(weight > 0 for weight in weights):
            continue
        lengths = [int(k) for k in frame["k"]]
        intervals = {share: shortest_interval(lengths, weights, share) for share in SHARES}
        words = ", ".join(f"{share:.0%} in {a}-{b}" for share, (a, b) in intervals.items())
        first, last = intervals[0.9]
        inside = sum(math.comb(num_units, k) for k in range(first, last + 1)) / 2**num_units
        display.line(
            f"{name}: {words} units; {first}-{last} are {100 * inside:.2g} % of all paths", level=-1
        )
        recorder.written.facts[f"intervals_{name}"] = {
            f"{share:g}": list(interval) for share, interval in intervals.items()
        }


def _short(value: float) -> str:
    """Three digits; `-` where nothing was measured."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2f} %"
